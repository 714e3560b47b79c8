"""A deployment with some history, for the tests of the commands that list and look after it."""

from __future__ import annotations

import io
import os
import re
import subprocess
import time
from contextlib import redirect_stderr, redirect_stdout
from datetime import datetime
from functools import cache
from unittest.mock import patch

import harp as client
from harp.cli.main import run
from harpcaller.demo.deployment import HOST
from tests.acceptance.daemons import deploy, eventually
from tests.harp.commands import SCRIPT, TIME_LIMIT, Done, Started

OTHER, AWAY = "db01.example.net", "web99.example.net"
DISK = {"disk": "web01"}
DISK_TEXT = '{"disk":"web01"}'

_AGE = re.compile(r" *\b\d+[smhd](?=  | *$)", re.MULTILINE)


class Site:
    """Daemons that run, and what is known of them.

    :ivar jobs: their ids, the oldest first: ended by a result, an exception, an error and a
        cancellation; running and waiting, both in the queue `DISK`.
    :ivar ready: when these were submitted, in unix seconds: others come later.
    :ivar then: the options of ``harp jobs`` for these.
    """

    def __init__(self) -> None:
        self.deployment = deploy()
        entry = self.deployment.host_entry
        self.deployment.set_hosts(
            {HOST: entry(), OTHER: entry(tags=["db", "old"], server_name=HOST)}
        )
        self.deployment.__enter__()
        self.address = f"127.0.0.1:{self.deployment.port}"
        self.rpc = client.HarpCaller("127.0.0.1", self.deployment.port)
        self.jobs: list[str] = []
        for job in (
            self.rpc.host(HOST).add(1, 2),
            self.rpc.host(OTHER).fail("no such disk"),
            self.rpc.host(AWAY).add(1),
        ):
            job.result(wait=True)
            self.jobs.append(job.id())
        cancelled = self.rpc.host(HOST).sleep(3600)
        cancelled.cancel()
        running, waiting = (self.rpc.host(HOST, queue=DISK).sleep(3600) for _ in range(2))
        self.jobs += [cancelled.id(), running.id(), waiting.id()]
        eventually(lambda: running.start_time() is not None, "the first of the queue runs")
        self.ready = time.time()
        self.then = ["--before", datetime.fromtimestamp(self.ready).isoformat()]

    def variables(self, **more: str) -> dict[str, str]:
        """Return the variables by which a command talks to this dispatcher, and others."""
        return {
            "HARP_DISPATCHER": self.address,
            "HARP_PROFILE": "",
            "HARP_TOKEN": "",
            "XDG_CONFIG_HOME": str(self.deployment.folder),
            **more,
        }

    def harp(self, *arguments: str, given: str = "", **environment: str) -> Done:
        """Run the command without a terminal."""
        done = subprocess.run(
            [SCRIPT, *arguments],
            input=given,
            env={**os.environ, **self.variables(**environment)},
            capture_output=True,
            text=True,
            timeout=TIME_LIMIT,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def within(self, *arguments: str, **environment: str) -> Done:
        """Run the command in this process, which is quicker, without a terminal."""
        out, err = io.StringIO(), io.StringIO()
        with (
            patch.dict(os.environ, self.variables(**environment)),
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            status = run(list(arguments))
        return Done(int(status), out.getvalue(), err.getvalue())

    def start(self, *arguments: str, **environment: str) -> Started:
        """Start the command without a terminal."""
        return Started(
            [SCRIPT, *arguments],
            env={**os.environ, **self.variables(**environment)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@cache
def site() -> Site:
    """Return the deployment that tests share which leave it as it is."""
    return Site()


def ageless(text: str) -> str:
    """Return what a table shows as it would be at any time."""
    return _AGE.sub(lambda found: "Ns".rjust(len(found[0])), text)
