"""Tests of ``harp`` and ``harp.blocking``: how hosts and procedures are named and called."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import harp
from harp import HarpCaller, RemoteCall, RemoteServer
from tests.harp.peer import PATIENCE, ClientTestCase, slowly
from tests.harp.test_dispatcher_wire import ID

JOB = b'{"harpcaller":1,"job_id":"%b"}\n' % ID.encode()


class PackageTests(ClientTestCase):
    """What ``import harp`` gives."""

    def test_imports_no_twisted(self) -> None:
        """A web application does not get a reactor by importing the client."""
        code = "import harp, sys; print([m for m in sys.modules if m.partition('.')[0] in %r])"
        unwanted = ("twisted", "OpenSSL", "yaml", "sqlalchemy", "harpd", "harpcaller")
        found = subprocess.run(
            [sys.executable, "-c", code % (unwanted,)],
            env={**os.environ, "PYTHONPATH": str(Path(harp.__file__).parents[1])},
            capture_output=True,
            text=True,
            check=True,
        )
        self.assertEqual(found.stdout, "[]\n")

    def test_public_names(self) -> None:
        """Every public name is there and documented."""
        for name in harp.__all__:
            self.assertTrue(getattr(harp, name).__doc__, name)


class SubmitTests(ClientTestCase):
    """Calling an attribute of a host sends the request of the protocol page and gives a job."""

    def assert_sent(self, rpc_call: Any, line: bytes) -> None:
        """Check the one line that is sent, and that the job's id comes back."""
        peer = self.peer([JOB])
        job = rpc_call(HarpCaller("127.0.0.1", peer.port))
        self.assertIsInstance(job, RemoteCall)
        self.assertEqual(job.id(), ID)
        self.assertEqual(peer.requests, [line + b"\n"])

    def test_three_ways_to_name_a_host(self) -> None:
        """A host is an attribute, an argument of the object, or one of `host`."""
        line = b'{"harpcaller":1,"host":"web01","procedure":"run_foo","arguments":[]}'
        self.assert_sent(lambda rpc: rpc.web01.run_foo(), line)
        self.assert_sent(lambda rpc: rpc("web01").run_foo(), line)
        self.assert_sent(lambda rpc: rpc.host("web01").run_foo(), line)

    def test_arguments(self) -> None:
        """Positional arguments are sent as a list, keyword arguments as an object."""
        begin = b'{"harpcaller":1,"host":"web01","procedure":"run","arguments":'
        self.assert_sent(lambda rpc: rpc.web01.run(1, "a"), begin + b'[1,"a"]}')
        self.assert_sent(
            lambda rpc: rpc.web01.run(self=1, procedure=[2]), begin + b'{"self":1,"procedure":[2]}}'
        )

    def test_options(self) -> None:
        """The options are sent where they belong, and only those that were given."""
        begin = b'{"harpcaller":1,"host":"web01","procedure":"run","arguments":[],'
        self.assert_sent(lambda rpc: rpc("web01", timeout=60).run(), begin + b'"timeout":60}')
        self.assert_sent(
            lambda rpc: rpc.host("web01", queue={"b": 1, "a": None}).run(),
            begin + b'"queue":{"name":{"b":1,"a":null},"concurrency":1}}',
        )
        self.assert_sent(
            lambda rpc: rpc.host(
                "web01",
                queue={},
                concurrency=3,
                timeout=1.5,
                max_exec_time=600,
                info={"by": "ż"},
            ).run(),
            begin + b'"timeout":1.5,"max_exec_time":600,"queue":{"name":{},"concurrency":3},'
            b'"info":{"by":"\xc5\xbc"}}',
        )

    def test_names_that_python_does_not_allow(self) -> None:
        """A host or a procedure may have any name."""
        self.assert_sent(
            lambda rpc: getattr(rpc.host("web-01.example.net"), "disk-usage")(),
            b'{"harpcaller":1,"host":"web-01.example.net","procedure":"disk-usage","arguments":[]}',
        )

    def test_reply_in_single_bytes(self) -> None:
        """How the reply comes makes no difference."""
        self.assertEqual(self.caller(slowly(JOB)).web01.run().id(), ID)

    def test_refused(self) -> None:
        """What the dispatcher says against the request is raised."""
        line = b'{"error":{"type":"invalid_request","message":"M","data":{"key":"queue"}}}\n'
        with self.assertRaises(harp.RemoteError) as caught:
            self.caller([line]).web01.run()
        error = caught.exception
        self.assertEqual(
            (error.type, error.message, error.data), ("invalid_request", "M", {"key": "queue"})
        )

    def test_mistakes_are_not_sent(self) -> None:
        """A call that can't be written is refused before anything connects."""
        rpc = HarpCaller("127.0.0.1", 1)
        with self.assertRaises(TypeError):
            rpc.web01.run(1, size=2)
        with self.assertRaises(TypeError):
            rpc.web01.run(object())
        with self.assertRaises(ValueError):
            rpc.web01.run(float("nan"))
        with self.assertRaises(ValueError):
            getattr(rpc.web01, "\ud800")()

    def test_threads_share_a_caller(self) -> None:
        """One object serves threads at once, each gets its own reply."""
        ids = [str(number) for number in range(8)]
        rpc = self.caller(*([JOB.replace(ID.encode(), id.encode())] for id in ids))
        found: list[str] = []
        threads = [threading.Thread(target=lambda: found.append(rpc.web01.run().id())) for _ in ids]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        self.assertEqual(sorted(found), ids)


class HarpCallerTests(ClientTestCase):
    """The object itself."""

    def test_unknown_option(self) -> None:
        """An option that there is not is named, it is not dropped."""
        rpc: Any = HarpCaller("localhost")
        for name_host in (rpc.host, rpc):
            with self.assertRaisesRegex(TypeError, "max_exec_tme"):
                name_host("web01", max_exec_tme=60)

    def test_mistakes(self) -> None:
        """Wrong types and values are refused where they are given."""
        wrong: list[tuple[Any, type[Exception], str]] = [
            (lambda: HarpCaller(None), TypeError, "host must be a str, not NoneType"),  # type: ignore[arg-type]
            (lambda: HarpCaller("h", "1"), TypeError, "port must be a whole number, not str"),  # type: ignore[arg-type]
            (lambda: HarpCaller("h", 0), ValueError, "port must be from 1 to 65535, not 0"),
            (lambda: HarpCaller("h", 65536), ValueError, "not 65536"),
            (lambda: HarpCaller("h", connect_timeout=0), ValueError, "connect_timeout"),
            (lambda: HarpCaller("h", reply_timeout=-1), ValueError, "reply_timeout"),
            (lambda: HarpCaller("h").host(7), TypeError, "name must be a str, not int"),  # type: ignore[arg-type]
            (lambda: HarpCaller("h").job(7), TypeError, "job_id must be a str, not int"),  # type: ignore[arg-type]
            (lambda: HarpCaller("h").host("w", concurrency=2), ValueError, "without queue"),
            (lambda: HarpCaller("h")("w", queue=[]), TypeError, "queue must be a dict"),  # type: ignore[arg-type]
        ]
        for act, kind, told in wrong:
            with self.assertRaisesRegex(kind, told):
                act()

    def test_default_port(self) -> None:
        """The port is that of the protocol page where none is given."""
        self.assertEqual(repr(HarpCaller("localhost")), "<harp.HarpCaller localhost:3502>")

    def test_private_names(self) -> None:
        """Names with an underscore are no hosts and no procedures."""
        rpc = HarpCaller("localhost")
        self.assertFalse(hasattr(rpc, "_repr_html_"))
        self.assertFalse(hasattr(rpc.web01, "__wrapped__"))
        with self.assertRaisesRegex(AttributeError, "'HarpCaller' object has no attribute '_x'"):
            _ = rpc._x
        with self.assertRaisesRegex(AttributeError, "'RemoteServer' object has no attribute '_x'"):
            _ = rpc.web01._x

    def test_reprs(self) -> None:
        """Each object says what it is; asking for that asks nobody."""
        rpc = HarpCaller("::1", 4000)
        self.assertEqual(repr(rpc), "<harp.HarpCaller [::1]:4000>")
        self.assertEqual(repr(rpc.web01), "<harp.RemoteServer 'web01' by [::1]:4000>")
        self.assertEqual(repr(rpc.job("7")), "<harp.RemoteCall 7 by [::1]:4000>")

    def test_copies_and_pickles(self) -> None:
        """Copies and pickles of each object work like the object."""
        peer = self.peer(*[[JOB]] * 6)
        rpc = HarpCaller("127.0.0.1", peer.port)
        server = rpc.host("web01", queue={"a": 1}, info="x", timeout=1)
        for same in (copy.copy, copy.deepcopy, _pickled):
            self.assertIsInstance(same(rpc).web01.run(), RemoteCall)
            twin = same(server)
            self.assertIsInstance(twin, RemoteServer)
            self.assertEqual(same(twin.run()).id(), ID)
        self.assertEqual(len(set(peer.requests)), 2)


def _pickled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))
