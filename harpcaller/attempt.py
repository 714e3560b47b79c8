"""One request to a harpd on its way, until there is an answer or something that stands for it.

It is sent twice only where harpd can't have taken up the first one. The connections are those of
``harpcaller.connections``; what a job makes of the answer is in ``harpcaller.remote``.
"""

from __future__ import annotations

import errno
from typing import Any
from typing import Protocol as Interface

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.error import TimeoutError
from twisted.python.failure import Failure

from harp import errors
from harp.errors import ErrorType, Origin, RemoteProtocolError
from harp.wire import harpd, results
from harp.wire.results import EndKind, EndResult
from harp.wire.text import Fault
from harpcaller import trust
from harpcaller.connections import Connections
from harpcaller.harpd_connection import HANDSHAKE_TIMEOUT, HarpdConnection
from harpcaller.hosts import Host

# The dispatcher's own machine is at its limits (socket(2)); the network has no part in it.
_OWN_FAULTS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Receiver(Interface):
    """Who gets what comes of a request."""

    def received(self, replies: list[harpd.Reply]) -> None:
        """Take replies; the last of a request is never among them."""

    def ended(self, last: EndResult | harpd.Procedures, origin: Origin | None) -> None:
        """Take the last reply, or what stands for it, once.

        :param origin: the part of the system in which a failure arose, None if it is none.
        """


def ask(
    connections: Connections, host: Host, request: harpd.Request, receiver: Receiver
) -> Attempt:
    """Send a request, with the extensions only to a harpd that is not known as old.

    :param request: one that uses extensions; what an old harpd gets is made from it.
    """
    if connections.is_known_as_old(host):
        request = _of_version_1(request)
    attempt = Attempt(connections, host, request, receiver)
    attempt.start()
    return attempt


class Attempt:
    """One request on its way: over a kept connection, or else a new one.

    A kept connection that harpd has closed before it took up the request is replaced by a new one.
    An old harpd, which refuses what it does not know, is asked again without the extensions.
    """

    def __init__(
        self, connections: Connections, host: Host, request: harpd.Request, receiver: Receiver
    ) -> None:
        self._connections = connections
        self._host = host
        self._request: harpd.Request | None = request
        self._receiver = receiver
        self._accepted = False
        self._connecting: Deferred[Any] | None = None
        self._connection: HarpdConnection | None = None
        self._kept = False
        self._doubted = False
        self._over = False

    @property
    def paused(self) -> bool:
        """Whether harpd is not read from."""
        return self._connection is not None and self._connection.paused

    def start(self) -> None:
        """Send the request."""
        connection = self._connections.take(self._host)
        if connection is not None:
            self._kept = True
            self._send(connection)
        else:
            self._open()

    def pause(self, paused: bool) -> None:
        """Stop reading from harpd, or go on."""
        if self._connection is not None:
            self._connection.pause(paused)

    def cancel(self) -> None:
        """End the request without a word; harpd then ends the call."""
        self._over = True
        if self._connection is not None:
            self._connection.close()
        elif self._connecting is not None:
            self._connecting.cancel()

    # What the connection tells.

    def received(self, replies: list[harpd.Reply]) -> None:
        """Pass replies on; see `harpcaller.harpd_connection.Asker`."""
        *before, last = replies
        if not isinstance(last, EndResult | harpd.Procedures):
            self._pass_on(replies)
            return
        self._connection = None
        if before:
            self._pass_on(before)
        request = self._request
        refused = request is not None and _is_invalid_request(last)
        if request is not None and refused and request != (plain := _of_version_1(request)):
            # An error in place of the acknowledgement: nothing has run.
            self._request = plain
            self._doubted = True
            self._open()
        else:
            self._judge(is_old=not refused)
            self._end(last, _origin(last))

    def misled(self, error: RemoteProtocolError) -> None:
        """End with what harpd did wrong."""
        self._connection = None
        self._fail(error.type, error.message)

    def lost(self, reason: Failure, secured: bool, unread: bool) -> None:
        """Try a new connection, if that is safe, or end."""
        self._connection = None
        if self._kept and unread:
            self._open()
        elif secured:
            self._fail(errors.CLOSED, "the connection to harpd ended before the end result")
        else:
            text = "harpd closed the connection during the TLS handshake"
            if reason.check(TimeoutError):
                text = f"there was no TLS with harpd within {HANDSHAKE_TIMEOUT:g} s"
            self._fail(errors.SSL, trust.describe(reason) or text)

    def _pass_on(self, replies: list[harpd.Reply]) -> None:
        self._accepted = True
        self._request = None  # it has arrived, and may have secrets in it
        self._judge(is_old=True)
        self._receiver.received(replies)

    def _open(self) -> None:
        self._kept = False
        self._connecting = self._connections.open(self._host)
        self._connecting.addCallbacks(self._send, self._not_connected)

    def _send(self, connection: HarpdConnection) -> None:
        self._connecting = None
        self._connection = connection
        assert self._request is not None
        connection.ask(self._request, self)

    def _judge(self, is_old: bool) -> None:
        """Learn from the answer to the second request whose fault the first one was."""
        if self._doubted and is_old:
            self._connections.note_as_old(self._host)
        self._doubted = False

    def _not_connected(self, failure: Failure) -> None:
        self._connecting = None
        code = getattr(failure.value, "osError", None) or getattr(failure.value, "errno", None)
        kind = errors.OS_ERROR if code in _OWN_FAULTS else errors.NETWORK_ERROR
        self._fail(kind, f"no connection to harpd: {failure.getErrorMessage()}")

    def _fail(self, kind: ErrorType, message: str) -> None:
        origin = Origin.DISPATCHER if kind is errors.OS_ERROR else Origin.NETWORK
        self._end(results.error(kind, message), origin)

    def _end(self, last: EndResult | harpd.Procedures, origin: Origin | None) -> None:
        if not self._over:
            self._over = True
            self._receiver.ended(last, origin)


def _of_version_1(request: harpd.Request) -> harpd.Request:
    if isinstance(request, harpd.DescribeRequest):
        return request  # version 1 has nothing in its place
    return msgspec.structs.replace(
        request, keepalive=False, context=msgspec.UNSET, report_lock=False, report_secret=False
    )


def _is_invalid_request(last: EndResult | harpd.Procedures) -> bool:
    return (
        isinstance(last, EndResult)
        and last.kind is EndKind.ERROR
        and msgspec.json.decode(last.value, type=Fault).type == errors.INVALID_REQUEST.name
    )


def _origin(last: EndResult | harpd.Procedures) -> Origin | None:
    """Return where a failure arose of which harpd tells."""
    if not isinstance(last, EndResult) or last.kind is EndKind.RESULT:
        return None
    if last.kind is EndKind.EXCEPTION:
        return Origin.PROCEDURE
    row = errors.ERROR_TYPES.get(msgspec.json.decode(last.value, type=Fault).type)
    is_its_own = row is not None and row.origins[0] is Origin.PROCEDURE
    return Origin.PROCEDURE if is_its_own else Origin.HARPD
