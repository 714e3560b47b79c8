"""Tests of harpd.call_limits: what harpd says of a call over one, and that all of it ends."""

from __future__ import annotations

import signal
from functools import partial
from typing import Any

import msgspec
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from harp.wire.harpd import Reply
from harp.wire.packets import Packets
from harp.wire.results import EndKind, EndResult
from harpd.call import CallProcess
from harpd.call_limits import CallLimits
from tests.harpd.spawners import Running, SpawnerTestCase
from tests.harpd.waiting import alive, eventually


class MeterTests(SynchronousTestCase):
    """Whatever the process of a call writes, no more than its limits passes."""

    def feed(self, data: bytes, *, cut: int = 1 << 20, **limits: int) -> list[Any]:
        """Return what is passed on: packets, and the end result's value or its error's message."""
        self.kills = 0
        self.passed: list[Reply] = []
        process = CallProcess(b"[]", self, self.kill, limits=CallLimits(**limits))
        process.makeConnection(StringTransport())
        for start in range(0, len(data), cut):
            process.dataReceived(data[start : start + cut])
        found: list[Any] = []
        for reply in self.passed:
            if isinstance(reply, Packets):
                found += map(msgspec.json.decode, reply.texts)
            else:
                assert isinstance(reply, EndResult)
                value = msgspec.json.decode(reply.value)
                found.append(value["message"] if reply.kind is EndKind.ERROR else value)
        return found

    def replies(self, replies: list[Reply]) -> None:
        """Take replies."""
        self.passed += replies

    def kill(self) -> None:
        """Count it."""
        self.kills += 1

    def test_packet(self) -> None:
        """Packets within the limit pass, the first beyond it is replaced by the error."""
        data = b'{"stream":"12"}\n{"stream":"12"}\n{"stream":"123"}\n{"stream":1}\n'
        message = "the packet has 5 bytes, over the limit max_packet of 4"
        for cut in (1, 7, 1000):
            self.assertEqual(self.feed(data, cut=cut, max_packet=4), ["12", "12", message])
            self.assertEqual(self.kills, 1)
        self.assertEqual(len(self.feed(data, max_packet=5)), 4)
        self.assertEqual(self.kills, 0)

    def test_output(self) -> None:
        """All packets count, and the end result, whatever it is but an error."""
        packets = b'{"stream":1234}\n{"stream":5678}\n'
        over = "with the packet the output has 8 bytes, over the limit max_output of 7"
        self.assertEqual(self.feed(packets, max_output=7), [1234, over])
        self.assertEqual(self.kills, 1)
        result = packets + b'{"result":90}\n'
        self.assertEqual(self.feed(result, max_output=10), [1234, 5678, 90])
        self.assertEqual(self.kills, 0)
        over = "with the end result the output has 10 bytes, over the limit max_output of 9"
        self.assertEqual(self.feed(result, max_output=9), [1234, 5678, over])
        raised = b'{"exception":{"type":"E","message":"long enough"}}\n'
        self.assertIn("over the limit", self.feed(raised, max_output=9)[0])
        error = b'{"harp":1,"error":{"type":"system_error","message":"not the procedure\'s"}}\n'
        self.assertEqual(self.feed(error, max_output=9), ["not the procedure's"])


class KilledTests(SynchronousTestCase):
    """The end of a process without an end result names the limit that it was for."""

    def killed(self, status: int, **limits: int) -> tuple[str, str]:
        """Return the type and the message of the error."""
        error = msgspec.json.decode(CallLimits(**limits).killed(status).value)
        return error["type"], error["message"]

    def test_cpu(self) -> None:
        """SIGXCPU is for the limit if there is one; SIGKILL may have been."""
        exceeded = ("limit_exceeded", "the limit cpu of 3 s was exceeded")
        self.assertEqual(self.killed(signal.SIGXCPU, cpu=3), exceeded)
        self.assertEqual(self.killed(signal.SIGXCPU)[0], "killed")
        self.assertEqual(self.killed(signal.SIGKILL, cpu=3)[0], "killed")
        self.assertIn("the limit cpu of 3 s", self.killed(signal.SIGKILL, cpu=3)[1])
        self.assertNotIn("cpu", self.killed(signal.SIGKILL)[1])
        self.assertNotIn("cpu", self.killed(256, cpu=3)[1])


class RealTests(SpawnerTestCase):
    """The limits of real calls, by the process itself and in spite of it."""

    PROCEDURES = """
        @streaming_procedure(max_packet=10, max_output=20)
        def stream(sizes, child=False):
            pid = subprocess.Popen(["/bin/sleep", "600"]).pid if child else 1
            yield pid
            for size in sizes:
                yield "x" * (size - 2)

        @procedure(max_output=20)
        def plain(size):
            return "x" * (size - 2)

        @procedure(max_output=20)
        def forged(number):
            for each in range(3, 20):
                try:
                    os.write(each, b'{"stream":123}\\n' * number)
                except OSError:
                    pass
            signal.pause()

        @procedure(cpu=1)
        def busy():
            while True:
                pass

        @procedure(cpu=1)
        def stubborn():
            signal.signal(signal.SIGXCPU, signal.SIG_IGN)
            return "fine"
    """

    async def test_output(self) -> None:
        """The call ends with an error that names the limit, its tree too; the next call is fine."""
        spawner = await self.spawner(self.PROCEDURES)
        for arguments, limit in [("[[11],true]", "max_packet"), ("[[9,9,9],true]", "max_output")]:
            call = Running(spawner, "stream", arguments)
            kind, error = await call.end()
            self.assertEqual((kind, error["type"]), ("error", "limit_exceeded"))
            self.assertIn(f"over the limit {limit} of ", error["message"])
            self.assertEqual(error["data"], {"limit": limit})
            first = call.received[0]
            assert isinstance(first, Packets)
            await eventually(partial(_is_gone, int(first.texts[0])), "the end of what it started")
        self.assertEqual(await Running(spawner, "stream", "[[10,5]]").end(), ("result", None))
        self.assertEqual(await Running(spawner, "plain", "[20]").end(), ("result", "x" * 18))
        kind, error = await Running(spawner, "plain", "[21]").end()
        self.assertEqual((kind, error["type"]), ("error", "limit_exceeded"))

    async def test_forged(self) -> None:
        """A procedure that writes to the socket itself does not get more out."""
        spawner = await self.spawner(self.PROCEDURES)
        call = Running(spawner, "forged", "[100000]")
        kind, error = await call.end()
        self.assertEqual((kind, error["type"]), ("error", "limit_exceeded"))
        packets = [reply for reply in call.received if isinstance(reply, Packets)]
        self.assertEqual(sum(each.count for each in packets), 6)
        await eventually(lambda: call.is_gone, "the end of the process")

    async def test_cpu(self) -> None:
        """Who uses too much processor time is told of the limit."""
        spawner = await self.spawner(self.PROCEDURES)
        kind, error = await Running(spawner, "busy", "[]").end()
        self.assertEqual((kind, error["type"]), ("error", "limit_exceeded"))
        self.assertEqual(error["message"], "the limit cpu of 1 s was exceeded")
        self.assertEqual(await Running(spawner, "stubborn", "[]").end(), ("result", "fine"))


def _is_gone(pid: int) -> bool:
    return not alive(pid)
