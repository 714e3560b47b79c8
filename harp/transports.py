"""The network as a program with a Twisted reactor uses it: transports that never block.

The only module beside ``harp.deferred`` through which the client library comes to Twisted.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL, crypto
from service_identity import VerificationError
from twisted.internet import ssl
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
    wrapClientTLS,
)
from twisted.internet.error import ConnectingCancelledError, ConnectionDone
from twisted.internet.interfaces import (
    IHandshakeListener,
    IOpenSSLClientConnectionCreator,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from harp.network import Address, NetworkFailure, Silence, Trust
from harp.probes import probe_below

P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")


def deferred(
    method: Callable[Concatenate[S, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[S, P], Deferred[T]]:
    """Make a method that returns a Deferred of a coroutine method of the core."""

    @wraps(method)
    def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        return Deferred.fromCoroutine(method(self, *args, **kwargs))

    call.__name__ = method.__name__.lstrip("_")
    return call


@implementer(IHandshakeListener)
class TransportChannel(Protocol):
    """A connection. While nobody has taken what has arrived, it is not read from.

    :param reactor: provider of IReactorTime and IReactorFromThreads.
    """

    def __init__(self, reactor: Any) -> None:
        self.secured: Deferred[None] = Deferred()
        self._reactor = reactor
        self._arrived = bytearray()
        self._waiting: Deferred[None] | None = None
        self._paused = False
        self._lost: Failure | None = None
        self._closed = False

    async def send(self, data: bytes) -> None:
        """Send all of it; whether that succeeds is seen when something is to be received."""
        assert self.transport is not None
        self.transport.write(data)

    async def receive(self, timeout: float | None) -> bytes:
        """Return what has arrived, at least one byte; none at the end of the connection."""
        transport: Any = self.transport
        if not self._arrived and self._lost is None:
            self._waiting = Deferred()
            if timeout is not None:
                self._waiting.addTimeout(timeout, self._reactor, _silence(timeout))
            try:
                await self._waiting
            finally:
                self._waiting = None
        if not self._arrived and self._lost is not None and not self._lost.check(ConnectionDone):
            error: Any = self._lost.value
            raise NetworkFailure(_reason(error)) from error
        data = bytes(self._arrived)
        self._arrived.clear()
        if self._paused and self._lost is None:
            # At once: this may be the last of a connection that is kept, whose end is to be seen.
            self._paused = False
            transport.resumeProducing()
        return data

    def is_quiet(self) -> bool:
        """Return whether the connection is still there and nothing has come unasked."""
        return self._lost is None and not self._arrived and not self._closed

    def close(self) -> None:
        """Close the connection at once."""
        if not self._closed and self._lost is None:
            self._closed = True
            transport: Any = self.transport
            # What waits to be written is not wanted any more, nor is an answer to TLS's goodbye.
            transport.abortConnection()

    def abandon(self) -> None:
        """Close the connection soon, for the garbage collector, which may run in any thread."""
        if not self._closed and self._lost is None:
            self._reactor.callFromThread(self.close)

    def connectionMade(self) -> None:
        """Set the socket up."""
        transport: Any = self.transport
        transport.setTcpNoDelay(True)
        probe_below(transport)  # a wait may have no time limit

    def handshakeCompleted(self) -> None:
        """Learn that the peer has proved who it is."""
        self.secured.callback(None)

    def dataReceived(self, data: bytes) -> None:
        """Keep what has arrived until somebody takes it, and let no more come until then."""
        self._arrived += data
        if not self._wake() and not self._paused and not self._closed:
            self._paused = True
            transport: Any = self.transport
            transport.pauseProducing()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Learn that the connection is gone."""
        self._lost = reason
        if not self.secured.called:
            self.secured.addErrback(lambda _: None)
            self.secured.errback(reason)
        self._wake()

    def _wake(self) -> bool:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)
        return waiting is not None


class PlainEndpoint:
    """A daemon that is spoken to without TLS, over TCP or a unix socket.

    :param reactor: provider of IReactorTCP, IReactorUNIX, IReactorTime,
        IReactorPluggableNameResolver and IReactorFromThreads.
    """

    def __init__(self, reactor: Any, address: Address) -> None:
        self.address = address
        self._reactor = reactor

    async def connect(self) -> TransportChannel:
        """Return a new channel."""
        return await self._connected(self._stream())

    async def pause(self, seconds: float) -> None:
        """Return after so many seconds."""
        await deferLater(self._reactor, seconds, lambda: None)

    def now(self) -> float:
        """Return the seconds of the reactor's clock."""
        return float(self._reactor.seconds())

    def _stream(self) -> IStreamClientEndpoint:
        # HostnameEndpoint, which tries all addresses of a name, waits 0.3 s before it tells that an
        # address refused.
        host, port, timeout = self.address.host, self.address.port, self.address.connect_timeout
        if self.address.path is not None:
            return UNIXClientEndpoint(self._reactor, self.address.path, timeout)
        if isIPAddress(host):
            return TCP4ClientEndpoint(self._reactor, host, port, timeout)
        if isIPv6Address(host):
            return TCP6ClientEndpoint(self._reactor, host, port, timeout)
        return HostnameEndpoint(self._reactor, host, port, timeout=timeout)

    async def _connected(self, endpoint: IStreamClientEndpoint) -> TransportChannel:
        channel = TransportChannel(self._reactor)
        factory = Factory.forProtocol(lambda: channel)
        factory.noisy = False
        try:
            await endpoint.connect(factory)
        except ConnectingCancelledError as error:
            raise CancelledError from error
        except CancelledError:
            raise
        except Exception as error:
            raise NetworkFailure(_reason(error)) from error
        return channel


class TlsEndpoint(PlainEndpoint):
    """A daemon that is spoken to with TLS 1.2 or newer.

    :raises ValueError: if the authorities or the certificate to be shown can't be read.
    """

    def __init__(self, reactor: Any, address: Address, trust: Trust) -> None:
        super().__init__(reactor, address)
        self._creator = _creator(trust)

    async def connect(self) -> TransportChannel:
        """Return a new channel; the peer has proved who it is."""
        channel = await self._connected(wrapClientTLS(self._creator, self._stream()))
        timeout = self.address.connect_timeout
        channel.secured.addTimeout(timeout, self._reactor, _silence(timeout))
        try:
            await channel.secured
        except (CancelledError, NetworkFailure):
            channel.close()
            raise
        except Exception as error:
            raise NetworkFailure(_reason(error)) from error
        return channel


@implementer(IOpenSSLClientConnectionCreator)
class _Anybody:
    """Makes TLS connections to whoever is there."""

    def __init__(self, name: str) -> None:
        self._context = ssl.CertificateOptions().getContext()
        self._name = None if isIPAddress(name) or isIPv6Address(name) else name.encode("idna")

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        connection = SSL.Connection(self._context, None)
        if self._name is not None:
            connection.set_tlsext_host_name(self._name)
        return connection


def _creator(trust: Trust) -> IOpenSSLClientConnectionCreator:
    # One for all connections: it has the context, and making that costs most.
    if not trust.verify:
        return _Anybody(trust.server_name)
    own = {} if trust.own is None else _own(*trust.own)
    if trust.ca_file is None:
        return ssl.optionsForClientTLS(trust.server_name, extraCertificateOptions=own)
    try:
        found = x509.load_pem_x509_certificates(Path(trust.ca_file).read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(f"ca_file {trust.ca_file} can't be used: {_reason(error)}") from error
    roots = [ssl.Certificate.load(each.public_bytes(Encoding.DER)) for each in found]
    return ssl.optionsForClientTLS(
        trust.server_name,
        trustRoot=ssl.trustRootFromCertificates(roots),
        extraCertificateOptions=own,
    )


def _own(certificate: str | os.PathLike[str], key: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what `ssl.CertificateOptions` takes for the certificate that is shown."""
    try:
        chain = x509.load_pem_x509_certificates(Path(certificate).read_bytes())
        # A password is asked for on the terminal, were it not for this one.
        private = crypto.load_privatekey(crypto.FILETYPE_PEM, Path(key).read_bytes(), b"")
        found, *others = [crypto.X509.from_cryptography(each) for each in chain]
        _check_key(found, private)
    except (OSError, ValueError, crypto.Error, SSL.Error) as error:
        raise ValueError(f"cert {certificate} can't be used: {_reason(error)}") from error
    return {"privateKey": private, "certificate": found, "extraCertChain": others}


def _check_key(certificate: crypto.X509, key: crypto.PKey) -> None:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.use_certificate(certificate)
    context.use_privatekey(key)
    context.check_privatekey()


def _silence(timeout: float) -> Callable[[Any, float], Any]:
    def told(result: Any, _: float) -> Any:
        # Somebody else's cancelling has not called this.
        raise Silence(f"nothing came for {timeout:g} seconds")

    return told


def _reason(error: BaseException) -> str:
    if isinstance(error, VerificationError):
        return "the certificate is refused: it is made out to another name"
    if isinstance(error, SSL.Error | crypto.Error):
        reports = error.args[0] if error.args and isinstance(error.args[0], list) else []
        return "; ".join(report[-1] for report in reports) or "TLS failed"
    code = getattr(error, "osError", None) or getattr(error, "errno", None)
    return os.strerror(code) if isinstance(code, int) else str(error)
