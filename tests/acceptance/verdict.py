"""What must be true of jobs, queues, marks and processes, however often the daemons were killed.

Every function returns what is wrong, in words, so that a long run by hand can go on.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harp
from harp.errors import ERROR_TYPES
from tests.acceptance.load import QUEUES, Submission

CUT_OFF = {
    "missing_result",
    "closed",
    "killed",
    "network_error",
    "ssl",
    "shutdown",
    "procedure_loading_error",
}
"""Error types of a job whose dispatcher, harpd, zygote or connection was ended; ssl is for a harpd
in mid-handshake, procedure_loading_error for a zygote that was still loading."""


@dataclass(frozen=True)
class Outage:
    """From before a kill until all was up again, in nanoseconds of the monotonic clock."""

    began: int
    ended: int


@dataclass(frozen=True)
class Run:
    """The mark of one run of a procedure; without an end if it was killed."""

    began: int
    pid: int
    started: int
    ended: int | None


@dataclass(frozen=True)
class End:
    """What became of an acknowledged job.

    :param outcome: as the client has it, ``CALL_NOT_FINISHED`` if it did not end in time.
    :param ran: the mark of its run, None if there is none.
    """

    submission: Submission
    outcome: Any
    ran: Run | None

    @property
    def type(self) -> str:
        """The error type, or the kind of any other outcome."""
        if isinstance(self.outcome, harp.RemoteError):
            return self.outcome.type
        if self.outcome is harp.CALL_CANCELLED:
            return "cancelled"
        return "ended otherwise" if isinstance(self.outcome, Exception) else "result"

    def __str__(self) -> str:
        return f"{self.submission.kind} {self.submission.job.id()} ({self.outcome!r})"


def ends(submissions: Iterable[Submission], limit: float) -> list[End]:
    """Return how all of them ended.

    :param limit: seconds after which a job that has not ended is taken never to end.
    """
    deadline = time.monotonic() + limit
    found = []
    for submission in submissions:
        while (outcome := submission.job.result()) is harp.CALL_NOT_FINISHED:
            if time.monotonic() > deadline:
                break
            time.sleep(0.005)  # between two looks
        found.append(End(submission, outcome, read_mark(submission.mark)))
    return found


def count(ends: Iterable[End]) -> dict[str, int]:
    """Return how many ended how."""
    return dict(Counter(end.type for end in ends))


def read_mark(mark: Path) -> Run | None:
    """Return what a call wrote down."""
    try:
        lines = mark.read_text().splitlines()
    except FileNotFoundError:
        return None
    if not lines:  # killed between making the file and writing into it: nobody knows when
        return Run(0, 0, 0, None)
    began, pid, started = map(int, lines[0].split())
    return Run(began, pid, started, int(lines[1]) if len(lines) > 1 else None)


def of_jobs(ends: Iterable[End], also: Set[str] = frozenset()) -> list[str]:
    """Every acknowledged job is known, has ended, and ended as it may; what was told holds.

    :param also: more error types with which they may end.
    """
    faults = []
    for end in ends:
        faults += of_outcome(end, also)
        if end.outcome is not harp.CALL_NOT_FINISHED and end.submission.job.end_time() is None:
            faults.append(f"has no time of its end: {end}")
        if end.ran is not None and end.submission.job.start_time() is None:
            faults.append(f"ran without having been started: {end}")
        if end.submission.kind == "stream":
            faults += _of_stream(end)
    return faults


def of_outcome(end: End, also: Set[str] = frozenset()) -> list[str]:
    """As far as the dispatcher need not be asked again: it ended as it may."""
    submission, outcome = end.submission, end.outcome
    faults = []
    allowed = CUT_OFF | also | ({"timeout"} if submission.kind == "stubborn" else set())
    if outcome is harp.CALL_NOT_FINISHED:
        faults.append(f"did not end: {end}")
    elif outcome is harp.CALL_CANCELLED:
        if not submission.cancelled:
            faults.append(f"nobody cancelled it: {end}")
    elif end.type == "result":
        if outcome != submission.expected or end.ran is None or end.ran.ended is None:
            faults.append(f"wrong result, or one without a run: {end}")
    elif end.type not in allowed:
        faults.append(f"ended as it should not: {end}")
    elif not ERROR_TYPES[end.type].may_have_run and end.ran is not None:
        faults.append(f"ran although its end says that it did not: {end}")
    if any(_plain(told) != _plain(outcome) for told in submission.told):
        faults.append(f"a client was told something else, {submission.told}: {end}")
    return faults


def _of_stream(end: End) -> list[str]:
    """Packets are numbered from 0 without gap, all of them are there, and none was made up."""
    submission = end.submission
    packets = submission.job.stream(numbered=True).all()
    faults = []
    if packets != [(number, number) for number in range(len(packets))]:
        faults.append(f"packets have a gap or repeat: {end}")
    if end.type == "result" and len(packets) != end.outcome:
        faults.append(f"has {len(packets)} packets: {end}")
    if packets[: len(submission.packets)] != submission.packets:
        faults.append(f"a follower got packets that are not recorded: {end}")
    return faults


def of_marks(marks: Path) -> list[str]:
    """No call ran twice, whether its submission was acknowledged or not."""
    return [f"ran twice: {mark.name}" for mark in marks.glob("*.again.*")]


def of_queues(ends: Iterable[End], outages: Sequence[Outage]) -> list[str]:
    """In each queue jobs ran in order of submission, never more at once than its concurrency."""
    faults = []
    by_queue: dict[int, list[End]] = {}
    for end in ends:
        if end.submission.queue is not None and end.ran is not None:
            by_queue.setdefault(end.submission.queue, []).append(end)
    for queue, members in by_queue.items():
        spans = [span for end in members if (span := _span(end, outages)) is not None]
        faults += _too_many(spans, QUEUES[queue][1])
        faults += _out_of_order(spans, QUEUES[queue][1])
    return faults


@dataclass(frozen=True)
class _Span:
    """For how long a job ran for sure, in nanoseconds of the monotonic clock."""

    end: End
    began: int
    ended: int


def _span(end: End, outages: Sequence[Outage]) -> _Span | None:
    """Return for how long a job ran as its queue has it.

    One that was cut off did so from its begin to the next kill. One that began while something
    was down is not counted: to its queue it had ended when its daemon was killed.
    """
    assert end.ran is not None
    if end.type == "result":
        assert end.ran.ended is not None
        return _Span(end, end.ran.began, end.ran.ended)
    if not end.ran.began or end.type == "closed":
        return None  # killed before it had written when it began, or cut off at any time
    kill = next((outage for outage in outages if outage.ended >= end.ran.began), None)
    if kill is None or kill.began <= end.ran.began:
        return None
    return _Span(end, end.ran.began, kill.began)


def _too_many(spans: Iterable[_Span], concurrency: int) -> list[str]:
    # Ends before begins: one that ends at the moment in which another begins is not beside it.
    events = sorted(
        [(span.began, 1, span) for span in spans] + [(span.ended, 0, span) for span in spans],
        key=lambda event: event[:2],
    )
    running: list[_Span] = []
    faults = []
    for _, begins, span in events:
        if not begins:
            running.remove(span)
            continue
        running.append(span)
        if len(running) > concurrency:
            those = "; ".join(str(each.end) for each in running)
            faults.append(f"{len(running)} at once with concurrency {concurrency}: {those}")
    return faults


def _out_of_order(spans: Iterable[_Span], concurrency: int) -> list[str]:
    """One job may begin before another that was acknowledged before it was sent only beside it."""
    faults = []
    for later in (ordered := list(spans)):
        overtaken = [
            span
            for span in ordered
            if span.began > later.began
            and span.end.submission.acknowledged < later.end.submission.sent
        ]
        # Those were started before it, but had not come to their mark.
        if len(overtaken) >= concurrency:
            faults.append(f"overtook {len(overtaken)} with concurrency {concurrency}: {later.end}")
    return faults


def of_processes(marks: Path, limit: float) -> list[str]:
    """Nothing of any call is alive.

    :param limit: seconds within which what is being ended must be gone.
    """
    deadline = time.monotonic() + limit
    while left := _alive(marks):
        if time.monotonic() > deadline:
            return [f"is still alive: {process}" for process in left]
        time.sleep(0.05)  # between two looks
    return []


def _alive(marks: Path) -> list[str]:
    runs = {(run.pid, run.started) for mark in marks.iterdir() if (run := read_mark(mark))}
    carried = f"HARPCALLER_TEST_MARK={marks}/".encode()
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            fields = Path(f"/proc/{name}/stat").read_bytes().rpartition(b")")[2].split()
            environment = Path(f"/proc/{name}/environ").read_bytes()
        except OSError:
            continue
        if fields[0] != b"Z" and ((int(name), int(fields[19])) in runs or carried in environment):
            found.append(f"{name}: {Path(f'/proc/{name}/cmdline').read_bytes()!r}")
    return found


def _plain(outcome: Any) -> Any:
    if isinstance(outcome, harp.RemoteError | harp.RemoteException):
        return (type(outcome), outcome.type, outcome.message)
    return outcome
