"""Tests of ``harp admin`` against a real dispatcher with rules."""

from __future__ import annotations

import json
import time
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

import harp as client
from harp.cli.token import hash_of
from harpcaller.demo.deployment import HOST
from tests.acceptance.daemons import PATIENCE, deploy
from tests.harp.cli_site import Site, site
from tests.harp.commands import Done
from tests.harp.terminal import Terminal

TOKEN = "harp_of-the-administrator"


class AdminTests(SynchronousTestCase):
    """What is done to a dispatcher that goes on."""

    def setUp(self) -> None:
        self.site: Site = site()

    def test_info(self) -> None:
        """Version, extensions, and what the clock says."""
        done = self.site.within("admin", "info")
        version = self.site.rpc.server_info()["version"]
        self.assertRegex(done.out, rf"(?m)^version +{version}$")
        self.assertRegex(done.out, r"(?m)^extensions .*\bstop\b")
        self.assertRegex(done.out, r"(?m)^clock +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]")
        found = json.loads(self.site.within("admin", "info", "--json").out)
        self.assertEqual(found.keys(), {"version", "extensions", "time"})
        self.assertLess(abs(found["time"] - time.time()), PATIENCE)

    def test_reload(self) -> None:
        """The configuration is read again; each mistake in it is told, and the status tells too."""
        self.assertEqual(
            self.site.within("admin", "reload"), Done(0, "the configuration is in force\n", "")
        )
        self.assertEqual(
            json.loads(self.site.within("admin", "reload", "--json").out)["reloaded"], True
        )
        self.addCleanup(self.site.deployment.configure_harpcaller, {})
        self.site.deployment.configure_harpcaller({"max_exec_time": -1, "nonsense": 1})
        done = self.site.within("admin", "reload")
        self.assertEqual((done.status, done.out), (5, ""))
        self.assertIn("stays as it was", done.err)
        for key in ("max_exec_time", "nonsense"):
            self.assertIn(key, done.err)
        told = json.loads(self.site.within("--json", "admin", "reload").err)
        self.assertEqual((told["reloaded"], len(told["mistakes"])), (False, 2))

    def test_prune(self) -> None:
        """Jobs that ended longer ago are forgotten; how long is said as people say it."""
        for length in ("3600", "60m", "1.5h", "30d", "8w"):
            done = self.site.within("admin", "prune", "--older-than", length)
            self.assertEqual(done, Done(0, "0 jobs forgotten\n", ""))
        found = self.site.within("admin", "prune", "--older-than=1d", "--json").out
        self.assertEqual(json.loads(found), {"pruned": 0})
        for wrong in ("0", "1y", "-1", "", "d", "1e3", "1" * 400):
            done = self.site.within("admin", "prune", f"--older-than={wrong}")
            self.assertEqual((done.status, done.out), (2, ""), wrong)
            self.assertIn("older-than", done.err)
        self.assertEqual(self.site.within("admin", "prune").status, 2)

    def test_not_confirmed(self) -> None:
        """Nothing is stopped where nobody said yes."""
        done = self.site.harp("admin", "stop", given="y\n")
        self.assertEqual((done.status, done.out), (2, ""))
        self.assertIn("--yes", done.err)
        terminal = Terminal("admin", "stop", environment=self.site.variables())
        self.addCleanup(terminal.close)
        terminal.wait_for("Stop the dispatcher for everybody? [y/N]")
        terminal.type("n\r")
        self.assertEqual(terminal.end(), 3)
        self.assertIn("nothing was stopped", terminal.screen)
        self.assertEqual(self.site.within("admin", "info").status, 0)


class StopTests(SynchronousTestCase):
    """The end of a dispatcher, and who may bring it about."""

    def setUp(self) -> None:
        rules = [
            {"who": "anonymous", "call": "*", "see": "all", "cancel": "all"},
            {"who": "root", "administer": True},
        ]
        users = {"root": {"tokens": [hash_of(TOKEN)]}}
        self.deployment = deploy(users=users, rules=rules, shutdown_grace=60)
        self.deployment.__enter__()
        self.addCleanup(self.deployment.stop)

    def harp(self, *arguments: str, token: str = "") -> Done:
        """Run the command against this dispatcher."""
        address = f"127.0.0.1:{self.deployment.port}"
        return site().within(*arguments, HARP_DISPATCHER=address, HARP_TOKEN=token)

    def test_stop(self) -> None:
        """Only who administers may: what runs is counted, and the process ends with status 0."""
        for command in (["stop", "--yes"], ["reload"], ["prune", "--older-than=1d"]):
            done = self.harp("admin", *command)
            self.assertEqual((done.status, done.out), (7, ""), command)
            self.assertIn("not_allowed", done.err)
        rpc = client.HarpCaller("127.0.0.1", self.deployment.port)
        self.addCleanup(rpc.close)
        running = rpc.host(HOST, queue={"a": 1}).sleep(3600)
        waiting = rpc.host(HOST, queue={"a": 1}).add(1)
        done = self.harp("admin", "stop", "--yes", token=TOKEN)
        wanted = "the dispatcher is stopping: 1 job runs and has up to 60 s\n"
        self.assertEqual(done, Done(0, wanted, ""))
        refused: Any = self.assertRaises(client.RemoteError, rpc.host(HOST).add, 1)
        self.assertEqual(refused.type, "shutdown")
        found = json.loads(self.harp("admin", "stop", "--yes", "--json", token=TOKEN).out)
        self.assertEqual(found, {"stopping": True, "running": 1, "grace": 60})
        address = f"127.0.0.1:{self.deployment.port}"
        with site().start("jobs", "--watch", "--json", HARP_DISPATCHER=address) as watch:
            assert watch.stdout is not None
            assert watch.stderr is not None
            watch.stdout.readline()
            running.cancel()
            self.assertIn(address, watch.stderr.readline())  # who watches keeps nothing open
        process = self.deployment.harpcaller.process
        assert process is not None
        self.assertEqual(process.wait(PATIENCE), 0)
        self.deployment.harpcaller.process = None
        self.deployment.harpcaller.start()
        self.assertEqual(waiting.result(wait=True), 2)
