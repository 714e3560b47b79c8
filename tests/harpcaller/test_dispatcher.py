"""Tests of ``harpcaller.dispatcher``: on a real store, and where orders matter on a patient one."""

from __future__ import annotations

import gc
import json
import uuid
import weakref
from collections.abc import Callable
from typing import Any, cast

import msgspec
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher

from harp import errors
from harp.errors import Origin
from harp.wire import dispatcher as wire
from harp.wire import results
from harp.wire.harpd import Ack, Waiting
from harp.wire.packets import Packets, pack
from harp.wire.results import CANCELLED, EndKind, EndResult
from harpcaller import dispatcher
from harpcaller.announcements import Announcements
from harpcaller.connections import endpoint_by
from harpcaller.dispatcher import AGAIN, Dispatcher
from harpcaller.hosts import Host
from harpcaller.identities import Identity
from harpcaller.jobs import Capacity, Job, JobState
from harpcaller.packets import Recorded
from harpcaller.queues import canonical_queue_name
from harpcaller.refusal import RefusedError
from harpcaller.remote import Conversation
from harpcaller.secrecy import NOT_SHOWN
from harpcaller.store import Cancellation, Ending, Recovery, StoreError, Submission
from harpcaller.submission import Limits
from tests.harpcaller.memory import (
    HOST,
    HarpdEnd,
    NetworkTestCase,
    PatientStore,
    accept,
    awaited,
    connections,
    ended_job,
    hosts,
    new_network,
    running_job,
    trust,
)
from tests.harpcaller.stores import StoreTestCase

RESULT = EndResult(EndKind.RESULT, b'{"free":12}')
SHUTDOWN = results.error(errors.SHUTDOWN, "the dispatcher was stopped")
CALLER = "10.0.0.9"
IDENTITY = Identity(None, peer=CALLER)
GRACE = 5.0
LIMITS = Limits(default_timeout=100, max_exec_time=600)
QUEUE = wire.QueueOption(msgspec.Raw(b'{"disk":"sda"}'))


def call(**changes: Any) -> wire.Call:
    """Return a call of a procedure on `HOST`."""
    fields: dict[str, Any] = {
        "host": HOST.name,
        "procedure": "df",
        "arguments": msgspec.Raw(b'["/srv"]'),
        "info": msgspec.Raw(b'{"ticket": 7}'),
    }
    return wire.Call(1, **(fields | changes))


class Watcher:
    """Notes what becomes of a job.

    :ivar end: fires with the job when it has ended.
    """

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.end: Deferred[Job] = Deferred()

    def packets(self, packets: Recorded) -> None:
        self.told.append((packets.first, *packets.packets.texts))

    def ended(self, job: Job) -> None:
        self.told.append(job)
        self.end.callback(job)


class DispatcherTestCase(StoreTestCase):
    """A test with a dispatcher on a real store; harpd is in memory.

    :ivar begun: the procedures that harpd was asked to call, in their order.
    """

    timeout = 30  # seconds, after which what does not come is taken never to come

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        """Put the parts together."""
        await super().setUp()
        self.now = 1000.25
        self.announcements = Announcements()
        self.dispatcher = self.started()

    def started(self) -> Dispatcher:
        """Return another dispatcher on the same store, and a new network."""
        self.network = new_network(self)
        self.connections = connections(self.network)
        self.begun: list[str] = []
        self._ends: list[HarpdEnd] = []
        self._end_of: dict[str, HarpdEnd] = {}
        return Dispatcher(
            self.network,
            lambda: self.now,
            self.store,
            hosts(HOST),
            self.connections,
            self.announcements,
            LIMITS,
        )

    async def submitted(self, **changes: Any) -> str:
        """Submit a call and return the id of its job."""
        job_id, _ = await self.dispatcher.submit(call(**changes), IDENTITY)
        return job_id

    async def job(self, job_id: str) -> Job:
        """Return what the store has of a job."""
        job = await self.store.job(job_id)
        assert job is not None
        return job

    async def ended(self, job_id: str) -> Job:
        """Return a job when it has ended."""
        watcher = Watcher()
        self.announcements.watch(job_id, watcher)
        if (await self.job(job_id)).end is None:
            await watcher.end
        return await self.job(job_id)  # when what follows from the end has happened, too

    async def submit_to_queue(self, *procedures: str, **changes: Any) -> list[str]:
        """Submit calls to one queue, and return the ids of their jobs."""
        changes = {"queue": QUEUE} | changes
        return [await self.submitted(procedure=each, **changes) for each in procedures]

    def let_come(self) -> list[str]:
        """Be harpd: accept all connections, let everything come through, and return `begun`."""
        while awaited(self.network):
            self._ends.append(accept(self.network, asked=self._asked))
        for end in self._ends:
            end.flush()
        return self.begun

    def harpd(self, job_id: str) -> HarpdEnd:
        """Return harpd's end of the connection over which it was asked to carry out a job."""
        self.let_come()
        return self._end_of[job_id]

    async def finish(self, job_id: str) -> None:
        """Let a call end, and with it the job."""
        self.harpd(job_id).reply(Ack(False), RESULT)
        self.assertEqual((await self.ended(job_id)).end, RESULT)

    def assert_nothing_left(self) -> None:
        """Check that nothing will happen any more."""
        self.connections.close()
        self.let_come()
        self.assertEqual(self.network.getDelayedCalls(), [])

    def _asked(self, end: HarpdEnd, request: dict[str, Any]) -> None:
        self.begun.append(request["procedure"])
        self._end_of[request["context"]["job_id"]] = end


class JobTests(DispatcherTestCase):
    """One job."""

    async def test_life_of_a_job(self) -> None:
        """A job is carried out by its host and recorded, packets and end."""
        job_id = await self.submitted()
        watcher = Watcher()
        self.announcements.watch(job_id, watcher)
        harpd = self.harpd(job_id)
        (request,) = harpd.requests
        self.assertEqual(
            (request["procedure"], request["arguments"], request["context"]),
            ("df", ["/srv"], {"job_id": job_id}),
        )
        harpd.reply(Ack(True), Packets(1, b"1"), Packets(1, b"2"))
        harpd.reply(Packets(1, b"3"))
        harpd.reply(RESULT)
        ended = await watcher.end
        self.assertEqual(ended, await self.job(job_id))
        self.assertEqual((ended.end, ended.state), (RESULT, JobState.ENDED))
        self.assertEqual(watcher.told, [(0, b"1", b"2"), (2, b"3"), ended])
        page = await self.store.packets(job_id, 0, 10, 1000)
        told = [(packets.first, *packets.packets.texts) for packets in page]
        self.assertEqual(told, watcher.told[:2])
        self.assert_nothing_left()

    async def test_known_to_run(self) -> None:
        """A job is known to run until its end has been announced, and so is one told in between."""
        job_id = await self.submitted()
        self.assertTrue(self.dispatcher.is_running(job_id))
        watcher = Watcher()
        self.announcements.watch(job_id, watcher)
        self.harpd(job_id).reply(Ack(False), RESULT)
        self.assertTrue(self.dispatcher.is_running(job_id))
        await watcher.end
        self.assertFalse(self.dispatcher.is_running(job_id))
        first, second = await self.submit_to_queue("first", "second")
        self.assertEqual([self.dispatcher.is_running(each) for each in (first, second)], [1, 0])
        await self.dispatcher.cancel(first)
        self.assertEqual([self.dispatcher.is_running(each) for each in (first, second)], [0, 1])
        await self.dispatcher.cancel(second)

    async def test_what_is_recorded(self) -> None:
        """The call is recorded as it was, under an id that is new and can't be guessed."""
        ids = {await self.submitted() for _ in range(5)}
        self.assertEqual(len(ids), 5)
        for job_id in ids:
            self.assertEqual((str(uuid.UUID(job_id)), uuid.UUID(job_id).version), (job_id, 7))
            job = await self.job(job_id)
            self.assertEqual(
                (job.host, job.procedure, job.arguments, job.info, job.queue, job.submitted),
                (HOST.name, "df", b'["/srv"]', b'{"ticket": 7}', None, 1000.25),
            )
            self.assertEqual(job.caller, CALLER)

    async def test_limits_hold(self) -> None:
        """It is the job's own limits that the conversation keeps."""
        job_id = await self.submitted(timeout=5.0)
        self.network.advance(5)
        end = (await self.ended(job_id)).end
        assert end is not None
        self.assertEqual(json.loads(end.value)["message"], "timeout: no message for 5 s")
        later = await self.submitted()
        self.assertEqual((await self.job(later)).timeout, LIMITS.default_timeout)

    async def test_origin(self) -> None:
        """Where a failure arose is recorded with it: in a procedure, at harpd, on the way, here."""
        raised = EndResult(EndKind.EXCEPTION, b'{"type":"ValueError","message":""}')
        locked = results.error(errors.LOCKED, "")
        ends: tuple[tuple[Callable[[HarpdEnd], None], Origin | None], ...] = (
            (lambda harpd: harpd.reply(Ack(False), RESULT), None),
            (lambda harpd: harpd.reply(Ack(False), raised), Origin.PROCEDURE),
            (lambda harpd: harpd.reply(Ack(False), locked), Origin.HARPD),
            (lambda harpd: harpd.say(b"nonsense\n"), Origin.NETWORK),
            (lambda harpd: self.network.advance(LIMITS.default_timeout), Origin.DISPATCHER),
        )
        for end, origin in ends:
            job_id = await self.submitted()
            end(self.harpd(job_id))
            self.assertEqual((await self.ended(job_id)).origin, origin)
        job_id = await self.submitted(host="web99")
        self.assertEqual((await self.ended(job_id)).origin, Origin.DISPATCHER)

    async def test_one_connection(self) -> None:
        """Jobs of a host that follow each other take one connection, those at once one each."""
        first = await self.submitted()
        harpd = self.harpd(first)
        await self.finish(first)
        second = await self.submitted()
        self.assertIs(self.harpd(second), harpd)
        third = await self.submitted()
        self.assertIsNot(self.harpd(third), harpd)
        await self.finish(second)
        await self.finish(third)
        self.assertEqual(len(self._ends), 2)
        self.assert_nothing_left()

    async def test_lock(self) -> None:
        """While a job waits for a lock on its host it is known for which, and of no other job."""
        job_id = await self.submitted()
        harpd = self.harpd(job_id)
        self.assertIsNone(self.dispatcher.lock_of(job_id))
        harpd.reply(Ack(False), Waiting("backup"))
        self.assertEqual(self.dispatcher.lock_of(job_id), "backup")
        self.assertIsNone(self.dispatcher.lock_of(await self.submitted()))
        harpd.reply(Waiting(None))
        self.assertIsNone(self.dispatcher.lock_of(job_id))
        harpd.reply(RESULT)
        await self.ended(job_id)
        self.assertIsNone(self.dispatcher.lock_of(job_id))

    async def test_unknown_host(self) -> None:
        """A job for a host that is not in the registry ends at once, and names the host.

        A name that is as long as a request is not repeated whole.
        """
        for host, named in (("web99", "web99"), ("x" * 900_000, "x" * 100)):
            job_id = await self.submitted(host=host)
            end = (await self.ended(job_id)).end
            text = f"there is no host {named} in the hosts registry"
            self.assertEqual(end, results.error(errors.UNKNOWN_HOST, text))

    async def test_unsound_queue_name(self) -> None:
        """A queue's name that is no sound JSON is refused, and nothing is recorded."""
        name = msgspec.Raw(b'{"a":1e999}')
        with self.assertRaises(RefusedError) as caught:
            await self.submitted(queue=wire.QueueOption(name))
        self.assertEqual(caught.exception.type, errors.INVALID_REQUEST)
        self.assertIn("$.queue.name", caught.exception.message)
        self.assertEqual(self.network.tcpClients, [])


class RepeatTests(DispatcherTestCase):
    """Calls that are made again."""

    async def test_idempotency_key(self) -> None:
        """A call with the same key gets the first one's job, whether it runs or has ended."""
        first = await self.submitted(idempotency_key="k")
        self.assertEqual(
            await self.dispatcher.submit(call(idempotency_key="k"), IDENTITY), (first, False)
        )
        await self.finish(first)
        self.assertEqual(
            await self.dispatcher.submit(call(idempotency_key="k"), IDENTITY), (first, False)
        )
        self.assertEqual(self.let_come(), ["df"])
        self.assertNotEqual(await self.submitted(idempotency_key="another"), first)

    async def test_at_once(self) -> None:
        """Of equal calls that come at once one starts a job, the others get it."""
        both = [self.dispatcher.submit(call(idempotency_key="k"), IDENTITY) for _ in range(5)]
        outcomes = [await each for each in both]
        self.assertEqual(len(set(outcomes)), 1)
        self.assertEqual(self.let_come(), ["df"])

    async def test_dedup(self) -> None:
        """A call whose dedup finds an earlier job gets that, and is told so; later it does not."""
        dedup = wire.Dedup(msgspec.Raw(b'{"disk":"sda","of":1}'), 60)
        same = wire.Dedup(msgspec.Raw(b'{"of":1, "disk":"sda"}'), 60)
        first, is_duplicate = await self.dispatcher.submit(call(dedup=dedup), IDENTITY)
        self.assertIs(is_duplicate, False)
        self.assertEqual(await self.dispatcher.submit(call(dedup=same), IDENTITY), (first, True))
        self.assertEqual(self.let_come(), ["df"])
        self.now += 60
        later, is_duplicate = await self.dispatcher.submit(call(dedup=same), IDENTITY)
        self.assertNotEqual(later, first)
        self.assertIs(is_duplicate, False)


class OwnerTests(DispatcherTestCase):
    """Whose jobs they are."""

    async def test_recorded(self) -> None:
        """It is recorded and known who submitted a job and for whom, and harpd is told."""
        identity = Identity("panel", is_trusted=True, on_behalf_of="joe", peer=CALLER)
        job_id, _ = await self.dispatcher.submit(call(), identity)
        self.assertEqual(self.dispatcher.owners_of(job_id), ("panel", "joe"))
        job = await self.job(job_id)
        self.assertEqual((job.submitter, job.on_behalf_of, job.caller), ("panel", "joe", CALLER))
        (request,) = self.harpd(job_id).requests
        self.assertEqual(
            request["context"], {"job_id": job_id, "submitter": "panel", "on_behalf_of": "joe"}
        )
        await self.finish(job_id)
        self.assertIsNone(self.dispatcher.owners_of(job_id))

    async def test_nobody(self) -> None:
        """A job of nobody in particular has no owners."""
        job_id = await self.submitted()
        self.assertEqual(self.dispatcher.owners_of(job_id), (None, None))

    async def test_keys_of_others(self) -> None:
        """Nobody gets a job of somebody else by the same key."""
        first = await self.submitted(idempotency_key="k")
        call_again = call(idempotency_key="k")
        second, is_duplicate = await self.dispatcher.submit(call_again, Identity("joe"))
        self.assertNotEqual(first, second)
        self.assertIs(is_duplicate, False)

    async def test_log(self) -> None:
        """What is logged of a job's end says whose it is."""
        events: list[LogEvent] = []
        observer = cast(ILogObserver, events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        job_id, _ = await self.dispatcher.submit(call(), Identity("panel", on_behalf_of="joe\n"))
        await self.finish(job_id)
        (told,) = [formatEvent(event) for event in events if event.get("id") == job_id]
        self.assertIn("of panel for joe\\n", told)

    async def test_log_of_failures(self) -> None:
        """The log names the type of an exception, whose text may have secrets in it."""
        events: list[LogEvent] = []
        observer = cast(ILogObserver, events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        for kind, told in (("exception", False), ("error", True)):
            job_id = await self.submitted()
            value = b'{"type":"LookupError","message":"no user hunter2"}'
            self.harpd(job_id).reply(Ack(False), EndResult(EndKind(kind), value))
            await self.ended(job_id)
            (line,) = [formatEvent(event) for event in events if event.get("id") == job_id]
            self.assertIn(f"{kind}: LookupError", line)
            self.assertEqual("hunter2" in line, told)


class SecretTests(DispatcherTestCase):
    """Arguments that may not be shown."""

    REAL = b'["root","correct horse"]'
    SHOWN = b'["root","(secret)"]'

    async def shown(self, job_id: str) -> bytes:
        """Return what the store has of a job's arguments."""
        return (await self.job(job_id)).shown

    async def begin(self, **changes: Any) -> str:
        """Return the id of a job that calls with a secret."""
        return await self.submitted(arguments=msgspec.Raw(self.REAL), **changes)

    async def test_marked_by_client(self) -> None:
        """Harpd gets the arguments, which nothing else has, also if the job had to wait."""
        marked = {"shown_arguments": msgspec.Raw(self.SHOWN), "queue": QUEUE}
        first, second = [await self.begin(**marked) for _ in range(2)]
        self.assertEqual(await self.shown(second), self.SHOWN)
        for job_id in (first, second):
            self.assertEqual(self.harpd(job_id).requests[-1]["arguments"], json.loads(self.REAL))
            self.assertEqual(await self.shown(job_id), self.SHOWN)
            await self.finish(job_id)
            self.assertEqual(await self.shown(job_id), self.SHOWN)

    async def test_declared_by_procedure(self) -> None:
        """What harpd says may be shown replaces the arguments before the first packet comes."""
        job_id = await self.begin()
        self.assertEqual(await self.shown(job_id), self.REAL)
        watcher = Watcher()
        self.announcements.watch(job_id, watcher)
        append = self.store.append
        order: list[str] = []

        def replace(*given: Any) -> Deferred[None]:
            order.append("replaced")
            return genuine(*given)

        def note(*given: Any) -> Deferred[None]:
            order.append("packets")
            return append(*given)

        genuine = self.store.replace_arguments
        self.patch(self.store, "replace_arguments", replace)
        self.patch(self.store, "append", note)
        self.harpd(job_id).reply(Ack(True, self.SHOWN), Packets(1, b"1"), RESULT)
        await self.ended(job_id)
        self.assertEqual(order, ["replaced", "packets"])
        self.assertEqual(await self.shown(job_id), self.SHOWN)

    async def test_declared_before(self) -> None:
        """From then on nothing is shown until harpd says what may be, and nothing is recorded."""
        first = await self.begin(queue=QUEUE)
        second = await self.begin(queue=QUEUE)
        self.assertEqual(await self.shown(second), self.REAL)
        self.harpd(first).reply(Ack(False, self.SHOWN))
        third = await self.begin(queue=QUEUE)
        self.assertEqual(await self.shown(third), NOT_SHOWN)
        self.harpd(first).reply(RESULT)
        await self.ended(first)
        await self.dispatcher.cancel(second)
        self.assertEqual(self.harpd(third).requests[-1]["arguments"], json.loads(self.REAL))
        self.harpd(third).reply(Ack(False, self.SHOWN), RESULT)
        await self.ended(third)
        self.assertEqual(await self.shown(third), self.SHOWN)

    async def test_declared_before_a_restart(self) -> None:
        """What harpd has said is known to the next process, until harpd takes it back."""
        first = await self.begin()
        self.harpd(first).reply(Ack(False, self.SHOWN), RESULT)
        await self.ended(first)
        for told, shown in ((self.SHOWN, NOT_SHOWN), (None, NOT_SHOWN), (None, self.REAL)):
            self.dispatcher = self.started()
            await self.dispatcher.recover()
            job_id = await self.begin()
            self.assertEqual(await self.shown(job_id), shown)
            self.harpd(job_id).reply(Ack(False, told), RESULT)
            await self.ended(job_id)

    async def test_both(self) -> None:
        """Where client and harpd hide different things, both are hidden."""
        mine = msgspec.Raw(b'["(secret)","correct horse"]')
        job_id = await self.begin(shown_arguments=mine)
        self.harpd(job_id).reply(Ack(False, self.SHOWN), RESULT)
        await self.ended(job_id)
        self.assertEqual(await self.shown(job_id), NOT_SHOWN)

    async def test_not_wiped_at_first(self) -> None:
        """A disk that is full for a while keeps nobody from hiding what is secret."""
        job_id = await self.begin()
        patched = self.patch(self.store, "replace_arguments", lambda *_: fail(StoreError("full")))
        self.harpd(job_id).reply(Ack(False, self.SHOWN))
        self.assertEqual(await self.shown(job_id), self.REAL)
        self.assertEqual(len(self.flushLoggedErrors(StoreError)), 1)
        patched.restore()
        self.network.advance(AGAIN)
        self.harpd(job_id).reply(RESULT)
        await self.ended(job_id)
        self.assertEqual(await self.shown(job_id), self.SHOWN)


class CancelTests(DispatcherTestCase):
    """What can be cancelled."""

    async def test_running(self) -> None:
        """A running job is over at once, and its connection closed, which ends the call."""
        job_id = await self.submitted()
        harpd = self.harpd(job_id)
        harpd.reply(Ack(True))
        self.assertIs(await self.dispatcher.cancel(job_id), True)
        self.assertEqual((await self.ended(job_id)).end, CANCELLED)
        harpd.flush()
        self.assertTrue(harpd.lost)
        self.assert_nothing_left()

    async def test_waiting(self) -> None:
        """A job that waits is over at once, and never runs."""
        first, second, third = await self.submit_to_queue("first", "second", "third")
        self.assertIs(await self.dispatcher.cancel(second), True)
        self.assertEqual((await self.ended(second)).end, CANCELLED)
        await self.finish(first)
        await self.finish(third)
        self.assertEqual(self.let_come(), ["first", "third"])

    async def test_ended(self) -> None:
        """A job that has ended can't be cancelled."""
        job_id = await self.submitted()
        await self.finish(job_id)
        self.assertIs(await self.dispatcher.cancel(job_id), False)
        self.assertEqual((await self.job(job_id)).end, RESULT)

    async def test_unknown(self) -> None:
        """A job that there is not can't be cancelled either, which is another answer."""
        self.assertIsNone(await self.dispatcher.cancel("no such job"))


class CancelQueueTests(DispatcherTestCase):
    """Cancelling all jobs of a queue."""

    NAME = canonical_queue_name(bytes(QUEUE.name))

    async def test_all(self) -> None:
        """Those that run and those that wait are over and announced; none of them starts."""
        self.patch(dispatcher, "PORTION", 2)
        jobs = await self.submit_to_queue(*"abcdef")
        harpd = self.harpd(jobs[0])
        watchers = {job_id: Watcher() for job_id in jobs}
        for job_id, watcher in watchers.items():
            self.announcements.watch(job_id, watcher)
        self.assertEqual(await self.dispatcher.cancel_queue(self.NAME), 6)
        for job_id, watcher in watchers.items():
            job = await self.job(job_id)
            self.assertEqual((job.end, watcher.told), (CANCELLED, [job]))
        self.assertEqual(self.let_come(), ["a"])
        self.assertTrue(harpd.lost)
        self.assert_nothing_left()

    async def test_others(self) -> None:
        """Jobs of other queues and of none are left alone."""
        other = wire.QueueOption(msgspec.Raw(b'{"disk":"sdb"}'))
        await self.submit_to_queue("mine")
        left = await self.submit_to_queue("other", "waiting", queue=other)
        left.append(await self.submitted())
        self.assertEqual(await self.dispatcher.cancel_queue(self.NAME), 1)
        for job_id in left:
            self.assertIsNone((await self.job(job_id)).end)

    def submit_meanwhile(self, *procedures: str, **changes: Any) -> list[str]:
        """Have jobs submitted as soon as a request to cancel the queue has come.

        :return: gets their ids then.
        """
        late: list[str] = []
        real = self.store.queue

        async def queue(name: bytes) -> object:
            found = await real(name)
            late.extend(await self.submit_to_queue(*procedures, **changes))
            return found

        self.patch(self.store, "queue", queue)
        return late

    async def test_later_ones(self) -> None:
        """What is submitted after the request is left alone, and started in its turn."""
        self.patch(dispatcher, "PORTION", 2)
        await self.submit_to_queue(*"abcd")
        late = self.submit_meanwhile("late", "later")
        self.assertEqual(await self.dispatcher.cancel_queue(self.NAME), 4)
        await self.finish(late[0])
        await self.finish(late[1])
        self.assertEqual(self.let_come(), ["late", "later"])

    async def test_later_one_that_runs(self) -> None:
        """What is submitted after the request is left alone also if it runs at once."""
        wide = wire.QueueOption(QUEUE.name, 2)
        await self.submit_to_queue("early", queue=wide)
        late = self.submit_meanwhile("late", queue=wide)
        self.assertEqual(await self.dispatcher.cancel_queue(self.NAME), 1)
        await self.finish(late[0])

    async def test_releases(self) -> None:
        """A later job that only waited for one that is cancelled is started."""
        await self.dispatcher.set_capacity(Capacity(10, max_running_per_host=1))
        await self.submitted()
        await self.submit_to_queue("waits for its host")
        late = self.submit_meanwhile("late", host="web99")
        self.assertEqual(await self.dispatcher.cancel_queue(self.NAME), 1)
        end = (await self.ended(late[0])).end
        assert end is not None
        self.assertEqual(json.loads(end.value)["type"], "unknown_host")

    async def test_no_such_queue(self) -> None:
        """Where there is no queue there is nothing to cancel."""
        self.assertEqual(await self.dispatcher.cancel_queue(self.NAME), 0)

    async def test_while_stopping(self) -> None:
        """A dispatcher that is being stopped cancels no queue: that would start others."""
        await self.submit_to_queue("first", "second")
        stopped = Deferred.fromCoroutine(self.dispatcher.stop(5))
        with self.assertRaises(RefusedError) as caught:
            await self.dispatcher.cancel_queue(self.NAME)
        self.assertEqual(caught.exception.type, errors.SHUTDOWN)
        self.network.advance(5)
        await stopped


class QueueTests(DispatcherTestCase):
    """What the store releases is started."""

    async def test_after_an_end(self) -> None:
        """When a job ends the next of its queue is started, in the order of submission."""
        first, second, third = await self.submit_to_queue("first", "second", "third")
        await self.finish(first)
        await self.finish(second)
        await self.finish(third)
        self.assertEqual(self.let_come(), ["first", "second", "third"])

    async def test_one_at_a_time(self) -> None:
        """No more jobs of a queue run than its concurrency allows."""
        await self.submit_to_queue("first", "second")
        self.assertEqual(self.let_come(), ["first"])

    async def test_after_a_cancellation(self) -> None:
        """When a running job is cancelled the next of its queue is started."""
        first, _ = await self.submit_to_queue("first", "second")
        await self.dispatcher.cancel(first)
        self.assertEqual(self.let_come(), ["second"])

    async def test_more_capacity(self) -> None:
        """When more may run at once, those that can are started in their order, no more."""
        await self.dispatcher.set_capacity(Capacity(1))
        for procedure in ("first", "second", "third", "fourth"):
            await self.submitted(procedure=procedure)
        self.assertEqual(self.let_come(), ["first"])
        await self.dispatcher.set_capacity(Capacity(3))
        self.assertEqual(self.let_come(), ["first", "second", "third"])

    async def test_less_capacity(self) -> None:
        """When less may run at once, what runs goes on, and nothing starts before it has ended."""
        jobs = [await self.submitted(procedure=each) for each in ("first", "second")]
        self.let_come()
        await self.dispatcher.set_capacity(Capacity(1))
        jobs.append(await self.submitted(procedure="third"))
        await self.finish(jobs[0])
        self.assertEqual(self.let_come(), ["first", "second"])
        await self.finish(jobs[1])
        await self.finish(jobs[2])

    async def test_through_an_unknown_host(self) -> None:
        """A released job that can't be started releases the next."""
        (first,) = await self.submit_to_queue("first")
        lost, also_lost = await self.submit_to_queue("lost", "also lost", host="web99")
        (last,) = await self.submit_to_queue("last")
        await self.finish(first)
        await self.ended(lost)
        await self.ended(also_lost)
        await self.finish(last)
        self.assertEqual(self.let_come(), ["first", "last"])

    async def test_after_a_restart(self) -> None:
        """After a crash what ran is closed, and what waited is started in its order."""
        lost = await self.submit_to_queue("lost")
        waiting = await self.submit_to_queue("first", "second")
        other = wire.QueueOption(msgspec.Raw(b'{"disk":"sdb"}'), 2)
        for procedure in ("lost", "lost", "third", "fourth", "fifth"):
            await self.submitted(procedure=procedure, queue=other)
        self.dispatcher = self.started()
        await self.dispatcher.recover()
        end = (await self.job(lost[0])).end
        assert end is not None
        self.assertEqual(json.loads(end.value)["type"], "missing_result")
        self.assertEqual((await self.job(waiting[1])).state, JobState.WAITING)
        self.assertEqual(self.let_come(), ["first", "third", "fourth"])

    async def test_after_a_stop(self) -> None:
        """A job that waited when the dispatcher was stopped runs after its next start."""
        first, second = await self.submit_to_queue("first", "second")
        stopped = Deferred.fromCoroutine(self.dispatcher.stop(5))
        self.network.advance(5)
        await stopped
        self.assertEqual((await self.job(first)).end, SHUTDOWN)
        self.assertEqual((await self.job(second)).state, JobState.WAITING)
        self.dispatcher = self.started()
        await self.dispatcher.recover()
        await self.finish(second)

    async def test_end_within_the_grace(self) -> None:
        """What ends by itself while the dispatcher stops is recorded; its successor waits on."""
        first, second = await self.submit_to_queue("first", "second")
        stopped = Deferred.fromCoroutine(self.dispatcher.stop(5))
        await self.finish(first)
        await stopped
        self.assertEqual((await self.job(second)).state, JobState.WAITING)
        self.assertEqual(self.begun, ["first"])
        self.assert_nothing_left()


class OrderTestCase(NetworkTestCase):
    """A test with a dispatcher whose store answers when told to."""

    def setUp(self) -> None:
        """Put the parts together."""
        super().setUp()
        self.store = PatientStore()
        self.announcements = Announcements()
        self.watcher = Watcher()
        self.announcements.watch("the-job", self.watcher)
        self.dispatcher = Dispatcher(
            self.network,
            self.network.seconds,
            self.store.real,
            hosts(HOST),
            self.connections,
            self.announcements,
            LIMITS,
        )

    def running(self) -> HarpdEnd:
        """Return harpd's end of a job that streams."""
        submitted = self.dispatcher.submit(call(), IDENTITY)
        self.store.answer("submit", Submission("the-job", running_job()))
        self.assertEqual(self.successResultOf(submitted), ("the-job", False))
        harpd = self.harpd()
        harpd.reply(Ack(True))
        return harpd

    def harpd(self) -> HarpdEnd:
        """Return harpd's end of the connection over which the last request came."""
        if awaited(self.network):
            self._end = self.accept()
        self._end.flush()
        return self._end

    def stop(self) -> Deferred[None]:
        """Begin to stop."""
        return Deferred.fromCoroutine(self.dispatcher.stop(GRACE))


class RaceTests(OrderTestCase):
    """Things that happen at once."""

    CANCELLATION = Cancellation(JobState.RUNNING, ended_job(running_job(), CANCELLED), [])

    def test_started_when_on_disk(self) -> None:
        """Nobody is connected to before the job is on disk."""
        submitted = self.dispatcher.submit(call(), IDENTITY)
        self.assertEqual(self.network.tcpClients, [])
        self.assertNoResult(submitted)
        self.store.answer("submit", Submission("the-job", running_job()))
        self.assertEqual(len(self.network.tcpClients), 1)
        self.successResultOf(submitted)

    def test_announced_when_on_disk(self) -> None:
        """Packets and end are announced when they are on disk, not earlier."""
        harpd = self.running()
        harpd.reply(Packets(1, b"1"), Packets(1, b"2"))
        harpd.reply(Packets(1, b"3"))
        harpd.reply(RESULT)
        self.assertEqual(self.watcher.told, [])
        appended = self.store.answer("append", None)
        self.assertEqual(appended["recorded"].packets, pack([b"1", b"2"]))
        self.assertEqual(self.watcher.told, [(0, b"1", b"2")])
        self.store.answer("append", None)
        self.assertEqual(self.watcher.told, [(0, b"1", b"2"), (2, b"3")])
        ended = ended_job(running_job(), RESULT)
        self.store.answer("end", Ending(ended, []))
        self.assertEqual(self.watcher.told[2:], [ended])

    def test_cancelled_then_ended(self) -> None:
        """An end result that comes after the request to cancel changes nothing."""
        harpd = self.running()
        cancelled = self.dispatcher.cancel("the-job")
        harpd.reply(RESULT)
        self.store.answer("cancel", self.CANCELLATION)
        self.assertIs(self.successResultOf(cancelled), True)
        late = Watcher()
        self.announcements.watch("the-job", late)
        self.store.answer("end", Ending(None, []))
        self.assertEqual((self.watcher.told, late.told), ([self.CANCELLATION.job], []))

    def test_ended_then_cancelled(self) -> None:
        """A request to cancel that comes after the end result changes nothing."""
        harpd = self.running()
        harpd.reply(RESULT)
        cancelled = self.dispatcher.cancel("the-job")
        ended = ended_job(running_job(), RESULT)
        self.store.answer("end", Ending(ended, []))
        self.store.answer("cancel", Cancellation(JobState.ENDED, ended, []))
        self.assertIs(self.successResultOf(cancelled), False)
        self.assertEqual(self.watcher.told, [ended])

    def test_packets_after_the_cancellation(self) -> None:
        """Packets that are under way when the job is cancelled do no harm."""
        harpd = self.running()
        harpd.reply(Packets(1, b"1"))
        self.dispatcher.cancel("the-job")
        self.store.answer("cancel", self.CANCELLATION)
        harpd.reply(Packets(1, b"2"))
        self.store.answer("append", None)
        self.assertEqual(self.watcher.told, [self.CANCELLATION.job])
        self.assertEqual(self.store.questions, [])

    def test_cancelled_twice(self) -> None:
        """Only one of two requests to cancel finds something to cancel."""
        self.running()
        first, second = self.dispatcher.cancel("the-job"), self.dispatcher.cancel("the-job")
        self.store.answer("cancel", self.CANCELLATION)
        self.store.answer("cancel", Cancellation(JobState.ENDED, self.CANCELLATION.job, []))
        self.assertIs(self.successResultOf(first), True)
        self.assertIs(self.successResultOf(second), False)
        self.assertEqual(self.watcher.told, [self.CANCELLATION.job])

    def test_nothing_is_kept(self) -> None:
        """Of a job that has ended or was cancelled nothing is kept in memory."""
        kept: weakref.WeakSet[Conversation] = weakref.WeakSet()

        class KnownConversation(Conversation):
            def __init__(self, *args: Any) -> None:
                super().__init__(*args)
                kept.add(self)

        self.patch(dispatcher, "Conversation", KnownConversation)
        gc.collect()
        gc.disable()  # what is kept until the collector comes is kept
        self.addCleanup(gc.enable)
        self.running().reply(RESULT)
        self.store.answer("end", Ending(ended_job(running_job(), RESULT), []))
        self.assertEqual(len(kept), 0)
        harpd = self.running()
        self.assertEqual(len(kept), 1)
        self.dispatcher.cancel("the-job")
        self.store.answer("cancel", self.CANCELLATION)
        harpd.flush()
        self.assertEqual(len(kept), 0)

    def test_released_jobs_in_order(self) -> None:
        """Jobs that are released together are started in the order of their release."""
        released = [running_job(id=name, host=name) for name in ("a", "b", "c")]
        recovered = Deferred.fromCoroutine(self.dispatcher.recover())
        self.store.answer("secret_procedures", [])
        self.store.answer("recover", Recovery([], released))
        self.successResultOf(recovered)
        self.assertEqual([each["job_id"] for each in self.store.asked("end")], ["a", "b", "c"])


class FailureTests(OrderTestCase):
    """When the store fails."""

    FAILURE = StoreError("disk I/O error")

    def test_submit(self) -> None:
        """A job that is not on disk is not run."""
        submitted = self.dispatcher.submit(call(), IDENTITY)
        self.store.answer("submit", self.FAILURE)
        self.assertIs(self.failureResultOf(submitted).value, self.FAILURE)
        self.assertEqual(self.network.tcpClients, [])

    def test_capacity(self) -> None:
        """Those that a greater capacity lets run are looked for until the store can tell."""
        setting = Deferred.fromCoroutine(self.dispatcher.set_capacity(Capacity(3)))
        self.store.answer("set_capacity", self.FAILURE)
        self.assertEqual(self.store.questions, [])
        self.network.advance(AGAIN)
        self.assertEqual(self.store.answer("set_capacity", [])["capacity"], Capacity(3))
        self.successResultOf(setting)
        self.assertEqual(len(self.flushLoggedErrors(StoreError)), 1)

    def test_capacity_that_is_replaced(self) -> None:
        """Of two capacities only the later one is tried again."""
        first = Deferred.fromCoroutine(self.dispatcher.set_capacity(Capacity(3)))
        second = Deferred.fromCoroutine(self.dispatcher.set_capacity(Capacity(4)))
        self.store.answer("set_capacity", self.FAILURE)
        self.store.answer("set_capacity", [])
        self.network.advance(AGAIN)
        for setting in (first, second):
            self.successResultOf(setting)
        self.assertEqual(self.store.questions, [])
        self.flushLoggedErrors(StoreError)

    def test_packets(self) -> None:
        """A job whose packets can't be recorded is ended, and they are not announced."""
        harpd = self.running()
        harpd.reply(Packets(1, b"1"))
        self.store.answer("append", self.FAILURE)
        self.assertEqual(json.loads(self.store.asked("end")[0]["result"].value)["type"], "os_error")
        harpd.flush()
        self.assertTrue(harpd.lost)
        self.assertEqual(self.watcher.told, [])

    def test_packets_that_came_with_the_end(self) -> None:
        """A job is no success while a packet of it is missing, be it the last."""
        self.running().reply(Packets(1, b"1"), RESULT)
        self.assertEqual(self.store.asked("end"), [])
        self.store.answer("append", self.FAILURE)
        self.assertEqual(json.loads(self.store.asked("end")[0]["result"].value)["type"], "os_error")

    def test_end(self) -> None:
        """An end that can't be recorded is recorded when it can, and then announced."""
        self.running().reply(RESULT)
        for _ in range(3):
            self.store.answer("end", self.FAILURE)
            self.assertEqual(self.store.questions, [])
            self.network.advance(AGAIN)
        self.assertEqual(len(self.flushLoggedErrors(StoreError)), 1)
        self.assertEqual(self.watcher.told, [])
        ended = ended_job(running_job(), RESULT)
        asked = self.store.answer("end", Ending(ended, []))
        self.assertEqual((asked["result"], asked["now"]), (RESULT, 3 * AGAIN))
        self.assertEqual(self.watcher.told, [ended])
        self.connections.close()
        self.harpd()
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_mistake_of_ours(self) -> None:
        """Whatever goes wrong with an end is in the log, and the job does not run for ever."""
        self.running().reply(RESULT)
        self.store.answer("end", RuntimeError("a mistake"))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.network.advance(AGAIN)
        ended = ended_job(running_job(), RESULT)
        self.store.answer("end", Ending(ended, []))
        self.assertEqual(self.watcher.told, [ended])

    def test_mistake_at_the_start(self) -> None:
        """A job that can't be started is ended, and those released with it are started."""
        reach = endpoint_by(self.network, trust())

        def endpoint(host: Host) -> IStreamClientEndpoint:
            self.connections.use(reach)
            raise RuntimeError("a mistake")

        self.connections.use(endpoint)
        recovered = Deferred.fromCoroutine(self.dispatcher.recover())
        jobs = [running_job(), running_job(id="another")]
        self.store.answer("secret_procedures", [])
        self.store.answer("recover", Recovery([], jobs))
        self.successResultOf(recovered)
        asked = self.store.answer("end", Ending(ended_job(running_job(), SHUTDOWN), []))
        self.assertEqual(json.loads(asked["result"].value)["type"], "os_error")
        self.assertEqual(self.harpd().requests[0]["context"], {"job_id": "another"})
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)


class StopTests(OrderTestCase):
    """The orderly end of the dispatcher."""

    ENDED = ended_job(running_job(), SHUTDOWN)

    def test_nothing_runs(self) -> None:
        """There is nothing to wait for."""
        self.successResultOf(self.stop())
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_running(self) -> None:
        """What runs goes on for the grace, then ends as shutdown, and that is waited for."""
        harpd = self.running()
        stopped = self.stop()
        self.network.advance(GRACE - 1)
        harpd.reply(Packets(1, b"1"))
        self.store.answer("append", None)
        self.assertFalse(harpd.lost)
        self.network.advance(1)
        harpd.flush()
        self.assertTrue(harpd.lost)
        self.assertNoResult(stopped)
        asked = self.store.answer("end", Ending(self.ENDED, []))
        self.assertEqual(
            (asked["result"], asked["origin"], asked["release"]),
            (SHUTDOWN, Origin.DISPATCHER, False),
        )
        self.successResultOf(stopped)
        self.assertEqual(self.watcher.told, [(0, b"1"), self.ENDED])
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_ends_within_the_grace(self) -> None:
        """The last one that ends by itself ends the waiting, as soon as it is on disk."""
        harpd = self.running()
        stopped = self.stop()
        harpd.reply(RESULT)
        self.assertNoResult(stopped)
        asked = self.store.answer("end", Ending(ended_job(running_job(), RESULT), []))
        self.assertEqual((asked["result"], asked["release"]), (RESULT, False))
        self.successResultOf(stopped)
        self.assertEqual(len(self.watcher.told), 1)
        self.connections.close()
        self.harpd()
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_cancelled_within_the_grace(self) -> None:
        """Who waits for a job that is cancelled meanwhile is told before the dispatcher stops."""
        self.running()
        told: list[int] = []
        stopped = self.stop().addCallback(lambda _: told.append(len(self.watcher.told)))
        self.dispatcher.cancel("the-job")
        self.assertIs(self.store.asked("cancel")[0]["release"], False)
        self.store.answer("cancel", RaceTests.CANCELLATION)
        self.successResultOf(stopped)
        self.assertEqual(told, [1])

    def test_waits_for_all(self) -> None:
        """It waits for all that is being recorded, also what began to end before."""
        self.running().reply(RESULT)
        self.running()
        stopped = self.stop()
        self.network.advance(GRACE)
        asked = self.store.answer("end", Ending(ended_job(running_job(), RESULT), []))
        self.assertEqual((asked["result"], asked["release"]), (RESULT, True))
        self.assertNoResult(stopped)
        self.store.answer("end", Ending(None, []))
        self.successResultOf(stopped)

    def test_released_meanwhile(self) -> None:
        """A job that an earlier end releases runs within the grace, as it has begun on disk."""
        self.running().reply(RESULT)
        stopped = self.stop()
        released = running_job(id="another")
        self.store.answer("end", Ending(ended_job(running_job(), RESULT), [released]))
        harpd = self.harpd()
        self.assertEqual(harpd.requests[-1]["context"], {"job_id": "another"})
        self.assertNoResult(stopped)
        harpd.reply(Ack(False), RESULT)
        self.store.answer("end", Ending(ended_job(released, RESULT), []))
        self.successResultOf(stopped)

    def test_released_after_the_grace(self) -> None:
        """A job that an earlier end releases too late is not run any more, and waited for."""
        self.running().reply(RESULT)
        stopped = self.stop()
        self.network.advance(GRACE)
        released = running_job(id="another")
        self.store.answer("end", Ending(ended_job(running_job(), RESULT), [released]))
        self.assertNoResult(stopped)
        asked = self.store.answer("end", Ending(ended_job(released, SHUTDOWN), []))
        self.assertEqual((asked["job_id"], asked["result"]), ("another", SHUTDOWN))
        self.successResultOf(stopped)
        self.assertEqual(self.network.tcpClients, [])

    def test_not_recorded(self) -> None:
        """An end that can't be recorded holds up nothing: the next start closes the job."""
        self.running()
        stopped = self.stop()
        self.network.advance(GRACE)
        self.store.answer("end", StoreError("disk full"))
        self.successResultOf(stopped)
        self.assertEqual(len(self.flushLoggedErrors(StoreError)), 1)

    def test_while_recording_again(self) -> None:
        """An end that can't be recorded is tried again within the grace, and then once more.

        The log tells of it once.
        """
        self.running().reply(RESULT)
        self.store.answer("end", StoreError("disk full"))
        stopped = self.stop()
        for _ in range(int(GRACE / AGAIN)):
            self.network.advance(AGAIN)
            self.assertNoResult(stopped)
            asked = self.store.answer("end", StoreError("disk full"))
            self.assertEqual((asked["result"], asked["release"]), (RESULT, False))
        self.network.advance(AGAIN)
        self.successResultOf(stopped)
        self.assertEqual(len(self.flushLoggedErrors(StoreError)), 1)
        self.assertEqual(self.store.questions, [])

    def test_submit_while_stopping(self) -> None:
        """Nothing new is accepted while the dispatcher stops, nor afterwards."""
        self.running()
        stopped = self.stop()
        with self.assertRaises(RefusedError) as caught:
            self.dispatcher.submit(call(), IDENTITY)
        self.assertEqual(caught.exception.type, errors.SHUTDOWN)
        self.network.advance(GRACE)
        self.store.answer("end", Ending(self.ENDED, []))
        self.successResultOf(stopped)
        with self.assertRaises(RefusedError):
            self.dispatcher.submit(call(), IDENTITY)
        self.assertEqual(self.store.questions, [])

    def test_submitted_just_before(self) -> None:
        """A job that is being recorded when the stop begins runs within the grace."""
        submitted = self.dispatcher.submit(call(), IDENTITY)
        stopped = self.stop()
        self.assertNoResult(stopped)
        self.store.answer("submit", Submission("the-job", running_job()))
        self.successResultOf(submitted)
        harpd = self.accept()
        harpd.reply(Ack(False), RESULT)
        self.store.answer("end", Ending(ended_job(running_job(), RESULT), []))
        self.successResultOf(stopped)

    def test_submitted_and_recorded_late(self) -> None:
        """A job that is recorded only after the grace is ended as shutdown, not left running."""
        submitted = self.dispatcher.submit(call(), IDENTITY)
        stopped = self.stop()
        self.network.advance(GRACE)
        self.assertNoResult(stopped)
        self.store.answer("submit", Submission("the-job", running_job()))
        self.assertEqual(self.successResultOf(submitted), ("the-job", False))
        asked = self.store.answer("end", Ending(self.ENDED, []))
        self.assertEqual((asked["result"], asked["release"]), (SHUTDOWN, False))
        self.successResultOf(stopped)
        self.assertEqual(self.network.tcpClients, [])
        self.assertEqual(self.watcher.told, [self.ENDED])

    def test_cancel_while_stopping(self) -> None:
        """Cancelling meanwhile releases nothing."""
        self.successResultOf(self.stop())
        self.dispatcher.cancel("the-job")
        self.assertIs(self.store.asked("cancel")[0]["release"], False)
