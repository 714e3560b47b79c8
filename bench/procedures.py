"""What the benchmarks call."""

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
