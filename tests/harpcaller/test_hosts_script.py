"""Tests of harpcaller.hosts.script: real programs, with a Clock for the limits."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorProcess
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import TestCase

from harpcaller.hosts.script import KILL_GRACE, MAX_ERRORS, Output, ScriptRun, run_script


class RunScriptTests(TestCase):
    """One run, from its start to its end."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()

    def write(self, text: str, interpreter: str = "/bin/sh") -> Path:
        file = self.folder / "script"
        file.write_text(f"#!{interpreter}\n{text}")
        file.chmod(0o755)
        return file

    def start(
        self, text: str, interpreter: str = "/bin/sh", max_output: int = 1000000
    ) -> ScriptRun:
        script = self.write(text, interpreter)
        process_reactor = cast(IReactorProcess, reactor)
        return run_script(process_reactor, self.clock, script, 60.0, max_output)

    async def end(self, run: ScriptRun) -> Output:
        """Wait for the end, and see that no timer is left."""
        output = await run.ended
        self.assertEqual(self.clock.getDelayedCalls(), [])
        return output

    async def started(self, text: str, interpreter: str = "/bin/sh") -> tuple[ScriptRun, bytes]:
        """Start a program and wait until it prints something."""
        run = self.start(text, interpreter)
        ready: Deferred[bytes] = Deferred()
        self.patch(run, "outReceived", ready.callback)
        return run, await ready

    async def test_output(self) -> None:
        """What the program prints and what it complains about are kept apart."""
        output = await self.end(self.start("echo one; echo two >&2; echo three"))
        self.assertEqual(output, Output(b"one\nthree\n", "two", None))

    async def test_stdin_is_empty(self) -> None:
        """The program gets nothing on its standard input, so it can't wait for any."""
        self.assertEqual((await self.end(self.start("cat; echo end"))).printed, b"end\n")

    async def test_no_shell(self) -> None:
        """A program's path is no command line."""
        folder = self.folder / "a b; echo c"
        folder.mkdir()
        self.folder = folder
        self.assertEqual((await self.end(self.start('echo "$#"'))).printed, b"0\n")

    async def test_session_of_its_own(self) -> None:
        """The program leads a session, so that a signal for it does not reach the dispatcher."""
        output = await self.end(
            self.start("import os; print(os.getpid() == os.getsid(0))", sys.executable)
        )
        self.assertEqual(output.printed, b"True\n")

    async def test_status(self) -> None:
        """A status other than 0 is a problem, whatever was printed."""
        output = await self.end(self.start("echo one; exit 3"))
        self.assertEqual(output, Output(b"", "", "it ended with status 3"))

    async def test_signal(self) -> None:
        """So is an end by a signal."""
        output = await self.end(self.start("kill -9 $$"))
        self.assertEqual(output.problem, f"it was killed by signal {signal.SIGKILL.value}")

    async def test_can_not_run(self) -> None:
        """A program whose interpreter is missing is a problem, and the reason is kept."""
        output = await self.end(self.start("", "/nowhere/interpreter"))
        self.assertIn("status", output.problem or "")
        self.assertIn("No such file", output.errors)

    async def test_too_much_output(self) -> None:
        """One byte over the limit and the program is killed and its output dropped."""
        fits = await self.end(self.start("printf 12345", max_output=5))
        self.assertEqual(fits.printed, b"12345")
        output = await self.end(self.start("while :; do echo 123456; done", max_output=5))
        self.assertEqual(output, Output(b"", output.errors, "it printed too much"))

    async def test_errors_are_escaped(self) -> None:
        """They are one line, without what a terminal that shows the log would obey."""
        printf = r"printf '\n one\n\n\tt\two\033[2J\r\nthree\302\205four\000\377\n' >&2"
        output = await self.end(self.start(printf))
        self.assertEqual(output.errors, "one | t       wo\\x1b[2J | three | four\\x00\ufffd")

    async def test_too_many_errors(self) -> None:
        """Of the error output only the start is kept, and the run still counts."""
        script = f"import sys; sys.stderr.write('é' * {MAX_ERRORS}); print('x')"
        output = await self.end(self.start(script, sys.executable))
        self.assertEqual(output, Output(b"x\n", "é" * (MAX_ERRORS // 2), None))

    async def test_time_limit(self) -> None:
        """A program that runs too long is killed together with its children."""
        run, _ = await self.started("sleep 1000 & echo; wait")
        self.clock.advance(59.9)
        self.assertFalse(run.ended.called)
        self.clock.advance(0.1)
        # The child holds the output open, so this would not end if it had been spared.
        self.assertEqual((await self.end(run)).problem, "it still ran after 60 s")

    async def test_deaf_to_term(self) -> None:
        """What does not heed SIGTERM is killed when the grace is over."""
        run, _ = await self.started("trap '' TERM; echo; while :; do sleep 1000; done")
        run.kill("enough")
        self.clock.advance(KILL_GRACE)
        self.assertEqual((await self.end(run)).problem, "enough")

    async def test_may_not_be_killed(self) -> None:
        """A program that has got other rights is told of; its end is still waited for."""
        run, _ = await self.started("echo; exec sleep 1000")

        def refuse(group: int, number: int) -> None:
            raise PermissionError(1, "Operation not permitted")

        patched = self.patch(os, "killpg", refuse)
        with capturedLogs() as told:
            run.kill("enough")
            self.clock.advance(KILL_GRACE)
        self.assertEqual([formatEvent(each).count("not permitted") for each in told], [1, 1])
        self.assertFalse(run.ended.called)
        patched.restore()
        os.killpg(run._leader, signal.SIGKILL)
        self.assertEqual((await self.end(run)).problem, "enough")

    async def test_deserter(self) -> None:
        """A child that left the session with our pipes is not waited for."""
        run, pid = await self.started(
            "import os, time\n"
            "if os.fork() == 0:\n"
            "    os.setsid()\n"
            "    print(os.getpid(), flush=True)\n"
            "time.sleep(1000)\n",
            sys.executable,
        )
        self.addCleanup(os.kill, int(pid), signal.SIGKILL)
        run.kill("enough")
        self.clock.advance(KILL_GRACE)
        self.assertEqual((await self.end(run)).problem, "enough")

    async def test_first_problem_stands(self) -> None:
        """A second kill changes neither the problem nor the time that is left."""
        run, _ = await self.started("echo; sleep 1000")
        run.kill("first")
        run.kill("second")
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.assertEqual((await self.end(run)).problem, "first")

    async def test_killed_at_once(self) -> None:
        """A program that has not come to its own session yet is killed all the same."""
        run = self.start("sleep 1000")
        run.kill("at once")
        self.assertEqual((await self.end(run)).problem, "at once")
