"""``harp trust``: a daemon's certificate is shown, and known after a yes."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click
from cryptography import x509

from harp.cli import certificates, known_certs
from harp.cli.addresses import read_address
from harp.cli.output import Output, escaped
from harp.cli.session import with_output
from harp.cli.status import Failure, Status, Unreachable
from harp.fingerprints import read_fingerprint
from harp.network import Address
from harp.wire.harpd import DEFAULT_PORT

KNOWN_CERTS = Path("/etc/harpcaller/known_certs.pem")
CONNECT_TIMEOUT = 10.0
"""Seconds for connecting, and as many for TLS."""


def _read_address(_: click.Context, __: click.Parameter, value: str) -> Address:
    try:
        return read_address(value, DEFAULT_PORT, CONNECT_TIMEOUT, CONNECT_TIMEOUT)
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
@with_output
def trust(output: Output, /, address: Address, file: Path, yes: bool, expected: str | None) -> None:
    """Show a daemon's certificate, and trust it after a yes.

    The certificate of the harpd at HOST is added to those that the dispatcher trusts.

    Nothing proves that it is that daemon's: compare the fingerprint with what this prints on HOST
    itself, or with what somebody tells you who can see it there.
    """
    try:
        certificate = certificates.fetch(address)
        found = certificates.facts(certificate)
    except (certificates.Unreachable, ValueError) as error:
        raise Unreachable(f"{address}: {error}") from error
    known = _known(file)
    if not output.as_json:
        _show(output, address, found)
    if expected is not None and found.fingerprint != expected:
        raise Failure(f"the fingerprint is another one than {expected}: nothing was added")
    added = False
    if certificate not in known:
        _warn(output, certificate, known, file)
        if not (yes or expected is not None):
            _ask(output, file)
        added = _add(certificate, address, file, found.fingerprint)
    if output.as_json:
        output.item({"address": str(address), **found.told(), "file": str(file), "added": added})
        return
    if added:
        output.text(f"Added to {file}; the dispatcher reads it when it is told to reload.")
    else:
        output.text(f"{file} has it already.")
    output.line("To trust this one for that host and no other, write into its entry in hosts:")
    output.line(f'    fingerprint: "{found.fingerprint}"')


def _show(output: Output, address: Address, found: certificates.Facts) -> None:
    output.text(f"{address} shows this certificate:")
    output.line("")
    for line in found.lines():
        output.text(f"    {line}")
    output.line("")


def _known(file: Path) -> list[x509.Certificate]:
    try:
        return known_certs.read(file)
    except OSError as error:
        raise Failure(f"{file} can't be read: {error.strerror}") from error
    except ValueError as error:
        raise Failure(f"{file} has something that is no certificate in PEM: {error}") from error


def _warn(
    output: Output, certificate: x509.Certificate, known: list[x509.Certificate], file: Path
) -> None:
    """Point out certificates for the same names, which this one replaces or pretends to."""
    names = set(certificates.names(certificate))
    for each in known:
        try:
            other = certificates.facts(each)
        except ValueError:
            continue
        common = sorted(names.intersection(other.names))
        if common:
            output.warn(
                f"{file} has ANOTHER certificate for {', '.join(common)}:\n"
                f"{other.fingerprint}\n"
                f"{other.validity}\n"
                "Either the daemon's was replaced, or somebody pretends to be that daemon. Find out"
                " which;\nif it was replaced, remove the old one from the file."
            )


def _ask(output: Output, file: Path) -> None:
    instead = "--fingerprint, or --yes to trust whatever is there"
    if not output.confirm(f"Add it to {file}?", instead):
        raise Failure("nothing was added", Status.CANCELLED)


def _add(certificate: x509.Certificate, address: Address, file: Path, fingerprint: str) -> bool:
    when = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    comment = f"{escaped(str(address))}, added by harp trust on {when}, {fingerprint}"
    try:
        added = known_certs.add(file, certificate, comment)
    except OSError as error:
        raise Failure(f"{file} can't be written: {error.strerror}") from error
    except ValueError as error:
        raise Failure(f"{file} has something that is no certificate in PEM: {error}") from error
    return added
