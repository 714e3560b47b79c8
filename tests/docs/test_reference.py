"""The reference pages name what there is: keys, statuses, names."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from docs import samples
from harp import settings
from harp.cli.status import Status
from harpcaller import config as harpcaller_config
from harpd import config as harpd_config
from tests.docs.pages import ROOT

REFERENCE = ROOT / "docs" / "reference"


class Noting(set[str]):
    """The keys that a section was asked for; it tells their whole names."""

    def __init__(self, of: settings.Section, names: set[str]) -> None:
        self._of = of
        self._names = names

    def add(self, key: str) -> None:
        """Note a key."""
        super().add(key)
        self._names.add(self._of.name(key))


class KeyTests(SynchronousTestCase):
    """The keys of a configuration, as the sample has them and the daemon asks for them."""

    def told(self, name: str) -> set[str]:
        return {key.name for key in samples.keys(ROOT / "etc" / name)}

    def setUp(self) -> None:
        self.names: set[str] = set()
        create, has = settings.Section.__init__, settings.Section.__contains__

        def init(section: settings.Section, *args: Any) -> None:
            create(section, *args)
            section._asked = Noting(section, self.names)

        def contains(section: settings.Section, key: str) -> bool:
            self.names.add(section.name(key))
            return has(section, key)

        self.patch(settings.Section, "__init__", init)
        self.patch(settings.Section, "__contains__", contains)

    def asked(self, load: Callable[[Path], object], text: str) -> set[str]:
        """Return every key that is asked for, whether it is there or not."""
        file = Path(self.mktemp())
        file.write_text(text)
        with contextlib.suppress(settings.ConfigError):
            load(file)
        return self.names

    def test_harpcaller(self) -> None:
        """The dispatcher asks for what stands in the sample, and for nothing else."""
        asked = self.asked(harpcaller_config.load, "max_age: 1\n")
        asked |= self.asked(harpcaller_config.load, "hosts_file: none\n")
        top = {key for key in asked if "." not in key}
        self.assertEqual(top, self.told("harpcaller.yaml"))

    def test_harpd(self) -> None:
        """So does harpd, in its sections too."""
        text = """
            network: {}
            authentication: {module: harpd.auth.%s}
            permissions: {panel: x}
            limits: {}
            python: {}
            defaults: {}
        """
        asked = self.asked(harpd_config.load, text % "passfile")
        asked |= self.asked(harpd_config.load, text % "inconfig")
        told = self.told("harpd.yaml")
        sections = {key.partition(".")[0] for key in told if "." in key}
        self.assertEqual(asked - {"permissions.panel"} | sections, told)


class CommandTests(SynchronousTestCase):
    """The page of the harp command."""

    def test_statuses(self) -> None:
        """It has every exit status."""
        page = (REFERENCE / "harp.md").read_text("utf-8")
        rows = re.findall(r"^\| (\d) \| (.+) \|$", page, re.MULTILINE)
        self.assertEqual([int(number) for number, _ in rows], [each.value for each in Status])

    def test_profile(self) -> None:
        """It has every key of a profile."""
        page = (REFERENCE / "harp.md").read_text("utf-8")
        source = (ROOT / "harp" / "cli" / "connection.py").read_text("utf-8")
        asked = set(re.findall(r'section\.\w+\("(\w+)"', source)) - {"profiles"}
        self.assertGreater(len(asked), 8)
        for key in asked:
            self.assertRegex(page, rf"(?m)^\| .*`{key}`")
