"""The client's end of a dispatcher: how each request is best put to the one that is there.

A dispatcher that knows version 1 alone refuses keys that it does not know. So it is asked first
what else it offers (``server_info``), and what it does not offer is not used. Who asks goes with
every request (``harp.access``). Connections are ``harp.pool``'s, one request and its replies
``harp.questions``'.
"""

from __future__ import annotations

import copy
import secrets
import time

import msgspec

from harp import outcomes
from harp.errors import CommunicationError, UnsupportedError
from harp.network import Address, Endpoint, Silence
from harp.pool import Pool
from harp.questions import Question, is_misunderstood
from harp.wire import dispatcher
from harp.wire.dispatcher import operation

_VERSION_1: frozenset[str] = frozenset()
_KEYS = {kind: key for key, kind in operation.REQUESTS.items()}


class Dispatcher:
    """A dispatcher, as far as its requests and replies go.

    :param auth: what each request says of who asks, None if nothing.
    """

    def __init__(self, endpoint: Endpoint, auth: dispatcher.Auth | None = None) -> None:
        self._pool = Pool(endpoint)
        self._auth = auth

    @property
    def address(self) -> Address:
        """The dispatcher's address."""
        return self._pool.endpoint.address

    def on_behalf_of(self, name: str) -> Dispatcher:
        """Return the same dispatcher, asked for somebody else; they share connections."""
        other = copy.copy(self)
        token = None if self._auth is None else self._auth.token
        other._auth = dispatcher.Auth(token, name)
        return other

    async def ask(self, request: dispatcher.Request, patient: bool = False) -> dispatcher.Reply:
        """Send a request that has one reply and return it.

        :param patient: whether the dispatcher may be silent for as long as it likes.
        :raises CommunicationError: if there is no reply or one that the protocol does not allow.
        :raises UnsupportedError: if the dispatcher does not offer that.
        :raises RemoteError: if it does not let the caller in.
        """
        return await _only_reply(await self.put(request, patient))

    async def put(self, request: dispatcher.Request, patient: bool = False) -> Question:
        """Send a request and return what has its replies.

        :raises CommunicationError: if it can't be sent.
        :raises UnsupportedError: if the dispatcher does not offer that.
        :raises RemoteError: if it does not let the caller in.
        """
        question = Question(self._pool, await self._prepared(request), patient)
        await question.open()
        return question

    def close(self) -> None:
        """Close the connections that wait for another request."""
        self._pool.forget()

    async def _prepared(self, request: dispatcher.Request) -> dispatcher.Request:
        needed = _needed(request)
        if self._auth is not None:
            needed.append("auth")
        offered = await self._offered(may_guess=not needed)
        if not offered.issuperset(needed):
            self._pool.forget()  # it may be a newer one by now
            offered = await self._offered(may_guess=False)
        if not offered.issuperset(needed):
            names = ", ".join(sorted(set(needed) - offered))
            raise UnsupportedError(f"{self.address}: the dispatcher has no {names}")
        changes: dict[str, object] = {}
        if self._auth is not None:
            changes["auth"] = self._auth
        if "keepalive" in offered:
            changes["keepalive"] = True
        if isinstance(request, dispatcher.GetResult) and "detail" in offered:
            changes["detail"] = True
        elif isinstance(request, dispatcher.Call) and "idempotency_key" in offered:
            changes["idempotency_key"] = request.idempotency_key or _new_key()
        return msgspec.structs.replace(request, **changes)

    async def _offered(self, may_guess: bool) -> frozenset[str]:
        offered = self._pool.offered
        if offered is None:
            try:
                reply = await self._info(self._auth)
                if self._auth is not None and is_misunderstood(reply):
                    reply = await self._info(None)  # it is older than that key
            except CommunicationError as error:
                if isinstance(error.__cause__, Silence) or not may_guess:
                    raise CommunicationError(str(error), may_have_run=False) from error
                if not error.may_have_run:
                    raise
                return _VERSION_1  # it closed, or fell; that is not remembered
            offered = _VERSION_1
            if isinstance(reply, operation.ServerVersion):
                offered = frozenset(reply.extensions)
            elif not is_misunderstood(reply):
                raise outcomes.outcome(reply, outcomes.REFUSED, is_refusal=True)
            self._pool.remember(offered)
        return offered

    async def _info(self, auth: dispatcher.Auth | None) -> dispatcher.Reply:
        request = operation.ServerInfo(harpcaller=1, auth=auth, server_info=True, keepalive=True)
        question = Question(self._pool, request)
        await question.open()
        return await _only_reply(question)


async def _only_reply(question: Question) -> dispatcher.Reply:
    try:
        return await question.next()
    finally:
        question.close()


def _needed(request: dispatcher.Request) -> list[str]:
    """Return the extensions without which a request can't be put."""
    if isinstance(request, dispatcher.Call):
        options = (("idempotency_key", request.idempotency_key), ("dedup", request.dedup))
        needed = [name for name, value in options if value is not None]
        if request.shown_arguments is not msgspec.UNSET:
            needed.append("shown_arguments")
        return needed
    if getattr(request, "detail", False):
        return ["detail"]
    if isinstance(request, operation.ListJobs) and request.list_jobs.submitter is not None:
        return ["list_jobs", "auth"]
    return [_KEYS[type(request)]] if type(request) in _KEYS else []


def _new_key() -> str:
    """Return an idempotency key for one call.

    It begins with the time: the dispatcher's table of a million keys then grows at its end.
    """
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(12)}"
