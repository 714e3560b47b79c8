"""Clients in processes of their own, so that they do not wait for each other's interpreter."""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.synchronize import Barrier

import harp
from demo.deployment import HOST


def in_processes(clients: int, calls: int, port: int) -> float:
    """Return how long it takes all clients to make their calls, in seconds."""
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(clients + 1)
    processes = [context.Process(target=_call, args=(barrier, calls, port)) for _ in range(clients)]
    for process in processes:
        process.start()
    barrier.wait()
    begin = time.perf_counter()
    for process in processes:
        process.join()
    took = time.perf_counter() - begin
    if any(process.exitcode for process in processes):
        raise RuntimeError("a client failed")
    return took


def _call(barrier: Barrier, calls: int, port: int) -> None:
    server = harp.HarpCaller("127.0.0.1", port).host(HOST)
    barrier.wait()
    for _ in range(calls):
        server.nothing().get()
