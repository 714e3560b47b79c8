"""The keeper as the reactor sees it: asked for zygotes and files, and what is left when it dies."""

from __future__ import annotations

import itertools
import os
import socket
from contextlib import ExitStack
from typing import Any
from typing import Protocol as Interface

from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from harpd.control import ControlChannel
from harpd.keeper import CONTROL_DESCRIPTOR, keeper_command
from harpd.output import PrintedText

_GONE = "the keeper died, so that harpd has to be restarted"


class KeeperError(Exception):
    """The keeper can't give what it was asked for."""


class Kept(Interface):
    """A zygote as the keeper's messages concern it."""

    def started(self, pid: int, control: socket.socket, log: int) -> None:
        """Take its control socket, and the pipe with what it prints.

        :param pid: the process id of its guard.
        """

    def refused(self, why: str) -> None:
        """Learn that it was not started."""

    def ended(self, status: int) -> None:
        """Learn that its guard is gone, with the wait status."""

    def keeper_lost(self) -> None:
        """Learn that nobody will tell its end."""


class KeeperProcess(ProcessProtocol):
    """Starts the keeper, and asks it.

    :param config: the configuration file.
    :param procedures: the procedures file.
    """

    _log = Logger("harpd.keeper")

    def __init__(self, reactor: Any, config: str, procedures: str) -> None:
        self._reactor = reactor
        self._config = config
        self.procedures = procedures
        self.is_lost = False
        self._numbers = itertools.count(1)
        self._zygotes: dict[int, Kept] = {}
        self._files: dict[int, Deferred[bytes]] = {}
        self._printed = PrintedText(lambda text: self._log.error("{text}", text=text))
        self._stopped: Deferred[None] | None = None

    def start(self) -> None:
        """Start it, as the user who is to start zygotes.

        :raises OSError: if no process can be started.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = keeper_command(self._config, self.procedures)
        with ExitStack() as undo:
            undo.enter_context(ours)
            with theirs, open(os.devnull, "r+b") as devnull:
                self._reactor.spawnProcess(
                    self,
                    command[0],
                    command,
                    env=None,
                    childFDs={
                        0: devnull.fileno(),
                        1: devnull.fileno(),
                        2: "r",
                        CONTROL_DESCRIPTOR: theirs.fileno(),
                    },
                )
            undo.pop_all()
        self._channel = ControlChannel(
            self._reactor, ours, self._received, self._channel_lost, descriptors=2
        )

    def start_zygote(self, zygote: Kept) -> int:
        """Ask for a zygote and return the number that it has here.

        :raises OSError: if the keeper is gone.
        """
        if self.is_lost:
            raise OSError(None, _GONE)
        number = next(self._numbers)
        self._zygotes[number] = zygote
        self._channel.send({"zygote": number})
        return number

    def kill_zygote(self, number: int) -> None:
        """Have a zygote killed, whose guard then ends its calls."""
        self._channel.send({"kill": number})

    def files(self) -> Deferred[bytes]:
        """Return what `harpd.named_files.gather` finds now.

        :raises KeeperError: (errback) if it can't be had.
        """
        number = next(self._numbers)
        found: Deferred[bytes] = Deferred()
        self._files[number] = found
        if self.is_lost:
            self._no_files(number, _GONE)
        else:
            self._channel.send({"files": number})
        return found

    def stop(self) -> Deferred[None] | None:
        """End it; fires when it is gone."""
        if self.is_lost:
            return None
        self._stopped = Deferred()
        self._channel.close()
        return self._stopped

    def errReceived(self, data: bytes) -> None:
        """Log what it says."""
        self._printed.feed(data)

    def processEnded(self, reason: Failure) -> None:
        """Nothing can be had from it any more."""
        self._printed.finish()
        self._channel.finish()
        self.is_lost = True
        if self._stopped is not None:
            self._stopped.callback(None)
            return
        self._log.critical(
            "{gone}: {reason}; until then calls are taken, but nothing is read again",
            gone=_GONE,
            reason=reason.getErrorMessage(),
        )
        for number in list(self._files):
            self._no_files(number, _GONE)
        for zygote in list(self._zygotes.values()):
            zygote.keeper_lost()

    def _channel_lost(self) -> None:
        """Its process ends with it, or has ended."""

    def _received(self, message: dict[str, Any], *descriptors: int) -> None:
        match message, descriptors:
            case {"zygote": number, "pid": pid}, (control, log):
                self._zygotes[number].started(pid, socket.socket(fileno=control), log)
            case {"files": number}, (pipe,):
                reading: Deferred[bytes] = deferToThreadPool(
                    self._reactor, self._reactor.getThreadPool(), _read_all, pipe
                )
                reading.chainDeferred(self._files.pop(number))
            case {"ended": number, "status": status}, ():
                if (zygote := self._zygotes.pop(number, None)) is not None:
                    zygote.ended(status)
            case {"refused": number, "message": text}, () if number in self._zygotes:
                self._zygotes.pop(number).refused(text)
            case {"refused": number, "message": text}, ():
                self._no_files(number, text)
            case {"zygote": number}, _:
                for descriptor in descriptors:
                    os.close(descriptor)  # which ends it
                self._zygotes.pop(number).refused("no descriptors are left")
            case {"files": number}, _:
                self._no_files(number, "no descriptors are left")

    def _no_files(self, number: int, why: str) -> None:
        self._files.pop(number).errback(KeeperError(f"the files can't be read: {why}"))


def _read_all(pipe: int) -> bytes:
    with open(pipe, "rb") as end:
        return end.read()
