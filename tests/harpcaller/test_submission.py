"""Tests of ``harpcaller.submission``."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from harp import errors
from harp.wire import dispatcher as wire
from harp.wire import harpd
from harp.wire.lines import ENVELOPE_ROOM, MAX_REQUEST
from harpcaller.identities import Identity
from harpcaller.jobs import Dedup, NewJob, QueueSpec
from harpcaller.refusal import RefusedError
from harpcaller.secrecy import NOT_SHOWN
from harpcaller.submission import Limits, new_job

CALLER = "10.0.0.9"
IDENTITY = Identity(None, peer=CALLER)
LIMITS = Limits(default_timeout=100, max_exec_time=600)


def submitted(identity: Identity = IDENTITY, **changes: Any) -> NewJob:
    """Return the job of a call."""
    fields: dict[str, Any] = {
        "host": "web01",
        "procedure": "df",
        "arguments": msgspec.Raw(b'["/srv"]'),
        "info": msgspec.Raw(b'{"ticket": 7}'),
    }
    return new_job(wire.Call(1, **(fields | changes)), "id", identity, LIMITS)


def raw(text: bytes) -> msgspec.Raw:
    """Return JSON as it arrives."""
    return msgspec.Raw(text)


class NewJobTests(SynchronousTestCase):
    """What becomes of a call."""

    def test_payloads(self) -> None:
        """What the call says is kept as it is."""
        job = submitted(idempotency_key="k")
        self.assertEqual(
            (job.id, job.host, job.procedure, job.arguments, job.info),
            ("id", "web01", "df", b'["/srv"]', b'{"ticket": 7}'),
        )
        self.assertEqual((job.caller, job.idempotency_key), (CALLER, "k"))
        self.assertEqual((job.queue, job.dedup, submitted().idempotency_key), (None, None, None))

    def test_limits(self) -> None:
        """Limits not given are the defaults, those given are kept, none exceeds the ceiling."""
        asked: tuple[tuple[dict[str, Any], float, float], ...] = (
            ({}, 100, 600),
            ({"timeout": 0.5}, 0.5, 600),
            ({"timeout": 300.0}, 300, 600),
            ({"timeout": 1e9}, 600, 600),
            ({"max_exec_time": 0.5}, 100, 0.5),
            ({"max_exec_time": 1e9}, 100, 600),
            ({"timeout": 600.0, "max_exec_time": 600.0}, 600, 600),
        )
        for changes, timeout, max_exec_time in asked:
            job = submitted(**changes)
            self.assertEqual((job.timeout, job.max_exec_time), (timeout, max_exec_time), changes)

    def test_whose(self) -> None:
        """Who asks is noted, and for whom."""
        job = submitted(Identity("panel", on_behalf_of="joe", peer=CALLER))
        self.assertEqual((job.submitter, job.on_behalf_of), ("panel", "joe"))
        self.assertEqual((submitted().submitter, submitted().on_behalf_of), (None, None))

    def test_secrets(self) -> None:
        """What the client wants to be shown counts; else what harpd has said of the procedure."""
        shown = raw(b'["(secret)"]')
        secret = wire.Call(1, host="h", procedure="p", arguments=raw(b'["pw"]'))
        marked = msgspec.structs.replace(secret, shown_arguments=shown)
        for call, has_secrets, expected in (
            (secret, False, None),
            (secret, True, NOT_SHOWN),
            (marked, False, bytes(shown)),
            (marked, True, bytes(shown)),
        ):
            job = new_job(call, "id", IDENTITY, LIMITS, has_secrets)
            self.assertEqual((job.arguments, job.shown_arguments), (b'["pw"]', expected))

    def test_names(self) -> None:
        """Names of a queue and of a dedup that are equal as JSON become equal bytes."""
        for spelling in (b'{"a":1,"b":[2]}', b'{ "b": [2.0], "a": 1e0 }'):
            job = submitted(
                queue=wire.QueueOption(raw(spelling), 3), dedup=wire.Dedup(raw(spelling), 60.5)
            )
            self.assertEqual(job.queue, QueueSpec(b'{"a":1,"b":[2]}', 3))
            self.assertEqual(job.dedup, Dedup(b'{"a":1,"b":[2]}', 60.5))


class RefusalTests(SynchronousTestCase):
    """Which calls can't become a job."""

    def assert_refused(self, *parts: str, **changes: Any) -> None:
        """Check that a call is refused for what it says."""
        with self.assertRaises(RefusedError) as caught:
            submitted(**changes)
        self.assertEqual(caught.exception.type, errors.INVALID_REQUEST)
        for part in parts:
            self.assertIn(part, caught.exception.message)

    def test_unsound_names(self) -> None:
        """A name that is no sound JSON is refused, and it is said where it stands."""
        name = raw(b'{"a":1e999}')
        self.assert_refused("$.queue.name", queue=wire.QueueOption(name))
        self.assert_refused("$.dedup.key", dedup=wire.Dedup(name, 60))

    def test_too_long(self) -> None:
        """A call that would make too long a request for harpd is refused, not tried."""
        self.assert_refused("$.arguments", arguments=raw(b'["%b"]' % (b"x" * MAX_REQUEST)))

    def test_longest(self) -> None:
        """The longest call that is taken makes a request that harpd takes, extensions and all."""
        room = MAX_REQUEST - ENVELOPE_ROOM - len(b'"df"[""]')
        arguments = b'["%b"]' % (b"x" * room)
        job = submitted(arguments=raw(arguments))
        self.assert_refused(arguments=raw(arguments.replace(b"[", b"[ ")))
        request = harpd.CallRequest(
            harp=1,
            procedure=job.procedure,
            arguments=msgspec.Raw(job.arguments),
            auth=harpd.Auth("u" * 100, "p" * 500),
            keepalive=True,
            context=msgspec.Raw(
                msgspec.json.encode(
                    {"job_id": job.id, "submitter": "\0" * 200, "on_behalf_of": "\0" * 200}
                )
            ),
            report_lock=True,
            report_secret=True,
        )
        self.assertLessEqual(len(harpd.encode_request(request)), MAX_REQUEST)
