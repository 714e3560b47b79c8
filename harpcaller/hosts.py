"""The hosts registry: which hosts there are, where they listen, who we are there.

A program prints the hosts; the last good list is kept in memory and, for the next start, in a file.
How the program is run is the business of ``harpcaller.hostscript``.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorProcess, IReactorThreads, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from harp.settings import MAX_PORT
from harp.wire.harpd import DEFAULT_PORT
from harpcaller.hostscript import ScriptRun, run_script

# Of how many bad lines the log tells; one mistake of the program can spoil all of them.
MAX_COMPLAINTS = 20

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Host:
    """A machine where harpd runs.

    :param name: what calls name it by.
    :param address: a DNS name or an IP address.
    """

    name: str
    address: str
    port: int
    user: str
    password: str = field(repr=False)


def parse_hosts(output: bytes) -> tuple[dict[str, Host], list[str]]:
    """Understand what the program printed: a JSON object for each host, one to a line.

    :return: the hosts by name; what is wrong with the lines that were left out, as ``line N: …``
        and without anything of what stood there.
    """
    hosts: dict[str, Host] = {}
    complaints: list[str] = []
    for number, line in enumerate(output.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            line.decode()  # msgspec does not look into what it skips
            entry = _decoder.decode(line)
        except UnicodeDecodeError as error:
            complaints.append(f"line {number}: is not UTF-8 at byte {error.start}")
        except RecursionError:
            complaints.append(f"line {number}: is nested too deep")
        except msgspec.DecodeError as error:
            complaints.append(f"line {number}: {error}")
        else:
            name, login = entry.hostname, entry.credentials
            if name in hosts:
                complaints.append(f"line {number}: its hostname stands in an earlier line too")
            else:
                hosts[name] = Host(name, entry.address, entry.port, login.user, login.password)
    return hosts, complaints


class HostsRegistry(Service):
    """The hosts, kept up to date while the service runs.

    :param reactor: starts the program, and has the threads for what could block.
    :param clock: measures the interval and the program's time.
    :param script: the program.
    :param cache_file: where its last good output is kept, for nobody else to read.
    :param refresh_interval: from start to start of the program, in seconds.
    """

    name = "hosts"
    _log = Logger()

    def __init__(
        self,
        reactor: IReactorProcess,
        clock: IReactorTime,
        script: Path,
        cache_file: Path,
        refresh_interval: float,
    ) -> None:
        self._reactor = reactor
        self._clock = clock
        self._script = script
        self._cache_file = cache_file
        self._interval = refresh_interval
        self._hosts: dict[str, Host] = {}
        self._run: ScriptRun | None = None
        self._refreshed: list[Deferred[str | None]] = []
        self._is_ready = False
        self._ready: list[Deferred[None]] = []
        self._loop = LoopingCall(self.refresh)
        self._loop.clock = clock

    def lookup(self, name: str) -> Host | None:
        """Return the host of that name, None if there is none."""
        return self._hosts.get(name)

    def when_ready(self) -> Deferred[None]:
        """Return what fires once there is a list, or the first run has failed to bring one."""
        ready: Deferred[None] = Deferred()
        self._ready.append(ready)
        if self._is_ready:
            self._be_ready()
        return ready

    def refresh(self) -> Deferred[str | None]:
        """Run the program now, or join the run that is going on.

        :return: fires with None once its list is in force, or with the reason why it is not.
        """
        if not self.running:
            return succeed("the hosts registry is not running")
        refreshed: Deferred[str | None] = Deferred()
        self._refreshed.append(refreshed)
        if len(self._refreshed) == 1:
            Deferred.fromCoroutine(self._refresh())
        return refreshed

    def startService(self) -> None:
        """Take the last good list at once, and run the program for a new one."""
        super().startService()  # type: ignore[no-untyped-call]
        self._load_cache()
        self._loop.start(self._interval)

    def stopService(self) -> Deferred[str | None] | None:
        """End a run that is going on; what is returned waits for it."""
        self._loop.stop()
        ended = self.refresh() if self._refreshed else None
        super().stopService()  # type: ignore[no-untyped-call]
        if self._run is not None:
            self._run.kill("the dispatcher stops")
        return ended

    async def _refresh(self) -> None:
        try:
            problem = await self._take_new_list()
        except Exception:  # of a mistake of ours; the loop would end with it and nobody notice
            self._log.failure("refreshing the hosts")
            problem = "an internal failure, see the log"
        if problem is not None and self.running:
            text = "{script}: {why}; {kept} hosts are kept"
            self._log.error(text, script=self._script, why=problem, kept=len(self._hosts))
        self._be_ready()
        refreshed, self._refreshed = self._refreshed, []
        for each in refreshed:
            each.callback(problem)

    async def _take_new_list(self) -> str | None:
        try:
            self._run = run_script(self._reactor, self._clock, self._script)
        except OSError as error:
            return f"it can't be started: {error.strerror}"
        output = await self._run.ended
        self._run = None
        if output.errors.strip():
            self._log.warn("{script} says: {errors}", script=self._script, errors=output.errors)
        if output.problem is not None:
            return output.problem
        hosts, complaints = await self._in_thread(lambda: parse_hosts(output.printed))
        self._log_complaints(self._script, complaints)
        if not hosts:
            return "it printed no host"
        self._hosts = hosts
        self._log.info("{script}: {count} hosts", script=self._script, count=len(hosts))
        try:
            await self._in_thread(lambda: _write_private(self._cache_file, output.printed))
        except OSError as error:
            self._log.error("{file} can't be written: {error}", file=self._cache_file, error=error)
        return None

    def _load_cache(self) -> None:
        try:
            cached = self._cache_file.read_bytes() if self._cache_file.exists() else b""
        except OSError as error:
            self._log.error("{file} can't be read: {error}", file=self._cache_file, error=error)
            return
        self._hosts, complaints = parse_hosts(cached)
        self._log_complaints(self._cache_file, complaints)
        if self._hosts:
            self._be_ready()

    def _log_complaints(self, source: Path, complaints: list[str]) -> None:
        if complaints:
            text = "{source}: {count} lines are left out: {first}"
            first = "; ".join(complaints[:MAX_COMPLAINTS])
            self._log.warn(text, source=source, count=len(complaints), first=first)

    def _be_ready(self) -> None:
        self._is_ready = True
        ready, self._ready = self._ready, []
        for each in ready:
            each.callback(None)

    def _in_thread(self, function: Callable[[], T]) -> Deferred[T]:
        threads = IReactorThreads(self._reactor)
        return deferToThreadPool(threads, threads.getThreadPool(), function)


def _write_private(path: Path, data: bytes) -> None:
    """Replace a file in one step by one that only its owner can read: it holds passwords."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


_Text = Annotated[str, msgspec.Meta(min_length=1)]


class _Credentials(msgspec.Struct):
    user: str
    password: str


class _Entry(msgspec.Struct):
    hostname: _Text
    address: _Text
    credentials: _Credentials
    port: Annotated[int, msgspec.Meta(ge=1, le=MAX_PORT)] = DEFAULT_PORT


_decoder = msgspec.json.Decoder(_Entry)
