"""The end of a call or of a job, the one message that both protocols have."""

from __future__ import annotations

import enum

import msgspec

from harp.errors import ErrorType
from harp.wire.text import Fault, encode, fault


class EndKind(enum.Enum):
    """How it ended; the value is the key on the wire."""

    RESULT = "result"
    EXCEPTION = "exception"
    ERROR = "error"
    CANCELLED = "cancelled"


class EndDetail(msgspec.Struct, frozen=True):
    """What the dispatcher knows of an end beside it, for those who ask.

    :param origin: the part of the system in which a failure arose (`harp.errors.Origin`).
    :param may_have_run: whether the procedure may have started.
    :param time: when it was recorded, in unix seconds.
    """

    origin: str | None
    may_have_run: bool
    time: float


class EndResult(msgspec.Struct, frozen=True):
    """How a call ended and with what.

    :param value: JSON: what the procedure returned, or the object of an exception or an error;
        ``true`` for a cancelled job.
    :param detail: only where a client of the dispatcher asked for it.
    """

    kind: EndKind
    value: bytes
    detail: EndDetail | None = None


CANCELLED = EndResult(EndKind.CANCELLED, b"true")


def error(type: ErrorType, message: str, data: object = msgspec.UNSET) -> EndResult:
    """Return the end result of a call that could not be carried out."""
    return EndResult(EndKind.ERROR, fault(type, message, data))


class EndFields(msgspec.Struct):
    """The keys of the end results that come from harpd, for the structs that decode replies."""

    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    exception: Fault | msgspec.UnsetType = msgspec.UNSET
    error: Fault | msgspec.UnsetType = msgspec.UNSET

    def end_results(self) -> list[EndResult]:
        """Return the end results that the message holds; more than one is its writer's mistake."""
        found = []
        if self.result is not msgspec.UNSET:
            found.append(EndResult(EndKind.RESULT, bytes(self.result)))
        if self.exception is not msgspec.UNSET:
            found.append(EndResult(EndKind.EXCEPTION, encode(self.exception)))
        if self.error is not msgspec.UNSET:
            found.append(EndResult(EndKind.ERROR, encode(self.error)))
        return found
