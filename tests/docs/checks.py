"""Looks at the blocks of code that are not run: whether what they show is so."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.__main__ import BENCHMARKS
from harp.errors import RemoteProtocolError
from harp.wire import dispatcher, harpd
from harpcaller.demo.deployment import Deployment
from tests.docs import configurations
from tests.docs.commands import look_at, options_of
from tests.docs.pages import ROOT, Block


def check(block: Block, deployment: Deployment) -> None:
    """Look at a block.

    :param deployment: whose files stand for those that a configuration names; it need not run.
    :raises AssertionError: if what it shows is not so.
    """
    match block.kind:
        case "config":
            configurations.check(block, deployment)
        case "commands":
            look_at(block)
        case _:
            _CHECKS[str(block.kind)](block)


def _file(block: Block) -> None:
    file = ROOT / block.of
    if block.text.strip("\n") not in file.read_text("utf-8"):
        raise AssertionError(f"{block.place}: this does not stand in {block.of}")
    tests = "\n".join(test.read_text("utf-8") for test in (ROOT / "tests").rglob("test_*.py"))
    if file.name not in tests:
        raise AssertionError(f"{block.place}: no test names {file.name}")


_VALUES = {
    "LIST-OR-OBJECT": "[]",
    "OBJECT": "{}",
    "VALUE": "null",
    "SECONDS": "1",
    "N": "1",
    "true|false": "true",
}
"""What stands for the words of the protocol page; for all others a text does."""

_WORD = re.compile(r'"(?:[^"\\]|\\.)*"|true\|false|\b[A-Z][A-Z-]*\b')
_SAMPLE = '"x"'


def _protocol(block: Block) -> None:
    codec: Any = {"harpd": harpd, "dispatcher": dispatcher}[block.of]
    for number, line in enumerate(block.text.splitlines(), block.line):
        text = _WORD.sub(
            lambda match: match[0] if match[0][0] == '"' else _VALUES.get(match[0], _SAMPLE), line
        )
        try:
            said = json.loads(text)
            kind = _understood(codec, json.dumps(said, separators=(",", ":")).encode())
        except (ValueError, RemoteProtocolError) as error:
            raise AssertionError(f"{block.page}:{number}: {text}: {error}") from error
        if kind is not None and kind != said:
            raise AssertionError(f"{block.page}:{number}: {said} is understood as {kind}")


def _understood(codec: Any, line: bytes) -> Any:
    """Return a reply as it is written again; None for a request, of which each key is known."""
    try:
        codec.decode_request_line(line)
    except RemoteProtocolError as error:
        try:
            return json.loads(codec.encode_reply(codec.decode_reply_line(line)))
        except RemoteProtocolError as second:
            raise second from error
    return None


_LOG_KEYS = {"time", "level", "logger", "message", "audit", "traceback"}
"""Of `harp.logfile.line_of`."""


def _log(block: Block) -> None:
    for number, line in enumerate(block.text.splitlines(), block.line):
        told = json.loads(line)
        if not {"time", "level", "logger", "message"} <= told.keys() <= _LOG_KEYS:
            raise AssertionError(f"{block.page}:{number}: {sorted(told)} are not a line's keys")
        if not _is_logger(told["logger"], block.of):
            text = f"{told['logger']} is no logger of {block.of}"
            raise AssertionError(f"{block.page}:{number}: {text}")


def _is_logger(name: str, daemon: str) -> bool:
    """Return whether it is one of a daemon's modules, or one of a class, with the class's name."""
    module, _, owner = name.rpartition(".")
    for file in (ROOT / daemon).rglob("*.py"):
        source = file.read_text("utf-8")
        if re.search(rf'(?m)^_log = [lL]ogger\("{re.escape(name)}"\)', source):
            return True
        if file == ROOT / f"{module.replace('.', '/')}.py":
            return " _log = " in source and bool(re.search(rf"(?m)^class {owner}\b", source))
    return False


_SECTIONS = {"Unit", "Service", "Socket", "Install"}


def _unit(block: Block) -> None:
    """Have systemd look at the unit with this in its drop-in folder."""
    sections = re.findall(r"^\[(\w+)\]$", block.text, re.MULTILINE)
    if not sections or not _SECTIONS.issuperset(sections):
        raise AssertionError(f"{block.place}: no sections of a unit: {sections}")
    if shutil.which("systemd-analyze") is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        unit = Path(folder) / block.of
        # The program is not installed here.
        text = (ROOT / "etc" / block.of).read_text("utf-8")
        unit.write_text(re.sub("(?m)^Exec(Start|Reload)=.*$", r"Exec\1=/bin/true", text))
        drop_in = Path(f"{unit}.d") / "page.conf"
        drop_in.parent.mkdir()
        drop_in.write_text(block.text)
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", str(unit)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    if done.stderr:
        raise AssertionError(f"{block.place}: {done.stderr}")


def _usage(block: Block) -> None:
    for line in block.text.splitlines():
        known = options_of(line)
        for option in re.findall(r"--[\w-]+", line):
            if option not in known:
                raise AssertionError(f"{block.place}: {line}: there is no {option}")


def _drawing(block: Block) -> None:
    if not re.search("[─│┌└├]{2}", block.text):
        raise AssertionError(f"{block.place}: no drawing")


def _figures(block: Block) -> None:
    for line in block.text.splitlines():
        name = line.split(" ")[0].rstrip(",")
        if name not in {"name", *BENCHMARKS} and not re.fullmatch(r"\d+ seconds", line):
            raise AssertionError(f"{block.place}: there is no benchmark {name}")


_CHECKS: dict[str, Callable[[Block], None]] = {
    "file": _file,
    "protocol": _protocol,
    "log": _log,
    "unit": _unit,
    "usage": _usage,
    "drawing": _drawing,
    "figures": _figures,
}
