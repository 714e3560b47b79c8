"""What the benchmarks call."""

import os
import signal
from collections.abc import Iterator

from harpd.proc import procedure, streaming_procedure


@procedure
def nothing() -> None:
    """Return at once."""


@streaming_procedure
def packets(count: int, size: int) -> Iterator[str]:
    """Stream texts of the same size as fast as they are taken."""
    text = "x" * size
    for _ in range(count):
        yield text


@procedure
def fail() -> None:
    """Raise."""
    raise LookupError("no")


@procedure
def return_nan() -> float:
    """Return what JSON can't carry."""
    return float("nan")


@procedure
def exit_hard() -> None:
    """End the process without a result."""
    os._exit(1)


@procedure
def die() -> None:
    """End the process by a signal."""
    os.kill(os.getpid(), signal.SIGKILL)


@procedure
def close_descriptors() -> None:
    """Take away what the result would go through."""
    os.closerange(0, 256)


@procedure
def print_megabytes() -> None:
    """Print 4 MiB in lines, then end without a result."""
    for _ in range(4096):
        print("x" * 1023)
    os._exit(1)
