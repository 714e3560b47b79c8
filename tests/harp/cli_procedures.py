"""The procedures that the tests of the ``harp`` command call."""

import os
import time
from collections.abc import Iterator
from typing import Any, Literal

from harpd.proc import Result, Secret, procedure, streaming_procedure


@procedure
def greet(name: str, greeting: str = "Hello", times: int = 1) -> dict[str, Any]:
    """Greet somebody.

    As often as is said.
    """
    return {"text": f"{greeting}, {name}!", "times": times, "found": None}


@procedure
def echo(*values: Any, **named: Any) -> Any:
    """Return what came in."""
    return list(values) or named


@procedure
def fail(message: str) -> None:
    """Raise."""
    raise LookupError(message)


@procedure
def obey() -> dict[str, str]:
    """Return what a terminal would obey."""
    return {"\x1b]0;owned\x07": "\x9b31m\u202e"}


@procedure
def set_password(user: str, password: Secret, strength: Literal["weak", "strong"] = "weak") -> str:
    """Tell of a password what may be told."""
    return f"{user}: {len(password)} characters, {strength}"


@procedure(timeout=0.2)
def stall() -> None:
    """Say nothing for longer than the daemon waits."""
    time.sleep(3600)


@procedure
def wait(path: str) -> str:
    """Return when a file is there."""
    _wait(path)
    return "waited"


@streaming_procedure
def count(number: int) -> Iterator[Any]:
    """Stream numbers, then return how many there were."""
    yield from range(number)
    yield Result({"packets": number})


@streaming_procedure
def steps(path: str) -> Iterator[Any]:
    """Stream a packet and how far the work is; the rest of it when a file is there."""
    yield {"step": "first"}
    yield {"progress": {"done": 1, "total": 4, "unit": "files"}}
    _wait(path)
    yield {"step": "last", "progress": {"done": 4, "total": 4, "unit": "files"}}
    yield Result(None)


def _wait(path: str) -> None:
    while not os.path.exists(path):
        time.sleep(0.01)
