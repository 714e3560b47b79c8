"""The command ``harpd-passwd``: makes, changes and deletes entries of a password file."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from harp import files
from harpd.auth.passwords import MAX_PASSWORD, can_be_hashed
from harpd.auth.schemes import ARGON2ID, SCHEMES, Scheme

_NEW_MODE = 0o600

_CHOICES = {scheme.name: scheme for scheme in SCHEMES}


@click.command(epilog="harpd uses a changed file once it is told to reload (SIGHUP).")
@click.argument("user")
@click.option(
    "--file",
    default="/etc/harpd/passwd",
    show_default=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="The password file; it is made if it is not there.",
)
@click.option(
    "--scheme",
    default=ARGON2ID.name,
    show_default=True,
    type=click.Choice(list(_CHOICES)),
    help="How the password is hashed.",
)
@click.option("--stdin", is_flag=True, help="Read the password as the first line of the input.")
@click.option("--print", "prints", is_flag=True, help="Print the entry, and change no file.")
@click.option("--delete", is_flag=True, help="Delete the user's entry.")
def main(user: str, file: Path, scheme: str, stdin: bool, prints: bool, delete: bool) -> None:
    """Set the password of USER in a password file of harpd; it is asked for twice."""
    if (
        not user
        or not user.isprintable()
        or ":" in user
        or user != user.strip()
        or user.startswith("#")
    ):
        raise click.BadParameter(
            "is empty, or has what the file can't have in a name", param_hint="USER"
        )
    if delete and (prints or stdin):
        raise click.UsageError("--delete goes with neither --print nor --stdin")
    if delete:
        _change(file, user, None)
        return
    hashed = _hash(_CHOICES[scheme], _read_line() if stdin else _ask())
    if prints:
        click.echo(f"{user}:{hashed}")
    else:
        _change(file, user, hashed)


def _ask() -> str:
    password: str = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    return password


def _read_line() -> str:
    line = sys.stdin.buffer.readline(MAX_PASSWORD + 3)  # more is too long in any case
    try:
        return line.removesuffix(b"\n").removesuffix(b"\r").decode()
    except UnicodeDecodeError:
        raise click.ClickException("the password is not UTF-8") from None


def _hash(scheme: Scheme, password: str) -> str:
    if not password:
        raise click.ClickException("the password is empty")
    if not can_be_hashed(password):
        raise click.ClickException(
            f"the password has more than {MAX_PASSWORD} bytes, or a NUL character"
        )
    if scheme.longest is not None and len(password.encode()) > scheme.longest:
        raise click.ClickException(f"{scheme.name} takes no more than {scheme.longest} bytes")
    if not scheme.is_there():
        raise click.ClickException(f"this machine's libcrypt lacks {scheme.name}")
    return scheme.make(password.encode())


def _change(file: Path, user: str, hashed: str | None) -> None:
    """Write an entry into the file, or take it out; all else in it stays as it is."""
    file = file.resolve()  # a link stays one
    try:
        with files.alone(file):
            old = file.read_bytes() if file.exists() or hashed is None else b""
            new = _edited(old, user.encode(), None if hashed is None else hashed.encode())
            files.replace(file, new, _NEW_MODE)
    except OSError as error:
        raise click.ClickException(f"{error.filename or file}: {error.strerror}") from error


def _edited(old: bytes, user: bytes, hashed: bytes | None) -> bytes:
    lines = old.split(b"\n")
    if not lines[-1]:
        lines.pop()
    found = [number for number, line in enumerate(lines) if line.strip().startswith(user + b":")]
    if hashed is None:
        if not found:
            raise click.ClickException(f"there is no user {user.decode()}")
        lines = [line for number, line in enumerate(lines) if number not in found]
    elif found:
        # What follows a second colon, as in shadow(5), is not ours.
        _, more, rest = lines[found[0]].strip().removeprefix(user + b":").partition(b":")
        lines[found[0]] = user + b":" + hashed + more + rest
        lines = [line for number, line in enumerate(lines) if number not in found[1:]]
    else:
        lines.append(user + b":" + hashed)
    return b"".join(line + b"\n" for line in lines)
