"""With what status the ``harp`` command ends, and how each failure is told.

The statuses are a contract with scripts. Where an error type belongs is said here alone; what it
means, and what to do about it, in ``harp.errors``.
"""

from __future__ import annotations

import enum
from typing import Any

import click

from harp import errors
from harp.errors import (
    CancelledException,
    CommunicationError,
    HarpException,
    RemoteError,
    RemoteException,
    UnsupportedError,
)


class Status(enum.IntEnum):
    """The exit statuses of every command."""

    RESULT = 0
    """There is a result: it was done."""
    RAISED = 1
    """The procedure raised an exception."""
    USAGE = 2
    """The command was called wrongly, or its configuration can't be used."""
    CANCELLED = 3
    """The job was cancelled, or who was asked said no."""
    TIME_LIMIT = 4
    """A time limit ended the job."""
    NOT_CARRIED_OUT = 5
    """It could not be carried out."""
    UNREACHABLE = 6
    """The dispatcher, or the harpd that was called directly, can't be reached."""
    NOT_ALLOWED = 7
    """The caller may not do this, or was not let in."""


_OF_ERRORS = {
    errors.TIMEOUT.name: Status.TIME_LIMIT,
    errors.NOT_AUTHENTICATED.name: Status.NOT_ALLOWED,
    errors.NOT_ALLOWED.name: Status.NOT_ALLOWED,
    errors.NOT_PERMITTED.name: Status.NOT_ALLOWED,
    errors.AUTH_ERROR.name: Status.NOT_ALLOWED,
}
"""What an error type ends with, where that is another status than `Status.NOT_CARRIED_OUT`."""

_LATE = "The call may have run."
_SAFE = "The call did not run."


class Failure(click.ClickException):
    """Ends the command with a text on standard error.

    :param message: what is wrong, one sentence; foreign text in it is escaped when it is shown.
    :param remedy: what to do about it, if there is something to say.
    :param told: what ``--json`` prints in the place of the text.
    """

    def __init__(
        self,
        message: str,
        status: Status = Status.NOT_CARRIED_OUT,
        *,
        remedy: str | None = None,
        told: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.exit_code = int(status)  # type: ignore[misc]
        self.remedy = remedy
        self.told = told or {"error": {"type": status.name.lower(), "message": message}}


class Unreachable(Failure):
    """Ends the command: a daemon can't be reached."""

    def __init__(self, message: str) -> None:
        super().__init__(message, Status.UNREACHABLE)


def failure(error: HarpException, job_id: str | None = None) -> Failure:
    """Return how the command ends for an exception of the client library.

    :param job_id: the job that it is about, if it is about one.
    """
    of_job = {} if job_id is None else {"job": job_id}
    status, remedy = Status.NOT_CARRIED_OUT, None
    message, told = str(error), _told(error)
    match error:
        case CancelledException():
            told = {**of_job, "cancelled": True}
            return Failure("the job was cancelled", Status.CANCELLED, told=told)
        case RemoteException():
            message = f"the procedure raised {error}"
            return Failure(message, Status.RAISED, told={**of_job, "exception": told})
        case RemoteError():
            if error.message.startswith(f"{error.type}: "):
                message = error.message  # the dispatcher's own, of a time limit
            status = _OF_ERRORS.get(error.type, status)
            row = errors.ERROR_TYPES.get(error.type)
            remedy = row.remedy if row else None
            if row is None or row.may_have_run or error.may_have_run:
                remedy = " ".join(filter(None, (remedy, _LATE if error.may_have_run else _SAFE)))
        case CommunicationError():
            status = Status.UNREACHABLE
            if not error.may_have_run:
                remedy = "Check the address, and that the daemon runs there."
        case UnsupportedError():
            remedy = "What you talk to is older than this command, or of another make."
    told["remedy"] = remedy
    return Failure(message, status, remedy=remedy, told={**of_job, "error": told})


def _told(error: HarpException) -> dict[str, Any]:
    if isinstance(error, RemoteError | RemoteException):
        facts = {"type": error.type, "message": error.message, "data": error.data}
    else:
        kinds = {CommunicationError: "unreachable", UnsupportedError: "unsupported"}
        kind = next((name for each, name in kinds.items() if isinstance(error, each)), "client")
        facts = {"type": kind, "message": str(error), "data": None}
    facts["origin"] = None if error.origin is None else error.origin.value
    facts["may_have_run"] = error.may_have_run
    return facts
