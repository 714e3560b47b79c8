"""Tests of what harpd grants before a login and after it: the joined daemon over real TLS."""

from __future__ import annotations

import socket
import ssl
from dataclasses import replace

from twisted.internet.threads import deferToThread
from twisted.logger import capturedLogs

from harpd.auth import schemes
from harpd.auth.passwords import PasswordTable
from harpd.limits import SHORT_REQUEST, Limits
from harpd.permissions import Permissions
from tests.harpd.connections import ACK, error, request
from tests.harpd.joined import JoinedTestCase
from tests.harpd.test_passwords import SHA512
from tests.harpd.waiting import PATIENCE, eventually

GOOD = "@procedure\ndef plain(*args): return len(str(args))\n"
AUTH = b'{"harp":1,"auth":{"user":"panel","password":"secret"}'


class StrangerTests(JoinedTestCase):
    """Nobody gets in who should not, and who may is not kept out."""

    async def test_long_requests(self) -> None:
        """A request of nearly 1 MiB comes through, its login in front or at its end."""
        await self.start(GOOD, authenticator=PasswordTable({"panel": schemes.read(SHA512)}))
        arguments = ["x" * 1_000_000]
        result = ACK + b'{"result":%d}\n' % len(str(tuple(arguments)))
        last = request(arguments=arguments)
        self.assertEqual(await self.answer(last), result)
        front = AUTH + b',"procedure":"plain","arguments":["%b"]}\n' % (b"x" * 1_000_000)
        self.assertEqual(await self.answer(front), result)
        self.daemon._policy.limits = Limits(long_requests_before_login=0)
        self.assertEqual(await self.answer(front), result)
        self.assertIn(b'"invalid_request"', await self.answer(last))
        wrong = await self.answer(front.replace(b"secret", b"wrong", 1))
        self.assertEqual(wrong, error("auth_error", "unknown user or wrong password"))

    async def test_memory_of_strangers(self) -> None:
        """Of what somebody unknown sends without an end, no more is kept than is said."""
        await self.start(GOOD)
        client = await self.connect(b"x" * 50 * SHORT_REQUEST)
        await client.ended
        self.assertIn(b'"invalid_request"', bytes(client.received))

    async def test_closed_before_tls(self) -> None:
        """A connection too many is closed without a byte of TLS; calls that run go on."""
        await self.start(GOOD)
        client = await self.connect(request(keepalive=True))
        await eventually(lambda: client.received.endswith(b'{"result":2}\n'), "the result")
        self.daemon._policy.limits = Limits(max_connections=1)

        def knock() -> bytes:
            with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as plain:
                return plain.recv(1)

        self.assertEqual(await deferToThread(knock), b"")
        assert client.transport is not None
        client.received.clear()
        client.transport.write(request())
        await client.ended
        self.assertTrue(client.received.startswith(ACK))

    async def test_silent_gives_way(self) -> None:
        """Those who say nothing, not even TLS's first word, give way to a call."""
        await self.start(GOOD)
        silent = socket.create_connection(("127.0.0.1", self.port), PATIENCE)
        self.addCleanup(silent.close)
        places = self.daemon._factory._places
        await eventually(lambda: len(places) == 1, "the connection")
        self.daemon._policy.limits = Limits(connections_before_login=1)
        for strangers in (places._strangers_of_all, *places._strangers.values()):
            for connection in strangers:
                strangers[connection] -= 10
        self.assertTrue((await self.answer(request())).startswith(ACK))
        with self.assertRaises(ConnectionError):
            await deferToThread(silent.recv, 1)

    async def test_reload(self) -> None:
        """A reload brings permissions and limits into force, for open connections too."""
        await self.start(GOOD)
        client = await self.connect(request(keepalive=True))
        await eventually(lambda: client.received.endswith(b'{"result":2}\n'), "the result")
        limits = Limits(max_calls=7)
        self.config = replace(self.config, permissions=Permissions({}), limits=limits)
        self.daemon.reload()
        await eventually(lambda: self.daemon._policy.limits.max_calls == 7, "the reload")
        assert client.transport is not None
        client.received.clear()
        with capturedLogs() as logs:
            client.transport.write(request())
            await client.ended
        self.assertIn(b'"not_permitted"', bytes(client.received))
        (told,) = [event["audit"] for event in logs if "audit" in event]
        self.assertEqual(
            (told["user"], told["peer"], told["decision"]), ("panel", "127.0.0.1", "refused")
        )

    async def test_old_tls(self) -> None:
        """Who speaks nothing but TLS 1.2 without forward secrecy is not answered."""
        await self.start(GOOD)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("kRSA:ECDHE+AES128+SHA256:@SECLEVEL=0")

        def shake_hands() -> None:
            with (
                socket.create_connection(("127.0.0.1", self.port), PATIENCE) as plain,
                context.wrap_socket(plain),
            ):
                pass

        with self.assertRaises(ssl.SSLError):
            await deferToThread(shake_hands)
