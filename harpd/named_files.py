"""The configuration file and the files that it names, read by root for the process that is not.

Whoever asks gets these files and no others: which they are is read from the configuration here.
"""

from __future__ import annotations

import base64
import errno
import json
import os
import stat
from contextlib import suppress
from pathlib import Path

from harp import settings
from harp.settings import ConfigError

NAMED = (("network", "certfile"), ("network", "keyfile"), ("authentication", "file"))
"""Sections and keys of the configuration under which the names stand."""

MAX_FILE = 1 << 24
"""The longest file in bytes."""


def gather(config: Path) -> bytes:
    """Return the files with their names, to be read by `Files`; what can't be read says why."""
    found: dict[str, str | int] = {}
    for path in [config, *_named(config)]:
        try:
            found[str(path)] = base64.b64encode(_read(path)).decode()
        except OSError as error:
            found[str(path)] = error.errno or errno.EIO
    return json.dumps(found).encode()


class Files:
    """Returns what was gathered, see `harp.settings.Contents`.

    Other files, of authentication modules of somebody's own, are read by this process itself.

    :param gathered: what `gather` has returned.
    """

    def __init__(self, gathered: bytes) -> None:
        self._found: dict[str, str | int] = json.loads(gathered)

    def __call__(self, path: Path) -> bytes:
        """Return what is in a file.

        :raises OSError: if it can't be read.
        """
        found = self._found.get(str(path))
        if found is None:
            return path.read_bytes()
        if isinstance(found, int):
            raise OSError(found, os.strerror(found), str(path))
        return base64.b64decode(found)


def _named(config: Path) -> list[Path]:
    names: list[Path] = []
    # Mistakes are found by who reads the file's contents.
    with suppress(ConfigError), settings.read(config, partly=True) as root:
        for section, key in NAMED:
            if section in root and (name := root.section(section).optional_text(key)):
                names.append(root.folder / name)
    return names


def _read(path: Path) -> bytes:
    # Not to wait for the other end of a named pipe, nor to become a terminal's.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "is no regular file")
        data = file.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    return data
