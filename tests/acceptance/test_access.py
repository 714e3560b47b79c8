"""The client and the real dispatcher: who gets in by which way, and who is shown what."""

from __future__ import annotations

import hashlib
import os
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import trustme
from twisted.internet import reactor
from twisted.trial.unittest import SynchronousTestCase, TestCase

import harp
from harp import deferred
from harpcaller.demo.deployment import Deployment
from harpcaller.demo.ports import free_port
from tests.acceptance.daemons import HOST, deploy

TOKEN, OTHER_TOKEN = "harp_panel", "harp_guest"
HIDDEN = "hunter2-and-nothing-else"

Way = tuple[tuple[Any, ...], dict[str, Any]]
"""The arguments of `harp.HarpCaller`."""


class Site:
    """A dispatcher that listens with TLS, on a unix socket, and on loopback.

    The user panel is known by token, certificate and uid, and trusted; guest by a token.
    """

    def __init__(self) -> None:
        self.deployment: Deployment = deploy()
        folder = self.deployment.folder
        authority = trustme.CA()
        for name, file in (("127.0.0.1", "rpc.pem"), ("panel.example.net", "panel.pem")):
            pem = authority.issue_cert(name).private_key_and_cert_chain_pem
            pem.write_to_path(str(folder / file))
        self.ca_file = folder / "authority.pem"
        authority.cert_pem.write_to_path(str(self.ca_file))
        self.tls_port = free_port()
        self.socket = f"unix:{folder}/socket"
        identity = f"privateKey={folder}/rpc.pem:certKey={folder}/rpc.pem"
        panel = {
            "tokens": [_hash(TOKEN)],
            "certificates": ["panel.example.net"],
            "uids": [os.getuid()],
            "trusted": True,
        }
        self.deployment.configure_harpcaller(
            {
                "listen": [
                    f"127.0.0.1:{self.deployment.port}",
                    f"ssl:{self.tls_port}:{identity}",
                    self.socket,
                ],
                "client_ca_file": str(self.ca_file),
                "users": {"panel": panel, "guest": {"tokens": [_hash(OTHER_TOKEN)]}},
            }
        )
        self.deployment.__enter__()

    def over_tls(self, **options: Any) -> Way:
        """Return the way in from another machine."""
        return ("127.0.0.1", self.tls_port), {"ca_file": self.ca_file, **options}

    def on_loopback(self, **options: Any) -> Way:
        """Return the way in from this machine."""
        return ("127.0.0.1", self.deployment.port), options

    def ways(self) -> dict[str, Way]:
        """Return every way in as panel."""
        return {
            "token over TLS": self.over_tls(token=TOKEN),
            "certificate": self.over_tls(cert=self.deployment.folder / "panel.pem"),
            "uid": ((self.socket,), {}),
            "token on loopback": self.on_loopback(token=TOKEN),
        }


def _hash(token: str) -> str:
    return f"sha256:{hashlib.sha256(token.encode()).hexdigest()}"


@cache
def site() -> Site:
    """Return the one that these tests share."""
    return Site()


class WayInTests(SynchronousTestCase):
    """The blocking client."""

    def test_every_way(self) -> None:
        """Each way in makes one known, and the job tells who submitted it and for whom."""
        for name, (arguments, options) in site().ways().items():
            rpc = harp.HarpCaller(*arguments, **options)
            job = rpc.host(HOST, on_behalf_of="ada").add(2, 3)
            self.assertEqual(job.get(), 5, name)
            detail = job.detail()
            self.assertEqual((detail["submitter"], detail["on_behalf_of"]), ("panel", "ada"), name)
            listed = [each["job_id"] for each in rpc.jobs(submitter="ada")]
            self.assertIn(job.id(), listed, name)
            self.assertEqual(list(rpc.jobs(submitter="bob")), [], name)
            rpc.close()

    def test_refused(self) -> None:
        """Who is not known, or says more than he may, is told so."""
        stranger, guest = "not_authenticated", "not_allowed"
        ways: list[tuple[Way, str]] = [
            (site().over_tls(), stranger),
            (site().over_tls(token="harp_other"), stranger),
            (site().on_loopback(token="harp_other"), stranger),
            (site().on_loopback(on_behalf_of="ada"), guest),
            (site().over_tls(token=OTHER_TOKEN, on_behalf_of="ada"), guest),
        ]
        for (arguments, options), kind in ways:
            rpc = harp.HarpCaller(*arguments, **options)
            # The answers to a stranger are put off longer each time, so he asks once.
            requests = (rpc.host(HOST).add, rpc.server_info, rpc.jobs().all, rpc.job("x").get)
            for ask in requests[: 1 if kind == stranger else None]:
                with self.assertRaises(harp.RemoteError) as caught:
                    ask()
                error = caught.exception
                found = (error.type, error.origin, error.may_have_run)
                self.assertEqual(found, (kind, harp.Origin.DISPATCHER, False))
        self.assertEqual(rpc.job("x").result().type, guest)

    def test_certificate_of_another_authority(self) -> None:
        """A certificate that nobody knows lets nobody in."""
        with tempfile.NamedTemporaryFile() as file:
            own = trustme.CA().issue_cert("panel.example.net")
            file.write(own.private_key_and_cert_chain_pem.bytes())
            file.flush()
            arguments, options = site().over_tls(cert=file.name)
            rpc = harp.HarpCaller(*arguments, **options)
            with self.assertRaises((harp.RemoteError, harp.CommunicationError)) as caught:
                rpc.host(HOST).add(1)
            self.assertFalse(caught.exception.may_have_run)


class DeferredWayInTests(TestCase):
    """The same in deferred mode."""

    async def test_every_way(self) -> None:
        """Each way in makes one known."""
        for name, (arguments, options) in site().ways().items():
            rpc = deferred.HarpCaller(reactor, *arguments, **options)
            job = await rpc.host(HOST, on_behalf_of="ada").add(2, 3)
            self.assertEqual(await job.get(), 5, name)
            detail = await job.detail()
            self.assertEqual((detail["submitter"], detail["on_behalf_of"]), ("panel", "ada"), name)
            rpc.close()

    async def test_refused(self) -> None:
        """Who is not known is told so."""
        arguments, options = site().over_tls()
        result = await deferred.HarpCaller(reactor, *arguments, **options).job("x").result()
        self.assertEqual(result.type, "not_authenticated")


class SecretTests(SynchronousTestCase):
    """A secret on its way from the client to the procedure."""

    def test_nowhere_but_in_the_procedure(self) -> None:
        """The procedure gets it; no reply, no log and no file of either daemon has it then."""
        arguments, options = site().over_tls(token=TOKEN)
        rpc = harp.HarpCaller(*arguments, **options)
        with tempfile.NamedTemporaryFile("r") as file:
            job = rpc.host(HOST).note(file.name, harp.Secret(HIDDEN))
            job.get()
            self.assertIn(HIDDEN, file.read())
        self.assertEqual(job.args(), [file.name, "(secret)"])
        self.assertNotIn(HIDDEN, repr(job.detail()) + repr(rpc.jobs().all()))
        for each in Path(site().deployment.folder).iterdir():
            if each.is_file():
                self.assertNotIn(HIDDEN.encode(), each.read_bytes(), each)
