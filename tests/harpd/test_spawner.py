"""Tests of harpd.spawner: a real zygote, real forks, the real reactor."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

from twisted.internet.defer import CancelledError, Deferred

from harpd.offers import Offer, ProceduresError
from harpd.spawner import FIRST_DELAY, LOAD_LIMIT, Spawner
from tests.harpd.spawners import (
    ClockedReactor,
    Running,
    SpawnerTestCase,
    loading_guard,
    printed,
    zygote_pid,
)
from tests.harpd.waiting import alive, eventually, turns, wait_gone
from tests.harpd.zygotes import KILL_GRACE, PRELUDE

ONE = "@procedure\ndef f(*args): return list(args)\n"

ENDLESS = "open('{begun}', 'w').close(); signal.pause()"

STUBBORN = """
    @streaming_procedure
    def f():
        signal.signal(signal.SIGTERM, lambda *_: None)
        yield [os.getpid(), subprocess.Popen(["/bin/sleep", "100"], start_new_session=True).pid]
        while True:
            signal.pause()
"""
"""A procedure that ends by KILL only, with a process in another session that ends by TERM."""


class WithoutMemory:
    """The keeper of a machine that can't start a process."""

    def __init__(self, procedures: str) -> None:
        self.procedures = procedures

    def start_zygote(self, zygote: object) -> int:
        """Fail."""
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))


class CatalogueTests(SpawnerTestCase):
    """What can be called is known as soon as the zygote knows it."""

    async def test_offers(self) -> None:
        """The catalogue says what a caller must know of each procedure."""
        spawner = await self.spawner("""
            @procedure
            def plain(): pass

            @streaming_procedure(timeout=2.5)
            def stream(): yield
        """)
        expected = {"plain": Offer(False, None), "stream": Offer(True, 2.5)}
        self.assertEqual(await spawner.catalogue(), expected)

    async def test_loads_for_ever(self) -> None:
        """What is not loaded in time counts as mistaken, and is tried again."""
        clocked = ClockedReactor()
        begun = Path(self.mktemp()).absolute()
        spawner = self.made(ENDLESS.format(begun=begun), clocked=clocked)
        file = self.file
        spawner.start()
        catalogue = spawner.catalogue()
        await eventually(begun.exists, "the beginning")
        clocked.clock.advance(LOAD_LIMIT - 0.1)
        self.assertNoResult(catalogue)
        clocked.clock.advance(0.1)
        mistake = str(self.failureResultOf(catalogue, ProceduresError).value)
        self.assertEqual(mistake, f"{file}: was not loaded within 60 s")
        Path(file).write_text(PRELUDE + ONE)
        clocked.clock.advance(FIRST_DELAY)
        await eventually(lambda: isinstance(spawner._catalogue, dict), "the next attempt's success")
        clocked.clock.advance(2 * KILL_GRACE)  # the end of the first zygote

    async def test_no_process(self) -> None:
        """If no zygote can be started callers learn that, and it is tried again."""
        clocked = ClockedReactor()
        spawner = self.made(ONE, clocked=clocked)
        keeper = self.patch(spawner, "_keeper", WithoutMemory(self.file))
        spawner.start()
        for attempt in (spawner.catalogue(), spawner.prepare(KILL_GRACE)):
            mistake = str(self.failureResultOf(attempt, ProceduresError).value)
            self.assertIn("no process can be started that loads it: Cannot allocate", mistake)
        keeper.restore()
        clocked.clock.advance(FIRST_DELAY)
        await eventually(lambda: isinstance(spawner._catalogue, dict), "the next attempt's success")
        self.assertEqual(await Running(spawner, "f", "[1]").end(), ("result", [1]))

    async def test_mistake_of_the_configuration(self) -> None:
        """The configuration is read anew for each zygote, and its mistakes are told like others."""
        spawner = self.made(ONE)
        Path(spawner._keeper._config).write_text("kill_grace: x\ndefaults: {timeout: y}\n")
        spawner.start()
        with self.assertRaises(ProceduresError) as caught:
            await spawner.catalogue()
        first, second = caught.exception.mistakes
        self.assertIn("defaults.timeout, line 2: ", first)
        self.assertIn("kill_grace, line 1: ", second)

    async def test_prepared_for_ever(self) -> None:
        """What is to take the place of others has as much time; then they stay."""
        clocked = ClockedReactor()
        spawner = await self.spawner(ONE, clocked=clocked)
        begun = Path(self.mktemp()).absolute()
        Path(self.file).write_text(PRELUDE + ENDLESS.format(begun=begun))
        prepared = spawner.prepare(KILL_GRACE)
        await eventually(begun.exists, "the beginning")
        clocked.clock.advance(LOAD_LIMIT)
        self.failureResultOf(prepared, ProceduresError)
        self.assertEqual(await Running(spawner, "f", "[1]").end(), ("result", [1]))
        clocked.clock.advance(2 * KILL_GRACE)

    async def test_waiting(self) -> None:
        """Whoever asks before it is loaded waits for it, unless he gives up."""
        spawner = self.made(ONE)
        spawner.start()
        first, second = spawner.catalogue(), spawner.catalogue()
        self.assertFalse(first.called)
        second.cancel()
        self.failureResultOf(second, CancelledError)
        self.assertEqual(spawner._waiting, [first])
        self.assertEqual(await first, {"f": Offer(False, None)})

    async def test_mistakes(self) -> None:
        """Mistakes are told to who waits and to who asks later."""
        spawner = await self.spawner("@procedure(timeout=0)\ndef f(): pass\nx = procedure(5)")
        self.assertEqual(len(self.mistakes), 2)
        self.assertIn("procedure f: timeout must be", self.mistakes[0])
        error = self.failureResultOf(spawner.catalogue(), ProceduresError).value
        self.assertEqual(error.mistakes, self.mistakes)
        self.assertEqual(str(error), "; ".join(self.mistakes))

    async def test_mended(self) -> None:
        """A file that can't be loaded is tried again, ever less often, until it can."""
        clocked = ClockedReactor()
        spawner = await self.spawner("nonsense", clocked=clocked)
        for delay in (1, 2, 4, 8, 16, 32, 60, 60):
            await eventually(lambda: spawner._zygote is None, "the end of the zygote")
            clocked.clock.advance(delay - 0.01)
            self.assertIsNone(spawner._zygote)
            if delay == 60:
                Path(self.file).write_text(PRELUDE + ONE)
            clocked.clock.advance(0.01)
            self.assertIsNotNone(spawner._zygote)
            if delay == 60:
                break
        await eventually(lambda: spawner._catalogue == {"f": Offer(False, None)}, "the catalogue")
        self.assertEqual(await Running(spawner, "f", "[1]").end(), ("result", [1]))

    async def test_modules(self) -> None:
        """Modules of the configured folders can be imported."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        (folder / "spawner_test_module.py").write_text(PRELUDE + ONE)
        spawner = await self.spawner("from spawner_test_module import f", [str(folder)])
        self.assertEqual(list(await spawner.catalogue()), ["f"])


class CallTests(SpawnerTestCase):
    """Calls go their way without being in each other's."""

    async def test_results(self) -> None:
        """Many calls at once get each its own result."""
        spawner = await self.spawner(ONE)
        calls = [Running(spawner, "f", f"[{number}]") for number in range(50)]
        for number, call in enumerate(calls):
            self.assertEqual(await call.end(), ("result", [number]))
        self.assertEqual(len({call.number for call in calls}), 50)


class KillTests(SpawnerTestCase):
    """kill() ends a call: TERM, a grace, KILL, for its whole tree."""

    async def test_finally(self) -> None:
        """A procedure that is told to end can tidy up, and the call ends with killed."""
        spawner = await self.spawner(
            """
            @streaming_procedure
            def f():
                try:
                    yield "ready"
                    signal.pause()
                finally:
                    print("tidied")
            """,
            clocked=ClockedReactor(),
        )
        call = Running(spawner, "f", "[]")
        await call.packet()
        with printed("f") as texts:
            call.kill()
            kind, error = await call.end()
            await eventually(texts, "what it prints")
        self.assertEqual((kind, error["type"]), ("error", "killed"))
        self.assertEqual(error["data"], {"exit_status": 143})
        self.assertIn("tidied", texts()[0])

    async def test_at_birth(self) -> None:
        """A TERM that comes while the process is being forked is obeyed when it is there."""
        spawner = await self.spawner(
            """
            def until_told_to_end():
                while signal.SIGTERM not in signal.sigpending():
                    os.sched_yield()

            os.register_at_fork(after_in_child=until_told_to_end)

            @procedure
            def f():
                signal.pause()
            """,
            clocked=ClockedReactor(),  # KILL never comes
        )
        call = Running(spawner, "f", "[]")
        call.kill()
        kind, error = await call.end()
        self.assertEqual((kind, error["data"]), ("error", {"exit_status": 143}))

    async def test_stubborn(self) -> None:
        """What does not end at TERM lives for the grace and not longer."""
        clocked = ClockedReactor()
        spawner = await self.spawner(STUBBORN, clocked=clocked)
        call = Running(spawner, "f", "[]")
        pids = await call.packet()
        call.kill()
        await eventually(lambda: not alive(pids[1]), "TERM")
        clocked.clock.advance(KILL_GRACE - 0.01)
        call.kill()  # does not give it more time, nor sends anything twice
        self.assertEqual(len(clocked.clock.getDelayedCalls()), 1)
        await turns(3)
        self.assertTrue(alive(pids[0]))
        clocked.clock.advance(0.01)
        kind, error = await call.end()
        self.assertEqual((kind, error["type"], error["data"]), ("error", "killed", {"signal": 9}))
        wait_gone(*pids)

    async def test_only_that_call(self) -> None:
        """Other calls go on."""
        spawner = await self.spawner(STUBBORN)
        first, second = Running(spawner, "f", "[]"), Running(spawner, "f", "[]")
        await first.packet()
        pids = await second.packet()
        first.kill()
        await first.end()
        self.assertTrue(all(map(alive, pids)))

    async def test_after_the_end(self) -> None:
        """Killing a call that has ended does nothing."""
        clocked = ClockedReactor()
        spawner = await self.spawner(ONE, clocked=clocked)
        call = Running(spawner, "f", "[]")
        await call.end()
        call.kill()
        clocked.clock.advance(KILL_GRACE)
        self.assertEqual(await Running(spawner, "f", "[2]").end(), ("result", [2]))


class ZygoteEndTests(SpawnerTestCase):
    """A zygote that dies takes its calls with it, and another takes its place."""

    async def test_killed(self) -> None:
        """Running calls get killed; what comes meanwhile waits for the new zygote."""
        clocked = ClockedReactor()
        spawner = await self.spawner(STUBBORN, clocked=clocked)
        call = Running(spawner, "f", "[]")
        leader, other = await call.packet()
        first = zygote_pid(spawner)
        os.kill(first, signal.SIGKILL)
        kind, error = await call.end()
        self.assertEqual((kind, error["type"]), ("error", "killed"))
        self.assertNotIn("data", error)
        wait_gone(leader, other)
        await eventually(lambda: spawner._zygote is None, "its end")
        catalogue = spawner.catalogue()
        self.assertFalse(catalogue.called)
        clocked.clock.advance(1)
        self.assertEqual(await catalogue, {"f": Offer(True, None)})
        self.assertNotEqual(zygote_pid(spawner), first)
        await Running(spawner, "f", "[]").packet()

    async def test_signal_to_a_dead_zygote(self) -> None:
        """Killing a call of a zygote that is gone does nothing, nor do its timers."""
        clocked = ClockedReactor()
        spawner = await self.spawner(STUBBORN, clocked=clocked)
        call = Running(spawner, "f", "[]")
        leader, other = await call.packet()
        call.kill()
        await eventually(lambda: not alive(other), "TERM")
        os.kill(zygote_pid(spawner), signal.SIGKILL)
        await call.end()
        call.kill()
        wait_gone(leader)
        clocked.clock.advance(1)
        await spawner.catalogue()


class StopTests(SpawnerTestCase):
    """stopService leaves nothing."""

    async def test_running_calls(self) -> None:
        """Calls are ended with their trees before the service has stopped."""
        spawner = await self.spawner(STUBBORN)
        calls = [Running(spawner, "f", "[]") for _ in range(3)]
        pids = [pid for call in calls for pid in await call.packet()]
        await self.stop(spawner)
        self.assertFalse(any(map(alive, pids)))
        self.assertTrue(all(call.ended for call in calls))

    async def test_while_loading(self) -> None:
        """A zygote that is still loading ends too."""
        spawner = self.made(ONE)
        spawner.start()
        pid = await loading_guard(spawner)
        await self.stop(spawner)
        self.assertFalse(alive(pid))

    async def test_while_being_started(self) -> None:
        """Nor does one stay that has been asked for and is not there yet."""
        spawner = self.made(ONE)
        spawner.start()
        await self.stop(spawner)

    async def test_zygote_that_hangs(self) -> None:
        """A zygote that does not end by itself is killed, and its calls die with it."""
        clocked = ClockedReactor()
        spawner = await self.spawner(STUBBORN, clocked=clocked)
        call = Running(spawner, "f", "[]")
        leader, other = await call.packet()
        os.kill(zygote_pid(spawner), signal.SIGSTOP)
        stopped = spawner.stop()
        assert stopped is not None
        clocked.clock.advance(2 * KILL_GRACE - 0.01)
        await turns(3)
        self.assertFalse(stopped.called)
        clocked.clock.advance(0.01)
        await stopped
        self.assertEqual(clocked.clock.getDelayedCalls(), [])
        wait_gone(leader, other)

    async def test_between_zygotes(self) -> None:
        """Where there is no zygote there is nothing to wait for, and no new one is started."""
        clocked = ClockedReactor()
        spawner = await self.spawner("nonsense", clocked=clocked)
        await eventually(lambda: spawner._zygote is None, "the end of the zygote")
        self.assertIsNone(spawner.stop())
        self.assertEqual(clocked.clock.getDelayedCalls(), [])

    async def test_pending_kill(self) -> None:
        """A call that is being killed does not outlive the service, nor does its timer."""
        clocked = ClockedReactor()
        spawner = await self.spawner(STUBBORN, clocked=clocked)
        call = Running(spawner, "f", "[]")
        pids = await call.packet()
        call.kill()
        await self.stop(spawner)
        self.assertFalse(any(map(alive, pids)))
        self.assertEqual(clocked.clock.getDelayedCalls(), [])

    async def stop(self, spawner: Spawner) -> None:
        """Stop a service that has a zygote."""
        stopped: Deferred[None] | None = spawner.stop()
        assert stopped is not None
        await stopped
        await turns(2)
