"""The deployment that the tests of the ``harp`` command share, and the command against it."""

from __future__ import annotations

import io
import os
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from harp import HarpCaller
from harp.cli import main
from harpcaller.demo.deployment import HOST, Deployment
from tests.acceptance.daemons import deploy
from tests.harp.commands import SCRIPT, TIME_LIMIT, Done
from tests.harp.terminal import Terminal

PROCEDURES = Path(__file__).with_name("cli_procedures.py")


@cache
def shared() -> Deployment:
    """Return the running deployment; nobody breaks it."""
    return deploy(PROCEDURES).__enter__()


class CommandTestCase(SynchronousTestCase):
    """Runs the command as a user of the shared dispatcher does, who has no configuration."""

    def setUp(self) -> None:
        """Nothing of whoever runs the tests gets to the command."""
        self.folder = Path(tempfile.mkdtemp(prefix="harp-cli-"))
        self.addCleanup(self._remove)
        self.environment = {
            "HARP_DISPATCHER": f"127.0.0.1:{shared().port}",
            "HARP_PROFILE": "",
            "HARP_TOKEN": "",
            "XDG_CONFIG_HOME": str(self.folder / "config"),
        }
        self.gate = self.folder / "gate"
        """What some procedures wait for."""

    def _remove(self) -> None:
        self.gate.touch()  # so that no call stays
        for path, _, names in os.walk(self.folder, topdown=False):
            for name in names:
                os.unlink(os.path.join(path, name))
            os.rmdir(path)

    @property
    def rpc(self) -> HarpCaller:
        """The dispatcher, asked by the library."""
        return HarpCaller("127.0.0.1", shared().port)

    def start(self, *arguments: str, stdout: int = subprocess.PIPE) -> subprocess.Popen[str]:
        """Start the command without a terminal; it is killed if it hangs."""
        process = subprocess.Popen(
            [SCRIPT, *arguments],
            # Buffered as people have it, whoever runs the tests.
            env={**os.environ, **self.environment, "PYTHONUNBUFFERED": ""},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
        )
        limit = threading.Timer(TIME_LIMIT, process.kill)
        limit.start()
        self.addCleanup(limit.cancel)
        return process

    def harp(self, *arguments: str) -> Done:
        """Run the command without a terminal, in this process, which is quicker."""
        out, err = io.StringIO(), io.StringIO()
        with patch.dict(os.environ, self.environment), redirect_stdout(out), redirect_stderr(err):
            status = main.run(list(arguments))
        return Done(int(status), out.getvalue(), err.getvalue())

    def call(self, procedure: str, *arguments: str) -> Done:
        """Run ``harp call`` on the host without a terminal."""
        return self.harp("call", HOST, procedure, *arguments)

    def terminal(
        self, *arguments: str, columns: int = 80, environment: Mapping[str, str] | None = None
    ) -> Terminal:
        """Run the command on a terminal.

        :param environment: more variables.
        """
        variables = {**self.environment, **(environment or {})}
        terminal = Terminal(*arguments, columns=columns, environment=variables)
        self.addCleanup(terminal.close)
        return terminal
