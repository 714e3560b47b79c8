"""Tests of ``harpcaller.connections``: real TLS, in memory and on a clock."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import msgspec
import trustme

from harp import errors
from harp.errors import Origin
from harp.wire import results
from harp.wire.harpd import Ack, Auth, CallRequest, Procedures, Reply
from harp.wire.packets import Packets
from harp.wire.results import EndKind, EndResult
from harpcaller import connections as module
from harpcaller.attempt import Attempt, ask
from harpcaller.connections import IDLE_LIMIT, OLD_FOR, endpoint_by
from harpcaller.harpd_connection import CLOSE_DEADLINE
from harpcaller.hosts import Host
from harpcaller.verdict import Verdict
from tests.harpcaller.memory import (
    HOST,
    HarpdEnd,
    NetworkTestCase,
    awaited,
    connections,
    trust,
    trust_in,
)

RESULT = EndResult(EndKind.RESULT, b'{"free":12}')
INVALID = results.error(errors.INVALID_REQUEST, "unknown field `keepalive`")
VERSION_1 = {
    "harp": 1,
    "procedure": "df",
    "arguments": [],
    "auth": {"user": HOST.user, "password": HOST.password},
}
EXTENDED = VERSION_1 | {
    "keepalive": True,
    "context": {"job_id": "7"},
    "report_lock": True,
    "report_secret": True,
}


def request(**changes: Any) -> CallRequest:
    """Return a call with all extensions."""
    fields: dict[str, Any] = {
        "harp": 1,
        "procedure": "df",
        "arguments": msgspec.Raw(b"[]"),
        "auth": Auth(HOST.user, HOST.password),
        "keepalive": True,
        "context": msgspec.Raw(b'{"job_id":"7"}'),
        "report_lock": True,
        "report_secret": True,
    }
    return CallRequest(**(fields | changes))


class Asker:
    """Asks, and notes what comes of it.

    :ivar told: the replies, and the last one with its origin.
    :ivar then: what it does whenever it is told something.
    """

    attempt: Attempt

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.then: Callable[[], object] = lambda: None

    def received(self, replies: list[Reply]) -> None:
        self.told += replies
        self.then()

    def ended(self, last: EndResult | Procedures, origin: Origin | None) -> None:
        self.told.append((last, origin))
        self.then()


class ConnectionsTestCase(NetworkTestCase):
    """A test with connections.

    :ivar hosts: the hosts registry, in which is what was asked last.
    """

    def setUp(self) -> None:
        """Lay a network between hosts that can change."""
        super().setUp()
        self.hosts: dict[str, Host] = {}
        self.connections = connections(self.network, lookup=self.hosts.get)

    def ask(self, host: Host = HOST, **changes: Any) -> Asker:
        """Ask a harpd."""
        self.hosts[host.name] = host
        asker = Asker()
        asker.attempt = ask(self.connections, host, request(**changes), asker)
        return asker

    def kept(self) -> HarpdEnd:
        """Return harpd's end of a connection that has carried one request and is free."""
        asker = self.ask()
        harpd = self.accept()
        harpd.reply(Ack(False), RESULT)
        self.assertEqual(asker.told, [Ack(False), (RESULT, None)])
        self.assertFalse(harpd.lost)
        return harpd

    def assert_closed(self, asker: Asker) -> None:
        """Check that a request ended because its connection was closed, and was not repeated."""
        last, origin = asker.told[-1]
        self.assertEqual((json.loads(last.value)["type"], origin), ("closed", Origin.NETWORK))
        self.assertEqual(awaited(self.network), 0)

    def assert_nothing_left(self) -> None:
        """Check that no connection is free, and nothing will happen any more."""
        self.assertIsNone(self.connections.take(HOST))
        self.connections.close()
        self.assertEqual(self.network.getDelayedCalls(), [])


class ReuseTests(ConnectionsTestCase):
    """Which connection a request takes."""

    def test_one_after_the_other(self) -> None:
        """Requests that follow each other go over one connection."""
        harpd = self.kept()
        for _ in range(3):
            asker = self.ask()
            harpd.flush()
            harpd.reply(Ack(True), Packets(1, b"1"), RESULT)
            self.assertEqual(asker.told, [Ack(True), Packets(1, b"1"), (RESULT, None)])
        self.assertEqual(awaited(self.network), 0)
        self.assertEqual(harpd.requests, [EXTENDED] * 4)

    def test_at_once(self) -> None:
        """Requests at the same time take a connection each, which are kept for the next ones."""
        askers = [self.ask() for _ in range(3)]
        self.assertEqual(awaited(self.network), 3)
        ends = [self.accept() for _ in range(3)]
        for harpd in ends:
            harpd.reply(Ack(False), RESULT)
        askers += [self.ask() for _ in range(3)]
        self.assertEqual(awaited(self.network), 0)
        for harpd in ends:
            harpd.flush()
            self.assertEqual(len(harpd.requests), 2)
            harpd.reply(Ack(False), RESULT)
        for asker in askers:
            self.assertEqual(asker.told, [Ack(False), (RESULT, None)])

    def test_from_the_end_of_another(self) -> None:
        """Who asks because a request has ended takes the connection of that."""
        second = Asker()

        def ask_again() -> None:
            first.then = lambda: None
            ask(self.connections, HOST, request(), second)

        first = self.ask()
        harpd = self.accept()
        harpd.reply(Ack(False))
        first.then = ask_again
        harpd.reply(RESULT)
        self.assertEqual(awaited(self.network), 0)
        harpd.flush()
        harpd.reply(Ack(False), RESULT)
        self.assertEqual(first.told, [Ack(False), (RESULT, None)])
        self.assertEqual(second.told, first.told)

    def test_another_host(self) -> None:
        """A host with another password or name for its certificate is another host."""
        harpd = self.kept()
        for other in (
            replace(HOST, password="new"),
            replace(HOST, server_name="web01.example.org"),
        ):
            self.ask(other)
            self.assertEqual(awaited(self.network), 1)
            self.accept()
        harpd.flush()
        self.assertEqual(len(harpd.requests), 1)

    def test_not_asked_for(self) -> None:
        """Where the request did not ask for it the connection is closed after the end."""
        self.ask(keepalive=False)
        harpd = self.accept()
        harpd.reply(Ack(False), RESULT)
        self.assertTrue(harpd.lost)
        self.assert_nothing_left()

    def test_refused(self) -> None:
        """After a refusal harpd closes, or it may, so that connection is not kept."""
        for said in (results.error(errors.AUTH_ERROR, ""), results.error(errors.SHUTDOWN, "")):
            asker = self.ask()
            harpd = self.accept()
            harpd.reply(said)
            self.assertEqual(asker.told, [(said, Origin.HARPD)])
            self.assertTrue(harpd.lost)
            self.assert_nothing_left()

    def test_more_behind_the_end(self) -> None:
        """A connection with anything behind the end result is not kept."""
        for more in (b"x", b"{}\n", b"\n"):
            asker = self.ask()
            harpd = self.accept()
            harpd.reply(Ack(False))
            harpd.say(b'{"result":{"free":12}}\n' + more)
            self.assertEqual(asker.told[1:], [(RESULT, None)])
            self.assertTrue(harpd.lost)
            self.assert_nothing_left()

    def test_paused(self) -> None:
        """A connection that was paused when the end came is read from when it is reused."""
        asker = self.ask()
        harpd = self.accept()
        asker.then = lambda: asker.attempt.pause(True)
        harpd.reply(Ack(True))
        self.assertTrue(harpd.near.paused)
        harpd.reply(RESULT)
        harpd.near.paused = False  # what comes had been read already when the pause began
        harpd.near.bufferReceived(harpd.near.other.getOutBuffer())
        self.assertEqual(asker.told, [Ack(True), (RESULT, None)])
        self.assertEqual(harpd.near.resumed, 1)
        self.assertIsNotNone(self.connections.take(HOST))


class FreeTests(ConnectionsTestCase):
    """What becomes of connections that nobody uses."""

    def test_idle_limit(self) -> None:
        """It is closed when it was free for so long; every use begins the time anew."""
        harpd = self.kept()
        self.network.advance(IDLE_LIMIT - 1)
        self.ask()
        harpd.flush()
        self.network.advance(2)
        harpd.reply(Ack(False), RESULT)
        self.network.advance(IDLE_LIMIT - 1)
        harpd.flush()
        self.assertFalse(harpd.lost)
        self.network.advance(1)
        harpd.flush()
        self.assertTrue(harpd.lost)
        self.assertFalse(harpd.near.aborted)
        self.assert_nothing_left()

    def test_most_of_all(self) -> None:
        """When there are too many, the one goes that has been free for longest."""
        self.patch(module, "MAX_FREE", 2)
        hosts = [replace(HOST, name=f"web0{number}") for number in range(4)]
        for host in hosts[:3]:
            self.ask(host)
        ends = [self.accept() for _ in range(3)]
        for harpd in ends:
            harpd.reply(Ack(False), RESULT)
        ends[0].flush()
        self.assertEqual([harpd.lost for harpd in ends], [True, False, False])
        self.ask(hosts[1])  # whose connection has then been free for less long than the other
        ends[1].flush()
        ends[1].reply(Ack(False), RESULT)
        self.ask(hosts[3])
        ends.append(self.accept())
        ends[3].reply(Ack(False), RESULT)
        ends[2].flush()
        self.assertEqual([harpd.lost for harpd in ends], [True, False, True, False])

    def test_many_of_a_host(self) -> None:
        """One host may have all of them; the one used last is used next."""
        askers = [self.ask() for _ in range(40)]
        ends = [self.accept() for _ in askers]
        for harpd in ends:
            harpd.reply(Ack(False), RESULT)
        self.assertEqual([harpd.lost for harpd in ends], [False] * 40)
        self.ask()
        for harpd in ends:
            harpd.flush()
        self.assertEqual([len(harpd.requests) for harpd in ends], [1] * 39 + [2])

    def test_host_changes(self) -> None:
        """When a host has another address or password, or is gone, its connections are closed."""
        names = ("web01", "web02", "web03", "web04")
        known = [replace(HOST, name=name) for name in names]
        for host in known:
            self.ask(host)
        ends = [self.accept() for _ in known]
        for harpd in ends:
            harpd.reply(Ack(False), RESULT)
        self.hosts["web01"] = replace(known[0], password="new")
        self.hosts["web02"] = replace(known[1], address="10.1.2.4")
        del self.hosts["web03"]
        self.connections.hosts_changed()
        for harpd in ends:
            harpd.flush()
        self.assertEqual([harpd.lost for harpd in ends], [True, True, True, False])
        self.assertIsNotNone(self.connections.take(known[3]))
        self.assert_nothing_left()

    def test_host_changes_under_way(self) -> None:
        """A connection in use when its host changes is not kept afterwards."""
        asker = self.ask()
        harpd = self.accept()
        self.hosts[HOST.name] = replace(HOST, password="new")
        self.connections.hosts_changed()
        harpd.reply(Ack(False), RESULT)
        self.assertEqual(asker.told, [Ack(False), (RESULT, None)])
        self.assertTrue(harpd.lost)
        self.assert_nothing_left()

    def test_not_quiet(self) -> None:
        """One over which something has come that is not read yet, be it the end, is not taken."""
        for unread in (b"", b"x", ConnectionResetError):
            other, harpd = self.keep_two()
            harpd.near.unread = unread
            self.ask()
            self.assertEqual(awaited(self.network), 0)
            for each in (other, harpd):
                each.flush()
            self.assertEqual((len(other.requests), len(harpd.requests)), (2, 1))
            self.assertTrue(harpd.lost)
            other.reply(Ack(False), RESULT)
            self.connections.close()
            other.flush()

    def keep_two(self) -> tuple[HarpdEnd, HarpdEnd]:
        """Return two that are free; the second would be taken first."""
        self.ask()
        self.ask()
        ends = self.accept(), self.accept()
        for harpd in ends:
            harpd.reply(Ack(False), RESULT)
        return ends

    def test_harpd_closes(self) -> None:
        """That harpd closes a free one is no error; the next request takes a new one."""
        for close in (HarpdEnd.leave, HarpdEnd.cut):
            harpd = self.kept()
            close(harpd)
            self.assertTrue(harpd.lost)
            self.assert_nothing_left()
            asker = self.ask()
            harpd = self.accept()
            harpd.reply(Ack(False), RESULT)
            self.assertEqual(asker.told, [Ack(False), (RESULT, None)])
            self.connections.close()
            harpd.flush()

    def test_unexpected_data(self) -> None:
        """One over which anything comes that nobody asked for is closed, and not taken."""
        harpd = self.kept()
        harpd.near.other.paused = True  # harpd does not end TLS
        harpd.say(b'{"result":"of nobody"}\n')
        asker = self.ask()
        self.assertEqual(awaited(self.network), 1)
        self.accept().reply(Ack(False), RESULT)
        self.assertEqual(asker.told, [Ack(False), (RESULT, None)])
        self.network.advance(CLOSE_DEADLINE)
        self.assertTrue(harpd.near.aborted)

    def test_dropped(self) -> None:
        """Free connections are closed at once, those in use when they have carried the request."""
        self.ask()
        self.ask()
        free, busy = self.accept(), self.accept()
        free.reply(Ack(False), RESULT)
        asker = self.ask(replace(HOST, name="web02"))
        connecting = self.accept(handshake=False)
        self.connections.use(endpoint_by(self.network, trust()))
        for harpd in (free, busy, connecting):
            harpd.flush()
        self.assertEqual([free.lost, busy.lost, connecting.lost], [True, False, False])
        for harpd in (busy, connecting):
            harpd.reply(Ack(False), RESULT)
            self.assertTrue(harpd.lost)
        self.assertEqual(asker.told, [Ack(False), (RESULT, None)])
        self.assert_nothing_left()

    def test_new_trust(self) -> None:
        """It is the new trust that judges from then on, whatever the old one believed."""
        self.kept()
        self.connections.use(endpoint_by(self.network, trust_in(trustme.CA())))
        asker = self.ask()
        self.assertEqual(self.accept().received, b"")
        self.assertEqual(json.loads(asker.told[0][0].value)["type"], "ssl")


class ResumptionTests(ConnectionsTestCase):
    """Which new connections resume a session; see also ``test_sessions``."""

    def judged(self, host: Host) -> bool:
        """Connect; return whether the certificate was judged."""
        calls = []
        judge = Verdict.__call__

        def judging(verdict: Verdict, *args: Any) -> bool:
            calls.append(args)
            return judge(verdict, *args)

        with patch.object(Verdict, "__call__", judging):
            self.ask(host)
            harpd = self.accept()
            harpd.reply(Ack(False), RESULT)
            harpd.leave()
        self.assertTrue(harpd.lost)
        return bool(calls)

    def test_same_host(self) -> None:
        """A connection with a host that has not changed resumes the session of one before."""
        self.assertEqual([self.judged(HOST) for _ in range(3)], [True, False, False])

    def test_another_host(self) -> None:
        """With another name, address, port, password or name for its certificate it does not."""
        self.judged(HOST)
        for change in (
            {"name": "web02"},
            {"address": "10.1.2.3."},
            {"port": 4307},
            {"password": "new"},
            {"server_name": HOST.address},
        ):
            self.assertTrue(self.judged(replace(HOST, **change)), change)

    def test_another_trust(self) -> None:
        """Under a trust that came into force since, it does not, be it an equal one."""
        self.judged(HOST)
        self.connections.use(endpoint_by(self.network, trust()))
        self.assertTrue(self.judged(HOST))


class SecondTryTests(ConnectionsTestCase):
    """When a request is sent again, which is only when harpd can't have taken up the first."""

    def test_closed_in_good_order(self) -> None:
        """A kept connection that harpd was just closing is replaced by a new one."""
        harpd = self.kept()
        harpd.begin_to_leave()
        asker = self.ask()
        self.assertEqual(awaited(self.network), 0)
        harpd.flush()
        self.assertEqual(asker.told, [])
        second = self.accept()
        self.assertEqual(second.requests, [EXTENDED])
        second.reply(Ack(False), RESULT)
        self.assertEqual(asker.told, [Ack(False), (RESULT, None)])

    def test_once(self) -> None:
        """The new one is not replaced: harpd may have taken up the request by then."""
        harpd = self.kept()
        harpd.begin_to_leave()
        asker = self.ask()
        harpd.flush()
        self.accept().leave()
        self.assert_closed(asker)
        self.assert_nothing_left()

    def test_new_connection(self) -> None:
        """A request over a new connection is not sent again."""
        asker = self.ask()
        self.accept().leave()
        self.assert_closed(asker)
        self.assert_nothing_left()

    def test_after_a_reply(self) -> None:
        """Where harpd has replied anything, be it part of a line, the call may have begun."""
        for said in (b'{"harp":1,"stream_result":false}\n', b"{"):
            harpd = self.kept()
            asker = self.ask()
            harpd.flush()
            harpd.say(said)
            harpd.leave()
            self.assert_closed(asker)
            self.assert_nothing_left()

    def test_cut(self) -> None:
        """A connection that broke without an end of TLS says nothing of what harpd took up."""
        harpd = self.kept()
        asker = self.ask()
        harpd.flush()
        harpd.cut()
        self.assert_closed(asker)
        self.assert_nothing_left()

    def test_cancelled_meanwhile(self) -> None:
        """A request that is not wanted any more is not sent again."""
        harpd = self.kept()
        harpd.begin_to_leave()
        asker = self.ask()
        asker.attempt.cancel()
        harpd.flush()
        self.assertEqual((awaited(self.network), asker.told), (0, []))
        self.assert_nothing_left()


class OldHarpdTests(ConnectionsTestCase):
    """A harpd that does not know the extensions."""

    def refused(self) -> Asker:
        """Return who asked a harpd that refused the extensions."""
        asker = self.ask()
        harpd = self.accept()
        self.assertEqual(harpd.requests, [EXTENDED])
        harpd.reply(INVALID)
        self.assertEqual(asker.told, [])
        return asker

    def test_asked_again(self) -> None:
        """It is asked again as version 1 has it, over a new connection, and that is remembered."""
        asker = self.refused()
        harpd = self.accept()
        self.assertEqual(harpd.requests, [VERSION_1])
        harpd.reply(Ack(True), Packets(1, b"1"))
        harpd.reply(RESULT)
        self.assertEqual(asker.told, [Ack(True), Packets(1, b"1"), (RESULT, None)])
        self.assertTrue(harpd.lost)
        for moment in (0, OLD_FOR - 1):
            self.network.advance(moment)
            self.ask()
            harpd = self.accept()
            self.assertEqual(harpd.requests, [VERSION_1])
            harpd.reply(Ack(False), RESULT)
        self.assert_nothing_left()

    def test_known_at_once(self) -> None:
        """That it is old is known as soon as it has accepted a plain request."""
        self.refused()
        self.accept().reply(Ack(True))
        self.ask()
        self.assertEqual(self.accept().requests, [VERSION_1])

    def test_asked_for_the_extensions_again(self) -> None:
        """After a while it is asked for them again: it may have been replaced by a newer one."""
        self.refused()
        self.accept().reply(Ack(False), RESULT)
        self.network.advance(OLD_FOR)
        self.ask()
        self.assertEqual(self.accept().requests, [EXTENDED])

    def test_other_hosts(self) -> None:
        """That one is old says nothing of others."""
        self.refused()
        self.accept().reply(Ack(False), RESULT)
        self.ask(replace(HOST, name="web02"))
        self.assertEqual(self.accept().requests, [EXTENDED])

    def test_other_refusal_then(self) -> None:
        """One that then refuses for a reason of its own is old all the same."""
        asker = self.refused()
        error = results.error(errors.NO_SUCH_PROCEDURE, "no procedure df")
        self.accept().reply(error)
        self.assertEqual(asker.told, [(error, Origin.HARPD)])
        self.ask()
        self.assertEqual(self.accept().requests, [VERSION_1])

    def test_not_its_age(self) -> None:
        """One that refuses the plain request as well is not taken for an old one."""
        asker = self.refused()
        harpd = self.accept()
        self.assertEqual(harpd.requests, [VERSION_1])
        error = results.error(errors.INVALID_REQUEST, "too long")
        harpd.reply(error)
        self.assertEqual(asker.told, [(error, Origin.HARPD)])
        self.assertEqual(awaited(self.network), 0)
        self.ask()
        self.assertEqual(self.accept().requests, [EXTENDED])

    def test_lost_then(self) -> None:
        """One that goes away at the plain request has not shown its age."""
        asker = self.refused()
        self.accept().leave()
        self.assert_closed(asker)
        self.ask()
        self.assertEqual(self.accept().requests, [EXTENDED])

    def test_after_the_acknowledgement(self) -> None:
        """A request that was acknowledged is never sent again: the call has begun."""
        asker = self.ask()
        self.accept().reply(Ack(False), INVALID)
        self.assertEqual(asker.told, [Ack(False), (INVALID, Origin.HARPD)])
        self.connections.close()
        asker = self.ask()
        harpd = self.accept()
        harpd.reply(Ack(False))
        harpd.reply(INVALID)
        self.assertEqual(asker.told, [Ack(False), (INVALID, Origin.HARPD)])
        self.assertEqual(awaited(self.network), 0)

    def test_other_errors(self) -> None:
        """Other refusals have nothing to do with the extensions."""
        for type in (errors.AUTH_ERROR, errors.NO_SUCH_PROCEDURE, errors.SHUTDOWN):
            asker = self.ask()
            error = results.error(type, "")
            self.accept().reply(error)
            self.assertEqual(asker.told, [(error, Origin.HARPD)])
            self.assertEqual(awaited(self.network), 0)

    def test_without_extensions(self) -> None:
        """A request that used none is not sent again."""
        asker = self.ask(
            keepalive=False, context=msgspec.UNSET, report_lock=False, report_secret=False
        )
        harpd = self.accept()
        self.assertEqual(harpd.requests, [VERSION_1])
        harpd.reply(INVALID)
        self.assertEqual(asker.told, [(INVALID, Origin.HARPD)])
        self.assertEqual(awaited(self.network), 0)

    def test_cancelled_meanwhile(self) -> None:
        """The second connection is given up like the first."""
        asker = self.refused()
        asker.attempt.cancel()
        self.assertEqual((awaited(self.network), asker.told), (0, []))
        self.assert_nothing_left()


class CancelTests(ConnectionsTestCase):
    """Requests that are not wanted any more."""

    def test_running(self) -> None:
        """The connection is closed, which ends the call; nothing more is told, nothing kept."""
        asker = self.ask()
        harpd = self.accept()
        harpd.reply(Ack(True))
        asker.attempt.cancel()
        harpd.reply(Packets(1, b"1"), RESULT)
        self.assertTrue(harpd.lost)
        self.assertEqual(asker.told, [Ack(True)])
        self.assert_nothing_left()

    def test_because_of_a_reply(self) -> None:
        """Who cancels because of a packet is not told the end that came with it."""
        for last in (b'{"result":1}\n', b"nonsense\n", b""):
            asker = self.ask()
            harpd = self.accept()
            asker.then = asker.attempt.cancel
            harpd.say(b'{"harp":1,"stream_result":true}\n{"stream":1}\n' + last)
            self.assertEqual(asker.told, [Ack(True), Packets(1, b"1")])
            self.connections.close()
            harpd.flush()
            self.assertTrue(harpd.lost)
            self.assert_nothing_left()

    def test_used_after_its_end(self) -> None:
        """Whoever still pauses or cancels a request that is over does not touch the connection."""
        asker = self.ask()
        harpd = self.accept()
        harpd.reply(Ack(False), RESULT)
        second = self.ask()
        asker.attempt.pause(True)
        asker.attempt.cancel()
        self.assertFalse(asker.attempt.paused)
        harpd.flush()
        harpd.reply(Ack(False), RESULT)
        self.assertEqual(second.told, [Ack(False), (RESULT, None)])

    def test_paused_while_closing(self) -> None:
        """A connection that is being closed can't be paused, or it would never be closed."""
        asker = self.ask()
        harpd = self.accept()
        asker.then = lambda: asker.attempt.pause(True)
        harpd.say(b'{"harp":1,"stream_result":true}\n{"stream":1}\nnonsense\n')
        self.assertEqual((harpd.lost, harpd.near.paused), (True, False))
        self.assert_nothing_left()
        asker = self.ask()
        harpd = self.accept()
        harpd.reply(Ack(True))
        asker.attempt.cancel()
        asker.attempt.pause(True)
        harpd.flush()
        self.assertEqual((harpd.lost, harpd.near.paused), (True, False))
        self.assert_nothing_left()
