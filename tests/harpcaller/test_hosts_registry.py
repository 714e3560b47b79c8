"""Tests of harpcaller.hosts.registry: real programs and files, with a Clock for the interval."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads, IReactorProcess, IReactorTime
from twisted.internet.task import Clock, deferLater
from twisted.logger import ILogObserver, LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import TestCase

from harp.settings import ConfigError
from harpcaller.hosts import Host, HostsFile, HostsRegistry, HostsScript, registry
from harpcaller.hosts.entries import parse_hosts
from harpcaller.hosts.registry import MAX_COMPLAINTS
from tests.harpcaller.test_hosts_entries import WEB1, line


class RegistryTestCase(TestCase):
    """A folder with a script, and a registry that takes its hosts from it."""

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

    async def appears(self, file: Path) -> None:
        """Wait until a script has made a file."""
        while not file.exists():
            await deferLater(IReactorTime(reactor), 0.01)

    def runs(self) -> int:
        return self.count.read_text().count("run") if self.count.exists() else 0

    def logged(self, least: LogLevel = LogLevel.warn) -> str:
        """Return what the registry has said, of this weight or more."""
        return "\n".join(
            formatEvent(event)
            for event in self.events
            if event["log_namespace"].startswith("harpcaller.") and event["log_level"] >= least
        )

    async def take(self, *names: str, accept_loss: bool = False) -> str | None:
        """Let the script print these hosts, and return what a refresh comes to."""
        self.output.write_bytes(b"\n".join(line(name) for name in names))
        return await self.registry.refresh(accept_loss)

    def names(self) -> list[str]:
        return [host.name for host in self.registry.page(100)[0]]


class HostsRegistryTests(RegistryTestCase):
    """The list that a script prints, and that is kept."""

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


class LossTests(RegistryTestCase):
    """Sudden losses of hosts."""

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


class PageTests(RegistryTestCase):
    """The hosts by name."""

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


class FileTests(RegistryTestCase):
    """Hosts that stand in a file."""

    def setUp(self) -> None:
        super().setUp()
        self.file = self.folder / "hosts.jsonl"
        self.file.write_bytes(line())
        self.registry = self.make(HostsFile.read(self.file))

    def test_hosts_at_once(self) -> None:
        """The hosts are there when the service starts, nothing runs, nothing is cached."""
        ready = self.registry.when_ready()
        self.assertNoResult(ready)
        self.registry.startService()
        self.successResultOf(ready)
        self.assertEqual(self.registry.lookup("web1"), WEB1)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertIsNone(self.registry.stopService())
        self.assertEqual((self.runs(), self.cache.exists()), (0, False))

    async def test_refresh(self) -> None:
        """The file is read again as a whole, however many hosts it loses."""
        self.registry.startService()
        self.file.write_bytes(line("a"))
        self.assertEqual(self.names(), ["web1"])
        self.assertIsNone(await self.registry.refresh())
        self.assertEqual(self.names(), ["a"])

    async def test_mistakes_keep_the_list(self) -> None:
        """A file with a mistake changes nothing, and every mistake is told."""
        self.registry.startService()
        self.file.write_bytes(line("a") + b"\n" + line("b", port=0) + b"\n" + line("c", tag=1))
        problem = await self.registry.refresh() or ""
        self.assertIn("line 2", problem)
        self.assertIn("line 3", problem)
        self.assertIn(problem, self.logged(LogLevel.error))
        self.assertEqual(self.names(), ["web1"])

    def test_unreadable(self) -> None:
        """A file with a mistake can't even be asked for."""
        self.file.write_bytes(b"rubbish")
        self.assertRaises(ConfigError, HostsFile.read, self.file)

    def test_passwords_are_not_shown(self) -> None:
        """The passwords stay out of logs and tracebacks."""
        self.assertNotIn("secret", repr(HostsFile.read(self.file)))


class ReconfigureTests(RegistryTestCase):
    """Another source while the service runs."""

    def setUp(self) -> None:
        super().setUp()
        file = self.folder / "hosts.jsonl"
        file.write_bytes(line("filed"))
        self.filed = HostsFile.read(file)

    def write_other(self, text: str) -> HostsScript:
        """Make another script, which the registry may be told of."""
        self.script = self.folder / "other"
        self.write(text)
        return self.source(60.0)

    async def test_watched(self) -> None:
        """Who watches is called when another list is in force, and when none came not."""
        seen: list[list[str]] = []
        self.registry.watch(lambda: seen.append(self.names()))
        self.registry.startService()
        await self.registry.refresh()
        self.registry.reconfigure(self.write_other("exit 3"))
        await self.registry.refresh()
        self.assertEqual(seen, [["web1"]])

    async def test_other_script(self) -> None:
        """The other script runs at once and at its own interval, the old one no more."""
        self.registry.startService()
        await self.registry.refresh()
        other = self.write_other(f"echo other >> {self.folder}/others; cat $output")
        self.registry.reconfigure(other)
        await self.registry.refresh()
        self.clock.advance(60)
        await self.registry.refresh()
        self.assertEqual((self.folder / "others").read_text(), "other\n" * 2)
        self.assertEqual(self.runs(), 3)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    async def test_other_script_fails(self) -> None:
        """The list of the old one stays in force until the new one brings one."""
        self.registry.startService()
        await self.registry.refresh()
        self.registry.reconfigure(self.write_other("exit 3"))
        self.assertIn("status 3", await self.registry.refresh() or "")
        self.assertEqual(self.names(), ["web1"])

    async def test_same_script(self) -> None:
        """The same script again runs again: its hosts may be what has changed."""
        self.registry.startService()
        await self.registry.refresh()
        self.output.write_bytes(line("a"))
        self.registry.reconfigure(self.source(max_loss=None))
        await self.registry.refresh()
        self.assertEqual(self.names(), ["a"])

    async def test_max_loss(self) -> None:
        """A list that was refused is taken when its loss is allowed."""
        self.registry = self.make(self.source())
        self.registry.startService()
        await self.take("a", "b", "c", "d")
        self.assertIn("host_db_max_loss", await self.take("d") or "")
        self.registry.reconfigure(self.source(max_loss=None))
        self.assertIsNone(await self.registry.refresh())
        self.assertEqual(self.names(), ["d"])

    async def test_never_two_at_once(self) -> None:
        """A run that is going on is ended, and only when it is over the next one begins."""
        self.output.write_bytes(line("a"))
        alone = (
            f"mkdir {self.folder}/lock || exit 9; trap 'sleep 0.1; rmdir {self.folder}/lock' EXIT"
        )
        self.write(
            f"{alone}; trap 'exit 0' TERM; cat $output; : > {self.folder}/born; sleep 1000 & wait"
        )
        self.registry.startService()
        refreshed, ready = self.registry.refresh(), self.registry.when_ready()
        await self.appears(self.folder / "born")
        self.output.write_bytes(line("b"))
        self.registry.reconfigure(self.write_other(f"{alone}; cat $output"))
        self.assertNoResult(ready)
        self.assertIsNone(await refreshed)
        self.successResultOf(ready)
        self.assertEqual(self.names(), ["b"])
        self.assertEqual(self.runs(), 2)
        self.assertEqual(self.logged(), "")

    async def test_old_list_comes_late(self) -> None:
        """What was printed for the old source and not yet understood is thrown away."""
        self.registry.startService()
        await self.registry.refresh()
        parsing: Deferred[None] = Deferred()

        def parse(printed: bytes) -> tuple[dict[str, Host], list[str]]:
            IReactorFromThreads(reactor).callFromThread(parsing.callback, None)
            self.go_on.wait(60)
            return parse_hosts(printed)

        self.go_on = threading.Event()
        patched = self.patch(registry, "parse_hosts", parse)
        self.output.write_bytes(line("late"))
        refreshed = self.registry.refresh()
        await parsing
        patched.restore()
        self.registry.reconfigure(self.filed)
        self.go_on.set()
        self.assertIsNone(await refreshed)
        self.assertEqual(self.names(), ["filed"])
        self.assertEqual(self.cache.read_bytes(), line())

    async def test_script_to_file(self) -> None:
        """The hosts of a file are in force at once, and nothing runs any more."""
        self.registry.startService()
        ready = self.registry.when_ready()
        self.registry.reconfigure(self.filed)
        self.assertEqual(self.names(), ["filed"])
        self.successResultOf(ready)
        self.assertIsNone(await self.registry.refresh())
        self.assertEqual(self.names(), ["filed"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    async def test_file_to_script(self) -> None:
        """The file's list stays until the script brings one, and its loss is looked at."""
        self.registry = self.make(self.filed)
        self.registry.startService()
        self.registry.reconfigure(self.source())
        self.assertIn("1 of the 1", await self.registry.refresh() or "")
        self.assertEqual(self.names(), ["filed"])
        self.assertIsNone(await self.registry.refresh(accept_loss=True))
        self.assertEqual(self.names(), ["web1"])

    async def test_file_to_file(self) -> None:
        """The new file's hosts replace the old one's as a whole."""
        self.registry = self.make(self.filed)
        self.registry.startService()
        self.filed.path.write_bytes(line("a"))
        self.registry.reconfigure(HostsFile.read(self.filed.path))
        self.assertEqual(self.names(), ["a"])

    async def test_old_file_comes_late(self) -> None:
        """An old file that is being read does not replace what came meanwhile."""
        self.registry = self.make(self.filed)
        self.registry.startService()
        new = self.folder / "new.jsonl"
        new.write_bytes(line("a"))
        refreshed = self.registry.refresh()
        self.registry.reconfigure(HostsFile.read(new))
        self.events.clear()
        self.assertIsNone(await refreshed)
        self.assertEqual(self.names(), ["a"])
        self.assertNotIn(str(self.filed.path), self.logged(LogLevel.info))

    async def test_not_running(self) -> None:
        """Before the start it is only noted."""
        self.registry.reconfigure(self.filed)
        self.assertEqual((self.names(), self.runs()), ([], 0))
        self.registry.startService()
        self.assertEqual((self.names(), self.runs()), (["filed"], 0))

    async def test_twice(self) -> None:
        """Of several sources in a row the last one is followed."""
        self.registry.startService()
        for source in (self.filed, self.source(60.0), self.filed, self.source(30.0, None)):
            self.registry.reconfigure(source)
        self.assertIsNone(await self.registry.refresh())
        self.assertEqual(self.names(), ["web1"])
        (timer,) = self.clock.getDelayedCalls()
        self.assertEqual(timer.getTime(), 30)


def _no_space(descriptor: int) -> None:
    raise OSError(28, "No space left on device")


def _done() -> Deferred[None]:
    done: Deferred[None] = Deferred()
    done.callback(None)
    return done
