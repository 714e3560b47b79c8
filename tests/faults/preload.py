"""Makes system calls of a daemon fail and its clock jump, by a library that is loaded into it."""

from __future__ import annotations

import mmap
import shutil
import struct
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from harpcaller.demo.deployment import Daemon

_ORDERS = struct.Struct("=qiiiii")  # as in preload.c
_SOURCE = Path(__file__).with_name("preload.c")


def missing() -> str | None:
    """Return why it can't be used here, None if it can."""
    return None if shutil.which("cc") else "there is no C compiler"


@cache
def _library() -> Path:
    file = Path(tempfile.mkdtemp(prefix="harpcaller-test-")) / "preload.so"
    command = ["cc", "-shared", "-fPIC", "-O1", "-o", str(file), str(_SOURCE), "-ldl"]
    subprocess.run(command, check=True)
    return file


class Orders:
    """What the library is to do to a daemon from its next start on.

    :param daemon: not started yet.
    """

    def __init__(self, daemon: Daemon) -> None:
        file = daemon.log.with_suffix(".orders")
        file.write_bytes(bytes(_ORDERS.size))
        daemon.environment.update(LD_PRELOAD=str(_library()), HARPCALLER_TEST_ORDERS=str(file))
        with open(file, "r+b") as opened:
            self._mapped = mmap.mmap(opened.fileno(), _ORDERS.size)

    def give(self, clock: int = 0, sync_error: int = 0, write_error: int = 0) -> None:
        """Replace what was ordered before.

        :param clock: seconds by which the wall clock is ahead.
        :param sync_error: what fdatasync(2) and fsync(2) fail with, 0 if they work.
        :param write_error: what pwrite(2) fails with.
        """
        done = self._values()[3:]
        self._mapped[:] = _ORDERS.pack(clock, sync_error, write_error, *done)

    def obeyed(self) -> dict[str, int]:
        """Return how often each was done."""
        return dict(zip(("clock", "sync", "write"), self._values()[3:], strict=True))

    def _values(self) -> tuple[int, ...]:
        return _ORDERS.unpack(self._mapped[:])
