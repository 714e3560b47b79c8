"""Tests of ``harp.wire.dispatcher``: the extensions, as the protocol's page has them."""

from __future__ import annotations

import json

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from harp import errors
from harp.errors import RemoteProtocolError
from harp.wire import dispatcher
from harp.wire.dispatcher import operation
from harp.wire.dispatcher.base import Request
from harp.wire.results import CANCELLED, EndDetail, EndKind, EndResult
from tests.harp.test_dispatcher_wire import CALL, ID, STATUS
from tests.harp.test_harpd_wire import FAULT

Raw = msgspec.Raw
NAME = Raw(b'{"disk":"web01"}')

# The request of every kind, as our client writes it, without the version.
OPERATION: dict[bytes, Request] = {
    b'"server_info":true': dispatcher.ServerInfo(1, server_info=True),
    b'"list_jobs":{"limit":5,"cursor":"c","state":["waiting","running"],"queue":{"disk":"web01"},'
    b'"end":"error","submitted_since":1.5}': dispatcher.ListJobs(
        1,
        list_jobs=operation.JobFilter(
            limit=5,
            cursor="c",
            state=["waiting", "running"],
            queue=NAME,
            end="error",
            submitted_since=1.5,
        ),
    ),
    b'"list_jobs":{}': dispatcher.ListJobs(1, list_jobs=operation.JobFilter()),
    b'"list_queues":{}': dispatcher.ListQueues(1, list_queues=dispatcher.Page()),
    b'"list_queue":{"name":{"disk":"web01"}}': dispatcher.ListQueue(
        1, list_queue=operation.QueuePage(name=NAME)
    ),
    b'"cancel_queue":{"name":{"disk":"web01"}}': dispatcher.CancelQueue(
        1, cancel_queue=operation.QueueName(name=NAME)
    ),
    b'"list_hosts":{"limit":1000}': dispatcher.ListHosts(1, list_hosts=dispatcher.Page(limit=1000)),
    b'"refresh_hosts":true': dispatcher.RefreshHosts(1, refresh_hosts=True),
    b'"list_procedures":"web01"': dispatcher.ListProcedures(1, list_procedures="web01"),
    b'"prune_jobs":{"older_than":3600}': dispatcher.PruneJobs(
        1, prune_jobs=operation.OlderThan(older_than=3600)
    ),
    b'"reload":true': dispatcher.Reload(1, reload=True),
    b'"stop":true': dispatcher.Stop(1, stop=True),
}

_JOB = dispatcher.JobSummary(
    ID, "h", "p", "waiting", NAME, "queue", operation.JobTimes(1.5, None, None), None, "::1"
)
_QUEUE = dispatcher.QueueSummary(NAME, 3, 2, 1)

# What answers which request.
SUMMARIES: list[tuple[bytes, dispatcher.Summary]] = [
    (b'"server_info":true', dispatcher.ServerVersion("0.1", ["keepalive"], 1000.25)),
    (b'"list_jobs":{}', dispatcher.Jobs([_JOB], "next")),
    (b'"list_queues":{}', dispatcher.Queues([_QUEUE])),
    (b'"list_queue":{"name":{"disk":"web01"}}', dispatcher.QueueJobs(_QUEUE, [_JOB])),
    (b'"cancel_queue":{"name":{"disk":"web01"}}', dispatcher.CancelledJobs(3)),
    (b'"list_hosts":{"limit":1000}', dispatcher.Hosts([dispatcher.Host("h", "::1", 1, ["a"])])),
    (b'"refresh_hosts":true', dispatcher.HostsRefreshed(2, "none was printed")),
    (b'"list_procedures":"web01"', dispatcher.Procedures(Raw(b'[{"name":"du"}]'), -0.5)),
    (b'"prune_jobs":{"older_than":3600}', dispatcher.Pruned(7)),
    (b'"reload":true', dispatcher.Reloaded(False, ["a mistake"])),
    (b'"stop":true', dispatcher.Stopping(True, 2, 30.0)),
]


class RequestTests(SynchronousTestCase):
    """The requests and the options that version 1 has not."""

    def test_written_and_read(self) -> None:
        """Each is a line with its key, and comes back from it."""
        for fields, request in OPERATION.items():
            line = b'{"harpcaller":1,%b}' % fields
            self.assertEqual(dispatcher.encode_request(request), line + b"\n")
            self.assertEqual(dispatcher.decode_request_line(line), request)

    def test_all_are_named(self) -> None:
        """What the dispatcher says that it has is what can be asked of it."""
        kinds = {type(request) for request in OPERATION.values()}
        self.assertEqual(kinds, set(operation.REQUESTS.values()))
        self.assertEqual(set(operation.REQUESTS.values()), set(operation.REPLIES))
        self.assertLess(set(operation.REQUESTS), set(dispatcher.EXTENSIONS))

    def test_options(self) -> None:
        """An option of an extension goes with the requests that have it."""
        for line, request in [
            (
                b'{"harpcaller":1,"keepalive":true,"get_status":"i","detail":true}',
                dispatcher.GetStatus(1, keepalive=True, detail=True, get_status="i"),
            ),
            (
                b'{"harpcaller":1,"follow_stream":"i","detail":true,"since":3}',
                dispatcher.FollowStream(1, detail=True, since=3, follow_stream="i"),
            ),
            (
                json.dumps(
                    CALL | {"idempotency_key": "k", "dedup": {"key": {"a": 1}, "within": 0.5}}
                ).encode(),
                dispatcher.Call(
                    1,
                    host="web01",
                    procedure="du",
                    arguments=Raw(b"[]"),
                    idempotency_key="k",
                    dedup=dispatcher.Dedup(Raw(b'{"a": 1}'), 0.5),
                ),
            ),
            (
                b'{"harpcaller":1,"auth":{"token":"t","on_behalf_of":"alice"},"host":"h",'
                b'"procedure":"p","arguments":["x"],"shown_arguments":["(secret)"]}',
                dispatcher.Call(
                    1,
                    auth=dispatcher.Auth("t", "alice"),
                    host="h",
                    procedure="p",
                    arguments=Raw(b'["x"]'),
                    shown_arguments=Raw(b'["(secret)"]'),
                ),
            ),
        ]:
            self.assertEqual(dispatcher.decode_request_line(line), request)
            written = dispatcher.encode_request(request)[:-1]
            self.assertEqual(dispatcher.decode_request_line(written), request)

    def test_faults(self) -> None:
        """What is wrong with one is told by its name and place."""
        for fields, told in [
            ('"list_jobs": {"limit": 0}', "$.list_jobs.limit"),
            ('"list_jobs": {"limit": 1001}', "$.list_jobs.limit"),
            ('"list_jobs": {"state": "asleep"}', "$.list_jobs.state"),
            ('"list_jobs": {"queue": "x"}', "$.list_jobs.queue"),
            ('"list_jobs": {"hots": "x"}', "hots"),
            ('"list_jobs": true', "$.list_jobs"),
            ('"list_queue": {}', "name"),
            ('"list_queue": {"name": []}', "$.list_queue.name"),
            ('"cancel_queue": {"name": null}', "$.cancel_queue.name"),
            ('"server_info": false', "true"),
            ('"reload": false', "true"),
            ('"stop": false', "true"),
            ('"refresh_hosts": false', "true"),
            ('"prune_jobs": {"older_than": 0}', "$.prune_jobs.older_than"),
            ('"reload": true, "server_info": true', "several things"),
            ('"cancel": "i", "detail": true', "detail"),
            ('"cancel": "i", "keepalive": 1', "$.keepalive"),
            (json.dumps(CALL | {"idempotency_key": ""})[1:-1], "$.idempotency_key"),
            (json.dumps(CALL | {"idempotency_key": "k" * 201})[1:-1], "$.idempotency_key"),
            (json.dumps(CALL | {"shown_arguments": 1})[1:-1], "$.shown_arguments"),
            (json.dumps(CALL | {"auth": {"password": ""}})[1:-1], "$.auth"),
            (json.dumps(CALL | {"auth": {"on_behalf_of": ""}})[1:-1], "$.auth.on_behalf_of"),
            (json.dumps(CALL | {"dedup": {"key": [], "within": 1}})[1:-1], "$.dedup.key"),
            (json.dumps(CALL | {"dedup": {"key": {}, "within": 0}})[1:-1], "$.dedup.within"),
        ]:
            version = "" if "harpcaller" in fields else '"harpcaller": 1, '
            line = ("{" + version + fields + "}").encode()
            with self.assertRaises(RemoteProtocolError, msg=line) as caught:
                dispatcher.decode_request_line(line)
            self.assertEqual(caught.exception.type, errors.INVALID_REQUEST, line)
            self.assertIn(told, caught.exception.message)


class ReplyTests(SynchronousTestCase):
    """What answers them."""

    def test_written_and_read(self) -> None:
        """Each comes back as what it was."""
        for _, reply in SUMMARIES:
            line = dispatcher.encode_reply(reply)
            self.assertEqual(dispatcher.decode_reply_line(line[:-1]), reply)
            later = line[:-2] + b',"later":1}'
            self.assertEqual(dispatcher.decode_reply_line(later), reply)

    def test_nothing_is_left_out(self) -> None:
        """What is unknown is null, so that a reader finds every key."""
        _, jobs = SUMMARIES[1]
        self.assertEqual(
            json.loads(dispatcher.encode_reply(jobs))["jobs"][0],
            {
                "job_id": ID,
                "host": "h",
                "procedure": "p",
                "state": "waiting",
                "queue": {"disk": "web01"},
                "waits_for": "queue",
                "time": {"submit": 1.5, "start": None, "end": None},
                "end": None,
                "caller": "::1",
                "submitter": None,
                "on_behalf_of": None,
            },
        )

    def test_details(self) -> None:
        """What was asked for beside version 1 stands beside it."""
        detail = EndDetail("network", False, 1.5)
        status = dispatcher.StatusDetail(
            "waiting",
            "host",
            None,
            operation.JobTimes(1.25, None, None),
            60,
            600,
            "127.0.0.1",
            0,
            dispatcher.QueuePlace(NAME, 1, 4),
        )
        cases: list[tuple[dispatcher.Reply, set[str]]] = [
            (dispatcher.NumberedPacket(3, b"[]", 1.25), {"packet", "data", "time"}),
            (EndResult(EndKind.RESULT, b"1", detail), {"result", "detail"}),
            (EndResult(EndKind.ERROR, FAULT, detail), {"error", "detail"}),
            (EndResult(EndKind.CANCELLED, CANCELLED.value, detail), {"cancelled", "detail"}),
            (dispatcher.JobId(ID, True), {"harpcaller", "job_id", "duplicate"}),
            (msgspec.structs.replace(STATUS, detail=status), {"call", "time", "info", "detail"}),
        ]
        for reply, keys in cases:
            line = dispatcher.encode_reply(reply)
            self.assertEqual(set(json.loads(line)), keys)
            self.assertEqual(dispatcher.decode_reply_line(line[:-1]), reply)

    def test_faults(self) -> None:
        """A reply that can't be understood is a protocol_error."""
        for line in [
            b'{"jobs":1}',
            b'{"jobs":[{"job_id":"x"}]}',
            b'{"queues":[],"cursor":3}',
            b'{"reloaded":"yes"}',
            b'{"result":1,"detail":{"origin":3}}',
            b'{"packet":1,"data":1,"time":"now"}',
            b'["jobs"]',
        ]:
            with self.assertRaises(RemoteProtocolError, msg=line) as caught:
                dispatcher.decode_reply_line(line)
            self.assertEqual(caught.exception.type, errors.PROTOCOL_ERROR)
