"""The write-ahead log is emptied when something in it must be gone.

It knows nothing of jobs. What was removed from the database is in older frames of the log until
these are overwritten, which may be long.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from time import monotonic

from harpcaller.store.statements import Connection

INTERVAL = 1.0
"""Seconds between two times. Nothing else is written meanwhile: for 0.5 ms, 7 ms where the log
is as long as SQLite lets it grow (measured)."""

_WAIT = 5000
"""Milliseconds to wait for what another process holds: Python's own default."""


class Truncation:
    """Empties the log of one connection, the one that writes.

    :param now: returns seconds.
    """

    def __init__(self, connection: Connection, now: Callable[[], float] = monotonic) -> None:
        self._connection = connection
        self._now = now
        self._next = now()

    def wait(self) -> float | None:
        """Return in how many seconds the log is to be emptied; None if it need not be."""
        if not self._connection.has_wiped:
            return None
        return max(0.0, self._next - self._now())

    def act(self) -> None:
        """Empty the log if it is time.

        Who reads just now can hold it back, a full disk too; then it is tried again.
        """
        if not self._connection.has_wiped or self._now() < self._next:
            return
        try:
            self._connection.execute("PRAGMA busy_timeout = 0")
            row = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            self._connection.has_wiped = row[0] != 0
        except sqlite3.Error:
            pass  # what hinders it will make commits fail, which is told
        finally:
            self._connection.execute(f"PRAGMA busy_timeout = {_WAIT}")
            self._next = self._now() + INTERVAL
