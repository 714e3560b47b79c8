"""Tests of harpd.privileges: in forks, for there is no way back."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from harpd import privileges
from harpd.identity import Identity, find_identity
from harpd.privileges import PrivilegeError, become

NOBODY = find_identity("nobody", None)

PTRACE_SEIZE = 0x4206
PR_GET_DUMPABLE, PR_SET_DUMPABLE, PR_SET_KEEPCAPS = 3, 4, 8


def status_of(pid: int | str) -> dict[str, list[str]]:
    """Return what proc(5) says of a process, field by field."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: rest.split() for name, _, rest in (line.partition(":") for line in lines)}


def in_fork(function: Callable[[], Any]) -> Any:
    """Return what a function returns in another process, or what it raises as a text."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            found = function()
        except BaseException as error:
            found = f"{type(error).__name__}: {error}"
        os.write(write, json.dumps(found).encode())
        os._exit(0)
    os.close(write)
    with open(read, "rb") as end:
        found = json.loads(end.read())
    os.waitpid(pid, 0)
    return found


class BecomeTests(SynchronousTestCase):
    """Root gives up all that it can."""

    def setUp(self) -> None:
        if os.geteuid() != 0:
            raise SkipTest("only root can give up root")
        assert NOBODY is not None
        self.user: Identity = NOBODY

    def test_everything(self) -> None:
        """User, groups, capabilities, new privileges and core dumps are all given up."""

        def look() -> dict[str, Any]:
            become(self.user)
            return {**status_of("self"), "core": resource.getrlimit(resource.RLIMIT_CORE)}

        status = in_fork(look)
        self.assertEqual(set(status["Uid"]), {str(self.user.uid)})
        self.assertEqual(set(status["Gid"]), {str(self.user.gid)})
        self.assertEqual(set(status["Groups"]), set(map(str, self.user.groups)))
        for kind in ("CapPrm", "CapEff", "CapAmb"):
            self.assertEqual(int(status[kind][0], 16), 0)
        self.assertEqual(status["NoNewPrivs"], ["1"])
        self.assertEqual(status["core"], [0, 0])

    def test_no_way_back(self) -> None:
        """Neither root nor its groups can be had again."""
        for attempt in (
            lambda: os.setuid(0),
            lambda: os.setresuid(0, 0, 0),
            lambda: os.setgroups([0]),
            lambda: os.setgid(0),
            lambda: os.chroot("/"),
        ):

            def try_it(attempt: Callable[[], None] = attempt) -> None:
                become(self.user)
                attempt()

            self.assertIn("PermissionError", in_fork(try_it))

    def test_same_user(self) -> None:
        """Another process of the same user can't look into its memory."""
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            become(self.user)
            theirs.send(b"x")
            while True:
                signal.pause()
        self.addCleanup(os.waitpid, pid, 0)
        self.addCleanup(os.kill, pid, signal.SIGKILL)
        with ours, theirs:
            ours.recv(1)

        def attempt() -> list[str]:
            os.setgroups([])
            os.setresgid(*(self.user.gid,) * 3)
            os.setresuid(*(self.user.uid,) * 3)
            found = []
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.ptrace(PTRACE_SEIZE, pid, None, None) == 0:
                found.append("ptrace")
            for name in ("mem", "environ", "maps", "fd/0"):
                try:
                    with open(f"/proc/{pid}/{name}", "rb"):
                        found.append(name)
                except OSError:
                    continue
            return found

        self.assertEqual(in_fork(attempt), [])

    def test_already_the_user(self) -> None:
        """Who has been started as the user keeps the others of that user out as well."""
        prctl = ctypes.CDLL(None).prctl

        def look() -> int:
            os.setgroups(self.user.groups)
            os.setresgid(*(self.user.gid,) * 3)
            os.setresuid(*(self.user.uid,) * 3)
            prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)  # as exec leaves it
            become(self.user)
            found: int = prctl(PR_GET_DUMPABLE, 0, 0, 0, 0)
            return found

        self.assertEqual(in_fork(look), 0)

    def test_capabilities(self) -> None:
        """It is refused to go on with what somebody has had the kernel keep."""

        def look() -> None:
            ctypes.CDLL(None).prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
            become(self.user)

        self.assertIn("capabilities are left", in_fork(look))

    def test_what_is_left_is_found(self) -> None:
        """It is refused to go on where the kernel has not done what it said."""
        for name in ("setresuid", "setgroups"):
            # As if this had been done, which it was not.
            self.patch(os, name, lambda *_: None)
            self.assertIn("PrivilegeError", in_fork(lambda: become(self.user)))

    def test_threads(self) -> None:
        """Nor where there are threads, which may have kept something."""
        self.patch(os, "listdir", lambda path: ["1", "2"])
        found = in_fork(lambda: become(self.user))
        self.assertIn("there are threads already", found)


class OrdinaryTests(SynchronousTestCase):
    """Who is not root can only stay what he is."""

    def test_itself(self) -> None:
        """A user who is that already keeps others out of its memory all the same."""
        if os.geteuid() == 0:
            raise SkipTest("this is root")
        user = Identity(os.geteuid(), os.getegid(), ())
        self.assertIsNone(in_fork(lambda: become(user)))

    def test_another(self) -> None:
        """Nobody else becomes another."""
        self.patch(os, "geteuid", lambda: 1000)
        self.patch(os, "getresuid", lambda: (1000,) * 3)
        found = in_fork(lambda: privileges.become(Identity(1001, 1001, ())))
        expected = f"{PrivilegeError.__name__}: user 1000 can't become user 1001: only root can"
        self.assertEqual(found, expected)
