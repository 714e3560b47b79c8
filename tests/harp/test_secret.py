"""Tests of ``harp.secret``, and of secrets on the wire: they are sent, and shown nowhere."""

from __future__ import annotations

import copy
import json
import pickle
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

import harp
from harp import HarpServer, Secret, calls
from tests.harp.modes import ContractTestCase, both_modes, hear, identity
from tests.harp.peer import REFUSAL
from tests.harp.test_direct import ACK
from tests.harp.test_dispatchers import JOB, info

HIDDEN = "hunter2"


class SecretTests(SynchronousTestCase):
    """The value itself."""

    def test_shown_nowhere(self) -> None:
        """Whatever makes a text of it gets none of the value."""
        secret = Secret(HIDDEN)
        for text in (repr(secret), str(secret), f"{secret}", f"{secret:>40}", f"{[secret]}"):
            self.assertNotIn(HIDDEN, text)
            self.assertIn("(secret)", text)

    def test_equality_and_copies(self) -> None:
        """It is equal and hashed as its value is, and stays what it is in copies and pickles."""
        secret = Secret(HIDDEN)
        self.assertEqual(len({secret, Secret(HIDDEN), Secret("x")}), 2)
        self.assertNotEqual(secret, HIDDEN)
        with self.assertRaises(TypeError):
            hash(Secret([]))
        for same in (copy.copy, copy.deepcopy, _pickled):
            self.assertEqual(same(secret), secret)
            self.assertEqual(same(secret).value, HIDDEN)

    def test_frozen(self) -> None:
        """It can't be changed."""
        with self.assertRaises(AttributeError):
            Secret(1).value = 2  # type: ignore[misc]


class ArgumentsTests(SynchronousTestCase):
    """What secrets become on the wire."""

    def test_at_any_depth(self) -> None:
        """A secret is sent, and something stands in its place in what is shown."""
        args = (1, Secret("a"), {"k": [Secret({"deep": Secret(2)}), "ż"]})
        passed, shown = calls.arguments("run", args, {})
        self.assertEqual(json.loads(passed), [1, "a", {"k": [{"deep": 2}, "ż"]}])
        self.assertEqual(json.loads(shown or b""), [1, "(secret)", {"k": ["(secret)", "ż"]}])

    def test_by_keyword(self) -> None:
        """Keyword arguments are no different."""
        passed, shown = calls.arguments("run", (), {"user": "ada", "password": Secret(HIDDEN)})
        self.assertEqual(json.loads(passed), {"user": "ada", "password": HIDDEN})
        self.assertEqual(json.loads(shown or b""), {"user": "ada", "password": "(secret)"})

    def test_none(self) -> None:
        """Where nothing is secret there is nothing else to show."""
        self.assertEqual(calls.arguments("run", (1,), {}), (b"[1]", None))

    def test_failures_tell_nothing(self) -> None:
        """A secret that JSON can't carry is not told, nor is what stands beside the culprit."""
        circle: list[Any] = [HIDDEN]
        circle.append(Secret(circle))
        wrong: list[tuple[tuple[Any, ...], type[Exception], str]] = [
            ((1, Secret({HIDDEN: object()})), TypeError, r"run\(\): argument 2: JSON can't carry"),
            ((Secret([HIDDEN, float("inf")]),), ValueError, "argument 1: JSON can't carry the val"),
            ((Secret(f"{HIDDEN}\ud800"),), ValueError, "argument 1: JSON can't carry the value"),
            ((Secret(circle),), ValueError, "argument 1: JSON can't carry the value"),
            ((Secret(HIDDEN), object()), TypeError, "argument 2: Object of type object"),
            ((Secret(HIDDEN), "\ud800"), ValueError, "argument 2: 'utf-8' codec can't encode"),
            (({Secret(HIDDEN): 1},), TypeError, "keys must be str.* not Secret"),
        ]
        for args, kind, told in wrong:
            with self.assertRaisesRegex(kind, told) as caught:
                calls.arguments("run", args, {})
            error: BaseException | None = caught.exception
            self.assertNotIn(HIDDEN, "".join(traceback.format_exception(error)))
            while error is not None:
                self.assertNotIn(HIDDEN, repr(vars(error)) + repr(error.args))
                if isinstance(error, UnicodeEncodeError):
                    self.assertNotIn(HIDDEN, error.object)
                error = error.__cause__ or error.__context__

    def test_refused_elsewhere(self) -> None:
        """What is stored and shown takes no secret, at any depth."""
        rpc = harp.HarpCaller("localhost")
        secret: Any = {"a": [Secret(HIDDEN)]}
        wrong: list[tuple[Callable[[], object], str]] = [
            (lambda: rpc.host("h", info=secret), "info"),
            (lambda: rpc.host("h", queue=secret), "queue"),
            (lambda: rpc.host("h", dedup={"key": secret, "within": 1}), "dedup"),
            (lambda: rpc.queue(secret), "name"),
            (lambda: HarpServer("h", "u", "p", context=secret), "context"),
        ]
        for act, option in wrong:
            told = f"^{option}.*: a harp.Secret can stand in the arguments of a call and nowhere"
            with self.assertRaisesRegex(TypeError, told):
                act()


class SecretCalls(ContractTestCase):
    """Calls that have secrets."""

    async def test_sent(self) -> None:
        """The dispatcher gets the value, and how the arguments may be shown."""
        lines: list[bytes] = []
        peer = self.peer([info(), hear(lines), JOB], knows_version_1=False)
        await self.mode.done(self.caller(peer.port).web01.login("ada", Secret(HIDDEN)))
        request = json.loads(lines[0])
        self.assertEqual(request["arguments"], ["ada", HIDDEN])
        self.assertEqual(request["shown_arguments"], ["ada", "(secret)"])

    async def test_never_sent_to_who_would_show_it(self) -> None:
        """A dispatcher that can't keep it secret does not get it."""
        for script in ([REFUSAL], [info("keepalive", "auth")]):
            peer = self.peer(script, script, knows_version_1=False)
            rpc = self.caller(peer.port)
            error = await self.failure(
                harp.UnsupportedError, partial(rpc.web01.login, Secret(HIDDEN))
            )
            self.assertRegex(str(error), "the dispatcher has no shown_arguments")
            self.assertFalse(error.may_have_run)
            self.assertNotIn(HIDDEN.encode(), b"".join(peer.requests))

    async def test_no_answer_to_the_question(self) -> None:
        """A connection that ends says nothing of the dispatcher's age; nothing is sent then."""
        peer = self.peer([], [], knows_version_1=False)
        rpc = self.caller(peer.port)
        for _ in range(2):  # each asks once
            login = partial(rpc.web01.login, Secret(HIDDEN))
            error = await self.failure(harp.CommunicationError, login)
            self.assertFalse(error.may_have_run)
        self.assertNotIn(HIDDEN.encode(), b"".join(peer.requests))

    async def test_direct(self) -> None:
        """Harpd gets the plain value."""
        peer = self.peer([ACK, b'{"result":null}\n'], tls=identity(), knows_version_1=False)
        await self.mode.done(self.server(peer.port).login("ada", Secret(HIDDEN)))
        self.assertEqual(json.loads(peer.requests[0])["arguments"], ["ada", HIDDEN])


def _pickled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


globals().update(both_modes(SecretCalls))
del SecretCalls
