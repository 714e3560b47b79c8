"""Tests of harpd.identity."""

from __future__ import annotations

import grp
import os
import pwd
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from harpd.identity import Identity, find_identity
from harpd.proc import Groups


class FindIdentityTests(SynchronousTestCase):
    """Users and groups become numbers."""

    def test_nothing(self) -> None:
        """Without a user or a group there is no other identity."""
        self.assertIsNone(find_identity(None, None))

    def test_user(self) -> None:
        """A user comes with the groups of the user database, the primary first."""
        for user in pwd.getpwall()[:5]:
            groups = os.getgrouplist(user.pw_name, user.pw_gid)
            for uid in (user.pw_name, user.pw_uid):
                found = find_identity(uid, None)
                assert found is not None
                self.assertEqual((found.uid, found.gid), (user.pw_uid, user.pw_gid))
                self.assertEqual(found.groups[0], user.pw_gid)
                self.assertCountEqual(found.groups, groups)

    def test_supplementary_groups(self) -> None:
        """The user's further groups come behind the primary one, which is not repeated."""
        self.patch(os, "getgrouplist", lambda name, gid: [7, gid, 8])
        nobody = pwd.getpwnam("nobody")
        expected = Identity(nobody.pw_uid, nobody.pw_gid, (nobody.pw_gid, 7, 8))
        self.assertEqual(find_identity("nobody", None), expected)

    def test_groups(self) -> None:
        """Given groups are all that there are, by name or number."""
        nobody = pwd.getpwnam("nobody").pw_uid
        daemon = grp.getgrnam("daemon").gr_gid
        self.assertEqual(find_identity("nobody", "daemon"), Identity(nobody, daemon, (daemon,)))
        lists: list[Groups] = [(7, "daemon"), [7, "daemon"]]
        for groups in lists:
            self.assertEqual(find_identity("nobody", groups), Identity(nobody, 7, (7, daemon)))
        self.assertEqual(find_identity(None, 7), Identity(os.geteuid(), 7, (7,)))

    def test_number_without_entry(self) -> None:
        """A number that no user has is good together with a group."""
        self.assertEqual(find_identity(54321, 7), Identity(54321, 7, (7,)))
        with self.assertRaisesRegex(LookupError, "uid 54321 has no entry .*, so give gid too"):
            find_identity(54321, None)

    def test_no_such(self) -> None:
        """Users and groups that do not or can't exist are refused."""
        # The kernel takes the last number that fits for "as it was": that would be root.
        users: list[Any] = ["no such", -1, 2**32 - 1, 2**32, True, 1.5, ["nobody"]]
        for uid in users:
            with self.assertRaisesRegex(LookupError, "there is no user "):
                find_identity(uid, 7)
        groups: list[Any] = ["no such", -1, 2**32 - 1, [7, 2**32], True, [1.5], 1.5]
        for gid in groups:
            with self.assertRaisesRegex(LookupError, "there is no group "):
                find_identity(None, gid)
        with self.assertRaisesRegex(LookupError, "gid is an empty list"):
            find_identity(None, [])
