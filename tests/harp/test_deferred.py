"""Tests of ``harp.deferred``: what Deferred mode has in common with the blocking one, and alone."""

from __future__ import annotations

import gc
import inspect
import socket
import threading
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase

import harp
from harp import deferred
from tests.harp.modes import ContractTestCase, Deferring, both_modes, identity
from tests.harp.peer import PATIENCE, Script, reset, slowly, until
from tests.harp.test_dispatcher_wire import ID
from tests.harp.test_harpd_wire import FAULT

JOB = b'{"harpcaller":1,"job_id":"%b"}\n' % ID.encode()
PACKETS = b'{"packet":3,"data":{"a":[1.5]}}\n{"packet":4,"data":null}\n'
VALUES = [{"a": [1.5]}, None]
DONE = b'{"result":7}\n'
UNKNOWN = b'{"error":{"type":"invalid_jobid","message":"no such job"}}\n'
STATUS = (
    b'{"call":{"host":"h","procedure":"p","arguments":[1]},'
    b'"time":{"submit":10,"start":11,"end":12},"info":{"by":"x"}}\n'
)


class Jobs(ContractTestCase):
    """Jobs are submitted and asked about; the two modes can't be told apart."""

    def job(self, *scripts: Script) -> Any:
        """Return the job whose dispatcher follows these scripts."""
        return self.caller(self.peer(*scripts).port).job(ID)

    async def test_submit(self) -> None:
        """The three ways to name a host, arguments and options."""
        peer = self.peer(slowly(JOB), [JOB], [JOB])
        rpc = self.caller(peer.port)
        for server in (rpc.web01, rpc("web01"), rpc.host("web01")):
            self.assertIsInstance(server, self.mode.module.RemoteServer)
            job = await self.mode.done(server.run_foo(1))
            self.assertIsInstance(job, self.mode.module.RemoteCall)
            self.assertEqual(job.id(), ID)
        line = b'{"harpcaller":1,"host":"web01","procedure":"run_foo","arguments":[1]}\n'
        self.assertEqual(peer.requests, [line] * 3)
        await self.failure(TypeError, lambda: rpc.web01.run(1, size=2))

    async def test_ends(self) -> None:
        """A job's end is returned by one method and raised by the other."""
        ends: list[tuple[bytes, Any, type[Exception] | None]] = [
            (DONE, 7, None),
            (b'{"exception":%b}\n' % FAULT, None, harp.RemoteException),
            (b'{"error":%b}\n' % FAULT, None, harp.RemoteError),
            (b'{"cancelled":true}\n', harp.CALL_CANCELLED, harp.CancelledException),
        ]
        for line, value, kind in ends:
            found = await self.mode.done(self.job([line]).result(wait=True))
            if kind is None:
                self.assertEqual(found, value)
                self.assertEqual(await self.mode.done(self.job([line]).get()), value)
            else:
                self.assertTrue(found is value or isinstance(found, kind))
                await self.failure(kind, self.job([line]).get)
        found = await self.mode.done(self.job([b'{"no_result":true}\n']).result())
        self.assertIs(found, harp.CALL_NOT_FINISHED)

    async def test_status(self) -> None:
        """One request tells all that will not change."""
        peer = self.peer([STATUS])
        job = self.caller(peer.port).job(ID)
        for method, value in [
            (job.host, "h"),
            (job.procedure, "p"),
            (job.args, [1]),
            (job.info, {"by": "x"}),
            (job.submit_time, 10),
            (job.start_time, 11),
            (job.end_time, 12),
        ]:
            self.assertEqual(await self.mode.done(method()), value)
        self.assertEqual(len(peer.requests), 1)

    async def test_packets(self) -> None:
        """Packets come in their order, however the replies are cut on their way."""
        for read in ("stream", "follow"):
            for script in ([PACKETS + DONE], slowly(PACKETS + DONE)):
                packets = getattr(self.job(script), read)()
                self.assertIsInstance(packets, self.mode.module.StreamIterator)
                self.assertEqual(await self.mode.items(packets), VALUES)
                self.assertEqual(await self.mode.items(packets), [])
            packets = getattr(self.job([PACKETS + DONE]), read)(numbered=True)
            self.assertEqual(await self.mode.done(packets.all()), [(3, VALUES[0]), (4, None)])
            with self.assertRaises(ValueError):
                getattr(self.job(), read)(since=-1)

    async def test_failing_packets(self) -> None:
        """What arrived whole is given, then the failure is raised, then it is over."""
        cases: list[tuple[list[Any], type[Exception]]] = [
            ([PACKETS], harp.CommunicationError),
            ([PACKETS + b"garbage\n"], harp.CommunicationError),
            ([PACKETS + UNKNOWN], harp.RemoteError),
        ]
        for script, kind in cases:
            packets = self.job(script).follow()
            found = [await self.mode.next(packets), await self.mode.next(packets)]
            self.assertEqual(found, VALUES)
            with self.assertRaises(kind):
                await self.mode.next(packets)
            self.assertEqual(await self.mode.items(packets), [])

    async def test_broken(self) -> None:
        """A conversation that breaks off is told in the same words."""
        cases: list[tuple[list[Any], str]] = [
            ([], "the connection was closed"),
            ([b'{"harp'], "the connection was closed"),
            ([b"garbage\n"], "reply can't be understood: .*"),
            ([b'{"cancelled":true}\n'], "the dispatcher answered Call with CancelOutcome"),
        ]
        for script, reason in cases:
            peer = self.peer(script)
            error = await self.failure(harp.CommunicationError, self.caller(peer.port).web01.run)
            self.assertRegex(
                str(error),
                f"^127.0.0.1:{peer.port}: Call without a whole reply: {reason}"
                "; the call may have been submitted$",
            )
        await self.failure(harp.CommunicationError, self.job([reset]).cancel)

    async def test_not_reached(self) -> None:
        """Where nothing listens nothing was sent, and the reason is told in the same words."""
        with socket.socket() as taken:  # bound, but it does not listen
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
            rpc = self.caller(port)
            for ask in (rpc.web01.run, rpc.job(ID).get, rpc.job(ID).cancel):
                error = await self.failure(harp.CommunicationError, ask)
                self.assertEqual(str(error), f"127.0.0.1:{port}: can't connect: Connection refused")
                self.assertFalse(error.may_have_run)
        error = await self.failure(
            harp.CommunicationError,
            self.mode.module.HarpCaller(*self.mode.first, "x" * 64 + ".example").job(ID).get,
        )
        self.assertRegex(str(error), r"^x{64}\.example:3502: can't connect: ")

    async def test_silence(self) -> None:
        """A dispatcher that does not answer in time is given up."""
        done = threading.Event()
        peer = self.peer([until(done)])
        self.addCleanup(done.set)
        rpc = self.caller(peer.port, reply_timeout=0.05)
        error = await self.failure(harp.CommunicationError, rpc.job(ID).cancel)
        self.assertIn("Cancel without a whole reply: nothing came for 0.05 seconds", str(error))

    async def test_leaving_early(self) -> None:
        """A reader that leaves or is dropped closes the connection; there are no more packets."""

        def leave_open(packets: Any) -> None:
            """Let the caller drop it."""

        for leave in (self.mode.module.StreamIterator.close, leave_open):
            closed = threading.Event()
            packets = self.job([PACKETS, _notice(closed)]).follow()
            self.assertEqual(await self.mode.next(packets), VALUES[0])
            leave(packets)
            if leave is not leave_open:
                self.assertEqual(await self.mode.items(packets), [])
            del packets
            gc.collect()
            self.assertTrue(await deferToThread(closed.wait, PATIENCE))


def _notice(closed: threading.Event) -> Any:
    def wait(connection: socket.socket) -> None:
        try:
            while connection.recv(1):
                pass
        except OSError:
            pass
        closed.set()

    return wait


class SameFaceTests(SynchronousTestCase):
    """Both modes have the same classes, methods and parameters."""

    def test_names_and_parameters(self) -> None:
        """Each public method of one mode is there in the other, takes the same, and is told of."""
        for name in deferred.__all__:
            ours, theirs = getattr(deferred, name), getattr(harp, name)
            methods = {each for each in dir(theirs) if not each.startswith("_")}
            self.assertEqual({each for each in dir(ours) if not each.startswith("_")}, methods)
            for method in methods - {"StreamIterator"}:
                mine, other = getattr(ours, method), getattr(theirs, method)
                self.assertEqual(inspect.signature(mine), inspect.signature(other), method)
                self.assertTrue(inspect.getdoc(mine), method)
                self.assertEqual(mine.__name__, method)
        for name in ("HarpCaller", "HarpServer"):
            ours, theirs = getattr(deferred, name), getattr(harp, name)
            parameters = list(inspect.signature(ours).parameters.values())
            self.assertEqual(parameters[0].name, "reactor")
            self.assertEqual(parameters[1:], list(inspect.signature(theirs).parameters.values()))


class CancellingTests(ContractTestCase):
    """What becomes of a Deferred that is cancelled."""

    mode = Deferring()

    async def test_get(self) -> None:
        """Who cancels `get` waits no more: the connection is closed, and nothing more is sent."""
        asked, closed = threading.Event(), threading.Event()
        peer = self.peer([lambda _: asked.set(), _notice(closed)])
        waiting = self.caller(peer.port).job(ID).get()
        self.assertTrue(await deferToThread(asked.wait, PATIENCE))
        waiting.cancel()
        with self.assertRaises(CancelledError):
            await waiting
        self.assertTrue(await deferToThread(closed.wait, PATIENCE))
        self.assertEqual(peer.requests, [b'{"harpcaller":1,"get_result":"%b"}\n' % ID.encode()])

    async def test_while_connecting(self) -> None:
        """Nothing is left of a request that was cancelled before it connected."""
        waiting = self.caller(self.peer().port).job(ID).get()
        waiting.cancel()
        with self.assertRaises(CancelledError):
            await waiting

    async def test_follower(self) -> None:
        """Cancelling what reads packets closes their connection."""
        closed = threading.Event()
        packets = self.caller(self.peer([PACKETS, _notice(closed)]).port).job(ID).follow()
        found: list[Any] = []

        async def read() -> None:
            async for packet in packets:
                found.append(packet)

        reading = Deferred.fromCoroutine(read())
        while len(found) < 2:
            await deferLater(reactor, 0, lambda: None)
        reading.cancel()
        with self.assertRaises(CancelledError):
            await reading
        self.assertTrue(await deferToThread(closed.wait, PATIENCE))
        self.assertEqual(found, VALUES)

    async def test_closed_while_it_is_read(self) -> None:
        """Closing an iterator ends a loop that waits for its next packet."""
        closed = threading.Event()
        packets = self.caller(self.peer([PACKETS, _notice(closed)]).port).job(ID).follow()
        async with packets:
            self.assertEqual([await anext(packets), await anext(packets)], VALUES)
            rest = packets.all()
        self.assertEqual(await rest, [])
        self.assertTrue(await deferToThread(closed.wait, PATIENCE))

    async def test_direct_call(self) -> None:
        """Cancelling a direct call closes its connection; so does closing its iterator."""
        for ack in (b"false", b"true"):
            closed = threading.Event()
            line = b'{"harp":1,"stream_result":%b}\n' % ack
            peer = self.peer([line, _notice(closed)], knows_version_1=False, tls=identity())
            waiting = self.server(peer.port).run()
            if ack == b"true":
                packets = await waiting
                waiting = packets.all()
                packets.close()
                self.assertEqual(await waiting, [])
            else:
                while not peer.requests:
                    await deferLater(reactor, 0, lambda: None)
                waiting.cancel()
                with self.assertRaises(CancelledError):
                    await waiting
            self.assertTrue(await deferToThread(closed.wait, PATIENCE))

    async def test_failure_that_nobody_reads(self) -> None:
        """A stream that could not be asked for and is not read is not logged as an error."""
        packets = self.caller(1).job(ID).follow()
        with self.assertRaisesRegex(harp.CommunicationError, "can't connect"):
            await packets.all()
        dropped = self.caller(1).job(ID).follow()
        opening = dropped._opening
        assert opening is not None
        await opening
        del dropped, opening
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])


globals().update(both_modes(Jobs))
del Jobs
