"""Tests of ``harp.wire.dispatcher``: the lines as protocol.md has them."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harp import errors
from harp.errors import RemoteProtocolError
from harp.wire import dispatcher
from harp.wire.dispatcher import (
    Call,
    Cancel,
    CancelOutcome,
    Continue,
    FollowStream,
    GetResult,
    GetStatus,
    JobId,
    NoResult,
    NumberedPacket,
    QueueOption,
    ReadStream,
    Reply,
    Request,
    Status,
)
from harp.wire.results import CANCELLED, EndKind, EndResult
from tests.harp.test_harpd_wire import FAULT, FAULT_WITH_DATA, JSON, TEXT

ID = "8ec71d6b-28d1-4ce2-aa23-f3ea7887beda"

Raw = msgspec.Raw

CALL: dict[str, Any] = {"harpcaller": 1, "host": "web01", "procedure": "du", "arguments": []}

FULL_CALL = Call(
    harpcaller=1,
    host="web01",
    procedure="du",
    arguments=Raw(b'{"path":"/srv"}'),
    timeout=60,
    max_exec_time=0.5,
    queue=QueueOption(Raw(b'{"host":"web01"}'), 3),
    info=Raw(b'["by",1.0]'),
)

# Every request of version 1, as our client writes it.
REQUESTS: list[tuple[bytes, Request]] = [
    (
        b'{"harpcaller":1,"host":"web01","procedure":"du","arguments":["/srv", 2]}',
        Call(harpcaller=1, host="web01", procedure="du", arguments=Raw(b'["/srv", 2]')),
    ),
    (
        b'{"harpcaller":1,"host":"web01","procedure":"du","arguments":{"path":"/srv"},'
        b'"timeout":60,"max_exec_time":0.5,'
        b'"queue":{"name":{"host":"web01"},"concurrency":3},"info":["by",1.0]}',
        FULL_CALL,
    ),
    (b'{"harpcaller":1,"cancel":"%b"}' % ID.encode(), Cancel(harpcaller=1, cancel=ID)),
    (b'{"harpcaller":1,"get_result":"%b"}' % ID.encode(), GetResult(harpcaller=1, get_result=ID)),
    (
        b'{"harpcaller":1,"get_result":"%b","wait":false}' % ID.encode(),
        GetResult(harpcaller=1, get_result=ID, wait=False),
    ),
    (b'{"harpcaller":1,"get_status":"%b"}' % ID.encode(), GetStatus(harpcaller=1, get_status=ID)),
    (
        b'{"harpcaller":1,"follow_stream":"%b"}' % ID.encode(),
        FollowStream(harpcaller=1, follow_stream=ID),
    ),
    (
        b'{"harpcaller":1,"since":0,"follow_stream":"%b"}' % ID.encode(),
        FollowStream(harpcaller=1, follow_stream=ID, since=0),
    ),
    (
        b'{"harpcaller":1,"recent":10,"read_stream":"%b"}' % ID.encode(),
        ReadStream(harpcaller=1, read_stream=ID, recent=10),
    ),
    (
        b'{"harpcaller":1,"read_stream":"%b"}' % ID.encode(),
        ReadStream(harpcaller=1, read_stream=ID),
    ),
]

STATUS = Status(
    dispatcher.CallFields("web01", "du", Raw(b'["/srv", 2.0]')),
    dispatcher.Times(1500000000, 1500000001, None),
    Raw(b'{"by":"x"}'),
)

# Every reply of version 1, as the dispatcher writes it.
REPLIES: list[tuple[bytes, Reply]] = [
    (b'{"harpcaller":1,"job_id":"%b"}' % ID.encode(), JobId(ID)),
    (b'{"cancelled":false}', CancelOutcome(False)),
    (b'{"cancelled":true}', CancelOutcome(True)),
    (b'{"no_result":true}', NoResult()),
    (b'{"continue":true}', Continue()),
    (b'{"packet":0,"data":{"a":[1, 2.0]}}', NumberedPacket(0, b'{"a":[1, 2.0]}')),
    (b'{"packet":7,"data":null}', NumberedPacket(7, b"null")),
    (b'{"result":{"used":1}}', EndResult(EndKind.RESULT, b'{"used":1}')),
    (b'{"result":null}', EndResult(EndKind.RESULT, b"null")),
    (b'{"exception":%b}' % FAULT, EndResult(EndKind.EXCEPTION, FAULT)),
    (b'{"exception":%b}' % FAULT_WITH_DATA, EndResult(EndKind.EXCEPTION, FAULT_WITH_DATA)),
    (b'{"error":%b}' % FAULT, EndResult(EndKind.ERROR, FAULT)),
    (b'{"error":%b}' % FAULT_WITH_DATA, EndResult(EndKind.ERROR, FAULT_WITH_DATA)),
    (
        b'{"call":{"host":"web01","procedure":"du","arguments":["/srv", 2.0]},'
        b'"time":{"submit":1500000000,"start":1500000001,"end":null},"info":{"by":"x"}}',
        STATUS,
    ),
    (
        b'{"call":{"host":"web01","procedure":"du","arguments":{}},'
        b'"time":{"submit":1500000000,"start":null,"end":1500000002},"info":null}',
        Status(
            dispatcher.CallFields("web01", "du", Raw(b"{}")),
            dispatcher.Times(1500000000, None, 1500000002),
            Raw(b"null"),
        ),
    ),
]


def changed(**changes: object) -> bytes:
    """Return a call with other keys and values; ... leaves a key out."""
    fields = {**CALL, **changes}
    return json.dumps({key: value for key, value in fields.items() if value is not ...}).encode()


def named(**fields: object) -> bytes:
    """Return a request that is not a call."""
    return json.dumps({"harpcaller": 1, **fields}).encode()


class RequestTests(SynchronousTestCase):
    """What clients ask."""

    def test_written_exactly(self) -> None:
        """A request is one line with the keys of version 1 that it needs and no other."""
        for line, request in REQUESTS:
            self.assertEqual(dispatcher.encode_request(request), line + b"\n")

    def test_read(self) -> None:
        """A request is read with its payloads as the bytes that arrived."""
        for line, request in REQUESTS:
            self.assertEqual(dispatcher.decode_request_line(line), request, line)

    def test_optional_keys_with_their_defaults(self) -> None:
        """An old client that sends every key gets what one gets that leaves them out."""
        line = changed(timeout=None, max_exec_time=None, queue=None, info=None)
        self.assertEqual(
            dispatcher.decode_request_line(line), dispatcher.decode_request_line(changed())
        )
        queued = dispatcher.decode_request_line(changed(queue={"name": {}}))
        assert isinstance(queued, Call)
        self.assertEqual(queued.queue, QueueOption(Raw(b"{}"), 1))
        waiting = dispatcher.decode_request_line(named(get_result=ID, wait=True))
        self.assertEqual(waiting, GetResult(harpcaller=1, get_result=ID))

    def test_faults(self) -> None:
        """What is missing, unknown, of a wrong type or out of range is refused by its name."""
        for line, told in [
            (named(), "host"),
            (changed(host=...), "host"),
            (changed(host=1), "$.host"),
            (changed(procedure=...), "procedure"),
            (changed(arguments=...), "arguments"),
            (changed(arguments=1), "$.arguments"),
            (changed(arguments="a"), "$.arguments"),
            (changed(arguments=None), "$.arguments"),
            (changed(timeout="60"), "$.timeout"),
            (changed(timeout=0), "$.timeout"),
            (changed(timeout=-1), "$.timeout"),
            (changed(timeout=True), "$.timeout"),
            (changed(max_exec_time=0), "$.max_exec_time"),
            (changed(max_exec_tme=60), "max_exec_tme"),
            (changed(queue={}), "name"),
            (changed(queue={"name": "text"}), "$.queue.name"),
            (changed(queue={"name": ["list"]}), "$.queue.name"),
            (changed(queue={"name": {}, "concurrency": 0}), "$.queue.concurrency"),
            (changed(queue={"name": {}, "concurrency": 1.5}), "$.queue.concurrency"),
            (changed(queue={"name": {}, "concurency": 1}), "concurency"),
            (changed(wait=True), "wait"),
            (named(cancel=7), "$.cancel"),
            (named(cancel=ID, wait=True), "wait"),
            (named(get_result=None), "$.get_result"),
            (named(get_result=ID, wait=1), "$.wait"),
            (named(get_result=ID, get_status=ID), "`get_result`, `get_status`"),
            (named(get_status=ID, host="web01"), "host"),
            (named(follow_stream=ID, since=0, recent=0), "both `since` and `recent`"),
            (named(read_stream=ID, since=-1), "$.since"),
            (named(read_stream=ID, recent="all"), "$.recent"),
            (named(cancel=ID)[:-1] + b',"cancel":"x"}', "`cancel` stands twice"),
            (changed(queue=...)[:-1] + b',"queue":{"name":{"a":1,"a":2}}}', "`a` stands twice"),
        ]:
            with self.assertRaises(RemoteProtocolError, msg=line) as caught:
                dispatcher.decode_request_line(line)
            self.assertEqual(caught.exception.type, errors.INVALID_REQUEST, line)
            self.assertIn(told, caught.exception.message, line)

    def test_other_protocol(self) -> None:
        """A line that is not JSON, or that belongs to harpd, is told so."""
        for line, type in [
            (b"GET / HTTP/1.1", errors.PARSE_ERROR),
            (changed(info="\udcff").replace(b"\\udcff", b"\xff"), errors.PARSE_ERROR),
            (changed(info=float("nan")), errors.PARSE_ERROR),
            (changed(harpcaller=..., harp=1), errors.INVALID_PROTOCOL),
            (changed(harpcaller=2), errors.INVALID_PROTOCOL),
        ]:
            with self.assertRaises(RemoteProtocolError) as caught:
                dispatcher.decode_request_line(line)
            self.assertEqual(caught.exception.type, type, line)

    @settings(deadline=None)
    @given(
        TEXT,
        st.lists(JSON) | st.dictionaries(TEXT, JSON),
        st.dictionaries(TEXT, JSON),
        st.integers(1, 1000),
        JSON,
    )
    def test_round_trip(
        self, host: str, arguments: object, queue: object, concurrency: int, info: object
    ) -> None:
        """Whatever is asked for arrives, on one line."""
        request = Call(
            harpcaller=1,
            host=host,
            procedure=host,
            arguments=Raw(json.dumps(arguments).encode()),
            queue=QueueOption(Raw(json.dumps(queue).encode()), concurrency),
            info=Raw(json.dumps(info).encode()),
        )
        line = dispatcher.encode_request(request)
        self.assertEqual(line.index(b"\n"), len(line) - 1)
        self.assertEqual(dispatcher.decode_request_line(line[:-1]), request)


class ReplyTests(SynchronousTestCase):
    """What the dispatcher answers."""

    def test_written_exactly(self) -> None:
        """A reply is one line with the keys of version 1 and no other."""
        for line, reply in REPLIES:
            self.assertEqual(dispatcher.encode_reply(reply), line + b"\n")

    def test_read(self) -> None:
        """A reply is read with its payloads as the bytes that arrived."""
        for line, reply in REPLIES:
            self.assertEqual(dispatcher.decode_reply_line(line), reply, line)

    def test_cancelled_job(self) -> None:
        """The end of a cancelled job and the answer to a cancel are the same line."""
        self.assertEqual(
            dispatcher.encode_reply(CANCELLED), dispatcher.encode_reply(CancelOutcome(True))
        )

    def test_unknown_keys_are_ignored(self) -> None:
        """A reader ignores keys that it does not know."""
        for line, reply in REPLIES:
            found = dispatcher.decode_reply_line(line[:-1] + b',"later":{"a":[1]}}')
            self.assertEqual(found, reply)

    def test_more_or_less_than_one_meaning(self) -> None:
        """A reply that says two things, or nothing whole, is a protocol_error."""
        for line in [
            b"{}",
            b'{"harpcaller":1}',
            b'{"no_result":true,"result":1}',
            b'{"packet":1,"data":2,"result":3}',
            b'{"job_id":"x","error":%b}' % FAULT,
            b'{"packet":1}',
            b'{"data":1}',
            b'{"no_result":false}',
            b'{"continue":false}',
            b'{"call":{"host":"h","procedure":"p","arguments":[]}}',
            b'{"stream":1}',
        ]:
            with self.assertRaises(RemoteProtocolError, msg=line) as caught:
                dispatcher.decode_reply_line(line)
            self.assertEqual(caught.exception.type, errors.PROTOCOL_ERROR)

    def test_faults(self) -> None:
        """A reply that can't be understood is a protocol_error."""
        for line in [
            b"",
            b"SSH-2.0-OpenSSH_9.2",
            b'{"result":NaN}',
            b'{"result":"\xff"}',
            b'{"result":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
            b'{"packet":1,"data":"\xff"}',
            b'{"packet":1,"data":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
            b'{"job_id":7}',
            b'{"packet":-1,"data":1}',
            b'{"packet":"0","data":1}',
            b'{"cancelled":"yes"}',
            b'{"error":"text"}',
            b'{"call":{"host":"h"},"time":{"submit":0,"start":null,"end":null},"info":null}',
        ]:
            with self.assertRaises(RemoteProtocolError, msg=line[:40]) as caught:
                dispatcher.decode_reply_line(line)
            self.assertEqual(caught.exception.type, errors.PROTOCOL_ERROR)

    @settings(deadline=None)
    @given(JSON, st.integers(0, 2**63))
    def test_round_trip(self, value: object, number: int) -> None:
        """Whatever JSON can carry arrives as it was sent, in a packet and in a result."""
        payload = json.dumps(value).encode()
        replies: list[Reply] = [
            NumberedPacket(number, payload),
            EndResult(EndKind.RESULT, payload),
        ]
        for reply in replies:
            line = dispatcher.encode_reply(reply)
            self.assertEqual(dispatcher.decode_reply_line(line[:-1]), reply)
