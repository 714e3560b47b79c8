"""Tests of ``harp.addresses``: bounds on connections, and failures that take longer and longer."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from harp import addresses
from harp.addresses import Bounds, Crowd, Failures, is_loopback, origin


class AddressTests(SynchronousTestCase):
    """What addresses mean."""

    def test_loopback(self) -> None:
        """An address is this machine's own in every spelling; a name is not an address."""
        for host in ("127.0.0.1", "127.3.2.1", "::1", "::ffff:127.0.0.1", "0:0::1"):
            self.assertTrue(is_loopback(host), host)
        for host in ("10.0.0.1", "0.0.0.0", "::", "::2", "", "localhost", "::ffff:10.0.0.1"):
            self.assertFalse(is_loopback(host), host)

    def test_origin(self) -> None:
        """A host that has a network of IPv6 addresses to itself is one all the same."""
        self.assertEqual(origin("2001:db8:1:2::5"), origin("2001:db8:1:2:ffff::9"))
        self.assertNotEqual(origin("2001:db8:1:2::5"), origin("2001:db8:1:3::5"))
        self.assertEqual(origin("::ffff:10.0.0.1"), "10.0.0.1")
        self.assertNotEqual(origin("10.0.0.1"), origin("10.0.0.2"))
        self.assertEqual(origin("fe80::1%eth0"), origin("fe80::2%eth0"))
        self.assertEqual(origin("unix"), "unix")


class CrowdTests(SynchronousTestCase):
    """How many connections there may be."""

    def setUp(self) -> None:
        """Let three come, two from one address."""
        self.clock = Clock()
        self.logged: list[dict[str, Any]] = []
        self.crowd = Crowd(self.clock.seconds, self, Bounds(3, 2))

    def warn(self, format: str, **fields: object) -> None:
        """Gather what is logged."""
        self.logged.append(fields)

    def come(self, host: str) -> bool:
        """Return whether a connection was let in."""
        if not self.crowd.admits(host):
            return False
        self.crowd.enter(host)
        return True

    def test_per_address(self) -> None:
        """An address that has its share gets no more until it lets one go."""
        self.assertEqual([self.come("10.0.0.1") for _ in range(3)], [True, True, False])
        self.assertTrue(self.come("10.0.0.2"))
        self.crowd.leave("10.0.0.1")
        self.assertTrue(self.come("10.0.0.1"))

    def test_total(self) -> None:
        """More than all there may be are not let in from anywhere."""
        self.assertTrue(all(self.come(f"10.0.0.{n}") for n in range(3)))
        for host in ("10.0.0.9", "127.0.0.1", "unix"):
            self.assertFalse(self.come(host))
        self.crowd.leave("10.0.0.0")
        self.assertTrue(self.come("unix"))

    def test_own_programs(self) -> None:
        """What comes from this machine is bounded in all only."""
        for host in ("127.0.0.1", "unix", "::1"):
            self.crowd = Crowd(self.clock.seconds, self, Bounds(3, 1))
            self.assertEqual([self.come(host) for _ in range(4)], [True, True, True, False])

    def test_last_tenth(self) -> None:
        """Strangers who take all there is do not keep out this machine's own programs."""
        self.crowd.bounds = Bounds(20, 20)
        self.assertEqual(sum(self.come(f"10.0.0.{n}") for n in range(30)), 18)
        for host, is_in in (("unix", True), ("::ffff:127.0.0.1", True), ("127.0.0.1", False)):
            self.assertEqual(self.come(host), is_in)

    def test_other_bounds(self) -> None:
        """Bounds can be changed while there are connections, which stay."""
        self.assertEqual([self.come("10.0.0.1") for _ in range(2)], [True, True])
        self.crowd.bounds = Bounds(10, 4)
        self.assertEqual([self.come("10.0.0.1") for _ in range(3)], [True, True, False])
        self.crowd.bounds = Bounds(1, 1)
        for _ in range(4):
            self.crowd.leave("10.0.0.1")
        self.assertEqual([self.come("10.0.0.1") for _ in range(2)], [True, False])

    def test_nothing_is_kept(self) -> None:
        """Addresses that have no connection any more are forgotten."""
        for number in range(100):
            self.assertTrue(self.come(f"10.0.0.{number}"))
            self.crowd.leave(f"10.0.0.{number}")
        self.assertEqual(self.crowd._by_origin, {})

    def test_log(self) -> None:
        """Refusals are logged once a second, with how many there have been."""
        self.crowd.bounds = Bounds(0, 0)
        for _ in range(5):
            self.come("10.0.0.1")
        self.assertEqual([each["count"] for each in self.logged], [1])
        self.clock.advance(1)
        self.come("10.0.0.2")
        self.come("10.0.0.2")
        self.assertEqual([each["count"] for each in self.logged], [1, 5])
        self.assertEqual(self.logged[-1]["host"], "10.0.0.2")


class FailuresTests(SynchronousTestCase):
    """Who guesses waits."""

    def setUp(self) -> None:
        """Have nobody failed."""
        self.clock = Clock()
        self.failures = Failures(self.clock.seconds)

    def test_longer_and_longer(self) -> None:
        """Each failure of an address takes longer, up to a limit; others' do not."""
        delays = [self.failures.note("10.0.0.1") for _ in range(2000)]
        self.assertEqual(delays[:3], [0.25, 0.5, 1.0])
        self.assertEqual(delays[-1], addresses.LONGEST_DELAY)
        self.assertEqual(delays, sorted(delays))
        self.assertEqual(self.failures.note("10.0.0.2"), addresses.FIRST_DELAY)

    def test_forgiven(self) -> None:
        """Who has not failed for long begins anew."""
        for wait, delay in ((0, 0.25), (addresses.FORGIVEN - 1, 0.5), (addresses.FORGIVEN, 0.25)):
            self.clock.advance(wait)
            self.assertEqual(self.failures.note("10.0.0.1"), delay)

    def test_bounded(self) -> None:
        """However many addresses fail, no more are remembered; the oldest is forgotten first."""
        self.patch(addresses, "MOST_ADDRESSES", 3)
        for host in ("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.1", "10.0.0.4"):
            self.failures.note(host)
        self.assertEqual(len(self.failures._known), 3)
        self.assertEqual(self.failures.note("10.0.0.1"), 1.0)
        self.assertEqual(self.failures.note("10.0.0.2"), 0.25)
