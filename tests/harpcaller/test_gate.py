"""Tests of ``harpcaller.gate``, through connections: who gets in, and how little others get."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from harp.addresses import FIRST_DELAY
from harp.wire import dispatcher as wire
from harpcaller.connection import CLOSE_DEADLINE, LINGER, LOGIN_LINE, Answer
from harpcaller.identities import Identity, User, Users
from harpcaller.terms import REQUEST_TIMEOUT, ClientLimits, Terms
from tests.harpcaller.clients import Client, TcpEnd, gate

TOKEN, OTHER = "harp_" + 43 * "a", "harp_" + 43 * "b"


def users(**by_token: str) -> Users:
    """Return users with their tokens; the panel is trusted."""
    known = {name: User(name, is_trusted=name == "panel") for name in by_token}
    hashes = {
        hashlib.sha256(token.encode()).hexdigest(): known[name] for name, token in by_token.items()
    }
    return Users(tuple(known.values()), tokens=hashes)


def request(token: str | None = None, more: dict[str, Any] | None = None, **auth: str) -> bytes:
    """Return a request line."""
    auth = auth if token is None else {"token": token, **auth}
    line: dict[str, Any] = {"harpcaller": 1} | ({"auth": auth} if auth else {})
    return json.dumps(line | {"get_result": "a"} | (more or {})).encode() + b"\n"


KEPT = {"keepalive": True}
LONG = {"host": "h", "procedure": "p", "arguments": ["x" * 900_000]}


def call(token: str | None = None) -> bytes:
    """Return a request that is longer than anybody's may be who is not known."""
    auth = {} if token is None else {"auth": {"token": token}}
    return json.dumps({"harpcaller": 1} | auth | LONG).encode() + b"\n"


class GateTestCase(SynchronousTestCase):
    """A test with a port that others than this machine's programs can reach.

    :ivar answers: what those asked who got in.
    """

    def setUp(self) -> None:
        """Know two users by their tokens."""
        self.clock = Clock()
        self.answers: list[Answer] = []
        self.gate = gate(self.clock, users=users(panel=TOKEN, ann=OTHER))

    def connected(self, is_local: bool = False, host: str = "10.0.0.1") -> Client:
        """Return a client that has said nothing yet."""
        address = IPv4Address("TCP", host, 1025)
        return Client(self.clock, self.respond, TcpEnd(), self.gate, is_local, address)

    def respond(self, answer: Answer) -> None:
        """Answer who got in."""
        self.answers.append(answer)
        answer.finish(wire.NoResult())

    def asked(self, line: bytes, is_local: bool = False) -> Identity:
        """Return who the client is that sends a line and gets in."""
        client = self.connected(is_local)
        client.say(line)
        self.assertEqual(client.got, b'{"no_result":true}\n')
        client.leave()
        return self.answers.pop().identity

    def assert_refused(self, client: Client, type: str = "not_authenticated") -> str:
        """Check that a client got this error alone, in the end; return the message."""
        self.assertEqual(self.answers, [])
        error = json.loads(client.got)["error"]
        self.assertEqual(error["type"], type)
        return str(error["message"])


class IdentityTests(GateTestCase):
    """Who it is that asks."""

    def test_token(self) -> None:
        """A token says who asks, wherever it comes in."""
        for is_local in (False, True):
            who = self.asked(request(OTHER), is_local)
            self.assertEqual(who, Identity("ann", peer="10.0.0.1"))

    def test_nobody(self) -> None:
        """Without a login only this machine's programs get in, or all where that is insecure."""
        self.assertEqual(self.asked(request(), True), Identity(None, peer="10.0.0.1"))
        client = self.connected()
        client.say(request())
        self.clock.advance(FIRST_DELAY)
        self.assertIn("a token or a client certificate is needed", self.assert_refused(client))
        self.gate.use(Terms(insecure=True))
        self.assertEqual(self.asked(request()), Identity(None, peer="10.0.0.1"))

    def test_unknown_token(self) -> None:
        """A token that is not known is refused also where none is needed, and shown nowhere."""
        unknown = "harp_unknown"
        for is_local, insecure in ((False, False), (True, False), (False, True), (True, True)):
            self.gate.use(Terms(self.gate.terms.users, insecure=insecure))
            client = self.connected(is_local)
            with capturedLogs() as logged:
                client.say(request(unknown))
            self.clock.advance(10)
            message = self.assert_refused(client)
            self.assertNotIn(unknown, message + str(logged))
            (line,) = [each["audit"] for each in logged if "audit" in each]
            expected = {"decision": "refused", "action": "get_result", "job_id": "a"}
            self.assertEqual(line, expected | {"peer": "10.0.0.1", "reason": message})

    def test_on_behalf_of(self) -> None:
        """A trusted user may name the person for whom it asks; nobody else may."""
        who = self.asked(request(TOKEN, on_behalf_of="bob"))
        self.assertEqual((who.name, who.on_behalf_of), ("panel", "bob"))
        for token, is_local in ((OTHER, False), (None, True)):
            client = self.connected(is_local)
            with capturedLogs() as logged:
                client.say(request(token, on_behalf_of="bob"))
            self.assertIn("on_behalf_of", self.assert_refused(client, "not_allowed"))
            (line,) = [each["audit"] for each in logged if "audit" in each]
            self.assertEqual((line["decision"], line["on_behalf_of"]), ("refused", "bob"))
            self.assertEqual(line.get("user"), "ann" if token else None)

    def test_each_request(self) -> None:
        """Each request on a connection says for itself who asks."""
        client = self.connected(True)
        for token, name in ((TOKEN, "panel"), (None, None), (OTHER, "ann"), (None, None)):
            client.say(request(token, KEPT))
            self.assertEqual(self.answers.pop().identity.name, name)

    def test_other_users(self) -> None:
        """Users that are changed are changed for connections that there are."""
        client = self.connected()
        client.say(request(TOKEN, KEPT))
        self.assertEqual(self.answers.pop().identity.name, "panel")
        self.gate.use(Terms(users(new=TOKEN)))
        client.say(request(TOKEN, KEPT))
        self.assertEqual(self.answers.pop().identity.name, "new")
        client.take()
        self.gate.use(Terms())
        client.say(request(TOKEN, KEPT))
        self.clock.advance(FIRST_DELAY)
        self.assert_refused(client)
        local = self.connected(True)
        local.say(request(None, KEPT))
        self.assertIsNone(self.answers.pop().identity.name)


class FailureTests(GateTestCase):
    """What becomes of those who do not get in."""

    def test_slowed_down(self) -> None:
        """Each failure of an address is answered later; who knows the word is answered at once."""
        for delay in (FIRST_DELAY, 2 * FIRST_DELAY):
            client = self.connected()
            client.say(request("harp_unknown"))
            self.clock.advance(delay - 0.01)
            self.assertEqual(client.got, b"")
            self.asked(request(TOKEN))
            self.clock.advance(0.01)
            self.assert_refused(client)
        other = self.connected(host="10.0.0.2")
        other.say(request("harp_unknown"))
        self.clock.advance(FIRST_DELAY)
        self.assert_refused(other)

    def test_the_end(self) -> None:
        """The connection ends with the refusal, and is cut if the client does not end it."""
        client = self.connected()
        client.say(request("harp_unknown", KEPT))
        self.clock.advance(FIRST_DELAY)
        self.assert_refused(client)
        self.assertTrue(client.is_closed)
        client.say(request(TOKEN, KEPT))
        self.assertEqual(self.answers, [])
        self.clock.advance(LINGER - 1)
        self.assertFalse(client.is_cut)
        self.clock.advance(1)
        self.assertTrue(client.is_cut)

    def test_client_that_leaves(self) -> None:
        """Nothing waits for a client that does not wait for its refusal."""
        client = self.connected()
        client.say(request())
        client.leave()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(client.transport.late, b"")

    def test_client_that_has_said_its_last_word(self) -> None:
        """It gets to read why it was refused."""
        client = self.connected()
        client.say(request())
        client.end()
        self.clock.advance(FIRST_DELAY)
        self.assert_refused(client)


class TimeTests(GateTestCase):
    """How long somebody may take of whom nothing is known."""

    def test_without_login(self) -> None:
        """Who may be anybody has ten seconds for the request; others have as before."""
        for is_local, insecure, limit in (
            (False, False, 10.0),  # the promise, see LOGIN_DEADLINE
            (True, False, REQUEST_TIMEOUT),
            (False, True, REQUEST_TIMEOUT),
        ):
            self.gate.use(Terms(insecure=insecure))
            client = self.connected(is_local)
            client.say(b"{")
            self.clock.advance(limit - 1)
            self.assertFalse(client.is_cut)
            self.clock.advance(1)
            self.assertTrue(client.is_cut)
            client.leave()

    def test_known_token(self) -> None:
        """Whose token is right in the beginning of a long line has the time of others."""
        client = self.connected()
        client.say(call(TOKEN)[: LOGIN_LINE + 1])
        self.clock.advance(REQUEST_TIMEOUT - 1)
        self.assertFalse(client.is_cut)
        self.clock.advance(1)
        self.assertTrue(client.is_cut)

    def test_configured(self) -> None:
        """The limits after the login are those of the configuration."""
        self.gate.use(Terms(insecure=True, limits=ClientLimits(request_timeout=3, idle_timeout=2)))
        client = self.connected()
        self.clock.advance(2.5)
        client.say(request(None, KEPT))
        self.clock.advance(1.5)
        self.assertTrue(client.is_open)
        self.clock.advance(0.5)
        self.assertTrue(client.is_closed)
        other = self.connected()
        self.clock.advance(3)
        self.assertTrue(other.is_cut)

    def test_slow_taker(self) -> None:
        """Who got in may take its time with the answer."""
        client = self.connected()
        client.say(request(TOKEN))
        self.clock.advance(CLOSE_DEADLINE - 1)
        self.assertFalse(client.is_cut)
        self.clock.advance(1)
        self.assertTrue(client.is_cut)


class SizeTests(GateTestCase):
    """How much somebody may send of whom nothing is known."""

    def send(self, line: bytes, piece: int, is_local: bool = False) -> Client:
        """Return a client that sends a line in pieces."""
        client = self.connected(is_local)
        for start in range(0, len(line), piece):
            client.say(line[start : start + piece])
        return client

    def test_without_login(self) -> None:
        """A long line is refused as soon as it is too long, and nothing of it is kept."""
        for piece in (1000, 65536, 2**20):
            client = self.connected()
            client.say(call()[:LOGIN_LINE])
            self.assertEqual(client.got, b"")
            client.say(call()[LOGIN_LINE : LOGIN_LINE + piece])
            self.assertIn(str(LOGIN_LINE), self.assert_refused(client, "invalid_request"))
            for _ in range(100):
                client.say(b"x" * 65536)
            self.assertLess(client.protocol._reader.size, 2**20)
            self.clock.advance(LINGER)
            self.assertTrue(client.is_cut)

    def test_known_token(self) -> None:
        """Who shows a token that is right may send a long line, in whatever pieces."""
        for piece in (1000, 65536, 2**20):
            self.send(call(TOKEN), piece)
            self.assertEqual(self.answers.pop().identity.name, "panel")

    def test_unknown_token(self) -> None:
        """Who shows one that is not is refused for that."""
        for piece in (1000, 65536, 2**20):
            with capturedLogs() as logged:
                client = self.send(call("harp_unknown"), piece)
            self.clock.advance(10)
            self.assert_refused(client)
            (line,) = [each["audit"] for each in logged if "audit" in each]
            self.assertEqual(line["decision"], "refused")
            # What a long line asks is not looked at before it is known who does.
            self.assertEqual(line["action"], "unknown")

    def test_no_need_of_a_token(self) -> None:
        """Who gets in without one may send a long line, as ever."""
        self.send(call(), 65536, is_local=True)
        self.assertIsNone(self.answers.pop().identity.name)

    def test_short_of_the_limit(self) -> None:
        """A line within the limit may have its token where it likes."""
        line = {"host": "h", "procedure": "p", "arguments": ["x" * 60_000]}
        late = line | {"auth": {"token": TOKEN}, "harpcaller": 1}
        self.send(json.dumps(late).encode() + b"\n", 1000)
        self.assertEqual(self.answers.pop().identity.name, "panel")

    def test_configured(self) -> None:
        """The longest request is that of the configuration."""
        self.gate.use(Terms(insecure=True, limits=ClientLimits(request=100_000)))
        client = self.send(call(), 65536)
        self.assertIn("100000", self.assert_refused(client, "invalid_request"))


class CrowdTests(GateTestCase):
    """Connections are counted while they are there."""

    def test_counted(self) -> None:
        """Each connection counts from its beginning to its end."""
        self.gate.use(Terms(limits=ClientLimits(connections=2)))
        address = IPv4Address("TCP", "10.0.0.1", 1025)
        clients = [self.connected(), self.connected()]
        self.assertFalse(self.gate.admits(address))
        clients[0].leave()
        self.assertTrue(self.gate.admits(address))
