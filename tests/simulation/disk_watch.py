"""What must hold of the rows after every commit: limits, order, and nobody waiting for nothing."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from typing import NamedTuple

from harpcaller.jobs import Capacity
from tests.simulation.book import Book
from tests.simulation.people import MARKED
from tests.simulation.violation import Violation

_ORDER = ["waiting", "running", "ended"]


class Living(NamedTuple):
    """A job that has not ended."""

    seq: int
    id: str
    state: str
    queue_id: int | None
    host: str
    waits_for: str | None


class Queue(NamedTuple):
    """A queue that there is."""

    id: int
    concurrency: int
    name: bytes


class Ceiling:
    """How much may run: the most that was allowed since it was last that few."""

    def __init__(self, limit: float, most: float) -> None:
        self._limit = limit
        self._most = most

    def allow(self, limit: float) -> None:
        """Learn of another limit, which is not in force yet."""
        self._limit = limit
        self._most = max(self._most, limit)

    def check(self, running: int, settled: bool, what: str) -> None:
        """Check how much runs."""
        if running > self._most:
            raise Violation(f"{running} jobs run {what}, {self._most} may")
        if settled:
            self._most = max(self._limit, running)


def _per_host(capacity: Capacity) -> float:
    return capacity.max_running_per_host or float("inf")


class DiskWatch:
    """Compares what is on disk with what was there before."""

    def __init__(self, raw: sqlite3.Connection, book: Book, capacity: Capacity) -> None:
        self._raw = raw
        self._book = book
        self._states: dict[str, str] = {}
        self._queues: dict[int, Queue] = {}
        self._total = Ceiling(capacity.max_running, capacity.max_running)
        self._per_host: dict[str, Ceiling] = {}
        self._most_per_host = _per_host(capacity)  # of the limits that may still have been in force
        self._capacity = capacity

    def allow(self, capacity: Capacity) -> None:
        """Learn that another capacity was asked for."""
        self._capacity = capacity
        self._total.allow(capacity.max_running)
        self._most_per_host = max(self._most_per_host, _per_host(capacity))
        for ceiling in self._per_host.values():
            ceiling.allow(_per_host(capacity))

    def check(self, settled: bool, releases: bool) -> None:
        """Look at the rows.

        :param settled: whether no change of the capacity is on its way.
        :param releases: whether those that wait are to be started when their turn comes.
        """
        jobs = [
            Living(*row)
            for row in self._raw.execute(
                "SELECT seq, id, state, queue_id, host, waits_for FROM jobs"
                " WHERE state <> 'ended' ORDER BY seq"
            )
        ]
        queues = {
            row[0]: Queue(*row)
            for row in self._raw.execute("SELECT id, concurrency, name FROM queues")
        }
        counted = self._raw.execute("SELECT host, job FROM running ORDER BY job").fetchall()
        if counted != [(job.host, job.seq) for job in jobs if job.state == "running"]:
            raise Violation(f"{counted} are counted as running, of {jobs}")
        self._check_secrets(jobs)
        self._check_states(jobs)
        self._check_capacity(jobs, settled)
        self._check_queues(jobs, queues)
        if releases and settled:
            self._check_progress(jobs, queues)

    def check_waiting(self, stopped_at: float) -> None:
        """Check that what waits goes on waiting after the dispatcher was told to stop."""
        found = self._raw.execute(
            "SELECT id FROM jobs WHERE started > ? AND started > submitted", (stopped_at,)
        ).fetchone()
        if found is not None:
            raise Violation(f"job {found[0]} left its queue while the dispatcher was stopping")

    def _check_secrets(self, jobs: list[Living]) -> None:
        kept = dict(self._raw.execute("SELECT job, arguments FROM secrets").fetchall())
        waiting = {job.seq: job for job in jobs if job.state == "waiting"}
        if not kept.keys() <= waiting.keys():
            raise Violation(f"secrets are kept of {kept.keys()}, of which only {waiting} wait")
        for seq, job in waiting.items():
            arguments = bytes(self._book.story(self._book.row(job.id)).call.arguments)
            if MARKED in arguments and not kept.get(seq, b"").endswith(b"\0" + arguments):
                raise Violation(f"{job} has lost its secret")
        shown = self._raw.execute("SELECT id FROM jobs WHERE instr(arguments, ?)", (MARKED,))
        if (found := shown.fetchone()) is not None:
            raise Violation(f"the secret of job {found[0]} is shown")

    def _check_states(self, jobs: list[Living]) -> None:
        living = {job.id: job.state for job in jobs}
        for job_id, state in living.items():
            before = self._states.get(job_id, "waiting")
            if _ORDER.index(state) < _ORDER.index(before):
                raise Violation(f"job {job_id} was {before} and is {state}")
        for job_id, before in self._states.items():
            if job_id not in living and before != "ended":
                if self._book.row(job_id).state != "ended":
                    raise Violation(f"job {job_id} is lost")
                living[job_id] = "ended"
            elif before == "ended":
                living.setdefault(job_id, before)
        self._states = living

    def _check_capacity(self, jobs: list[Living], settled: bool) -> None:
        running = [job for job in jobs if job.state == "running"]
        self._total.check(len(running), settled, "in all")
        limit = _per_host(self._capacity)
        for host in {job.host for job in running}:
            ceiling = self._per_host.setdefault(host, Ceiling(limit, self._most_per_host))
            count = sum(job.host == host for job in running)
            ceiling.check(count, settled, f"on {host}")
        if settled:
            self._most_per_host = limit

    def _check_queues(self, jobs: list[Living], queues: dict[int, Queue]) -> None:
        members: dict[int, list[Living]] = defaultdict(list)
        for job in jobs:
            if job.queue_id is not None:
                members[job.queue_id].append(job)
        for queue in queues.values():
            of_queue = members[queue.id]
            running = [job for job in of_queue if job.state == "running"]
            if len(running) > queue.concurrency:
                raise Violation(f"{len(running)} jobs run of {queue}")
            first = next((job for job in of_queue if job.state == "waiting"), None)
            if first is not None and running and running[-1].seq > first.seq:
                raise Violation(f"{running[-1]} runs before {first}")
            if of_queue and self._queues.get(queue.id) != queue:
                self._check_concurrency(queue, of_queue[0])
        self._queues = queues

    def _check_concurrency(self, queue: Queue, first: Living) -> None:
        option = self._book.story(self._book.row(first.id)).call.queue
        if option is None or option.concurrency != queue.concurrency:
            raise Violation(f"{queue} was created by a call with {option}")

    def _check_progress(self, jobs: list[Living], queues: dict[int, Queue]) -> None:
        running = [job for job in jobs if job.state == "running"]
        waiting = {
            stage: [job for job in jobs if job.waits_for == stage]
            for stage in ("queue", "host", "dispatcher")
        }
        if waiting["dispatcher"] and len(running) < self._capacity.max_running:
            raise Violation(f"{waiting['dispatcher'][0]} waits, yet only {len(running)} run")
        per_host = self._capacity.max_running_per_host or float("inf")
        for job in waiting["host"]:
            taken = sum(each.host == job.host for each in [*running, *waiting["dispatcher"]])
            if taken < per_host:
                raise Violation(f"{job} waits for its host, where {taken} run")
        past = {job.queue_id for job in [*waiting["host"], *waiting["dispatcher"]]}
        for job in waiting["queue"]:
            assert job.queue_id is not None
            taken = sum(each.queue_id == job.queue_id for each in running)
            if job.queue_id not in past and taken < queues[job.queue_id].concurrency:
                raise Violation(f"{job} waits for its turn, yet only {taken} run of its queue")
        for queue in queues.values():
            if not any(job.queue_id == queue.id for job in jobs):
                raise Violation(f"{queue} is there without a job")
