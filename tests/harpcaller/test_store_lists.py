"""Tests of the lists of ``harpcaller.store``: jobs, queues, a queue's jobs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import chain

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from harp.errors import Origin
from harp.wire.results import EndKind, EndResult
from harpcaller.jobs import Capacity, JobState, QueueSpec, WaitsFor
from harpcaller.store import (
    JobFilter,
    JobStore,
    JobSummary,
    Page,
    QueueSummary,
    listing,
    queue_lists,
)
from harpcaller.store.cursors import MAX_BYTES, Cursor
from tests.harpcaller.stores import ONE_AT_A_TIME, RESULT, StoreTestCase, new_job, real_reactor

ERROR = EndResult(EndKind.ERROR, b"{}")
OTHER = QueueSpec(b'{"disk":"sdb"}', 2)
MALFORMED = ("", "x", "00", "zz" * 16, "00" * 15, "7ff8" + "00" * 14, "00" * 1000, "é")


async def pages(
    read: Callable[[int, str | None], Deferred[Page[JobSummary]]], limit: int
) -> list[list[str]]:
    """Return the ids of every page of a list."""
    found = []
    cursor: str | None = None
    while True:
        page = await read(limit, cursor)
        found.append([summary.id for summary in page.items])
        cursor = page.cursor
        if cursor is None:
            return found


class JobListTests(StoreTestCase):
    """Jobs of every kind, listed."""

    async def setUp(self) -> None:  # type: ignore[override]
        """Submit the jobs, at 10 seconds, 20 seconds and so on."""
        await super().setUp()
        new = [
            new_job(id="old", procedure="du"),
            new_job(id="failed", host="db01"),
            new_job(
                ONE_AT_A_TIME, id="runs", caller="10.0.0.9", submitter="panel", on_behalf_of="joe"
            ),
            new_job(ONE_AT_A_TIME, id="first"),
            new_job(ONE_AT_A_TIME, id="second", host="db01"),
            new_job(id="new", host="db01"),
        ]
        self.jobs = {each.id: await self.submit(each, at * 10.0) for at, each in enumerate(new, 1)}
        await self.store.end("old", RESULT, None, 100.0)
        await self.store.end("failed", ERROR, Origin.NETWORK, 100.0)
        await self.store.cancel("second", 100.0)

    async def listed(self, wanted: JobFilter) -> list[str]:
        """Return the ids of those that a filter lets through; pages of one give the same."""
        whole = await pages(lambda *where: self.store.jobs(wanted, *where), 100)
        single = await pages(lambda *where: self.store.jobs(wanted, *where), 1)
        self.assertEqual(len(whole), 1)
        self.assertEqual([[job_id] for job_id in whole[0]] or [[]], single)
        return whole[0]

    async def test_summary(self) -> None:
        """A summary says of a job what `job` says, but for what can be long."""
        page = await self.store.jobs(JobFilter(), 100)
        for summary in page.items:
            job = await self.store.job(summary.id)
            assert job is not None
            for name in summary.__struct_fields__:
                expected = job.end and job.end.kind if name == "end" else getattr(job, name)
                self.assertEqual(getattr(summary, name), expected, name)

    async def test_filters(self) -> None:
        """Each condition lets through what meets it, newest first."""
        waiting, running, ended = JobState.WAITING, JobState.RUNNING, JobState.ENDED
        for wanted, expected in (
            (JobFilter(), "new second first runs failed old"),
            (JobFilter(states=frozenset({running})), "new runs"),
            (JobFilter(states=frozenset({waiting})), "first"),
            (JobFilter(states=frozenset({ended})), "second failed old"),
            (JobFilter(states=frozenset({ended, waiting})), "second first failed old"),
            (JobFilter(host="db01"), "new second failed"),
            (JobFilter(host="none"), ""),
            (JobFilter(procedure="du"), "old"),
            (JobFilter(queue=ONE_AT_A_TIME.name), "second first runs"),
            (JobFilter(queue=OTHER.name), ""),
            (JobFilter(ends=frozenset({EndKind.ERROR, EndKind.RESULT})), "failed old"),
            (JobFilter(ends=frozenset({EndKind.CANCELLED})), "second"),
            (JobFilter(submitted_since=30.0), "new second first runs"),
            (JobFilter(submitted_before=30.0), "failed old"),
            (JobFilter(submitted_since=20.0, submitted_before=40.0), "runs failed"),
            (JobFilter(queue=ONE_AT_A_TIME.name, host="db01"), "second"),
            (JobFilter(frozenset({ended}), "db01", "df", submitted_before=25.0), "failed"),
            (JobFilter(frozenset({running}), queue=ONE_AT_A_TIME.name), "runs"),
        ):
            self.assertEqual(await self.listed(wanted), expected.split(), wanted)

    async def test_same_time(self) -> None:
        """Jobs submitted in the same moment are listed once each, the last one first."""
        new = [await self.submit(new_job(host="app01"), 70.0) for _ in range(5)]
        found = await pages(lambda *where: self.store.jobs(JobFilter(host="app01"), *where), 2)
        ids = [job.id for job in reversed(new)]
        self.assertEqual(found, [ids[:2], ids[2:4], ids[4:]])

    async def test_new_job_between_pages(self) -> None:
        """What happens meanwhile moves nothing from one page to another."""
        page = await self.store.jobs(JobFilter(), 3)
        await self.submit(new_job(), 80.0)
        rest = await self.store.jobs(JobFilter(), 3, page.cursor)
        self.assertEqual([summary.id for summary in rest.items], ["runs", "failed", "old"])

    async def test_bounded_in_bytes(self) -> None:
        """Long texts make short pages, but each has a job."""
        for number in range(3):
            await self.submit(new_job(host="long", procedure="x" * MAX_BYTES, id=f"long-{number}"))
        found = await pages(lambda *where: self.store.jobs(JobFilter(host="long"), *where), 100)
        self.assertEqual(found, [["long-2"], ["long-1"], ["long-0"]])

    async def test_bounded_in_rows(self) -> None:
        """One page looks at so many jobs; those that it seeks can all be on later pages."""
        self.patch(listing, "MAX_EXAMINED", 2)
        found = await pages(lambda *where: self.store.jobs(JobFilter(procedure="du"), *where), 9)
        self.assertEqual(found[:3], [[], [], ["old"]])
        self.assertFalse(any(found[3:]))

    async def test_malformed_cursor(self) -> None:
        """A cursor that this list never gave out is refused with what is wrong."""
        for cursor in MALFORMED:
            for read in (
                partial(self.store.jobs, JobFilter()),
                self.store.queues,
                partial(self.store.queue_jobs, OTHER.name),
            ):
                with self.assertRaisesRegex(ValueError, "cursor"):
                    await read(10, cursor)


class OwnerTests(StoreTestCase):
    """Jobs of somebody."""

    async def setUp(self) -> None:  # type: ignore[override]
        """Submit the jobs, all to one queue."""
        await super().setUp()
        for at, (job_id, submitter, on_behalf_of) in enumerate(
            (
                ("nobodys", None, None),
                ("panels", "panel", None),
                ("panel-joe", "panel", "joe"),
                ("panel-ann", "panel", "ann"),
                ("joes", "joe", None),
                ("joe-joe", "joe", "joe"),
                ("null-joe", None, "joe"),
                ("others", "eve", "bob"),
            )
        ):
            host = "web01" if at % 2 else "db01"
            whose = {"submitter": submitter, "on_behalf_of": on_behalf_of}
            await self.submit(new_job(OTHER, id=job_id, host=host, **whose), at * 10.0)

    async def test_filters(self) -> None:
        """Each job comes once, in its order, if one of the owners submitted it or was meant."""
        others = frozenset(map(str, range(20)))  # more than are looked up one by one
        joe, both = frozenset({"joe"}), frozenset({"joe", "panel"})
        for wanted, expected in (
            (JobFilter(submitter="joe"), "null-joe joe-joe joes panel-joe"),
            (JobFilter(submitter="panel"), "panel-ann panel-joe panels"),
            (JobFilter(submitter="ann"), "panel-ann"),
            (JobFilter(submitter="who"), ""),
            (JobFilter(owners=joe), "null-joe joe-joe joes panel-joe"),
            (JobFilter(owners=both), "null-joe joe-joe joes panel-ann panel-joe panels"),
            (JobFilter(owners=both | others), "null-joe joe-joe joes panel-ann panel-joe panels"),
            (JobFilter(owners=frozenset()), ""),
            (JobFilter(owners=joe, submitter="panel"), "panel-joe"),
            (JobFilter(owners=joe, host="web01"), "joe-joe"),
            (JobFilter(owners=joe, queue=OTHER.name), "null-joe joe-joe joes panel-joe"),
            (JobFilter(owners=joe, states=frozenset({JobState.RUNNING})), ""),
            (JobFilter(owners=both, states=frozenset({JobState.RUNNING})), "panels"),
            (JobFilter(owners=joe, submitted_since=30.0), "null-joe joe-joe joes"),
            (JobFilter(owners=joe, submitted_before=50.0), "joes panel-joe"),
        ):
            for limit in (100, 1):
                found = await pages(partial(self.store.jobs, wanted), limit)
                self.assertEqual(" ".join(chain(*found)), expected, wanted)
        with self.assertRaises(ValueError):
            await self.store.jobs(JobFilter(owners=frozenset()), 1, "x")

    async def test_queue(self) -> None:
        """A queue's jobs can be those of some owners only."""
        for owners, expected in (
            (None, "nobodys panels panel-joe panel-ann joes joe-joe null-joe others"),
            (frozenset({"joe", "bob"}), "panel-joe joes joe-joe null-joe others"),
            (frozenset[str](), ""),
        ):
            for limit in (100, 2):

                def read(
                    limit: int, cursor: str | None, owners: frozenset[str] | None = owners
                ) -> Deferred[Page[JobSummary]]:
                    return self.store.queue_jobs(OTHER.name, limit, cursor, owners)

                found = await pages(read, limit)
                self.assertEqual(" ".join(chain(*found)), expected)

    async def test_rare(self) -> None:
        """What one read looks at is bounded, however many jobs are somebody else's."""
        self.patch(listing, "MAX_EXAMINED", 3)
        self.patch(queue_lists, "MAX_EXAMINED", 3)
        nobodys = frozenset(map(str, range(20)))
        bobs = nobodys | {"bob"}
        self.assertEqual(
            await pages(partial(self.store.jobs, JobFilter(owners=bobs)), 100),
            [["others"], [], []],
        )
        read = partial(self.store.queue_jobs, OTHER.name, owners=frozenset({"bob"}))
        self.assertEqual(await pages(read, 100), [[], [], ["others"]])


class QueueListTests(StoreTestCase):
    """Queues and their jobs, listed."""

    async def opened(self) -> JobStore:
        """Return a store in which few can run."""
        store = JobStore(f"sqlite:///{self.path}", real_reactor(), Capacity(3, 1))
        self.addCleanup(store.close)
        await store.open()
        return store

    async def setUp(self) -> None:  # type: ignore[override]
        """Submit jobs that stand at every place of a queue."""
        await super().setUp()
        self.jobs = [
            await self.submit(new_job(queue, host=host))
            for queue, host in (
                (OTHER, "web01"),
                (OTHER, "web01"),  # waits for its host
                (ONE_AT_A_TIME, "web02"),
                (OTHER, "web03"),
                (ONE_AT_A_TIME, "web04"),
                (OTHER, "web05"),
                (None, "web01"),
            )
        ]

    async def test_one(self) -> None:
        """A queue is there with its numbers as long as it has jobs."""
        summary = await self.store.queue(OTHER.name)
        self.assertEqual(summary, QueueSummary(OTHER.name, 2, 1, 3, 6))
        self.assertIsNone(await self.store.queue(b"{}"))

    async def test_all(self) -> None:
        """Queues are listed from the oldest on, in pages."""
        whole = await self.store.queues(100)
        self.assertEqual([each.name for each in whole.items], [OTHER.name, ONE_AT_A_TIME.name])
        self.assertEqual(whole.items[0], await self.store.queue(OTHER.name))
        self.assertIsNone(whole.cursor)
        first = await self.store.queues(1)
        second = await self.store.queues(1, first.cursor)
        self.assertEqual((first.items + second.items, second.cursor), (whole.items, None))

    async def test_jobs_in_order(self) -> None:
        """A queue's jobs are listed in the order in which they run, whatever they wait for."""
        expected = [self.jobs[number] for number in (0, 1, 3, 5)]
        waits_for = [None, WaitsFor.HOST, WaitsFor.QUEUE, WaitsFor.QUEUE]
        self.assertEqual([job.waits_for for job in expected], waits_for)
        for limit, count in ((100, 1), (2, 2), (1, 4)):
            found = await pages(lambda *where: self.store.queue_jobs(OTHER.name, *where), limit)
            self.assertEqual(list(chain(*found)), [job.id for job in expected])
            self.assertEqual(len(found), count)
        self.assertEqual(await pages(lambda *at: self.store.queue_jobs(b"{}", *at), 9), [[]])

    async def test_running(self) -> None:
        """Those that run can be told, up to a place."""
        self.assertEqual(await self.store.running_jobs(OTHER.name, 10), [self.jobs[0].id])
        self.assertEqual(await self.store.running_jobs(OTHER.name, 0), [])

    async def test_position(self) -> None:
        """A waiting job knows how many of its queue wait before it; no other has a position."""
        found = [await self.store.position(job.id) for job in self.jobs]
        self.assertEqual(found, [None, 0, None, 1, 0, 2, None])
        self.assertIsNone(await self.store.position("none"))


class CursorTests(SynchronousTestCase):
    """The text of a place in a list."""

    def test_exact(self) -> None:
        """A cursor keeps every bit of its numbers."""
        for key in ((0.1 + 0.2, 1), (1e308, 2**62), (-1.0, 0)):
            cursor = Cursor(">dq")
            self.assertEqual(cursor.read(cursor.write(*key)), key)
