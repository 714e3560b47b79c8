"""Peers that say nothing, a byte a second, or garbage, at the ports of both daemons."""

from __future__ import annotations

import json
import random
import resource
import selectors
import socket
import ssl
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

import harp
from harpcaller.demo.deployment import PASSWORD, USER
from tests.acceptance.daemons import (
    HOST,
    connect_harpd,
    descriptors,
    harpd_request,
    resident_kib,
)
from tests.faults.setting import LONG, FaultTestCase, eventually

SILENT = 2000
"""Connections that say nothing."""

STRANGER = ("127.0.0.2", 0)
"""Where they come from: who shares an address with a crowd shares its bounds."""

PACE = 1.0 if LONG else 0.1
"""Seconds between two bytes of a peer that is slow."""

SLOW_BYTES = 45 if LONG else 15

GROWTH_KIB = 80 * SILENT
"""What a daemon may need for them; one of TLS needs 50 KiB before its handshake (measured)."""

SEEDS = range(100 if LONG else 20)


class PeerTests(FaultTestCase):
    """Others are served, at both daemons, and what came is let go."""

    def setUp(self) -> None:
        self.deploy()
        self.begin()

    def direct(self) -> harp.HarpServer:
        """Return harpd without the dispatcher, over a connection of its own."""
        return harp.HarpServer(
            "127.0.0.1",
            USER,
            PASSWORD,
            self.deployment.harpd_port,
            ca_file=str(self.deployment.ca_file),
        )

    def served(self) -> None:
        """Show that a new client of either daemon is served, and all those before."""
        self.assertEqual(self.host.add(1).get(), 2)
        self.others_go_on()
        self.assertEqual(
            harp.HarpCaller("127.0.0.1", self.deployment.port).host(HOST).add(3).get(), 4
        )
        self.assertEqual(self.direct().add(4), 5)

    @contextmanager
    def silent(self, name: str, port: int) -> Iterator[list[socket.socket]]:
        """Keep connections open that say nothing; who is refused is closed, or told."""
        pid = self.pid(name)
        before, kib = descriptors(pid), resident_kib(pid)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard < SILENT + 500:
            self.skipTest(f"a process may have only {hard} descriptors here")
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        with ExitStack() as crowd:
            connections = [
                crowd.enter_context(socket.create_connection(("127.0.0.1", port), 20, STRANGER))
                for _ in range(SILENT)
            ]
            yield connections
            self.assertLess(resident_kib(pid) - kib, GROWTH_KIB)
        eventually(lambda: descriptors(pid) <= before + 10, "their connections are closed")

    def test_silent_at_the_dispatcher(self) -> None:
        """2,000 connections: those who call are served; in the end all of them are closed."""
        with self.silent("harpcaller", self.deployment.port) as connections:
            self.served()
            if LONG:
                self.all_closed(connections)
        self.all_is_well()

    def test_silent_at_harpd(self) -> None:
        """The same, before any handshake."""
        with self.silent("harpd", self.deployment.harpd_port) as connections:
            self.served()
            if LONG:
                self.all_closed(connections)
        self.all_is_well()

    def all_closed(self, connections: Iterable[socket.socket]) -> None:
        """Wait until the daemon has closed them."""
        with selectors.DefaultSelector() as selector:
            for connection in connections:
                connection.setblocking(False)
                selector.register(connection, selectors.EVENT_READ)
            while selector.get_map():
                found = selector.select(90)
                self.assertTrue(found, "connections that say nothing are kept")
                for key, _ in found:
                    assert isinstance(key.fileobj, socket.socket)
                    try:
                        over = not key.fileobj.recv(1000)
                    except OSError:
                        over = True
                    if over:
                        selector.unregister(key.fileobj)

    def drip(self, connection: socket.socket, line: bytes) -> bytes:
        """Send a line a byte at a time; return what is answered, if it is not cut off before."""
        connection.settimeout(PACE)
        for at in range(min(SLOW_BYTES, len(line))):
            try:
                connection.sendall(line[at : at + 1])
                if not at % 5:
                    self.assertEqual(self.host.add(1).get(), 2)
                if not (answer := connection.recv(1000)):
                    return b"closed"
                return answer  # told before it came to the end
            except (TimeoutError, ssl.SSLWantReadError):
                continue
            except OSError:
                return b"closed"
        if LONG:
            return b""
        connection.settimeout(20)
        connection.sendall(line[SLOW_BYTES:])
        return connection.recv(1000)

    def test_a_byte_at_a_time(self) -> None:
        """A slow request is served if it is complete in time, else cut off; others are served."""
        request = b'{"harpcaller":1,"get_result":"%b"}\n' % self.ended.id().encode()
        with socket.create_connection(("127.0.0.1", self.deployment.port), 20) as connection:
            answer = self.drip(connection, request)
        if LONG:
            self.assertNotIn(b"result", answer)
        else:
            self.assertIn(b'{"result":3}', answer)
        with connect_harpd(self.deployment) as secured:
            answer = self.drip(secured, harpd_request("add", [4]))
        if not LONG:
            self.assertIn(b'"stream_result":false', answer)
        self.served()
        self.all_is_well()

    def test_garbage(self) -> None:
        """Random bytes are answered with an error or a close, in clear text and within TLS."""
        for seed in SEEDS:
            choice = random.Random(seed)
            data = _garbage(choice)
            with socket.create_connection(("127.0.0.1", self.deployment.port), 20) as connection:
                self.refused(connection, data)
            with socket.create_connection(
                ("127.0.0.1", self.deployment.harpd_port), 20
            ) as connection:
                self.refused(connection, data)
            with connect_harpd(self.deployment) as secured:
                self.refused(secured, data)
        self.served()
        self.all_is_well()

    def refused(self, connection: socket.socket, data: bytes) -> None:
        """Send it, and be told no more than an error before the connection ends."""
        answer = b""
        try:
            connection.sendall(data + b"\n")
            if not isinstance(connection, ssl.SSLSocket):
                # Or what looks like the beginning of a handshake is waited for.
                connection.shutdown(socket.SHUT_WR)
            while more := connection.recv(65536):
                answer += more
        except TimeoutError:
            raise
        except OSError:  # it was closed, in whichever way and moment
            return
        if answer.startswith(b"{"):
            for line in answer.splitlines():
                self.assertIn("error", json.loads(line))


def _garbage(choice: random.Random) -> bytes:
    kinds = [
        choice.randbytes(choice.randrange(1, 5000)),
        b"{" * choice.randrange(1, 100_000),
        b'{"harpcaller":1,"get_result":"%b"}' % bytes(choice.randrange(32, 127) for _ in range(40)),
        b'{"harp":1,"harpcaller":1}',
        b'{"harp":1,"procedure":"add","arguments":[1],"auth":{"user":"' + b"x" * 5000 + b'"}}',
        "\u2028\ud7ff".encode() * choice.randrange(1, 1000),
        b"\x16\x03\x01" + choice.randbytes(600),
    ]
    return choice.choice(kinds)
