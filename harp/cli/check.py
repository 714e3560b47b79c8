"""``harp check``: is all in order? Configurations, certificates, dispatcher, hosts, clocks."""

from __future__ import annotations

from pathlib import Path

import click

from harp import HarpException
from harp.cli import completers
from harp.cli.findings import Finding, State, print_findings
from harp.cli.session import Session, connected
from harp.cli.status import Failure, Status, failure

HARPCALLER = Path("/etc/harpcaller/harpcaller.yaml")
HARPD = Path("/etc/harpd/harpd.yaml")
PROCEDURES = Path("/etc/harpd/procedures.py")
TIMEOUT = 15.0

_file = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("hosts", metavar="[HOST]...", nargs=-1, shell_complete=completers.hosts)
@click.option(
    "--harpcaller-config",
    type=_file,
    help=f"The dispatcher's configuration; {HARPCALLER} if that is there.",
)
@click.option("--harpd-config", type=_file, help=f"harpd's configuration; {HARPD} if there.")
@click.option("--procedures", type=_file, help=f"harpd's procedures file; else {PROCEDURES}.")
@click.option("--local", is_flag=True, help="Look at this machine's files only, and ask nobody.")
@click.option(
    "--days",
    type=click.FloatRange(0),
    default=30.0,
    metavar="N",
    show_default=True,
    help="Warn of certificates that end within so many days.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=TIMEOUT,
    metavar="SECONDS",
    show_default=True,
    help="Do not wait longer for an answer.",
)
@connected
def check(
    session: Session,
    hosts: tuple[str, ...],
    harpcaller_config: Path | None,
    harpd_config: Path | None,
    procedures: Path | None,
    local: bool,
    days: float,
    timeout: float,
) -> None:
    """Check whether all is in order; the exit status is 5 if something is not.

    On this machine: the configurations of the daemons, as --test does, which loads harpd's
    procedures, and the certificates that they name. From the dispatcher: that it answers, and that
    each HOST (all if none is named) does to it. The clocks of this machine, the dispatcher and the
    hosts are compared. Warnings are no failure.
    """
    findings: list[Finding] = []
    reason: HarpException | None = None

    def look() -> None:
        nonlocal reason
        findings.extend(_files(harpcaller_config, harpd_config, procedures, days))
        if not local:
            reason = _ask(session, hosts, timeout, days, findings)

    session.waiting_for("looking", look)
    print_findings(session.output, findings)
    if reason is not None:
        raise failure(reason)
    count = sum(each.state is State.ERROR for each in findings)
    if count:
        what = "thing is" if count == 1 else "things are"
        raise Failure(f"{count} {what} not in order", Status.NOT_CARRIED_OUT)


def _files(
    harpcaller: Path | None, harpd: Path | None, procedures: Path | None, days: float
) -> list[Finding]:
    from harp.cli import check_files

    found: list[Finding] = []
    if harpcaller is not None or HARPCALLER.exists():
        found += check_files.look("harpcaller", harpcaller or HARPCALLER, {}, days)
    if harpd is not None or HARPD.exists():
        more = {"procedures": procedures or PROCEDURES}
        found += check_files.look("harpd", harpd or HARPD, more, days)
    return found


def _ask(
    session: Session, hosts: tuple[str, ...], timeout: float, days: float, found: list[Finding]
) -> HarpException | None:
    """Add what the dispatcher and the hosts say; return why the dispatcher says nothing."""
    from harp.cli import check_hosts

    rpc = session.within(timeout)
    connection = session.connection
    findings, reason = check_hosts.ask_dispatcher(rpc, connection.dispatcher)
    found += findings
    if (address := connection.tls_address) is not None:
        found.append(check_hosts.dispatcher_certificate(address, days))
    if reason is None:
        found += check_hosts.ask_hosts(rpc, hosts, timeout, days)
    return reason
