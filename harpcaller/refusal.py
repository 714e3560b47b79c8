"""A request that is sound but can't be granted."""

from __future__ import annotations

from harp.errors import ErrorType


class RefusedError(Exception):
    """Answered with an error.

    :param type: the row of the table.
    :param message: for the client.
    """

    def __init__(self, type: ErrorType, message: str) -> None:
        super().__init__(type, message)
        self.type = type
        self.message = message
