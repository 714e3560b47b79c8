"""Jobs read to their ends, and what they give printed.

What comes of them is read by ``harp.cli.reading``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from harp import HarpException, RemoteCall
from harp.cli.output import Output
from harp.cli.reading import End, Event, Lost, Packet, Reading, Start
from harp.cli.status import Failure, failure


class Watch:
    """For programs, and for terminals where nothing can move."""

    def __init__(
        self, output: Output, jobs: Sequence[RemoteCall], start: Start | None, where: str
    ) -> None:
        self._output = output
        self._where = where
        self._jobs = jobs
        self._ends: dict[str, End] = {}
        self._seen: dict[str, int] = {}
        self._reading = Reading(jobs, start)
        self._has_packets = start is not None

    def run(self) -> None:
        """Print what comes until all jobs have ended."""
        while len(self._ends) < len(self._jobs):
            event = self._next()
            if event is not None:
                self._show(event)

    def end(self) -> None:
        """End the command as the jobs have ended."""
        ends = [self._ends[job.id()] for job in self._jobs]
        failures = [self._failure(end, end.error) for end in ends if end.error is not None]
        if failures and len(self._jobs) == 1:
            raise failures[0]
        if failures:
            raise click.exceptions.Exit(failures[0].exit_code)

    def tell_how_to_go_on(self) -> None:
        """Say how the jobs that are left running are found again."""
        for job_id in (job.id() for job in self._jobs):
            if job_id not in self._ends:
                text = f"job {job_id} is left running; to go on with it:\n  {self._how(job_id)}"
                since = self._since(job_id)
                self._output.told({"job": job_id, "left": True, "since": since}, text)

    def _how(self, job_id: str) -> str:
        """Return the command that goes on with a job."""
        if not self._has_packets:
            return f"harp result {job_id}"
        since = self._since(job_id)
        return f"harp follow {job_id}" + (f" --since {since}" if since else "")

    def _since(self, job_id: str) -> int:
        return self._seen.get(job_id, -1) + 1

    def _failure(self, end: End, error: HarpException) -> Failure:
        found = failure(error, end.job.id())
        if end.was_there:
            how = self._how(end.job.id())
            found.remedy = f"The job is not lost; to go on with it:\n  {how}"
        return found

    def _next(self) -> Event | None:
        return self._reading.next(None)

    def _show(self, event: Event) -> None:
        job_id = event.job.id()
        match event:
            case Packet(_, number, value):
                self._packet(job_id, value)
                self._seen[job_id] = number
            case Lost(_, error):
                told = {"job": job_id, "lost": str(error)}
                self._output.told(told, f"{error}; trying again")
            case End(_, result, None):
                self._ends[job_id] = event
                self._result(job_id, result)
            case End(_, _, error):
                self._ends[job_id] = event
                if len(self._jobs) > 1 and error is not None:
                    self._output.failure(self._failure(event, error), job_id)

    def _packet(self, job_id: str, value: Any) -> None:
        if self._output.as_json:
            self._output.item({"job": job_id, "stream": value})
        else:
            self._output.item(value, self._label(job_id))

    def _result(self, job_id: str, value: Any) -> None:
        if self._output.as_json:
            self._output.item({"job": job_id, "result": value})
        elif len(self._jobs) > 1:
            self._output.item(value, self._label(job_id))
        elif value is not None or not self._output.is_terminal or job_id not in self._seen:
            self._output.value(value)

    def _label(self, job_id: str) -> str:
        return job_id if len(self._jobs) > 1 else ""
