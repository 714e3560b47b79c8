"""``harp token``: tokens for users of the dispatcher, and their hashes for its configuration."""

from __future__ import annotations

import hashlib
import json
import secrets
from typing import TextIO

import click

from harp.access import MAX_TOKEN
from harp.cli.output import Output
from harp.cli.session import with_output

PREFIX = "harp_"
"""How a token begins, so that one that stands where it should not is found."""


@click.command()
@click.option("--user", metavar="NAME", help="The user that the lines for harpcaller.yaml name.")
@click.option(
    "--hash-of",
    "given",
    type=click.File(),
    metavar="FILE",
    help="Make none; print the hash of the token in FILE, - for standard input.",
)
@with_output
def token(output: Output, /, user: str | None, given: TextIO | None) -> None:
    """Make a token for a user of the dispatcher.

    The token goes to standard output, what is to be written into harpcaller.yaml to standard
    error. That is a hash: nobody can get the token from it, so keep the token where the program
    that uses it finds it, and nowhere else.
    """
    if given is not None:
        if user is not None:
            raise click.UsageError("--user with --hash-of: no lines are made then")
        found = hash_of(_read(given))
        if output.as_json:
            output.item({"hash": found})
        else:
            output.line(found)
        return
    made = PREFIX + secrets.token_urlsafe(32)
    if output.as_json:
        output.item({"token": made, "hash": hash_of(made)})
        return
    output.note("Write this into harpcaller.yaml, and reload the dispatcher:")
    output.note(_lines(user, hash_of(made)))
    output.line(made)


def hash_of(text: str) -> str:
    """Return the hash of a token as the dispatcher's configuration has it."""
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _read(file: TextIO) -> str:
    try:
        text = file.read(MAX_TOKEN + 2).rstrip("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError("there is no token that can be read") from error
    if not 1 <= len(text) <= MAX_TOKEN or not text.isascii() or not text.isprintable():
        raise click.UsageError(
            f"there is no token: that is one line of at most {MAX_TOKEN} ASCII characters"
        )
    if " " in text:
        raise click.UsageError("there is no token: it would have no spaces")
    return text


def _lines(user: str | None, hashed: str) -> str:
    entry = f'tokens: ["{hashed}"]'
    if user is None:
        return f"    {entry}"
    name = json.dumps(user, ensure_ascii=False)  # "no" and 1 would be no texts in YAML
    return f"users:\n    {name}: {{{entry}}}"
