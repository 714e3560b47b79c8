"""The reactor's side of the zygote: start it, have it fork calls, end them, replace it."""

from __future__ import annotations

import itertools
import json
import os
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from harp import errors
from harp.wire import results
from harp.wire.lines import MAX_REPLY
from harpd.call import Caller, CallProcess, OneProtocol
from harpd.control import ControlChannel
from harpd.output import OutputPipe, PrintedText
from harpd.zygote import Settings

KILL_GRACE = 5.0
"""Seconds between TERM and KILL, for a procedure to put things in order."""

FIRST_DELAY, LAST_DELAY = 1.0, 60.0
"""Seconds until a zygote that died is replaced; doubled as long as the new one can't load."""


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
        ours, theirs = socket.socketpair()
        try:
            read, write = os.pipe2(os.O_CLOEXEC)
        except OSError:
            ours.close()
            theirs.close()
            raise

        def log(text: str) -> None:
            self._log.info(
                "call {number} of {procedure} printed: {text}",
                number=number,
                procedure=procedure,
                text=text,
            )

        process = CallProcess(arguments, caller, kill)
        self._calls[number] = process, OutputPipe(self._reactor, read, log)
        with ours:
            ours.setblocking(False)
            self._reactor.adoptStreamConnection(ours.fileno(), socket.AF_UNIX, OneProtocol(process))
        self._channel.send({"start": number, "procedure": procedure}, [theirs.detach(), write])
        return process

    def signal(self, number: int, kill: bool) -> None:
        """Have TERM, or KILL, sent to the process tree of a call."""
        self._channel.send({"signal": number, "kill": kill})

    def close(self) -> None:
        """Let the zygote end all its calls and itself."""
        self._channel.close()

    def kill(self) -> None:
        """End the zygote at once; the processes of its calls die with it."""
        with suppress(ProcessExitedAlready):
            self._process.signalProcess("KILL")

    def outReceived(self, data: bytes) -> None:
        """Log what the procedures file printed while it was loaded."""
        self._printed.feed(data)

    errReceived = outReceived

    def processEnded(self, reason: Failure) -> None:
        """Close what is left of its calls: nobody will tell their end any more."""
        self._printed.finish()
        self._channel.close()
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
            case {"procedure": name, "streaming": streaming, "timeout": timeout}:
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


class Spawner(Service):
    """Keeps one zygote running and starts calls in it.

    :param procedures: the procedures file.
    :param path: folders for the procedures' own modules.
    :param kill_grace: seconds between TERM and KILL.
    """

    _log = Logger("harpd.spawner")

    def __init__(
        self, reactor: Any, procedures: str, path: list[str], kill_grace: float = KILL_GRACE
    ) -> None:
        self._reactor = reactor
        self._settings = zygote_settings(procedures, path, kill_grace)
        self._numbers = itertools.count(1)
        self._zygote: ZygoteProcess | None = None
        self._catalogue: Catalogue | ProceduresError | None = None
        self._waiting: list[Deferred[Catalogue]] = []
        self._timers: set[IDelayedCall] = set()
        self._delay = FIRST_DELAY
        self._stopped: Deferred[None] | None = None

    def privilegedStartService(self) -> None:
        """Start the zygote while the daemon may still hand out other users' identities."""
        self._start_zygote()

    def catalogue(self) -> Deferred[Catalogue]:
        """Return what can be called, once that is known.

        :raises ProceduresError: (errback) if the procedures can't be loaded.
        """
        if isinstance(self._catalogue, ProceduresError):
            return fail(self._catalogue)
        if self._catalogue is not None:
            return succeed(self._catalogue)
        waiting: Deferred[Catalogue] = Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        return waiting

    def next_number(self) -> int:
        """Return a number that no other call of this daemon's run has."""
        return next(self._numbers)

    def start(
        self, number: int, procedure: str, arguments: bytes, caller: Caller
    ) -> tuple[CallProcess, Callable[[], None]]:
        """Start the process of a call.

        :param number: from `next_number`.
        :param procedure: a name from the catalogue.
        :param arguments: JSON of a list or an object.
        :return: the process, and what ends it with its whole tree: TERM, then KILL.
        :raises OSError: if there are no descriptors left.
        """
        zygote = self._zygote
        assert zygote is not None
        ending = False

        def kill() -> None:
            nonlocal ending
            if not ending:
                ending = True
                zygote.signal(number, kill=False)
                self._later(self._settings.kill_grace, zygote.signal, number, True)

        return zygote.start(number, procedure, arguments, caller, kill), kill

    def stopService(self) -> Deferred[None] | None:
        """End all calls and the zygote; fires when it is gone."""
        super().stopService()  # type: ignore[no-untyped-call]
        for timer in list(self._timers):
            timer.cancel()
        self._timers.clear()
        if self._zygote is None:
            return None
        self._stopped = Deferred()
        self._later(2 * self._settings.kill_grace, self._zygote.kill)
        self._zygote.close()
        return self._stopped

    def _start_zygote(self) -> None:
        self._zygote = ZygoteProcess(self._reactor, self._settings, self._zygote_ended)
        self._zygote.loaded.addCallbacks(self._loaded, self._not_loaded)

    def _loaded(self, catalogue: Catalogue) -> None:
        self._log.info("ready with {count} procedures", count=len(catalogue))
        self._delay = FIRST_DELAY
        self._catalogue = catalogue
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            deferred.callback(catalogue)

    def _not_loaded(self, failure: Failure) -> None:
        failure.trap(ProceduresError)
        error = failure.value
        assert isinstance(error, ProceduresError)
        self._log.error("the procedures can't be loaded: {error}", error=error)
        self._catalogue = error
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            deferred.errback(error)

    def _zygote_ended(self) -> None:
        self._zygote = None
        if not isinstance(self._catalogue, ProceduresError):
            self._catalogue = None
        if self._stopped is not None:
            for timer in list(self._timers):
                timer.cancel()
            self._timers.clear()
            self._stopped.callback(None)
            return
        self._log.error("the zygote ended; another is started in {delay} s", delay=self._delay)
        self._later(self._delay, self._start_zygote)
        self._delay = min(2 * self._delay, LAST_DELAY)

    def _later(self, delay: float, function: Callable[..., None], *args: Any) -> None:
        def run() -> None:
            self._timers.discard(timer)
            function(*args)

        timer: IDelayedCall = self._reactor.callLater(delay, run)
        self._timers.add(timer)


CONTROL_DESCRIPTOR = 3


def zygote_settings(procedures: str, path: list[str], kill_grace: float = KILL_GRACE) -> Settings:
    """Return the settings of a zygote for this procedures file."""
    return Settings(CONTROL_DESCRIPTOR, procedures, path, MAX_REPLY, kill_grace)


def zygote_command(settings: Settings) -> list[str]:
    """Return the command that runs a zygote; -P keeps the working directory out of its modules."""
    return [sys.executable, "-P", "-m", "harpd.zygote", json.dumps(asdict(settings))]
