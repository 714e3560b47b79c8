"""The client for a program without an event loop: the core's classes with methods that block.

What they do stands in ``harp.client``, ``harp.job``, ``harp.packets``, ``harp.direct``; how the
bytes move in ``harp.sockets``. None of them imports Twisted.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from os import PathLike
from typing import Any, Self, TypeAlias

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
from harp.sockets import PlainEndpoint, TlsEndpoint, blocking, run
from harp.wire import dispatcher, harpd


class _Iterator(Items):
    """Its own iterator and its own context manager."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        while True:
            for item in self._ready:
                return item
            try:
                self._ready = run(self._more())
            except StopAsyncIteration:
                raise StopIteration from None

    all = blocking(Items._all)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class Listing(Pages, _Iterator):
    """What an operator lists: dicts, asked for page by page as they are taken."""


class StreamIterator(Packets, _Iterator):
    """Packets of a job, as `RemoteCall.stream` and `RemoteCall.follow` return them.

    A packet is yielded as soon as it has arrived, and no more than what one read from the socket
    brought is kept: a slow reader slows the connection, not the job. It belongs to one thread.

    Iterating raises nothing for the job's own failure; `RemoteCall.get` and `RemoteCall.result`
    tell of that. It raises `RemoteError` if there is no such job or it is not for the caller, and
    `CommunicationError` if the conversation breaks off before its end.

    The connection is closed after the last packet and after a failure. A reader that leaves
    earlier closes it by `close`, by a ``with`` statement, or by dropping the iterator.
    """


class RemoteCall(Job[StreamIterator]):
    """A job, as calling a procedure or `HarpCaller.job` returns it.

    Every method but `id` and `is_duplicate` asks the dispatcher, where the answer is not known for
    good already, and raises `CommunicationError` if that fails. All but `result` raise
    `RemoteError` with type ``invalid_jobid`` if there is no such job, and with
    ``not_authenticated`` or ``not_allowed`` if the dispatcher does not let the caller ask. Times
    are whole unix seconds.

    It may be shared by threads, kept over a fork, copied and pickled.
    """

    StreamIterator: TypeAlias = StreamIterator

    result = blocking(Job._result)
    get = blocking(Job._get)
    cancel = blocking(Job._cancel)
    host = blocking(Job._host)
    procedure = blocking(Job._procedure)
    args = blocking(Job._args)
    info = blocking(Job._info)
    submit_time = blocking(Job._submit_time)
    start_time = blocking(Job._start_time)
    end_time = blocking(Job._end_time)
    detail = blocking(Job._detail)

    def _packets(
        self, request: dispatcher.StreamRequest, numbered: bool, patient: bool
    ) -> StreamIterator:
        packets = StreamIterator(numbered)
        run(packets._open(self._dispatcher.put(request, patient)))
        return packets


class RemoteServer(Host[RemoteCall]):
    """A host, as `HarpCaller.host` returns it. Its attributes are the procedures.

    Calling one, ``rpc.web01.run_foo(1, 2)`` or ``rpc.web01.run_foo(size=3)``, submits a job and
    returns a `RemoteCall` as soon as the dispatcher has it on disk. A name that Python does not
    allow is reached by ``getattr``; one that begins with an underscore is not reached.

    Where the dispatcher makes sure that a call with the same idempotency key starts nothing, a call
    is sent again, up to three times within five seconds, if the connection breaks before the
    answer has come.

    Such a call raises

    * `TypeError` if it has both positional and keyword arguments, for the protocol carries a list
      or an object, or if JSON can't carry the type of one;
    * `ValueError` if JSON can't carry the value of one (NaN, infinity, a circular structure);
    * `RemoteError` if the dispatcher refuses the request;
    * `UnsupportedError` if it is too old for an option;
    * `CommunicationError` if it can't be reached or does not answer; the message and
      ``may_have_run`` say so if the call may have been submitted nevertheless.
    """

    def __getattr__(self, name: str) -> Callable[..., RemoteCall]:
        checks.public(self, name)
        return partial(_submit, self, name)

    def _job(self, reply: dispatcher.JobId) -> RemoteCall:
        return RemoteCall(self._dispatcher, reply.job_id, reply.duplicate)


_submit = blocking(RemoteServer._submit)


class HarpCaller(Caller[RemoteServer, RemoteCall, Listing]):
    """A dispatcher.

    It may be shared by threads, kept over a fork, copied and pickled (the pickle has the token in
    it, and so have those of the hosts and jobs that come from it). Connections are kept open for
    further requests where the dispatcher allows that, so one object should serve a whole process;
    they are closed by `close` or when the object is gone.

    An attribute is a host: ``rpc.web01`` is ``rpc.host("web01")``, and ``rpc("web01.example.net",
    timeout=60)`` is ``rpc.host("web01.example.net", timeout=60)``. A host whose name begins with
    an underscore or is the name of a method here is reached by `host` alone.

    TLS is spoken if ``ca_file``, ``cert`` or ``server_name`` is given, or ``tls`` is True. The
    dispatcher's certificate is always verified then. Who asks is known by ``cert``, by ``token``,
    or on a unix socket by the uid of the process. A dispatcher that does not let the caller in
    answers ``not_authenticated``, and ``not_allowed`` if its rules do not allow a request; both are
    raised as `RemoteError`, and returned by `RemoteCall.result`. If there is a token or
    ``on_behalf_of`` and the dispatcher is too old for that, everything raises `UnsupportedError`.

    :param host: the dispatcher's name or address; or its unix socket, such as
        ``unix:/run/harpcaller/socket``.
    :param port: its TCP port.
    :param ca_file: PEM file of the authorities whose certificates are trusted; None for those of
        the system.
    :param cert: path of a PEM file with the certificate to be shown, those between it and its
        authority if there are any, and its key, which is not encrypted; or a tuple of the path of
        such a file and the path of the key's.
    :param token: the bearer token of a user, as ``harp token`` makes it.
    :param on_behalf_of: 1 to 200 characters that name the person for whom this program acts; see
        `host`, which has it for some calls only.
    :param server_name: to whom the certificate is made out, if that is not ``host``.
    :param tls: whether to speak TLS, None if the other options tell.
    :param insecure: True to send the token without TLS to another machine, where whoever is between
        can read it.
    :param connect_timeout: how long one attempt to connect may take, and TLS after it, in seconds.
        The look-up of the name is not counted, and a name with several addresses has an attempt for
        each.
    :param reply_timeout: how long the dispatcher may be silent where a reply is due at once, in
        seconds. Waiting for a result and following a stream have no limit.
    :raises TypeError: if one of them has a wrong type.
    :raises ValueError: if one of them has a wrong value, a file can't be used, or the token would
        be sent unencrypted to another machine.
    """

    def __init__(
        self,
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
            super().__init__(Dispatcher(PlainEndpoint(address), auth))
        else:
            super().__init__(Dispatcher(TlsEndpoint(address, trust), auth))

    cancel_queue = blocking(Caller._cancel_queue)
    refresh_hosts = blocking(Caller._refresh_hosts)
    procedures = blocking(Caller._procedures)
    describe = blocking(Caller._describe)
    prune = blocking(Caller._prune)
    reload = blocking(Caller._reload)
    stop_dispatcher = blocking(Caller._stop_dispatcher)
    server_info = blocking(Caller._server_info)

    def _listing(self, ask: Ask) -> Listing:
        return Listing(self._dispatcher, ask)

    def _host(self, asked: Dispatcher, name: str, options: calls.CallOptions) -> RemoteServer:
        return RemoteServer(asked, name, options)

    def _job(self, job_id: str) -> RemoteCall:
        return RemoteCall(self._dispatcher, job_id)


class HarpStreamIterator(CallPackets, _Iterator):
    """What a streaming procedure gives to who calls it directly: its packets, then a `Result`.

    A packet is yielded as soon as it has arrived; a slow reader slows the procedure. It belongs to
    one thread. Iterating raises what `HarpServer` says of a call.

    Leaving before the end, by `close`, by a ``with`` statement or by dropping the iterator, cancels
    the call.
    """


class HarpServer(Server[HarpStreamIterator]):
    """A harpd, called without a dispatcher. Its attributes are its procedures.

    Calling one, ``server.run_foo(1, 2)`` or ``server.run_foo(size=3)``, returns what it returned,
    when it has ended. A streaming one returns a `HarpStreamIterator` as soon as it is started. A
    name that Python does not allow is reached by ``getattr``; one that begins with an underscore,
    or is the name of a method here, is not reached.

    Such a call raises

    * `TypeError` or `ValueError` as one of a `RemoteServer` does;
    * `RemoteException` if the procedure raised;
    * `RemoteError` if the call could not be carried out;
    * `CommunicationError` if harpd can't be reached, has a certificate that is not trusted, or the
      connection broke; the message and ``may_have_run`` say so if the procedure may have run.

    It may be shared by threads, kept over a fork, copied and pickled (the pickle has the password
    in it). Connections are kept open for further calls where harpd allows that, each for one call
    at a time, so one object should serve a whole process; they are closed by `close_connections` or
    when the object is gone. Closing the connection of a call cancels it.

    :param host: the daemon's name or address.
    :param user: who calls.
    :param password: that user's.
    :param port: its TCP port.
    :param ca_file: PEM file of the authorities whose certificates are trusted; None for those of
        the system.
    :param server_name: to whom the certificate is made out, if that is not ``host``.
    :param verify_certificate: False to talk to anybody, who learns the password then.
    :param context: what harpd is to know of the calls, any dict that JSON can carry. A procedure
        can ask for it. Old daemons refuse calls that have it.
    :param connect_timeout: how long one attempt to connect may take, and TLS after it, in seconds.
        The look-up of the name is not counted.
    :param reply_timeout: how long harpd may be silent before it has acknowledged a call, in
        seconds. What the procedure takes after that has no limit but harpd's own.
    :raises TypeError: if one of them has a wrong type.
    :raises ValueError: if one of them has a wrong value, or ``ca_file`` can't be used.
    """

    def __init__(
        self,
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
        super().__init__(TlsEndpoint(address, trust), user, password, context)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        checks.public(self, name)
        return partial(_call, self, name)

    procedures = blocking(Server._procedures)

    def _packets(self, call: DirectCall) -> HarpStreamIterator:
        return HarpStreamIterator(call)


_call = blocking(HarpServer._call)
