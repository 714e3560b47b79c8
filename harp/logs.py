"""How text that somebody else chose gets into the log of a daemon."""

from __future__ import annotations

CONTROL = {
    code: f"\\x{code:02x}" for code in [*range(32), *range(127, 160)] if chr(code) not in "\n\t"
}
"""For ``str.translate``: control characters could make a terminal that shows the log do things."""

_ONE_LINE = CONTROL | {ord("\n"): "\\n", ord("\t"): "\\t"}
_LONGEST = 200


def shown(text: str) -> str:
    """Return text from the network as it may stand in a line of the log: escaped, and cut."""
    if len(text) <= _LONGEST and text.isprintable():
        return text
    cut = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text)} characters)"
    return cut.translate(_ONE_LINE)
