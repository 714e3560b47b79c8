"""A dispatcher of a few lines for the tests of the client: it says what a test wrote for it."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

from twisted.trial.unittest import SynchronousTestCase

from harp import HarpCaller
from tests.harp.test_lines import single_bytes

PATIENCE = 20
"""After how many seconds a test that hangs is given up."""

REFUSAL = b'{"error":{"type":"invalid_request","message":"no such key"}}\n'
"""What a dispatcher without extensions says to one."""

Script = Sequence[bytes | Callable[[socket.socket], object]]
"""What is said on one connection, and what else is done to its socket, one after the other."""


def slowly(data: bytes) -> Script:
    """Say it in single bytes."""
    return single_bytes(data)


def reset(connection: socket.socket) -> None:
    """End the connection by a reset instead of an end of file."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def until(event: threading.Event) -> Callable[[socket.socket], None]:
    """Say nothing more until the event is set."""

    def wait(connection: socket.socket) -> None:
        if not event.wait(PATIENCE):
            raise AssertionError("what the script waits for did not happen")

    return wait


class ScriptedDispatcher:
    """Listens on a free port and follows one script on each connection, in the order they come.

    :param scripts: behind the last of them nothing listens.
    :param reads: how much it reads before it speaks, a line or a number of bytes.
    :param knows_version_1: whether it refuses ``server_info`` beside the scripts, as a dispatcher
        without extensions does.
    :param tls: the server's side of TLS, if it speaks that.
    :param refuses: whether the handshake must fail.
    :param path: of the unix socket on which it listens, if not on a port.
    """

    def __init__(
        self,
        scripts: Sequence[Script],
        reads: int = -1,
        knows_version_1: bool = True,
        tls: ssl.SSLContext | None = None,
        refuses: bool = False,
        path: str | None = None,
    ) -> None:
        self._knows_version_1 = knows_version_1
        self._tls = tls
        self._refuses = refuses
        self.requests: list[bytes] = []
        self._scripts = scripts
        self._reads = reads
        self._failures: list[BaseException] = []
        self.port = 0
        if path is None:
            self._listener = socket.create_server(("127.0.0.1", 0))
            self.port = self._listener.getsockname()[1]
        else:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(path)
            self._listener.listen()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def stop(self) -> None:
        """Wait for all scripts to come to their end.

        :raises AssertionError: if one was not asked for or failed.
        """
        with suppress(OSError):  # it is closed if all connections were made
            self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:  # grows until the first, which accepts, has ended
            thread.join(PATIENCE)
        if self._failures:
            raise AssertionError(f"the peer failed: {self._failures}")

    def _accept(self) -> None:
        try:
            with self._listener:
                for number, script in enumerate(self._scripts, 1):
                    found = self._next_connection()
                    if number == len(self._scripts):
                        self._listener.close()  # before a client hears that it may come again
                    if found is None:
                        continue
                    connection, first = found
                    thread = threading.Thread(target=self._follow, args=(connection, script, first))
                    self._threads.append(thread)
                    thread.start()
        except OSError as error:
            self._failures.append(error)

    def _next_connection(self) -> tuple[socket.socket, bytes] | None:
        while True:
            connection, _ = self._listener.accept()
            if self.port:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                secured = self._secured(connection, self._tls)
                if secured is None:
                    return None
                connection = secured
            if self._knows_version_1 and b'"server_info"' in connection.recv(64, socket.MSG_PEEK):
                with connection:
                    connection.recv(1000)
                    connection.sendall(REFUSAL)
            else:
                with connection.makefile("rb", buffering=0) as incoming:
                    reads, first = self._reads, b""
                    # Python 3.13 tells of a client that has left before it read our TLS tickets.
                    with suppress(ConnectionResetError):
                        first = incoming.readline() if reads < 0 else incoming.read(reads)
                    return connection, first

    def _secured(self, connection: socket.socket, tls: ssl.SSLContext) -> socket.socket | None:
        try:
            secured = tls.wrap_socket(connection, server_side=True)
            if not self._refuses:
                return secured
            # With TLS 1.3 the server has ended its handshake before the client refuses.
            with secured:
                if data := secured.recv(1000):
                    self.requests.append(data)
        except OSError:
            connection.close()
            if not self._refuses:
                raise
        return None

    def _follow(self, connection: socket.socket, script: Script, first: bytes) -> None:
        try:
            with connection:
                self.requests.append(first)
                for step in script:
                    if callable(step):
                        step(connection)
                    else:
                        connection.sendall(step)
        except (OSError, AssertionError) as error:
            self._failures.append(error)


class ClientTestCase(SynchronousTestCase):
    """Tests the client against scripts, and that it leaves no socket open."""

    def tearDown(self) -> None:
        """Fail if a socket was left to the garbage collector."""
        left = [w for w in self.flushWarnings() if w["category"] is ResourceWarning]
        self.assertEqual(left, [])

    def peer(self, *scripts: Script, reads: int = -1) -> ScriptedDispatcher:
        """Start a peer that ends with the test."""
        peer = ScriptedDispatcher(scripts, reads)
        self.addCleanup(peer.stop)
        return peer

    def caller(self, *scripts: Script) -> HarpCaller:
        """Return a client of a peer with these scripts."""
        return HarpCaller("127.0.0.1", self.peer(*scripts).port, reply_timeout=PATIENCE)
