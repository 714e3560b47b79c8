"""The words in which harpd refuses a call or gives it up, whoever carries it out."""

from __future__ import annotations

from typing import Any, NamedTuple

from harp import errors
from harp.errors import ErrorType
from harp.wire import results
from harp.wire.results import EndResult


class Refusal(NamedTuple):
    """Why a call is not carried out, or not to its end."""

    type: ErrorType
    message: str
    data: Any = None

    def end(self) -> EndResult:
        """Return the end result that says it."""
        return results.error(self.type, self.message, *(() if self.data is None else (self.data,)))


def no_such_procedure(name: str) -> Refusal:
    """Say that nothing with this name is offered."""
    return Refusal(errors.NO_SUCH_PROCEDURE, f"no procedure {name}", {"procedure": name})


def locked(lock: str, waited: float) -> Refusal:
    """Say that another call has the lock.

    :param waited: seconds.
    """
    return Refusal(errors.LOCKED, f"lock {lock} was not free within {waited:g} s", {"lock": lock})


def timed_out(limit: float) -> Refusal:
    """Say that the procedure's own time limit is exceeded.

    :param limit: seconds.
    """
    return Refusal(errors.TIMEOUT, f"the procedure's own limit of {limit:g} s was exceeded")
