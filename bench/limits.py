"""What this machine can do at most, measured with as little as possible in the way."""

from __future__ import annotations

import socket
import sqlite3
import ssl
import threading
import time
from pathlib import Path

_HANDSHAKES = 300
_ROWS_A_COMMIT = 1000


def tls_handshakes(certificate: Path, key: Path) -> float:
    """Return how many TLS connections a second come about over loopback."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            for _ in range(_HANDSHAKES):
                connection, _ = listening.accept()
                with server.wrap_socket(connection, server_side=True) as secured:
                    secured.recv(1)

        thread = threading.Thread(target=serve)
        thread.start()
        begin = time.perf_counter()
        for _ in range(_HANDSHAKES):
            connection = socket.create_connection(listening.getsockname())
            with client.wrap_socket(connection) as secured:
                secured.send(b"x")
        thread.join()
        return _HANDSHAKES / (time.perf_counter() - begin)


def rows(file: Path, count: int, size: int) -> float:
    """Return how many rows a second go into a table of SQLite, in a safe but bare way."""
    connection = sqlite3.connect(file)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE packets (job INTEGER, number INTEGER, data BLOB)")
    connection.execute("CREATE UNIQUE INDEX place ON packets (job, number)")
    data = b"x" * size
    begin = time.perf_counter()
    for first in range(0, count, _ROWS_A_COMMIT):
        with connection:
            connection.executemany(
                "INSERT INTO packets VALUES (1, ?, ?)",
                [(number, data) for number in range(first, first + _ROWS_A_COMMIT)],
            )
    took = time.perf_counter() - begin
    connection.close()
    return count / took


def unused_port() -> int:
    """Return a port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
