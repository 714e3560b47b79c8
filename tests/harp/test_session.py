"""Tests of ``harp.session``: what may come in which state, and nothing else."""

from __future__ import annotations

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from harp import errors
from harp.errors import LocalProtocolError, RemoteProtocolError
from harp.session import CallState, Exchange, IncomingCall, OutgoingCall
from harp.wire import dispatcher, harpd
from harp.wire.dispatcher import Continue, JobId, NoResult, NumberedPacket, Reply
from harp.wire.packets import Packets, join, pack
from harp.wire.results import CANCELLED, EndDetail, EndKind, EndResult
from tests.harp.test_dispatcher_wire import ID, STATUS
from tests.harp.test_harpd_wire import FAULT
from tests.harp.test_lines import single_bytes
from tests.harp.test_operation_wire import OPERATION, SUMMARIES

ACK, STREAM_ACK, PACKET = harpd.Ack(False), harpd.Ack(True), Packets(1, b"1")
RESULT = EndResult(EndKind.RESULT, b"2")
EXCEPTION = EndResult(EndKind.EXCEPTION, FAULT)
ERROR = EndResult(EndKind.ERROR, FAULT)
ENDS: list[harpd.Reply] = [RESULT, EXCEPTION, ERROR]
WAITING, HAS_LOCK = harpd.Waiting("disk"), harpd.Waiting(None)
PROCEDURES = harpd.Procedures(b"[]")
HARPD_REPLIES: list[harpd.Reply] = [
    ACK,
    STREAM_ACK,
    WAITING,
    HAS_LOCK,
    PACKET,
    PROCEDURES,
    *ENDS,
]

AUTH = harpd.Auth("u", "p")
CALL = harpd.CallRequest(harp=1, auth=AUTH, procedure="du", arguments=msgspec.Raw(b"[]"))
DESCRIBE = harpd.DescribeRequest(harp=1, auth=AUTH, describe=True)

# How a state is reached, and what may come in it with the state after it. All else is a mistake.
ALLOWED: dict[CallState, tuple[list[harpd.Reply], list[tuple[harpd.Reply, CallState]]]] = {
    CallState.ACK_DUE: (
        [],
        [
            (ACK, CallState.RESULT_DUE),
            (STREAM_ACK, CallState.STREAMING),
            (ERROR, CallState.ENDED),
        ],
    ),
    CallState.DESCRIPTION_DUE: ([], [(PROCEDURES, CallState.ENDED), (ERROR, CallState.ENDED)]),
    CallState.RESULT_DUE: (
        [ACK, WAITING],
        [
            (WAITING, CallState.RESULT_DUE),
            (HAS_LOCK, CallState.RESULT_DUE),
            *((end, CallState.ENDED) for end in ENDS),
        ],
    ),
    CallState.STREAMING: (
        [STREAM_ACK, PACKET],
        [
            (WAITING, CallState.STREAMING),
            (HAS_LOCK, CallState.STREAMING),
            (PACKET, CallState.STREAMING),
            *((end, CallState.ENDED) for end in ENDS),
        ],
    ),
    CallState.ENDED: ([ACK, RESULT], []),
}


def request_for(state: CallState) -> harpd.Request:
    """Return the request whose conversation comes through the state."""
    return DESCRIBE if state is CallState.DESCRIPTION_DUE else CALL


class OutgoingCallTests(SynchronousTestCase):
    """The caller of harpd takes replies in a legal order only."""

    def test_every_state_and_reply(self) -> None:
        """What is allowed moves on, anything else is the peer's protocol_error."""
        for state, (way, allowed) in ALLOWED.items():
            after = dict(allowed)
            for reply in HARPD_REPLIES:
                call = OutgoingCall(request_for(state))
                for step in way:
                    list(call.receive(harpd.encode_reply(step)))
                self.assertEqual(call.state, state)
                line = harpd.encode_reply(reply)
                if reply in after:
                    self.assertEqual(list(call.receive(line)), [reply], (state, reply))
                    self.assertEqual(call.state, after[reply], (state, reply))
                elif state is CallState.ENDED:
                    self.assertEqual(list(call.receive(line)), [], reply)
                else:
                    with self.assertRaisesRegex(RemoteProtocolError, state.value) as caught:
                        list(call.receive(line))
                    self.assertEqual(caught.exception.type, errors.PROTOCOL_ERROR)

    def test_however_it_arrives(self) -> None:
        """A conversation is the same whole, in single bytes and with data behind its end."""
        replies: list[harpd.Reply] = [STREAM_ACK, PACKET, PACKET, RESULT]
        line = b"".join(map(harpd.encode_reply, replies))
        for pieces in ([line], single_bytes(line), [line + b"behind the end\n"]):
            call = OutgoingCall(CALL)
            received = [r for piece in pieces for r in call.receive(piece)]
            packets = [reply for reply in received if isinstance(reply, Packets)]
            self.assertEqual(join(packets), pack([b"1", b"1"]))
            others = [reply for reply in received if not isinstance(reply, Packets)]
            self.assertEqual(others, [STREAM_ACK, RESULT])
            self.assertEqual(call.state, CallState.ENDED)

    def test_cancelled_is_not_harpds(self) -> None:
        """A job's end that only the dispatcher knows is not taken from harpd."""
        call = OutgoingCall(CALL)
        list(call.receive(harpd.encode_reply(ACK)))
        with self.assertRaises(RemoteProtocolError):
            list(call.receive(b'{"cancelled":true}\n'))

    def test_reply_over_the_limit(self) -> None:
        """A reply over the limit is a protocol_error, one of the limit's length is not."""
        call = OutgoingCall(CALL, max_reply=10_000)
        list(call.receive(harpd.encode_reply(STREAM_ACK)))
        payload = b'"%b"' % (b"x" * 9_998)
        self.assertEqual(
            list(call.receive(harpd.encode_reply(Packets(1, payload)))), [Packets(1, payload)]
        )
        with self.assertRaisesRegex(RemoteProtocolError, "longer than") as caught:
            list(call.receive(b"x" * 20_000))
        self.assertEqual(caught.exception.type, errors.PROTOCOL_ERROR)

    def test_replies_before_a_fault(self) -> None:
        """What was right before the peer's mistake is not lost."""
        call = OutgoingCall(CALL)
        taken: list[harpd.Reply] = []
        sound = [harpd.encode_reply(reply) for reply in (STREAM_ACK, PACKET)]
        with self.assertRaises(RemoteProtocolError):
            taken.extend(call.receive(b"".join([*sound, b"no reply\n"])))
        self.assertEqual(taken, [STREAM_ACK, PACKET])

    def test_going_on(self) -> None:
        """The connection carries another request only if that was asked for and all was read."""
        asking = msgspec.structs.replace(CALL, keepalive=True)
        end = harpd.encode_reply(ERROR)
        for request, data, may in [
            (CALL, end, False),
            (asking, end, True),
            (asking, end + b"{", False),
            (asking, harpd.encode_reply(ACK), False),
        ]:
            call = OutgoingCall(request)
            list(call.receive(data))
            self.assertEqual(call.may_go_on, may, (request, data))

    def test_request_line(self) -> None:
        """What is sent is the line of the request."""
        for request in (CALL, DESCRIBE):
            self.assertEqual(OutgoingCall(request).request_line(), harpd.encode_request(request))


class IncomingCallTests(SynchronousTestCase):
    """harpd sends replies in a legal order only."""

    def test_every_state_and_reply(self) -> None:
        """What is allowed becomes a line, anything else is our own mistake and changes nothing."""
        for state, (way, allowed) in ALLOWED.items():
            after = dict(allowed)
            for reply in [*HARPD_REPLIES, CANCELLED]:
                call = IncomingCall(request_for(state))
                for step in way:
                    call.send(step)
                if reply in after:
                    self.assertEqual(call.send(reply), harpd.encode_reply(reply))
                    self.assertEqual(call.state, after[reply], (state, reply))
                else:
                    with self.assertRaises(LocalProtocolError, msg=(state, reply)):
                        call.send(reply)
                    self.assertEqual(call.state, state)


JOB_ID, NO_RESULT, CONTINUE = JobId(ID), NoResult(), Continue()
JOB_PACKET = NumberedPacket(3, b"1")
NOT_CANCELLED, IS_CANCELLED = dispatcher.CancelOutcome(False), dispatcher.CancelOutcome(True)
JOB_ENDS: list[Reply] = [RESULT, EXCEPTION, ERROR, CANCELLED]
JOB_REPLIES: list[Reply] = [
    *JOB_ENDS,
    JOB_ID,
    NOT_CANCELLED,
    IS_CANCELLED,
    NO_RESULT,
    STATUS,
    JOB_PACKET,
    CONTINUE,
    *(reply for _, reply in SUMMARIES),
]

# To each request the replies that end the exchange, and those that go on with it. An error ends
# every one. A cancelled job's end comes as the same line as the outcome of a cancel.
ANSWERS: list[tuple[dispatcher.Request, list[Reply], list[Reply]]] = [
    (dispatcher.Call(1, host="h", procedure="p", arguments=STATUS.info), [JOB_ID, ERROR], []),
    (dispatcher.Cancel(1, cancel=ID), [NOT_CANCELLED, IS_CANCELLED, ERROR], []),
    (dispatcher.GetResult(1, get_result=ID), JOB_ENDS, []),
    (dispatcher.GetResult(1, get_result=ID, wait=False), [*JOB_ENDS, NO_RESULT], []),
    (dispatcher.GetStatus(1, get_status=ID), [STATUS, ERROR], []),
    (dispatcher.FollowStream(1, follow_stream=ID), JOB_ENDS, [JOB_PACKET]),
    (dispatcher.ReadStream(1, read_stream=ID), [*JOB_ENDS, CONTINUE], [JOB_PACKET]),
]
for _line, _reply in SUMMARIES:
    ANSWERS.append((OPERATION[_line], [_reply, ERROR], []))


class ExchangeTests(SynchronousTestCase):
    """The client takes what answers its request and nothing else."""

    def test_every_request_and_reply(self) -> None:
        """What answers the request ends the exchange or goes on with it, all else is refused."""
        lines = {dispatcher.encode_reply(reply) for reply in JOB_REPLIES}
        for request, last, more in ANSWERS:
            legal = {dispatcher.encode_reply(reply): reply for reply in [*last, *more]}
            for line in lines:
                exchange = Exchange(request)
                if line in legal:
                    self.assertEqual(list(exchange.receive(line)), [legal[line]], (request, line))
                    self.assertEqual(exchange.ended, legal[line] in last, (request, line))
                else:
                    with self.assertRaises(RemoteProtocolError, msg=(request, line)) as caught:
                        list(exchange.receive(line))
                    self.assertEqual(caught.exception.type, errors.PROTOCOL_ERROR)
                    self.assertFalse(exchange.ended)

    def test_going_on(self) -> None:
        """The connection carries another request only if that was asked for and all was read."""
        asking = dispatcher.Cancel(1, keepalive=True, cancel=ID)
        end = dispatcher.encode_reply(NOT_CANCELLED)
        for request, data, may in [
            (dispatcher.Cancel(1, cancel=ID), end, False),
            (asking, end, True),
            (asking, end + b"{", False),
            (asking, b"", False),
        ]:
            exchange = Exchange(request)
            list(exchange.receive(data))
            self.assertEqual(exchange.may_go_on, may, (request, data))

    def test_cancelled_with_detail(self) -> None:
        """The end of a cancelled job is one also where more than that was asked for."""
        exchange = Exchange(dispatcher.GetResult(1, get_result=ID, detail=True))
        end = EndResult(EndKind.CANCELLED, b"true", EndDetail(None, False, 1.5))
        self.assertEqual(list(exchange.receive(dispatcher.encode_reply(end))), [end])
        self.assertTrue(exchange.ended)

    def test_request_line(self) -> None:
        """What is sent is the line of the request."""
        for request, _, _ in ANSWERS:
            self.assertEqual(Exchange(request).request_line(), dispatcher.encode_request(request))

    def test_however_it_arrives(self) -> None:
        """A conversation is the same whole, in single bytes and with data behind its end."""
        replies: list[Reply] = [NumberedPacket(0, b"[]"), NumberedPacket(1, b"{}"), RESULT]
        line = b"".join(map(dispatcher.encode_reply, replies))
        for pieces in ([line], single_bytes(line), [line + b"behind the end\n"]):
            exchange = Exchange(dispatcher.FollowStream(1, follow_stream=ID))
            self.assertEqual([r for piece in pieces for r in exchange.receive(piece)], replies)
            self.assertTrue(exchange.ended)
            self.assertEqual(list(exchange.receive(line)), [])

    def test_replies_before_a_faulty_one(self) -> None:
        """A faulty reply does not take those with it that came before it."""
        exchange = Exchange(dispatcher.FollowStream(1, follow_stream=ID))
        replies = exchange.receive(dispatcher.encode_reply(JOB_PACKET) + b"garbage\n")
        self.assertEqual(next(replies), JOB_PACKET)
        with self.assertRaises(RemoteProtocolError):
            next(replies)

    def test_replies_that_were_not_taken(self) -> None:
        """A reply that was left behind comes first the next time."""
        exchange = Exchange(dispatcher.FollowStream(1, follow_stream=ID))
        exchange.receive(dispatcher.encode_reply(JOB_PACKET))
        self.assertEqual(
            list(exchange.receive(dispatcher.encode_reply(RESULT))), [JOB_PACKET, RESULT]
        )

    def test_reply_over_the_limit(self) -> None:
        """A reply over the limit is a protocol_error before it has come whole."""
        exchange = Exchange(dispatcher.GetResult(1, get_result=ID), max_reply=10_000)
        with self.assertRaisesRegex(RemoteProtocolError, "longer than") as caught:
            list(exchange.receive(b"x" * 20_000))
        self.assertEqual(caught.exception.type, errors.PROTOCOL_ERROR)
