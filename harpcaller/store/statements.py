"""Statements that are compiled once and executed by the driver itself.

SQLAlchemy writes the SQL. Executing by it takes several times as long as the driver, which keeps
what it has prepared; and the thread that writes shares the interpreter with the reactor.
"""

from __future__ import annotations

import enum
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from operator import itemgetter
from typing import Any

from sqlalchemy import ClauseElement, Enum
from sqlalchemy.dialects import sqlite
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import TypeEngine


class Connection(sqlite3.Connection):
    """The driver's connection, on which everything is executed.

    :ivar has_wiped: whether something was removed that must not stay in the write-ahead log.
    """

    has_wiped = False


Row = tuple[Any, ...]

_dialect = sqlite.dialect(paramstyle="qmark")


class Statement:
    """A statement and what its parameters and columns are converted by.

    Parameters are given by the names of its ``bindparam``; members of enumerations are converted
    to what is stored and back. Each method raises the driver's `sqlite3.Error`.

    :param statement: all that can differ from one execution to the next is a ``bindparam``.
    :param columns: of a plain insert or update: those whose values are parameters.
    """

    def __init__(self, statement: ClauseElement, *columns: str) -> None:
        compiled = statement.compile(dialect=_dialect, column_keys=list(columns) or None)
        assert isinstance(compiled, SQLCompiler)
        self.text = str(compiled)
        names: list[str] = compiled.positiontup or []
        types = {name: bound.type for name, bound in compiled.binds.items()}
        given = {name for name in names if compiled.binds[name].required}
        self._constants = {
            name: _to_stored(types[name])(value)
            for name, value in compiled.params.items()
            if name not in given
        }
        self._converted = [(name, _to_stored(types[name])) for name in given if _kind(types[name])]
        self._in_order = _picker(names)
        found = getattr(statement, "exported_columns", ())
        self._members = [
            (place, _from_stored(kind))
            for place, column in enumerate(found)
            if (kind := _kind(column.type))
        ]

    def run(self, connection: Connection, /, **parameters: Any) -> int:
        """Execute it; return how many rows it changed."""
        return self._execute(connection, parameters).rowcount

    def insert(self, connection: Connection, /, **parameters: Any) -> int:
        """Execute the insertion of one row; return the number of that row."""
        number = self._execute(connection, parameters).lastrowid
        assert number is not None
        return number

    def run_many(self, connection: Connection, rows: Iterable[Mapping[str, Any]], /) -> None:
        """Execute it once for each of many parameters."""
        connection.executemany(self.text, map(self._bound, rows))

    def first(self, connection: Connection, /, **parameters: Any) -> Row | None:
        """Execute it and return its first row, None if it has none."""
        row = self._execute(connection, parameters).fetchone()
        return None if row is None else self._read(row)

    def scalar(self, connection: Connection, /, **parameters: Any) -> Any:
        """Execute it and return the first column of its first row, None if it has none."""
        row = self.first(connection, **parameters)
        return None if row is None else row[0]

    def all(self, connection: Connection, /, **parameters: Any) -> list[Row]:
        """Execute it and return its rows."""
        return [self._read(row) for row in self._execute(connection, parameters)]

    @contextmanager
    def rows(self, connection: Connection, /, **parameters: Any) -> Iterator[Iterator[Row]]:
        """Execute it and read its rows one by one, inside a ``with`` statement."""
        # A statement that is left half-way keeps its read transaction.
        with closing(self._execute(connection, parameters)) as cursor:
            yield map(self._read, cursor)

    def _execute(self, connection: Connection, parameters: Mapping[str, Any]) -> sqlite3.Cursor:
        return connection.execute(self.text, self._bound(parameters))

    def _bound(self, parameters: Mapping[str, Any]) -> Row:
        if self._constants or self._converted:
            parameters = {**self._constants, **parameters}
            for name, to_stored in self._converted:
                parameters[name] = to_stored(parameters[name])
        return self._in_order(parameters)

    def _read(self, row: Row) -> Row:
        if not self._members:
            return row
        values = list(row)
        for place, to_member in self._members:
            values[place] = to_member(values[place])
        return tuple(values)


def _picker(names: list[str]) -> Callable[[Mapping[str, Any]], Row]:
    if not names:
        return lambda _: ()
    if len(names) == 1:
        return lambda parameters: (parameters[names[0]],)
    return itemgetter(*names)


def _kind(type: TypeEngine[Any]) -> type[enum.Enum] | None:
    return type.enum_class if isinstance(type, Enum) else None


def _to_stored(type: TypeEngine[Any]) -> Callable[[Any], Any]:
    kind = _kind(type)
    if kind is None:
        return lambda value: value
    stored: dict[Any, Any] = {member: member.value for member in kind}
    stored[None] = None
    return stored.__getitem__


def _from_stored(kind: type[enum.Enum]) -> Callable[[Any], Any]:
    members: dict[Any, Any] = {member.value: member for member in kind}
    members[None] = None
    return members.__getitem__
