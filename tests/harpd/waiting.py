"""Waiting for what other processes and the reactor do: for a condition, never for a time."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.task import deferLater

from harpd import tree

reactor: Any = _reactor

PATIENCE = 10.0
"""After how many seconds a test that hangs is given up."""

_STEP = 0.005


def alive(pid: int) -> bool:
    """Tell whether there is such a process that is more than a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return stat.read().rpartition(b")")[2].split()[0] not in {b"Z", b"X"}
    except OSError:
        return False


def processes() -> set[int]:
    """Return the living processes below this one; other tests keep daemons that they share."""
    return set(tree.descendants(os.getpid()))


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Block until the condition holds.

    :param what: what is waited for, said if it does not come.
    """
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"did not happen: {what}")
        select.select([], [], [], _STEP)


def wait_gone(*pids: int) -> None:
    """Block until none of the processes lives."""
    wait_until(lambda: not any(map(alive, pids)), f"the end of {pids}")


async def eventually(condition: Callable[[], object], what: str) -> None:
    """Let the reactor run until the condition holds."""
    deadline = reactor.seconds() + PATIENCE
    while not condition():
        if reactor.seconds() > deadline:
            raise AssertionError(f"did not happen: {what}")
        await deferLater(reactor, _STEP)


async def turns(count: int = 1) -> None:
    """Let the reactor make some turns."""
    for _ in range(count):
        await deferLater(reactor, 0)


def descriptors() -> set[str]:
    """Return what this process has open, each with its number and what it is."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{number} {os.readlink(f'/proc/self/fd/{number}')}")
        except OSError:
            continue  # the one that lists the folder
    return found
