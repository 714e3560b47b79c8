"""The store's admission against a model of it: who runs and who waits for what, after any steps."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from twisted.trial.unittest import SynchronousTestCase

from harpcaller.jobs import Capacity, Job, JobState, QueueSpec
from harpcaller.store import changes
from harpcaller.store.database import Database, transaction
from harpcaller.store.statements import Connection
from tests.harpcaller.stores import RESULT, new_job, submitted


@dataclass
class _ModelJob:
    id: str
    queue: str | None
    host: str
    stage: str


@dataclass
class _Model:
    """Jobs in the order of submission; the rules of admission, tried until none moves anybody."""

    capacity: Capacity
    jobs: list[_ModelJob] = field(default_factory=list)
    concurrency: dict[str, int] = field(default_factory=dict)

    def count(self, *stages: str, **where: str) -> int:
        return len(self.having(*stages, **where))

    def having(self, *stages: str, **where: str) -> list[_ModelJob]:
        return [
            job
            for job in self.jobs
            if job.stage in stages and all(getattr(job, key) == where[key] for key in where)
        ]

    def settle(self) -> list[str]:
        """Let go on who can; return those that now run."""
        started: list[str] = []
        while move := self.move():
            job, stage = move
            job.stage = stage
            started += [job.id] * (job.stage == "running")
        for queue in list(self.concurrency):
            if not self.count("queue", "host", "dispatcher", "running", queue=queue):
                del self.concurrency[queue]
        return started

    def move(self) -> tuple[_ModelJob, str] | None:
        """Return who goes on next, and to where."""
        for queue, concurrency in self.concurrency.items():
            busy = self.count("host", "dispatcher", queue=queue)
            if not busy and self.count("running", queue=queue) < concurrency:
                for first in self.having("queue", queue=queue)[:1]:
                    return first, "host"
        per_host = self.capacity.max_running_per_host
        for job in self.having("host"):
            if per_host is None or self.count("dispatcher", "running", host=job.host) < per_host:
                return job, "dispatcher"
        if self.count("running") < self.capacity.max_running:
            for first in self.having("dispatcher")[:1]:
                return first, "running"
        return None

    def set_capacity(self, capacity: Capacity) -> list[str]:
        """Line those up again that have passed their host under another limit."""
        self.capacity = capacity
        for job in self.having("dispatcher"):
            job.stage = "host"
        return self.settle()


_queues = st.sampled_from([None, '{"q":1}', '{"q":2}'])
_capacities = st.builds(Capacity, st.integers(1, 5), st.none() | st.integers(1, 2))


class _Undo(Exception):
    """Raised to roll an example back."""


class AdmissionMachine(RuleBasedStateMachine):
    """Does every step in the store and in the model.

    :cvar connection: to a database without jobs, on which a transaction is open.
    """

    connection: Connection

    def __init__(self) -> None:
        super().__init__()
        self.model = _Model(Capacity(3, 2))
        self.undo = transaction(self.connection)
        self.undo.__enter__()

    def teardown(self) -> None:
        """Leave the database as it was."""
        with contextlib.suppress(_Undo):
            self.undo.__exit__(_Undo, _Undo(), None)

    @rule(
        queue=_queues,
        concurrency=st.integers(1, 3),
        hosts=st.lists(st.sampled_from(["web01", "web02", "db01"]), min_size=1, max_size=4),
    )
    def submit(self, queue: str | None, concurrency: int, hosts: list[str]) -> None:
        """Submit jobs; each is last everywhere."""
        spec = None if queue is None else QueueSpec(queue.encode(), concurrency)
        for host in hosts:
            job = submitted(self.connection, self.model.capacity, new_job(spec, host=host))
            if queue is not None:
                self.model.concurrency.setdefault(queue, concurrency)
            self.model.jobs.append(_ModelJob(job.id, queue, host, "queue" if queue else "host"))
            started = self.model.settle()
            assert started == [job.id] * (job.state is JobState.RUNNING)

    @rule(number=st.integers(0, 30))
    def end(self, number: int) -> None:
        """End a job, whatever state it is in."""
        for job in self.chosen(number):
            ending = changes.end(
                self.connection, self.model.capacity, job.id, RESULT, None, 2.0, True
            )
            assert (ending.job is not None) == (job.stage == "running")
            self.compare_ended(job, job.stage == "running", ending.released)

    @rule(number=st.integers(0, 30))
    def cancel(self, number: int) -> None:
        """Cancel a job, whatever state it is in."""
        for job in self.chosen(number):
            cancelled = changes.cancel(self.connection, self.model.capacity, job.id, 2.0, True)
            assert cancelled.job is not None and cancelled.job.waits_for is None
            self.compare_ended(job, job.stage != "ended", cancelled.released)

    @rule(queue=_queues, limit=st.integers(1, 5), seq=st.integers(0, 30))
    def cancel_waiting(self, queue: str | None, limit: int, seq: int) -> None:
        """Cancel some that wait in a queue."""
        cancelled = changes.cancel_waiting(
            self.connection, self.model.capacity, (queue or "{}").encode(), seq, limit, 2.0
        )
        early = self.model.jobs[:seq]
        waiting = [
            job
            for job in self.model.having("queue", "host", "dispatcher")
            if job in early and job.queue == (queue or "{}")
        ][::-1][:limit]
        assert _ids(cancelled.jobs) == [job.id for job in waiting]
        for job in waiting:
            job.stage = "ended"
        assert _ids(cancelled.released) == self.model.settle()

    @rule()
    def recover(self) -> None:
        """Close what runs, as after a crash."""
        recovery = changes.recover(self.connection, self.model.capacity, 3.0)
        running = self.model.having("running")
        assert recovery.closed == [job.id for job in running]
        for job in running:
            job.stage = "ended"
        assert _ids(recovery.released) == self.model.set_capacity(self.model.capacity)

    @rule(capacity=_capacities)
    def set_capacity(self, capacity: Capacity) -> None:
        """Change the limits."""
        released = changes.set_capacity(self.connection, capacity, 4.0)
        assert _ids(released) == self.model.set_capacity(capacity)

    @invariant()
    def same(self) -> None:
        """Everybody stands where the model says, and no queue is there without a job."""
        rows = self.connection.execute("SELECT id, state, waits_for FROM jobs ORDER BY seq")
        found = [(job_id, waits_for or state) for job_id, state, waits_for in rows]
        assert found == [(job.id, job.stage) for job in self.model.jobs]
        (count,) = self.connection.execute("SELECT count(*) FROM queues").fetchone()
        assert count == len(self.model.concurrency)

    def chosen(self, number: int) -> list[_ModelJob]:
        """Return the job of a number, none if there is none at all; most of them run."""
        pool = self.model.having("running") * 2 + self.model.jobs
        return pool[number % len(pool) :][:1] if pool else []

    def compare_ended(self, job: _ModelJob, changed: bool, released: list[Job]) -> None:
        """End the job in the model too and see who runs now."""
        if changed:
            job.stage = "ended"
        assert _ids(released) == (self.model.settle() if changed else [])


def _ids(jobs: list[Job]) -> list[str]:
    return [job.id for job in jobs]


class ModelTests(SynchronousTestCase):
    """The store's admission against the model."""

    def test_agrees_with_model(self) -> None:
        """Whatever happens: the right jobs run, in the right order, and the others wait."""
        AdmissionMachine.connection = Database(f"sqlite:///{self.mktemp()}").open_writer()
        self.addCleanup(AdmissionMachine.connection.close)
        run_state_machine_as_test(
            AdmissionMachine,
            settings=settings(deadline=None, max_examples=100, stateful_step_count=30),
        )
