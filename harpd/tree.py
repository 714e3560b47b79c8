"""The process tree of a call: who is in it, and signals that reach all of it.

The process of a call leads a session of its own and adopts its orphans (`adopt_orphans`), so that
while it lives whatever it started, also in other sessions, is found below it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from os import getppid
from typing import NamedTuple

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_ROUNDS = 100  # a tree that forks faster than it is killed must not hold up the zygote for ever

_prctl = ctypes.CDLL(None).prctl


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent dies (prctl(2), Linux 3.4).

    :raises OSError: if the kernel refuses.
    """
    _control(_PR_SET_CHILD_SUBREAPER, 1)


PARENT_DIED = int(signal.SIGRTMAX)
"""What the kernel sends when a parent has died; a real-time signal is nobody's habit to ignore."""


WAKE = PARENT_DIED - 1
"""Interrupts a system call in which a process waits, and does nothing else.

Python looks for signals between its own steps: a TERM that comes between the last of these and a
call that waits is seen only when that returns.
"""

WAKE_AFTER = 0.2
"""Seconds from TERM to that."""


def watch_parent(parent: int) -> None:
    """Get `PARENT_DIED` when the parent dies, and when one dies that takes its place.

    setuid clears this, so it comes after it (prctl(2)).

    :param parent: the process id of the parent; if it is gone already, this process ends at once.
    :raises OSError: if the kernel refuses.
    """
    _control(_PR_SET_PDEATHSIG, PARENT_DIED)
    if getppid() != parent:
        os._exit(1)


def descendants(pid: int) -> dict[int, int]:
    """Return the living processes below one, each with its start time.

    A process id and its start time together name one process for ever, the id alone does not.
    Looks at every process there is: /proc/PID/task/TID/children is not in every kernel.

    :return: start times in clock ticks since boot, by process id.
    """
    below: dict[int, list[tuple[int, int | None]]] = {}
    for child, status in _processes():
        below.setdefault(status.parent, []).append((child, status.started))
    found: dict[int, int] = {}
    waiting = [pid]
    while waiting:
        for child, started in below.get(waiting.pop(), ()):
            waiting.append(child)
            if started is not None:
                found[child] = started
    return found


def terminate(leader: int) -> dict[int, int]:
    """Send TERM to a process and all below it.

    :return: those below it, for `kill_remaining`.
    """
    members = descendants(leader)
    for pid in [*members, leader]:
        _send(pid, signal.SIGTERM)
    return members


def wake(leader: int) -> None:
    """Let the process of a call, which has taken care of `WAKE`, see the TERM that it has got."""
    _send(leader, WAKE)


def kill(leader: int) -> None:
    """Kill a process, which may be this one, and all below it.

    They are stopped first: one that is being killed while another forks would leave an orphan, and
    a shell starts the next command when one has been killed. The leader is killed last, so that
    orphans can't leave the tree.
    """
    if leader != os.getpid():
        _send(leader, signal.SIGSTOP)
    stopped: dict[int, int] = {}
    for _ in range(_ROUNDS):
        new = descendants(leader).items() - stopped.items()
        if not new:
            break
        for pid, _ in new:
            _send(pid, signal.SIGSTOP)
        stopped.update(new)
    for pid in stopped:
        _send(pid, signal.SIGKILL)
    _send(leader, signal.SIGKILL)


def kill_remaining(members: dict[int, int]) -> None:
    """Kill what is left, and what is below it, of a tree whose leader is gone.

    :param members: what `terminate` returned.
    """
    for pid, started in members.items():
        if (status := _status(pid)) is not None and status.started == started:
            kill(pid)


def kill_session(leader: int) -> None:
    """Kill what a process that is dead has left in its session, and all below that."""
    for pid, status in list(_processes()):
        if status.session == leader and status.started is not None:
            kill(pid)


class _Status(NamedTuple):
    """A process as proc(5) has it; its start time is None once it is dead."""

    parent: int
    session: int
    started: int | None


def _processes() -> Iterator[tuple[int, _Status]]:
    for name in os.listdir("/proc"):
        if name.isdigit() and (status := _status(int(name))) is not None:
            yield int(name), status


def _status(pid: int) -> _Status | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            # The command's name, in parentheses, may hold anything (proc(5)).
            fields = stat.read().rpartition(b")")[2].split()
    except OSError:
        return None
    started = None if fields[0] in {b"Z", b"X"} else int(fields[19])
    return _Status(int(fields[1]), int(fields[3]), started)


def _send(pid: int, number: int) -> None:
    # One that has become another user's, as with sudo, is not ours to end if we are not root.
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _control(option: int, value: int) -> None:
    if _prctl(option, value, 0, 0, 0) != 0:
        # It does not know the option: the one error that there is (prctl(2)).
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
