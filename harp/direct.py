"""Calls of harpd without a dispatcher between, whichever way the program waits for them.

The order of messages is `harp.session.OutgoingCall`'s, the connections are ``harp.pool``'s, one
request and its replies ``harp.direct_call``'s.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

import msgspec

from harp import calls, checks, outcomes
from harp.direct_call import DirectCall, ask
from harp.items import Items
from harp.network import Endpoint
from harp.pool import Pool
from harp.wire import harpd
from harp.wire.packets import Packets

I = TypeVar("I")  # noqa: E741


class CallPackets(Items):
    """The core of `harp.HarpStreamIterator`."""

    def __init__(self, call: DirectCall) -> None:
        self._call = call
        self._ready = _values(call)
        weakref.finalize(self, call.abandon)

    async def _more(self) -> Iterator[Any]:
        await self._call.wait()
        return _values(self._call)

    def close(self) -> None:
        """Close the connection: a call that has not ended is cancelled. It may be called twice."""
        super().close()
        self._call.close()


def _values(call: DirectCall) -> Iterator[Any]:
    for reply in call.arrived():
        try:
            if isinstance(reply, Packets):
                for packet in reply.texts:
                    yield outcomes.decode_payload(packet)
            elif not isinstance(reply, harpd.Waiting):
                yield outcomes.Result(outcomes.value_of(outcomes.outcome(reply, outcomes.DIRECT)))
        except GeneratorExit:
            raise  # the reader has left; the connection is closed by who holds it
        except BaseException:
            call.close()  # what came with this would be missing from what comes next
            with call.address.blamed():
                raise


class Server(Generic[I]):
    """The core of `harp.HarpServer`."""

    def __init__(
        self, endpoint: Endpoint, user: str, password: str, context: dict[str, Any] | None
    ) -> None:
        self._pool = Pool(endpoint)
        self._auth = harpd.Auth(checks.text("user", user), checks.text("password", password))
        self._context: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
        if context is not None:
            self._context = msgspec.Raw(checks.json_object("context", context))

    async def _call(self, procedure: str, /, *args: object, **kwargs: object) -> Any:
        passed, _ = calls.arguments(procedure, args, kwargs)  # harpd shows none
        request = harpd.CallRequest(
            harp=1,
            procedure=checks.text("procedure", procedure),
            arguments=msgspec.Raw(passed),
            auth=self._auth,
            context=self._context,
        )
        call, reply = await ask(self._pool, request)
        is_accepted = isinstance(reply, harpd.Ack)
        if isinstance(reply, harpd.Ack) and reply.stream_result:
            return self._packets(call)
        while isinstance(reply, harpd.Ack | harpd.Waiting):
            reply = await call.next()
        with call.address.blamed():
            outcome = outcomes.outcome(reply, outcomes.DIRECT, is_refusal=not is_accepted)
            return outcomes.value_of(outcome)

    async def _procedures(self) -> list[dict[str, Any]]:
        """Return what this daemon offers, each as a dict.

        :return: ``name``, ``doc``, ``streaming``, ``timeout`` in seconds, ``parameters`` (JSON
            Schema of the arguments by keyword), ``lock``, ``lock_wait`` in seconds.
        :raises RemoteError: if the login is refused, or harpd is too old to tell
            (``invalid_request``).
        :raises CommunicationError: if it can't be reached or does not answer.
        """
        request = harpd.DescribeRequest(harp=1, describe=True, auth=self._auth)
        call, reply = await ask(self._pool, request)
        with call.address.blamed():
            if isinstance(reply, harpd.Procedures):
                return outcomes.decode_payload(reply.procedures)  # type: ignore[no-any-return]
            outcome = outcomes.outcome(reply, outcomes.DIRECT, is_refusal=True)
            return outcomes.value_of(outcome)  # type: ignore[no-any-return]

    def close_connections(self) -> None:
        """Close the connections that are kept for further calls.

        Those of calls that run stay; a later call opens a new one. The name ``close`` may be a
        procedure's.
        """
        self._pool.forget()

    def _packets(self, call: DirectCall) -> I:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<harp.HarpServer {self._pool.endpoint.address}>"
