"""The deployment that tests share, because daemons take a second to start, and looks at it."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import socket
import ssl
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from harpcaller.demo.deployment import HOST, PASSWORD, USER, Deployment

PROCEDURES = Path(__file__).with_name("procedures.py")

PATIENCE = 20.0
"""Seconds after which what a test waits for is taken never to come."""

__all__ = ["HOST", "PASSWORD", "USER"]


def deploy(
    procedures: Path = PROCEDURES, harpd: Mapping[str, Any] | None = None, **limits: Any
) -> Deployment:
    """Return a deployment in a folder of its own, not started; it goes with the test run.

    :param procedures: its procedures file.
    :param harpd: more keys for harpd's configuration.
    :param limits: more keys for the dispatcher's configuration.
    """
    folder = Path(tempfile.mkdtemp(prefix="harpcaller-test-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    deployment = Deployment(folder, procedures, limits, harpd)
    atexit.register(deployment.stop)
    return deployment


@cache
def shared() -> Deployment:
    """Return the running deployment that tests use if they do not stop or break it."""
    return deploy().__enter__()


def eventually(condition: Callable[[], bool], what: str) -> None:
    """Return as soon as the condition holds; fail if it does not come to that."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"it did not come about that {what}")
        time.sleep(0.005)  # between two looks, not in place of one


def is_alive(pid: int) -> bool:
    """Tell whether a process is there and not a zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except OSError:
        return False
    return state != b"Z"


def children(pid: int) -> set[int]:
    """Return the processes whose parent this is, zombies too."""
    found = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                stat = Path(f"/proc/{name}/stat").read_bytes()
            except OSError:
                continue
            if int(stat.rpartition(b")")[2].split()[1]) == pid:
                found.add(int(name))
    return found


def harpd_processes(deployment: Deployment) -> dict[str, int | None]:
    """Return the processes below harpd, of a zygote the newest; None for what is not there yet."""
    assert deployment.harpd.process is not None
    keeper = max(children(deployment.harpd.process.pid), default=None)
    guard = None if keeper is None else max(children(keeper), default=None)
    zygote = None if guard is None else max(children(guard), default=None)
    return {"keeper": keeper, "guard": guard, "zygote": zygote}


def descriptors(pid: int) -> int:
    """Return how many descriptors a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def resident_kib(pid: int) -> int:
    """Return how much memory of a process is resident."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("no VmRSS")


def ask_dispatcher(deployment: Deployment, line: bytes, half_close: bool = False) -> bytes:
    """Send bytes to the dispatcher and return all that it answers until it closes.

    :param half_close: whether to end our direction behind them.
    """
    with socket.create_connection(("127.0.0.1", deployment.port), PATIENCE) as connection:
        return _exchange(connection, line, half_close)


def connect_harpd(deployment: Deployment) -> ssl.SSLSocket:
    """Return a TLS connection to harpd."""
    context = ssl.create_default_context(cafile=str(deployment.ca_file))
    plain = socket.create_connection(("127.0.0.1", deployment.harpd_port), PATIENCE)
    return context.wrap_socket(plain, server_hostname=HOST)


def ask_harpd(deployment: Deployment, line: bytes) -> bytes:
    """Send bytes to harpd and return all that it answers until it closes."""
    with connect_harpd(deployment) as connection:
        return _exchange(connection, line)


def harpd_request(
    procedure: str, arguments: Any, user: str = USER, password: str = PASSWORD
) -> bytes:
    """Return the line of a call of harpd, as json of the standard library writes it."""
    request = {
        "harp": 1,
        "procedure": procedure,
        "arguments": arguments,
        "auth": {"user": user, "password": password},
    }
    return json.dumps(request).encode() + b"\n"


def _exchange(connection: socket.socket, line: bytes, half_close: bool = False) -> bytes:
    connection.sendall(line)
    if half_close:
        connection.shutdown(socket.SHUT_WR)
    answer = b""
    while data := connection.recv(65536):
        answer += data
    return answer
