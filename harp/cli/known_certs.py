"""The file of certificates that the dispatcher trusts as they are (``known_certs_file``)."""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

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
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        before, status = _content(path)
        if certificate in _certificates(before):
            return False
        if before and not before.endswith(b"\n"):
            before += b"\n"
        pem = certificate.public_bytes(Encoding.PEM)
        _replace(path, before + f"# {comment}\n".encode() + pem, status)
        os.fsync(folder)
    finally:
        os.close(folder)
    return True


def _content(path: Path) -> tuple[bytes, os.stat_result | None]:
    try:
        with path.open("rb") as file:
            return file.read(), os.fstat(file.fileno())
    except FileNotFoundError:
        return b"", None


def _certificates(content: bytes) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(content) if _BEGIN in content else []


def _replace(path: Path, content: bytes, status: os.stat_result | None) -> None:
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if status is not None:
                with suppress(PermissionError):  # only root gives a file away
                    os.fchown(descriptor, status.st_uid, status.st_gid)
            os.fchmod(descriptor, _NEW_MODE if status is None else stat.S_IMODE(status.st_mode))
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
