"""Tests of the ``harp`` command where the dispatcher is away, slow, or vanishes."""

from __future__ import annotations

import json
import socket
import threading

from harp.cli import reading
from tests.harp.cli_deployment import CommandTestCase
from tests.harp.peer import Script, ScriptedDispatcher, reset, until

JOB_ID = "01a2063f-9970-75a6-8acb-1e9a1e74df06"
ACCEPTED = b'{"harpcaller":1,"job_id":"%s"}\n' % JOB_ID.encode()
FIRST = b'{"packet":0,"data":"first"}\n'
SECOND = b'{"packet":1,"data":"second"}\n'
STATUS = (
    b'{"call":{"host":"web01","procedure":"back_up","arguments":[]},'
    b'"time":{"submit":1,"start":2,"end":3},"info":null}\n'
)
DONE = b'{"result":"done"}\n'


class TroubleTests(CommandTestCase):
    """What people and scripts learn then."""

    def dispatcher(self, *scripts: Script) -> ScriptedDispatcher:
        """Have the command talk to a dispatcher with these scripts, of version 1 alone."""
        peer = ScriptedDispatcher(scripts)
        self.addCleanup(peer.stop)
        self.environment["HARP_DISPATCHER"] = f"127.0.0.1:{peer.port}"
        return peer

    def test_away(self) -> None:
        """A dispatcher that is not there has a status of its own, at once, and is named."""
        with socket.socket() as taken:  # bound, but it does not listen
            taken.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            self.environment["HARP_DISPATCHER"] = address
            said = f"Error: {address}: can't connect: Connection refused\n"
            said += "  Check the address, and that the daemon runs there."
            for command in ("result", "follow", "status", "cancel"):
                done = self.harp(command, JOB_ID)
                self.assertEqual((done.status, done.out), (6, ""))
                self.assertEqual(done.err, f"{said}\n")
            done = self.harp("--json", "call", "web01", "greet", "Ada")
            self.assertEqual((done.status, done.out), (6, ""))
            told = json.loads(done.err)
            self.assertEqual((told["status"], told["error"]["type"]), (6, "unreachable"))
            self.assertFalse(told["error"]["may_have_run"])
            terminal = self.terminal("call", "web01", "greet", "Ada")
            self.assertEqual(terminal.end(), 6)
            self.assertEqual(terminal.screen, said)
        self.environment["HARP_DISPATCHER"] = f"unix:{self.folder}/none"
        self.assertEqual(self.harp("result", JOB_ID).status, 6)

    def test_slow(self) -> None:
        """A spinner tells that a slow one is waited for; Ctrl-C ends that."""
        is_over = threading.Event()
        self.dispatcher([until(is_over)])
        terminal = self.terminal("call", "web01", "greet")
        terminal.wait_for("⠋ submitting 0:00")
        terminal.ctrl_c()
        self.assertEqual(terminal.end(), 130)
        is_over.set()
        self.assertEqual(
            terminal.screen,
            "the call may have been submitted: harp jobs tells",
        )

    def test_silent(self) -> None:
        """One that says nothing is given up after the profile's time."""
        is_over = threading.Event()
        peer = self.dispatcher([until(is_over)])
        file = self.folder / "config" / "harp" / "config.yaml"
        file.parent.mkdir(parents=True)
        profile = f"{{dispatcher: '127.0.0.1:{peer.port}', reply_timeout: 0.2}}"
        file.write_text(f"profiles: {{slow: {profile}}}\n")
        done = self.harp("--profile", "slow", "call", "web01", "greet")
        is_over.set()
        self.assertEqual((done.status, done.out), (6, ""))
        self.assertIn("nothing came for 0.2 seconds", done.err)

    def test_comes_back(self) -> None:
        """A follower whose conversation breaks goes on behind its last packet."""
        peer = self.dispatcher([ACCEPTED], [FIRST, reset], [SECOND, DONE], [reset], [DONE])
        self.patch(reading, "RETRIES", (0.01, 0.02))
        done = self.harp("call", "web01", "back_up")
        self.assertEqual((done.status, done.out), (0, '"first"\n"second"\n"done"\n'))
        self.assertEqual(done.err.count("; trying again\n"), 2)
        starts = [json.loads(each).get("since") for each in peer.requests]
        self.assertEqual(starts, [None, 0, 1, None, None])

    def test_vanishes(self) -> None:
        """One that does not come back has the status for that; the job can be found again."""
        self.dispatcher([ACCEPTED], [FIRST, reset])
        self.patch(reading, "RETRIES", (0.01, 0.02))
        done = self.harp("call", "web01", "back_up")
        self.assertEqual((done.status, done.out), (6, '"first"\n'))
        self.assertIn(f"job {JOB_ID}\n", done.err)
        self.assertIn("can't connect: Connection refused\n", done.err)
        self.assertIn(f"harp follow {JOB_ID} --since 1\n", done.err)

    def test_vanishes_on_a_terminal(self) -> None:
        """People see that it is tried again, and are told when that is given up."""
        self.dispatcher([ACCEPTED], [FIRST, reset])
        terminal = self.terminal("call", "web01", "back_up", columns=120)
        terminal.wait_for("⠋ trying again: 127.0.0.1:")
        self.assertEqual(terminal.end(), 6)
        _, packet, error, _, how = terminal.screen.splitlines()
        self.assertEqual(packet, '"first"')
        self.assertRegex(error, "Error: 127.0.0.1:[0-9]+: can't connect: Connection refused")
        self.assertEqual(how, f"    harp follow {'J' * 36} --since 1")

    def test_older_than_the_command(self) -> None:
        """A dispatcher of version 1 does what it can: arguments are guessed, facts are fewer."""
        peer = self.dispatcher([ACCEPTED], [STATUS], [DONE])
        done = self.harp("call", "web01", "back_up", "--help")
        self.assertEqual((done.status, done.out), (5, ""))
        self.assertIn("the dispatcher has no list_procedures", done.err)
        done = self.harp("call", "web01", "back_up", "5", "x", "--detach")
        self.assertEqual((done.status, done.out), (0, f"{JOB_ID}\n"))
        self.assertEqual(json.loads(peer.requests[0])["arguments"], [5, "x"])
        done = self.harp("--json", "status", JOB_ID)
        self.assertEqual((done.status, done.err), (0, ""))
        facts = json.loads(done.out)
        self.assertEqual((facts["state"], facts["end"]), ("ended", {"kind": "result"}))

    def test_something_else_listens(self) -> None:
        """What is no dispatcher is told from one that is away."""
        self.dispatcher([b"220 mail.example.net ESMTP\r\n"])
        done = self.harp("result", JOB_ID)
        self.assertEqual((done.status, done.out), (6, ""))
        self.assertIn("127.0.0.1:", done.err)
