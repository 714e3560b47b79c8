"""Tests of what the store's statements cost when there are very many jobs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from sqlalchemy import Table, insert
from twisted.trial.unittest import SynchronousTestCase

from harpcaller.jobs import Capacity, Dedup, JobState, NewJob, QueueSpec, WaitsFor
from harpcaller.store import JobFilter, changes, listing, packets, queue_lists
from harpcaller.store.cursors import Cursor
from harpcaller.store.database import transaction
from harpcaller.store.pruning import prune_jobs, prune_streams
from harpcaller.store.queues import digest_of
from harpcaller.store.repeats import prune_keys
from harpcaller.store.schema import jobs, queues
from harpcaller.store.statements import Connection, Statement
from tests.harpcaller.packets import recorded
from tests.harpcaller.stores import (
    ONE_AT_A_TIME,
    RESULT,
    NotedConnection,
    new_job,
    noted_connection,
    submitted,
)

TWO_PER_HOST = Capacity(4, 2)
FEW, MANY = 10, 20_000

COUNTED = re.compile("SCAN (CONSTANT ROW|running)")
"""Scans that are none: what is looked at is one row, or the size of each page (`CostTests`)."""


def rows(count: int, **changed: Any) -> list[dict[str, Any]]:
    """Return the rows of so many jobs that wait."""
    new = new_job()
    same = {
        "host": new.host,
        "procedure": new.procedure,
        "arguments": new.arguments,
        "info": new.info,
        "timeout": new.timeout,
        "max_exec_time": new.max_exec_time,
        "state": JobState.WAITING,
        "submitted": 1.0,
    }
    return [same | changed | {"id": f"many-{number}"} for number in range(count)]


def insert_all(connection: Connection, table: Table, many: list[dict[str, Any]]) -> None:
    """Insert many rows with the same columns."""
    Statement(insert(table), *many[0]).run_many(connection, many)


class ScaleTestCase(SynchronousTestCase):
    """A test with an open database, whose work is counted."""

    def setUp(self) -> None:
        """Open a database that notes every statement."""
        self.connection = self.opened()

    def opened(self) -> NotedConnection:
        """Return a connection to a new database."""
        connection = noted_connection(self.mktemp())
        self.addCleanup(connection.close)
        return connection

    def plans(self) -> str:
        """Return how SQLite executes the statements noted so far, one step a line."""
        noted = {
            text: parameters[0]
            for text, parameters in self.connection.executed
            if text.startswith(("SELECT", "INSERT", "UPDATE", "DELETE")) and parameters
        }
        self.connection.executed.clear()
        steps = []
        for statement, parameters in noted.items():
            plan = self.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            text = " ".join(statement.split())
            steps += [f"{detail}  <- {text}" for _, _, _, detail in plan]
        self.connection.executed.clear()
        return "\n".join(steps)


@contextmanager
def counted(connection: Connection) -> Iterator[list[int]]:
    """Count the steps of SQLite's machine, as the only number of the list."""
    steps = [0]

    def step() -> int:
        steps[0] += 1
        return 0

    connection.set_progress_handler(step, 1)
    try:
        yield steps
    finally:
        connection.set_progress_handler(None, 0)


class PlanTests(ScaleTestCase):
    """How SQLite goes about it."""

    def test_no_scans(self) -> None:
        """No statement of a job's life looks at more rows than it needs, nor sorts any."""
        connection = self.connection
        with transaction(connection):
            jobs = [submitted(connection, TWO_PER_HOST, new_job(ONE_AT_A_TIME)) for _ in range(5)]
            jobs += [submitted(connection, TWO_PER_HOST, new_job()) for _ in range(5)]
            rows = packets.rows(jobs[0].id, recorded(0, b"1"))
            packets.INSERT.run_many(connection, rows)
            packets.page(connection, jobs[0].id, 0, 10, 10)
            packets.packet_count(connection, jobs[0].id)
            changes.end(connection, TWO_PER_HOST, jobs[0].id, RESULT, None, 2.0, True)
            for job in jobs:
                changes.cancel(connection, TWO_PER_HOST, job.id, 2.0, True)
        plans = self.plans()
        self.assertIn("ix_jobs_of_queue (queue_id=? AND state=? AND waits_for=?)", plans)
        self.assertIn("SEARCH running USING PRIMARY KEY (host=?)", plans)
        self.assertNotIn("SCAN", COUNTED.sub("", plans))
        self.assertNotIn("TEMP B-TREE", plans)

    def test_portions(self) -> None:
        """What is done in portions finds each of them by an index."""
        with transaction(self.connection):
            job = submitted(self.connection, TWO_PER_HOST, new_job(dedup=Dedup(b"{}", 1.0)))
            rows = packets.rows(job.id, recorded(0, b"1"))
            packets.INSERT.run_many(self.connection, rows)
            changes.end(self.connection, TWO_PER_HOST, job.id, RESULT, None, 2.0, True)
            prune_streams(self.connection, 3.0, 5)
            prune_jobs(self.connection, 3.0, 5)
            prune_keys(self.connection, 3.0, 5)
            changes.cancel_waiting(self.connection, TWO_PER_HOST, b"{}", 5, 5, 1.0)
        plans = self.plans()
        for name in ("ix_jobs_dedup", "ix_jobs_ended", "ix_jobs_stream_ended", "ix_keys_submitted"):
            self.assertIn(name, plans)
        self.assertNotIn("SCAN", COUNTED.sub("", plans))
        self.assertNotIn("TEMP B-TREE", plans)

    def test_recovery_follows_the_living(self) -> None:
        """Recovery looks at jobs that live and queues that are, not at all that ever was."""
        with transaction(self.connection):
            submitted(self.connection, TWO_PER_HOST, new_job(ONE_AT_A_TIME))
            self.connection.executed.clear()
            changes.recover(self.connection, TWO_PER_HOST, 2.0)
            changes.recover(self.connection, Capacity(), 2.0)
        scans = {line.split("  <-")[0] for line in self.plans().splitlines() if "SCAN" in line}
        self.assertEqual(scans, {"SCAN queues", "SCAN running", "SCAN CONSTANT ROW"})


class ListPlanTests(ScaleTestCase):
    """How SQLite goes about the lists."""

    def plan(self, read: Callable[[Connection], object]) -> str:
        """Return how SQLite executes what is read."""
        self.connection.executed.clear()
        read(self.connection)
        return self.plans()

    def test_common_filters(self) -> None:
        """Each common filter has an index with the order of the list, from the cursor on."""
        cursor = Cursor(">dq").write(5.0, 5)
        ended = frozenset({JobState.ENDED})
        for wanted, name, key in (
            (JobFilter(), "ix_jobs_submitted", ""),
            (JobFilter(submitted_since=2.0), "ix_jobs_submitted", "submitted>? AND "),
            (JobFilter(ended, submitted_before=2.0), "ix_jobs_submitted", ""),
            (JobFilter(host="web01"), "ix_jobs_of_host", "host=? AND "),
            (JobFilter(ended, host="web01"), "ix_jobs_of_host", "host=? AND "),
            (JobFilter(queue=b"{}"), "ix_jobs_of_queue_name", "queue=? AND "),
            (JobFilter(host="web01", queue=b"{}"), "ix_jobs_of_queue_name", "queue=? AND "),
            (JobFilter(frozenset({JobState.WAITING})), "ix_jobs_waiting", ""),
        ):
            plan = self.plan(partial(listing.jobs_page, wanted=wanted, limit=5, cursor=None))
            plan += self.plan(partial(listing.jobs_page, wanted=wanted, limit=5, cursor=cursor))
            self.assertIn(f"INDEX {name} ({key}submitted<?)", plan)
            self.assertNotIn("TEMP B-TREE", plan)
        running = JobFilter(frozenset({JobState.RUNNING}))
        for start in (None, cursor):
            plan = self.plan(partial(listing.jobs_page, wanted=running, limit=5, cursor=start))
            self.assertIn("SEARCH jobs USING INTEGER PRIMARY KEY (rowid=?)", plan)
            self.assertNotIn("SCAN jobs", plan)

    def test_owners(self) -> None:
        """The jobs of some owners are merged from their indexes, unless they are too many."""
        cursor = Cursor(">dq").write(5.0, 5)
        some, many = frozenset({"joe", "panel"}), frozenset(map(str, range(20)))
        for wanted, found, left in (
            (JobFilter(submitter="joe"), "ix_jobs_of_submitter (submitter=?", "SCAN jobs"),
            (JobFilter(owners=some), "ix_jobs_of_submitter (submitter=?", "SCAN jobs"),
            (JobFilter(owners=some), "ix_jobs_on_behalf_of (on_behalf_of=?", "SCAN jobs"),
            (JobFilter(owners=some, procedure="p"), "(on_behalf_of=?", "SCAN jobs"),
            (JobFilter(owners=some, submitter="joe"), "ix_jobs_of_submitter", "SCAN jobs"),
            (JobFilter(owners=some, host="web01"), "ix_jobs_of_host (host=?", "ix_jobs_of_sub"),
            (JobFilter(owners=many), "ix_jobs_submitted", "ix_jobs_of_submitter"),
        ):
            for start in (None, cursor):
                plan = self.plan(partial(listing.jobs_page, wanted=wanted, limit=5, cursor=start))
                self.assertIn(found, plan)
                self.assertNotIn(left, plan)
                self.assertNotIn("TEMP B-TREE", plan)
        queue_jobs = partial(queue_lists.queue_jobs, name=b"{}", limit=5, cursor=None)
        plan = self.plan(partial(queue_jobs, owners=some))
        self.assertIn("ix_jobs_of_queue (queue_id=?", plan)
        self.assertNotIn("TEMP B-TREE", plan)

    def test_own_jobs_of_many(self) -> None:
        """A page of one's own jobs costs the same, however many others there are, and one has."""
        costs = []
        for count in (FEW, MANY):
            connection = self.opened()
            with transaction(connection):
                for name in ("joe", "panel"):
                    many = rows(count, waits_for=WaitsFor.DISPATCHER, submitter=name)
                    for number, row in enumerate(many):
                        row["id"] = f"{name}-{number}"
                        row["on_behalf_of"] = "ann" if number % 2 else "joe"
                    insert_all(connection, jobs, many)
            for wanted in (JobFilter(owners=frozenset({"joe"})), JobFilter(submitter="ann")):
                with counted(connection) as steps:
                    listing.jobs_page(connection, wanted, 5, None)
                costs.append(steps[0])
        for few, many_ in zip(costs[:2], costs[2:], strict=True):
            self.assertLess(many_, few * 1.2, costs)

    def test_queues(self) -> None:
        """A queue's jobs are merged from its index; nothing else is looked at or sorted."""
        for read in (
            partial(queue_lists.queues_page, limit=5, cursor=None),
            partial(queue_lists.queue, name=b"{}"),
            partial(queue_lists.queue_jobs, name=b"{}", limit=5, cursor=None),
            partial(queue_lists.running_jobs, name=b"{}", up_to_seq=5),
            partial(queue_lists.position, job_id="x"),
        ):
            plan = self.plan(read)
            self.assertIn("ix_jobs_of_queue (queue_id=?", plan)
            self.assertNotIn("TEMP B-TREE", plan)
            self.assertNotIn("SCAN jobs", plan)


class CostTests(ScaleTestCase):
    """What one step costs does not follow the number of those that wait."""

    def same_cost(self, fill: Callable[[Connection, int], None], new: Callable[[], NewJob]) -> None:
        """Submit, cancel and end jobs where few wait and where many wait."""
        costs = [self.cost(fill, new, count) for count in (FEW, MANY)]
        self.assertLess(costs[1], costs[0] * 1.2, costs)

    def cost(
        self, fill: Callable[[Connection, int], None], new: Callable[[], NewJob], count: int
    ) -> int:
        """Return the steps of some jobs' lives among so many that wait."""
        connection, capacity = self.opened(), TWO_PER_HOST
        with transaction(connection):
            running = [
                submitted(connection, capacity, new_job(spec, host=host))
                for spec, host in (
                    (ONE_AT_A_TIME, "web01"),
                    (None, "web01"),
                    (None, "db01"),
                    (None, "db01"),
                )
            ]
            assert all(job.state is JobState.RUNNING for job in running)
            fill(connection, count)
            with counted(connection) as steps:
                job = submitted(connection, capacity, new())
                assert job.state is JobState.WAITING
                changes.cancel(connection, capacity, job.id, 2.0, True)
                changes.cancel(connection, capacity, f"many-{count // 2}", 2.0, True)
                for each in running:
                    changes.end(connection, capacity, each.id, RESULT, None, 2.0, True)
        return steps[0]

    def test_one_long_queue(self) -> None:
        """Very many may wait in one queue."""

        def fill(connection: Connection, count: int) -> None:
            many = rows(count, queue=ONE_AT_A_TIME.name, queue_id=1, waits_for=WaitsFor.QUEUE)
            insert_all(connection, jobs, many)

        self.same_cost(fill, lambda: new_job(ONE_AT_A_TIME))

    def test_many_queues(self) -> None:
        """Very many queues may have a job each, of which all wait for the dispatcher."""

        def fill(connection: Connection, count: int) -> None:
            names = [b'{"many":%d}' % number for number in range(count)]
            insert_all(
                connection,
                queues,
                [{"digest": digest_of(name), "name": name, "concurrency": 1} for name in names],
            )
            many = rows(count, waits_for=WaitsFor.DISPATCHER)
            for number, (row, name) in enumerate(zip(many, names, strict=True), 2):
                row |= {"queue": name, "queue_id": number, "host": f"many-{number}"}
            insert_all(connection, jobs, many)

        self.same_cost(fill, lambda: new_job(QueueSpec(b'{"many":5}', 1)))

    def test_one_busy_host(self) -> None:
        """Very many jobs may wait for one host."""

        def fill(connection: Connection, count: int) -> None:
            insert_all(connection, jobs, rows(count, waits_for=WaitsFor.HOST))

        self.same_cost(fill, new_job)

    def test_busy_dispatcher(self) -> None:
        """Very many jobs may wait for the dispatcher, behind each other and before others."""

        def fill(connection: Connection, count: int) -> None:
            many = rows(count, waits_for=WaitsFor.DISPATCHER)
            for number, row in enumerate(many):
                row["host"] = f"many-{number}"
            insert_all(connection, jobs, many)

        self.same_cost(fill, lambda: new_job(host="other"))

    def test_many_running(self) -> None:
        """Very many jobs may run, of which all are counted."""
        costs = []
        for count in (FEW, MANY):
            connection, capacity = self.opened(), Capacity(2 * MANY)
            with transaction(connection):
                for _ in range(count):
                    submitted(connection, capacity, new_job())
                with counted(connection) as steps:
                    for queue in (None, ONE_AT_A_TIME, ONE_AT_A_TIME):
                        job = submitted(connection, capacity, new_job(queue))
                    changes.cancel(connection, capacity, job.id, 2.0, True)
            costs.append(steps[0])
        self.assertLess(costs[1], costs[0] * 1.2, costs)
