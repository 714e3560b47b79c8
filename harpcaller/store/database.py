"""The SQLite file: making it, opening it, bringing its schema up to date.

SQLite up to 3.51.2 can corrupt the database when two connections write or checkpoint at once. So
one connection alone does both; the others open the file read-only.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import StaticPool, create_engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from harpcaller.store.statements import Connection

_DRIVERS = ("sqlite", "sqlite+pysqlite")

_OLDEST = (3, 35)
"""The first version of SQLite whose changes can return rows (its page of RETURNING)."""


class StoreError(Exception):
    """The database failed, or the store is not open."""


@contextmanager
def translated_errors() -> Iterator[None]:
    """Turn the errors of the database into a `StoreError`.

    Statements and parameters are left out of its text: arguments of jobs may be secret.
    """
    try:
        yield
    except sqlite3.Error as error:
        raise StoreError(str(error)) from error
    except DBAPIError as error:
        raise StoreError(str(error.orig)) from error
    except SQLAlchemyError as error:
        raise StoreError(str(error)) from error


@contextmanager
def transaction(connection: Connection) -> Iterator[None]:
    """Commit what the body of a ``with`` statement does on the writer's connection, or undo it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # Some errors, like that of a full disk, have undone it already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


class _WriterConnection(Connection):
    """The connection that writes; it holds the lock of `Database._lock`."""

    lock: int | None = None

    def close(self) -> None:
        super().close()
        if self.lock is not None:
            os.close(self.lock)
            self.lock = None


class Database:
    """One SQLite file.

    :param url: as SQLAlchemy writes it, ``sqlite:////var/lib/harpcaller/jobs.db``.
    :raises ValueError: if it is not the URL of an SQLite file.
    """

    def __init__(self, url: str) -> None:
        try:
            parsed = make_url(url)
        except ArgumentError as error:
            raise ValueError("the database is not given as a URL") from error
        if parsed.drivername not in _DRIVERS:
            raise ValueError(f"no database but sqlite is supported, not {parsed.drivername}")
        name = parsed.database or ":memory:"
        if name == ":memory:" or name.startswith("file:") or parsed.query or parsed.host:
            raise ValueError("the database must be a file: sqlite:////path/of/the/file")
        self._path = Path(name)

    def open_writer(self) -> Connection:
        """Open the one connection that writes, with the schema of this version.

        It may be used in the calling thread only. The file is created if it is not there.

        :raises StoreError: if that can't be done.
        """
        if sqlite3.sqlite_version_info < _OLDEST:
            needed = ".".join(map(str, _OLDEST))
            raise StoreError(f"SQLite {needed} or newer is needed, not {sqlite3.sqlite_version}")
        with translated_errors():
            connection = self._connect_writer()
            try:
                self._upgrade(connection)
                # Not before: a migration replaces tables that others refer to.
                connection.execute("PRAGMA foreign_keys = ON")
            except BaseException:
                connection.close()
                raise
            return connection

    def open_reader(self) -> Connection:
        """Open a connection that only reads; any one thread at a time may use it.

        :raises StoreError: if that can't be done.
        """
        with translated_errors():
            connection = sqlite3.connect(
                f"{self._path.absolute().as_uri()}?mode=ro",
                uri=True,
                factory=Connection,
                isolation_level=None,
                check_same_thread=False,
            )
            # Only a read opens the write-ahead log.
            connection.execute("SELECT count(*) FROM sqlite_master").close()
            return connection

    def _lock(self) -> int:
        """Create the file if it is not there, and keep other dispatchers away from it.

        Two on one file would each take the other's jobs for lost. The descriptor that holds the
        lock is opened before SQLite's and closed after them: closing it drops all locks that the
        process has on the file, SQLite's too (fcntl(2)).
        """
        try:
            # SQLite gives its companion files the mode of the database.
            lock = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(f"{self._path}: can't be opened: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(lock)
            raise StoreError(f"{self._path}: another process has it open") from error
        return lock

    def _connect_writer(self) -> Connection:
        lock = self._lock()
        try:
            connection = sqlite3.connect(
                self._path, isolation_level=None, factory=_WriterConnection
            )
        except sqlite3.Error:
            os.close(lock)
            raise
        connection.lock = lock
        try:
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            if mode != "wal":
                raise StoreError(f"{self._path}: its file system does not allow a write-ahead log")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA secure_delete = ON")
            # The log of a process that was killed is still there.
            connection.has_wiped = True
        except BaseException:
            connection.close()
            raise
        return connection

    def _upgrade(self, connection: Connection) -> None:
        # One transaction. The connection stays open when SQLAlchemy is done with it.
        engine = create_engine(
            "sqlite://",
            creator=lambda: connection,
            poolclass=StaticPool,
            pool_reset_on_return=None,
            hide_parameters=True,
        )
        config = Config()
        config.set_main_option("script_location", "harpcaller.store:migrations")
        with engine.connect() as migrated, migrated.begin():
            # The driver's own way begins too late for changes of the schema.
            migrated.exec_driver_sql("BEGIN IMMEDIATE")
            config.attributes["connection"] = migrated
            try:
                command.upgrade(config, "head")
            except CommandError as error:
                raise StoreError(
                    f"{self._path}: can't be brought to this version's schema: {error}"
                ) from error
