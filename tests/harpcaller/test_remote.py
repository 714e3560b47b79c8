"""Tests of ``harpcaller.remote``: real TLS and harpd's own session, in memory and on a clock."""

from __future__ import annotations

import errno
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import trustme
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectBindError, ConnectionRefusedError
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IResolutionReceiver,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from harp.wire.harpd import Ack, Packet
from harp.wire.lines import ENVELOPE_ROOM, MAX_REPLY
from harp.wire.results import EndKind, EndResult
from harpcaller.hosts import Host
from harpcaller.remote import CLOSE_DEADLINE, MAX_UNRECORDED, Conversation
from harpcaller.store import StoreError
from harpcaller.trust import ServerTrust
from tests.harpcaller.memory import (
    HOST,
    HarpdCall,
    NetworkTestCase,
    running_job,
    trust,
    trust_in,
)

RESULT = EndResult(EndKind.RESULT, b'{"free":12}')
JOB = running_job(timeout=10.0, max_exec_time=60.0)


class ConversationTestCase(NetworkTestCase):
    """A test with a conversation, whose packets are recorded when the test wants."""

    def setUp(self) -> None:
        """Make the conversation, not started."""
        super().setUp()
        self.told: list[list[bytes] | EndResult] = []
        self.recordings: list[Deferred[None]] = []
        self.conversation = Conversation(self.network, JOB, self.record, self.told.append)

    def record(self, packets: list[bytes]) -> Deferred[None]:
        self.told.append(packets)
        self.recordings.append(Deferred())
        return self.recordings[-1]

    def recorded(self) -> None:
        """Let the oldest packets be on disk."""
        self.recordings.pop(0).callback(None)

    def connect(self, server_trust: ServerTrust | None = None, handshake: bool = True) -> HarpdCall:
        """Start the conversation and accept its connection."""
        self.conversation.start(HOST, server_trust or trust())
        return self.accept(handshake)

    def streaming(self) -> HarpdCall:
        """Return a call that has been acknowledged as a stream."""
        call = self.connect()
        call.reply(Ack(True))
        return call

    def assert_ended(self, type: str, *parts: str) -> None:
        """Check that the job ended with an error, and that nothing is left over."""
        end = self.told[-1]
        assert isinstance(end, EndResult)
        self.assertEqual(end.kind, EndKind.ERROR)
        error = json.loads(end.value)
        self.assertEqual(error["type"], type)
        for part in parts:
            self.assertIn(part, error["message"])
        self.assert_nothing_left()

    def assert_nothing_left(self) -> None:
        """Check that there is one end at most, and that nothing will happen any more."""
        self.assertLessEqual(sum(isinstance(each, EndResult) for each in self.told), 1)
        self.assertEqual(self.network.getDelayedCalls(), [])


class CallTests(ConversationTestCase):
    """What harpd is asked, and what becomes of its replies."""

    def test_result(self) -> None:
        """The procedure is called, its result told, the connection closed."""
        call = self.connect()
        self.assertEqual(
            call.received,
            b'{"harp":1,"procedure":"df","arguments":["/srv"],'
            b'"auth":{"user":"dispatcher","password":"secret"}}\n',
        )
        call.reply(Ack(False))
        self.assertEqual(self.told, [])
        call.reply(RESULT)
        self.assertEqual(self.told, [RESULT])
        self.assertTrue(call.lost)
        self.assertFalse(call.near.aborted)
        self.assert_nothing_left()

    def test_error_instead_of_acknowledgement(self) -> None:
        """What harpd refuses ends the job with harpd's own words."""
        call = self.connect()
        error = EndResult(EndKind.ERROR, b'{"type":"auth_error","message":"no"}')
        call.reply(error)
        self.assertEqual(self.told, [error])
        self.assert_nothing_left()

    def test_replies_byte_by_byte(self) -> None:
        """It makes no difference in which pieces the replies arrive."""
        call = self.connect()
        said = b'{"harp":1,"stream_result":true}\n{"stream":1}\r\n{"stream":[2]}\n{"result":%b}\n'
        for byte in said % RESULT.value:
            call.say(bytes([byte]))
        self.assertEqual(self.told, [[b"1"], [b"[2]"], RESULT])

    def test_packets_of_one_chunk_are_recorded_together(self) -> None:
        """Packets that arrive together are recorded together, and before the end is told."""
        call = self.connect()
        call.reply(Ack(True), Packet(b"1"), Packet(b"2"))
        call.reply(Packet(b"3"), Packet(b"4"), RESULT)
        self.assertEqual(self.told, [[b"1", b"2"], [b"3", b"4"], RESULT])

    def test_behind_the_end(self) -> None:
        """What harpd says behind the end result is not looked at."""
        call = self.connect()
        call.reply(Ack(False))
        call.say(b'{"result":{"free":12}}\n{"result":2}\nnonsense\n')
        self.assertEqual(self.told, [RESULT])
        self.assert_nothing_left()

    def test_deadline_of_the_close(self) -> None:
        """A harpd that does not end TLS is cut off, and what it goes on to say is not kept."""
        call = self.connect()
        call.reply(Ack(False))
        call.near.other.paused = True  # harpd does not read any more
        call.reply(RESULT)
        fed: list[bytes] = []
        self.patch(type(self.conversation), "received", lambda _, replies: fed.append(replies))
        call.say(b'{"stream":1}\n' * 10)
        self.assertEqual(fed, [])
        self.network.advance(CLOSE_DEADLINE - 1)
        self.assertFalse(call.near.aborted)
        self.network.advance(1)
        self.assertTrue(call.near.aborted)
        self.assertEqual(self.told, [RESULT])
        call.near.other.paused = False
        call.flush()
        self.assert_nothing_left()


class FlowTests(ConversationTestCase):
    """harpd is read from as fast as packets are recorded."""

    BIG = Packet(b'"%s"' % (b"x" * (MAX_UNRECORDED // 2)))

    def test_pause_and_resume(self) -> None:
        """Above the limit harpd is not read from; when enough is recorded it is again."""
        call = self.streaming()
        call.reply(self.BIG)
        self.assertFalse(call.near.paused)
        call.reply(self.BIG)
        self.assertTrue(call.near.paused)
        call.reply(Packet(b"3"))
        self.assertEqual(len(self.told), 2)
        self.recorded()
        self.assertFalse(call.near.paused)
        call.flush()
        self.assertEqual(self.told[2:], [[b"3"]])

    def test_one_limit_for_many_recordings(self) -> None:
        """It counts what is still to be recorded, however many recordings that is."""
        call = self.streaming()
        for _ in range(3):
            call.near.paused = False  # what had been read already when the pause began
            call.reply(self.BIG)
        self.recorded()
        self.assertTrue(call.near.paused)
        self.recorded()
        self.assertFalse(call.near.paused)

    def test_silence_of_our_own(self) -> None:
        """While harpd is not read from its silence is ours: it does not count."""
        call = self.streaming()
        call.reply(self.BIG)
        call.reply(self.BIG)
        for _ in range(5):
            self.network.advance(JOB.timeout / 2)
        self.recorded()
        self.network.advance(JOB.timeout - 0.5)
        self.assertEqual(len(self.told), 2)
        self.network.advance(0.5)
        call.flush()
        self.assert_ended("timeout", "no message for 10 s")

    def test_whole_time_while_paused(self) -> None:
        """The limit of the whole run holds all the same, and the connection is closed."""
        call = self.streaming()
        call.reply(self.BIG)
        call.reply(self.BIG)
        for _ in range(int(JOB.max_exec_time / JOB.timeout)):
            self.network.advance(JOB.timeout)
        self.assertFalse(call.near.paused)
        call.flush()
        self.assertTrue(call.lost)
        self.assert_ended("timeout", "max_exec_time: the job ran for 60 s")

    def test_recorded_after_the_end(self) -> None:
        """What is recorded late changes nothing, whether or not the connection is still there."""
        call = self.streaming()
        call.reply(self.BIG)
        call.reply(self.BIG)
        self.conversation.stop()
        self.recorded()
        call.flush()
        self.recorded()
        self.assertEqual(len(self.told), 2)
        self.assert_nothing_left()

    def test_recording_fails(self) -> None:
        """A job whose packets can't be recorded ends; why is for the log."""
        call = self.streaming()
        call.reply(Packet(b"1"))
        call.reply(Packet(b"2"))
        for _ in range(2):
            self.recordings.pop().errback(StoreError("/var/lib/secret: disk I/O error"))
        call.flush()
        self.assertTrue(call.lost)
        self.assert_ended("os_error")
        self.assertNotIn("secret", str(self.told[-1]))


class TimeTests(ConversationTestCase):
    """The two time limits."""

    def test_silence(self) -> None:
        """A job that says nothing for its timeout ends; every message begins the time anew."""
        call = self.connect()
        self.network.advance(JOB.timeout - 1)
        call.reply(Ack(True))
        self.network.advance(JOB.timeout - 1)
        call.reply(Packet(b"1"))
        self.network.advance(JOB.timeout - 1)
        self.assertEqual(self.told, [[b"1"]])
        self.network.advance(1)
        call.flush()
        self.assertTrue(call.lost)
        self.assert_ended("timeout", "timeout: no message for 10 s")

    def test_whole_time(self) -> None:
        """A job that never rests ends all the same when its whole time is over."""
        call = self.streaming()
        for _ in range(11):
            self.network.advance(5)
            call.reply(Packet(b"1"))
        self.network.advance(5)
        call.flush()
        self.assertTrue(call.lost)
        self.assert_ended("timeout", "max_exec_time: the job ran for 60 s")

    def test_part_of_a_message(self) -> None:
        """Bytes that make no message do not break the silence."""
        call = self.connect()
        self.network.advance(JOB.timeout - 1)
        call.say(b'{"harp":1,')
        self.network.advance(1)
        call.flush()
        self.assert_ended("timeout")

    def test_silence_in_the_handshake(self) -> None:
        """A host that accepts and says nothing costs the job's timeout, no more."""
        call = self.connect(handshake=False)
        self.network.advance(JOB.timeout)
        self.assertTrue(call.near.aborted)
        call.flush()
        self.assert_ended("timeout")

    def test_no_connection(self) -> None:
        """A host that does not answer costs the job's timeout, too."""
        self.conversation.start(HOST, trust())
        self.network.advance(JOB.timeout)
        self.assertTrue(self.network.connectors[-1].stoppedConnecting)
        self.assert_ended("timeout")


class ConnectTests(ConversationTestCase):
    """When no connection comes about."""

    def refused(self, reason: Exception) -> None:
        self.conversation.start(HOST, trust())
        *_, factory, _, _ = self.network.tcpClients[-1]
        factory.clientConnectionFailed(self.network.connectors[-1], Failure(reason))

    def test_refused(self) -> None:
        """Where nothing listens, the network is at fault."""
        self.refused(ConnectionRefusedError(errno.ECONNREFUSED))
        self.assert_ended("network_error", "no connection to harpd", "refused")

    def test_own_limits(self) -> None:
        """Where this machine has no descriptors or memory left, the network is not at fault."""
        for code in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
            self.setUp()
            self.refused(ConnectBindError(code, "no more"))
            self.assert_ended("os_error", "no connection to harpd")

    def test_unknown_name(self) -> None:
        """A name that nobody knows."""
        self.network.installNameResolver(Resolver([]))
        host = Host("web02", "web02.example.org", 4306, "user", "password")
        self.conversation.start(host, trust())
        self.assert_ended("network_error", "web02.example.org")

    def test_impossible_names(self) -> None:
        """A name that can't be one is told like one that nobody knows."""
        for name in ("a..b", "x" * 300, "-\x00-", "\ud800", "999.1.1.1"):
            self.setUp()
            self.network.installNameResolver(Resolver([]))
            self.conversation.start(Host("web02", name, 4306, "user", "password"), trust())
            self.assert_ended("network_error")

    def test_all_addresses_of_a_name(self) -> None:
        """A name whose first address refuses is reached at its second."""
        self.network.installNameResolver(Resolver(["10.9.9.9", HOST.address]))
        self.conversation.start(Host("web02", "web02.example.org", 4306, "u", "p"), ServerTrust())
        host, _, factory, *_ = self.network.tcpClients.pop()
        self.assertEqual(host, "10.9.9.9")
        factory.clientConnectionFailed(self.network.connectors.pop(), Failure(OSError("refused")))
        self.network.advance(1)
        call = self.accept()
        call.reply(Ack(False), RESULT)
        self.assertEqual(self.told, [RESULT])
        self.assert_nothing_left()


class BrokenTests(ConversationTestCase):
    """When a connection breaks, or what harpd says is no sense."""

    def test_not_trusted(self) -> None:
        """A harpd that is not trusted ends the job, and does not get the password."""
        call = self.connect(trust_in(trustme.CA()))
        self.assertEqual(call.received, b"")
        self.assertTrue(call.lost)
        self.assert_ended("ssl", "refused")

    def test_server_name(self) -> None:
        """A host with a name for its certificate is not trusted by its address."""
        self.conversation.start(replace(HOST, server_name="front.example.org"), trust())
        self.assertEqual(self.accept().received, b"")
        self.assert_ended("ssl", f"made out to {HOST.address}, not to front.example.org")

    def test_no_tls(self) -> None:
        """Something listens that speaks no TLS."""
        call = self.connect(handshake=False)
        call.near.getOutBuffer()
        call.near.bufferReceived(b"SSH-2.0-OpenSSH_9.2\r\n")
        call.near.other.loseConnection()
        call.flush()
        self.assert_ended("ssl")

    def test_closed_in_the_handshake(self) -> None:
        """Harpd goes away before TLS has come about."""
        call = self.connect(handshake=False)
        call.near.getOutBuffer()
        call.near.other.loseConnection()
        call.flush()
        self.assert_ended("ssl", "during the TLS handshake")

    def test_closed_before_the_acknowledgement(self) -> None:
        """Harpd goes away before it has said anything."""
        self.connect().leave()
        self.assert_ended("closed", "ended before the end result")

    def test_closed_in_mid_stream(self) -> None:
        """What had come until harpd went away is recorded, part of a message is not."""
        call = self.streaming()
        call.reply(Packet(b"1"))
        call.say(b'{"stream":')
        call.leave()
        self.assertEqual(self.told[:-1], [[b"1"]])
        self.assert_ended("closed")

    def test_cut_in_mid_stream(self) -> None:
        """Harpd's machine goes away without an end of TLS."""
        call = self.streaming()
        call.near.other.loseConnection()
        call.flush()
        self.assert_ended("closed")

    def test_violations(self) -> None:
        """Whatever the protocol does not allow ends the job, and the connection with it."""
        plain, stream = b'{"harp":1,"stream_result":false}\n', b'{"harp":1,"stream_result":true}\n'
        for said in (
            b"HTTP/1.1 400 Bad Request\r\n",
            b'{"result":1}\n',
            b'{"stream":1}\n',
            plain + plain,
            plain + b'{"stream":1}\n',
            stream + stream,
            stream + b'{"stream":1,"result":2}\n',
            stream + b'{"strem":1}\n',
            stream + b'{"stream":NaN}\n',
            stream + b'{"stream":"\xff"}\n',
            plain + b'{"cancelled":true}\n',
            plain + b"\n",
        ):
            self.setUp()
            call = self.connect()
            call.say(said)
            self.assertTrue(call.lost, said)
            self.assertEqual(len(self.told), 1, said)
            self.assert_ended("protocol_error")

    def test_packets_before_a_violation(self) -> None:
        """Packets that came together with nonsense are recorded before the job ends."""
        call = self.streaming()
        call.say(b'{"stream":1}\nnonsense\n{"stream":2}\n')
        self.assertEqual(self.told[:-1], [[b"1"]])
        self.assert_ended("protocol_error")

    def test_line_over_the_limit(self) -> None:
        """A line that never ends is given up when it is longer than any reply may be."""
        call = self.streaming()
        self.assertEqual(self.told, [])
        call.say(b'{"stream":"' + b"x" * (MAX_REPLY + ENVELOPE_ROOM))
        self.assertTrue(call.lost)
        self.assert_ended("protocol_error", "longer than")


class StopTests(ConversationTestCase):
    """The end from our side."""

    def test_connecting(self) -> None:
        """The attempt to connect is given up."""
        self.conversation.start(HOST, trust())
        self.conversation.stop()
        self.assertTrue(self.network.connectors[-1].stoppedConnecting)
        self.assertEqual(self.told, [])
        self.assert_nothing_left()

    def test_looking_up_the_name(self) -> None:
        """A connection whose name is found too late is not made."""
        resolver = Resolver([HOST.address], late=True)
        self.network.installNameResolver(resolver)
        self.conversation.start(Host("web02", "web02.example.org", 4306, "u", "p"), trust())
        self.conversation.stop()
        resolver.complete()
        self.assertEqual((self.network.tcpClients, self.told), ([], []))
        self.assert_nothing_left()

    def test_handshaking(self) -> None:
        """A job that is over before TLS has come about is not called any more."""
        call = self.connect(handshake=False)
        self.conversation.stop()
        call.flush()
        self.assertEqual((call.received, self.told), (b"", []))
        self.assert_nothing_left()

    def test_running(self) -> None:
        """The connection is closed, which ends the call; nothing is told any more."""
        call = self.streaming()
        self.conversation.stop()
        call.flush()
        self.assertTrue(call.lost)
        self.assertEqual(self.told, [])
        self.assert_nothing_left()

    def test_ended(self) -> None:
        """Where there is an end, another is not told and does no harm."""
        call = self.connect()
        call.near.other.paused = True  # so that the connection is still being closed
        call.reply(Ack(False), RESULT)
        self.conversation.stop()
        self.conversation.fail(EndResult(EndKind.RESULT, b"2"))
        call.near.other.paused = False
        call.flush()
        self.conversation.stop()
        self.assertEqual(self.told, [RESULT])
        self.assert_nothing_left()

    def test_why(self) -> None:
        """Who ends a conversation with a reason is told it like any end."""
        call = self.streaming()
        self.conversation.fail(RESULT)
        call.flush()
        self.assertTrue(call.lost)
        self.assertEqual(self.told, [RESULT])
        self.assert_nothing_left()


@implementer(IHostnameResolver)
class Resolver:
    """Finds the same addresses for every name.

    :param late: whether it has found them only when told to be complete.
    """

    def __init__(self, addresses: list[str], late: bool = False) -> None:
        self._addresses = addresses
        self._late = late
        self._receivers: list[tuple[IResolutionReceiver, int]] = []

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        self._receivers.append((resolutionReceiver, portNumber))
        if not self._late:
            self.complete()
        return cast(IHostResolution, None)  # nobody here looks at it

    def complete(self) -> None:
        """Tell what is found."""
        for receiver, port in self._receivers:
            for address in self._addresses:
                receiver.addressResolved(IPv4Address("TCP", address, port))
            receiver.resolutionComplete()
