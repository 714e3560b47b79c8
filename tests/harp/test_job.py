"""Tests of ``harp.job``: what a job tells about itself."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import harp
from harp import HarpCaller, RemoteCall
from tests.harp.peer import ClientTestCase, slowly
from tests.harp.test_dispatcher_wire import ID
from tests.harp.test_harpd_wire import FAULT_WITH_DATA

UNKNOWN = b'{"error":{"type":"invalid_jobid","message":"no such job"}}\n'


def status(start: int | None, end: int | None) -> bytes:
    """Return the status of a job."""
    times = f'{{"submit":10,"start":{start},"end":{end}}}'.replace("None", "null")
    return (
        b'{"call":{"host":"web01","procedure":"du","arguments":{"path":"/srv"}},'
        b'"time":%b,"info":{"by":["x"]}}\n' % times.encode()
    )


# How a job ended, and what comes of it.
ENDS: list[tuple[bytes, Any]] = [
    (b'{"result":{"used":[1,2.5]}}\n', {"used": [1, 2.5]}),
    (b'{"result":null}\n', None),
    (b'{"exception":%b}\n' % FAULT_WITH_DATA, harp.RemoteException),
    (b'{"error":%b}\n' % FAULT_WITH_DATA, harp.RemoteError),
    (UNKNOWN, harp.RemoteError),
    (b'{"cancelled":true}\n', harp.CALL_CANCELLED),
]


class ResultTests(ClientTestCase):
    """A job's end result is returned by one method and raised by the other."""

    def asked(self, line: bytes, ask: Callable[[RemoteCall], Any]) -> tuple[Any, bytes]:
        """Return what a job gives for a reply, and the request."""
        peer = self.peer(slowly(line))
        found = ask(HarpCaller("127.0.0.1", peer.port).job(ID))
        return found, peer.requests[0]

    def test_result(self) -> None:
        """Every end is returned, failures too, with or without waiting for it."""
        for line, expected in ENDS:
            for wait in (False, True):
                found, _ = self.asked(line, lambda job: job.result(wait=wait))  # noqa: B023
                if isinstance(expected, type):
                    self.assertIs(type(found), expected)
                else:
                    self.assertEqual(found, expected)

    def test_get(self) -> None:
        """A value is returned and every failure is raised."""
        for line, expected in ENDS:
            for wait in (False, True):

                def ask(job: RemoteCall, wait: bool = wait) -> Any:
                    return job.get(wait=wait)

                if expected is harp.CALL_CANCELLED:
                    with self.assertRaisesRegex(harp.CancelledException, ID):
                        self.asked(line, ask)
                elif isinstance(expected, type):
                    with self.assertRaises(expected):
                        self.asked(line, ask)
                else:
                    self.assertEqual(self.asked(line, ask)[0], expected)

    def test_what_failures_hold(self) -> None:
        """Type, message and data are those that were sent."""
        for kind in (b"exception", b"error"):
            line = b'{"%b":%b}\n' % (kind, FAULT_WITH_DATA)
            found, _ = self.asked(line, lambda job: job.result())
            self.assertEqual(
                (found.type, found.message, found.data), ("T", "M", {"class": "T", "module": "m"})
            )

    def test_not_finished(self) -> None:
        """A job that runs has no result, whichever method asks without waiting."""
        line = b'{"no_result":true}\n'
        for ask in (lambda job: job.result(), lambda job: job.get(wait=False)):
            self.assertIs(self.asked(line, ask)[0], harp.CALL_NOT_FINISHED)

    def test_request_lines(self) -> None:
        """What is sent is the request of the protocol page; result does not wait, get does."""
        now = b'{"harpcaller":1,"get_result":"%b","wait":false}\n' % ID.encode()
        wait = b'{"harpcaller":1,"get_result":"%b"}\n' % ID.encode()
        asks: list[tuple[Callable[[RemoteCall], Any], bytes]] = [
            (lambda job: job.result(), now),
            (lambda job: job.result(wait=True), wait),
            (lambda job: job.get(), wait),
            (lambda job: job.get(wait=False), now),
        ]
        for ask, line in asks:
            self.assertEqual(self.asked(b'{"result":1}\n', ask)[1], line)

    def test_value_that_cannot_be_held(self) -> None:
        """A value that Python can't hold is a failure of the conversation, with the address."""
        with self.assertRaisesRegex(harp.CommunicationError, r"^127.0.0.1:\d+: a payload"):
            self.asked(b'{"result":1e999}\n', lambda job: job.result())

    def test_nothing_is_kept(self) -> None:
        """A job that ran at the first question may have ended at the second."""
        job = self.caller([b'{"no_result":true}\n'], [b'{"result":1}\n']).job(ID)
        self.assertIs(job.result(), harp.CALL_NOT_FINISHED)
        self.assertEqual(job.result(), 1)


class CancelTests(ClientTestCase):
    """A job is cancelled by its id."""

    def test_outcome(self) -> None:
        """Whether there was anything to cancel is returned, and the request is the page's."""
        for said, cancelled in ((b"true", True), (b"false", False)):
            peer = self.peer(slowly(b'{"cancelled":%b}\n' % said))
            self.assertIs(HarpCaller("127.0.0.1", peer.port).job(ID).cancel(), cancelled)
            self.assertEqual(peer.requests, [b'{"harpcaller":1,"cancel":"%b"}\n' % ID.encode()])

    def test_unknown_job(self) -> None:
        """A job that there is not is raised."""
        with self.assertRaises(harp.RemoteError) as caught:
            self.caller([UNKNOWN]).job(ID).cancel()
        self.assertEqual(caught.exception.type, "invalid_jobid")


class StatusTests(ClientTestCase):
    """What can't change is asked for once, what can change every time."""

    def test_one_request_tells_all(self) -> None:
        """After the job's end one request answers every question about it."""
        peer = self.peer(slowly(status(11, 12)))
        job = HarpCaller("127.0.0.1", peer.port).job(ID)
        self.assertEqual(job.host(), "web01")
        self.assertEqual(job.procedure(), "du")
        self.assertEqual(job.args(), {"path": "/srv"})
        self.assertEqual(job.info(), {"by": ["x"]})
        self.assertEqual((job.submit_time(), job.start_time(), job.end_time()), (10, 11, 12))
        self.assertEqual(peer.requests, [b'{"harpcaller":1,"get_status":"%b"}\n' % ID.encode()])

    def test_times_that_may_still_come(self) -> None:
        """A time that was None is asked for again, one that has come is not."""
        job = self.caller(
            [status(None, None)], [status(None, None)], [status(11, None)], [status(11, 12)]
        ).job(ID)
        self.assertIsNone(job.start_time())
        self.assertEqual(job.submit_time(), 10)
        self.assertIsNone(job.end_time())
        self.assertEqual(job.start_time(), 11)
        self.assertEqual(job.start_time(), 11)
        self.assertEqual(job.end_time(), 12)
        self.assertEqual(job.end_time(), 12)

    def test_cancelled_while_it_waited(self) -> None:
        """A start that never came is not asked for again after the end."""
        job = self.caller([status(None, 12)]).job(ID)
        self.assertEqual(job.end_time(), 12)
        self.assertIsNone(job.start_time())

    def test_values_are_the_readers_own(self) -> None:
        """What a reader does to the arguments or the info is not seen by the next one."""
        job = self.caller([status(11, 12)]).job(ID)
        job.args().clear()
        job.info()["by"].append("y")
        self.assertEqual(job.args(), {"path": "/srv"})
        self.assertEqual(job.info(), {"by": ["x"]})

    def test_unknown_job(self) -> None:
        """A job that there is not is raised by each question, and asked for again."""
        job = self.caller(*[[UNKNOWN]] * 7).job(ID)
        for ask in (
            job.host,
            job.procedure,
            job.args,
            job.info,
            job.submit_time,
            job.start_time,
            job.end_time,
        ):
            with self.assertRaises(harp.RemoteError) as caught:
                ask()
            self.assertEqual(caught.exception.type, "invalid_jobid")

    def test_garbage(self) -> None:
        """What is said about a reply that is none names the address, once."""
        job = self.caller(*[[b"garbage\n"]] * 3).job(ID)
        for ask in (job.args, job.info, job.host):
            with self.assertRaises(harp.CommunicationError) as caught:
                ask()
            self.assertEqual(str(caught.exception).count("127.0.0.1"), 1)

    def test_copies_and_pickles(self) -> None:
        """A job can be stored with what is known of it."""
        job = self.caller([status(11, 12)]).job(ID)
        self.assertEqual(job.host(), "web01")
        for twin in (copy.copy(job), copy.deepcopy(job), pickle.loads(pickle.dumps(job))):
            self.assertEqual((twin.id(), twin.args(), twin.end_time()), (ID, {"path": "/srv"}, 12))
