"""The dispatcher among clients, harpds and faults, under many seeds."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.trial.unittest import SynchronousTestCase

from harp import errors
from harp.wire.packets import Packets
from harpcaller import attempt, dispatcher, recording, remote, streams, submission
from harpcaller.jobs import Capacity
from harpcaller.store import Recovery, changes, repeats, secrets
from harpcaller.store.queues import digest_of
from harpcaller.store.statements import Connection
from tests.simulation.violation import Violation
from tests.simulation.world import run

SEEDS = 2500
WORKERS = 2

STARTED = "is started 2 times|yet it was started|which was started 1 times, ended with"
"""What is said of a call that began twice, or was said not to have begun."""


class SimulationTests(SynchronousTestCase):
    """Limits, order, acknowledged jobs, single starts, ends and followers, whatever happens."""

    def test_many_seeds(self) -> None:
        """No promise is broken under any seed."""
        share = SEEDS // WORKERS
        workers = [
            _start("--from", str(share * number), "--seeds", str(share))
            for number in range(WORKERS)
        ]
        told = [worker.communicate()[0] for worker in workers]
        self.assertEqual([worker.returncode for worker in workers], [0] * WORKERS, "\n".join(told))

    def test_same_seed(self) -> None:
        """A seed that fails can be looked at: it does the same in every process."""
        told = []
        for hash_seed in ("1", "2"):
            worker = _start("25", PYTHONHASHSEED=hash_seed)
            told.append(worker.communicate()[0])
            self.assertEqual(worker.returncode, 0, told[-1])
        self.assertIn("is acknowledged", told[0])
        self.assertEqual(told[0], told[1])


def _start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.simulation", *arguments],
        cwd=Path(__file__).parents[2],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


class BrokenProductTests(SynchronousTestCase):
    """The simulation sees when a promise is broken."""

    def assert_found(self, promise: str, owner: Any, name: str, broken: Any, seeds: int) -> None:
        """Check that a product in which something is replaced breaks a promise, and which."""
        with patch.object(owner, name, broken):
            for seed in range(seeds):
                try:
                    run(seed)
                except Violation as violation:
                    self.assertRegex(str(violation), promise)
                    return
        self.fail(f"{name} is broken, and no seed under {seeds} shows it")

    def test_jobs_cut_off(self) -> None:
        """A job that was running when the dispatcher was killed must end."""

        def recover(connection: Connection, capacity: Capacity, now: float) -> Recovery:
            return Recovery([], changes.set_capacity(connection, capacity, now))

        promise = "at rest job .* is running|in good order, yet .* runs"
        self.assert_found(promise, changes, "recover", recover, 200)

    def test_request_repeated(self) -> None:
        """A call that may have begun must not be sent again."""
        genuine = attempt.Attempt.lost

        def lost(self: Any, reason: Any, secured: bool, unread: bool) -> None:
            self._kept = True
            genuine(self, reason, secured, True)

        self._assert_repeats(lost, 300)

    def test_kept_connection_broken(self) -> None:
        """A call is not sent again because its connection, which was a kept one, broke."""
        genuine = attempt.Attempt.lost

        def lost(self: Any, reason: Any, secured: bool, unread: bool) -> None:
            genuine(self, reason, secured, unread or not self._accepted)

        self.assert_found(STARTED, attempt.Attempt, "lost", lost, 1000)

    def test_kept_connection_ended_late(self) -> None:
        """Nor because it was ended in good order, when a reply had come."""
        genuine = attempt.Attempt.lost

        def lost(self: Any, reason: Any, secured: bool, unread: bool) -> None:
            genuine(self, reason, secured, reason.check(ConnectionDone) is not None)

        self._assert_repeats(lost, 1000)

    def _assert_repeats(self, lost: Any, seeds: int) -> None:
        # The request, which has been taken up, is perhaps not there any more.
        self.assert_found(f"{STARTED}|AssertionError", attempt.Attempt, "lost", lost, seeds)
        gc.collect()
        self.flushLoggedErrors(AssertionError)

    def test_wrong_name(self) -> None:
        """A call that has begun must not end with an error by which it has not."""
        genuine = attempt.Attempt._fail

        def fail(self: Any, kind: Any, message: str) -> None:
            genuine(self, errors.NETWORK_ERROR, message)

        self.assert_found(STARTED, attempt.Attempt, "_fail", fail, 300)

    def test_packet_lost(self) -> None:
        """A follower that joins while packets arrive must get each of them."""
        genuine = streams.PacketStream.start

        def start(self: Any, since: int, known: int, last: Any) -> None:
            self._known = 0
            genuine(self, since, known, last)

        self.assert_found("packet", streams.PacketStream, "start", start, 500)

    def test_packets_not_recorded(self) -> None:
        """A job that a full disk did not take all packets of must not end with its result."""
        genuine = recording.PacketRecorder.record

        def record(self: Any, packets: Packets) -> Deferred[None]:
            return genuine(self, packets).addErrback(lambda _: None)

        promise = "has .* packets, harpd sent"
        self.assert_found(promise, recording.PacketRecorder, "record", record, 1000)

    def test_packets_behind_others(self) -> None:
        """Nothing must be recorded behind packets that a full disk did not take."""

        def failed(self: Any, failure: Any, portion: Any) -> None:
            self._is_recording = False
            if self._gathered:
                self._record()
            for _, recorded in portion:
                recorded.callback(None)

        promise = "has packets that harpd did not send so"
        self.assert_found(promise, recording.PacketRecorder, "_failed", failed, 1000)

    def test_time_limit(self) -> None:
        """A job that runs for too long must be ended."""
        self.assert_found("has run for", remote.Conversation, "_too_long", lambda self: None, 200)

    def test_answer_before_commit(self) -> None:
        """A client must get no id of a job that is not on disk."""

        def submit(self: Any, call: Any, identity: Any) -> Deferred[tuple[str, bool]]:
            new = submission.new_job(call, self._job_ids.new(0), identity, self.limits)
            self._store.submit(new, self._now()).addCallback(self._submitted)
            answer: Deferred[tuple[str, bool]] = Deferred()
            answer.callback((new.id, False))
            return answer

        self.assert_found("is lost", dispatcher.Dispatcher, "submit", submit, 50)

    def test_end_not_recorded(self) -> None:
        """A job whose end is not recorded must be noticed."""
        genuine: Callable[..., None] = dispatcher.Dispatcher._ended

        def ended(self: Any, job: Any, result: Any, origin: Any) -> None:
            if result.kind.value == "exception":
                self._running.pop(job.id, None)
            else:
                genuine(self, job, result, origin)

        self.assert_found("at rest job .* is running", dispatcher.Dispatcher, "_ended", ended, 300)

    def test_keys_of_all(self) -> None:
        """Nobody must get a job of somebody else by a key that is the same."""

        def whose(new: Any) -> dict[str, str]:
            return {"whose": "", "for_whom": ""}

        self.assert_found("has got the job", repeats, "_whose", whose, 100)

    def test_dedup_of_all(self) -> None:
        """Nor because it would rather have an equal job."""

        def column(new: Any) -> bytes | None:
            return None if new.dedup is None else digest_of(new.dedup.key)

        self.assert_found("has got the job", repeats, "dedup_column", column, 300)

    def test_secret_stays(self) -> None:
        """No secret must be on disk when its job does not wait any more."""
        self.assert_found("secrets are kept", secrets, "wipe", lambda *_: None, 100)

    def test_secret_lost(self) -> None:
        """A job that waits must keep its secrets."""
        self.assert_found("has lost its secret", secrets, "keep", lambda *_: None, 100)

    def test_declared_secret_stays(self) -> None:
        """What harpd says to be secret must not be shown any more."""
        self.assert_found("still shows", changes, "replace_arguments", lambda *_: None, 100)
