"""Tests of harpd.zygote: the real process, message by message."""

from __future__ import annotations

import json
import os
import signal
import socket
from functools import partial
from pathlib import Path

from harpd import tree
from harpd.orders import MAX_MESSAGE
from tests.harpd.test_orders import BAD
from tests.harpd.waiting import PATIENCE, alive, wait_gone, wait_until
from tests.harpd.zygotes import BareCall, BareZygote, ZygoteTestCase, write_procedures, zygote_below

STUBBORN = """
    @streaming_procedure
    def f():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        ready, told = os.pipe()
        ignoring = os.fork()
        if ignoring == 0:
            os.setsid()
            os.write(told, b"x")
            while True:
                signal.pause()
        os.read(ready, 1)
        yield [os.getpid(), ignoring, subprocess.Popen(["/bin/sleep", "100"]).pid]
        while True:
            signal.pause()
"""
"""A procedure that with all it starts, in whatever session, does not end at TERM."""

LEAVING = """
    @procedure
    def f():
        ready, told = os.pipe()
        ignoring = os.fork()
        if ignoring == 0:
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.write(told, b"x")
            while True:
                signal.pause()
        os.read(ready, 1)
        try:
            print("ready", flush=True)
            signal.pause()
        except BaseException:
            return ignoring
"""
"""A procedure that ends at TERM as if nothing was, and leaves a process that does not."""


class LoadTests(ZygoteTestCase):
    """The messages from its start until it is ready."""

    def bare(self, procedures: str, path: list[str] | None = None) -> BareZygote:
        """Start a zygote without taking its catalogue."""
        zygote = BareZygote(write_procedures(self.mktemp(), procedures), path)
        self.addCleanup(zygote.close)
        return zygote

    def test_catalogue(self) -> None:
        """It tells each procedure with what its caller must know, then that it is ready."""
        zygote = self.bare("""
            @procedure
            def plain(): pass

            @streaming_procedure(timeout=1.5)
            def stream(): yield

            def unmarked(): pass
        """)
        *procedures, last = zygote.loaded()
        told = [message["procedure"] for message in procedures]
        found = [(each["name"], each["streaming"], each["timeout"]) for each in told]
        self.assertEqual(found, [("plain", False, None), ("stream", True, 1.5)])
        self.assertEqual(last, {"ready": True})

    def test_large_catalogue(self) -> None:
        """However much is to be told of a procedure, it is told, and the zygote is ready."""
        zygote = self.bare("""
            def large(a: str = "\\u017c" * 100_000): pass
            large.__doc__ = "\\U0001f600" * 1_000_000
            for number in range(50):
                globals()[f"f{number}"] = procedure(large)
        """)
        *procedures, last = zygote.loaded()
        self.assertEqual(last, {"ready": True})
        self.assertEqual(len(procedures), 50)
        self.assertEqual(procedures[0]["procedure"]["parameters"], {"type": "object"})

    def test_defaults(self) -> None:
        """The defaults of the configuration hold for its procedures."""
        file = write_procedures(self.mktemp(), "@procedure\ndef f(): return os.getuid()")
        zygote = BareZygote(file, defaults={"timeout": 7.5, "uid": os.getuid()})
        self.addCleanup(zygote.close)
        self.assertEqual(zygote.loaded()[0]["procedure"]["timeout"], 7.5)
        self.assertEqual(zygote.start("f").line(), {"result": os.getuid()})
        wrong = BareZygote(file, defaults={"uid": "no such", "gid": ["users"]})
        self.addCleanup(wrong.close)
        mistake, last = wrong.loaded()
        self.assertIn("there is no user 'no such'", mistake["mistake"])
        self.assertEqual(last, {"ready": False})

    def test_mistakes(self) -> None:
        """It tells each mistake, that it is not ready, and ends."""
        zygote = self.bare("""
            @procedure(timeout=0)
            def a(): pass

            @procedure
            def b(): yield
        """)
        *mistakes, last = zygote.loaded()
        self.assertEqual([set(mistake) for mistake in mistakes], [{"mistake"}] * 2)
        self.assertEqual(last, {"ready": False})
        self.assertIsNone(zygote.receive())
        self.assertEqual(zygote.process.wait(PATIENCE), 0)

    def test_long_mistake(self) -> None:
        """A mistake that needs more than one message is cut short."""
        zygote = self.bare(f"raise ValueError('x' * {10 * MAX_MESSAGE})")
        mistake, last = zygote.loaded()
        self.assertEqual(len(mistake["mistake"]), 4000)
        self.assertEqual(last, {"ready": False})

    def test_modules(self) -> None:
        """Procedures may come from modules of the given folders, not of the working directory."""
        folder = Path(self.mktemp())
        folder.mkdir()
        write_procedures(folder / "own_procedures.py", "@procedure\ndef f(): pass\n")
        procedures = "from own_procedures import f\n"
        found = self.bare(procedures, [str(folder.absolute())]).loaded()
        self.assertEqual(found[0]["procedure"]["name"], "f")
        self.patch(os, "environ", {**os.environ, "PYTHONPATH": ""})
        self.addCleanup(os.chdir, Path.cwd())
        zygote = BareZygote(write_procedures(self.mktemp(), procedures))
        self.addCleanup(zygote.close)
        os.chdir(folder)
        found = self.bare(procedures).loaded()
        self.assertIn("No module named 'own_procedures'", found[0]["mistake"])

    def test_daemon_gone(self) -> None:
        """A zygote ends with its daemon also while it loads, however long that may take."""
        begun = Path(self.mktemp()).absolute()
        zygote = self.bare(f"open('{begun}', 'w').close(); signal.pause()")
        wait_until(begun.exists, "the beginning")
        (pid,) = tree.descendants(zygote.process.pid)
        zygote.control.close()
        zygote.process.wait(PATIENCE)
        self.assertFalse(alive(pid))

    def test_file_that_forks(self) -> None:
        """What the file forks ends with it, whichever way: there is one zygote."""
        for end in ("pass", "sys.exit()"):
            zygote = self.zygote(f"""
                forked = os.fork()
                if forked == 0:
                    {end}
                else:
                    os.waitpid(forked, 0)

                @procedure
                def f():
                    return os.getppid()
            """)
            call = zygote.start("f")
            replied, _ = call.to_end()
            call.exit_code()
            (above,) = tree.descendants(zygote.process.pid)
            self.assertEqual(json.loads(replied), {"result": above})

    def test_printed_once(self) -> None:
        """What the file prints while it is loaded is not printed again by every fork."""
        zygote = self.zygote("print('loaded', end='')\n@procedure\ndef f(): pass")
        for _ in range(2):
            self.assertEqual(zygote.start("f").to_end()[1], b"")
        self.assertEqual(zygote.printed(), "loaded")

    def test_stays_small(self) -> None:
        """It loads neither Twisted nor the wire modules, and no fork collects what it has."""
        call = self.start("""
            import gc

            @procedure
            def f():
                heavy = {"twisted", "msgspec", "yaml", "OpenSSL", "harp", "asyncio"}
                return [sorted(heavy & set(sys.modules)), gc.get_freeze_count() > 0]
        """)
        self.assertEqual(call.line(), {"result": [[], True]})

    def test_forks_import_nothing(self) -> None:
        """What a fork imports, each would import again: none does but for the procedure."""
        zygote = self.zygote("""
            def tell(event, args):
                if event == "import":
                    os.write(2, b"imports " + args[0].encode())

            sys.addaudithook(tell)

            @procedure
            def f(a: int): return [a, 1.5, "x"]

            @procedure
            def fail(): raise ValueError("x")

            @streaming_procedure
            def stream(context): yield {"a": None}

            @procedure
            def load(): import colorsys
        """)
        for name, arguments in [("f", "[1]"), ("f", '{"b":1}'), ("fail", "[]"), ("stream", "[{}]")]:
            replied, printed = zygote.start(name, arguments).to_end()
            self.assertNotEqual(replied, b"")
            self.assertNotIn(b"imports", printed)
        self.assertEqual(zygote.start("load").to_end()[1], b"imports colorsys")


class CallTests(ZygoteTestCase):
    """Calls are forked, and their ends told."""

    def test_many_at_once(self) -> None:
        """The end of each of many calls is told with its own number and status."""
        zygote = self.zygote("@procedure\ndef f(status): os._exit(status)")
        calls = [zygote.start("f", f"[{status}]") for status in range(20)]
        self.assertEqual([call.exit_code() for call in calls], list(range(20)))

    def test_fork_fails(self) -> None:
        """A call that can't be forked is told with the reason, and the next may be."""
        zygote = self.zygote("""
            fork = os.fork

            def refuse():
                os.fork = fork
                raise BlockingIOError(11, "out of processes")

            os.fork = refuse

            @procedure
            def f(): pass
        """)
        call = zygote.start("f")
        self.assertEqual(zygote.receive(), {"failed": 1, "message": "fork: out of processes"})
        self.assertEqual(call.to_end(), (b"", b""))
        self.assertEqual(zygote.start("f").to_end(), (b'{"result":null}\n', b""))

    def test_orphans_reaped(self) -> None:
        """What calls left behind does not stay as zombies when it ends."""
        call = self.start("""
            @procedure
            def f():
                background = subprocess.Popen(["/bin/sleep", "100"])
                background.returncode = 0  # else there is a warning
                return background.pid
        """)
        pid = call.line()["result"]
        call.exit_code()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not os.path.exists(f"/proc/{pid}"), "its reaping")

    def test_signals_ignored(self) -> None:
        """What is sent to the daemon's processes from outside is not its business."""
        zygote = self.zygote("@procedure\ndef f(): return 1")
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            zygote.process.send_signal(number)
        self.assertEqual(zygote.start("f").line(), {"result": 1})
        self.assertEqual(os.getsid(zygote.process.pid), zygote.process.pid)

    def test_unknown_call(self) -> None:
        """Signals to a call that ended already do nothing."""
        zygote = self.zygote("@procedure\ndef f(): return 1")
        call = zygote.start("f")
        call.exit_code()
        for kill in (False, True):
            zygote.signal(call, kill)
        self.assertEqual(zygote.start("f").line(), {"result": 1})


class SignalTests(ZygoteTestCase):
    """TERM and KILL reach the whole tree of a call."""

    def test_kill(self) -> None:
        """KILL ends what ignores TERM, in whatever session it is, and only that call."""
        zygote = self.zygote(STUBBORN)
        call, other = zygote.start("f"), zygote.start("f")
        pids, others = call.line()["stream"], other.line()["stream"]
        zygote.signal(call, kill=False)
        zygote.signal(call, kill=True)
        self.assertEqual(call.exit_code(), -signal.SIGKILL)
        wait_gone(*pids)
        self.assertTrue(all(map(alive, others[:2])))

    def test_procedure_ended(self) -> None:
        """What was told to end is killed when its time is up, though the procedure has ended."""
        call = self.start(LEAVING)
        self.assertEqual(call.printed_line(), b"ready\n")
        call.zygote.signal(call, kill=False)
        pid = call.line()["result"]
        self.assertTrue(alive(pid))
        call.zygote.signal(call, kill=True)
        wait_gone(pid)

    def test_leader_gone(self) -> None:
        """The same, though the process of the call has ended too."""
        call = self.start(
            LEAVING.replace("return ignoring", "print(ignoring, flush=True), os._exit(0)")
        )
        self.assertEqual(call.printed_line(), b"ready\n")
        call.zygote.signal(call, kill=False)
        pid = int(call.printed_line())
        self.assertEqual(call.exit_code(), 0)
        self.assertTrue(alive(pid))
        call.zygote.signal(call, kill=True)
        wait_gone(pid)


class EndTests(ZygoteTestCase):
    """When the daemon is gone, all that it started goes."""

    def stubborn(self) -> tuple[BareCall, list[int]]:
        """Start a call that ends by KILL only, and return it with all of its processes."""
        call = self.start(STUBBORN)
        pids = call.line()["stream"]
        self.assertLess(set(pids), set(tree.descendants(call.zygote.process.pid)) | {0})
        return call, pids

    def assert_all_gone(self, zygote: BareZygote, pids: list[int]) -> None:
        """Check that the zygote ends in order, and then nothing of its calls is left."""
        self.assertEqual(zygote.process.wait(PATIENCE), 0, zygote.printed())
        wait_gone(*pids)
        self.assertEqual(zygote.printed(), "")

    def test_no_calls(self) -> None:
        """Without calls it simply ends."""
        zygote = self.zygote("@procedure\ndef f(): pass")
        zygote.control.close()
        self.assert_all_gone(zygote, [])

    def test_stubborn_call(self) -> None:
        """What does not end at TERM is killed after the grace, in whatever session it is."""
        call, pids = self.stubborn()
        call.zygote.control.close()
        self.assert_all_gone(call.zygote, pids)

    def test_leaving_call(self) -> None:
        """What a call that ended at TERM has left is killed too."""
        call = self.start(LEAVING)
        self.assertEqual(call.printed_line(), b"ready\n")
        call.zygote.control.close()
        self.assert_all_gone(call.zygote, [call.line()["result"]])

    def test_finally(self) -> None:
        """The calls can tidy up."""
        call = self.start("""
            @procedure
            def f():
                try:
                    print("ready", flush=True)
                    signal.pause()
                finally:
                    print("tidied")
        """)
        self.assertEqual(call.printed_line(), b"ready\n")
        call.zygote.control.close()
        self.assertEqual(call.to_end(), (b"", b"tidied\n"))

    def test_unread_messages(self) -> None:
        """A daemon that died before it took all messages is gone like any other."""
        call, pids = self.stubborn()
        quick = call.zygote.start("f")
        leader, *others = quick.line()["stream"]
        for pid in (leader, *others):
            os.kill(pid, signal.SIGKILL)
        # One message is there now and stays unread, so that closing resets the connection.
        self.assertEqual(call.zygote.control.recv(1, 2), b"{")  # 2 is MSG_PEEK
        call.zygote.control.close()
        self.assert_all_gone(call.zygote, pids)

    def test_in_the_middle_of_a_message(self) -> None:
        """A start that came before the end is obeyed and undone."""
        zygote = self.zygote(STUBBORN)
        call = zygote.start("f")
        zygote.control.close()
        replied, _ = call.to_end()
        pids = [pid for line in replied.splitlines() for pid in json.loads(line)["stream"]]
        self.assert_all_gone(zygote, pids)


class ForgedTests(ZygoteTestCase):
    """Who has taken over the network-facing process gets no more than calls of what is offered."""

    def setUp(self) -> None:
        self.bare = self.zygote("""
            _hidden = lambda: os.getuid()
            hidden = procedure(lambda: None)
            del globals()["hidden"]

            def unmarked(): pass

            @procedure
            def f(): return os.getpid()
        """)
        self.pid = zygote_below(self.bare.process.pid)
        self.opened = self.held()
        self.running = self.bare.start("f")
        self.assertIsInstance(self.running.line()["result"], int)
        self.running.exit_code()

    def held(self) -> list[str]:
        """Return what the zygote has open."""
        return sorted(os.listdir(f"/proc/{self.pid}/fd"))

    def send(self, data: bytes, *descriptors: int) -> None:
        """Send what is no order."""
        socket.send_fds(self.bare.control, [data], descriptors)

    def check_unharmed(self, *words: str) -> None:
        """Check that the zygote is what it was, and has logged these words."""
        call = self.bare.start("f")
        self.assertIsInstance(call.line()["result"], int)
        self.assertEqual(call.exit_code(), 0)
        wait_until(lambda: self.held() == self.opened, "that nothing is left open")
        self.assertEqual(zygote_below(self.bare.process.pid), self.pid)
        for word in words:
            self.assertIn(word, self.bare.printed())

    def test_not_offered(self) -> None:
        """Only what the procedures file marks can be started, whatever else is in its module."""
        for name in ("unmarked", "_hidden", "hidden", "os", "os.system", "procedure", "", "f "):
            call = self.bare.start(name)
            expected = {"failed": call.number, "message": "there is no such procedure"}
            self.assertEqual(self.bare.receive(), expected)
            self.assertEqual(call.to_end(), (b"", b""))
        self.check_unharmed("an order was refused: ", "there is no such procedure")

    def test_garbage(self) -> None:
        """What is no order does nothing, nor does anything that it brings."""
        for message in BAD:
            self.send(json.dumps(message).encode(), 0, 1, 2)
        for data in (b"\xff", b"[" * 60_000, b"", b'{"start":1,"procedure":"f"}x'):
            self.send(data)
            self.send(data, *[0] * 100)
        self.check_unharmed("an order was refused: it is not JSON")

    def test_wrong_descriptors(self) -> None:
        """A call begins with one stream socket and one pipe, and with nothing else."""
        stream, other = socket.socketpair()
        read, write = os.pipe()
        for close in (stream.close, other.close, partial(os.close, read), partial(os.close, write)):
            self.addCleanup(close)
        good = (stream.fileno(), write)
        no_stream = (self.bare.control.fileno(), write)
        wrong: list[tuple[int, ...]] = [(), good[:1], good[::-1], (*good, write), good * 50]
        for number, ends in enumerate([*wrong, no_stream, (good[0], read), (good[0], 0)], 1000):
            self.send(b'{"start":%d,"procedure":"f"}' % number, *ends)
            answer = self.bare.receive()
            self.assertEqual(answer["failed"], number)
            self.assertRegex(answer["message"], "descriptor|pipe can't be written")
        self.check_unharmed()

    def test_signal_with_descriptors(self) -> None:
        """Nothing else than a call begins with descriptors."""
        self.send(b'{"signal":99,"kill":true}', 0, 1)
        self.check_unharmed("Signal(call=99, kill=True) came with descriptors")

    def test_number_twice(self) -> None:
        """A number that a call has can't be given to another, which would hide the first."""
        zygote = self.zygote(STUBBORN)
        call = zygote.start("f")
        pids = call.line()["stream"]
        zygote._calls.clear()  # so that it gives the number once more
        second = zygote.start("f")
        self.assertEqual(second.number, call.number)
        self.assertEqual(second.to_end(), (b"", b""))
        words = "has the number of another call"
        wait_until(lambda: words in zygote.printed(), "that it is logged")
        zygote.signal(call, kill=True)
        self.assertEqual(call.exit_code(), -signal.SIGKILL)
        wait_gone(*pids)
        call.close()

    def test_too_many(self) -> None:
        """There is an end to how many there may be at once."""
        zygote = self.zygote("""
            import harpd.zygote, __main__
            __main__.MAX_CALLS = 3

            @procedure
            def f(): signal.pause()
        """)
        for _ in range(3):
            zygote.start("f")
        zygote.start("f")
        answer = zygote.receive()
        self.assertEqual(answer, {"failed": 4, "message": "there are 3 calls already"})

    def test_numbers_of_processes(self) -> None:
        """A signal goes to a call, never to a process of that number."""
        victim = os.fork()
        if victim == 0:
            signal.pause()
        self.addCleanup(os.waitpid, victim, 0)
        self.addCleanup(os.kill, victim, signal.SIGKILL)
        for kill in (False, True):
            self.send(json.dumps({"signal": victim, "kill": kill}).encode())
        self.send(json.dumps({"wake": victim}).encode())
        self.check_unharmed()
        self.assertTrue(alive(victim))
