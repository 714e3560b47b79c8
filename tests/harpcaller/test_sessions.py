"""Tests of resumed TLS sessions, in ``harpcaller.sessions`` and ``harpcaller.trust``: real TLS."""

from __future__ import annotations

import contextlib
from typing import Any, cast

import trustme
from OpenSSL import SSL, crypto
from twisted.internet import ssl
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.trial.unittest import SynchronousTestCase

from harpcaller import sessions as module
from harpcaller.sessions import JUDGED_FOR, Sessions
from harpcaller.trust import Resumption, ServerTrust
from harpcaller.verdict import Verdict
from tests.harpcaller.test_trust import authority, leaf

ADDRESS = "web1.example.org"


def server_context(
    ca: trustme.CA, name: str = ADDRESS, tickets: bool = True, version: int = SSL.TLS1_3_VERSION
) -> SSL.Context:
    """Return what a harpd shows a certificate with; its keys for tickets are new."""
    identity = leaf(ca, name)
    options = ssl.CertificateOptions(
        privateKey=crypto.PKey.from_cryptography_key(identity.key),
        certificate=crypto.X509.from_cryptography(identity.certificate),
        enableSessionTickets=tickets,
    )
    context = options.getContext()
    context.set_session_id(b"harpd")
    context.set_max_proto_version(version)
    return context


class ResumptionTests(SynchronousTestCase):
    """When a certificate need not be judged again, and when it must be."""

    def setUp(self) -> None:
        """Count what is judged."""
        self.clock = Clock()
        self.sessions = Sessions(self.clock.seconds)
        self.ca = trustme.CA()
        self.trust = ServerTrust([authority(self.ca)])
        self.harpd = server_context(self.ca)
        self._judged = False
        judge = Verdict.__call__

        def judging(verdict: Verdict, *args: Any) -> bool:
            self._judged = True
            return judge(verdict, *args)

        self.patch(Verdict, "__call__", judging)

    def begin(self, host: str = "web1") -> SSL.Connection:
        """Return the dispatcher's end of a connection."""
        creator = self.trust.for_host("web1", ADDRESS, None, (), Resumption(self.sessions, host))
        return creator.clientConnectionForTLS(cast(TLSMemoryBIOProtocol, None))

    def go_on(self, near: SSL.Connection, in_good_order: bool = True) -> None:
        """Let TLS come about and harpd say something, then close."""
        far = SSL.Connection(self.harpd, None)
        near.set_connect_state()
        far.set_accept_state()
        for _ in range(3):
            for one, other in ((near, far), (far, near)):
                with contextlib.suppress(SSL.WantReadError):
                    one.do_handshake()
                _carry(one, other)
        far.send(b"hello")
        _carry(far, near)
        self.assertEqual(near.recv(100), b"hello")
        if in_good_order:
            near.shutdown()

    def is_judged(self, near: SSL.Connection | None = None, host: str = "web1") -> bool:
        """Connect; return whether the certificate was judged."""
        self._judged = False
        self.go_on(near or self.begin(host))
        return self._judged

    def test_resumed(self) -> None:
        """After the first connection the certificate is not shown any more, by TLS 1.2 neither."""
        for version in (SSL.TLS1_3_VERSION, SSL.TLS1_2_VERSION):
            self.setUp()
            self.harpd = server_context(self.ca, version=version)
            self.assertEqual([self.is_judged() for _ in range(4)], [True, False, False, False])

    def test_whatever_is_trusted(self) -> None:
        """Certificates that are known, and any where nothing is verified, are resumed as well."""
        known = leaf(self.ca, "other")
        for self.trust in (ServerTrust(known=[known.certificate]), ServerTrust()):
            self.sessions = Sessions(self.clock.seconds)
            options = ssl.CertificateOptions(
                privateKey=crypto.PKey.from_cryptography_key(known.key),
                certificate=crypto.X509.from_cryptography(known.certificate),
                enableSessionTickets=True,
            )
            self.harpd = options.getContext()
            self.harpd.set_session_id(b"harpd")
            self.assertEqual([self.is_judged(), self.is_judged()], [self.trust.verifies, False])

    def test_once(self) -> None:
        """A session is used once, so of two connections at once one is judged."""
        self.is_judged()
        one, other = self.begin(), self.begin()
        self.assertEqual([self.is_judged(one), self.is_judged(other)], [False, True])
        one, other = self.begin(), self.begin()
        self.assertEqual([self.is_judged(one), self.is_judged(other)], [False, False])

    def test_broken_off(self) -> None:
        """A session of a connection that was not closed in good order is not resumed."""
        self.go_on(self.begin(), in_good_order=False)
        self.assertEqual([self.is_judged(), self.is_judged()], [True, False])

    def test_other_host(self) -> None:
        """What is another host in any respect is judged for itself."""
        self.is_judged()
        self.assertTrue(self.is_judged(host="web1 with another password"))

    def test_refused(self) -> None:
        """Of a connection that was refused no session is kept."""
        self.harpd = server_context(self.ca, "other.example.org")
        for _ in range(2):
            with self.assertRaisesRegex(SSL.Error, "is refused"):
                self.is_judged()
            self.assertTrue(self._judged)
        self.assertIsNone(self.sessions.take("web1"))

    def test_lost_keys(self) -> None:
        """A harpd that does not know the session any more is judged, and may be refused."""
        self.is_judged()
        self.harpd = server_context(self.ca)
        self.assertEqual([self.is_judged(), self.is_judged()], [True, False])
        self.harpd = server_context(trustme.CA())
        with self.assertRaisesRegex(SSL.Error, "is refused"):
            self.is_judged()

    def test_without_tickets(self) -> None:
        """A harpd that resumes nothing is judged each time."""
        self.harpd = server_context(self.ca, tickets=False)
        self.harpd.set_options(SSL.OP_NO_TICKET)
        self.harpd.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        self.assertEqual([self.is_judged() for _ in range(3)], [True] * 3)

    def test_judged_again(self) -> None:
        """However often it is resumed, a certificate is judged again after that time."""
        self.is_judged()
        for _ in range(3):
            self.clock.advance(JUDGED_FOR / 4)
            self.assertFalse(self.is_judged())
        self.clock.advance(JUDGED_FOR / 4)
        self.assertTrue(self.is_judged())

    def test_bounded(self) -> None:
        """When there are too many sessions, those go that were kept longest ago."""
        self.patch(module, "MAX_SESSIONS", 2)
        for host in ("a", "b", "c"):
            self.is_judged(host=host)
        self.assertEqual(
            [self.is_judged(host=host) for host in ("b", "c", "a")], [False, False, True]
        )


def _carry(one: SSL.Connection, other: SSL.Connection) -> None:
    """Let what one has to send come to the other."""
    with contextlib.suppress(SSL.WantReadError):
        while True:
            other.bio_write(one.bio_read(65536))
