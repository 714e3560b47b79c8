"""One run of the program that prints the hosts: a session of its own, its time and output limited.

What it printed, and what a failure means, is understood elsewhere.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready, ProcessTerminated
from twisted.internet.interfaces import IProcessTransport, IReactorProcess, IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from harp.logs import CONTROL
from harpcaller.logs import logger

TIME_LIMIT = 60.0
"""The longest run in seconds."""

MAX_OUTPUT = 64 * 1024 * 1024
"""The longest output in bytes."""

MAX_ERRORS = 8 * 1024
"""What is kept of the error output, in bytes; the rest is thrown away."""

KILL_GRACE = 5.0
"""From SIGTERM to SIGKILL, in seconds."""

# spawnProcess can't start a session, and without one a kill would miss the program's children.
_SESSION = "import os, sys; os.setsid(); os.execv(sys.argv[1], sys.argv[1:])"


@dataclass(frozen=True)
class Output:
    """What a run left behind.

    :param printed: its standard output, empty if there was a problem.
    :param errors: the start of its error output, in one line and escaped for the log.
    :param problem: why the run does not count, None if all was well.
    """

    printed: bytes
    errors: str
    problem: str | None


class ScriptRun(ProcessProtocol):
    """A run that is going on; ``ended`` fires when it is over. Made by ``run_script``."""

    _log = logger("harpcaller.hosts")

    def __init__(self, clock: IReactorTime, time_limit: float, max_output: int) -> None:
        self.ended: Deferred[Output] = Deferred()
        self._clock = clock
        self._time_limit = time_limit
        self._room = max_output
        self._printed: list[bytes] = []
        self._errors = b""
        self._problem: str | None = None

    def connectionMade(self) -> None:
        """Measure its time from here."""
        transport = self.transport
        assert IProcessTransport.providedBy(transport)
        self._process: IProcessTransport = transport
        self._leader: int = transport.pid
        self._timer = self._clock.callLater(
            self._time_limit, self.kill, f"it still ran after {self._time_limit:g} s"
        )

    def outReceived(self, data: bytes) -> None:
        """Keep what it prints, up to the limit."""
        self._room -= len(data)
        if self._room >= 0:
            self._printed.append(data)
        else:
            self._printed.clear()
            self.kill("it printed too much")

    def errReceived(self, data: bytes) -> None:
        """Keep the start of what it complains about."""
        self._errors += data[: MAX_ERRORS - len(self._errors)]

    def kill(self, why: str) -> None:
        """End the program and its children, the hard way if they don't go in time.

        :param why: the problem to be reported; the first one stands.
        """
        if self._problem is None:
            self._problem = why
            self._stop_timer()
            self._timer = self._clock.callLater(KILL_GRACE, self._kill_hard)
            self._signal(signal.SIGTERM)

    def processEnded(self, reason: Failure) -> None:
        """Report; all output has been read by now."""
        self._stop_timer()
        problem = self._problem or _bad_end(reason.value)
        printed = b"" if problem else b"".join(self._printed)
        self.ended.callback(Output(printed, _one_line(self._errors), problem))

    def _stop_timer(self) -> None:
        if self._timer.active():
            self._timer.cancel()

    def _kill_hard(self) -> None:
        self._signal(signal.SIGKILL)
        # A child that left the session may still hold our pipes, and we would wait for it.
        self._process.loseConnection()

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self._leader, number)
        except ProcessLookupError:  # it has not come as far as its own session, or is gone
            with suppress(ProcessExitedAlready):
                self._process.signalProcess(number)
        except PermissionError as error:  # it has got other rights, as with sudo
            self._log.error("the hosts script can't be killed: {error}", error=error)


def run_script(
    reactor: IReactorProcess,
    clock: IReactorTime,
    program: Path,
    time_limit: float = TIME_LIMIT,
    max_output: int = MAX_OUTPUT,
) -> ScriptRun:
    """Start a program, without a shell, without arguments, with nothing on its standard input.

    :param clock: measures the limits.
    :param time_limit: seconds until it is killed.
    :param max_output: bytes, one more and it is killed.
    :raises OSError: if no process can be started.
    """
    run = ScriptRun(clock, time_limit, max_output)
    command = [sys.executable, "-I", "-S", "-c", _SESSION, str(program)]
    nothing = os.open(os.devnull, os.O_RDONLY)
    try:
        reactor.spawnProcess(
            run, sys.executable, command, env=None, childFDs={0: nothing, 1: "r", 2: "r"}
        )
    finally:
        os.close(nothing)
    return run


def _one_line(errors: bytes) -> str:
    lines = errors.decode(errors="replace").splitlines()
    cleaned = (line.translate(CONTROL).expandtabs().strip() for line in lines)
    return " | ".join(line for line in cleaned if line)


def _bad_end(end: BaseException | None) -> str | None:
    if not isinstance(end, ProcessTerminated):
        return None
    if end.signal is not None:
        return f"it was killed by signal {end.signal}"
    return f"it ended with status {end.exitCode}"
