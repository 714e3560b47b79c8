"""The disk of the dispatcher's database is full, or fails."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import harp
from tests.faults import namespaces, preload
from tests.faults.setting import FaultTestCase, eventually

_NAMES = {errno.ENOSPC: "full", errno.EIO: "I/O error"}


class DiskTests(FaultTestCase):
    """Nothing is acknowledged that is not on disk, and what can be done without writing is done."""

    def start_with_orders(self) -> preload.Orders:
        if reason := preload.missing():
            self.skipTest(reason)
        orders = preload.Orders(self.deploy().harpcaller)
        self.begin()
        return orders

    def befall(self, fault: Callable[[], None], end: Callable[[], None]) -> None:
        """Go through a fault of the disk, up to the kill of the dispatcher behind it."""
        on_host = self.host.count(2)
        self.assertEqual(on_host.get(), 2)
        fault()
        for _ in range(3):
            with self.assertRaises(harp.RemoteError) as refused:
                self.host.add(1)
            self.assertEqual(refused.exception.type, "os_error")
            self.assertIs(refused.exception.origin, harp.Origin.DISPATCHER)
        # What runs goes on and waits to be recorded; what is there is read.
        self.release()
        eventually(
            lambda: b"is not recorded, which is tried again" in self._log(),
            "the end of the running job could not be recorded",
        )
        self.assertIs(self.running.result(), harp.CALL_NOT_FINISHED)
        self.assertEqual(on_host.get(), 2)
        self.assertEqual(self.ended.stream().all(), [0, 1, 2])
        end()
        self.all_is_well()

    def survives_death(self) -> None:
        """Kill the dispatcher: all that was acknowledged is known to the next one."""
        acknowledged = [self.host.add(number) for number in range(5)]
        self.assertEqual([job.get() for job in acknowledged], [1, 2, 3, 4, 5])
        self.deployment.harpcaller.kill()
        self.deployment.harpcaller.start()
        self.assertEqual([job.get() for job in acknowledged], [1, 2, 3, 4, 5])
        self.all_is_well()

    def test_sync_fails(self) -> None:
        """EIO on fdatasync: submissions are refused with os_error, and accepted again later."""
        orders = self.start_with_orders()
        self.befall(lambda: orders.give(sync_error=errno.EIO), orders.give)
        self.assertGreater(orders.obeyed()["sync"], 2)
        self.survives_death()

    def test_killed_while_sync_fails(self) -> None:
        """The dispatcher dies while its disk fails: what was acknowledged before is there."""
        orders = self.start_with_orders()
        acknowledged = [self.host.add(number) for number in range(5)]
        self.assertEqual([job.get() for job in acknowledged], [1, 2, 3, 4, 5])
        orders.give(sync_error=errno.EIO)
        with self.assertRaises(harp.RemoteError):
            self.host.add(1)
        self.deployment.harpcaller.kill()
        orders.give()
        self.deployment.harpcaller.start()
        self.assertEqual([job.get() for job in acknowledged], [1, 2, 3, 4, 5])
        self.assertEqual(self.error_of(self.running).type, "missing_result")
        self.assertEqual(self.waiting.get(), 42)
        self.assertEqual(self.host.add(1).get(), 2)
        self.others_go_on()

    def test_writing_fails(self) -> None:
        """ENOSPC on writing, as any user may have it."""
        orders = self.start_with_orders()
        self.befall(lambda: orders.give(write_error=errno.ENOSPC), orders.give)
        self.assertGreater(orders.obeyed()["write"], 2)
        self.survives_death()

    def test_disk_is_full(self) -> None:
        """A file system without any room left."""
        deployment = self.deploy()
        folder = deployment.folder / "small"
        folder.mkdir()
        mounted = namespaces.small_disk(folder, 4 << 20)
        if isinstance(mounted, str):
            self.skipTest(mounted)
        self.addCleanup(mounted.end)
        deployment.configure_harpcaller({"database": f"sqlite:///{folder}/jobs.db"})
        deployment.harpcaller.prefix = mounted.prefix
        self.begin()
        filler = Path(f"/proc/{mounted.pid}/root{folder}/filler")

        def fill() -> None:
            with open(filler, "wb", buffering=0) as file:
                for size in (1 << 16, 1 << 12, 1):
                    try:
                        while True:
                            file.write(bytes(size))
                    except OSError as error:
                        self.assertEqual(error.errno, errno.ENOSPC)
            # What the write-ahead log has already, it may write to again.
            for _ in range(1000):
                try:
                    self.rpc.host("nowhere.example.net", info="x" * 3000).add(1)
                except harp.RemoteError:
                    return
            self.fail("the disk does not become full")

        self.befall(fill, lambda: os.unlink(filler))
        self.survives_death()

    def _log(self) -> bytes:
        return self.deployment.harpcaller.log.read_bytes()
