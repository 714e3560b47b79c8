"""Tests of ``harpcaller.announcements``."""

from __future__ import annotations

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from harp.wire.results import CANCELLED
from harpcaller.announcements import Announcements
from harpcaller.jobs import Job
from harpcaller.packets import Recorded
from tests.harpcaller.memory import ended_job, running_job
from tests.harpcaller.packets import recorded

JOB = ended_job(running_job(), CANCELLED)
PACKETS = recorded(3, b"1", b"2")


class Listener:
    """Notes what it is told.

    :param then: what it does whenever it is told something.
    """

    def __init__(self, then: Callable[[], None] = lambda: None) -> None:
        self.told: list[object] = []
        self._then = then

    def packets(self, packets: Recorded) -> None:
        self.told.append(packets)
        self._then()

    def ended(self, job: Job) -> None:
        self.told.append(job)
        self._then()


class AnnouncementsTests(SynchronousTestCase):
    """Who is told what."""

    def setUp(self) -> None:
        self.announcements = Announcements()

    def test_watchers_are_told(self) -> None:
        """All watchers of a job are told of its packets and its end."""
        listeners = [Listener(), Listener()]
        for listener in listeners:
            self.announcements.watch(JOB.id, listener)
        self.announcements.packets(JOB.id, PACKETS)
        self.announcements.ended(JOB)
        for listener in listeners:
            self.assertEqual(listener.told, [PACKETS, JOB])

    def test_other_jobs(self) -> None:
        """What becomes of other jobs is not told."""
        listener = Listener()
        self.announcements.watch("another", listener)
        self.announcements.packets(JOB.id, PACKETS)
        self.announcements.ended(JOB)
        self.assertEqual(listener.told, [])

    def test_nothing_after_the_end(self) -> None:
        """Nothing is told after the end."""
        listener = Listener()
        self.announcements.watch(JOB.id, listener)
        self.announcements.ended(JOB)
        self.announcements.packets(JOB.id, PACKETS)
        self.announcements.ended(JOB)
        self.assertEqual(listener.told, [JOB])

    def test_unwatch(self) -> None:
        """Who does not watch any more is told nothing, the others are."""
        leaving, staying = Listener(), Listener()
        self.announcements.watch(JOB.id, leaving)
        self.announcements.watch(JOB.id, staying)
        self.announcements.unwatch(JOB.id, leaving)
        self.announcements.ended(JOB)
        self.assertEqual((leaving.told, staying.told), ([], [JOB]))

    def test_unwatch_twice_and_late(self) -> None:
        """Who left before, never came, or was told of the end can leave all the same."""
        listener = Listener()
        self.announcements.unwatch(JOB.id, listener)
        self.announcements.watch(JOB.id, listener)
        self.announcements.unwatch(JOB.id, listener)
        self.announcements.unwatch(JOB.id, listener)
        self.announcements.watch(JOB.id, listener)
        self.announcements.ended(JOB)
        self.announcements.unwatch(JOB.id, listener)

    def test_leave_while_being_told(self) -> None:
        """Who leaves because of what it is told does not keep the others from being told."""

        def leave() -> None:
            self.announcements.unwatch(JOB.id, leaving)

        leaving = Listener(leave)
        others = [Listener(), Listener()]
        for listener in (others[0], leaving, others[1]):
            self.announcements.watch(JOB.id, listener)
        self.announcements.packets(JOB.id, PACKETS)
        self.announcements.ended(JOB)
        self.assertEqual(leaving.told, [PACKETS])
        for listener in others:
            self.assertEqual(listener.told, [PACKETS, JOB])

    def test_faulty_watcher(self) -> None:
        """A watcher that fails harms neither who announces nor the other watchers."""

        def mistake() -> None:
            raise RuntimeError("a mistake")

        listeners = [Listener(), Listener(mistake), Listener()]
        for listener in listeners:
            self.announcements.watch(JOB.id, listener)
        self.announcements.packets(JOB.id, PACKETS)
        self.announcements.ended(JOB)
        for listener in listeners:
            self.assertEqual(listener.told, [PACKETS, JOB])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 2)
