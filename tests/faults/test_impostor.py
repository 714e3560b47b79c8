"""A daemon that answers garbage, over TLS that is right."""

from __future__ import annotations

import harp
from harpcaller.demo.deployment import HOST
from tests.acceptance.daemons import descriptors, resident_kib
from tests.faults.impostor import QUIET, WAYS, Impostor
from tests.faults.setting import LONG, PATIENCE, FaultTestCase, eventually

SEEDS = range(20 if LONG else 1)
GROWTH_KIB = 96 * 1024


class ImpostorTests(FaultTestCase):
    """Whatever comes in a harpd's place, the job has a named error, and only it."""

    def test_garbage(self) -> None:
        """Every way, several jobs at once; the real harpd is called again behind it."""
        self.deploy()
        self.begin()
        pid = self.pid("harpcaller")
        self.others_go_on()
        before, kib = descriptors(pid), resident_kib(pid)
        for seed in SEEDS:
            impostor = Impostor(self.deployment.folder, seed)
            try:
                self.set_host(port=impostor.port)
                self.rpc.refresh_hosts()
                for way in WAYS:
                    impostor.way = way
                    self.ask(way)
            finally:
                impostor.end()
            self.assertGreaterEqual(impostor.asked, len(WAYS))
        self.set_host()
        self.rpc.refresh_hosts()
        self.assertLess(resident_kib(pid) - kib, GROWTH_KIB)
        eventually(lambda: descriptors(pid) <= before + 4, "its connections are closed")
        self.all_is_well()

    def ask(self, way: str) -> None:
        """Call in its presence."""
        asked = self.rpc.host(HOST, timeout=0.5 if way in QUIET else PATIENCE)
        jobs = [asked.add(number) for number in range(3)]
        self.others_go_on()
        for job in jobs:
            outcome = job.result(wait=True)
            if way == "two ends":
                # The first one ends the job, unless what comes behind it is seen with it.
                self.assertTrue(outcome == 1 or _type(outcome) == "protocol_error", outcome)
                continue
            assert isinstance(outcome, harp.RemoteError), (way, outcome)
            if way in QUIET:
                self.assertEqual(outcome.type, "timeout", way)
            elif way == "close":
                self.assertEqual(outcome.type, "closed")
            else:
                self.assertEqual(outcome.type, "protocol_error", way)
            self.assertTrue(outcome.may_have_run, way)
            # What came before it was kept as far as it was sound, and nothing else.
            self.assertEqual(job.stream().all(), [], way)


def _type(outcome: object) -> str:
    return outcome.type if isinstance(outcome, harp.RemoteError) else ""
