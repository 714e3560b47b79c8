"""Jobs watched on a terminal: a line tells what goes on, and Ctrl-C asks."""

from __future__ import annotations

import signal
from collections.abc import Sequence

from harp import RemoteCall
from harp.cli import job_facts, status_line
from harp.cli.output import Output
from harp.cli.printing import Watch
from harp.cli.reading import Event, Lost, Packet, Start, States

ASK_EVERY = 1.0
"""Seconds after which the dispatcher is asked again what the jobs wait for."""

PATIENCE = 4.0
"""Seconds without an answer to that after which people are told."""


class LiveWatch(Watch):
    """For people: a line tells what goes on, and Ctrl-C asks what is to become of the jobs."""

    def __init__(
        self, output: Output, jobs: Sequence[RemoteCall], start: Start | None, where: str
    ) -> None:
        super().__init__(output, jobs, start, where)
        self._line = status_line.StatusLine(output.errors)
        self._progress: status_line.Progress | None = None
        self._states = States(ASK_EVERY)
        self._trouble = ""
        self._ctrl_c = _CtrlC()

    def run(self) -> None:
        """Print what comes until all jobs have ended, or who watches does not want more."""
        if len(self._jobs) == 1:
            self._states.watch(self._jobs[0], self._goes_on)
        try:
            while not self._run():
                self._line.clear()
                if not self._decide():
                    raise KeyboardInterrupt
        finally:
            self._states.close()
            self._line.clear()

    def _run(self) -> bool:
        """Return whether that came to its end, False if there was a Ctrl-C."""
        with self._ctrl_c:
            try:
                super().run()
            except KeyboardInterrupt:
                return False
        return True

    def _next(self) -> Event | None:
        if self._ctrl_c.came:
            raise KeyboardInterrupt
        event = self._reading.next(status_line.EVERY)
        if event is None:
            self._draw()
        return event

    def _show(self, event: Event) -> None:
        if isinstance(event, Lost):
            self._trouble = f"trying again: {event.error}"
            return
        self._trouble = ""
        if isinstance(event, Packet) and (found := status_line.read_progress(event.value)):
            self._progress = found
            if len(event.value) == 1:  # nothing else is in it
                self._seen[event.job.id()] = event.number
                return
        self._line.clear()
        super()._show(event)
        if len(self._ends) < len(self._jobs):
            self._draw()

    def _draw(self) -> None:
        self._line.show(self._told(), None if self._trouble else self._progress)

    def _told(self) -> str:
        """Return what goes on."""
        if self._trouble:
            return self._trouble
        if len(self._jobs) > 1:
            return f"{len(self._ends)} of {len(self._jobs)} jobs have ended"
        if self._states.silence > PATIENCE:
            return f"no answer from the dispatcher for {self._states.silence:.0f} s"
        return job_facts.doing(self._states.known, self._where)

    def _goes_on(self, job: RemoteCall) -> bool:
        return job.id() not in self._ends

    def _decide(self) -> bool:
        """Ask what is to become of the jobs, and return whether to go on watching."""
        left = list(filter(self._goes_on, self._jobs))
        what, it = ("the job", "it") if len(left) == 1 else (f"{len(left)} jobs", "them")
        question = f"Cancel {what}, leave {it} running, or go on watching? [c/L/w] "
        while True:
            answer = self._output.ask(question)
            match (answer or "leave").strip().lower()[:1]:
                case "c":
                    for job in left:
                        status_line.work(self._output, "cancelling", job.cancel)
                    return True
                case "w":
                    return True
                case "l" | "":
                    return False


class _CtrlC:
    """Notes the first Ctrl-C, so that no event is lost between two steps; raises the second.

    :ivar came: whether there was one.
    """

    came = False

    def __enter__(self) -> None:
        self.came = False
        self._before = signal.signal(signal.SIGINT, self._note)

    def __exit__(self, *exc_info: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _note(self, *_: object) -> None:
        if self.came:
            raise KeyboardInterrupt
        self.came = True
