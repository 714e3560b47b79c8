"""Properties of everything that reads what an operator wrote; each takes any bytes at all.

A file is read or every mistake in it is told: by ``ConfigError`` and nothing else, in printable
text. They return the mistakes.
"""

from __future__ import annotations

import atexit
import importlib
import stat
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest import mock

from harp.settings import ConfigError
from harpcaller import config as dispatcher
from harpcaller.hosts.file import load_hosts_file
from harpd import config as harpd
from tests.harpd.certificates import write_configuration

SECRET = "s3cret-pa55word"
"""Stands in samples where passwords stand, and in no mistake."""


def harpd_config(data: bytes) -> list[str]:
    """Check harpd's configuration."""
    with mock.patch.object(harpd, "importlib", SimpleNamespace(import_module=_own_module)):
        return _mistakes(lambda file: harpd.load(file, _contents), "harpd.yaml", data)


def harpcaller_config(data: bytes) -> list[str]:
    """Check the dispatcher's configuration, with users and rules."""
    return _mistakes(dispatcher.load, "harpcaller.yaml", data)


def hosts_file(data: bytes) -> list[str]:
    """Check the file of hosts, in YAML and in lines of JSON."""
    return hosts_yaml(data) + hosts_lines(data)


def hosts_yaml(data: bytes) -> list[str]:
    """Check it in YAML only."""
    return _mistakes(load_hosts_file, "hosts.yaml", data)


def hosts_lines(data: bytes) -> list[str]:
    """Check it in lines of JSON only."""
    return _mistakes(load_hosts_file, "hosts.json", data)


def passfile(data: bytes) -> list[str]:
    """Check a password file."""
    (folder() / "passwd").write_bytes(data)
    users = "authentication: {module: harpd.auth.passfile, file: passwd}"
    network = "network: {certfile: cert.pem, keyfile: key.pem}"
    return _mistakes(harpd.load, "with_passwd.yaml", f"{network}\n{users}\n".encode())


@cache
def folder() -> Path:
    """Return a folder with the files that configurations name, it goes with the process."""
    made = tempfile.TemporaryDirectory()
    atexit.register(made.cleanup)
    path = Path(made.name)
    write_configuration(path)
    script = path / "list-hosts"
    script.write_text("#!/bin/sh\n")
    script.chmod(stat.S_IRWXU)
    return path


def _mistakes(load: Callable[[Path], object], name: str, data: bytes) -> list[str]:
    file = folder() / name
    file.write_bytes(data)
    try:
        load(file)
    except ConfigError as error:
        assert error.mistakes
        for mistake in error.mistakes:
            assert mistake.startswith(f"{file}: "), mistake
            assert mistake.isprintable(), ascii(mistake)
            # A few names and texts of the file, which escapes make longer, and our own words.
            assert len(mistake) < 2000 + 50 * len(data), mistake
        return error.mistakes
    return []


def _contents(file: Path) -> bytes:
    # Not what a fuzzer may think of: there are devices that never end.
    if file.absolute().parent != folder():
        raise FileNotFoundError(2, "No such file or directory")
    return file.read_bytes()


def _own_module(name: str) -> ModuleType:
    # Nor every module: to import some does something.
    if not name.startswith("harpd.auth."):
        raise ImportError("it is not ours")
    return importlib.import_module(name)
