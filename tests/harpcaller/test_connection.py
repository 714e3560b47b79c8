"""Tests of ``harpcaller.connection``: requests one after the other, and how a connection ends."""

from __future__ import annotations

import gc
import json
import weakref
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import alsoProvides

from harp.flow import SLICE
from harp.wire import dispatcher as wire
from harp.wire.lines import MAX_REQUEST
from harp.wire.results import EndKind, EndResult
from harpcaller.connection import (
    CLOSE_DEADLINE,
    LINGER,
    Answer,
    ClientFactory,
)
from harpcaller.terms import IDLE_TIMEOUT, REQUEST_TIMEOUT
from tests.harpcaller.clients import Client, ClientEnd, TcpEnd, gate
from tests.harpcaller.stores import real_reactor

REFUSED = b'{"error":{"type":"invalid_request","message":'
LONG = EndResult(EndKind.RESULT, b'"%b"' % (b"x" * 3 * SLICE))


def request(job_id: str, keepalive: bool = True) -> bytes:
    """Return a request line."""
    more = {"keepalive": True} if keepalive else {}
    return json.dumps({"harpcaller": 1, "get_result": job_id} | more).encode() + b"\n"


class Producer:
    """Something that a client's pace pauses and resumes."""

    def __init__(self) -> None:
        self.paused = False

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False

    def stopProducing(self) -> None:
        pass


class ConnectionTestCase(SynchronousTestCase):
    """A test that answers the requests itself.

    :ivar answers: what is asked and not answered yet.
    """

    def setUp(self) -> None:
        """Have nobody connected."""
        self.clock = Clock()
        self.answers: list[Answer] = []

    def connected(self, transport: ClientEnd | None = None) -> Client:
        """Return a client that has said nothing yet."""
        return Client(self.clock, self.answers.append, transport)

    def answer(self, reply: wire.Reply | None = None, asked: str = "a") -> None:
        """Answer the one request that there is."""
        (answer,) = self.answers
        self.answers.clear()
        assert isinstance(answer.request, wire.GetResult)
        self.assertEqual(answer.request.get_result, asked)
        answer.finish(reply or wire.NoResult())

    def produce(self, client: Client) -> None:
        """Let the client take everything that a pull producer has for it."""
        while client.transport.producer is not None and not client.transport.streaming:
            client.transport.registered.resumeProducing()

    def assert_forgotten(self, client: Client) -> None:
        """Check that nothing keeps a client who has left."""
        self.assertEqual(self.clock.getDelayedCalls(), [])
        protocol = weakref.ref(client.protocol)
        del client.protocol
        gc.collect()
        self.assertIsNone(protocol())


class KeepaliveTests(ConnectionTestCase):
    """One request after the other, where the client asks for that."""

    def test_several_requests(self) -> None:
        """The connection is there for the next request, whose caller it still knows."""
        client = self.connected()
        for job_id in ("a", "b", "c"):
            client.say(request(job_id))
            self.assertEqual(client.take(), b"")
            self.answer(asked=job_id)
            self.assertEqual(client.take(), b'{"no_result":true}\n')
            self.assertTrue(client.is_open)

    def test_request_in_pieces(self) -> None:
        """Later requests may come in pieces, as the first may."""
        client = self.connected()
        for job_id in ("a", "b"):
            for byte in request(job_id):
                self.assertEqual(self.answers, [])
                client.say(bytes([byte]))
            self.answer(asked=job_id)

    def test_last_request(self) -> None:
        """A request that does not ask for another one is the last, as in version 1."""
        client = self.connected()
        client.say(request("a"))
        self.answer()
        client.say(request("b", keepalive=False))
        self.answer(asked="b")
        self.assertTrue(client.is_closed)
        client.say(request("c"))
        self.assertEqual(self.answers, [])
        client.leave()
        self.assert_forgotten(client)

    def test_version_1(self) -> None:
        """The connection of a request of version 1 is closed behind the reply."""
        client = self.connected()
        client.say(request("a", keepalive=False))
        self.assertTrue(client.is_open)
        self.answer()
        self.assertTrue(client.is_closed)
        self.assertEqual(client.got, b'{"no_result":true}\n')

    def test_request_before_the_answer(self) -> None:
        """Who sends more before the answer is answered, and then nothing else is."""
        for pieces in (
            [request("a") + b"x"],
            [request("a") + request("b")],
            [request("a"), b"\n"],
            [request("a"), request("b")],
        ):
            client = self.connected()
            for piece in pieces:
                client.say(piece)
            self.answer()
            self.assertTrue(client.is_closed, pieces)
            client.leave()
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_request_before_the_end_of_a_long_answer(self) -> None:
        """The same holds while an answer is still on its way."""
        client = self.connected()
        client.say(request("a"))
        self.answer(LONG)
        client.say(request("b"))
        self.produce(client)
        self.assertEqual(self.answers, [])
        self.assertTrue(client.is_closed)
        self.assertEqual(len(client.got), 3 * SLICE + len(b'{"result":""}\n'))

    def test_nothing_is_kept_of_what_came_too_early(self) -> None:
        """However much is sent before the answer, it does not gather in memory."""
        client = self.connected()
        client.say(request("a"))
        for _ in range(10):
            client.say(b"x" * MAX_REQUEST)
        self.assertFalse(client.protocol._reader.has_more)

    def test_idle(self) -> None:
        """A connection on which nothing more is asked is closed in good order, not cut."""
        client = self.connected()
        client.say(request("a"))
        self.answer()
        self.clock.advance(IDLE_TIMEOUT - 1)
        client.say(b'{"harpcaller":1,')
        self.assertTrue(client.is_open)
        self.clock.advance(1)
        self.assertTrue(client.is_closed)
        client.say(request("b"))
        self.assertEqual(self.answers, [])
        client.leave()
        self.assert_forgotten(client)

    def test_idle_for_ever(self) -> None:
        """A client that does not answer the end of the connection is cut off."""
        client = self.connected()
        client.say(request("a"))
        self.answer()
        self.clock.advance(IDLE_TIMEOUT)
        self.clock.advance(LINGER - 1)
        self.assertFalse(client.is_cut)
        self.clock.advance(1)
        self.assertTrue(client.is_cut)

    def test_busy_is_not_idle(self) -> None:
        """The limit counts from a reply to the next request, not from one request to the next."""
        client = self.connected()
        for _ in range(3):
            client.say(request("a"))
            self.clock.advance(REQUEST_TIMEOUT + IDLE_TIMEOUT + CLOSE_DEADLINE)
            self.answer()
            self.clock.advance(IDLE_TIMEOUT - 1)
            self.assertTrue(client.is_open)

    def test_refused_line(self) -> None:
        """A line that can't be understood ends the connection, whatever went before it."""
        client = self.connected(TcpEnd())
        client.say(request("a"))
        self.answer()
        client.take()
        client.say(b'{"harpcaller":1,"keepalive":true,"nonsense":1}\n')
        self.assertTrue(client.take().startswith(REFUSED))
        assert isinstance(client.transport, TcpEnd)
        self.assertTrue(client.transport.half_closed)
        client.say(request("b"))
        self.assertEqual(self.answers, [])
        self.clock.advance(LINGER)
        self.assertTrue(client.is_cut)

    def test_refused_request(self) -> None:
        """An error that answers a request does not end the connection."""
        client = self.connected()
        client.say(request("a"))
        self.answer(EndResult(EndKind.ERROR, b'{"type":"invalid_jobid","message":""}'))
        self.assertTrue(client.is_open)

    def test_next_request_after_a_long_answer(self) -> None:
        """An answer of many slices, then another, then a short one."""
        client = self.connected()
        for job_id, reply in (("a", LONG), ("b", LONG), ("c", None)):
            client.say(request(job_id))
            self.answer(reply, job_id)
            self.assertLessEqual(len(client.got), SLICE)
            self.produce(client)
            self.assertTrue(client.take().endswith(b'x"}\n' if reply else b"true}\n"))
            self.assertTrue(client.is_open)

    def test_slow_taker_of_a_long_answer(self) -> None:
        """Who takes a slice now and then is not idle; who takes none for long is cut off."""
        client = self.connected()
        client.say(request("a"))
        self.answer(LONG)
        self.clock.advance(CLOSE_DEADLINE - 1)
        client.transport.registered.resumeProducing()
        self.clock.advance(CLOSE_DEADLINE - 1)
        self.assertTrue(client.is_open)
        self.clock.advance(1)
        self.assertTrue(client.is_cut)

    def test_next_request_after_a_stream(self) -> None:
        """What paced one answer has nothing to do with the next."""
        client = self.connected()
        for job_id in ("a", "b"):
            client.say(request(job_id))
            stream = Producer()
            self.answers[0].pace(stream)  # type: ignore[arg-type]
            client.transport.registered.pauseProducing()
            self.assertTrue(stream.paused)
            self.answers[0].write(b"a packet\n")
            self.answer(asked=job_id)
            client.transport.registered.resumeProducing()
            self.assertTrue(stream.paused)
            self.assertEqual(client.take(), b'a packet\n{"no_result":true}\n')

    def test_late_answers(self) -> None:
        """What comes after the last reply does not get among the replies to the next request."""
        client = self.connected()
        client.say(request("a"))
        (first,) = self.answers
        self.answer()
        client.say(request("b"))
        client.take()
        first.write(b"a packet\n")
        first.finish(wire.NoResult())
        first.cut()
        late = Producer()
        first.pace(late)  # type: ignore[arg-type]
        self.assertTrue(first.is_over)
        self.assertEqual((client.take(), client.is_open), (b"", True))
        client.transport.registered.pauseProducing()
        self.assertFalse(late.paused)


class LeavingTests(ConnectionTestCase):
    """A client that leaves, or ends its own direction only."""

    def test_while_it_waits(self) -> None:
        """What was to be done when the answer is over is done, once, and nothing more is sent."""
        client = self.connected()
        client.say(request("a"))
        (answer,) = self.answers
        over: list[str] = []
        answer.when_over(lambda: over.append("over"))
        client.leave()
        self.assertEqual((over, answer.is_over), (["over"], True))
        self.answer()
        self.assertEqual((over, client.transport.late), (["over"], b""))
        del answer
        self.assert_forgotten(client)

    def test_between_requests(self) -> None:
        """Nothing waits for a client who leaves between two requests."""
        client = self.connected()
        client.say(request("a"))
        self.answer()
        client.leave()
        self.assert_forgotten(client)

    def test_direction_ended_behind_the_request(self) -> None:
        """A client that has said its last word is answered, where that is due at once."""
        client = self.connected()
        client.say(request("a"))
        client.end()
        self.assertTrue(client.is_open)
        self.answer()
        self.assertEqual(client.got, b'{"no_result":true}\n')
        self.assertTrue(client.is_closed)

    def test_direction_ended_while_it_waits(self) -> None:
        """Where an answer may be long in coming, it means that the client has left."""
        client = self.connected()
        client.say(request("a"))
        self.answers[0].wait()
        self.assertTrue(client.is_open)
        client.end()
        self.assertTrue(client.is_closed)

    def test_direction_ended_before_it_waits(self) -> None:
        """The same if only then it turns out that the answer will be long in coming."""
        client = self.connected()
        client.say(request("a"))
        client.end()
        self.answers[0].wait()
        self.assertTrue(client.is_closed)
        self.clock.advance(CLOSE_DEADLINE)
        self.assertTrue(client.is_cut)

    def test_direction_ended_in_mid_answer(self) -> None:
        """A long answer that has begun is sent to its end, also to who had waited for it."""
        client = self.connected()
        client.say(request("a"))
        self.answers[0].wait()
        self.answer(LONG)
        client.end()
        self.assertTrue(client.is_open)
        self.produce(client)
        self.assertTrue(client.got.endswith(b'x"}\n'))
        self.assertTrue(client.is_closed)

    def test_direction_ended_between_requests(self) -> None:
        """A client that ends its direction when it has been answered has left."""
        client = self.connected()
        client.say(request("a"))
        self.answer()
        client.end()
        self.assertTrue(client.is_closed)

    def test_direction_ended_before_the_request(self) -> None:
        """So has one that never came to its request."""
        client = self.connected()
        client.say(b"{")
        client.end()
        self.assertTrue(client.is_closed)


class RefusalTests(ConnectionTestCase):
    """A client that goes on sending gets to read why it was refused."""

    def send_too_much(self) -> TcpEnd:
        """Return the transport of a client that was refused."""
        transport = TcpEnd()
        client = self.connected(transport)
        for _ in range(4):
            client.say(b"x" * MAX_REQUEST)
        self.assertTrue(client.got.startswith(REFUSED))
        self.assertEqual(client.got.count(b"\n"), 1)
        return transport

    def test_our_direction_is_closed(self) -> None:
        """Over TCP the client may finish sending, and nothing is reset."""
        transport = self.send_too_much()
        self.assertTrue(transport.half_closed)
        self.assertFalse(transport.disconnecting)

    def test_not_for_ever(self) -> None:
        """A client that never stops is cut off."""
        transport = self.send_too_much()
        self.clock.advance(LINGER - 1)
        self.assertFalse(transport.disconnected)
        self.clock.advance(1)
        self.assertTrue(transport.disconnected)

    def test_tls(self) -> None:
        """TLS has an end of its own, which half a TCP connection would cut short."""
        transport = TlsEnd()
        client = self.connected(transport)
        client.say(b"x" * 2 * MAX_REQUEST)
        self.assertTrue(transport.disconnecting)
        self.assertFalse(transport.half_closed)


class TlsEnd(TcpEnd):
    """A transport of TLS, which has the methods of TCP's."""

    def __init__(self) -> None:
        super().__init__()
        alsoProvides(self, ISSLTransport)


class Gathering(Protocol):
    """A client that reads when it is told to."""

    def __init__(self) -> None:
        self.received = 0
        self.lines = 0
        self.wanted: tuple[int, Deferred[None]] | None = None

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.setTcpNoDelay(True)
        transport.pauseProducing()

    def dataReceived(self, data: bytes) -> None:
        self.lines += data.count(b"\n")
        if self.wanted is not None and self.lines == self.wanted[0]:
            self.wanted[1].callback(None)

    def read(self, lines: int) -> Deferred[None]:
        """Read from now on; fires when so many lines have come in all."""
        transport: Any = self.transport
        self.wanted = lines, Deferred()
        transport.resumeProducing()
        return self.wanted[1]


class UnreadAnswersTests(TestCase):
    """A client that asks and asks, but does not read, over TCP."""

    timeout = 30

    async def test_memory(self) -> None:
        """It is not read from while its answers pile up; it gets all of them when it reads."""
        reply = EndResult(EndKind.RESULT, b'"%b"' % (b"x" * (SLICE // 2)))
        asked: list[Deferred[None]] = []

        def respond(answer: Answer) -> None:
            answer.finish(reply)
            asked.pop().callback(None)

        reactor: Any = real_reactor()
        factory = Servers(ClientFactory(reactor, respond, gate(reactor), True))
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
        self.addCleanup(port.stopListening)
        client = Gathering()
        there = TCP4ClientEndpoint(reactor, "127.0.0.1", cast(Any, port.getHost()).port)
        await connectProtocol(there, client)
        server = await factory.connected

        sent = 0
        while not server.transport.producerPaused:
            asked.append(Deferred())
            sent += 1
            cast(Any, client.transport).write(request("a"))
            await asked[-1]
            self.assertLess(sent, 10_000)
        self.assertLess(server.transport._tempDataLen + len(server.transport.dataBuffer), 3 * SLICE)

        cast(Any, client.transport).write(request("a"))
        asked.append(Deferred())
        await client.read(sent + 1)
        self.assertEqual(asked, [])
        cast(Any, client.transport).loseConnection()
        await factory.lost


class Servers(Factory):
    """Tells of the one connection that comes.

    :ivar connected: fires with its protocol.
    :ivar lost: fires when it has ended.
    """

    noisy = False

    def __init__(self, inner: ClientFactory) -> None:
        self._inner = inner
        self.connected: Deferred[Any] = Deferred()
        self.lost: Deferred[None] = Deferred()

    def buildProtocol(self, addr: Any) -> Protocol:
        protocol = self._inner.buildProtocol(addr)
        made, lost = protocol.connectionMade, protocol.connectionLost

        def connection_made() -> None:
            made()
            self.connected.callback(protocol)

        def connection_lost(reason: Failure = connectionDone) -> None:
            lost(reason)
            self.lost.callback(None)

        protocol.connectionMade = connection_made  # type: ignore[method-assign]
        protocol.connectionLost = connection_lost  # type: ignore[method-assign]
        return protocol
