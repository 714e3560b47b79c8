"""Keeps a process from forking: by a control group for root, by a limit of its user for others."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_ROOTS = (Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup"))  # versions 1 and 2


def no_more_processes(pid: int) -> Callable[[], None] | str:
    """Let a process have no more of its kind.

    :return: what ends that and may be called twice, or why it can't be had here.
    """
    if os.geteuid() != 0:
        before = resource.prlimit(pid, resource.RLIMIT_NPROC)
        resource.prlimit(pid, resource.RLIMIT_NPROC, (1, before[1]))

        def end() -> None:
            with suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_NPROC, before)

        return end
    return _group(pid)


def _group(pid: int) -> Callable[[], None] | str:
    root = next((root for root in _ROOTS if (root / "cgroup.procs").exists()), None)
    if root is None:
        return "there are no control groups here"
    group = root / f"harpcaller-test-{pid}"

    def end() -> None:
        if group.exists():
            for member in (group / "cgroup.procs").read_text().split():
                with suppress(OSError):
                    (root / "cgroup.procs").write_text(member)
            group.rmdir()

    try:
        group.mkdir()
        (group / "cgroup.procs").write_text(str(pid))
        (group / "pids.max").write_text("1")
    except OSError as error:
        end()
        return f"control groups can't limit processes here: {error.strerror}"
    return end
