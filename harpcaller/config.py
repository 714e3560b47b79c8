"""The dispatcher's configuration: from the YAML file to frozen values.

How mistakes are collected is the business of ``harp.settings``; what the values do, of the parts
that get them from the service.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from harp import settings
from harpcaller import listen
from harpcaller.trust import read_certificates

DEFAULT_LISTEN = "127.0.0.1:3502"
DEFAULT_DATABASE = "sqlite:////var/lib/harpcaller/harpcaller.db"
DEFAULT_HOST_DB = "/var/lib/harpcaller/hosts.db"
DEFAULT_REFRESH = 900.0
DEFAULT_LIMIT = 600.0

_SQLITE = frozenset({"sqlite", "sqlite+pysqlite"})


@dataclass(frozen=True)
class Config:
    """What the dispatcher is told. All paths are absolute, all times in seconds.

    :param listen: what ``harpcaller.listen.endpoint`` understands.
    :param database: an SQLite file.
    :param host_db_script: the program that prints the hosts.
    :param host_db: where its last good output is kept.
    :param host_db_refresh: from one start of the program to the next.
    :param default_timeout: the longest silence of a job that did not ask for another.
    :param max_exec_time: the longest run of any job.
    :param ca_file: the authorities that sign harpd's certificates.
    :param known_certs_file: certificates that are trusted as they are.
    """

    listen: tuple[str, ...]
    database: URL
    host_db_script: Path
    host_db: Path
    host_db_refresh: float
    default_timeout: float
    max_exec_time: float
    ca_file: Path | None
    known_certs_file: Path | None


def load(path: Path) -> Config:
    """Read the configuration; files that it names are looked at, nothing is opened for good.

    A relative path in it starts at the folder of the file itself.

    :raises harp.settings.ConfigError: with all mistakes at once.
    """
    folder = path.absolute().parent
    with settings.read(path) as keys:
        max_exec_time = keys.seconds("max_exec_time", DEFAULT_LIMIT)
        return Config(
            listen=_listen(keys),
            database=_database(keys, folder),
            host_db_script=_program(keys, "host_db_script", folder),
            host_db=folder / keys.text("host_db", DEFAULT_HOST_DB),
            host_db_refresh=keys.seconds("host_db_refresh", DEFAULT_REFRESH),
            default_timeout=_default_timeout(keys, max_exec_time),
            max_exec_time=max_exec_time,
            ca_file=_certificates(keys, "ca_file", folder),
            known_certs_file=_certificates(keys, "known_certs_file", folder),
        )


def _listen(keys: settings.Section) -> tuple[str, ...]:
    descriptions = keys.texts("listen", [DEFAULT_LISTEN])
    if not descriptions:
        keys.mistake("listen", "must have at least one address")
    for description in descriptions:
        try:
            listen.check(description)
        except ValueError as error:
            keys.mistake("listen", str(error))
    return tuple(descriptions)


def _database(keys: settings.Section, folder: Path) -> URL:
    default = make_url(DEFAULT_DATABASE)
    text = keys.text("database", DEFAULT_DATABASE)
    # The URL is not repeated in a mistake: it may hold a password.
    try:
        url = make_url(text or DEFAULT_DATABASE)
    except (ArgumentError, ValueError):
        keys.mistake("database", f"must be a URL of SQLAlchemy, as {DEFAULT_DATABASE}")
        return default
    if url.drivername not in _SQLITE:
        keys.mistake("database", f"must be an SQLite file: {url.drivername} is not supported yet")
        return default
    if url.host or not url.database:
        keys.mistake(
            "database", "must name a file: sqlite:/// and a relative path or sqlite://// and more"
        )
        return default
    if url.database.startswith((":", "file:")):
        keys.mistake("database", "must be a file on disk: jobs have to outlive the dispatcher")
        return default
    return url.set(database=str(folder / url.database))


def _default_timeout(keys: settings.Section, max_exec_time: float) -> float:
    # A value that was written may not exceed the ceiling; one that was not goes down with it.
    timeout = keys.seconds("default_timeout", min(DEFAULT_LIMIT, max_exec_time))
    if timeout > max_exec_time:
        keys.mistake(
            "default_timeout", f"{timeout:g} s must not exceed max_exec_time, {max_exec_time:g} s"
        )
    return timeout


def _program(keys: settings.Section, key: str, folder: Path) -> Path:
    text = keys.text(key)
    path = folder / text
    if text and not path.is_file():
        keys.mistake(key, f"{path} is not a file")
    elif text and not os.access(path, os.X_OK):
        keys.mistake(key, f"{path} can't be executed")
    return path


def _certificates(keys: settings.Section, key: str, folder: Path) -> Path | None:
    text = keys.optional_text(key)
    if not text:
        return None
    path = folder / text
    try:
        read_certificates(path)
    except ValueError as error:
        keys.mistake(key, str(error))
    return path
