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
from harp.settings import Section
from harp.wire.harpd import DEFAULT_PORT
from harpd import limits, permissions
from harpd.auth import Authenticator
from harpd.limits import Limits
from harpd.permissions import Permissions
from harpd.options import LEAST, MAX_UMASK, MOST, environment_mistakes, is_directory
from harpd.zygote_command import KILL_GRACE

T = TypeVar("T")

SHUTDOWN_GRACE = 30.0
"""Seconds for running calls when the daemon is stopped."""


@dataclass(frozen=True)
class Config:
    """What the daemon runs with.

    :param address: the address to listen on, empty for all of this machine.
    :param tls: the certificate and key that harpd shows.
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
    permissions: Permissions
    limits: Limits
    path: list[str]
    defaults: Mapping[str, Any]
    shutdown_grace: float
    kill_grace: float


def load(file: Path) -> Config:
    """Read the configuration file.

    A relative path in it starts at the folder of the file itself.

    :raises ConfigError: with every mistake and its key and line.
    """
    with settings.read(file) as root:
        network = root.section("network")
        address = network.text("address", default="*")
        port = network.port("port", default=DEFAULT_PORT)
        tls = _tls(network)
        authenticator = _authenticator(root.section("authentication"))
        allowed = permissions.load(root)
        limited = limits.load(root)
        path = root.section("python").texts("path", default=[]) if "python" in root else []
        defaults = _defaults(root.section("defaults")) if "defaults" in root else {}
        shutdown_grace = root.seconds("shutdown_grace", default=SHUTDOWN_GRACE)
        kill_grace = root.seconds("kill_grace", default=KILL_GRACE)
    assert tls is not None
    assert authenticator is not None
    return Config(
        "" if address == "*" else address,
        port,
        tls,
        authenticator,
        allowed,
        limited,
        [str(root.folder / folder) for folder in path],
        defaults,
        shutdown_grace,
        kill_grace,
    )


def _defaults(section: Section) -> dict[str, Any]:
    """Read what holds for procedures that do not say otherwise; who there is, the zygote finds."""
    found: dict[str, Any] = {}
    if "timeout" in section:
        found["timeout"] = section.seconds("timeout", default=1.0)
    if "uid" in section:
        uid = section.names("uid", "the name or number of a user")
        if isinstance(uid, list):
            section.mistake("uid", "must be the name or number of one user")
        found["uid"] = uid
    if "gid" in section:
        found["gid"] = section.names("gid", "the name or number of a group, or a list of them")
    for key, least in LEAST.items():
        if key in section:
            found[key] = section.integer(key, None, least, MOST)
    if "umask" in section:
        found["umask"] = section.octal("umask", MAX_UMASK)
    if "directory" in section:
        found["directory"] = section.text("directory")
        if found["directory"] and not is_directory(found["directory"]):
            section.mistake("directory", "must be an absolute path")
    if "environment" in section:
        found["environment"] = _environment(section.section("environment"))
    return found


def _environment(section: Section) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in section.keys():  # noqa: SIM118 - it is no mapping
        value = section.text(name, empty=True)
        for mistake in environment_mistakes({name: value}):
            section.mistake(name, mistake)
        found[name] = value
    return found


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
        return load(file.read_bytes())
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
