"""Finds the mistakes of a procedures file before the daemon runs, in a zygote of its own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from harpd.guard import KILL_ZYGOTE
from harpd.orders import MAX_MESSAGE
from harpd.zygote_command import (
    write_settings,
    zygote_command,
    zygote_environment,
    zygote_settings,
)

TIME_LIMIT = 60.0
"""Seconds in which the file must have been loaded."""

_CHUNK = 65536


def check_procedures(
    file: str, path: list[str], defaults: Mapping[str, Any] | None = None, shows: bool = True
) -> list[str]:
    """Load the procedures file in another process and return its mistakes, one sentence each.

    Blocks until it is loaded.

    :param shows: whether what the file prints goes to standard error if there is no mistake too:
        what is to be the log of a daemon gets it from the daemon's own zygote.
    """
    with ExitStack() as opened:
        printed = os.memfd_create("harpd-check")
        opened.callback(os.close, printed)
        mistakes = _load(file, path, defaults, printed)
        if shows or mistakes:
            os.lseek(printed, 0, os.SEEK_SET)
            while data := os.read(printed, _CHUNK):
                os.write(2, data)
    return mistakes


def _load(
    file: str, path: list[str], defaults: Mapping[str, Any] | None, printed: int
) -> list[str]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    settings = replace(zygote_settings(file, path, defaults=defaults), control=theirs.fileno())
    with ours:
        with theirs:
            written = write_settings(settings)
            try:
                zygote = subprocess.Popen(  # noqa: S603 - this interpreter, no shell
                    zygote_command(written),
                    stdin=subprocess.DEVNULL,
                    stdout=printed,
                    stderr=printed,
                    env=zygote_environment(),
                    pass_fds=[theirs.fileno(), written],
                )
            finally:
                os.close(written)
        try:
            return _mistakes(ours, file)
        finally:
            ours.close()  # which ends it
            try:
                zygote.wait(settings.kill_grace)
            except subprocess.TimeoutExpired:
                zygote.send_signal(KILL_ZYGOTE)  # it is the guard that we have started
                zygote.wait()


def _mistakes(control: socket.socket, file: str) -> list[str]:
    control.settimeout(TIME_LIMIT)
    mistakes: list[str] = []
    while True:
        try:
            message = json.loads(control.recv(MAX_MESSAGE) or b"null")
        except TimeoutError:
            return [f"{file}: was not loaded within {TIME_LIMIT:g} s"]
        match message:
            case {"mistake": mistake}:
                mistakes.append(mistake)
            case {"ready": _}:
                return mistakes
            case None:
                return [f"{file}: the process that loads it ended without a word"]
