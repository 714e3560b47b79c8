"""Tests of the way in, with the joined parts, real TLS and real unix sockets."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import os
import shutil
import socket
import ssl
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trustme
from OpenSSL import SSL
from twisted.internet.threads import deferToThread
from twisted.logger import LogLevel, capturedLogs

from harpcaller import connection
from harpcaller.service import DispatcherService
from tests.harpcaller.services import ServiceTestCase

TOKEN = "harp_" + 43 * "a"
HASH = "sha256:" + hashlib.sha256(TOKEN.encode()).hexdigest()
PANEL = "panel.example.net"


class EntranceTestCase(ServiceTestCase):
    """A test with a dispatcher that has a certificate.

    :ivar clients: the authority that signs the certificates of clients.
    """

    def setUp(self) -> None:
        """Make the certificates."""
        super().setUp()
        self.authority, self.clients = trustme.CA(), trustme.CA()
        folder = self.deployment.folder
        self.identity = folder / "identity.pem"
        issued = self.authority.issue_cert("127.0.0.1")
        self.identity.write_bytes(issued.private_key_and_cert_chain_pem.bytes())
        self.clients.cert_pem.write_to_path(str(folder / "clients.pem"))
        self.deployment.settings |= {
            "listen": [f"ssl:0:privateKey={self.identity}"],
            "client_ca_file": "clients.pem",
            "users": {
                "panel": {"certificates": [PANEL], "tokens": [HASH], "trusted": True},
            },
        }

    async def ready(self, **changes: Any) -> DispatcherService:
        """Return a service that answers."""
        made = self.started(**changes)
        await self.until(lambda: made._is_ready)
        return made

    async def reload(self, made: DispatcherService, **changes: Any) -> None:
        """Put another configuration into force."""
        self.deployment.write(**changes)
        self.assertEqual(await made._reload(), [])

    def context(self, certificate: trustme.LeafCert | None = None) -> ssl.SSLContext:
        """Return a client's context, with a certificate of its own if one is given."""
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        if certificate is not None:
            certificate.configure_cert(context)
        return context

    async def talk(self, context: ssl.SSLContext, *requests: dict[str, Any]) -> list[Any]:
        """Return what requests on one connection are answered with."""
        port = self.reactor.port

        def talk() -> list[Any]:
            with (
                socket.create_connection(("127.0.0.1", port)) as plain,
                context.wrap_socket(plain, server_hostname="127.0.0.1") as secured,
            ):
                return exchange(secured, requests)

        answers: list[Any] = await deferToThread(talk)
        return answers

    async def is_in(self, certificate: trustme.LeafCert | None = None, **request: Any) -> bool:
        """Return whether a client gets in."""
        (answer,) = await self.talk(self.context(certificate), INFO | request)
        if "error" in answer:
            self.assertEqual(answer["error"]["type"], "not_authenticated")
        return "version" in answer


INFO: dict[str, Any] = {"harpcaller": 1, "server_info": True}


def exchange(connection: socket.socket, requests: tuple[dict[str, Any], ...]) -> list[Any]:
    """Return what requests are answered with, one after the other."""
    answers = []
    with connection.makefile("rb") as replies:
        for each in requests:
            connection.sendall(json.dumps(each | {"keepalive": True}).encode() + b"\n")
            answers.append(json.loads(replies.readline()))
    return answers


class CertificateTests(EntranceTestCase):
    """Clients that show a certificate."""

    async def test_name(self) -> None:
        """A name counts where an authority of clients has signed it, and nothing else does."""
        await self.ready()
        self.assertTrue(await self.is_in(self.clients.issue_cert(PANEL)))
        common = self.clients.issue_cert("other.example.net", common_name=PANEL.upper())
        self.assertTrue(await self.is_in(common))
        self.assertFalse(await self.is_in())
        self.assertFalse(await self.is_in(self.clients.issue_cert("other.example.net")))
        self.assertFalse(await self.is_in(self.authority.issue_cert(PANEL)))
        self.assertFalse(await self.is_in(trustme.CA().issue_cert(PANEL)))

    async def test_why(self) -> None:
        """Who is refused is told why, and for which certificate."""
        await self.ready()
        for issued, why in (
            (trustme.CA().issue_cert(PANEL), "nor verified by client_ca_file"),
            (self.clients.issue_cert("other.example.net"), "nor are its names"),
        ):
            der = ssl.PEM_cert_to_DER_cert(issued.cert_chain_pems[0].bytes().decode())
            (answer,) = await self.talk(self.context(issued), INFO)
            self.assertIn(why, answer["error"]["message"])
            self.assertIn(hashlib.sha256(der).hexdigest(), answer["error"]["message"])

    async def test_dates(self) -> None:
        """A certificate that has expired proves no name."""
        await self.ready()
        past = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
        expired = self.clients.issue_cert(PANEL, not_after=past)
        self.assertFalse(await self.is_in(expired))
        self.assertTrue(await self.is_in(expired, auth={"token": TOKEN}))

    async def test_fingerprint(self) -> None:
        """A certificate can be known as it is, without any authority."""
        known = trustme.CA().issue_cert("whoever.example.net")
        der = ssl.PEM_cert_to_DER_cert(known.cert_chain_pems[0].bytes().decode())
        fingerprint = "sha256:" + hashlib.sha256(der).hexdigest()
        del self.deployment.settings["client_ca_file"]
        await self.ready(users={"panel": {"certificates": [fingerprint]}})
        self.assertTrue(await self.is_in(known))
        self.assertFalse(await self.is_in(trustme.CA().issue_cert("whoever.example.net")))
        self.assertFalse(await self.is_in())

    async def test_changed_while_connected(self) -> None:
        """What is reloaded holds for connections that there are: users, and whom to believe."""
        made = await self.ready()
        settings = self.deployment.settings
        context = self.context(self.clients.issue_cert(PANEL))
        other = trustme.CA()
        other.cert_pem.write_to_path(str(self.deployment.folder / "other.pem"))
        for changes in (
            {"client_ca_file": "other.pem"},
            {"users": {"ann": settings["users"]["panel"] | {"certificates": ["ann"]}}},
        ):
            await self.reload(made)
            with socket.create_connection(("127.0.0.1", self.reactor.port)) as plain:
                connection = await deferToThread(
                    context.wrap_socket, plain, server_hostname="127.0.0.1"
                )
                (before,) = await deferToThread(exchange, connection, (INFO,))
                self.assertIn("version", before)
                await self.reload(made, **changes)
                (after,) = await deferToThread(exchange, connection, (INFO,))
                self.assertEqual(after["error"]["type"], "not_authenticated")
                connection.close()
        await self.reload(made, client_ca_file="other.pem")
        self.assertTrue(await self.is_in(other.issue_cert(PANEL)))

    async def test_renewed(self) -> None:
        """The dispatcher's certificate is renewed without a lost connection."""
        made = await self.ready()
        context = self.context(self.clients.issue_cert(PANEL))
        with socket.create_connection(("127.0.0.1", self.reactor.port)) as plain:
            connection = await deferToThread(
                context.wrap_socket, plain, server_hostname="127.0.0.1"
            )
            self.authority = trustme.CA()
            issued = self.authority.issue_cert("127.0.0.1")
            self.identity.write_bytes(issued.private_key_and_cert_chain_pem.bytes())
            await self.reload(made)
            self.assertTrue(await self.is_in(self.clients.issue_cert(PANEL)))
            (answer,) = await deferToThread(exchange, connection, (INFO,))
            self.assertIn("version", answer)
            connection.close()


class TokenTests(EntranceTestCase):
    """Clients that send a token."""

    async def test_tls(self) -> None:
        """A token gets in, another one does not, nor does nobody."""
        await self.ready()
        self.assertTrue(await self.is_in(auth={"token": TOKEN}))
        self.assertFalse(await self.is_in(auth={"token": TOKEN[:-1]}))
        self.assertFalse(await self.is_in(auth={}))

    async def test_before_the_certificate(self) -> None:
        """A token that is wrong is refused whatever the certificate says."""
        await self.ready()
        panel = self.clients.issue_cert(PANEL)
        self.assertFalse(await self.is_in(panel, auth={"token": "harp_wrong"}))

    async def test_long_request(self) -> None:
        """A request as long as they may be gets in with its token, over real TLS."""
        await self.ready()
        call = {"host": "web99", "procedure": "df", "arguments": ["x" * 900_000]}
        line = {"harpcaller": 1, "auth": {"token": TOKEN}} | call
        (answer,) = await self.talk(self.context(), line)
        self.assertIn("job_id", answer)


class TlsTests(EntranceTestCase):
    """How TLS is spoken."""

    async def handshake(self, **limits: Any) -> SSL.Connection | SSL.Error:
        """Return a connection of a client that speaks TLS in one way only."""
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        if "version" in limits:
            context.set_min_proto_version(limits["version"])
            context.set_max_proto_version(limits["version"])
        if "ciphers" in limits:
            context.set_cipher_list(limits["ciphers"])
        return await self.shake(context)

    async def shake(
        self, context: SSL.Context, session: SSL.Session | None = None
    ) -> SSL.Connection | SSL.Error:
        """Return a connection, or why there is none; it is closed when the test is over."""
        port = self.reactor.port

        def shake() -> SSL.Connection | SSL.Error:
            plain = socket.create_connection(("127.0.0.1", port))
            self.addCleanup(plain.close)
            connection = SSL.Connection(context, plain)
            if session is not None:
                connection.set_session(session)
            connection.set_connect_state()
            try:
                connection.do_handshake()
            except SSL.Error as error:
                return error
            connection.sendall(json.dumps(INFO | {"auth": {"token": TOKEN}}).encode() + b"\n")
            assert b"version" in connection.recv(65536)
            return connection

        found: SSL.Connection | SSL.Error = await deferToThread(shake)
        return found

    async def test_forward_secrecy(self) -> None:
        """TLS 1.2 and up is spoken, and only what keeps its secrets when the key is lost."""
        await self.ready()
        self.assertIsInstance(await self.handshake(), SSL.Connection)
        new = SSL.TLS1_2_VERSION
        self.assertIsInstance(await self.handshake(version=new), SSL.Connection)
        for limits in (
            {"version": new, "ciphers": b"AES128-GCM-SHA256"},
            {"version": new, "ciphers": b"AES256-SHA256"},
            {"version": new, "ciphers": b"ECDHE-RSA-AES128-SHA:ECDHE-ECDSA-AES128-SHA"},
            {"version": SSL.TLS1_1_VERSION, "ciphers": b"ALL:@SECLEVEL=0"},
        ):
            self.assertIsInstance(await self.handshake(**limits), SSL.Error, limits)

    async def test_silence(self) -> None:
        """Who says nothing is cut off: before the handshake, in it, and behind it."""
        self.patch(connection, "LOGIN_DEADLINE", 0.1)
        await self.ready()
        context = self.context()

        def wait(said: bytes | None) -> None:
            with socket.create_connection(("127.0.0.1", self.reactor.port)) as plain:
                plain.settimeout(20)
                peer = plain
                if said is None:
                    peer = context.wrap_socket(plain, server_hostname="127.0.0.1")
                else:
                    plain.sendall(said)
                with contextlib.suppress(ConnectionResetError, ssl.SSLError):
                    while peer.recv(65536):
                        pass
                peer.close()

        for said in (b"", b"\x16\x03\x01", None):
            await deferToThread(wait, said)

    async def test_no_renegotiation(self) -> None:
        """A client can't have keys, or certificates, exchanged again on a connection."""
        await self.ready()
        connection = await self.handshake(version=SSL.TLS1_2_VERSION)
        assert isinstance(connection, SSL.Connection)

        def renegotiate() -> None:
            assert connection.renegotiate()
            connection.do_handshake()
            connection.recv(1)

        with self.assertRaises((SSL.Error, SSL.ZeroReturnError)):
            await deferToThread(renegotiate)

    async def test_no_resumption(self) -> None:
        """No session is resumed: whose certificate was shown elsewhere is nobody without it."""
        await self.ready()
        issued = self.clients.issue_cert(PANEL)
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = self.context(issued)
            context.maximum_version = version

            def twice(context: ssl.SSLContext = context) -> bool | None:
                session = None
                for _ in range(2):
                    with (
                        socket.create_connection(("127.0.0.1", self.reactor.port)) as plain,
                        context.wrap_socket(
                            plain, server_hostname="127.0.0.1", session=session
                        ) as connection,
                    ):
                        assert "version" in exchange(connection, (INFO,))[0]
                        session = connection.session
                        reused = connection.session_reused
                return reused

            self.assertFalse(await deferToThread(twice), version)


class UnixTests(EntranceTestCase):
    """Programs of this machine."""

    async def over_unix(self, path: Path, *requests: dict[str, Any]) -> list[Any]:
        """Return what requests to a unix socket are answered with."""

        def talk() -> list[Any]:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(path))
                return exchange(connection, requests)

        answers: list[Any] = await deferToThread(talk)
        return answers

    async def test_uid(self) -> None:
        """The uid says who asks: only a trusted user may ask on behalf of others."""
        folder = tempfile.mkdtemp(prefix="harpcaller-test-")  # trial's path may be too long
        self.addCleanup(shutil.rmtree, folder)
        path = Path(folder) / "socket"
        listen = [f"unix:{path}"]
        ask = INFO | {"auth": {"on_behalf_of": "bob"}}
        made = await self.ready(
            listen=listen, users={"me": {"uids": [os.geteuid()], "trusted": True}}
        )
        for users, answer in (
            ({"me": {"uids": [os.geteuid()], "trusted": True}}, "version"),
            ({"me": {"uids": [os.geteuid()]}}, "error"),
            ({"me": {"uids": [os.geteuid() + 1], "trusted": True}}, "error"),
        ):
            await self.reload(made, listen=listen, users=users)
            (found,) = await self.over_unix(path, ask)
            self.assertIn(answer, found)
        self.assertIn("version", (await self.over_unix(path, INFO))[0])


class StartTests(EntranceTestCase):
    """What the dispatcher says at its start, and when it reads its configuration again."""

    async def test_warning(self) -> None:
        """That everybody is let in is logged at every start and reload."""
        listen = ["*:0"]

        def warned(act: Callable[[], Any]) -> list[str]:
            with capturedLogs() as logged:
                act()
            return [
                each["port"]
                for each in logged
                if each["log_level"] == LogLevel.warn and "port" in each
            ]

        made: list[DispatcherService] = []
        starting = warned(lambda: made.append(self.started(listen=listen, insecure=True)))
        self.assertEqual(starting, listen)
        await self.until(lambda: made[0]._is_ready)
        with capturedLogs() as logged:
            await self.reload(made[0], listen=listen, insecure=True)
        self.assertEqual([each["port"] for each in logged if "port" in each], listen)

    async def test_refused_on_reload(self) -> None:
        """A configuration that would let others in unknown is refused as a whole."""
        made = await self.ready()
        self.deployment.write(users={}, max_running=7)
        (mistake,) = await made._reload()
        self.assertIn("listen, line 1: 'ssl:0", mistake)
        self.assertIn("nobody could log in", mistake)
        self.assertTrue(await self.is_in(auth={"token": TOKEN}))
