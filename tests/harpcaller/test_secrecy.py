"""Tests of ``harpcaller.secrecy``."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from harpcaller.secrecy import MAX_KNOWN, MAX_NAME, NOT_SHOWN, SecretProcedures, shown_after

TOLD = b'["root","(secret)"]'


class SecretProceduresTests(SynchronousTestCase):
    """What is remembered of harpds."""

    def test_learned(self) -> None:
        """What harpd said last of a procedure counts, for that host alone."""
        known = SecretProcedures()
        self.assertFalse(known.learn("web01", "passwd", False))
        self.assertNotIn(("web01", "passwd"), known)
        self.assertTrue(known.learn("web01", "passwd", True))
        self.assertFalse(known.learn("web01", "passwd", True))
        self.assertIn(("web01", "passwd"), known)
        self.assertNotIn(("web02", "passwd"), known)
        self.assertTrue(known.learn("web01", "passwd", False))
        self.assertNotIn(("web01", "passwd"), known)

    def test_known_before(self) -> None:
        """What was learned by an earlier process counts as long as nothing else is said."""
        known = SecretProcedures([("web01", "passwd"), ("web02", "passwd")])
        self.assertIn(("web01", "passwd"), known)
        self.assertFalse(known.learn("web01", "passwd", True))
        self.assertTrue(known.learn("web02", "passwd", False))

    def test_bounded(self) -> None:
        """So many are remembered, those that were used last; none with a very long name."""
        known = SecretProcedures()
        known.learn("h", "p" * MAX_NAME, True)
        self.assertNotIn(("h", "p" * MAX_NAME), known)
        known.learn("h", "used", True)
        for number in range(MAX_KNOWN):
            known.learn("h", str(number), True)
            known.learn("h", "used", True)
        self.assertIn(("h", "used"), known)
        self.assertNotIn(("h", "0"), known)
        self.assertIn(("h", "1"), known)


class ShownTests(SynchronousTestCase):
    """What is shown in the end."""

    def test_either(self) -> None:
        """What the client or harpd hides is hidden."""
        self.assertEqual(shown_after(None, TOLD), TOLD)
        self.assertEqual(shown_after(NOT_SHOWN, TOLD), TOLD)
        self.assertEqual(shown_after(TOLD, TOLD), TOLD)
        self.assertEqual(shown_after(b'["(secret)","pw"]', TOLD), NOT_SHOWN)
