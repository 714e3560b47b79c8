"""Inside the fork: becomes the process of one call, runs the procedure, reports, and ends.

It was forked from the zygote and shares its memory, so it imports nothing that the zygote does not
have: neither Twisted nor the wire modules. What it says of the call is written by `harpd.report`.
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

# By their names: to look one up in its module costs a fork up to three pages.
from os import (
    _exit,
    close,
    dup2,
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
from harpd.proc import Result
from harpd.report import (
    INVALID_ARGUMENT_LIST,
    INVALID_REQUEST,
    LIMIT_EXCEEDED,
    SYSTEM_ERROR,
    RefusalError,
    Report,
    UnreportableError,
    identity_of,
)
from harpd.surroundings import use_spare_memory
from harpd.tree import PARENT_DIED, WAKE, adopt_orphans, watch_parent

_decode = json.JSONDecoder().raw_decode

_CHUNK, _LONG_CHUNK = 4096, 1 << 20  # bytes
_LINES = 2  # those of a request

# Numbers, for enums cost more.
_TERM, _DEFAULT, _UNBLOCK = map(int, (signal.SIGTERM, signal.SIG_DFL, signal.SIG_UNBLOCK))
_CPU_LIMIT = int(signal.SIGXCPU)
_BLOCKED = (_TERM,)
_OF_ZYGOTE = tuple(map(int, (signal.SIGCHLD, signal.SIGINT, signal.SIGHUP)))


class Terminated(BaseException):
    """TERM has come: the call was cancelled or exceeded its time. Runs ``finally`` on its way."""


class CpuLimitError(BaseException):
    """The process has used the processor for as long as it may. Runs ``finally`` on its way."""


def run(entry: Entry, connection: int, output: int, max_line: int, orphan: Orphan) -> NoReturn:
    """Run a call in this process and end it.

    :param connection: the descriptor of the call's own socket: a line with the arguments and one
        with the context come in, the replies go out.
    :param output: the descriptor that takes what the procedure prints.
    :param max_line: the longest line in bytes that may be reported.
    :param orphan: what this process does when the zygote or its guard has died.
    """
    status = 1
    exceeded = False
    printed = identity_of(output)
    notice = _notice
    try:
        report = Report(connection, max_line, entry.max_packet, entry.max_output)
        try:
            _become(entry, output, orphan, notice)
            _carry_out(entry, connection, report)
            status = 0
        except Terminated:
            status = 128 + _TERM
        except CpuLimitError:
            exceeded = True
        except RefusalError as refusal:
            report.error(refusal)
            exceeded = refusal.type == LIMIT_EXCEEDED
        except UnreportableError as error:
            _complain(printed, f"the end of the call can't be reported: {error}\n")
        notice.raises = False
        on_signal(_TERM, notice)  # which the procedure may have replaced
        _flush(sys.stdout)
        _flush(sys.stderr)
        if notice.given:
            _wait_for_descendants()
        if exceeded:
            # As the kernel does it, so that what it has started ends with it.
            on_signal(_CPU_LIMIT, _DEFAULT)
            kill(getpid(), _CPU_LIMIT)
    except BaseException:
        _complain(printed, traceback.format_exc())
    finally:
        _exit(status)


def _become(entry: Entry, output: int, orphan: Orphan, notice: _Notice) -> None:
    """Take the order of facts: session, descriptors, user, limits, and only then the parent."""
    identity, surroundings = entry.identity, entry.surroundings
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
        if surroundings is not None:
            surroundings.enter()
            if surroundings.cpu is not None:
                on_signal(_CPU_LIMIT, _cpu_limit)
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
        raise RefusalError(SYSTEM_ERROR, f"the process of the call: {error}") from error


def _interrupt(number: int, frame: object) -> None:
    """Let a system call that waits return, see `harpd.tree.WAKE`."""


def _cpu_limit(number: int, frame: object) -> None:
    """End the procedure once; the kernel says it again each second, and then kills."""
    on_signal(_CPU_LIMIT, _interrupt)
    raise CpuLimitError


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


def _carry_out(entry: Entry, connection: int, report: Report) -> None:
    arguments, context = _request(connection)
    try:
        args, kwargs = entry.parameters.bind(arguments, context)
    except ArgumentError as error:
        message = f"{entry.name}: {error}"
        raise RefusalError(INVALID_ARGUMENT_LIST, message, error.data) from error
    try:
        outcome = entry.procedure(*args, **kwargs)
        if entry.procedure.streaming:
            outcome = _stream(outcome, report)
    except (RefusalError, UnreportableError, Terminated, CpuLimitError):
        raise
    except BaseException as error:
        if isinstance(error, MemoryError):
            use_spare_memory()
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
        raise RefusalError(INVALID_REQUEST, f"arguments or context: {error}") from error
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


def _stream(packets: Any, report: Report) -> Any:
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


def _complain(output: tuple[int, ...], text: str) -> None:
    """Print something of our own, unless descriptor 2 is not the call's output any more."""
    with suppress(OSError):
        if identity_of(2) == output:
            write(2, text.encode(errors="backslashreplace"))
