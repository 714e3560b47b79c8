"""The ``harp`` command as its users start it: the script, with or without a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

SCRIPT = Path(sys.executable).with_name("harp")
TIME_LIMIT = 60
"""Seconds after which a command is taken to hang."""


class Done(NamedTuple):
    """How a command ended. On a terminal all that it says is ``out``."""

    status: int
    out: str
    err: str = ""


def harp(*arguments: str, given: str = "") -> Done:
    """Run the command without a terminal.

    :param given: what it gets on standard input.
    """
    done = subprocess.run(
        [SCRIPT, *arguments],
        input=given,
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def harp_on_terminal(*arguments: str, answer: str) -> Done:
    """Run the command on a terminal.

    :param answer: what is typed there.
    """
    ours, theirs = pty.openpty()
    try:
        with subprocess.Popen(
            [SCRIPT, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        ) as process:
            os.close(theirs)
            os.write(ours, answer.encode())
            said = b""
            with suppress(OSError):  # EIO: nobody has the terminal any more
                while data := os.read(ours, 4096):
                    said += data
            return Done(process.wait(TIME_LIMIT), said.decode())
    finally:
        os.close(ours)


class Started(subprocess.Popen[str]):
    """A program that does not outlive its ``with``, whatever goes wrong within."""

    def __exit__(self, *exc_info: Any) -> None:
        """Kill it if it still runs, for else its end would be waited for."""
        self.kill()
        super().__exit__(*exc_info)
