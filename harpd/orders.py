"""What the network-facing process may order of the zygote and of the keeper, read without trust.

Whoever has taken that process over can send anything here. This module says what an order is and
takes what is none off the socket, with all descriptors; what is done, its users decide.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import socket
import stat
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

MAX_MESSAGE = 65536
"""The longest message of a control socket in bytes."""

MAX_CALLS = 8192
"""How many calls a zygote may have at once, those included that were told to end and may have left
what does not. It is no limit for use, but for who has taken over the process that orders."""

_MAX_NUMBER = 2**63 - 1
_MAX_SHOWN = 200  # bytes of a message in the log

_decode = json.JSONDecoder().raw_decode
_Socket = socket.SocketType  # without the enums that socket.socket makes of everything
_LOCAL, _STREAM = int(socket.AF_UNIX), int(socket.SOCK_STREAM)
_DESCRIPTOR = 4  # bytes of one in an SCM_RIGHTS message (unix(7))
_CUT = int(socket.MSG_TRUNC)
_CLOEXEC = int(socket.MSG_CMSG_CLOEXEC)

Order = TypeVar("Order")


class RefusedError(Exception):
    """It is no order, or one that can't be obeyed; the text says why."""


class Start(NamedTuple):
    """Fork a call. :param call: its number."""

    call: int
    procedure: str


class Signal(NamedTuple):
    """Send TERM, or KILL, to the process tree of a call."""

    call: int
    kill: bool


class Wake(NamedTuple):
    """Let a call see a TERM."""

    call: int


ZygoteOrder = Start | Signal | Wake

_START, _SIGNAL, _WAKE = {"start", "procedure"}, {"signal", "kill"}, {"wake"}


def decode(data: bytes | bytearray) -> ZygoteOrder:
    """Return the order for the zygote that a message is.

    :raises RefusedError: if it is none.
    """
    message = decode_object(data)
    keys = message.keys()
    if keys == _START:
        procedure = message["procedure"]
        if type(procedure) is not str:
            raise RefusedError("procedure is not a text")
        return Start(number(message["start"]), procedure)
    if keys == _SIGNAL:
        kill = message["kill"]
        if type(kill) is not bool:
            raise RefusedError("kill is neither true nor false")
        return Signal(number(message["signal"]), kill)
    if keys == _WAKE:
        return Wake(number(message["wake"]))
    raise RefusedError("these are not the keys of any order")


def decode_object(data: bytes | bytearray) -> dict[str, Any]:
    """Return the object that a message is, in JSON and with nothing behind it.

    :raises RefusedError: if it is none.
    """
    try:
        text = data.decode()
        message, end = _decode(text)
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"it is not JSON: {error}") from None
    if type(message) is not dict or end != len(text):
        raise RefusedError("it is not one JSON object")
    return message


def number(value: object) -> int:
    """Return the number by which an order names a call or a process.

    :raises RefusedError: if it is none, from 0 to 2^63 - 1.
    """
    if type(value) is not int or not 0 <= value <= _MAX_NUMBER:
        raise RefusedError("the number is no whole number that fits")
    return value


class Orders(Generic[Order]):
    """The end of a SEQPACKET socket on which the orders come.

    :param decode: says what a message is; raises `RefusedError`.
    :param descriptors: how many may come with one.
    """

    def __init__(
        self, end: socket.socket, decode: Callable[[bytearray], Order], descriptors: int = 0
    ) -> None:
        self._end = end
        self._decode = decode
        # Room for one more tells those that bring too many; the kernel drops the rest.
        self._space = socket.CMSG_LEN((descriptors + 1) * _DESCRIPTOR)
        self._received = bytearray(MAX_MESSAGE)

    def next(self) -> tuple[Order, tuple[int, ...]] | None:
        """Wait for an order; return it with its descriptors, None when nobody is left to give one.

        :raises RefusedError: if it is none; its descriptors are closed, the next may be one.
        """
        try:
            size, ancillary, flags, _ = self._end.recvmsg_into(
                [self._received], self._space, _CLOEXEC
            )
        except ConnectionResetError:  # it died before it took all of our messages
            return None
        descriptors = _descriptors(ancillary)
        data = self._received[:size]
        try:
            if not size:
                if self._is_over():
                    return None
                raise RefusedError("it is empty")
            if flags & _CUT:
                raise RefusedError(f"it is longer than {MAX_MESSAGE} bytes")
            return self._decode(data), descriptors
        except RefusedError as error:
            close_all(descriptors)
            shown = bytes(data[:_MAX_SHOWN])
            raise RefusedError(f"{error}: {shown!r}") from None

    def _is_over(self) -> bool:
        """Tell the end from an empty message, which reads the same."""
        poll = select.poll()
        poll.register(self._end, select.POLLRDHUP)
        return bool(poll.poll(0))


def check_ends(descriptors: tuple[int, ...]) -> tuple[int, int]:
    """Return the two descriptors of a call: a local stream socket and a pipe that can be written.

    :raises RefusedError: if they are anything else.
    """
    if len(descriptors) != 2:  # noqa: PLR2004 - as the docstring says
        raise RefusedError(f"{len(descriptors)} descriptors came, not a socket and a pipe")
    connection, output = descriptors
    if not _is_local_stream(connection):
        raise RefusedError("its first descriptor is no local stream socket")
    if not stat.S_ISFIFO(os.fstat(output).st_mode):
        raise RefusedError("its second descriptor is no pipe")
    if fcntl.fcntl(output, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        raise RefusedError("its pipe can't be written")
    return connection, output


def close_all(descriptors: tuple[int, ...]) -> None:
    """Close descriptors that came with an order."""
    for descriptor in descriptors:
        os.close(descriptor)


def _is_local_stream(descriptor: int) -> bool:
    try:
        end = _Socket(_LOCAL, _STREAM, 0, descriptor)
    except OSError:
        return False
    try:
        kind = end.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
        return (kind, end.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN)) == (_STREAM, _LOCAL)
    finally:
        end.detach()


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> tuple[int, ...]:
    # All that there can be is one SCM_RIGHTS message: nothing else was asked for (unix(7)).
    if not ancillary:
        return ()
    data = ancillary[0][2]
    whole = len(data) - len(data) % _DESCRIPTOR
    return tuple(memoryview(data)[:whole].cast("i"))
