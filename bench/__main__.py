"""Runs the benchmarks against real daemons on this machine and prints a table.

Rates depend on the machine and on what else it does: what is to be compared are the ratios.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import harp
from bench import limits
from bench.clients import in_processes
from demo.deployment import HOST, Deployment

CLIENTS = 16
CALLS = 60
"""How many calls each client makes, one after the other."""

PACKETS, PACKET_SIZE = 50_000, 100


def main() -> None:
    """Run all and print each figure with the limit beside it."""
    with tempfile.TemporaryDirectory(prefix="harpcaller-bench-") as name:
        folder = Path(name)
        procedures = Path(__file__).with_name("procedures.py")
        with Deployment(folder, procedures) as deployment:
            rpc = harp.HarpCaller("127.0.0.1", deployment.port)
            rpc.host(HOST).nothing().get()
            report(
                f"calls, {CLIENTS} clients, submitted and their result waited for",
                CLIENTS * CALLS / in_processes(CLIENTS, CALLS, deployment.port),
                "TLS handshakes of one client with one server, both bare",
                limits.tls_handshakes(folder / "harpd.pem", folder / "harpd.key"),
            )
            report(
                f"packets of {PACKET_SIZE} bytes, one stream, recorded and followed live",
                PACKETS / timed(lambda: follow(rpc)),
                "rows of that size into SQLite, 1000 a commit",
                limits.rows(folder / "limit.db", PACKETS, PACKET_SIZE),
            )


def follow(rpc: harp.HarpCaller) -> None:
    """Run one stream and follow it to its end."""
    count = sum(1 for _ in rpc.host(HOST).packets(PACKETS, PACKET_SIZE).follow(since=0))
    assert count == PACKETS, count


def timed(function: Callable[[], None]) -> float:
    """Return how long it takes, in seconds."""
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def report(what: str, rate: float, limit: str, limit_rate: float) -> None:
    """Print one figure, its limit and their ratio."""
    print(f"{rate:10.0f}/s  {what}")
    print(f"{limit_rate:10.0f}/s  limit: {limit}")
    print(f"{rate / limit_rate:11.3f}  ratio\n", flush=True)


if __name__ == "__main__":
    main()
