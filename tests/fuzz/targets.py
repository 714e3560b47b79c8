"""The properties by the names under which they are tried, and the inputs kept for each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.fuzz import files, wire

TARGETS: dict[str, Callable[[bytes], object]] = {
    "wire_dispatcher_request": wire.dispatcher_request,
    "wire_dispatcher_reply": wire.dispatcher_reply,
    "wire_harpd_request": wire.harpd_request,
    "wire_harpd_reply": wire.harpd_reply,
    "lines": wire.lines,
    "orders": wire.order,
    "harpd_config": files.harpd_config,
    "harpcaller_config": files.harpcaller_config,
    "hosts_file": files.hosts_file,
    "passfile": files.passfile,
}

_CORPUS = Path(__file__).parent / "corpus"


def corpus(target: str) -> Path:
    """Return the folder with the inputs kept for a target."""
    return _CORPUS / target


def samples(target: str) -> list[bytes]:
    """Return the inputs kept for a target."""
    return [file.read_bytes() for file in sorted(corpus(target).iterdir())]
