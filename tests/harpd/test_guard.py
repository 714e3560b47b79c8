"""Tests of harpd.guard: whoever of a call's supervisors is killed, nothing of the call is left."""

from __future__ import annotations

import os
import signal

from twisted.trial.unittest import SynchronousTestCase

from harpd.guard import KILL_ZYGOTE, Register
from tests.harpd.test_zygote import LEAVING, STUBBORN
from tests.harpd.waiting import PATIENCE, alive, wait_gone, wait_until
from tests.harpd.zygotes import BareCall, ZygoteTestCase, zygote_below

BACKGROUND = """
    @procedure
    def f():
        background = subprocess.Popen(["/bin/sleep", "100"], start_new_session=True)
        background.returncode = 0  # else there is a warning
        return background.pid
"""


class RegisterTests(SynchronousTestCase):
    """Which processes the guard takes for calls."""

    def test_entered_and_struck(self) -> None:
        """One that has entered itself is a call until it is struck; others are not."""
        register = Register(os.getpid())
        self.addCleanup(os.close, register._file)
        pid = os.fork()
        if pid == 0:
            try:
                register.enter()
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        self.assertEqual([register.holds(pid + n) for n in (-1, 0, 1)], [False, True, False])
        register.strike(pid)
        self.assertFalse(register.holds(pid))


class GuardTestCase(ZygoteTestCase):
    """Has calls that end by KILL only."""

    def stubborn(self) -> tuple[BareCall, int, list[int]]:
        """Start one; return it, its zygote and all of its processes."""
        call = self.start(STUBBORN)
        pids = call.line()["stream"]
        self.assertTrue(all(map(alive, pids)))
        return call, zygote_below(call.zygote.process.pid), pids


class ZygoteDiesTests(GuardTestCase):
    """The zygote is killed, as by the kernel when memory is short."""

    def test_stubborn_call(self) -> None:
        """What does not end at TERM is killed after the grace, in whatever session it is."""
        call, zygote, pids = self.stubborn()
        os.kill(zygote, signal.SIGKILL)
        self.assertEqual(call.zygote.process.wait(PATIENCE), 128 + signal.SIGKILL)
        wait_gone(*pids)
        self.assertEqual(call.zygote.printed(), "")

    def test_finally(self) -> None:
        """Its calls can tidy up."""
        call = self.start(
            """
            @procedure
            def f():
                try:
                    print("ready", flush=True)
                    while True:
                        signal.pause()
                finally:
                    print("tidied")
            """,
            kill_grace=PATIENCE,
        )
        self.assertEqual(call.printed_line(), b"ready\n")
        os.kill(zygote_below(call.zygote.process.pid), signal.SIGKILL)
        self.assertEqual(call.to_end(), (b"", b"tidied\n"))

    def test_leaving_call(self) -> None:
        """What a call that ended at TERM has left is killed too."""
        call = self.start(LEAVING)
        self.assertEqual(call.printed_line(), b"ready\n")
        os.kill(zygote_below(call.zygote.process.pid), signal.SIGKILL)
        wait_gone(call.line()["result"])

    def test_call_that_ended(self) -> None:
        """What a call left that ended by itself is left alone."""
        call = self.start(BACKGROUND)
        background = call.line()["result"]
        self.addCleanup(os.kill, background, signal.SIGKILL)
        call.exit_code()
        os.kill(zygote_below(call.zygote.process.pid), signal.SIGKILL)
        call.zygote.process.wait(PATIENCE)
        self.assertTrue(alive(background))

    def test_with_the_daemon(self) -> None:
        """That the daemon dies with it makes no difference."""
        call, zygote, pids = self.stubborn()
        os.kill(zygote, signal.SIGKILL)
        call.zygote.control.close()
        wait_gone(*pids)

    def test_zygote_that_hangs(self) -> None:
        """One that does not react is killed when the daemon asks for it."""
        call, zygote, pids = self.stubborn()
        os.kill(zygote, signal.SIGSTOP)
        call.zygote.process.send_signal(KILL_ZYGOTE)
        wait_gone(zygote, *pids)


class GuardDiesTests(GuardTestCase):
    """The guard is killed."""

    def test_alone(self) -> None:
        """The zygote ends its calls and itself, and lets the daemon know at once."""
        call, zygote, pids = self.stubborn()
        call.zygote.process.kill()
        self.assertIsNone(call.zygote.receive())
        wait_gone(zygote, *pids)

    def test_without_calls(self) -> None:
        """A zygote does not go on without it."""
        zygote = self.zygote("@procedure\ndef f(): pass")
        pid = zygote_below(zygote.process.pid)
        zygote.process.kill()
        wait_gone(pid)

    def test_with_the_zygote(self) -> None:
        """If nobody is left to end it, a call ends itself with all it has started.

        Also one that ignores TERM.
        """
        call = self.start("""
            @streaming_procedure
            def f():
                read, write = os.pipe()
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                ignoring = os.fork()
                if ignoring == 0:
                    os.setsid()
                    os.write(write, b"x")
                    while True:
                        signal.pause()
                os.read(read, 1)
                yield [os.getpid(), ignoring]
                while True:
                    signal.pause()
        """)
        pids = call.line()["stream"]
        guard = call.zygote.process
        zygote = zygote_below(guard.pid)
        os.kill(zygote, signal.SIGSTOP)  # so that it can't do it
        guard.kill()
        guard.wait(PATIENCE)
        os.kill(zygote, signal.SIGKILL)
        wait_gone(*pids)

    def test_group(self) -> None:
        """Zygote and guard do not go together when a process group is killed."""
        zygote = self.zygote("@procedure\ndef f(): pass")
        pid = zygote_below(zygote.process.pid)
        self.assertEqual(os.getpgid(zygote.process.pid), zygote.process.pid)
        self.assertEqual(os.getpgid(pid), pid)
        wait_until(lambda: alive(pid), "its life")
