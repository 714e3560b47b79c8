"""Tests of ``harp.direct_call`` in both modes: connections that harpd leaves open, over TLS."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import pickle
import socket
import ssl
import threading
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

import harp
from harp import outcomes
from harp.sockets import LOOKED_AT_FOR, SocketChannel
from harp.transports import TransportChannel
from tests.harp.modes import Blocking, ContractTestCase, both_modes, hear, identity
from tests.harp.peer import PATIENCE, Script, ScriptedDispatcher, reset, until
from tests.harp.test_direct import ACK, ERROR, PACKETS, STREAM_ACK

DONE = b'{"result":7}\n'
REFUSED = ERROR % b'{"type":"invalid_request","message":"Object contains unknown field"}'


def goodbye(connection: Any) -> None:
    """End TLS in good order."""
    with contextlib.suppress(OSError):  # the client need not answer
        connection.unwrap()


def cut(connection: socket.socket) -> None:
    """End the connection below TLS, with an end of file."""
    socket.socket.shutdown(connection, socket.SHUT_RDWR)


def closed(event: threading.Event) -> Any:
    """Wait for the client to close the connection, then say so."""

    def wait(connection: socket.socket) -> None:
        connection.settimeout(PATIENCE)
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while connection.recv(1):
                pass
        event.set()

    return wait


class KeptTestCase(ContractTestCase):
    """Has peers that speak TLS."""

    def setUp(self) -> None:
        """Keep what is asked behind the first requests of connections."""
        self.lines: list[bytes] = []
        self.heard = hear(self.lines)

    def harpd(self, *scripts: Script) -> ScriptedDispatcher:
        """Return a harpd with a script for each connection."""
        return self.peer(*scripts, tls=identity(), knows_version_1=False)


class KeptConnections(KeptTestCase):
    """A connection that harpd leaves open carries further requests, each at most once."""

    async def test_one_connection(self) -> None:
        """Calls, streams read to their end and questions follow each other on one connection."""
        peer = self.harpd(
            [
                *(ACK + DONE, self.heard, ACK, DONE),
                *(self.heard, STREAM_ACK, PACKETS, DONE),
                *(self.heard, ACK + b'{"exception":{"type":"E","message":"M"}}\n'),
                *(self.heard, b'{"harp":1,"procedures":[]}\n', self.heard, ACK + DONE),
            ]
        )
        server = self.server(peer.port)
        self.assertEqual(await self.mode.done(server.run()), 7)
        self.assertEqual(await self.mode.done(server.run()), 7)
        packets = await self.mode.done(server.run())
        self.assertEqual(len(await self.mode.items(packets)), 3)
        await self.failure(harp.RemoteException, server.run)
        self.assertEqual(await self.mode.done(server.procedures()), [])
        self.assertEqual(await self.mode.done(server.run()), 7)
        sent = [json.loads(line) for line in [*peer.requests, *self.lines]]
        self.assertEqual([each["keepalive"] for each in sent], [True] * 6)
        self.assertEqual([each["auth"]["password"] for each in sent], ["secret"] * 6)

    async def test_ended_before_a_reply(self) -> None:
        """What harpd did not take up, for it ended TLS in good order, is sent again."""
        peer = self.harpd([ACK + DONE, self.heard, goodbye], [ACK + b'{"result":8}\n'])
        server = self.server(peer.port)
        await self.mode.done(server.run(1))
        self.assertEqual(await self.mode.done(server.run(2)), 8)
        self.assertEqual(peer.requests[1], self.lines[0])

    async def test_ended_while_it_was_sent(self) -> None:
        """The same where harpd had ended before, which was not noticed yet."""
        for kind in (SocketChannel, TransportChannel):
            self.patch(kind, "is_quiet", lambda _: True)
        gone = threading.Event()

        def leave(connection: Any) -> None:
            # Not waiting for an answer, as a harpd that is cut short.
            connection.settimeout(0)
            goodbye(connection)
            connection.close()
            gone.set()

        peer = self.harpd([ACK + DONE, leave], [ACK + b'{"result":8}\n'])
        server = self.server(peer.port)
        await self.mode.done(server.run())
        gone.wait(PATIENCE)  # in the reactor's thread, so it does not see it
        self.assertEqual(await self.mode.done(server.run()), 8)

    async def test_broken_before_a_reply(self) -> None:
        """A request is not sent again where it may have run; the error says so."""
        for end in (cut, reset):
            peer = self.harpd([ACK + DONE, self.heard, end])
            server = self.server(peer.port)
            await self.mode.done(server.run())
            error = await self.failure(harp.CommunicationError, server.run)
            self.assertRegex(str(error), r"run\(\) without a whole reply: .*; the procedure may ha")
            self.assertTrue(error.may_have_run)

    async def test_ended_after_a_byte(self) -> None:
        """Where harpd has replied anything the request is not sent again, however it ended."""
        for answer in (b"{", ACK, STREAM_ACK):
            peer = self.harpd([ACK + DONE, self.heard, answer, goodbye])
            server = self.server(peer.port)
            await self.mode.done(server.run())

            async def call(server: Any = server) -> None:
                found = await self.mode.done(server.run())
                await self.mode.items(found)

            with self.assertRaises(harp.CommunicationError) as caught:
                await call()
            self.assertTrue(caught.exception.may_have_run)

    async def test_new_connection_that_ends(self) -> None:
        """On a new connection nothing is sent again, however harpd ends it."""
        for end in (goodbye, cut):
            server = self.server(self.harpd([end]).port)
            error = await self.failure(harp.CommunicationError, server.run)
            self.assertTrue(error.may_have_run)

    async def test_gone(self) -> None:
        """Where nobody listens any more for what is sent again, it has certainly not run."""
        peer = self.harpd([ACK + DONE, self.heard, goodbye])
        server = self.server(peer.port)
        await self.mode.done(server.run())
        error = await self.failure(harp.CommunicationError, server.run)
        self.assertRegex(str(error), r"^127.0.0.1:\d+: can't connect: Connection refused$")
        self.assertFalse(error.may_have_run)

    async def test_ended_while_idle(self) -> None:
        """A connection that was ended or broken while it was idle is not used."""
        for end in (goodbye, cut):
            server = self.server(self.harpd([ACK + DONE, end], [ACK + b'{"result":8}\n']).port)
            await self.mode.done(server.run())
            [(channel, _)] = server._pool._idle
            while channel.is_quiet():
                await deferLater(reactor, 0)
            self.assertEqual(await self.mode.done(server.run()), 8)

    async def test_ended_behind_a_slow_reader(self) -> None:
        """Nor one whose last packets waited for their reader, and that broke when it was idle."""
        sent, taken, gone = threading.Event(), threading.Event(), threading.Event()
        slow = [lambda _: sent.set(), until(taken), cut, lambda _: gone.set()]
        peer = self.harpd([STREAM_ACK, PACKETS + DONE, *slow], [ACK + b'{"result":8}\n'])
        server = self.server(peer.port)
        packets = await self.mode.done(server.run())
        self.assertTrue(await deferToThread(sent.wait, PATIENCE))
        for _ in range(3):  # turns, for the reactor to see it
            await deferLater(reactor, 0)
        self.assertEqual(len(await self.mode.items(packets)), 3)
        taken.set()
        self.assertTrue(await deferToThread(gone.wait, PATIENCE))
        for _ in range(3):
            await deferLater(reactor, 0)
        self.assertEqual(await self.mode.done(server.run()), 8)

    async def test_refused_login(self) -> None:
        """After a refusal harpd closes, so the connection is not kept."""
        gone = threading.Event()
        refusal = ERROR % b'{"type":"auth_error","message":"M"}'
        peer = self.harpd([refusal, closed(gone)], [ACK + DONE])
        server = self.server(peer.port)
        await self.failure(harp.RemoteError, server.run)
        self.assertTrue(await deferToThread(gone.wait, PATIENCE))
        self.assertEqual(await self.mode.done(server.run()), 7)

    async def test_more_behind_the_end(self) -> None:
        """A connection on which something comes behind the end result is not used again."""
        peer = self.harpd([ACK + DONE + b"{"], [ACK + DONE])
        server = self.server(peer.port)
        for _ in range(2):
            self.assertEqual(await self.mode.done(server.run()), 7)

    async def test_stream_that_is_left(self) -> None:
        """Leaving a stream closes its connection; the next call gets another."""
        gone = threading.Event()
        peer = self.harpd([STREAM_ACK + PACKETS, closed(gone)], [ACK + DONE])
        server = self.server(peer.port)
        packets = await self.mode.done(server.run())
        await self.mode.next(packets)
        packets.close()
        self.assertTrue(await deferToThread(gone.wait, PATIENCE))
        self.assertEqual(await self.mode.items(packets), [])
        self.assertEqual(await self.mode.done(server.run()), 7)

    async def test_interrupted_between_packets(self) -> None:
        """What interrupts a reader ends the stream, for he would go on with a gap in it."""
        gone = threading.Event()
        peer = self.harpd([STREAM_ACK + PACKETS, closed(gone)])
        packets = await self.mode.done(self.server(peer.port).run())
        await self.mode.next(packets)

        def interrupt(_: bytes) -> None:
            raise MemoryError

        self.patch(outcomes, "decode_payload", interrupt)
        with self.assertRaises(MemoryError):
            await self.mode.next(packets)
        self.assertEqual(await self.mode.items(packets), [])
        self.assertTrue(await deferToThread(gone.wait, PATIENCE))

    async def test_old_harpd(self) -> None:
        """A harpd that does not know keepalive is asked without it, at once and from then on."""
        peer = self.harpd([REFUSED], [ACK + DONE], [ACK + DONE])
        server = self.server(peer.port)
        for _ in range(2):
            self.assertEqual(await self.mode.done(server.run()), 7)
        sent = [json.loads(line) for line in peer.requests]
        self.assertEqual([each.pop("keepalive", None) for each in sent], [True, None, None])
        self.assertEqual(sent[0], sent[1])

    async def test_request_that_is_refused(self) -> None:
        """A harpd that refuses the request either way is not taken for an old one."""
        peer = self.harpd([REFUSED], [REFUSED], [ACK + DONE])
        server = self.server(peer.port)
        error = await self.failure(harp.RemoteError, server.run)
        self.assertEqual((error.type, error.may_have_run), ("invalid_request", False))
        await self.mode.done(server.run())
        self.assertIn(b"keepalive", peer.requests[-1])

    async def test_refused_after_the_acknowledgement(self) -> None:
        """An error that comes when the call may have run is no reason to send it again."""
        peer = self.harpd([ACK + REFUSED])
        error = await self.failure(harp.RemoteError, self.server(peer.port).run)
        self.assertEqual((error.type, error.may_have_run), ("invalid_request", True))

    async def test_close_and_drop(self) -> None:
        """Idle connections are closed on request, and when the client is gone."""
        for drop in (False, True):
            gone = threading.Event()
            peer = self.harpd([ACK + DONE, closed(gone)])
            server = self.mode.module.HarpServer(
                *self.mode.first, "127.0.0.1", "panel", "secret", peer.port, self.ca_file()
            )
            await self.mode.done(server.run())
            if drop:
                del server
                gc.collect()
            else:
                server.close_connections()
            self.assertTrue(await deferToThread(gone.wait, PATIENCE))


class SharedConnectionTests(KeptTestCase):
    """Kept connections among threads and processes; only programs that block have these."""

    mode = Blocking()

    def test_resumed(self) -> None:
        """A new connection resumes the session of an earlier one, also where several do at once."""
        tls = identity()
        script = [ACK + DONE]
        peer = self.peer(*[script] * 4, tls=tls, knows_version_1=False)
        server = self.server(peer.port)
        for _ in range(4):
            self.assertEqual(server.run(), 7)
            server.close_connections()
        self.assertEqual(tls.session_stats()["hits"], 3)

    def test_broken_where_python_forgives(self) -> None:
        """A break is none of the good ends, also where Python's default takes it for one."""
        make = ssl.create_default_context

        def forgiving(**options: Any) -> ssl.SSLContext:
            context = make(**options)
            context.options |= ssl.OP_IGNORE_UNEXPECTED_EOF
            return context

        self.patch(ssl, "create_default_context", forgiving)
        server = self.server(self.harpd([ACK + DONE, self.heard, cut]).port)
        self.assertEqual(server.run(), 7)
        with self.assertRaises(harp.CommunicationError) as caught:
            server.run()
        self.assertTrue(caught.exception.may_have_run)

    def test_looked_at_again(self) -> None:
        """An hour after a certificate was looked at it is again, however often it was resumed."""
        tls = identity()
        peer = self.peer(*[[ACK + DONE]] * 4, tls=tls, knows_version_1=False)
        server = self.server(peer.port)
        resumed = []
        for now in (10_000.0, 10_000.0 + LOOKED_AT_FOR, 10_001.0 + LOOKED_AT_FOR, 13_700.0):
            self.patch(server._pool.endpoint, "now", lambda now=now: now)
            self.assertEqual(server.run(), 7)
            server.close_connections()
            resumed.append(tls.session_stats()["hits"])
        self.assertEqual(resumed, [0, 1, 1, 2])

    def test_other_trust(self) -> None:
        """A session is resumed by nobody who has not seen the certificate."""
        tls = identity()
        peer = self.peer([ACK + DONE], [], tls=tls, knows_version_1=False)
        server = self.server(peer.port)
        self.assertEqual(server.run(), 7)
        twin = pickle.loads(pickle.dumps(server))
        self.assertEqual(twin._pool.endpoint._learned, (None, 0.0))
        with self.assertRaises(harp.CommunicationError):
            twin.run()
        self.assertEqual(tls.session_stats()["hits"], 0)

    def test_pickled(self) -> None:
        """What one trusts that was a pickle is known before threads can share it.

        Two contexts made at once would not resume each other's sessions.
        """
        server = self.server(self.harpd([ACK + DONE]).port)
        twin = pickle.loads(pickle.dumps(server))
        self.patch(ssl, "create_default_context", None)
        self.assertEqual(twin.run(), 7)
        twin.close_connections()

    def test_fork(self) -> None:
        """A child process makes a connection of its own and leaves its parent's alone."""
        peer = self.harpd([ACK + DONE, self.heard, ACK + b'{"result":8}\n'], [ACK + DONE])
        server = self.server(peer.port)
        self.assertEqual(server.run(), 7)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                status = 0 if server.run() == 7 else 2
            finally:
                os._exit(status)
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        self.assertEqual(server.run(), 8)
        self.assertEqual(len(peer.requests), 2)

    def test_threads(self) -> None:
        """No two threads are on one connection at the same time, and each gets its own reply."""
        at_once = 4
        barrier = threading.Barrier(at_once)

        def answer(connection: socket.socket) -> None:
            barrier.wait(PATIENCE)  # all threads have a connection before one comes back
            connection.sendall(ACK + DONE)
            with connection.makefile("rb") as incoming:
                for line in incoming:
                    [number] = json.loads(line)["arguments"]
                    connection.sendall(ACK + b'{"result":%d}\n' % number)

        scripts: list[Script] = [[answer] for _ in range(at_once)]
        server = self.server(self.harpd(*scripts).port)
        wrong: list[object] = []

        def ask(first: int) -> None:
            server.run()
            for number in range(first, first + 20):
                if (found := server.run(number)) != number:
                    wrong.append(found)

        threads = [threading.Thread(target=ask, args=(1000 * n,)) for n in range(at_once)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        self.assertEqual(wrong, [])
        server.close_connections()


globals().update(both_modes(KeptConnections))
del KeptConnections
