"""Takes from the calls what the procedures file has left open: files, sockets, whatever it is."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress


def open_descriptors() -> dict[int, str]:
    """Return what is open in this process: what each descriptor refers to, as proc(5) says it."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the one that listed them
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return found


def take_away(numbers: Iterable[int]) -> None:
    """Let these descriptors refer to nothing that can be read or written (O_PATH, open(2)).

    Closed ones would get new owners: what the procedures file logs to a file of its own would be
    written to one that a call has opened.
    """
    nothing = os.open(os.devnull, os.O_PATH)
    for number in numbers:
        os.dup2(nothing, number, inheritable=False)
    os.close(nothing)
