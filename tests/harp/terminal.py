"""The ``harp`` command on a terminal, as a person sees it: what stands on the screen."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from typing import cast

import pexpect
import pyte

from tests.harp.commands import SCRIPT

PATIENCE = 60.0
"""Seconds after which what a test waits for is taken never to come."""

_ROWS = 24
_JOB = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SPINNER = re.compile(r"^[⠁-⣿] ", re.MULTILINE)
_CLOCK = re.compile(r"\b\d:\d\d\b")


class Terminal:
    """A terminal with the command on it.

    :param columns: how wide it is.
    :param environment: variables that the command gets beside those that are there.
    """

    def __init__(
        self, *arguments: str, columns: int = 80, environment: Mapping[str, str] | None = None
    ) -> None:
        self._screen = pyte.HistoryScreen(columns, _ROWS, history=1000)
        self._stream = pyte.ByteStream(self._screen)
        unset = ("NO_COLOR", "COLUMNS", "LINES", "FORCE_COLOR")
        inherited = {name: value for name, value in os.environ.items() if name not in unset}
        self._process = pexpect.spawn(
            str(SCRIPT),
            list(arguments),
            dimensions=(_ROWS, columns),
            env={
                **inherited,
                "TERM": "xterm-256color",
                "LANG": "C.UTF-8",
                "PYTHONUNBUFFERED": "",
                **(environment or {}),
            },
            timeout=None,
        )
        self.raw = b""

    def close(self) -> None:
        """End the command, if it has not."""
        self._process.close(force=True)

    @property
    def screen(self) -> str:
        """What stands there; job ids, spinners and clocks are the same in all tests."""
        lines = "\n".join(line.rstrip() for line in self._screen.display).rstrip("\n")
        text = _JOB.sub(lambda found: "J" * len(found[0]), lines)
        return _CLOCK.sub("0:00", _SPINNER.sub("⠋ ", text))

    @property
    def job_id(self) -> str:
        """The first job id that was printed."""
        found = _JOB.search(self.raw.decode(errors="replace"))
        assert found is not None, self.screen
        return found[0]

    def wait_for(self, text: str) -> None:
        """Return as soon as that stands on the screen."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.screen:
            if not self._read(deadline):
                raise AssertionError(f"{text!r} did not come:\n{self.screen}")

    def type(self, text: str) -> None:
        """Type something."""
        self._process.send(text)

    def ctrl_c(self) -> None:
        """Press Ctrl-C."""
        self._process.sendintr()

    def end(self) -> int:
        """Return the exit status as a shell sees it, when all that was printed is on the screen."""
        deadline = time.monotonic() + PATIENCE
        while self._read(deadline):
            pass
        self._process.wait()
        signal = self._process.signalstatus
        return 128 + signal if signal is not None else int(self._process.exitstatus or 0)

    def _read(self, deadline: float) -> bool:
        try:
            left = max(0.0, deadline - time.monotonic())
            data = cast(bytes, self._process.read_nonblocking(65536, left))
        except (pexpect.EOF, pexpect.TIMEOUT):
            return False
        self.raw += data
        self._stream.feed(data)
        return True
