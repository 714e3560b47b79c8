"""Tests of ``harp check``: real daemons, real certificates, and what is wrong with them."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any
from unittest.mock import patch

import trustme
from twisted.trial.unittest import SynchronousTestCase

from harp.cli import check_files, check_hosts, findings
from harp.cli.findings import Finding, State
from harpcaller.demo.deployment import HOST
from harpcaller.demo.ports import free_port
from tests.acceptance.daemons import deploy
from tests.harp.cli_site import OTHER, Site, ageless, site
from tests.harp.commands import Done
from tests.harp.terminal import Terminal

AWAY = "away.example.net"


class CheckTestCase(SynchronousTestCase):
    """A test of what is found."""

    def found(self, done: Done) -> dict[str, Any]:
        """Return what was found, by subject."""
        lines = [json.loads(line) for line in done.out.splitlines()]
        self.assertEqual(len({line["subject"] for line in lines}), len(lines))
        return {line.pop("subject"): line for line in lines}


class InOrderTests(CheckTestCase):
    """Where all is in order."""

    def setUp(self) -> None:
        self.site: Site = site()
        folder = self.site.deployment.folder
        self.local = (
            f"--harpcaller-config={folder}/harpcaller.yaml",
            f"--harpd-config={folder}/harpd.yaml",
            f"--procedures={self.site.deployment.procedures}",
        )

    def test_all(self) -> None:
        """Configurations, certificates, dispatcher, hosts and clocks: each is told, with facts."""
        done = self.site.within("check", "--json", *self.local)
        self.assertEqual((done.status, done.err), (0, ""))
        found = self.found(done)
        self.assertEqual({each["state"] for each in found.values()}, {"ok"})
        folder = self.site.deployment.folder
        files = {
            f"configuration {folder}/harpcaller.yaml",
            f"ca_file {folder}/ca.pem",
            f"configuration {folder}/harpd.yaml",
            f"network.certfile {folder}/harpd.pem",
        }
        address = self.site.address
        asked = {f"dispatcher {address}", f"clock of {address}", f"host {HOST}", f"host {OTHER}"}
        self.assertEqual(found.keys(), files | asked)
        self.assertLess(abs(found[f"clock of {address}"]["clock"]), check_hosts.MAX_CLOCK)
        host = found[f"host {HOST}"]
        self.assertEqual(host["procedures"], len(self.site.rpc.procedures(HOST)))
        self.assertLess(abs(host["clock"]), check_hosts.MAX_CLOCK)
        self.assertGreater(host["ends"], datetime.now(UTC).timestamp())

    def test_for_people(self) -> None:
        """A terminal gets long findings on several lines, whole."""
        for columns in (80, 120):
            terminal = Terminal("check", HOST, columns=columns, environment=self.site.variables())
            self.addCleanup(terminal.close)
            self.assertEqual(terminal.end(), 0)
            lines = ageless(terminal.screen).splitlines()
            self.assertRegex(lines[0], r"\ASTATE +SUBJECT +FINDING\Z")
            self.assertRegex(terminal.screen, rf"(?m)^ok +host {HOST} +\d+ procedures, \d+ ms; ")
            self.assertLessEqual(max(map(len, lines)), columns)
            words = " ".join(terminal.screen.split())
            self.assertIn("days left", words)
            self.assertNotIn("…", words)
        done = self.site.within("check", HOST)
        self.assertRegex(done.out, rf"(?m)^ok +host {HOST} .* days left$")

    def test_only_some_hosts(self) -> None:
        """Hosts that are named are asked, and no others; one that is not known is an error."""
        found = self.found(self.site.within("check", "--json", OTHER))
        self.assertEqual([each for each in found if each.startswith("host")], [f"host {OTHER}"])
        done = self.site.within("check", "--json", "web02")
        self.assertEqual(done.status, 5)
        self.assertEqual(self.found(done)["host web02"]["state"], "error")

    def test_local(self) -> None:
        """Nobody is asked if only the files are wanted."""
        words = ("check", "--local", "--json", "--dispatcher=127.0.0.1:1", self.local[0])
        done = self.site.within(*words)
        self.assertEqual((done.status, len(self.found(done))), (0, 2))


@cache
def broken() -> Site:
    """Return a site that is not in order, also with TLS: see the tests."""
    return _Broken()


class _Broken(Site):
    def __init__(self) -> None:  # no history is wanted
        self.deployment = deploy()
        folder = self.deployment.folder
        authority = trustme.CA()
        soon = datetime.now(UTC) + timedelta(days=12, hours=1)
        pem = authority.issue_cert("127.0.0.1", not_after=soon).private_key_and_cert_chain_pem
        pem.write_to_path(str(folder / "rpc.pem"))
        authority.cert_pem.write_to_path(str(folder / "authority.pem"))
        port = free_port()
        self.address = f"127.0.0.1:{port}"
        self.deployment.configure_harpcaller(
            {
                "listen": [
                    f"127.0.0.1:{self.deployment.port}",
                    f"ssl:{port}:privateKey={folder}/rpc.pem:interface=127.0.0.1",
                ]
            }
        )
        entry = self.deployment.host_entry
        self.deployment.set_hosts({HOST: entry(), AWAY: entry(port=free_port())})
        (folder / "harp").mkdir()
        (folder / "harp" / "config.yaml").write_text(
            "profiles:\n"
            f"  tls: {{dispatcher: '127.0.0.1:{port}', ca_file: {folder}/authority.pem}}\n"
        )
        self.deployment.__enter__()


class NotInOrderTests(CheckTestCase):
    """Where something is not."""

    def test_hosts(self) -> None:
        """A host that can't be asked is an error; all others are told of all the same."""
        made = broken()
        words = ("check", "--json", "--profile=tls", "--harpd-config=/dev/null")
        done = made.within(*words, HARP_DISPATCHER="")
        self.assertEqual(done.status, 5)
        found = self.found(done)
        self.assertEqual(found[f"host {AWAY}"]["state"], "error")
        self.assertIn("network_error", found[f"host {AWAY}"]["finding"])
        self.assertEqual(found[f"host {HOST}"]["state"], "ok")
        self.assertIn("not in order", json.loads(done.err)["error"]["message"])

        shown = found[f"certificate of {made.address}"]
        self.assertEqual(shown["state"], "warning")
        self.assertIn("12 days left", shown["finding"])
        self.assertEqual(found["configuration /dev/null"]["state"], "error")
        self.assertIn("network", found["configuration /dev/null"]["finding"])

    def test_certificates_on_disk(self) -> None:
        """Those that the configuration of the dispatcher's ports names are looked at, too."""
        made = broken()
        folder = made.deployment.folder
        words = ("check", "--local", "--json", f"--harpcaller-config={folder}/harpcaller.yaml")
        for days, state in (("13", "warning"), ("11", "ok")):
            with patch.object(check_files, "_tested", lambda *_: Finding(State.OK, "x", "")):
                found = self.found(made.within(*words, f"--days={days}"))
            self.assertEqual(found[f"listen {folder}/rpc.pem"]["state"], state)

    def test_dispatcher_away(self) -> None:
        """A dispatcher that is not there is told with the files, by the status for that."""
        words = ("check", "--json", "--dispatcher=127.0.0.1:1")
        done = site().within(*words)
        self.assertEqual(done.status, 6)
        self.assertEqual(self.found(done)["dispatcher 127.0.0.1:1"]["state"], "error")

    def test_clocks(self) -> None:
        """Clocks that differ are a warning that says by how much, and no failure."""
        real = time.time
        with patch.object(time, "time", lambda: real() + 7.5):
            done = site().within("check", "--json", HOST)
        clock = self.found(done)[f"clock of {site().address}"]
        self.assertEqual((done.status, clock["state"]), (0, "warning"))
        self.assertIn("behind this machine's", clock["finding"])
        self.assertLess(clock["clock"], -7)
        rpc: Any = _Hosts({"procedures": [], "clock": 3.25})
        (host,) = check_hosts.ask_hosts(rpc, [], 1, 30)
        self.assertEqual(host.state, State.WARNING)
        self.assertIn("clock 3.25 s ahead of the dispatcher's", host.text)

    def test_older_daemons(self) -> None:
        """A daemon that does not tell its time is not blamed for that."""
        rpc: Any = _Hosts({"procedures": [], "clock": None})
        (host,) = check_hosts.ask_hosts(rpc, [], 1, 30)
        self.assertEqual(host.state, State.OK)
        self.assertNotIn("clock", host.text)

    def test_certificate(self) -> None:
        """How long a certificate is good for is told in days."""
        now = datetime.now(UTC)
        for left, state, part in (
            (timedelta(days=30, hours=1), State.OK, "30 days left"),
            (timedelta(days=29, hours=1), State.WARNING, "29 days left"),
            (timedelta(days=1, hours=1), State.WARNING, "1 day left"),
            (timedelta(seconds=-1), State.ERROR, "EXPIRED"),
        ):
            found, text = findings.of_certificate(now - timedelta(days=1), now + left, 30)
            self.assertEqual(found, state)
            self.assertIn(part, text)
        begins = now + timedelta(hours=1)
        found, text = findings.of_certificate(begins, now + timedelta(days=90), 30)
        self.assertEqual(found, State.ERROR)
        self.assertIn("NOT VALID before", text)


class _Hosts:
    """A dispatcher with one host, which answers so."""

    def __init__(self, described: dict[str, Any]) -> None:
        self._described = described

    def hosts(self) -> list[dict[str, Any]]:
        return [{"name": "h", "address": "127.0.0.1", "port": 1}]

    def describe(self, host: str) -> dict[str, Any]:
        return self._described
