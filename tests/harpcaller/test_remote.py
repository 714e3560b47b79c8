"""Tests of ``harpcaller.remote``: real TLS and harpd's own session, in memory and on a clock."""

from __future__ import annotations

import errno
import gc
import json
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import trustme
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectBindError, ConnectionRefusedError
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IProtocol,
    IProtocolFactory,
    IResolutionReceiver,
    IStreamClientEndpoint,
)
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from harp.errors import Origin
from harp.session import IncomingCall, OutgoingCall
from harp.wire.harpd import Ack, Procedures, Reply, Waiting
from harp.wire.lines import ENVELOPE_ROOM, MAX_REPLY
from harp.wire.packets import PACKET_COST, Packets, pack
from harp.wire.results import EndKind, EndResult
from harpcaller.harpd_connection import CLOSE_DEADLINE, HANDSHAKE_TIMEOUT
from harpcaller.hosts import Host
from harpcaller.remote import DESCRIBE_LIMIT, MAX_UNRECORDED, Conversation, describe
from harpcaller.store import StoreError
from harpcaller.trust import ServerTrust
from tests.harpcaller.memory import (
    HOST,
    HarpdEnd,
    NetworkTestCase,
    awaited,
    connections,
    running_job,
    trust_in,
)

RESULT = EndResult(EndKind.RESULT, b'{"free":12}')
JOB = running_job(timeout=10.0, max_exec_time=60.0)


class ConversationTestCase(NetworkTestCase):
    """A test with a conversation, whose packets are recorded when the test wants.

    :ivar origins: where the failure arose of each end that was told.
    :ivar records_at_once: whether packets are recorded without being asked for.
    """

    def setUp(self) -> None:
        """Make the conversation, not started."""
        super().setUp()
        self.told: list[list[bytes] | EndResult] = []
        self.origins: list[Origin | None] = []
        self.recordings: list[Deferred[None]] = []
        self.records_at_once = True
        self.shown: list[bytes | None] = []
        self.conversation = Conversation(
            self.network, JOB, self.record, self.ended, self.shown.append
        )

    def ended(self, end: EndResult, origin: Origin | None) -> None:
        self.told.append(end)
        self.origins.append(origin)

    def record(self, packets: Packets) -> Deferred[None]:
        self.told.append(packets.texts)
        self.recordings.append(Deferred())
        if self.records_at_once:
            self.recordings[-1].callback(None)
        return self.recordings[-1]

    def recorded(self) -> None:
        """Let the oldest packets be on disk."""
        self.recordings.pop(0).callback(None)

    def be_patient(self) -> None:
        """Have a conversation whose job may take long, in the place of the other one."""
        self.conversation.stop()
        job = running_job(timeout=600.0, max_exec_time=600.0)
        self.conversation = Conversation(
            self.network, job, self.record, self.ended, self.shown.append
        )

    def start(self, host: Host = HOST) -> None:
        """Start the conversation."""
        self.conversation.start(host, self.connections)

    def connect(self, handshake: bool = True) -> HarpdEnd:
        """Start the conversation and accept its connection."""
        self.start()
        return self.accept(handshake)

    def streaming(self) -> HarpdEnd:
        """Return harpd's end of a call that has been acknowledged as a stream."""
        harpd = self.connect()
        harpd.reply(Ack(True))
        return harpd

    def assert_ended(self, origin: Origin, type: str, *parts: str) -> None:
        """Check that the job ended with an error, and that nothing is left over."""
        end = self.told[-1]
        assert isinstance(end, EndResult)
        self.assertEqual(end.kind, EndKind.ERROR)
        error = json.loads(end.value)
        self.assertEqual((error["type"], self.origins[-1]), (type, origin))
        for part in parts:
            self.assertIn(part, error["message"])
        self.assert_nothing_left()

    def assert_nothing_left(self) -> None:
        """Check that there is one end at most, and that nothing will happen any more."""
        self.assertLessEqual(sum(isinstance(each, EndResult) for each in self.told), 1)
        self.assertIsNone(self.connections.take(HOST))
        self.connections.close()
        self.assertEqual(self.network.getDelayedCalls(), [])


class CallTests(ConversationTestCase):
    """What harpd is asked, and what becomes of its replies."""

    def test_result(self) -> None:
        """The procedure is called, its result told, the connection kept."""
        harpd = self.connect()
        self.assertEqual(
            harpd.received,
            b'{"harp":1,"auth":{"user":"dispatcher","password":"secret"},'
            b'"procedure":"df","arguments":["/srv"],'
            b'"keepalive":true,"context":{"job_id":"the-job"},"report_lock":true,"report_secret":true}\n',
        )
        harpd.reply(Ack(False))
        self.assertEqual(self.told, [])
        harpd.reply(RESULT)
        self.assertEqual((self.told, self.origins), ([RESULT], [None]))
        self.assertFalse(harpd.lost)
        self.assertIsNotNone(self.connections.take(HOST))
        self.assert_nothing_left()

    def test_whose(self) -> None:
        """Harpd is told whose call it is, as far as that is known."""
        job = running_job(submitter="panel", on_behalf_of="joe")
        self.conversation = Conversation(
            self.network, job, self.record, self.ended, self.shown.append
        )
        request = json.loads(self.connect().received)
        self.assertEqual(
            request["context"],
            {"job_id": "the-job", "submitter": "panel", "on_behalf_of": "joe"},
        )

    def test_shown_arguments(self) -> None:
        """How the arguments may be shown is told before any packet, also that nothing was said."""
        harpd = self.connect()
        told: list[object] = []
        record = self.conversation._record
        self.conversation._acknowledged = told.append

        def noted(packets: Packets) -> Deferred[None]:
            told.append(packets)
            return record(packets)

        self.conversation._record = noted
        harpd.reply(Ack(True, b'["(secret)"]'), Packets(1, b"1"))
        self.assertEqual(told, [b'["(secret)"]', Packets(1, b"1")])

    def test_nothing_is_shown_otherwise(self) -> None:
        """A harpd that says nothing of secrets is told of as such."""
        self.connect().reply(Ack(False), RESULT)
        self.assertEqual(self.shown, [None])

    def test_secrets_are_let_go(self) -> None:
        """When harpd has taken up the call its secrets are not in memory any more."""
        job = running_job(arguments=b'["pw"]', shown_arguments=b'["(secret)"]')
        self.conversation = Conversation(
            self.network, job, self.record, self.ended, self.shown.append
        )
        harpd = self.connect()
        self.assertEqual(json.loads(harpd.received)["arguments"], ["pw"])
        harpd.reply(Ack(False))
        attempt = self.conversation._attempt
        assert attempt is not None and attempt._connection is not None
        session = attempt._connection._session
        assert session is not None
        self.assertEqual(self.conversation._job.arguments, b'["(secret)"]')
        self.assertEqual((attempt._request, session._request), (None, None))
        harpd.reply(RESULT)
        self.assertEqual(self.told, [RESULT])

    def test_error_instead_of_acknowledgement(self) -> None:
        """What harpd refuses ends the job with harpd's own words."""
        harpd = self.connect()
        error = EndResult(EndKind.ERROR, b'{"type":"auth_error","message":"no"}')
        harpd.reply(error)
        self.assertEqual((self.told, self.origins), ([error], [Origin.HARPD]))
        self.assert_nothing_left()

    def test_origins(self) -> None:
        """It is known whose failure an end is that harpd tells: the procedure's, or its own."""
        for kind, type, origin in (
            (EndKind.EXCEPTION, "ValueError", Origin.PROCEDURE),
            (EndKind.ERROR, "invalid_message", Origin.PROCEDURE),
            (EndKind.ERROR, "killed", Origin.PROCEDURE),
            (EndKind.ERROR, "timeout", Origin.HARPD),
            (EndKind.ERROR, "locked", Origin.HARPD),
            (EndKind.ERROR, "shutdown", Origin.HARPD),
            (EndKind.ERROR, "of another version", Origin.HARPD),
        ):
            self.setUp()
            harpd = self.connect()
            harpd.reply(Ack(False), EndResult(kind, b'{"type":"%b","message":""}' % type.encode()))
            self.assertEqual(self.origins, [origin], type)

    def test_replies_byte_by_byte(self) -> None:
        """It makes no difference in which pieces the replies arrive."""
        harpd = self.connect()
        said = b'{"harp":1,"stream_result":true}\n{"stream":1}\r\n{"stream":[2]}\n{"result":%b}\n'
        for byte in said % RESULT.value:
            harpd.say(bytes([byte]))
        self.assertEqual(self.told, [[b"1"], [b"[2]"], RESULT])

    def test_packets_of_one_chunk_are_recorded_together(self) -> None:
        """Packets that arrive together are recorded together, and before the end is told."""
        harpd = self.connect()
        harpd.reply(Ack(True), Packets(1, b"1"), Packets(1, b"2"))
        harpd.reply(Packets(1, b"3"), Packets(1, b"4"), RESULT)
        self.assertEqual(self.told, [[b"1", b"2"], [b"3", b"4"], RESULT])

    def test_waiting_for_a_lock(self) -> None:
        """While the call waits for a lock on its host, it is known for which."""
        harpd = self.connect()
        harpd.reply(Ack(True))
        self.assertIsNone(self.conversation.lock)
        harpd.reply(Waiting("backup"))
        self.assertEqual(self.conversation.lock, "backup")
        harpd.reply(Waiting(None))
        self.assertIsNone(self.conversation.lock)
        harpd.reply(Packets(1, b"1"), RESULT)
        self.assertEqual(self.told, [[b"1"], RESULT])

    def test_behind_the_end(self) -> None:
        """What harpd says behind the end result is not looked at, and ends the connection."""
        harpd = self.connect()
        harpd.reply(Ack(False))
        harpd.say(b'{"result":{"free":12}}\n{"result":2}\nnonsense\n')
        self.assertEqual(self.told, [RESULT])
        self.assertTrue(harpd.lost)
        self.assert_nothing_left()

    def test_nothing_is_fed_behind_the_end(self) -> None:
        """What comes while the connection is being closed is not kept, nor told anybody."""
        harpd = self.streaming()
        harpd.near.other.paused = True  # harpd does not read any more
        self.conversation.stop()
        fed: list[bytes] = []
        self.patch(OutgoingCall, "receive", lambda _, data: fed.append(data))
        harpd.say(b'{"stream":1}\n' * 10)
        self.assertEqual((fed, self.told), ([], []))
        self.network.advance(CLOSE_DEADLINE)
        harpd.near.other.paused = False
        harpd.flush()
        self.assert_nothing_left()

    def test_nothing_is_kept(self) -> None:
        """What an ended conversation held is freed at once, not when the collector comes."""
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        ends: tuple[Callable[[HarpdEnd], None], ...] = (
            lambda harpd: harpd.reply(RESULT),
            lambda harpd: harpd.say(b"nonsense\n"),
            lambda harpd: harpd.leave(),
            lambda harpd: self.network.advance(JOB.timeout),
            lambda harpd: self.conversation.stop(),
        )
        for end in ends:
            self.setUp()
            harpd = self.streaming()
            conversation = weakref.ref(self.conversation)
            end(harpd)
            harpd.flush()
            del self.conversation
            self.assertIsNone(conversation())


class FlowTests(ConversationTestCase):
    """harpd is read from as fast as packets are recorded."""

    BIG = Packets(1, b'"%s"' % (b"x" * (MAX_UNRECORDED // 2)))

    def setUp(self) -> None:
        """Let the test record."""
        super().setUp()
        self.records_at_once = False

    def test_end_before_all_is_recorded(self) -> None:
        """The end is told when every packet before it is on disk, however long that takes."""
        harpd = self.streaming()
        harpd.reply(Packets(1, b"1"))
        harpd.reply(Packets(1, b"2"), RESULT)
        self.network.advance(JOB.max_exec_time)  # harpd was in time
        self.recorded()
        self.assertEqual(self.told, [[b"1"], [b"2"]])
        self.recorded()
        self.assertEqual(self.told[2:], [RESULT])

    def test_end_of_what_is_not_recorded(self) -> None:
        """A result is not told of a job one of whose packets could not be recorded."""
        harpd = self.streaming()
        harpd.reply(Packets(1, b"1"))
        harpd.reply(Packets(1, b"2"), RESULT)
        self.recordings.pop(0).errback(StoreError("disk full"))
        self.recorded()
        self.connections.close()
        harpd.flush()
        self.assert_ended(Origin.DISPATCHER, "os_error")

    def test_stopped_before_all_is_recorded(self) -> None:
        """Where the job was cancelled meanwhile the end is not told."""
        harpd = self.streaming()
        harpd.reply(Packets(1, b"1"), RESULT)
        self.conversation.stop()
        self.recorded()
        self.assertEqual(self.told, [[b"1"]])

    def test_pause_and_resume(self) -> None:
        """Above the limit harpd is not read from; when enough is recorded it is again."""
        harpd = self.streaming()
        harpd.reply(self.BIG)
        self.assertFalse(harpd.near.paused)
        harpd.reply(self.BIG)
        self.assertTrue(harpd.near.paused)
        harpd.reply(Packets(1, b"3"))
        self.assertEqual(len(self.told), 2)
        self.recorded()
        self.assertFalse(harpd.near.paused)
        harpd.flush()
        self.assertEqual(self.told[2:], [[b"3"]])

    def test_short_packets(self) -> None:
        """Short packets count more than their bytes: some thousands at most are told at once."""
        harpd = self.streaming()
        harpd.reply(pack([b"1"] * (MAX_UNRECORDED // PACKET_COST)))
        self.assertTrue(harpd.near.paused)

    def test_one_limit_for_many_recordings(self) -> None:
        """It counts what is still to be recorded, however many recordings that is."""
        harpd = self.streaming()
        for _ in range(3):
            harpd.near.paused = False  # what had been read already when the pause began
            harpd.reply(self.BIG)
        self.recorded()
        self.assertTrue(harpd.near.paused)
        self.recorded()
        self.assertFalse(harpd.near.paused)

    def test_silence_of_our_own(self) -> None:
        """While harpd is not read from its silence is ours: it does not count."""
        harpd = self.streaming()
        harpd.reply(self.BIG)
        harpd.reply(self.BIG)
        for _ in range(5):
            self.network.advance(JOB.timeout / 2)
        self.recorded()
        self.network.advance(JOB.timeout - 0.5)
        self.assertEqual(len(self.told), 2)
        self.network.advance(0.5)
        harpd.flush()
        self.assert_ended(Origin.DISPATCHER, "timeout", "no message for 10 s")

    def test_whole_time_while_paused(self) -> None:
        """The limit of the whole run holds all the same, and the connection is closed."""
        harpd = self.streaming()
        harpd.reply(self.BIG)
        harpd.reply(self.BIG)
        for _ in range(int(JOB.max_exec_time / JOB.timeout)):
            self.network.advance(JOB.timeout)
        self.assertFalse(harpd.near.paused)
        harpd.flush()
        self.assertTrue(harpd.lost)
        self.assert_ended(Origin.DISPATCHER, "timeout", "max_exec_time: the job ran for 60 s")

    def test_recorded_after_the_end(self) -> None:
        """What is recorded late changes nothing, whether or not the connection is still there."""
        harpd = self.streaming()
        harpd.reply(self.BIG)
        harpd.reply(self.BIG)
        self.conversation.stop()
        self.recorded()
        harpd.flush()
        self.recorded()
        self.assertEqual(len(self.told), 2)
        self.assert_nothing_left()

    def test_recording_fails(self) -> None:
        """A job whose packets can't be recorded ends; why is for the log."""
        harpd = self.streaming()
        harpd.reply(Packets(1, b"1"))
        harpd.reply(Packets(1, b"2"))
        for _ in range(2):
            self.recordings.pop().errback(StoreError("/var/lib/secret: disk I/O error"))
        harpd.flush()
        self.assertTrue(harpd.lost)
        self.assert_ended(Origin.DISPATCHER, "os_error")
        self.assertNotIn("secret", str(self.told[-1]))


class TimeTests(ConversationTestCase):
    """The two time limits."""

    def test_silence(self) -> None:
        """A job that says nothing for its timeout ends; every message begins the time anew."""
        harpd = self.connect()
        self.network.advance(JOB.timeout - 1)
        harpd.reply(Ack(True))
        self.network.advance(JOB.timeout - 1)
        harpd.reply(Packets(1, b"1"))
        self.network.advance(JOB.timeout - 1)
        self.assertEqual(self.told, [[b"1"]])
        self.network.advance(1)
        harpd.flush()
        self.assertTrue(harpd.lost)
        self.assert_ended(Origin.DISPATCHER, "timeout", "timeout: no message for 10 s")

    def test_whole_time(self) -> None:
        """A job that never rests ends all the same when its whole time is over."""
        harpd = self.streaming()
        for _ in range(11):
            self.network.advance(5)
            harpd.reply(Packets(1, b"1"))
        self.network.advance(5)
        harpd.flush()
        self.assertTrue(harpd.lost)
        self.assert_ended(Origin.DISPATCHER, "timeout", "max_exec_time: the job ran for 60 s")

    def test_part_of_a_message(self) -> None:
        """Bytes that make no message do not break the silence."""
        harpd = self.connect()
        self.network.advance(JOB.timeout - 1)
        harpd.say(b'{"harp":1,')
        self.network.advance(1)
        harpd.flush()
        self.assert_ended(Origin.DISPATCHER, "timeout")

    def test_silence_in_the_handshake(self) -> None:
        """A host that accepts and says nothing costs the job's timeout, no more."""
        harpd = self.connect(handshake=False)
        self.network.advance(JOB.timeout)
        self.assertTrue(harpd.near.aborted)
        harpd.flush()
        self.assert_ended(Origin.DISPATCHER, "timeout")

    def test_handshake_too_long(self) -> None:
        """A host that accepts and says nothing does not cost all of a longer timeout."""
        self.be_patient()
        harpd = self.connect(handshake=False)
        self.network.advance(HANDSHAKE_TIMEOUT - 1)
        self.assertFalse(harpd.near.aborted)
        self.network.advance(1)
        self.assertTrue(harpd.near.aborted)
        harpd.flush()
        self.assert_ended(Origin.NETWORK, "ssl", "no TLS with harpd within 120 s")

    def test_handshake_in_time(self) -> None:
        """What was limited is the handshake, not what comes behind it."""
        self.be_patient()
        harpd = self.connect()
        self.network.advance(HANDSHAKE_TIMEOUT * 2)
        self.assertFalse(harpd.near.aborted)

    def test_no_connection(self) -> None:
        """A host that does not answer costs the job's timeout, too."""
        self.start()
        self.network.advance(JOB.timeout)
        self.assertTrue(self.network.connectors[-1].stoppedConnecting)
        self.assert_ended(Origin.DISPATCHER, "timeout")


class ConnectTests(ConversationTestCase):
    """When no connection comes about."""

    def refused(self, reason: Exception) -> None:
        self.start()
        *_, factory, _, _ = self.network.tcpClients[-1]
        factory.clientConnectionFailed(self.network.connectors[-1], Failure(reason))

    def test_refused(self) -> None:
        """Where nothing listens, the network is at fault."""
        self.refused(ConnectionRefusedError(errno.ECONNREFUSED))
        self.assert_ended(Origin.NETWORK, "network_error", "no connection to harpd", "refused")

    def test_own_limits(self) -> None:
        """Where this machine has no descriptors or memory left, the network is not at fault."""
        for code in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
            self.setUp()
            self.refused(ConnectBindError(code, "no more"))
            self.assert_ended(Origin.DISPATCHER, "os_error", "no connection to harpd")

    def test_unknown_name(self) -> None:
        """A name that nobody knows."""
        self.network.installNameResolver(Resolver([]))
        self.start(Host("web02", "web02.example.org", 4306, "user", "password"))
        self.assert_ended(Origin.NETWORK, "network_error", "web02.example.org")

    def test_impossible_names(self) -> None:
        """A name that can't be one is told like one that nobody knows."""
        for name in ("a..b", "x" * 300, "-\x00-", "\ud800", "999.1.1.1"):
            self.setUp()
            self.network.installNameResolver(Resolver([]))
            self.start(Host("web02", name, 4306, "user", "password"))
            self.assert_ended(Origin.NETWORK, "network_error")

    def test_all_addresses_of_a_name(self) -> None:
        """A name whose first address refuses is reached at its second."""
        self.network.installNameResolver(Resolver(["10.9.9.9", HOST.address]))
        self.connections = connections(self.network, ServerTrust())
        self.start(Host("web02", "web02.example.org", 4306, "u", "p"))
        host, _, factory, *_ = self.network.tcpClients.pop()
        self.assertEqual(host, "10.9.9.9")
        factory.clientConnectionFailed(self.network.connectors.pop(), Failure(OSError("refused")))
        self.network.advance(1)
        self.accept().reply(Ack(False), RESULT)
        self.assertEqual(self.told, [RESULT])


class BrokenTests(ConversationTestCase):
    """When a connection breaks, or what harpd says is no sense."""

    def test_not_trusted(self) -> None:
        """A harpd that is not trusted ends the job, and does not get the password."""
        self.connections = connections(self.network, trust_in(trustme.CA()))
        harpd = self.connect()
        self.assertEqual(harpd.received, b"")
        self.assertTrue(harpd.lost)
        self.assert_ended(Origin.NETWORK, "ssl", "refused")

    def test_server_name(self) -> None:
        """A host with a name for its certificate is not trusted by its address."""
        self.start(replace(HOST, server_name="front.example.org"))
        self.assertEqual(self.accept().received, b"")
        self.assert_ended(
            Origin.NETWORK, "ssl", f"made out to {HOST.address}, not to front.example.org"
        )

    def test_no_tls(self) -> None:
        """Something listens that speaks no TLS."""
        harpd = self.connect(handshake=False)
        harpd.near.getOutBuffer()
        harpd.near.bufferReceived(b"SSH-2.0-OpenSSH_9.2\r\n")
        harpd.near.other.loseConnection()
        harpd.flush()
        self.assert_ended(Origin.NETWORK, "ssl")

    def test_closed_in_the_handshake(self) -> None:
        """Harpd goes away before TLS has come about."""
        harpd = self.connect(handshake=False)
        harpd.near.getOutBuffer()
        harpd.near.other.loseConnection()
        harpd.flush()
        self.assert_ended(Origin.NETWORK, "ssl", "during the TLS handshake")

    def test_closed_before_the_acknowledgement(self) -> None:
        """Harpd goes away before it has said anything."""
        self.connect().leave()
        self.assert_ended(Origin.NETWORK, "closed", "ended before the end result")

    def test_closed_in_mid_stream(self) -> None:
        """What had come until harpd went away is recorded, part of a message is not."""
        harpd = self.streaming()
        harpd.reply(Packets(1, b"1"))
        harpd.say(b'{"stream":')
        harpd.leave()
        self.assertEqual(self.told[:-1], [[b"1"]])
        self.assert_ended(Origin.NETWORK, "closed")

    def test_cut_in_mid_stream(self) -> None:
        """Harpd's machine goes away without an end of TLS."""
        self.streaming().cut()
        self.assert_ended(Origin.NETWORK, "closed")

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
            harpd = self.connect()
            harpd.say(said)
            self.assertTrue(harpd.lost, said)
            self.assertEqual(len(self.told), 1, said)
            self.assert_ended(Origin.NETWORK, "protocol_error")

    def test_packets_before_a_violation(self) -> None:
        """Packets that came together with nonsense are recorded before the job ends."""
        harpd = self.streaming()
        harpd.say(b'{"stream":1}\nnonsense\n{"stream":2}\n')
        self.assertEqual(self.told[:-1], [[b"1"]])
        self.assert_ended(Origin.NETWORK, "protocol_error")

    def test_line_over_the_limit(self) -> None:
        """A line that never ends is given up when it is longer than any reply may be."""
        harpd = self.streaming()
        self.assertEqual(self.told, [])
        harpd.say(b'{"stream":"' + b"x" * (MAX_REPLY + ENVELOPE_ROOM))
        self.assertTrue(harpd.lost)
        self.assert_ended(Origin.NETWORK, "protocol_error", "longer than")


class StopTests(ConversationTestCase):
    """The end from our side."""

    def test_connecting(self) -> None:
        """The attempt to connect is given up."""
        self.start()
        self.conversation.stop()
        self.assertTrue(self.network.connectors[-1].stoppedConnecting)
        self.assertEqual(self.told, [])
        self.assert_nothing_left()

    def test_looking_up_the_name(self) -> None:
        """A connection whose name is found too late is not made."""
        resolver = Resolver([HOST.address], late=True)
        self.network.installNameResolver(resolver)
        self.start(Host("web02", "web02.example.org", 4306, "u", "p"))
        self.conversation.stop()
        resolver.complete()
        self.assertEqual((self.network.tcpClients, self.told), ([], []))
        self.assert_nothing_left()

    def test_handshaking(self) -> None:
        """A job that is over before TLS has come about is not called any more."""
        harpd = self.connect(handshake=False)
        self.conversation.stop()
        harpd.flush()
        self.assertEqual((harpd.received, self.told), (b"", []))
        self.assert_nothing_left()

    def test_running(self) -> None:
        """The connection is closed, which ends the call; nothing is told any more."""
        harpd = self.streaming()
        self.conversation.stop()
        harpd.flush()
        self.assertTrue(harpd.lost)
        self.assertEqual(self.told, [])
        self.assert_nothing_left()

    def test_ended(self) -> None:
        """Where there is an end, another is not told and does no harm."""
        harpd = self.connect()
        harpd.reply(Ack(False), RESULT)
        self.conversation.stop()
        self.conversation.fail(EndResult(EndKind.RESULT, b"2"), None)
        harpd.flush()
        self.assertFalse(harpd.lost)  # another may be using it by now
        self.assertEqual(self.told, [RESULT])
        self.assertIsNotNone(self.connections.take(HOST))
        self.assert_nothing_left()

    def test_why(self) -> None:
        """Who ends a conversation with a reason is told it like any end."""
        harpd = self.streaming()
        self.conversation.fail(RESULT, None)
        harpd.flush()
        self.assertTrue(harpd.lost)
        self.assertEqual(self.told, [RESULT])
        self.assert_nothing_left()


class AtOnceTests(ConversationTestCase):
    """When all happens before `Conversation.start` has returned."""

    def instant(self, *replies: Reply) -> StringTransport:
        """Have every connection come about at once, and every request answered at once."""
        session = IncomingCall()
        said = b"".join(map(session.send, replies))
        transport = Instant(lambda: connection.dataReceived(said))
        connection: Any = None

        @implementer(IStreamClientEndpoint)
        class Endpoint:
            def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
                nonlocal connection
                connection = protocolFactory.buildProtocol(
                    IPv4Address("TCP", HOST.address, HOST.port)
                )
                connection.makeConnection(transport)
                connection.handshakeCompleted()
                return succeed(connection)

        self.connections.use(lambda host: Endpoint())
        return transport

    def test_result(self) -> None:
        """The job ends, and its connection is kept."""
        transport = self.instant(Ack(True), Packets(1, b"1"), RESULT)
        self.start()
        self.assertEqual(self.told, [[b"1"], RESULT])
        self.assertFalse(transport.disconnecting)
        self.assertIsNotNone(self.connections.take(HOST))
        self.assert_nothing_left()

    def test_packets_are_not_recorded(self) -> None:
        """A job whose packets can't be recorded ends once, with what came behind or without."""
        for last in ((), (RESULT,)):
            self.setUp()
            self.conversation = Conversation(
                self.network,
                JOB,
                lambda packets: fail(StoreError("disk full")),
                self.ended,
                self.shown.append,
            )
            transport = self.instant(Ack(True), Packets(1, b"1"), *last)
            self.start()
            (end,) = self.told
            assert isinstance(end, EndResult)
            self.assertEqual(json.loads(end.value)["type"], "os_error")
            self.assertEqual(transport.disconnecting, not last)


class Instant(StringTransport):
    """A transport on which there is an answer as soon as anything is written."""

    def __init__(self, answer: Callable[[], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._answer = answer

    @property
    def socket(self) -> Instant:
        return self

    def recv(self, size: int, flags: int) -> bytes:
        raise BlockingIOError

    def write(self, data: bytes) -> None:
        super().write(data)  # type: ignore[no-untyped-call]
        self._answer()

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Do nothing."""

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Do nothing."""


class DescribeTests(NetworkTestCase):
    """What a harpd offers."""

    def test_answer(self) -> None:
        """It is asked over a connection like any other, and its answer passed on."""
        answer = describe(self.connections, HOST)
        harpd = self.accept()
        self.assertEqual(
            harpd.requests,
            [
                {
                    "harp": 1,
                    "describe": True,
                    "auth": {"user": HOST.user, "password": HOST.password},
                    "keepalive": True,
                }
            ],
        )
        harpd.reply(Procedures(b'[{"name":"df"}]'))
        self.assertEqual(self.successResultOf(answer), Procedures(b'[{"name":"df"}]'))
        self.assertIsNotNone(self.connections.take(HOST))
        self.connections.close()
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_refused(self) -> None:
        """A harpd that refuses is quoted, also an old one, which knows no such question."""
        for type in ("auth_error", "invalid_request"):
            answer = describe(self.connections, HOST)
            error = EndResult(EndKind.ERROR, b'{"type":"%b","message":"no"}' % type.encode())
            self.accept().reply(error)
            self.assertEqual(self.successResultOf(answer), error)
            self.assertEqual(awaited(self.network), 0)
            self.assertEqual(self.network.getDelayedCalls(), [])

    def test_no_connection(self) -> None:
        """Where there is none the error says so."""
        answer = describe(self.connections, HOST)
        *_, factory, _, _ = self.network.tcpClients[-1]
        factory.clientConnectionFailed(
            self.network.connectors[-1], Failure(ConnectionRefusedError(errno.ECONNREFUSED))
        )
        end = self.successResultOf(answer)
        assert isinstance(end, EndResult)
        self.assertEqual(json.loads(end.value)["type"], "network_error")
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_time_limit(self) -> None:
        """A harpd that does not answer is not waited for any longer than that."""
        answer = describe(self.connections, HOST)
        harpd = self.accept()
        self.network.advance(DESCRIBE_LIMIT - 1)
        self.assertNoResult(answer)
        self.network.advance(1)
        end = self.successResultOf(answer)
        assert isinstance(end, EndResult)
        self.assertEqual(json.loads(end.value)["type"], "timeout")
        harpd.flush()
        self.assertTrue(harpd.lost)
        self.assertEqual(self.network.getDelayedCalls(), [])


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
