"""How a zygote is started: its settings, their way to it, and its command line."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from harp.wire.lines import MAX_REPLY
from harpd.surroundings import BASE
from harpd.zygote import LINK_NOW, Settings

KILL_GRACE = 5.0
"""Seconds between TERM and KILL, for a procedure to put things in order."""

CONTROL_DESCRIPTOR = 3


def zygote_settings(
    procedures: str,
    path: list[str],
    kill_grace: float = KILL_GRACE,
    defaults: Mapping[str, Any] | None = None,
) -> Settings:
    """Return the settings of a zygote for this procedures file.

    :param path: folders with modules that the procedures import.
    :param kill_grace: seconds between TERM and KILL.
    :param defaults: for all procedures, by the names of their options.
    """
    return Settings(CONTROL_DESCRIPTOR, procedures, path, MAX_REPLY, kill_grace, defaults or {})


def write_settings(settings: Settings) -> int:
    """Return the descriptor of a file in memory that has the settings, inherited by programs.

    They don't stand in the command line, which all users of the machine can read: the environment
    of calls is in them.
    """
    descriptor = os.memfd_create("harpd-settings", 0)
    os.write(descriptor, json.dumps(asdict(settings)).encode())
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def zygote_command(settings: int, module: str = "harpd.zygote") -> list[str]:
    """Return the command that runs a zygote; -P keeps the working directory out of its modules.

    :param settings: what `write_settings` has returned.
    :param module: the one that is run.
    """
    return [sys.executable, "-P", "-m", module, str(settings)]


def zygote_environment() -> dict[str, str]:
    """Return the environment that a zygote starts with.

    Of ours it is only what Python and the dynamic linker may need to start at all, for a call can
    read it in /proc. What the calls have is said by `harpd.surroundings`.
    """
    ours = {n: value for n, value in os.environ.items() if n.startswith(("PYTHON", "LD_"))}
    return {**BASE, **ours, LINK_NOW: "1"}
