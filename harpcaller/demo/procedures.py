"""The procedures of the demo: what harpd lets others call on this machine."""

import os
import shutil
import time
from collections.abc import Iterator

from harpd.proc import Result, procedure, streaming_procedure


@procedure
def disk_usage(path: str = "/") -> dict[str, str | int]:
    """Return how full a file system is, in bytes."""
    usage = shutil.disk_usage(path)
    return {"path": path, "total": usage.total, "used": usage.used, "free": usage.free}


@streaming_procedure(timeout=60)
def follow_file(path: str, lines: int) -> Iterator[object]:
    """Report lines of a growing file as they are written, until there were enough of them."""
    with open(path) as file:
        for number in range(1, lines + 1):
            while not (line := file.readline()):
                time.sleep(0.01)
            yield {"line": number, "text": line.rstrip("\n")}
    yield Result({"bytes": os.path.getsize(path)})


@procedure
def restart_service(name: str) -> None:
    """Raise, because there is no such service."""
    raise LookupError(f"no service {name} on this machine")
