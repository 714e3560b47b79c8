"""Tests of harpcaller.config."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import trustme
from sqlalchemy.engine import make_url
from twisted.trial.unittest import SynchronousTestCase

from harp.settings import ConfigError
from harpcaller.config import Config, load

SAMPLE = Path(__file__).parents[2] / "etc" / "harpcaller.yaml"


class LoadTests(SynchronousTestCase):
    """From a file to values, or to all of its mistakes."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        script = self.folder / "hosts"
        script.write_text("#!/bin/sh\n")
        script.chmod(0o755)
        trustme.CA().cert_pem.write_to_path(str(self.folder / "ca.pem"))

    def load(self, text: str) -> Config:
        file = self.folder / "harpcaller.yaml"
        file.write_text(text, "utf-8")
        return load(file)

    def mistakes(self, text: str) -> list[str]:
        """Return what is wrong besides what the file's name says; the script need not be given."""
        if "host_db_script" not in text:
            text += "\nhost_db_script: hosts\n"
        found = self.assertRaises(ConfigError, self.load, text).mistakes
        return [each.removeprefix(f"{self.folder}/harpcaller.yaml: ") for each in found]

    def mistake(self, text: str) -> str:
        (found,) = self.mistakes(text)
        return found

    def test_defaults(self) -> None:
        """Only the script has to be given; the rest has the documented defaults."""
        config = self.load("host_db_script: hosts")
        expected = Config(
            listen=("127.0.0.1:3502",),
            database=make_url("sqlite:////var/lib/harpcaller/harpcaller.db"),
            host_db_script=self.folder / "hosts",
            host_db=Path("/var/lib/harpcaller/hosts.db"),
            host_db_refresh=900.0,
            default_timeout=600.0,
            max_exec_time=600.0,
            ca_file=None,
            known_certs_file=None,
        )
        self.assertEqual(config, expected)

    def test_everything_given(self) -> None:
        """Every key reaches its value; relative paths start at the folder of the file."""
        config = self.load(
            "listen: ['*:1', 'unix:/run/x']\n"
            "database: sqlite:///state/jobs.db?timeout=5\n"
            f"host_db_script: {self.folder}/hosts\n"
            "host_db: state/hosts\nhost_db_refresh: 60\n"
            "default_timeout: 5\nmax_exec_time: 7.5\n"
            "ca_file: ca.pem\nknown_certs_file: ca.pem\n"
        )
        expected = Config(
            listen=("*:1", "unix:/run/x"),
            database=make_url(f"sqlite:///{self.folder}/state/jobs.db?timeout=5"),
            host_db_script=self.folder / "hosts",
            host_db=self.folder / "state/hosts",
            host_db_refresh=60.0,
            default_timeout=5.0,
            max_exec_time=7.5,
            ca_file=self.folder / "ca.pem",
            known_certs_file=self.folder / "ca.pem",
        )
        self.assertEqual(config, expected)

    def test_sample(self) -> None:
        """The sample has every key, and what stands there without # are the defaults."""
        installed = SAMPLE.read_text("utf-8").replace("/etc/harpcaller/hosts", "hosts")
        self.assertEqual(self.load(installed), self.load("host_db_script: hosts"))
        everything = re.sub("(?m)^#(?=[a-z])", "", installed).replace("/etc/harpcaller/", "")
        (self.folder / "known_certs.pem").write_bytes((self.folder / "ca.pem").read_bytes())
        config = self.load(everything)
        self.assertEqual(config.known_certs_file, self.folder / "known_certs.pem")
        for key in dataclasses.fields(Config):
            self.assertRegex(everything, f"(?m)^{key.name}:")

    def test_all_mistakes_at_once(self) -> None:
        """One reading finds every mistake, each with its key and line."""
        found = self.mistakes(
            "listen: nonsense\ndatabase: nonsense\nhost_db_script: nowhere\nhost_db_refresh: 0\n"
            "default_timeout: no\nmax_exec_time: -1\nca_file: nowhere\nknown_certs_file: []\n"
            "max_exec_tme: 5\n"
        )
        keys = ["listen", "database", "host_db_script", "host_db_refresh", "default_timeout"]
        keys += ["max_exec_time", "ca_file", "known_certs_file", "max_exec_tme"]
        starts = {f"{key}, line {line}" for line, key in enumerate(keys, 1)}
        self.assertEqual({each.partition(":")[0] for each in found}, starts)

    def test_listen(self) -> None:
        """Each address that can't be understood is named; there must be one."""
        first, second = self.mistakes("listen: ['*:1', tpc:1:x=2, '*:2', '*:65536']")
        self.assertIn("listen, line 1: 'tpc:1:x=2'", first)
        self.assertIn("listen, line 1: '*:65536'", second)
        self.assertIn("at least one", self.mistake("listen: []"))

    def test_database_of_another_kind(self) -> None:
        """Any database but an SQLite file is a mistake that says so and shows no password."""
        for url in ["postgresql+psycopg://u:secret@db/jobs", "sqlite+aiosqlite:///x", "oracle://"]:
            found = self.mistake(f"database: {url}")
            self.assertIn(f"{url.partition(':')[0]} is not supported yet", found)
            self.assertNotIn("secret", found)

    def test_malformed_database(self) -> None:
        """What is no URL is a mistake, and is not repeated."""
        for url in ["secret", "/var/lib/secret.db", "'sqlite://u:secret@h:port/x'"]:
            found = self.mistake(f"database: {url}")
            self.assertIn("database, line 1: must", found)
            self.assertNotIn("secret", found)

    def test_database_without_file(self) -> None:
        """An SQLite URL that names no file on disk is a mistake: jobs are not to be lost."""
        for url in ["sqlite://", "sqlite:///", "sqlite://var/lib/jobs.db"]:
            self.assertIn("must name a file", self.mistake(f"database: {url}"))
        for url in ["sqlite:///:memory:", "sqlite:///file:x?mode=memory&uri=true"]:
            self.assertIn("on disk", self.mistake(f"database: '{url}'"))

    def test_script(self) -> None:
        """The script must be there, be a file and be executable."""
        (self.folder / "text").write_text("")
        self.assertIn("is missing", self.assertRaises(ConfigError, self.load, "").mistakes[0])
        self.assertIn("not a file", self.mistake("host_db_script: nowhere"))
        self.assertIn("not a file", self.mistake(f"host_db_script: {self.folder}"))
        self.assertIn("can't be executed", self.mistake("host_db_script: text"))
        self.assertIn("must be a text", self.mistake("host_db_script: ''"))

    def test_timeouts(self) -> None:
        """A written default_timeout may not exceed max_exec_time, one left out goes with it."""
        self.assertEqual(self.load("host_db_script: hosts\nmax_exec_time: 60").default_timeout, 60)
        self.assertEqual(
            self.load("host_db_script: hosts\nmax_exec_time: 999").default_timeout, 600
        )
        found = self.mistake("max_exec_time: 60\ndefault_timeout: 61")
        self.assertIn("default_timeout, line 2: 61 s must not exceed max_exec_time, 60 s", found)
        self.assertIn("max_exec_time, 600 s", self.mistake("default_timeout: 601"))

    def test_certificates(self) -> None:
        """Each file of certificates must be readable and have one."""
        (self.folder / "empty.pem").write_text("")
        for key in ("ca_file", "known_certs_file"):
            self.assertIn(f"{key}, line 1: {self.folder}/", self.mistake(f"{key}: nowhere"))
            self.assertIn("has no certificate", self.mistake(f"{key}: empty.pem"))
            self.assertIn("can't be read", self.mistake(f"{key}: ."))
            self.assertIn("must be a text", self.mistake(f"{key}: ''"))
