"""Clients that call at a steady rate for hours: what has been judged is forgotten, marks and all.

What is called is said by ``load``, what must come of it by ``verdict``.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, deque
from contextlib import suppress
from pathlib import Path

import harp
from tests.acceptance import verdict
from tests.acceptance.load import Calls, Submission

KINDS = {"plain": 85, "stream": 6, "queued": 8, "stubborn": 0.2}
"""What is called, and how often each in comparison."""

LENGTHS = (0, 1, 10, 10, 300)
"""How many packets streams have."""

CANCEL = 0.02
"""How likely a call is cancelled right after it was submitted."""

LEAVE = 0.2
"""How likely its client goes on to the next one, and asks for the result later."""

LEFT = 2000
"""How many such calls there are before the oldest is asked for."""

WHOLE = 0.1
"""How likely all that the dispatcher knows of a job is asked for, not only its result."""

PATIENCE = 120.0
"""Seconds within which the dispatcher can be reached again and a job ends, whatever was done."""

UNRECORDED = frozenset({"os_error"})
"""How a stream may end whose packets could not be written down."""

KEPT = 50
"""How many faults are kept in words; all are counted."""

_AGAIN = 0.05  # seconds before the next try when the dispatcher is down
_BEHIND = 1.0  # seconds that clients may make up for; what was missed before is left out


class SteadyLoad:
    """Client threads, paced together.

    :param marks: an empty folder for the marks of the calls.
    :param rate: calls a second.
    :param seed: chooses what each client calls.
    :ivar acknowledged: how many calls were acknowledged.
    :ivar refused: how many were not, by the reason.
    :ivar ends: how many ended how.
    :ivar lost: acknowledged, and not known or not ended, or ended in success without a run.
    :ivar duplicated: how many ran twice.
    :ivar other: how many ended in another way than they may.
    :ivar faults: the first of all these in words.
    """

    def __init__(self, port: int, marks: Path, rate: float, seed: int, clients: int = 32) -> None:
        self.acknowledged = 0
        self.refused: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()
        self.lost = self.duplicated = self.other = 0
        self.faults: list[str] = []
        self._calls = Calls(port, KINDS, LENGTHS)
        self._marks = marks
        self._interval = 1 / rate
        self._due = 0.0
        self._left: deque[Submission] = deque()
        # By the names of their marks; with the time since when nothing more is known of it.
        self._open: dict[str, float | None] = {}
        self._lock = threading.Lock()
        self._going = threading.Event()
        self._stopped = threading.Event()
        self._idle = threading.Semaphore(0)
        self._clients = clients
        for number in range(clients):
            # Daemons: a client that waits for ever is told of, not waited for.
            name = f"{seed}-{number}"
            threading.Thread(target=self._work, args=(name,), daemon=True).start()

    def start(self) -> None:
        """Begin to call, or go on."""
        self._due = time.monotonic()
        self._going.set()

    def pause(self) -> None:
        """Return when all calls have ended and have been judged."""
        while self._idle.acquire(blocking=False):
            pass  # of those who had nothing to do before
        self._going.clear()
        until = time.monotonic() + PATIENCE
        back = 0
        while back < self._clients and self._idle.acquire(timeout=max(0, until - time.monotonic())):
            back += 1
        if back < self._clients:
            self._fault("lost", f"{self._clients - back} clients wait for what does not come")

    def stop(self) -> None:
        """End the clients, which have been paused."""
        self._stopped.set()
        self._going.set()

    def sweep(self) -> None:
        """Look for marks of a second run, and forget what was cut off long ago."""
        long_ago = time.monotonic() - PATIENCE
        with self._lock:
            old = [name for name, at in self._open.items() if at is not None and at < long_ago]
            for name in old:
                self._forget(name)
        for mark in list(self._marks.iterdir()):
            name, again, _ = mark.name.partition(".again.")
            with self._lock:
                known = (name in self._open or not mark.exists()) and not again
                if not known:
                    mark.unlink()
            if not known:
                self._fault("duplicated", f"ran twice: {mark.name}")

    def _forget(self, name: str) -> None:
        # Behind this, a mark of that name is one of a second run.
        del self._open[name]
        (self._marks / name).unlink(missing_ok=True)

    def _work(self, name: str) -> None:
        choice = random.Random(name)
        number = 0
        while not self._stopped.is_set():
            try:
                if self._going.is_set():
                    self._wait_turn()
                    number += 1
                    self._call(choice, f"{name}-{number}")
                elif self._left:
                    with suppress(IndexError):  # another client was faster
                        self._judge(choice, self._left.popleft())
                else:
                    self._idle.release()
                    self._going.wait()
            except Exception as error:
                self._fault("other", f"a client broke: {error!r}")

    def _wait_turn(self) -> None:
        now = time.monotonic()
        with self._lock:
            self._due = max(self._due + self._interval, now - _BEHIND)
            due = self._due
        self._stopped.wait(max(0.0, due - now))

    def _call(self, choice: random.Random, name: str) -> None:
        with self._lock:
            self._open[name] = None
        try:
            submission = self._calls.submit(choice, self._marks / name)
        except harp.HarpException as error:
            with self._lock:  # it may run all the same
                self._open[name] = time.monotonic()
                self.refused[getattr(error, "type", None) or type(error).__name__] += 1
            self._stopped.wait(_AGAIN)
            return
        with self._lock:
            self.acknowledged += 1
        if choice.random() < CANCEL:
            submission.cancelled = True
            with suppress(harp.HarpException):  # what can't be written down is refused
                submission.job.cancel()
        if choice.random() < LEAVE:
            with self._lock:
                self._left.append(submission)
                if len(self._left) <= LEFT:
                    return
                submission = self._left.popleft()
        self._judge(choice, submission)

    def _judge(self, choice: random.Random, submission: Submission) -> None:
        until = time.monotonic() + PATIENCE
        while True:
            try:
                outcome = submission.job.result(wait=True)
                end = verdict.End(submission, outcome, verdict.read_mark(submission.mark))
                whole = choice.random() < WHOLE
                also = UNRECORDED if submission.kind == "stream" else frozenset()
                look = verdict.of_jobs([end], also) if whole else verdict.of_outcome(end, also)
                break
            except harp.CommunicationError as error:
                if time.monotonic() > until:
                    self._fault("lost", f"{submission.job.id()} can't be asked for: {error!r}")
                    return
                self._stopped.wait(_AGAIN)
        for fault in look:
            gone = end.type in {"invalid_jobid", "result"} and end.ran is None
            self._fault("lost" if gone else "other", fault)
        with self._lock:
            self.ends[end.type] += 1
            if end.type == "result":
                self._forget(submission.mark.name)
            else:  # what was cut off may come to its mark yet
                self._open[submission.mark.name] = time.monotonic()

    def _fault(self, kind: str, text: str) -> None:
        with self._lock:
            setattr(self, kind, getattr(self, kind) + 1)
            if len(self.faults) < KEPT:
                self.faults.append(text)
