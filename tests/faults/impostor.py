"""A harpd that says what it should not: half lines, wrong JSON, wrong order, no end."""

from __future__ import annotations

import random
import socket
import ssl
import threading
from pathlib import Path

ACK = b'{"harp":1,"stream_result":false}\n'

WAYS = (
    "random bytes",
    "half a line",
    "endless line",
    "endless packets",
    "wrong JSON",
    "wrong order",
    "wrong types",
    "two ends",
    "packets of no stream",
    "silence",
    "silence behind the acknowledgement",
    "close",
    "too deep",
    "not UTF-8",
)

QUIET = {"silence", "silence behind the acknowledgement", "half a line"}
"""Those after which it says nothing more."""

_ENDLESS = 64 << 20  # bytes, more than any line may have


class Impostor:
    """Listens with harpd's own certificate, and answers every request in the way that is set.

    :param folder: that of a deployment, where its certificate is.
    :ivar way: one of `WAYS`.
    :ivar asked: how many requests came.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.way = "close"
        self.asked = 0
        self._choice = random.Random(seed)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(folder / "harpd.pem", folder / "harpd.key")
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=50)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._listen, daemon=True).start()

    def end(self) -> None:
        """Listen no more."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _listen(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(plain,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        plain.settimeout(60)
        try:
            with plain, self._context.wrap_socket(plain, server_side=True) as connection:
                while self._request(connection):
                    self.asked += 1
                    self._answer(connection)
                    if self.way not in QUIET:
                        return
        except OSError:  # the dispatcher does not bear it for long
            return

    def _request(self, connection: ssl.SSLSocket) -> bool:
        data = b""
        while not data.endswith(b"\n"):
            if not (more := connection.recv(65536)):
                return False
            data += more
        return True

    def _answer(self, connection: ssl.SSLSocket) -> None:
        choice = self._choice
        match self.way:
            case "random bytes":
                connection.sendall(choice.randbytes(choice.randrange(1, 5000)) + b"\n")
            case "half a line":
                connection.sendall(ACK[: choice.randrange(1, len(ACK) - 1)])
            case "endless line":
                connection.sendall(ACK + b'{"result":"')
                self._without_end(connection, b"x" * 65536)
            case "endless packets":
                connection.sendall(ACK.replace(b"false", b"true"))
                self._without_end(connection, b'{"stream":1,"result":2}\n' * 1000)
            case "wrong JSON":
                connection.sendall(
                    choice.choice([b"{}\n", b"[]\n", b"null\n", b'{"harp":2}\n', b'{"harp":1,,}\n'])
                )
            case "wrong order":
                connection.sendall(choice.choice([b'{"stream":1}\n', b'{"result":1}\n']) + ACK)
            case "wrong types":
                connection.sendall(ACK + b'{"error":[1,2]}\n{"exception":7}\n')
            case "two ends":
                connection.sendall(ACK + b'{"result":1}\n{"result":2}\n')
            case "packets of no stream":
                connection.sendall(ACK + b'{"stream":1}\n{"result":1}\n')
            case "silence behind the acknowledgement":
                connection.sendall(ACK)
            case "too deep":
                connection.sendall(ACK + b'{"result":' + b"[" * 100_000 + b"\n")
            case "not UTF-8":
                connection.sendall(ACK + b'{"result":"\xff\xfe"}\n')

    def _without_end(self, connection: ssl.SSLSocket, data: bytes) -> None:
        for _ in range(_ENDLESS // len(data)):
            connection.sendall(data)
