"""What the tests of faults have in common: a fault befalls one deployment, and another harpd."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

import harp
from harpcaller.demo.deployment import HOST, Deployment
from tests.acceptance.daemons import deploy, harpd_processes

LONG = bool(os.environ.get("HARPCALLER_FAULTS_LONG"))
"""Whether faults last as long as in earnest; a short form is part of the whole suite."""

OTHER = "other.example.net"
"""A host that no fault befalls."""

PATIENCE = 180.0 if LONG else 30.0
"""Seconds after which what a test waits for is taken never to come."""


@cache
def _other() -> Deployment:
    """Return a deployment of whose daemons only harpd is used, and left alone."""
    deployment = deploy()
    deployment.harpd.start()
    return deployment


def eventually(condition: Callable[[], bool], what: str) -> None:
    """Return as soon as the condition holds; fail if it does not come to that."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"it did not come about that {what}")
        time.sleep(0.02)  # between two looks, not in place of one


class FaultTestCase(SynchronousTestCase):
    """Daemons that have jobs: one that has ended, one that runs, and one that waits for that."""

    def deploy(self, **limits: Any) -> Deployment:
        """Make them; not started yet.

        :param limits: more keys for the dispatcher's configuration.
        """
        limits = {"default_timeout": 2 * PATIENCE, **limits}  # else a fault found takes 10 minutes
        self.deployment = deployment = deploy(**limits)
        self.addCleanup(deployment.stop)
        self.trust_other()
        self.set_host()
        return deployment

    def trust_other(self) -> None:
        """Let the dispatcher trust the other harpd too."""
        with open(self.deployment.ca_file, "ab") as authorities:
            authorities.write(_other().ca_file.read_bytes())

    def set_host(self, **changes: Any) -> None:
        """Set how the dispatcher finds the host that the fault befalls, at its next look."""
        here = self.deployment.host_entry(**changes)
        self.deployment.set_hosts({HOST: here, OTHER: _other().host_entry()})

    def begin(self) -> None:
        """Start the daemons and give them jobs that outlast the fault."""
        self.deployment.__enter__()
        self.submit_kept()

    def submit_kept(self) -> None:
        """Submit what must not be lost."""
        self.rpc = harp.HarpCaller("127.0.0.1", self.deployment.port)
        self.host = self.rpc.host(HOST)
        self.other = self.rpc.host(OTHER)
        self._release = Path(tempfile.mkdtemp(dir=self.deployment.folder)) / "release"
        queued = self.rpc.host(OTHER, queue={"of": str(self._release)})
        self.ended = self.host.count(3)
        self.assertEqual(self.ended.get(), 3)
        self.running = queued.hold(str(self._release))
        with self.running.follow(since=0) as packets:
            next(packets)
        self.waiting = queued.add(40, 2)

    def others_go_on(self) -> None:
        """Show that jobs of another host are done while the fault lasts."""
        for number in range(3):
            self.assertEqual(self.other.add(number).get(), number + 1)

    def release(self) -> None:
        """Let the running job end."""
        self._release.touch()

    def all_is_well(self) -> None:
        """Show that no acknowledged job was lost, and that new ones are done."""
        self.release()
        self.assertEqual(self.running.get(), "held")
        self.assertEqual(self.waiting.get(), 42)
        self.assertEqual(self.ended.get(), 3)
        self.assertEqual(self.ended.stream().all(), [0, 1, 2])
        for host in (self.host, self.other):
            self.assertEqual(host.add(1).get(), 2)

    def error_of(self, job: harp.RemoteCall) -> harp.RemoteError:
        """Wait for the end of a job and return the error that it ended with."""
        outcome = job.result(wait=True)
        assert isinstance(outcome, harp.RemoteError), outcome
        return outcome

    def helper(self, name: str) -> int:
        """Return the process below harpd that is called so."""
        pid = harpd_processes(self.deployment)[name]
        assert pid is not None
        return pid

    def pid(self, name: str) -> int:
        """Return the process of ``harpcaller`` or ``harpd``."""
        daemon = getattr(self.deployment, name)
        assert daemon.process is not None
        return int(daemon.process.pid)
