"""What a zygote offers, as the network-facing process knows it, or why it offers nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harpd.call_limits import NO_LIMITS, CallLimits
from harpd.secrets import Shown


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
    :param limits: what harpd itself holds the calls to.
    :param shown: which arguments may be shown, None if none of them is secret.
    """

    streaming: bool
    timeout: float | None = None
    lock: str | None = None
    lock_wait: float | None = None
    description: bytes = field(default=b"{}", compare=False)
    limits: CallLimits = NO_LIMITS
    shown: Shown | None = None


def read_offer(message: Mapping[str, Any]) -> tuple[str, Offer]:
    """Return a procedure's name and offer, of what `harpd.description.offer` has made of it."""
    described, shown = message["procedure"], message.get("shown")
    offer = Offer(
        described["streaming"],
        described["timeout"],
        described["lock"],
        described["lock_wait"],
        json.dumps(described).encode(),
        CallLimits(**message.get("limits", {})),
        None if shown is None else Shown(**shown),
    )
    return described["name"], offer


Catalogue = Mapping[str, Offer]
