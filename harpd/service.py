"""The command line of ``twistd harpd`` and the only place where its parts are joined."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from twisted.application.internet import SSLServer
from twisted.application.service import IService, MultiService, Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python import usage

from harp.settings import ConfigError
from harpd import config
from harpd.auth import Login
from harpd.check import check_procedures
from harpd.protocol import HarpdFactory, Parts
from harpd.spawner import Spawner


class Options(usage.Options):
    """What stands on the command line; the files are read here, so that mistakes end it here."""

    optParameters = [
        ["config", "c", "/etc/harpd/harpd.yaml", "The configuration, a YAML file."],
        ["procedures", "p", "/etc/harpd/procedures.py", "The procedures, a Python file."],
    ]
    optFlags = [["test", "t", "Check both files, say OK or every mistake, and exit."]]

    def postOptions(self) -> None:
        """Read both files.

        :raises UsageError: with every mistake in them.
        """
        mistakes: list[str] = []
        path: list[str] = []
        try:
            self.config = config.load(Path(self["config"]))
            path = self.config.path
        except ConfigError as error:
            mistakes = error.mistakes
        self.procedures = str(Path(self["procedures"]).absolute())
        mistakes += check_procedures(self.procedures, path)
        if self["test"]:
            print("\n".join(mistakes) or "OK")
            sys.exit(1 if mistakes else 0)
        if mistakes:
            raise usage.UsageError("\n".join(mistakes))


class Calls(Service):
    """Ends the calls before the parts that they need are stopped."""

    _log = Logger("harpd")

    def __init__(self, factory: HarpdFactory, spawner: Spawner) -> None:
        self._factory = factory
        self._spawner = spawner

    def startService(self) -> None:
        """Say when calls can be taken."""
        super().startService()  # type: ignore[no-untyped-call]
        self._spawner.catalogue().addCallbacks(
            lambda catalogue: self._log.info("harpd is ready"), lambda failure: None
        )

    def stopService(self) -> Deferred[None]:
        """End the calls."""
        super().stopService()  # type: ignore[no-untyped-call]
        return self._factory.shut_down()


def makeService(options: Options) -> IService:
    """Return the daemon made of its parts."""
    from twisted.internet import reactor  # noqa: PLC0415 - twistd has chosen it by now

    return join(reactor, options.config, options.procedures)


def join(reactor: Any, config: config.Config, procedures: str) -> IService:
    """Join the parts.

    The zygote is started and the port is bound while the daemon is privileged.
    """
    service = MultiService()
    spawner = Spawner(reactor, procedures, config.path)
    factory = HarpdFactory(Parts(reactor, Login(reactor, config.authenticator), spawner))
    spawner.setServiceParent(service)
    SSLServer(
        config.port, factory, config.tls, interface=config.address, reactor=reactor
    ).setServiceParent(service)
    Calls(factory, spawner).setServiceParent(service)
    return service
