"""Keeps a zygote running: starts it, has it fork calls and end them, replaces it when it dies."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from harpd.call import Caller, CallProcess
from harpd.zygote_process import (
    KILL_GRACE,
    Catalogue,
    ProceduresError,
    ZygoteProcess,
    zygote_settings,
)

FIRST_DELAY, LAST_DELAY = 1.0, 60.0
"""Seconds until a zygote that died is replaced; doubled as long as the new one can't load."""


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
        self._timers: dict[object, IDelayedCall] = {}
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
        self._forget_timers()
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
            self._forget_timers()
            self._stopped.callback(None)
            return
        self._log.error("the zygote ended; another is started in {delay} s", delay=self._delay)
        self._later(self._delay, self._start_zygote)
        self._delay = min(2 * self._delay, LAST_DELAY)

    def _later(self, delay: float, function: Callable[..., None], *args: Any) -> None:
        # By a key: a function that knew its own timer would be a circle, left to the collector.
        key = object()
        self._timers[key] = self._reactor.callLater(delay, self._run_later, key, function, args)

    def _run_later(self, key: object, function: Callable[..., None], args: tuple[Any, ...]) -> None:
        del self._timers[key]
        function(*args)

    def _forget_timers(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
