"""harpd's configuration: a file becomes values that do not change, every mistake is named."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_certificates
from OpenSSL import SSL, crypto
from twisted.internet.ssl import CertificateOptions

from harp import settings
from harp.settings import Section
from harp.wire.harpd import DEFAULT_PORT
from harpd.auth import Authenticator

T = TypeVar("T")


@dataclass(frozen=True)
class Config:
    """What the daemon runs with.

    :param address: the address to listen on, empty for all of this machine.
    :param tls: the certificate and key that harpd shows.
    :param path: folders with modules that the procedures import.
    """

    address: str
    port: int
    tls: CertificateOptions
    authenticator: Authenticator
    path: list[str]


def load(file: Path) -> Config:
    """Read the configuration file.

    :raises ConfigError: with every mistake and its key and line.
    """
    with settings.read(file) as root:
        network = root.section("network")
        address = network.text("address", default="*")
        port = network.port("port", default=DEFAULT_PORT)
        tls = _tls(network)
        authenticator = _authenticator(root.section("authentication"))
        path = root.section("python").texts("path", default=[]) if "python" in root else []
    assert tls is not None
    assert authenticator is not None
    return Config("" if address == "*" else address, port, tls, authenticator, path)


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
    )
    try:
        tls.getContext()
    except SSL.Error as error:
        network.mistake("certfile", f"can't be shown: {error}")
    return tls


def _pem(network: Section, key: str, what: str, load: Callable[[bytes], T]) -> T | None:
    file = network.text(key)
    if not file:
        return None
    try:
        return load(Path(file).read_bytes())
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
