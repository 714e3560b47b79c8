"""Tests of ``harpcaller.dispatcher``: on a real store, and where orders matter on a patient one."""

from __future__ import annotations

import gc
import json
import uuid
import weakref
from collections.abc import Sequence
from typing import Any

import msgspec
from twisted.internet.defer import Deferred

from harp import errors
from harp.errors import RemoteProtocolError
from harp.wire import dispatcher as wire
from harp.wire import results
from harp.wire.harpd import Ack, Packet
from harp.wire.results import CANCELLED, EndKind, EndResult
from harpcaller import dispatcher
from harpcaller.announcements import Announcements
from harpcaller.dispatcher import RECORD_AGAIN, Dispatcher, Limits
from harpcaller.jobs import Job, JobState
from harpcaller.remote import Conversation
from harpcaller.store import Cancellation, Ending, Recovery, StoreError, Submission
from tests.harpcaller.memory import (
    HOST,
    HarpdCall,
    NetworkTestCase,
    PatientStore,
    accept,
    ended_job,
    hosts,
    new_network,
    running_job,
    trust,
)
from tests.harpcaller.stores import StoreTestCase

RESULT = EndResult(EndKind.RESULT, b'{"free":12}')
SHUTDOWN = results.error(errors.SHUTDOWN, "the dispatcher was stopped")
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

    def packets(self, first: int, packets: Sequence[bytes]) -> None:
        self.told.append((first, *packets))

    def ended(self, job: Job) -> None:
        self.told.append(job)
        self.end.callback(job)


class DispatcherTestCase(StoreTestCase):
    """A test with a dispatcher on a real store; harpd is in memory."""

    timeout = 30  # seconds, after which what does not come is taken never to come

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        """Put the parts together."""
        await super().setUp()
        self.network = new_network(self)
        self.announcements = Announcements()
        self.dispatcher = self.started()
        self.begun: list[str] = []

    def started(self) -> Dispatcher:
        """Return another dispatcher on the same store."""
        return Dispatcher(
            self.network,
            lambda: 1000.25,
            self.store,
            hosts(HOST),
            trust(),
            self.announcements,
            LIMITS,
        )

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
        return [
            await self.dispatcher.submit(call(procedure=procedure, queue=QUEUE, **changes))
            for procedure in procedures
        ]

    def accept(self) -> HarpdCall:
        """Be harpd: accept the connection that was asked for first, and note what is called."""
        harpd = accept(self.network)
        self.begun.append(json.loads(harpd.received)["procedure"])
        return harpd

    def accept_all(self) -> list[str]:
        """Accept all connections, and return the procedures called so far, in their order."""
        while not all(each.stoppedConnecting for each in self.network.connectors):
            self.accept()
        return self.begun

    async def finish(self, job_id: str) -> None:
        """Let the oldest call end, and with it the job."""
        self.accept().reply(Ack(False), RESULT)
        self.assertEqual((await self.ended(job_id)).end, RESULT)


class JobTests(DispatcherTestCase):
    """One job."""

    async def test_life_of_a_job(self) -> None:
        """A job is carried out by its host and recorded, packets and end."""
        job_id = await self.dispatcher.submit(call())
        watcher = Watcher()
        self.announcements.watch(job_id, watcher)
        harpd = self.accept()
        self.assertEqual(
            json.loads(harpd.received),
            {
                "harp": 1,
                "procedure": "df",
                "arguments": ["/srv"],
                "auth": {"user": HOST.user, "password": HOST.password},
            },
        )
        harpd.reply(Ack(True), Packet(b"1"), Packet(b"2"))
        harpd.reply(Packet(b"3"))
        harpd.reply(RESULT)
        ended = await watcher.end
        self.assertEqual(ended, await self.job(job_id))
        self.assertEqual((ended.end, ended.state), (RESULT, JobState.ENDED))
        self.assertEqual(watcher.told, [(0, b"1", b"2"), (2, b"3"), ended])
        page = await self.store.packets(job_id, 0, 10, 1000)
        self.assertEqual([packet[:2] for packet in page], [(0, b"1"), (1, b"2"), (2, b"3")])
        self.assertEqual(self.network.getDelayedCalls(), [])

    async def test_what_is_recorded(self) -> None:
        """The call is recorded as it was, under an id that is new and can't be guessed."""
        ids = {await self.dispatcher.submit(call()) for _ in range(5)}
        self.assertEqual(len(ids), 5)
        for job_id in ids:
            self.assertEqual((str(uuid.UUID(job_id)), uuid.UUID(job_id).version), (job_id, 4))
            job = await self.job(job_id)
            self.assertEqual(
                (job.host, job.procedure, job.arguments, job.info, job.queue, job.submitted),
                (HOST.name, "df", b'["/srv"]', b'{"ticket": 7}', None, 1000.25),
            )

    async def test_limits(self) -> None:
        """Limits not given are the defaults, those given are kept, none exceeds the ceiling."""
        for asked, timeout, max_exec_time in (
            ({}, 100, 600),
            ({"timeout": 0.5}, 0.5, 600),
            ({"timeout": 300.0}, 300, 600),
            ({"timeout": 1e9}, 600, 600),
            ({"max_exec_time": 0.5}, 100, 0.5),
            ({"max_exec_time": 1e9}, 100, 600),
            ({"timeout": 600.0, "max_exec_time": 600.0}, 600, 600),
        ):
            job = await self.job(await self.dispatcher.submit(call(**asked)))
            self.assertEqual((job.timeout, job.max_exec_time), (timeout, max_exec_time), asked)

    async def test_limits_hold(self) -> None:
        """It is the job's own limits that the conversation keeps."""
        job_id = await self.dispatcher.submit(call(timeout=5.0))
        self.network.advance(5)
        end = (await self.ended(job_id)).end
        assert end is not None
        self.assertEqual(json.loads(end.value)["message"], "timeout: no message for 5 s")

    async def test_unknown_host(self) -> None:
        """A job for a host that is not in the registry ends at once, and names the host."""
        job_id = await self.dispatcher.submit(call(host="web99"))
        end = (await self.ended(job_id)).end
        text = "there is no host web99 in the hosts registry"
        self.assertEqual(end, results.error(errors.UNKNOWN_HOST, text))

    async def test_unsound_queue_name(self) -> None:
        """A queue's name that is no sound JSON is refused, and nothing is recorded."""
        name = msgspec.Raw(b'{"a":1e999}')
        with self.assertRaises(RemoteProtocolError) as caught:
            await self.dispatcher.submit(call(queue=wire.QueueOption(name)))
        self.assertEqual(caught.exception.type, errors.INVALID_REQUEST)
        self.assertIn("$.queue.name", caught.exception.message)
        self.assertEqual(self.network.tcpClients, [])


class CancelTests(DispatcherTestCase):
    """What can be cancelled."""

    async def test_running(self) -> None:
        """A running job is over at once, and its connection closed, which ends the call."""
        job_id = await self.dispatcher.submit(call())
        harpd = self.accept()
        harpd.reply(Ack(True))
        self.assertIs(await self.dispatcher.cancel(job_id), True)
        self.assertEqual((await self.ended(job_id)).end, CANCELLED)
        harpd.flush()
        self.assertTrue(harpd.lost)
        self.assertEqual(self.network.getDelayedCalls(), [])

    async def test_waiting(self) -> None:
        """A job that waits is over at once, and never runs."""
        first, second, third = await self.submit_to_queue("first", "second", "third")
        self.assertIs(await self.dispatcher.cancel(second), True)
        self.assertEqual((await self.ended(second)).end, CANCELLED)
        await self.finish(first)
        await self.finish(third)
        self.assertEqual(self.accept_all(), ["first", "third"])

    async def test_ended(self) -> None:
        """A job that has ended can't be cancelled."""
        job_id = await self.dispatcher.submit(call())
        await self.finish(job_id)
        self.assertIs(await self.dispatcher.cancel(job_id), False)
        self.assertEqual((await self.job(job_id)).end, RESULT)

    async def test_unknown(self) -> None:
        """A job that there is not can't be cancelled either, which is another answer."""
        self.assertIsNone(await self.dispatcher.cancel("no such job"))


class QueueTests(DispatcherTestCase):
    """What the store releases is started."""

    async def test_after_an_end(self) -> None:
        """When a job ends the next of its queue is started, in the order of submission."""
        first, second, third = await self.submit_to_queue("first", "second", "third")
        await self.finish(first)
        await self.finish(second)
        await self.finish(third)
        self.assertEqual(self.accept_all(), ["first", "second", "third"])

    async def test_one_at_a_time(self) -> None:
        """No more jobs of a queue run than its concurrency allows."""
        await self.submit_to_queue("first", "second")
        self.assertEqual(self.accept_all(), ["first"])

    async def test_after_a_cancellation(self) -> None:
        """When a running job is cancelled the next of its queue is started."""
        first, _ = await self.submit_to_queue("first", "second")
        await self.dispatcher.cancel(first)
        self.assertEqual(self.accept_all(), ["second"])

    async def test_through_an_unknown_host(self) -> None:
        """A released job that can't be started releases the next."""
        (first,) = await self.submit_to_queue("first")
        lost, also_lost = await self.submit_to_queue("lost", "also lost", host="web99")
        (last,) = await self.submit_to_queue("last")
        await self.finish(first)
        await self.ended(lost)
        await self.ended(also_lost)
        await self.finish(last)
        self.assertEqual(self.accept_all(), ["first", "last"])

    async def test_after_a_restart(self) -> None:
        """After a crash what ran is closed, and what waited is started in its order."""
        lost = await self.submit_to_queue("lost")
        waiting = await self.submit_to_queue("first", "second")
        other = wire.QueueOption(msgspec.Raw(b'{"disk":"sdb"}'), 2)
        for procedure in ("lost", "lost", "third", "fourth", "fifth"):
            await self.dispatcher.submit(call(procedure=procedure, queue=other))
        self.network = new_network(self)
        self.dispatcher = self.started()
        await self.dispatcher.recover()
        end = (await self.job(lost[0])).end
        assert end is not None
        self.assertEqual(json.loads(end.value)["type"], "missing_result")
        self.assertEqual((await self.job(waiting[1])).state, JobState.WAITING)
        self.assertEqual(self.accept_all(), ["first", "third", "fourth"])

    async def test_after_a_stop(self) -> None:
        """A job that waited when the dispatcher was stopped runs after its next start."""
        first, second = await self.submit_to_queue("first", "second")
        await self.dispatcher.stop()
        self.assertEqual((await self.job(first)).end, SHUTDOWN)
        self.assertEqual((await self.job(second)).state, JobState.WAITING)
        self.dispatcher = self.started()
        await self.dispatcher.recover()
        await self.finish(second)


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
            trust(),
            self.announcements,
            LIMITS,
        )

    def running(self) -> HarpdCall:
        """Return harpd's end of a job that streams."""
        submitted = self.dispatcher.submit(call())
        self.store.answer("submit", Submission("the-job", running_job()))
        self.assertEqual(self.successResultOf(submitted), "the-job")
        harpd = self.accept()
        harpd.reply(Ack(True))
        return harpd

    def stop(self) -> Deferred[None]:
        """Begin to stop."""
        return Deferred.fromCoroutine(self.dispatcher.stop())


class RaceTests(OrderTestCase):
    """Things that happen at once."""

    CANCELLATION = Cancellation(JobState.RUNNING, ended_job(running_job(), CANCELLED), [])

    def test_started_when_on_disk(self) -> None:
        """Nobody is connected to before the job is on disk."""
        submitted = self.dispatcher.submit(call())
        self.assertEqual(self.network.tcpClients, [])
        self.assertNoResult(submitted)
        self.store.answer("submit", Submission("the-job", running_job()))
        self.assertEqual(len(self.network.tcpClients), 1)
        self.successResultOf(submitted)

    def test_announced_when_on_disk(self) -> None:
        """Packets and end are announced when they are on disk, not earlier."""
        harpd = self.running()
        harpd.reply(Packet(b"1"), Packet(b"2"))
        harpd.reply(Packet(b"3"))
        harpd.reply(RESULT)
        self.assertEqual(self.watcher.told, [])
        appended = self.store.answer("append", None)
        self.assertEqual((appended["first"], appended["packets"]), (0, [b"1", b"2"]))
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
        harpd.reply(Packet(b"1"))
        self.dispatcher.cancel("the-job")
        self.store.answer("cancel", self.CANCELLATION)
        harpd.reply(Packet(b"2"))
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
        self.running().reply(RESULT)
        self.store.answer("end", Ending(ended_job(running_job(), RESULT), []))
        gc.collect()
        self.assertEqual(len(kept), 0)
        harpd = self.running()
        self.assertEqual(len(kept), 1)
        self.dispatcher.cancel("the-job")
        self.store.answer("cancel", self.CANCELLATION)
        harpd.flush()
        del harpd
        gc.collect()
        self.assertEqual(len(kept), 0)

    def test_released_jobs_in_order(self) -> None:
        """Jobs that are released together are started in the order of their release."""
        released = [running_job(id=name, host=name) for name in ("a", "b", "c")]
        recovered = Deferred.fromCoroutine(self.dispatcher.recover())
        self.store.answer("recover", Recovery([], released))
        self.successResultOf(recovered)
        self.assertEqual([each["job_id"] for each in self.store.asked("end")], ["a", "b", "c"])


class FailureTests(OrderTestCase):
    """When the store fails."""

    FAILURE = StoreError("disk I/O error")

    def test_submit(self) -> None:
        """A job that is not on disk is not run."""
        submitted = self.dispatcher.submit(call())
        self.store.answer("submit", self.FAILURE)
        self.assertIs(self.failureResultOf(submitted).value, self.FAILURE)
        self.assertEqual(self.network.tcpClients, [])

    def test_packets(self) -> None:
        """A job whose packets can't be recorded is ended, and they are not announced."""
        harpd = self.running()
        harpd.reply(Packet(b"1"))
        self.store.answer("append", self.FAILURE)
        self.assertEqual(json.loads(self.store.asked("end")[0]["result"].value)["type"], "os_error")
        harpd.flush()
        self.assertTrue(harpd.lost)
        self.assertEqual(self.watcher.told, [])

    def test_end(self) -> None:
        """An end that can't be recorded is recorded when it can, and then announced."""
        self.running().reply(RESULT)
        for _ in range(3):
            self.store.answer("end", self.FAILURE)
            self.assertEqual(self.store.questions, [])
            self.network.advance(RECORD_AGAIN)
        self.assertEqual(len(self.flushLoggedErrors(StoreError)), 3)
        self.assertEqual(self.watcher.told, [])
        ended = ended_job(running_job(), RESULT)
        asked = self.store.answer("end", Ending(ended, []))
        self.assertEqual((asked["result"], asked["now"]), (RESULT, 3 * RECORD_AGAIN))
        self.assertEqual(self.watcher.told, [ended])
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_mistake_of_ours(self) -> None:
        """Whatever goes wrong with an end is in the log, and the job does not run for ever."""
        self.running().reply(RESULT)
        self.store.answer("end", RuntimeError("a mistake"))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.network.advance(RECORD_AGAIN)
        ended = ended_job(running_job(), RESULT)
        self.store.answer("end", Ending(ended, []))
        self.assertEqual(self.watcher.told, [ended])


class StopTests(OrderTestCase):
    """The orderly end of the dispatcher."""

    ENDED = ended_job(running_job(), SHUTDOWN)

    def test_nothing_runs(self) -> None:
        """There is nothing to wait for."""
        self.successResultOf(self.stop())

    def test_running(self) -> None:
        """What runs ends as shutdown and releases nothing; it waits until that is on disk."""
        harpd = self.running()
        stopped = self.stop()
        harpd.flush()
        self.assertTrue(harpd.lost)
        asked = self.store.answer("end", Ending(self.ENDED, []))
        self.assertEqual((asked["result"], asked["release"]), (SHUTDOWN, False))
        self.successResultOf(stopped)
        self.assertEqual(self.watcher.told, [self.ENDED])

    def test_waits_for_all(self) -> None:
        """It waits for all that is being recorded, also what began to end before."""
        self.running().reply(RESULT)
        self.running()
        stopped = self.stop()
        asked = self.store.answer("end", Ending(ended_job(running_job(), RESULT), []))
        self.assertEqual((asked["result"], asked["release"]), (RESULT, True))
        self.assertNoResult(stopped)
        self.store.answer("end", Ending(None, []))
        self.successResultOf(stopped)

    def test_released_meanwhile(self) -> None:
        """A job that an earlier end releases is not run any more, and waited for."""
        self.running().reply(RESULT)
        stopped = self.stop()
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
        self.store.answer("end", StoreError("disk full"))
        self.successResultOf(stopped)
        self.assertEqual(len(self.flushLoggedErrors(StoreError)), 1)
        self.assertEqual(self.network.getDelayedCalls()[1:], [])

    def test_while_recording_again(self) -> None:
        """An end that is to be recorded again is tried once more."""
        self.running().reply(RESULT)
        self.store.answer("end", StoreError("disk full"))
        stopped = self.stop()
        self.assertNoResult(stopped)
        self.network.advance(RECORD_AGAIN)
        asked = self.store.answer("end", StoreError("disk full"))
        self.assertEqual((asked["result"], asked["release"]), (RESULT, False))
        self.successResultOf(stopped)
        self.assertEqual(len(self.flushLoggedErrors(StoreError)), 2)

    def test_submit_while_stopping(self) -> None:
        """A job that is submitted meanwhile has its id, but is not run any more."""
        self.successResultOf(self.stop())
        submitted = self.dispatcher.submit(call())
        self.store.answer("submit", Submission("the-job", running_job()))
        self.assertEqual(self.successResultOf(submitted), "the-job")
        asked = self.store.answer("end", Ending(self.ENDED, []))
        self.assertEqual((asked["result"], asked["release"]), (SHUTDOWN, False))
        self.assertEqual(self.network.tcpClients, [])
        self.assertEqual(self.watcher.told, [self.ENDED])

    def test_cancel_while_stopping(self) -> None:
        """Cancelling meanwhile releases nothing."""
        self.successResultOf(self.stop())
        self.dispatcher.cancel("the-job")
        self.assertIs(self.store.asked("cancel")[0]["release"], False)
