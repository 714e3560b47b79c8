"""Deferred mode: the client for a program with a Twisted reactor.

The same classes as those of ``harp``, with the same names and parameters; the reactor comes first.
Every method that blocks there returns a Deferred here, which fires with what is returned there and
fails with what is raised there. Packets are read with ``async for``, and no more are taken from the
network than the loop takes. Cancelling a Deferred closes its connection: it stops waiting for a
job, which goes on, or cancels a direct call of harpd.

What the methods do stands in ``harp.client``, ``harp.job``, ``harp.packets``, ``harp.direct``; how
the bytes move in ``harp.transports``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from os import PathLike
from typing import Any, Self, TypeAlias

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from harp import access, calls, checks
from harp.client import Caller, Host
from harp.direct import CallPackets, Server
from harp.direct_call import DirectCall
from harp.dispatchers import Dispatcher
from harp.items import Items
from harp.job import Job
from harp.network import Address, Trust
from harp.operator import Ask, Pages
from harp.packets import Packets
from harp.transports import PlainEndpoint, TlsEndpoint, deferred
from harp.wire import dispatcher, harpd

__all__ = [
    "HarpCaller",
    "HarpServer",
    "HarpStreamIterator",
    "Listing",
    "RemoteCall",
    "RemoteServer",
    "StreamIterator",
]


class _AsyncIterator(Items):
    """Its own asynchronous iterator and its own asynchronous context manager."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        return await self._next()

    all = deferred(Items._all)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.close()


class Listing(Pages, _AsyncIterator):
    """What an operator lists; see `harp.Listing`. It is read with ``async for``."""


class StreamIterator(Packets, _AsyncIterator):
    """Packets of a job, as `RemoteCall.stream` and `RemoteCall.follow` return them.

    As `harp.StreamIterator`, but it is read with ``async for`` and closed by ``async with``.
    """

    _failure: Failure | None = None
    _opening: Deferred[None] | None = None

    def _start(self, opening: Deferred[None]) -> None:
        """Keep what sends the request, and its failure until somebody reads."""
        self._opening = opening
        opening.addErrback(self._failed)

    async def _more(self) -> Iterator[Any]:
        opening, self._opening = self._opening, None
        if opening is not None:
            await opening
        failure, self._failure = self._failure, None
        if failure is not None:
            failure.raiseException()
        return await super()._more()

    def close(self) -> None:
        """Close the connection; there are no more packets then. It may be called twice."""
        opening, self._opening = self._opening, None
        if opening is not None:
            opening.cancel()
        super().close()

    def _failed(self, failure: Failure) -> None:
        self._failure = failure


class RemoteCall(Job[StreamIterator]):
    """A job, as calling a procedure or `HarpCaller.job` returns it; see `harp.RemoteCall`.

    `id` and `is_duplicate` return at once, `stream` and `follow` too, all other methods return a
    Deferred.
    """

    StreamIterator: TypeAlias = StreamIterator

    result = deferred(Job._result)
    get = deferred(Job._get)
    cancel = deferred(Job._cancel)
    host = deferred(Job._host)
    procedure = deferred(Job._procedure)
    args = deferred(Job._args)
    info = deferred(Job._info)
    submit_time = deferred(Job._submit_time)
    start_time = deferred(Job._start_time)
    end_time = deferred(Job._end_time)
    detail = deferred(Job._detail)

    def _packets(
        self, request: dispatcher.StreamRequest, numbered: bool, patient: bool
    ) -> StreamIterator:
        packets = StreamIterator(numbered)
        opening = packets._open(self._dispatcher.put(request, patient))
        packets._start(Deferred.fromCoroutine(opening))
        return packets


class RemoteServer(Host[RemoteCall]):
    """A host, as `HarpCaller.host` returns it; see `harp.RemoteServer`.

    Calling one of its attributes returns a Deferred that fires with a `RemoteCall`.
    """

    def __getattr__(self, name: str) -> Callable[..., Deferred[RemoteCall]]:
        checks.public(self, name)
        return partial(_submit, self, name)

    def _job(self, reply: dispatcher.JobId) -> RemoteCall:
        return RemoteCall(self._dispatcher, reply.job_id, reply.duplicate)


_submit = deferred(RemoteServer._submit)


class HarpCaller(Caller[RemoteServer, RemoteCall, Listing]):
    """A dispatcher; see `harp.HarpCaller`.

    :param reactor: which runs the connections.
    """

    def __init__(
        self,
        reactor: Any,
        host: str,
        port: int = dispatcher.DEFAULT_PORT,
        *,
        ca_file: str | PathLike[str] | None = None,
        cert: access.Certificate | None = None,
        token: str | None = None,
        on_behalf_of: str | None = None,
        server_name: str | None = None,
        tls: bool | None = None,
        insecure: bool = False,
        connect_timeout: float = 30,
        reply_timeout: float = 60,
    ) -> None:
        address = Address(host, port, connect_timeout, reply_timeout)
        trust = access.trust(address, tls, ca_file, cert, server_name)
        auth = access.auth(address, trust is not None, token, on_behalf_of, insecure)
        if trust is None:
            super().__init__(Dispatcher(PlainEndpoint(reactor, address), auth))
        else:
            super().__init__(Dispatcher(TlsEndpoint(reactor, address, trust), auth))

    cancel_queue = deferred(Caller._cancel_queue)
    refresh_hosts = deferred(Caller._refresh_hosts)
    procedures = deferred(Caller._procedures)
    describe = deferred(Caller._describe)
    prune = deferred(Caller._prune)
    reload = deferred(Caller._reload)
    stop_dispatcher = deferred(Caller._stop_dispatcher)
    server_info = deferred(Caller._server_info)

    def _listing(self, ask: Ask) -> Listing:
        return Listing(self._dispatcher, ask)

    def _host(self, asked: Dispatcher, name: str, options: calls.CallOptions) -> RemoteServer:
        return RemoteServer(asked, name, options)

    def _job(self, job_id: str) -> RemoteCall:
        return RemoteCall(self._dispatcher, job_id)


class HarpStreamIterator(CallPackets, _AsyncIterator):
    """What a streaming procedure gives to who calls it directly: its packets, then a `harp.Result`.

    As `harp.HarpStreamIterator`, but it is read with ``async for`` and closed by ``async with``.
    """


class HarpServer(Server[HarpStreamIterator]):
    """A harpd, called without a dispatcher; see `harp.HarpServer`.

    Calling one of its attributes returns a Deferred that fires with what the procedure returned, or
    with a `HarpStreamIterator` as soon as a streaming one is started.

    :param reactor: which runs the connections.
    """

    def __init__(
        self,
        reactor: Any,
        host: str,
        user: str,
        password: str,
        port: int = harpd.DEFAULT_PORT,
        ca_file: str | PathLike[str] | None = None,
        *,
        server_name: str | None = None,
        verify_certificate: bool = True,
        context: dict[str, Any] | None = None,
        connect_timeout: float = 30,
        reply_timeout: float = 60,
    ) -> None:
        address = Address(host, port, connect_timeout, reply_timeout)
        trust = Trust(ca_file, host if server_name is None else server_name, verify_certificate)
        super().__init__(TlsEndpoint(reactor, address, trust), user, password, context)

    def __getattr__(self, name: str) -> Callable[..., Deferred[Any]]:
        checks.public(self, name)
        return partial(_call, self, name)

    procedures = deferred(Server._procedures)

    def _packets(self, call: DirectCall) -> HarpStreamIterator:
        return HarpStreamIterator(call)


_call = deferred(HarpServer._call)
