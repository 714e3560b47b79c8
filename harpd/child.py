"""Inside the fork: becomes the process of one call, runs the procedure, reports, and ends.

It writes the lines of harpd's protocol to the call's own socket; the network-facing process checks
them again before they leave the machine. It was forked from the zygote and shares its memory, so
it imports nothing that the zygote does not have: neither Twisted nor the wire modules.
"""

from __future__ import annotations

import json
import signal
import sys
import traceback

# What the module signal puts around these makes enums of what they return.
from _signal import pthread_sigmask as set_mask  # type: ignore[import-not-found]
from _signal import signal as on_signal
from contextlib import suppress
from json.encoder import c_make_encoder, encode_basestring  # type: ignore[attr-defined]

# By their names: to look one up in its module costs a fork up to three pages.
from os import (
    _exit,
    close,
    dup2,
    fstat,
    geteuid,
    getpid,
    getppid,
    kill,
    read,
    setgroups,
    setresgid,
    setresuid,
    setsid,
    wait,
    write,
)
from typing import Any, NoReturn

from harpd import tree
from harpd.arguments import ArgumentError
from harpd.catalogue import Entry
from harpd.identity import Identity
from harpd.proc import Result
from harpd.tree import PARENT_DIED, WAKE, adopt_orphans, watch_parent

# The rows of harp.errors that arise here, by name because that package is too large for a fork.
SYSTEM_ERROR = "system_error"
INVALID_ARGUMENT_LIST = "invalid_argument_list"
INVALID_MESSAGE = "invalid_message"
INVALID_REQUEST = "invalid_request"

# What JSONEncoder makes anew for each value. In its order: what finds circles, what is asked for
# other types, how texts are written, indent, separators, whether keys are sorted, whether keys of
# other types are left out, whether NaN is written.
_one_shot = c_make_encoder(
    {}, json.JSONEncoder().default, encode_basestring, None, ":", ",", False, False, False
)
_decode = json.JSONDecoder().raw_decode

_CHUNK, _LONG_CHUNK = 4096, 1 << 20  # bytes
_LINES = 2  # those of a request

# Numbers, for enums cost more.
_TERM, _DEFAULT, _UNBLOCK = map(int, (signal.SIGTERM, signal.SIG_DFL, signal.SIG_UNBLOCK))
_BLOCKED = (_TERM,)
_OF_ZYGOTE = tuple(map(int, (signal.SIGCHLD, signal.SIGINT, signal.SIGHUP)))


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


def run(entry: Entry, connection: int, output: int, max_line: int, orphan: Orphan) -> NoReturn:
    """Run a call in this process and end it.

    :param connection: the descriptor of the call's own socket: a line with the arguments and one
        with the context come in, the replies go out.
    :param output: the descriptor that takes what the procedure prints.
    :param max_line: the longest line in bytes that may be reported.
    :param orphan: what this process does when the zygote or its guard has died.
    """
    status = 1
    printed = _identity(output)
    notice = _notice
    try:
        report = _Report(connection, max_line)
        try:
            _become(entry.identity, output, orphan, notice)
            _carry_out(entry, connection, report)
            status = 0
        except Terminated:
            status = 128 + _TERM
        except _Refusal as refusal:
            report.error(refusal)
        except _Unreportable as error:
            _complain(printed, f"the end of the call can't be reported: {error}\n")
        notice.raises = False
        on_signal(_TERM, notice)  # which the procedure may have replaced
        _flush(sys.stdout)
        _flush(sys.stderr)
        if notice.given:
            _wait_for_descendants()
    except BaseException:
        _complain(printed, traceback.format_exc())
    finally:
        _exit(status)


def _become(identity: Identity | None, output: int, orphan: Orphan, notice: _Notice) -> None:
    """Take the order of facts: session, descriptors, groups, user, and only then the parent."""
    try:
        setsid()
        adopt_orphans()
        dup2(output, 1)
        dup2(output, 2)
        close(output)
        if identity is not None:
            if geteuid() == 0:
                setgroups(identity.groups)
            setresgid(identity.gid, identity.gid, identity.gid)
            setresuid(identity.uid, identity.uid, identity.uid)
        for number in _OF_ZYGOTE:
            on_signal(number, _DEFAULT)
        on_signal(_TERM, notice)
        on_signal(WAKE, _interrupt)
        # What the procedure makes of TERM has no influence on this.
        orphan.leader = getpid()
        on_signal(PARENT_DIED, orphan)
        watch_parent(orphan.zygote)
        set_mask(_UNBLOCK, _BLOCKED)  # which the zygote blocked
    except OSError as error:
        raise _Refusal(SYSTEM_ERROR, f"the process of the call: {error}") from error


def _interrupt(number: int, frame: object) -> None:
    """Let a system call that waits return, see `harpd.tree.WAKE`."""


def _flush(stream: Any) -> None:
    try:  # noqa: SIM105 - a context manager costs a fork more pages
        stream.flush()
    except Exception:  # noqa: S110 - the procedure may have closed or replaced it
        pass


class Orphan:
    """What a call does when the zygote or its guard has died: it is as if the other had sent TERM.

    Which it will: what waits for a signal must not take this one for its own. If both have died,
    nobody is left who would end this call, so it ends itself with its whole tree.

    :param zygote: the process id of the parent of all calls.
    :param guard: that of its parent, which ends the calls when the zygote has died.
    """

    def __init__(self, zygote: int, guard: int) -> None:
        self.zygote = zygote
        self.guard = guard
        self.leader = 0

    def __call__(self, number: int, frame: object) -> None:
        """Do it, unless this process is a fork of the call's."""
        if getpid() == self.leader:
            if getppid() not in (self.zygote, self.guard):
                tree.kill(self.leader)
            kill(self.leader, _TERM)


class _Notice:
    """What TERM does, and whether it has come from the zygote or its guard."""

    def __init__(self) -> None:
        self.given = False
        self.raises = True

    def __call__(self, number: int, frame: object) -> None:
        first, self.given = not self.given, True
        if first and self.raises:
            raise Terminated


_notice = _Notice()


def _carry_out(entry: Entry, connection: int, report: _Report) -> None:
    arguments, context = _request(connection)
    try:
        args, kwargs = entry.parameters.bind(arguments, context)
    except ArgumentError as error:
        message = f"{entry.name}: {error}"
        raise _Refusal(INVALID_ARGUMENT_LIST, message, error.data) from error
    try:
        outcome = entry.procedure(*args, **kwargs)
        if entry.procedure.streaming:
            outcome = _stream(outcome, report)
    except (_Refusal, _Unreportable, Terminated):
        raise
    except BaseException as error:
        with suppress(Exception):  # as above, and the caller must learn of the error all the same
            traceback.print_exc()
        report.exception(error)
    else:
        report.result(outcome)


def _request(connection: int) -> tuple[Any, Any]:
    """Return the arguments and the context."""
    try:
        text = _request_lines(connection).decode()
        arguments, end = _decode(text)
        context, _ = _decode(text, end + 1)
    except (ValueError, RecursionError) as error:
        raise _Refusal(INVALID_REQUEST, f"arguments or context: {error}") from error
    return arguments, context


def _request_lines(connection: int) -> bytes:
    data = read(connection, _CHUNK)
    count = data.count(b"\n")
    if count == _LINES:
        return data
    pieces = [data]
    while data and count < _LINES:
        data = read(connection, _LONG_CHUNK)
        count += data.count(b"\n")
        pieces.append(data)
    return b"".join(pieces)


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
            wait()
    except ChildProcessError:
        pass


class _Report:
    """Writes the replies of one call."""

    def __init__(self, connection: int, max_line: int) -> None:
        self._connection = connection
        self._identity = _identity(connection)
        self._pid = getpid()
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
            data = (line % "".join(_one_shot(value, 0))).encode()
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
            if _identity(self._connection) != self._identity or getpid() != self._pid:
                raise _Unreportable("the procedure closed its socket or forked")
            while data := data[write(self._connection, data) :]:
                pass
        except OSError as error:
            raise _Unreportable(str(error)) from error


def _complain(output: tuple[int, ...], text: str) -> None:
    """Print something of our own, unless descriptor 2 is not the call's output any more."""
    with suppress(OSError):
        if _identity(2) == output:
            write(2, text.encode(errors="backslashreplace"))


def _identity(descriptor: int) -> tuple[int, ...]:
    # The number of its inode and of its device; their names would cost a fork more pages.
    return fstat(descriptor)[1:3]
