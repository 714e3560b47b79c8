"""Certificates and configurations of harpd, written for a test."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

PASSWORD = "secret"

USERS = """
authentication:
  module: harpd.auth.inconfig
  users: {panel: "plain:secret"}
"""


@dataclass(frozen=True)
class Issued:
    """PEM texts: the chain from the leaf up to what the root signed, its key, and the root."""

    chain: list[bytes]
    key: bytes
    encrypted_key: bytes
    root: bytes


@cache
def issued(number: int = 1) -> Issued:
    """Return a certificate for localhost behind an intermediate authority, and its key.

    :param number: another number is another certificate.
    """
    root = trustme.CA()
    leaf = root.create_child_ca().issue_cert("localhost")
    key = leaf.private_key_pem.bytes()
    encrypted = load_pem_private_key(key, None).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")
    )
    chain = [blob.bytes() for blob in leaf.cert_chain_pems]
    return Issued(chain, key, encrypted, root.cert_pem.bytes())


def write_configuration(folder: Path, users: str = USERS, network: str = "") -> Path:
    """Write a configuration and the files that it names, and return its path.

    :param network: further lines of that section.
    """
    folder.mkdir(exist_ok=True)
    (folder / "cert.pem").write_bytes(b"".join(issued().chain))
    (folder / "key.pem").write_bytes(issued().key)
    file = folder / "harpd.yaml"
    file.write_text(
        f"network:\n  certfile: {folder}/cert.pem\n  keyfile: {folder}/key.pem\n{network}{users}"
    )
    return file
