"""Files that commands change while daemons read them: replaced as a whole, by one at a time."""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Have nobody else change the file who asks for this too, as long as the ``with`` block.

    :raises OSError: if its folder can't be opened.
    """
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
        os.fsync(folder)
    finally:
        os.close(folder)


def replace(path: Path, content: bytes, new_mode: int) -> None:
    """Put something else in the place of the content: who reads it gets the one or the other.

    Owner and mode stay as they are.

    :param new_mode: the mode of a file that is not there yet.
    :raises OSError: if that is not possible; the old content stays.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            mode = new_mode
            with suppress(FileNotFoundError):
                status = path.stat()
                mode = stat.S_IMODE(status.st_mode)
                if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(descriptor, status.st_uid, status.st_gid)
            os.fchmod(descriptor, mode)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
