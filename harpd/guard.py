"""The parent of a zygote: when that has died, however, its calls are ended with all they started.

It is small, runs no code of the operator's and adopts what the zygote leaves. Which of that are
calls, and not services that a call has restarted, is told to it by the calls and by the zygote.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from os import close, getpid, pwrite
from typing import NoReturn

from harpd import tree

KILL_ZYGOTE = signal.SIGUSR1
"""Sent to the guard it has the zygote killed, which does not end by itself."""

_IS_CALL = b"\1"


class Register:
    """Tells the guard which processes are those of calls: a file in memory, a byte for each pid.

    Nobody is woken when a process is entered; the guard looks when the zygote is gone.

    :param guard: its process id.
    """

    def __init__(self, guard: int) -> None:
        self.guard = guard
        self._file = os.memfd_create("harpd-calls")

    def enter(self) -> None:
        """Say that this process is a call's, before it does anything else."""
        pwrite(self._file, _IS_CALL, getpid())
        close(self._file)

    def strike(self, pid: int) -> None:
        """Say that the process of a call has been waited for."""
        pwrite(self._file, b"\0", pid)

    def holds(self, pid: int) -> bool:
        """Tell whether this is the process of a call."""
        return os.pread(self._file, 1, pid) == _IS_CALL


def fork_zygote(control: socket.socket, kill_grace: float) -> Register:
    """Leave the guard as parent and return in the process that is to be the zygote.

    :param control: the zygote's, which the guard closes.
    :param kill_grace: seconds between TERM and KILL.
    """
    register = Register(os.getpid())
    os.setsid()
    tree.adopt_orphans()
    zygote = os.fork()
    if zygote:
        _be_guard(zygote, control, register, kill_grace)
    os.setsid()  # what ends the one group must not end the other
    return register


def end_calls(leaders: Iterable[int], left: Mapping[int, int], kill_grace: float) -> None:
    """End calls because nobody is left to take their results: TERM, and KILL after the grace.

    :param leaders: the processes of calls, children of this one.
    :param left: what was told to end and has no leader any more, see `harpd.tree.terminate`.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    running = set(leaders)
    members = dict(left)
    for pid in running:
        members.update(tree.terminate(pid))
    deadline = time.monotonic() + kill_grace
    while running:
        _reap(running)
        remaining = deadline - time.monotonic()
        if not running or remaining <= 0:
            break
        signal.sigtimedwait({signal.SIGCHLD}, min(remaining, tree.WAKE_AFTER))
        for pid in running:
            tree.wake(pid)
    for pid in running:
        tree.kill(pid)
    tree.kill_remaining(members)


def _be_guard(
    zygote: int, control: socket.socket, register: Register, kill_grace: float
) -> NoReturn:
    status = 1
    try:
        control.close()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # as the zygote does
        signal.signal(KILL_ZYGOTE, lambda number, frame: os.kill(zygote, signal.SIGKILL))
        _, ended = os.waitpid(zygote, 0)
        signal.signal(KILL_ZYGOTE, signal.SIG_IGN)
        code = os.waitstatus_to_exitcode(ended)
        status = code if code >= 0 else 128 - code  # as shells say it
        calls = filter(register.holds, tree.descendants(os.getpid()))
        end_calls(calls, {}, kill_grace)
    finally:
        os._exit(status)


def _reap(running: set[int]) -> None:
    """Take the dead out of the running calls."""
    with suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            pid, status = found
            if pid in running and os.WIFSIGNALED(status):
                tree.kill_session(pid)  # it did not mean to leave anything behind
            running.discard(pid)
