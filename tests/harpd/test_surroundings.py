"""Tests of harpd.surroundings: what calls of a real zygote find, and what they may not have."""

from __future__ import annotations

import json
import os
import pwd
import resource
import shutil
import signal
import stat
import subprocess
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest

from harpd.surroundings import BASE, CORE, RLIMITS
from harpd.zygote_command import zygote_environment
from tests.harpd.waiting import wait_gone
from tests.harpd.zygotes import BareZygote, ZygoteTestCase

USER = "nobody"


def need_root() -> None:
    """Skip a test whose calls run as another user."""
    if os.geteuid():
        raise SkipTest("another user can be taken on by root only")


class SurroundingsTestCase(ZygoteTestCase):
    """Runs procedures to their ends."""

    def reply(self, zygote: BareZygote, name: str, arguments: str = "[]") -> Any:
        """Return the only reply of a call."""
        (line,) = zygote.start(name, arguments).to_end()[0].splitlines()
        return json.loads(line)


class EnvironmentTests(SurroundingsTestCase):
    """The environment is one of harpd's making."""

    PROCEDURES = f"""
        @procedure
        def plain():
            return [dict(os.environ), subprocess.check_output(["/usr/bin/env"], text=True)]

        @procedure(environment={{"LANG": "C", "OWN": "x=y"}})
        def own():
            return [dict(os.environ), subprocess.check_output(["/usr/bin/env"], text=True)]

        @procedure(uid="{USER}")
        def other():
            return [dict(os.environ), subprocess.check_output(["/usr/bin/env"], text=True)]
    """

    def environment(self, zygote: BareZygote, name: str) -> dict[str, str]:
        """Return what a procedure has, and check that what it starts has the same."""
        mine, theirs = self.reply(zygote, name)["result"]
        started = dict(line.split("=", 1) for line in theirs.splitlines())
        self.assertEqual({k: v for k, v in started.items() if k != "_"}, mine)
        assert isinstance(mine, dict)
        return mine

    def expected(self, user: pwd.struct_passwd) -> dict[str, str]:
        """Return what all calls of a user have."""
        return {**BASE, "HOME": user.pw_dir, "USER": user.pw_name, "LOGNAME": user.pw_name}

    def test_clean(self) -> None:
        """Nothing of the daemon's passes: calls have what is said here, and what is configured."""
        self.patch(os, "environ", {**os.environ, "SECRET_OF_DAEMON": "1", "LANG": "tlh"})
        zygote = self.zygote(self.PROCEDURES, defaults={"environment": {"SITE": "north"}})
        common = {**self.expected(pwd.getpwuid(os.geteuid())), "SITE": "north"}
        self.assertEqual(self.environment(zygote, "plain"), common)
        own = {**common, "LANG": "C", "OWN": "x=y"}
        self.assertEqual(self.environment(zygote, "own"), own)
        self.assertEqual(self.environment(zygote, "plain"), common)

    def test_user(self) -> None:
        """Who runs as another user has his home and his name; what is configured comes first."""
        need_root()
        zygote = self.zygote(self.PROCEDURES, defaults={"environment": {"HOME": "/srv"}})
        expected = {**self.expected(pwd.getpwnam(USER)), "HOME": "/srv"}
        self.assertEqual(self.environment(zygote, "other"), expected)
        zygote = self.zygote(self.PROCEDURES)
        self.assertEqual(self.environment(zygote, "other"), self.expected(pwd.getpwnam(USER)))

    def test_set_by_the_file(self) -> None:
        """What the procedures file sets is there, and a procedure can go on from what it has."""
        zygote = self.zygote("""
            os.environ["SET"] = "here"

            def found():
                os.environ["LATER"] = "too"
                del os.environ["LANG"]
                return sorted(subprocess.check_output(["/usr/bin/env"], text=True).split())

            @procedure
            def plain(): return found()

            @procedure(environment={"OWN": "1"})
            def own(): return found()
        """)
        for name, more in [("plain", set()), ("own", {"OWN=1"})]:
            result = set(self.reply(zygote, name)["result"])
            self.assertLessEqual({"SET=here", "LATER=too"} | more, result)
            self.assertNotIn("LANG=C.UTF-8", result)

    def test_block(self) -> None:
        """Nor is the daemon's to be found where the kernel keeps what a process started with."""
        self.patch(os, "environ", {**os.environ, "SECRET_OF_DAEMON": "1"})
        self.assertNotIn("SECRET_OF_DAEMON", zygote_environment())


class PlaceTests(SurroundingsTestCase):
    """The working directory, the umask, and what is left of a crash."""

    PROCEDURES = """
        import resource

        def found():
            mask = os.umask(0)
            return [os.getcwd(), mask, resource.getrlimit(resource.RLIMIT_CORE)]

        @procedure
        def plain(): return found()

        @procedure(directory="/usr", umask=0o077)
        def own(): return found()

        @procedure(directory="/no/such/place")
        def lost(): print("has run")
    """

    def test_all(self) -> None:
        """They are harpd's, not those of whoever started it; a procedure can have its own."""
        self.addCleanup(os.umask, os.umask(0o007))
        zygote = self.zygote(self.PROCEDURES)
        self.assertEqual(self.reply(zygote, "plain"), {"result": ["/", 0o022, [0, 0]]})
        self.assertEqual(self.reply(zygote, "own"), {"result": ["/usr", 0o077, [0, 0]]})

    def test_configured(self) -> None:
        """What is configured holds for procedures that do not say it."""
        zygote = self.zygote(self.PROCEDURES, defaults={"directory": "/etc", "umask": 0o027})
        self.assertEqual(self.reply(zygote, "plain"), {"result": ["/etc", 0o027, [0, 0]]})
        self.assertEqual(self.reply(zygote, "own"), {"result": ["/usr", 0o077, [0, 0]]})

    def test_no_directory(self) -> None:
        """A call whose directory is not there does not run, and the error names it."""
        zygote = self.zygote(self.PROCEDURES)
        call = zygote.start("lost")
        replied, printed = call.to_end()
        error = json.loads(replied)["error"]
        self.assertEqual((error["type"], printed), ("system_error", b""))
        self.assertIn("/no/such/place", error["message"])
        self.assertEqual(self.reply(zygote, "plain")["result"][0], "/")


class LimitTests(SurroundingsTestCase):
    """A call that exceeds a limit ends with a clear error, and the next is fine."""

    def test_numbers(self) -> None:
        """The kernel's numbers of the limits are those of this machine."""
        self.assertEqual(CORE, resource.RLIMIT_CORE)
        expected = {
            "cpu": resource.RLIMIT_CPU,
            "processes": resource.RLIMIT_NPROC,
            "open_files": resource.RLIMIT_NOFILE,
            "address_space": resource.RLIMIT_AS,
        }
        self.assertEqual(RLIMITS, expected)

    def test_address_space(self) -> None:
        """Beyond it the procedure gets a MemoryError, which is reported whatever fills memory."""
        zygote = self.zygote("""
            @procedure(address_space=128 << 20)
            def f(how):
                if how == "at once":
                    return len(bytearray(256 << 20))
                kept = []
                while how == "little by little":
                    kept.append([kept, str(len(kept))])
                return "fine"
        """)
        for how in ("at once", "little by little"):
            reply = self.reply(zygote, "f", json.dumps([how]))
            self.assertEqual(reply["exception"]["type"], "MemoryError")
        self.assertEqual(self.reply(zygote, "f", '["not"]'), {"result": "fine"})

    def test_open_files(self) -> None:
        """One descriptor too many is an OSError of the procedure."""
        zygote = self.zygote("""
            @procedure(open_files=20)
            def f(count):
                return len([os.open("/dev/null", os.O_RDONLY) for _ in range(count)])
        """)
        self.assertEqual(self.reply(zygote, "f", "[10]"), {"result": 10})
        reply = self.reply(zygote, "f", "[30]")
        self.assertIn("Too many open files", reply["exception"]["message"])

    def test_processes(self) -> None:
        """A user who has as many processes as he may can't start another."""
        need_root()
        zygote = self.zygote(f"""
            @procedure(uid="{USER}", processes=1)
            def f(): return os.fork()

            @procedure(uid="{USER}")
            def g():
                pid = os.fork() or os._exit(0)
                return os.waitpid(pid, 0)[1]
        """)
        self.assertEqual(self.reply(zygote, "f")["exception"]["type"], "BlockingIOError")
        self.assertEqual(self.reply(zygote, "g"), {"result": 0})

    CPU = """
        def work():
            while True:
                pass

        @procedure(cpu=1)
        def f():
            child = subprocess.Popen(["/bin/sleep", "600"])
            print(child.pid, flush=True)
            try:
                work()
            finally:
                print("put in order", flush=True)

        @procedure
        def g(): return "fine"
    """

    def test_cpu(self) -> None:
        """Beyond it ``finally`` runs, and then SIGXCPU ends the process with what it started."""
        zygote = self.zygote(self.CPU)
        call = zygote.start("f")
        child = int(call.printed_line())
        self.assertEqual(call.exit_code(), -signal.SIGXCPU)
        wait_gone(child)
        replied, printed = call.to_end()
        self.assertEqual((replied, printed), (b"", b"put in order\n"))
        self.assertEqual(self.reply(zygote, "g"), {"result": "fine"})

    def test_unlimited(self) -> None:
        """A procedure can have no limit whatever is configured; the others have it."""
        zygote = self.zygote(
            """
            import math, resource
            def found(): return resource.getrlimit(resource.RLIMIT_NOFILE)[0]

            @procedure(open_files=math.inf)
            def free(): return found()

            @procedure
            def bound(): return found()
            """,
            defaults={"open_files": 40},
        )
        self.assertEqual(self.reply(zygote, "bound"), {"result": 40})
        expected = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.assertEqual(self.reply(zygote, "free"), {"result": expected})


class InheritanceTests(SurroundingsTestCase):
    """What a call does not get of the process that it was forked from."""

    def test_descriptors(self) -> None:
        """A file that the procedures file has left open can't be used, and nothing takes over."""
        secret = Path(self.mktemp()).absolute()
        secret.write_text("the secret")
        zygote = self.zygote(f"""
            left = open({str(secret)!r}, "r+")

            @procedure
            def f():
                new = os.open("/dev/null", os.O_RDONLY)
                try:
                    return left.read()
                except OSError as error:
                    return [error.strerror, new != left.fileno()]

            @procedure
            def g():
                found = set()
                for number in os.listdir("/proc/self/fd"):
                    try:
                        found.add(os.readlink(f"/proc/self/fd/{{number}}").partition(":")[0])
                    except FileNotFoundError:
                        pass
                return sorted(found)
        """)
        self.assertEqual(self.reply(zygote, "f"), {"result": ["Bad file descriptor", True]})
        self.assertEqual(self.reply(zygote, "g"), {"result": ["/dev/null", "pipe", "socket"]})
        self.assertIn(f"({secret}), which no call can use", zygote.printed())

    def test_no_new_privileges(self) -> None:
        """A set-uid program gives a call with a uid nothing."""
        need_root()
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        program = Path("/var/tmp") / f"harpd-test-{os.getpid()}"
        shutil.copy("/usr/bin/id", program)
        self.addCleanup(program.unlink)
        program.chmod(stat.S_ISUID | 0o755)
        try:
            as_other = subprocess.check_output([program, "-u"], user=USER)
        except OSError as error:
            raise SkipTest(f"{program} can't be run: {error}") from error
        if as_other != b"0\n":
            raise SkipTest("set-uid bits are without effect here")
        zygote = self.zygote(f"""
            @procedure(uid="{USER}")
            def f(): return subprocess.check_output(["{program}", "-u"], text=True)
        """)
        self.assertEqual(self.reply(zygote, "f"), {"result": f"{pwd.getpwnam(USER).pw_uid}\n"})
