"""What the conversations of one daemon share, and what carries each of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from typing import Protocol as Interface

from twisted.internet.interfaces import IPushProducer

from harp.deadline import Deadline
from harpd.auth import Login
from harpd.limits import Limits
from harpd.locks import Locks
from harpd.permissions import Permissions
from harpd.spawner import Spawner


@dataclass
class Policy:
    """What the configuration says of callers at the moment; a reload puts others in their place."""

    permissions: Permissions = field(default_factory=Permissions)
    limits: Limits = field(default_factory=Limits)


class InLine(Interface):
    """What waits for a lock."""

    def got_lock(self) -> None:
        """Go on: the lock that this call waited for has come to it."""


@dataclass(frozen=True)
class Parts:
    """What all conversations share.

    :param running: the numbers of the calls that there are.
    :param now: returns unix seconds.
    """

    reactor: Any
    login: Login
    spawner: Spawner
    policy: Policy = field(default_factory=Policy)
    locks: Locks[InLine] = field(default_factory=Locks)
    running: set[int] = field(default_factory=set)
    now: Callable[[], float] = time.time


class Connection(Interface):
    """What carries a conversation.

    :param deadline: what ends the conversation; the connection has set the one of the login.
    """

    client: str
    deadline: Deadline

    def logged_in(self) -> None:
        """Take notice that a login has succeeded."""

    def send(self, data: bytes) -> None:
        """Send something before the end."""

    def produce(self, producer: IPushProducer) -> None:
        """Pause and resume what comes from a producer."""

    def finish(self, line: bytes, keep: bool) -> None:
        """Send the last line, and take the next request if the client wants to keep this."""
