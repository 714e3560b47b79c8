"""Tests of harpd.keeper_process: the keeper's end, sudden or not, as the reactor sees it."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from twisted.internet.defer import maybeDeferred
from twisted.logger import LogLevel, capturedLogs, formatEvent

from harpd.keeper_process import KeeperError
from harpd.offers import ProceduresError
from harpd.spawner import FIRST_DELAY, Spawner
from tests.harpd.spawners import (
    ClockedReactor,
    Running,
    SpawnerTestCase,
    few_descriptors,
    zygote_pid,
)
from tests.harpd.waiting import alive, descriptors, eventually, processes, turns, wait_gone
from tests.harpd.zygotes import KILL_GRACE

ONE = "@procedure\ndef f(*args): return list(args)\n"

STAYING = """
    @streaming_procedure
    def f():
        yield os.getpid()
        signal.pause()
"""


class KeeperTestCase(SpawnerTestCase):
    """Has the keeper of a spawner killed."""

    async def kill_keeper(self, spawner: Spawner) -> list[str]:
        """Kill it and return what is logged."""
        (pid,) = [
            pid
            for pid in processes() - self.others
            if b"harpd.keeper" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
        with capturedLogs() as logged:
            os.kill(pid, signal.SIGKILL)
            await eventually(lambda: spawner._keeper.is_lost, "its end")
        return [formatEvent(e) for e in logged if e["log_level"] is LogLevel.critical]


class LostTests(KeeperTestCase):
    """The keeper is killed: what there is goes on."""

    async def check_nothing_left(self, spawner: Spawner) -> None:
        """Stop the spawner, whose zygotes' end nobody tells; it ends them all the same."""
        await maybeDeferred(spawner.stop)
        await eventually(lambda: processes() <= self.others, "the end of the last process")
        await eventually(lambda: not descriptors() - self.before, "the last descriptor's end")

    async def test_calls(self) -> None:
        """A running call goes on, a new one is taken, and it is logged what has to be done."""
        spawner = await self.spawner(STAYING)
        call = Running(spawner, "f", "[]")
        pid = await call.packet()
        (logged,) = await self.kill_keeper(spawner)
        self.assertIn("the keeper died, so that harpd has to be restarted", logged)
        self.assertTrue(alive(pid))
        second = Running(spawner, "f", "[]")
        await second.packet()
        call.kill()
        self.assertEqual((await call.end())[0], "error")

    async def test_nothing_new(self) -> None:
        """Neither files nor zygotes can be had any more; who asks learns why."""
        spawner = await self.spawner(ONE)
        await self.kill_keeper(spawner)
        error = self.failureResultOf(spawner._keeper.files(), KeeperError).value
        self.assertIn("the keeper died", str(error))
        failed = self.failureResultOf(spawner.prepare(KILL_GRACE), ProceduresError).value
        self.assertIn("the keeper died, so that harpd has to be restarted", str(failed))

    async def test_zygote_dies_too(self) -> None:
        """Its calls end, callers learn why there are no others, and it can be stopped."""
        clocked = ClockedReactor()
        spawner = await self.spawner(STAYING, clocked=clocked)
        call = Running(spawner, "f", "[]")
        pid = await call.packet()
        zygote = zygote_pid(spawner)
        await self.kill_keeper(spawner)
        os.kill(zygote, signal.SIGKILL)
        self.assertEqual((await call.end())[0], "error")
        wait_gone(pid)
        clocked.clock.advance(FIRST_DELAY)
        failed = self.failureResultOf(spawner.catalogue(), ProceduresError).value
        self.assertIn("the keeper died", str(failed))
        self.assertEqual(spawner._all, set())

    async def test_while_waiting(self) -> None:
        """Who waits for files or a zygote when it dies learns that."""
        spawner = self.made(ONE)
        keeper = spawner._keeper
        (pid,) = processes() - self.others
        os.kill(pid, signal.SIGSTOP)
        spawner.start()
        files, loaded = keeper.files(), spawner.catalogue()
        os.kill(pid, signal.SIGKILL)
        with self.assertRaises(KeeperError):
            await files
        with self.assertRaises(ProceduresError):
            await loaded


class DescriptorTests(SpawnerTestCase):
    """The keeper's answers bring descriptors, for which there may be no room."""

    async def test_none_left(self) -> None:
        """Whatever could not be taken is tried again, and nothing is left open or running."""
        spawner = await self.spawner(ONE)
        await spawner._keeper.files()
        await turns(3)
        before, others = descriptors(), processes()
        for free in (0, 1):
            with few_descriptors(free):
                try:
                    zygote = spawner.prepare(KILL_GRACE)
                    await zygote
                except (ProceduresError, OSError) as error:
                    self.assertIn("no descriptors are left", str(error))
                else:
                    raise AssertionError("there was room")
            await eventually(lambda: processes() <= others, "the end of what was started")
            await turns(3)
            self.assertEqual(descriptors(), before)
        with few_descriptors(0), self.assertRaises(KeeperError):
            await spawner._keeper.files()
        self.assertEqual(await Running(spawner, "f", "[1]").end(), ("result", [1]))
        names = json.loads(await spawner._keeper.files())
        self.assertEqual(list(names), [spawner._keeper._config])
