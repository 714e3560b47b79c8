"""Tests of ``harp.packets``: a follower that is told when nothing comes."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

from twisted.internet.threads import deferToThread

import harp
from tests.harp.modes import ContractTestCase, both_modes, identity
from tests.harp.peer import PATIENCE, REFUSAL, Script, until
from tests.harp.test_dispatcher_wire import ID

DONE = b'{"result":5}\n'


class Pulse(ContractTestCase):
    """``follow(pulse=…)``."""

    def script(self, heard: threading.Event) -> Script:
        """Return one that pauses in the middle of a packet until the event is set."""
        return [b'{"packet":0,"data":1}\n{"pac', until(heard), b'ket":1,"data":2}\n', DONE]

    async def follow(self, packets: Any, heard: threading.Event) -> list[Any]:
        """Read all packets, and set the event when there were some pulses."""
        found = [await self.mode.next(packets) for _ in range(3)]
        self.assertEqual(found[1:], [harp.CALL_NOT_FINISHED] * 2)
        heard.set()
        return [found[0], *[item async for item in self.later(packets)]]

    async def later(self, packets: Any) -> Any:
        """Yield what comes, without the pulses."""
        for item in await self.mode.items(packets):
            if item is not harp.CALL_NOT_FINISHED:
                yield item

    async def test_silence(self) -> None:
        """A silence is told each time that it has lasted so long, and no packet is lost by that."""
        heard = threading.Event()
        job = self.caller(self.peer(self.script(heard)).port).job(ID)
        packets = job.follow(since=0, numbered=True, pulse=0.01)
        self.assertEqual(await self.follow(packets, heard), [(0, 1), (1, 2)])

    async def test_silence_with_tls(self) -> None:
        """The same where a part of what is awaited may be in TLS's hands."""
        heard = threading.Event()
        peer = self.peer([REFUSAL], self.script(heard), tls=identity(), knows_version_1=False)
        job = self.caller(peer.port, ca_file=self.ca_file()).job(ID)
        packets = job.follow(since=0, pulse=0.01)
        self.assertEqual(await self.follow(packets, heard), [1, 2])

    async def test_no_silence(self) -> None:
        """Where all comes at once, nothing else is yielded, and the end is the end."""
        job = self.caller(self.peer([b'{"packet":0,"data":1}\n' + DONE]).port).job(ID)
        self.assertEqual(await self.mode.items(job.follow(since=0, pulse=60)), [1])

    async def test_leaving(self) -> None:
        """Who leaves after a pulse closes the connection."""
        closed = threading.Event()

        def wait_for_end(connection: Any) -> None:
            with contextlib.suppress(ConnectionResetError):
                while connection.recv(1):
                    pass
            closed.set()

        packets = self.caller(self.peer([wait_for_end]).port).job(ID).follow(pulse=0.01)
        self.assertIs(await self.mode.next(packets), harp.CALL_NOT_FINISHED)
        packets.close()
        self.assertEqual(await self.mode.items(packets), [])
        await deferToThread(closed.wait, PATIENCE)
        self.assertTrue(closed.is_set())

    async def test_broken(self) -> None:
        """A connection that breaks is told, pulses or not."""
        packets = self.caller(self.peer([]).port).job(ID).follow(pulse=60)
        with self.assertRaises(harp.CommunicationError):
            await self.mode.next(packets)

    async def test_mistakes(self) -> None:
        """A pulse is a number of seconds above 0; nothing is sent otherwise."""
        job = self.caller(1).job(ID)
        for wrong, kind in ((0, ValueError), (-1, ValueError), ("1", TypeError), (True, TypeError)):
            with self.assertRaisesRegex(kind, "pulse"):
                job.follow(pulse=wrong)


globals().update(both_modes(Pulse))
del Pulse
