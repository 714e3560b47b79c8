"""Tests of harpcaller.listen."""

from __future__ import annotations

from pathlib import Path

import trustme
from twisted.internet.endpoints import (
    SSL4ServerEndpoint,
    TCP4ServerEndpoint,
    TCP6ServerEndpoint,
    UNIXServerEndpoint,
)
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactor
from twisted.trial.unittest import SynchronousTestCase

from harpcaller import listen

UNUSABLE = [
    "",
    "3502",
    ":3502",
    "127.0.0.1",
    "127.0.0.1:http",
    "127.0.0.1:65536",
    "*:99999",
    "::1:3502",
    "[::1]",
    "[localhost]:3502",
    "tcp:",
    "tcp:http",
    "tcp:65536",
    "tcp6:port=65536",
    "tcp:3502:interfce=127.0.0.1",
    "tpc:3502:interface=127.0.0.1",
    "unix:/run/socket:mode=rw",
    "tcp:3502\\",
    "ssl:3502:privateKey=/nowhere/key.pem",
]


class EndpointTests(SynchronousTestCase):
    """What is listened on."""

    def setUp(self) -> None:
        self.reactor = MemoryReactor()

    def listened(self, description: str) -> tuple[str, int]:
        """Listen, and return the interface and the port."""
        self.successResultOf(listen.endpoint(self.reactor, description).listen(Factory()))
        port, _, _, interface = self.reactor.tcpServers.pop()
        return interface, port

    def test_host_and_port(self) -> None:
        """HOST:PORT listens on that address alone."""
        self.assertEqual(self.listened("127.0.0.1:3502"), ("127.0.0.1", 3502))
        self.assertEqual(self.listened("localhost:0"), ("localhost", 0))

    def test_all_addresses(self) -> None:
        """*:PORT listens on all IPv4 addresses."""
        self.assertEqual(self.listened("*:3502"), ("", 3502))

    def test_ipv6(self) -> None:
        """[IPV6]:PORT listens on an IPv6 address."""
        self.assertEqual(self.listened("[::1]:3502"), ("::1", 3502))
        self.assertIsInstance(listen.endpoint(self.reactor, "[::]:3502"), TCP6ServerEndpoint)

    def test_endpoint_strings(self) -> None:
        """Endpoint strings of Twisted mean what they mean there, also where a host would fit."""
        self.assertEqual(self.listened("tcp:3502"), ("", 3502))
        self.assertEqual(self.listened("tcp:3502:interface=127.0.0.1"), ("127.0.0.1", 3502))
        for description, kind in [
            ("tcp:3502", TCP4ServerEndpoint),
            ("tcp6:3502", TCP6ServerEndpoint),
            ("unix:3502", UNIXServerEndpoint),
            ("unix:/run/socket:mode=660", UNIXServerEndpoint),
        ]:
            self.assertIsInstance(listen.endpoint(self.reactor, description), kind)

    def test_tls(self) -> None:
        """An ssl: string is understood, with its certificate."""
        file = Path(self.mktemp())
        file.write_bytes(
            trustme.CA().issue_cert("x.example.org").private_key_and_cert_chain_pem.bytes()
        )
        description = f"ssl:3502:privateKey={file}"
        self.assertIsInstance(listen.endpoint(self.reactor, description), SSL4ServerEndpoint)
        listen.check(description)

    def test_unusable(self) -> None:
        """What can't be understood is a ValueError that repeats it."""
        for description in UNUSABLE:
            error = self.assertRaises(ValueError, listen.endpoint, self.reactor, description)
            self.assertIn(repr(description), str(error))


class CheckTests(SynchronousTestCase):
    """What can be said without a reactor."""

    def test_good(self) -> None:
        """What can be listened on passes; what depends on the moment is not tried."""
        for description in ["127.0.0.1:3502", "*:3502", "[::1]:3502", "tcp:3502", "unix:/run/x"]:
            listen.check(description)
        listen.check("systemd:domain=INET:index=0")

    def test_unusable(self) -> None:
        """What can't be understood is refused just as by the endpoint itself."""
        for description in UNUSABLE:
            error = self.assertRaises(ValueError, listen.check, description)
            self.assertIn(repr(description), str(error))
