"""Finds the mistakes of a procedures file before the daemon runs, in a zygote of its own."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from harpd.guard import KILL_ZYGOTE
from harpd.orders import MAX_MESSAGE
from harpd.zygote_command import zygote_command, zygote_environment, zygote_settings

TIME_LIMIT = 60.0
"""Seconds in which the file must have been loaded."""


def check_procedures(
    file: str, path: list[str], defaults: Mapping[str, Any] | None = None
) -> list[str]:
    """Load the procedures file in another process and return its mistakes, one sentence each.

    Blocks until it is loaded. What the file prints goes to standard error.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    settings = replace(zygote_settings(file, path, defaults=defaults), control=theirs.fileno())
    with ours:
        with theirs:
            zygote = subprocess.Popen(  # noqa: S603 - this interpreter, no shell
                zygote_command(settings),
                stdin=subprocess.DEVNULL,
                stdout=2,
                env=zygote_environment(),
                pass_fds=[theirs.fileno()],
            )
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
