"""What the daemons tell the service manager that has started them, as sd_notify(3) describes it.

That they are ready, read their configuration again or stop, what they do, and that the reactor
turns. Where nobody wants to know, nothing is told.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, MutableMapping
from typing import Any

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from harp.deadline import Deadline

STATUS_INTERVAL = 10.0
"""Seconds after which it is looked whether there is something else to be said of what goes on."""

AGAIN = 0.1
"""Seconds until a message is sent again for which the manager's queue had no room."""

_MAX_UNSENT = 50
_WATCHDOG = "WATCHDOG=1"


class ServiceManager:
    """Who has started the daemon, as its environment names him.

    The variables are taken out of the environment: what the daemon starts is not the daemon, and
    could say that it is.

    :param clock: the reactor.
    :param environ: ``os.environ``, or another for a daemon that has nobody to tell.
    """

    _log = Logger("harp.service_manager")

    def __init__(self, clock: Any, environ: MutableMapping[str, str]) -> None:
        self._clock = clock
        self._address = _address(environ.pop("NOTIFY_SOCKET", ""))
        limit = _watchdog(environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", ""))
        self._is_watched = limit is not None
        self._interval = min(STATUS_INTERVAL, STATUS_INTERVAL if limit is None else limit / 2)
        self._status: Callable[[], str] = str
        self._told = ""
        self._is_stopping = False
        self._unsent: list[str] = []
        self._again = Deadline(clock)
        self._loop: LoopingCall | None = None

    def watch(self, status: Callable[[], str]) -> None:
        """Tell from now on that the reactor turns, and what the daemon does.

        :param status: returns that as one line.
        """
        if self._address is None:
            return
        self._status = status
        self._loop = LoopingCall(self._tell)
        self._loop.clock = self._clock
        self._loop.start(self._interval)

    def ready(self) -> None:
        """Tell that requests are taken, the first ones or with what was read again."""
        if not self._is_stopping:
            self._told = self._status()
            self._send(f"READY=1\nSTATUS={self._told}")

    def reloading(self) -> None:
        """Tell that the configuration is being read again; `ready` tells that this is over."""
        if not self._is_stopping:
            microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            self._send(f"RELOADING=1\nMONOTONIC_USEC={microseconds}")

    def stopping(self) -> None:
        """Tell that the daemon ends; it goes on to tell that the reactor turns."""
        self._is_stopping = True
        self._send("STOPPING=1")

    def close(self) -> None:
        """Tell nothing any more."""
        if self._loop is not None and self._loop.running:
            self._loop.stop()
        self._again.end()

    def _tell(self) -> None:
        if self._is_watched:
            self._send(_WATCHDOG)
        if self._told and self._told != (now := self._status()):
            self._told = now
            self._send(f"STATUS={now}")

    def _send(self, message: str) -> None:
        if self._address is None:
            return
        if self._unsent:  # what waits goes first
            # A second WATCHDOG says nothing new, a second READY ends another reload.
            is_known = message == _WATCHDOG and message in self._unsent
            if len(self._unsent) < _MAX_UNSENT and not is_known:
                self._unsent.append(message)
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as end:
                end.setblocking(False)
                end.sendto(message.encode(), self._address)
        except BlockingIOError:
            self._unsent.append(message)
            self._again.set(AGAIN, self._send_again)
        except OSError as error:
            what = message.partition("\n")[0]
            self._log.warn("the service manager can't be told {what}: {why}", what=what, why=error)

    def _send_again(self) -> None:
        unsent, self._unsent = self._unsent, []
        for message in unsent:
            self._send(message)


def _address(text: str) -> bytes | None:
    """Return where messages go; ``@`` stands for the zero byte of an abstract address (unix(7))."""
    if text.startswith("@"):
        return b"\0" + os.fsencode(text[1:])
    return os.fsencode(text) if text.startswith("/") else None


def _watchdog(microseconds: str, pid: str) -> float | None:
    """Return within how many seconds this process is to say that it works, None if it is not."""
    if not microseconds.isdecimal() or int(microseconds) == 0 or pid not in {"", str(os.getpid())}:
        return None
    return int(microseconds) / 1_000_000
