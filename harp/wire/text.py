"""The rules that every line of both protocols obeys, and what a breach of each is called.

Requests are strict: unknown and repeated keys are refused by name. Replies are lenient: keys that
are not known are ignored. Payloads stay the bytes that arrived (``msgspec.Raw``).
"""

from __future__ import annotations

import json
from typing import Any, TypeVar

import msgspec

from harp import errors
from harp.errors import ErrorType, RemoteProtocolError
from harp.logs import printable

T = TypeVar("T")
Scalar = str | int | float | bool | None

encode = msgspec.json.encode

_LONGEST_MESSAGE = 180  # characters


class Fault(msgspec.Struct):
    """What an ``exception`` or an ``error`` holds; ``data`` is left out where there is none."""

    type: str
    message: str
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


def fault(type: ErrorType, message: str, data: Any = msgspec.UNSET) -> bytes:
    """Return the JSON of an ``error``'s value.

    :param data: anything that JSON can carry.
    """
    if data is not msgspec.UNSET:
        data = msgspec.Raw(encode(data))
    return encode(Fault(type.name, message, data))


def decode_reply(line: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """Decode the line of a reply.

    :raises RemoteProtocolError: with ``protocol_error``; replies have no finer names.
    """
    try:
        line.decode()  # msgspec does not look into what it skips
        return decoder.decode(line)
    except UnicodeDecodeError as error:
        raise bad_reply(f"not UTF-8 at byte {error.start}") from error
    except RecursionError as error:
        raise bad_reply("nested too deep") from error
    except msgspec.DecodeError as error:
        raise bad_reply(str(error)) from error


def bad_reply(what: str) -> RemoteProtocolError:
    """Return the error of a reply that is none.

    :param what: what is wrong, and where.
    """
    return RemoteProtocolError(errors.PROTOCOL_ERROR, f"reply can't be understood: {_cut(what)}")


def open_request(line: bytes, version_key: str) -> dict[str, msgspec.Raw]:
    """Check what every request must be and return its keys with their values unopened.

    :param version_key: the key that must hold 1, it tells the protocol.
    :raises RemoteProtocolError: with ``parse_error``, ``invalid_protocol`` or ``invalid_request``
        and a message that says what is wrong and where.
    """
    try:
        line.decode()
        message = any_message.decode(line)
    except UnicodeDecodeError as error:
        raise RemoteProtocolError(
            errors.PARSE_ERROR, f"the request is not UTF-8 at byte {error.start}"
        ) from error
    except RecursionError as error:
        raise _too_deep() from error
    except msgspec.DecodeError as error:
        raise RemoteProtocolError(errors.PARSE_ERROR, _cut(error)) from error
    if not isinstance(message, dict) or bytes(message.get(version_key, b"")) != b"1":
        raise RemoteProtocolError(
            errors.INVALID_PROTOCOL, f'the request is not an object with "{version_key}": 1'
        )
    return message


def refuse_repeated_keys(line: bytes) -> None:
    """Refuse a request that says two things, at any depth.

    msgspec keeps the last of two equal keys without a word, so a second reader looks for them. It
    may cost 0.1 s for a line of 1 MiB.

    :param line: what ``open_request`` found to be a request.
    :raises RemoteProtocolError: with ``invalid_request``, naming the key.
    """
    try:
        _key_reader.decode(line.decode())
    except RecursionError as error:
        raise _too_deep() from error


def decode_request(line: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """Decode a line that ``open_request`` found to be a request.

    :raises RemoteProtocolError: with ``invalid_request``, naming the key.
    """
    try:
        return decoder.decode(line)
    except msgspec.DecodeError as error:
        raise RemoteProtocolError(errors.INVALID_REQUEST, _cut(error)) from error


def is_container(payload: msgspec.Raw) -> bool:
    """Tell whether it is a list or an object."""
    return bytes(payload).startswith((b"[", b"{"))


def require_container(payload: msgspec.Raw, key: str) -> None:
    """Refuse arguments that are neither a list nor an object.

    :raises RemoteProtocolError: with ``invalid_request``.
    """
    if not is_container(payload):
        raise RemoteProtocolError(
            errors.INVALID_REQUEST, f"Expected `array` or `object` - at `$.{key}`"
        )


def require_object(payload: msgspec.Raw, key: str) -> None:
    """Refuse what has to be an object and is not.

    :raises RemoteProtocolError: with ``invalid_request``.
    """
    if not bytes(payload).startswith(b"{"):
        raise RemoteProtocolError(errors.INVALID_REQUEST, f"Expected `object` - at `$.{key}`")


def _too_deep() -> RemoteProtocolError:
    return RemoteProtocolError(errors.PARSE_ERROR, "the request is nested too deep to be parsed")


def _cut(error: Exception | str) -> str:
    # It may quote a key or a value, and so be as long as the line and hold whatever that holds.
    text = printable(str(error)[: _LONGEST_MESSAGE + 1])
    return text if len(text) <= _LONGEST_MESSAGE else f"{text[:_LONGEST_MESSAGE]}…"


def _check_keys(pairs: list[tuple[str, Any]]) -> None:
    if len(pairs) != len(dict(pairs)):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                what = _cut(f"Key `{key}` stands twice")
                raise RemoteProtocolError(errors.INVALID_REQUEST, what)
            seen.add(key)


# Its numbers are not converted: a long integer would cost quadratic time.
_key_reader = json.JSONDecoder(object_pairs_hook=_check_keys, parse_int=len, parse_float=len)
# What is not an object is read to its end all the same, to tell whether it is JSON.
any_message: msgspec.json.Decoder[dict[str, msgspec.Raw] | list[msgspec.Raw] | Scalar] = (
    msgspec.json.Decoder(dict[str, msgspec.Raw] | list[msgspec.Raw] | Scalar)
)
