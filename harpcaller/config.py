"""The dispatcher's configuration: from the YAML file to frozen values.

How mistakes are collected is the business of ``harp.settings``; what the values do, of the parts
that get them from the service.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from harp import settings
from harpcaller import listen
from harpcaller.hosts import HostsFile, HostsScript, HostsSource
from harpcaller.hosts.sources import MAX_LOSS
from harpcaller.jobs import Capacity
from harpcaller.logs import LEVELS
from harpcaller.retention import Ages
from harpcaller.rules import Rule, read_rules
from harpcaller.store import KEY_LIFE
from harpcaller.submission import Limits
from harpcaller.terms import Terms, read_terms
from harpcaller.trust import ServerTrust, read_certificates

DEFAULT_LISTEN = "127.0.0.1:3502"
DEFAULT_DATABASE = "sqlite:////var/lib/harpcaller/harpcaller.db"
DEFAULT_HOST_DB = "/var/lib/harpcaller/hosts.db"
DEFAULT_REFRESH = 900.0
DEFAULT_LIMIT = 600.0
DEFAULT_RUNNING = 1000
DEFAULT_GRACE = 30.0

MAX_COUNT = 1_000_000
"""The most jobs that a limit of jobs may allow."""

_SQLITE = frozenset({"sqlite", "sqlite+pysqlite"})


@dataclass(frozen=True)
class Config:
    """What the dispatcher is told. All paths are absolute, all times in seconds.

    :param listen: what ``harpcaller.listen.endpoint`` understands.
    :param database: an SQLite file.
    :param hosts: where the hosts come from.
    :param limits: the time limits of jobs.
    :param capacity: how many jobs run at once.
    :param ages: how long what has ended is kept.
    :param key_life: for how long an idempotency key stands for its job.
    :param shutdown_grace: for how long running jobs may go on when the dispatcher is stopped.
    :param log_level: what is logged at least.
    :param trust: which certificates of harpd are trusted.
    :param terms: on which terms clients get in.
    :param rules: who may do what; None if everybody may do everything.
    """

    listen: tuple[str, ...]
    database: URL
    hosts: HostsSource
    limits: Limits
    capacity: Capacity
    ages: Ages
    key_life: float
    shutdown_grace: float
    log_level: str
    trust: ServerTrust
    terms: Terms
    rules: tuple[Rule, ...] | None


def load(path: Path) -> Config:
    """Read the configuration; files that it names are looked at, nothing is opened for good.

    A relative path in it starts at the folder of the file itself.

    :raises harp.settings.ConfigError: with all mistakes at once.
    """
    folder = path.absolute().parent
    with settings.read(path) as keys:
        terms = read_terms(keys)
        listen_on = _listen(keys, terms)
        database = _database(keys, folder)
        hosts = _hosts(keys, folder)
        limits = _limits(keys)
        capacity = Capacity(
            max_running=keys.integer("max_running", DEFAULT_RUNNING, 1, MAX_COUNT),
            max_running_per_host=keys.optional_integer("max_running_per_host", 1, MAX_COUNT),
        )
        ages = Ages(jobs=keys.hours("max_age"), streams=keys.hours("max_stream_age"))
        key_life = keys.hours("idempotency_key_life") or KEY_LIFE
        grace = keys.seconds("shutdown_grace", DEFAULT_GRACE)
        level = keys.choice("log_level", "info", LEVELS)
        server_trust = ServerTrust(
            _certificates(keys, "ca_file", folder),
            _certificates(keys, "known_certs_file", folder),
        )
        rules = read_rules(keys, terms.users.known)
    assert hosts is not None  # else it was a mistake
    return Config(
        listen_on,
        database,
        hosts,
        limits,
        capacity,
        ages,
        key_life,
        grace,
        level,
        server_trust,
        terms,
        rules,
    )


def _listen(keys: settings.Section, terms: Terms) -> tuple[str, ...]:
    descriptions = keys.texts("listen", [DEFAULT_LISTEN])
    if not descriptions:
        keys.mistake("listen", "must have at least one address")
    for number, description in enumerate(descriptions):
        if description in descriptions[:number]:
            keys.mistake("listen", f"{description!r} stands twice")
        try:
            listen.check(description, terms)
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


def _limits(keys: settings.Section) -> Limits:
    ceiling = keys.seconds("max_exec_time", DEFAULT_LIMIT)
    # A value that was written may not exceed the ceiling; one that was not goes down with it.
    timeout = keys.seconds("default_timeout", min(DEFAULT_LIMIT, ceiling))
    if timeout > ceiling:
        keys.mistake(
            "default_timeout", f"{timeout:g} s must not exceed max_exec_time, {ceiling:g} s"
        )
    return Limits(timeout, ceiling)


def _hosts(keys: settings.Section, folder: Path) -> HostsSource | None:
    script_keys = ("host_db_script", "host_db", "host_db_refresh", "host_db_max_loss")
    if "hosts_file" not in keys:
        max_loss = keys.fraction("host_db_max_loss", MAX_LOSS)
        return HostsScript(
            path=_program(keys, "host_db_script", folder),
            cache_file=folder / keys.text("host_db", DEFAULT_HOST_DB),
            refresh_interval=keys.seconds("host_db_refresh", DEFAULT_REFRESH),
            max_loss=None if max_loss == 1 else max_loss,
        )
    for key in script_keys:
        if key in keys:
            keys.mistake(key, "is of no use beside hosts_file: give one of them")
    text = keys.text("hosts_file")
    try:
        return HostsFile.read(folder / text) if text else None
    except settings.ConfigError as error:
        keys.mistake("hosts_file", "; ".join(error.mistakes))
        return None


def _program(keys: settings.Section, key: str, folder: Path) -> Path:
    text = keys.text(key)
    path = folder / text
    if text and not path.is_file():
        keys.mistake(key, f"{path} is not a file")
    elif text and not os.access(path, os.X_OK):
        keys.mistake(key, f"{path} can't be executed")
    return path


def _certificates(keys: settings.Section, key: str, folder: Path) -> list[x509.Certificate] | None:
    text = keys.optional_text(key)
    if not text:
        return None
    try:
        return read_certificates(folder / text)
    except ValueError as error:
        keys.mistake(key, str(error))
        return None
