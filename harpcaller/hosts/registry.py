"""The list of hosts that is in force, and when another one takes its place.

It comes from a script that is run again and again, or from a file. How the script is run is the
business of ``script``, what stands in a line or a file of ``entries`` and ``file``.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorProcess, IReactorThreads, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool

from harp.settings import ConfigError
from harpcaller.hosts.cache import read_cache, write_cache
from harpcaller.hosts.entries import Host, parse_hosts
from harpcaller.hosts.file import load_hosts_file
from harpcaller.hosts.script import ScriptRun, run_script
from harpcaller.hosts.sources import HostsFile, HostsScript, HostsSource
from harpcaller.logs import logger

MAX_COMPLAINTS = 20
"""Of how many bad lines is told; one mistake of the program can spoil all of them."""

T = TypeVar("T")


class HostsRegistry(Service):
    """The hosts, kept up to date while the service runs.

    :param reactor: starts the program, and has the threads for what could block.
    :param clock: measures the interval and the program's time.
    :param source: where the hosts come from.
    """

    name = "hosts"
    _log = logger("harpcaller.hosts")

    def __init__(self, reactor: IReactorProcess, clock: IReactorTime, source: HostsSource) -> None:
        self._reactor = reactor
        self._clock = clock
        self._source = source
        self._hosts: Mapping[str, Host] = {}
        self._names: list[str] = []
        self._loop: LoopingCall | None = None
        self._run: ScriptRun | None = None
        self._refreshing = False
        self._accepts_loss = False
        self._refreshed: list[Deferred[str | None]] = []
        self._is_ready = False
        self._ready: list[Deferred[None]] = []
        self._watchers: list[Callable[[], None]] = []

    def lookup(self, name: str) -> Host | None:
        """Return the host of that name, None if there is none."""
        return self._hosts.get(name)

    def count(self) -> int:
        """Return how many hosts there are."""
        return len(self._names)

    def page(self, limit: int, cursor: str | None = None) -> tuple[list[Host], str | None]:
        """Return some of the hosts, in the order of names.

        :param limit: at most so many, 1 or more.
        :param cursor: what came with the page before this one. A list that has changed since
            shows no host twice, and leaves out none that is in both.
        :return: the hosts; the cursor for the next page, None if there are no more.
        """
        start = 0 if cursor is None else bisect_right(self._names, cursor)
        names = self._names[start : start + limit]
        is_last = start + limit >= len(self._names)
        return [self._hosts[name] for name in names], None if is_last else names[-1]

    def watch(self, watcher: Callable[[], None]) -> None:
        """Have something called whenever another list is in force."""
        self._watchers.append(watcher)

    def when_ready(self) -> Deferred[None]:
        """Return what fires once there is a list, or the first run has failed to bring one."""
        ready: Deferred[None] = Deferred()
        self._ready.append(ready)
        if self._is_ready:
            self._be_ready()
        return ready

    def refresh(self, accept_loss: bool = False) -> Deferred[str | None]:
        """Run the program now, or join the run that is going on; or read the file again.

        :param accept_loss: whether the new list may miss more hosts than ``max_loss`` allows.
        :return: fires with None once the new list is in force, or with the reason why it is not.
        """
        if not self.running:
            return succeed("the hosts registry is not running")
        refreshed: Deferred[str | None] = Deferred()
        self._refreshed.append(refreshed)
        self._accepts_loss |= accept_loss
        self._start_refresh()
        return refreshed

    def reconfigure(self, source: HostsSource) -> None:
        """Take the hosts from somewhere else, or anew from the same; it can't fail.

        The hosts of a file are in force at once. A script is run at once; the list that there is
        stays until it has brought a good one, and is what its loss is measured by.
        """
        self._source = source
        if self.running:
            self._end_source("the configuration is read again")
            self._begin_source()

    def startService(self) -> None:
        """Take the last good list at once, and run the program for a new one."""
        super().startService()  # type: ignore[no-untyped-call]
        if isinstance(self._source, HostsScript):
            self._take_cache(self._source.cache_file)
        self._begin_source()

    def stopService(self) -> Deferred[str | None] | None:
        """End a run that is going on; what is returned waits for it."""
        ended = self.refresh() if self._refreshing else None
        super().stopService()  # type: ignore[no-untyped-call]
        self._end_source("the dispatcher stops")
        return ended

    def _begin_source(self) -> None:
        if isinstance(self._source, HostsFile):
            self._take(self._source.path, self._source.hosts)
            self._be_ready()
        else:
            # A new one each time: an old one whose turn is going on could not be started again.
            self._loop = LoopingCall(self._start_refresh)
            self._loop.clock = self._clock
            self._loop.start(self._source.refresh_interval)

    def _end_source(self, why: str) -> None:
        if self._loop is not None:
            self._loop.stop()
            self._loop = None
        if self._run is not None:
            self._run.kill(why)

    def _start_refresh(self) -> None:
        if not self._refreshing:
            self._refreshing = True
            Deferred.fromCoroutine(self._refresh())

    async def _refresh(self) -> None:
        while True:
            source = self._source
            try:
                problem = await self._take_new_list(source)
            except Exception:  # of a mistake of ours; whoever waits would wait for ever
                self._log.failure("refreshing the hosts")
                problem = "an internal failure, see the log"
            if source is self._source or not self.running:
                break
        if problem is not None and self.running:
            text = "{source}: {why}; {kept} hosts are kept"
            self._log.error(text, source=source.path, why=problem, kept=len(self._hosts))
        self._be_ready()
        self._refreshing = self._accepts_loss = False
        refreshed, self._refreshed = self._refreshed, []
        for each in refreshed:
            each.callback(problem)

    async def _take_new_list(self, source: HostsSource) -> str | None:
        if isinstance(source, HostsScript):
            return await self._take_from_script(source)
        try:
            hosts = await self._in_thread(lambda: load_hosts_file(source.path))
        except ConfigError as error:
            return _first(error.mistakes)
        if source is self._source:
            self._take(source.path, hosts)
        return None

    async def _take_from_script(self, source: HostsScript) -> str | None:
        try:
            self._run = run_script(self._reactor, self._clock, source.path)
        except OSError as error:
            return f"it can't be started: {error.strerror}"
        output = await self._run.ended
        self._run = None
        if output.errors:
            self._log.warn("{script} says: {errors}", script=source.path, errors=output.errors)
        if output.problem is not None:
            return output.problem
        hosts, complaints = await self._in_thread(lambda: parse_hosts(output.printed))
        if source is not self._source:
            return None  # who waits is told of the run of the new one
        self._log_complaints(source.path, complaints)
        problem = self._loss(hosts, source.max_loss) if hosts else "it printed no host"
        if problem is not None:
            return problem
        self._take(source.path, hosts)
        try:
            await self._in_thread(lambda: write_cache(source.cache_file, output.printed))
        except OSError as error:
            self._log.error("{file} can't be written: {error}", file=source.cache_file, error=error)
        return None

    def _loss(self, hosts: Mapping[str, Host], max_loss: float | None) -> str | None:
        lost = len(self._hosts.keys() - hosts.keys())
        if max_loss is None or lost <= max_loss * len(self._hosts):
            return None
        text = f"it printed {len(hosts)} hosts, without {lost} of the {len(self._hosts)} known"
        if self._accepts_loss:
            self._log.warn("{text}; that was asked for", text=text)
            return None
        return (
            f"{text}, and host_db_max_loss is {max_loss:g}; if that is right, refresh the hosts"
            " with accept_loss, or set host_db_max_loss to 1 for one reload"
        )

    def _take(self, path: Path, hosts: Mapping[str, Host]) -> None:
        self._hosts = hosts
        self._names = sorted(hosts)
        self._log.info("{source}: {count} hosts", source=path, count=len(hosts))
        for watcher in self._watchers:
            watcher()

    def _take_cache(self, path: Path) -> None:
        try:
            cached = read_cache(path)
        except OSError as error:
            self._log.error("{file} can't be read: {error}", file=path, error=error)
            return
        hosts, complaints = parse_hosts(cached)
        self._log_complaints(path, complaints)
        if hosts:
            self._take(path, hosts)
            self._be_ready()

    def _log_complaints(self, source: Path, complaints: list[str]) -> None:
        if complaints:
            text = "{source}: {count} lines are left out: {first}"
            self._log.warn(text, source=source, count=len(complaints), first=_first(complaints))

    def _be_ready(self) -> None:
        self._is_ready = True
        ready, self._ready = self._ready, []
        for each in ready:
            each.callback(None)

    def _in_thread(self, function: Callable[[], T]) -> Deferred[T]:
        threads = IReactorThreads(self._reactor)
        return deferToThreadPool(threads, threads.getThreadPool(), function)


def _first(complaints: list[str]) -> str:
    more = len(complaints) - MAX_COMPLAINTS
    return "; ".join(complaints[:MAX_COMPLAINTS]) + (f"; and {more} more" if more > 0 else "")
