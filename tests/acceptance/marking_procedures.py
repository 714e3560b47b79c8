"""The procedures of the kill loops: each call leaves a mark that says when it began and ended."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from harpd.proc import Result, procedure, streaming_procedure


@contextmanager
def marked(mark: str) -> Iterator[None]:
    """Write the begin, with what names this process for ever, and the end into a file.

    A second run with the same mark goes into a file beside it.
    """
    how = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
    try:
        file = os.open(mark, how, 0o600)
    except FileExistsError:
        file = os.open(f"{mark}.again.{os.getpid()}", how, 0o600)
    with open("/proc/self/stat", "rb") as stat:
        started = int(stat.read().rpartition(b")")[2].split()[19])
    # One write each, so that no kill leaves half a line.
    os.write(file, b"%d %d %d\n" % (time.monotonic_ns(), os.getpid(), started))
    try:
        yield
    finally:
        os.write(file, b"%d\n" % time.monotonic_ns())


@procedure
def plain(mark: str, value: Any) -> Any:
    """Return what came in."""
    with marked(mark):
        return value


@procedure
def slow(mark: str, seconds: float) -> float:
    """Return late, so that others could run at the same time."""
    with marked(mark):
        time.sleep(seconds)
        return seconds


@streaming_procedure
def stream(mark: str, packets: int) -> Iterator[Any]:
    """Stream numbers, then return how many there were."""
    with marked(mark):
        yield from range(packets)
        yield Result(packets)


@procedure
def stubborn(mark: str) -> None:
    """Start children, one in a session of its own, all deaf to TERM as this itself, and stay."""
    with marked(mark):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        environment = {**os.environ, "HARPCALLER_TEST_MARK": mark}
        deaf = ["sh", "-c", "trap '' TERM; while :; do sleep 3600; done"]
        subprocess.Popen(deaf, env=environment)
        subprocess.Popen(["setsid", *deaf], env=environment)
        while True:
            signal.pause()
