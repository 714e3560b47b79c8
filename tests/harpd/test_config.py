"""Tests of harpd.config."""

from __future__ import annotations

import re
import sys
from dataclasses import asdict, fields
from pathlib import Path

from OpenSSL import crypto
from twisted.trial.unittest import SynchronousTestCase

from harp.settings import ConfigError
from harpd.check import check_procedures
from harpd.config import Config, load
from harpd.identity import find_identity
from harpd.limits import Limits
from tests.harpd.certificates import USERS, issued, write_configuration
from tests.harpd.test_passwords import SHA256_ROUNDS, SHA512

SAMPLES = Path(__file__).parents[2] / "etc"


class ConfigTestCase(SynchronousTestCase):
    """Loads configurations from a folder of the test's own."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.file = write_configuration(self.folder)

    def mistakes(self, text: str | None = None) -> list[str]:
        """Return what is wrong with the configuration, or with another text in its place."""
        if text is not None:
            self.file.write_text(text, "utf-8")
        found = self.assertRaises(ConfigError, load, self.file).mistakes
        return [mistake.removeprefix(f"{self.file}: ") for mistake in found]


class LoadTests(ConfigTestCase):
    """From a file to values."""

    def test_defaults(self) -> None:
        """A certificate and users are enough: harpd listens everywhere, on its port."""
        config = load(self.file)
        self.assertEqual((config.address, config.port, config.path), ("", 4306, []))
        self.assertEqual((config.shutdown_grace, config.kill_grace), (30, 5))
        self.assertEqual(config.defaults, {})
        self.assertTrue(config.authenticator.verify("panel", "secret"))
        self.assertFalse(config.authenticator.verify("panel", "other"))

    def test_everything_given(self) -> None:
        """Every key reaches its value."""
        more = '  address: 127.0.0.1\n  port: 4307\npython: {path: ["/a", "/b"]}\n'
        config = load(write_configuration(self.folder, network=more))
        found = (config.address, config.port, config.path)
        self.assertEqual(found, ("127.0.0.1", 4307, ["/a", "/b"]))

    def test_limits_of_calls(self) -> None:
        """Limits are numbers; a umask is read as it is written, whatever YAML makes of it."""
        for mask in ("022", "0o022", '"022"'):
            more = f"defaults: {{cpu: 5, max_output: 9, umask: {mask}, environment: {{A: ''}}}}\n"
            found = load(write_configuration(self.folder, network=more)).defaults
            expected = {"cpu": 5, "max_output": 9, "umask": 0o022, "environment": {"A": ""}}
            self.assertEqual(found, expected)

    def test_graces_and_defaults(self) -> None:
        """So do those that are not in a section of the network."""
        more = "shutdown_grace: 0.5\nkill_grace: 2\ndefaults: {timeout: 7, uid: 5, gid: [a, 6]}\n"
        config = load(write_configuration(self.folder, network=more))
        self.assertEqual((config.shutdown_grace, config.kill_grace), (0.5, 2))
        self.assertEqual(config.defaults, {"timeout": 7, "uid": 5, "gid": ["a", 6]})

    def test_permissions(self) -> None:
        """Without the key everybody may call everything, with it what it names."""
        self.assertTrue(load(self.file).permissions.of("panel").allows("restart"))
        for more, allowed in (("{panel: res*}", True), ("{a: restart}", False), ("{}", False)):
            file = write_configuration(self.folder, network=f"permissions: {more}\n")
            self.assertIs(load(file).permissions.of("panel").allows("restart"), allowed)

    def test_limits(self) -> None:
        """Limits reach their values, all of them; the others are as they are by default."""
        self.assertEqual(load(self.file).limits, Limits())
        given = {item.name: 70_000 + number for number, item in enumerate(fields(Limits))}
        given["max_calls"] = 4096
        file = write_configuration(self.folder, network=f"limits: {given}\n")
        self.assertEqual(asdict(load(file).limits), given)
        file = write_configuration(self.folder, network="limits: {max_calls: 7}\n")
        self.assertEqual(load(file).limits, Limits(max_calls=7))

    def test_relative(self) -> None:
        """Relative paths start at the folder of the file, from wherever harpd is started."""
        (self.folder / "passwd").write_text(f"panel:{SHA256_ROUNDS}\n")
        text = "authentication: {module: harpd.auth.passfile, file: passwd}\n"
        file = write_configuration(self.folder, text, network="python: {path: modules}\n")
        file.write_text(file.read_text().replace(f"{self.folder}/", ""))
        config = load(file)
        self.assertTrue(config.authenticator.verify("panel", "secret"))
        self.assertEqual(config.path, [str(self.folder / "modules")])

    def test_user(self) -> None:
        """The user is found by name or number, with all groups."""
        nobody = find_identity("nobody", None)
        assert nobody is not None
        for value in ("nobody", nobody.uid):
            config = load(write_configuration(self.folder, network=f"user: {value}\n"))
            self.assertEqual(config.user, nobody)

    def test_one_path(self) -> None:
        """One folder need not be a list."""
        config = load(write_configuration(self.folder, network="python: {path: /a}\n"))
        self.assertEqual(config.path, ["/a"])

    def test_certificate(self) -> None:
        """The certificate is shown with its key and the chain that leads to the root."""
        config = load(self.file)
        shown = [config.tls.certificate, *config.tls.extraCertChain]
        found = [crypto.dump_certificate(crypto.FILETYPE_PEM, each) for each in shown if each]
        self.assertEqual(len(found), 2)
        self.assertEqual(
            [b"".join(pem.split()) for pem in found],
            [b"".join(pem.split()) for pem in issued().chain],
        )
        config.tls.getContext().check_privatekey()

    def test_passfile(self) -> None:
        """Users may stand in a file."""
        passwd = self.folder / "passwd"
        passwd.write_text(f"panel:{SHA256_ROUNDS}\n")
        users = f"authentication: {{module: harpd.auth.passfile, file: {passwd}}}\n"
        config = load(write_configuration(self.folder, users))
        self.assertTrue(config.authenticator.verify("panel", "secret"))

    def test_own_module(self) -> None:
        """Any module with a function load can authenticate."""
        (self.folder / "own_authentication.py").write_text(
            "class Own:\n"
            "    def __init__(self, word): self.word = word\n"
            "    def verify(self, user, password): return password == self.word\n"
            "def load(section): return Own(section.text('word'))\n"
        )
        self.patch(sys, "path", [str(self.folder), *sys.path])
        self.addCleanup(sys.modules.pop, "own_authentication", None)
        users = "authentication: {module: own_authentication, word: x}\n"
        config: Config = load(write_configuration(self.folder, users))
        self.assertTrue(config.authenticator.verify("anybody", "x"))


class MistakeTests(ConfigTestCase):
    """Every mistake is named with its key and line."""

    def test_all_at_once(self) -> None:
        """One reading finds the mistakes of all sections."""
        found = self.mistakes(
            "network:\n  address: 5\n  port: 70000\n  certfile: /nonexistent\n  keyfile: []\n"
            "  prot: 1\nauthentication:\n  module: harpd.auth.inconfig\n  users: {a: x}\n"
            "python:\n  path: {}\nother: 1\n"
        )
        self.assertCountEqual(
            [mistake.partition(": ")[0] for mistake in found],
            [
                "network.address, line 2",
                "network.port, line 3",
                "network.certfile, line 4",
                "network.keyfile, line 5",
                "network.prot, line 6",
                "authentication.users.a, line 9",
                "python.path, line 11",
                "other, line 12",
            ],
        )

    def test_defaults(self) -> None:
        """What can be no user, group or time is told."""
        more = "kill_grace: 0\ndefaults: {timeout: x, uid: [a], gid: [], lock: b}\n"
        found = self.mistakes(write_configuration(self.folder, network=more).read_text())
        self.assertCountEqual(
            [mistake.partition(",")[0] for mistake in found],
            ["kill_grace", "defaults.timeout", "defaults.uid", "defaults.gid", "defaults.lock"],
        )

    def test_more_calls_than_a_zygote_forks(self) -> None:
        """What the zygote would refuse, with those that are ending, can't be promised."""
        text = write_configuration(self.folder, network="limits: {max_calls: 4097}\n").read_text()
        (mistake,) = self.mistakes(text)
        self.assertIn("limits.max_calls, line 4: must be a whole number from 1 to 4096", mistake)

    def test_limits_and_permissions(self) -> None:
        """What can be no limit or permission is told, and so is one that is not known."""
        more = (
            "limits: {max_calls: 0, max_request: 1000, idle_time: -1, max_call: 1}\n"
            "permissions: {a: 5, b: [c, 6], c: {d: e}}\n"
        )
        found = self.mistakes(write_configuration(self.folder, network=more).read_text())
        self.assertCountEqual(
            [mistake.partition(",")[0] for mistake in found],
            [
                *("limits.max_calls", "limits.max_request", "limits.idle_time", "limits.max_call"),
                *("permissions.a", "permissions.b", "permissions.c"),
            ],
        )
        for empty in ("limits", "permissions"):
            text = write_configuration(self.folder, network=f"{empty}:\n").read_text()
            self.assertIn("must be a section", self.mistakes(text)[0])

    def test_limits_of_calls(self) -> None:
        """What calls can't have, or can't run with, is told with the key and its line."""
        more = (
            "defaults:\n  cpu: 0\n  address_space: 512M\n  open_files: 1.5\n  umask: 22\n"
            "  directory: srv\n  environment: {A: 1, '': b, C: ''}\n  max_packet: 0\n"
        )
        found = self.mistakes(write_configuration(self.folder, network=more).read_text())
        self.assertCountEqual(
            [mistake.partition(",")[0] for mistake in found],
            [
                "defaults.cpu",
                "defaults.address_space",
                "defaults.open_files",
                "defaults.umask",
                "defaults.directory",
                "defaults.environment.A",
                "defaults.environment.",
                "defaults.max_packet",
            ],
        )

    def test_user(self) -> None:
        """Whom the process becomes must be one user that there is, and not root."""
        for value, what in (
            ("no-such-user", "there is no user 'no-such-user'"),
            ("4000000000", "uid 4000000000 has no entry in the user database"),
            ("-1", "there is no user -1"),
            ("root", "is root, which is what the process is to give up"),
            ("0", "is root, which is what the process is to give up"),
            ("[nobody]", "must be the name or number of one user"),
            ("", "must be the name or number of a user, not nothing"),
            ("true", "must be the name or number of a user, not true"),
        ):
            network = f"user: {value}\n"
            (mistake,) = self.mistakes(
                write_configuration(self.folder, network=network).read_text()
            )
            self.assertIn(f"user, line 4: {what}", mistake)

    def test_missing(self) -> None:
        """What has to be there is named."""
        found = self.mistakes("")
        expected = ["network, line 1: is missing", "authentication, line 1: is missing"]
        self.assertEqual(found, expected)
        found = self.mistakes("network: {port: 1}\n" + USERS)
        self.assertEqual(
            found,
            ["network.certfile, line 1: is missing", "network.keyfile, line 1: is missing"],
        )

    def test_unreadable(self) -> None:
        """A certificate and a key that can't be read are both named with the reason."""
        (self.folder / "cert.pem").unlink()
        (self.folder / "key.pem").write_text("nonsense")
        certificate, key = self.mistakes()
        self.assertIn("network.certfile, line 2: ", certificate)
        self.assertIn("No such file or directory", certificate)
        self.assertIn(f"network.keyfile, line 3: {self.folder}/key.pem: no private key", key)

    def test_no_certificate(self) -> None:
        """A file without a certificate in it is a mistake."""
        for content in [b"", b"nonsense", issued().key]:
            (self.folder / "cert.pem").write_bytes(content)
            (mistake,) = self.mistakes()
            self.assertIn("network.certfile, line 2: ", mistake)

    def test_other_key(self) -> None:
        """A key that is not the certificate's is a mistake."""
        (self.folder / "key.pem").write_bytes(issued(2).key)
        (mistake,) = self.mistakes()
        expected = "network.keyfile, line 3: is not the key of the first certificate in certfile"
        self.assertEqual(mistake, expected)

    def test_wrong_order(self) -> None:
        """The first certificate is harpd's; a chain the other way round does not fit the key."""
        (self.folder / "cert.pem").write_bytes(b"".join(reversed(issued().chain)))
        (mistake,) = self.mistakes()
        self.assertIn("is not the key of the first certificate", mistake)

    def test_encrypted_key(self) -> None:
        """A key that needs a password, which nobody could enter, is a mistake."""
        (self.folder / "key.pem").write_bytes(issued().encrypted_key)
        (mistake,) = self.mistakes()
        self.assertIn("network.keyfile, line 3: ", mistake)
        self.assertIn("encrypted", mistake)

    def test_no_such_module(self) -> None:
        """An authentication module that can't be imported, or is none, is a mistake."""
        (self.folder / "broken_authentication.py").write_text("(")
        self.patch(sys, "path", [str(self.folder), *sys.path])
        for module, what in [
            ("harpd.auth.nothing", "can't be imported: No module named"),
            ("json.encoder", "is no authentication module"),
            ("..", "can't be imported"),
            ("broken_authentication", "can't be imported: '(' was never closed"),
        ]:
            write_configuration(self.folder, f"authentication:\n  module: {module}\n")
            found = self.mistakes()
            self.assertIn(f"authentication.module, line 5: {module} ", found[0])
            self.assertIn(what, found[0])

    def test_key_of_another_module(self) -> None:
        """A key that the chosen module does not know is a mistake."""
        users = USERS + "  file: /etc/harpd/passwd\n"
        write_configuration(self.folder, users)
        (mistake,) = self.mistakes()
        self.assertIn("authentication.file, line 8: is not a key that is known here", mistake)

    def test_passfile(self) -> None:
        """Mistakes of the password file are told with its lines."""
        passwd = self.folder / "passwd"
        passwd.write_text("panel:x\nother\n")
        users = f"authentication:\n  module: harpd.auth.passfile\n  file: {passwd}\n"
        write_configuration(self.folder, users)
        first, second = self.mistakes()
        self.assertIn(f"authentication.file, line 6: {passwd}, line 1: ", first)
        self.assertIn(f"authentication.file, line 6: {passwd}, line 2: ", second)


class SampleTests(ConfigTestCase):
    """The samples that are shipped."""

    def test_configuration(self) -> None:
        """It can be used as it is, and what stands there without # are the defaults."""
        (self.folder / "passwd").write_text(f"panel:{SHA512}\n")
        text = (SAMPLES / "harpd.yaml").read_text("utf-8")
        self.file.write_text(text.replace("/etc/harpd", str(self.folder)), "utf-8")
        config = load(self.file)
        self.assertEqual((config.address, config.port, config.path), ("", 4306, []))
        self.assertEqual((config.shutdown_grace, config.kill_grace), (30, 5))
        self.assertEqual(config.limits, Limits())
        self.assertTrue(config.permissions.of("anybody").allows("anything"))
        self.assertTrue(config.authenticator.verify("panel", "secret"))
        everything = re.sub("(?m)^( *)#(?=[a-z ] *[A-Za-z_]+:)", r"\1", text)
        for key in ["panel", "backup", *[item.name for item in fields(Limits)]]:
            self.assertRegex(everything, f"(?m)^  {key}:")
        for key in ["address", "port", "certfile", "keyfile", "module", "file", "users", "path"]:
            self.assertRegex(everything, f"(?m)^  {key}:")
        everything = everything.replace("user: harpd", "user: nobody")
        self.file.write_text(everything.replace("/etc/harpd", str(self.folder)), "utf-8")
        text = re.sub("(?m)^  users:(\n    .*)*", "", self.file.read_text("utf-8"))
        self.file.write_text(re.sub("(?m)^    (panel|backup):.*$", "", text))
        expected = {
            "timeout": 600,
            "uid": "nobody",
            "gid": ["nogroup", "adm"],
            "address_space": 1 << 30,
            "cpu": 300,
            "open_files": 256,
            "processes": 100,
            "max_packet": 1 << 16,
            "max_output": 1 << 20,
            "umask": 0o022,
            "directory": "/",
            "environment": {"TZ": "Europe/Warsaw"},
        }
        config = load(self.file)
        self.assertEqual(config.defaults, expected)
        self.assertEqual(config.user, find_identity("nobody", None))

    def test_users(self) -> None:
        """The users that stand there behind # are of the right form."""
        text = (SAMPLES / "harpd.yaml").read_text("utf-8")
        text = re.sub("(?m)^  file:.*$", "", text).replace("passfile\n", "inconfig\n", 1)
        text = re.sub("(?m)^  #(users:|  panel:|  backup:)", r"  \1", text)
        text = text.replace("$6$rounds=5000$…", SHA512).replace("/etc/harpd", str(self.folder))
        self.file.write_text(
            text.replace("module: harpd.auth.passfile", "module: harpd.auth.inconfig")
        )
        authenticator = load(self.file).authenticator
        self.assertTrue(authenticator.verify("panel", "secret"))
        self.assertTrue(authenticator.verify("backup", "…"))

    def test_procedures(self) -> None:
        """The sample procedures have no mistake."""
        self.assertEqual(check_procedures(str(SAMPLES / "procedures.py"), []), [])
