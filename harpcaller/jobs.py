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

from harp.errors import Origin
from harp.wire.results import EndResult


class JobState(enum.Enum):
    """Where a job stands."""

    WAITING = "waiting"
    RUNNING = "running"
    ENDED = "ended"


class WaitsFor(enum.Enum):
    """What a waiting job waits for, in the order in which a job can come past them.

    QUEUE: its turn in its queue. HOST: a place among the jobs of its host. DISPATCHER: a place
    among all that run.
    """

    QUEUE = "queue"
    HOST = "host"
    DISPATCHER = "dispatcher"


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


class Capacity(msgspec.Struct, frozen=True):
    """How much may run at once.

    :param max_running: jobs of the whole dispatcher.
    :param max_running_per_host: jobs of one host; None for no limit but that of the dispatcher.
    """

    max_running: int = 1000
    max_running_per_host: int | None = None


class Dedup(msgspec.Struct, frozen=True):
    """A wish to get the job of an equal call that was submitted not long ago.

    :param key: canonical JSON (``harpcaller.queues``): equal keys are equal bytes.
    :param within: how long ago that may be, in seconds.
    """

    key: bytes
    within: float


class NewJob(msgspec.Struct, frozen=True):
    """A call that was accepted and is not yet on disk.

    :param arguments: JSON of a list or an object.
    :param info: JSON, kept for the client.
    :param timeout: the longest silence between two messages of the job, in seconds.
    :param max_exec_time: the longest run, in seconds.
    :param idempotency_key: the same in a call and in its repetitions, which start nothing.
    :param dedup: which earlier job is to be taken instead of this one.
    :param caller: the address of who submitted it.
    :param submitter: the user who did; None for nobody in particular.
    :param on_behalf_of: the person for whom the submitter did so.
    :param shown_arguments: what may be shown in the place of the arguments; None if they may.
    """

    id: str
    host: str
    procedure: str
    arguments: bytes
    info: bytes
    timeout: float
    max_exec_time: float
    queue: QueueSpec | None
    idempotency_key: str | None = None
    dedup: Dedup | None = None
    caller: str | None = None
    submitter: str | None = None
    on_behalf_of: str | None = None
    shown_arguments: bytes | None = None


class Job(msgspec.Struct, frozen=True):
    """A job as it is on disk. Times are unix seconds.

    :param arguments: those to run with, where the job has just been started; else those that may
        be shown.
    :param queue: the name of its queue, canonical JSON; None if it has none.
    :param started: None if it has not run, also when it was cancelled while it waited.
    :param ended: None while it has not ended, as is ``end``.
    :param waits_for: None unless it waits.
    :param caller: the address of who submitted it, if that is known.
    :param origin: where the failure arose with which it ended; None if it did not fail.
    :param submitter: the user who submitted it; None for nobody in particular.
    :param on_behalf_of: the person for whom the submitter did so.
    :param shown_arguments: what may be shown in the place of the arguments; None if they may.
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
    waits_for: WaitsFor | None = None
    caller: str | None = None
    origin: Origin | None = None
    submitter: str | None = None
    on_behalf_of: str | None = None
    shown_arguments: bytes | None = None

    @property
    def shown(self) -> bytes:
        """The arguments as they may be shown."""
        return self.arguments if self.shown_arguments is None else self.shown_arguments

    def without_secrets(self) -> Job:
        """Return the job with nothing in it that may not be shown."""
        if self.shown_arguments is None:
            return self
        return msgspec.structs.replace(self, arguments=self.shown_arguments, shown_arguments=None)
