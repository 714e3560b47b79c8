"""What a job is, and the states it goes through.

Values only: where jobs are kept and changed is ``harpcaller.store``, what runs them is elsewhere.
Payloads are the JSON bytes that arrived; nothing here opens them.

The rules of the table: a row is a state and an event, its value is the state after it. A job is
submitted WAITING; one that need not wait is started in the same transaction. A job that waited can
be cancelled without ever having run, but only a running one can finish or be lost. Nothing leads
out of ENDED. What is not in the table is illegal.
"""

from __future__ import annotations

import enum

import msgspec

from harp.wire.results import EndResult


class JobState(enum.Enum):
    """Where a job stands."""

    WAITING = "waiting"
    RUNNING = "running"
    ENDED = "ended"


class JobEvent(enum.Enum):
    """What can happen to a job."""

    START = "start"
    FINISH = "finish"
    CANCEL = "cancel"
    LOSE = "lose"


_TABLE: dict[tuple[JobState, JobEvent], JobState] = {
    (JobState.WAITING, JobEvent.START): JobState.RUNNING,
    (JobState.WAITING, JobEvent.CANCEL): JobState.ENDED,
    (JobState.RUNNING, JobEvent.FINISH): JobState.ENDED,
    (JobState.RUNNING, JobEvent.CANCEL): JobState.ENDED,
    (JobState.RUNNING, JobEvent.LOSE): JobState.ENDED,
}


class IllegalTransitionError(Exception):
    """Our own mistake: the job is in a state in which this can't happen to it."""


def is_legal(state: JobState, event: JobEvent) -> bool:
    """Tell whether the event can happen to a job in this state."""
    return (state, event) in _TABLE


def state_after(state: JobState, event: JobEvent) -> JobState:
    """Return the state that the event leads to.

    :raises IllegalTransitionError: if the event can't happen in this state.
    """
    if not is_legal(state, event):
        raise IllegalTransitionError(f"{event.value} of a job that is {state.value}")
    return _TABLE[state, event]


class QueueSpec(msgspec.Struct, frozen=True):
    """The queue that a call asks for.

    :param name: canonical JSON (``harpcaller.queues``): equal names are equal bytes.
    :param concurrency: how many of its jobs may run at once, if this call creates the queue.
    """

    name: bytes
    concurrency: int


class NewJob(msgspec.Struct, frozen=True):
    """A call that was accepted and is not yet on disk.

    :param arguments: JSON of a list or an object.
    :param info: JSON, kept for the client.
    :param timeout: the longest silence between two messages of the job, in seconds.
    :param max_exec_time: the longest run, in seconds.
    """

    id: str
    host: str
    procedure: str
    arguments: bytes
    info: bytes
    timeout: float
    max_exec_time: float
    queue: QueueSpec | None


class Job(msgspec.Struct, frozen=True):
    """A job as it is on disk. Times are unix seconds.

    :param queue: the name of its queue, canonical JSON; None if it has none.
    :param started: None if it has not run, also when it was cancelled while it waited.
    :param ended: None while it has not ended, as is ``end``.
    """

    id: str
    host: str
    procedure: str
    arguments: bytes
    info: bytes
    timeout: float
    max_exec_time: float
    queue: bytes | None
    state: JobState
    submitted: float
    started: float | None = None
    ended: float | None = None
    end: EndResult | None = None
