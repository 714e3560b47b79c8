"""What the changes of jobs are answered with."""

from __future__ import annotations

import msgspec

from harpcaller.jobs import Job, JobState
from harpcaller.store.repeats import Repeat


class Submission(msgspec.Struct, frozen=True):
    """What became of a call.

    :param job_id: the job that it got.
    :param job: that job; None if it has been pruned since.
    :param repeated: None if the job is new; a repeated call has started nothing.
    """

    job_id: str
    job: Job | None
    repeated: Repeat | None = None


class Ending(msgspec.Struct, frozen=True):
    """What the end of a job changed.

    :param job: the job as it ended; None if it was not running, and nothing changed.
    :param released: jobs that now run, in the order of submission.
    """

    job: Job | None
    released: list[Job]


class Cancellation(msgspec.Struct, frozen=True):
    """What a request to cancel changed.

    :param before: the state that it found; None if there is no such job.
    :param job: the job as it is now; None if there is no such job.
    :param released: jobs that now run, in the order of submission.
    """

    before: JobState | None
    job: Job | None
    released: list[Job]


class Recovery(msgspec.Struct, frozen=True):
    """What had to be put right after the dispatcher stopped.

    :param closed: ids of the jobs that were running, in the order of submission.
    :param released: jobs that now run, in the order of submission.
    """

    closed: list[str]
    released: list[Job]


class QueueCancellation(msgspec.Struct, frozen=True):
    """What a request to cancel waiting jobs of a queue changed.

    :param jobs: the jobs that ended, the last one submitted first.
    :param released: jobs that now run, in the order of submission.
    """

    jobs: list[Job]
    released: list[Job]
