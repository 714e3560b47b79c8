"""Tests of ``harp.direct`` in both modes: calls of harpd without a dispatcher, over real TLS."""

from __future__ import annotations

import copy
import gc
import json
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trustme
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase

import harp
from harp import Origin
from harp.direct import CallPackets, Server
from harp.network import Address
from harp.sockets import PlainEndpoint, run
from tests.harp.modes import ContractTestCase, authority, both_modes, identity
from tests.harp.peer import PATIENCE, ScriptedDispatcher, reset, slowly, until
from tests.harp.test_harpd_wire import FAULT

ACK, STREAM_ACK = b'{"harp":1,"stream_result":false}\n', b'{"harp":1,"stream_result":true}\n'
PACKETS = b'{"stream":{"a":[1.5]}}\n{"stream":null}\n'
ERROR = b'{"harp":1,"error":%b}\n'
LOCKED, FREE = b'{"harp":1,"waiting":{"lock":"x"}}\n', b'{"harp":1,"waiting":null}\n'


class DirectCalls(ContractTestCase):
    """A call of harpd gives what the procedure gave, or raises."""

    def harpd(self, *steps: Any, **options: Any) -> ScriptedDispatcher:
        """Return a harpd with one script."""
        tls = options.pop("tls", None) or identity()
        return self.peer(steps, tls=tls, knows_version_1=False, **options)

    async def test_plain(self) -> None:
        """A plain procedure's value is returned; what is sent is the protocol page's request.

        It asks for the connection to stay open.
        """
        for script in ([ACK + b'{"result":{"a":[1]}}\n'], slowly(ACK + b'{"result":{"a":[1]}}\n')):
            peer = self.harpd(*script)
            server = self.server(peer.port)
            self.assertEqual(await self.mode.done(server.run_foo(1, "x")), {"a": [1]})
            request = json.loads(peer.requests[0])
            self.assertEqual(
                request,
                {
                    "harp": 1,
                    "procedure": "run_foo",
                    "arguments": [1, "x"],
                    "auth": {"user": "panel", "password": "secret"},
                    "keepalive": True,
                },
            )

    async def test_streaming(self) -> None:
        """A streaming procedure's packets are yielded, and its value comes last in a Result."""
        for script in ([STREAM_ACK, PACKETS + b'{"result":7}\n'],):
            packets = await self.mode.done(self.server(self.harpd(*script).port).run(size=1))
            self.assertIsInstance(packets, self.mode.module.HarpStreamIterator)
            found = await self.mode.items(packets)
            self.assertEqual(found, [{"a": [1.5]}, None, harp.Result(7)])
            self.assertEqual(found[-1].value, 7)
            self.assertEqual(await self.mode.items(packets), [])

    async def test_all(self) -> None:
        """The whole stream can be had as a list."""
        peer = self.harpd(STREAM_ACK + PACKETS + b'{"result":7}\n')
        packets = await self.mode.done(self.server(peer.port).run())
        found = await self.mode.done(packets.all())
        self.assertEqual(found, [{"a": [1.5]}, None, harp.Result(7)])

    async def test_waits_for_a_lock(self) -> None:
        """News of a lock, which nobody asked for, are passed over."""
        peer = self.harpd(ACK + LOCKED + FREE + b'{"result":7}\n')
        self.assertEqual(await self.mode.done(self.server(peer.port).run()), 7)
        peer = self.harpd(STREAM_ACK + LOCKED + FREE + b'{"result":7}\n')
        packets = await self.mode.done(self.server(peer.port).run())
        self.assertEqual(await self.mode.items(packets), [harp.Result(7)])

    async def test_failures(self) -> None:
        """What the procedure raised and why it could not run are raised, with their origin."""
        cases: list[tuple[bytes, type[Any], Origin | None, bool]] = [
            (ACK + b'{"exception":%b}\n' % FAULT, harp.RemoteException, Origin.PROCEDURE, True),
            (ERROR % b'{"type":"auth_error","message":"M"}', harp.RemoteError, Origin.HARPD, False),
            (ERROR % b'{"type":"shutdown","message":"M"}', harp.RemoteError, Origin.HARPD, False),
            (
                ACK + ERROR % b'{"type":"shutdown","message":"M"}',
                harp.RemoteError,
                Origin.HARPD,
                True,
            ),
            (
                ACK + ERROR % b'{"type":"timeout","message":"M"}',
                harp.RemoteError,
                Origin.HARPD,
                True,
            ),
            (ACK + ERROR % b'{"type":"new_one","message":"M"}', harp.RemoteError, None, True),
        ]
        for script, kind, origin, may_have_run in cases:
            server = self.server(self.harpd(script).port)
            error = await self.failure(kind, server.run)
            self.assertEqual((error.origin, error.may_have_run), (origin, may_have_run), script)

    async def test_failures_of_a_stream(self) -> None:
        """The iterator raises how the call failed, and is at its end then."""
        ends = [
            (b'{"exception":%b}\n' % FAULT, harp.RemoteException),
            (ERROR % FAULT, harp.RemoteError),
            (b"", harp.CommunicationError),
            (b"garbage\n", harp.CommunicationError),
            (b'{"stream":1e999}\n', harp.CommunicationError),
        ]
        for end, kind in ends:
            peer = self.harpd(STREAM_ACK + PACKETS + end)
            packets = await self.mode.done(self.server(peer.port).run())
            self.assertEqual(
                [await self.mode.next(packets), await self.mode.next(packets)], [{"a": [1.5]}, None]
            )
            with self.assertRaises(kind) as caught:
                await self.mode.next(packets)
            self.assertTrue(caught.exception.may_have_run)
            self.assertEqual(await self.mode.items(packets), [])

    async def test_broken(self) -> None:
        """A connection that breaks is named with the procedure, and that it may have run."""
        for steps in ([], [ACK], [b'{"harp":1'], [ACK, reset]):
            peer = self.harpd(*steps)
            error = await self.failure(harp.CommunicationError, self.server(peer.port).run_foo)
            self.assertRegex(
                str(error),
                rf"^127.0.0.1:{peer.port}: run_foo\(\) without a whole reply: .*"
                "; the procedure may have run$",
            )
            self.assertEqual((error.origin, error.may_have_run), (Origin.NETWORK, True))

    async def test_silence(self) -> None:
        """A harpd that does not acknowledge in time is given up."""
        done = threading.Event()
        peer = self.harpd(until(done))
        self.addCleanup(done.set)
        server = self.server(peer.port, reply_timeout=0.05)
        error = await self.failure(harp.CommunicationError, server.run)
        self.assertIn("nothing came for 0.05 seconds", str(error))
        self.assertTrue(error.may_have_run)

    async def test_leaving_early(self) -> None:
        """Leaving a stream, or dropping it, closes the connection, which cancels the call."""

        def leave_open(packets: Any) -> None:
            """Let the caller drop it."""

        for leave in (self.mode.module.HarpStreamIterator.close, leave_open):
            closed = threading.Event()

            def wait_for_end(connection: Any, closed: threading.Event = closed) -> None:
                try:
                    while connection.recv(1):
                        pass
                except OSError:
                    pass
                closed.set()

            peer = self.harpd(STREAM_ACK + PACKETS, wait_for_end)
            packets = await self.mode.done(self.server(peer.port).run())
            self.assertEqual(await self.mode.next(packets), {"a": [1.5]})
            leave(packets)
            del packets
            gc.collect()
            self.assertTrue(await deferToThread(closed.wait, PATIENCE))

    async def test_untrusted(self) -> None:
        """Nothing is sent to a peer whose certificate is not right; the reason is told."""
        cases: list[tuple[Any, dict[str, Any]]] = [
            (identity(issuer=trustme.CA()), {}),
            (identity("web01.example.net"), {}),
            (identity(), {"server_name": "web01.example.net"}),
            (identity(), {"ca_file": None}),
        ]
        for tls, options in cases:
            peer = self.harpd(tls=tls, refuses=True)
            server = self.server(peer.port, **options)
            error = await self.failure(harp.CommunicationError, server.run)
            self.assertRegex(str(error), "can't connect: .*certificate")
            self.assertFalse(error.may_have_run)
            await deferToThread(peer.stop)
            self.assertEqual(peer.requests, [])

    async def test_trusted(self) -> None:
        """A certificate is compared with server_name; it is not looked at if that is asked for."""
        other = identity("web01.example.net", trustme.CA())
        cases: list[tuple[Any, dict[str, Any]]] = [
            (identity("web01.example.net"), {"server_name": "web01.example.net"}),
            (other, {"ca_file": None, "verify_certificate": False}),
        ]
        for tls, options in cases:
            peer = self.harpd(ACK + b'{"result":1}\n', tls=tls)
            self.assertEqual(await self.mode.done(self.server(peer.port, **options).run()), 1)

    async def test_no_tls(self) -> None:
        """A peer without TLS gets no password."""
        peer = self.peer([b"220 hello\r\n"], reads=5, knows_version_1=False)
        error = await self.failure(harp.CommunicationError, self.server(peer.port).run)
        self.assertIn("can't connect: ", str(error))
        self.assertFalse(error.may_have_run)

    async def test_context(self) -> None:
        """What harpd is to know of a call is sent with it."""
        peer = self.harpd(ACK + b'{"result":1}\n')
        await self.mode.done(self.server(peer.port, context={"ticket": 7}).run())
        self.assertEqual(json.loads(peer.requests[0])["context"], {"ticket": 7})

    async def test_procedures(self) -> None:
        """What harpd offers is returned; a harpd that is too old refuses the question."""
        peer = self.harpd(b'{"harp":1,"procedures":[{"name":"run"}]}\n')
        found = await self.mode.done(self.server(peer.port).procedures())
        self.assertEqual(found, [{"name": "run"}])
        self.assertTrue(json.loads(peer.requests[0])["describe"])
        peer = self.harpd(ERROR % b'{"type":"invalid_request","message":"M"}')
        error = await self.failure(harp.RemoteError, self.server(peer.port).procedures)
        self.assertEqual((error.type, error.may_have_run), ("invalid_request", False))

    async def test_mistakes(self) -> None:
        """Wrong options and arguments are refused before anything connects."""
        wrong: list[tuple[dict[str, Any], type[Exception], str]] = [
            ({"ca_file": "/nowhere"}, ValueError, "ca_file /nowhere can't be used: No such file"),
            ({"verify_certificate": False}, ValueError, "ca_file with verify_certificate"),
            ({"server_name": 7}, TypeError, "server_name must be a str"),
            ({"context": []}, TypeError, "context must be a dict"),
            ({"reply_timeout": 0}, ValueError, "reply_timeout"),
        ]
        for options, kind, told in wrong:
            with self.assertRaisesRegex(kind, told):
                self.server(1, **options)
        server = self.server(1)
        await self.failure(TypeError, lambda: server.run(1, size=2))
        await self.failure(ValueError, lambda: server.run(float("nan")))
        self.assertFalse(hasattr(server, "_x"))
        self.assertEqual(repr(server), "<harp.HarpServer 127.0.0.1:1>")
        self.assertNotIn("secret", repr(server))


class CopyTests(SynchronousTestCase):
    """A HarpServer is a value."""

    def test_copies_and_pickles(self) -> None:
        """Copies and pickles talk to the same harpd, and trust the same authority."""
        ca_file = Path(self.mktemp())
        ca_file.write_bytes(authority().cert_pem.bytes())

        def pickled(value: Any) -> Any:
            return pickle.loads(pickle.dumps(value))

        ways: list[Callable[[Any], Any]] = [copy.copy, copy.deepcopy, pickled]
        for same in ways:
            script = [ACK + b'{"result":1}\n']
            peer = ScriptedDispatcher([script], knows_version_1=False, tls=identity())
            self.addCleanup(peer.stop)
            server = harp.HarpServer("127.0.0.1", "panel", "secret", peer.port, ca_file)
            self.assertEqual(same(server).run(), 1)


class MemoryChannel:
    """A channel that has what a test put into it, and remembers how long each wait might take."""

    def __init__(self, *arrivals: bytes) -> None:
        self.patience: list[float | None] = []
        self._arrivals = list(arrivals)

    async def send(self, data: bytes) -> None:
        """Send it nowhere."""

    async def receive(self, timeout: float | None) -> bytes:
        """Return what is next."""
        self.patience.append(timeout)
        return self._arrivals.pop(0)

    def is_quiet(self) -> bool:
        """Say yes."""
        return True

    def close(self) -> None:
        """Do nothing."""

    abandon = close


class MemoryEndpoint(PlainEndpoint):
    """Leads to one channel."""

    def __init__(self, channel: MemoryChannel) -> None:
        super().__init__(Address("h", 1, 30, 60))
        self._channel = channel

    async def connect(self) -> Any:
        """Return it."""
        return self._channel


class PatienceTests(SynchronousTestCase):
    """How long harpd may be silent."""

    def test_after_the_acknowledgement(self) -> None:
        """The acknowledgement is due at once, what the procedure takes has no limit."""
        for ack, end in [(ACK, b'{"result":1}\n'), (STREAM_ACK, PACKETS)]:
            channel = MemoryChannel(ack, end)
            server: Server[CallPackets] = Server(MemoryEndpoint(channel), "u", "p", None)
            server._packets = CallPackets  # type: ignore[method-assign]
            found = run(server._call("run"))
            if ack == STREAM_ACK:
                run(found._next())
            self.assertEqual(channel.patience, [60, None])


globals().update(both_modes(DirectCalls))
del DirectCalls
