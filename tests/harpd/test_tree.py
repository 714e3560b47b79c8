"""Tests of harpd.tree: on trees of real processes."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from harpd import tree
from tests.harpd.waiting import PATIENCE, alive, wait_gone

LEADER = """
import json, os, signal, subprocess
from harpd import tree

tree.adopt_orphans()

def say(*values):
    os.write(1, json.dumps(values).encode() + b"\\n")

def sleeper(**options):
    return subprocess.Popen(["/bin/sleep", "100"], **options).pid

def ignoring():
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.write(write, b"ignored")
        while True:
            signal.pause()
    os.read(read, 100)
    return pid

def orphan():
    # The one between forks, says who, and dies.
    read, write = os.pipe()
    if os.fork() == 0:
        os.setsid()
        pid = os.fork()
        if pid == 0:
            os.setsid()
            os.execv("/bin/sleep", ["sleep", "100"])
        os.write(write, str(pid).encode())
        os._exit(0)
    os.wait()
    return int(os.read(read, 100))
"""


class TreeTestCase(SynchronousTestCase):
    """Starts leaders of trees and ends them with the test."""

    def leader(self, script: str) -> subprocess.Popen[bytes]:
        """Start a Python process that leads a tree; it may ``say`` something."""
        process = subprocess.Popen(
            [sys.executable, "-c", LEADER + script], stdout=subprocess.PIPE, start_new_session=True
        )
        assert process.stdout is not None
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait, PATIENCE)
        self.addCleanup(tree.kill, process.pid)
        return process

    def said(self, process: subprocess.Popen[bytes]) -> list[Any]:
        """Wait for what it says next."""
        assert process.stdout is not None
        line = b""
        while not line.endswith(b"\n"):
            if not select.select([process.stdout], [], [], PATIENCE)[0]:
                raise AssertionError("it says nothing")
            byte = os.read(process.stdout.fileno(), 1)
            if not byte:
                raise AssertionError(f"it ended after {line!r}")
            line += byte
        said: list[Any] = json.loads(line)
        return said


def start_time(pid: int) -> int:
    """Return when a process was started, field 22 of proc(5)."""
    with open(f"/proc/{pid}/stat") as stat:
        return int(stat.read().rpartition(")")[2].split()[19])


class DescendantsTests(TreeTestCase):
    """Who is in a tree."""

    def test_all_generations(self) -> None:
        """Children, grandchildren and orphans are found, in whatever session they are."""
        leader = self.leader("""
say(sleeper(), sleeper(start_new_session=True), ignoring(), orphan())
signal.pause()
""")
        expected = {pid: start_time(pid) for pid in self.said(leader)}
        self.assertEqual(tree.descendants(leader.pid), expected)
        self.assertLess(expected.items(), tree.descendants(os.getpid()).items())

    def test_dead(self) -> None:
        """A process that is dead and not yet waited for is not in the tree."""
        leader = self.leader("""
dead = subprocess.Popen(["/bin/true"])
os.waitid(os.P_PID, dead.pid, os.WEXITED | os.WNOWAIT)
say(dead.pid)
signal.pause()
""")
        (dead,) = self.said(leader)
        self.assertTrue(os.path.exists(f"/proc/{dead}"))
        self.assertEqual(tree.descendants(leader.pid), {})

    def test_misleading_name(self) -> None:
        """The name of a command can't be taken for the fields behind it."""
        leader = self.leader("""
pid = os.fork()
if pid == 0:
    with open("/proc/self/comm", "w") as name:
        name.write(") Z 1 1 (")
    say(os.getpid())
signal.pause()
""")
        named = self.said(leader)
        self.assertEqual(list(tree.descendants(leader.pid)), named)

    def test_nobody(self) -> None:
        """A process that does not exist has no descendants."""
        leader = self.leader("")
        leader.wait(PATIENCE)
        self.assertEqual(tree.descendants(leader.pid), {})


class SignalTests(TreeTestCase):
    """Signals reach the whole tree."""

    def test_terminate(self) -> None:
        """TERM reaches the leader and all below it, who are returned."""
        leader = self.leader("""
members = [sleeper(), sleeper(start_new_session=True), orphan()]
signal.signal(signal.SIGTERM, lambda *_: say("told"))
say(*members)
while True:
    signal.pause()
""")
        members = self.said(leader)
        started = {pid: start_time(pid) for pid in members}
        self.assertEqual(tree.terminate(leader.pid), started)
        self.assertEqual(self.said(leader), ["told"])
        wait_gone(*members)
        self.assertTrue(alive(leader.pid))

    def test_kill(self) -> None:
        """KILL leaves nothing: neither orphans nor other sessions nor those that ignore TERM."""
        leader = self.leader("""
say(sleeper(), sleeper(start_new_session=True), ignoring(), orphan())
signal.pause()
""")
        members = self.said(leader)
        tree.kill(leader.pid)
        self.assertEqual(leader.wait(PATIENCE), -signal.SIGKILL)
        wait_gone(*members)

    def test_kill_branching(self) -> None:
        """Those that are orphaned by the killing itself are killed too."""
        leader = self.leader("""
def branch(depth):
    say(os.getpid())
    for _ in range(2):
        if depth and os.fork() == 0:
            os.setsid()
            branch(depth - 1)
    signal.pause()

branch(4)
""")
        members = [self.said(leader)[0] for _ in range(31)]
        tree.kill(leader.pid)
        wait_gone(*members)

    def test_gone(self) -> None:
        """Signals to a tree that is gone do nothing."""
        leader = self.leader("")
        leader.wait(PATIENCE)
        self.assertEqual(tree.terminate(leader.pid), {})
        tree.kill(leader.pid)

    def test_kill_remaining(self) -> None:
        """What is left of a tree is killed with what is below it."""
        leader = self.leader("""
pid = os.fork()
if pid == 0:
    os.setsid()
    tree.adopt_orphans()
    say(os.getpid(), sleeper(start_new_session=True), ignoring())
    signal.pause()
signal.pause()
""")
        members = self.said(leader)
        tree.kill_remaining({members[0]: start_time(members[0])})
        wait_gone(*members)

    def test_kill_shell(self) -> None:
        """A shell does not get to start its next command when one has been killed."""
        leader = self.leader("""
shell = subprocess.Popen(["sh", "-c", "while :; do sleep 100; done"], start_new_session=True)
while not tree.descendants(shell.pid):
    pass
say(shell.pid)
signal.pause()
""")
        (shell,) = self.said(leader)
        tree.kill_remaining({shell: start_time(shell)})
        wait_gone(shell)
        sessions = {status.session for _, status in tree._processes() if status.started is not None}
        self.assertNotIn(shell, sessions)

    def test_number_used_again(self) -> None:
        """A process that has the number of one that is gone is left alone."""
        leader = self.leader("""
signal.signal(signal.SIGUSR1, lambda *_: say("here"))
say("ready")
while True:
    signal.pause()
""")
        self.said(leader)
        tree.kill_remaining({leader.pid: start_time(leader.pid) - 1, 2**22 + 1: 1})
        os.kill(leader.pid, signal.SIGUSR1)
        self.assertEqual(self.said(leader), ["here"])
        tree.kill_remaining({leader.pid: start_time(leader.pid)})
        self.assertEqual(leader.wait(PATIENCE), -signal.SIGKILL)

    def test_forked_meanwhile(self) -> None:
        """What is forked while the tree is being killed is found by looking again."""
        leader = self.leader("say(sleeper(), orphan())\nsignal.pause()")
        early, late = self.said(leader)
        looks: list[int] = []
        look = tree.descendants

        def look_too_early(pid: int) -> dict[int, int]:
            looks.append(pid)
            return {p: t for p, t in look(pid).items() if p != late or len(looks) > 1}

        self.patch(tree, "descendants", look_too_early)
        tree.kill(leader.pid)
        wait_gone(early, late)

    def test_no_permission(self) -> None:
        """A process that belongs to another user is no reason to fail."""
        if os.geteuid() != 0:
            self.skipTest("only root can become another user")
        leader = self.leader("""
other = sleeper()
os.setresuid(65534, 65534, 65534)
tree.terminate(other)
tree.kill(other)
say(other)
""")
        (other,) = self.said(leader)
        self.assertTrue(alive(other))
        os.kill(other, signal.SIGKILL)


class ParentTests(TreeTestCase):
    """The bonds between a process and its parent."""

    def test_adopt_orphans(self) -> None:
        """The orphan of an adopting process becomes its child."""
        leader = self.leader("pid = orphan()\nsay(pid)\nos.wait()\nsay('waited for it')")
        (pid,) = self.said(leader)
        os.kill(pid, signal.SIGKILL)
        self.assertEqual(self.said(leader), ["waited for it"])

    def test_parent_dies(self) -> None:
        """A process that asked for it is told when its parent dies."""
        leader = self.leader("""
parent = os.getpid()
pid = os.fork()
if pid == 0:
    signal.signal(tree.PARENT_DIED, lambda *_: say("told"))
    tree.watch_parent(parent)
    say(os.getpid())
signal.pause()
""")
        self.said(leader)
        leader.kill()
        leader.wait(PATIENCE)
        self.assertEqual(self.said(leader), ["told"])

    def test_parent_gone_already(self) -> None:
        """One whose parent has died before it could ask ends at once."""
        leader = self.leader("""
pid = os.fork()
if pid == 0:
    tree.watch_parent(os.getppid() + 1)
    say("still there")
_, status = os.waitpid(pid, 0)
say(os.waitstatus_to_exitcode(status))
""")
        self.assertEqual(self.said(leader), [1])
