"""Where the last good list of a script is kept for the next start."""

from __future__ import annotations

import os
from pathlib import Path


def read_cache(path: Path) -> bytes:
    """Return what was kept, nothing if nothing was.

    :raises OSError: if it can't be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def write_cache(path: Path, data: bytes) -> None:
    """Replace the file in one step by one that only its owner can read: it holds passwords.

    :raises OSError: if that is not possible; the old file stays.
    """
    # Always the same name, so that writers that were killed leave no more than one file.
    unfinished = path.with_name(f".{path.name}.new")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink()
        raise
