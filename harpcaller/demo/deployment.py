"""Both daemons with all that they need, in one folder: certificates, passwords, configurations."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import trustme
import yaml
from passlib.hash import sha512_crypt

from harpcaller.demo.ports import free_port

HOST = "web01.example.net"
"""The name under which the hosts registry has this machine."""

USER, PASSWORD = "panel", "correct horse battery staple"

START_LIMIT = 30.0
STOP_LIMIT = 20.0
_POLL = 0.02


class StartError(Exception):
    """A daemon did not become ready; the text is its log."""


class Daemon:
    """One twistd process.

    :param folder: where it runs and has its log.
    :param name: ``harpd`` or ``harpcaller``.
    :param options: of its own command line.
    :ivar prefix: the command that is to start it, if any; it must become it (exec).
    :ivar inherited: descriptors that it gets under their numbers.
    :ivar environment: variables that it gets beside those that are there.
    """

    def __init__(self, folder: Path, name: str, options: list[str]) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._folder = folder
        twistd = str(Path(sys.executable).with_name("twistd"))
        self._command = [twistd, "--nodaemon", "--pidfile=", name, *options]
        self.prefix: list[str] = []
        self.inherited: list[int] = []
        self.environment: dict[str, str] = {}
        self.process: subprocess.Popen[bytes] | None = None

    def profile(self, file: Path) -> None:
        """Have it profile its reactor's thread from the next start on.

        :param file: written when it ends, for ``pstats``.
        """
        self._command[1:1] = ["--savestats", "--profiler=cProfile", f"--profile={file.absolute()}"]

    def start(self) -> None:
        """Start it and wait until it says that it is ready.

        :raises StartError: if it ends instead, or says nothing.
        """
        seen = self.log.stat().st_size if self.log.exists() else 0
        with open(self.log, "ab") as log:
            # A session of its own: Ctrl-C is for who started it.
            self.process = subprocess.Popen(
                [*self.prefix, *self._command],
                cwd=self._folder,
                env={**os.environ, **self.environment},
                stdout=log,
                stderr=log,
                pass_fds=self.inherited,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_LIMIT
        while f"{self.name} is ready".encode() not in (said := self._said_since(seen)):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise StartError(said.decode(errors="replace"))
            time.sleep(_POLL)

    def _said_since(self, seen: int) -> bytes:
        with open(self.log, "rb") as log:
            log.seek(seen)
            return log.read()

    def stop(self) -> int | None:
        """End it as an operator would, and return its exit status; None if it did not run."""
        process, self.process = self.process, None
        if process is None:
            return None
        process.terminate()
        try:
            return process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            self.process = process
            self.kill()
            raise

    def kill(self) -> None:
        """End it as a power failure would."""
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.wait()


class Deployment:
    """A dispatcher and a harpd that know each other, stopped when the ``with`` block ends.

    :param folder: all files are made in it.
    :param procedures: the procedures file, which is copied.
    :param limits: more keys for the dispatcher's configuration.
    :param harpd: more keys for harpd's.
    """

    def __init__(
        self,
        folder: Path,
        procedures: Path,
        limits: Mapping[str, Any] | None = None,
        harpd: Mapping[str, Any] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder = folder.absolute()
        self.harpd_port, self.port = free_port(), free_port()
        self.ca_file = folder / "ca.pem"
        self.procedures = folder / "procedures.py"
        shutil.copy(procedures, self.procedures)
        self.make_certificates()
        write_password(folder / "passwords", USER, PASSWORD)
        self.configure_harpd(harpd or {})
        self.set_hosts({HOST: self.host_entry()})
        script = folder / "list-hosts"
        script.write_text(f"#!/bin/sh\nexec cat '{folder}/hosts.jsonl'\n")
        script.chmod(0o755)
        self.configure_harpcaller(limits or {})
        self.harpd = Daemon(
            folder, "harpd", ["--config=harpd.yaml", f"--procedures={self.procedures}"]
        )
        self.harpcaller = Daemon(folder, "harpcaller", ["--config=harpcaller.yaml"])

    def __enter__(self) -> Deployment:
        try:
            self.harpd.start()
            self.harpcaller.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End both daemons."""
        try:
            self.harpcaller.stop()
        finally:
            self.harpd.stop()

    def host_entry(self, **changes: Any) -> dict[str, Any]:
        """Return this harpd's entry for the hosts registry, without the name."""
        entry = {
            "address": "127.0.0.1",
            "port": self.harpd_port,
            "credentials": {"user": USER, "password": PASSWORD},
        }
        return {**entry, **changes}

    def set_hosts(self, hosts: Mapping[str, Mapping[str, Any]]) -> None:
        """Set what the dispatcher's hosts script prints from now on."""
        lines = [json.dumps({"hostname": name, **entry}) for name, entry in hosts.items()]
        _write_private(self.folder / "hosts.jsonl", "\n".join([*lines, ""]).encode())

    def configure_harpd(self, changes: Mapping[str, Any]) -> None:
        """Write harpd's configuration, with other keys or values than it would have."""
        _write_yaml(self.folder / "harpd.yaml", {**self._harpd_config(), **changes})

    def configure_harpcaller(self, changes: Mapping[str, Any]) -> None:
        """Write the dispatcher's configuration, with other keys or values than it would have.

        :param changes: None takes a key away.
        """
        keys = {**self._harpcaller_config(), **changes}
        keys = {key: value for key, value in keys.items() if value is not None}
        _write_yaml(self.folder / "harpcaller.yaml", keys)

    def make_certificates(self, *addresses: str) -> None:
        """Make a new authority and a certificate that it has signed for harpd.

        :param addresses: more of those that it has.
        """
        authority = trustme.CA()
        certificate = authority.issue_cert(HOST, "127.0.0.1", *addresses)
        authority.cert_pem.write_to_path(str(self.ca_file))
        chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
        (self.folder / "harpd.pem").write_bytes(chain)
        _write_private(self.folder / "harpd.key", certificate.private_key_pem.bytes())

    def _harpd_config(self) -> dict[str, Any]:
        return {
            "network": {
                "address": "127.0.0.1",
                "port": self.harpd_port,
                "certfile": str(self.folder / "harpd.pem"),
                "keyfile": str(self.folder / "harpd.key"),
            },
            "authentication": {
                "module": "harpd.auth.passfile",
                "file": str(self.folder / "passwords"),
            },
            "shutdown_grace": 0.5,  # nobody waits for the calls of a demo or a test
        }

    def _harpcaller_config(self) -> dict[str, Any]:
        return {
            "listen": [f"127.0.0.1:{self.port}"],
            "database": f"sqlite:///{self.folder}/jobs.db",
            "host_db_script": str(self.folder / "list-hosts"),
            "host_db": str(self.folder / "hosts.cache"),
            "ca_file": str(self.ca_file),
            "shutdown_grace": 1,
        }


def write_password(file: Path, user: str, password: str) -> None:
    """Write a password file with this user alone, for harpd."""
    _write_private(file, f"{user}:{_hash(password)}\n".encode())


def _write_private(file: Path, data: bytes) -> None:
    file.touch(mode=0o600)
    file.write_bytes(data)


def _write_yaml(file: Path, keys: Mapping[str, Any]) -> None:
    file.write_text(yaml.safe_dump(dict(keys), sort_keys=False))


def _hash(password: str) -> str:
    # The 5000 rounds of crypt(5), for a password that is on no other machine.
    return str(sha512_crypt.using(rounds=5000).hash(password))
