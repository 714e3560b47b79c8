"""The legal order of messages in both protocols, without any I/O.

The rules of the tables: a row is a state and the kind of the message that comes next, its value is
the state after it. What is not in a table is a mistake: the peer's if the message was received
(`RemoteProtocolError`), our own if it was to be sent (`LocalProtocolError`).
"""

from __future__ import annotations

import enum
from collections.abc import Iterator

from harp import errors
from harp.errors import LocalProtocolError, RemoteProtocolError
from harp.wire import dispatcher, harpd, results
from harp.wire.dispatcher import operation
from harp.wire.lines import ENVELOPE_ROOM, MAX_REPLY, LineReader
from harp.wire.packets import Packets
from harp.wire.replies import ReplyReader, next_line
from harp.wire.results import EndKind, EndResult


class CallState(enum.Enum):
    """Where one request to harpd stands."""

    ACK_DUE = "acknowledgement due"
    DESCRIPTION_DUE = "description due"
    RESULT_DUE = "end result due"
    STREAMING = "packets or end result due"
    ENDED = "ended"


_ACK, _STREAM_ACK = "acknowledgement", "acknowledgement of a stream"
_WAITING, _PACKET, _PROCEDURES = "news of a lock", "packet", "description"

_CALL_TABLE: dict[tuple[CallState, str], CallState] = {
    (CallState.ACK_DUE, _ACK): CallState.RESULT_DUE,
    (CallState.ACK_DUE, _STREAM_ACK): CallState.STREAMING,
    (CallState.ACK_DUE, EndKind.ERROR.value): CallState.ENDED,
    (CallState.DESCRIPTION_DUE, _PROCEDURES): CallState.ENDED,
    (CallState.DESCRIPTION_DUE, EndKind.ERROR.value): CallState.ENDED,
    (CallState.RESULT_DUE, _WAITING): CallState.RESULT_DUE,
    (CallState.RESULT_DUE, EndKind.RESULT.value): CallState.ENDED,
    (CallState.RESULT_DUE, EndKind.EXCEPTION.value): CallState.ENDED,
    (CallState.RESULT_DUE, EndKind.ERROR.value): CallState.ENDED,
    (CallState.STREAMING, _WAITING): CallState.STREAMING,
    (CallState.STREAMING, _PACKET): CallState.STREAMING,
    (CallState.STREAMING, EndKind.RESULT.value): CallState.ENDED,
    (CallState.STREAMING, EndKind.EXCEPTION.value): CallState.ENDED,
    (CallState.STREAMING, EndKind.ERROR.value): CallState.ENDED,
}


def _call_step(state: CallState, reply: harpd.Reply) -> tuple[str, CallState | None]:
    if isinstance(reply, Packets):
        kind = _PACKET
    elif isinstance(reply, harpd.Ack):
        kind = _STREAM_ACK if reply.stream_result else _ACK
    elif isinstance(reply, harpd.Waiting):
        kind = _WAITING
    elif isinstance(reply, harpd.Procedures):
        kind = _PROCEDURES
    else:
        kind = reply.kind.value
    return kind, _CALL_TABLE.get((state, kind))


def _first_state(request: harpd.Request) -> CallState:
    is_question = isinstance(request, harpd.DescribeRequest)
    return CallState.DESCRIPTION_DUE if is_question else CallState.ACK_DUE


class OutgoingCall:
    """The caller's end of one request to harpd: bytes in, replies in a legal order out."""

    def __init__(self, request: harpd.Request, max_reply: int = MAX_REPLY) -> None:
        self.state = _first_state(request)
        self._request: harpd.Request | None = request
        self._keepalive = request.keepalive
        self._reader = ReplyReader(max_reply)

    def request_line(self) -> bytes:
        """Return what is to be sent; once, for there may be secrets in it that are not kept."""
        assert self._request is not None
        line = harpd.encode_request(self._request)
        self._request = None
        return line

    @property
    def ended(self) -> bool:
        """Whether the last reply has come."""
        return self.state is CallState.ENDED

    @property
    def may_go_on(self) -> bool:
        """Whether the connection can carry another request, if harpd leaves it open."""
        return self.ended and self._keepalive and not self._reader.has_more

    def receive(self, data: bytes) -> Iterator[harpd.Reply]:
        """Take what has arrived and return the replies that are complete, one by one.

        Packets that arrived together are one. A reply is looked at when the iterator comes to it,
        so those before a faulty one are not lost. What comes behind the end result is not looked
        at.

        :raises RemoteProtocolError: while iterating, if harpd broke the protocol.
        """
        self._reader.feed(data)
        return self._replies()

    def _replies(self) -> Iterator[harpd.Reply]:
        while not self.ended and (reply := self._reader.next()) is not None:
            kind, after = _call_step(self.state, reply)
            if after is None:
                raise RemoteProtocolError(
                    errors.PROTOCOL_ERROR, f"harpd sent {kind} with {self.state.value}"
                )
            self.state = after
            yield reply


class IncomingCall:
    """harpd's end of one request: replies in, bytes out, in a legal order.

    :param request: None as long as it has not come or can't be understood.
    """

    def __init__(self, request: harpd.Request | None = None) -> None:
        self.state = CallState.ACK_DUE if request is None else _first_state(request)

    def send(self, reply: harpd.Reply) -> bytes:
        """Return the line of the reply.

        :raises LocalProtocolError: if this reply can't come now.
        """
        kind, after = _call_step(self.state, reply)
        if after is None:
            raise LocalProtocolError(f"{kind} with {self.state.value}")
        self.state = after
        return harpd.encode_reply(reply)


_STREAM_REQUESTS = (dispatcher.FollowStream, dispatcher.ReadStream)

_LAST_REPLIES: dict[type[dispatcher.Request], tuple[type, ...]] = {
    dispatcher.Call: (dispatcher.JobId,),
    dispatcher.Cancel: (dispatcher.CancelOutcome,),
    dispatcher.GetResult: (EndResult, dispatcher.NoResult),
    dispatcher.GetStatus: (dispatcher.Status,),
    dispatcher.FollowStream: (EndResult,),
    dispatcher.ReadStream: (EndResult, dispatcher.Continue),
    **{request: (reply,) for request, reply in operation.REPLIES.items()},
}


class Exchange:
    """The client's end of one request to the dispatcher and of what answers it."""

    def __init__(self, request: dispatcher.Request, max_reply: int = MAX_REPLY) -> None:
        self.ended = False
        self._request = request
        self._reader = LineReader(max_reply + ENVELOPE_ROOM)

    def request_line(self) -> bytes:
        """Return what is to be sent."""
        return dispatcher.encode_request(self._request)

    @property
    def may_go_on(self) -> bool:
        """Whether the connection can carry another request, if the dispatcher leaves it open."""
        return self.ended and self._request.keepalive and not self._reader.has_more

    def receive(self, data: bytes) -> Iterator[dispatcher.Reply]:
        """Take what has arrived and return the replies that are complete, one by one.

        A reply is looked at when the iterator comes to it, so those before a faulty one are not
        lost; one that is not taken comes first the next time. What comes behind the last reply is
        not looked at.

        :raises RemoteProtocolError: while iterating, if the dispatcher broke the protocol.
        """
        self._reader.feed(data)
        return self._replies()

    def _replies(self) -> Iterator[dispatcher.Reply]:
        while not self.ended and (line := next_line(self._reader)) is not None:
            yield self._judge(dispatcher.decode_reply_line(line))

    def _judge(self, reply: dispatcher.Reply) -> dispatcher.Reply:
        kind = type(self._request)
        if isinstance(reply, dispatcher.NumberedPacket) and kind in _STREAM_REQUESTS:
            return reply
        last = _LAST_REPLIES[kind]
        if isinstance(self._request, dispatcher.GetResult) and self._request.wait:
            last = (EndResult,)
        if EndResult in last and reply == dispatcher.CancelOutcome(True):
            reply = results.CANCELLED
        refused = isinstance(reply, EndResult) and reply.kind is EndKind.ERROR
        if isinstance(reply, last) or refused:
            self.ended = True
        else:
            raise RemoteProtocolError(
                errors.PROTOCOL_ERROR,
                f"the dispatcher answered {kind.__name__} with {type(reply).__name__}",
            )
        return reply
