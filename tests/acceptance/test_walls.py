"""harpd as root that gives up root: what is left where, and that all goes on as before."""

from __future__ import annotations

import json
import os
import pwd
import signal
import subprocess
from pathlib import Path

from twisted.trial.unittest import SkipTest

import harp
from harpcaller.demo.deployment import HOST, write_password
from tests.acceptance.daemons import connect_harpd, deploy, eventually, harpd_processes
from tests.acceptance.test_operation import Calls, OperationTestCase, tell

USER = "nobody"

PROCEDURES = """

@procedure
def whoami() -> int:
    return os.geteuid()


@procedure(uid="daemon")
def somebody() -> int:
    return os.geteuid()


@procedure(uid="nobody")
def look_into(pid: int) -> list[str]:
    import ctypes

    found = []
    if ctypes.CDLL(None).ptrace(0x4206, pid, None, None) == 0:  # PTRACE_SEIZE
        found.append("ptrace")
    for name in ("mem", "environ", "fd/0", "maps"):
        try:
            open(f"/proc/{pid}/{name}").close()
        except OSError:
            continue
        found.append(name)
    return [os.geteuid(), *found]
"""


class WallTests(OperationTestCase):
    """A harpd with a user for the process that is open to the network."""

    def setUp(self) -> None:
        if os.geteuid() != 0:
            raise SkipTest("only root can give up root")
        self.entry = pwd.getpwnam(USER)

    def begin(self, **harpd: object) -> None:
        """Start harpd, whose files nobody but root can read, and the dispatcher."""
        self.harpd = {"user": USER, "kill_grace": 0.5, "shutdown_grace": 5, **harpd}
        self.deployment = deploy(harpd=self.harpd)
        self.folder = self.deployment.folder
        self.addCleanup(self.deployment.stop)
        with open(self.deployment.procedures, "a") as procedures:
            procedures.write(PROCEDURES)
        self.folder.chmod(0o700)
        self.deployment.__enter__()
        self.rpc = harp.HarpCaller("127.0.0.1", self.deployment.port)
        self.host = self.rpc.host(HOST)

    @property
    def front(self) -> int:
        assert self.deployment.harpd.process is not None
        return self.deployment.harpd.process.pid

    def status(self, pid: int) -> dict[str, list[str]]:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return {name: rest.split() for name, _, rest in (line.partition(":") for line in lines)}

    def reload(self, words: bytes = b"runs with what was read") -> None:
        daemon = self.deployment.harpd
        seen = tell(daemon, signal.SIGHUP)
        eventually(lambda: words in daemon.log.read_bytes()[seen:], f"the log says {words!r}")

    def test_what_is_given_up(self) -> None:
        """The front has nothing of root's in all of its threads; what starts calls has."""
        self.begin()
        groups = set(map(str, os.getgrouplist(USER, self.entry.pw_gid)))
        self.assertEqual(self.host.add(1).get(), 2)  # now it has threads
        for task in os.listdir(f"/proc/{self.front}/task"):
            status = self.status(int(task))
            self.assertEqual(set(status["Uid"]), {str(self.entry.pw_uid)})
            self.assertEqual(set(status["Gid"]), {str(self.entry.pw_gid)})
            self.assertEqual(set(status["Groups"]), groups)
            for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
                self.assertEqual(int(status[kind][0], 16), 0, kind)
            self.assertEqual(status["NoNewPrivs"], ["1"])
        for name, pid in harpd_processes(self.deployment).items():
            assert pid is not None
            self.assertEqual(set(self.status(pid)["Uid"]), {"0"}, name)
        self.assertEqual(self.host.whoami().get(), 0)
        self.assertEqual(self.host.somebody().get(), pwd.getpwnam("daemon").pw_uid)
        self.assertNotIn(b"stays root", self.deployment.harpd.log.read_bytes())

    def test_call_of_the_same_user(self) -> None:
        """A call that runs as the same user can't look into the front, where the key is."""
        self.begin()
        self.assertEqual(self.host.look_into(self.front).get(), [self.entry.pw_uid])

    def test_reload(self) -> None:
        """All that is read again is read by root, and no call is lost."""
        self.begin()
        running, release = self.held()
        with Calls(self.host) as calls, open(self.deployment.procedures, "a") as procedures:
            procedures.write("\n\n@procedure\ndef added() -> int:\n    return os.geteuid()\n")
            procedures.flush()
            self.reload()
            self.assertEqual(self.host.added().get(), 0)
            self.deployment.configure_harpd({**self.harpd, "defaults": {"uid": "daemon"}})
            self.reload()
            self.assertEqual(self.host.added().get(), pwd.getpwnam("daemon").pw_uid)
            (self.folder / "passwords").write_text("nonsense")
            self.reload(b"all stays as it was")
        self.assertEqual(calls.faults, [])
        self.assertGreater(calls.count, 0)
        release.touch()
        self.assertEqual(running.get(), "held")

    def test_certificate_and_passwords(self) -> None:
        """Both are only root's to read, and change."""
        self.begin()
        running, release = self.held()
        self.deployment.make_certificates()
        (self.folder / "harpd.pem").chmod(0o600)
        write_password(self.folder / "passwords", "another", "secret")
        self.reload()
        connect_harpd(self.deployment).close()  # verified by the new authority
        entry = self.deployment.host_entry(credentials={"user": "another", "password": "secret"})
        self.deployment.set_hosts({HOST: entry, "old": self.deployment.host_entry()})
        tell(self.deployment.harpcaller, signal.SIGHUP)
        eventually(
            lambda: b"is in force" in self.deployment.harpcaller.log.read_bytes(), "its reload"
        )
        self.rpc.refresh_hosts()
        self.assertEqual(self.host.whoami().get(), 0)
        refused = self.rpc.host("old").whoami().result(wait=True)
        assert isinstance(refused, harp.RemoteError)
        self.assertEqual(refused.type, "auth_error")
        release.touch()
        self.assertEqual(running.get(), "held")

    def test_log(self) -> None:
        """Each line is a JSON object: what the procedures file prints too."""
        self.begin()
        self.assertEqual(self.host.print_protocol().get(), "genuine")
        with self.assertRaises(harp.RemoteException):
            self.host.fail("\x1b[31m").get()
        self.reload()
        self.deployment.harpd.stop()
        lines = [json.loads(line) for line in self.deployment.harpd.log.read_text().splitlines()]
        told = [line["message"] for line in lines]
        self.assertIn("the procedures file printed: procedures loaded", told)
        self.assertTrue(any("printed: Traceback" in message for message in told))
        audits = [line["audit"] for line in lines if "audit" in line]
        self.assertEqual([audit["action"] for audit in audits], ["call", "call", "reload"])

    def test_zygote_dies(self) -> None:
        """Another takes its place, as root."""
        self.begin()
        zygote = harpd_processes(self.deployment)["zygote"]
        assert zygote is not None
        os.kill(zygote, signal.SIGKILL)
        self.assertEqual(self.host.whoami().get(), 0)

    def test_root_stays(self) -> None:
        """That the front stays root is logged at every start."""
        self.begin()
        self.deployment.harpd.stop()
        self.deployment.configure_harpd({})
        for _ in range(2):
            seen = self.deployment.harpd.log.stat().st_size
            self.deployment.harpd.start()
            logged = self.deployment.harpd.log.read_bytes()[seen:]
            self.assertIn(b"the process that is open to the network stays root", logged)
            self.deployment.harpd.stop()

    def test_change_of_user(self) -> None:
        """Another user in the configuration is refused until the next start."""
        self.begin()
        self.deployment.configure_harpd({"user": "daemon"})
        self.reload(b"user: is changed by a restart only")
        self.assertEqual(self.host.add(1).get(), 2)

    def test_twistd_uid(self) -> None:
        """Who has twistd give up root can reload as well."""
        self.begin()
        self.deployment.harpd.stop()
        self.deployment.configure_harpd({})
        self.deployment.harpd._command[1:1] = [f"--uid={self.entry.pw_uid}"]
        self.folder.chmod(0o755)
        self.deployment.harpd.start()
        self.reload()
        self.assertEqual(self.host.whoami().get(), 0)

    def test_not_root(self) -> None:
        """Who is not root and is to become another user is told so, and nothing starts."""
        self.begin()
        self.deployment.harpd.stop()
        command = [*self.deployment.harpd._command]
        command[1:1] = ["--uid=daemon", "--gid=daemon"]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("only root can", done.stdout + done.stderr)
