"""Tests of harpd.conversation: descriptions, context, locks, and what is let go."""

from __future__ import annotations

import errno
import gc
import json
import weakref
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import fail

from harpd.offers import Offer, ProceduresError
from harpd.secrets import Shown
from tests.harpd.connections import (
    ACK,
    STREAM_ACK,
    Connection,
    ConnectionTestCase,
    FakeCall,
    error,
    request,
)

AUTH_ERROR = error("auth_error", "unknown user or wrong password")
SHUTDOWN = error("shutdown", "harpd is being stopped")
ARGUMENTS = b'[ 1.50, "\\u017c" ]\n{"user":"panel","client":"192.0.2.1"}\n'
DATA_BEHIND = error("invalid_request", "there is data after the request line")


class DescribeTests(ConnectionTestCase):
    """What this daemon offers."""

    def test_describe(self) -> None:
        """Everything the procedures file tells, and the time, to who may call."""
        self.spawner.offers = {
            "a": Offer(False, description=b'{"name":"a"}'),
            "b": Offer(False, description=b'{"name":"b"}'),
        }
        auth = b'"auth":{"user":"panel","password":"secret"}'
        line = b'{"harp":1,"describe":true,%b}\n' % auth
        expected = b'{"harp":1,"procedures":[{"name":"a"},{"name":"b"}],"time":1000.25}\n'
        self.assert_ended(self.connect(line), expected)
        self.assert_ended(self.connect(line.replace(b"secret", b"x")), AUTH_ERROR)
        kept = self.connect(line.replace(b"true", b'true,"keepalive":true'))
        kept.sends(line)
        self.assert_ended(kept, 2 * expected)
        self.assertEqual(self.spawner.planned, [])

    def test_not_loaded(self) -> None:
        """Where the procedures can't be loaded it says so."""
        self.spawner.held = fail(ProceduresError(["one"]))
        connection = self.connect(
            b'{"harp":1,"describe":true,"auth":{"user":"panel","password":"secret"}}\n'
        )
        self.assert_ended(connection, error("procedure_loading_error", "one"))


class SecretTests(ConnectionTestCase):
    """How the arguments may be shown is told to who asks for it."""

    def test_shown(self) -> None:
        """It stands in the acknowledgement, if the procedure has secrets; the call gets them."""
        self.spawner.offers = {
            "plain": Offer(False),
            "secret": Offer(False, shown=Shown(count=2, places=[0])),
        }
        shown = b'{"harp":1,"stream_result":false,"shown_arguments":[1.5,"(secret)"]}\n'
        silent = b'{"harp":1,"stream_result":false}\n'
        for procedure, asks, expected in [
            ("secret", True, shown),
            ("secret", False, silent),
            ("plain", True, silent),
        ]:
            connection, call = self.call(procedure, arguments=[1.5, "x"], report_secret=asks)
            self.assertEqual(connection.received, expected)
            self.assertIn(b'[1.5, "x"]', call.socket.value())


class ContextTests(ConnectionTestCase):
    """What the caller knows of a call reaches it, under what harpd knows."""

    def context(self, **more: Any) -> Any:
        """Return the context of a call."""
        _, call = self.call(**more)
        return json.loads(call.socket.value().splitlines()[1])

    def test_facts(self) -> None:
        """Who calls and from where is there in any case, and can't be forged."""
        facts = {"user": "panel", "client": "192.0.2.1"}
        self.assertEqual(self.context(), facts)
        forged = {"user": "root", "client": None, "job_id": "x", "deep": [{"user": 1}]}
        self.assertEqual(self.context(context=forged), {**forged, **facts})

    def test_no_object(self) -> None:
        """It has to be an object."""
        connection = self.connect(request(context=[1]))
        self.assertIn(b"invalid_request", connection.received)


WAITING = b'{"harp":1,"waiting":{"lock":"door"}}\n'
FREE = b'{"harp":1,"waiting":null}\n'


class LockTests(ConnectionTestCase):
    """Calls that name the same lock run one after the other."""

    def test_order(self) -> None:
        """The next is forked when the process of the one before is gone, in the order of coming."""
        _, call = self.call("locked")
        waiting = [self.connect(request("locked", arguments=[number])) for number in range(3)]
        call.says(b'{"result":1}\n')
        self.clock.advance(0)
        self.assertEqual(len(self.spawner.calls), 1)
        for number in range(3):
            self.spawner.calls[-1].ends()
            self.clock.advance(0)
            self.assertEqual(len(self.spawner.calls), number + 2)
            self.assertTrue(self.spawner.calls[-1].socket.value().startswith(b"[%d]" % number))
        self.assertEqual([each.received for each in waiting[2:]], [STREAM_ACK])

    def test_result(self) -> None:
        """Who has the result of one call finds the lock free for another; no limit counts then."""
        connection, call = self.call("locked")
        call.says(b'{"stream":1}\n{"result":2}\n')
        self.assertEqual(connection.received, STREAM_ACK + b'{"stream":1}\n')
        self.clock.advance(2.5)
        call.ends()
        self.assert_ended(connection, STREAM_ACK + b'{"stream":1}\n{"result":2}\n')
        self.call("hasty")
        self.assertEqual(len(self.spawner.calls), 2)

    def test_leaves_before_the_result(self) -> None:
        """Who leaves while the result is held back gets nothing more, and the lock is freed."""
        connection, call = self.call("locked")
        call.says(b'{"result":2}\n')
        connection.leaves()
        call.ends()
        self.assertEqual(connection.received, STREAM_ACK)
        self.call("hasty")

    def test_report(self) -> None:
        """Who has asked for it is told that it waits, and that it does not any more."""
        _, call = self.call("locked")
        told = self.connect(request("locked", report_lock=True))
        self.assertEqual(told.received, STREAM_ACK + WAITING)
        call.ends()
        self.clock.advance(0)
        self.assertEqual(told.received, STREAM_ACK + WAITING + FREE)
        self.spawner.calls[-1].ends()
        self.clock.advance(0)
        free, _ = self.call("locked", report_lock=True)
        self.assertEqual(free.received, STREAM_ACK)

    def test_timeout(self) -> None:
        """The procedure's own limit starts when it has the lock."""
        _, call = self.call("locked")
        connection = self.connect(request("locked"))
        self.clock.advance(100)
        self.assertEqual(connection.received, STREAM_ACK)
        call.ends()
        self.clock.advance(2.4)
        self.clock.advance(0)
        self.assertEqual(connection.received, STREAM_ACK)
        self.clock.advance(2.5)
        self.assertIn(b'"timeout"', connection.received)

    def test_too_long(self) -> None:
        """Who has waited as long as its procedure wants fails with locked, nothing is started."""
        self.call("locked")
        for procedure, wait in (("impatient", 4), ("hasty", 0)):
            connection = self.connect(request(procedure, report_lock=True))
            if wait:
                self.clock.advance(3.9)
                self.assertEqual(connection.received, ACK + WAITING)
                self.clock.advance(0.1)
            message = f"lock door was not free within {wait} s"
            expected = ACK + WAITING * bool(wait) + error("locked", message, '{"lock":"door"}')
            self.assert_ended(connection, expected)
        self.assertEqual(len(self.spawner.calls), 1)
        self.assertEqual([each.given_up for each in self.spawner.planned], [False, True, True])

    def test_leaves(self) -> None:
        """Who leaves while waiting leaves the line, the others keep their order."""
        _, call = self.call("locked")
        leaving, staying = [self.connect(request("locked", arguments=[n])) for n in range(2)]
        leaving.leaves()
        self.assertTrue(self.spawner.planned[1].given_up)
        call.ends()
        self.clock.advance(0)
        self.assertEqual(len(self.spawner.calls), 2)
        self.assertTrue(self.spawner.calls[1].socket.value().startswith(b"[1]"))
        self.assertEqual(staying.received, STREAM_ACK)

    def test_leaves_as_it_comes(self) -> None:
        """Who leaves when the lock has come to it, but its process has not, hands it on."""
        _, call = self.call("locked")
        leaving, _ = [self.connect(request("locked", arguments=[n])) for n in range(2)]
        call.ends()
        leaving.leaves()
        self.clock.advance(0)
        self.assertEqual(len(self.spawner.calls), 2)
        self.assertTrue(self.spawner.calls[1].socket.value().startswith(b"[1]"))

    def test_cannot_start(self) -> None:
        """A call that can't be started does not keep the lock."""
        _, call = self.call("locked")
        failing = [self.connect(request("locked")) for _ in range(2)]
        self.spawner.failure = OSError(errno.EMFILE, "Too many open files")
        call.ends()
        self.clock.pump([0, 0, 0])
        for each in failing:
            self.assertIn(b"system_error", each.received)
        self.spawner.failure = None
        self.call("hasty")
        self.assertEqual(len(self.spawner.calls), 2)

    def test_killed_for_its_time(self) -> None:
        """A call whose caller has its end keeps the lock until its process is gone."""
        _, call = self.call("locked")
        self.clock.advance(2.5)
        self.assertEqual(call.kills, 1)
        self.assertIn(b'"locked"', self.connect(request("hasty")).received)
        call.ends(9)
        self.assertEqual(self.connect(request("hasty")).received, ACK)


class LetGoTests(ConnectionTestCase):
    """Nothing of a call is kept until the collector comes, on a kept connection least of all."""

    def assert_let_go(self, procedure: str, end: Callable[[Connection, FakeCall], object]) -> None:
        """Check that a conversation is gone when its call has ended."""
        gc.disable()
        self.addCleanup(gc.enable)
        connection = self.connect(request(procedure, keepalive=True))
        conversation = weakref.ref(connection.protocol._conversation)
        end(connection, self.spawner.planned[-1])
        self.spawner.planned.clear()
        self.spawner.calls.clear()
        self.assertIsNone(conversation())

    def test_result(self) -> None:
        """It has its result, and its process is gone."""

        def end(connection: Connection, call: FakeCall) -> None:
            call.says(b'{"result":1}\n')
            call.ends()
            del call.process, call.gone  # circles of the fake

        self.assert_let_go("limited", end)

    def test_leaves(self) -> None:
        """Its client has left."""

        def end(connection: Connection, call: FakeCall) -> None:
            connection.leaves()
            call.ends(15)
            del call.process, call.gone

        self.assert_let_go("limited", end)

    def test_waits(self) -> None:
        """It has waited for a lock."""
        self.call("locked")
        self.assert_let_go("locked", lambda connection, call: connection.leaves())
        self.assert_let_go("impatient", lambda connection, call: self.clock.advance(4))
