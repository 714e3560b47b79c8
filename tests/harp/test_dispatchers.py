"""Tests of ``harp.dispatchers`` and ``harp.questions`` in both modes."""

from __future__ import annotations

import copy
import json
import os
import pickle
import socket
import threading
from typing import Any

from twisted.internet.threads import deferToThread

import harp
from harp import pool, questions
from harp.wire.dispatcher import EXTENSIONS
from tests.harp.modes import Blocking, ContractTestCase, both_modes, hear
from tests.harp.peer import PATIENCE, REFUSAL, Script, ScriptedDispatcher, reset, until
from tests.harp.test_dispatcher_wire import ID

JOB = b'{"harpcaller":1,"job_id":"%b"}\n' % ID.encode()
FALSE = b'{"cancelled":false}\n'


def info(*extensions: str) -> bytes:
    """Return what a dispatcher with these extensions says of itself, all if none are given."""
    names = json.dumps(extensions or EXTENSIONS).encode()
    return b'{"harpcaller":1,"version":"1.0","extensions":%b}\n' % names


def closed(event: threading.Event) -> Any:
    """Wait for the client to close the connection, then say so."""

    def wait(connection: socket.socket) -> None:
        try:
            while connection.recv(1):
                pass
        except OSError:
            pass
        event.set()

    return wait


def is_closing(connection: socket.socket) -> None:
    """End the connection now."""
    connection.shutdown(socket.SHUT_RDWR)


class Extensions(ContractTestCase):
    """What a dispatcher offers is used, and only that."""

    def setUp(self) -> None:
        """Do not wait before a call is sent again."""
        self.patch(questions, "REPEATS", (0, 0, 0))
        self.lines: list[bytes] = []

    def dispatcher(self, *scripts: Script) -> ScriptedDispatcher:
        """Return one that is asked what it offers like anything else."""
        return self.peer(*scripts, knows_version_1=False)

    def requests(self) -> list[dict[str, Any]]:
        """Return what was heard behind the first lines of connections."""
        return [json.loads(line) for line in self.lines]

    async def test_one_connection(self) -> None:
        """Requests follow each other on one connection, which is asked once what is offered."""
        heard = hear(self.lines)
        status = (
            b'{"call":{"host":"h","procedure":"p","arguments":[]},'
            b'"time":{"submit":1,"start":null,"end":null},"info":null}\n'
        )
        peer = self.dispatcher(
            [
                *(info(), heard, JOB),
                *(heard, b'{"packet":0,"data":1}\n{"result":7}\n'),
                *(heard, b'{"result":7,"detail":{"origin":null,"may_have_run":true,"time":1}}\n'),
                *(heard, status),
                *(heard, b'{"error":{"type":"invalid_jobid","message":"M"}}\n', heard, FALSE),
            ]
        )
        rpc = self.caller(peer.port)
        job = await self.mode.done(rpc.web01.run())
        self.assertEqual(job.id(), ID)
        self.assertFalse(job.is_duplicate())
        self.assertEqual(await self.mode.items(job.follow(since=0)), [1])
        self.assertEqual(await self.mode.done(job.get()), 7)
        self.assertEqual(await self.mode.done(job.host()), "h")
        await self.failure(harp.RemoteError, job.cancel)
        self.assertIs(await self.mode.done(job.cancel()), False)
        rpc.close()
        self.assertEqual(peer.requests, [b'{"harpcaller":1,"keepalive":true,"server_info":true}\n'])
        sent = self.requests()
        self.assertEqual([each["keepalive"] for each in sent], [True] * 6)
        self.assertEqual([each.get("detail") for each in sent], [None, None, True, *[None] * 3])
        self.assertGreater(len(sent[0]["idempotency_key"]), 20)

    async def test_version_1(self) -> None:
        """A dispatcher of version 1 gets its requests, each on its own connection."""
        peer = self.dispatcher([REFUSAL], [JOB], [FALSE])
        rpc = self.caller(peer.port)
        job = await self.mode.done(rpc.web01.run())
        self.assertIs(await self.mode.done(job.cancel()), False)
        self.assertEqual(
            peer.requests[1:],
            [
                b'{"harpcaller":1,"host":"web01","procedure":"run","arguments":[]}\n',
                b'{"harpcaller":1,"cancel":"%b"}\n' % ID.encode(),
            ],
        )

    async def test_no_answer_to_the_question(self) -> None:
        """A dispatcher that closes instead of an answer is taken to be of version 1, this once."""
        peer = self.dispatcher([], [FALSE], [info(), hear(self.lines), FALSE])
        job = self.caller(peer.port).job(ID)
        self.assertIs(await self.mode.done(job.cancel()), False)
        self.assertIs(await self.mode.done(job.cancel()), False)
        self.assertNotIn(b"keepalive", peer.requests[1])
        self.assertTrue(self.requests()[0]["keepalive"])

    async def test_silence_in_place_of_an_answer(self) -> None:
        """A dispatcher that does not even say what it offers is not asked for more."""
        done = threading.Event()
        peer = self.dispatcher([until(done)])
        self.addCleanup(done.set)
        rpc = self.caller(peer.port, reply_timeout=0.05)
        error = await self.failure(harp.CommunicationError, rpc.web01.run)
        self.assertRegex(str(error), "ServerInfo without a whole reply: nothing came for 0.05 sec")
        self.assertFalse(error.may_have_run)

    async def test_closed_meanwhile(self) -> None:
        """A connection that was closed while it was idle is not used; the others neither."""
        done = threading.Event()
        peer = self.dispatcher(
            [info(), hear(self.lines), FALSE, is_closing, lambda _: done.set()],
            [FALSE],
            [info(), hear(self.lines), FALSE],
        )
        job = self.caller(peer.port).job(ID)
        self.assertIs(await self.mode.done(job.cancel()), False)
        self.assertTrue(await deferToThread(done.wait, PATIENCE))
        self.assertIs(await self.mode.done(job.cancel()), False)
        # The dispatcher was most likely started again, so it is asked again what it offers.
        self.assertIs(await self.mode.done(job.cancel()), False)

    async def test_broken_on_use(self) -> None:
        """A request that is safe to repeat is, where a kept connection breaks."""
        for end in (reset, is_closing):
            peer = self.dispatcher(
                [info(), hear(self.lines), FALSE, hear(self.lines), end], [b'{"result":5}\n']
            )
            job = self.caller(peer.port).job(ID)
            self.assertIs(await self.mode.done(job.cancel()), False)
            self.assertEqual(await self.mode.done(job.get()), 5)
            self.assertEqual(peer.requests[1], self.lines[-1])

    async def test_follower_on_a_broken_connection(self) -> None:
        """A follower begins again, but not when it has had a packet."""
        packet = b'{"packet":0,"data":1}\n'
        peer = self.dispatcher(
            [info(), hear(self.lines), FALSE, hear(self.lines), is_closing],
            [packet],
        )
        job = self.caller(peer.port).job(ID)
        await self.mode.done(job.cancel())
        packets = job.follow(since=0)
        self.assertEqual(await self.mode.next(packets), 1)
        with self.assertRaisesRegex(harp.CommunicationError, "reply: the connection was closed"):
            await self.mode.next(packets)
        peer = self.dispatcher(
            [info(), hear(self.lines), FALSE, hear(self.lines), packet, is_closing]
        )
        job = self.caller(peer.port).job(ID)
        await self.mode.done(job.cancel())
        packets = job.follow(since=0)
        self.assertEqual(await self.mode.next(packets), 1)
        with self.assertRaisesRegex(harp.CommunicationError, "reply: the connection was closed"):
            await self.mode.next(packets)

    async def test_call_is_repeated_with_its_key(self) -> None:
        """A call whose answer did not come is sent again, the very same, until it does."""
        peer = self.dispatcher([info(), hear(self.lines)], [reset], [b'{"harpc'], [JOB])
        job = await self.mode.done(self.caller(peer.port).web01.run(1))
        self.assertEqual(job.id(), ID)
        self.assertEqual(peer.requests[1:], self.lines * 3)
        self.assertEqual(len(self.lines), 1)

    async def test_call_is_not_repeated_for_ever(self) -> None:
        """After three more attempts it is said that the call may have been submitted."""
        peer = self.dispatcher([info(), hear(self.lines)], [], [], [])
        error = await self.failure(harp.CommunicationError, self.caller(peer.port).web01.run)
        self.assertRegex(str(error), "Call without a whole reply: .*; the call may have been sub")
        self.assertEqual((error.origin, error.may_have_run), (harp.Origin.NETWORK, True))
        self.assertEqual(len(peer.requests), 4)

    async def test_gone_for_good(self) -> None:
        """Where nothing listens any more, that is told, with the doubt about the first attempt."""
        peer = self.dispatcher([info(), hear(self.lines)])
        error = await self.failure(harp.CommunicationError, self.caller(peer.port).web01.run)
        self.assertRegex(str(error), "can't connect: Connection refused; the call may have been")
        self.assertTrue(error.may_have_run)

    async def test_call_without_key_is_not_repeated(self) -> None:
        """Without idempotency keys a call goes on a new connection, and once."""
        kept = closed(threading.Event())
        peer = self.dispatcher([info("keepalive"), hear(self.lines), FALSE, kept], [])
        rpc = self.caller(peer.port)
        await self.mode.done(rpc.job(ID).cancel())
        error = await self.failure(harp.CommunicationError, rpc.web01.run)
        self.assertTrue(error.may_have_run)
        self.assertEqual(len(peer.requests), 2)
        self.assertNotIn(b"idempotency_key", peer.requests[1])

    async def test_own_key_and_dedup(self) -> None:
        """The caller's key and dedup are sent; that the job is an earlier call's is told."""
        duplicate = JOB.replace(b"}", b',"duplicate":true}')
        peer = self.dispatcher([info(), hear(self.lines), duplicate])
        dedup = {"key": {"disk": "sda"}, "within": 60}
        server = self.caller(peer.port).host("web01", idempotency_key="web-7", dedup=dedup)
        job = await self.mode.done(server.run())
        self.assertTrue(job.is_duplicate())
        sent = self.requests()[0]
        self.assertEqual((sent["idempotency_key"], sent["dedup"]), ("web-7", dedup))

    async def test_not_offered(self) -> None:
        """What the dispatcher does not offer is refused by its name, after asking once more."""
        asks: list[tuple[Any, str]] = [
            (lambda rpc: rpc.host("h", idempotency_key="k").run(), "idempotency_key"),
            (lambda rpc: rpc.host("h", dedup={"key": {}, "within": 1}).run(), "dedup"),
            (lambda rpc: rpc.job(ID).detail(), "detail"),
            (lambda rpc: rpc.prune(60), "prune_jobs"),
            (lambda rpc: rpc.jobs().all(), "list_jobs"),
            (lambda rpc: rpc.server_info(), "server_info"),
        ]
        for ask, name in asks:
            peer = self.dispatcher([REFUSAL], [REFUSAL])
            rpc = self.caller(peer.port)
            error = await self.failure(harp.UnsupportedError, lambda: ask(rpc))  # noqa: B023
            self.assertEqual(str(error), f"127.0.0.1:{peer.port}: the dispatcher has no {name}")
            self.assertFalse(error.may_have_run)

    async def test_newer_dispatcher(self) -> None:
        """A dispatcher that was replaced by a newer one is not taken for the old one."""
        peer = self.dispatcher([REFUSAL], [JOB], [info(), hear(self.lines), b'{"pruned":3}\n'])
        rpc = self.caller(peer.port)
        await self.mode.done(rpc.web01.run())
        self.assertEqual(await self.mode.done(rpc.prune(60)), 3)

    async def test_older_dispatcher(self) -> None:
        """One that was replaced by an older one is asked again after it refused a request."""
        peer = self.dispatcher(
            [info(), hear(self.lines), FALSE, hear(self.lines), REFUSAL], [REFUSAL], [FALSE]
        )
        job = self.caller(peer.port).job(ID)
        await self.mode.done(job.cancel())
        error = await self.failure(harp.RemoteError, job.cancel)
        self.assertEqual(error.type, "invalid_request")
        self.assertIs(await self.mode.done(job.cancel()), False)
        self.assertNotIn(b"keepalive", peer.requests[-1])

    async def test_idle_too_long(self) -> None:
        """A connection that nobody used for long is closed; what is offered is asked again."""
        self.patch(pool, "IDLE_LIMIT", 0)
        gone = threading.Event()
        peer = self.dispatcher(
            [info(), closed(gone)], [FALSE, closed(threading.Event())], [info()], [FALSE]
        )
        job = self.caller(peer.port).job(ID)
        await self.mode.done(job.cancel())
        self.assertTrue(await deferToThread(gone.wait, PATIENCE))
        await self.mode.done(job.cancel())
        self.assertEqual([b"server_info" in line for line in peer.requests], [True, False] * 2)

    async def test_close_and_drop(self) -> None:
        """Idle connections are closed on request, and when the client is gone."""
        for drop in (False, True):
            gone = threading.Event()
            peer = self.dispatcher([info(), hear(self.lines), FALSE, closed(gone)])
            rpc = self.mode.module.HarpCaller(*self.mode.first, "127.0.0.1", peer.port)
            await self.mode.done(rpc.job(ID).cancel())
            if drop:
                del rpc
            else:
                rpc.close()
            self.assertTrue(await deferToThread(gone.wait, PATIENCE))

    async def test_origin_by_detail(self) -> None:
        """Where a job's failure arose is told exactly by a dispatcher that knows."""
        for origin in ("harpd", "dispatcher"):
            line = (
                b'{"error":{"type":"timeout","message":"M"},'
                b'"detail":{"origin":"%b","may_have_run":false,"time":1.5}}\n' % origin.encode()
            )
            peer = self.dispatcher([info(), hear(self.lines), line])
            error = await self.failure(harp.RemoteError, self.caller(peer.port).job(ID).get)
            self.assertEqual((error.origin, error.may_have_run), (harp.Origin(origin), False))


class Operators(ContractTestCase):
    """What an operator asks is sent as the protocol says, and comes back in dicts."""

    async def asked(self, action: Any, reply: bytes) -> tuple[Any, dict[str, Any]]:
        """Return what a method gives for a reply, and the request."""
        lines: list[bytes] = []
        peer = self.peer([info(), hear(lines), reply], knows_version_1=False)
        rpc = self.caller(peer.port)
        found = await self.mode.done(action(rpc))
        rpc.close()
        request = json.loads(lines[0])
        del request["harpcaller"], request["keepalive"]
        return found, request

    async def test_plain_requests(self) -> None:
        """One request, one reply."""
        cases: list[tuple[Any, bytes, Any, dict[str, Any]]] = [
            (
                lambda rpc: rpc.cancel_queue({"a": 1}),
                b'{"cancelled_jobs":3}\n',
                3,
                {"cancel_queue": {"name": {"a": 1}}},
            ),
            (
                lambda rpc: rpc.refresh_hosts(),
                b'{"hosts_known":3,"problem":null}\n',
                {"hosts_known": 3, "problem": None},
                {"refresh_hosts": True},
            ),
            (
                lambda rpc: rpc.procedures("web01"),
                b'{"procedures":[{"name":"run"}]}\n',
                [{"name": "run"}],
                {"list_procedures": "web01"},
            ),
            (
                lambda rpc: rpc.describe("web01"),
                b'{"procedures":[],"clock":-0.25}\n',
                {"procedures": [], "clock": -0.25},
                {"list_procedures": "web01"},
            ),
            (
                lambda rpc: rpc.describe("web01"),
                b'{"procedures":[]}\n',
                {"procedures": [], "clock": None},
                {"list_procedures": "web01"},
            ),
            (
                lambda rpc: rpc.prune(3600),
                b'{"pruned":3}\n',
                3,
                {"prune_jobs": {"older_than": 3600}},
            ),
            (
                lambda rpc: rpc.reload(),
                b'{"reloaded":false,"mistakes":["M"]}\n',
                {"reloaded": False, "mistakes": ["M"]},
                {"reload": True},
            ),
            (
                lambda rpc: rpc.stop_dispatcher(),
                b'{"stopping":true,"running":2,"grace":30}\n',
                {"stopping": True, "running": 2, "grace": 30},
                {"stop": True},
            ),
            (
                lambda rpc: rpc.refresh_hosts(accept_loss=True),
                b'{"hosts_known":1,"problem":null}\n',
                {"hosts_known": 1, "problem": None},
                {"refresh_hosts": {"accept_loss": True}},
            ),
            (
                lambda rpc: rpc.server_info(),
                b'{"harpcaller":1,"version":"1.0","extensions":["keepalive"],"time":1.5}\n',
                {"version": "1.0", "extensions": ["keepalive"], "time": 1.5},
                {"server_info": True},
            ),
            (
                lambda rpc: rpc.server_info(),
                info("keepalive"),
                {"version": "1.0", "extensions": ["keepalive"], "time": None},
                {"server_info": True},
            ),
        ]
        for action, reply, expected, request in cases:
            self.assertEqual(await self.asked(action, reply), (expected, request))

    async def test_lists(self) -> None:
        """A list is asked for page by page, and only as far as it is read."""
        job = {
            "job_id": ID,
            "host": "h",
            "procedure": "p",
            "state": "waiting",
            "queue": {"a": [1]},
            "waits_for": "queue",
            "time": {"submit": 1.5, "start": None, "end": None},
            "end": None,
            "caller": "127.0.0.1",
            "submitter": "panel",
            "on_behalf_of": "alice",
        }
        queue = {"name": {"a": 1}, "concurrency": 1, "running": 1, "waiting": 2}
        host = {"name": "h", "address": "a", "port": 1, "tags": ["x"], "server_name": None}
        cases: list[tuple[Any, dict[str, Any], Any, dict[str, Any]]] = [
            (
                lambda rpc: rpc.jobs(state=["waiting"], host="h", queue={"a": [1]}),
                {"jobs": [job]},
                job,
                {"list_jobs": {"state": ["waiting"], "host": "h", "queue": {"a": [1]}}},
            ),
            (lambda rpc: rpc.queues(), {"queues": [queue]}, queue, {"list_queues": {}}),
            (
                lambda rpc: rpc.queue({"a": 1}),
                {"queue": queue, "jobs": [job]},
                job,
                {"list_queue": {"name": {"a": 1}}},
            ),
            (lambda rpc: rpc.hosts(), {"hosts": [host]}, host, {"list_hosts": {}}),
        ]
        for action, page, item, request in cases:
            lines: list[bytes] = []
            first = json.dumps({**page, "cursor": "c"}).encode() + b"\n"
            last = json.dumps({**page, "cursor": None}).encode() + b"\n"
            script: Script = [info(), hear(lines), first, hear(lines), last]
            rpc = self.caller(self.peer(script, knows_version_1=False).port)
            listing = action(rpc)
            self.assertIsInstance(listing, self.mode.module.Listing)
            self.assertEqual(await self.mode.next(listing), item)
            self.assertEqual(len(lines), 1)
            self.assertEqual(await self.mode.items(listing), [item])
            key, wanted = next(iter(request.items()))
            sent = [json.loads(line)[key] for line in lines]
            self.assertEqual(sent, [wanted, {**wanted, "cursor": "c"}])

    async def test_detail(self) -> None:
        """All that is known of a job is a dict."""
        detail = {
            "state": "waiting",
            "waits_for": "queue",
            "waits_for_lock": None,
            "time": {"submit": 1.5, "start": None, "end": None},
            "timeout": 10.0,
            "max_exec_time": 60.0,
            "caller": None,
            "submitter": "panel",
            "on_behalf_of": None,
            "packets": 0,
            "queue": {"name": {"a": 1}, "concurrency": 1, "position": 4},
        }
        status = {
            "call": {"host": "h", "procedure": "p", "arguments": []},
            "time": {"submit": 1, "start": None, "end": None},
            "info": None,
            "detail": detail,
        }
        reply = json.dumps(status).encode() + b"\n"
        found, request = await self.asked(lambda rpc: rpc.job(ID).detail(), reply)
        self.assertEqual(found, detail)
        self.assertEqual(request, {"get_status": ID, "detail": True})

    async def test_mistakes(self) -> None:
        """Wrong values are refused before anything connects."""
        rpc = self.caller(1)
        with self.assertRaises(TypeError):
            rpc.queue("a")
        with self.assertRaises(TypeError):
            rpc.jobs(queue=[])
        await self.failure(TypeError, lambda: rpc.cancel_queue([]))
        await self.failure(ValueError, lambda: rpc.prune(-1))


class SharingTests(ContractTestCase):
    """Kept connections among threads and processes; only programs that block have these."""

    mode = Blocking()

    def test_fork(self) -> None:
        """A child process makes a connection of its own and leaves its parent's alone."""
        lines: list[bytes] = []
        heard = hear(lines)
        peer = self.peer(
            [info(), heard, FALSE, heard, b'{"cancelled":true}\n'],
            [FALSE],
            knows_version_1=False,
        )
        job = self.caller(peer.port).job(ID)
        self.assertIs(job.cancel(), False)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                status = 0 if job.cancel() is False else 2
            finally:
                os._exit(status)
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        self.assertIs(job.cancel(), True)
        self.assertEqual(len(peer.requests), 2)

    def test_close_beside_a_fork(self) -> None:
        """Closing ends the connection, though a child process holds its descriptor too."""
        gone = threading.Event()
        packet = b'{"packet":0,"data":1}\n'
        peer = self.peer([packet, closed(gone)])
        packets = self.caller(peer.port).job(ID).follow()
        self.assertEqual(next(packets), 1)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(writing)
            os.read(reading, 1)
            os._exit(0)
        packets.close()
        self.assertTrue(gone.wait(PATIENCE))
        os.close(writing)
        os.close(reading)
        os.waitpid(child, 0)

    def test_threads(self) -> None:
        """No two threads are on one connection at the same time, and each gets its own reply."""
        at_once = 8
        barrier = threading.Barrier(at_once)

        def answer(connection: socket.socket) -> None:
            barrier.wait(PATIENCE)  # all threads have a connection before one comes back
            connection.sendall(info())
            with connection.makefile("rb") as incoming:
                for line in incoming:
                    id = json.loads(line)["get_result"]
                    connection.sendall(b'{"result":"%b"}\n' % id.encode())

        scripts: list[Script] = [[answer] for _ in range(at_once)]
        rpc = self.caller(self.peer(*scripts, knows_version_1=False).port)
        wrong: list[object] = []

        def ask(number: int) -> None:
            for turn in range(20):
                found = rpc.job(f"{number}-{turn}").get()
                if found != f"{number}-{turn}":
                    wrong.append(found)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(at_once)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        self.assertEqual(wrong, [])
        rpc.close()

    def test_copies_and_pickles(self) -> None:
        """A pickle takes no connection with it; a copy shares them."""
        lines: list[bytes] = []
        heard = hear(lines)
        peer = self.peer(
            [info(), heard, FALSE, heard, FALSE],
            [info(), heard, FALSE],
            knows_version_1=False,
        )
        rpc = self.caller(peer.port)
        self.assertIs(rpc.job(ID).cancel(), False)
        self.assertIs(copy.copy(rpc).job(ID).cancel(), False)
        twin = pickle.loads(pickle.dumps(rpc.job(ID)))
        self.assertIs(twin.cancel(), False)


globals().update(both_modes(Extensions) | both_modes(Operators))
del Extensions, Operators
