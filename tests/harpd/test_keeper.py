"""Tests of harpd.keeper: the real process, and what a front that was taken over gets from it."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harpd import tree
from harpd.keeper import MAX_ZYGOTES, Order, decode, keeper_command
from harpd.orders import MAX_MESSAGE, RefusedError
from tests.harpd.certificates import write_configuration
from tests.harpd.test_orders import JSON, SLOW
from tests.harpd.waiting import PATIENCE, alive, wait_gone, wait_until
from tests.harpd.zygotes import KILL_GRACE, write_procedures, zygote_below

ONE = "@procedure\ndef f(): return os.getpid()\n"


class DecodeTests(SynchronousTestCase):
    """There are three orders, each with a number."""

    def test_orders(self) -> None:
        """Each is known by its key."""
        for what in ("zygote", "kill", "files"):
            self.assertEqual(decode(json.dumps({what: 5}).encode()), Order(what, 5))

    def test_refused(self) -> None:
        """Nothing can be said with it: no path, no settings, no process."""
        wrong: list[Any] = [
            {"zygote": 1, "procedures": "/tmp/mine.py"},
            {"zygote": "/tmp/mine.py"},
            {"zygote": 1, "defaults": {"uid": 0}},
            {"files": "/etc/shadow"},
            {"files": ["/etc/shadow"]},
            {"files": 1, "path": "/etc/shadow"},
            {"kill": -1},
            {"kill": 1, "signal": 9},
            {"pid": 1},
            {},
            [],
        ]
        for message in wrong:
            self.assertRaises(RefusedError, decode, json.dumps(message).encode())

    @SLOW
    @given(st.binary())
    def test_any_bytes(self, data: bytes) -> None:
        """Bytes of any kind are an order or refused."""
        self.check(data)

    @SLOW
    @given(st.dictionaries(st.sampled_from(["zygote", "kill", "files", "x"]), JSON))
    def test_any_values(self, message: dict[str, Any]) -> None:
        """So are values of any kind."""
        self.check(json.dumps(message).encode())

    def check(self, data: bytes) -> None:
        """Check that it is one of them or refused."""
        try:
            order = decode(data)
        except RefusedError:
            return
        self.assertIn(order.what, ("zygote", "kill", "files"))
        self.assertIs(type(order.number), int)


class BareKeeper:
    """A keeper behind its bare socket, as the front has it."""

    def __init__(self, folder: Path, procedures: str) -> None:
        folder.mkdir()
        self.config = write_configuration(folder, network=f"kill_grace: {KILL_GRACE}\n")
        self.procedures = write_procedures(folder / "procedures.py", procedures)
        self.log = folder / "log"
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.settimeout(PATIENCE)
        with theirs, open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                keeper_command(str(self.config), self.procedures, theirs.fileno()),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[theirs.fileno()],
            )
        self.opened: list[int] = []

    def tell(self, message: Any, *descriptors: int) -> None:
        """Send a message, which need not be an order."""
        data = message if isinstance(message, bytes) else json.dumps(message).encode()
        socket.send_fds(self.control, [data], descriptors)

    def answer(self) -> tuple[dict[str, Any], list[int]]:
        """Wait for the next message, and return it with its descriptors."""
        data, descriptors, _, _ = socket.recv_fds(self.control, MAX_MESSAGE, 5)
        self.opened += descriptors
        return json.loads(data), descriptors

    def zygote(self, number: int) -> tuple[int, socket.socket]:
        """Have a zygote started and wait until it is ready; return its guard and its control."""
        self.tell({"zygote": number})
        message, (control, _) = self.answer()
        assert message["zygote"] == number, message
        end = socket.socket(fileno=os.dup(control))
        end.settimeout(PATIENCE)
        while (told := json.loads(end.recv(MAX_MESSAGE))) != {"ready": True}:
            assert "procedure" in told, told
        return message["pid"], end

    def close(self) -> None:
        """End it."""
        self.control.close()
        for descriptor in self.opened:
            os.close(descriptor)
        self.process.wait(PATIENCE)


class KeeperTests(SynchronousTestCase):
    """What can be had of it, and what can't."""

    def setUp(self) -> None:
        self.keeper = BareKeeper(Path(self.mktemp()).absolute(), ONE)
        self.addCleanup(self.keeper.close)

    def started(self, number: int) -> int:
        """Have a zygote started and return the process id of its guard."""
        guard, control = self.keeper.zygote(number)
        self.addCleanup(control.close)
        return guard

    def check_unharmed(self, *words: str) -> None:
        """Check that it still does what it should, holds nothing, and has logged these words."""
        guard, control = self.keeper.zygote(999)
        control.close()
        os.close(self.keeper.opened.pop())
        os.close(self.keeper.opened.pop())
        self.assertEqual(self.keeper.answer()[0], {"ended": 999, "status": 0})
        wait_gone(guard)
        self.assertEqual(len(os.listdir(f"/proc/{self.keeper.process.pid}/fd")), 6)
        for word in words:
            self.assertIn(word, self.keeper.log.read_text())

    def test_zygote(self) -> None:
        """A zygote is started with the procedures that the keeper was started with."""
        guard = self.started(5)
        call, theirs = socket.socketpair()
        read, write = os.pipe()
        control = socket.socket(fileno=os.dup(self.keeper.opened[0]))
        with call, theirs, control:
            start = b'{"start":1,"procedure":"f"}'
            socket.send_fds(control, [start], [theirs.fileno(), write])
            call.sendall(b"[]\n{}\n")
            call.settimeout(PATIENCE)
            self.assertIn("result", json.loads(call.recv(1000)))
        os.close(read)
        os.close(write)
        self.assertIn(guard, tree.descendants(self.keeper.process.pid))

    def test_settings_are_its_own(self) -> None:
        """What the configuration says is read for each zygote, and nobody else can say it."""
        (self.keeper.config.parent / "mine").mkdir()
        self.keeper.config.write_text("defaults: {timeout: 7.5}\n")
        self.keeper.tell({"zygote": 1, "defaults": {"timeout": 1}})
        self.keeper.tell({"zygote": 2})
        message, (control, _) = self.keeper.answer()
        self.assertEqual(message["zygote"], 2)
        described = json.loads(os.read(control, MAX_MESSAGE))["procedure"]
        self.assertEqual(described["timeout"], 7.5)

    def test_settings_are_not_shown(self) -> None:
        """The environment of calls may have secrets: not in what all users can see of processes."""
        text = "defaults: {environment: {TOKEN: hunter2}}\n"
        write_configuration(self.keeper.config.parent, network=text)
        guard = self.started(1)
        for pid in (self.keeper.process.pid, guard, zygote_below(guard)):
            for name in ("cmdline", "environ"):
                shown = Path(f"/proc/{pid}/{name}").read_bytes()
                self.assertNotIn(b"hunter2", shown)
                self.assertIn(b"harpd" if name == "cmdline" else b"PATH", shown)

    def test_nothing_else(self) -> None:
        """What is no order does nothing, nor do descriptors that come with one."""
        wrong: list[Any] = [
            b"",
            b"\xff",
            [],
            {"zygote": "x"},
            {"files": "/etc/passwd"},
            {"kill": None},
        ]
        for message in wrong:
            self.keeper.tell(message)
            self.keeper.tell(message, *[0] * 50)
        self.keeper.tell({"zygote": 1}, 0)
        self.keeper.tell({"files": 1}, 0, 1, 2)
        self.check_unharmed("an order was refused: ", "came with descriptors")

    def test_kill(self) -> None:
        """A zygote that hangs is killed, and only what is one."""
        guard = self.started(1)
        zygote = zygote_below(guard)
        os.kill(zygote, signal.SIGSTOP)
        victim = os.fork()
        if victim == 0:
            signal.pause()
        self.addCleanup(os.waitpid, victim, 0)
        self.addCleanup(os.kill, victim, signal.SIGKILL)
        for number in (victim, os.getpid(), guard, zygote, 0):
            self.keeper.tell({"kill": number})
        self.check_unharmed()
        self.assertTrue(alive(victim))
        self.assertTrue(alive(guard))
        self.keeper.tell({"kill": 1})
        message, _ = self.keeper.answer()
        self.assertEqual(message["ended"], 1)
        wait_gone(guard, zygote)

    def test_number_twice(self) -> None:
        """The number of a zygote can't be given to another."""
        guard = self.started(1)
        self.keeper.tell({"zygote": 1})
        self.check_unharmed("has the number of another zygote")
        self.assertTrue(alive(guard))

    def test_too_many(self) -> None:
        """There is an end to how many there are."""
        for number in range(MAX_ZYGOTES + 1):
            self.keeper.tell({"zygote": number})
        refused = None
        while refused is None:
            message, _ = self.keeper.answer()
            refused = message.get("refused")
        self.assertEqual(message["message"], f"there are {MAX_ZYGOTES} zygotes already")

    def test_files(self) -> None:
        """The configuration and what it names can be had."""
        self.keeper.tell({"files": 3})
        message, (pipe,) = self.keeper.answer()
        self.assertEqual(message, {"files": 3})
        with open(os.dup(pipe), "rb") as end:
            names = [Path(name).name for name in json.loads(end.read())]
        self.assertEqual(names, ["harpd.yaml", "cert.pem", "key.pem"])
        wait_until(lambda: not tree.descendants(self.keeper.process.pid), "the reader's end")
        self.check_unharmed()

    def test_front_dies(self) -> None:
        """It ends with the front, and so does a zygote."""
        guard = self.started(1)
        self.keeper.control.close()
        self.assertEqual(self.keeper.process.wait(PATIENCE), 0)
        self.assertTrue(alive(guard))
        for descriptor in self.keeper.opened:
            os.close(descriptor)
        self.keeper.opened.clear()
        self.doCleanups()
        wait_gone(guard)

    def test_dies(self) -> None:
        """When it is killed its zygotes go on."""
        guard = self.started(1)
        zygote = zygote_below(guard)
        self.keeper.process.kill()
        self.assertTrue(select.select([self.keeper.control], [], [], PATIENCE)[0])
        self.assertTrue(alive(guard))
        self.assertTrue(alive(zygote))
