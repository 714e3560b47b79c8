"""The lists of jobs, newest first, in pages that are bounded in bytes and in rows looked at.

Like everything that is read these are functions of a reader's connection (``store/records.py``).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import (
    Column,
    ColumnElement,
    Double,
    Integer,
    Select,
    bindparam,
    literal_column,
    not_,
    or_,
    select,
    tuple_,
    union_all,
)

from harp.wire.results import EndKind
from harpcaller.jobs import JobState, WaitsFor
from harpcaller.store.cursors import Cursor, Page
from harpcaller.store.schema import LARGEST_INTEGER, is_running, jobs
from harpcaller.store.statements import Connection, Statement

MAX_EXAMINED = 10_000
"""The most rows that are looked at for one page, so that rare jobs are sought in short reads."""


MAX_MERGED = 8
"""The most owners whose jobs are found by an index, each by two; with more all jobs are gone
through, which pays where many of them are wanted."""


class JobFilter(msgspec.Struct, frozen=True):
    """Which jobs are wanted: those that meet every condition that is given.

    :param states: one of these; none of them stands for all.
    :param queue: the queue's name, canonical JSON (``harpcaller.queues``).
    :param ends: one of these; none of them stands for all.
    :param submitted_since: unix seconds, the first moment that counts.
    :param submitted_before: unix seconds, the first moment that does not count any more.
    :param submitter: the user who submitted the job, or on whose behalf that was done.
    :param owners: one of these did, or it was done on their behalf; None stands for all jobs, also
        those of nobody in particular.
    """

    states: frozenset[JobState] = frozenset()
    host: str | None = None
    procedure: str | None = None
    queue: bytes | None = None
    ends: frozenset[EndKind] = frozenset()
    submitted_since: float | None = None
    submitted_before: float | None = None
    submitter: str | None = None
    owners: frozenset[str] | None = None


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
    submitter: str | None
    on_behalf_of: str | None


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
    jobs.c.submitter,
    jobs.c.on_behalf_of,
]
"""The columns of a `JobSummary`, in its order."""

_cursor = Cursor(">dq")
_key = tuple_(jobs.c.submitted, jobs.c.seq)
_place_of = [jobs.c.submitted.label("at"), jobs.c.seq.label("place")]
_OWNER = (jobs.c.submitter, jobs.c.on_behalf_of)
_newest_first: list[ColumnElement[Any]] = [
    literal_column("at").desc(),
    literal_column("place").desc(),
]


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


class _Form(NamedTuple):
    """What statements differ in.

    :param given: the parameters that there are.
    :param owners: how many; None if all jobs are wanted.
    """

    states: frozenset[JobState]
    ends: frozenset[EndKind]
    given: frozenset[str]
    owners: int | None


def jobs_page(
    connection: Connection, wanted: JobFilter, limit: int, cursor: str | None
) -> Page[JobSummary]:
    """Return a page of the jobs that a filter lets through.

    It can be short, even empty, and have a cursor: then its rows were all that could be looked at.

    :raises ValueError: if the cursor is malformed.
    """
    place = None if cursor is None else _cursor.read(cursor)
    if wanted.owners is not None and not wanted.owners:
        return Page([], None)
    asked = {
        "queue": wanted.queue,
        "host": wanted.host,
        "procedure": wanted.procedure,
        "since": wanted.submitted_since,
        "before": wanted.submitted_before,
        "submitter": wanted.submitter,
    }
    given: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    if wanted.owners is not None:
        given |= owner_parameters(wanted.owners)
    if place is not None:
        given |= _place("after", place)
    floor = None
    form = _form(wanted, given)
    if _conditions(form).others:
        floor = _floor_of(form).first(connection, **given, before_it=MAX_EXAMINED - 1)
    if floor is not None:
        given |= _place("floor", floor)
        form = _form(wanted, given)
    statement = _page_of(form)
    with statement.rows(connection, **given, most=limit + 1) as rows:
        summaries = (((submitted, seq), JobSummary(*rest)) for submitted, seq, *rest in rows)
        entries = ((key, summary, text_size(summary)) for key, summary in summaries)
        return _cursor.page(entries, limit, floor)


def text_size(summary: JobSummary) -> int:
    """Return about how many bytes of text are in it."""
    queue = summary.queue or b""
    names = (summary.host, summary.procedure, summary.submitter, summary.on_behalf_of)
    return sum(len(name or "") for name in names) + len(queue) + len(summary.caller or "")


def owner_parameters(owners: frozenset[str]) -> dict[str, str]:
    """Return the parameters of `of_owners`."""
    return dict(zip(_owner_names(len(owners)), sorted(owners), strict=True))


def of_owners(count: int) -> ColumnElement[bool]:
    """Return the condition that jobs are of one of so many owners, see `owner_parameters`."""
    return _of_names(_owner_names(count))


def _owner_names(count: int) -> list[str]:
    return [f"owner_{number}" for number in range(count)]


def _form(wanted: JobFilter, given: Iterable[str]) -> _Form:
    owners = None if wanted.owners is None else len(wanted.owners)
    return _Form(wanted.states, wanted.ends, frozenset(given), owners)


@lru_cache(64)
def _page_of(form: _Form) -> Statement:
    """Return what reads a page of the jobs that meet conditions, see `_conditions`."""
    found = _conditions(form)
    return _newest(
        select(*_place_of, *SUMMARY).where(*found.scope, *found.others),
        found.names,
        limit=bindparam("most", type_=Integer),
    )


@lru_cache(64)
def _floor_of(form: _Form) -> Statement:
    """Return what reads the key of the last row that may be looked at, if there are so many."""
    found = _conditions(form)
    return _newest(
        select(*_place_of).where(*found.scope),
        found.names,
        limit=literal_column("1", Integer),
        offset=bindparam("before_it", type_=Integer),
    )


def _newest(
    wanted: Select[Any],
    names: list[str],
    limit: ColumnElement[int],
    offset: ColumnElement[int] | None = None,
) -> Statement:
    """Return what reads rows, the newest first.

    :param names: if there are any, only jobs of these owners: merged from the index of each of
        them, which have that order.
    """
    if not names:
        return Statement(wanted.order_by(*_newest_first).limit(limit).offset(offset))
    submitted_too = jobs.c.submitter.in_(_parameters(names))
    parts = [
        *(wanted.where(jobs.c.submitter == name) for name in _parameters(names)),
        *(
            wanted.where(
                jobs.c.on_behalf_of == name, or_(jobs.c.submitter.is_(None), not_(submitted_too))
            )
            for name in _parameters(names)
        ),
    ]
    return Statement(union_all(*parts).order_by(*_newest_first).limit(limit).offset(offset))


def _of_names(names: list[str]) -> ColumnElement[bool]:
    values = _parameters(names)
    # Of what is not a mere column SQLite looks nothing up: it would have to sort what it finds.
    nothing = literal_column("''", jobs.c.submitter.type)
    return or_(*(column.concat(nothing).in_(values) for column in _OWNER))


def _parameters(names: list[str]) -> list[ColumnElement[str]]:
    return [bindparam(name, type_=jobs.c.submitter.type) for name in names]


class _Conditions(NamedTuple):
    """What jobs must meet.

    :param scope: conditions that an index answers.
    :param names: parameters with the owners whose indexes do so, if there are any.
    """

    scope: list[ColumnElement[bool]]
    names: list[str]
    others: list[ColumnElement[bool]]


def _conditions(form: _Form) -> _Conditions:
    states, ends, given, owners = form
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
    names: list[str] = []
    for owned in _owned(given, owners):
        if scope or names or len(owned) > MAX_MERGED:
            others.append(_of_names(owned))
        else:
            names = owned
    if "procedure" in given:
        others.append(jobs.c.procedure == bindparam("procedure"))
    if ends:
        others.append(_one_of(jobs.c.end_kind, ends))
    scope += [condition for name, condition in _times.items() if name in given]
    return _Conditions(scope, names, others)


def _owned(given: frozenset[str], owners: int | None) -> list[list[str]]:
    """Return the parameters with owners, of each list of them one must be a job's."""
    found = [["submitter"]] if "submitter" in given else []
    if owners is not None:
        found.append(_owner_names(owners))
    return found


def _one_of(column: Column[Any], members: Iterable[enum.Enum]) -> ColumnElement[bool]:
    values = [
        literal_column(f"'{value}'", column.type) for value in sorted(m.value for m in members)
    ]
    return column == values[0] if len(values) == 1 else column.in_(values)


def _place(name: str, key: tuple[float, ...]) -> dict[str, float]:
    submitted, seq = key
    return {f"{name}_submitted": submitted, f"{name}_seq": min(max(seq, 0), LARGEST_INTEGER)}
