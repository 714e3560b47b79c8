"""What harpd offers to the three panels: a backup that tells how far it is."""

import time
from collections.abc import Iterator

from harpd.proc import Result, progress, streaming_procedure

TABLES = {"orders": 3, "users": 20, "archive": 100_000}


@streaming_procedure(timeout=60)
def back_up(database: str) -> Iterator[object]:
    """Back up a database, and report each table that is done."""
    if database not in TABLES:
        raise LookupError(f"there is no database {database}")
    total = TABLES[database]
    for done in range(1, total + 1):
        time.sleep(0.02)  # in place of the work
        yield progress(done, total, "tables")
    yield Result({"database": database, "tables": total})
