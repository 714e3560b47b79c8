"""What a process of a daemon uses: memory, processor time, its children."""

from __future__ import annotations

import os
import time
from pathlib import Path

_TICK = 1 / os.sysconf("SC_CLK_TCK")
_LOOK = 0.3  # seconds
_IDLE = 0.03  # seconds of processor time in that time


def resident(pid: int) -> int:
    """Return how much memory a process has now, in bytes."""
    return _status(pid, "VmRSS")


def peak(pid: int) -> int:
    """Return how much memory a process had at most since `forget_peak`, in bytes."""
    return _status(pid, "VmHWM")


def forget_peak(pid: int) -> None:
    """Begin anew to watch how much memory a process has at most; see proc(5), clear_refs."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def family(pid: int) -> list[int]:
    """Return a process and all that come from it."""
    parents = {int(name): _parent(int(name)) for name in os.listdir("/proc") if name.isdigit()}
    found = [pid]
    for member in found:
        found.extend(child for child, parent in parents.items() if parent == member)
    return found


def descriptors(pid: int) -> int:
    """Return how many descriptors a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def wait_until_idle(pid: int) -> None:
    """Return when a process has nothing more to do."""
    used = processor_time(pid)
    while True:
        time.sleep(_LOOK)
        before, used = used, processor_time(pid)
        if used - before < _IDLE:
            return


def processor_time(pid: int) -> float:
    """Return how much processor time a process has used, in seconds.

    :raises OSError: if there is no such process.
    """
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) * _TICK


def time_of_ended_children(pid: int) -> float:
    """Return how much processor time those of a process's children have used that have ended."""
    fields = _stat(pid)
    return (int(fields[13]) + int(fields[14])) * _TICK


class Work:
    """The processor time that calls need, told apart by where.

    :param harpd: the process of a harpd that runs no call now,
    :param dispatcher: that of the dispatcher; the clients are children of this process.
    """

    def __init__(self, harpd: int, dispatcher: int) -> None:
        self._dispatcher = dispatcher
        self._harpd, *self._forking = family(harpd)
        self._before = self._used()

    def milliseconds(self, calls: int) -> dict[str, float]:
        """Return what each of so many calls has needed since this was made."""
        used = self._used()
        return {where: 1000 * (used[where] - self._before[where]) / calls for where in used}

    def _used(self) -> dict[str, float]:
        return {
            "client": time_of_ended_children(os.getpid()),
            "dispatcher": processor_time(self._dispatcher),
            "harpd": processor_time(self._harpd),
            "zygote": sum(map(processor_time, self._forking)),
            "process": sum(map(time_of_ended_children, self._forking)),
        }


def _parent(pid: int) -> int:
    try:
        return int(_stat(pid)[1])
    except OSError:
        return 0


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _status(pid: int, key: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return 1024 * int(line.split()[1])
    raise OSError(f"process {pid} has no {key}")
