"""The part of ``harp check`` that looks at this machine's files: what the daemons are given.

A daemon itself says what is wrong with its configuration (``--test``), for it alone knows.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harp.cli.findings import Finding, State, of_certificate

TEST_LIMIT = 60
"""Seconds for a daemon to read its configuration; harpd's procedures may load much."""

_TWISTD = "from twisted.scripts.twistd import run; run()"
_PEM_KEYS = {
    "harpcaller": ("ca_file", "client_ca_file", "known_certs_file"),
    "harpd": ("network.certfile",),
}
_LISTEN_FILE = re.compile(r"(?:^|:)(certKey|privateKey)=((?:[^:\\]|\\.)+)")


def look(daemon: str, file: Path, more: dict[str, Path], warn_days: float) -> Iterator[Finding]:
    """Look at the configuration of a daemon and at the certificates that it names.

    :param daemon: ``harpd`` or ``harpcaller``.
    :param more: further options of the daemon that name files.
    """
    subject = f"configuration {file}"
    if not os.access(file, os.R_OK):
        yield Finding(State.SKIPPED, subject, "not readable for this user")
        return
    yield _tested(daemon, file, more, subject)
    for name, path in _pem_files(daemon, file):
        yield _certificates(name, path, warn_days)


def _tested(daemon: str, file: Path, more: dict[str, Path], subject: str) -> Finding:
    options = [f"--config={file}", *(f"--{name}={path}" for name, path in more.items()), "--test"]
    command = [sys.executable, "-P", "-c", _TWISTD, daemon, *options]
    try:
        done = subprocess.run(  # noqa: S603 - no shell, and no foreign words
            command,
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=TEST_LIMIT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding(State.ERROR, subject, f"could not be tested: {error}")
    said = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    if done.returncode == 0:
        return Finding(State.OK, subject, "in order")
    if not said:  # it is not twistd's option --test that failed
        said = done.stderr.splitlines()[-1:] or [f"twistd ended with status {done.returncode}"]
    return Finding(State.ERROR, subject, "; ".join(said), {"mistakes": said})


def _pem_files(daemon: str, file: Path) -> Iterator[tuple[str, Path]]:
    """Return the files of certificates that a configuration names, each with its key."""
    keys = _read(file)
    for key in _PEM_KEYS[daemon]:
        value: Any = keys
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if isinstance(value, str):
            yield key, file.parent / value
    listen = keys.get("listen", [])
    for description in [listen] if isinstance(listen, str) else listen:
        if isinstance(description, str) and description.startswith("ssl:"):
            found = dict(_LISTEN_FILE.findall(description))
            path = found.get("certKey") or found.get("privateKey")
            if path is not None:
                yield "listen", file.parent / path.replace("\\:", ":")


def _read(file: Path) -> dict[str, Any]:
    import yaml

    try:
        found = yaml.safe_load(file.read_bytes())
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return {}  # the daemon has told that
    return found if isinstance(found, dict) else {}


def _certificates(name: str, path: Path, warn_days: float) -> Finding:
    from cryptography import x509

    subject = f"{name} {path}"
    try:
        found = x509.load_pem_x509_certificates(path.read_bytes())
    except FileNotFoundError:
        return Finding(State.SKIPPED, subject, "there is no such file")
    except PermissionError:
        return Finding(State.SKIPPED, subject, "not readable for this user")
    except (OSError, ValueError) as error:
        return Finding(State.ERROR, subject, f"no certificates can be read: {error}")
    first = min(found, key=lambda each: each.not_valid_after_utc)
    state, text = of_certificate(first.not_valid_before_utc, first.not_valid_after_utc, warn_days)
    if len(found) > 1:
        text = f"{len(found)} certificates, of the first to end: {text}"
    facts = {"ends": first.not_valid_after_utc.timestamp()}
    return Finding(state, subject, f"{text} ({first.subject.rfc4514_string()})", facts)
