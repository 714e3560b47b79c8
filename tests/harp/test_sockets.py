"""Tests of ``harp.sockets``, ``harp.questions``: each failure of the network has its name."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

from harp import CommunicationError, HarpCaller, RemoteError
from harp.errors import RemoteProtocolError
from harp.network import Address
from harp.sockets import PlainEndpoint, run
from tests.harp.peer import PATIENCE, ClientTestCase, Script, reset, until
from tests.harp.test_dispatcher_wire import ID

# Everything that asks the dispatcher, as it stands in the text of a failure.
REQUESTS: dict[str, Callable[[HarpCaller], object]] = {
    "Call": lambda rpc: rpc.host("web01").run(),
    "Cancel": lambda rpc: rpc.job(ID).cancel(),
    "GetResult": lambda rpc: rpc.job(ID).get(),
    "GetStatus": lambda rpc: rpc.job(ID).end_time(),
    "FollowStream": lambda rpc: rpc.job(ID).follow().all(),
    "ReadStream": lambda rpc: rpc.job(ID).stream().all(),
}
IN_DOUBT = "; the call may have been submitted"


class NoConnectionTests(ClientTestCase):
    """A dispatcher that can't be reached is named with the reason."""

    def test_refused(self) -> None:
        """Where nothing listens each request fails with address and reason."""
        with socket.socket() as taken:  # bound, but it does not listen
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
            for request in REQUESTS.values():
                with self.assertRaises(CommunicationError) as caught:
                    request(HarpCaller("127.0.0.1", port))
                self.assertEqual(
                    str(caught.exception), f"127.0.0.1:{port}: can't connect: Connection refused"
                )

    def test_name_that_cannot_be_one(self) -> None:
        """A host name that can't be looked up is named too."""
        with self.assertRaisesRegex(CommunicationError, r"^x{64}\.example:3502: can't connect: "):
            HarpCaller("x" * 64 + ".example").job(ID).cancel()

    def test_ipv6(self) -> None:
        """An IPv6 address is told in brackets."""
        self.assertEqual(str(Address("::1", 3502, 1, 1)), "[::1]:3502")


class BrokenConversationTests(ClientTestCase):
    """A conversation that breaks off is named with its request and the reason."""

    def assert_told(self, script: Script, reason: str) -> None:
        """Let each request meet the script and check what is said about it."""
        for name, request in REQUESTS.items():
            peer = self.peer(script)
            with self.assertRaises(CommunicationError) as caught:
                request(HarpCaller("127.0.0.1", peer.port))
            doubt = IN_DOUBT if name == "Call" else ""
            self.assertRegex(
                str(caught.exception),
                f"^127.0.0.1:{peer.port}: {name} without a whole reply: {reason}{doubt}$",
            )

    def test_closed_before_a_reply(self) -> None:
        """An end of file in the place of a reply is an error."""
        self.assert_told([], "the connection was closed")

    def test_closed_in_the_middle(self) -> None:
        """An end of file inside of a line is an error; the half line is not looked at."""
        self.assert_told([b'{"result":1}'], "the connection was closed")
        self.assert_told([b'{"res'], "the connection was closed")

    def test_reset(self) -> None:
        """A reset is an error."""
        self.assert_told([reset], "Connection reset by peer")
        self.assert_told([b"{", reset], "Connection reset by peer")

    def test_garbage(self) -> None:
        """What is no message of the protocol is an error, a protocol error."""
        self.assert_told([b"HTTP/1.1 400 Bad Request\r\n\r\n"], "reply can't be understood: .*")
        self.assert_told([b"\n"], "reply can't be understood: .*")
        self.assert_told([b'{"unheard":"of"}\n'], "reply has 0 of the keys .*")
        with self.assertRaises(RemoteProtocolError):
            self.caller([b"\xff\n"]).job(ID).get()

    def test_wrong_reply(self) -> None:
        """A message that does not answer the request is an error."""
        wrong = {
            "Call": b'{"cancelled":true}\n',
            "Cancel": b'{"harpcaller":1,"job_id":"x"}\n',
            "GetResult": b'{"no_result":true}\n',
            "GetStatus": b'{"result":1}\n',
            "FollowStream": b'{"continue":true}\n',
            "ReadStream": b'{"no_result":true}\n',
        }
        for name, line in wrong.items():
            with self.assertRaisesRegex(RemoteProtocolError, f"the dispatcher answered {name}"):
                REQUESTS[name](self.caller([line]))

    def test_silence(self) -> None:
        """A dispatcher that does not answer in time is given up; what is due at once is due."""
        for name in ("Call", "Cancel", "GetStatus", "ReadStream"):
            done = threading.Event()
            rpc = HarpCaller("127.0.0.1", self.peer([until(done)]).port, reply_timeout=0.02)
            self.addCleanup(done.set)
            with self.assertRaisesRegex(
                CommunicationError, f"{name} without a whole reply: nothing came for 0.02 seconds"
            ):
                REQUESTS[name](rpc)

    def test_waiting_has_no_time_limit(self) -> None:
        """Who waits for a result or follows waits on where another request was given up."""
        for name, found in (("GetResult", 1), ("FollowStream", [])):
            asked, answer = threading.Event(), threading.Event()
            result: Script = [lambda _, asked=asked: asked.set(), until(answer), b'{"result":1}\n']  # type: ignore[misc]
            peer = self.peer(result, [until(answer)], [until(answer)])
            self.addCleanup(answer.set)
            rpc = HarpCaller("127.0.0.1", peer.port, reply_timeout=0.05)
            results: list[object] = []

            def wait(
                name: str = name, rpc: HarpCaller = rpc, found: list[object] = results
            ) -> None:
                found.append(REQUESTS[name](rpc))

            waiting = threading.Thread(target=wait)
            waiting.start()
            self.assertTrue(asked.wait(PATIENCE))
            for _ in range(2):
                with self.assertRaisesRegex(CommunicationError, "nothing came"):
                    rpc.job(ID).cancel()
            answer.set()
            waiting.join(PATIENCE)
            self.assertEqual(results, [found])


class LongRequestTests(ClientTestCase):
    """A request that the dispatcher does not read to its end."""

    def test_refusal_of_a_long_line(self) -> None:
        """Why a line was refused is told, though the connection broke while it was sent."""
        refusal = b'{"error":{"type":"invalid_request","message":"too long"}}\n'
        peer = self.peer([refusal], reads=10)
        with self.assertRaises(RemoteError) as caught:
            HarpCaller("127.0.0.1", peer.port).host("web01").run("x" * 20_000_000)
        self.assertEqual(caught.exception.type, "invalid_request")

    def test_broken_while_sending(self) -> None:
        """A call that was not sent whole is not said to be in doubt."""
        peer = self.peer([reset], reads=10)
        with self.assertRaisesRegex(CommunicationError, "Call without a whole reply") as caught:
            HarpCaller("127.0.0.1", peer.port).host("web01").run("x" * 20_000_000)
        self.assertNotIn(IN_DOUBT, str(caught.exception))


class SocketTests(ClientTestCase):
    """How the socket is set up."""

    def test_options(self) -> None:
        """Small requests do not wait for acknowledgements, and a dead peer is found out."""
        peer = self.peer([b"hello"])
        address = Address("127.0.0.1", peer.port, PATIENCE, PATIENCE)
        channel = run(PlainEndpoint(address).connect())
        self.addCleanup(channel.close)
        used = channel._socket
        self.assertTrue(used.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        self.assertTrue(used.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
        run(channel.send(b"\n"))
        self.assertEqual(run(channel.receive(PATIENCE)), b"hello")
        self.assertEqual(run(channel.receive(PATIENCE)), b"")
