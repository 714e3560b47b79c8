"""A person at a terminal, who types the commands of a page and reads what they print."""

from __future__ import annotations

import doctest
import os
import re
import secrets
import signal
import subprocess
import tempfile
import termios
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

PATIENCE = 120.0
"""Seconds after which what a terminal should print is taken never to come."""

_PROMPT, _CONTINUED = "$ ", "> "


class Shell:
    """One bash on a terminal, in which each command finds what those before it have set.

    The terminal is one without colours and without anything that moves (TERM=dumb).

    :param folder: where it begins.
    :param environment: with what.
    """

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder = folder
        self._environment = environment
        self._status = 0
        self._staying: list[subprocess.Popen[bytes]] = []
        self._screen, terminal = _terminal()
        self._bash = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=folder,
            env={**environment, "TERM": "dumb"},
            stdin=subprocess.PIPE,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
        )
        os.close(terminal)

    def type(self, place: str, text: str) -> None:
        """Type the commands of a block.

        :param place: where the block stands.
        :raises AssertionError: if they print anything else than it says, or one fails and the next
            one is not ``echo $?``.
        """
        failed = ""
        for command, wanted in _session(place, text):
            if failed and command != "echo $?":
                raise AssertionError(f"{place}: exit status {self._status}: {failed}")
            printed = self._run(command)
            compare(f"{place}: {command}", wanted, printed)
            failed = f"{command}\n{printed}" if self._status else ""
        if failed:
            raise AssertionError(f"{place}: exit status {self._status}: {failed}")

    def stay(self, place: str, text: str) -> None:
        """Type the one command of a block into another terminal, and leave it running.

        :raises AssertionError: if it ends, or does not print what the block says.
        """
        ((command, wanted),) = _session(place, text)
        output = tempfile.TemporaryFile()  # noqa: SIM115 - open while the command runs
        self._staying.append(
            subprocess.Popen(
                ["bash", "-c", command],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        )
        deadline = time.monotonic() + PATIENCE
        while not matches(wanted, printed := _contents(output)):
            if self._staying[-1].poll() is not None or time.monotonic() > deadline:
                compare(f"{place}: {command}", wanted, printed)
            time.sleep(0.05)  # between two looks

    def close(self) -> None:
        """End everything, as Ctrl-C in the other terminals does."""
        assert self._bash.stdin is not None
        self._bash.stdin.close()
        self._bash.wait(PATIENCE)
        os.close(self._screen)
        for process in self._staying:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
            process.wait(PATIENCE)

    def _run(self, command: str) -> str:
        assert self._bash.stdin is not None
        mark = secrets.token_hex(8)
        # The status of the command before is set again for this one.
        typed = f"(exit {self._status}); {{ {command}\n}} </dev/null; echo {mark} $?\n"
        self._bash.stdin.write(typed.encode())
        self._bash.stdin.flush()
        printed = b""
        while (found := re.search(rb"%b (\d+)\n" % mark.encode(), printed)) is None:
            try:
                printed += os.read(self._screen, 65536)
            except OSError as end:  # EIO: nobody has the terminal any more
                raise AssertionError(f"the shell ended: {command}\n{printed!r}") from end
        self._status = int(found[1])
        return printed[: found.start()].decode(errors="replace")


def _terminal() -> tuple[int, int]:
    """Return a screen of 100 columns and the terminal that writes to it, line ends as they are."""
    screen, terminal = os.openpty()
    settings = termios.tcgetattr(terminal)
    settings[1] &= ~termios.OPOST
    termios.tcsetattr(terminal, termios.TCSANOW, settings)
    termios.tcsetwinsize(terminal, (50, 100))
    return screen, terminal


def compare(where: str, wanted: str, printed: str) -> None:
    """Look whether what was printed is what the page says.

    :raises AssertionError: if it is not.
    """
    if not matches(wanted, printed):
        raise AssertionError(f"{where}: the page says\n{wanted}\nthe program says\n{printed}")


def matches(wanted: str, printed: str) -> bool:
    """Tell whether it is that: ``...`` is anything, space at the end of a line nothing."""
    wanted, printed = (re.sub(r" +$", "", text, flags=re.MULTILINE) for text in (wanted, printed))
    return doctest.OutputChecker().check_output(wanted, printed, doctest.ELLIPSIS)


def commands(place: str, text: str, prompts: tuple[str, ...] = (_PROMPT,)) -> list[str]:
    """Return what is typed in a block."""
    return [command for command, _ in _session(place, text, prompts)]


def _session(
    place: str, text: str, prompts: tuple[str, ...] = (_PROMPT,)
) -> Iterator[tuple[str, str]]:
    """Yield each command with what it prints."""
    command, printed = "", ""
    for line in text.splitlines(keepends=True):
        if line.startswith(prompts):
            if command:
                yield command, printed
            command, printed = line[2:].rstrip("\n"), ""
        elif command and not printed and line.startswith(_CONTINUED):
            command += "\n" + line[2:].rstrip("\n")
        elif command:
            printed += line
        else:
            raise AssertionError(f"{place}: a console block begins with a prompt: {line}")
    yield command, printed


def _contents(file: IO[bytes]) -> str:
    return os.pread(file.fileno(), 1 << 20, 0).decode(errors="replace")
