"""The file of certificates that the dispatcher trusts as they are (``known_certs_file``)."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from harp import files

_NEW_MODE = 0o644  # certificates are public
_BEGIN = b"-----BEGIN"


def read(path: Path) -> list[x509.Certificate]:
    """Return the certificates in a file, none if there is no file.

    :raises OSError: if it can't be read.
    :raises ValueError: if something in it can't be understood: the dispatcher could not read it.
    """
    try:
        return _certificates(path.read_bytes())
    except FileNotFoundError:
        return []


def add(path: Path, certificate: x509.Certificate, comment: str) -> bool:
    """Put a certificate at the end of a file, or return False if it has that already.

    Who reads it at that moment finds the old file or the new one, with owner and mode as they were.
    Several may add at once.

    :param comment: one line, which comes before it.
    :raises OSError: if it can't be read or written.
    :raises ValueError: if something in it can't be understood.
    """
    path = Path(os.path.realpath(path))  # the file, not a link to it, is replaced
    with files.alone(path):
        before = path.read_bytes() if path.exists() else b""
        if certificate in _certificates(before):
            return False
        if before and not before.endswith(b"\n"):
            before += b"\n"
        pem = certificate.public_bytes(Encoding.PEM)
        files.replace(path, before + f"# {comment}\n".encode() + pem, _NEW_MODE)
    return True


def _certificates(content: bytes) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(content) if _BEGIN in content else []
