"""Tests of harpd.places."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from harpd.limits import Limits
from harpd.places import GIVES_WAY_AFTER, Places


class LimitsTests(SynchronousTestCase):
    """What there are descriptors for."""

    def test_within(self) -> None:
        """Connections leave some for the calls, strangers some for who has a login."""
        usual = Limits()
        self.assertEqual(usual.within(20_000), usual)
        few = usual.within(1024)
        self.assertEqual((few.max_connections, few.connections_before_login), (512, 256))
        self.assertEqual(few.max_calls, usual.max_calls)


class PlacesTests(SynchronousTestCase):
    """Each bound holds, and none of them costs more than its own connections."""

    def places(self, **limits: Any) -> Places[str]:
        """Return places with low limits."""
        self.clock = Clock()
        high = dict.fromkeys(
            [
                "max_connections",
                "max_connections_per_address",
                "connections_before_login",
                "connections_before_login_per_address",
            ],
            100,
        )
        found = Limits(**{**high, **limits})
        return Places(self.clock.seconds, lambda: found)

    def test_per_address(self) -> None:
        """One address can't take the places of others, logged in or not."""
        for limit in ("max_connections_per_address", "connections_before_login_per_address"):
            places = self.places(**{limit: 2})
            places.enter("1", "a")
            places.enter("2", "a")
            self.assertEqual(places.find("a"), (False, None))
            self.assertEqual(places.find("b"), (True, None))

    def test_in_all(self) -> None:
        """Nor can many addresses together."""
        for limit in ("max_connections", "connections_before_login"):
            places = self.places(**{limit: 2})
            places.enter("1", "a")
            places.enter("2", "b")
            self.assertEqual(places.find("c"), (False, None))

    def test_logged_in(self) -> None:
        """A connection with a login counts among all, and not among the strangers."""
        places = self.places(connections_before_login=1, max_connections_per_address=2)
        places.enter("1", "a")
        self.assertEqual(places.find("a"), (False, None))
        places.logged_in("1")
        self.assertEqual(places.find("a"), (True, None))
        places.enter("2", "a")
        places.logged_in("2")
        self.clock.advance(GIVES_WAY_AFTER)
        self.assertEqual(places.find("a"), (False, None))

    def test_gives_way(self) -> None:
        """The oldest stranger goes, of this address where its own bound is reached."""
        places = self.places(connections_before_login=3, connections_before_login_per_address=2)
        places.enter("1", "a")
        self.clock.advance(GIVES_WAY_AFTER)
        places.enter("2", "b")
        places.enter("3", "b")
        self.assertEqual(places.find("b"), (False, None))
        self.assertEqual(places.find("c"), (True, "1"))
        self.clock.advance(GIVES_WAY_AFTER)
        self.assertEqual(places.find("b"), (True, "2"))

    def test_nothing_left(self) -> None:
        """Of connections that have gone nothing is kept, and leaving twice is leaving once."""
        places = self.places()
        for number in range(6):
            places.enter(str(number), "ab"[number % 2])
        places.logged_in("1")
        for number in [*range(6), *range(6)]:
            places.leave(str(number))
        self.assertEqual(len(places), 0)
        kept = (places._count, places._strangers, places._strangers_of_all)
        self.assertEqual(kept, ({}, {}, {}))
