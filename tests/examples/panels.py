"""The deployment that the three examples use, and what a test does with each of them.

The daemons are real and shared. An application runs in the process of the tests, in the hands of
its framework's own test client, and for one test as a server too.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import harp
from harpcaller.demo.deployment import Deployment
from harpcaller.demo.ports import free_port
from tests.acceptance.daemons import PATIENCE, deploy, eventually

EXAMPLES = Path(__file__).parents[2] / "examples"
TOKEN = "harp_token-of-the-panel"
PASSWORD = "correct horse battery staple"
PEOPLE = ("ada", "bob")


@cache
def deployment() -> Deployment:
    """Return the running daemons; the dispatcher trusts the panel."""
    token = f"sha256:{hashlib.sha256(TOKEN.encode()).hexdigest()}"
    found = deploy(
        EXAMPLES / "procedures.py",
        users={"panel": {"tokens": [token], "trusted": True}},
        rules=[{"who": "panel", "call": "back_up", "see": "own", "cancel": "own"}],
    )
    return found.__enter__()


def dispatcher(port: int | None = None) -> harp.HarpCaller:
    """Return a client of its own, as the panel."""
    return harp.HarpCaller("127.0.0.1", port or deployment().port, token=TOKEN)


def environment() -> dict[str, str]:
    """Return the variables that the applications read."""
    folder = deployment().folder
    return {
        "HARP_HOST": "127.0.0.1",
        "HARP_PORT": str(deployment().port),
        "HARP_TOKEN": TOKEN,
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "DJANGO_SECRET_KEY": "of the sessions of django",
        "DJANGO_DATABASE": f"{folder}/django.db",
        "FLASK_SECRET_KEY": "of the sessions of flask",
        "FLASK_DATABASE": f"{folder}/flask.db",
        "APP_SECRET_KEY": "of the sessions of fastapi",
        "APP_DATABASE": f"{folder}/fastapi.db",
    }


@contextmanager
def surroundings(folder: Path) -> Iterator[None]:
    """Have an application find its modules and its environment."""
    before = dict(os.environ)
    os.environ.update(environment())
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        os.environ.clear()
        os.environ.update(before)


@dataclass(frozen=True)
class Answer:
    """What an application said.

    :param job_id: of the backup that was started, None if none was.
    """

    status: int
    text: str
    job_id: str | None = None

    def __post_init__(self) -> None:
        assert TOKEN not in self.text


class Panel(Protocol):
    """An application, as somebody who uses it with a browser sees it."""

    folder: Path
    command: list[str]
    """What makes it a server; its port comes behind that."""

    def start(self, person: str | None, database: str, key: str) -> Answer:
        """Start a backup."""

    def show(self, person: str | None, job_id: str) -> Answer:
        """Look at it."""

    def cancel(self, person: str | None, job_id: str) -> Answer:
        """Cancel it."""

    def events(self, person: str | None, job_id: str, last: int | None = None) -> Answer:
        """Follow it to its end."""

    def index(self, person: str | None) -> Answer:
        """Look at the list of all."""

    def record(self, person: str, job_id: str) -> None:
        """Write down a job that the dispatcher does not know."""

    def cookie(self, person: str) -> str:
        """Return the cookie of the person's session."""

    def use(self, rpc: harp.HarpCaller) -> Any:
        """Have it ask another dispatcher, and return what brings the first one back."""


class Server:
    """An application in a process of its own."""

    def __init__(self, panel: Panel) -> None:
        self.port = free_port()
        self.log = deployment().folder / f"{panel.folder.name}.log"
        with open(self.log, "wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *panel.command, str(self.port)],
                cwd=panel.folder,
                env={**os.environ, **environment(), "PYTHONUNBUFFERED": "1"},
                stdout=log,
                stderr=log,
            )
        eventually(self._answers, f"{panel.folder.name} answers")

    def _answers(self) -> bool:
        assert self._process.poll() is None, self.log.read_text()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request("HEAD", "/")
            return connection.getresponse().status > 0
        except OSError:
            return False
        finally:
            connection.close()

    @contextmanager
    def following(self, path: str, cookie: str, **headers: str) -> Iterator[Iterator[str]]:
        """Ask for a stream of events and yield its lines as they come."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request("GET", path, headers={"Cookie": cookie, **headers})
            with connection.getresponse() as response:
                assert response.status == 200, response.read()
                kind = response.headers["Content-Type"]
                assert kind.startswith("text/event-stream"), kind
                yield (line.decode().rstrip("\n") for line in response)
        finally:
            connection.close()

    def stop(self) -> None:
        """End it; it has nothing to keep."""
        self._process.kill()
        self._process.wait()
