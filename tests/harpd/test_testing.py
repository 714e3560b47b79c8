"""Tests of harpd.testing, and with it of harpd.lone_zygote, lone_calls, lone_call, unprivileged."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

import harp
from harpd import testing
from harpd.options import Defaults
from harpd.testing import ConfigError, Procedures, ProceduresError
from tests.acceptance.daemons import PASSWORD, USER, deploy
from tests.harpd.test_surroundings import need_root
from tests.harpd.waiting import descriptors, processes, wait_gone
from tests.harpd.zygotes import write_procedures

PROCEDURES = """
import json, resource, time
from harpd.proc import Secret

@procedure
def add(a: int, b: int = 1): print("adding"); return (a + b, {1: 1.5, "none": None})

@procedure
def echo(value): return value

@streaming_procedure
def count(to):
    for number in range(to):
        yield {"number": number}
    yield Result("counted")

@streaming_procedure
def breaks():
    yield 1
    raise LookupError("no more")

@procedure
def fails(): raise KeyError("nothing")

@procedure
def leaves(): os._exit(3)

@procedure
def leaves_child():
    if not os.fork():
        time.sleep(1)
        os._exit(0)
    return "left"

@procedure
def is_killed(): os.kill(os.getpid(), signal.SIGKILL)

@procedure
def closes(): os.closerange(3, 20); time.sleep(60)

@procedure
def unreportable(): return {1, 2}

@procedure(max_output=10)
def talks(): return "much too much"

@streaming_procedure(max_packet=5)
def babbles(): yield 1; yield "much too much"

@procedure
def forges():
    for number in range(3, 20):
        try: socket.socket(fileno=os.dup(number)).send(b"nonsense\\n")
        except OSError: pass
    time.sleep(60)

@procedure(timeout=0.2)
def hangs(): time.sleep(60)

@procedure(context="about")
def context(about): return about

@procedure
def secret(password: Secret): return len(password)

@procedure(umask=0o027, directory="/tmp", environment={"OWN": "1"}, open_files=50, cpu=9)
def special(): return surroundings()

@procedure
def surroundings():
    mask = os.umask(0)
    limits = [resource.getrlimit(number) for number in range(10)]
    return [os.getcwd(), mask, dict(os.environ), limits, os.getuid(), os.getgroups(), sys.path[1:]]

@streaming_procedure(lock="one")
def holds():
    yield os.getpid()
    time.sleep(60)

@procedure(lock="one", lock_wait=0)
def wants_at_once(): return "had it"

@procedure(lock="one", lock_wait=0.1)
def wants(): return "had it"

@procedure(lock="one")
def wants_ever(): return "had it"

@streaming_procedure
def tidies():
    try:
        yield os.getpid()
        time.sleep(60)
    finally:
        print("tidied")

@streaming_procedure
def stays():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    yield os.getpid()
    while True: time.sleep(60)

@procedure
def shouts(): print("x" * (3 << 20))
"""

CALLS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("add", (1, 2), {}),
    ("add", (), {"b": 5, "a": 1}),
    ("add", (1, "2"), {}),
    ("add", (), {"c": 1}),
    ("echo", ("x" * 900_000,), {}),
    ("echo", ([1.0, None, {"a": "ä"}, 10**30],), {}),
    ("count", (3,), {}),
    ("count", (0,), {}),
    ("breaks", (), {}),
    ("fails", (), {}),
    ("leaves", (), {}),
    ("leaves_child", (), {}),
    ("is_killed", (), {}),
    ("closes", (), {}),
    ("unreportable", (), {}),
    ("talks", (), {}),
    ("babbles", (), {}),
    ("forges", (), {}),
    ("hangs", (), {}),
    ("context", (), {}),
    ("secret", (harp.Secret("sesame"),), {}),
    ("special", (), {}),
    ("surroundings", (), {}),
    ("no_such_thing", (), {}),
]


def told(outcome: Any) -> Any:
    """Return all that an outcome says, to be compared."""
    if isinstance(outcome, harp.RemoteException | harp.RemoteError):
        said = (outcome.type, outcome.message, outcome.data, outcome.origin, outcome.may_have_run)
        return type(outcome), said
    return outcome


def of_daemon(server: harp.HarpServer, name: str, args: Any, kwargs: Any) -> tuple[list[Any], Any]:
    """Call a real harpd and return the packets and what came of it."""
    packets: list[Any] = []
    try:
        found = getattr(server, name)(*args, **kwargs)
        if not isinstance(found, harp.HarpStreamIterator):
            return packets, found
        for item in found:
            if isinstance(item, harp.Result):
                return packets, item.value
            packets.append(item)
    except harp.HarpException as error:
        return packets, told(error)
    raise AssertionError("a stream without an end")


class AgreementTests(SynchronousTestCase):
    """A test sees what a client of a real harpd sees."""

    def test_daemon(self) -> None:
        """Results, packets, errors word by word, context and surroundings are those of harpd."""
        file = write_procedures(self.mktemp(), PROCEDURES)
        deployment = deploy(Path(file), {"defaults": {"environment": {"SITE": "north"}}})
        deployment.harpd.start()
        self.addCleanup(deployment.harpd.stop)
        server = harp.HarpServer(
            "127.0.0.1", USER, PASSWORD, deployment.harpd_port, ca_file=str(deployment.ca_file)
        )
        self.addCleanup(server.close_connections)
        config = deployment.folder / "harpd.yaml"
        with Procedures(deployment.procedures, config) as procedures:
            caller = procedures.caller(user=USER)
            for name, args, kwargs in CALLS:
                outcome = caller.call(name, *args, **kwargs)
                found = outcome.packets, told(outcome.result)
                self.assertEqual(found, of_daemon(server, name, args, kwargs), name)
            holder = caller.start("holds")
            next(iter(holder))
            with server.holds() as theirs:
                next(theirs)
                for name in ("wants_at_once", "wants"):
                    found = [], told(caller.call(name).result)
                    self.assertEqual(found, of_daemon(server, name, (), {}), name)
            holder.cancel()


class TestingTestCase(SynchronousTestCase):
    """Tests that leave neither processes nor descriptors."""

    def setUp(self) -> None:
        self.before, self.others = descriptors(), processes()
        self.addCleanup(self.check_nothing_left)

    def check_nothing_left(self) -> None:
        self.assertEqual(processes() - self.others, set())
        self.assertEqual(descriptors(), self.before)

    def procedures(self, text: str = PROCEDURES, **options: Any) -> Procedures:
        """Load procedures until the test ends."""
        procedures = Procedures(write_procedures(self.mktemp(), text), **options)
        self.addCleanup(procedures.close)
        return procedures


class OutcomeTests(TestingTestCase):
    """What a test gets of a call."""

    def test_get(self) -> None:
        """The result is returned, what went wrong is raised."""
        procedures = self.procedures()
        self.assertEqual(procedures.call("add", 1).get(), [2, {"1": 1.5, "none": None}])
        raised = self.assertRaises(harp.RemoteException, procedures.call("fails").get)
        self.assertEqual(raised.type, "KeyError")
        error = self.assertRaises(harp.RemoteError, procedures.call("add").get)
        self.assertEqual(error.type, "invalid_argument_list")

    def test_printed(self) -> None:
        """What a call prints is kept, but no more than a bounded amount of it."""
        procedures = self.procedures()
        self.assertEqual(procedures.call("add", 1).printed, "adding\n")
        self.assertIn("KeyError: 'nothing'", procedures.call("fails").printed)
        self.assertEqual(procedures.call("shouts").printed, "x" * (1 << 20))

    def test_arguments(self) -> None:
        """What no client can send is refused as by the client."""
        procedures = self.procedures()
        self.assertRaises(TypeError, procedures.call, "add", 1, b=2)
        self.assertRaises(TypeError, procedures.call, "echo", {1, 2})
        self.assertRaises(ValueError, procedures.call, "echo", float("nan"))
        self.assertRaises(TypeError, procedures.call, 1)

    def test_any_name(self) -> None:
        """An argument may have any name."""
        procedures = self.procedures("@procedure\ndef f(**given): return given")
        names = {"name": 1, "self": 2, "procedures": 3, "timeout": 4}
        self.assertEqual(procedures.call("f", **names).get(), names)
        file = write_procedures(self.mktemp(), "@procedure\ndef f(**given): return given")
        self.assertEqual(testing.call(file, "f", **names, file=5).get(), {**names, "file": 5})

    def test_caller(self) -> None:
        """The context has what is said of the caller; what harpd knows stands over it."""
        procedures = self.procedures()
        usual = {"user": "tester", "client": "127.0.0.1"}
        self.assertEqual(procedures.call("context").get(), usual)
        caller = procedures.caller("ada", "::1", {"job_id": "1", "user": "eve"})
        known = {"user": "ada", "client": "::1", "job_id": "1"}
        self.assertEqual(caller.call("context").get(), known)


class RunningTests(TestingTestCase):
    """Calls that are watched while they run, and that are ended."""

    def started(self, procedures: Procedures, name: str) -> tuple[testing.Call, int]:
        """Start a call whose first packet is its process id."""
        call = procedures.start(name)
        return call, next(iter(call))

    def test_packets_as_they_come(self) -> None:
        """Packets are there before the end, and again from the first one for each who asks."""
        procedures = self.procedures()
        call, pid = self.started(procedures, "tidies")
        self.assertEqual(next(iter(call)), pid)
        self.assertEqual(list(procedures.start("count", 2)), [{"number": 0}, {"number": 1}])
        call.cancel()
        self.assertEqual(list(call), [pid])

    def test_cancel(self) -> None:
        """A cancelled call runs its ``finally``; when it is known to be over it is gone."""
        call, pid = self.started(self.procedures(), "tidies")
        call.cancel()
        outcome = call.wait()
        self.assertIs(outcome.result, harp.CALL_CANCELLED)
        self.assertEqual((outcome.packets, outcome.printed), ([pid], "tidied\n"))
        self.assertRaises(harp.CancelledException, outcome.get)
        self.assertRaises(ProcessLookupError, os.kill, pid, 0)

    def test_cancel_ended(self) -> None:
        """A call that has ended stays as it is."""
        procedures = self.procedures()
        call = procedures.start("echo", 1)
        self.assertEqual(call.wait().result, 1)
        call.cancel()
        self.assertEqual(call.wait().result, 1)

    def test_killed_after_grace(self) -> None:
        """What does not end when it is told to is killed."""
        call, pid = self.started(self.procedures(kill_grace=0.1), "stays")
        call.cancel()
        self.assertIs(call.wait().result, harp.CALL_CANCELLED)
        wait_gone(pid)

    def test_max_exec_time(self) -> None:
        """A call that runs for too long ends as the dispatcher ends it, waiting or not."""
        procedures = self.procedures()
        impatient = procedures.caller(max_exec_time=0.1)
        holder, _ = self.started(procedures, "holds")
        for name in ("tidies", "wants_ever"):
            outcome = impatient.call(name)
            error = outcome.result
            self.assertIsInstance(error, harp.RemoteError)
            self.assertEqual(error.type, "timeout")
            self.assertEqual(error.message, "max_exec_time: the job ran for 0.1 s")
            self.assertEqual((error.origin, error.may_have_run), (harp.Origin.DISPATCHER, True))
        self.assertIsNone(holder._call.end)

    def test_lock(self) -> None:
        """A call waits for the lock of another and gets it when that one's process is gone."""
        procedures = self.procedures()
        holder, pid = self.started(procedures, "holds")
        waiting = [procedures.start("wants_ever"), procedures.start("wants_ever")]
        waiting[0].cancel()
        holder.cancel()
        self.assertEqual(waiting[1].wait().result, "had it")
        self.assertRaises(ProcessLookupError, os.kill, pid, 0)
        self.assertIs(waiting[0].wait().result, harp.CALL_CANCELLED)
        self.assertEqual(procedures.call("wants_at_once").result, "had it")

    def test_close(self) -> None:
        """With the procedures end their calls, and those that wait for a lock never start."""
        procedures = self.procedures()
        holder, pid = self.started(procedures, "holds")
        waiting = procedures.start("wants_ever")
        procedures.close()
        wait_gone(pid)
        self.assertEqual(holder.wait().result.type, "killed")
        self.assertEqual(waiting.wait().result.type, "system_error")
        self.assertRaises(ValueError, procedures.call, "add", 1)
        procedures.close()

    def test_zygote_dies(self) -> None:
        """A procedure that kills the zygote is told of, and so is every call after it."""
        text = "@procedure\ndef f(): os.kill(os.getppid(), signal.SIGKILL); signal.pause()"
        procedures = self.procedures(text)
        self.assertEqual(procedures.call("f").result.type, "killed")
        self.assertEqual(procedures.call("f").result.type, "system_error")


class FileTests(TestingTestCase):
    """How the procedures are loaded."""

    def test_mistakes(self) -> None:
        """Mistakes of the file are told by their lines."""
        file = write_procedures(self.mktemp(), "@procedure(timeout=0)\ndef f(): pass")
        error = self.assertRaises(ProceduresError, Procedures, file)
        (mistake,) = error.mistakes
        self.assertTrue(mistake.startswith(f"{file}, line 3: procedure f: timeout must"), mistake)

    def test_defaults(self) -> None:
        """Defaults hold as in the configuration; what is none is named."""
        limited = self.procedures(defaults={"max_output": 3})
        self.assertEqual(limited.call("echo", "x" * 10).result.type, "limit_exceeded")
        error = self.assertRaises(TypeError, self.procedures, defaults={"max_ouput": 3})
        self.assertIn("'max_ouput' is none of", str(error))
        self.assertTrue(all(name in str(error) for name in vars(Defaults())))

    def test_path(self) -> None:
        """Modules are found in the folders that are given, before those of the configuration."""
        folders = [Path(self.mktemp()) for _ in range(2)]
        for number, folder in enumerate(folders):
            folder.mkdir()
            (folder / "of_author.py").write_text(f"number = {number}")
        text = "import of_author\n@procedure\ndef f(): return of_author.number"
        config = Path(self.mktemp())
        config.write_text(f"python: {{path: {folders[1].absolute()}}}")
        self.assertEqual(self.procedures(text, path=folders).call("f").get(), 0)
        self.assertEqual(self.procedures(text, config=config).call("f").get(), 1)
        both = self.procedures(text, config=config, path=[folders[0]])
        self.assertEqual(both.call("f").get(), 0)
        self.assertRaises(TypeError, self.procedures, text, path=str(folders[0]))

    def test_configuration(self) -> None:
        """Its defaults hold where nothing else is said; its mistakes are told."""
        config = Path(self.mktemp())
        config.write_text("defaults: {directory: /tmp, umask: 077}")
        procedures = self.procedures(config=config, defaults={"umask": 0o007})
        self.assertEqual(procedures.call("surroundings").get()[:2], ["/tmp", 0o007])
        config.write_text("defaults: {timeout: soon}")
        error = self.assertRaises(ConfigError, self.procedures, config=config)
        self.assertIn("timeout", str(error))

    def test_relative(self) -> None:
        """A relative path starts at the working directory."""
        file = write_procedures(self.mktemp(), PROCEDURES)
        self.assertEqual(testing.call(os.path.relpath(file), "echo", 1).get(), 1)

    def test_without_reactor(self) -> None:
        """A test runner does not get Twisted by it."""
        file = write_procedures(self.mktemp(), PROCEDURES)
        program = f"""if True:
            import sys
            from harpd import testing
            assert testing.call({file!r}, "echo", 1).get() == 1
            assert "twisted" not in sys.modules
        """
        subprocess.run([sys.executable, "-c", program], check=True)


class UserTests(TestingTestCase):
    """As whom a procedure runs."""

    TEXT = """
        @procedure(uid={user!r}, gid={group!r}, processes=1)
        def f():
            subprocess.run(["/bin/true"], check=True)
            return [os.getuid(), os.environ["USER"]]
    """

    def test_root(self) -> None:
        """Where the tests run as root it runs as the user that it names."""
        need_root()
        procedures = self.procedures("@procedure(uid='nobody')\ndef f(): return os.environ['USER']")
        self.assertEqual(procedures.call("f").get(), "nobody")

    def test_ordinary_user(self) -> None:
        """Where they do not, it stays who runs them, who need not know that user."""
        mine: Callable[[], int] = os.geteuid
        user = subprocess.run(["/usr/bin/id", "-un"], capture_output=True, text=True, check=True)
        if not mine():
            self.patch(os, "geteuid", lambda: 1000)
        for name, group in [("nobody", None), ("no-such-user", "no-such-group")]:
            text = self.TEXT.format(user=name, group=group)
            if not mine():
                text = text.replace(", processes=1", "")  # which is of no use to root
            self.assertEqual(
                self.procedures(text).call("f").get(), [os.getuid(), user.stdout.strip()]
            )
