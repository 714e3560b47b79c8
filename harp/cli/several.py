"""The same for each of several jobs, where the failure of one keeps nobody from the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import click

from harp import HarpException, RemoteCall
from harp.cli.session import Session
from harp.cli.status import failure


def for_each(session: Session, ids: Sequence[str], steps: Callable[[RemoteCall], None]) -> None:
    """Call a function with each job.

    :raises Failure: if it failed for the only one.
    :raises click.exceptions.Exit: if it failed for one of several; the first of them counts.
    """
    statuses = []
    for job_id in dict.fromkeys(ids):
        try:
            steps(session.rpc.job(job_id))
        except HarpException as error:
            told = failure(error, job_id)
            if len(ids) == 1:
                raise told from error
            session.output.failure(told, job_id)
            statuses.append(told.exit_code)
    if statuses:
        raise click.exceptions.Exit(statuses[0])
