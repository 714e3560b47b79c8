"""The client in both modes against the real daemons."""

from __future__ import annotations

from typing import Any

from twisted.internet.threads import deferToThread

import harp
from tests.acceptance.daemons import HOST, PASSWORD, USER, eventually, is_alive, shared
from tests.harp.modes import ContractTestCase, both_modes


class RealDaemons(ContractTestCase):
    """What the client promises holds with what it was made for."""

    def harpd(self, **options: Any) -> Any:
        """Return a client of the harpd."""
        deployment = shared()
        defaults = {
            "host": "127.0.0.1",
            "user": USER,
            "password": PASSWORD,
            "port": deployment.harpd_port,
            "ca_file": deployment.ca_file,
            "server_name": HOST,
        }
        return self.mode.module.HarpServer(*self.mode.first, **{**defaults, **options})

    async def test_direct_call(self) -> None:
        """A plain procedure's value, with both kinds of arguments, or what went wrong."""
        server = self.harpd()
        self.assertEqual(await self.mode.done(server.add(1, 2)), 3)
        self.assertEqual(await self.mode.done(server.add(a=1)), 2)
        large = "x" * 3_000_000
        self.assertEqual(len(await self.mode.done(server.large(len(large) // 1024))), 2_999_296)
        error = await self.failure(harp.RemoteException, lambda: server.fail("no"))
        self.assertEqual((error.type, error.message), ("LookupError", "no"))
        error = await self.failure(harp.RemoteError, server.nothing)
        self.assertEqual((error.type, error.may_have_run), ("no_such_procedure", False))
        self.assertIs(error.origin, harp.Origin.HARPD)
        error = await self.failure(harp.RemoteError, self.harpd(password="wrong").add)
        self.assertEqual(error.type, "auth_error")

    async def test_direct_stream(self) -> None:
        """A streaming procedure's packets, then its value in a Result."""
        packets = await self.mode.done(self.harpd().count(1000))
        found = await self.mode.items(packets)
        self.assertEqual(found, [*range(1000), harp.Result(1000)])
        packets = await self.mode.done(self.harpd().stream_then_fail())
        self.assertEqual(await self.mode.next(packets), 1)
        with self.assertRaises(harp.RemoteException):
            await self.mode.next(packets)

    async def test_leaving_cancels(self) -> None:
        """Closing the iterator ends the call, with every process that it started."""
        packets = await self.mode.done(self.harpd().stay())
        processes = await self.mode.next(packets)
        self.assertTrue(all(map(is_alive, processes)))
        packets.close()
        await deferToThread(
            eventually, lambda: not any(map(is_alive, processes)), "the call's processes end"
        )

    async def test_certificate(self) -> None:
        """A harpd whose certificate is not made out to the name is not talked to."""
        error = await self.failure(harp.CommunicationError, self.harpd(server_name="x.example").add)
        self.assertIn("certificate", str(error))
        server = self.harpd(ca_file=None, server_name=None, verify_certificate=False)
        self.assertEqual(await self.mode.done(server.add(1)), 2)

    async def test_jobs(self) -> None:
        """A call by the dispatcher: submitted, followed, asked about, cancelled."""
        rpc = self.caller(shared().port)
        server = rpc.host(HOST, queue={"test": self.id()}, info={"by": "me"})
        job = await self.mode.done(server.count(500))
        self.assertEqual(await self.mode.items(job.follow(since=0)), list(range(500)))
        self.assertEqual(await self.mode.done(job.get()), 500)
        self.assertEqual(await self.mode.done(job.stream(since=490).all()), list(range(490, 500)))
        twin = rpc.job(job.id())
        self.assertEqual(await self.mode.done(twin.host()), HOST)
        self.assertEqual(await self.mode.done(twin.info()), {"by": "me"})
        self.assertIsNotNone(await self.mode.done(twin.end_time()))
        staying = await self.mode.done(rpc(HOST).stay())
        packets = staying.follow(since=0)
        self.assertEqual(len(await self.mode.next(packets)), 2)
        self.assertIs(await self.mode.done(staying.cancel()), True)
        self.assertEqual(await self.mode.items(packets), [])
        await self.failure(harp.CancelledException, staying.get)


globals().update(both_modes(RealDaemons))
del RealDaemons
