"""Tests of harpd.call: what a process may send, and the ways in which it goes."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import msgspec
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from harp import errors
from harp.wire import results
from harp.wire.harpd import Reply
from harp.wire.packets import Packets, pack
from harp.wire.results import EndKind, EndResult
from harpd.call import CallProcess
from tests.harpd.spawners import Running, SpawnerTestCase
from tests.harpd.waiting import alive, eventually


class ReplyTests(SynchronousTestCase):
    """What comes out of the socket is checked before it is passed on."""

    def setUp(self) -> None:
        self.batches: list[list[Reply]] = []
        self.kills = 0
        self.process = CallProcess(b'{"a":1}', self, self.kill, b'{"b":2}')
        self.transport = StringTransport()
        self.process.makeConnection(self.transport)

    def replies(self, replies: list[Reply]) -> None:
        self.batches.append(replies)

    def kill(self) -> None:
        self.kills += 1

    def assert_refused(self, message: str) -> None:
        """Check that the last reply is an invalid_message and that the process was killed."""
        last = self.batches[-1][-1]
        assert isinstance(last, EndResult)
        error = msgspec.json.decode(last.value)
        self.assertEqual((last.kind, error["type"]), (EndKind.ERROR, "invalid_message"))
        self.assertIn(message, error["message"])
        self.assertEqual(self.kills, 1)

    def test_arguments(self) -> None:
        """The arguments are handed over as one line, the context as another."""
        self.assertEqual(self.transport.value(), b'{"a":1}\n{"b":2}\n')

    def test_batches(self) -> None:
        """Replies that come together are passed on together, whatever the cuts between them."""
        for data in [b'{"stream":1}\n{"stream":2}\n{"str', b'eam":3}\n', b'{"result":', b"4}\n"]:
            self.process.dataReceived(data)
        end = EndResult(EndKind.RESULT, b"4")
        self.assertEqual(self.batches, [[pack([b"1", b"2"])], [pack([b"3"])], [end]])
        self.assertEqual(self.kills, 0)

    def test_behind_the_end(self) -> None:
        """Nothing comes behind the end result."""
        self.process.dataReceived(b'{"result":1}\n{"stream":2}\nnonsense\n')
        self.process.dataReceived(b"nonsense\n")
        self.process.connectionLost()
        self.process.exited(0)
        self.assertEqual(self.batches, [[EndResult(EndKind.RESULT, b"1")]])
        self.assertEqual(self.kills, 0)

    def test_nonsense(self) -> None:
        """What is no reply ends the call; replies before it are passed on."""
        self.process.dataReceived(b'{"stream":1}\nnonsense\n{"stream":2}\n')
        self.assertEqual(self.batches[0][0], Packets(1, b"1"))
        self.assertEqual(len(self.batches[0]), 2)
        self.assert_refused("the process of the call wrote no reply: ")

    def test_not_json(self) -> None:
        """Replies that the client could not read do not leave the machine."""
        for line in [b'{"stream":NaN}', b'{"stream":"\xff"}', b'{"stream":' + b"[" * 100_000]:
            self.setUp()
            self.process.dataReceived(line + b"\n")
            self.assert_refused("reply can't be understood")

    def test_too_long(self) -> None:
        """A line without an end is refused before it is kept whole."""
        for _ in range(17):
            self.process.dataReceived(b"x" * (1024 * 1024))
        self.assert_refused("a line is longer than")

    def test_closed_without_result(self) -> None:
        """A process that closes its socket without a result is ended; then its end is told."""
        self.process.connectionLost()
        self.assertEqual((self.kills, self.batches), (1, []))
        self.process.exited(3 << 8)
        ((end,),) = self.batches
        expected = results.error(
            errors.KILLED,
            "the process of the call ended with exit status 3 without a result",
            {"exit_status": 3},
        )
        self.assertEqual(end, expected)

    def test_signal_told(self) -> None:
        """A process that was killed by a signal is told with its number."""
        self.process.connectionLost()
        self.process.exited(signal.SIGSEGV)
        ((end,),) = self.batches
        expected = results.error(
            errors.KILLED,
            "the process of the call was killed by signal 11 without a result",
            {"signal": 11},
        )
        self.assertEqual(end, expected)

    def test_closed_with_result(self) -> None:
        """A process that has sent its result may close its socket, and is not killed."""
        self.process.dataReceived(b'{"result":1}\n')
        self.process.connectionLost()
        self.process.exited(0)
        self.assertEqual(self.batches, [[EndResult(EndKind.RESULT, b"1")]])
        self.assertEqual(self.kills, 0)


class ProcessTests(SpawnerTestCase):
    """Real processes end in the result that they must, however they go."""

    async def test_large_arguments_and_result(self) -> None:
        """Arguments and results of megabytes pass."""
        text = "x" * 1_000_000
        ending = await self.run_call(
            "@procedure\ndef f(text): return text * 10", json.dumps([text])
        )
        self.assertEqual(ending, ("result", text * 10))

    async def test_arguments_not_read(self) -> None:
        """A process that ends before it has read all its arguments is told like any other."""
        text = json.dumps(["x" * 1_000_000])
        kind, error = await self.run_call(
            "os.register_at_fork(after_in_child=lambda: os._exit(5))\n"
            "@procedure\ndef f(text): pass",
            text,
        )
        self.assertEqual((kind, error["data"]), ("error", {"exit_status": 5}))

    async def test_too_long_result(self) -> None:
        """A result over the limit of a reply is an invalid_message."""
        kind, error = await self.run_call("@procedure\ndef f(): return 'x' * 17_000_000")
        self.assertEqual((kind, error["type"]), ("error", "invalid_message"))

    async def test_sudden_ends(self) -> None:
        """A process that goes without a result is killed, with what is known of its end."""
        spawner = await self.spawner("""
            @procedure
            def f(how):
                exec(how)
        """)
        ways: list[tuple[str, Any]] = [
            ("os._exit(0)", {"exit_status": 0}),
            ("os._exit(7)", {"exit_status": 7}),
            ("os.kill(os.getpid(), signal.SIGKILL)", {"signal": 9}),
            ("os.abort()", {"signal": 6}),
        ]
        for how, data in ways:
            kind, error = await Running(spawner, "f", json.dumps([how])).end()
            self.assertEqual((kind, error["type"], error["data"]), ("error", "killed", data))

    async def test_closed_descriptors(self) -> None:
        """A process that closed its socket and goes on is ended."""
        call = Running(
            await self.spawner("""
                @streaming_procedure
                def f():
                    yield os.getpid()
                    os.closerange(0, 256)
                    while True:
                        signal.pause()
            """),
            "f",
            "[]",
        )
        pid = await call.packet()
        kind, error = await call.end()
        self.assertEqual((kind, error["type"]), ("error", "killed"))
        self.assertFalse(alive(pid))

    async def test_background_process(self) -> None:
        """A process in the background that holds all descriptors does not hold up the end."""
        spawner = await self.spawner("""
            @procedure
            def f():
                pid = os.fork()
                if pid == 0:
                    while True:
                        signal.pause()
                return pid

            @procedure
            def g(file):
                pid = os.fork()
                if pid:
                    with open(file, "w") as told:
                        told.write(str(pid))
                    os._exit(0)
                while True:
                    signal.pause()
        """)
        call = Running(spawner, "f", "[]")
        kind, pid = await call.end()
        self.assertEqual(kind, "result")
        os.kill(pid, signal.SIGKILL)
        # Without a result, the end is told by the zygote alone.
        file = os.path.abspath(self.mktemp())
        kind, error = await Running(spawner, "g", json.dumps([file])).end()
        self.assertEqual((kind, error["type"]), ("error", "killed"))
        os.kill(int(_read(file)), signal.SIGKILL)

    async def test_fork_without_exec(self) -> None:
        """A forked copy that runs on to the end does not answer the call a second time."""
        ending = await self.run_call("""
            @procedure
            def f():
                pid = os.fork()
                if pid:
                    os.waitpid(pid, 0)
                return "parent" if pid else "child"
        """)
        self.assertEqual(ending, ("result", "parent"))

    async def test_slow_caller(self) -> None:
        """While the caller takes nothing, the procedure is held up; then all of it comes."""
        spawner = await self.spawner("""
            @streaming_procedure
            def f(file):
                for number in range(64):
                    yield "x" * 100_000
                    with open(file, "w") as progress:
                        progress.write(f"{os.getpid()} {number}")
        """)
        file = os.path.abspath(self.mktemp())
        call = Running(spawner, "f", json.dumps([file]))
        call.process.producer.pauseProducing()
        # There is nothing else that it could sleep in.
        await eventually(lambda: _is_asleep(_read(file).partition(" ")[0]), "that it is held up")
        self.assertLess(int(_read(file).split()[1]), 10)
        self.assertEqual(call.received, [])
        call.process.producer.resumeProducing()
        self.assertEqual(await call.end(), ("result", None))
        self.assertEqual(len(call.received), 65)


def _read(file: str) -> str:
    try:
        with open(file) as progress:
            return progress.read()
    except FileNotFoundError:
        return ""


def _is_asleep(pid: str) -> bool:
    if not pid:
        return False
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] == "S"
