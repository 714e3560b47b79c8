"""Tests of ``harpcaller.operation``: what operators ask, of a real store and hosts registry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from harp import errors
from harp.wire import harpd, results
from harp.wire.results import CANCELLED, EndKind, EndResult
from harpcaller import operation
from harpcaller.api import Api, Parts
from harpcaller.connections import Connections
from harpcaller.hosts import Host, HostsFile, HostsRegistry
from harpcaller.jobs import QueueSpec
from harpcaller.rules import Calls, Rule, Who, Whose
from harpcaller.store import StoreError
from tests.harpcaller.clients import Client, parts
from tests.harpcaller.memory import PatientStore
from tests.harpcaller.stores import RESULT, StoreTestCase, new_job, real_reactor

HOSTS = {
    name: Host(name, f"10.0.0.{number}", 4306, "dispatcher", "s3cret", ("db",), None)
    for number, name in enumerate(["web01", "web02", "web03"], 1)
}
EVERYBODY = Who(everybody=True)
SDA, SDB = QueueSpec(b'{"disk":"sda"}', 1), QueueSpec(b'{"disk":"sdb"}', 2)


class OperationTestCase(StoreTestCase):
    """A test with a store that has something in it."""

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        """Open the store, read the hosts, and put the parts together."""
        await super().setUp()
        self.reloads: list[list[str]] = []
        self.now = 5000.0
        source = HostsFile(Path(self.mktemp()), HOSTS)
        reactor: Any = real_reactor()
        self.registry = HostsRegistry(reactor, reactor, source)
        self.registry.startService()
        self.addCleanup(self.registry.stopService)
        self.parts = parts(
            reactor,
            self.store,
            self.registry,
            reload=lambda: succeed(self.reloads.pop()),
            now=lambda: self.now,
        )
        self.parts.retention.startService()
        self.addCleanup(self.parts.retention.stopService)

    async def ask(self, **request: Any) -> Any:
        """Return the answer to a request."""
        line = await raw_answer(self.parts, request)
        for secret in (b"s3cret", b"dispatcher@"):
            self.assertNotIn(secret, line)
        return json.loads(line)

    async def pages(self, key: str, found: str, **options: Any) -> list[list[Any]]:
        """Return all pages of a list."""
        pages: list[list[Any]] = []
        cursor: str | None = None
        while True:
            answer = await self.ask(**{key: options})
            pages.append(answer[found])
            cursor = answer["cursor"]
            if cursor is None:
                return pages
            options["cursor"] = cursor

    async def assert_invalid(self, part: str, **request: Any) -> None:
        """Check that a request is refused, and that the place of the mistake is named."""
        error = (await self.ask(**request))["error"]
        self.assertEqual(error["type"], "invalid_request")
        self.assertIn(part, error["message"])


async def raw_answer(made: Parts, request: dict[str, Any]) -> bytes:
    """Return the line that answers a request."""
    return await answer_to(made, json.dumps({"harpcaller": 1} | request).encode())


async def answer_to(made: Parts, line: bytes) -> bytes:
    """Return the line that answers a request line."""
    answered: Deferred[None] = Deferred()
    api = Api(made)
    client = Client(made.connections.reactor, api.respond)
    client.transport.loseConnection = lambda: answered.callback(None)  # type: ignore[method-assign]
    client.say(line + b"\n")
    await answered
    client.leave()
    return client.got


class ServerInfoTests(OperationTestCase):
    """What the dispatcher says of itself."""

    async def test_server_info(self) -> None:
        """The version, and the names of all extensions: each of them is answered."""
        answer = await self.ask(server_info=True)
        self.assertEqual(answer["harpcaller"], 1)
        self.assertEqual(answer["version"], "1.2.3")
        options = {"keepalive", "auth", "idempotency_key", "dedup", "detail", "shown_arguments"}
        asked = set(answer["extensions"]) - options
        self.assertEqual(
            asked,
            {
                "list_jobs",
                "list_queues",
                "list_queue",
                "cancel_queue",
                "list_hosts",
                "refresh_hosts",
                "list_procedures",
                "prune_jobs",
                "reload",
                "stop",
                "server_info",
            },
        )
        self.assertLessEqual(options, set(answer["extensions"]))
        self.now += 0.5
        self.assertEqual((await self.ask(server_info=True))["time"], 5000.5)


class StopTests(OperationTestCase):
    """``stop``."""

    async def test_stop(self) -> None:
        """It is begun once for each who asks, who learns what runs and for how long it may."""
        asked: list[str] = []

        def stop() -> float:
            asked.append("stop")
            return 12.5

        self.parts = parts(real_reactor(), self.store, self.registry, stop=stop)
        conversations = {"a": None, "b": None}
        self.patch(self.parts.dispatcher, "_running", conversations)
        answer = await self.ask(stop=True)
        self.assertEqual(answer, {"stopping": True, "running": 2, "grace": 12.5})
        self.assertEqual(asked, ["stop"])


class JobListTests(OperationTestCase):
    """``list_jobs``."""

    async def jobs(self) -> None:
        """Record one job of each kind, in this order."""
        whose = {"submitter": "panel", "on_behalf_of": "joe"}
        await self.submit(new_job(SDA, id="running", caller="10.9.8.7", **whose), 1000.25)
        await self.submit(new_job(SDA, id="waiting", host="web02"), 1001.0)
        for number, end in enumerate([RESULT, EndResult(EndKind.ERROR, b'{"type":"ssl"}')]):
            await self.submit(new_job(id=f"ended{number}", procedure="du"), 1002.0 + number)
            await self.store.end(f"ended{number}", end, None, 1010.5)
        await self.submit(new_job(id="cancelled"), 1004.0)
        await self.store.cancel("cancelled", 1011.0)

    async def ids(self, **wanted: Any) -> list[str]:
        """Return the ids of the jobs that a filter lets through."""
        (page,) = await self.pages("list_jobs", "jobs", **wanted)
        return [each["job_id"] for each in page]

    async def test_job(self) -> None:
        """A job is listed with what is known of it, but without arguments and info."""
        await self.jobs()
        listed = {each["job_id"]: each for each in (await self.ask(list_jobs={}))["jobs"]}
        self.assertEqual(
            listed["running"],
            {
                "job_id": "running",
                "host": "web01",
                "procedure": "df",
                "state": "running",
                "queue": {"disk": "sda"},
                "waits_for": None,
                "time": {"submit": 1000.25, "start": 1000.25, "end": None},
                "end": None,
                "caller": "10.9.8.7",
                "submitter": "panel",
                "on_behalf_of": "joe",
            },
        )
        self.assertEqual(listed["waiting"]["waits_for"], "queue")
        self.assertEqual(listed["waiting"]["time"]["start"], None)
        self.assertEqual(listed["ended0"]["queue"], None)
        self.assertEqual(listed["ended0"]["time"]["end"], 1010.5)
        ends = [listed[each]["end"] for each in ("ended0", "ended1", "cancelled")]
        self.assertEqual(ends, ["result", "error", "cancelled"])

    async def test_filters(self) -> None:
        """Each condition alone and several together; the newest job comes first."""
        await self.jobs()
        for wanted, expected in (
            ({}, "cancelled ended1 ended0 waiting running"),
            ({"submitter": "joe"}, "running"),
            ({"state": "waiting"}, "waiting"),
            ({"state": ["waiting", "running"]}, "waiting running"),
            ({"state": []}, "cancelled ended1 ended0 waiting running"),
            ({"host": "web02"}, "waiting"),
            ({"host": "web99"}, ""),
            ({"procedure": "du"}, "ended1 ended0"),
            ({"queue": {"disk": "sda"}}, "waiting running"),
            ({"end": "error"}, "ended1"),
            ({"end": ["result", "cancelled"]}, "cancelled ended0"),
            ({"submitted_since": 1002.0}, "cancelled ended1 ended0"),
            ({"submitted_before": 1002.0}, "waiting running"),
            ({"submitted_since": 1001, "submitted_before": 1003, "host": "web01"}, "ended0"),
        ):
            self.assertEqual(await self.ids(**wanted), expected.split(), wanted)

    async def test_queue_is_canonical(self) -> None:
        """Equal names are one queue, however they are written."""
        await self.submit(new_job(QueueSpec(b'{"a":1,"b":[2]}', 1), id="x"), 1.0)
        line = b'{"harpcaller":1,"list_jobs":{"queue":{"b" : [2.0], "a":1e0}}}'
        answer = json.loads(await answer_to(self.parts, line))
        self.assertEqual([each["job_id"] for each in answer["jobs"]], ["x"])

    async def test_pages(self) -> None:
        """Every job stands on one page, also if others are submitted meanwhile."""
        for number in range(5):
            await self.submit(new_job(id=f"job{number}"), float(number))
        answer = await self.ask(list_jobs={"limit": 2})
        self.assertEqual([each["job_id"] for each in answer["jobs"]], ["job4", "job3"])
        await self.submit(new_job(id="later"), 9.0)
        rest = await self.pages("list_jobs", "jobs", limit=2, cursor=answer["cursor"])
        self.assertEqual(
            [[each["job_id"] for each in page] for page in rest[:2]], [["job2", "job1"], ["job0"]]
        )

    async def test_unsound(self) -> None:
        """What is wrong with a request is told with its place."""
        await self.assert_invalid("$.list_jobs.cursor", list_jobs={"cursor": "nonsense"})
        await self.assert_invalid("$.list_jobs.limit", list_jobs={"limit": 0})
        await self.assert_invalid("$.list_jobs.limit", list_jobs={"limit": 1001})
        await self.assert_invalid("$.list_jobs.state", list_jobs={"state": "lost"})
        await self.assert_invalid("$.list_jobs.queue", list_jobs={"queue": "sda"})
        await self.assert_invalid("$.list_jobs.queue", list_jobs={"queue": {"x": 10**400}})


class QueueTests(OperationTestCase):
    """Queues: listed, looked into, cancelled."""

    async def queues(self) -> None:
        """Fill two queues."""
        for number in range(4):
            await self.submit(new_job(SDA, id=f"a{number}"), float(number))
        for number in range(3):
            await self.submit(new_job(SDB, id=f"b{number}"), float(number))

    async def test_list(self) -> None:
        """The oldest queue comes first, with how many of its jobs run and wait."""
        await self.queues()
        sda = {"name": {"disk": "sda"}, "concurrency": 1, "running": 1, "waiting": 3}
        sdb = {"name": {"disk": "sdb"}, "concurrency": 2, "running": 2, "waiting": 1}
        self.assertEqual(await self.ask(list_queues={}), {"queues": [sda, sdb], "cursor": None})
        pages = await self.pages("list_queues", "queues", limit=1)
        self.assertEqual([each for page in pages for each in page], [sda, sdb])
        await self.assert_invalid("$.list_queues.cursor", list_queues={"cursor": "x"})

    async def test_jobs(self) -> None:
        """The jobs of a queue stand in the order in which they run, whatever its spelling."""
        await self.queues()
        answer = await self.ask(list_queue={"name": {"disk": "sda"}, "limit": 3})
        self.assertEqual(answer["queue"]["waiting"], 3)
        self.assertEqual([each["job_id"] for each in answer["jobs"]], ["a0", "a1", "a2"])
        states = [each["state"] for each in answer["jobs"]]
        self.assertEqual(states, ["running", "waiting", "waiting"])
        rest = await self.ask(list_queue={"name": {"disk": "sda"}, "cursor": answer["cursor"]})
        self.assertEqual([each["job_id"] for each in rest["jobs"]], ["a3"])
        self.assertEqual(rest["cursor"], None)

    async def test_no_queue(self) -> None:
        """A queue that there is not has no jobs."""
        self.assertEqual(
            await self.ask(list_queue={"name": {"disk": "sdc"}}),
            {"queue": None, "jobs": [], "cursor": None},
        )

    async def test_unsound(self) -> None:
        """What is wrong with a request is told with its place."""
        name = {"disk": "sda"}
        await self.assert_invalid("$.list_queue.cursor", list_queue={"name": name, "cursor": "x"})
        await self.assert_invalid("$.list_queue.name", list_queue={"name": {"x": 10**400}})
        await self.assert_invalid("$.cancel_queue.name", cancel_queue={"name": {"x": 10**400}})

    async def test_cancel(self) -> None:
        """All jobs of the queue end, those of others stay, and it is told how many there were."""
        await self.queues()
        answer = await self.ask(cancel_queue={"name": {"disk": "sda"}})
        self.assertEqual(answer, {"cancelled_jobs": 4})
        for number in range(4):
            job = await self.store.job(f"a{number}")
            assert job is not None
            self.assertEqual(job.end, CANCELLED)
        (left,) = (await self.ask(list_queues={}))["queues"]
        self.assertEqual((left["running"], left["waiting"]), (2, 1))
        self.assertEqual(
            await self.ask(cancel_queue={"name": {"disk": "sda"}}), {"cancelled_jobs": 0}
        )


class HostTests(OperationTestCase):
    """The hosts registry."""

    async def test_list(self) -> None:
        """Hosts are listed by name, a page at a time, and never with their credentials."""
        first = await self.ask(list_hosts={"limit": 2})
        self.assertEqual(
            first["hosts"][0],
            {
                "name": "web01",
                "address": "10.0.0.1",
                "port": 4306,
                "tags": ["db"],
                "server_name": None,
            },
        )
        self.assertEqual([each["name"] for each in first["hosts"]], ["web01", "web02"])
        rest = await self.ask(list_hosts={"cursor": first["cursor"]})
        self.assertEqual([each["name"] for each in rest["hosts"]], ["web03"])
        self.assertEqual(rest["cursor"], None)

    async def test_only_those_that_may_be_called(self) -> None:
        """Who may call something on some hosts is shown those; who administers, all."""
        somewhere = Calls(("df",), ("web02", "web9*"))
        self.parts.permissions.use([Rule(EVERYBODY, somewhere)])
        pages = await self.pages("list_hosts", "hosts", limit=1)
        self.assertEqual([[each["name"] for each in page] for page in pages], [[], ["web02"], []])
        self.parts.permissions.use([Rule(EVERYBODY, Calls(("df",), (), ("d*",)))])
        self.assertEqual(len((await self.ask(list_hosts={}))["hosts"]), 3)
        self.parts.permissions.use([Rule(EVERYBODY, administers=True)])
        self.assertEqual(len((await self.ask(list_hosts={}))["hosts"]), 3)

    async def test_refresh(self) -> None:
        """It is told how many hosts there are now, or why the old list stays."""
        source = self.registry._source
        assert isinstance(source, HostsFile)
        answer = await self.ask(refresh_hosts=True)
        self.assertEqual(answer["hosts_known"], 3)
        self.assertIn("can't be read", answer["problem"])
        source.path.write_text(
            '{"hostname":"web07","address":"10.0.0.7","credentials":{"user":"u","password":"p"}}\n'
        )
        self.assertEqual(await self.ask(refresh_hosts=True), {"hosts_known": 1, "problem": None})

    async def test_accept_loss(self) -> None:
        """That a loss of hosts is to be accepted reaches the registry."""
        asked: list[bool] = []

        def refresh(accept_loss: bool = False) -> Deferred[str | None]:
            asked.append(accept_loss)
            return succeed(None)

        self.patch(self.registry, "refresh", refresh)
        for options in (True, {}, {"accept_loss": False}, {"accept_loss": True}):
            await self.ask(refresh_hosts=options)
        self.assertEqual(asked, [False, False, False, True])


class ProcedureTests(OperationTestCase):
    """``list_procedures``."""

    async def test_unknown_host(self) -> None:
        """A host that is not in the registry is named."""
        error = (await self.ask(list_procedures="web99"))["error"]
        self.assertEqual(error["type"], "unknown_host")
        self.assertIn("web99", error["message"])

    async def test_described(self) -> None:
        """What harpd says is passed on as it is; a failure is an error."""
        described: Any = harpd.Procedures(b'[{"name" : "df"}]')
        asked: list[str] = []

        def describe(connections: Connections, host: Host) -> Deferred[Any]:
            asked.append(host.name)
            return succeed(described)

        self.patch(operation, "describe", describe)
        answer = await raw_answer(self.parts, {"list_procedures": "web01"})
        self.assertEqual(answer, b'{"procedures":[{"name" : "df"}]}\n')
        described = results.error(errors.CLOSED, "harpd went away")
        error = (await self.ask(list_procedures="web02"))["error"]
        self.assertEqual(error, {"type": "closed", "message": "harpd went away"})
        self.assertEqual(asked, ["web01", "web02"])

    async def test_clock(self) -> None:
        """A host that says what time it is there is compared with the dispatcher's own."""
        told = harpd.Procedures(b"[]", 4999.25)
        self.patch(operation, "describe", lambda *_: succeed(told))
        answer = await self.ask(list_procedures="web01")
        self.assertEqual(answer, {"procedures": [], "clock": -0.75})

    async def test_only_those_that_may_be_called(self) -> None:
        """Who may call some procedures of a host is shown those; of other hosts, nothing."""
        told = b'[{"name" : "df", "doc":"x"},{"name":"rm"},{"name":7},{"doc":"df"},{"name":"du"}]'
        self.patch(operation, "describe", lambda *_: succeed(harpd.Procedures(told)))
        request = {"list_procedures": "web01"}
        self.parts.permissions.use([Rule(EVERYBODY, Calls(("d?",), ("web01",)))])
        shown = b'{"procedures":[{"name" : "df", "doc":"x"},{"name":"du"}]}\n'
        self.assertEqual(await raw_answer(self.parts, request), shown)
        for name in ("web02", "web99"):
            error = (await self.ask(list_procedures=name))["error"]
            self.assertEqual(error["type"], "not_allowed")
        self.parts.permissions.use([Rule(EVERYBODY, administers=True)])
        self.assertEqual(await raw_answer(self.parts, request), b'{"procedures":%b}\n' % told)


class MaintenanceTests(OperationTestCase):
    """Pruning and reloading."""

    async def test_prune(self) -> None:
        """What ended longer ago than that is forgotten, and nothing else."""
        for number, ended in enumerate([1000.0, 2000.0, 4999.0]):
            await self.submit(new_job(id=f"job{number}"), 1.0)
            await self.store.end(f"job{number}", RESULT, None, ended)
        await self.submit(new_job(id="running"), 1.0)
        self.assertEqual(await self.ask(prune_jobs={"older_than": 2999.5}), {"pruned": 2})
        self.assertEqual(await self.ask(prune_jobs={"older_than": 2999.5}), {"pruned": 0})
        left = {each["job_id"] for each in (await self.ask(list_jobs={}))["jobs"]}
        self.assertEqual(left, {"job2", "running"})

    async def test_reload(self) -> None:
        """It is told whether the configuration was taken, and if not, why not."""
        self.reloads = [["a, line 1: is missing", "b"], []]
        self.assertEqual(await self.ask(reload=True), {"reloaded": True})
        self.assertEqual(
            await self.ask(reload=True),
            {"reloaded": False, "mistakes": ["a, line 1: is missing", "b"]},
        )


class OwnerTests(OperationTestCase):
    """Jobs of those whom one may see, in the store as it is."""

    async def test_lists(self) -> None:
        """Lists have one's own jobs, those for oneself, and no others."""
        for number, (submitter, behalf) in enumerate(
            [("anna", None), ("panel", "anna"), ("bert", None), (None, None), ("anna", "bert")]
        ):
            new = new_job(SDA, id=f"job{number}", submitter=submitter, on_behalf_of=behalf)
            await self.submit(new, 1000.0 + number)
        for sees, expected in (
            (Whose(frozenset({"anna"})), [0, 1, 4]),
            (Whose(frozenset({"bert"})), [2, 4]),
            (Whose(frozenset({"anna", "panel"})), [0, 1, 4]),
            (Whose(frozenset({"carl"})), []),
            (Whose(all=True), [0, 1, 2, 3, 4]),
        ):
            self.parts.permissions.use([Rule(EVERYBODY, sees=sees, queues=True)])
            ids = [f"job{number}" for number in expected]
            answer = await self.ask(list_queue={"name": {"disk": "sda"}})
            self.assertEqual([each["job_id"] for each in answer["jobs"]], ids)
            answer = await self.ask(list_jobs={})
            self.assertEqual([each["job_id"] for each in answer["jobs"]], ids[::-1])

    async def test_job(self) -> None:
        """A job is told of to those who may see it; that there is none, to those who see some."""
        await self.submit(new_job(id="of-anna", submitter="anna"), 1000.0)
        await self.submit(new_job(id="for-anna", submitter="panel", on_behalf_of="anna"), 1000.0)
        await self.submit(new_job(id="of-bert", submitter="bert"), 1000.0)
        sees = Whose(frozenset({"anna"}))
        self.parts.permissions.use([Rule(EVERYBODY, sees=sees)])
        self.assertIn("call", await self.ask(get_status="of-anna"))
        self.assertIn("call", await self.ask(get_status="for-anna"))
        self.assertEqual((await self.ask(get_status="of-bert"))["error"]["type"], "not_allowed")
        self.assertEqual((await self.ask(get_status="nothing"))["error"]["type"], "invalid_jobid")


class RepetitionTests(OperationTestCase):
    """Calls that are sent again, over the wire."""

    async def test_idempotency_key(self) -> None:
        """A call that is sent again gets the first one's job, and is not told so."""
        call = {"host": "web99", "procedure": "df", "arguments": [], "idempotency_key": "k"}
        first, second = await self.ask(**call), await self.ask(**call)
        self.assertEqual(first, second)
        self.assertEqual(first.keys(), {"harpcaller", "job_id"})
        self.assertEqual(len((await self.ask(list_jobs={}))["jobs"]), 1)

    async def test_dedup(self) -> None:
        """A call like one of not long ago gets that one's job, and is told so."""
        call = {"host": "web99", "procedure": "df", "arguments": []}
        within = {"dedup": {"key": {"a": 1, "b": 2}, "within": 60}}
        first = await self.ask(**call, **within)
        self.assertEqual(first.keys(), {"harpcaller", "job_id"})
        self.now += 59
        spelled = {"dedup": {"key": {"b": 2.0, "a": 1}, "within": 60}}
        self.assertEqual(await self.ask(**call, **spelled), first | {"duplicate": True})
        self.now += 2
        self.assertNotEqual((await self.ask(**call, **within))["job_id"], first["job_id"])


class FailureTests(SynchronousTestCase):
    """When the store fails."""

    def test_error(self) -> None:
        """It is told in one line, without what is wrong inside."""
        store = PatientStore()
        clock: Any = real_reactor()
        made = parts(clock, store.real)
        for request, method in (
            ({"list_jobs": {}}, "jobs"),
            ({"list_queues": {}}, "queues"),
            ({"list_queue": {"name": {}}}, "queue"),
            ({"cancel_queue": {"name": {}}}, "queue"),
        ):
            client = Client(clock, Api(made).respond)
            client.say(json.dumps({"harpcaller": 1} | request).encode() + b"\n")
            store.answer(method, StoreError("/var/lib/secret.db: disk I/O error"))
            self.assertEqual(len(self.flushLoggedErrors(StoreError)), 1)
            self.assertEqual(json.loads(client.got)["error"]["type"], "os_error")
            self.assertNotIn(b"secret", client.got)
            client.leave()
