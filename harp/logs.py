"""How what somebody else chose gets into the log of a daemon, and the lines that tell who did what.

What a line looks like is ``harp.logfile``'s.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

CONTROL = {
    code: f"\\x{code:02x}" for code in [*range(32), *range(127, 160)] if chr(code) not in "\n\t"
}
"""For ``str.translate``: control characters could make a terminal that shows the log do things."""

_ONE_LINE = CONTROL | {ord("\n"): "\\n", ord("\t"): "\\t"}
_LONGEST = 200


class Log(Protocol):
    """A logger of Twisted."""

    def info(self, format: str, **fields: object) -> None:
        """Log something."""


def shown(text: str) -> str:
    """Return text from the network as it may stand in a line of the log: escaped, and cut."""
    if len(text) <= _LONGEST and text.isprintable():
        return text
    cut = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text)} characters)"
    return printable(cut)


def printable(text: str) -> str:
    """Return text on one line, with escapes for all that does not print or changes how it reads."""
    if text.isprintable():
        return text
    told = text.translate(_ONE_LINE)
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in told)


def audit(
    log: Log, decision: Literal["allowed", "refused"], action: str, **fields: str | int | None
) -> None:
    """Log who asked for what, and what was decided.

    The fields stand in the line's object ``audit``, those that are None do not. None of them may
    be a credential or a payload.

    :param log: one that has no level below which it is silent.
    :param action: the key of the request on the wire.
    :param fields: ``user``, ``on_behalf_of``, ``peer`` (the address), ``host``, ``procedure``,
        ``job_id``, ``call`` (harpd's number of it), ``reason`` (of a refusal).
    """
    told: dict[str, Any] = {"action": action, "decision": decision}
    for name, value in fields.items():
        if value is not None:
            told[name] = shown(value) if isinstance(value, str) else value
    log.info("{audit[action]} {audit[decision]}", audit=told)
