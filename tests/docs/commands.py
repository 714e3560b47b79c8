"""Commands of the documentation that change a machine: whether there are such commands."""

from __future__ import annotations

import re
import shlex
import subprocess
from typing import Any

import click
from twisted.python import usage

from harp.cli.main import harp
from harpcaller.service import Options as HarpcallerOptions
from harpd.auth.command import main as harpd_passwd
from harpd.service import Options as HarpdOptions
from tests.docs.pages import ROOT, Block
from tests.docs.shell import commands

_FOREIGN = """
    adduser apt apt-get cat cd chgrp chmod chown cp curl dpkg echo export getent git grep groupadd
    install ip journalctl kill ln logger ls make mkdir mv nft openssl pip pipx rm rsync scp sed
    setpriv sh sleep source sqlite3 ssh sudo systemctl systemd-analyze systemd-creds
    systemd-sysusers systemd-tmpfiles tail tar timedatectl touch useradd usermod
"""
"""Programs of others. A word that is none of these is taken for a mistake."""


_OURS: dict[str, Any] = {
    "harp": harp,
    "harpd-passwd": harpd_passwd,
    "harpd": HarpdOptions,
    "harpcaller": HarpcallerOptions,
}
"""What stands behind twistd is a program here, too."""


def look_at(block: Block) -> None:
    """Look at each command of a block.

    :raises AssertionError: if the shell does not understand it, a program is not known here, or one
        of ours has no such command or option.
    """
    typed = commands(block.place, block.text, ("$ ", "# "))
    for command in typed:
        done = subprocess.run(["bash", "-n", "-c", command], capture_output=True, check=False)
        if done.returncode:
            raise AssertionError(f"{block.place}: {command}: {done.stderr.decode()}")
        for words in _simple(command):
            _look_at(f"{block.place}: {command}", words)


def options_of(line: str) -> set[str]:
    """Return the options that the first program has which a line of a synopsis names."""
    name = next(word for word in line.split() if word in _OURS)
    ours = _OURS[name]
    if isinstance(ours, click.Command):
        context = click.Context(ours)
        return {option for each in ours.get_params(context) for option in each.opts}
    parameters = [row[0] for row in [*ours.optParameters, *ours.optFlags]]
    return {f"--{parameter}" for parameter in parameters}


def _simple(command: str) -> list[list[str]]:
    """Return the words of each command of a pipeline or list, without redirections."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    found: list[list[str]] = [[]]
    skips = False
    for word in lexer:
        if re.fullmatch(r"[;&|()]+", word):
            found.append([])
        elif re.fullmatch(r"[<>&]+", word):
            skips = True
        elif not skips:
            found[-1].append(word)
        else:
            skips = False
    return [words for words in found if words]


def _look_at(where: str, words: list[str]) -> None:
    while words and (re.match(r"\w+=", words[0]) or words[0] == "sudo"):
        words = words[1:]
    if not words:
        return
    program, *arguments = words
    name = program.rpartition("/")[2]
    try:
        match name:
            case "harp" | "harpd-passwd":
                _click(_OURS[name], arguments)
            case "twistd":
                _twistd(arguments)
            case "make":
                targets = (ROOT / "Makefile").read_text()
                assert all("=" in word or f"\n{word}:" in targets for word in arguments), "target"
            case "python" | "python3":
                pass
            case _:
                assert name in _FOREIGN.split(), f"{name} is not known here"
    except (click.UsageError, usage.UsageError, AssertionError) as error:
        raise AssertionError(f"{where}: {error}") from error


def _click(command: click.Command, arguments: list[str]) -> None:
    try:
        context = command.make_context(command.name, list(arguments))
    except click.exceptions.Exit:  # --help
        return
    if isinstance(command, click.Group):
        _, found, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert found is not None
        _click(found, rest)


def _twistd(arguments: list[str]) -> None:
    names = ("harpd", "harpcaller")
    at = next((place for place, word in enumerate(arguments) if word in names), None)
    assert at is not None, "twistd runs harpd or harpcaller"
    options = _OURS[arguments[at]]()
    options.postOptions = lambda: None
    options.parseOptions(arguments[at + 1 :])
