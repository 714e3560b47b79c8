"""What every command has: the options for the connection and ``--json``, and what they stand for.

They may stand before the command's name or behind it; the latter counts.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Concatenate, TypeVar

import click

from harp.cli import completers
from harp.cli.output import Output

if TYPE_CHECKING:
    from harp import HarpCaller
    from harp.cli.connection import Connection

T = TypeVar("T")

F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class Choice:
    """What was said so far of the options that every command has. It is the context's object."""

    dispatcher: str | None = None
    profile: str | None = None
    as_json: bool = False

    def add(self, dispatcher: str | None, profile: str | None, as_json: bool) -> None:
        """Note what was said, over what was said before; a choice of the place is one choice."""
        if dispatcher is not None or profile is not None:
            self.dispatcher, self.profile = dispatcher, profile
        self.as_json = self.as_json or as_json


class Session:
    """One command's output, and its dispatcher.

    :ivar output: where it prints.
    """

    def __init__(self, output: Output, choice: Choice) -> None:
        self.output = output
        self._choice = choice

    @cached_property
    def connection(self) -> Connection:
        """Which dispatcher it is, and who asks it."""
        from harp.cli import connection  # which loads YAML

        where = self._choice
        return connection.choose(where.dispatcher, where.profile, os.environ, self.output.warn)

    @cached_property
    def rpc(self) -> HarpCaller:
        """The dispatcher; nothing is sent yet."""
        return self.connection.open()

    def within(self, seconds: float) -> HarpCaller:
        """Return the dispatcher for what is not worth a longer wait than this.

        :param seconds: for connecting, and for each answer.
        """
        wanted = self.connection
        return replace(
            wanted,
            connect_timeout=min(seconds, wanted.connect_timeout),
            reply_timeout=min(seconds, wanted.reply_timeout),
        ).open()

    def waiting_for(self, text: str, steps: Callable[[], T]) -> T:
        """Return what a function returns; a terminal shows a spinner if that takes long.

        :param text: what goes on meanwhile.
        """
        if not self.output.is_live:
            return steps()
        from harp.cli import status_line  # which loads rich

        return status_line.work(self.output, text, steps)


_json = click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print data as JSON, one value a line, and errors as JSON on standard error.",
)


def place_options(function: F) -> F:
    """Add the options that say which dispatcher is meant."""
    function = click.option(
        "--profile",
        metavar="NAME",
        shell_complete=completers.profiles,
        help="Connect as this profile of ~/.config/harp/config.yaml says.",
    )(function)
    return click.option(
        "--dispatcher",
        metavar="ADDRESS",
        help="The dispatcher: HOST, HOST:PORT, tls:HOST[:PORT] or unix:/PATH.",
    )(function)


def with_output(
    function: Callable[Concatenate[Output, ...], None],
) -> Callable[..., None]:
    """Give a command an `Output` as its first argument, and the option ``--json``."""

    @click.pass_obj
    def command(choice: Choice, /, *args: Any, as_json: bool, **kwargs: Any) -> None:
        choice.add(None, None, as_json)
        function(Output(choice.as_json), *args, **kwargs)

    return _json(functools.update_wrapper(command, function))


def connected(
    function: Callable[Concatenate[Session, ...], None],
) -> Callable[..., None]:
    """Give a command a `Session` as its first argument, and the options for it."""

    @click.pass_obj
    def command(
        choice: Choice,
        /,
        *args: Any,
        dispatcher: str | None,
        profile: str | None,
        as_json: bool,
        **kwargs: Any,
    ) -> None:
        choice.add(dispatcher, profile, as_json)
        function(Session(Output(choice.as_json), choice), *args, **kwargs)

    return place_options(_json(functools.update_wrapper(command, function)))


def common_options(function: F) -> F:
    """Add all of these options to the command above all others."""
    return place_options(_json(function))
