"""Tests of harpcaller.config."""

from __future__ import annotations

import re
from pathlib import Path

import trustme
from cryptography import x509
from sqlalchemy.engine import make_url
from twisted.trial.unittest import SynchronousTestCase

from harp.settings import ConfigError
from harpcaller import config as module
from harpcaller import rules, terms
from harpcaller.client_tls import Authorities
from harpcaller.config import Config, load
from harpcaller.hosts import Host, HostsFile, HostsScript
from harpcaller.identities import User, Users
from harpcaller.jobs import Capacity
from harpcaller.retention import Ages
from harpcaller.rules import Rule, Who
from harpcaller.submission import Limits
from harpcaller.terms import ClientLimits, Terms
from harpcaller.trust import ServerTrust

SOURCES = [Path(module.__file__), Path(terms.__file__)]
RULES = Path(rules.__file__)
SAMPLE = Path(__file__).parents[2] / "etc" / "harpcaller.yaml"


class LoadTests(SynchronousTestCase):
    """From a file to values, or to all of its mistakes."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        script = self.folder / "hosts"
        script.write_text("#!/bin/sh\n")
        script.chmod(0o755)
        self.ca, self.known = self.authority("ca.pem"), self.authority("known.pem")

    def authority(self, name: str) -> x509.Certificate:
        """Write the certificate of a new authority, and return it."""
        pem = trustme.CA().cert_pem.bytes()
        (self.folder / name).write_bytes(pem)
        return x509.load_pem_x509_certificate(pem)

    def load(self, text: str) -> Config:
        file = self.folder / "harpcaller.yaml"
        file.write_text(text, "utf-8")
        return load(file)

    def mistakes(self, text: str) -> list[str]:
        """Return what is wrong besides what the file's name says; the script need not be given."""
        if "host_db_script" not in text and "hosts_file" not in text:
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
            hosts=HostsScript(
                path=self.folder / "hosts",
                cache_file=Path("/var/lib/harpcaller/hosts.db"),
                refresh_interval=900.0,
                max_loss=0.5,
            ),
            limits=Limits(default_timeout=600.0, max_exec_time=600.0),
            capacity=Capacity(max_running=1000, max_running_per_host=None),
            ages=Ages(jobs=None, streams=None),
            key_life=86400.0,
            shutdown_grace=30.0,
            log_level="info",
            trust=ServerTrust(None, None),
            terms=Terms(),
            rules=None,
        )
        self.assertEqual(config, expected)

    def test_everything_given(self) -> None:
        """Every key reaches its value; relative paths start at the folder of the file."""
        config = self.load(
            "listen: ['*:1', 'unix:/run/x']\n"
            "database: sqlite:///state/jobs.db?timeout=5\n"
            f"host_db_script: {self.folder}/hosts\n"
            "host_db: state/hosts\nhost_db_refresh: 60\nhost_db_max_loss: 0.25\n"
            "default_timeout: 5\nmax_exec_time: 7.5\n"
            "max_running: 20\nmax_running_per_host: 3\nshutdown_grace: 4\n"
            "max_age: 2\nmax_stream_age: 0.5\nlog_level: warn\n"
            "idempotency_key_life: 1.5\n"
            "ca_file: ca.pem\nknown_certs_file: known.pem\n"
            "insecure: true\nclient_ca_file: ca.pem\nmax_connections: 9\n"
            "max_connections_per_address: 8\nmax_request: 65536\nrequest_timeout: 7\n"
            f"idle_timeout: 6.5\nusers: {{panel: {{tokens: 'sha256:{'ab' * 32}'}}}}\n"
            "rules: [{who: '*', queues: true}]\n"
        )
        panel = User("panel")
        expected = Config(
            listen=("*:1", "unix:/run/x"),
            database=make_url(f"sqlite:///{self.folder}/state/jobs.db?timeout=5"),
            hosts=HostsScript(self.folder / "hosts", self.folder / "state/hosts", 60.0, 0.25),
            limits=Limits(default_timeout=5.0, max_exec_time=7.5),
            capacity=Capacity(max_running=20, max_running_per_host=3),
            ages=Ages(jobs=7200.0, streams=1800.0),
            key_life=5400.0,
            shutdown_grace=4.0,
            log_level="warn",
            trust=ServerTrust([self.ca], [self.known]),
            terms=Terms(
                users=Users((panel,), tokens={"ab" * 32: panel}),
                authorities=Authorities([self.ca]),
                insecure=True,
                limits=ClientLimits(9, 8, 65536, 7.0, 6.5),
            ),
            rules=(Rule(Who(everybody=True), queues=True),),
        )
        self.assertEqual(config, expected)

    def test_sample(self) -> None:
        """The sample has every key, and what stands there without # are the defaults."""
        installed = SAMPLE.read_text("utf-8").replace("/etc/harpcaller/hosts", "hosts")
        self.assertEqual(self.load(installed), self.load("host_db_script: hosts"))
        everything = re.sub("(?m)^#(?=[a-z]|  [a-z-]|    [a-z])", "", installed).replace(
            "/etc/harpcaller/", ""
        )
        with_script = everything.replace("hosts_file:", "#hosts_file:")
        (self.folder / "known_certs.pem").write_bytes((self.folder / "ca.pem").read_bytes())
        config = self.load(with_script)
        self.assertEqual(config.trust, ServerTrust([self.ca], [self.ca]))
        (self.folder / "hosts.yaml").write_bytes(SAMPLE.with_name("hosts.yaml").read_bytes())
        with_file = re.sub("(?m)^host_db", "#host_db", everything)
        self.assertIsInstance(self.load(with_file).hosts, HostsFile)
        # Nothing is known that the sample does not have.
        sources = "".join(each.read_text("utf-8") for each in SOURCES)
        known = re.findall(r'keys, "([a-z_]+)"|keys\.\w+\(\s*"([a-z_]+)"', sources)
        for key in {first or second for first, second in known}:
            self.assertRegex(everything, f"(?m)^{key}:")
        of_rules = re.findall(r'keys, "([a-z]+)"|keys\.\w+\("([a-z]+)"', RULES.read_text("utf-8"))
        for key in {first or second for first, second in of_rules} - {"rules"}:
            self.assertRegex(everything, f"(?m)^  [- ] {key}:")

    def test_all_mistakes_at_once(self) -> None:
        """One reading finds every mistake, each with its key and line."""
        text = (
            "listen: nonsense\ndatabase: nonsense\nhost_db_script: nowhere\nhost_db_refresh: 0\n"
            "default_timeout: no\nmax_exec_time: -1\nca_file: nowhere\nknown_certs_file: []\n"
            "max_exec_tme: 5\nhost_db: 5\nhost_db_max_loss: 2\nmax_running: 0\n"
            "max_running_per_host: many\nshutdown_grace: 0\nmax_age: 0\nmax_stream_age: ''\n"
            "log_level: loud\n"
        )
        starts = {
            f"{line.partition(':')[0]}, line {number}"
            for number, line in enumerate(text.splitlines(), 1)
        }
        found = self.mistakes(text)
        self.assertEqual({each.partition(":")[0] for each in found}, starts)
        self.assertEqual(len(found), len(starts))

    def test_listen(self) -> None:
        """Each address that can't be understood is named; there must be one."""
        first, second = self.mistakes(
            "insecure: true\nlisten: ['*:1', tpc:1:x=2, '*:2', '*:65536']"
        )
        self.assertIn("listen, line 2: 'tpc:1:x=2'", first)
        self.assertIn("listen, line 2: '*:65536'", second)
        self.assertIn("at least one", self.mistake("listen: []"))
        self.assertIn(
            "'[::1]:1' stands twice", self.mistake("listen: ['[::1]:1', '[::1]:2', '[::1]:1']")
        )

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

    def test_all_of_the_hosts_may_be_lost(self) -> None:
        """A loss of 1 is no limit, also for a registry that had no host of the new ones."""
        config = self.load("host_db_script: hosts\nhost_db_max_loss: 1")
        assert isinstance(config.hosts, HostsScript)
        self.assertIsNone(config.hosts.max_loss)

    def test_hosts_file(self) -> None:
        """Hosts can stand in a file, which is read along with the configuration."""
        (self.folder / "hosts.yaml").write_text(
            "web01: {address: 10.1.2.3, credentials: {user: u, password: s3cret}}\n"
        )
        config = self.load("hosts_file: hosts.yaml")
        host = Host("web01", "10.1.2.3", 4306, "u", "s3cret")
        self.assertEqual(config.hosts, HostsFile(self.folder / "hosts.yaml", {"web01": host}))
        self.assertNotIn("s3cret", repr(config))

    def test_mistakes_of_the_hosts_file(self) -> None:
        """What is wrong in the hosts file is told under its key, with the place in that file."""
        (self.folder / "hosts.yaml").write_text("web01: {address: 10.1.2.3}\n")
        found = self.mistake("hosts_file: hosts.yaml")
        self.assertTrue(found.startswith("hosts_file, line 1: "), found)
        self.assertIn(f"{self.folder}/hosts.yaml: web01.credentials, line 1: is missing", found)
        self.assertIn("can't be read", self.mistake("hosts_file: nowhere"))
        self.assertIn("must be a text", self.mistake("hosts_file: 5"))

    def test_script_and_hosts_file(self) -> None:
        """Hosts come from one place; every key of the other is named once."""
        (self.folder / "hosts.yaml").write_text(
            "web01: {address: 10.1.2.3, credentials: {user: u, password: p}}\n"
        )
        found = self.mistakes(
            "hosts_file: hosts.yaml\nhost_db_script: hosts\nhost_db: x\nhost_db_refresh: 900\n"
            "host_db_max_loss: 0.5\n"
        )
        keys = ["host_db_script", "host_db", "host_db_refresh", "host_db_max_loss"]
        self.assertEqual(
            found,
            [
                f"{key}, line {line}: is of no use beside hosts_file: give one of them"
                for line, key in enumerate(keys, 2)
            ],
        )

    def test_no_text_of_what_is_not_yaml(self) -> None:
        """A file that can't be parsed is told by its place; the line itself may be a password."""
        (found,) = self.mistakes("database: s3cret: x")
        self.assertIn("line 1, column 17: is not YAML", found)
        self.assertNotIn("s3cret", found)

    def test_timeouts(self) -> None:
        """A written default_timeout may not exceed max_exec_time, one left out goes with it."""
        for longest, default in ((60, 60), (999, 600)):
            config = self.load(f"host_db_script: hosts\nmax_exec_time: {longest}")
            self.assertEqual(config.limits, Limits(default, longest))
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
