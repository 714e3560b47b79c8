"""``harp direct``: a daemon's procedure is called without a dispatcher."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from harp import HarpServer, HarpStreamIterator, RemoteError, Result, errors
from harp.cli import values
from harp.cli.addresses import read_address
from harp.cli.negative_numbers import TakesNegativeNumbers
from harp.cli.output import Output
from harp.cli.session import with_output
from harp.cli.signature import read_signature
from harp.network import Address
from harp.wire.harpd import DEFAULT_PORT

CONNECT_TIMEOUT = 10.0
REPLY_TIMEOUT = 60.0

USER, PASSWORD = "HARPD_USER", "HARPD_PASSWORD"
"""Variables of the environment."""


def _read_address(_: click.Context, parameter: click.Parameter, text: str) -> Address:
    try:
        return read_address(text, DEFAULT_PORT, CONNECT_TIMEOUT, REPLY_TIMEOUT)
    except ValueError as error:
        raise click.BadParameter(str(error), param=parameter) from error


@click.command(cls=TakesNegativeNumbers)
@click.argument("address", metavar="HOST[:PORT]", callback=_read_address)
@click.argument("procedure")
@click.argument("arguments", metavar="[ARG]... [KEY=VALUE]...", nargs=-1)
@click.option(
    "--user", metavar="NAME", help=f"Who calls; else {USER} of the environment, or you are asked."
)
@click.option(
    "--password-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help=f"Its first line is the password; else {PASSWORD} of the environment, or you are asked.",
)
@click.option(
    "--ca-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="PEM file of the authorities whose certificates are trusted, or of the daemon's own"
    " certificate; else those of the system.",
)
@click.option("--server-name", metavar="NAME", help="To whom the daemon's certificate is made out.")
@click.option(
    "--insecure", is_flag=True, help="Talk to whoever is there, who then learns the password."
)
@click.option(
    "--json-args",
    type=values.Json((list, dict), "array or object"),
    metavar="JSON",
    help="All arguments as one JSON value.",
)
@with_output
def direct(
    output: Output,
    address: Address,
    procedure: str,
    arguments: tuple[str, ...],
    user: str | None,
    password_file: Path | None,
    ca_file: Path | None,
    server_name: str | None,
    insecure: bool,
    json_args: Any,
) -> None:
    """Call PROCEDURE of the daemon at HOST, without a dispatcher.

    Nothing is recorded: leaving, by Ctrl-C too, cancels the call.
    """
    if json_args is not None and arguments:
        raise click.UsageError("--json-args beside arguments: it has all of them")
    server = _server(
        address,
        _user(output, user),
        _password(output, password_file),
        ca_file=ca_file,
        server_name=server_name,
        verify_certificate=not insecure,
    )
    if json_args is None:
        args, kwargs = _arguments(output, server, procedure, arguments)
    else:
        args, kwargs = values.whole(json_args)
    try:
        found = getattr(server, procedure)(*args, **kwargs)
    except (AttributeError, TypeError, ValueError) as error:
        raise click.UsageError(str(error)) from error
    if not isinstance(found, HarpStreamIterator):
        output.value({"result": found} if output.as_json else found)
        return
    with found:
        for each in found:
            if isinstance(each, Result):
                output.value({"result": each.value} if output.as_json else each.value)
            else:
                output.item({"stream": each} if output.as_json else each)


def _server(address: Address, user: str, password: str, **options: Any) -> HarpServer:
    try:
        return HarpServer(
            address.host,
            user,
            password,
            address.port,
            connect_timeout=address.connect_timeout,
            reply_timeout=address.reply_timeout,
            **options,
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _user(output: Output, given: str | None) -> str:
    user = given or os.environ.get(USER) or (output.ask("User: ") or "").strip()
    if not user:
        raise click.UsageError(f"who calls? Give --user or {USER}")
    return user


def _password(output: Output, file: Path | None) -> str:
    if file is None:
        password = os.environ.get(PASSWORD) or output.ask_secret("Password")
        if password is None:
            raise click.UsageError(
                "nobody can be asked for the password, for this is no terminal: give"
                f" --password-file or {PASSWORD}"
            )
        return password
    try:
        with open(file, encoding="utf-8") as lines:
            return lines.readline().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        raise click.UsageError(f"--password-file: {file}: {why}") from None


def _arguments(
    output: Output, server: HarpServer, procedure: str, words: tuple[str, ...]
) -> values.Arguments:
    """Return what words mean for a procedure, if the daemon tells what that is."""
    if not words:
        return [], {}
    try:
        offered = server.procedures()
    except RemoteError as error:
        if error.type != errors.INVALID_REQUEST.name:  # an old daemon's
            raise
        offered = []
    for each in offered:
        if each.get("name") == procedure:
            return values.bind(words, read_signature(each), output.ask_secret)
    return values.guess(words)
