"""Tests of ``harpcaller.store.migrations``: they lead to the code's schema."""

import sqlite3
from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine
from twisted.trial.unittest import SynchronousTestCase

from harpcaller.store.database import Database, StoreError
from harpcaller.store.schema import metadata


def _schema(path: Path) -> dict[str, str]:
    connection = sqlite3.connect(path)
    try:
        rows = connection.execute(
            "SELECT name, sql FROM sqlite_master"
            " WHERE sql IS NOT NULL AND name <> 'alembic_version'"
        )
        # One order of the constraints, which the two ways of writing them need not share.
        return {name: "\n".join(sorted(_lines(sql))) for name, sql in rows}
    finally:
        connection.close()


def _lines(sql: str) -> list[str]:
    return [line.strip().removesuffix(",") for line in sql.splitlines()]


class MigrationTests(SynchronousTestCase):
    """The migrations and the schema of the code."""

    def setUp(self) -> None:
        """Bring an empty database to this version."""
        self.path = Path(self.mktemp())
        self.database = Database(f"sqlite:///{self.path}")
        self.database.open_writer().close()

    def test_equal_to_fresh_schema(self) -> None:
        """A migrated database has the very schema of a new one, constraints and indexes too."""
        fresh = Path(self.mktemp())
        engine = create_engine(f"sqlite:///{fresh}")
        metadata.create_all(engine)
        engine.dispose()
        self.assertEqual(_schema(self.path), _schema(fresh))
        self.assertIn("jobs", _schema(self.path))

    def test_no_difference_found(self) -> None:
        """Alembic finds nothing that would need another migration."""
        connection = self.database.open_writer()
        self.addCleanup(connection.close)
        context = MigrationContext.configure(connection)
        self.assertEqual(compare_metadata(context, metadata), [])

    def test_unknown_version(self) -> None:
        """A database of a version that is not known is refused and left as it is."""
        connection = sqlite3.connect(self.path)
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
        connection.close()
        before = _schema(self.path)
        with self.assertRaisesRegex(StoreError, "9999"):
            self.database.open_writer()
        self.assertEqual(_schema(self.path), before)

    def test_failed_migration_leaves_nothing(self) -> None:
        """A migration happens whole or not at all."""
        path = Path(self.mktemp())
        connection = sqlite3.connect(path)
        connection.execute("CREATE TABLE packets (unexpected)")
        connection.close()
        with self.assertRaisesRegex(StoreError, "packets already exists"):
            Database(f"sqlite:///{path}").open_writer()
        self.assertEqual(set(_schema(path)), {"packets"})
