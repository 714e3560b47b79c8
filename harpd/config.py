"""harpd's configuration: a file becomes values that do not change, every mistake is named."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_certificates
from OpenSSL import SSL, crypto
from twisted.internet.ssl import CertificateOptions

from harp import settings
from harp.settings import Contents, Section
from harp.wire.harpd import DEFAULT_PORT
from harpd import limits, permissions
from harpd.auth import Authenticator
from harpd.calls_config import calls_config
from harpd.identity import Identity, find_identity
from harpd.limits import Limits
from harpd.permissions import Permissions

T = TypeVar("T")

SHUTDOWN_GRACE = 30.0
"""Seconds for running calls when the daemon is stopped."""


@dataclass(frozen=True)
class Config:
    """What the daemon runs with.

    :param address: the address to listen on, empty for all of this machine.
    :param tls: the certificate and key that harpd shows.
    :param user: whom the network-facing process becomes, None if it stays what it is.
    :param permissions: which user may call what.
    :param limits: how much callers may ask for.
    :param path: folders with modules that the procedures import.
    :param defaults: for all procedures, by the names of their options.
    :param shutdown_grace: seconds for running calls when the daemon is stopped.
    :param kill_grace: seconds between TERM and KILL.
    """

    address: str
    port: int
    tls: CertificateOptions
    authenticator: Authenticator
    user: Identity | None
    permissions: Permissions
    limits: Limits
    path: list[str]
    defaults: Mapping[str, Any]
    shutdown_grace: float
    kill_grace: float


def load(file: Path, contents: Contents = Path.read_bytes) -> Config:
    """Read the configuration file.

    A relative path in it starts at the folder of the file itself.

    :param contents: returns what is in this file and in those that it names.
    :raises ConfigError: with every mistake and its key and line.
    """
    with settings.read(file, contents) as root:
        network = root.section("network")
        address = network.text("address", default="*")
        port = network.port("port", default=DEFAULT_PORT)
        tls = _tls(network)
        authenticator = _authenticator(root.section("authentication"))
        user = _user(root)
        allowed = permissions.load(root)
        limited = limits.load(root)
        calls = calls_config(root)
        shutdown_grace = root.seconds("shutdown_grace", default=SHUTDOWN_GRACE)
    assert tls is not None
    assert authenticator is not None
    return Config(
        "" if address == "*" else address,
        port,
        tls,
        authenticator,
        user,
        allowed,
        limited,
        calls.path,
        calls.defaults,
        shutdown_grace,
        calls.kill_grace,
    )


def _user(root: Section) -> Identity | None:
    name = root.names("user", "the name or number of a user")
    if isinstance(name, list):
        root.mistake("user", "must be the name or number of one user")
    if name is None or isinstance(name, list):
        return None
    try:
        identity = find_identity(name, None)
    except LookupError as error:
        root.mistake("user", str(error.args[0]))
        return None
    if identity is not None and identity.uid == 0:
        root.mistake("user", "is root, which is what the process is to give up")
    return identity


def _tls(network: Section) -> CertificateOptions | None:
    certificates = _pem(network, "certfile", "certificate", load_pem_x509_certificates)
    key = _pem(network, "keyfile", "private key", partial(load_pem_private_key, password=None))
    if not certificates or key is None:
        return None
    if key.public_key() != certificates[0].public_key():
        network.mistake("keyfile", "is not the key of the first certificate in certfile")
        return None
    leaf, *chain = [crypto.X509.from_cryptography(certificate) for certificate in certificates]
    tls = CertificateOptions(
        privateKey=crypto.PKey.from_cryptography_key(key),  # type: ignore[arg-type]
        certificate=leaf,
        extraCertChain=chain,
        enableSessionTickets=True,
    )
    try:
        tls.getContext()
    except SSL.Error as error:
        network.mistake("certfile", f"can't be shown: {error}")
    return tls


def _pem(network: Section, key: str, what: str, load: Callable[[bytes], T]) -> T | None:
    name = network.text(key)
    if not name:
        return None
    file = network.folder / name
    try:
        return load(network.contents(file))
    except (OSError, ValueError, TypeError) as error:  # the last: it is encrypted
        network.mistake(key, f"{file}: no {what} can be read: {error}")
        return None


def _authenticator(section: Section) -> Authenticator | None:
    name = section.text("module")
    if not name:
        return None
    try:
        module = importlib.import_module(name)
    except Exception as error:  # whatever a module of somebody's own raises
        section.mistake("module", f"{name} can't be imported: {error}")
        return None
    load = getattr(module, "load", None)
    if load is None:
        section.mistake("module", f"{name} is no authentication module: it has no function load")
        return None
    authenticator: Authenticator = load(section)
    return authenticator
