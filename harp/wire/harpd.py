"""The messages between harpd and who calls it, version 1 of that protocol.

One connection carries one call: a request, an acknowledgement, packets if the procedure streams,
an end result. ``harp.session`` keeps that order; here are the messages alone.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from harp import errors
from harp.errors import RemoteProtocolError
from harp.wire.results import EndFields, EndKind, EndResult
from harp.wire.text import decode_reply, decode_request, encode, open_request, require_container

DEFAULT_PORT = 4306


class Auth(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Who calls."""

    user: str
    password: str


class CallRequest(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A call of one procedure.

    :param arguments: JSON: a list of positional or an object of keyword arguments.
    """

    harp: Literal[1]
    procedure: str
    arguments: msgspec.Raw
    auth: Auth


class Ack(msgspec.Struct, frozen=True):
    """The call is authenticated and its procedure found."""

    stream_result: bool


class Packet(msgspec.Struct, frozen=True):
    """One partial result.

    :param data: JSON.
    """

    data: bytes


Reply = Ack | Packet | EndResult


def encode_call(procedure: str, arguments: bytes, user: str, password: str) -> bytes:
    """Return the line that asks for a call.

    :param arguments: JSON of a list or an object.
    """
    auth = Auth(user, password)
    return encode(CallRequest(1, procedure, msgspec.Raw(arguments), auth)) + b"\n"


def decode_call(line: bytes) -> CallRequest:
    """Decode a request line, but for ``refuse_repeated_keys``.

    :raises RemoteProtocolError: ``parse_error``, ``invalid_protocol`` or ``invalid_request``.
    """
    open_request(line, "harp")
    request = decode_request(line, _call_decoder)
    require_container(request.arguments, "arguments")
    return request


def encode_reply(reply: Reply) -> bytes:
    """Return the line of one reply, exactly the keys of version 1."""
    if isinstance(reply, Packet):
        return b'{"stream":%b}\n' % reply.data
    if isinstance(reply, Ack):
        return b'{"harp":1,"stream_result":%b}\n' % (b"true" if reply.stream_result else b"false")
    if reply.kind is EndKind.ERROR:
        return b'{"harp":1,"error":%b}\n' % reply.value
    return b'{"%b":%b}\n' % (reply.kind.value.encode(), reply.value)


def decode_reply_line(line: bytes) -> Reply:
    """Decode one line from harpd.

    :raises RemoteProtocolError: ``protocol_error``.
    """
    fields = decode_reply(line, _reply_decoder)
    found: list[Reply] = []
    if fields.stream is not msgspec.UNSET:
        found.append(Packet(bytes(fields.stream)))
    if fields.stream_result is not msgspec.UNSET:
        found.append(Ack(fields.stream_result))
    found.extend(fields.end_results())
    if len(found) != 1:
        raise RemoteProtocolError(
            errors.PROTOCOL_ERROR, f"reply has {len(found)} of the keys that tell its meaning"
        )
    return found[0]


class _ReplyFields(EndFields):
    stream_result: bool | msgspec.UnsetType = msgspec.UNSET
    stream: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_call_decoder = msgspec.json.Decoder(CallRequest)
_reply_decoder = msgspec.json.Decoder(_ReplyFields)
