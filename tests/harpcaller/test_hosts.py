"""Tests of harpcaller.hosts: real programs and files, with a Clock for the interval."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorProcess
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase, TestCase

from harpcaller import hosts
from harpcaller.hosts import MAX_COMPLAINTS, Host, HostsRegistry, parse_hosts

WEB1 = Host("web1", "10.0.0.1", 4306, "u", "secret")


def line(hostname: str = "web1", **changes: object) -> bytes:
    """Return one line of the script's output; a change to None leaves the key out."""
    login = {"user": "u", "password": "secret"}
    entry = {"hostname": hostname, "address": "10.0.0.1", "port": 4306, "credentials": login}
    entry |= changes
    return json.dumps({key: value for key, value in entry.items() if value is not None}).encode()


class HostTests(SynchronousTestCase):
    """The value."""

    def test_password_is_not_shown(self) -> None:
        """The password stays out of logs and tracebacks."""
        self.assertNotIn("secret", f"{WEB1!r} {WEB1}")


class ParseHostsTests(SynchronousTestCase):
    """The script's output."""

    def test_good_lines(self) -> None:
        """Each line is a host; blank lines and the last line's end do not matter."""
        found = parse_hosts(line() + b"\r\n\n" + line("web2", address="web2.example.org", port=1))
        web2 = Host("web2", "web2.example.org", 1, "u", "secret")
        self.assertEqual(found, ({"web1": WEB1, "web2": web2}, []))

    def test_port_is_optional(self) -> None:
        """A host without a port has harpd's own."""
        self.assertEqual(parse_hosts(line(port=None)), ({"web1": WEB1}, []))

    def test_unknown_keys(self) -> None:
        """Scripts may print more than is understood here."""
        login = {"user": "u", "password": "secret", "realm": "x"}
        found, complaints = parse_hosts(line(tags=["x"], credentials=login))
        self.assertEqual((found, complaints), ({"web1": WEB1}, []))

    def test_no_lines(self) -> None:
        """No output is no host, and nothing to complain about."""
        self.assertEqual(parse_hosts(b""), ({}, []))

    def test_bad_lines(self) -> None:
        """A bad line is left out and told by its number and fault, without what stood there."""
        bad = [
            line(hostname=""),
            line(address=None),
            line(address=""),
            line(port=0),
            line(port=65536),
            line(port="4306"),
            line(credentials="u:secret"),
            line(credentials={"user": "u"}),
            line(credentials={"user": "u", "password": 1}),
            b'{"password": "secret"',
            b'["secret"]',
            b'"secret" \xff',
            line()[:-1] + b', "unknown": "\xff"}',
            line()[:-1] + b', "unknown": ' + b"[" * 100000,
        ]
        for entry in bad:
            found, complaints = parse_hosts(b"\n" + entry + b"\n" + line())
            self.assertEqual(found, {"web1": WEB1})
            self.assertEqual(len(complaints), 1)
            self.assertRegex(complaints[0], r"^line 2: \w")
            self.assertNotIn("secret", complaints[0])

    def test_fault_is_named(self) -> None:
        """The complaint leads to the key."""
        _, complaints = parse_hosts(line(port="x") + b"\n" + line(credentials={"user": "u"}))
        self.assertIn("$.port", complaints[0])
        self.assertIn("`password`", complaints[1])

    def test_same_name_twice(self) -> None:
        """Of two lines with one name the first counts."""
        found, complaints = parse_hosts(line() + b"\n" + line(address="10.0.0.2"))
        self.assertEqual(found, {"web1": WEB1})
        self.assertEqual(len(complaints), 1)
        self.assertIn("line 2: ", complaints[0])


class HostsRegistryTests(TestCase):
    """The list that is kept."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.cache = self.folder / "hosts.db"
        self.output = self.folder / "output"
        self.script = self.folder / "script"
        self.count = self.folder / "count"
        self.output.write_bytes(line())
        self.write('cat "$output"')
        self.registry = self.make()
        self.events: list[dict[str, Any]] = []
        observer = cast(ILogObserver, self.events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def make(self) -> HostsRegistry:
        registry = HostsRegistry(
            cast(IReactorProcess, reactor), self.clock, self.script, self.cache, 900.0
        )

        async def stop() -> None:
            if registry.running:
                await (registry.stopService() or _done())

        self.addCleanup(stop)
        return registry

    def write(self, text: str) -> None:
        """Make a script that counts its runs before anything else."""
        self.script.write_text(
            f"#!/bin/sh\noutput={self.output}\necho run >> {self.count}\n{text}\n"
        )
        self.script.chmod(0o755)

    def runs(self) -> int:
        return self.count.read_text().count("run") if self.count.exists() else 0

    def logged(self, least: LogLevel = LogLevel.warn) -> str:
        """Return what the registry has said, of this weight or more."""
        return "\n".join(
            formatEvent(event)
            for event in self.events
            if event["log_namespace"].startswith("harpcaller.") and event["log_level"] >= least
        )

    async def test_first_list(self) -> None:
        """The script runs at once, and who waits for the list gets it."""
        ready = self.registry.when_ready()
        self.assertNoResult(ready)
        self.registry.startService()
        await ready
        self.assertEqual(self.registry.lookup("web1"), WEB1)
        self.assertIsNone(self.registry.lookup("web2"))
        self.successResultOf(self.registry.when_ready())
        self.assertEqual(self.logged(), "")

    async def test_cache_is_written(self) -> None:
        """A good output is kept as it is in a file that only its owner can read."""
        self.cache.write_bytes(b"old")
        self.cache.chmod(0o644)
        self.registry.startService()
        self.assertIsNone(await self.registry.refresh())
        self.assertEqual(self.cache.read_bytes(), line())
        self.assertEqual(stat.S_IMODE(self.cache.stat().st_mode), 0o600)
        self.assertEqual({each.name for each in self.folder.iterdir()}, {
            "hosts.db", "output", "script", "count"
        })  # fmt: skip

    async def test_cache_is_read(self) -> None:
        """After a start the last good list is there at once, also if the script now fails."""
        self.cache.write_bytes(line())
        self.write("exit 1")
        self.registry.startService()
        self.successResultOf(self.registry.when_ready())
        self.assertEqual(self.registry.lookup("web1"), WEB1)
        await self.registry.refresh()
        self.assertEqual(self.registry.lookup("web1"), WEB1)
        self.assertEqual(self.cache.read_bytes(), line())

    async def test_bad_cache(self) -> None:
        """A cache that can't be used is told of and does not keep the service from starting."""
        self.cache.write_bytes(b"rubbish")
        self.registry.startService()
        self.assertIn("line 1", self.logged())
        self.assertNoResult(self.registry.when_ready())
        await self.registry.refresh()
        self.assertEqual(self.registry.lookup("web1"), WEB1)

    async def test_unusable_cache_file(self) -> None:
        """A cache that can neither be read nor written is told of, the list is in force."""
        self.cache.mkdir()
        self.registry.startService()
        self.assertIn("can't be read", self.logged())
        self.assertIsNone(await self.registry.refresh())
        self.assertIn("can't be written", self.logged())
        self.assertEqual(self.registry.lookup("web1"), WEB1)
        self.assertEqual([each.name for each in self.folder.glob(".*")], [])

    async def test_half_written_cache(self) -> None:
        """If the new cache can't be written whole, the old one stays as it was."""
        self.cache.write_bytes(line("old"))
        self.patch(os, "fsync", _no_space)
        self.registry.startService()
        await self.registry.refresh()
        self.assertIn("No space", self.logged())
        self.assertEqual(self.cache.read_bytes(), line("old"))
        self.assertEqual([each.name for each in self.folder.glob(".*")], [])

    async def test_failures_keep_the_list(self) -> None:
        """After any kind of failure the old list and its cache stay, and the log says why."""
        self.registry.startService()
        await self.registry.refresh()
        for script, word in [
            ("cat $output; exit 3", "status 3"),
            ("cat $output; kill -9 $$", "signal 9"),
            ("", "no host"),
            ("echo rubbish", "no host"),
        ]:
            self.write(script)
            self.assertIn(word, await self.registry.refresh() or "")
            self.assertIn(word, self.logged(LogLevel.error))
            self.assertEqual(self.registry.lookup("web1"), WEB1)
            self.assertEqual(self.cache.read_bytes(), line())
            self.events.clear()

    async def test_new_list_replaces(self) -> None:
        """A new list is in force as a whole: who is not in it is gone."""
        self.registry.startService()
        await self.registry.refresh()
        self.output.write_bytes(line("web2"))
        await self.registry.refresh()
        self.assertIsNone(self.registry.lookup("web1"))
        self.assertIsNotNone(self.registry.lookup("web2"))

    async def test_bad_lines_are_told(self) -> None:
        """The good lines count, the bad ones are told by number, but not without end."""
        self.output.write_bytes(b"rubbish\n" * 1000 + line())
        self.registry.startService()
        await self.registry.refresh()
        self.assertEqual(self.registry.lookup("web1"), WEB1)
        said = self.logged()
        self.assertIn("1000 lines", said)
        self.assertEqual(said.count("line "), MAX_COMPLAINTS)

    async def test_errors_are_told(self) -> None:
        """What the script writes to its error output is in the log; it is no failure."""
        self.write("cat $output; echo half the racks are dark >&2")
        self.registry.startService()
        self.assertIsNone(await self.registry.refresh())
        self.assertIn("half the racks are dark", self.logged())

    async def test_can_not_start(self) -> None:
        """A process that can't be started is a failure like others."""

        def full(*arguments: object, **options: object) -> None:
            raise BlockingIOError(11, "Resource temporarily unavailable")

        self.patch(reactor, "spawnProcess", full)
        self.registry.startService()
        self.assertIn("temporarily", await self.registry.refresh() or "")
        self.successResultOf(self.registry.when_ready())

    async def test_mistake_of_ours(self) -> None:
        """An unexpected exception is logged, and the next run comes all the same."""
        self.registry.startService()
        self.patch(hosts, "parse_hosts", lambda output: 1 // 0)
        self.assertIn("internal", await self.registry.refresh() or "")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.clock.advance(900)
        await self.registry.refresh()
        self.assertEqual(self.runs(), 2)
        self.flushLoggedErrors(ZeroDivisionError)

    async def test_interval(self) -> None:
        """The script runs again when the interval is over, counted from start to start."""
        self.registry.startService()
        self.clock.advance(50)
        await self.registry.refresh()
        self.clock.advance(849)
        self.assertIsNone(self.registry._run)
        self.clock.advance(1)
        await self.registry.refresh()
        self.assertEqual(self.runs(), 2)

    async def test_never_two_at_once(self) -> None:
        """Who asks while the script runs joins that run, the interval's turn as well."""
        self.registry.startService()
        joined = [self.registry.refresh() for _ in range(3)]
        self.clock.advance(59)
        self.assertEqual([await each for each in joined], [None, None, None])
        self.assertEqual(self.runs(), 1)
        self.clock.advance(840)
        asked = self.registry.refresh()
        self.clock.advance(1)
        await asked
        self.assertEqual(self.runs(), 2)

    async def test_time_limit(self) -> None:
        """A script that hangs is killed, and who waits hears of it."""
        self.write("exec sleep 1000")
        self.registry.startService()
        refreshed = self.registry.refresh()
        self.clock.advance(60)
        self.assertIn("after 60 s", await refreshed or "")
        self.successResultOf(self.registry.when_ready())

    async def test_stop_ends_the_run(self) -> None:
        """A stop kills the script and waits for its end; afterwards nothing runs any more."""
        self.write("exec sleep 1000")
        self.registry.startService()
        refreshed, ready = self.registry.refresh(), self.registry.when_ready()
        stopped = self.registry.stopService()
        assert stopped is not None
        self.assertNoResult(stopped)
        await stopped
        self.assertIn("stops", await refreshed or "")
        self.successResultOf(ready)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertIn("not running", await self.registry.refresh() or "")
        self.assertEqual(self.logged(), "")

    async def test_stop_while_idle(self) -> None:
        """A stop between two runs has nothing to wait for, and a start may follow."""
        self.registry.startService()
        await self.registry.refresh()
        self.assertIsNone(self.registry.stopService())
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.registry.startService()
        await self.registry.refresh()
        self.assertEqual(self.runs(), 2)


def _no_space(descriptor: int) -> None:
    raise OSError(28, "No space left on device")


def _done() -> Deferred[None]:
    done: Deferred[None] = Deferred()
    done.callback(None)
    return done
