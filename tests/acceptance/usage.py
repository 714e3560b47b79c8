"""How much memory and how many descriptors the daemons have, and whether that has grown."""

from __future__ import annotations

from dataclasses import dataclass

from harpcaller.demo.deployment import Deployment
from tests.acceptance.daemons import children, descriptors, resident_kib

MEMORY_KIB = 16 * 1024
"""What a daemon at rest may have grown by: allocators keep what a burst has needed."""

DESCRIPTORS = 8
"""How many descriptors a daemon at rest may have more than before."""


@dataclass(frozen=True)
class Usage:
    """Of one process at one moment."""

    pid: int
    kib: int
    descriptors: int

    def __str__(self) -> str:
        return f"{self.kib / 1024:.1f} MiB, {self.descriptors} descriptors (process {self.pid})"


def of_daemons(deployment: Deployment) -> dict[str, Usage]:
    """Return what each daemon uses, and each process that harpd has below it; no call may run."""
    found: dict[str, Usage] = {}
    for daemon in (deployment.harpcaller, deployment.harpd):
        assert daemon.process is not None
        _look(daemon.name, daemon.process.pid, found)
    return found


def _look(name: str, pid: int, found: dict[str, Usage]) -> None:
    found[name] = Usage(pid, resident_kib(pid), descriptors(pid))
    for number, child in enumerate(sorted(children(pid)), 1):
        _look(f"{name}/{number}", child, found)


def growth(start: dict[str, Usage], end: dict[str, Usage]) -> list[str]:
    """Return what has grown beyond the bounds, in words."""
    faults = []
    for name in sorted(start.keys() | end.keys()):
        if name not in start or name not in end:
            faults.append(f"{name}: there only {'at the start' if name in start else 'at the end'}")
            continue
        before, after = start[name], end[name]
        if after.kib - before.kib > MEMORY_KIB:
            faults.append(f"{name}: memory grew from {before} to {after}")
        if after.descriptors - before.descriptors > DESCRIPTORS:
            faults.append(f"{name}: descriptors grew from {before} to {after}")
    return faults
