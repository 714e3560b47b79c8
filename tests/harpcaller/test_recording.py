"""Tests of ``harpcaller.recording``: packets are numbered without a gap, whatever the disk does."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from harp.wire.packets import pack
from harpcaller.announcements import Announcements
from harpcaller.jobs import Job
from harpcaller.packets import Recorded
from harpcaller.recording import PacketRecorder
from harpcaller.store import StoreError
from tests.harpcaller.memory import PatientStore
from tests.harpcaller.packets import recorded


class Watcher:
    """Notes what is announced."""

    def __init__(self) -> None:
        self.told: list[Recorded] = []

    def packets(self, packets: Recorded) -> None:
        self.told.append(packets)

    def ended(self, job: Job) -> None:
        raise AssertionError("nobody said that it ended")


class RecorderTests(SynchronousTestCase):
    """One job's packets."""

    def setUp(self) -> None:
        """Watch the job."""
        self.store = PatientStore()
        self.watcher = Watcher()
        announcements = Announcements()
        announcements.watch("the-job", self.watcher)
        self.time = 1000.5
        self.recorder = PacketRecorder("the-job", self.store.real, announcements, lambda: self.time)

    def appended(self) -> Recorded:
        """Let what was asked for be on disk, and return what it was."""
        asked = self.store.answer("append", None)
        self.assertEqual(asked["job_id"], "the-job")
        packets: Recorded = asked["recorded"]
        return packets

    def test_one_portion_at_a_time(self) -> None:
        """What comes while a portion is recorded is the next one; each is told when on disk."""
        first = self.recorder.record(pack([b"0", b"1"]))
        others = [self.recorder.record(pack([b"2"])), self.recorder.record(pack([b"3", b"4"]))]
        self.assertEqual(len(self.store.asked("append")), 1)
        self.assertEqual(self.watcher.told, [])
        self.time = 1001.5
        self.assertEqual(self.appended(), recorded(0, b"0", b"1", at=1000.5))
        self.successResultOf(first)
        self.assertEqual(self.watcher.told, [recorded(0, b"0", b"1", at=1000.5)])
        for other in others:
            self.assertNoResult(other)
        self.assertEqual(self.appended(), recorded(2, b"2", b"3", b"4", at=1001.5))
        for other in others:
            self.successResultOf(other)
        self.assertEqual(self.watcher.told[1:], [recorded(2, b"2", b"3", b"4", at=1001.5)])
        self.recorder.record(pack([b"5"]))
        self.assertEqual(self.appended(), recorded(5, b"5", at=1001.5))

    def test_nothing_behind_a_failure(self) -> None:
        """Behind packets that could not be recorded nothing is, though the disk would take it."""
        given = [self.recorder.record(pack([b"%d" % number])) for number in range(3)]
        self.appended()
        self.store.answer("append", StoreError("the disk is full"))
        given.append(self.recorder.record(pack([b"3"])))
        self.assertEqual(self.store.questions, [])
        self.successResultOf(given[0])
        for later in given[1:]:
            self.failureResultOf(later, StoreError)
        self.assertEqual(self.watcher.told, [recorded(0, b"0", at=1000.5)])
