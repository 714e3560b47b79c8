"""Tests of ``harpcaller.api``: lines in, bytes out, against a store that answers when told to."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Iterator
from typing import Any

from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from harp.errors import Origin
from harp.wire import dispatcher as wire
from harp.wire.lines import MAX_REQUEST
from harp.wire.results import CANCELLED, EndKind, EndResult
from harpcaller.api import ANSWERS, Api
from harpcaller.connection import CLOSE_DEADLINE, REQUEST_DEADLINE, ClientFactory
from harpcaller.jobs import Dedup, Job, JobState, WaitsFor
from harpcaller.store import Cancellation, QueueSummary, Repeat, StoreError, Submission
from tests.harpcaller.clients import Client, ClientEnd, TcpEnd, parts
from tests.harpcaller.memory import PatientStore, ended_job, running_job
from tests.harpcaller.packets import recorded

RESULT = EndResult(EndKind.RESULT, b'{"free" : 1.0e1}')
RUNNING = running_job()
WAITING = running_job(state=JobState.WAITING, started=None)
SUBMITTED = Submission(WAITING.id, WAITING)
ENDED = ended_job(RUNNING, RESULT)

CALL = b'{"harpcaller":1,"host":"web01","procedure":"df","arguments":["/srv"]}'
UNKNOWN_JOB = b'{"error":{"type":"invalid_jobid","message":"there is no job the-job"}}\n'
DATABASE_FAILED = (
    b'{"error":{"type":"os_error","message":"the dispatcher\'s database failed, see its log"}}\n'
)
SECRET_FAILURE = StoreError("/var/lib/secret.db: disk I/O error")


class ApiTestCase(SynchronousTestCase):
    """A test with a dispatcher whose store answers when told to."""

    def setUp(self) -> None:
        """Put the parts together."""
        self.reactor = MemoryReactorClock()
        self.store = PatientStore()
        self.ready: Deferred[None] | None = None
        self.parts = parts(self.reactor, self.store.real, ready=lambda: self.ready)
        self.announcements = self.parts.announcements

    def connected(self, transport: ClientEnd | None = None) -> Client:
        """Return a client that has said nothing yet."""
        return Client(self.reactor, Api(self.parts).respond, transport)

    def asking(self, line: bytes) -> Client:
        """Return a client that has sent a request line."""
        client = self.connected()
        client.say(line + b"\n")
        return client

    def about_job(self, key: str, more: bytes = b"") -> Client:
        """Return a client that has asked about the job."""
        return self.asking(b'{"harpcaller":1,"%b":"the-job"%b}' % (key.encode(), more))

    def announce(self, first: int, *packets: bytes) -> None:
        """Announce packets of the job."""
        self.announcements.packets("the-job", recorded(first, *packets))

    def assert_answered(self, client: Client, answer: bytes) -> None:
        """Check that this was the whole answer, and that nothing is left when the client leaves."""
        self.assertEqual(client.got, answer)
        self.assertTrue(client.is_closed)
        self.assertIsNone(client.transport.producer)
        client.leave()
        self.assert_nothing_left(client)

    def assert_nothing_left(self, client: Client) -> None:
        """Check that the client, who has left, is not written to, waited for nor remembered."""
        self.announce(0, b"1")
        self.announcements.ended(ENDED)
        self.assertEqual(client.transport.late, b"")
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class AnswerTests(ApiTestCase):
    """What answers each request, byte for byte."""

    def test_call(self) -> None:
        """A call is answered with the job's id, and not before the job is on disk."""
        client = self.asking(CALL)
        self.assertEqual(client.got, b"")
        new = self.store.answer("submit", SUBMITTED)["new"]
        self.assertEqual((new.host, new.procedure, new.arguments), ("web01", "df", b'["/srv"]'))
        self.assertEqual(new.info, b"null")
        self.assert_answered(client, b'{"harpcaller":1,"job_id":"the-job"}\n')

    def test_repeated_call(self) -> None:
        """Only a call that asked for ``dedup`` is told that its job is an earlier call's."""
        for key, repeated, more in (
            (b'"idempotency_key":"k"', Repeat.IDEMPOTENCY, b""),
            (b'"dedup":{"key":{"b":1,"a":2},"within":60}', Repeat.DEDUP, b',"duplicate":true'),
            (b'"dedup":{"key":{"b":1,"a":2},"within":60}', None, b""),
        ):
            client = self.asking(CALL[:-1] + b"," + key + b"}")
            new = self.store.answer("submit", Submission(RUNNING.id, None, repeated))["new"]
            if b"dedup" in key:
                self.assertEqual(new.dedup, Dedup(b'{"a":2,"b":1}', 60.0))
            else:
                self.assertEqual(new.idempotency_key, "k")
            self.assert_answered(client, b'{"harpcaller":1,"job_id":"the-job"%b}\n' % more)

    def test_caller(self) -> None:
        """A job is recorded with the address of who submitted it."""
        tcp = ClientFactory(self.reactor, Api(self.parts).respond)
        for address, caller in (
            (IPv4Address("TCP", "10.9.8.7", 1025), "10.9.8.7"),
            (UNIXAddress(b""), "unix"),
        ):
            protocol = tcp.buildProtocol(address)
            protocol.makeConnection(ClientEnd())
            protocol.dataReceived(CALL + b"\n")
            self.assertEqual(self.store.answer("submit", SUBMITTED)["new"].caller, caller)

    def test_cancel(self) -> None:
        """A cancellation is answered with whether there was anything to cancel."""
        for before, answer in (
            (JobState.WAITING, b"true"),
            (JobState.RUNNING, b"true"),
            (JobState.ENDED, b"false"),
        ):
            client = self.about_job("cancel")
            cancelled = ended_job(RUNNING, CANCELLED)
            self.store.answer("cancel", Cancellation(before, cancelled, []))
            self.assert_answered(client, b'{"cancelled":%b}\n' % answer)

    def test_status(self) -> None:
        """A status has whole seconds, null for what has not been, and payloads as they were."""
        call = b'{"call":{"host":"web01","procedure":"df","arguments":["/srv"]},"time":%b}\n'
        info = b',"info":{"ticket": 7}}\n'
        for job, times in (
            (WAITING, b'{"submit":1000,"start":null,"end":null}'),
            (RUNNING, b'{"submit":1000,"start":1001,"end":null}'),
            (ENDED, b'{"submit":1000,"start":1001,"end":1007}'),
            (ended_job(WAITING, CANCELLED), b'{"submit":1000,"start":null,"end":1007}'),
        ):
            client = self.about_job("get_status")
            self.store.answer("job", job)
            self.assert_answered(client, (call % times).replace(b"}\n", info))

    def test_result(self) -> None:
        """A job that has ended is answered with its end, whatever kind that is."""
        for end, answer in (
            (RESULT, b'{"result":{"free" : 1.0e1}}\n'),
            (EndResult(EndKind.EXCEPTION, b'{"type":"E"}'), b'{"exception":{"type":"E"}}\n'),
            (EndResult(EndKind.ERROR, b'{"type":"ssl"}'), b'{"error":{"type":"ssl"}}\n'),
            (CANCELLED, b'{"cancelled":true}\n'),
        ):
            for more in (b"", b',"wait":true', b',"wait":false'):
                client = self.about_job("get_result", more)
                self.store.answer("job", ended_job(RUNNING, end))
                self.assert_answered(client, answer)

    def test_no_result(self) -> None:
        """Who does not want to wait is told that there is no result."""
        client = self.about_job("get_result", b',"wait":false')
        self.store.answer("job", RUNNING)
        self.assert_answered(client, b'{"no_result":true}\n')

    def test_wait_for_the_result(self) -> None:
        """Who waits gets the result when it is there, and no packets before it."""
        client = self.about_job("get_result")
        self.store.answer("job", RUNNING)
        self.announce(0, b"1")
        self.assertEqual(client.got, b"")
        self.announcements.ended(ENDED)
        self.assert_answered(client, b'{"result":{"free" : 1.0e1}}\n')

    def test_result_of_what_is_known_to_run(self) -> None:
        """The store is not asked for a job of which the dispatcher knows that it runs."""
        self.patch(self.parts.dispatcher, "is_running", lambda job_id: job_id == "the-job")
        client = self.about_job("get_result", b',"wait":false')
        self.assert_answered(client, b'{"no_result":true}\n')
        client = self.about_job("get_result")
        self.assertEqual((client.got, self.store.questions), (b"", []))
        self.announcements.ended(ENDED)
        self.assert_answered(client, b'{"result":{"free" : 1.0e1}}\n')

    def test_result_between_the_question_and_its_answer(self) -> None:
        """An end that is announced while the store is still asked is told, and told once."""
        for answer in (RUNNING, ENDED):
            client = self.about_job("get_result")
            self.announcements.ended(ENDED)
            self.store.answer("job", answer)
            self.assert_answered(client, b'{"result":{"free" : 1.0e1}}\n')

    def test_unknown_job(self) -> None:
        """Every request that names a job says so if there is none."""
        for key in ("get_result", "get_status", "follow_stream", "read_stream"):
            client = self.about_job(key)
            self.store.answer("job", None)
            self.assert_answered(client, UNKNOWN_JOB)
        client = self.about_job("cancel")
        self.store.answer("cancel", Cancellation(None, None, []))
        self.assert_answered(client, UNKNOWN_JOB)

    def test_long_job_id(self) -> None:
        """What is no id is not repeated at full length."""
        client = self.asking(b'{"harpcaller":1,"get_status":"%b"}' % (b"x" * 10_000))
        self.store.answer("job", None)
        self.assertLess(len(client.got), 200)


class DetailTests(ApiTestCase):
    """What a client gets who asks for ``detail``."""

    def status(self, job: Job, queue: QueueSummary | None = None, position: object = None) -> Any:
        """Return the detail of a status."""
        client = self.about_job("get_status", b',"detail":true')
        self.store.answer("job", job)
        if job.queue is not None:
            self.assertEqual(self.store.answer("queue", queue), {"name": job.queue})
        if self.store.asked("position"):
            self.store.answer("position", position)
        self.store.answer("packet_count", 7)
        status = json.loads(client.got)
        self.assert_answered(client, client.got)
        self.assertEqual(status["call"]["arguments"], ["/srv"])
        return status["detail"]

    def test_status_of_a_running_job(self) -> None:
        """A status tells the limits, the times with their fractions, and how many packets came."""
        self.assertEqual(
            self.status(running_job(caller="10.9.8.7")),
            {
                "state": "running",
                "waits_for": None,
                "waits_for_lock": None,
                "time": {"submit": 1000.25, "start": 1001.5, "end": None},
                "timeout": 10.0,
                "max_exec_time": 60.0,
                "caller": "10.9.8.7",
                "packets": 7,
                "queue": None,
                "submitter": None,
                "on_behalf_of": None,
            },
        )

    def test_status_of_a_waiting_job(self) -> None:
        """A job that waits tells for what, and how many come before it."""
        name = b'{"disk":"sda"}'
        job = running_job(
            state=JobState.WAITING, started=None, queue=name, waits_for=WaitsFor.QUEUE
        )
        detail = self.status(job, QueueSummary(name, 2, 2, 5, 9), position=3)
        self.assertEqual(detail["waits_for"], "queue")
        self.assertEqual(detail["time"], {"submit": 1000.25, "start": None, "end": None})
        self.assertEqual(
            detail["queue"], {"name": {"disk": "sda"}, "concurrency": 2, "position": 3}
        )

    def test_status_of_a_job_whose_queue_is_gone(self) -> None:
        """The name of a queue stays with its jobs; it has no concurrency, and nobody waits."""
        detail = self.status(ended_job(running_job(queue=b'{"disk":"sda"}'), RESULT))
        self.assertEqual(detail["time"]["end"], 1007.75)
        self.assertEqual(
            detail["queue"], {"name": {"disk": "sda"}, "concurrency": None, "position": None}
        )

    def test_status_of_a_job_that_waits_for_a_lock(self) -> None:
        """A running job that waits for a lock on its host tells for which."""
        self.patch(self.parts.dispatcher, "lock_of", {"the-job": "dpkg"}.get)
        self.assertEqual(self.status(RUNNING)["waits_for_lock"], "dpkg")

    def test_end(self) -> None:
        """An end tells where a failure arose, whether the procedure may have run, and when."""
        for end, origin, more, detail in (
            (RESULT, None, {}, b'{"origin":null,"may_have_run":true,"time":1007.75}'),
            (CANCELLED, None, {}, b'{"origin":null,"may_have_run":true,"time":1007.75}'),
            (
                CANCELLED,
                None,
                {"started": None},
                b'{"origin":null,"may_have_run":false,"time":1007.75}',
            ),
            (
                EndResult(EndKind.ERROR, b'{"type":"closed","message":"x"}'),
                Origin.NETWORK,
                {},
                b'{"origin":"network","may_have_run":true,"time":1007.75}',
            ),
            (
                EndResult(EndKind.ERROR, b'{"type":"unknown_host","message":"x"}'),
                Origin.DISPATCHER,
                {},
                b'{"origin":"dispatcher","may_have_run":false,"time":1007.75}',
            ),
        ):
            job = ended_job(running_job(origin=origin, **more), end)
            answer = b'{"%b":%b,"detail":%b}\n' % (end.kind.value.encode(), end.value, detail)
            for wait in (b"true", b"false"):
                client = self.about_job("get_result", b',"detail":true,"wait":' + wait)
                self.store.answer("job", job)
                self.assert_answered(client, answer)
            waiting = self.about_job("get_result", b',"detail":true')
            self.store.answer("job", RUNNING)
            self.announcements.ended(job)
            self.assert_answered(waiting, answer)

    def test_streams(self) -> None:
        """Packets tell when they were recorded, replayed and live ones alike; so does the end."""
        end = (
            b'{"result":{"free" : 1.0e1},'
            b'"detail":{"origin":null,"may_have_run":true,"time":1007.75}}\n'
        )
        replayed = b'{"packet":0,"data":1,"time":1002.5}\n'
        for key, job in (("follow_stream", RUNNING), ("read_stream", ENDED)):
            client = self.about_job(key, b',"since":0,"detail":true')
            self.store.answer("job", job)
            self.store.answer("packet_count", 1)
            self.store.answer("packets", [recorded(0, b"1")])
            if job is ENDED:
                self.assert_answered(client, replayed + end)
            else:
                self.announcements.packets("the-job", recorded(1, b"2", at=1003.25))
                self.announcements.ended(ENDED)
                live = b'{"packet":1,"data":2,"time":1003.25}\n'
                self.assert_answered(client, replayed + live + end)


class TableTests(SynchronousTestCase):
    """What is answered at all."""

    def test_every_request_has_its_answer(self) -> None:
        """Whatever can be asked is in the table, and nothing else."""
        self.assertEqual(ANSWERS.keys(), set(_kinds(wire.Request)))


def _kinds(kind: type[wire.Request]) -> Iterator[type[wire.Request]]:
    """Give the kinds of requests that are not there for others to inherit from."""
    heirs = kind.__subclasses__()
    for heir in heirs:
        yield from _kinds(heir)
    if not heirs:
        yield kind


class StreamTests(ApiTestCase):
    """The requests for packets."""

    def stream(self, key: str, more: bytes, job: Any, known: int) -> Client:
        """Return a client that has asked for a stream, which begins now."""
        client = self.about_job(key, more)
        self.store.answer("job", job)
        self.store.answer("packet_count", known)
        return client

    def test_follow(self) -> None:
        """A follower gets what there is, then what comes, then the end result."""
        client = self.stream("follow_stream", b',"since":1', RUNNING, 3)
        self.assertIs(client.transport.streaming, True)
        self.store.answer("packets", [recorded(0, b'"a"', b'"b"'), recorded(2, b'[ "c"]')])
        self.announce(3, b"null")
        self.assertFalse(client.is_closed)
        self.announcements.ended(ENDED)
        self.assert_answered(
            client,
            b'{"packet":1,"data":"b"}\n{"packet":2,"data":[ "c"]}\n{"packet":3,"data":null}\n'
            b'{"result":{"free" : 1.0e1}}\n',
        )

    def test_read(self) -> None:
        """A reader gets what there is, then the end result, or that there will be more."""
        for job, last in (
            (RUNNING, b'{"continue":true}\n'),
            (WAITING, b'{"continue":true}\n'),
            (ENDED, b'{"result":{"free" : 1.0e1}}\n'),
        ):
            client = self.stream("read_stream", b"", job, 1)
            self.announce(1, b"2")
            self.store.answer("packets", [recorded(0, b"1")])
            self.assert_answered(client, b'{"packet":0,"data":1}\n' + last)

    def test_where_it_begins(self) -> None:
        """Since counts from the first packet, recent from the last, and each kind has a default."""
        for key, more, first in (
            ("follow_stream", b"", None),
            ("follow_stream", b',"recent":0', None),
            ("follow_stream", b',"recent":2', 8),
            ("follow_stream", b',"recent":11', 0),
            ("follow_stream", b',"since":9', 9),
            ("follow_stream", b',"since":10', None),
            ("follow_stream", b',"since":99', None),
            ("read_stream", b"", 0),
            ("read_stream", b',"recent":0', None),
            ("read_stream", b',"recent":2', 8),
            ("read_stream", b',"since":0', 0),
            ("read_stream", b',"since":9', 9),
            ("read_stream", b',"since":99', None),
        ):
            client = self.stream(key, more, ENDED, 10)
            if first is None:
                self.assertEqual(self.store.asked("packets"), [], (key, more))
                self.assert_answered(client, b'{"result":{"free" : 1.0e1}}\n')
            else:
                self.assertEqual(self.store.answer("packets", [])["since"], first, (key, more))
                client.leave()

    def test_recorded_while_it_begins(self) -> None:
        """What is announced while the store is asked comes neither twice nor never."""
        for announced_at in ("job", "packet_count"):
            client = self.about_job("follow_stream", b',"since":0')
            for question, answer in (("job", RUNNING), ("packet_count", 0)):
                if question == announced_at:
                    self.announce(0, b"1")
                    self.announcements.ended(ENDED)
                self.store.answer(question, answer)
            self.store.answer("packets", [recorded(0, b"1")])
            self.assert_answered(client, b'{"packet":0,"data":1}\n{"result":{"free" : 1.0e1}}\n')

    def test_slow_follower(self) -> None:
        """A follower that does not read is not written to until it reads."""
        client = self.stream("follow_stream", b"", RUNNING, 0)
        producer: Any = client.transport.producer
        producer.pauseProducing()
        self.announce(0, b"1")
        self.assertEqual(client.got, b"")
        producer.resumeProducing()
        self.store.answer("packets", [recorded(0, b"1")])
        self.assertEqual(client.got, b'{"packet":0,"data":1}\n')


class RequestTests(ApiTestCase):
    """What makes a request."""

    def test_byte_by_byte(self) -> None:
        r"""It makes no difference in which pieces a request comes, nor whether \r ends it."""
        client = self.connected()
        for byte in CALL + b"\r\n":
            self.assertEqual(self.store.questions, [])
            client.say(bytes([byte]))
        self.store.answer("submit", SUBMITTED)
        self.assert_answered(client, b'{"harpcaller":1,"job_id":"the-job"}\n')

    def test_data_behind_the_request(self) -> None:
        """What comes behind a request is not looked at, in whatever pieces it comes."""
        for more in (b"x", b"\n", CALL + b"\n"):
            client = self.asking(CALL + b"\n" + more)
            self.store.answer("submit", SUBMITTED)
            self.assert_answered(client, b'{"harpcaller":1,"job_id":"the-job"}\n')

    def test_second_request(self) -> None:
        """One connection carries one request; what comes later is not looked at."""
        client = self.asking(CALL)
        client.say(CALL + b"\n")
        self.assertEqual(len(self.store.questions), 1)
        self.store.answer("submit", SUBMITTED)
        client.say(b"nonsense\n" * 1000)
        self.assert_answered(client, b'{"harpcaller":1,"job_id":"the-job"}\n')

    def test_longest_line(self) -> None:
        """A line as long as allowed is taken; one byte more is refused before its end has come."""
        padding = b'{"harpcaller":1,"get_status":"%b"}'
        fitting = padding % (b"x" * (MAX_REQUEST - len(padding) + 2))
        fits = self.asking(fitting)
        self.assertEqual(self.store.answer("job", None)["job_id"][:3], "xxx")
        fits.leave()
        client = self.connected()
        client.say(fitting + b"xx")
        client.say(b"more")
        self.assert_refused(client, "invalid_request", "longer than 1048576 bytes")

    def test_unsound(self) -> None:
        """What is no request gets its error, and the connection is closed."""
        for line, type, part in (
            (b"nonsense", "parse_error", ""),
            (b"\xff", "parse_error", "UTF-8"),
            (b"", "parse_error", ""),
            (b'{"harp":1}', "invalid_protocol", "harpcaller"),
            (b'{"harpcaller":1,"get_result":"x","weight":true}', "invalid_request", "weight"),
            (b'{"harpcaller":1,"get_result":"x","get_result":"y"}', "invalid_request", "twice"),
            (CALL[:-1] + b',"queue":{"name":{"a":1e999}}}', "invalid_request", "$.queue.name"),
        ):
            self.assert_refused(self.asking(line), type, part)

    def assert_refused(self, client: Client, type: str, part: str) -> None:
        """Check that the client got this error and nothing else, and that nothing was done."""
        error = json.loads(client.got)["error"]
        self.assertEqual(error["type"], type)
        self.assertIn(part, error["message"])
        self.assertEqual(self.store.questions, [])
        self.assert_answered(client, client.got)


class TimeTests(ApiTestCase):
    """Clients that take their time."""

    def test_no_request(self) -> None:
        """A client that does not finish its request in time is cut off."""
        client = self.connected()
        self.reactor.advance(REQUEST_DEADLINE - 1)
        client.say(CALL)
        self.assertFalse(client.is_cut)
        self.reactor.advance(1)
        self.assertTrue(client.is_cut)
        client.leave()
        self.assertEqual(client.got, b"")
        self.assert_nothing_left(client)

    def test_long_answer(self) -> None:
        """A client waits for its answer as long as it likes."""
        client = self.about_job("get_result")
        self.store.answer("job", RUNNING)
        self.reactor.advance(REQUEST_DEADLINE + CLOSE_DEADLINE + 1)
        self.announcements.ended(ENDED)
        self.assert_answered(client, b'{"result":{"free" : 1.0e1}}\n')

    def test_answer_is_not_taken(self) -> None:
        """A client that does not take what was sent is cut off in the end."""
        client = self.about_job("get_result")
        self.store.answer("job", ENDED)
        self.reactor.advance(CLOSE_DEADLINE - 1)
        self.assertFalse(client.is_cut)
        self.reactor.advance(1)
        self.assertTrue(client.is_cut)
        client.leave()
        self.assert_nothing_left(client)

    def test_not_ready(self) -> None:
        """A request that comes before the dispatcher is ready waits for it."""
        self.ready = Deferred()
        client = self.about_job("get_result")
        self.assertEqual((self.store.questions, client.got), ([], b""))
        self.ready.callback(None)
        self.store.answer("job", ENDED)
        self.assert_answered(client, b'{"result":{"free" : 1.0e1}}\n')

    def test_nonsense_before_ready(self) -> None:
        """A request that can't be understood need not wait."""
        self.ready = Deferred()
        self.assertIn(b"parse_error", self.asking(b"nonsense").got)


class LeavingTests(ApiTestCase):
    """A client that leaves costs nothing more, and its job goes on."""

    def test_before_the_request(self) -> None:
        """A client that asks nothing."""
        client = self.connected()
        client.say(CALL)
        client.leave()
        self.assertEqual(self.store.questions, [])
        self.assert_nothing_left(client)

    def test_before_ready(self) -> None:
        """Who leaves before it came to his request is not sent a stream, nor remembered."""
        for key, more in (("follow_stream", b',"since":0'), ("get_result", b"")):
            self.ready = Deferred()
            client = self.about_job(key, more)
            client.leave()
            self.ready.callback(None)
            for method, answer in (("job", RUNNING), ("packet_count", 5)):
                if self.store.asked(method):
                    self.store.answer(method, answer)
            self.assertEqual(self.store.questions, [])
            self.assert_forgotten(client)
            self.assert_nothing_left(client)

    def test_before_the_store_answers(self) -> None:
        """Whatever was asked for is not sent any more."""
        for line, method, answer in (
            (CALL, "submit", SUBMITTED),
            (b'{"harpcaller":1,"cancel":"the-job"}', "cancel", Cancellation(None, None, [])),
            (b'{"harpcaller":1,"get_status":"the-job"}', "job", ENDED),
            (b'{"harpcaller":1,"get_result":"the-job"}', "job", ENDED),
            (b'{"harpcaller":1,"follow_stream":"the-job","since":0}', "job", ENDED),
            (b'{"harpcaller":1,"read_stream":"the-job"}', "job", ENDED),
        ):
            client = self.asking(line)
            client.leave()
            self.store.answer(method, answer)
            if self.store.asked("packet_count"):
                self.store.answer("packet_count", 5)
            self.assertEqual(self.store.asked("packets"), [])
            self.assert_nothing_left(client)

    def test_waiting_for_the_result(self) -> None:
        """Nothing is announced to who has left."""
        client = self.about_job("get_result")
        self.store.answer("job", RUNNING)
        client.leave()
        self.assert_forgotten(client)
        self.assert_nothing_left(client)

    def test_following(self) -> None:
        """Nothing is announced to, nor read for, a follower who has left."""
        client = self.about_job("follow_stream", b',"since":0')
        self.store.answer("job", RUNNING)
        self.store.answer("packet_count", 1)
        client.leave()
        self.store.answer("packets", [recorded(0, b"1")])
        self.assertEqual(self.store.questions, [])
        self.assert_forgotten(client)
        self.assert_nothing_left(client)

    def assert_forgotten(self, client: Client) -> None:
        """Check that no part of the dispatcher keeps the protocol of a client who has left."""
        protocol = weakref.ref(client.protocol)
        del client.protocol
        gc.collect()
        self.assertIsNone(protocol())


class FailureTests(ApiTestCase):
    """When the store fails: what went wrong inside is for the log."""

    def logged(self) -> None:
        """Check that the failure is in the log, once."""
        self.assertEqual([e.value for e in self.flushLoggedErrors()], [SECRET_FAILURE])

    def test_error(self) -> None:
        """Where an error can't be taken for the end of a job, it is sent."""
        for key, method in (("call", "submit"), ("cancel", "cancel"), ("get_status", "job")):
            client = self.asking(CALL) if key == "call" else self.about_job(key)
            self.store.answer(method, SECRET_FAILURE)
            self.logged()
            self.assert_answered(client, DATABASE_FAILED)

    def test_cut(self) -> None:
        """Where an error would be taken for the end of a job, the connection is cut."""
        for key, methods in (
            ("get_result", ["job"]),
            ("follow_stream", ["job"]),
            ("follow_stream", ["job", "packet_count"]),
            ("follow_stream", ["job", "packet_count", "packets"]),
            ("read_stream", ["job"]),
            ("read_stream", ["job", "packet_count", "packets"]),
        ):
            client = self.about_job(key, b"" if key == "get_result" else b',"since":0')
            answers: dict[str, Any] = {"job": RUNNING, "packet_count": 1}
            for method in methods[:-1]:
                self.store.answer(method, answers[method])
            self.store.answer(methods[-1], SECRET_FAILURE)
            self.logged()
            self.assertTrue(client.is_cut)
            client.leave()
            self.assertEqual(client.got, b"")
            self.assert_nothing_left(client)

    def test_after_the_answer(self) -> None:
        """A failure that no longer matters does not cut off a client who has its answer."""
        client = self.about_job("get_result")
        self.announcements.ended(ENDED)
        self.store.answer("job", SECRET_FAILURE)
        self.logged()
        self.assert_answered(client, b'{"result":{"free" : 1.0e1}}\n')

    def test_mistake_of_ours(self) -> None:
        """A mistake in the dispatcher itself is not shown either."""
        client = self.asking(CALL)
        self.store.answer("submit", RuntimeError("secret"))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertNotIn(b"secret", client.got)
        self.assertEqual(json.loads(client.got)["error"]["type"], "os_error")


class TransportTests(ApiTestCase):
    """What clients connect over."""

    def test_unix_socket(self) -> None:
        """A transport that knows nothing of TCP will do."""
        self.assertFalse(hasattr(ClientEnd(), "setTcpNoDelay"))
        client = self.about_job("get_result")
        self.store.answer("job", ENDED)
        self.assert_answered(client, b'{"result":{"free" : 1.0e1}}\n')

    def test_tcp(self) -> None:
        """Small answers leave at once, and clients whose machines died are found out."""
        transport = TcpEnd()
        self.connected(transport)
        self.assertEqual(transport.options, {"no delay": True, "keep alive": True})
