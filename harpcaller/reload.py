"""Reading the configuration again while jobs run: all of it comes into force, or none."""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.threads import deferToThreadPool

from harp.service_manager import ServiceManager
from harp.settings import ConfigError
from harpcaller import audit, config, logs
from harpcaller.connections import Connections, endpoint_by
from harpcaller.dispatcher import Dispatcher
from harpcaller.gate import Gate
from harpcaller.hosts import HostsRegistry
from harpcaller.permissions import Permissions
from harpcaller.ports import Ports
from harpcaller.retention import Retention
from harpcaller.store import JobStore


class Reloading(Service):
    """Reloads when SIGHUP comes or somebody asks for it.

    :param file: the configuration.
    :param config: what stands in it now.
    :param manager: told that it is read, and when that is over.
    :ivar is_refused: whether the last reload has changed nothing because of mistakes.
    """

    _log = logs.logger("harpcaller.reload")

    def __init__(
        self,
        reactor: Any,
        file: Path,
        config: config.Config,
        ports: Ports,
        gate: Gate,
        hosts: HostsRegistry,
        connections: Connections,
        dispatcher: Dispatcher,
        store: JobStore,
        retention: Retention,
        permissions: Permissions,
        manager: ServiceManager,
    ) -> None:
        self._reactor = reactor
        self._file = file
        self.config = config
        self._ports = ports
        self._gate = gate
        self._hosts = hosts
        self._connections = connections
        self._dispatcher = dispatcher
        self._store = store
        self._retention = retention
        self._permissions = permissions
        self._manager = manager
        self.is_refused = False
        self._turn = DeferredLock()
        self._is_due = False

    def privilegedStartService(self) -> None:
        """Note a SIGHUP from now on, which else would end the daemon."""
        super().privilegedStartService()  # type: ignore[no-untyped-call]
        signal.signal(signal.SIGHUP, self._hung_up)

    def startService(self) -> None:
        """Reload from now on, first of all if SIGHUP has come already."""
        super().startService()  # type: ignore[no-untyped-call]
        if self._is_due:
            self.reload()

    def stopService(self) -> Deferred[None]:
        """Ignore SIGHUP from now on; fires when a reload that is going on has ended."""
        super().stopService()  # type: ignore[no-untyped-call]
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        return self._turn.run(lambda: None)

    def reload(self) -> Deferred[list[str]]:
        """Read the configuration again.

        :return: fires with what is wrong with it, each with its place; then nothing has changed.
        """
        return self._turn.run(lambda: Deferred.fromCoroutine(self._reload()))

    def _hung_up(self, number: int, frame: FrameType | None) -> None:
        self._reactor.callFromThread(self._asked)

    def _asked(self) -> None:
        audit.hung_up()
        if self.running:
            self.reload()
        else:
            self._is_due = True

    async def _reload(self) -> list[str]:
        if not self.running:
            return ["the dispatcher is being started or stopped"]
        self._manager.reloading()
        try:
            new = await deferToThreadPool(
                self._reactor, self._reactor.getThreadPool(), config.load, self._file
            )
            mistakes = self._compare(new)
            if not mistakes:
                mistakes = await self._ports.change(new.listen, new.terms)
        except ConfigError as error:
            mistakes = error.mistakes
        except Exception:  # of a mistake of ours
            self._log.failure("reading the configuration again")
            mistakes = ["an internal failure, see the log"]
        if mistakes:
            text = "the configuration stays as it was: {mistakes}"
            self._log.error(text, mistakes="; ".join(mistakes))
        else:
            self._take(new)
        self.is_refused = bool(mistakes)
        self._manager.ready()
        return mistakes

    def _compare(self, new: config.Config) -> list[str]:
        if new.database != self.config.database:
            return [f"{self._file}: database: can't be changed but by a restart"]
        return []

    def _take(self, new: config.Config) -> None:
        """Put a configuration into force of which nothing can be refused any more."""
        old, self.config = self.config, new
        logs.set_level(new.log_level)
        self._gate.use(new.terms)
        self._dispatcher.limits = new.limits
        self._store.key_life = new.key_life
        self._retention.ages = new.ages
        self._permissions.use(new.rules)
        self._hosts.reconfigure(new.hosts)
        if new.trust != old.trust:
            self._connections.use(endpoint_by(self._reactor, new.trust))
        self._log.info("{file} is in force", file=str(self._file))
        # Not waited for: while the disk is full that takes its time.
        Deferred.fromCoroutine(self._dispatcher.set_capacity(new.capacity))
