"""Which arguments are secret, and what is shown in their place.

The client says so of a call (``shown_arguments``), or harpd does, which knows what the procedure
declares. The dispatcher looks into neither.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

NOT_SHOWN = b'["(not shown)"]'
"""What is shown where it is not known which of the arguments are secret."""

MAX_KNOWN = 10_000
"""Procedures that are known to have secret parameters, of all hosts."""

MAX_NAME = 1000
"""The longest name of host and procedure together that is kept, in characters."""


class SecretProcedures:
    """The procedures of which harpd has said that some of their parameters are secret.

    Those that were named last are kept.

    :param known: host and procedure of those that it was said of before.
    """

    def __init__(self, known: Iterable[tuple[str, str]] = ()) -> None:
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict.fromkeys(known)

    def __contains__(self, called: tuple[str, str]) -> bool:
        return called in self._known

    def learn(self, host: str, procedure: str, has_secrets: bool) -> bool:
        """Take what harpd has said of a procedure, by the acknowledgement of a call.

        :return: whether something else was known of it.
        """
        called = (host, procedure)
        was_known = called in self._known
        if not has_secrets:
            self._known.pop(called, None)
            return was_known
        if len(host) + len(procedure) > MAX_NAME:
            return False
        self._known[called] = None
        self._known.move_to_end(called)
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        return not was_known


def shown_after(before: bytes | None, told: bytes) -> bytes:
    """Return what is shown of a call's arguments when harpd has said how they may be shown.

    :param before: what was shown until then; None if the arguments were.
    :param told: what harpd said, which knows nothing of what the client wants to be hidden.
    """
    if before is None or before == NOT_SHOWN:
        return told
    # Each may show what the other one hides.
    return before if before == told else NOT_SHOWN
