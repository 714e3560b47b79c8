"""Where hosts come from, as frozen values that were checked before anything is changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harpcaller.hosts.entries import Host
from harpcaller.hosts.file import load_hosts_file

MAX_LOSS = 0.5
"""The part of the known hosts that a script's new list may miss, unless told otherwise."""


@dataclass(frozen=True, slots=True)
class HostsScript:
    """A program that prints the hosts.

    :param path: the program.
    :param cache_file: where its last good output is kept, for nobody else to read.
    :param refresh_interval: from start to start of the program, in seconds.
    :param max_loss: the part of the known hosts, 0 to 1, of which a new list may miss no more;
        None if it may miss any.
    """

    path: Path
    cache_file: Path
    refresh_interval: float
    max_loss: float | None = MAX_LOSS


@dataclass(frozen=True, slots=True)
class HostsFile:
    """A file that has the hosts in it, and what it had when it was read."""

    path: Path
    hosts: Mapping[str, Host] = field(repr=False)

    @classmethod
    def read(cls, path: Path) -> HostsFile:
        """Read the file.

        :raises harp.settings.ConfigError: with every mistake in it.
        """
        return cls(path, load_hosts_file(path))


HostsSource = HostsScript | HostsFile
