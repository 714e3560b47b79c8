"""Tests of ``harpcaller.permissions`` through the API: every kind of request, as lines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, cast
from unittest.mock import patch

from twisted.internet.testing import MemoryReactorClock
from twisted.logger import ILogObserver, LogEvent, Logger, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from harp.wire import dispatcher as wire
from harp.wire.results import CANCELLED
from harpcaller import audit, logs
from harpcaller.api import ANSWERS, Api
from harpcaller.connection import Answer
from harpcaller.dispatcher import Dispatcher
from harpcaller.identities import Identity
from harpcaller.jobs import JobState
from harpcaller.permissions import REQUESTS
from harpcaller.rules import Calls, Rule, Who, Whose
from harpcaller.store import Cancellation, StoreError, Submission
from tests.harpcaller.clients import Client, parts
from tests.harpcaller.memory import HOST, PatientStore, ended_job, hosts, running_job

ANNA = Identity("anna", frozenset({"operators"}), on_behalf_of="carl", peer="10.9.8.7")
NOBODY = Identity(None, peer="10.9.8.7")
EVERYBODY = Who(everybody=True)
AUDIT_LOG = audit._log

PERMISSIONS: Mapping[str, Any] = {
    "calls": Calls(("*",)),
    "sees": Whose(all=True),
    "cancels": Whose(all=True),
    "queues": True,
    "administers": True,
}

CALL = b'"host":"web01","procedure":"df","arguments":["s3cret"]'
WALK: Mapping[type[wire.Request], tuple[bytes, set[str]]] = {
    wire.Call: (CALL, {"calls"}),
    wire.Cancel: (b'"cancel":"the-job"', {"cancels"}),
    wire.GetStatus: (b'"get_status":"the-job"', {"sees"}),
    wire.GetResult: (b'"get_result":"the-job"', {"sees"}),
    wire.FollowStream: (b'"follow_stream":"the-job"', {"sees"}),
    wire.ReadStream: (b'"read_stream":"the-job"', {"sees"}),
    wire.ServerInfo: (b'"server_info":true', set(PERMISSIONS)),
    wire.ListJobs: (b'"list_jobs":{}', {"sees"}),
    wire.ListQueues: (b'"list_queues":{}', {"queues"}),
    wire.ListQueue: (b'"list_queue":{"name":{"disk":"sda"}}', {"queues"}),
    wire.CancelQueue: (b'"cancel_queue":{"name":{"disk":"sda"}}', {"administers"}),
    wire.ListHosts: (b'"list_hosts":{}', {"calls", "administers"}),
    wire.RefreshHosts: (b'"refresh_hosts":true', {"administers"}),
    wire.ListProcedures: (b'"list_procedures":"web01"', {"calls", "administers"}),
    wire.PruneJobs: (b'"prune_jobs":{"older_than":60}', {"administers"}),
    wire.Reload: (b'"reload":true', {"administers"}),
    wire.Stop: (b'"stop":true', {"administers"}),
}
"""Every kind of request: the keys of one, and the permissions each of which is enough for it."""


def kinds(base: type[wire.Request] = wire.Request) -> Iterator[type[wire.Request]]:
    """Return every kind of request that there is in the protocol."""
    for kind in base.__subclasses__():
        if kind.__module__.startswith("harp.wire."):
            if kind.__subclasses__():
                yield from kinds(kind)
            else:
                yield kind


class PermissionsTestCase(SynchronousTestCase):
    """A test with a dispatcher that has rules."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.store = PatientStore()
        self.lines: list[LogEvent] = []
        self.patch(audit, "_log", Logger("audit", observer=cast(ILogObserver, self.lines.append)))

    def ask(self, keys: bytes, *rules: Rule, identity: Identity = ANNA) -> Client:
        """Return a client that has sent a request to a dispatcher with these rules."""

        def respond(answer: Answer) -> None:
            answer.identity = identity
            Api(self.parts).respond(answer)

        self.parts = parts(self.reactor, self.store.real, hosts(HOST), rules=rules)
        client = Client(self.reactor, respond)
        client.say(b'{"harpcaller":1,%b}\n' % keys)
        return client

    def job_runs(self, submitter: str | None, on_behalf_of: str | None = None) -> None:
        """Have every dispatcher know that the job runs, and whose it is."""
        owners = (submitter, on_behalf_of)
        self.patch(Dispatcher, "owners_of", lambda *_: owners)
        self.patch(Dispatcher, "is_running", lambda *_: True)

    def audited(self) -> list[dict[str, Any]]:
        """Return what was audited since this was asked last."""
        lines, self.lines[:] = [line["audit"] for line in self.lines], []
        return lines

    def assert_refused(self, client: Client, type: str = "not_allowed") -> None:
        """Check that a request was refused by one line, and nothing was asked of the store."""
        reply = json.loads(client.got)
        self.assertEqual(list(reply), ["error"])
        self.assertEqual(reply["error"]["type"], type)
        self.assertTrue(client.is_closed)
        self.assertEqual(self.store.questions, [])


class WalkTests(PermissionsTestCase):
    """Every kind of request that there is."""

    def test_tables(self) -> None:
        """For each kind it is known what answers it, what it needs, and how it is called."""
        every = set(kinds())
        self.assertEqual(set(ANSWERS), every)
        self.assertEqual(set(REQUESTS), every)
        self.assertEqual(set(WALK), every)
        for kind, (keys, _) in WALK.items():
            request = wire.decode_request_line(b'{"harpcaller":1,%b}' % keys)
            self.assertIs(type(request), kind)
            if kind is not wire.Call:
                self.assertEqual(list(json.loads(b"{%b}" % keys)), [REQUESTS[kind].action])

    def test_refused_without_permission(self) -> None:
        """Whoever no rule applies to is refused, whatever it is, and nothing is done."""
        others = Rule(Who(frozenset({"bert"})), **PERMISSIONS)
        for identity in (ANNA, NOBODY):
            for kind, (keys, _) in WALK.items():
                client = self.ask(keys, others, identity=identity)
                self.assert_refused(client)
                (line,) = self.audited()
                self.assertEqual(line["decision"], "refused", kind)
                self.assertEqual(line["action"], REQUESTS[kind].action)
                self.assertEqual(line.get("user"), identity.name)
                self.assertEqual(line["peer"], "10.9.8.7")

    def test_refused_with_all_other_permissions(self) -> None:
        """Nothing stands in for the permission that a request needs."""
        for kind, (keys, enough) in WALK.items():
            others = {name: PERMISSIONS[name] for name in PERMISSIONS.keys() - enough}
            client = self.ask(keys, Rule(EVERYBODY, **others))
            self.assert_refused(client)
            self.assertEqual(REQUESTS[kind].action, self.audited()[0]["action"])

    def test_allowed_with_permission(self) -> None:
        """The permission alone is enough: what answers the request comes to its turn."""
        answered: list[type[wire.Request]] = []
        for kind in ANSWERS:
            table: Any = ANSWERS
            self.addCleanup(table.__setitem__, kind, ANSWERS[kind])
            table[kind] = lambda parts, answer, request: answered.append(type(request))
        self.job_runs(None)
        for kind, (keys, enough) in WALK.items():
            for name in enough:
                answered.clear()
                self.ask(keys, Rule(EVERYBODY, **{name: PERMISSIONS[name]}))
                self.assertEqual(answered, [kind], (kind, name))

    def test_kind_without_a_decision(self) -> None:
        """A kind of request of which nothing was decided is refused, even without any rules."""

        class Strange(wire.Request, frozen=True, kw_only=True):
            pass

        table: Any = ANSWERS
        table[Strange] = lambda *_: self.fail("it was answered")
        self.addCleanup(table.__delitem__, Strange)
        for rules in (None, [Rule(EVERYBODY, **PERMISSIONS)]):
            made = parts(self.reactor, self.store.real, hosts(HOST), rules=rules)
            client = Client(self.reactor, lambda answer: None)
            Api(made).respond(Answer(client.protocol, Strange(harpcaller=1), ANNA))
            self.assertEqual(json.loads(client.got)["error"]["type"], "not_allowed")
            self.assertEqual(self.audited()[0]["action"], "Strange")


class JobTests(PermissionsTestCase):
    """Whose jobs one may see and cancel."""

    SEEING = ("get_status", "get_result", "follow_stream", "read_stream")

    def test_own_and_others(self) -> None:
        """A job is of who submitted it and of the person for whom that was done."""
        own = Rule(EVERYBODY, sees=Whose(own=True), cancels=Whose(own=True))
        of_bert = Rule(
            EVERYBODY, sees=Whose(frozenset({"bert"})), cancels=Whose(frozenset({"bert"}))
        )
        for rule, owners, is_allowed in (
            (own, ("anna", None), True),
            (own, ("panel", "anna"), True),
            (own, ("anna", "bert"), True),
            (own, ("panel", "bert"), False),
            (own, ("carl", None), False),  # for whom she asks, but that gives her nothing
            (own, (None, None), False),
            (of_bert, ("bert", None), True),
            (of_bert, ("panel", "bert"), True),
            (of_bert, ("anna", None), False),
        ):
            for key in (*self.SEEING, "cancel"):
                client = self.ask(b'"%b":"the-job"' % key.encode(), rule)
                self.store.answer("owners", owners)
                if is_allowed:
                    self.assertEqual(client.got, b"")
                    self.assertEqual(len(self.store.questions), 1, key)
                    self.store.questions.clear()
                else:
                    self.assert_refused(client)

    def test_nobody_has_own_jobs(self) -> None:
        """Jobs of nobody in particular are not those of everybody who says nothing."""
        own = Rule(EVERYBODY, sees=Whose(own=True), cancels=Whose(own=True))
        for key in (*self.SEEING, "cancel"):
            self.assert_refused(self.ask(b'"%b":"the-job"' % key.encode(), own, identity=NOBODY))

    def test_all(self) -> None:
        """Who sees all sees also the jobs of nobody in particular."""
        client = self.ask(b'"get_status":"the-job"', Rule(EVERYBODY, sees=Whose(all=True)))
        self.store.answer("owners", (None, None))
        self.store.answer("job", running_job())
        self.assertIn(b'"call"', client.got)

    def test_unknown_job(self) -> None:
        """Who may see some jobs is told that there is none of that id."""
        rule = Rule(EVERYBODY, sees=Whose(own=True), cancels=Whose(own=True))
        for key in (*self.SEEING, "cancel"):
            client = self.ask(b'"%b":"the-job"' % key.encode(), rule)
            self.store.answer("owners", None)
            self.assert_refused(client, "invalid_jobid")
        (line,) = self.audited()  # that of the cancel
        self.assertEqual((line["action"], line["decision"]), ("cancel", "refused"))
        self.assertEqual((line["job_id"], line["reason"]), ("the-job", "there is no job the-job"))

    def test_running_job(self) -> None:
        """Whose job one is that runs is known without the store."""
        rule = Rule(EVERYBODY, sees=Whose(own=True))
        self.job_runs("anna")
        client = self.ask(b'"get_result":"the-job","wait":false', rule)
        self.assertEqual(client.got, b'{"no_result":true}\n')
        self.job_runs("bert")
        self.assert_refused(self.ask(b'"get_result":"the-job","wait":false', rule))
        self.assert_refused(self.ask(b'"get_result":"the-job"', rule))

    def test_nothing_is_looked_up_without_rules(self) -> None:
        """Where all is allowed it does not matter whose a job is."""
        self.parts = parts(self.reactor, self.store.real, hosts(HOST))
        client = Client(self.reactor, Api(self.parts).respond)
        client.say(b'{"harpcaller":1,"get_status":"the-job"}\n')
        self.assertEqual([each.method for each in self.store.questions], ["job"])

    def test_store_fails(self) -> None:
        """Where it can't be found out whose a job is, nothing is told of it."""
        rule = Rule(EVERYBODY, sees=Whose(own=True), cancels=Whose(own=True))
        client = self.ask(b'"cancel":"the-job"', rule)
        self.store.answer("owners", StoreError("disk"))
        self.assert_refused(client, "os_error")
        (line,) = self.audited()
        self.assertEqual((line["action"], line["decision"]), ("cancel", "refused"))
        self.assertEqual(line["job_id"], "the-job")
        client = self.ask(b'"get_result":"the-job"', rule)
        self.store.answer("owners", StoreError("disk"))
        self.assertTrue(client.is_cut)
        self.assertEqual(self.audited(), [])
        self.assertEqual(len(self.flushLoggedErrors(StoreError)), 2)


class ListTests(PermissionsTestCase):
    """Lists have what one may see."""

    def test_jobs(self) -> None:
        """Only of those whose jobs one may see, whatever else is asked for."""
        for sees, owners in (
            (Whose(own=True), {"anna"}),
            (Whose(frozenset({"bert"}), own=True), {"anna", "bert"}),
            (Whose(all=True), None),
        ):
            self.ask(b'"list_jobs":{"submitter":"carl"}', Rule(EVERYBODY, sees=sees))
            (asked,) = self.store.asked("jobs")
            self.assertEqual((asked["wanted"].owners, asked["wanted"].submitter), (owners, "carl"))
            self.store.questions.clear()

    def test_jobs_of_a_queue(self) -> None:
        """Who sees queues sees in them the jobs that there are to be seen otherwise."""
        for sees, owners in (
            (Whose(), set()),
            (Whose(own=True), {"anna"}),
            (Whose(all=True), None),
        ):
            self.ask(b'"list_queue":{"name":{}}', Rule(EVERYBODY, sees=sees, queues=True))
            self.store.answer("queue", None)
            (asked,) = self.store.asked("queue_jobs")
            self.assertEqual(asked["owners"], owners)
            self.store.questions.clear()


class AuditTests(PermissionsTestCase):
    """Who did what is in the log, and nothing that is secret."""

    def setUp(self) -> None:
        super().setUp()
        self.rule = Rule(EVERYBODY, **PERMISSIONS)

    def test_call(self) -> None:
        """A call is told of when it has its id, in one line."""
        self.ask(CALL, self.rule)
        self.assertEqual(self.audited(), [])
        self.store.answer("submit", Submission("the-job", running_job(state=JobState.WAITING)))
        expected = {
            "action": "call",
            "decision": "allowed",
            "user": "anna",
            "on_behalf_of": "carl",
            "peer": "10.9.8.7",
            "host": "web01",
            "procedure": "df",
            "job_id": "the-job",
        }
        self.assertEqual(self.audited(), [expected])

    def test_refused_call(self) -> None:
        """A call that no rule allows, and one that can't be recorded: no secret, no id."""
        self.ask(CALL, replace(self.rule, calls=Calls(("du",))))
        (line,) = self.audited()
        self.assertEqual(line["reason"], "no rule allows this to anna: call")
        self.ask(CALL, self.rule)
        self.store.answer("submit", StoreError("disk full"))
        (line,) = self.audited()
        self.assertEqual(
            (line["decision"], line["reason"]), ("refused", "it could not be recorded")
        )
        self.assertEqual((line["host"], line["procedure"]), ("web01", "df"))
        self.assertNotIn("job_id", line)
        self.ask(CALL + b',"queue":{"name":{"n":1e400}}', self.rule)
        (line,) = self.audited()
        self.assertIn("$.queue.name", line["reason"])
        with patch.object(Dispatcher, "submit", side_effect=RuntimeError("a mistake of ours")):
            self.ask(CALL, self.rule)
        (line,) = self.audited()
        self.assertEqual(
            (line["decision"], line["reason"]), ("refused", "it could not be recorded")
        )
        self.flushLoggedErrors(RuntimeError)
        self.flushLoggedErrors(StoreError)

    def test_arguments_stay_out(self) -> None:
        """Whatever comes of a call, its arguments are not in the log, nor its info."""
        for calls in (Calls(("*",)), Calls(("du",))):
            self.ask(CALL + b',"info":"s3cret"', replace(self.rule, calls=calls))
        self.store.answer("submit", Submission("the-job", running_job(state=JobState.WAITING)))
        self.assertEqual(len(self.lines), 2)
        self.assertNotIn("s3cret", repr(self.lines))

    def test_what_changes_something(self) -> None:
        """Cancelling and what only administrators do is told of, also where it is allowed."""
        self.job_runs("bert")
        for kind, told in (
            (wire.Cancel, {"job_id": "the-job"}),
            (wire.CancelQueue, {"queue": '{"disk":"sda"}'}),
            (wire.PruneJobs, {"older_than": "60"}),
            (wire.Reload, {}),
            (wire.Stop, {}),
            (wire.RefreshHosts, {}),
        ):
            self.ask(WALK[kind][0], self.rule)
            who = {"user": "anna", "on_behalf_of": "carl", "peer": "10.9.8.7"}
            what = {"action": REQUESTS[kind].action, "decision": "allowed"}
            self.assertEqual(self.audited(), [what | who | told])
        # Nobody asked these parts to answer: the registry and the reload are not there.
        self.flushLoggedErrors(AssertionError, AttributeError)

    def test_without_rules(self) -> None:
        """Where everything is allowed it is told all the same, and once."""
        self.parts = parts(self.reactor, self.store.real, hosts(HOST))
        client = Client(self.reactor, Api(self.parts).respond)
        client.say(b'{"harpcaller":1,"cancel":"the-job"}\n')
        cancelled = ended_job(running_job(), CANCELLED)
        self.store.answer("cancel", Cancellation(JobState.RUNNING, cancelled, []))
        (line,) = self.audited()
        self.assertEqual((line["decision"], line["job_id"]), ("allowed", "the-job"))

    def test_what_only_asks(self) -> None:
        """Of requests that change nothing only the refused ones are told."""
        self.job_runs("bert")
        for kind, (keys, _) in WALK.items():
            if not REQUESTS[kind].is_audited:
                self.ask(keys, self.rule)
        self.assertEqual(self.lines, [])
        self.flushLoggedErrors(AttributeError)

    def test_every_level(self) -> None:
        """No level of the log silences it."""
        seen: list[LogEvent] = []
        observer = cast(ILogObserver, seen.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.addCleanup(logs.set_level, "info")
        logs.set_level("critical")
        self.patch(audit, "_log", AUDIT_LOG)
        self.ask(WALK[wire.Reload][0], replace(self.rule, administers=False))
        self.assertEqual([line["audit"]["action"] for line in seen], ["reload"])
