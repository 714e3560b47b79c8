"""The command line of ``twistd harpcaller`` and the only place where its parts are joined."""

from __future__ import annotations

import atexit
import ctypes
import os
import resource
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from twisted.application.service import IService, MultiService, Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python import usage
from twisted.python.failure import Failure

from harp import logfile
from harp.service_manager import ServiceManager
from harp.settings import ConfigError
from harpcaller import config, logs
from harpcaller.announcements import Announcements
from harpcaller.api import Api, Parts
from harpcaller.connection import ClientFactory
from harpcaller.connections import Connections, endpoint_by
from harpcaller.dispatcher import Dispatcher
from harpcaller.gate import Gate
from harpcaller.hosts import HostsRegistry
from harpcaller.permissions import Permissions
from harpcaller.ports import Ports
from harpcaller.reload import Reloading
from harpcaller.retention import Retention
from harpcaller.store import JobStore


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
        self.file = Path(self["config"]).absolute()  # twistd changes the directory
        try:
            self.config = config.load(self.file)
        except ConfigError as error:
            mistakes = error.mistakes
        if self["test"]:
            print("\n".join(mistakes) or "OK")
            sys.exit(1 if mistakes else 0)
        if mistakes:
            raise usage.UsageError("\n".join(mistakes))
        logfile.use(self.parent)


class DispatcherService(Service):
    """Brings the parts up and down in their order.

    The ports are bound while the daemon is privileged; requests that come before all is in order
    wait for it.
    """

    _log = logs.logger("harpcaller")

    def __init__(
        self, reactor: Any, file: Path, config: config.Config, manager: ServiceManager
    ) -> None:
        self._reactor = reactor
        self._manager = manager
        self._store = JobStore(
            str(config.database), reactor, config.capacity, key_life=config.key_life
        )
        self._hosts = HostsRegistry(reactor, reactor, config.hosts)
        announcements = Announcements()
        self._connections = connections = Connections(
            reactor, endpoint_by(reactor, config.trust), self._hosts.lookup
        )
        self._hosts.watch(connections.hosts_changed)
        self._dispatcher = Dispatcher(
            reactor, time.time, self._store, self._hosts, connections, announcements, config.limits
        )
        self._retention = Retention(reactor, time.time, self._store, config.ages)
        self._permissions = Permissions(self._hosts.lookup, config.rules)
        parts = Parts(
            version=version("harpcaller"),
            permissions=self._permissions,
            dispatcher=self._dispatcher,
            store=self._store,
            hosts=self._hosts,
            connections=connections,
            retention=self._retention,
            reload=self._reload,
            stop=self._stop_soon,
            now=time.time,
            announcements=announcements,
            ready=self._when_ready,
        )
        respond = Api(parts).respond
        self._gate = gate = Gate(reactor.seconds, config.terms)
        self._ports = Ports(
            reactor, gate, lambda is_local: ClientFactory(reactor, respond, gate, is_local)
        )
        self._reloading = Reloading(
            reactor,
            file,
            config,
            self._ports,
            gate,
            self._hosts,
            connections,
            self._dispatcher,
            self._store,
            self._retention,
            self._permissions,
            manager,
        )
        self._started: Deferred[None] = Deferred()
        self._is_ready = False
        self._stop_is_due = False
        self._waiting: list[Deferred[None]] = []

    def privilegedStartService(self) -> None:
        """Bind the ports.

        :raises CannotListenError: if one can't be bound.
        :raises ValueError: if others could come there than the configuration lets in.
        """
        loaded = self._reloading.config
        opening = self._ports.open(loaded.listen, loaded.terms)
        failures: list[Failure] = []
        # Only a plug-in's endpoint may take its time.
        opening.addErrback(failures.append if opening.called else self._give_up)
        for failure in failures:
            failure.raiseException()
        self._reloading.privilegedStartService()

    def startService(self) -> None:
        """Open the store, take the hosts, put the last run's jobs in order; then answer."""
        super().startService()  # type: ignore[no-untyped-call]
        logs.set_level(self._reloading.config.log_level)
        if not self._reloading.config.trust.verifies:
            self._log.warn(
                "neither ca_file nor known_certs_file is given: whoever answers at the address of a"
                " host that has no fingerprint gets its password and runs its jobs"
            )
        self._manager.watch(self._status)
        starting = Deferred.fromCoroutine(self._start()).addErrback(self._give_up)
        starting.chainDeferred(self._started)

    def stopService(self) -> Deferred[None]:
        """Take no more calls, give what runs its time, end it, close the store."""
        super().stopService()  # type: ignore[no-untyped-call]
        self._manager.stopping()
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
        self._retention.startService()
        self._log.info("harpcaller is ready")
        self._manager.ready()
        self._reloading.startService()
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            deferred.callback(None)

    async def _stop(self) -> None:
        if not self._is_ready and self._hosts.running:
            await maybeDeferred(self._hosts.stopService)  # or their script would take its time
        await self._started
        await self._reloading.stopService()
        # Those who wait for a result, or ask for one, are served until there is no more to come.
        await self._dispatcher.stop(self._reloading.config.shutdown_grace)
        await self._ports.close()
        self._connections.close()
        for service in (self._retention, self._hosts):
            if service.running:
                await maybeDeferred(service.stopService)
        await self._store.close()
        self._manager.close()

    def _status(self) -> str:
        refused = "; the last reload was refused, see the log" if self._reloading.is_refused else ""
        return (
            f"{self._hosts.count()} hosts, {self._dispatcher.count_running()} jobs running, "
            f"{self._gate.crowd.count} connections{refused}"
        )

    def _reload(self) -> Deferred[list[str]]:
        return self._reloading.reload()

    def _stop_soon(self) -> float:
        """Have the daemon stopped as SIGTERM does it, with status 0, when who asked is answered."""
        if self.running and not self._stop_is_due:
            self._stop_is_due = True
            self._reactor.callLater(0, self._reactor.stop)
        return self._reloading.config.shutdown_grace

    def _when_ready(self) -> Deferred[None] | None:
        if self._is_ready:
            return None
        ready: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(ready)
        return ready

    def _give_up(self, failure: Failure) -> None:
        self._log.failure("harpcaller can't start", failure)
        atexit.register(os._exit, 1)  # twistd would end with status 0
        self._reactor.stop()


def makeService(options: Options) -> IService:
    """Return the dispatcher made of its parts."""
    from twisted.internet import reactor  # noqa: PLC0415 - twistd has chosen it by now

    # Twisted takes the wall clock: set forward, it would end all jobs by their time limits.
    clock: Any = reactor
    clock.seconds = time.monotonic
    # A connection for each running job and for each client: more than the 1024 of old programs,
    # which are the soft limit only for the sake of select(2).
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # The reactor shares the interpreter with the threads of the store, which are told after so many
    # seconds that it waits; Python's 0.005 cost a tenth of the submissions (measured).
    sys.setswitchinterval(0.001)
    _share_heap()
    service = MultiService()
    manager = ServiceManager(reactor, os.environ)
    dispatcher = DispatcherService(reactor, options.file, options.config, manager)
    dispatcher.setServiceParent(service)
    return service


_M_ARENA_MAX = -8


def _share_heap() -> None:
    """Have all threads allocate from one heap, to be called before there are any (mallopt(3)).

    Else each thread of the store has one of its own and keeps what long packets needed in it:
    packets of 1 MB cost 9 MB more.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # GNU's; others have one heap
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
