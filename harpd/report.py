"""What the process of a call says of it: lines of harpd's protocol, on the call's own socket.

The network-facing process checks them again before they leave the machine. Like `harpd.child` it
uses nothing that would make the forks of the zygote larger.
"""

from __future__ import annotations

import json
from json.encoder import c_make_encoder, encode_basestring  # type: ignore[attr-defined]

# By their names: to look one up in its module costs a fork up to three pages.
from os import fstat, getpid, write
from typing import Any

# The rows of harp.errors that arise here, by name because that package is too large for a fork.
SYSTEM_ERROR = "system_error"
INVALID_ARGUMENT_LIST = "invalid_argument_list"
INVALID_MESSAGE = "invalid_message"
INVALID_REQUEST = "invalid_request"
LIMIT_EXCEEDED = "limit_exceeded"

# What JSONEncoder makes anew for each value. In its order: what finds circles, what is asked for
# other types, how texts are written, indent, separators, whether keys are sorted, whether keys of
# other types are left out, whether NaN is written.
_one_shot = c_make_encoder(
    {}, json.JSONEncoder().default, encode_basestring, None, ":", ",", False, False, False
)


class UnreportableError(BaseException):
    """There is no way left to report: the socket is closed, or it is another process's."""


class RefusalError(Exception):
    """The call can't be carried out; becomes an ``error`` on the wire."""

    def __init__(self, type: str, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.type = type
        self.data = data


class Report:
    """Writes the replies of one call.

    :param connection: the descriptor of its socket.
    :param max_line: the longest line in bytes.
    :param max_packet: the bytes of JSON of one packet, None for no limit of its own.
    :param max_output: those of all packets and the end result, None for no limit.
    """

    def __init__(
        self,
        connection: int,
        max_line: int,
        max_packet: int | None = None,
        max_output: int | None = None,
    ) -> None:
        self._connection = connection
        self._identity = identity_of(connection)
        self._pid = getpid()
        self._max_line = max_line
        self._max_packet = max_packet
        self._max_output = max_output
        self._is_limited = max_packet is not None or max_output is not None
        self._total = 0

    def packet(self, value: Any) -> None:
        """Say what a streaming procedure has yielded; see `result`."""
        self._send('{"stream":%s}\n', "packet", value)

    def result(self, value: Any) -> None:
        """Say what the procedure has returned.

        :raises RefusalError: if JSON can't carry it, it is too long, or all was too much.
        :raises UnreportableError: if it can't be said any more.
        """
        self._send('{"result":%s}\n', "result", value)

    def exception(self, error: BaseException) -> None:
        """Say what the procedure has raised."""
        kind = type(error)
        try:
            message = str(error)
        except Exception:
            message = f"({kind.__name__} can't be shown as text)"
        fault = {
            "type": kind.__name__,
            "message": message.encode(errors="backslashreplace").decode(),
            "data": {"class": kind.__qualname__, "module": kind.__module__},
        }
        self._send('{"exception":%s}\n', "exception", fault)

    def error(self, refusal: RefusalError) -> None:
        """Say why the call can't be carried out."""
        text = str(refusal).encode(errors="backslashreplace").decode()
        fault = {"type": refusal.type, "message": text}
        if refusal.data is not None:
            fault["data"] = refusal.data
        self._send('{"harp":1,"error":%s}\n', "error", fault)

    def _send(self, line: str, what: str, value: Any) -> None:
        try:
            data = (line % "".join(_one_shot(value, 0))).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise RefusalError(INVALID_MESSAGE, f"JSON can't carry the {what}: {error}") from error
        if self._is_limited and what != "error":
            self._check(what, len(data) - len(line % ""))
        if len(data) > self._max_line:
            raise RefusalError(
                INVALID_MESSAGE, f"the {what} has {len(data)} bytes, over {self._max_line}"
            )
        try:
            # A procedure that closed descriptors it does not own may have this number in use for a
            # file of its own, which must not receive our lines. One that forked and lets the copy
            # run on must not be answered twice.
            if identity_of(self._connection) != self._identity or getpid() != self._pid:
                raise UnreportableError("the procedure closed its socket or forked")
            while data := data[write(self._connection, data) :]:
                pass
        except OSError as error:
            raise UnreportableError(str(error)) from error

    def _check(self, what: str, size: int) -> None:
        """Hold to the limits, as `harpd.call_limits` does with what has been written."""
        limit = self._max_packet
        if limit is not None and what == "packet" and size > limit:
            text = f"the packet has {size} bytes, over the limit max_packet of {limit}"
            raise RefusalError(LIMIT_EXCEEDED, text, {"limit": "max_packet"})
        self._total += size
        limit = self._max_output
        if limit is not None and self._total > limit:
            name = what if what == "packet" else "end result"
            text = f"with the {name} the output has {self._total} bytes, over the limit max_output"
            raise RefusalError(LIMIT_EXCEEDED, f"{text} of {limit}", {"limit": "max_output"})


def identity_of(descriptor: int) -> tuple[int, ...]:
    """Return what tells the file of a descriptor from every other."""
    # The number of its inode and of its device; their names would cost a fork more pages.
    return fstat(descriptor)[1:3]
