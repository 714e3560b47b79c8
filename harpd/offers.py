"""What a zygote offers, as the network-facing process knows it, or why it offers nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


class ProceduresError(Exception):
    """The procedures file can't be loaded.

    :param mistakes: one sentence each.
    """

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("; ".join(mistakes))
        self.mistakes = mistakes


@dataclass(frozen=True)
class Offer:
    """A procedure that this daemon offers.

    :param timeout: its own time limit in seconds, None for none.
    :param lock: the lock that a call needs, if any.
    :param lock_wait: the longest wait for it in seconds, None for no limit.
    :param description: JSON, the answer to ``describe``.
    """

    streaming: bool
    timeout: float | None = None
    lock: str | None = None
    lock_wait: float | None = None
    description: bytes = field(default=b"{}", compare=False)


Catalogue = Mapping[str, Offer]
