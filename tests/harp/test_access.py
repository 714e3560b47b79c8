"""Tests of ``harp.access`` and ``harp.dispatchers``: who asks, and over what kind of connection."""

from __future__ import annotations

import copy
import json
import pickle
import ssl
import tempfile
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from twisted.trial.unittest import SynchronousTestCase

import harp
from harp import Origin
from harp.wire import dispatcher
from tests.harp.modes import ContractTestCase, authority, both_modes, hear, identity
from tests.harp.peer import REFUSAL, ScriptedDispatcher, reset
from tests.harp.test_dispatcher_wire import ID
from tests.harp.test_dispatchers import FALSE, JOB, info

TOKEN = "harp_correct-horse-battery-staple"
BOTH = {"token": TOKEN, "on_behalf_of": "ada"}
STATUS = (
    b'{"call":{"host":"h","procedure":"p","arguments":["(secret)"]},'
    b'"time":{"submit":1,"start":null,"end":null},"info":null}\n'
)
PAGE = b'{"jobs":[],"cursor":null}\n'
NOT_ALLOWED = b'{"error":{"type":"not_allowed","message":"M"}}\n'
NOT_AUTHENTICATED = b'{"error":{"type":"not_authenticated","message":"M"}}\n'


class WhoAsks(ContractTestCase):
    """What each request says of who asks."""

    def setUp(self) -> None:
        """Nothing is heard yet."""
        self.lines: list[bytes] = []

    def dispatcher(self, *answers: bytes, begins: bytes | None = None) -> ScriptedDispatcher:
        """Return one that answers these requests on one connection."""
        steps = [step for answer in answers for step in (hear(self.lines), answer)]
        return self.peer([begins or info(), *steps], knows_version_1=False)

    def heard(self) -> list[Any]:
        """Return what the requests said of who asks."""
        return [json.loads(line).get("auth") for line in self.lines]

    async def test_every_request(self) -> None:
        """Token and name go with each request, the question what is offered included."""
        peer = self.dispatcher(
            JOB, FALSE, b'{"result":1}\n', STATUS, b'{"result":1}\n', PAGE, info()
        )
        rpc = self.caller(peer.port, **BOTH)
        job = await self.mode.done(rpc.web01.run())
        await self.mode.done(job.cancel())
        await self.mode.done(job.get())
        self.assertEqual(await self.mode.done(job.args()), ["(secret)"])
        await self.mode.items(job.follow())
        await self.mode.items(rpc.jobs())
        await self.mode.done(rpc.server_info())
        self.assertEqual(self.heard(), [BOTH] * 7)
        self.assertEqual(json.loads(peer.requests[0])["auth"], BOTH)
        for line in (*peer.requests, *self.lines):
            self.assertTrue(line.startswith(b'{"harpcaller":1,"auth":{"token":'), line)

    async def test_nothing_to_say(self) -> None:
        """Who says nothing of himself sends the key nowhere."""
        peer = self.dispatcher(JOB)
        await self.mode.done(self.caller(peer.port).web01.run())
        self.assertEqual(self.heard(), [None])
        self.assertNotIn(b"auth", peer.requests[0])

    async def test_on_behalf_of_for_some_calls(self) -> None:
        """The name given with a host goes with its calls and with what is asked of their jobs.

        The caller that it was got from goes on as before, on the same connection.
        """
        peer = self.dispatcher(JOB, FALSE, JOB, JOB)
        rpc = self.caller(peer.port, token=TOKEN)
        job = await self.mode.done(rpc.host("web01", on_behalf_of="ada").run())
        await self.mode.done(job.cancel())
        await self.mode.done(rpc.web01.run())
        await self.mode.done(rpc("web01", on_behalf_of="bob").run())
        alone = {"token": TOKEN}
        self.assertEqual(self.heard(), [BOTH, BOTH, alone, {**alone, "on_behalf_of": "bob"}])

    async def test_on_behalf_of_alone(self) -> None:
        """A name needs no token: a certificate or a uid can tell who asks."""
        peer = self.dispatcher(JOB)
        rpc = self.caller(peer.port)
        await self.mode.done(rpc.host("web01", on_behalf_of="ada").run())
        self.assertEqual(self.heard(), [{"on_behalf_of": "ada"}])

    async def test_old_dispatchers(self) -> None:
        """A dispatcher that knows nothing of users is asked nothing, whatever its age."""
        for answer in (REFUSAL, info("keepalive", "list_jobs")):
            for ask in (
                lambda rpc: rpc.web01.run(),
                lambda rpc: rpc.job(ID).result(),
                lambda rpc: rpc.job(ID).cancel(),
                lambda rpc: rpc.server_info(),
                lambda rpc: rpc.jobs().all(),
            ):
                scripts = [[REFUSAL], [answer]] * 2
                peer = self.peer(*scripts, knows_version_1=False)
                rpc = self.caller(peer.port, token=TOKEN)
                error = await self.failure(harp.UnsupportedError, partial(ask, rpc))
                self.assertRegex(str(error), "the dispatcher has no auth")
                questions = [json.loads(line) for line in peer.requests]
                self.assertEqual([each["server_info"] for each in questions], [True] * 4)
                self.assertEqual(
                    [each.get("auth") is None for each in questions], [False, True] * 2
                )

    async def test_no_answer_to_the_question(self) -> None:
        """A connection that broke says nothing about the dispatcher's age; nothing was started."""
        peer = self.peer([reset], [reset], knows_version_1=False)
        rpc = self.caller(peer.port, token=TOKEN)
        for _ in range(2):  # each asks once
            error = await self.failure(harp.CommunicationError, rpc.web01.run)
            self.assertFalse(error.may_have_run)

    async def test_refused(self) -> None:
        """A refusal is raised by every request, and returned by `result`."""
        asks: list[Callable[[Any], Any]] = [
            lambda rpc: rpc.web01.run(),
            lambda rpc: rpc.job(ID).get(),
            lambda rpc: rpc.job(ID).cancel(),
            lambda rpc: rpc.job(ID).args(),
            lambda rpc: rpc.job(ID).detail(),
            lambda rpc: rpc.job(ID).follow().all(),
            lambda rpc: rpc.job(ID).stream().all(),
            lambda rpc: rpc.jobs().all(),
            lambda rpc: rpc.queues().all(),
            lambda rpc: rpc.cancel_queue({}),
            lambda rpc: rpc.reload(),
            lambda rpc: rpc.stop_dispatcher(),
            lambda rpc: rpc.prune(1),
        ]
        for line, kind in ((NOT_ALLOWED, "not_allowed"), (NOT_AUTHENTICATED, "not_authenticated")):
            for ask in asks:
                rpc = self.caller(self.dispatcher(line).port, token=TOKEN)
                self.check_refusal(await self.failure(harp.RemoteError, partial(ask, rpc)), kind)
            rpc = self.caller(self.dispatcher(line).port, token=TOKEN)
            self.check_refusal(await self.mode.done(rpc.job(ID).result()), kind)

    async def test_refused_at_once(self) -> None:
        """Who may not even know what is offered gets the same refusal."""
        for line, kind in ((NOT_ALLOWED, "not_allowed"), (NOT_AUTHENTICATED, "not_authenticated")):
            for options in ({}, {"token": TOKEN}):
                peer = self.peer([line], [line], [line], knows_version_1=False)
                rpc = self.caller(peer.port, **options)
                for ask in (lambda rpc: rpc.web01.run(), lambda rpc: rpc.job(ID).follow().all()):
                    refusal = await self.failure(harp.RemoteError, partial(ask, rpc))
                    self.check_refusal(refusal, kind)
                self.check_refusal(await self.mode.done(rpc.job(ID).result()), kind)

    async def test_failed_at_once(self) -> None:
        """A dispatcher that could not even say what it offers has started nothing."""
        line = b'{"error":{"type":"os_error","message":"M"}}\n'
        rpc = self.caller(self.peer([line], knows_version_1=False).port)
        self.check_refusal(await self.failure(harp.RemoteError, rpc.web01.run), "os_error")

    def check_refusal(self, error: Any, kind: str) -> None:
        self.assertIsInstance(error, harp.RemoteError)
        self.assertEqual(
            (error.type, error.origin, error.may_have_run), (kind, Origin.DISPATCHER, False)
        )

    async def test_refusal_is_no_end(self) -> None:
        """What was refused is asked again: the rules may be others by now."""
        job = self.caller(self.dispatcher(NOT_ALLOWED, b'{"result":7}\n').port).job(ID)
        self.check_refusal(await self.mode.done(job.result()), "not_allowed")
        self.assertEqual(await self.mode.done(job.result()), 7)

    async def test_jobs_of_a_submitter(self) -> None:
        """Jobs are listed by who submitted them, and say it; older dispatchers are not asked."""
        entry = (
            b'{"job_id":"1","host":"h","procedure":"p","state":"ended","queue":null,'
            b'"waits_for":null,"time":{"submit":1.5,"start":2,"end":3},"end":"result",'
            b'"caller":"10.0.0.1","submitter":"panel","on_behalf_of":"ada"}'
        )
        peer = self.dispatcher(b'{"jobs":[%b],"cursor":null}\n' % entry)
        (job,) = await self.mode.items(self.caller(peer.port).jobs(submitter="panel"))
        self.assertEqual((job["submitter"], job["on_behalf_of"]), ("panel", "ada"))
        self.assertEqual(json.loads(self.lines[0])["list_jobs"], {"submitter": "panel"})
        peer = self.peer(*[[info("list_jobs")]] * 2, knows_version_1=False)
        listing = self.caller(peer.port).jobs(submitter="panel")
        await self.failure(harp.UnsupportedError, listing.all)

    async def test_detail(self) -> None:
        """What is known of a job tells who submitted it and for whom."""
        detail = (
            b'"detail":{"state":"ended","waits_for":null,"waits_for_lock":null,'
            b'"time":{"submit":1,"start":2,"end":3},"timeout":1,"max_exec_time":1,"caller":"x",'
            b'"packets":0,"queue":null,"submitter":"panel","on_behalf_of":"ada"}}\n'
        )
        peer = self.dispatcher(STATUS.replace(b"null}\n", b"null," + detail))
        found = await self.mode.done(self.caller(peer.port).job(ID).detail())
        self.assertEqual((found["submitter"], found["on_behalf_of"]), ("panel", "ada"))


class Connections(ContractTestCase):
    """Over what a dispatcher is spoken to."""

    def own(self, issuer: trustme.CA | None = None) -> trustme.LeafCert:
        """Return a certificate for a client."""
        return (issuer or authority()).issue_cert("panel.example.net")

    def file(self, *parts: bytes) -> str:
        """Return a file with this text."""
        path = Path(self.mktemp())
        path.write_bytes(b"".join(parts))
        return str(path)

    def demanding(self) -> ssl.SSLContext:
        """Return the side of a dispatcher that wants a certificate."""
        context = identity()
        context.verify_mode = ssl.CERT_REQUIRED
        authority().configure_trust(context)
        return context

    async def submit(self, peer: ScriptedDispatcher, **options: Any) -> None:
        job = await self.mode.done(self.caller(peer.port, **options).web01.run())
        self.assertEqual(job.id(), ID)

    async def test_tls(self) -> None:
        """With an authority TLS is spoken, 1.2 as well, and the token goes over it."""
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            tls = identity()
            tls.minimum_version = tls.maximum_version = version
            lines: list[bytes] = []
            peer = self.peer([info(), hear(lines), JOB], tls=tls, knows_version_1=False)
            await self.submit(peer, ca_file=self.ca_file(), token=TOKEN)
            self.assertEqual(json.loads(lines[0])["auth"], {"token": TOKEN})

    async def test_untrusted(self) -> None:
        """A dispatcher of another authority, or of another name, gets no request."""
        for tls in (identity(issuer=trustme.CA()), identity("127.0.0.2")):
            peer = self.peer([], tls=tls, knows_version_1=False, refuses=True)
            rpc = self.caller(peer.port, ca_file=self.ca_file(), token=TOKEN)
            error = await self.failure(harp.CommunicationError, rpc.web01.run)
            self.assertRegex(str(error), "certificate")
            self.assertFalse(error.may_have_run)
            self.assertEqual(peer.requests, [])

    async def test_authorities_of_the_system(self) -> None:
        """TLS alone takes the system's authorities, which did not sign this one."""
        peer = self.peer([], tls=identity(), knows_version_1=False, refuses=True)
        await self.failure(harp.CommunicationError, self.caller(peer.port, tls=True).web01.run)
        self.assertEqual(peer.requests, [])

    async def test_server_name(self) -> None:
        """The certificate may be for another name than the address, if that is said."""
        tls = identity("rpc.example.net")
        peer = self.peer([info(), hear([]), JOB], tls=tls, knows_version_1=False)
        await self.submit(peer, ca_file=self.ca_file(), server_name="rpc.example.net")

    async def test_own_certificate(self) -> None:
        """The certificate is shown, from one file or from two, with what is between."""
        between = authority().create_child_ca()
        for own, is_chain in ((self.own(), False), (self.own(between), True)):
            key = own.private_key_pem.bytes()
            chain = [each.bytes() for each in own.cert_chain_pems]
            self.assertEqual(len(chain) > 1, is_chain)
            for cert in (self.file(*chain, key), self.file(key, *chain)):
                await self.assert_shown(cert)
            await self.assert_shown((self.file(*chain), Path(self.file(key))))

    async def assert_shown(self, cert: Any) -> None:
        shown: list[Any] = []

        def look(connection: Any) -> None:
            shown.append(connection.getpeercert()["subjectAltName"])

        peer = self.peer([look, info(), hear([]), JOB], tls=self.demanding(), knows_version_1=False)
        await self.submit(peer, ca_file=self.ca_file(), cert=cert)
        self.assertEqual(shown, [(("DNS", "panel.example.net"),)])

    async def test_without_certificate(self) -> None:
        """A dispatcher that wants a certificate and gets none ends it; that is told."""
        peer = self.peer([], tls=self.demanding(), knows_version_1=False, refuses=True)
        rpc = self.caller(peer.port, ca_file=self.ca_file(), token=TOKEN)
        error = await self.failure(harp.CommunicationError, rpc.web01.run)
        self.assertFalse(error.may_have_run)
        self.assertNotIn(TOKEN, str(error))

    def test_bad_files(self) -> None:
        """A file that can't be used is named where it is given; nobody is asked for a password."""
        own, key = self.own(), self.own().private_key_pem.bytes()
        chain = own.cert_chain_pems[0].bytes()
        encrypted = load_pem_private_key(own.private_key_pem.bytes(), None).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")
        )
        wrong: dict[str, dict[str, Any]] = {
            "ca_file .* can't be used: No such file": {"ca_file": "/nonexistent"},
            "cert .* can't be used: No such file": {"cert": "/nonexistent"},
            "cert .* can't be used: ": {"cert": self.file(chain)},
            "cert .*can't be used: ": {"cert": (self.file(key), self.file(key))},
            "cert .*can't be used:  ?.*(mismatch|MISMATCH)": {"cert": self.file(chain, key)},
            "cert .*can't be used:": {"cert": self.file(chain, encrypted)},
        }
        for told, options in wrong.items():
            with self.assertRaisesRegex(ValueError, told):
                self.caller(1, **options)

    async def test_unix_socket(self) -> None:
        """A dispatcher is reached by the path of its socket, with a token too."""
        with tempfile.TemporaryDirectory() as folder:  # trial's path may be too long for one
            path = f"{folder}/socket"
            lines: list[bytes] = []
            peer = self.peer([info(), hear(lines), JOB], path=path, knows_version_1=False)
            rpc = self.mode.module.HarpCaller(*self.mode.first, f"unix:{path}", **BOTH)
            self._close_later(rpc.close)
            self.assertEqual(repr(rpc), f"<harp.HarpCaller unix:{path}>")
            await self.mode.done(rpc.web01.run())
            self.assertEqual(json.loads(lines[0])["auth"], BOTH)
            peer.stop()

    async def test_no_unix_socket(self) -> None:
        """A socket that is not there is told with its path."""
        rpc = self.mode.module.HarpCaller(*self.mode.first, "unix:/nonexistent/socket")
        error = await self.failure(harp.CommunicationError, rpc.web01.run)
        self.assertEqual(
            str(error), "unix:/nonexistent/socket: can't connect: No such file or directory"
        )
        self.assertFalse(error.may_have_run)


class OptionsTests(SynchronousTestCase):
    """What is refused where it is given, and what is never shown."""

    def test_token_in_clear_text(self) -> None:
        """A token leaves the machine encrypted, or when somebody said that it may not be so."""
        for host in ("localhost", "127.0.0.1", "127.9.9.9", "::1", "LOCALHOST.", "unix:/run/x"):
            harp.HarpCaller(host, token=TOKEN)
        for host in ("web01.example.net", "10.0.0.1", "localhost.example.net", "fe80::1"):
            with self.assertRaisesRegex(ValueError, "would be sent unencrypted") as caught:
                harp.HarpCaller(host, token=TOKEN)
            self.assertNotIn(TOKEN, str(caught.exception))
            harp.HarpCaller(host, token=TOKEN, insecure=True)
            harp.HarpCaller(host, token=TOKEN, tls=True)
            harp.HarpCaller(host, on_behalf_of="ada")

    def test_mistakes(self) -> None:
        """Wrong types and values are named, a token is not told."""
        wrong: list[tuple[dict[str, Any], type[Exception], str]] = [
            ({"token": b"x"}, TypeError, "token must be a str, not bytes"),
            ({"token": ""}, ValueError, "token must have 1 to 1000 characters, not 0"),
            ({"token": f"{TOKEN}\n"}, ValueError, "such as the end of a line"),
            ({"token": f"{TOKEN} x"}, ValueError, "a character that no token has"),
            ({"token": f"{TOKEN}ż"}, ValueError, "a character that no token has"),
            ({"on_behalf_of": ""}, ValueError, "on_behalf_of must have 1 to 200 characters, not 0"),
            ({"on_behalf_of": 201 * "x"}, ValueError, "not 201"),
            ({"on_behalf_of": 7}, TypeError, "on_behalf_of must be a str"),
            ({"cert": 7}, TypeError, "cert must be a path"),
            ({"cert": ("a", "b", "c")}, TypeError, "cert must be a path"),
            ({"tls": "yes"}, TypeError, "tls must be True, False or None, not str"),
            ({"tls": False, "ca_file": "x"}, ValueError, "ca_file with tls=False"),
            ({"server_name": 7}, TypeError, "server_name must be a str"),
            ({"host": "unix:"}, ValueError, "needs a path of 1 to 107 bytes"),
            ({"host": "unix:/" + 107 * "x"}, ValueError, "needs a path of 1 to 107 bytes"),
            ({"host": "unix:/x\0"}, ValueError, "needs a path"),
            ({"host": "unix:/x", "ca_file": "x"}, ValueError, "ca_file with unix:/x: there is no"),
            ({"host": "unix:/x", "tls": True}, ValueError, "tls with unix:/x: there is no TLS"),
        ]
        for options, kind, told in wrong:
            with self.assertRaisesRegex(kind, told) as caught:
                harp.HarpCaller(**{"host": "localhost", **options})
            self.assertNotIn(TOKEN, "".join(traceback.format_exception(caught.exception)))
        for name, kind in (("", ValueError), (7, TypeError)):
            with self.assertRaisesRegex(kind, "on_behalf_of"):
                harp.HarpCaller("localhost").host("web01", on_behalf_of=name)  # type: ignore[arg-type]

    def test_token_is_not_shown(self) -> None:
        """Nothing that a program would print has the token in it."""
        rpc = harp.HarpCaller("localhost", **BOTH)  # type: ignore[arg-type]
        host = rpc.host("web01", on_behalf_of="bob")
        for value in (rpc, host, rpc.job(ID), rpc.jobs(), host.run, rpc._dispatcher._auth):
            self.assertNotIn(TOKEN, repr(value))
        request = dispatcher.Cancel(harpcaller=1, cancel=ID, auth=dispatcher.Auth(TOKEN))
        self.assertNotIn(TOKEN, repr(request))

    def test_copies_and_pickles(self) -> None:
        """Copies and pickles say the same of who asks, over the same kind of connection."""
        with tempfile.NamedTemporaryFile() as file:
            own = authority().issue_cert("panel.example.net")
            file.write(own.private_key_and_cert_chain_pem.bytes())
            file.flush()
            rpc = harp.HarpCaller("localhost", cert=file.name, **BOTH)  # type: ignore[arg-type]
            host = rpc.host("web01", on_behalf_of="bob")
            for same in (copy.copy, copy.deepcopy, _pickled):
                for each in (rpc, host):
                    twin = same(each)._dispatcher
                    self.assertEqual(twin._auth, each._dispatcher._auth)
                    endpoint: Any = twin._pool.endpoint
                    self.assertEqual(endpoint._trust.own, (file.name, file.name))


def _pickled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


globals().update(both_modes(WhoAsks))
globals().update(both_modes(Connections))
del WhoAsks, Connections
