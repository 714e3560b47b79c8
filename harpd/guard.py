"""The parent of a zygote: when that has died, however, its calls are ended with all they started.

It is small, runs no code of the operator's and adopts what the zygote leaves. Which of that are
calls, and not services that a call has restarted, is told to it by the calls and by the zygote.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import NoReturn

from harpd import tree

KILL_ZYGOTE = signal.SIGUSR1
"""Sent to the guard it has the zygote killed, which does not end by itself."""


class Register:
    """Tells the guard which processes are those of calls.

    :param descriptor: the writing end of the guard's pipe.
    :param guard: its process id.
    """

    def __init__(self, descriptor: int, guard: int) -> None:
        self.descriptor = descriptor
        self.guard = guard

    def enter(self) -> None:
        """Say that this process is a call's, before it does anything else.

        :raises OSError: if the guard is gone.
        """
        os.write(self.descriptor, b"%d\n" % os.getpid())
        self.close()

    def strike(self, pid: int) -> None:
        """Say that the process of a call has been waited for."""
        with suppress(OSError):
            os.write(self.descriptor, b"-%d\n" % pid)

    def close(self) -> None:
        """Close the pipe."""
        os.close(self.descriptor)


def fork_zygote(control: socket.socket, kill_grace: float) -> Register:
    """Leave the guard as parent and return in the process that is to be the zygote.

    :param control: the zygote's, which the guard closes.
    :param kill_grace: seconds between TERM and KILL.
    """
    guard = os.getpid()
    read, write = os.pipe()
    os.setsid()
    tree.adopt_orphans()
    zygote = os.fork()
    if zygote:
        _be_guard(zygote, control, read, write, kill_grace)
    os.setsid()  # what ends the one group must not end the other
    os.close(read)
    return Register(write, guard)


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
    zygote: int, control: socket.socket, read: int, write: int, kill_grace: float
) -> NoReturn:
    status = 1
    try:
        control.close()
        os.close(write)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # as the zygote does
        signal.signal(KILL_ZYGOTE, lambda number, frame: os.kill(zygote, signal.SIGKILL))
        leaders, ended = _watch(zygote, read)
        signal.signal(KILL_ZYGOTE, signal.SIG_IGN)
        status = ended if ended >= 0 else 128 - ended  # as shells say it
        end_calls(leaders & tree.descendants(os.getpid()).keys(), {}, kill_grace)
    finally:
        os._exit(status)


def _watch(zygote: int, read: int) -> tuple[set[int], int]:
    """Wait for the zygote's end; return the calls it leaves, and its exit code."""
    woken, wake = socket.socketpair()
    for end in (woken, wake):
        end.setblocking(False)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    os.set_blocking(read, False)
    leaders: set[int] = set()
    rest = b""
    ended: int | None = None
    while ended is None:
        # The first look comes before the first wait: it may have died before the handler was set.
        pid, status = os.waitpid(zygote, os.WNOHANG)
        if pid:
            ended = os.waitstatus_to_exitcode(status)
        else:
            select.select([read, woken.fileno()], [], [])
        with suppress(BlockingIOError):
            woken.recv(4096)
        with suppress(BlockingIOError):
            while data := os.read(read, 4096):
                *lines, rest = (rest + data).split(b"\n")
                for number in map(int, lines):
                    if number > 0:
                        leaders.add(number)
                    else:
                        leaders.discard(-number)
    signal.set_wakeup_fd(-1)
    return leaders, ended


def _reap(running: set[int]) -> None:
    """Take the dead out of the running calls."""
    with suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            pid, status = found
            if pid in running and os.WIFSIGNALED(status):
                tree.kill_session(pid)  # it did not mean to leave anything behind
            running.discard(pid)
