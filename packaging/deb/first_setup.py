"""Makes what both daemons need to start on a machine where nothing is configured yet.

A self-signed certificate for harpd, a password, and a hosts script that knows this machine under
the name localhost. What is there already is left alone.
"""

from __future__ import annotations

import datetime
import grp
import json
import os
import secrets
import socket
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from harp.fingerprints import fingerprint_of
from harpd.auth.schemes import ARGON2ID

ETC = Path("/etc")
DAYS = 3650
USER = "harpcaller"

SCRIPT = """#!/bin/sh
# The hosts registry's script: prints a line of JSON for each host with its name, address and login.
# This one was made by the installation and knows this machine only.
cat <<'HOSTS'
{host}
HOSTS
"""


def main() -> None:
    """Make what is not there."""
    daemon, dispatcher = ETC / "harpd", ETC / "harpcaller"
    certificate = daemon / "cert.pem"
    if not certificate.exists() and not (daemon / "key.pem").exists():
        make_certificate(certificate, daemon / "key.pem")
    passwords, script = daemon / "passwd", dispatcher / "hosts"
    if passwords.exists() or script.exists():
        return
    password = secrets.token_urlsafe(24)
    write(passwords, f"{USER}:{ARGON2ID.make(password.encode())}\n".encode(), 0o600)
    host = {
        "hostname": "localhost",
        "address": "127.0.0.1",
        "credentials": {"user": USER, "password": password},
        "fingerprint": fingerprint(certificate),
    }
    write(script, SCRIPT.format(host=json.dumps(host)).encode(), 0o750)
    os.chown(script, 0, grp.getgrnam("harpcaller").gr_gid)


def make_certificate(file: Path, key_file: Path) -> None:
    """Make a key, and a certificate that it has signed itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    machine = socket.gethostname()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, machine[:64])])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=DAYS))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(machine)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    write(key_file, private, 0o600)
    write(file, certificate.public_bytes(serialization.Encoding.PEM), 0o644)


def fingerprint(file: Path) -> str:
    """Return how the hosts registry names the certificate."""
    found = x509.load_pem_x509_certificates(file.read_bytes())[0]
    return fingerprint_of(found.public_bytes(serialization.Encoding.DER))


def write(file: Path, data: bytes, mode: int) -> None:
    """Write a file that nobody can read before it has its mode."""
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as opened:
        os.fchmod(opened.fileno(), mode)
        opened.write(data)


if __name__ == "__main__":
    main()
