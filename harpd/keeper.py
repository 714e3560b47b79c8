"""Keeps the right to start zygotes when the network-facing process has given it up.

What it starts, with which files, its command line says; all else the configuration file, which it
has read anew as root (`harpd.launch`). Over a SEQPACKET socket it can be told, and nothing else:

    {"zygote": N}                    start another zygote, to be called by that number
    {"kill": N}                      have that zygote killed, which does not end by itself
    {"files": N}                     give the configuration and the files that it names

    {"zygote": N, "pid": PID}        with the control socket and the log of the zygote
    {"files": N}                     with a pipe that has what `harpd.named_files` gathers
    {"refused": N, "message": TEXT}  neither
    {"ended": N, "status": STATUS}   the zygote's guard is gone: a wait status

It ends when the socket is closed, and so do the zygotes, which have lost their daemon too. Nothing
depends on its life but new zygotes and files: it is the parent of guards, which need none.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import NamedTuple

from harpd.guard import KILL_ZYGOTE
from harpd.orders import Orders, RefusedError, close_all, decode_object, number

CONTROL_DESCRIPTOR = 3

MAX_ZYGOTES = 32
"""How many zygotes there may be at once: as many reloads as calls may outlive."""

MAX_READERS = 2
"""How many times the files may be being read."""

_CHUNK = 4096
_MAX_REFUSAL = 500  # characters of one in the log


class Order(NamedTuple):
    """What the keeper is to do. :param what: a key of the table above."""

    what: str
    number: int


def decode(data: bytes | bytearray) -> Order:
    """Return the order that a message is.

    :raises RefusedError: if it is none.
    """
    message = decode_object(data)
    for what in ("zygote", "kill", "files"):
        if message.keys() == {what}:
            return Order(what, number(message[what]))
    raise RefusedError("these are not the keys of any order")


class Keeper:
    """Obeys the network-facing process in what it may order.

    :param control: the socket.
    :param config: the configuration file.
    :param procedures: the procedures file.
    """

    def __init__(self, control: socket.socket, config: str, procedures: str) -> None:
        self._control = control
        self._config = config
        self._procedures = procedures
        self._orders = Orders(control, decode)
        self._guards: dict[int, int] = {}  # processes by numbers
        self._readers: set[int] = set()
        self._woken, self._wake = os.pipe()
        for end in (self._woken, self._wake):
            os.set_blocking(end, False)

    def serve(self) -> None:
        """Obey until the daemon is gone."""
        os.setsid()  # what ends the daemon's process group must not end this
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(ignored, signal.SIG_IGN)  # the daemon's business; it ends us by closing
        poll = select.poll()
        poll.register(self._woken, select.POLLIN)
        poll.register(self._control, select.POLLIN)
        while True:
            for descriptor, _ in poll.poll():
                if descriptor == self._woken:
                    self._reap()
                elif not self._obey():
                    return

    def _obey(self) -> bool:
        """Take one order; False when the daemon is gone."""
        try:
            message = self._orders.next()
            if message is None:
                return False
            order, descriptors = message
            if descriptors:
                close_all(descriptors)
                raise RefusedError(f"{order} came with descriptors")
            self._carry_out(order)
        except RefusedError as refusal:
            text = f"an order was refused: {refusal}"
            with suppress(OSError):
                os.write(2, text[:_MAX_REFUSAL].encode(errors="backslashreplace") + b"\n")
        return True

    def _carry_out(self, order: Order) -> None:
        if order.what == "kill":
            # It may have ended; as its parent we have not waited for it, so the number is its own.
            if (guard := self._guards.get(order.number)) is not None:
                os.kill(guard, KILL_ZYGOTE)
            return
        if order.what == "zygote" and order.number in self._guards:
            raise RefusedError(f"{order} has the number of another zygote")
        try:
            if order.what == "zygote":
                self._start_zygote(order.number)
            else:
                self._send_files(order.number)
        except RefusedError as refusal:
            self._send({"refused": order.number, "message": str(refusal)})
            raise RefusedError(f"{order}: {refusal}") from None
        except OSError as error:
            self._send({"refused": order.number, "message": str(error.strerror)})

    def _start_zygote(self, number: int) -> None:
        if len(self._guards) >= MAX_ZYGOTES:
            raise RefusedError(f"there are {MAX_ZYGOTES} zygotes already")
        with ExitStack() as opened:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            opened.enter_context(ours)
            opened.enter_context(theirs)
            read, write = _pipe(opened)
            ends = {1: write, 2: write, CONTROL_DESCRIPTOR: theirs.fileno()}
            pid = _spawn(["zygote", self._config, self._procedures], ends)
            self._guards[number] = pid
            self._send({"zygote": number, "pid": pid}, [ours.fileno(), read])

    def _send_files(self, number: int) -> None:
        if len(self._readers) >= MAX_READERS:
            raise RefusedError("the files are being read already")
        with ExitStack() as opened:
            read, write = _pipe(opened)
            self._readers.add(_spawn(["files", self._config], {1: write}))
            self._send({"files": number}, [read])

    def _reap(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._woken, _CHUNK)
        with suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                self._reaped(*found)

    def _reaped(self, pid: int, status: int) -> None:
        self._readers.discard(pid)
        for zygote in [known for known, guard in self._guards.items() if guard == pid]:
            del self._guards[zygote]
            self._send({"ended": zygote, "status": status})

    def _send(self, message: dict[str, int | str], descriptors: Sequence[int] = ()) -> None:
        # If the daemon is gone, the next reading will tell.
        with suppress(BrokenPipeError, ConnectionResetError):
            socket.send_fds(self._control, [json.dumps(message).encode()], descriptors)


def _pipe(opened: ExitStack) -> tuple[int, int]:
    read, write = os.pipe()
    opened.callback(os.close, read)
    opened.callback(os.close, write)
    return read, write


def _spawn(arguments: list[str], ends: dict[int, int]) -> int:
    """Start `harpd.launch` with nothing open but these and /dev/null."""
    actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
    ]
    actions += [(os.POSIX_SPAWN_DUP2, ours, theirs) for theirs, ours in ends.items()]
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-P", "-m", "harpd.launch", *arguments],
        os.environ,
        file_actions=actions,
        setsigdef=signal.valid_signals(),
    )


def keeper_command(config: str, procedures: str, control: int = CONTROL_DESCRIPTOR) -> list[str]:
    """Return the command that runs the keeper; -P keeps the working directory out of its modules.

    :param control: the descriptor of its end of the socket.
    :param config: the configuration file.
    :param procedures: the procedures file.
    """
    return [sys.executable, "-P", "-m", "harpd.keeper", str(control), config, procedures]


def main() -> None:
    """Run as ``python -P -m harpd.keeper CONTROL CONFIG PROCEDURES``."""
    descriptor, config, procedures = sys.argv[1:]
    control = socket.socket(fileno=int(descriptor))
    control.set_inheritable(False)
    Keeper(control, config, procedures).serve()


if __name__ == "__main__":
    main()
