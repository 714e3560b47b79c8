"""What the tests of the dispatcher's core share: a store, a network and a harpd that obey the test.

The store's answers come when the test gives them. The network is in memory and on a clock; what
runs over it are the real protocols, TLS included.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple, cast

import msgspec
import trustme
from cryptography import x509
from twisted.internet import ssl
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.testing import MemoryReactorClock
from twisted.protocols import tls
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.test.iosim import FakeTransport, IOPump, connect
from twisted.trial.unittest import SynchronousTestCase

from harp.session import IncomingCall
from harp.wire import harpd
from harpcaller.connections import Connections, endpoint_by
from harpcaller.hosts import Host, HostsRegistry
from harpcaller.jobs import Job, JobState
from harpcaller.store import JobStore
from harpcaller.trust import ServerTrust

HOST = Host("web01", "10.1.2.3", 4306, "dispatcher", "secret")


def running_job(**changes: Any) -> Job:
    """Return a job that runs on `HOST`."""
    fields: dict[str, Any] = {
        "id": "the-job",
        "host": HOST.name,
        "procedure": "df",
        "arguments": b'["/srv"]',
        "info": b'{"ticket": 7}',
        "timeout": 10.0,
        "max_exec_time": 60.0,
        "queue": None,
        "state": JobState.RUNNING,
        "submitted": 1000.25,
        "started": 1001.5,
    }
    return Job(**(fields | changes))


def ended_job(job: Job, end: Any, at: float = 1007.75) -> Job:
    """Return the job as it is when it has ended."""
    return msgspec.structs.replace(job, state=JobState.ENDED, ended=at, end=end)


class Hosts:
    """A registry with the hosts that it is given."""

    def __init__(self, *hosts: Host) -> None:
        self._hosts = {host.name: host for host in hosts}

    def lookup(self, name: str) -> Host | None:
        return self._hosts.get(name)


def hosts(*known: Host) -> HostsRegistry:
    """Return a registry in which nothing but these hosts can be looked up."""
    return cast(HostsRegistry, Hosts(*known))


class Question(NamedTuple):
    """Something that was asked of the store."""

    method: str
    arguments: dict[str, Any]
    answer: Deferred[Any]


class PatientStore:
    """Has the methods of a job store; the test answers, when and in which order it likes."""

    def __init__(self) -> None:
        self.questions: list[Question] = []

    def __getattr__(self, method: str) -> Callable[..., Deferred[Any]]:
        # What the real store would not take is not taken here either.
        signature = inspect.signature(getattr(JobStore, method))

        def ask(*args: Any, **kwargs: Any) -> Deferred[Any]:
            arguments = signature.bind(self, *args, **kwargs).arguments
            del arguments["self"]
            answer: Deferred[Any] = Deferred()
            self.questions.append(Question(method, arguments, answer))
            return answer

        return ask

    @property
    def real(self) -> JobStore:
        """The store as those take it who know nothing of its patience."""
        return cast(JobStore, self)

    def asked(self, method: str) -> list[dict[str, Any]]:
        """Return the arguments of the questions of a kind that are not answered yet."""
        return [each.arguments for each in self.questions if each.method == method]

    def answer(self, method: str, value: Any) -> dict[str, Any]:
        """Answer the oldest question of a kind, by an exception if that is the value.

        :return: the arguments of the question.
        """
        question = next(each for each in self.questions if each.method == method)
        self.questions.remove(question)
        if isinstance(value, Exception):
            question.answer.errback(value)
        else:
            question.answer.callback(value)
        return question.arguments


@cache
def authority() -> trustme.CA:
    """Return the authority that the hosts registry's harpds are signed by."""
    return trustme.CA()


def trust_in(ca: trustme.CA) -> ServerTrust:
    """Return a trust in what an authority signed."""
    return ServerTrust([x509.load_pem_x509_certificate(ca.cert_pem.bytes())])


@cache
def trust() -> ServerTrust:
    """Return the trust in the harpds of the hosts registry."""
    return trust_in(authority())


@cache
def _identity() -> ssl.CertificateOptions:
    issued = authority().issue_cert(HOST.address)
    pem = issued.private_key_and_cert_chain_pem.bytes()
    own = ssl.PrivateCertificate.loadPEM(pem)
    options = ssl.CertificateOptions(
        privateKey=own.privateKey.original, certificate=own.original, enableSessionTickets=True
    )
    options.getContext().set_session_id(b"harpd")
    return options


class Wire(FakeTransport):
    """One end of a connection in memory; what is paused gets nothing.

    :ivar aborted: whether this end was cut rather than closed.
    :ivar resumed: how often this end was told to read on.
    :ivar unread: what the reactor would find here next: bytes, none for the end, or a failure.
    """

    other: Wire
    unread: bytes | type[OSError] = BlockingIOError

    def __init__(self, protocol: Any, isServer: bool) -> None:
        super().__init__(protocol, isServer)  # type: ignore[no-untyped-call]
        self.paused = False
        self.aborted = False
        self.resumed = 0

    @property
    def socket(self) -> Wire:
        """What is below."""
        return self

    def recv(self, size: int, flags: int) -> bytes:
        if isinstance(self.unread, type):
            raise self.unread
        return self.unread[:size]

    def getOutBuffer(self) -> bytes | None:
        if self.other.paused:
            return None
        return super().getOutBuffer()  # type: ignore[no-untyped-call,no-any-return]

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False
        self.resumed += 1

    def abortConnection(self) -> None:
        self.aborted = True
        super().abortConnection()  # type: ignore[no-untyped-call]


Asked = Callable[["HarpdEnd", dict[str, Any]], None]


class HarpdEnd(Protocol):
    """harpd's end of one connection, which carries one request at a time.

    :param asked: called with each request.
    :ivar received: what the dispatcher sent.
    :ivar lost: whether the connection has ended.
    :ivar near: the dispatcher's end of the connection.
    """

    pump: IOPump
    near: Wire

    def __init__(self, asked: Asked) -> None:
        self.received = b""
        self.lost = False
        self._asked = asked
        self._session = IncomingCall()

    @property
    def requests(self) -> list[Any]:
        """What the dispatcher asked so far, decoded."""
        return [json.loads(line) for line in self.received.splitlines()]

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        if data.endswith(b"\n"):
            line = self.received.splitlines()[-1]
            self._session = IncomingCall(harpd.decode_request_line(line))
            self._asked(self, json.loads(line))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = True

    def flush(self) -> None:
        """Let everything come through."""
        self.pump.flush()

    def say(self, data: bytes) -> None:
        """Send bytes."""
        assert self.transport is not None
        self.transport.write(data)
        self.flush()

    def reply(self, *replies: harpd.Reply) -> None:
        """Send replies all at once, in a legal order."""
        self.say(b"".join(map(self._session.send, replies)))

    def leave(self) -> None:
        """Close the connection in good order."""
        self.begin_to_leave()
        self.flush()

    def begin_to_leave(self) -> None:
        """Close the connection in good order; the dispatcher has not heard of it."""
        assert self.transport is not None
        self.transport.loseConnection()

    def cut(self) -> None:
        """Break the connection, without an end of TLS."""
        self.near.other.loseConnection()
        self.flush()


class NetworkTestCase(SynchronousTestCase):
    """A test with a network, on whose clock everything runs.

    :ivar connections: the connections with harpds over that network.
    """

    def setUp(self) -> None:
        """Lay the network."""
        self.network = new_network(self)
        self.connections = connections(self.network)

    def accept(self, handshake: bool = True) -> HarpdEnd:
        """Be harpd: accept the connection that was asked for first."""
        return accept(self.network, handshake)


def connections(
    network: MemoryReactorClock,
    server_trust: ServerTrust | None = None,
    lookup: Callable[[str], Host | None] = {HOST.name: HOST}.get,
) -> Connections:
    """Return connections over a network, by default with those that are trusted."""
    return Connections(network, endpoint_by(network, server_trust or trust()), lookup)


def new_network(test: SynchronousTestCase) -> MemoryReactorClock:
    """Return a network for the length of a test."""
    network = MemoryReactorClock()
    # TLS gathers small writes until the next turn of the global reactor.
    test.patch(tls, "_get_default_clock", lambda: network)
    return network


def awaited(network: MemoryReactorClock) -> int:
    """Return how many connections are asked for and not accepted."""
    return sum(not each.stoppedConnecting for each in network.connectors)


def _nobody(end: HarpdEnd, request: dict[str, Any]) -> None:
    pass


def accept(network: MemoryReactorClock, handshake: bool = True, asked: Asked = _nobody) -> HarpdEnd:
    """Accept the connection that was asked for first, of those that are still wanted.

    :param handshake: False to leave the handshake to a later ``flush``.
    :param asked: called with each request that comes over it.
    """
    while network.connectors[0].stoppedConnecting:
        _next_attempt(network)
    host, port, factory, *_ = _next_attempt(network)
    end = HarpdEnd(asked)
    far_protocol = TLSMemoryBIOFactory(
        _identity(), False, Factory.forProtocol(lambda: end), network
    ).buildProtocol(IPv4Address("TCP", "10.0.0.1", 1025))
    near_protocol = factory.buildProtocol(IPv4Address("TCP", host, port))
    assert far_protocol is not None and near_protocol is not None
    end.near, far = Wire(near_protocol, False), Wire(far_protocol, True)
    end.near.other, far.other = far, end.near
    end.pump = connect(far_protocol, far, near_protocol, end.near, greet=handshake, clock=network)
    return end


def _next_attempt(network: MemoryReactorClock) -> tuple[Any, ...]:
    network.connectors.pop(0)
    return network.tcpClients.pop(0)
