"""One line at the bottom of a terminal that tells what goes on: a spinner, or a progress bar."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from rich.console import Console, RenderableType
from rich.control import Control
from rich.progress_bar import ProgressBar
from rich.segment import ControlType, Segments
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from harp.cli.output import Output, escaped

T = TypeVar("T")

EVERY = 0.1
"""Seconds after which it is drawn again."""

_AT_MOST = 0.03  # between a packet that took it away and the next drawing

PATIENCE = 0.4
"""Seconds of work of which nobody needs to be told."""

_CLEAR = Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2))
_BACK = Control(ControlType.CARRIAGE_RETURN)
_BAR = 24  # cells


@dataclass(frozen=True)
class Progress:
    """How far a job says that it is.

    :param total: None if it does not know.
    """

    done: float
    total: float | None
    unit: str

    def text(self) -> str:
        """Return it in words."""
        done = f"{self.done:.10g}"
        if self.total is None:
            return " ".join(filter(None, (done, escaped(self.unit))))
        numbers = f"{done}/{self.total:.10g}"
        percent = f"{100 * min(self.done / self.total, 1):.0f}%"
        return " ".join(filter(None, (numbers, escaped(self.unit), percent)))


def read_progress(packet: object) -> Progress | None:
    """Return what a packet tells of progress in its key ``progress``, None if nothing."""
    told = packet.get("progress") if isinstance(packet, dict) else None
    if not isinstance(told, dict):
        return None
    done, total, unit = told.get("done"), told.get("total"), told.get("unit")
    if done is None or not _is_number(done) or not (total is None or _is_number(total)):
        return None
    return Progress(done, total or None, unit if isinstance(unit, str) else "")


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and 0 <= value < math.inf


class StatusLine:
    """The line. Whoever prints something else clears it before."""

    def __init__(self, console: Console) -> None:
        self._console = console
        name = "dots" if console.encoding.startswith("utf") else "line"
        self._spinner = Spinner(name, style="cyan")
        self._began = time.monotonic()
        self._drawn = -math.inf
        self._is_there = False

    def show(self, text: str, progress: Progress | None = None) -> None:
        """Draw it, unless it was drawn a moment ago.

        :param text: what goes on; foreign text in it is escaped here.
        """
        now = time.monotonic()
        if now < self._drawn + (EVERY if self._is_there else _AT_MOST):
            return
        self._drawn = now
        self._is_there = True
        console = self._console
        options = console.options.update(width=console.width - 1, height=1)
        line = console.render_lines(self._line(text, progress, now), options, pad=False)[0]
        with console:  # all of it is written at once
            console.control(_CLEAR)
            console.print(Segments(line), end="")
            console.control(_BACK)

    def clear(self) -> None:
        """Take it away."""
        if self._is_there:
            self._console.control(_CLEAR)
            self._is_there = False

    def _line(self, text: str, progress: Progress | None, now: float) -> RenderableType:
        cells: list[RenderableType] = [self._spinner.render(now)]
        told = Text(escaped(text), no_wrap=True, overflow="ellipsis")
        elapsed = now - self._began
        line = Table.grid(padding=(0, 1, 0, 0))
        line.add_column(no_wrap=True)
        if progress is not None:
            if progress.total is not None:
                line.add_column(width=_BAR)
                cells.append(_bar(progress.done, progress.total))
            line.add_column(no_wrap=True)
            cells.append(Text(progress.text(), style="cyan"))
        line.add_column()  # which alone gives way where there is no room
        cells.append(told)
        line.add_column(no_wrap=True)
        cells.append(Text(_clock(elapsed), style="dim"))
        line.add_row(*cells)
        return line


def _bar(done: float, total: float) -> ProgressBar:
    return ProgressBar(total, min(done, total), _BAR, complete_style="cyan", finished_style="green")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def work(output: Output, text: str, steps: Callable[[], T]) -> T:
    """Return what a function returns, and show that it goes on if it takes long.

    :param text: what goes on.
    :raises Exception: what the function raises.
    """
    if not output.is_live:
        return steps()
    outcome: list[T | BaseException] = []

    def run() -> None:
        try:
            outcome.append(steps())
        except BaseException as error:  # is raised where it is waited for
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    if thread.is_alive():
        line = StatusLine(output.errors)
        try:
            while thread.is_alive():
                line.show(text)
                thread.join(EVERY)
        finally:
            line.clear()
    (found,) = outcome
    if isinstance(found, BaseException):
        raise found
    return found
