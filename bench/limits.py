"""What this machine can do at most, measured with as little as possible in the way.

Each of them takes about a second and is measured beside the figure that it is the limit of.
"""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from types import TracebackType

import msgspec

from bench import idle_server
from bench.clients import Step, in_processes
from bench.processes import resident, wait_until_idle
from harpcaller.demo.deployment import Deployment

CORES = os.cpu_count() or 1

_WARM = 50
"""Connections that are made before memory is looked at."""


class Beside:
    """A limit measured before and after what it is the limit of: other work comes and goes.

    :param measure: returns the limit.
    """

    def __init__(self, measure: Callable[[], float]) -> None:
        self._measure = measure
        self._before = measure()

    def mean(self) -> float:
        """Measure again, and return the mean of both."""
        return (self._before + self._measure()) / 2


def rows_per_second(rows: int, duration: float = 0.5) -> float:
    """Return how many rows a second a bare database takes, synchronous=FULL.

    :param rows: in each commit.
    """
    with Table() as table:
        begin = time.perf_counter()
        commits, took = 0, 0.0
        while took < duration:
            table.commit(rows)
            commits += 1
            took = time.perf_counter() - begin
        return commits * rows / took


def handshakes_per_second(deployment: Deployment, handshakes: int = 150) -> float:
    """Return how many TLS handshakes a second all cores can do, both ends, without a network."""
    pair = tls_pair(deployment)
    return in_processes(lambda number: pair, handshakes, CORES, 1).rate


def tls_pair(deployment: Deployment) -> Step:
    """Return what makes two bare OpenSSL objects, lets them agree, and returns the client's."""
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    folder = deployment.folder
    server_context.load_cert_chain(folder / "harpd.pem", folder / "harpd.key")
    client_context = ssl.create_default_context(cafile=str(deployment.ca_file))

    def pair() -> ssl.SSLObject:
        up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = client_context.wrap_bio(down, up, server_hostname="127.0.0.1")
        server = server_context.wrap_bio(up, down, server_side=True)
        ends = [client, server]
        while ends:
            end = ends.pop(0)
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                ends.append(end)
        return client

    return pair


def lines_per_second(size: int, duration: float = 0.6) -> float:
    """Return how many JSON texts a second go through a bare socket pair, a line each.

    One process encodes each of them, as the process of a call must, and another one decodes each,
    as a client must; nothing is between them.

    :param size: of a text in bytes.
    """
    ours, theirs = socket.socketpair()
    text = "x" * size
    pid = os.fork()
    if pid == 0:
        try:
            ours.close()
            with theirs.makefile("wb", 65536) as out:
                while True:
                    out.write(json.dumps(text).encode() + b"\n")
        finally:
            os._exit(0)  # its reader has had enough
    theirs.close()
    with ours, ours.makefile("rb", 65536) as lines:
        begin = time.perf_counter()
        for number, line in enumerate(lines, 1):
            msgspec.json.decode(line)
            if number % 1000 == 0 and (took := time.perf_counter() - begin) > duration:
                break
    os.waitpid(pid, 0)
    return number / took


def connection_memory(deployment: Deployment, connections: int = 1000) -> float:
    """Return how much memory a bare OpenSSL client takes for a connection, in bytes."""
    pair = tls_pair(deployment)
    kept = [pair() for _ in range(_WARM)]
    before = resident(os.getpid())
    kept += [pair() for _ in range(connections)]
    return (resident(os.getpid()) - before) / connections


def transport_memory(connections: int = 2000) -> float:
    """Return how much memory a bare Twisted server takes for a connection, in bytes."""
    command = [sys.executable, "-P", idle_server.__file__]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server, ExitStack() as opened:
        opened.callback(server.kill)
        assert server.stdout is not None
        address = ("127.0.0.1", int(server.stdout.readline()))
        sizes = []
        for wanted in (_WARM, connections):
            for _ in range(wanted):
                opened.enter_context(socket.create_connection(address))
            wait_until_idle(server.pid)
            sizes.append(resident(server.pid))
    return (sizes[1] - sizes[0]) / connections


class Table:
    """A table in an SQLite file of its own, written to as safely as the dispatcher does."""

    _DATA = "x" * 200  # about what a job has

    def __enter__(self) -> Table:
        with ExitStack() as opened:
            folder = opened.enter_context(tempfile.TemporaryDirectory(prefix="harpcaller-limit-"))
            file = f"{folder}/limit.db"
            self._database = opened.enter_context(
                closing(sqlite3.connect(file, isolation_level=None))
            )
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.execute("CREATE TABLE jobs (seq INTEGER PRIMARY KEY, data TEXT)")
            self._opened = opened.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._opened.close()

    def commit(self, rows: int) -> None:
        """Insert so many rows in a transaction of their own."""
        self._database.execute("BEGIN IMMEDIATE")
        self._database.executemany(
            "INSERT INTO jobs (data) VALUES (?)", [(self._DATA,) for _ in range(rows)]
        )
        self._database.execute("COMMIT")
