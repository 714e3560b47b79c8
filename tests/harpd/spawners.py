"""Real zygotes under the real reactor, with a check that nothing of them is left."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import TestCase

from harp.wire.harpd import Reply
from harp.wire.packets import Packets
from harp.wire.results import EndResult
from harpd.keeper_process import KeeperProcess
from harpd.offers import ProceduresError
from harpd.spawner import Spawner
from tests.harpd.waiting import descriptors, eventually, processes, reactor, turns
from tests.harpd.zygotes import KILL_GRACE, write_procedures, zygote_below


class ClockedReactor:
    """The real reactor but for the time that passes: it waits when a test tells it to."""

    def __init__(self) -> None:
        self.clock = Clock()

    def callLater(self, delay: float, function: Callable[..., Any], *args: Any) -> IDelayedCall:
        """Call a function later; what is for the next turn comes with the real one."""
        instead = self.clock if delay else reactor
        later: IDelayedCall = instead.callLater(delay, function, *args)
        return later

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)


class Running:
    """A call that was started, and the caller that takes its replies."""

    def __init__(self, spawner: Spawner, procedure: str, arguments: str) -> None:
        self.received: list[Reply] = []
        self.is_gone = False
        planned = spawner.plan()
        self.number = planned.number
        self.kill = planned.kill
        self.process = planned.start(procedure, arguments.encode(), b"{}", self, self.gone)

    def gone(self) -> None:
        """Note that there is no process any more."""
        assert not self.is_gone
        self.is_gone = True

    def replies(self, replies: list[Reply]) -> None:
        """Take replies; nothing may come behind the end result."""
        assert replies
        assert not self.ended, replies
        self.received += replies

    @property
    def ended(self) -> bool:
        """Whether the end result has come."""
        return any(isinstance(reply, EndResult) for reply in self.received)

    async def packet(self) -> Any:
        """Wait for the first packet."""
        await eventually(lambda: self.received, "a packet")
        first = self.received[0]
        assert isinstance(first, Packets), first
        return msgspec.json.decode(first.data)

    async def end(self) -> tuple[str, Any]:
        """Wait for the end result and return its kind and value."""
        await eventually(lambda: self.ended, "the end result")
        last = self.received[-1]
        assert isinstance(last, EndResult)
        return last.kind.value, msgspec.json.decode(last.value)


class SpawnerTestCase(TestCase):
    """Tests with spawners, which are stopped with the test and must leave nothing."""

    timeout = 30

    async def setUp(self) -> None:  # type: ignore[override]
        await turns()  # the reactor has descriptors of its own only while it runs
        self.before = descriptors()
        self.others = processes()

    async def spawner(
        self,
        procedures: str,
        path: list[str] | None = None,
        clocked: ClockedReactor | None = None,
        kill_grace: float = KILL_GRACE,
    ) -> Spawner:
        """Start a spawner; wait for its catalogue, or for its mistakes."""
        spawner = self.made(procedures, path, clocked, kill_grace)
        spawner.start()
        try:
            await spawner.catalogue()
        except ProceduresError as error:
            self.mistakes = error.mistakes
        return spawner

    def made(
        self,
        procedures: str,
        path: list[str] | None = None,
        clocked: ClockedReactor | None = None,
        kill_grace: float = KILL_GRACE,
    ) -> Spawner:
        """Return a spawner whose keeper has been started, and nothing else."""
        self.file = write_procedures(self.mktemp(), procedures)
        config = Path(self.file).with_suffix(".yaml")
        config.write_text(json.dumps({"python": {"path": path or []}, "kill_grace": kill_grace}))
        keeper = KeeperProcess(clocked or reactor, str(config), self.file)
        keeper.start()
        spawner = Spawner(clocked or reactor, keeper, kill_grace, lambda: None)
        self.addCleanup(self.check_nothing_left, spawner)
        return spawner

    async def check_nothing_left(self, spawner: Spawner) -> None:
        """Stop the spawner: no process and no descriptor may be left."""
        await maybeDeferred(spawner.stop)
        await maybeDeferred(spawner._keeper.stop)
        self.assertEqual(processes() - self.others, set())
        await eventually(lambda: not descriptors() - self.before, "the last descriptor's end")

    async def run_call(self, procedures: str, arguments: str = "[]") -> tuple[str, Any]:
        """Run the procedure ``f`` and return how it ended."""
        return await Running(await self.spawner(procedures), "f", arguments).end()


def guard_pid(spawner: Spawner) -> int:
    """Return the process id of the zygote's guard."""
    assert spawner._zygote is not None
    assert spawner._zygote.pid is not None
    return spawner._zygote.pid


async def loading_guard(spawner: Spawner) -> int:
    """Wait until a zygote has been started, and return the process id of its guard."""
    await eventually(lambda: spawner._zygote and spawner._zygote.pid, "the start of a zygote")
    return guard_pid(spawner)


def zygote_pid(spawner: Spawner) -> int:
    """Return the process id of the zygote."""
    return zygote_below(guard_pid(spawner))


@contextmanager
def printed(procedure: str) -> Iterator[Callable[[], list[str]]]:
    """Give what has been logged so far as printed by the calls of a procedure."""
    with capturedLogs() as events:
        yield lambda: [
            formatEvent(event)
            for event in events
            if event.get("procedure") == procedure and "text" in event
        ]


@contextmanager
def few_descriptors(free: int) -> Iterator[None]:
    """Leave only so many descriptors that can be opened."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + free + 5, limits[1]))
    taken: list[int] = []
    try:
        while True:
            try:
                taken.append(os.dup(0))
            except OSError:
                break
        for _ in range(free):
            os.close(taken.pop())
        yield
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
