"""A zygote without a daemon, for a program that blocks: how it starts, what it offers, how it ends.

Calls in one are the business of `harpd.lone_calls`.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from dataclasses import replace
from typing import Any

from harpd.guard import KILL_ZYGOTE
from harpd.offers import Offer, ProceduresError, read_offer
from harpd.orders import MAX_MESSAGE
from harpd.zygote import Settings
from harpd.zygote_command import write_settings, zygote_command, zygote_environment

ZYGOTE = "harpd.zygote"


class LoneZygote:
    """A zygote process below its guard, to be closed.

    :param settings: but for the control socket, which is made here.
    :param printed: the descriptor for what it prints itself.
    :param module: the one that is run.
    :ivar control: our end of its control socket.
    """

    def __init__(self, settings: Settings, printed: int, module: str = ZYGOTE) -> None:
        self._file = settings.procedures
        self._kill_grace = settings.kill_grace
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                written = write_settings(replace(settings, control=theirs.fileno()))
                try:
                    self._guard = subprocess.Popen(  # noqa: S603 - this interpreter, no shell
                        zygote_command(written, module),
                        stdin=subprocess.DEVNULL,
                        stdout=printed,
                        stderr=printed,
                        env=zygote_environment(),
                        pass_fds=[theirs.fileno(), written],
                    )
                finally:
                    os.close(written)
        except BaseException:
            self.control.close()
            raise

    def load(self, time_limit: float) -> dict[str, Offer]:
        """Wait until the procedures are loaded and return what is offered, by name.

        :param time_limit: in seconds.
        :raises ProceduresError: with every mistake.
        """
        deadline = time.monotonic() + time_limit
        offers: dict[str, Offer] = {}
        mistakes: list[str] = []
        while True:
            match self._next(deadline):
                case {"procedure": _} as message:
                    name, offer = read_offer(message)
                    offers[name] = offer
                case {"mistake": mistake}:
                    mistakes.append(mistake)
                case {"ready": True}:
                    self.control.settimeout(None)
                    return offers
                case {"ready": _}:
                    raise ProceduresError(mistakes)
                case TimeoutError():
                    why = f"was not loaded within {time_limit:g} s"
                    raise ProceduresError([f"{self._file}: {why}"])
                case None:
                    why = "the process that loads it ended without a word"
                    raise ProceduresError([f"{self._file}: {why}"])

    def _next(self, deadline: float) -> Any:
        """Return the next message, None at the end, or the error if it takes too long."""
        self.control.settimeout(max(deadline - time.monotonic(), 0.001))
        try:
            return json.loads(self.control.recv(MAX_MESSAGE) or b"null")
        except TimeoutError as error:
            return error
        except ConnectionResetError:
            return None

    def close(self) -> None:
        """End it with all its calls and wait for that; it may be called twice."""
        self.control.close()
        try:
            self._guard.wait(2 * self._kill_grace)
        except subprocess.TimeoutExpired:
            self._guard.send_signal(KILL_ZYGOTE)  # it is the guard that we have started
            self._guard.wait()
