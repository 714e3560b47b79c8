"""One zygote as the reactor sees it: its catalogue, the calls forked from it, and its end."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from harp import errors
from harp.wire import results
from harpd.call import Caller, CallProcess
from harpd.call_socket import CallSocket
from harpd.control import ControlChannel
from harpd.keeper_process import KeeperProcess
from harpd.offers import Catalogue, Offer, ProceduresError, read_offer
from harpd.output import OutputPipe
from harpd.tree import WAKE_AFTER


@dataclass
class _Call:
    process: CallProcess
    output: OutputPipe
    gone: Callable[[], None]


class ZygoteProcess:
    """One zygote below its guard: its catalogue, and the calls that were forked from it.

    :param kill_grace: seconds between TERM and KILL.
    :param lost: called when no more calls can be started, whyever.
    :param ended: called when the guard and all it watches over are gone.
    :ivar pid: the process id of the guard; None until it has been started.
    :raises OSError: if the keeper is gone, which starts it.
    """

    _log = Logger("harpd.zygote")

    def __init__(
        self,
        reactor: Any,
        keeper: KeeperProcess,
        kill_grace: float,
        lost: Callable[[ZygoteProcess], None],
        ended: Callable[[ZygoteProcess], None],
    ) -> None:
        self.loaded: Deferred[Catalogue] = Deferred()
        self.pid: int | None = None
        self._reactor = reactor
        self._keeper = keeper
        self._file = keeper.procedures
        self._kill_grace = kill_grace
        self._tell_lost = lost
        self._tell_ended = ended
        self.is_lost = False
        self._is_retired = False
        self.offers: dict[str, Offer] = {}
        self._mistakes: list[str] = []
        self._planned: set[int] = set()
        self._calls: dict[int, _Call] = {}
        self._kills: dict[int, IDelayedCall] = {}
        self._channel: ControlChannel | None = None
        self._printed: OutputPipe | None = None
        self._number = keeper.start_zygote(self)

    def plan(self, number: int) -> PlannedCall:
        """Return a call that is to be forked from this zygote, which stays as long as for that."""
        self._planned.add(number)
        return PlannedCall(self, number)

    def give_up(self, number: int) -> None:
        """Drop a planned call."""
        self._planned.discard(number)
        self._end_if_idle()

    def start(
        self,
        number: int,
        procedure: str,
        arguments: bytes,
        context: bytes,
        caller: Caller,
        gone: Callable[[], None],
    ) -> CallProcess:
        """Have a call forked; see `PlannedCall.start`."""

        def log(text: str) -> None:
            self._log.info(
                "call {number} of {procedure} printed: {text}",
                number=number,
                procedure=procedure,
                text=text,
            )

        if self.is_lost:
            raise OSError("the zygote that was to run the call died")
        limits = self.offers[procedure].limits
        process = CallProcess(arguments, caller, partial(self.kill_call, number), context, limits)
        ours, theirs = socket.socketpair()
        try:
            read, write = os.pipe2(os.O_CLOEXEC)
        except OSError:
            ours.close()
            theirs.close()
            raise
        self._planned.discard(number)
        self._calls[number] = _Call(process, OutputPipe(self._reactor, read, log), gone)
        CallSocket(self._reactor, ours, process)
        self._send({"start": number, "procedure": procedure}, theirs.detach(), write)
        return process

    def kill_call(self, number: int) -> None:
        """End the process tree of a call: TERM, and KILL after the grace."""
        if number in self._calls and number not in self._kills:
            self._send({"signal": number, "kill": False})
            wake = min(WAKE_AFTER, self._kill_grace)
            self._kills[number] = self._reactor.callLater(wake, self._wake, number)

    def give_up_loading(self, error: ProceduresError) -> None:
        """Take it as not loaded, and end it."""
        self.loaded.errback(error)
        self.close()
        self._tell_lost(self)

    def retire(self) -> None:
        """End as soon as the last call has ended; no more are planned."""
        self._is_retired = True
        self._end_if_idle()

    def close(self) -> None:
        """Let the zygote end all its calls and itself; it is killed if it does not."""
        if not self.is_lost:
            self.is_lost = True
            self._limit_end()
            if self._channel is not None:
                self._channel.close()

    def started(self, pid: int, control: socket.socket, log: int) -> None:
        """Take both ends from the keeper, see `harpd.keeper_process.Kept`."""
        self.pid = pid
        self._printed = OutputPipe(self._reactor, log, self._log_printed)
        self._channel = ControlChannel(self._reactor, control, self._received, self._channel_lost)
        if self.is_lost:
            self._channel.close()

    def refused(self, why: str) -> None:
        """Give up what was never started."""
        self._finish(f"no process can be started that loads it: {why}")

    def ended(self, status: int) -> None:
        """Learn how the guard has ended, as wait(2) gives it."""
        code = os.waitstatus_to_exitcode(status)
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit status {code}"
        self._finish(f"the process that loads it {how}")

    def keeper_lost(self) -> None:
        """Wait for the end as long as it may take, if it is due: nobody will tell it."""
        if self._channel is None:
            self.refused("the keeper died")
        elif self.is_lost:
            self._limit_end()

    def _finish(self, how: str) -> None:
        """Close what is left of its calls: nobody will tell their end any more."""
        if self._printed is not None:
            self._printed.finish()
        if self._channel is not None:
            self._channel.finish()
        for timer in self._kills.values():
            timer.cancel()
        self._kills.clear()
        self.is_lost = True
        if not self.loaded.called:
            self.loaded.errback(ProceduresError(self._mistakes or [f"{self._file}: {how}"]))
            self._tell_lost(self)
        for number in list(self._calls):
            self._end_call(number).gone(_ZYGOTE_DIED)
        self._tell_ended(self)

    def _channel_lost(self) -> None:
        if self.is_lost:
            return  # we have closed it
        self.is_lost = True
        if self._keeper.is_lost:
            self._limit_end()
        for call in self._calls.values():
            call.process.gone(_ZYGOTE_DIED)  # as far as its caller sees: the guard ends it yet
        if self.loaded.called:
            self._tell_lost(self)

    def _send(self, message: dict[str, Any], *descriptors: int) -> None:
        assert self._channel is not None
        self._channel.send(message, descriptors)

    def _limit_end(self) -> None:
        if _OF_ZYGOTE not in self._kills:
            self._kills[_OF_ZYGOTE] = self._reactor.callLater(2 * self._kill_grace, self._kill)

    def _kill(self) -> None:
        del self._kills[_OF_ZYGOTE]
        if self._keeper.is_lost:
            self._finish("the process that loads it ended")
        else:
            self._keeper.kill_zygote(self._number)

    def _wake(self, number: int) -> None:
        self._send({"wake": number})
        rest = max(0.0, self._kill_grace - WAKE_AFTER)
        self._kills[number] = self._reactor.callLater(rest, self._kill_now, number)

    def _kill_now(self, number: int) -> None:
        del self._kills[number]
        self._send({"signal": number, "kill": True})
        self._end_if_idle()

    def _end_if_idle(self) -> None:
        # A call that was told to end may have left what is still to be killed.
        if self._is_retired and not (self._planned or self._calls or self._kills):
            self.close()

    def _end_call(self, number: int) -> CallProcess:
        call = self._calls.pop(number)
        call.output.finish()
        call.gone()
        return call.process

    def _log_printed(self, text: str) -> None:
        self._log.info("the procedures file printed: {text}", text=text)

    def _received(self, message: dict[str, Any]) -> None:
        match message:
            case {"procedure": _}:
                name, offer = read_offer(message)
                self.offers[name] = offer
            case {"mistake": mistake}:
                self._mistakes.append(mistake)
            case {"ready": True} if not self.loaded.called:
                self.loaded.callback(self.offers)
            case {"exited": number, "status": status}:
                self._end_call(number).exited(status)
                self._end_if_idle()
            case {"failed": number, "message": text}:
                self._end_call(number).gone(results.error(errors.SYSTEM_ERROR, text))
                self._end_if_idle()


class PlannedCall:
    """A call that is bound to a zygote, and with it to what the procedures file said then."""

    def __init__(self, zygote: ZygoteProcess, number: int) -> None:
        self.number = number
        self._zygote = zygote

    def start(
        self,
        procedure: str,
        arguments: bytes,
        context: bytes,
        caller: Caller,
        gone: Callable[[], None],
    ) -> CallProcess:
        """Start the process of the call.

        :param procedure: a name from the catalogue.
        :param arguments: JSON of a list or an object.
        :param context: JSON of an object.
        :param gone: called when there is no process any more.
        :raises OSError: if there are no descriptors left, or the zygote is gone.
        """
        return self._zygote.start(self.number, procedure, arguments, context, caller, gone)

    def kill(self) -> None:
        """End the process with its whole tree: TERM, and KILL after the grace."""
        self._zygote.kill_call(self.number)

    def give_up(self) -> None:
        """Let the zygote know that the call will not be started."""
        self._zygote.give_up(self.number)


_OF_ZYGOTE = 0
"""Stands for the zygote where the others are numbers of calls."""

_ZYGOTE_DIED = results.error(errors.KILLED, "the zygote that ran the call died")
