"""Properties of everything that takes bytes from a socket; each takes any bytes at all."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from typing import Any, TypeVar

from harp import errors
from harp.errors import RemoteProtocolError
from harp.wire import dispatcher, harpd
from harp.wire.front import auth_reader
from harp.wire.lines import LineReader, LineTooLongError
from harp.wire.packets import Packets
from harp.wire.replies import ReplyReader
from harp.wire.text import refuse_repeated_keys
from harpd import keeper, orders

T = TypeVar("T")

MAX_MESSAGE = 250
"""How long a message about a mistake may be, in characters."""

_REFUSALS = (errors.PARSE_ERROR, errors.INVALID_PROTOCOL, errors.INVALID_REQUEST)
_SECRET = re.compile(rb'"(?:password|token)"\s*:\s*"([^"\\]{6,})"')
_TOO_LONG = b"too long"

_read_token = auth_reader("harpcaller", dispatcher.Auth)
_read_login = auth_reader("harp", harpd.Auth)


def dispatcher_request(data: bytes) -> None:
    """Check a line: a request or refused; written again it is the same, for all who read it."""
    _request(data, dispatcher.decode_request_line, dispatcher.encode_request, _read_token)


def harpd_request(data: bytes) -> None:
    """Check the same at harpd."""

    def decode(line: bytes) -> harpd.Request:
        request = harpd.decode_request_line(line)
        refuse_repeated_keys(line)
        return request

    _request(data, decode, harpd.encode_request, _read_login)


def dispatcher_reply(data: bytes) -> None:
    """Check a line: a reply or a ``protocol_error``; written again it is the same."""
    _reply(_one_line(data), dispatcher.decode_reply_line, dispatcher.encode_reply)


def harpd_reply(data: bytes) -> None:
    """Check the same of what harpd says; packets read at once are those read one by one."""
    for line in data.split(b"\n")[:3]:
        _reply(line.removesuffix(b"\r"), harpd.decode_reply_line, harpd.encode_reply)
    whole = _replies([data])
    cut = len(data) // 2
    assert whole == _replies([data[:cut], data[cut:]])
    assert whole == _replies(
        [data[at : at + 1] for at in range(min(len(data), 300))] + [data[300:]]
    )
    assert whole == _replies_by_line(data)


def lines(data: bytes) -> None:
    """However it is cut on its way, the same lines come; its first bytes say the limit and cuts."""
    limit, *cuts = data[:4] or b"\0"
    text = data[4:]
    expected = _lines_as_defined(text, limit)
    ends = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    for pieces in ([text], [text[start:end] for start, end in pairwise(ends)]):
        assert _lines(pieces, limit) == expected


def order(data: bytes) -> None:
    """Check that a message is an order, for the zygote or for the keeper, or refused."""
    for decode in (orders.decode, keeper.decode):
        try:
            found: Any = decode(data)
        except orders.RefusedError as refusal:
            _check_told(str(refusal))
            continue
        number = found.number if isinstance(found, keeper.Order) else found[0]
        assert type(number) is int and 0 <= number < 2**63
        match found:
            case orders.Start(_, procedure):
                assert type(procedure) is str
            case orders.Signal(_, kill):
                assert type(kill) is bool
            case orders.Wake():
                pass
            case keeper.Order(what):
                assert what in ("zygote", "kill", "files")


def _request(
    data: bytes,
    decode: Callable[[bytes], T],
    encode: Callable[[T], bytes],
    read_auth: Callable[[bytes], Any],
) -> None:
    line = _one_line(data)
    try:
        request = decode(line)
    except RemoteProtocolError as error:
        assert error.type in _REFUSALS
        _check_told(error.message, line)
        read_auth(line)
        return
    again = encode(request)
    assert again.index(b"\n") == len(again) - 1
    assert decode(again[:-1]) == request
    with suppress(RecursionError):  # it stands deeper in calls than they do
        _check_same(_read(line), _read(again))
    # Who may send more must be who asks then.
    assert read_auth(line) in (None, request.auth)  # type: ignore[attr-defined]


def _reply(line: bytes, decode: Callable[[bytes], T], encode: Callable[[T], bytes]) -> None:
    try:
        reply = decode(line)
    except RemoteProtocolError as error:
        assert error.type == errors.PROTOCOL_ERROR
        _check_told(error.message, line)
        return
    assert decode(encode(reply)[:-1]) == reply
    with suppress(RecursionError):
        _read(line)


def _replies(pieces: list[bytes]) -> list[object]:
    reader = ReplyReader()
    found: list[object] = []
    try:
        for piece in pieces:
            reader.feed(piece)
            while (reply := reader.next()) is not None:
                found += _single(reply)
    except RemoteProtocolError as error:
        found.append(error.type)
    return found


def _replies_by_line(data: bytes) -> list[object]:
    found: list[object] = []
    for line in data.split(b"\n")[:-1]:
        try:
            found += _single(harpd.decode_reply_line(line.removesuffix(b"\r")))
        except RemoteProtocolError as error:
            return [*found, error.type]
    return found


def _single(reply: harpd.Reply) -> list[object]:
    # Beside each other, spaces behind a packet are its own or not.
    if isinstance(reply, Packets):
        assert len(reply.texts) == reply.count
        return [text.strip() for text in reply.texts]
    return [reply]


def _lines(pieces: list[bytes], limit: int) -> list[bytes]:
    reader = LineReader(limit)
    found: list[bytes] = []
    try:
        for piece in pieces:
            reader.feed(piece)
            assert reader.size <= len(reader.lines) + limit + 1
            while (line := reader.next_line()) is not None:
                found.append(line)
    except LineTooLongError:
        found.append(_TOO_LONG)
    return found


def _lines_as_defined(text: bytes, limit: int) -> list[bytes]:
    *whole, rest = text.split(b"\n")
    found: list[bytes] = []
    for raw in whole:
        line = raw.removesuffix(b"\r")
        if len(line) > limit:
            return [*found, _TOO_LONG]
        found.append(line)
    return [*found, _TOO_LONG] if len(rest) > limit + 1 else found


def _one_line(data: bytes) -> bytes:
    return data.replace(b"\n", b" ")


def _check_told(message: str, line: bytes = b"") -> None:
    assert message.isprintable(), ascii(message)
    assert len(message) <= MAX_MESSAGE, len(message)
    for secret in _SECRET.findall(line):
        if line.count(secret) == 1:
            assert secret.decode(errors="replace") not in message


def _read(line: bytes) -> Any:
    return json.loads(line, parse_int=_whole, parse_constant=_no_json)


def _whole(text: str) -> int | str:
    return int(text) if len(text) < 300 else text


def _no_json(text: str) -> None:
    raise AssertionError(f"{text} is no JSON")


def _check_same(one: Any, other: Any) -> None:
    """Check that two readers agree on what both have; what only one of them has is a default."""
    if isinstance(other, dict):
        assert isinstance(one, dict)
        for key in one.keys() & other.keys():
            _check_same(one[key], other[key])
    elif isinstance(one, int | float) and isinstance(other, float):
        assert float(one) == other
    else:
        assert one == other
