"""The client's blocking face: what a program without an event loop uses to call procedures.

Here is what submits a job, ``harp.blocking_job`` is the job. Both turn method calls into requests
and wait for replies: ``harp.connection`` moves the bytes, ``harp.calls`` knows what values become
on the wire and back. None of them imports Twisted.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from harp import calls
from harp.blocking_job import RemoteCall
from harp.connection import Address, ask
from harp.wire import dispatcher

_MAX_PORT = 65535


class HarpCaller:
    """A dispatcher.

    Every request has a connection of its own and the object never changes, so it may be shared
    by threads, kept over a fork, copied and pickled.

    An attribute is a host: ``rpc.web01`` is ``rpc.host("web01")``, and ``rpc("web01.example.net",
    timeout=60)`` is ``rpc.host("web01.example.net", timeout=60)``. A host whose name begins with
    an underscore or is ``host`` or ``job`` is reached by `host` alone.

    :param host: the dispatcher's name or address.
    :param port: its TCP port.
    :param connect_timeout: how long one attempt to connect may take, in seconds. The look-up of
        the name is not counted, and a name with several addresses has an attempt for each.
    :param reply_timeout: how long the dispatcher may be silent where a reply is due at once, in
        seconds. Waiting for a result and following a stream have no limit.
    :raises TypeError: if one of them has a wrong type.
    :raises ValueError: if one of them has a wrong value.
    """

    def __init__(
        self,
        host: str,
        port: int = dispatcher.DEFAULT_PORT,
        *,
        connect_timeout: float = 30,
        reply_timeout: float = 60,
    ) -> None:
        _require_text("host", host)
        if isinstance(port, bool) or not isinstance(port, int):
            raise TypeError(f"port must be a whole number, not {type(port).__name__}")
        if not 0 < port <= _MAX_PORT:
            raise ValueError(f"port must be from 1 to {_MAX_PORT}, not {port}")
        self._address = Address(
            host,
            port,
            calls.seconds("connect_timeout", connect_timeout),
            calls.seconds("reply_timeout", reply_timeout),
        )

    def host(
        self,
        name: str,
        /,
        *,
        queue: dict[str, Any] | None = None,
        concurrency: int | None = None,
        timeout: float | None = None,
        max_exec_time: float | None = None,
        info: Any = None,
    ) -> RemoteServer:
        """Return the host of that name; nothing is sent yet.

        The options hold for every call made through what is returned. They are read now: what
        happens to ``queue`` or ``info`` later has no effect.

        :param name: its name in the hosts registry.
        :param queue: the name of the queue that the jobs wait in, any dict that JSON can carry.
        :param concurrency: how many jobs of the queue may run at once (1 if nothing is said). It
            counts for the call that creates the queue.
        :param timeout: the longest silence between two messages of the job, in seconds.
        :param max_exec_time: the longest run, in seconds. Neither counts time spent in a queue.
        :param info: anything that JSON can carry; it is kept with the job and not looked into.
        :raises TypeError: if there is no such option, one has a wrong type, or JSON can't carry it.
        :raises ValueError: if an option has a wrong value, or ``concurrency`` comes without
            ``queue``.
        """
        _require_text("name", name)
        options = calls.call_options(queue, concurrency, timeout, max_exec_time, info)
        return RemoteServer(self._address, name, options)

    __call__ = host

    def __getattr__(self, name: str) -> RemoteServer:
        _require_public(self, name)
        return self.host(name)

    def job(self, job_id: str) -> RemoteCall:
        """Return the job of that id without asking the dispatcher whether there is one.

        :param job_id: what `RemoteCall.id` returned, in this process or another.
        :raises TypeError: if it is not a str.
        """
        _require_text("job_id", job_id)
        return RemoteCall(self._address, job_id)

    def __repr__(self) -> str:
        return f"<harp.HarpCaller {self._address}>"


class RemoteServer:
    """A host, as `HarpCaller.host` returns it. Its attributes are the procedures.

    Calling one, ``rpc.web01.run_foo(1, 2)`` or ``rpc.web01.run_foo(size=3)``, submits a job and
    returns a `RemoteCall` as soon as the dispatcher has it on disk. A name that Python does not
    allow is reached by ``getattr``; one that begins with an underscore is not reached.

    Such a call raises

    * `TypeError` if it has both positional and keyword arguments, for the protocol carries a list
      or an object, or if JSON can't carry the type of one;
    * `ValueError` if JSON can't carry the value of one (NaN, infinity, a circular structure);
    * `RemoteError` if the dispatcher refuses the request;
    * `CommunicationError` if it can't be reached or does not answer; the message says so if the
      call may have been submitted nevertheless.
    """

    def __init__(self, address: Address, name: str, options: calls.CallOptions) -> None:
        self._address = address
        self._name = name
        self._options = options

    def __getattr__(self, name: str) -> Callable[..., RemoteCall]:
        _require_public(self, name)
        return partial(self._submit, name)

    def _submit(self, procedure: str, /, *args: object, **kwargs: object) -> RemoteCall:
        request = calls.call_request(self._name, procedure, args, kwargs, self._options)
        reply = calls.answer(ask(self._address, request), dispatcher.JobId)
        return RemoteCall(self._address, reply.job_id)

    def __repr__(self) -> str:
        return f"<harp.RemoteServer {self._name!r} by {self._address}>"


def _require_text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {type(value).__name__}")


def _require_public(owner: object, name: str) -> None:
    # copy, pickle and consoles look for special methods on every object.
    if name.startswith("_"):
        raise AttributeError(f"{type(owner).__name__!r} object has no attribute {name!r}")
