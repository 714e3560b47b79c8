"""The example of the page on permissions means what the page says."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from harp.settings import read
from harp.wire import dispatcher as wire
from harpcaller.hosts import Host
from harpcaller.identities import Identity
from harpcaller.permissions import Permissions
from harpcaller.rules import read_rules
from harpcaller.users import read_users
from tests.docs.pages import ROOT, blocks

PAGE = ROOT / "docs" / "reference" / "permissions.md"
TAGS = {"web01": (), "cache7": ("frontend",), "db01": ()}

_ROW = re.compile(r"^\| (\w+) \| `\{(.*)\}` \| (allowed|refused) \|$", re.MULTILINE)


class PageTests(SynchronousTestCase):
    """The configuration of the page, and its table of requests."""

    def test_example(self) -> None:
        """Each request is decided as its row says."""
        (block,) = [each for each in blocks(PAGE) if each.language == "yaml"]
        file = Path(self.mktemp())
        file.write_text(block.text)
        with read(file) as keys:
            users = read_users(keys.section("users"), verifies_names=False)
            rules = read_rules(keys, users.known)
        hosts = {name: Host(name, "10.0.0.1", 4306, "u", "p", tags) for name, tags in TAGS.items()}
        permissions = Permissions(hosts.get, rules)
        identities = {user.name: user.asks("") for user in users.known}
        rows = _ROW.findall(PAGE.read_text("utf-8"))
        self.assertGreater(len(rows), 10)
        for who, keys_of_request, decision in rows:
            request = wire.decode_request_line(b'{"harpcaller":1,%b}' % keys_of_request.encode())
            identity = identities.get(who, Identity(None))
            self.assertEqual(identity.name or "anonymous", who)
            is_allowed = permissions.decide(identity, request)
            self.assertEqual("allowed" if is_allowed else "refused", decision, keys_of_request)
