"""The command line of ``twistd harpcaller`` and the only place where its parts are joined."""

from __future__ import annotations

import atexit
import os
import sys
import time
from pathlib import Path
from typing import Any

from twisted.application.service import IService, MultiService, Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.python import usage
from twisted.python.failure import Failure

from harp.settings import ConfigError
from harpcaller import config
from harpcaller.announcements import Announcements
from harpcaller.api import ClientFactory, Parts
from harpcaller.dispatcher import Dispatcher, Limits
from harpcaller.hosts import HostsRegistry, HostsScript
from harpcaller.listen import endpoint
from harpcaller.store import JobStore
from harpcaller.trust import ServerTrust


class Options(usage.Options):
    """What stands on the command line; the file is read here, so that mistakes end it here."""

    optParameters = [
        ["config", "c", "/etc/harpcaller/harpcaller.yaml", "The configuration, a YAML file."],
    ]
    optFlags = [["test", "t", "Check the configuration, say OK or every mistake, and exit."]]

    def postOptions(self) -> None:
        """Read the configuration.

        :raises UsageError: with every mistake in it.
        """
        mistakes: list[str] = []
        try:
            self.config = config.load(Path(self["config"]))
        except ConfigError as error:
            mistakes = error.mistakes
        if self["test"]:
            print("\n".join(mistakes) or "OK")
            sys.exit(1 if mistakes else 0)
        if mistakes:
            raise usage.UsageError("\n".join(mistakes))


class DispatcherService(Service):
    """Brings the parts up and down in their order.

    The ports are bound while the daemon is privileged; requests that come before all is in order
    wait for it.
    """

    _log = Logger("harpcaller")

    def __init__(self, reactor: Any, config: config.Config) -> None:
        self._reactor = reactor
        self._config = config
        self._trust = ServerTrust.from_files(config.ca_file, config.known_certs_file)
        self._store = JobStore(str(config.database), reactor)
        script = HostsScript(config.host_db_script, config.host_db, config.host_db_refresh)
        self._hosts = HostsRegistry(reactor, reactor, script)
        announcements = Announcements()
        self._dispatcher = Dispatcher(
            reactor,
            time.time,
            self._store,
            self._hosts,
            self._trust,
            announcements,
            Limits(config.default_timeout, config.max_exec_time),
        )
        self._factory = ClientFactory(
            Parts(reactor, self._dispatcher, self._store, announcements, self._when_ready)
        )
        self._ports: list[IListeningPort] = []
        self._is_ready = False
        self._waiting: list[Deferred[None]] = []

    def privilegedStartService(self) -> None:
        """Bind the ports.

        :raises CannotListenError: if one can't be bound.
        """
        for description in self._config.listen:
            bound: list[IListeningPort | Failure] = []
            endpoint(self._reactor, description).listen(self._factory).addBoth(bound.append)
            for outcome in bound:
                if isinstance(outcome, Failure):
                    outcome.raiseException()
                else:
                    self._ports.append(outcome)

    def startService(self) -> None:
        """Open the store, take the hosts, put the last run's jobs in order; then answer."""
        super().startService()  # type: ignore[no-untyped-call]
        if not self._trust.verifies:
            self._log.warn(
                "neither ca_file nor known_certs_file is given: whoever answers at a host's address"
                " gets its password and runs its jobs"
            )
        Deferred.fromCoroutine(self._start()).addErrback(self._give_up)

    def stopService(self) -> Deferred[None]:
        """Take no more requests, end what runs, close the store."""
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._stop())

    async def _start(self) -> None:
        await self._store.open()
        if self.running:
            self._hosts.startService()
            await self._hosts.when_ready()
        if not self.running:
            return  # stopped meanwhile: no waiting job may be started now
        await self._dispatcher.recover()
        self._is_ready = True
        self._log.info("harpcaller is ready")
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            deferred.callback(None)

    async def _stop(self) -> None:
        for port in self._ports:
            await maybeDeferred(port.stopListening)
        await self._dispatcher.stop()
        if self._hosts.running:
            await maybeDeferred(self._hosts.stopService)
        await self._store.close()

    def _when_ready(self) -> Deferred[None]:
        ready: Deferred[None] = Deferred(self._waiting.remove)
        if self._is_ready:
            ready.callback(None)
        else:
            self._waiting.append(ready)
        return ready

    def _give_up(self, failure: Failure) -> None:
        self._log.failure("harpcaller can't start", failure)
        atexit.register(os._exit, 1)  # twistd would end with status 0
        self._reactor.stop()


def makeService(options: Options) -> IService:
    """Return the dispatcher made of its parts."""
    from twisted.internet import reactor  # noqa: PLC0415 - twistd has chosen it by now

    service = MultiService()
    DispatcherService(reactor, options.config).setServiceParent(service)
    return service
