"""What the ``harp`` command prints: data on standard output, everything else on standard error.

Colours and whatever moves are for terminals only. No foreign text reaches one as it is: `escaped`.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import stat
import sys
from functools import cached_property
from typing import TYPE_CHECKING, Any, TextIO

import click

if TYPE_CHECKING:
    from rich.console import Console  # takes long to load: only where a terminal needs it

    from harp.cli.status import Failure


def escaped(text: str) -> str:
    """Return foreign text on one line as a terminal can be given it: without what it would obey."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def as_json(value: Any, indent: int | None = None) -> str:
    """Return the JSON of a value, in which every character prints; it is the same value."""
    text = json.dumps(
        value,
        ensure_ascii=False,
        indent=indent,
        separators=(",", ":") if indent is None else None,
    )
    return text if text.isprintable() else _OUTSIDE_ASCII.sub(_json_escape, text)


_OUTSIDE_ASCII = re.compile(r"[^\n -~]")


def _json_escape(found: re.Match[str]) -> str:
    return found[0] if found[0].isprintable() else json.dumps(found[0])[1:-1]


_MOST_COLOURED = 100_000  # characters; it takes seconds for more


class Output:
    """Standard output and standard error of one command.

    :param as_json: whether ``--json`` was given: data is one JSON value a line then.
    :ivar is_terminal: whether people read standard output, on a terminal.
    :ivar is_live: whether standard error can show what moves, such as a spinner.
    """

    def __init__(
        self, as_json: bool = False, out: TextIO | None = None, err: TextIO | None = None
    ) -> None:
        self.as_json = as_json
        self._out = sys.stdout if out is None else out
        self._err = sys.stderr if err is None else err
        self.is_terminal = self._out.isatty() and not as_json
        is_moving = self._err.isatty() and not _is_dumb()
        self.is_live = is_moving and not as_json and not _is_pipe(self._out)

    @cached_property
    def console(self) -> Console:
        """Standard output for rich: tables, and what has colours. For terminals."""
        return _console(self._out)

    @cached_property
    def errors(self) -> Console:
        """Standard error for rich: what moves. It may be used where `is_live`."""
        return _console(self._err)

    def value(self, value: Any) -> None:
        """Print a value: for people with indentation and colours, else as one line of JSON."""
        self._json(as_json(value, indent=2 if self.is_terminal else None))

    def item(self, value: Any, label: str = "") -> None:
        """Print a value as one line of JSON, whoever reads it.

        :param label: stands before it.
        """
        self._json(as_json(value), f"{escaped(label)} " if label else "")

    def line(self, text: str) -> None:
        """Print a line of data; no foreign text may be in it that is not `escaped`."""
        self._out.write(f"{text}\n")
        self._out.flush()

    def text(self, text: str) -> None:
        """Print a line of foreign text as data."""
        self.line(escaped(text))

    def note(self, text: str) -> None:
        """Tell people something on standard error; lines of it that are foreign are escaped."""
        for line in text.split("\n"):
            self._err.write(f"{escaped(line)}\n")
        self._err.flush()

    def warn(self, text: str) -> None:
        """Warn on standard error."""
        if self.as_json:
            self.note(as_json({"warning": text}))
            return
        self._say("Warning: ", "yellow", text)

    def told(self, facts: dict[str, Any], text: str) -> None:
        """Tell something on standard error: to programs as JSON, else as a text."""
        self.note(as_json(facts) if self.as_json else text)

    def failure(self, failure: Failure, label: str = "") -> None:
        """Tell why the command ends, or what is wrong with one of several things.

        :param label: which of them.
        """
        if self.as_json:
            self.note(as_json({**failure.told, "status": failure.exit_code}))
            return
        self._say("Error: ", "red", f"{label}: {failure.message}" if label else failure.message)
        if failure.remedy:
            for line in failure.remedy.split("\n"):
                self.note(f"  {line}")

    def confirm(self, question: str, instead: str = "--yes") -> bool:
        """Ask for a yes; an end of file is a no.

        :param instead: the options that spare the question.
        :raises click.UsageError: if nobody can be asked, for this is no terminal.
        """
        if not self._can_ask():
            text = f"nobody can be asked, for this is no terminal: give {instead}"
            raise click.UsageError(text)
        return (self.ask(f"{question} [y/N] ") or "").strip().lower() in ("y", "yes")

    def ask(self, question: str) -> str | None:
        """Ask on the terminal and return the line that is typed; None if nobody can answer."""
        if not self._can_ask():
            return None
        self._err.write(escaped(question))
        self._err.flush()
        answer = ""
        try:
            answer = sys.stdin.readline()
        finally:
            if not answer.endswith("\n"):
                self._err.write("\n")
                self._err.flush()
        return answer or None

    def ask_secret(self, name: str) -> str | None:
        """Ask for a text that is not shown while it is typed; None if nobody can answer."""
        if not self._can_ask():
            return None
        return getpass.getpass(f"{escaped(name)}: ", self._err)

    def _can_ask(self) -> bool:
        return sys.stdin is not None and sys.stdin.isatty() and self._err.isatty()

    def _json(self, text: str, label: str = "") -> None:
        if not self.is_terminal or len(text) > _MOST_COLOURED:
            self.line(label + text)
            return
        from rich.highlighter import JSONHighlighter
        from rich.text import Text

        shown = Text(text)
        JSONHighlighter().highlight(shown)
        self.console.print(Text(label, style="dim"), shown, sep="", soft_wrap=True)

    def _say(self, label: str, colour: str, text: str) -> None:
        first, *more = text.split("\n")
        if _wants_colours(self._err):
            label = click.style(label, fg=colour, bold=True)
        self._err.write(f"{label}{escaped(first)}\n")
        for line in more:
            self._err.write(f"  {escaped(line)}\n")
        self._err.flush()


def _console(file: TextIO) -> Console:
    from rich.console import Console

    return Console(
        file=file,
        force_terminal=file.isatty(),
        color_system="auto" if _wants_colours(file) else None,
        highlight=False,
        markup=False,
        emoji=False,
    )


def _is_dumb() -> bool:
    return os.environ.get("TERM", "") in ("", "dumb", "unknown")


def _wants_colours(file: TextIO) -> bool:
    """Return whether colours may be shown there: see no-color.org."""
    return file.isatty() and not os.environ.get("NO_COLOR") and not _is_dumb()


def _is_pipe(file: TextIO) -> bool:
    """Return whether another program reads it, which may write to the same terminal."""
    try:
        mode = os.fstat(file.fileno()).st_mode
    except (OSError, ValueError):
        return True
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
