"""The network between the dispatcher and a harpd is cut, with and without an end to both sides."""

from __future__ import annotations

import os
import subprocess
import time

import harp
from harpcaller.demo.deployment import HOST, Deployment
from tests.acceptance.daemons import descriptors
from tests.faults import namespaces
from tests.faults.setting import LONG, FaultTestCase, eventually

CUT = 60.0 if LONG else 3.0
"""Seconds for which nothing passes; the fault itself."""

SILENCE = 2.0
"""Seconds after which a job that is not to wait so long ends."""


class NetworkTests(FaultTestCase):
    """harpd is in a network namespace of its own, at the other end of a link."""

    def setUp(self) -> None:
        number = os.getpid() % 4096
        subnet = f"10.{200 + number // 1024}.{number // 4 % 256}"
        self.address, peer = f"{subnet}.2", f"{subnet}.1"
        self.link = f"hc{number}i"
        found = namespaces.network(self.link, f"hc{number}o", self.address, peer)
        if isinstance(found, str):
            self.skipTest(found)
        self.addCleanup(found.end)
        self.namespace = found
        deployment = self.deploy()
        self.move(deployment)
        self.begin()

    def move(self, deployment: Deployment) -> None:
        """Let harpd run at the other end."""
        network = {
            "address": self.address,
            "port": deployment.harpd_port,
            "certfile": str(deployment.folder / "harpd.pem"),
            "keyfile": str(deployment.folder / "harpd.key"),
        }
        deployment.make_certificates(self.address)
        self.trust_other()
        deployment.configure_harpd({"network": network})
        deployment.harpd.prefix = self.namespace.prefix
        self.set_host(address=self.address)

    def set_link(self, state: str) -> None:
        """Cut the link, or restore it: packets are lost without a word.

        At the other end: without its own, this one would take another way.
        """
        command = [*self.namespace.prefix, "ip", "link", "set", self.link, state]
        subprocess.run(command, check=True, timeout=20)

    def held_here(self) -> harp.RemoteCall:
        """Return a job that has begun on the host that is cut off."""
        job = self.rpc.host(HOST, timeout=600).hold(str(self._release))
        with job.follow(since=0) as packets:
            next(packets)
        return job

    def test_cut(self) -> None:
        """Calls wait or end by their timeout; those that could wait go on where they were."""
        held = self.held_here()
        flooding = self.rpc.host(HOST, timeout=600).count_twice(1000, str(self._release))
        with flooding.follow(since=0) as packets:
            next(packets)
        self.set_link("down")
        self.addCleanup(self.set_link, "up")
        began = time.monotonic()
        late = self.rpc.host(HOST, timeout=600).add(1)
        impatient = self.rpc.host(HOST, timeout=SILENCE).add(1)
        self.others_go_on()
        error = self.error_of(impatient)
        self.assertIn(error.type, {"timeout", "network_error"})
        self.release()  # what ends meanwhile can't be told
        time.sleep(max(0.0, began + CUT - time.monotonic()))
        self.assertIs(held.result(), harp.CALL_NOT_FINISHED)
        self.others_go_on()
        self.set_link("up")
        self.assertEqual(held.get(), "held")
        self.assertEqual(flooding.get(), 2000)
        self.assertEqual(flooding.stream().all(), [*range(1000), *range(1000, 2000)])
        # Its connection was there, or could not be made: then it did not run.
        outcome = late.result(wait=True)
        if outcome != 2:
            assert isinstance(outcome, harp.RemoteError), outcome
            self.assertEqual((outcome.type, outcome.may_have_run), ("network_error", False))
        self.all_is_well()

    def test_half_open(self) -> None:
        """A harpd that is gone without a word: silence ends the job, another takes its place."""
        pid = self.pid("harpcaller")
        before = descriptors(pid)
        job = self.rpc.host(HOST, timeout=SILENCE).stay()
        patient = self.rpc.host(HOST, timeout=3600).stay()
        for each in (job, patient):
            with each.follow(since=0) as packets:
                next(packets)
        self.set_link("down")
        self.addCleanup(self.set_link, "up")
        self.deployment.harpd.kill()  # its end does not get here
        self.others_go_on()
        error = self.error_of(job)
        self.assertEqual(error.type, "timeout")
        self.assertTrue(error.may_have_run)
        self.assertIs(patient.result(), harp.CALL_NOT_FINISHED)
        self.deployment.harpd.start()
        self.set_link("up")
        # What nothing is sent to can't be known to be gone; its job is ended by who asks for it.
        self.assertTrue(patient.cancel())
        eventually(self.answers, "its host can be called again")
        eventually(lambda: descriptors(pid) <= before + 4, "dead connections are closed")
        self.all_is_well()

    def answers(self) -> bool:
        """Call the host; what was sent on a connection that is dead, or finds no way, says so."""
        outcome = self.host.add(1).result(wait=True)
        if isinstance(outcome, harp.RemoteError):
            self.assertIn(outcome.type, {"closed", "network_error"})
        return bool(outcome == 2)
