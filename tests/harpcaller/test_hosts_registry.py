"""Tests of harpcaller.hosts.registry: real programs and files, with a Clock for the interval."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorProcess
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import TestCase

from harpcaller.hosts import HostsFile, HostsRegistry, HostsScript, registry
from harpcaller.hosts.registry import MAX_COMPLAINTS
from tests.harpcaller.test_hosts_entries import WEB1, line


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

    def make(self, source: HostsScript | HostsFile | None = None) -> HostsRegistry:
        made = HostsRegistry(
            cast(IReactorProcess, reactor), self.clock, source or self.source(max_loss=None)
        )

        async def stop() -> None:
            if made.running:
                await (made.stopService() or _done())

        self.addCleanup(stop)
        return made

    def source(self, interval: float = 900.0, max_loss: float | None = 0.5) -> HostsScript:
        return HostsScript(self.script, self.cache, interval, max_loss)

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

    async def test_killed_while_writing_the_cache(self) -> None:
        """Writers that were killed leave one file at most, and the next good list removes it."""
        self.cache.write_bytes(line("old"))
        text = (
            "import os, pathlib, sys\n"
            "from harpcaller.hosts.cache import write_cache\n"
            "os.fsync = lambda descriptor: os.kill(os.getpid(), 9)\n"
            "write_cache(pathlib.Path(sys.argv[1]), b'new')\n"
        )
        for _ in range(2):
            ended = subprocess.run([sys.executable, "-c", text, str(self.cache)], check=False)
            self.assertEqual(ended.returncode, -9)
        self.assertEqual(self.cache.read_bytes(), line("old"))
        (left,) = self.folder.glob(".*")
        left.chmod(0o644)
        self.registry.startService()
        await self.registry.refresh()
        self.assertEqual([each.name for each in self.folder.glob(".*")], [])
        self.assertEqual(stat.S_IMODE(self.cache.stat().st_mode), 0o600)

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

    async def test_errors_are_escaped(self) -> None:
        """They are one line of the log, without what a terminal would obey."""
        self.write(r"cat $output; printf 'one\n\n\ttwo\033[2J\r\nthree\302\205four\000\n' >&2")
        self.registry.startService()
        await self.registry.refresh()
        self.assertIn(r"says: one | two\x1b[2J | three | four\x00", self.logged())
        self.assertTrue(self.logged().isprintable())

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
        self.patch(registry, "parse_hosts", lambda output: 1 // 0)
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

    async def take(self, *names: str, accept_loss: bool = False) -> str | None:
        """Let the script print these hosts, and return what a refresh comes to."""
        self.output.write_bytes(b"\n".join(line(name) for name in names))
        return await self.registry.refresh(accept_loss)

    async def test_loss_keeps_the_list(self) -> None:
        """A list without more than half of the known hosts is not taken, on disk neither."""
        self.registry = self.make(self.source())
        self.registry.startService()
        await self.take("a", "b", "c", "d")
        cached = self.cache.read_bytes()
        problem = await self.take("d", "e", "f", "g", "h")
        for word in ("5 hosts", "3 of the 4", "host_db_max_loss is 0.5", "accept_loss"):
            self.assertIn(word, problem or "")
        self.assertIn(problem or "", self.logged(LogLevel.error))
        self.assertEqual(self.names(), ["a", "b", "c", "d"])
        self.assertEqual(self.cache.read_bytes(), cached)

    async def test_half_may_go(self) -> None:
        """Half of them is not more than half."""
        self.registry = self.make(self.source())
        self.registry.startService()
        await self.take("a", "b", "c", "d")
        self.assertIsNone(await self.take("c", "d"))
        self.assertEqual(self.names(), ["c", "d"])

    async def test_max_loss(self) -> None:
        """The part can be set, down to nothing, or not looked at."""
        for max_loss, is_taken in [(0.0, False), (0.7, False), (0.75, True), (None, True)]:
            self.registry = self.make(self.source(max_loss=max_loss))
            self.cache.unlink(missing_ok=True)
            self.registry.startService()
            await self.take("a", "b", "c", "d")
            self.assertEqual(await self.take("d") is None, is_taken, max_loss)
            await (self.registry.stopService() or _done())

    async def test_loss_after_a_start(self) -> None:
        """The list of the time before the start is what the loss is measured by."""
        self.cache.write_bytes(b"\n".join(line(name) for name in "abcd"))
        self.registry = self.make(self.source())
        self.registry.startService()
        self.assertIn("4 of the 4", await self.registry.refresh() or "")
        self.assertEqual(self.names(), ["a", "b", "c", "d"])

    async def test_loss_is_accepted(self) -> None:
        """Who says so gets the short list, this time only."""
        self.registry = self.make(self.source())
        self.registry.startService()
        await self.take("a", "b", "c", "d")
        self.assertIsNone(await self.take("d", accept_loss=True))
        self.assertEqual(self.names(), ["d"])
        self.assertEqual(self.cache.read_bytes(), line("d"))
        self.assertIn("3 of the 4 known; that was asked for", self.logged())
        self.assertIn("1 of the 1", await self.take("e") or "")
        self.assertIn("no host", await self.take(accept_loss=True) or "")

    async def test_loss_is_accepted_by_one_who_joins(self) -> None:
        """The run may have begun before somebody accepts what it brings."""
        self.registry = self.make(self.source())
        self.registry.startService()
        await self.take("a", "b", "c", "d")
        self.output.write_bytes(line("d"))
        self.clock.advance(900)
        self.assertIsNone(await self.registry.refresh(accept_loss=True))
        self.assertEqual(self.runs(), 2)

    def names(self) -> list[str]:
        return [host.name for host in self.registry.page(100)[0]]

    async def test_pages(self) -> None:
        """The hosts can be listed by name, some at a time, none twice."""
        self.registry.startService()
        await self.take("b", "e", "a", "d", "c")
        self.assertEqual(self.registry.count(), 5)
        seen, cursor, pages = [], None, 0
        while pages == 0 or cursor is not None:
            hosts, cursor = self.registry.page(2, cursor)
            seen += [host.name for host in hosts]
            pages += 1
        self.assertEqual((seen, pages), (["a", "b", "c", "d", "e"], 3))
        self.assertEqual(self.registry.page(5), (self.registry.page(100)[0], None))
        self.assertEqual(self.registry.page(1)[0], [self.registry.lookup("a")])

    async def test_pages_of_a_list_that_changes(self) -> None:
        """A cursor holds also when its host is gone, and after the last one."""
        self.registry.startService()
        await self.take("a", "b", "c")
        _, cursor = self.registry.page(2)
        await self.take("a", "c", "d")
        hosts, end = self.registry.page(2, cursor)
        self.assertEqual(([host.name for host in hosts], end), (["c", "d"], None))
        self.assertEqual(self.registry.page(2, "z"), ([], None))

    def test_no_pages(self) -> None:
        """No hosts are an empty page."""
        self.assertEqual((self.registry.page(10), self.registry.count()), (([], None), 0))


def _no_space(descriptor: int) -> None:
    raise OSError(28, "No space left on device")


def _done() -> Deferred[None]:
    done: Deferred[None] = Deferred()
    done.callback(None)
    return done
