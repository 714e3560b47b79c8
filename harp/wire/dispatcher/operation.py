"""What an operator asks the dispatcher, and what answers that: all of it extensions.

A list comes in pages. A reply's ``cursor`` is what asks for the page behind it, null on the last.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from harp.wire.dispatcher.base import Request, Seconds
from harp.wire.text import Scalar

MAX_PAGE = 1000
"""The most entries of one page."""

Limit = Annotated[int, msgspec.Meta(ge=1, le=MAX_PAGE)]
State = Literal["waiting", "running", "ended"]
End = Literal["result", "exception", "error", "cancelled"]
Stage = Literal["queue", "host", "dispatcher"]


class Options(msgspec.Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """What stands under the key of a request."""


class Page(Options, frozen=True, kw_only=True):
    """Which part of a list is wanted.

    :param limit: the most entries.
    :param cursor: from the reply before this one; None for the first page.
    """

    limit: Limit = 100
    cursor: str | None = None


class JobFilter(Page, frozen=True, kw_only=True):
    """Which jobs are wanted; what is None does not matter.

    :param queue: JSON of an object.
    :param submitted_since: unix seconds, included.
    :param submitted_before: unix seconds, not included.
    :param submitter: the user who submitted the job, or on whose behalf that was done.
    """

    state: State | list[State] | None = None
    host: str | None = None
    procedure: str | None = None
    queue: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    end: End | list[End] | None = None
    submitted_since: float | None = None
    submitted_before: float | None = None
    submitter: str | None = None


class QueuePage(Page, frozen=True, kw_only=True):
    """Which jobs of a queue are wanted.

    :param name: JSON of an object.
    """

    name: msgspec.Raw


class QueueName(Options, frozen=True, kw_only=True):
    """A queue.

    :param name: JSON of an object.
    """

    name: msgspec.Raw


class OlderThan(Options, frozen=True, kw_only=True):
    """Which ended jobs are to be forgotten."""

    older_than: Seconds


class RefreshOptions(Options, frozen=True, kw_only=True):
    """How the hosts are to be read again.

    :param accept_loss: whether most of the hosts may be missing from the new list.
    """

    accept_loss: bool = False


class ServerInfo(Request, frozen=True, kw_only=True):
    """Ask which version the dispatcher has and which extensions."""

    server_info: bool


class ListJobs(Request, frozen=True, kw_only=True):
    """Ask for jobs, the newest first."""

    list_jobs: JobFilter


class ListQueues(Request, frozen=True, kw_only=True):
    """Ask for the queues that there are, the oldest first."""

    list_queues: Page


class ListQueue(Request, frozen=True, kw_only=True):
    """Ask for the jobs of a queue in the order in which they run."""

    list_queue: QueuePage


class CancelQueue(Request, frozen=True, kw_only=True):
    """Cancel all jobs of a queue that wait or run now."""

    cancel_queue: QueueName


class ListHosts(Request, frozen=True, kw_only=True):
    """Ask for the hosts registry, without credentials, by name."""

    list_hosts: Page


class RefreshHosts(Request, frozen=True, kw_only=True):
    """Read the hosts again now: True, or how."""

    refresh_hosts: bool | RefreshOptions


class ListProcedures(Request, frozen=True, kw_only=True):
    """Ask what a host offers."""

    list_procedures: str


class PruneJobs(Request, frozen=True, kw_only=True):
    """Forget jobs that ended long ago."""

    prune_jobs: OlderThan


class Reload(Request, frozen=True, kw_only=True):
    """Read the configuration again now."""

    reload: bool


class Stop(Request, frozen=True, kw_only=True):
    """Stop the dispatcher, as SIGTERM does."""

    stop: bool


class ServerVersion(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which version the dispatcher has, and the names of its extensions.

    :param time: what its clock says, in unix seconds; None if it does not tell.
    """

    version: str
    extensions: list[str]
    time: float | None = None


class JobTimes(msgspec.Struct, frozen=True):
    """Unix seconds with their fraction."""

    submit: float
    start: float | None
    end: float | None


class JobSummary(msgspec.Struct, frozen=True):
    """A job in a list: without its arguments and info, which may be long.

    :param queue: JSON of an object or null.
    :param waits_for: what it waits for: its turn in the queue, its host, or the dispatcher.
    :param end: how it ended.
    :param caller: the address from which it was submitted.
    :param submitter: the user who submitted it, None for nobody in particular.
    :param on_behalf_of: for whom the submitter did so.
    """

    job_id: str
    host: str
    procedure: str
    state: State
    queue: msgspec.Raw
    waits_for: Stage | None
    time: JobTimes
    end: End | None
    caller: str | None
    submitter: str | None = None
    on_behalf_of: str | None = None


class QueueSummary(msgspec.Struct, frozen=True):
    """A queue.

    :param name: JSON of an object.
    """

    name: msgspec.Raw
    concurrency: int
    running: int
    waiting: int


class Host(msgspec.Struct, frozen=True):
    """A host as the registry has it.

    :param server_name: what its certificate is made out to, None for the usual names.
    """

    name: str
    address: str
    port: int
    tags: list[str] = []
    server_name: str | None = None


class Jobs(msgspec.Struct, frozen=True):
    """A page of jobs."""

    jobs: list[JobSummary]
    cursor: str | None = None


class QueueJobs(msgspec.Struct, frozen=True):
    """A queue, None if there is none of that name now, and a page of its jobs."""

    queue: QueueSummary | None
    jobs: list[JobSummary]
    cursor: str | None = None


class Queues(msgspec.Struct, frozen=True):
    """A page of queues."""

    queues: list[QueueSummary]
    cursor: str | None = None


class CancelledJobs(msgspec.Struct, frozen=True):
    """How many jobs have been cancelled."""

    cancelled_jobs: int


class Hosts(msgspec.Struct, frozen=True):
    """A page of hosts."""

    hosts: list[Host]
    cursor: str | None = None


class HostsRefreshed(msgspec.Struct, frozen=True):
    """How many hosts are known now, and why the list is still the old one if it is."""

    hosts_known: int
    problem: str | None = None


class Procedures(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a host offers.

    :param procedures: JSON of a list, as harpd wrote it.
    :param clock: by how many seconds the host's clock was ahead of the dispatcher's, but for the
        time that the answer took; None if harpd does not tell.
    """

    procedures: msgspec.Raw
    clock: float | None = None


class Pruned(msgspec.Struct, frozen=True):
    """How many jobs have been forgotten."""

    pruned: int


class Reloaded(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whether the configuration was read again; if not, why not, and the old one is in force."""

    reloaded: bool
    mistakes: list[str] = []


class Stopping(msgspec.Struct, frozen=True):
    """The dispatcher is stopping.

    :param stopping: always True.
    :param running: how many jobs run now.
    :param grace: for how many seconds they may go on; what runs then ends with ``shutdown``.
    """

    stopping: bool
    running: int
    grace: float


Summary = (
    ServerVersion
    | Jobs
    | QueueJobs
    | Queues
    | CancelledJobs
    | Hosts
    | HostsRefreshed
    | Procedures
    | Pruned
    | Reloaded
    | Stopping
)
"""What answers the requests of this module."""

REQUESTS: dict[str, type[Request]] = {
    "server_info": ServerInfo,
    "list_jobs": ListJobs,
    "list_queues": ListQueues,
    "list_queue": ListQueue,
    "cancel_queue": CancelQueue,
    "list_hosts": ListHosts,
    "refresh_hosts": RefreshHosts,
    "list_procedures": ListProcedures,
    "prune_jobs": PruneJobs,
    "reload": Reload,
    "stop": Stop,
}
"""The key that only this kind of request has."""

REPLIES: dict[type[Request], type[Summary]] = {
    ServerInfo: ServerVersion,
    ListJobs: Jobs,
    ListQueues: Queues,
    ListQueue: QueueJobs,
    CancelQueue: CancelledJobs,
    ListHosts: Hosts,
    RefreshHosts: HostsRefreshed,
    ListProcedures: Procedures,
    PruneJobs: Pruned,
    Reload: Reloaded,
    Stop: Stopping,
}
"""What answers each of them, unless it is refused."""

_TELLING: dict[str, type[Summary]] = {
    "extensions": ServerVersion,
    "queues": Queues,
    "cancelled_jobs": CancelledJobs,
    "hosts": Hosts,
    "hosts_known": HostsRefreshed,
    "procedures": Procedures,
    "pruned": Pruned,
    "reloaded": Reloaded,
    "stopping": Stopping,
}
_decoders = {kind: msgspec.json.Decoder(kind) for kind in [Jobs, QueueJobs, *_TELLING.values()]}


def summary_decoder(
    message: dict[str, msgspec.Raw] | list[msgspec.Raw] | Scalar,
) -> msgspec.json.Decoder[Summary] | None:
    """Return what decodes a reply of this module, None if it is none."""
    if not isinstance(message, dict):
        return None
    if "jobs" in message:
        return _decoders[QueueJobs if "queue" in message else Jobs]
    return next((_decoders[kind] for key, kind in _TELLING.items() if key in message), None)
