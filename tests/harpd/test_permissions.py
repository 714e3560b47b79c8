"""Tests of harpd.permissions, and that no request gets by them."""

from __future__ import annotations

import json
from typing import Any, get_args

from twisted.internet.defer import fail
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from harp.wire import harpd
from harpd.limits import Limits
from harpd.offers import Offer
from harpd.permissions import Permissions
from tests.harpd.connections import ACK, ConnectionTestCase, error, request

AUTH = {"user": "panel", "password": "secret"}

SAMPLES: dict[type, dict[str, Any]] = {
    harpd.CallRequest: {"harp": 1, "procedure": "plain", "arguments": [], "auth": AUTH},
    harpd.DescribeRequest: {"harp": 1, "describe": True, "auth": AUTH},
}


def audits(logs: Any) -> list[dict[str, Any]]:
    """Return what the audit lines of a log tell."""
    return [event["audit"] for event in logs if "audit" in event]


class PermissionsTests(SynchronousTestCase):
    """Patterns of procedures by user."""

    def test_no_rules(self) -> None:
        """Without any, everybody may call everything."""
        self.assertTrue(Permissions().of("anybody").allows("restart"))

    def test_default_deny(self) -> None:
        """With rules, what they do not name is refused; "*" stands for everybody."""
        permissions = Permissions(
            {"panel": ["restart", "status_*"], "ops": ["*"], "none": [], "*": ["pi[nm]g"]}
        )
        for user, procedure in [
            ("panel", "restart"),
            ("panel", "status_"),
            ("panel", "ping"),
            ("ops", "anything"),
            ("none", "ping"),
            ("other", "pimg"),
        ]:
            self.assertTrue(permissions.of(user).allows(procedure), (user, procedure))
        for user, procedure in [
            ("panel", "Restart"),
            ("panel", "restart2"),
            ("panel", "xrestart"),
            ("panel", "restart\n"),
            ("panel", "status"),
            ("Panel", "restart"),
            ("other", "restart"),
            ("none", "restart"),
            ("*", "restart"),
        ]:
            self.assertFalse(permissions.of(user).allows(procedure), (user, procedure))
        self.assertFalse(Permissions({}).of("panel").allows("ping"))

    def test_unknown_request(self) -> None:
        """A kind of request that is not known here is covered by no permission."""
        request: Any = harpd.Auth("panel", "secret")
        self.assertFalse(Permissions().of("panel").covers(request))


class RefusalTests(ConnectionTestCase):
    """Every request passes through the permissions."""

    def test_every_request(self) -> None:
        """Each kind there is gets not_permitted without a permission, and an audit line."""
        self.assertEqual(set(SAMPLES), set(get_args(harpd.Request)))
        self.policy.permissions = Permissions({"other": ["*"]})
        for sample in SAMPLES.values():
            with capturedLogs() as logs:
                connection = self.connect(
                    json.dumps({**sample, "keepalive": True}).encode() + b"\n"
                )
            (line,) = connection.received.splitlines()
            self.assertEqual(json.loads(line)["error"]["type"], "not_permitted")
            self.assertFalse(connection.wire.disconnecting)
            (told,) = audits(logs)
            self.assertEqual((told["decision"], told["reason"]), ("refused", "not_permitted"))
        self.assertEqual(self.spawner.planned, [])

    def test_some(self) -> None:
        """What is granted is done; whether there is a procedure that is not, nobody is told."""
        self.policy.permissions = Permissions({"panel": ["pl*", "missing"]})
        self.assertEqual(self.connect(request("plain")).received, ACK)
        for procedure in ("limited", "nothing"):
            self.assertIn(b'"not_permitted"', self.connect(request(procedure)).received)
        self.assertIn(b'"no_such_procedure"', self.connect(request("missing")).received)

    def test_describe(self) -> None:
        """A description shows what the user may call, and nothing else."""
        self.spawner.offers = {
            name: Offer(False, description=b'{"name":"%b"}' % name.encode()) for name in "abc"
        }
        self.policy.permissions = Permissions({"panel": ["[ac]"]})
        line = json.dumps(SAMPLES[harpd.DescribeRequest]).encode() + b"\n"
        expected = b'{"harp":1,"procedures":[{"name":"a"},{"name":"c"}],"time":1000.25}\n'
        self.assert_ended(self.connect(line), expected)

    def test_kept_connection(self) -> None:
        """What is taken away by a reload is away for connections that are open, too."""
        connection, call = self.call(keepalive=True)
        call.says(b'{"result":1}\n')
        self.policy.permissions = Permissions({})
        connection.sends(request())
        self.assertIn(b'"not_permitted"', connection.received)

    def test_max_calls(self) -> None:
        """Not more calls than allowed run at once: those count whose process is there."""
        self.policy.limits = Limits(max_calls=2)
        _, call = self.call()
        self.call("locked")
        self.assertIn(b'"system_error"', self.connect(request()).received)
        call.says(b'{"result":1}\n')
        self.assertIn(b"2 calls already", self.connect(request()).received)
        call.ends()
        self.call("locked")
        self.assertIn(b'"system_error"', self.connect(request()).received)
        self.assertEqual(len(self.spawner.planned), 3)
        self.assertEqual(len(self.parts.running), 2)


class AuditTests(ConnectionTestCase):
    """Who asked for what, and what was decided, is told by one line each."""

    def audit_of(self, line: bytes) -> dict[str, Any]:
        """Return what is told of a request; its credentials must not stand in the log."""
        with capturedLogs() as logs:
            self.connect(line)
        self.assertNotIn("hunter2", repr(list(logs)))
        (told,) = audits(logs)
        return told

    def test_call(self) -> None:
        """A call is told with its number and job."""
        told = self.audit_of(request(context={"job_id": "J", "user": "forged"}))
        expected = {"action": "call", "decision": "allowed", "peer": "192.0.2.1", "user": "panel"}
        self.assertEqual(told, {**expected, "procedure": "plain", "job_id": "J", "call": 1})
        self.assertNotIn("job_id", self.audit_of(request(context={"job_id": 5})))

    def test_describe(self) -> None:
        """So is a question."""
        told = self.audit_of(json.dumps(SAMPLES[harpd.DescribeRequest]).encode() + b"\n")
        self.assertEqual((told["action"], told["decision"]), ("describe", "allowed"))

    def test_refused_login(self) -> None:
        """A refused login is told without the password."""
        told = self.audit_of(request(password="hunter2"))
        self.assertEqual(
            (told["decision"], told["reason"], told["procedure"]),
            ("refused", "unknown user or wrong password", "plain"),
        )
        auth = b'"auth":{"user":"panel","password":"hunter2"}'
        long = b'{"harp":1,%b,"arguments":"%b' % (auth, b"x" * 70_000)
        self.assertEqual(self.audit_of(long)["decision"], "refused")

    def test_no_such_procedure(self) -> None:
        """A procedure that there is not is refused."""
        self.assertEqual(self.audit_of(request("x"))["reason"], "no_such_procedure")

    def test_repeated_keys(self) -> None:
        """So is a call that somebody known makes wrongly."""
        told = self.audit_of(request(arguments=[]).replace(b"[]", b'[{"a":1,"a":2}]'))
        self.assertEqual((told["user"], told["reason"]), ("panel", "invalid_request"))

    def test_cancel(self) -> None:
        """A client that leaves has cancelled its call, running or waiting; after its end not."""
        ended, call = self.call("plain")
        call.says(b'{"result":1}\n')
        running, _ = self.call("locked", context={"job_id": "J"})
        waiting = self.connect(request("locked"))
        unknown = self.connect(request(password="hunter2"))
        silent = self.connect()
        with capturedLogs() as logs:
            for connection in (ended, running, waiting, unknown, silent):
                connection.leaves()
        expected = {"action": "cancel", "decision": "allowed", "peer": "192.0.2.1", "user": "panel"}
        expected["procedure"] = "locked"
        self.assertEqual(
            audits(logs), [{**expected, "call": 2, "job_id": "J"}, {**expected, "call": 3}]
        )

    def test_login_fails(self) -> None:
        """A login that can't be checked is refused; why, only the operator learns."""
        for failure in (OSError(2, "none", "/etc/secret"), ValueError("/etc/secret")):
            self.login.held = fail(failure)
            with capturedLogs() as logs:
                connection = self.connect(request())
            self.assert_ended(connection, error("system_error", "harpd failed, see its log"))
            (told,) = audits(logs)
            self.assertEqual(
                (told["decision"], told["reason"]), ("refused", "the login can't be checked")
            )
            self.flushLoggedErrors(type(failure))

    def test_faulty_requests(self) -> None:
        """What a fault quotes of a request may be a secret: its sender is told, the log is not."""
        for line in (
            b'{"harp":1,"procedure":"plain","arguments":[],"auth":{"hunter2":1}}',
            b'{"harp":1,"hunter2":1,"procedure":"plain","arguments":[],"auth":{}}',
            b'{"harp":"hunter2"}',
            b'{"harp":1,"procedure":"plain","arguments":[],"auth":"hunter2"}',
            b'{"harp":1,"procedure":"plain","arguments":"hunter2","auth":{"user":"panel",'
            b'"password":"secret"}}',
            b'{"harp":1,"hunter2',
            b"hunter2",
            request(arguments=[]).strip().replace(b"[]", b'[{"hunter2":1,"hunter2":2}]'),
            b'{"harp":1,"describe":"hunter2","auth":{"user":"hunter2","password":"hunter2"}}',
        ):
            with capturedLogs() as logs:
                connection = self.connect(line + b"\n")
            self.assertIn(b'"error"', connection.received)
            self.assertNotIn("hunter2", repr(list(logs)))
