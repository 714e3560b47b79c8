"""Every failure has one name: the table of error types, and the exceptions of the client.

Code, documentation and tests are driven by ``ERROR_TYPES``. What is not in it is not sent.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class Origin(enum.Enum):
    """The part of the system in which a failure arises."""

    CLIENT = "client"
    DISPATCHER = "dispatcher"
    NETWORK = "network"
    HARPD = "harpd"
    PROCEDURE = "procedure"


@dataclass(frozen=True)
class ErrorType:
    """One row of the table.

    :param name: what stands in ``error.type`` on the wire.
    :param origins: the parts where it can arise.
    :param may_have_run: whether the procedure may have started, in doubt True.
    :param remedy: what the person who sees it can do.
    """

    name: str
    origins: tuple[Origin, ...]
    may_have_run: bool
    remedy: str


_BOTH = (Origin.DISPATCHER, Origin.HARPD)

PARSE_ERROR = ErrorType(
    "parse_error", _BOTH, False, "The line was not JSON in UTF-8: mend the program that wrote it."
)
INVALID_PROTOCOL = ErrorType(
    "invalid_protocol",
    _BOTH,
    False,
    "The message has no protocol version 1: check which port the client talks to.",
)
INVALID_REQUEST = ErrorType(
    "invalid_request",
    _BOTH,
    True,  # harpd says it too of data that comes when the call has begun
    "The message names what is wrong with the request: mend it.",
)
AUTH_ERROR = ErrorType(
    "auth_error",
    (Origin.HARPD,),
    False,
    "Check user and password: those of the hosts registry, or those given to HarpServer.",
)
NOT_PERMITTED = ErrorType(
    "not_permitted",
    (Origin.HARPD,),
    False,
    "Add the procedure to what `permissions` in that harpd's configuration give the user.",
)
NOT_AUTHENTICATED = ErrorType(
    "not_authenticated",
    (Origin.DISPATCHER,),
    False,
    "Give HarpCaller a token or certificate that `users` in the dispatcher's configuration name.",
)
NOT_ALLOWED = ErrorType(
    "not_allowed",
    (Origin.DISPATCHER,),
    False,
    "Ask who runs the dispatcher: none of its `rules` allows this to the user.",
)
NO_SUCH_PROCEDURE = ErrorType(
    "no_such_procedure", (Origin.HARPD,), False, "Check the name, and that host's procedures file."
)
PROCEDURE_LOADING_ERROR = ErrorType(
    "procedure_loading_error",
    (Origin.HARPD,),
    False,
    "Run twistd harpd --test on that host: its procedures file can't be loaded.",
)
INVALID_ARGUMENT_LIST = ErrorType(
    "invalid_argument_list", (Origin.HARPD,), False, "Call it with the arguments it declares."
)
SYSTEM_ERROR = ErrorType(
    "system_error",
    (Origin.HARPD,),
    False,
    "The process of the call could not be set up (fork, uid, gid): see harpd's log.",
)
INVALID_MESSAGE = ErrorType(
    "invalid_message",
    (Origin.PROCEDURE,),
    True,
    "The procedure returned what JSON can't carry, or too much of it: mend the procedure.",
)
KILLED = ErrorType(
    "killed",
    (Origin.PROCEDURE, Origin.HARPD),
    True,
    "The process of the call ended without an end result: data has its signal or exit status.",
)
LIMIT_EXCEEDED = ErrorType(
    "limit_exceeded",
    (Origin.HARPD, Origin.PROCEDURE),
    True,
    "The message names the limit: raise it for the procedure, or do less.",
)
LOCKED = ErrorType(
    "locked",
    (Origin.HARPD,),
    False,
    "Another call had the procedure's lock for longer than its lock_wait: call it again later.",
)
TIMEOUT = ErrorType(
    "timeout", _BOTH, True, "The message says which limit was exceeded: raise it or do less."
)
SHUTDOWN = ErrorType(
    "shutdown", _BOTH, True, "The daemon was stopped: look whether the call had an effect."
)
UNKNOWN_HOST = ErrorType(
    "unknown_host", (Origin.DISPATCHER,), False, "Add the host to the hosts registry."
)
NETWORK_ERROR = ErrorType(
    "network_error",
    (Origin.NETWORK,),
    False,
    "No connection to harpd came about: check its address, that it runs, and the firewall.",
)
SSL = ErrorType(
    "ssl",
    (Origin.NETWORK,),
    False,
    "TLS failed, most often over the certificate: check ca_file, known_certs_file and its names.",
)
CLOSED = ErrorType(
    "closed",
    (Origin.NETWORK,),
    True,
    "The connection ended before the end result: look whether the call had an effect.",
)
PROTOCOL_ERROR = ErrorType(
    "protocol_error",
    (Origin.NETWORK,),
    True,
    "The peer sent what the protocol does not allow: check what listens there.",
)
OS_ERROR = ErrorType(
    "os_error",
    (Origin.DISPATCHER,),
    True,
    "The dispatcher's own machine failed it (disk, descriptors, database): see its log.",
)
MISSING_RESULT = ErrorType(
    "missing_result",
    (Origin.DISPATCHER,),
    True,
    "The dispatcher died while the job ran: look whether the call had an effect.",
)
INVALID_JOBID = ErrorType(
    "invalid_jobid", (Origin.DISPATCHER,), False, "There is no such job, or it was pruned."
)

ERROR_TYPES: Mapping[str, ErrorType] = {
    row.name: row for row in list(globals().values()) if isinstance(row, ErrorType)
}


class HarpException(Exception):
    """Base of all exceptions of the client library."""

    origin: Origin | None = None
    """Where the failure arose, None if that is not known."""

    may_have_run: bool = True
    """Whether what was asked for may have been done all the same, in doubt True."""

    remedy: str | None = None
    """What the person who sees it can do, in a sentence; None if only the text can tell."""


class UnsupportedError(HarpException):
    """The daemon can't do what was asked of it, because it is older or of another make."""

    origin = Origin.CLIENT
    may_have_run = False
    remedy = "Install a newer version there, or do without what the message names."


class CommunicationError(HarpException):
    """The dispatcher or harpd could not be reached, or the conversation broke off.

    :param may_have_run: whether the request may have reached its goal.
    """

    origin = Origin.NETWORK
    remedy = "Check the address, that a daemon runs there, the firewall, and the certificate."

    def __init__(self, message: str, may_have_run: bool = True) -> None:
        super().__init__(message)
        self.may_have_run = may_have_run


class RemoteProtocolError(CommunicationError):
    """The peer's mistake: it sent what the protocol does not allow at this point.

    :param type: the row of the table that names the fault.
    :param message: what was wrong and where, fit to be sent to the peer.
    """

    def __init__(self, type: ErrorType, message: str) -> None:
        Exception.__init__(self, type, message)
        self.type = type
        self.message = message
        self.may_have_run = type.may_have_run

    def __str__(self) -> str:
        return self.message


class LocalProtocolError(HarpException):
    """Our own mistake: the program tried to send what the protocol does not allow here."""

    origin = Origin.CLIENT
    may_have_run = False


class CancelledException(HarpException):
    """The job was cancelled, so there is no result to return."""

    origin = Origin.CLIENT


class _Fault(HarpException):
    """What the two kinds of remote failure have in common.

    :param type: the class of the exception, or the name of the error type.
    :param message: the text for people.
    :param data: whatever else came with it, None if nothing did.
    """

    def __init__(self, type: str, message: str, data: Any = None) -> None:
        super().__init__(type, message, data)
        self.type = type
        self.message = message
        self.data = data

    def __str__(self) -> str:
        return f"{self.type}: {self.message}"


class RemoteException(_Fault):
    """The procedure raised: ``type`` is the class of what it raised."""

    origin = Origin.PROCEDURE


class RemoteError(_Fault):
    """The call could not be carried out: ``type`` is a name from ``ERROR_TYPES``.

    `origin`, `may_have_run` and `remedy` are those of the table's row, unless more is known. A type
    that is not in the table may have come from anywhere, and has no remedy.

    :param origin: where it arose, None if the table must tell.
    :param may_have_run: whether the procedure may have started, None if the table must tell.
    """

    def __init__(
        self,
        type: str,
        message: str,
        data: Any = None,
        origin: Origin | None = None,
        may_have_run: bool | None = None,
    ) -> None:
        super().__init__(type, message, data)
        row = ERROR_TYPES.get(type)
        if origin is None and row is not None and len(row.origins) == 1:
            origin = row.origins[0]
        if may_have_run is None:
            may_have_run = row is None or row.may_have_run
        self.origin = origin
        self.may_have_run = may_have_run
        self.remedy = None if row is None else row.remedy
