"""What this machine can do at most where each call is a process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from bench import forks
from bench.clients import CLIENTS, Outcome, repeat
from bench.figures import WrongResultError
from bench.limits import CORES, Table
from harpd.orders import MAX_MESSAGE
from harpd.zygote_command import write_settings, zygote_command, zygote_settings

_PROCEDURES = str(Path(__file__).with_name("procedures.py"))
_EXITING = str(Path(__file__).with_name("exiting_procedures.py"))


def zygote_calls_per_second(calls: int = 1000) -> float:
    """Return how many calls a second harpd's zygote alone can fork and see the end of.

    It is the real one, with the procedures of the benchmarks, told to start calls as harpd tells
    it, as many at once as there are clients. Each fork exits before it does anything. The zygote
    has one thread; both cores work because the forks end, and are told of, while it forks the next
    ones.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    settings = replace(
        zygote_settings(_EXITING, [str(Path(__file__).parents[1])]), control=theirs.fileno()
    )
    with ExitStack() as opened:
        with theirs:
            written = write_settings(settings)
            process = subprocess.Popen(zygote_command(written), pass_fds=[theirs.fileno(), written])
            os.close(written)
        opened.callback(process.wait)
        opened.enter_context(ours)
        descriptors = _ends_of_a_call(opened)
        while "ready" not in json.loads(ours.recv(MAX_MESSAGE)):
            pass
        begin = time.perf_counter()
        for number in range(calls + CLIENTS):
            if number < calls:
                start = json.dumps({"start": number, "procedure": "echo"}).encode()
                socket.send_fds(ours, [start], descriptors)
            if number >= CLIENTS and "exited" not in (news := json.loads(ours.recv(MAX_MESSAGE))):
                raise WrongResultError(f"the zygote alone said {news}")
        return calls / (time.perf_counter() - begin)


def _ends_of_a_call(opened: ExitStack) -> list[int]:
    """Return a socket and a pipe, which all calls may share that use neither."""
    ends = socket.socketpair()
    read, write = os.pipe()
    for end in ends:
        opened.enter_context(end)
    for descriptor in (read, write):
        opened.callback(os.close, descriptor)
    return [ends[0].fileno(), write]


def forks_per_second(children: int = 500) -> float:
    """Return how many processes a second all cores can fork and end, and do nothing else.

    Each core has a process as large as the zygote that forks in a loop, with a few children in
    flight: no message tells it to and none tells of the end.
    """
    with ExitStack() as started:
        zygotes = [started.enter_context(ForkingZygote()) for _ in range(CORES)]
        for zygote in zygotes:
            zygote.begin(children)
        return sum(children / zygote.finish() for zygote in zygotes)


def bare_call(calls: int = 300) -> Outcome:
    """Return what a call can't do without, one after another: commit, fork and exit, commit."""
    with ForkingZygote() as zygote, Table() as table:

        def call() -> None:
            table.commit(1)
            zygote.begin(1)
            zygote.finish()
            table.commit(1)

        return repeat(call, calls)


class ForkingZygote:
    """A process of `bench.forks`, ended with the ``with`` block."""

    def __enter__(self) -> ForkingZygote:
        command = [sys.executable, "-P", forks.__file__, _PROCEDURES]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout
        self._out.readline()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.communicate()

    def begin(self, children: int) -> None:
        """Have it fork."""
        print(children, file=self._in, flush=True)

    def finish(self) -> float:
        """Wait until it has, and return how long it took in seconds."""
        return float(self._out.readline())
