"""The small process that loads the procedures and forks once per call; no reactor, no threads.

`harpd.spawner` talks to it over one SEQPACKET socket, a JSON object per message. To the zygote:

    {"start": ID, "procedure": NAME}     with the call's socket and its output descriptor
    {"signal": ID, "kill": BOOL}         TERM, or KILL, to the call's whole process tree
    {"wake": ID}                         a call that got TERM may not have seen it

From the zygote, first its catalogue, then what becomes of the calls:

    {"procedure": {...}, ...}            one for each, see `harpd.description.offer`
    {"mistake": TEXT}                    what is wrong with the procedures file
    {"ready": BOOL}                      false if there were mistakes, and it ends
    {"failed": ID, "message": TEXT}      it could not be forked
    {"exited": ID, "status": N}          a wait status, os.waitstatus_to_exitcode explains it

Nothing that comes in is trusted, for the process at the other end is open to the network
(`harpd.orders`). What is refused is written to standard error; a start that is refused has failed,
unless its number is that of another call.

When the socket is closed the daemon is gone: all running calls are ended and then the zygote. The
same happens when its guard is gone (`harpd.guard`), which does that when the zygote is.

What a call costs follows from this process. Each page that a fork or the zygote writes to after
the fork is copied, and to count a reference is to write: so the way of a call has few steps, with
values at hand. On a small virtual machine a page costs 3 us, each megabyte that is here 20 us, each
mapping 2 us, and a shared library has five. Of what is imported, in MB: Python itself 3, inspect
(for signatures) 1.2, enum 0.7, typing 0.5, socket 0.4 and four libraries, re 0.3, dataclasses 0.25,
ctypes (for prctl) 0.2 and three, traceback 0.2, json 0.1; harpd's own 1.3. `harpd.child` imports
nothing more. What the procedures file imports is added to that.
"""

from __future__ import annotations

import fcntl
import gc
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from os import close
from signal import set_wakeup_fd
from typing import Any, NoReturn

from harpd import guard, tree
from harpd.catalogue import CatalogueError, Entry, load
from harpd.child import Orphan, run
from harpd.description import offer
from harpd.options import Defaults
from harpd.orders import (
    MAX_CALLS,
    Orders,
    RefusedError,
    Signal,
    Start,
    check_ends,
    close_all,
    decode,
)
from harpd.surroundings import clean_environment, settle

LINK_NOW = "LD_BIND_NOW"
"""Has the dynamic linker find all functions at the start, and not some of them in every fork
(ld.so(8)). It is not in the environment of the calls: it is not meant for what they start."""

_MAX_TEXT = 4000  # characters of one mistake
_MAX_REFUSAL = 500  # characters of one in the log
_CHUNK = 4096


@dataclass(frozen=True)
class Settings:
    """What the zygote is started with: JSON on a descriptor, whose number is its argument.

    :param control: the file descriptor of the control socket.
    :param procedures: the procedures file.
    :param path: folders that are put before Python's own module path.
    :param max_line: the longest line in bytes that a call may report.
    :param kill_grace: seconds between TERM and KILL when the daemon is gone.
    :param defaults: the fields of `harpd.catalogue.Defaults` that the configuration says.
    """

    control: int
    procedures: str
    path: list[str]
    max_line: int
    kill_grace: float
    defaults: Mapping[str, Any] = field(default_factory=dict)


Load = Callable[[str, Defaults], Mapping[str, Entry]]
"""What loads the procedures file, as `harpd.catalogue.load` does."""


class Zygote:
    """Forks the calls and watches over their process trees."""

    def __init__(
        self,
        control: socket.socket,
        register: guard.Register,
        settings: Settings,
        load: Load = load,
    ) -> None:
        self._load_file = load
        self._control = control
        self._register = register
        self._settings = settings
        self._catalogue: Mapping[str, Entry] = {}
        self._running: dict[int, int] = {}  # calls by their processes
        self._leaders: dict[int, int] = {}  # processes by their calls
        self._told_to_end: dict[int, dict[int, int]] = {}  # what, by calls
        self._woken, self._wake = os.pipe()
        for end in (self._woken, self._wake):
            os.set_blocking(end, False)
        self._own = (control.fileno(), self._woken, self._wake)
        self._orders = Orders(control, decode, descriptors=2)
        self._max_line = settings.max_line
        self._orphan = Orphan(os.getpid(), register.guard)

    def serve(self) -> None:
        """Load the procedures, then fork calls until the daemon is gone."""
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, tree.PARENT_DIED):
            signal.signal(number, lambda number, frame: None)
        signal.signal(tree.WAKE, signal.SIG_IGN)  # until a fork takes care of it
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # the daemon's business; it ends us by closing
        tree.adopt_orphans()
        try:
            self._catalogue = self._load()
        except CatalogueError as error:
            for mistake in error.mistakes:
                self._send({"mistake": mistake[:_MAX_TEXT]})
            self._send({"ready": False})
            return
        settle()
        for entry in self._catalogue.values():
            self._send(offer(entry))
        sys.stdout.flush()  # else every fork would print it again
        # A TERM that comes before a fork can deal with it waits instead of being ignored.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        tree.watch_parent(self._register.guard)
        poll = select.poll()
        poll.register(self._woken, select.POLLIN)
        poll.register(self._control, select.POLLIN)
        gc.collect()
        gc.freeze()  # a collection in a fork would copy every page that it touches
        self._send({"ready": True})
        self._serve(poll)
        left = {pid: at for members in self._told_to_end.values() for pid, at in members.items()}
        guard.end_calls(self._running, left, self._settings.kill_grace)

    def _serve(self, poll: select.poll) -> None:
        """Obey until the daemon or the guard is gone."""
        while True:
            for descriptor, _ in poll.poll():
                if descriptor == self._woken:
                    self._reap()
                    if os.getppid() != self._register.guard:
                        self._control.close()  # so that the daemon takes another zygote at once
                        return
                elif not self._obey():
                    return

    def _load(self) -> Mapping[str, Entry]:
        mine = os.getpid()
        self._end_with_daemon(True)
        try:
            return self._load_file(self._settings.procedures, Defaults(**self._settings.defaults))
        finally:
            if os.getpid() != mine:
                os._exit(0)  # what the file forked must not go on as another zygote
            self._end_with_daemon(False)

    def _end_with_daemon(self, wanted: bool) -> None:
        """Let the kernel end this process when the daemon's end of the socket is closed.

        That is for the time in which nobody reads from it. SIGIO does it, see fcntl(2), O_ASYNC.
        """
        flags = fcntl.fcntl(self._control, fcntl.F_GETFL) & ~os.O_ASYNC
        fcntl.fcntl(self._control, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(self._control, fcntl.F_SETFL, flags | os.O_ASYNC if wanted else flags)
        if wanted and select.select([self._control], [], [], 0)[0]:
            os._exit(1)  # it was closed before

    def _obey(self) -> bool:
        """Take one message; False when the daemon is gone."""
        try:
            message = self._orders.next()
            if message is None:
                return False
            order, descriptors = message
            if type(order) is Start:
                self._start(order, descriptors)
            elif descriptors:
                close_all(descriptors)
                raise RefusedError(f"{order} came with descriptors")
            elif type(order) is Signal:
                self._signal(order.call, order.kill)
            elif (pid := self._leaders.get(order.call)) is not None:
                tree.wake(pid)
        except RefusedError as refusal:
            text = f"an order was refused: {refusal}"
            with suppress(OSError):  # what is sys.stderr, the procedures file may have replaced
                os.write(2, text[:_MAX_REFUSAL].encode(errors="backslashreplace") + b"\n")
        return True

    def _start(self, order: Start, descriptors: tuple[int, ...]) -> None:
        call = order.call
        try:
            if call in self._leaders or call in self._told_to_end:
                raise RefusedError(f"{order} has the number of another call")
            try:
                self._fork(order, descriptors)
            except RefusedError as refusal:
                self._send({"failed": call, "message": str(refusal)})
                raise RefusedError(f"{order}: {refusal}") from None
            except OSError as error:
                self._send({"failed": call, "message": f"fork: {error.strerror}"})
        finally:
            close_all(descriptors)

    def _fork(self, order: Start, descriptors: tuple[int, ...]) -> None:
        entry = self._catalogue.get(order.procedure)
        if entry is None:
            raise RefusedError("there is no such procedure")
        if len(self._leaders) + len(self._told_to_end) >= MAX_CALLS:
            raise RefusedError(f"there are {MAX_CALLS} calls already")
        connection, output = check_ends(descriptors)
        pid = os.fork()
        if pid == 0:
            self._be_call(entry, connection, output)
        self._running[pid] = order.call
        self._leaders[order.call] = pid

    def _be_call(self, entry: Entry, connection: int, output: int) -> NoReturn:
        """Go on as the process of a call, and never return to what the zygote does."""
        try:
            self._register.enter()
            set_wakeup_fd(-1)
            for own in self._own:
                close(own)
            run(entry, connection, output, self._max_line, self._orphan)
        finally:
            os._exit(1)

    def _signal(self, call: int, kill: bool) -> None:
        pid = self._leaders.get(call)
        if kill:
            if pid is not None:
                tree.kill(pid)
            # If its leader was gone, what it was told to end with it may not be.
            tree.kill_remaining(self._told_to_end.pop(call, {}))
        elif pid is not None:
            self._told_to_end.setdefault(call, {}).update(tree.terminate(pid))

    def _reap(self) -> None:
        os.read(self._woken, _CHUNK)
        with suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                self._reaped(*found)

    def _reaped(self, pid: int, status: int) -> None:
        call = self._running.pop(pid, None)
        if call is None:
            return  # an orphan of some call that ended
        del self._leaders[call]
        self._register.strike(pid)
        if os.WIFSIGNALED(status):
            # It did not end by itself, so it did not mean to leave anything behind.
            tree.kill_session(pid)
        self._tell(b'{"exited":%d,"status":%d}' % (call, status))

    def _send(self, message: dict[str, Any]) -> None:
        self._tell(json.dumps(message).encode())

    def _tell(self, message: bytes) -> None:
        # If the daemon is gone, the next reading will tell.
        with suppress(BrokenPipeError, ConnectionResetError):
            self._control.send(message)


def main(load: Load = load) -> None:
    """Run as ``python -P -m harpd.zygote DESCRIPTOR``."""
    with open(int(sys.argv[1]), "rb") as file:
        settings = Settings(**json.load(file))
    clean_environment(settings.defaults)
    control = socket.socket(fileno=settings.control)
    control.set_inheritable(False)
    register = guard.fork_zygote(control, settings.kill_grace)
    sys.path[:0] = settings.path
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    Zygote(control, register, settings, load).serve()


if __name__ == "__main__":
    main()
