"""How much of many rows one transaction changes, so that nobody waits long for it."""

from __future__ import annotations

ROW_BYTES = 16 * 1024
"""A row counts as one more for each of these that its values have.

Changing a row writes all of it, and SQLite overwrites what it deletes (``secure_delete``): 200 rows
of 1 MiB would keep everybody waiting for seconds.
"""


def counted(size: int) -> int:
    """Return as how many rows one counts.

    :param size: of its long values, in bytes.
    """
    return 1 + size // ROW_BYTES
