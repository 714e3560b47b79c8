"""What the benchmarks call."""

import os
import time
from collections.abc import Iterator

from harpd.proc import Result, procedure, streaming_procedure

_LOOK = 0.005  # seconds between two looks at a gate


@procedure
def echo(value: object) -> object:
    """Return what it is given."""
    return value


@procedure
def fail(text: str) -> None:
    """Raise."""
    raise LookupError(text)


@streaming_procedure
def packets(count: int, size: int, gate: str) -> Iterator[object]:
    """Stream texts of the same size as fast as they are taken, as soon as there is a file."""
    text = "x" * size
    while not os.path.exists(gate):
        time.sleep(_LOOK)
    for _ in range(count):
        yield text
    yield Result(count)


@streaming_procedure
def flood(count: int, size: int) -> Iterator[object]:
    """Stream its process id, then texts; return by how many bytes the process has grown."""
    text = "x" * size
    before = _peak()
    yield os.getpid()
    for _ in range(count):
        yield text
    yield Result(_peak() - before)


def _peak() -> int:
    with open("/proc/self/status") as status:
        return next(1024 * int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
