"""The lists of jobs, newest first, in pages that are bounded in bytes and in rows looked at.

Like everything that is read these are functions of a reader's connection (``store/records.py``).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import msgspec
from sqlalchemy import (
    Column,
    ColumnElement,
    Double,
    Integer,
    Select,
    bindparam,
    literal_column,
    select,
    tuple_,
)

from harp.wire.results import EndKind
from harpcaller.jobs import JobState, WaitsFor
from harpcaller.store.cursors import Cursor, Page
from harpcaller.store.schema import LARGEST_INTEGER, is_running, jobs
from harpcaller.store.statements import Connection, Statement

MAX_EXAMINED = 10_000
"""The most rows that are looked at for one page, so that rare jobs are sought in short reads."""


class JobFilter(msgspec.Struct, frozen=True):
    """Which jobs are wanted: those that meet every condition that is given.

    :param states: one of these; none of them stands for all.
    :param queue: the queue's name, canonical JSON (``harpcaller.queues``).
    :param ends: one of these; none of them stands for all.
    :param submitted_since: unix seconds, the first moment that counts.
    :param submitted_before: unix seconds, the first moment that does not count any more.
    """

    states: frozenset[JobState] = frozenset()
    host: str | None = None
    procedure: str | None = None
    queue: bytes | None = None
    ends: frozenset[EndKind] = frozenset()
    submitted_since: float | None = None
    submitted_before: float | None = None


class JobSummary(msgspec.Struct, frozen=True):
    """A job without what can be long: arguments, info and end value. See `harpcaller.jobs.Job`."""

    id: str
    host: str
    procedure: str
    state: JobState
    queue: bytes | None
    waits_for: WaitsFor | None
    submitted: float
    started: float | None
    ended: float | None
    end: EndKind | None
    caller: str | None


SUMMARY = [
    jobs.c.id,
    jobs.c.host,
    jobs.c.procedure,
    jobs.c.state,
    jobs.c.queue,
    jobs.c.waits_for,
    jobs.c.submitted,
    jobs.c.started,
    jobs.c.ended,
    jobs.c.end_kind,
    jobs.c.caller,
]
"""The columns of a `JobSummary`, in its order."""

_cursor = Cursor(">dq")
_key = tuple_(jobs.c.submitted, jobs.c.seq)
_newest_first = [jobs.c.submitted.desc(), jobs.c.seq.desc()]


def _bound(name: str) -> ColumnElement[Any]:
    return tuple_(
        bindparam(f"{name}_submitted", type_=Double), bindparam(f"{name}_seq", type_=Integer)
    )


_times = {
    "since": jobs.c.submitted >= bindparam("since"),
    "before": jobs.c.submitted < bindparam("before"),
    "after_seq": _key < _bound("after"),
    "floor_seq": _key >= _bound("floor"),
}
"""The conditions on the order of the list, by a parameter that each needs."""


def jobs_page(
    connection: Connection, wanted: JobFilter, limit: int, cursor: str | None
) -> Page[JobSummary]:
    """Return a page of the jobs that a filter lets through.

    It can be short, even empty, and have a cursor: then its rows were all that could be looked at.

    :raises ValueError: if the cursor is malformed.
    """
    asked = {
        "queue": wanted.queue,
        "host": wanted.host,
        "procedure": wanted.procedure,
        "since": wanted.submitted_since,
        "before": wanted.submitted_before,
    }
    given: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    if cursor is not None:
        given |= _place("after", _cursor.read(cursor))
    floor = None
    if _conditions(wanted.states, wanted.ends, frozenset(given))[1]:
        statement = _floor_of(wanted.states, wanted.ends, frozenset(given))
        floor = statement.first(connection, **given, before_it=MAX_EXAMINED - 1)
    if floor is not None:
        given |= _place("floor", floor)
    statement = _page_of(wanted.states, wanted.ends, frozenset(given))
    with statement.rows(connection, **given, most=limit + 1) as rows:
        summaries = (((submitted, seq), JobSummary(*rest)) for submitted, seq, *rest in rows)
        entries = ((key, summary, text_size(summary)) for key, summary in summaries)
        return _cursor.page(entries, limit, floor)


def text_size(summary: JobSummary) -> int:
    """Return about how many bytes of text are in it."""
    queue = summary.queue or b""
    return len(summary.host) + len(summary.procedure) + len(queue) + len(summary.caller or "")


@lru_cache(64)
def _page_of(
    states: frozenset[JobState], ends: frozenset[EndKind], given: frozenset[str]
) -> Statement:
    """Return what reads a page of the jobs that meet conditions, see `_conditions`."""
    scope, others = _conditions(states, ends, given)
    wanted = select(jobs.c.submitted, jobs.c.seq, *SUMMARY).where(*scope, *others)
    return _newest(wanted.limit(bindparam("most", type_=Integer)))


@lru_cache(64)
def _floor_of(
    states: frozenset[JobState], ends: frozenset[EndKind], given: frozenset[str]
) -> Statement:
    """Return what reads the key of the last row that may be looked at, if there are so many."""
    scope, _ = _conditions(states, ends, given)
    place = select(jobs.c.submitted, jobs.c.seq).where(*scope)
    return _newest(place.limit(1).offset(bindparam("before_it", type_=Integer)))


def _newest(wanted: Select[Any]) -> Statement:
    return Statement(wanted.order_by(*_newest_first))


def _conditions(
    states: frozenset[JobState], ends: frozenset[EndKind], given: frozenset[str]
) -> tuple[list[ColumnElement[bool]], list[ColumnElement[bool]]]:
    """Return the conditions that an index answers, and the others.

    :param given: the parameters that there are.
    """
    scope: list[ColumnElement[bool]] = []
    others: list[ColumnElement[bool]] = []
    if "queue" in given:
        scope.append(jobs.c.queue == bindparam("queue"))
    if "host" in given:
        (others if scope else scope).append(jobs.c.host == bindparam("host"))
    if states == {JobState.RUNNING} and not scope:
        scope.append(is_running)
    elif states == {JobState.WAITING} and not scope:
        scope.append(_one_of(jobs.c.state, states))
    elif states:
        others.append(_one_of(jobs.c.state, states))
    if "procedure" in given:
        others.append(jobs.c.procedure == bindparam("procedure"))
    if ends:
        others.append(_one_of(jobs.c.end_kind, ends))
    scope += [condition for name, condition in _times.items() if name in given]
    return scope, others


def _one_of(column: Column[Any], members: Iterable[enum.Enum]) -> ColumnElement[bool]:
    values = [
        literal_column(f"'{value}'", column.type) for value in sorted(m.value for m in members)
    ]
    return column == values[0] if len(values) == 1 else column.in_(values)


def _place(name: str, key: tuple[float, ...]) -> dict[str, float]:
    submitted, seq = key
    return {f"{name}_submitted": submitted, f"{name}_seq": min(max(seq, 0), LARGEST_INTEGER)}
