"""The daemon's start, its end in order on TERM, and what it reads again on HUP, all or nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from harp.service_manager import ServiceManager
from harp.settings import ConfigError, Contents
from harpd import audit, privileges
from harpd.auth import Login
from harpd.config import Config
from harpd.factory import HarpdFactory, TlsFactory
from harpd.keeper_process import KeeperError, KeeperProcess
from harpd.limits import Limits, raise_descriptors
from harpd.listening import listen, start_listening
from harpd.named_files import Files
from harpd.offers import ProceduresError
from harpd.parts import Parts, Policy
from harpd.privileges import PrivilegeError
from harpd.spawner import Spawner
from harpd.tls import ServerTls


class Daemon(Service):
    """The parts of harpd, joined.

    :param keeper: not started yet.
    :param read: reads the configuration again, out of the files that it is handed; raises
        `ConfigError`.
    :param manager: told what becomes of the daemon.
    """

    _log = Logger("harpd")

    def __init__(
        self,
        reactor: Any,
        config: Config,
        keeper: KeeperProcess,
        read: Callable[[Contents], Config],
        manager: ServiceManager,
    ) -> None:
        self._reactor = reactor
        self._config = config
        self._keeper = keeper
        self._read = read
        self._manager = manager
        self._tls = ServerTls(config.tls, reactor.seconds)
        self._login = Login(reactor, config.authenticator)
        self._spawner = Spawner(reactor, keeper, config.kill_grace, self._can_take_calls)
        self._policy = Policy(config.permissions)
        self._parts = Parts(reactor, self._login, self._spawner, self._policy)
        self._factory = HarpdFactory(self._parts)
        self._port: IListeningPort | None = None
        self._reloading: Deferred[None] | None = None
        self._is_asked_again = self._is_refused = self._is_ready = False

    def privilegedStartService(self) -> None:
        """Start keeper and zygote and bind the port while the daemon is privileged."""
        signal.signal(signal.SIGHUP, self._hung_up)  # which else would end the daemon
        self._keeper.start()
        self._descriptors = raise_descriptors()  # which the calls, by the keeper, do not have
        self._use_limits(self._config.limits)
        self._spawner.start()
        self._port = self._listen(self._config, start_listening)

    def startService(self) -> None:
        """Give up root, before the reactor reads anything; then say when calls can be taken.

        :raises SystemExit: if that can't be done.
        """
        super().startService()  # type: ignore[no-untyped-call]
        if self._port is None:
            self.privilegedStartService()
        if self._config.user is not None:
            try:
                privileges.become(self._config.user)
            except PrivilegeError as error:
                self._log.critical("user: {error}", error=error)
                raise SystemExit(f"harpd does not start: user: {error}") from error
        elif os.geteuid() == 0:
            self._log.warn(
                "the process that is open to the network stays root: "
                "the configuration names no user that it could become (key user)"
            )
        self._manager.watch(self._status)
        self._reload_again()

    def _can_take_calls(self) -> None:
        """Say so, the first time that the procedures have been loaded."""
        if not self._is_ready:
            self._is_ready = True
            self._log.info("harpd is ready")
            self._manager.ready()

    def _status(self) -> str:
        procedures, calls = self._spawner.count, len(self._parts.running)
        what = "no procedures, see the log" if procedures is None else f"{procedures} procedures"
        refused = "; the last reload was refused, see the log" if self._is_refused else ""
        return f"{what}, {calls} calls, {self._factory.count} connections{refused}"

    def stopService(self) -> Deferred[None]:
        """Refuse new calls, give running ones their grace, and end. SIGHUP is ignored from now."""
        super().stopService()  # type: ignore[no-untyped-call]
        self._manager.stopping()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        # The port stays open: who comes now is to learn why he is refused.
        await self._factory.shut_down(self._config.shutdown_grace)
        if self._port is not None:
            await maybeDeferred(self._port.stopListening)
        await maybeDeferred(self._spawner.stop)
        if self._reloading is not None:
            await self._reloading
        await maybeDeferred(self._keeper.stop)
        self._manager.close()

    def _listen(self, config: Config, how: Callable[..., IListeningPort]) -> IListeningPort:
        factory = TlsFactory(self._tls, self._factory)
        return how(self._reactor, config.address, config.port, factory)

    def _hung_up(self, number: int, frame: object) -> None:
        self._reactor.callFromThread(self.reload)

    def reload(self) -> None:
        """Read both files again: now, or when the start or the reading has ended that goes on."""
        if self._reloading is not None or not self.running:
            self._is_asked_again = True
            return
        self._manager.reloading()
        self._reloading = Deferred.fromCoroutine(self._reload())
        self._reloading.addErrback(lambda failure: self._log.failure("reloading failed", failure))
        self._reloading.addCallback(self._reloaded)

    def _reloaded(self, _: object) -> None:
        self._reloading = None
        if self._is_ready:
            self._manager.ready()
        if self.running:
            self._reload_again()

    def _reload_again(self) -> None:
        if self._is_asked_again:
            self._is_asked_again = False
            self.reload()

    async def _reload(self) -> None:
        audit.hung_up()
        try:
            files = Files(await self._keeper.files())
            config = await deferToThreadPool(
                self._reactor, self._reactor.getThreadPool(), self._read, files
            )
            if not self.running:
                return
            if config.user != self._config.user:
                self._refuse(["user: is changed by a restart only"])
                return
            zygote = await self._spawner.prepare(config.kill_grace)
        except (ConfigError, ProceduresError) as error:
            self._refuse(error.mistakes)
            return
        except KeeperError as error:
            self._refuse([str(error)])
            return
        if not self.running:
            zygote.close()
            return
        old = None
        if (config.address, config.port) != (self._config.address, self._config.port):
            try:
                port = self._listen(config, listen)
            except CannotListenError as error:
                zygote.close()
                self._refuse([str(error)])
                return
            old, self._port = self._port, port
        self._config = config
        self._tls.use(config.tls)
        self._login.use(config.authenticator)
        self._policy.permissions = config.permissions
        self._use_limits(config.limits)
        self._spawner.adopt(zygote, config.kill_grace)
        self._is_refused = False
        self._log.info("harpd runs with what was read")
        if old is not None:
            await maybeDeferred(old.stopListening)

    def _use_limits(self, wanted: Limits) -> None:
        limits = self._policy.limits = wanted.within(self._descriptors)
        if limits != wanted:
            self._log.warn(
                "harpd may have {descriptors} descriptors (RLIMIT_NOFILE), so max_connections is "
                "{all} and connections_before_login is {strangers}",
                descriptors=self._descriptors,
                all=limits.max_connections,
                strangers=limits.connections_before_login,
            )

    def _refuse(self, mistakes: list[str]) -> None:
        self._is_refused = True
        for mistake in mistakes:
            self._log.error("{mistake}", mistake=mistake)
        self._log.error("nothing of it is used, all stays as it was")
