"""A harpd that runs nothing, for what is to be measured without processes of calls.

Its TLS and its protocol are real. It answers each call at once with the call's arguments,
acknowledgement and end result in one write. A call of ``hold`` is acknowledged and gets no end
result until all are let go. It is a process of its own with one thread and no library in the way,
so that it is not what is measured.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from harp.wire import harpd
from harp.wire.lines import LineReader
from harp.wire.results import EndKind, EndResult

HOLD = "hold"
"""The procedure that does not end."""

_BACKLOG = 4096
_ACK = harpd.encode_reply(harpd.Ack(False))


class StandIn:
    """The process, as seen from another one. It ends with the ``with`` block.

    :param folder: where ``harpd.pem`` and ``harpd.key`` are.
    """

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.standin", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parent.parent,
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout
        self.port = int(self._out.readline())

    def __enter__(self) -> StandIn:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.communicate()

    def held(self) -> int:
        """Return how many calls wait for their end now."""
        return self._ask(b"count\n")["held"]

    def answered(self) -> int:
        """Return how many calls have got their end so far."""
        return self._ask(b"count\n")["answered"]

    def let_go(self) -> None:
        """Answer all that are held, and from now on every call."""
        self._ask(b"let go\n")

    def _ask(self, line: bytes) -> dict[str, int]:
        self._in.write(line)
        self._in.flush()
        return json.loads(self._out.readline())  # type: ignore[no-any-return]


class _Connection:
    """One TLS connection, with one call at a time."""

    def __init__(self, server: _Server, tls: ssl.SSLSocket) -> None:
        self.tls = tls
        self._server = server
        self._reader = LineReader(1 << 20)
        self._request: harpd.CallRequest | None = None

    def read(self) -> None:
        """Take what has come; the handshake is part of it."""
        try:
            while data := self.tls.recv(65536):
                self._reader.feed(data)
                while (line := self._reader.next_line()) is not None:
                    self._called(line)
        except ssl.SSLWantReadError:
            return
        except OSError:
            pass
        self._server.drop(self)

    def answer(self) -> None:
        """End the call."""
        assert self._request is not None
        self._end(b"", self._request)

    def _called(self, line: bytes) -> None:
        request = harpd.decode_request_line(line)
        assert isinstance(request, harpd.CallRequest)
        if request.procedure == HOLD and self._server.holds:
            self._request = request
            self._server.held.add(self)
            self.tls.send(_ACK)
        else:
            self._end(_ACK, request)

    def _end(self, ack: bytes, request: harpd.CallRequest) -> None:
        end = EndResult(EndKind.RESULT, bytes(request.arguments))
        self.tls.send(ack + harpd.encode_reply(end))
        self._server.answered += 1
        if not request.keepalive:
            with suppress(OSError):
                self.tls.unwrap()
            self._server.drop(self)


class _Server:
    def __init__(self, folder: Path) -> None:
        self.holds = True
        self.held: set[_Connection] = set()
        self.answered = 0
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(folder / "harpd.pem", folder / "harpd.key")
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
        self._listening.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._when_readable(self._listening, self._accept)

    def serve(self) -> None:
        """Say on which port it is, then work until standard input is closed."""
        self._when_readable(0, self._obey)
        print(self._listening.getsockname()[1], flush=True)
        while True:
            for key, _ in self._selector.select():
                key.data()

    def drop(self, connection: _Connection) -> None:
        """Close a connection."""
        self.held.discard(connection)
        with suppress(KeyError, ValueError):
            self._selector.unregister(connection.tls)
        connection.tls.close()

    def _when_readable(self, file: Any, do: Callable[[], None]) -> None:
        self._selector.register(file, selectors.EVENT_READ, do)

    def _accept(self) -> None:
        with suppress(BlockingIOError):
            while True:
                plain, _ = self._listening.accept()
                plain.setblocking(False)
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                tls = self._context.wrap_socket(
                    plain, server_side=True, do_handshake_on_connect=False
                )
                connection = _Connection(self, tls)
                self._when_readable(tls, partial(_Connection.read, connection))

    def _obey(self) -> None:
        line = os.read(0, 4096)
        if not line:
            sys.exit(0)
        if line == b"let go\n":
            self.holds = False
            for connection in list(self.held):
                self.held.discard(connection)
                connection.answer()
        print(json.dumps({"held": len(self.held), "answered": self.answered}), flush=True)


if __name__ == "__main__":
    _Server(Path(sys.argv[1])).serve()
