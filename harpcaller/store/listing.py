"""The lists of jobs, newest first, in pages that are bounded in bytes and in rows looked at.

Like everything that is read these are functions of a reader's connection (``store/reads.py``).
"""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    Double,
    Integer,
    bindparam,
    select,
    tuple_,
)

from harp.wire.results import EndKind
from harpcaller.jobs import JobState, WaitsFor
from harpcaller.store.cursors import Cursor, Page
from harpcaller.store.schema import LARGEST_INTEGER, in_state, jobs

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


def jobs_page(
    connection: Connection, wanted: JobFilter, limit: int, cursor: str | None
) -> Page[JobSummary]:
    """Return a page of the jobs that a filter lets through.

    It can be short, even empty, and have a cursor: then its rows were all that could be looked at.

    :raises ValueError: if the cursor is malformed.
    """
    scope, others = _conditions(wanted)
    if cursor is not None:
        scope.append(_key < _bound("after", _cursor.read(cursor)))
    floor = _floor(connection, scope) if others else None
    if floor is not None:
        scope.append(_key >= _bound("floor", floor))
    statement = (
        select(jobs.c.submitted, jobs.c.seq, *SUMMARY)
        .where(*scope, *others)
        .order_by(*_newest_first)
        .limit(bindparam("most", limit + 1, type_=Integer))
    )
    with connection.execute(statement) as rows:
        summaries = (((submitted, seq), JobSummary(*rest)) for submitted, seq, *rest in rows)
        entries = ((key, summary, text_size(summary)) for key, summary in summaries)
        return _cursor.page(entries, limit, floor)


def text_size(summary: JobSummary) -> int:
    """Return about how many bytes of text are in it."""
    queue = summary.queue or b""
    return len(summary.host) + len(summary.procedure) + len(queue) + len(summary.caller or "")


def _conditions(
    wanted: JobFilter,
) -> tuple[list[ColumnElement[bool]], list[ColumnElement[bool]]]:
    """Return the conditions that an index answers, and the others."""
    scope: list[ColumnElement[bool]] = []
    others: list[ColumnElement[bool]] = []
    states = sorted(wanted.states, key=lambda state: state.value)
    if wanted.queue is not None:
        scope.append(jobs.c.queue == wanted.queue)
    if wanted.host is not None:
        (others if scope else scope).append(jobs.c.host == wanted.host)
    if states:
        one = in_state(states[0]) if len(states) == 1 else jobs.c.state.in_(states)
        # Of the states only those of the living have an index.
        is_scope = not scope and len(states) == 1 and states[0] is not JobState.ENDED
        (scope if is_scope else others).append(one)
    if wanted.procedure is not None:
        others.append(jobs.c.procedure == wanted.procedure)
    if wanted.ends:
        others.append(jobs.c.end_kind.in_(sorted(wanted.ends, key=lambda kind: kind.value)))
    if wanted.submitted_since is not None:
        scope.append(jobs.c.submitted >= wanted.submitted_since)
    if wanted.submitted_before is not None:
        scope.append(jobs.c.submitted < wanted.submitted_before)
    return scope, others


def _floor(connection: Connection, scope: list[ColumnElement[bool]]) -> tuple[float, ...] | None:
    """Return the key of the last row that may be looked at, None if there are not so many."""
    row = connection.execute(
        select(jobs.c.submitted, jobs.c.seq)
        .where(*scope)
        .order_by(*_newest_first)
        .limit(1)
        .offset(MAX_EXAMINED - 1)
    ).one_or_none()
    return None if row is None else (row.submitted, row.seq)


def _bound(name: str, key: tuple[float, ...]) -> ColumnElement[Any]:
    submitted, seq = key
    return tuple_(
        bindparam(f"{name}_submitted", submitted, type_=Double),
        bindparam(f"{name}_seq", min(max(seq, 0), LARGEST_INTEGER), type_=Integer),
    )
