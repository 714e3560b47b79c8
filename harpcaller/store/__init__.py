"""The job store, the only place with SQL: jobs, their packets and their queues.

Whoever uses it needs the names below; the database and its threads are behind them.
"""

from harpcaller.store.changes import Cancellation, Ending, Recovery
from harpcaller.store.database import StoreError
from harpcaller.store.jobstore import JobStore

__all__ = ["Cancellation", "Ending", "JobStore", "Recovery", "StoreError"]
