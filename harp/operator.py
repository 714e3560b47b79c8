"""What an operator asks the dispatcher, whichever way the program waits for the answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

import msgspec

from harp import checks, outcomes
from harp.dispatchers import Dispatcher
from harp.errors import HarpException
from harp.items import Items
from harp.network import Address
from harp.wire import dispatcher
from harp.wire.dispatcher import operation

L = TypeVar("L")

Ask = Callable[[str | None], dispatcher.Request]
"""From the cursor of a page to the request for it."""

_LISTS: dict[type, str] = {
    operation.Jobs: "jobs",
    operation.QueueJobs: "jobs",
    operation.Queues: "queues",
    operation.Hosts: "hosts",
}


class Pages(Items):
    """The core of `harp.Listing`."""

    def __init__(self, asked: Dispatcher, ask: Ask) -> None:
        self._dispatcher = asked
        self._ask = ask
        self._cursor: str | None = None
        self._is_last = False

    async def _more(self) -> Iterator[Any]:
        if self._is_last:
            raise StopAsyncIteration
        request = self._ask(self._cursor)
        try:
            reply: Any = outcomes.answer(
                await self._dispatcher.ask(request), operation.REPLIES[type(request)]
            )
        except HarpException:
            self._is_last = True
            raise
        self._cursor = reply.cursor
        self._is_last = reply.cursor is None
        return map(partial(_plain, self._dispatcher.address), getattr(reply, _LISTS[type(reply)]))

    def close(self) -> None:
        """Stop: there are no more items then. It may be called twice."""
        super().close()
        self._is_last = True


def _plain(address: Address, entry: Any) -> Any:
    with address.blamed():
        return outcomes.plain(entry)


class Operator(Generic[L]):
    """What `harp.HarpCaller` has for operators.

    Dispatchers that know version 1 of the protocol alone have none of it: `UnsupportedError`.
    """

    _dispatcher: Dispatcher

    def _listing(self, ask: Ask) -> L:
        raise NotImplementedError

    def jobs(
        self,
        *,
        state: str | Sequence[str] | None = None,
        host: str | None = None,
        procedure: str | None = None,
        queue: dict[str, Any] | None = None,
        end: str | Sequence[str] | None = None,
        submitted_since: float | None = None,
        submitted_before: float | None = None,
        submitter: str | None = None,
    ) -> L:
        """Return the jobs that fit, the newest first; what is None does not matter.

        A job is a dict with ``job_id``, ``host``, ``procedure``, ``state``, ``queue``,
        ``waits_for``, ``time`` (``submit``, ``start``, ``end`` in unix seconds), ``end`` (how it
        ended), ``caller`` (the address from which it was submitted), ``submitter`` (the user who
        did so) and ``on_behalf_of`` (for whom).

        :param state: one or several of ``waiting``, ``running``, ``ended``.
        :param queue: the name of its queue.
        :param end: one or several of ``result``, ``exception``, ``error``, ``cancelled``.
        :param submitted_since: unix seconds, included.
        :param submitted_before: unix seconds, not included.
        :param submitter: a user who submitted them, or on whose behalf that was done.
        """
        name: Any = msgspec.UNSET
        if queue is not None:
            name = msgspec.Raw(checks.json_object("queue", queue))
        wanted: dict[str, Any] = {
            "state": _texts("state", state),
            "host": host,
            "procedure": procedure,
            "queue": name,
            "end": _texts("end", end),
            "submitted_since": submitted_since,
            "submitted_before": submitted_before,
            "submitter": None if submitter is None else checks.text("submitter", submitter),
        }
        return self._listing(
            lambda cursor: operation.ListJobs(
                harpcaller=1, list_jobs=operation.JobFilter(cursor=cursor, **wanted)
            )
        )

    def queues(self) -> L:
        """Return the queues that there are, the oldest first.

        A queue is a dict with ``name``, ``concurrency``, and the numbers of its jobs ``running``
        and ``waiting``.
        """
        return self._listing(
            lambda cursor: operation.ListQueues(
                harpcaller=1, list_queues=operation.Page(cursor=cursor)
            )
        )

    def queue(self, name: dict[str, Any]) -> L:
        """Return the jobs of a queue in the order in which they run; see `jobs`."""
        raw = msgspec.Raw(checks.json_object("name", name))
        return self._listing(
            lambda cursor: operation.ListQueue(
                harpcaller=1, list_queue=operation.QueuePage(name=raw, cursor=cursor)
            )
        )

    def hosts(self) -> L:
        """Return the hosts registry by name.

        A host is a dict with ``name``, ``address``, ``port``, ``tags`` and ``server_name``.
        """
        return self._listing(
            lambda cursor: operation.ListHosts(
                harpcaller=1, list_hosts=operation.Page(cursor=cursor)
            )
        )

    async def _cancel_queue(self, name: dict[str, Any]) -> int:
        """Cancel all jobs of a queue that wait or run now, and return how many."""
        raw = msgspec.Raw(checks.json_object("name", name))
        queue = operation.QueueName(name=raw)
        reply = await self._ask(operation.CancelQueue(harpcaller=1, cancel_queue=queue))
        return reply["cancelled_jobs"]  # type: ignore[no-any-return]

    async def _refresh_hosts(self, accept_loss: bool = False) -> dict[str, Any]:
        """Have the dispatcher read its hosts again.

        :param accept_loss: whether most of the hosts may be missing from the new list, which else
            is taken for a mistake.
        :return: ``hosts_known``, how many there are now, and ``problem``: why the list is still the
            old one, None if it is not.
        """
        how = operation.RefreshOptions(accept_loss=True) if accept_loss else True
        return await self._ask(operation.RefreshHosts(harpcaller=1, refresh_hosts=how))

    async def _procedures(self, host: str) -> list[dict[str, Any]]:
        """Return what a host offers; see `harp.HarpServer.procedures`.

        :raises RemoteError: if the host can't be asked.
        """
        return (await self._describe(host))["procedures"]  # type: ignore[no-any-return]

    async def _describe(self, host: str) -> dict[str, Any]:
        """Have the dispatcher ask a host what it offers and what its clock says.

        :return: ``procedures``, as `procedures` returns them, and ``clock``: by how many seconds
            the host's clock is ahead of the dispatcher's, None if that is not told.
        :raises RemoteError: if the host can't be asked.
        """
        name = checks.text("host", host)
        return await self._ask(operation.ListProcedures(harpcaller=1, list_procedures=name))

    async def _prune(self, older_than: float) -> int:
        """Forget the jobs that ended more than so many seconds ago, and return how many."""
        limit = operation.OlderThan(older_than=checks.seconds("older_than", older_than))
        reply = await self._ask(operation.PruneJobs(harpcaller=1, prune_jobs=limit))
        return reply["pruned"]  # type: ignore[no-any-return]

    async def _reload(self) -> dict[str, Any]:
        """Have the dispatcher read its configuration again.

        :return: ``reloaded``, whether it did, and ``mistakes``: why it did not.
        """
        return await self._ask(operation.Reload(harpcaller=1, reload=True))

    async def _stop_dispatcher(self) -> dict[str, Any]:
        """Stop the dispatcher for everybody, as SIGTERM does; nothing here can start it again.

        It takes no more calls and lets what runs go on for a while. Jobs that wait go on waiting
        until it is started again.

        :return: ``stopping``, which is True; ``running``, how many jobs run now; ``grace``, for how
            many seconds they may go on.
        """
        return await self._ask(operation.Stop(harpcaller=1, stop=True))

    async def _server_info(self) -> dict[str, Any]:
        """Return the dispatcher's ``version`` and its ``extensions`` of the protocol.

        Newer ones say ``time`` too: what their clock says, in unix seconds.
        """
        return await self._ask(operation.ServerInfo(harpcaller=1, server_info=True))

    async def _ask(self, request: dispatcher.Request) -> dict[str, Any]:
        reply = outcomes.answer(
            await self._dispatcher.ask(request), operation.REPLIES[type(request)]
        )
        with self._dispatcher.address.blamed():
            return outcomes.plain(reply)  # type: ignore[no-any-return]


def _texts(name: str, value: str | Sequence[str] | None) -> Any:
    if value is None or isinstance(value, str):
        return value
    return [checks.text(name, item) for item in value]
