"""Runs the benchmarks against real daemons on this machine and prints a table.

Rates depend on the machine and on what else it does: what is to be compared are the ratios.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
        deployment = Deployment(folder, procedures)
        deployment.set_hosts(
            {
                HOST: deployment.host_entry(),
                "refuses.example.net": deployment.host_entry(port=limits.unused_port()),
                "password.example.net": deployment.host_entry(
                    credentials={"user": "panel", "password": "wrong"}
                ),
            }
        )
        with deployment:
            rpc = harp.HarpCaller("127.0.0.1", deployment.port)
            rpc.host(HOST).nothing().get()
            report_failures(rpc)
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


def report_failures(rpc: harp.HarpCaller) -> None:
    """Print how long each way to fail takes, from the call to its end result."""
    here = rpc.host(HOST)
    ways: list[tuple[str, Callable[[], harp.RemoteCall]]] = [
        ("the host is not in the registry", rpc.host("unknown.example.net").nothing),
        ("nothing listens", rpc.host("refuses.example.net").nothing),
        ("the password is wrong", rpc.host("password.example.net").nothing),
        ("there is no such procedure", here.no_such_procedure),
        ("the arguments do not fit", lambda: here.nothing(1, 2, 3)),
        ("the procedure raises", here.fail),
        ("it returns what JSON can't carry", here.return_nan),
        ("its process exits", here.exit_hard),
        ("its process is killed", here.die),
        ("it closes its descriptors", here.close_descriptors),
        ("it prints 4 MiB, then exits", here.print_megabytes),
    ]
    for what, submit in ways:
        outcomes: list[Any] = []
        took = timed(lambda: outcomes.append(submit().result(wait=True)))  # noqa: B023
        print(f"{1000 * took:10.0f} ms {what}: {outcomes[0].type}")
    print(flush=True)


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
