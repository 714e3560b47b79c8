"""The ``harp`` command itself. A command's module is loaded when the command is called."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple, NoReturn

import click
from click.shell_completion import CompletionItem

from harp.cli import shells
from harp.cli.output import Output
from harp.cli.session import Choice, common_options
from harp.cli.status import Failure, Status, failure
from harp.errors import HarpException


class _Entry(NamedTuple):
    """A command: a function of its name in a module of ``harp.cli``.

    :param help: what it does, in one line, so that it need not be loaded to be listed.
    """

    section: str
    module: str
    help: str


_COMMANDS = {
    "call": _Entry("Calls and jobs", "call", "Call a procedure on a host."),
    "follow": _Entry(
        "Calls and jobs", "follow", "Print the packets of jobs as they come, then their results."
    ),
    "result": _Entry("Calls and jobs", "result", "Wait for jobs and print their results."),
    "status": _Entry("Calls and jobs", "status_command", "Tell what is known of jobs."),
    "cancel": _Entry("Calls and jobs", "cancel", "Cancel jobs, whether they wait or run."),
    "jobs": _Entry("Calls and jobs", "jobs", "List jobs, once or as they change."),
    "queues": _Entry("Calls and jobs", "queues", "List queues or the jobs of one; cancel them."),
    "hosts": _Entry("Hosts", "hosts", "List the hosts, or have them read again."),
    "procedures": _Entry("Hosts", "procedures", "List what a host offers."),
    "direct": _Entry("Hosts", "direct", "Call a procedure of a daemon without the dispatcher."),
    "check": _Entry("Operation", "check", "Check configuration, certificates, hosts and clocks."),
    "admin": _Entry("Operation", "admin", "Reload, prune or stop the dispatcher."),
    "demo": _Entry("Operation", "demo", "Show HarpCaller at work on this machine, then end."),
    "completion": _Entry("Operation", "completion", "Print the completion for a shell."),
    "token": _Entry("Access", "token", "Make a token for a user of the dispatcher."),
    "trust": _Entry("Access", "trust", "Show a daemon's certificate, and trust it after a yes."),
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load a command; None if there is none of that name."""
        entry = _COMMANDS.get(cmd_name)
        if entry is None:
            return None
        found = getattr(import_module(f"harp.cli.{entry.module}"), cmd_name)
        assert isinstance(found, click.Command)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands by section, without loading any."""
        for section in dict.fromkeys(each.section for each in _COMMANDS.values()):
            own = {name: each for name, each in _COMMANDS.items() if each.section == section}
            with formatter.section(section):
                formatter.write_dl([(name, each.help) for name, each in own.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the commands that begin so, without loading any, and the options."""
        found = [
            CompletionItem(name, help=each.help)
            for name, each in _COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return found + click.Command.shell_complete(self, ctx, incomplete)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="harpcaller", message="harp %(version)s")
@common_options
@click.pass_obj
def harp(choice: Choice, dispatcher: str | None, profile: str | None, as_json: bool) -> None:
    """Work with HarpCaller: call procedures, look after jobs, run dispatcher and daemons.

    The dispatcher is the one of --dispatcher or --profile, else of HARP_DISPATCHER or HARP_PROFILE,
    else of the default profile in ~/.config/harp/config.yaml, else the one of this machine.

    A profile has dispatcher, and if wanted ca_file, cert, server_name, tls, token or token_file,
    on_behalf_of, connect_timeout, reply_timeout. HARP_TOKEN comes before the token of a profile.

    Exit status: 0 there is a result, 1 the procedure raised, 2 wrong usage, 3 cancelled, 4 time
    limit, 5 could not be carried out, 6 dispatcher not reachable, 7 not allowed. Ctrl-C and a
    closed pipe end it by their signals, which a shell tells as 130 and 141.
    """
    choice.add(dispatcher, profile, as_json)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and end the process."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if instruction := os.environ.get(shells.VARIABLE):
        sys.exit(shells.answer(harp, instruction))
    _prepare_streams()
    try:
        status = run(given)
        sys.stdout.flush()
    except BrokenPipeError:
        _end_by(signal.SIGPIPE)
    except KeyboardInterrupt:
        _end_by(signal.SIGINT)
    except OSError as error:  # those of files are told where they arise
        place = error.filename or "standard output"
        Output().failure(Failure(f"{place}: {error.strerror or error}"))
        status = Status.NOT_CARRIED_OUT
        _forget_output()
    sys.exit(status)


def _prepare_streams() -> None:
    if sys.stderr is None:  # it is closed, and so it is with standard output below
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    if sys.stdout is None:
        Output(out=sys.stderr).failure(Failure("standard output: it is closed"))
        sys.exit(Status.NOT_CARRIED_OUT)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # JSON between programs is UTF-8 (RFC 8259); a terminal says itself what it takes.
            encoding = None if stream.isatty() else "utf-8"
            stream.reconfigure(encoding=encoding, errors="backslashreplace")


def run(arguments: list[str]) -> int:
    """Run the command and return its exit status, where no signal and no stream ends it."""
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    choice = Choice(as_json="--json" in options)  # of mistakes in options, too
    try:
        with harp.make_context("harp", arguments, obj=choice) as context:
            harp.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.Abort:
        return Status.CANCELLED
    except HarpException as error:
        told = failure(error)
    except Failure as error:
        told = error
    except click.ClickException as error:
        if not choice.as_json:
            error.show()
            return error.exit_code
        told = Failure(error.format_message(), Status.USAGE)
    else:
        return Status.RESULT
    sys.stdout.flush()
    Output(choice.as_json).failure(told)
    return told.exit_code


def _end_by(number: signal.Signals) -> NoReturn:
    """End as other programs do then, so that a shell which runs a script ends that too."""
    _forget_output()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    sys.exit(128 + number)  # it is blocked


def _forget_output() -> None:
    """Have nothing written any more that is left in the buffer of standard output."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
