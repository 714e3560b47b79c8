"""Clients that call as fast as they can and note every job id that they were given."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import harp
from tests.acceptance.daemons import HOST

KINDS = {"plain": 4, "stream": 3, "queued": 6, "stubborn": 0.15}
"""What is called, and how often each in comparison."""

STUBBORN_LIMIT = 1.0
"""Seconds that a call may last that would not end by itself."""

QUEUES = [(name, concurrency) for name in ("one", "other") for concurrency in (1, 2, 3)]

_AGAIN = 0.02  # seconds before the next try when the dispatcher is down


@dataclass
class Submission:
    """A call that the dispatcher acknowledged, and what it has told of the job since.

    :param mark: the file in which each run of the procedure is marked.
    :param queue: its queue's index in ``QUEUES``, None if it waits in none.
    :param expected: the result if nothing cuts it off.
    :param sent: before the request, and ``acknowledged`` behind the reply, in nanoseconds of the
        machine's monotonic clock.
    :param told: end results that the client was told of while the daemons were being killed.
    :param packets: what it was told of the stream meanwhile.
    :param cancelled: whether it was asked to cancel the job.
    """

    job: harp.RemoteCall
    kind: str
    mark: Path
    queue: int | None
    expected: Any
    sent: int
    acknowledged: int
    told: list[Any] = field(default_factory=list)
    packets: list[tuple[int, Any]] = field(default_factory=list)
    cancelled: bool = False


class Calls:
    """Submits calls of procedures that leave marks.

    :param kinds: which, and how often each in comparison.
    :param lengths: how many packets a stream has.
    """

    def __init__(
        self,
        port: int,
        kinds: Mapping[str, float] = KINDS,
        lengths: Sequence[int] = (0, 1, 10, 300),
    ) -> None:
        self._rpc = harp.HarpCaller("127.0.0.1", port)
        self._kinds = kinds
        self._lengths = lengths

    def submit(self, choice: random.Random, mark: Path) -> Submission:
        """Submit one.

        :param mark: the file in which its run is to be marked.
        :raises HarpException: if it is not acknowledged.
        """
        (kind,) = choice.choices(list(self._kinds), list(self._kinds.values()))
        queue = None
        host = self._rpc.host(HOST)
        expected: Any = None
        sent = time.monotonic_ns()
        if kind == "plain":
            expected = choice.randrange(1000)
            job = host.plain(str(mark), expected)
        elif kind == "stream":
            expected = choice.choice(self._lengths)
            job = host.stream(str(mark), expected)
        elif kind == "queued":
            queue = choice.randrange(len(QUEUES))
            name, concurrency = QUEUES[queue]
            expected = choice.choice([0.0, 0.01, 0.05])
            place = self._rpc.host(
                HOST, queue={"load": name, "of": concurrency}, concurrency=concurrency
            )
            job = place.slow(str(mark), expected)
        else:
            job = self._rpc.host(HOST, max_exec_time=STUBBORN_LIMIT).stubborn(str(mark))
        return Submission(job, kind, mark, queue, expected, sent, time.monotonic_ns())


class Load:
    """Client threads that submit until they are stopped.

    :param marks: the folder for the marks of the calls.
    :param seed: chooses what each client calls.
    """

    def __init__(self, port: int, marks: Path, seed: str, clients: int = 4) -> None:
        self.submissions: list[Submission] = []
        self.broken: list[BaseException] = []
        self._calls = Calls(port)
        self._marks = marks
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, args=(f"{seed}-{number}",))
            for number in range(clients)
        ]

    def start(self) -> None:
        """Begin to call."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Return when the clients have ended."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _work(self, name: str) -> None:
        choice = random.Random(name)
        number = 0
        try:
            while not self._stopped.is_set():
                number += 1
                try:
                    submission = self._calls.submit(choice, self._marks / f"{name}-{number}")
                    self.submissions.append(submission)
                    self._look(choice, submission)
                except harp.CommunicationError:
                    self._stopped.wait(_AGAIN)
        except BaseException as error:  # it is the test that must fail, not only the thread
            self.broken.append(error)

    def _look(self, choice: random.Random, submission: Submission) -> None:
        """Now and then wait for what becomes of the job, which also keeps queues short."""
        if choice.random() < 0.2:
            if submission.kind == "stream":
                with submission.job.follow(since=0, numbered=True) as packets:
                    for packet in packets:
                        submission.packets.append(packet)  # kept when the next does not come
            submission.told.append(submission.job.result(wait=True))
