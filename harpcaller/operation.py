"""What answers the requests of operators: lists, queues cancelled, hosts, pruning, reload.

A table from request to function, which `harpcaller.api` takes into its own.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
from twisted.internet.defer import Deferred

from harp import errors
from harp.wire import dispatcher as wire
from harp.wire import harpd
from harp.wire.dispatcher.operation import JobFilter as WireFilter
from harp.wire.results import EndKind
from harp.wire.text import encode
from harpcaller import summaries
from harpcaller.connection import Answer
from harpcaller.connections import Connections
from harpcaller.dispatcher import Dispatcher
from harpcaller.grants import Grants
from harpcaller.hosts import HostsRegistry
from harpcaller.jobs import JobState
from harpcaller.permissions import Permissions
from harpcaller.refusal import RefusedError
from harpcaller.remote import describe
from harpcaller.retention import Retention
from harpcaller.store import JobFilter, JobStore
from harpcaller.submission import canonical_name


@dataclass(frozen=True)
class Parts:
    """What the answers are made with.

    :param version: the dispatcher's.
    :param permissions: who may do what; whoever gets an answer is allowed to ask, and sees what the
        own permissions show.
    :param reload: reads the configuration again; fires with what is wrong with it.
    :param stop: has the dispatcher stopped in the next turn of the reactor; returns for how many
        seconds what runs may go on.
    :param now: returns unix seconds.
    """

    version: str
    permissions: Permissions
    dispatcher: Dispatcher
    store: JobStore
    hosts: HostsRegistry
    connections: Connections
    retention: Retention
    reload: Callable[[], Deferred[list[str]]]
    stop: Callable[[], float]
    now: Callable[[], float]


async def _server_info(parts: Parts, answer: Answer, request: wire.ServerInfo) -> None:
    answer.finish(wire.ServerVersion(parts.version, list(wire.EXTENSIONS), parts.now()))


async def _list_jobs(parts: Parts, answer: Answer, request: wire.ListJobs) -> None:
    asked = request.list_jobs
    wanted = _job_filter(asked, parts.permissions.grants(answer.identity).sees)
    with _blamed_cursor("list_jobs"):
        page = await parts.store.jobs(wanted, asked.limit, asked.cursor)
    answer.finish(wire.Jobs(list(map(summaries.job_summary, page.items)), page.cursor))


async def _list_queues(parts: Parts, answer: Answer, request: wire.ListQueues) -> None:
    asked = request.list_queues
    with _blamed_cursor("list_queues"):
        page = await parts.store.queues(asked.limit, asked.cursor)
    answer.finish(wire.Queues(list(map(summaries.queue_summary, page.items)), page.cursor))


async def _list_queue(parts: Parts, answer: Answer, request: wire.ListQueue) -> None:
    asked = request.list_queue
    name = canonical_name(asked.name, "list_queue.name")
    owners = parts.permissions.grants(answer.identity).sees
    queue = await parts.store.queue(name)
    with _blamed_cursor("list_queue"):
        page = await parts.store.queue_jobs(name, asked.limit, asked.cursor, owners)
    summary = None if queue is None else summaries.queue_summary(queue)
    jobs = list(map(summaries.job_summary, page.items))
    answer.finish(wire.QueueJobs(summary, jobs, page.cursor))


async def _cancel_queue(parts: Parts, answer: Answer, request: wire.CancelQueue) -> None:
    name = canonical_name(request.cancel_queue.name, "cancel_queue.name")
    answer.finish(wire.CancelledJobs(await parts.dispatcher.cancel_queue(name)))


async def _list_hosts(parts: Parts, answer: Answer, request: wire.ListHosts) -> None:
    grants = parts.permissions.grants(answer.identity)
    page, cursor = parts.hosts.page(request.list_hosts.limit, request.list_hosts.cursor)
    hosts = [summaries.host_summary(host) for host in page if grants.shows_host(host.name)]
    answer.finish(wire.Hosts(hosts, cursor))


async def _refresh_hosts(parts: Parts, answer: Answer, request: wire.RefreshHosts) -> None:
    options = request.refresh_hosts
    accept_loss = not isinstance(options, bool) and options.accept_loss
    problem = await parts.hosts.refresh(accept_loss)
    answer.finish(wire.HostsRefreshed(parts.hosts.count(), problem))


async def _list_procedures(parts: Parts, answer: Answer, request: wire.ListProcedures) -> None:
    name = request.list_procedures
    host = parts.hosts.lookup(name)
    if host is None:
        text = f"there is no host {name[:100]} in the hosts registry"
        answer.refuse(errors.UNKNOWN_HOST, text)
        return
    described = await describe(parts.connections, host)
    if isinstance(described, harpd.Procedures):
        clock = None if described.time is None else described.time - parts.now()
        grants = parts.permissions.grants(answer.identity)
        shown = _shown_procedures(described.procedures, name, grants)
        answer.finish(wire.Procedures(shown, clock))
    else:
        answer.finish(described)


async def _prune_jobs(parts: Parts, answer: Answer, request: wire.PruneJobs) -> None:
    answer.finish(wire.Pruned(await parts.retention.prune(request.prune_jobs.older_than)))


async def _reload(parts: Parts, answer: Answer, request: wire.Reload) -> None:
    mistakes = await parts.reload()
    answer.finish(wire.Reloaded(not mistakes, mistakes))


async def _stop(parts: Parts, answer: Answer, request: wire.Stop) -> None:
    grace = parts.stop()
    answer.finish(wire.Stopping(True, parts.dispatcher.count_running(), grace))


class _Description(msgspec.Struct):
    name: Any = None


_descriptions = msgspec.json.Decoder(list[msgspec.Raw])
_description = msgspec.json.Decoder(_Description)


def _shown_procedures(described: bytes, host: str, grants: Grants) -> msgspec.Raw:
    """Return those of a host's procedures that may be known; nothing is opened if all may."""
    if grants.administers:
        return msgspec.Raw(described)
    shown = []
    for each in _descriptions.decode(described):
        name = _description.decode(each).name
        if isinstance(name, str) and grants.shows_procedure(host, name):
            shown.append(each)
    return msgspec.Raw(encode(shown))


def _job_filter(asked: WireFilter, owners: frozenset[str] | None) -> JobFilter:
    queue = None
    if isinstance(asked.queue, msgspec.Raw):
        queue = canonical_name(asked.queue, "list_jobs.queue")
    return JobFilter(
        states=frozenset(map(JobState, _several(asked.state))),
        ends=frozenset(map(EndKind, _several(asked.end))),
        host=asked.host,
        procedure=asked.procedure,
        queue=queue,
        submitted_since=asked.submitted_since,
        submitted_before=asked.submitted_before,
        submitter=asked.submitter,
        owners=owners,
    )


def _several(value: str | Sequence[str] | None) -> Sequence[str]:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else value


@contextmanager
def _blamed_cursor(key: str) -> Iterator[None]:
    """Make a request's own fault of a cursor that is none."""
    try:
        yield
    except ValueError as error:
        raise RefusedError(errors.INVALID_REQUEST, f"{error} - at `$.{key}.cursor`") from error


ANSWERS: Mapping[type[wire.Request], Callable[[Parts, Answer, Any], Coroutine[Any, Any, None]]] = {
    wire.ServerInfo: _server_info,
    wire.ListJobs: _list_jobs,
    wire.ListQueues: _list_queues,
    wire.ListQueue: _list_queue,
    wire.CancelQueue: _cancel_queue,
    wire.ListHosts: _list_hosts,
    wire.RefreshHosts: _refresh_hosts,
    wire.ListProcedures: _list_procedures,
    wire.PruneJobs: _prune_jobs,
    wire.Reload: _reload,
    wire.Stop: _stop,
}
