"""Keeps a zygote running: replaces it when it dies, and by one with other procedures on request."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from harp.deadline import Deadline
from harpd.keeper_process import KeeperProcess
from harpd.offers import Catalogue, ProceduresError
from harpd.zygote_process import PlannedCall, ZygoteProcess

FIRST_DELAY, LAST_DELAY = 1.0, 60.0
"""Seconds until a zygote that died is replaced; doubled as long as the new one can't load."""

LOAD_LIMIT = 60.0
"""Seconds in which the procedures must have been loaded, else it is as if they had mistakes."""


class Spawner:
    """Keeps one zygote for new calls, and others until their last call has ended.

    :param keeper: starts them.
    :param kill_grace: seconds between TERM and KILL.
    :param tell_loaded: called each time that procedures have been loaded which can be called now.
    """

    _log = Logger("harpd.spawner")

    def __init__(
        self,
        reactor: Any,
        keeper: KeeperProcess,
        kill_grace: float,
        tell_loaded: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self._keeper = keeper
        self._kill_grace = kill_grace
        self._tell_loaded = tell_loaded
        self._numbers = itertools.count(1)
        self._zygote: ZygoteProcess | None = None
        self._all: set[ZygoteProcess] = set()
        self._catalogue: Catalogue | ProceduresError | None = None
        self._waiting: list[Deferred[Catalogue]] = []
        self._restart = Deadline(reactor)
        self._delay = FIRST_DELAY
        self._stopped: Deferred[None] | None = None

    def start(self) -> None:
        """Have the zygote started."""
        try:
            zygote = self._zygote = self._new_zygote(self._kill_grace)
        except OSError as error:
            self._fail(self._not_started(error))
            self._start_again()
            return
        zygote.loaded.addCallbacks(
            lambda catalogue: self._loaded(zygote, catalogue),
            lambda failure: self._not_loaded(zygote, failure),
        )

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

    @property
    def count(self) -> int | None:
        """How many procedures can be called; None if there is no knowing, or none was loaded."""
        found = self._catalogue
        return None if found is None or isinstance(found, ProceduresError) else len(found)

    def plan(self) -> PlannedCall:
        """Return a call to be started, with a number that no other of this daemon's run has.

        To be called when `catalogue` has fired, in the same turn of the reactor.
        """
        assert self._zygote is not None
        return self._zygote.plan(next(self._numbers))

    def prepare(self, kill_grace: float) -> Deferred[ZygoteProcess]:
        """Start another zygote beside the one that there is, to be handed to `adopt`.

        :param kill_grace: its seconds between TERM and KILL.
        :raises ProceduresError: (errback) if the procedures can't be loaded.
        """
        try:
            zygote = self._new_zygote(kill_grace)
        except OSError as error:
            return fail(self._not_started(error))
        return zygote.loaded.addCallback(lambda _: zygote)

    def adopt(self, zygote: ZygoteProcess, kill_grace: float) -> None:
        """Use a prepared zygote for new calls; the old one ends when its last call has ended."""
        self._kill_grace = kill_grace
        self._delay = FIRST_DELAY
        self._restart.end()
        old, self._zygote = self._zygote, zygote
        if old is not None:
            old.retire()
        if zygote.is_lost:
            self._lost(zygote)
        else:
            self._loaded(zygote, zygote.offers)

    def stop(self) -> Deferred[None] | None:
        """End all calls and all zygotes; fires when they are gone."""
        self._restart.end()
        if not self._all:
            return None
        self._stopped = Deferred()
        for zygote in list(self._all):
            zygote.close()
        return self._stopped

    def _new_zygote(self, kill_grace: float) -> ZygoteProcess:
        zygote = ZygoteProcess(self._reactor, self._keeper, kill_grace, self._lost, self._ended)
        self._all.add(zygote)
        too_long = ProceduresError(
            [f"{self._keeper.procedures}: was not loaded within {LOAD_LIMIT:g} s"]
        )
        limit = self._reactor.callLater(LOAD_LIMIT, zygote.give_up_loading, too_long)

        def loaded(result: Catalogue | Failure) -> Catalogue | Failure:
            if limit.active():
                limit.cancel()
            return result

        zygote.loaded.addBoth(loaded)
        return zygote

    def _loaded(self, zygote: ZygoteProcess, catalogue: Catalogue) -> None:
        if zygote is not self._zygote:
            return  # another has been adopted meanwhile
        self._log.info("ready with {count} procedures", count=len(catalogue))
        self._delay = FIRST_DELAY
        self._catalogue = catalogue
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            deferred.callback(catalogue)
        self._tell_loaded()

    def _not_loaded(self, zygote: ZygoteProcess, failure: Failure) -> None:
        failure.trap(ProceduresError)
        if zygote is not self._zygote:
            return
        assert isinstance(failure.value, ProceduresError)
        self._fail(failure.value)

    def _fail(self, error: ProceduresError) -> None:
        """Tell callers that there is nothing to be called."""
        self._log.error("the procedures can't be loaded: {error}", error=error)
        self._catalogue = error
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            deferred.errback(error)

    def _lost(self, zygote: ZygoteProcess) -> None:
        if zygote is not self._zygote:
            return
        self._zygote = None
        if not isinstance(self._catalogue, ProceduresError):
            self._catalogue = None
        if self._stopped is None:
            self._log.error("the zygote ended")
            self._start_again()

    def _start_again(self) -> None:
        self._log.info("another zygote is started in {delay} s", delay=self._delay)
        self._restart.set(self._delay, self.start)
        self._delay = min(2 * self._delay, LAST_DELAY)

    def _ended(self, zygote: ZygoteProcess) -> None:
        self._all.discard(zygote)
        if self._stopped is not None and not self._all:
            self._stopped.callback(None)

    def _not_started(self, error: OSError) -> ProceduresError:
        what = "no process can be started that loads it"
        return ProceduresError([f"{self._keeper.procedures}: {what}: {error.strerror}"])
