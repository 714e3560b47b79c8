"""Tests of the ``harp`` command on a terminal, by what stands on the screen."""

from __future__ import annotations

import json
import signal

from harp import CALL_CANCELLED
from harpcaller.demo.deployment import HOST
from tests.acceptance.daemons import eventually
from tests.harp.cli_deployment import CommandTestCase, shared
from tests.harp.terminal import Terminal

JOB = "J" * 36
WIDTHS = (80, 120)
BAR = "━━━━━━╺━━━━━━━━━━━━━━━━━"
GREETING = """\
{
  "text": "Hello, Ada!",
  "times": 1,
  "found": null
}"""


class ScreenTests(CommandTestCase):
    """What people see."""

    def test_result(self) -> None:
        """A result is indented, and nothing of what moved is left."""
        for columns in WIDTHS:
            terminal = self.terminal("call", HOST, "greet", "Ada", columns=columns)
            self.assertEqual(terminal.end(), 0)
            self.assertEqual(terminal.screen, f"job {JOB}\n{GREETING}")
            self.assertIn(b"\x1b[32m", terminal.raw)

    def test_without_colours(self) -> None:
        """NO_COLOR is obeyed, and so is a terminal that has none; that one has nothing moving."""
        plain = GREETING.replace("\n", "\r\n").encode()
        for name, value in (("NO_COLOR", "1"), ("TERM", "dumb")):
            terminal = self.terminal("call", HOST, "greet", "Ada", environment={name: value})
            self.assertEqual(terminal.end(), 0)
            self.assertIn(plain, terminal.raw)
        self.assertNotIn(b"\x1b", terminal.raw)

    def test_what_a_terminal_would_obey(self) -> None:
        """Nothing that a procedure returns reaches the terminal as a command to it."""
        terminal = self.terminal("call", HOST, "obey", environment={"NO_COLOR": "1"})
        self.assertEqual(terminal.end(), 0)
        found = terminal.raw[terminal.raw.index(b"{") : terminal.raw.rindex(b"}") + 1]
        self.assertTrue(found.replace(b"\r\n", b"").decode().isprintable(), found)
        self.assertEqual(json.loads(found), {"\x1b]0;owned\x07": "\x9b31m\u202e"})

    def test_stream_with_progress(self) -> None:
        """Packets come live above a line with a bar; one that is progress alone is the bar's."""
        for columns in WIDTHS:
            self.gate.unlink(missing_ok=True)
            terminal = self.terminal("call", HOST, "steps", str(self.gate), columns=columns)
            above = f'job {JOB}\n{{"step":"first"}}\n'
            terminal.wait_for(f"{above}⠋ {BAR} 1/4 files 25% running on {HOST} 0:00")
            self.gate.touch()
            self.assertEqual(terminal.end(), 0)
            last = '{"step":"last","progress":{"done":4,"total":4,"unit":"files"}}'
            self.assertEqual(terminal.screen, above + last)

    def test_queue(self) -> None:
        """A line tells the place in the queue, cut to what the terminal has."""
        name = {"a queue of": "that name", "the longest": "that there is"}
        for columns in WIDTHS:
            self.gate.unlink(missing_ok=True)
            queue = ["--queue", json.dumps({**name, "columns": columns})]
            first = self.rpc.host(HOST, queue={**name, "columns": columns}).wait(str(self.gate))
            terminal = self.terminal("call", HOST, "greet", "Ada", *queue, columns=columns)
            said = (
                f'⠋ waiting in queue {{"a queue of":"that name","columns":{columns},"the longest"'
            )
            said += ':"… 0:00' if columns == 80 else ':"that there is"}, next in it 0:00'
            terminal.wait_for(said)
            self.gate.touch()
            self.assertEqual(terminal.end(), 0)
            self.assertEqual(terminal.screen, f"job {JOB}\n{GREETING}")
            first.get()

    def test_silent_dispatcher(self) -> None:
        """A dispatcher that stops in mid-follow is told of, and watched on when it is back."""
        terminal = self.terminal("call", HOST, "wait", str(self.gate))
        terminal.wait_for(f"running on {HOST}")
        dispatcher = shared().harpcaller.process
        assert dispatcher is not None
        self.addCleanup(dispatcher.send_signal, signal.SIGCONT)
        dispatcher.send_signal(signal.SIGSTOP)
        terminal.wait_for("no answer from the dispatcher for")
        dispatcher.send_signal(signal.SIGCONT)
        terminal.wait_for(f"running on {HOST}")
        self.gate.touch()
        self.assertEqual(terminal.end(), 0)
        self.assertEqual(terminal.screen, f'job {JOB}\n"waited"')

    def test_failure(self) -> None:
        """A failure is told in red."""
        terminal = self.terminal("call", HOST, "fail", "no such disk")
        self.assertEqual(terminal.end(), 1)
        told = f"job {JOB}\nError: the procedure raised LookupError: no such disk"
        self.assertEqual(terminal.screen, told)
        self.assertIn(b"\x1b[31m\x1b[1mError: \x1b[0m", terminal.raw)

    def test_several_jobs(self) -> None:
        """Several jobs are watched at once; the line counts those that have ended."""
        jobs = [self.rpc.host(HOST).count(1).id(), self.rpc.host(HOST).wait(str(self.gate)).id()]
        terminal = self.terminal("follow", *jobs)
        above = f'{JOB} 0\n{JOB} {{"packets":1}}\n'
        terminal.wait_for(f"{above}⠋ 1 of 2 jobs have ended 0:00")
        self.gate.touch()
        self.assertEqual(terminal.end(), 0)
        self.assertEqual(terminal.screen, f'{above}{JOB} "waited"')

    def test_secret_is_asked_for(self) -> None:
        """A secret argument that is missing is asked for, and not shown while it is typed."""
        terminal = self.terminal("call", HOST, "set_password", "ada")
        terminal.wait_for("password:")
        terminal.type("correct horse\n")
        self.assertEqual(terminal.end(), 0)
        self.assertEqual(terminal.screen, f'password:\njob {JOB}\n"ada: 13 characters, weak"')


class CtrlCTests(CommandTestCase):
    """Ctrl-C on a terminal asks what is to become of the job."""

    question = "Cancel the job, leave it running, or go on watching? [c/L/w]"

    def asked(self) -> Terminal:
        """Return a terminal on which that was asked."""
        terminal = self.terminal("call", HOST, "steps", str(self.gate))
        terminal.wait_for("1/4 files")
        terminal.ctrl_c()
        terminal.wait_for(self.question)
        return terminal

    def test_cancel(self) -> None:
        """The job is cancelled, and the command ends as for any that was."""
        terminal = self.asked()
        terminal.type("c\n")
        self.assertEqual(terminal.end(), 3)
        last = terminal.screen.splitlines()[-2:]
        self.assertEqual(last, [f"{self.question} c", "Error: the job was cancelled"])
        self.assertIs(self.rpc.job(terminal.job_id).result(), CALL_CANCELLED)

    def test_leave(self) -> None:
        """The job is left running after Enter alone, or a second Ctrl-C."""
        for answer in ("\n", None):
            terminal = self.asked()
            if answer is None:
                terminal.ctrl_c()
            else:
                terminal.type(answer)
            self.assertEqual(terminal.end(), 130)
            last = terminal.screen.splitlines()[-2:]
            told = f"job {JOB} is left running; to go on with it:"
            self.assertEqual(last, [told, f"  harp follow {JOB} --since 2"])
            self.assertEqual(self.rpc.job(terminal.job_id).detail()["state"], "running")

    def test_go_on(self) -> None:
        """Who goes on watching misses nothing; what is no answer is asked again."""
        terminal = self.asked()
        terminal.type("x\n")
        terminal.wait_for(f"{self.question} x\n{self.question}")
        self.gate.touch()
        job = self.rpc.job(terminal.job_id)
        eventually(lambda: job.end_time() is not None, "the job ended")
        terminal.type("w\n")
        self.assertEqual(terminal.end(), 0)
        self.assertIn('"last"', terminal.screen)
