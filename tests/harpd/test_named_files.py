"""Tests of harpd.named_files: the files that the configuration names, and no others."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from harp.settings import ConfigError
from harpd import config, named_files
from harpd.named_files import MAX_FILE, Files, gather
from tests.harpd.certificates import write_configuration

PASSFILE = "\nauthentication: {module: harpd.auth.passfile, file: passwd}\n"
HASH = "$6$rounds=5000$x$" + "a" * 86


class GatherTests(SynchronousTestCase):
    """What root reads for the process that is not root."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.config = write_configuration(self.folder, PASSFILE)
        (self.folder / "passwd").write_text(f"panel:{HASH}\n")

    def test_what_is_named(self) -> None:
        """All that the configuration names is there, and is used in place of the files."""
        gathered = gather(self.config)
        names = ["cert.pem", "harpd.yaml", "key.pem", "passwd"]
        self.assertEqual(sorted(Path(name).name for name in json.loads(gathered)), names)
        for name in names:
            (self.folder / name).unlink()
        loaded = config.load(self.config, Files(gathered))
        self.assertEqual(loaded.port, 4306)
        self.assertIsNotNone(loaded.tls)

    def test_not_yaml(self) -> None:
        """A configuration that can't be read is told as its own contents."""
        self.config.write_text("a: b: c")
        self.assertEqual(list(json.loads(gather(self.config))), [str(self.config)])
        self.config.unlink()
        with self.assertRaises(FileNotFoundError):
            Files(gather(self.config))(self.config)

    def test_mistakes(self) -> None:
        """Files that can't be read are named with the reason, as mistakes of their keys."""
        (self.folder / "key.pem").unlink()
        (self.folder / "passwd").unlink()
        os.mkfifo(self.folder / "passwd")
        found = self.assertRaises(ConfigError, config.load, self.config, Files(gather(self.config)))
        key, passwd = found.mistakes
        self.assertIn("network.keyfile, line 3: ", key)
        self.assertIn("No such file", key)
        self.assertIn("authentication.file, line 5: ", passwd)

    def test_wrong_types(self) -> None:
        """What is no name is no file."""
        self.config.write_text("network: {certfile: [1], keyfile: {a: b}}\nauthentication: x\n")
        self.assertEqual(list(json.loads(gather(self.config))), [str(self.config)])

    def test_long(self) -> None:
        """A file without end is not read to its end."""
        self.patch(named_files, "MAX_FILE", 100)
        self.assertEqual(json.loads(gather(self.config))[f"{self.folder}/cert.pem"], errno.EFBIG)
        self.assertGreater(MAX_FILE, 1 << 20)

    def test_others(self) -> None:
        """A file that is not named is read by the process itself, with its own rights."""
        other = self.folder / "other"
        other.write_bytes(b"x")
        self.assertEqual(Files(gather(self.config))(other), b"x")
