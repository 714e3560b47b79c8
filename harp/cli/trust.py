"""``harp trust``: a daemon's certificate is shown, and known after a yes."""

from __future__ import annotations

import ipaddress
import sys
from datetime import UTC, datetime
from pathlib import Path

import click
from cryptography import x509

from harp.cli import certificates, known_certs
from harp.cli.output import escaped
from harp.cli.status import Failure, Status, Unreachable
from harp.fingerprints import read_fingerprint
from harp.network import Address
from harp.wire.harpd import DEFAULT_PORT

KNOWN_CERTS = Path("/etc/harpcaller/known_certs.pem")
CONNECT_TIMEOUT = 10.0
"""Seconds for connecting, and as many for TLS."""


def _read_address(_: click.Context, __: click.Parameter, value: str) -> Address:
    """Read an address; one of IPv6 has brackets where a port follows."""
    host, port = value, ""
    try:
        if value.startswith("["):
            host, _bracket, port = value[1:].partition("]")
            if port and not port.startswith(":"):
                raise ValueError(f"{value!r} is no HOST[:PORT]")
            port = port.removeprefix(":")
        elif value.count(":") == 1:
            host, _colon, port = value.partition(":")
        if ":" in host:
            ipaddress.IPv6Address(host)
        if not host or host == "unix" or (port and not port.isdecimal()):
            raise ValueError(f"{value!r} is no HOST[:PORT]")
        return Address(host, int(port or DEFAULT_PORT), CONNECT_TIMEOUT, CONNECT_TIMEOUT)
    except ValueError as error:
        raise click.BadParameter(escaped(str(error))) from error


def _read_expected(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """Read a fingerprint, with ``sha256:`` before it or without."""
    if value is None:
        return None
    try:
        return read_fingerprint(value if value.lower().startswith("sha256:") else f"sha256:{value}")
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command()
@click.argument("address", metavar="HOST[:PORT]", callback=_read_address)
@click.option(
    "--known-certs",
    "file",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    default=KNOWN_CERTS,
    show_default=True,
    help="The dispatcher's known_certs_file.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--fingerprint",
    "expected",
    metavar="SHA256",
    callback=_read_expected,
    help="Do not ask, but add it only if this is its fingerprint.",
)
def trust(address: Address, file: Path, yes: bool, expected: str | None) -> None:
    """Show the certificate of the harpd at HOST and, after a yes, have the dispatcher trust it.

    Nothing proves that it is that daemon's: compare the fingerprint with what this prints on HOST
    itself, or with what somebody tells you who can see it there.
    """
    try:
        certificate = certificates.fetch(address)
        found = certificates.facts(certificate)
    except (certificates.Unreachable, ValueError) as error:
        text = f"{escaped(str(address))}: {escaped(str(error))}"
        raise Unreachable(text) from error
    known = _known(file)
    click.echo(f"{escaped(str(address))} shows this certificate:\n")
    for line in found.lines():
        click.echo(f"    {line}")
    click.echo()
    if expected is not None and found.fingerprint != expected:
        raise Failure(f"the fingerprint is another one than {expected}: nothing was added")
    if certificate in known:
        click.echo(f"{file} has it already.")
    else:
        _warn(certificate, known, file)
        if not (yes or expected is not None):
            _ask(file)
        _add(certificate, address, file, found.fingerprint)
    click.echo("To trust this one for that host and no other, write into its entry in hosts:")
    click.echo(f'    fingerprint: "{found.fingerprint}"')


def _known(file: Path) -> list[x509.Certificate]:
    try:
        return known_certs.read(file)
    except OSError as error:
        raise Failure(f"{file} can't be read: {error.strerror}") from error
    except ValueError as error:
        raise Failure(f"{file} has something that is no certificate in PEM: {error}") from error


def _warn(certificate: x509.Certificate, known: list[x509.Certificate], file: Path) -> None:
    """Point out certificates for the same names, which this one replaces or pretends to."""
    names = set(certificates.names(certificate))
    for each in known:
        try:
            other = certificates.facts(each)
        except ValueError:
            continue
        common = sorted(names.intersection(other.names))
        if common:
            click.secho(
                f"WARNING: {file} has ANOTHER certificate for {', '.join(common)}:\n"
                f"    {other.fingerprint}\n"
                f"    {other.validity}\n"
                "Either the daemon's was replaced, or somebody pretends to be that daemon. Find out"
                " which;\nif it was replaced, remove the old one from the file.\n",
                fg="red",
                bold=True,
                err=True,
            )


def _ask(file: Path) -> None:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError(
            "nobody can be asked, for this is no terminal: give --fingerprint, or --yes to trust"
            " whatever is there"
        )
    if not click.confirm(f"Add it to {file}?", default=False):
        raise Failure("nothing was added", Status.CANCELLED)


def _add(certificate: x509.Certificate, address: Address, file: Path, fingerprint: str) -> None:
    when = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    comment = f"{escaped(str(address))}, added by harp trust on {when}, {fingerprint}"
    try:
        added = known_certs.add(file, certificate, comment)
    except OSError as error:
        raise Failure(f"{file} can't be written: {error.strerror}") from error
    except ValueError as error:
        raise Failure(f"{file} has something that is no certificate in PEM: {error}") from error
    if added:
        click.echo(f"Added to {file}; the dispatcher reads it when it is told to reload.")
    else:
        click.echo(f"{file} has it already.")
