"""The messages between harpd and who calls it: version 1 of that protocol and its extensions.

A call is a request, an acknowledgement, packets if the procedure streams, an end result.
``harp.session`` keeps that order; here are the messages alone. An extension appears only where the
request asked for it.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from harp import errors
from harp.errors import RemoteProtocolError
from harp.wire.packets import Packets, encode_packets
from harp.wire.results import EndFields, EndKind, EndResult
from harp.wire.text import (
    bad_reply,
    decode_reply,
    decode_request,
    encode,
    is_container,
    open_request,
    require_container,
    require_object,
)

DEFAULT_PORT = 4306


class Auth(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Who calls."""

    user: str
    password: str

    def __repr__(self) -> str:
        return f"Auth(user={self.user!r}, password='(secret)')"


class CallRequest(
    msgspec.Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True, kw_only=True
):
    """A call of one procedure.

    :param auth: stands at the beginning of the line, so that it can be checked before all of a long
        line has come.
    :param arguments: JSON: a list of positional or an object of keyword arguments.
    :param keepalive: an extension: whether the connection may stay open for another request.
    :param context: an extension: JSON of an object, what the caller knows of the call.
    :param report_lock: an extension: whether to be told that the call waits for a lock.
    :param report_secret: an extension: whether to be told how the arguments may be shown, if the
        procedure says of some that they are secret.
    """

    harp: Literal[1]
    auth: Auth
    procedure: str
    arguments: msgspec.Raw
    keepalive: bool = False
    context: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    report_lock: bool = False
    report_secret: bool = False


class DescribeRequest(
    msgspec.Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True, kw_only=True
):
    """An extension: the question what this daemon offers.

    :param describe: always True.
    :param keepalive: as for a call.
    """

    harp: Literal[1]
    auth: Auth
    describe: bool
    keepalive: bool = False


Request = CallRequest | DescribeRequest


class Ack(msgspec.Struct, frozen=True):
    """The call is authenticated and its procedure found.

    :param shown_arguments: an extension: JSON of the arguments as they may be shown, None if they
        have no secrets.
    """

    stream_result: bool
    shown_arguments: bytes | None = None


class Waiting(msgspec.Struct, frozen=True):
    """An extension: the call waits for a lock.

    :param lock: its name; None as soon as the call has it.
    """

    lock: str | None


class Procedures(msgspec.Struct, frozen=True):
    """An extension: what this daemon offers.

    :param procedures: JSON of a list of objects.
    :param time: what the daemon's clock says, in unix seconds; None if it does not tell.
    """

    procedures: bytes
    time: float | None = None


Reply = Ack | Waiting | Packets | Procedures | EndResult


def encode_request(request: Request) -> bytes:
    """Return the line of a request."""
    return encode(request) + b"\n"


def decode_request_line(line: bytes) -> Request:
    """Decode a request line, but for ``refuse_repeated_keys``.

    :raises RemoteProtocolError: ``parse_error``, ``invalid_protocol`` or ``invalid_request``.
    """
    if "describe" in open_request(line, "harp"):
        question = decode_request(line, _describe_decoder)
        if not question.describe:
            raise RemoteProtocolError(
                errors.INVALID_REQUEST, "Expected `true`, for the key is the request"
            )
        return question
    request = decode_request(line, _call_decoder)
    require_container(request.arguments, "arguments")
    if request.context is not msgspec.UNSET:
        require_object(request.context, "context")
    return request


def encode_reply(reply: Reply) -> bytes:
    """Return the line of one reply, exactly the keys of version 1 for what it has.

    Each packet has a line of its own.
    """
    match reply:
        case Packets():
            return encode_packets(reply)
        case Ack(stream_result, shown):
            more = b"" if shown is None else b',"shown_arguments":%b' % shown
            streams = b"true" if stream_result else b"false"
            return b'{"harp":1,"stream_result":%b%b}\n' % (streams, more)
        case Waiting(None):
            return b'{"harp":1,"waiting":null}\n'
        case Waiting(lock):
            return b'{"harp":1,"waiting":{"lock":%b}}\n' % encode(lock)
        case Procedures(procedures, time):
            more = b"" if time is None else b',"time":%b' % encode(time)
            return b'{"harp":1,"procedures":%b%b}\n' % (procedures, more)
        case EndResult(EndKind.ERROR, value):
            return b'{"harp":1,"error":%b}\n' % value
        case EndResult(kind, value):
            return b'{"%b":%b}\n' % (kind.value.encode(), value)


def decode_reply_line(line: bytes) -> Reply:
    """Decode one line from harpd.

    :raises RemoteProtocolError: ``protocol_error``.
    """
    fields = decode_reply(line, _reply_decoder)
    found: list[Reply] = []
    if fields.stream is not msgspec.UNSET:
        found.append(Packets(1, bytes(fields.stream)))
    if fields.stream_result is not msgspec.UNSET:
        shown = None
        if fields.shown_arguments is not msgspec.UNSET:
            if not is_container(fields.shown_arguments):
                raise bad_reply("Expected `array` or `object` - at `$.shown_arguments`")
            shown = bytes(fields.shown_arguments)
        found.append(Ack(fields.stream_result, shown))
    if fields.waiting is not msgspec.UNSET:
        found.append(Waiting(None if fields.waiting is None else fields.waiting.lock))
    if fields.procedures is not msgspec.UNSET:
        found.append(Procedures(bytes(fields.procedures), fields.time))
    found.extend(fields.end_results())
    if len(found) != 1:
        raise RemoteProtocolError(
            errors.PROTOCOL_ERROR, f"reply has {len(found)} of the keys that tell its meaning"
        )
    return found[0]


class _Lock(msgspec.Struct):
    lock: str


class _ReplyFields(EndFields):
    stream_result: bool | msgspec.UnsetType = msgspec.UNSET
    shown_arguments: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    stream: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    waiting: _Lock | msgspec.UnsetType | None = msgspec.UNSET
    procedures: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    time: float | None = None


_call_decoder = msgspec.json.Decoder(CallRequest)
_describe_decoder = msgspec.json.Decoder(DescribeRequest)
_reply_decoder = msgspec.json.Decoder(_ReplyFields)
