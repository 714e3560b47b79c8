"""What the application itself keeps: who asked for which job, and who may log in."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

FILE = os.environ.get("APP_DATABASE", "app.db")

SCHEMA = """
CREATE TABLE IF NOT EXISTS person (name TEXT PRIMARY KEY, password TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS backup (
    job_id TEXT PRIMARY KEY,            -- all else is asked from the dispatcher
    owner TEXT NOT NULL REFERENCES person (name),
    database TEXT NOT NULL
);
"""


@contextmanager
def connection() -> Iterator[sqlite3.Connection]:
    """Open the database for some statements, and commit them."""
    with closing(sqlite3.connect(FILE)) as db, db:
        yield db


def make_tables() -> None:
    """Make what is not there."""
    with connection() as db:
        db.executescript(SCHEMA)


def add_person(name: str, password_hash: str) -> None:
    """Let somebody log in."""
    with connection() as db:
        db.execute("INSERT OR REPLACE INTO person VALUES (?, ?)", (name, password_hash))


def password_hash(name: str) -> str | None:
    """Return the hash of a person's password, None if there is no such person."""
    with connection() as db:
        row = db.execute("SELECT password FROM person WHERE name = ?", [name]).fetchone()
    return row[0] if row else None


def add(job_id: str, owner: str, database: str) -> None:
    """Record a job, once."""
    with connection() as db:
        db.execute("INSERT OR IGNORE INTO backup VALUES (?, ?, ?)", (job_id, owner, database))


def of(owner: str) -> list[tuple[str, str]]:
    """Return the job ids of a person's backups with their databases, the newest first."""
    query = "SELECT job_id, database FROM backup WHERE owner = ? ORDER BY rowid DESC"
    with connection() as db:
        return db.execute(query, [owner]).fetchall()


def is_of(job_id: str, owner: str) -> bool:
    """Return whether a job is recorded as this person's."""
    query = "SELECT 1 FROM backup WHERE job_id = ? AND owner = ?"
    with connection() as db:
        return db.execute(query, [job_id, owner]).fetchone() is not None
