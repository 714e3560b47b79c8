"""Inside the fork: becomes the process of one call, runs the procedure, reports, and ends.

It writes the lines of harpd's protocol to the call's own socket; the network-facing process checks
them again before they leave the machine. It was forked from the zygote and shares its memory, so
it imports nothing that the zygote does not have: neither Twisted nor the wire modules.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import traceback
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn

from harpd import tree
from harpd.arguments import ArgumentError
from harpd.catalogue import Entry
from harpd.proc import Result

# The rows of harp.errors that arise here, by name because that package is too large for a fork.
SYSTEM_ERROR = "system_error"
INVALID_ARGUMENT_LIST = "invalid_argument_list"
INVALID_MESSAGE = "invalid_message"
INVALID_REQUEST = "invalid_request"

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


class Terminated(BaseException):
    """TERM has come: the call was cancelled or exceeded its time. Runs ``finally`` on its way."""


class _Unreportable(BaseException):
    """There is no way left to report: the socket is closed, or it is another process's."""


class _Refusal(Exception):
    """The call can't be carried out; becomes an ``error`` on the wire."""

    def __init__(self, type: str, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.type = type
        self.data = data


@dataclass(frozen=True)
class Call:
    """What the fork needs to know.

    :param connection: the call's own socket: a line with the arguments and one with the context
        come in, the replies go out.
    :param output: the file descriptor that takes what the procedure prints.
    :param max_line: the longest line in bytes that may be reported.
    """

    entry: Entry
    connection: socket.socket
    output: int
    max_line: int


def run(call: Call, zygote: int, guard: int) -> NoReturn:
    """Run the call in this process and end it.

    :param zygote: the process id of the parent.
    :param guard: the process id of its parent, which ends this one when the zygote has died.
    """
    status = 1
    output = _identity(call.output)
    notice = _Notice()
    try:
        report = _Report(call.connection, call.max_line)
        try:
            _become(call, zygote, guard, notice)
            _carry_out(call, report)
            status = 0
        except Terminated:
            status = 128 + signal.SIGTERM
        except _Refusal as refusal:
            report.error(refusal)
        except _Unreportable as error:
            _complain(output, f"the end of the call can't be reported: {error}\n")
        notice.raises = False
        signal.signal(signal.SIGTERM, notice)  # which the procedure may have replaced
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):  # the procedure may have closed or replaced it
                stream.flush()
        if notice.given:
            _wait_for_descendants()
    except BaseException:
        _complain(output, traceback.format_exc())
    finally:
        os._exit(status)


def _become(call: Call, zygote: int, guard: int, notice: _Notice) -> None:
    """Take the order of facts: session, descriptors, groups, user, and only then the parent."""
    try:
        os.setsid()
        tree.adopt_orphans()
        os.dup2(call.output, 1)
        os.dup2(call.output, 2)
        os.close(call.output)
        identity = call.entry.identity
        if identity is not None:
            if os.geteuid() == 0:
                os.setgroups(identity.groups)
            os.setresgid(identity.gid, identity.gid, identity.gid)
            os.setresuid(identity.uid, identity.uid, identity.uid)
        signal.signal(signal.SIGTERM, notice)
        signal.signal(tree.WAKE, lambda number, frame: None)
        # What the procedure makes of TERM has no influence on this.
        signal.signal(tree.PARENT_DIED, _Orphan(zygote, guard))
        tree.watch_parent(zygote)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})  # which the zygote blocked
    except OSError as error:
        raise _Refusal(SYSTEM_ERROR, f"the process of the call: {error}") from error


class _Orphan:
    """What is done when the zygote or its guard has died: it is as if the other had sent TERM.

    Which it will: what waits for a signal must not take this one for its own. If both have died,
    nobody is left who would end this call, so it ends itself with its whole tree.
    """

    def __init__(self, zygote: int, guard: int) -> None:
        self._leader = os.getpid()
        self._superiors = {zygote, guard}

    def __call__(self, number: int, frame: object) -> None:
        if os.getpid() == self._leader:
            if os.getppid() not in self._superiors:
                tree.kill(self._leader)
            os.kill(self._leader, signal.SIGTERM)


class _Notice:
    """What TERM does, and whether it has come from the zygote or its guard."""

    def __init__(self) -> None:
        self.given = False
        self.raises = True

    def __call__(self, number: int, frame: object) -> None:
        first, self.given = not self.given, True
        if first and self.raises:
            raise Terminated


def _carry_out(call: Call, report: _Report) -> None:
    arguments, context = _request(call.connection)
    try:
        args, kwargs = call.entry.parameters.bind(arguments, context)
    except ArgumentError as error:
        message = f"{call.entry.name}: {error}"
        raise _Refusal(INVALID_ARGUMENT_LIST, message, error.data) from error
    try:
        outcome = call.entry.procedure(*args, **kwargs)
        if call.entry.procedure.streaming:
            outcome = _stream(outcome, report)
    except (_Refusal, _Unreportable, Terminated):
        raise
    except BaseException as error:
        with suppress(Exception):  # as above, and the caller must learn of the error all the same
            traceback.print_exc()
        report.exception(error)
    else:
        report.result(outcome)


def _request(connection: socket.socket) -> tuple[Any, Any]:
    """Return the arguments and the context."""
    with connection.makefile("rb") as lines:
        try:
            return json.loads(lines.readline()), json.loads(lines.readline())
        except (ValueError, RecursionError) as error:
            raise _Refusal(INVALID_REQUEST, f"arguments or context: {error}") from error


def _stream(packets: Any, report: _Report) -> Any:
    """Report the packets as they come and return the end result."""
    try:
        for packet in packets:
            if isinstance(packet, Result):
                return packet.value
            report.packet(packet)
    finally:
        close = getattr(packets, "close", None)
        if close is not None:
            close()
    return None


def _wait_for_descendants() -> None:
    """Stay the parent of what was told to end, so that it is found when its time is up."""
    try:
        while True:
            os.wait()
    except ChildProcessError:
        pass


class _Report:
    """Writes the replies of one call."""

    def __init__(self, connection: socket.socket, max_line: int) -> None:
        self._connection = connection
        self._identity = _identity(connection.fileno())
        self._pid = os.getpid()
        self._max_line = max_line

    def packet(self, value: Any) -> None:
        self._send('{"stream":%s}\n', "packet", value)

    def result(self, value: Any) -> None:
        self._send('{"result":%s}\n', "result", value)

    def exception(self, error: BaseException) -> None:
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

    def error(self, refusal: _Refusal) -> None:
        text = str(refusal).encode(errors="backslashreplace").decode()
        fault = {"type": refusal.type, "message": text}
        if refusal.data is not None:
            fault["data"] = refusal.data
        self._send('{"harp":1,"error":%s}\n', "error", fault)

    def _send(self, line: str, what: str, value: Any) -> None:
        try:
            data = (line % _encode(value)).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise _Refusal(INVALID_MESSAGE, f"JSON can't carry the {what}: {error}") from error
        if len(data) > self._max_line:
            raise _Refusal(
                INVALID_MESSAGE, f"the {what} has {len(data)} bytes, over {self._max_line}"
            )
        try:
            # A procedure that closed descriptors it does not own may have this number in use for a
            # file of its own, which must not receive our lines. One that forked and lets the copy
            # run on must not be answered twice.
            if _identity(self._connection.fileno()) != self._identity or os.getpid() != self._pid:
                raise _Unreportable("the procedure closed its socket or forked")
            self._connection.sendall(data)
        except OSError as error:
            raise _Unreportable(str(error)) from error


def _complain(output: tuple[int, int], text: str) -> None:
    """Print something of our own, unless descriptor 2 is not the call's output any more."""
    with suppress(OSError):
        if _identity(2) == output:
            os.write(2, text.encode(errors="backslashreplace"))


def _identity(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino
