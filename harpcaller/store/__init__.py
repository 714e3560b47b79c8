"""The job store, the only place with SQL: jobs, their packets and their queues.

Whoever uses it needs the names below; the database and its threads are behind them.
"""

from harpcaller.store.cursors import Page
from harpcaller.store.database import StoreError
from harpcaller.store.jobstore import JobStore
from harpcaller.store.listing import JobFilter, JobSummary
from harpcaller.store.outcomes import (
    Cancellation,
    Ending,
    QueueCancellation,
    Recovery,
    Submission,
)
from harpcaller.store.pruning import Pruned
from harpcaller.store.queue_lists import QueueSummary
from harpcaller.store.repeats import KEY_LIFE, Repeat

__all__ = [
    "KEY_LIFE",
    "Cancellation",
    "Ending",
    "JobFilter",
    "JobStore",
    "JobSummary",
    "Page",
    "Pruned",
    "QueueCancellation",
    "QueueSummary",
    "Recovery",
    "Repeat",
    "StoreError",
    "Submission",
]
