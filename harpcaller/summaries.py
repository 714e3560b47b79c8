"""Jobs, queues and hosts as the dispatcher's protocol writes them."""

from __future__ import annotations

import msgspec

from harp.errors import ERROR_TYPES
from harp.wire import dispatcher as wire
from harp.wire.dispatcher.operation import JobTimes
from harp.wire.results import EndDetail, EndKind, EndResult
from harp.wire.text import Fault
from harpcaller.hosts import Host
from harpcaller.jobs import Job
from harpcaller.store import JobSummary, QueueSummary

_NULL = msgspec.Raw(b"null")


def end_of(job: Job, detail: bool) -> EndResult:
    """Return the end result of a job that has ended.

    :param detail: whether more is wanted than version 1 tells.
    """
    assert job.end is not None
    assert job.ended is not None
    if not detail:
        return job.end
    origin = None if job.origin is None else job.origin.value
    return EndResult(job.end.kind, job.end.value, EndDetail(origin, _may_have_run(job), job.ended))


def status_detail(
    job: Job, packets: int, queue: wire.QueuePlace | None, lock: str | None
) -> wire.StatusDetail:
    """Return what version 1 does not tell of a job.

    :param packets: how many have been recorded.
    :param lock: the lock that it waits for on its host.
    """
    return wire.StatusDetail(
        state=job.state.value,
        waits_for=None if job.waits_for is None else job.waits_for.value,
        waits_for_lock=lock,
        time=_times(job),
        timeout=job.timeout,
        max_exec_time=job.max_exec_time,
        caller=job.caller,
        packets=packets,
        queue=queue,
        submitter=job.submitter,
        on_behalf_of=job.on_behalf_of,
    )


def job_summary(job: JobSummary) -> wire.JobSummary:
    """Return a job as lists have it."""
    return wire.JobSummary(
        job_id=job.id,
        host=job.host,
        procedure=job.procedure,
        state=job.state.value,
        queue=_NULL if job.queue is None else msgspec.Raw(job.queue),
        waits_for=None if job.waits_for is None else job.waits_for.value,
        time=_times(job),
        end=None if job.end is None else job.end.value,
        caller=job.caller,
        submitter=job.submitter,
        on_behalf_of=job.on_behalf_of,
    )


def queue_summary(queue: QueueSummary) -> wire.QueueSummary:
    """Return a queue as lists have it."""
    return wire.QueueSummary(
        msgspec.Raw(queue.name), queue.concurrency, queue.running, queue.waiting
    )


def host_summary(host: Host) -> wire.Host:
    """Return a host as lists have it: without credentials."""
    return wire.Host(host.name, host.address, host.port, list(host.tags), host.server_name)


def _times(job: Job | JobSummary) -> JobTimes:
    return JobTimes(job.submitted, job.started, job.ended)


def _may_have_run(job: Job) -> bool:
    if job.started is None or job.end is None:
        return False
    if job.end.kind is not EndKind.ERROR:
        return True
    row = ERROR_TYPES.get(msgspec.json.decode(job.end.value, type=Fault).type)
    return row is None or row.may_have_run
