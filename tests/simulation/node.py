"""One life of the dispatcher in the simulation: the real parts, joined as in the service.

What it logs as a failure is kept, since nothing here may fail but the disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from random import Random
from typing import Any, cast
from unittest.mock import patch
from uuid import UUID

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

import harp.flow
from harp.wire.packets import Packets
from harpcaller import api, connection, connections, dispatcher, remote, streams
from harpcaller.announcements import Announcements
from harpcaller.api import Api, Parts
from harpcaller.connection import ClientFactory
from harpcaller.connections import Connections
from harpcaller.dispatcher import Dispatcher
from harpcaller.gate import Gate
from harpcaller.hosts import Host, HostsRegistry
from harpcaller.job_ids import JobIds
from harpcaller.jobs import Capacity
from harpcaller.permissions import Permissions
from harpcaller.recording import PacketRecorder
from harpcaller.retention import Retention
from harpcaller.store import packets as packet_rows
from harpcaller.store.statements import Connection
from harpcaller.submission import Limits
from harpcaller.terms import ClientLimits, Terms
from tests.simulation.network import HarpdEndpoint, Network
from tests.simulation.people import USERS
from tests.simulation.store import PatientStore

LIMITS = Limits(default_timeout=20.0, max_exec_time=90.0)


class Log:
    """Keeps failures and drops the rest: formatting it would take most of the time."""

    def __init__(self) -> None:
        self.failures: list[str] = []

    def debug(self, *args: Any, **kwargs: Any) -> None:
        """Drop it."""

    info = warn = debug

    def failure(self, text: str, failure: Failure | None = None, **fields: Any) -> None:
        """Keep it."""
        trace = (failure or Failure()).getTraceback()
        self.failures.append(f"{text.format(**fields)}\n{trace}")


class Hosts:
    """A registry whose hosts come and go."""

    def __init__(self, hosts: list[Host]) -> None:
        self.known = {host.name: host for host in hosts}

    def lookup(self, name: str) -> Host | None:
        return self.known.get(name)


class Node:
    """A dispatcher, from its start to its death.

    :ivar is_ready: whether what was left from the life before is in order.
    :ivar is_stopping: whether it was told to stop.
    :ivar stopped_at: when it was, in unix seconds.
    :ivar ends_at: when nothing may run any more, by the clock.
    :ivar is_gone: whether it has ended by itself, because it could not start or has stopped.
    """

    def __init__(
        self,
        clock: Clock,
        now: Callable[[], float],
        disk: Connection,
        network: Network,
        hosts: Hosts,
        capacity: Capacity,
        log: Log,
        slowness: float,
    ) -> None:
        self._log = log
        self.is_ready = self.is_stopping = self.is_gone = False
        self.stopped_at: float | None = None
        self.ends_at: float | None = None
        self._clock = clock
        self._now = now
        self.store = PatientStore(disk, capacity, slowness)
        announcements = Announcements()
        self._network = network
        registry = cast(HostsRegistry, hosts)
        self.connections = Connections(clock, self.endpoint, registry.lookup)
        self.dispatcher = Dispatcher(
            clock, now, self.store, registry, self.connections, announcements, LIMITS
        )
        parts = Parts(
            version="1",
            permissions=Permissions(registry.lookup),
            dispatcher=self.dispatcher,
            store=self.store,
            hosts=registry,
            connections=self.connections,
            retention=cast(Retention, None),  # nobody asks to prune, to reload or to stop
            reload=cast(Any, None),
            stop=cast(Any, None),
            now=now,
            announcements=announcements,
            ready=self._when_ready,
        )
        gate = Gate(clock.seconds, Terms(users=USERS, limits=ClientLimits(idle_timeout=5.0)))
        self.factory = ClientFactory(clock, Api(parts).respond, gate, True)
        self._waiting: list[Deferred[None]] = []

    def endpoint(self, host: Host) -> HarpdEndpoint:
        """Return where a host is reached."""
        return HarpdEndpoint(self._network, host)

    def start(self) -> None:
        """Put the last life's jobs in order, then answer."""
        starting: Deferred[None] = Deferred.fromCoroutine(self.dispatcher.recover())
        starting.addCallbacks(self._started, self._failed)

    def stop(self, grace: float, random: Random) -> None:
        """End in good order."""
        self.is_stopping = True
        self.stopped_at = self._now()
        self.ends_at = self._clock.seconds() + grace + 1e-6
        stopping: Deferred[None] = Deferred.fromCoroutine(self.dispatcher.stop(grace))
        stopping.addCallback(lambda _: self._stopped(random))

    def _started(self, _: None) -> None:
        self.is_ready = True
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            deferred.callback(None)

    def _stopped(self, random: Random) -> None:
        self.store.threads.shut(random)
        self._gone()

    def _failed(self, failure: Failure) -> None:
        self._log.failure("the dispatcher can't start", failure)
        self._gone()

    def _gone(self) -> None:
        self.is_gone = True

    def _when_ready(self) -> Deferred[None] | None:
        if self.is_ready:
            return None
        ready: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(ready)
        return ready


@contextmanager
def product_under_a_seed(
    new_id: Callable[[], UUID], log: Log, came: Callable[[str], None]
) -> Iterator[None]:
    """Take chance out of the product for a while, and make its limits so small that they matter.

    :param came: is told of a job whose packets have come.
    """
    serials = count()
    record = PacketRecorder.record

    def told(recorder: PacketRecorder, packets: Packets) -> Deferred[None]:
        came(recorder._job_id)
        return record(recorder, packets)

    def serial(watcher: Any) -> int:
        # Who watches a job is in a set, whose order follows from hashes.
        if "serial" not in vars(watcher):
            watcher.serial = next(serials)
        found: int = watcher.serial
        return found

    with ExitStack() as changes:
        for owner, name, value in (
            (JobIds, "new", lambda ids, now: str(new_id())),
            (streams.PacketStream, "__hash__", serial),
            (api._EndWatcher, "__hash__", serial),
            (PacketRecorder, "record", told),
            (dispatcher, "_log", log),
            (Api, "_log", log),
            (streams, "PAGE_BATCHES", 3),
            (streams, "PAGE_BYTES", 400),
            (packet_rows, "ROW_COST", 200),
            (remote, "MAX_UNRECORDED", 400),
            (harp.flow, "SLICE", 300),
            (connection, "SLICE", 300),
            (connections, "MAX_FREE", 2),
        ):
            changes.enter_context(patch.object(owner, name, value))
        yield
