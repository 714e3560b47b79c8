"""Two users, a trusted application and rules, with the real daemons: lines in, lines out."""

from __future__ import annotations

import hashlib
import json
import signal
from collections.abc import Mapping
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.acceptance.daemons import HOST, USER, ask_dispatcher, deploy, eventually

TOKENS = {name: f"the token of {name}" for name in ("anna", "bert", "panel")}
USERS = {
    name: {"tokens": [f"sha256:{hashlib.sha256(token.encode()).hexdigest()}"]}
    for name, token in TOKENS.items()
}
RULES: list[dict[str, Any]] = [
    {"who": ["anna", "panel"], "call": ["add", "ec*"], "see": "own", "cancel": "own"},
    {"who": "bert", "call": "add", "arguments": {"a": [1, 2], "b": 10}},
    {"who": "bert", "see": "all", "cancel": "own", "administer": True},
]


class PermissionTests(SynchronousTestCase):
    """What rules refuse is refused over the wire, and the log says who asked for it."""

    def setUp(self) -> None:
        """Start the daemons."""
        users: dict[str, Any] = {**USERS, "panel": USERS["panel"] | {"trusted": True}}
        self.deployment = deploy(users=users, rules=RULES)
        self.addCleanup(self.deployment.stop)
        self.deployment.__enter__()

    def ask(self, who: str | None, on_behalf_of: str | None = None, **keys: Any) -> dict[str, Any]:
        """Return the last line that somebody's request is answered with."""
        auth = {"token": TOKENS[who]} if who is not None else {}
        auth |= {} if on_behalf_of is None else {"on_behalf_of": on_behalf_of}
        line = json.dumps({"harpcaller": 1, "auth": auth} | keys).encode() + b"\n"
        answer: dict[str, Any] = json.loads(ask_dispatcher(self.deployment, line).splitlines()[-1])
        return answer

    def call(self, who: str | None, procedure: str, arguments: Any, **more: Any) -> dict[str, Any]:
        """Return what a call is answered with."""
        return self.ask(who, host=HOST, procedure=procedure, arguments=arguments, **more)

    def assert_refused(self, answer: Mapping[str, Any], type: str = "not_allowed") -> None:
        """Check that this is an error and nothing else."""
        self.assertEqual(list(answer), ["error"])
        self.assertEqual(answer["error"]["type"], type)

    def test_rules(self) -> None:
        """Calls by procedure and arguments, jobs by whose they are, and what is administered."""
        of_anna = self.call("anna", "echo", ["s3cret"])["job_id"]
        of_bert = self.call("bert", "add", {"a": 1, "b": 10})["job_id"]
        for_anna = self.call("panel", "add", [1, 2], on_behalf_of="anna")["job_id"]
        for who, procedure, arguments in (
            ("anna", "fail", ["x"]),
            ("bert", "add", {"a": 3, "b": 10}),
            ("bert", "add", {"a": 1}),
            ("bert", "add", [1, 10]),
            ("bert", "echo", ["x"]),
            (None, "add", [1, 2]),
        ):
            self.assert_refused(self.call(who, procedure, arguments))
        self.assert_refused(self.call("anna", "add", [1, 2], on_behalf_of="bert"))

        self.assertEqual(self.ask("anna", get_result=of_anna), {"result": "s3cret"})
        self.assertEqual(self.ask("anna", get_result=for_anna), {"result": 3})
        self.assertEqual(self.ask("bert", get_result=of_anna), {"result": "s3cret"})
        keys = ("get_result", "get_status", "follow_stream", "read_stream", "cancel")
        for key in keys:
            self.assert_refused(self.ask("anna", **{key: of_bert}))
            self.assert_refused(self.ask("panel", **{key: of_anna}))
            self.assert_refused(self.ask(None, **{key: of_anna}))
            self.assert_refused(self.ask("anna", **{key: "no-job"}), "invalid_jobid")
        self.assert_refused(self.ask("bert", cancel=of_anna))
        self.assertEqual(self.ask("bert", cancel=of_bert), {"cancelled": False})

        self.assertEqual(self.listed("anna"), {of_anna, for_anna})
        self.assertEqual(self.listed("panel"), {for_anna})
        self.assertEqual(self.listed("bert"), {of_anna, of_bert, for_anna})
        self.assert_refused(self.ask(None, list_jobs={}))

        offered = self.ask("anna", list_procedures=HOST)["procedures"]
        self.assertEqual({each["name"] for each in offered}, {"add", "echo"})
        self.assertGreater(len(self.ask("bert", list_procedures=HOST)["procedures"]), 2)
        requests: list[dict[str, Any]] = [
            {"prune_jobs": {"older_than": 1}},
            {"refresh_hosts": True},
            {"cancel_queue": {"name": {}}},
            {"list_queues": {}},
            {"list_queue": {"name": {}}},
            {"reload": True},
        ]
        for request in requests:
            self.assert_refused(self.ask("anna", **request))
            self.assert_refused(self.ask(None, **request))
        self.assertEqual(self.ask("bert", reload=True), {"reloaded": True})

        audit = self.audited()
        allowed = {"action": "call", "decision": "allowed", "peer": "127.0.0.1"}
        what = {"host": HOST, "procedure": "add", "job_id": for_anna}
        self.assertIn(allowed | what | {"user": "panel", "on_behalf_of": "anna"}, audit)
        refused = [each for each in audit if each["decision"] == "refused"]
        self.assertEqual(sum(each["action"] == "call" for each in refused), 7)
        self.assertIn(
            {"action": "reload", "decision": "allowed", "user": "bert"},
            [{key: value for key, value in each.items() if key != "peer"} for each in audit],
        )
        self.assertNotIn("s3cret", self.deployment.harpcaller.log.read_text())
        self.assertNotIn("the token", self.deployment.harpcaller.log.read_text())

    def test_reload(self) -> None:
        """SIGHUP brings other rules at once; where there is a mistake, what was there stays."""
        users: dict[str, Any] = USERS
        self.assert_refused(self.call("anna", "fail", ["x"]))
        self.deployment.configure_harpcaller({"users": users, "rules": [{"who": "*"}]})
        self.hang_up("the configuration stays as it was")
        self.assert_refused(self.call("anna", "fail", ["x"]))
        self.assertIn("job_id", self.call("anna", "add", [1]))
        rules = [{"who": "*", "call": "fail"}]
        self.deployment.configure_harpcaller({"users": users, "rules": rules})
        self.hang_up("is in force")
        for who in ("anna", None):
            self.assertIn("job_id", self.call(who, "fail", ["x"]))
            self.assert_refused(self.call(who, "add", [1]))

    def test_refused_by_harpd(self) -> None:
        """What harpd does not permit to the dispatcher is the job's end: nothing has run."""
        self.deployment.stop()
        self.deployment = deploy(harpd={"permissions": {USER: ["add"]}})
        self.addCleanup(self.deployment.stop)
        self.deployment.__enter__()
        job_id = self.call(None, "echo", ["s3cret"])["job_id"]
        end = self.ask(None, get_result=job_id, detail=True)
        self.assert_refused({"error": end["error"]}, "not_permitted")
        self.assertEqual((end["detail"]["origin"], end["detail"]["may_have_run"]), ("harpd", False))
        self.assertIn("job_id", self.call(None, "add", [1]))

    def hang_up(self, until: str) -> None:
        """Send SIGHUP and wait for a line of the log."""
        daemon = self.deployment.harpcaller
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGHUP)
        eventually(lambda: until in daemon.log.read_text(), f"the log says {until}")

    def listed(self, who: str) -> set[str]:
        """Return the ids of the jobs that somebody is shown."""
        return {each["job_id"] for each in self.ask(who, list_jobs={})["jobs"]}

    def audited(self) -> list[dict[str, Any]]:
        """Return what stands in the log of who did what."""
        log = self.deployment.harpcaller.log
        eventually(lambda: '"reload"' in log.read_text(), "the last request is in the log")
        lines = [json.loads(line) for line in log.read_text().splitlines() if line[:1] == "{"]
        return [line["audit"] for line in lines if "audit" in line]
