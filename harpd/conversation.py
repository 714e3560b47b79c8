"""One request's way: login, acknowledgement, lock, process, replies, end.

What carries it, and what comes before and after it, is the business of `harpd.protocol`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from harp import errors
from harp.errors import ErrorType, LocalProtocolError, RemoteProtocolError
from harp.logs import shown
from harp.session import CallState, IncomingCall
from harp.wire import harpd, results
from harp.wire.results import EndResult
from harp.wire.text import encode, refuse_repeated_keys
from harpd.audit import Audit
from harpd.auth.turns import TooManyLoginsError
from harpd.call import CallProcess
from harpd.offers import Offer, ProceduresError
from harpd.parts import Connection, Parts
from harpd.zygote_process import PlannedCall

_log = Logger("harpd.call")  # of no class: what is logged would hold the conversation

_QUOTED_KEY = re.compile("(unknown field|Key) `.*", re.DOTALL)

_CLOSING = frozenset({errors.INVALID_REQUEST, errors.SHUTDOWN})


class Conversation:
    """One request and its replies."""

    def __init__(self, parts: Parts, connection: Connection) -> None:
        self.is_requested = False
        self._parts = parts
        self._connection: Connection | None = connection
        self._client = connection.client
        self._deadline = connection.deadline
        self._session = IncomingCall()
        self._keepalive = False
        self._planned: PlannedCall | None = None
        self._audit: Audit | None = None
        self._process: CallProcess | None = None
        self._lock: str | None = None
        self._go: Callable[[], None] | None = None
        self._held: EndResult | None = None
        self._checking: Deferred[bool] | None = None

    @property
    def has_process(self) -> bool:
        """Whether the procedure has been started and its end is not known."""
        return self._process is not None

    def take(self, line: bytes) -> None:
        """Take the request."""
        self.is_requested = True
        try:
            request = harpd.decode_request_line(line)
        except RemoteProtocolError as error:
            self._refuse_request(error)
            return
        self._session = IncomingCall(request)
        Deferred.fromCoroutine(self._answer(line, request)).addErrback(self._failed)

    def log_in(self, auth: harpd.Auth, go_on: Callable[[], None]) -> None:
        """Check a login before the rest of its request has come.

        :param go_on: called if it is right, else the conversation ends.
        """

        async def check() -> None:
            if await self._may_enter(auth, Audit(self._client, auth.user)):
                go_on()

        Deferred.fromCoroutine(check()).addErrback(self._failed)

    async def _may_enter(self, auth: harpd.Auth, audit: Audit) -> bool:
        """Tell whether the login is right and the client still there; else it has its answer."""
        self._checking = self._parts.login.check(auth.user, auth.password, self._client)
        reason = "unknown user or wrong password"
        try:
            is_right = await self._checking
        except TooManyLoginsError as error:
            is_right, reason = False, str(error)
        except CancelledError:
            raise
        except Exception:
            audit.refused("the login can't be checked")
            raise
        self._checking = None
        if not is_right:
            audit.refused(reason)
            self.refuse(errors.AUTH_ERROR, reason)
        elif not self._has_ended:
            assert self._connection is not None
            self._connection.logged_in()
        return not self._has_ended

    async def _answer(
        self, line: bytes, request: harpd.CallRequest | harpd.DescribeRequest
    ) -> None:
        user = request.auth.user
        audit = Audit(self._client, user, request)
        if not await self._may_enter(request.auth, audit):
            return
        self._deadline.clear()
        try:
            refuse_repeated_keys(line)  # which costs too much for somebody unknown
        except RemoteProtocolError as error:
            audit.refused(error.type.name)
            self._refuse_request(error)
            return
        self._keepalive = request.keepalive
        granted = self._parts.policy.permissions.of(user)
        if not granted.covers(request):
            audit.refused(errors.NOT_PERMITTED.name)
            self.refuse(errors.NOT_PERMITTED, f"user {user} has no permission for this")
            return
        try:
            catalogue = await self._parts.spawner.catalogue()
        except ProceduresError as error:
            audit.refused(errors.PROCEDURE_LOADING_ERROR.name)
            self.refuse(errors.PROCEDURE_LOADING_ERROR, str(error))
            return
        if self._has_ended:
            return
        if isinstance(request, harpd.DescribeRequest):
            audit.allowed()
            told = (offer.description for name, offer in catalogue.items() if granted.allows(name))
            offered = harpd.Procedures(b"[%b]" % b",".join(told), self._parts.now())
            self._end(offered, self._keepalive)
            return
        offer = catalogue.get(request.procedure)
        if offer is None:
            name = request.procedure
            audit.refused(errors.NO_SUCH_PROCEDURE.name)
            self.refuse(errors.NO_SUCH_PROCEDURE, f"no procedure {name}", {"procedure": name})
        elif len(self._parts.running) >= self._parts.policy.limits.max_calls:
            text = f"harpd has {len(self._parts.running)} calls already, its limit"
            audit.refused(text)
            self.refuse(errors.SYSTEM_ERROR, text)
        else:
            self._call(request, offer, audit)

    def _call(self, request: harpd.CallRequest, offer: Offer, audit: Audit) -> None:
        self._planned = self._parts.spawner.plan()
        number = self._planned.number
        self._audit = audit
        self._parts.running.add(number)
        audit.allowed(number)
        open_arguments = None
        if request.report_secret and offer.shown is not None:
            open_arguments = offer.shown.arguments(bytes(request.arguments))
        self._send(harpd.Ack(offer.streaming, open_arguments))
        locks, lock = self._parts.locks, offer.lock
        if lock is None:
            self._start(request, offer)
        elif offer.lock_wait == 0 and locks.is_taken(lock):
            self._locked(lock, 0)
        else:
            self._lock = lock
            if locks.join(lock, self):
                self._start(request, offer)
            else:
                self._wait(request, offer)

    def _wait(self, request: harpd.CallRequest, offer: Offer) -> None:
        def go() -> None:
            self._deadline.clear()
            if request.report_lock:
                self._send(harpd.Waiting(None))
            self._start(request, offer)

        assert self._lock is not None
        self._go = go
        if request.report_lock:
            self._send(harpd.Waiting(self._lock))
        if offer.lock_wait is not None:
            self._deadline.set(offer.lock_wait, self._locked, self._lock, offer.lock_wait)

    def got_lock(self) -> None:
        """Go on: the lock that this call waited for has come to it."""
        go, self._go = self._go, None
        if go is not None:
            try:
                go()
            except Exception:
                self._failed(Failure())

    def _start(self, request: harpd.CallRequest, offer: Offer) -> None:
        assert self._planned is not None
        assert self._connection is not None
        self._process = self._planned.start(
            request.procedure,
            bytes(request.arguments),
            self._context(request),
            self,
            self._process_gone,
        )
        # A client that reads slowly slows the procedure down.
        self._connection.produce(self._process.producer)
        if offer.timeout is not None:
            self._deadline.set(offer.timeout, self._time_out, offer.timeout)

    def _context(self, request: harpd.CallRequest) -> bytes:
        """Return what the caller knows of the call, and over it what harpd knows."""
        known: dict[str, msgspec.Raw] = {}
        if request.context is not msgspec.UNSET:
            known = msgspec.json.decode(request.context, type=dict[str, msgspec.Raw])
        facts = {"user": request.auth.user, "client": self._client}
        known.update((key, msgspec.Raw(encode(value))) for key, value in facts.items())
        return encode(known)

    def replies(self, replies: list[harpd.Reply]) -> None:
        """Pass on what the process reports; see `harpd.call.Caller`."""
        if self._has_ended:
            return
        *before, last = replies
        try:
            if not isinstance(last, EndResult):
                self._send(*replies)
                return
            self._send(*before)
            if self._lock is None:
                self._end(last, self._keepalive)
            else:
                # Who knows the end of one call may make another, which must find the lock free.
                self._deadline.clear()
                self._held = last
        except LocalProtocolError as error:
            # Only code that writes to the call's socket by itself comes to this.
            text = f"the process of the call reported {error}"
            self.refuse(errors.INVALID_MESSAGE, text)

    def _process_gone(self) -> None:
        self._count_no_more()
        self._release_lock()
        held, self._held = self._held, None
        if held is not None:
            self.replies([held])

    # The ways in which it ends early.

    def leave(self) -> None:
        """End it because the client has left."""
        if not self._has_ended:
            self._session.state = CallState.ENDED
            if self._planned is not None:
                assert self._audit is not None
                self._audit.cancelled(self._planned.number)
                if self._process is not None:
                    self._planned.kill()
        self._let_go()

    def refuse(
        self, type: ErrorType, message: str, data: Any = None, logged: str | None = None
    ) -> None:
        """End it with an error, and the process if there is one.

        :param logged: what is logged in place of the message.
        """
        if self._has_ended:
            return
        _log.info(
            "{client}, call {number}: {type}: {text}",
            client=self._client,
            number="not started" if self._planned is None else self._planned.number,
            type=type.name,
            text=shown(message if logged is None else logged),
        )
        if self._process is not None:
            assert self._planned is not None
            self._planned.kill()
        error = results.error(type, message, *(() if data is None else (data,)))
        self._end(error, self._keepalive and type not in _CLOSING)

    def _refuse_request(self, error: RemoteProtocolError) -> None:
        """End it because the request is faulty; what the fault quotes may be a secret."""
        self.refuse(error.type, error.message, logged=_QUOTED_KEY.sub(r"\1 …", error.message))

    def _locked(self, lock: str, waited: float) -> None:
        text = f"lock {lock} was not free within {waited:g} s"
        self.refuse(errors.LOCKED, text, {"lock": lock})

    def _time_out(self, limit: float) -> None:
        self.refuse(errors.TIMEOUT, f"the procedure's own limit of {limit:g} s was exceeded")

    def _failed(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            pass  # by `_let_go`: nobody waits for the login any more
        elif failure.check(OSError) and self._planned is not None:
            # That no process can be started. What checks logins names files to nobody.
            self.refuse(errors.SYSTEM_ERROR, failure.getErrorMessage())
        else:
            _log.failure("a request of {client}", failure, client=self._client)
            self.refuse(errors.SYSTEM_ERROR, "harpd failed, see its log")

    # What goes out, and what is let go.

    @property
    def _has_ended(self) -> bool:
        return self._session.state is CallState.ENDED

    def _send(self, *replies: harpd.Reply) -> None:
        assert self._connection is not None
        self._connection.send(b"".join(map(self._session.send, replies)))

    def _end(self, reply: EndResult | harpd.Procedures, keep: bool) -> None:
        line = self._session.send(reply)
        connection = self._connection
        assert connection is not None
        self._let_go()
        connection.finish(line, keep)

    def _let_go(self) -> None:
        """Drop what would be a circle, which keeps what it holds until it is looked for."""
        self._deadline.clear()
        self._connection = self._go = None
        checking, self._checking = self._checking, None
        if checking is not None:
            checking.cancel()
        process, self._process = self._process, None
        if process is not None:
            process.drain()  # its lock comes back when it is gone
        else:
            if self._planned is not None:
                self._planned.give_up()
                self._count_no_more()
            self._release_lock()

    def _count_no_more(self) -> None:
        if self._planned is not None:
            self._parts.running.discard(self._planned.number)

    def _release_lock(self) -> None:
        if self._lock is not None:
            lock, self._lock = self._lock, None
            following = self._parts.locks.leave(lock, self)
            if following is not None:
                # A turn later: many that fail at once must not be within each other.
                self._parts.reactor.callLater(0, following.got_lock)
