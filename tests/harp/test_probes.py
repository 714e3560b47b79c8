"""Tests of ``harp.probes``: whoever waits for a peer has the kernel look for it."""

from __future__ import annotations

import socket
import sys
from typing import Any, cast

from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import Protocol
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides

from harp.probes import PROBE_EVERY, PROBES, PROBES_AFTER, probe, probe_below
from harp.transports import TransportChannel
from harpcaller.connection import ClientFactory
from harpcaller.harpd_connection import HarpdConnection
from harpd.factory import HarpdFactory
from harpd.parts import Parts
from tests.harpcaller.clients import gate
from tests.harpcaller.memory import HOST


class Tcp(StringTransport):
    """A transport with a socket.

    :ivar keeps_alive: whether Twisted was asked, which knows no times.
    """

    keeps_alive = False

    def __init__(self, below: socket.socket | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        directlyProvides(self, ITCPTransport)
        if below is not None:
            self.socket = below

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Do nothing."""

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Take an option."""
        self.keeps_alive = enabled


class ProbesTests(SynchronousTestCase):
    """What the kernel is told."""

    def setUp(self) -> None:
        """Have a socket; it needs no peer."""
        self.socket = socket.socket()
        self.addCleanup(self.socket.close)

    def assert_probes(self) -> None:
        """Check that a peer that has gone is found out within minutes, where that can be told."""
        self.assertTrue(self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
        if sys.platform == "linux":
            options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            times = [self.socket.getsockopt(socket.IPPROTO_TCP, each) for each in options]
            self.assertEqual(times, [PROBES_AFTER, PROBE_EVERY, PROBES])

    def test_socket(self) -> None:
        """A socket has all that is to be told."""
        probe(self.socket)
        self.assert_probes()

    def test_no_socket(self) -> None:
        """What has no socket of the kernel is told by Twisted's way."""
        transport = Tcp(None)
        probe_below(transport)
        self.assertTrue(transport.keeps_alive)

    def test_unix_socket(self) -> None:
        """A unix socket, which passes for one of TCP, has no such options."""
        with socket.socket(socket.AF_UNIX) as below:
            transport = Tcp(below)
            probe_below(transport)
        self.assertTrue(transport.keeps_alive)

    def test_client_of_the_dispatcher(self) -> None:
        """The dispatcher has its clients looked for."""
        reactor = MemoryReactorClock()
        self.assert_probes_of(
            ClientFactory(reactor, lambda _: None, gate(reactor), True).buildProtocol(None)
        )

    def test_harpd_of_the_dispatcher(self) -> None:
        """The dispatcher has the harpds looked for."""
        self.assert_probes_of(HarpdConnection(MemoryReactorClock(), cast(Any, None), HOST, 0))

    def test_client_of_harpd(self) -> None:
        """Harpd has its clients looked for."""
        parts = Parts(MemoryReactorClock(), cast(Any, None), cast(Any, None))
        self.assert_probes_of(HarpdFactory(parts).buildProtocol(None))

    def test_deferred_client(self) -> None:
        """The client has its daemons looked for."""
        self.assert_probes_of(TransportChannel(MemoryReactorClock()))

    def assert_probes_of(self, protocol: Protocol) -> None:
        """Check that a protocol has its peer looked for."""
        protocol.makeConnection(Tcp(self.socket))
        self.assert_probes()
