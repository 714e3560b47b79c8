"""Calls in a zygote without a daemon: what harpd does for a call, in a program that blocks.

Everything happens while the program waits for something (`LoneCalls.run`). What a call may report,
which limits hold and in which words a call fails are those of the modules that the daemon uses.
"""

from __future__ import annotations

import itertools
import json
import os
import sched
import select
import selectors
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from harp import errors
from harp.errors import Origin
from harp.wire import results
from harp.wire.results import CANCELLED, EndDetail, EndResult
from harpd import refusals
from harpd.locks import Locks
from harpd.lone_call import LoneCall
from harpd.lone_zygote import LoneZygote
from harpd.offers import Offer
from harpd.orders import MAX_MESSAGE
from harpd.tree import WAKE_AFTER


class LoneCalls:
    """Starts calls in a zygote that has loaded its procedures, and carries them out.

    :param offers: what it offers.
    :param kill_grace: seconds between TERM and KILL.
    """

    def __init__(self, zygote: LoneZygote, offers: dict[str, Offer], kill_grace: float) -> None:
        self._control = zygote.control
        self._offers = offers
        self._kill_grace = kill_grace
        self._numbers = itertools.count(1)
        self._running: dict[int, LoneCall] = {}
        self._locks: Locks[LoneCall] = Locks()
        self._timers = sched.scheduler(time.monotonic)
        self._selector = selectors.DefaultSelector()
        self._is_lost = False
        self._control.setblocking(False)
        self._watch(self._control.fileno(), self._hear)

    def start(
        self, procedure: str, arguments: bytes, context: bytes, time_limit: float
    ) -> LoneCall:
        """Start a call, or have it wait for its lock, or refuse it.

        :param arguments: JSON of a list or an object.
        :param context: JSON of an object.
        :param time_limit: the longest run in seconds, as a dispatcher's ``max_exec_time``.
        """
        offer = self._offers.get(procedure)
        request = b"%b\n%b\n" % (arguments, context)
        call = LoneCall(next(self._numbers), procedure, offer, request)
        if offer is None:
            self._end(call, refusals.no_such_procedure(procedure).end())
            return call
        self._limit(call, time_limit, _too_long(time_limit))
        lock, wait = offer.lock, offer.lock_wait
        if lock is None:
            self._begin(call, offer)
        elif wait == 0 and self._locks.is_taken(lock):
            self._end(call, refusals.locked(lock, wait).end())
        else:
            call.lock = lock
            if self._locks.join(lock, call):
                self._begin(call, offer)
            elif wait is not None:
                locked = refusals.locked(lock, wait).end()
                self._later(wait, self._give_up_waiting, call, locked)
        return call

    def cancel(self, call: LoneCall) -> None:
        """End a call as a dispatcher's ``cancel`` does; one that has ended stays as it is."""
        self._end(call, CANCELLED)

    def run(self, condition: Callable[[], bool]) -> None:
        """Carry the calls on until the condition holds."""
        while not condition():
            self._take(0)  # what has come has come before any limit that is seen only now
            until_next = self._timers.run(blocking=False)
            if not condition():
                self._take(until_next)

    def close(self) -> None:
        """Let go of all calls; the zygote's end is theirs."""
        self._is_lost = True  # for those that wait for the lock of another
        for call in list(self._running.values()):
            self._gone(call, results.error(errors.KILLED, "the zygote that ran the call was ended"))
        self._selector.close()

    # The process of a call.

    def _begin(self, call: LoneCall, offer: Offer) -> None:
        if self._is_lost:
            text = "the zygote that was to run the call died"
            self._end(call, results.error(errors.SYSTEM_ERROR, text))
            return
        theirs, printed = call.open()
        try:
            order = {"start": call.number, "procedure": call.procedure}
            self._order(order, theirs.fileno(), printed)
        finally:
            theirs.close()
            os.close(printed)
        self._running[call.number] = call
        assert call.connection is not None
        both = selectors.EVENT_READ | selectors.EVENT_WRITE
        self._watch(call.connection.fileno(), self._exchange, call, both)
        self._watch(call.output, self._read_output, call)
        if offer.timeout is not None:
            self._limit(call, offer.timeout, refusals.timed_out(offer.timeout).end())

    def _end(self, call: LoneCall, end: EndResult) -> None:
        """Take this for its end unless it has one, and have its process ended."""
        if call.end is not None:
            return
        call.end = end
        if call.has_process:
            self._kill(call)
        else:
            self._over(call)

    def _give_up_waiting(self, call: LoneCall, end: EndResult) -> None:
        if not call.has_process:
            self._end(call, end)

    def _kill(self, call: LoneCall) -> None:
        """TERM, and KILL after the grace."""
        if call.is_over or call.is_told_to_end:
            return
        call.is_told_to_end = True
        self._order({"signal": call.number, "kill": False})
        self._later(min(WAKE_AFTER, self._kill_grace), self._order, {"wake": call.number})
        self._later(self._kill_grace, self._order, {"signal": call.number, "kill": True})

    def _exchange(self, call: LoneCall, events: int) -> None:
        """Send what is left of the request, and take what the process reports."""
        assert call.connection is not None
        number = call.connection.fileno()
        if events & selectors.EVENT_WRITE and call.send_request():
            self._selector.modify(number, selectors.EVENT_READ, (self._exchange, call))
        if events & selectors.EVENT_READ:
            goes_on = call.read_reports()
            if not goes_on:
                self._selector.unregister(number)
            if call.is_refused or (call.end is None and not goes_on):
                self._kill(call)

    def _read_output(self, call: LoneCall, _events: int) -> None:
        if not call.read_output():
            self._selector.unregister(call.output)

    def _gone(self, call: LoneCall, end: EndResult) -> None:
        """Learn that there is no process any more; what it reported before counts."""
        assert call.connection is not None
        for number in (call.connection.fileno(), call.output):
            if number in self._selector.get_map():
                self._selector.unregister(number)
        del self._running[call.number]
        call.close(end)
        self._over(call)

    def _over(self, call: LoneCall) -> None:
        call.is_over = True
        for limit in call.limits:
            with suppress(ValueError):  # it has been exceeded
                self._timers.cancel(limit)
        if call.lock is not None:
            following = self._locks.leave(call.lock, call)
            if following is not None:
                assert following.offer is not None
                self._begin(following, following.offer)

    # The zygote.

    def _order(self, message: dict[str, Any], *descriptors: int) -> None:
        data = json.dumps(message).encode()
        while True:
            try:
                socket.send_fds(self._control, [data], descriptors)
            except BlockingIOError:
                select.select([], [self._control], [])
            except OSError:
                return  # it is gone, which the next reading will tell
            else:
                return

    def _hear(self, _call: None, _events: int) -> None:
        try:
            data = self._control.recv(MAX_MESSAGE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._is_lost = True
            self._selector.unregister(self._control.fileno())
            died = results.error(errors.KILLED, "the zygote that ran the call died")
            for call in list(self._running.values()):
                self._gone(call, died)
            return
        match json.loads(data):
            case {"exited": number, "status": status}:
                call = self._running[number]
                assert call.offer is not None
                self._gone(call, call.offer.limits.killed(status))
            case {"failed": number, "message": text}:
                self._gone(self._running[number], results.error(errors.SYSTEM_ERROR, text))

    # What there is to wait for.

    def _watch(
        self,
        descriptor: int,
        ready: Callable[[Any, int], object],
        call: LoneCall | None = None,
        events: int = selectors.EVENT_READ,
    ) -> None:
        self._selector.register(descriptor, events, (ready, call))

    def _take(self, patience: float | None) -> None:
        for key, events in self._selector.select(patience):
            # What was ready before may have closed this, and opened another with its number.
            if self._selector.get_map().get(key.fd) is key:
                ready, call = key.data
                ready(call, events)

    def _limit(self, call: LoneCall, delay: float, end: EndResult) -> None:
        call.limits.append(self._later(delay, self._end, call, end))

    def _later(self, delay: float, function: Callable[..., object], *args: Any) -> sched.Event:
        return self._timers.enter(delay, 0, function, args)


def _too_long(limit: float) -> EndResult:
    """Return how a dispatcher ends a job that runs for longer than this many seconds."""
    error = results.error(errors.TIMEOUT, f"max_exec_time: the job ran for {limit:g} s")
    detail = EndDetail(Origin.DISPATCHER.value, errors.TIMEOUT.may_have_run, time.time())
    return EndResult(error.kind, error.value, detail)
