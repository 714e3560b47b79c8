"""The command line of ``twistd harpd`` and the only place where its parts are joined."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from twisted.application.service import IService, MultiService
from twisted.python import usage

from harp import logfile
from harp.service_manager import ServiceManager
from harp.settings import ConfigError
from harpd import config
from harpd.check import check_procedures
from harpd.daemon import Daemon
from harpd.keeper_process import KeeperProcess


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
        defaults: Mapping[str, Any] = {}
        # Absolute, for they are read again and twistd may go to another folder.
        self.file = Path(self["config"]).absolute()
        try:
            self.config = config.load(self.file)
            path, defaults = self.config.path, self.config.defaults
        except ConfigError as error:
            mistakes = error.mistakes
        self.procedures = str(Path(self["procedures"]).absolute())
        mistakes += check_procedures(self.procedures, path, defaults, shows=bool(self["test"]))
        if self["test"]:
            print("\n".join(mistakes) or "OK")
            sys.exit(1 if mistakes else 0)
        if mistakes:
            raise usage.UsageError("\n".join(mistakes))
        user = self.config.user
        if user is not None and os.geteuid() not in (0, user.uid):
            raise usage.UsageError(f"{self.file}: user: only root can become another user")
        logfile.use(self.parent)


def makeService(options: Options) -> IService:
    """Return the daemon made of its parts."""
    from twisted.internet import reactor  # noqa: PLC0415 - twistd has chosen it by now

    # Twisted takes the wall clock: set forward, it would end all calls by their time limits.
    clock: Any = reactor
    clock.seconds = time.monotonic
    service = MultiService()
    keeper = KeeperProcess(reactor, str(options.file), options.procedures)
    manager = ServiceManager(reactor, os.environ)
    daemon = Daemon(reactor, options.config, keeper, partial(config.load, options.file), manager)
    daemon.setServiceParent(service)
    return service
