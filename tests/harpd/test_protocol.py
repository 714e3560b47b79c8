"""Tests of harpd.protocol: every way of a connection, byte for byte."""

from __future__ import annotations

import errno
import json

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail
from twisted.internet.ssl import CertificateOptions
from twisted.logger import capturedLogs

from harp.wire.lines import MAX_REQUEST
from harpd.auth.turns import TooManyLoginsError
from harpd.factory import TlsFactory
from harpd.limits import SHORT_REQUEST, Limits
from harpd.offers import Catalogue, ProceduresError
from harpd.protocol import (
    CLOSE_DEADLINE,
    GOODBYE_DEADLINE,
    LOGIN_DEADLINE,
    REQUEST_DEADLINE,
)
from harpd.tls import ServerTls
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
FACTS = b'{"user":"panel","client":"192.0.2.1"}\n'
ARGUMENTS = b'[ 1.50, "\\u017c" ]\n{"user":"panel","client":"192.0.2.1"}\n'
DATA_BEHIND = error("invalid_request", "there is data after the request line")


class CallTests(ConnectionTestCase):
    """A call that goes as it should: the exact bytes of version 1."""

    def test_forged_replies(self) -> None:
        """What a plain procedure can't report ends its call, and nothing of it gets out."""
        for forged in (b'{"stream":1}\n', b'{"harp":1,"stream_result":true}\n'):
            connection, call = self.call()
            call.says(forged)
            self.assertEqual(call.kills, 1)
            (error,) = connection.received.removeprefix(ACK).splitlines()
            self.assertEqual(json.loads(error)["error"]["type"], "invalid_message")
            connection.leaves()

    def test_result(self) -> None:
        """Acknowledgement, result, end."""
        connection, call = self.call()
        self.assertEqual(connection.received, ACK)
        self.assertFalse(connection.wire.disconnecting)
        call.says(b'{"result":{"a":[1,null]}}\n')
        self.assert_ended(connection, ACK + b'{"result":{"a":[1,null]}}\n')
        call.ends()
        connection.leaves()
        self.assertEqual(call.kills, 0)

    def test_stream(self) -> None:
        """Acknowledgement of a stream, packets as they come, result, end."""
        connection, call = self.call("stream")
        self.assertEqual(connection.received, STREAM_ACK)
        call.says(b'{"stream":1}\n')
        self.assertEqual(connection.received, STREAM_ACK + b'{"stream":1}\n')
        call.says(b'{"stream":2}\n{"result":null}\n')
        self.assert_ended(connection, STREAM_ACK + b'{"stream":1}\n{"stream":2}\n{"result":null}\n')

    def test_exception(self) -> None:
        """What the procedure raised."""
        connection, call = self.call()
        fault = b'{"type":"E","message":"m","data":{"class":"E","module":"m"}}'
        call.says(b'{"exception":' + fault + b"}\n")
        self.assert_ended(connection, ACK + b'{"exception":' + fault + b"}\n")

    def test_error_of_the_process(self) -> None:
        """What went wrong in the process of the call."""
        connection, call = self.call()
        refused = error("invalid_argument_list", "plain: too many positional arguments")
        call.says(refused)
        self.assert_ended(connection, ACK + refused)

    def test_killed(self) -> None:
        """A process that went without a result."""
        connection, call = self.call()
        call.ends(9)
        message = "the process of the call was killed by signal 9 without a result"
        self.assert_ended(connection, ACK + error("killed", message, '{"signal":9}'))

    def test_arguments(self) -> None:
        """Arguments reach the process as the bytes that they were."""
        line = request().replace(b'"arguments": []', b'"arguments": [ 1.50, "\\u017c" ]')
        self.connect(line)
        self.assertEqual(self.spawner.calls[0].socket.value(), ARGUMENTS)

    def test_byte_by_byte(self) -> None:
        """A request may come in pieces, and end as lines do elsewhere."""
        connection = self.connect()
        for byte in request().replace(b"\n", b"\r\n"):
            self.assertEqual(connection.received, b"")
            connection.sends(bytes([byte]))
        self.assertEqual(connection.received, ACK)

    def test_options(self) -> None:
        """Small writes are not held back, and a dead client is found out."""
        self.assertEqual(self.connect().wire.options, ["nodelay", "keepalive"])

    def test_one_call_a_connection(self) -> None:
        """What comes behind the end of a call is not looked at."""
        connection, call = self.call()
        call.says(b'{"result":1}\n')
        connection.sends(request())
        self.assertEqual(connection.received, ACK + b'{"result":1}\n')
        self.assertEqual(len(self.spawner.calls), 1)


class RefusalTests(ConnectionTestCase):
    """A request that can't be carried out starts nothing."""

    def assert_refused(self, data: bytes, received: bytes) -> None:
        """Check what a client gets that sends this."""
        connection = self.connect(data)
        self.assert_ended(connection, received)
        self.assertEqual(self.spawner.calls, [])

    def test_requests(self) -> None:
        """Each fault of a request has its type, and names what is wrong."""
        for line, type, message in [
            (b"nonsense", "parse_error", "malformed"),
            (b"", "parse_error", "truncated"),
            (b"\xff", "parse_error", "not UTF-8 at byte 0"),
            (b"[" * 60_000, "parse_error", "nested too deep"),
            (b"[]", "invalid_protocol", "is not an object with"),
            (b'{"harp": 2}', "invalid_protocol", "is not an object with"),
            (b'{"harp": 1}', "invalid_request", "missing required field `auth`"),
            (request()[:-2] + b', "timeout": 5}', "invalid_request", "unknown field `timeout`"),
            (request(arguments="x").strip(), "invalid_request", "at `$.arguments`"),
            (request()[:-2] + b', "harp": 1}', "invalid_request", "Key `harp` stands twice"),
        ]:
            connection = self.connect(line + b"\n")
            start = f'{{"harp":1,"error":{{"type":"{type}","message":"'.encode()
            self.assertTrue(connection.received.startswith(start), connection.received)
            self.assertIn(message.encode(), connection.received)
            self.assertTrue(connection.wire.disconnecting)
        self.assertEqual(self.spawner.calls, [])

    def test_wrong_password(self) -> None:
        """A wrong password is refused, whether the procedure exists or not."""
        self.assert_refused(request(password="x"), AUTH_ERROR)
        self.assert_refused(request("nothing", password="x"), AUTH_ERROR)

    def test_no_such_procedure(self) -> None:
        """The procedure is named in the data."""
        expected = error("no_such_procedure", "no procedure nothing", '{"procedure":"nothing"}')
        self.assert_refused(request("nothing"), expected)

    def test_procedures_not_loaded(self) -> None:
        """What is wrong with the procedures file is told."""
        failed: Deferred[Catalogue] = Deferred()
        failed.errback(ProceduresError(["one", "two"]))
        self.spawner.held = failed
        self.assert_refused(request(), error("procedure_loading_error", "one; two"))

    def test_no_descriptors(self) -> None:
        """A call that can't be started for want of something is a system_error after all."""
        self.spawner.failure = OSError(errno.EMFILE, "Too many open files")
        self.assert_refused(
            request(), ACK + error("system_error", "[Errno 24] Too many open files")
        )
        self.spawner.failure = None
        connection, _ = self.call()
        self.assertEqual(connection.received, ACK)

    def test_own_failure(self) -> None:
        """A failure of harpd itself shows nothing of it to the client; it is logged."""
        self.spawner.failure = ValueError("internals")
        self.assert_refused(request(), ACK + error("system_error", "harpd failed, see its log"))
        (failure,) = self.flushLoggedErrors(ValueError)
        self.assertEqual(str(failure.value), "internals")

    def test_too_long(self) -> None:
        """A request over the limit is refused before it is whole; one of the limit is not."""
        message = f"in the request, a line is longer than {MAX_REQUEST} bytes"
        line = request().strip()
        padded = line[:-1] + b" " * (MAX_REQUEST - len(line)) + b"}"
        self.assert_refused(padded + b"  ", error("invalid_request", message))
        connection = self.connect(padded + b"\n")
        self.assertEqual(connection.received, ACK)

    def test_too_long_in_pieces(self) -> None:
        """The client is told once, however much it sends."""
        connection = self.connect()
        for _ in range(30):
            connection.sends(b"x" * 65536)
        self.assertEqual(connection.received.count(b"\n"), 1)


AUTH = b'"auth":{"user":"panel","password":"secret"}'
REST = b',"procedure":"plain","arguments":["' + b"x" * SHORT_REQUEST
TOO_LONG = error(
    "invalid_request",
    f"the request is longer than {SHORT_REQUEST} bytes: then "
    r"\"auth\" has to come first in it, or right behind \"harp\"",
)


class StrangerTests(ConnectionTestCase):
    """Who has not logged in gets no more than 64 KB of memory, and little time."""

    def test_line_of_the_limit(self) -> None:
        """A line of 64 KB needs no login at its beginning, however it comes."""
        line = request().strip()
        padded = line[:-1] + b" " * (SHORT_REQUEST - len(line)) + b"}\r\n"
        self.policy.limits = Limits(long_requests_before_login=0)
        self.assertEqual(self.connect(padded).received, ACK)
        connection = self.connect(padded[:-1])
        connection.sends(padded[-1:])
        self.assertEqual(connection.received, ACK)

    def test_no_request(self) -> None:
        """What does not look like a request is refused with 64 KB, and nothing more is kept."""
        for beginning in (b"x", b"[", b'{"x":', b'{"harp" ', b"\xff"):
            connection = self.connect(beginning + b"x" * (SHORT_REQUEST - len(beginning)))
            self.assertEqual(connection.received, b"")
            connection.sends(b"xxx")
            self.assert_ended(connection, TOO_LONG)

    def test_login_in_front(self) -> None:
        """A login at the beginning is checked when 64 KB have come; meanwhile nothing is read."""
        for front in (b'{"harp":1,' + AUTH, b' { "harp" : 1 , ' + AUTH, b"{" + AUTH + b',"harp":1'):
            self.login.held = Deferred()
            connection = self.connect(front + REST)
            self.assertEqual(connection.wire.producerState, "paused")
            connection.sends(b"read before")
            self.clock.advance(REQUEST_DEADLINE)
            held, self.login.held = self.login.held, None
            held.callback(True)
            self.assertEqual(connection.wire.producerState, "producing")
            connection.sends(b'"]}\n')
            self.assertEqual(connection.received, ACK)
            self.assertTrue(
                self.spawner.calls[-1].socket.value().endswith(b'read before"]\n' + FACTS)
            )

    def test_wrong_login_in_front(self) -> None:
        """A wrong one is refused there and then, and the end of TLS can be read."""
        connection = self.connect(b'{"harp":1,' + AUTH.replace(b"secret", b"x") + REST)
        self.assert_ended(connection, AUTH_ERROR)
        self.assertEqual(connection.wire.producerState, "producing")

    def test_another_login_behind(self) -> None:
        """The request's own login is checked all the same: a right one in front is no pass."""
        for other in (b'"auth":{"user":"root","password":"x"}', AUTH):
            connection = self.connect(b'{"harp":1,' + AUTH + REST)
            connection.sends(b'"],' + other + b"}\n")
            self.assertIn(b'"error"', connection.received)
            self.assertTrue(connection.wire.disconnecting)
        self.assertEqual(self.spawner.planned, [])

    def test_no_login_in_front(self) -> None:
        """As old dispatchers write them long requests may come in few places, which get free."""
        self.policy.limits = Limits(long_requests_before_login=2)
        beginning = b'{"arguments":["' + b"x" * SHORT_REQUEST
        end = b'"],"harp":1,"procedure":"plain",' + AUTH
        done, left = self.connect(beginning), self.connect(beginning)
        self.assert_ended(self.connect(beginning), TOO_LONG)
        done.sends(end + b',"keepalive":true}\n')
        self.assertEqual(done.received, ACK)
        late = self.connect(beginning)
        self.assertEqual(late.received, b"")
        self.assert_ended(self.connect(beginning), TOO_LONG)
        left.leaves()
        late.sends(end.replace(b"secret", b"x") + b"}\n")
        self.assert_ended(late, AUTH_ERROR)
        self.assertEqual(self.connect(beginning).received, b"")

    def test_known(self) -> None:
        """Who has logged in once on a connection may send long requests on it."""
        self.policy.limits = Limits(long_requests_before_login=0)
        connection, call = self.call(keepalive=True)
        call.says(b'{"result":1}\n')
        connection.sends(request(arguments=["x" * SHORT_REQUEST]))
        self.assertTrue(connection.received.endswith(b'{"result":1}\n' + ACK))

    def test_a_byte_a_second(self) -> None:
        """Who sends slowly has no more time than who sends nothing."""
        connection = self.connect(b"{")
        for _ in range(int(REQUEST_DEADLINE)):
            self.assertFalse(connection.wire.aborted)
            self.clock.advance(1)
            connection.sends(b" ")
        self.assertTrue(connection.wire.aborted)

    def test_login_that_hangs(self) -> None:
        """A login that is never decided does not keep its connection for ever."""
        self.login.held = Deferred()
        connection = self.connect(request())
        self.clock.advance(LOGIN_DEADLINE - 1)
        self.assertFalse(connection.wire.aborted)
        self.clock.advance(1)
        self.assertTrue(connection.wire.aborted)

    def test_does_not_close(self) -> None:
        """Who was refused, and does not close, is cut sooner than somebody known."""
        connection = self.connect(request(password="x"))
        self.clock.advance(GOODBYE_DEADLINE)
        self.assertTrue(connection.wire.aborted)

    def test_leaves_while_it_waits(self) -> None:
        """Nobody checks a login whose client has left."""
        cancelled: list[object] = []
        self.login.held = Deferred(cancelled.append)
        self.connect(request()).leaves()
        self.assertEqual(len(cancelled), 1)

    def test_not_checked(self) -> None:
        """Who is one of too many is told so."""
        self.login.held = fail(TooManyLoginsError("too many"))
        self.assert_ended(self.connect(request()), error("auth_error", "too many"))


class PlaceTests(ConnectionTestCase):
    """There are not more connections than the limits say."""

    def comes(self, address: str = "192.0.2.1") -> bool:
        """Tell whether a connection is taken."""
        tls = TlsFactory(ServerTls(CertificateOptions(), self.clock.seconds), self.factory)
        return tls.buildProtocol(IPv4Address("TCP", address, 5)) is not None

    def test_closed_at_once(self) -> None:
        """One too many is closed before TLS begins; when another has gone there is a place."""
        self.policy.limits = Limits(connections_before_login=2)
        connection = self.connect()
        self.connect()
        self.assertFalse(self.comes())
        connection.leaves()
        self.assertTrue(self.comes())

    def test_gives_way(self) -> None:
        """One that says nothing for a second gives way to another, one with a login never."""
        self.policy.limits = Limits(max_connections=2)
        known, _ = self.call()
        silent = self.connect()
        self.clock.advance(1)
        self.assertTrue(self.comes())
        self.assertTrue(silent.wire.aborted)
        silent.leaves()
        self.assertFalse(self.comes())
        self.assertFalse(known.wire.aborted)
        known.leaves()
        self.assertTrue(self.comes())

    def test_log(self) -> None:
        """Thousands of them are one line a second."""
        self.policy.limits = Limits(connections_before_login=1)
        self.connect()
        with capturedLogs() as logs:
            for _ in range(1000):
                self.comes()
            self.assertEqual(len(logs), 1)
            self.clock.advance(0.9)
            self.comes()
            self.clock.advance(0.05)
            self.comes()
            self.assertEqual(len(logs), 1)


class DataBehindTests(ConnectionTestCase):
    """Data after the request line is an invalid_request, whenever it comes."""

    def test_same_segment(self) -> None:
        """Together with the request: nothing starts."""
        for data in [b"x", b"\n", request()]:
            connection = self.connect(request() + data)
            self.assert_ended(connection, DATA_BEHIND)
        self.assertEqual(self.spawner.calls, [])

    def test_during_login(self) -> None:
        """While the login is being checked: nothing starts."""
        self.login.held = Deferred()
        connection = self.connect(request())
        connection.sends(b"x")
        self.login.held.callback(True)
        self.assert_ended(connection, DATA_BEHIND)
        self.assertEqual(self.spawner.calls, [])

    def test_during_run(self) -> None:
        """While the procedure runs: the call is killed, and what it still says is dropped."""
        connection, call = self.call("stream")
        connection.sends(b"x")
        connection.sends(b"y")
        call.says(b'{"stream":1}\n{"result":1}\n')
        self.assert_ended(connection, STREAM_ACK + DATA_BEHIND)
        self.assertEqual(call.kills, 1)


class DeadlineTests(ConnectionTestCase):
    """Nothing waits for ever."""

    def test_silent_client(self) -> None:
        """A client that sends no request is left, and cut if it does not take notice of that."""
        connection = self.connect()
        self.clock.advance(REQUEST_DEADLINE - 1)
        self.assertFalse(connection.wire.disconnecting)
        self.clock.advance(1)
        self.assertTrue(connection.wire.disconnecting)
        self.clock.advance(GOODBYE_DEADLINE)
        self.assertTrue(connection.wire.aborted)
        connection.leaves()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_begun_request(self) -> None:
        """A client that is in the middle of its request is cut; more of it gives it no time."""
        connection = self.connect(b'{"harp":')
        self.clock.advance(REQUEST_DEADLINE - 1)
        connection.sends(b" ")
        self.assertFalse(connection.wire.aborted)
        self.clock.advance(1)
        self.assertTrue(connection.wire.aborted)
        connection.leaves()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_long_run(self) -> None:
        """A procedure without a limit may run as long as it likes."""
        connection, call = self.call()
        self.clock.advance(10 * REQUEST_DEADLINE)
        call.says(b'{"result":1}\n')
        self.assert_ended(connection, ACK + b'{"result":1}\n')

    def test_client_that_does_not_close(self) -> None:
        """A client that does not take the end of the connection is cut."""
        connection, call = self.call()
        call.says(b'{"result":1}\n')
        self.clock.advance(CLOSE_DEADLINE - 0.1)
        self.assertFalse(connection.wire.aborted)
        self.clock.advance(0.1)
        self.assertTrue(connection.wire.aborted)

    def test_closed_in_time(self) -> None:
        """A connection that is closed leaves no deadline behind."""
        connection, call = self.call()
        call.says(b'{"result":1}\n')
        connection.leaves()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.connect().leaves()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_timeout(self) -> None:
        """A procedure that exceeds its own limit is killed and its client told."""
        connection, call = self.call("limited")
        self.clock.advance(2.4)
        self.assertEqual((connection.received, call.kills), (ACK, 0))
        self.clock.advance(0.1)
        expected = error("timeout", "the procedure's own limit of 2.5 s was exceeded")
        self.assert_ended(connection, ACK + expected)
        self.assertEqual(call.kills, 1)
        connection.leaves()
        self.assertEqual(call.kills, 1)
        call.ends(15)
        self.assert_ended(connection, ACK + expected)

    def test_within_the_limit(self) -> None:
        """A limit that was kept has no effect later."""
        connection, call = self.call("limited")
        call.says(b'{"result":1}\n')
        connection.leaves()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class LeavingTests(ConnectionTestCase):
    """A client that leaves before the end result cancels its call."""

    def test_before_the_request(self) -> None:
        """There is nothing to end."""
        self.connect(b'{"harp"').leaves()
        self.assertEqual(self.spawner.calls, [])

    def test_during_login(self) -> None:
        """The call is not started."""
        self.login.held = Deferred()
        connection = self.connect(request())
        connection.leaves()
        self.login.held.callback(True)
        self.assertEqual((self.spawner.calls, connection.received), ([], b""))

    def test_during_refused_login(self) -> None:
        """Nobody is told of a refusal."""
        self.login.held = Deferred()
        connection = self.connect(request(password="x"))
        connection.leaves()
        self.login.held.callback(False)
        self.assertEqual(connection.received, b"")

    def test_while_loading(self) -> None:
        """The call is not started when the procedures are there at last."""
        self.spawner.held = Deferred()
        connection = self.connect(request())
        connection.leaves()
        self.spawner.held.callback(self.spawner.offers)
        self.assertEqual((self.spawner.calls, connection.received), ([], b""))

    def test_while_loading_fails(self) -> None:
        """Nobody is told of procedures that can't be loaded."""
        self.spawner.held = Deferred()
        connection = self.connect(request())
        connection.leaves()
        self.spawner.held.errback(ProceduresError(["x"]))
        self.assertEqual(connection.received, b"")

    def test_during_run(self) -> None:
        """The call is killed, once."""
        connection, call = self.call("limited")
        connection.leaves()
        self.assertEqual(call.kills, 1)
        call.says(b'{"result":1}\n')
        call.ends(15)
        self.assertEqual((call.kills, connection.received), (1, ACK))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_after_the_result(self) -> None:
        """A client that has its result may leave."""
        connection, call = self.call()
        call.says(b'{"result":1}\n')
        connection.leaves()
        self.assertEqual(call.kills, 0)


class FlowTests(ConnectionTestCase):
    """A client that reads slowly slows the procedure down."""

    def test_producer(self) -> None:
        """The process is paused and resumed with the connection."""
        connection, call = self.call("stream")
        self.assertTrue(connection.wire.streaming)
        producer = connection.wire.producer
        assert producer is not None
        producer.pauseProducing()
        self.assertEqual(call.socket.producerState, "paused")
        producer.resumeProducing()
        self.assertEqual(call.socket.producerState, "producing")

    def paused(self) -> tuple[Connection, FakeCall]:
        """Start a call whose client does not read."""
        connection, call = self.call("limited")
        assert connection.wire.producer is not None
        connection.wire.producer.pauseProducing()
        return connection, call

    def test_let_go(self) -> None:
        """However a call ends, its process is not held any more: its end could not be seen."""
        connection, call = self.paused()
        call.says(b'{"result":1}\n')
        self.assertIsNone(connection.wire.producer)
        self.assertTrue(call.socket.disconnecting)
        connection, call = self.paused()
        self.clock.advance(2.5)
        self.assertEqual(call.socket.producerState, "producing")
        connection, call = self.paused()
        connection.leaves()
        self.assertEqual(call.socket.producerState, "producing")


class KeepaliveTests(ConnectionTestCase):
    """A connection carries one request after another if its client wants that."""

    def kept(self) -> tuple[Connection, FakeCall]:
        """Have a call that has ended and whose connection is kept."""
        connection, call = self.call(keepalive=True)
        call.says(b'{"result":1}\n')
        self.assertFalse(connection.wire.disconnecting)
        connection.wire.clear()
        return connection, call

    def test_next_call(self) -> None:
        """The next request has a login of its own, and need not want to keep the connection."""
        connection, _ = self.kept()
        connection.sends(request("stream"))
        self.spawner.calls[-1].says(b'{"stream":2}\n{"result":3}\n')
        self.assert_ended(connection, STREAM_ACK + b'{"stream":2}\n{"result":3}\n')

    def test_own_login(self) -> None:
        """That the one before was right does not help a wrong password, which ends it always."""
        connection, _ = self.kept()
        connection.sends(request(password="x", keepalive=True))
        self.assert_ended(connection, AUTH_ERROR)

    def test_harpd_refuses(self) -> None:
        """What harpd refuses to somebody it knows leaves the connection open."""
        connection, _ = self.kept()
        for _ in range(2):
            connection.wire.clear()
            connection.sends(request("nothing", keepalive=True))
            self.assertIn(b"no_such_procedure", connection.received)
        self.assertFalse(connection.wire.disconnecting)

    def test_requests_that_cannot_be_understood(self) -> None:
        """They end it always, as without keepalive."""
        for line in (b"nonsense\n", request(keepalive=True)[:-2] + b', "harp": 1}\n'):
            connection, _ = self.kept()
            connection.sends(line)
            self.assertEqual(connection.received.count(b'"error"'), 1)
            self.assertTrue(connection.wire.disconnecting)

    def test_data_during_the_call(self) -> None:
        """One call at a time."""
        connection, call = self.call(keepalive=True)
        connection.sends(request())
        self.assert_ended(connection, ACK + DATA_BEHIND)
        self.assertEqual(call.kills, 1)

    def test_time_out(self) -> None:
        """A call that was ended for its time does not end the connection."""
        connection, call = self.call("limited", keepalive=True)
        self.clock.advance(2.5)
        self.assertEqual(call.kills, 1)
        connection.wire.clear()
        connection.sends(request())
        call.says(b'{"result":"late"}\n')
        self.assertEqual(connection.received, ACK)

    def test_idle(self) -> None:
        """Who does not come back in time is left in good order; what he asks then is not done."""
        connection, _ = self.kept()
        self.clock.advance(Limits().idle_time - 0.1)
        self.assertFalse(connection.wire.disconnecting)
        self.clock.advance(0.1)
        self.assertTrue(connection.wire.disconnecting)
        connection.sends(request())
        self.assertEqual(connection.received, b"")
        self.assertEqual(len(self.spawner.planned), 1)
        self.clock.advance(GOODBYE_DEADLINE - 0.1)
        self.assertFalse(connection.wire.aborted)
        self.clock.advance(0.1)
        self.assertTrue(connection.wire.aborted)
        connection.leaves()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_begun_request(self) -> None:
        """Who is in the middle of a request when the time is over is cut."""
        connection, _ = self.kept()
        connection.sends(b'{"harp"')
        self.clock.advance(Limits().idle_time)
        self.assertFalse(connection.wire.disconnecting)
        self.assertTrue(connection.wire.aborted)
        connection.leaves()

    def test_leaves(self) -> None:
        """A client that leaves after its call has cancelled nothing, in the next one it has."""
        connection, _ = self.kept()
        connection.sends(request(keepalive=True))
        connection.leaves()
        self.assertEqual([each.kills for each in self.spawner.calls], [0, 1])

    def test_not_read(self) -> None:
        """As long as the answer has not gone no request is taken, and asking ends it."""
        connection, call = self.call(keepalive=True)
        connection.wire.full = True
        call.says(b'{"result":1}\n')
        connection.sends(request(keepalive=True))
        self.assertEqual(connection.received, ACK + b'{"result":1}\n')
        self.assertFalse(connection.wire.disconnecting)
        connection.wire.goes_on()
        self.assert_ended(connection, ACK + b'{"result":1}\n')
        self.assertEqual(len(self.spawner.calls), 1)

    def test_read_late(self) -> None:
        """An answer that goes slowly does not end the connection when it has gone."""
        connection, call = self.call(keepalive=True)
        long = b'{"result":"' + b"x" * 100_000 + b'"}\n'
        call.says(long)
        while connection.wire.producer is not None:
            self.assertFalse(connection.received.endswith(b"\n") and connection.received != ACK)
            connection.wire.goes_on()
        self.assertEqual(connection.received, ACK + long)
        connection.wire.clear()
        connection.sends(request())
        self.assertEqual(connection.received, ACK)


class FactoryTests(ConnectionTestCase):
    """The daemon's end is the end of its connections."""

    GRACE = 20.0

    def shut_down(self) -> Deferred[None]:
        """Shut down and let what is due at once happen."""
        ended = self.factory.shut_down(self.GRACE)
        self.clock.advance(0)
        return ended

    def test_grace(self) -> None:
        """Who has no process yet is refused; running calls have their grace, then they end."""
        running, call = self.call("stream")
        self.login.held = Deferred()
        waiting = self.connect(request())
        silent = self.connect()
        ended = self.shut_down()
        self.assertEqual(running.received, STREAM_ACK)
        self.assert_ended(waiting, SHUTDOWN)
        self.assertFalse(silent.wire.disconnecting)
        call.says(b'{"stream":1}\n')
        self.clock.advance(self.GRACE - 0.1)
        self.assertEqual(running.received, STREAM_ACK + b'{"stream":1}\n')
        self.assertEqual(call.kills, 0)
        self.clock.advance(0.1)
        self.assert_ended(running, STREAM_ACK + b'{"stream":1}\n' + SHUTDOWN)
        self.assertEqual(silent.received, b"")
        self.assertTrue(silent.wire.disconnecting)
        self.assertEqual(call.kills, 1)
        self.login.held.callback(True)
        self.assertEqual(len(self.spawner.planned), 1)
        for connection in (running, waiting, silent):
            self.assertNoResult(ended)
            connection.leaves()
        self.assertIsNone(self.successResultOf(ended))

    def test_last_call_ends(self) -> None:
        """The grace ends with the last call that runs."""
        first, call = self.call()
        second, _ = self.call()
        kept, idle = self.call(keepalive=True)
        idle.says(b'{"result":0}\n')
        ended = self.shut_down()
        call.says(b'{"result":1}\n')
        self.clock.advance(0)
        self.assertFalse(kept.wire.disconnecting)
        second.leaves()
        self.clock.advance(0)
        self.assertTrue(kept.wire.disconnecting)
        self.assert_ended(first, ACK + b'{"result":1}\n')
        first.leaves()
        kept.leaves()
        self.successResultOf(ended)

    def test_new_calls(self) -> None:
        """In the grace new calls are refused, on new connections and on those that are open."""
        self.call()
        opened = self.connect()
        kept, call = self.call(keepalive=True)
        call.says(b'{"result":1}\n')
        self.shut_down()
        for connection in (opened, kept, self.connect()):
            before = connection.received
            connection.sends(request())
            self.assert_ended(connection, before + SHUTDOWN)
        self.assertEqual(len(self.spawner.planned), 2)

    def test_kept_connection(self) -> None:
        """A connection is not kept behind a call that ended in the grace."""
        connection, call = self.call(keepalive=True)
        self.call()
        self.shut_down()
        call.says(b'{"result":1}\n')
        self.assert_ended(connection, ACK + b'{"result":1}\n')

    def test_waiting_for_a_lock(self) -> None:
        """A call that waits for a lock is refused, and does not get it when it is free."""
        _, call = self.call("locked")
        waiting = self.connect(request("locked"))
        self.shut_down()
        self.assert_ended(waiting, STREAM_ACK + SHUTDOWN)
        call.ends()
        self.clock.advance(0)
        self.assertEqual(len(self.spawner.calls), 1)

    def test_clients_that_do_not_leave(self) -> None:
        """Clients that do not close their connections do not hold up the end."""
        connection, _ = self.call()
        left, call = self.call()
        call.says(b'{"result":1}\n')
        self.shut_down()
        self.clock.advance(self.GRACE)
        self.clock.advance(GOODBYE_DEADLINE - 0.1)
        for each in (connection, left):
            self.assertTrue(each.wire.disconnecting)
            self.assertFalse(each.wire.aborted)
        self.clock.advance(0.1)
        for each in (connection, left):
            self.assertTrue(each.wire.aborted)

    def test_call_with_result(self) -> None:
        """A call that has its result gets nothing more."""
        connection, call = self.call()
        call.says(b'{"result":1}\n')
        ended = self.shut_down()
        self.assertEqual(connection.received, ACK + b'{"result":1}\n')
        self.assertFalse(connection.wire.aborted)
        connection.leaves()
        self.successResultOf(ended)

    def test_no_connections(self) -> None:
        """Without connections it has ended at once; those that have gone do not count."""
        self.connect().leaves()
        self.successResultOf(self.shut_down())
        self.assertEqual(self.clock.getDelayedCalls(), [])
