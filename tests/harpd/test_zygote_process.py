"""Tests of harpd.zygote_process: what a zygote says, and what is left of it and its calls."""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path
from typing import Any

from twisted.logger import capturedLogs

from harpd.offers import ProceduresError
from harpd.zygote import LINK_NOW
from tests.harpd.spawners import (
    Running,
    SpawnerTestCase,
    few_descriptors,
    guard_pid,
    loading_guard,
    printed,
    zygote_pid,
)
from tests.harpd.waiting import PATIENCE, descriptors, eventually, turns, wait_gone

ONE = "@procedure\ndef f(*args): return list(args)\n"


class EndTests(SpawnerTestCase):
    """What a zygote said before it died counts."""

    async def test_sudden_end(self) -> None:
        """A file that ends its process while it is loaded is a mistake too."""
        await self.spawner("os._exit(7)")
        self.assertEqual(len(self.mistakes), 1)
        self.assertIn("temp: the process that loads it ended with exit status 7", self.mistakes[0])

    async def test_all_mistakes_of_an_ended_zygote(self) -> None:
        """Mistakes that were sent before the end are taken, though the end is seen with them."""
        text = "".join(f"@procedure(timeout=0)\ndef f{n}(): pass\n" for n in range(150))
        spawner = self.made(text)
        spawner.start()
        catalogue = spawner.catalogue()
        wait_gone(await loading_guard(spawner))  # blocks the reactor, which then finds all at once
        with self.assertRaises(ProceduresError) as caught:
            await catalogue
        self.assertEqual(len(caught.exception.mistakes), 150)

    async def test_result_before(self) -> None:
        """A result that was on its way when the zygote died is not lost."""
        spawner = await self.spawner(ONE)
        call = Running(spawner, "f", "[1]")
        # In one turn of the reactor, so that it finds the result and the end together.
        transport: Any = call.process.transport
        transport.doWrite()
        self.assertTrue(select.select([transport], [], [], PATIENCE)[0])
        guard, pid = guard_pid(spawner), zygote_pid(spawner)
        os.kill(pid, signal.SIGKILL)
        wait_gone(guard)
        self.assertEqual(call.received, [])
        self.assertEqual(await call.end(), ("result", [1]))


class EnvironmentTests(SpawnerTestCase):
    """What the zygote gets beside harpd's own environment is not handed on."""

    async def test_linker(self) -> None:
        """The zygote is linked at its start, what its calls start is not."""
        spawner = await self.spawner("@procedure\ndef f(name): return os.environ.get(name)")
        environment = Path(f"/proc/{zygote_pid(spawner)}/environ").read_bytes().split(b"\0")
        self.assertIn(f"{LINK_NOW}=1".encode(), environment)
        self.assertEqual(await Running(spawner, "f", f'["{LINK_NOW}"]').end(), ("result", None))


class PrintedTests(SpawnerTestCase):
    """What is printed goes to the log, with the name of who printed it."""

    async def test_printed(self) -> None:
        """What a call prints is logged under its number and the procedure's name."""
        spawner = await self.spawner("""
            @procedure
            def f():
                print("one\\ntwo\\x1b")
                print("three", end="")
        """)
        with printed("f") as texts:
            call = Running(spawner, "f", "[]")
            self.assertEqual(await call.end(), ("result", None))
            await eventually(lambda: "three" in "".join(texts()), "all that was printed")
        start = f"call {call.number} of f printed: "
        self.assertTrue(all(text.startswith(start) for text in texts()))
        printed_lines = "\n".join(text.removeprefix(start) for text in texts())
        self.assertEqual(printed_lines, "one\ntwo\\x1b\nthree")

    async def test_megabytes_printed(self) -> None:
        """Much output is logged whole and holds nothing up."""
        spawner = await self.spawner("@procedure\ndef f(): print('x' * 3_000_000)")
        with printed("f") as texts:
            self.assertEqual(await Running(spawner, "f", "[]").end(), ("result", None))
            await eventually(lambda: "".join(texts()).count("x") == 3_000_000, "all of it")

    async def test_file_prints(self) -> None:
        """What the file prints while it is loaded is logged."""
        with capturedLogs() as logged:
            await self.spawner("print('hello')\nprint('world', file=sys.stderr)")
            await eventually(
                lambda: "world" in "".join(str(event.get("text")) for event in logged), "both"
            )


class DescriptorTests(SpawnerTestCase):
    """Descriptors come to an end with their calls."""

    async def test_nothing_leaks(self) -> None:
        """However calls end, no descriptor is left of them, and no process."""
        spawner = await self.spawner("""
            @streaming_procedure
            def f(how):
                print("x" * 100_000)
                yield "packet"
                if how == "exit":
                    os._exit(3)
                elif how == "close":
                    os.closerange(0, 256)
                elif how == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                elif how == "raise":
                    raise ValueError
                elif how == "background":
                    sys.stdin = open("/dev/null")
                    if os.fork() == 0:
                        os.closerange(3, 256)
                        os.execv("/bin/sleep", ["sleep", "0.1"])
                yield Result("x" * 500_000)
        """)
        ways = ["exit", "close", "kill", "raise", "background", "return"]
        before: set[str] | None = None
        for _ in range(2):
            calls = [Running(spawner, "f", f'["{how}"]') for how in ways * 3]
            kinds = [(await call.end())[0] for call in calls]
            self.assertEqual(
                kinds, ["error", "error", "error", "exception", "result", "result"] * 3
            )
            await eventually(lambda: not spawner._zygote or not spawner._zygote._calls, "all ends")
            await turns(3)
            if before is None:
                before = descriptors()
            self.assertEqual(descriptors(), before)

    async def test_no_descriptors(self) -> None:
        """Without descriptors a call fails before it starts, and leaves none open."""
        spawner = await self.spawner(ONE)
        before = descriptors()
        needed = 0
        while True:
            with few_descriptors(needed):
                try:
                    call = Running(spawner, "f", "[1]")
                    break
                except OSError:
                    needed += 1
            await turns(2)
            self.assertEqual(descriptors(), before, f"{needed - 1} were free")
        self.assertGreater(needed, 0)
        self.assertEqual(await call.end(), ("result", [1]))
