"""Arguments that nobody is shown: how a program marks them, and what stands in their place.

How they are written is ``harp.calls``'. The dispatcher keeps them out of lists and logs then, by
the extension ``shown_arguments``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SHOWN = "(secret)"
"""What stands in the place of a secret (protocol page)."""


@dataclass(frozen=True, slots=True)
class Secret:
    """An argument of a call that is never shown: ``web01.set_password("ada", harp.Secret(new))``.

    The procedure gets the value. ``"(secret)"`` stands in its place in what the dispatcher logs,
    lists and tells of the job, which forgets the value when the job starts. It may stand inside
    of lists and dicts, as a value, not as a key. Only an argument can be secret: ``info``, names of
    queues, ``dedup`` and ``context`` refuse it by a `TypeError`. A dispatcher that is too old to
    keep it secret is not given it: `UnsupportedError`. A call of `HarpServer` takes it too.

    Two are equal if their values are; its hash is made from the value's. A pickle has the value in
    it.

    :param value: anything that JSON can carry.
    """

    value: Any

    def __repr__(self) -> str:
        return f"harp.Secret('{SHOWN}')"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)
