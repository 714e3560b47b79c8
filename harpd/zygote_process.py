"""One zygote as the reactor sees it: its catalogue, the calls forked from it, and its end."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from harp import errors
from harp.wire import results
from harp.wire.lines import MAX_REPLY
from harpd.call import Caller, CallProcess, OneProtocol
from harpd.control import ControlChannel
from harpd.guard import KILL_ZYGOTE
from harpd.output import OutputPipe, PrintedText
from harpd.zygote import Settings

KILL_GRACE = 5.0
"""Seconds between TERM and KILL, for a procedure to put things in order."""


class ProceduresError(Exception):
    """The procedures file can't be loaded.

    :param mistakes: one sentence each.
    """

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("; ".join(mistakes))
        self.mistakes = mistakes


@dataclass(frozen=True)
class Offer:
    """A procedure that this daemon offers.

    :param timeout: its own time limit in seconds, None for none.
    """

    streaming: bool
    timeout: float | None


Catalogue = Mapping[str, Offer]


class ZygoteProcess(ProcessProtocol):
    """One zygote: its catalogue, and the calls that were forked from it.

    :param ended: called when the process is gone.
    """

    _log = Logger("harpd.zygote")

    def __init__(self, reactor: Any, settings: Settings, ended: Callable[[], None]) -> None:
        self.loaded: Deferred[Catalogue] = Deferred()
        self._reactor = reactor
        self._ended = ended
        self._offers: dict[str, Offer] = {}
        self._mistakes: list[str] = []
        self._calls: dict[int, tuple[CallProcess, OutputPipe]] = {}
        self._printed = PrintedText(self._log_printed)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channel = ControlChannel(reactor, ours, self._received, lambda: None)
        command = zygote_command(settings)
        with theirs, open(os.devnull, "rb") as devnull:
            self._process = reactor.spawnProcess(
                self,
                command[0],
                command,
                env=os.environ,
                childFDs={
                    0: devnull.fileno(),
                    1: "r",
                    2: "r",
                    settings.control: theirs.fileno(),
                },
            )

    def start(
        self,
        number: int,
        procedure: str,
        arguments: bytes,
        caller: Caller,
        kill: Callable[[], None],
    ) -> CallProcess:
        """Have a call forked; see `Spawner.start`."""

        def log(text: str) -> None:
            self._log.info(
                "call {number} of {procedure} printed: {text}",
                number=number,
                procedure=procedure,
                text=text,
            )

        process = CallProcess(arguments, caller, kill)
        ours, theirs = socket.socketpair()
        with ours, ExitStack() as undo:
            undo.enter_context(theirs)
            read, write = os.pipe2(os.O_CLOEXEC)
            undo.callback(os.close, read)
            undo.callback(os.close, write)
            ours.setblocking(False)
            self._reactor.adoptStreamConnection(ours.fileno(), socket.AF_UNIX, OneProtocol(process))
            undo.pop_all()
        self._calls[number] = process, OutputPipe(self._reactor, read, log)
        self._channel.send({"start": number, "procedure": procedure}, [theirs.detach(), write])
        return process

    def signal(self, number: int, kill: bool) -> None:
        """Have TERM, or KILL, sent to the process tree of a call."""
        self._channel.send({"signal": number, "kill": kill})

    def close(self) -> None:
        """Let the zygote end all its calls and itself."""
        self._channel.close()

    def kill(self) -> None:
        """End a zygote that does not end by itself; its calls get the grace."""
        with suppress(ProcessExitedAlready):
            self._process.signalProcess(KILL_ZYGOTE)

    def outReceived(self, data: bytes) -> None:
        """Log what the procedures file printed while it was loaded."""
        self._printed.feed(data)

    errReceived = outReceived

    def processEnded(self, reason: Failure) -> None:
        """Close what is left of its calls: nobody will tell their end any more."""
        self._printed.finish()
        self._channel.finish()
        if not self.loaded.called:
            why = self._mistakes or [f"the zygote ended: {reason.getErrorMessage()}"]
            self.loaded.errback(ProceduresError(why))
        calls, self._calls = self._calls, {}
        for process, output in calls.values():
            output.finish()
            process.gone(results.error(errors.KILLED, "the zygote that ran the call died"))
        self._ended()

    def _log_printed(self, text: str) -> None:
        self._log.info("the procedures file printed: {text}", text=text)

    def _received(self, message: dict[str, Any]) -> None:
        match message:
            case {"procedure": {"name": name, "streaming": streaming, "timeout": timeout}}:
                self._offers[name] = Offer(streaming, timeout)
            case {"mistake": mistake}:
                self._mistakes.append(mistake)
            case {"ready": True}:
                self.loaded.callback(self._offers)
            case {"exited": number, "status": status}:
                process, output = self._calls.pop(number)
                output.finish()
                process.exited(status)
            case {"failed": number, "message": text}:
                process, output = self._calls.pop(number)
                output.finish()
                process.gone(results.error(errors.SYSTEM_ERROR, text))


CONTROL_DESCRIPTOR = 3


def zygote_settings(procedures: str, path: list[str], kill_grace: float = KILL_GRACE) -> Settings:
    """Return the settings of a zygote for this procedures file."""
    return Settings(CONTROL_DESCRIPTOR, procedures, path, MAX_REPLY, kill_grace)


def zygote_command(settings: Settings) -> list[str]:
    """Return the command that runs a zygote; -P keeps the working directory out of its modules."""
    return [sys.executable, "-P", "-m", "harpd.zygote", json.dumps(asdict(settings))]
