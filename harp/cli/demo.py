"""``harp demo``: both daemons on this machine, real calls, and all of it gone afterwards.

The demo is a part of the dispatcher's package, which the client library does not import: it is a
program of its own, and this command becomes it.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import click

from harp.cli.status import Failure


@click.command()
@click.option("--keep", is_flag=True, help="Leave the daemons running until Ctrl-C.")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Make all files there and leave them; without it they are made in a temporary folder and"
    " removed. It must be empty, or not be there.",
)
def demo(keep: bool, folder: Path | None) -> None:
    """Show HarpCaller at work on this machine, then end.

    A certificate authority, passwords, procedures and configurations are made, both daemons
    started, and some procedures called. Nothing that is installed is touched. With --keep the
    daemons go on, to be played with.
    """
    if find_spec("harpcaller") is None:
        raise Failure("the daemons are not installed here, only the client library is")
    if folder is not None and folder.is_dir() and any(folder.iterdir()):
        raise click.UsageError(f"--folder: {folder} is not empty")
    command = [sys.executable, "-P", "-m", "harpcaller.demo"]
    if keep:
        command.append("--keep")
    if folder is not None:
        command.append(f"--folder={folder}")
    sys.stdout.flush()
    os.execv(sys.executable, command)  # noqa: S606 - no shell is wanted
