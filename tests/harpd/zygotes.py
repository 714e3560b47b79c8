"""A real zygote behind its bare control socket, for tests that need no reactor."""

from __future__ import annotations

import json
import os
import select
import selectors
import socket
import subprocess
import textwrap
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from harp.wire.lines import MAX_REPLY
from harpd import tree
from harpd.orders import MAX_MESSAGE
from harpd.zygote_command import write_settings, zygote_command, zygote_settings
from tests.harpd.waiting import PATIENCE, wait_until

PRELUDE = """\
import os, signal, socket, subprocess, sys
from harpd.proc import Result, procedure, streaming_procedure
"""

KILL_GRACE = 0.2


def write_procedures(file: str | Path, text: str) -> str:
    """Write a procedures file, with the usual imports before it, and return its absolute path."""
    path = Path(file).absolute()
    path.write_text(PRELUDE + textwrap.dedent(text), "utf-8")
    return str(path)


def zygote_below(guard: int) -> int:
    """Wait until a guard has forked its zygote and return that one's process id."""
    found: list[int] = []

    def look() -> bool:
        for pid in tree.descendants(guard):
            with suppress(OSError), open(f"/proc/{pid}/stat") as stat:
                if int(stat.read().rpartition(")")[2].split()[1]) == guard:
                    found.append(pid)
        return bool(found)

    wait_until(look, "the fork of the zygote")
    return found[0]


class BareCall:
    """A call as its zygote's other end sees it.

    :param connection: our end of the call's own socket.
    :param output: the reading end of what it prints to.
    """

    def __init__(self, zygote: BareZygote, number: int, connection: socket.socket, output: int):
        self.number = number
        self.connection = connection
        self.zygote = zygote
        self.output = output
        self._rest = b""
        connection.settimeout(PATIENCE)

    def line(self) -> Any:
        """Wait for the next reply."""
        while b"\n" not in self._rest:
            data = self.connection.recv(65536)
            if not data:
                raise AssertionError(f"the call ended instead, with {self._rest!r}")
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return json.loads(line)

    def printed_line(self) -> bytes:
        """Wait for the next line that is printed."""
        line = b""
        while not line.endswith(b"\n"):
            if not select.select([self.output], [], [], PATIENCE)[0]:
                raise AssertionError(f"nothing more was printed after {line!r}")
            byte = os.read(self.output, 1)
            if not byte:
                raise AssertionError(f"nothing more is printed after {line!r}")
            line += byte
        return line

    def to_end(self) -> tuple[bytes, bytes]:
        """Return what is replied and what is printed until nobody holds the other ends."""
        gathered = {self.connection.fileno(): self._rest, self.output: b""}
        with selectors.DefaultSelector() as selector:
            for descriptor in gathered:
                selector.register(descriptor, selectors.EVENT_READ)
            while selector.get_map():
                ready = selector.select(PATIENCE)
                if not ready:
                    raise AssertionError(f"nothing more came after {gathered}")
                for key, _ in ready:
                    try:
                        data = os.read(key.fd, 1 << 20)
                    except ConnectionResetError:  # it ended without reading its arguments
                        data = b""
                    gathered[key.fd] += data
                    if not data:
                        selector.unregister(key.fd)
        return gathered[self.connection.fileno()], gathered[self.output]

    def exit_code(self) -> int:
        """Wait for the end of its process and return the exit status, or a signal below 0."""
        return os.waitstatus_to_exitcode(self.zygote.exited(self.number))

    def close(self) -> None:
        """Close our ends."""
        self.connection.close()
        os.close(self.output)


class BareZygote:
    """A zygote process.

    :param file: its procedures file, what it prints itself is written beside it.
    """

    def __init__(
        self,
        file: str,
        path: list[str] | None = None,
        max_line: int = MAX_REPLY,
        kill_grace: float = KILL_GRACE,
        defaults: dict[str, Any] | None = None,
    ) -> None:
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.settimeout(PATIENCE)
        self._calls: list[BareCall] = []
        self._statuses: dict[int, int] = {}
        self._log = Path(file).with_suffix(".log")
        settings = replace(
            zygote_settings(file, path or [], kill_grace),
            control=theirs.fileno(),
            max_line=max_line,
            defaults=defaults or {},
        )
        written = write_settings(settings)
        with theirs, open(self._log, "wb") as log:
            self.process = subprocess.Popen(
                zygote_command(written),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"},
                pass_fds=[theirs.fileno(), written],
            )
        os.close(written)

    def receive(self) -> Any:
        """Wait for the next message; None when its end is closed."""
        return json.loads(self.control.recv(MAX_MESSAGE) or b"null")

    def loaded(self) -> list[Any]:
        """Return the messages of its catalogue, the last says whether it is ready."""
        messages = [self.receive()]
        while messages[-1] is not None and "ready" not in messages[-1]:
            messages.append(self.receive())
        return messages

    def start(self, procedure: str, arguments: str = "[]", context: str = "{}") -> BareCall:
        """Have a call forked and hand it its arguments and context."""
        ours, theirs = socket.socketpair()
        read, write = os.pipe()
        call = BareCall(self, len(self._calls) + 1, ours, read)
        self._calls.append(call)
        message = json.dumps({"start": call.number, "procedure": procedure}).encode()
        with theirs:
            socket.send_fds(self.control, [message], [theirs.fileno(), write])
        os.close(write)
        with suppress(BrokenPipeError):  # it has ended already
            ours.sendall(f"{arguments}\n{context}\n".encode())
        return call

    def signal(self, call: BareCall, kill: bool) -> None:
        """Have TERM or KILL sent to a call's tree."""
        self.control.send(json.dumps({"signal": call.number, "kill": kill}).encode())

    def wake(self, call: BareCall) -> None:
        """Have a call see a TERM that it may not have seen."""
        self.control.send(json.dumps({"wake": call.number}).encode())

    def exited(self, number: int) -> int:
        """Wait for the end of a call's process and return its wait status."""
        while number not in self._statuses:
            message = self.receive()
            if message is None:
                raise AssertionError(f"the zygote ended: {self.printed()}")
            self._statuses[message["exited"]] = message["status"]
        return self._statuses.pop(number)

    def printed(self) -> str:
        """Return what it printed itself."""
        return self._log.read_text("utf-8")

    def close(self) -> None:
        """End it, and wait for that."""
        self.control.close()
        for call in self._calls:
            call.close()
        self.process.wait(PATIENCE)


class ZygoteTestCase(SynchronousTestCase):
    """Tests that start real zygotes, which end with the test."""

    def zygote(self, procedures: str, **settings: Any) -> BareZygote:
        """Start a zygote and take its catalogue."""
        zygote = BareZygote(write_procedures(self.mktemp(), procedures), **settings)
        self.addCleanup(zygote.close)
        self.assertEqual(zygote.loaded()[-1], {"ready": True})
        return zygote

    def start(
        self, procedures: str, arguments: str = "[]", context: str = "{}", **settings: Any
    ) -> BareCall:
        """Start a call of the procedure ``f`` in a zygote of its own."""
        return self.zygote(procedures, **settings).start("f", arguments, context)
