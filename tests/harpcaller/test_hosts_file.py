"""Tests of harpcaller.hosts.file: real files."""

from __future__ import annotations

import subprocess
from pathlib import Path

import yaml
from twisted.trial.unittest import SynchronousTestCase

from harp.settings import ConfigError
from harpcaller.hosts import Host, file, load_hosts_file
from harpcaller.hosts.entries import parse_hosts
from tests.harpcaller.test_hosts_entries import PLAIN, WEB1, line
from tests.harpcaller.test_hosts_entries import SAMPLE as SCRIPT

SAMPLE = SCRIPT.with_name("hosts.yaml")
WEB2 = Host("web2", "10.0.0.2", 4307, "u", "secret", ("web", "old"), "front.example.org", (PLAIN,))

MAPPING = """\
web2:
  address: 10.0.0.2
  port: 4307
  credentials: &login {user: u, password: secret}
  tags: [web, old]
  server_name: front.example.org
  fingerprint: sha256:abababababababababababababababababababababababababababababababab
web1: {address: 10.0.0.1, credentials: *login}
"""

LIST = """\
- hostname: web2
  address: 10.0.0.2
  port: 4307
  credentials: {user: u, password: secret}
  tags: [web, old]
  server_name: front.example.org
  fingerprint: [sha256:abababababababababababababababababababababababababababababababab]
- {hostname: web1, address: 10.0.0.1, credentials: {user: u, password: secret}}
"""


class HostsFileTestCase(SynchronousTestCase):
    """A folder for the file."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.file = self.folder / "hosts.yaml"

    def load(self, content: str | bytes) -> dict[str, Host]:
        self.file.write_bytes(content.encode() if isinstance(content, str) else content)
        return load_hosts_file(self.file)

    def mistakes(self, content: str | bytes) -> list[str]:
        """Return the mistakes without the file's name, which each must start with."""
        error = self.assertRaises(ConfigError, self.load, content)
        start = f"{self.file}: "
        for mistake in error.mistakes:
            self.assertTrue(mistake.startswith(start), mistake)
            self.assertNotIn("secret", mistake)
            self.assertTrue(mistake.isprintable(), mistake)
        return [mistake.removeprefix(start) for mistake in error.mistakes]


class YamlTests(HostsFileTestCase):
    """A file whose name ends in .yaml or .yml."""

    def test_mapping(self) -> None:
        """The names may be the keys; the hosts come in the order of names."""
        found = self.load(MAPPING)
        self.assertEqual(found, {"web1": WEB1, "web2": WEB2})
        self.assertEqual(list(found), ["web1", "web2"])

    def test_sample(self) -> None:
        """The sample has the same hosts as the sample script, and shows every key."""
        found = load_hosts_file(SAMPLE)
        for key in ("port:", "tags:", "server_name:"):
            self.assertIn(f"\n  {key}", SAMPLE.read_text("utf-8"))
        printed = subprocess.run([SCRIPT], stdout=subprocess.PIPE, check=True).stdout
        self.assertEqual(found, parse_hosts(printed)[0])

    def test_list(self) -> None:
        """The hosts may be a list of what would be lines of JSON."""
        self.file = self.folder / "HOSTS.YML"
        self.assertEqual(self.load(LIST), {"web1": WEB1, "web2": WEB2})

    def test_every_mistake(self) -> None:
        """All mistakes of all hosts are found, each by its key and line."""
        text = (
            "web1:\n"
            "  address: 10.0.0.1\n"
            "  port: 99999\n"
            "  credentials: {user: u}\n"
            "web2:\n"
            "  credentials: secret\n"
            "  tags: {secret: 1}\n"
            "  server_name: a secret\n"
            "  fingerprint: a secret\n"
            "web3: secret\n"
            "web1: {address: 10.0.0.2, credentials: {user: u, password: 123456}}\n"
            "[secret]: {}\n"
            '"": {}\n'
        )
        places = [
            "web1.port, line 3: ",
            "web1.credentials.password, line 4: ",
            "web2.address, line 6: ",
            "web2.credentials, line 6: ",
            "web2.tags, line 7: ",
            "web2.server_name, line 8: ",
            "web2.fingerprint, line 9: ",
            "web3, line 10, column 7: ",
            "web1.credentials.password, line 11: ",
            "web1, line 11, column 1: stands twice",
            "line 12, column 1: ",
            "line 13, column 1: ",
        ]
        found = self.mistakes(text)
        for place in places:
            self.assertEqual(len([each for each in found if each.startswith(place)]), 1, place)
        self.assertEqual(len(found), len(places))
        self.assertNotIn("123456", " ".join(found))

    def test_mistakes_in_a_list(self) -> None:
        """There a host without a name is told by its number."""
        found = self.mistakes("- {address: a}\n- secret\n" + LIST + LIST + "- {}\n")
        for each, place in zip(
            found,
            [
                "host 1.hostname, line 1: ",
                "host 1.credentials, line 1: ",
                "host 2, line 2, column 3: ",
                "web2, line 11, column 3: stands twice",
                "web1, line 18, column 3: stands twice",
                "host 7.hostname, line 19: ",
                "host 7.credentials, line 19: ",
                "host 7.address, line 19: ",
            ],
            strict=True,
        ):
            self.assertTrue(each.startswith(place), each)

    def test_unknown_keys(self) -> None:
        """A misspelt key is told by its place, and what may stand there."""
        entry = "{address: a, tag: [x], credentials: {user: u, password: p}}"
        self.assertEqual(
            self.mistakes(f"web1: {entry}"),
            [
                "web1, line 1, column 20: is not a key that is known here, as address, port,"
                " credentials, tags, server_name, fingerprint"
            ],
        )
        for key in ("hostname", "[tags]", "{tags: 1}"):
            self.assertEqual(len(self.mistakes(f"web1: {entry}".replace("tag", key))), 1)

    def test_password_as_key(self) -> None:
        """Without a blank behind the colon the password is part of a key: it is not told."""
        found = self.mistakes("web1: {address: a, credentials: {user: u, password:secret}}")
        self.assertIn("web1.credentials, line 1, column 43: ", found[0])
        self.assertIn("password, line 1: is missing", found[1])

    def test_not_yaml(self) -> None:
        """What is not YAML is told by its place, and without what stands there."""
        for text in (
            "web1: {credentials: {password: *secret}}",
            "web1: {credentials: {password: !secret!secret x}}",
            "web1: {credentials: {password: secret: x}}",
            'web1: "secret',
            "%secret\n---\nweb1: 1",
        ):
            (mistake,) = self.mistakes(text)
            self.assertRegex(mistake, r"^line \d, column \d+: is not YAML: \w")

    def test_not_yaml_without_libyaml(self) -> None:
        """The same holds where PyYAML was built without it; its problems quote more."""
        self.patch(file, "_Loader", yaml.SafeLoader)
        (mistake,) = self.mistakes("web1: {credentials: {password: *secret}}")
        self.assertEqual(mistake, "line 1, column 32: is not YAML")
        self.assertEqual(self.load(MAPPING), {"web1": WEB1, "web2": WEB2})

    def test_not_a_text(self) -> None:
        """Bytes that are not UTF-8, or no text at all, are told in words."""
        self.assertEqual(self.mistakes(b"web1: \xff"), ["is not UTF-8 at byte 6"])
        self.assertIn("may not stand there", self.mistakes("web1: \x01secret")[0])

    def test_too_deep(self) -> None:
        """Nesting without end is a mistake, not the end of the process."""
        for text in ("[" * 100000, "[" * 100 + "]" * 100, "a: " + "{a: " * 100 + "}" * 100):
            self.assertEqual(self.mistakes(text), ["is nested too deep"])

    def test_no_list(self) -> None:
        """What is neither a mapping nor a list."""
        self.assertIn("must be a mapping", self.mistakes("secret")[0])

    def test_names_are_shown_safely(self) -> None:
        """A name from the file can't do things to the terminal that shows the mistake."""
        self.assertIn(r"\x1b[2J", self.mistakes(r'"\e[2J": 1')[0])

    def test_many_mistakes(self) -> None:
        """Of very many mistakes the first are told, and how many more there are."""
        found = self.mistakes("".join(f"web{number}: 1\n" for number in range(1000)))
        self.assertEqual(len(found), file.MAX_MISTAKES + 1)
        self.assertIn(f"{1000 - file.MAX_MISTAKES} more", found[-1])


class JsonLinesTests(HostsFileTestCase):
    """A file with any other name."""

    def setUp(self) -> None:
        super().setUp()
        self.file = self.folder / "hosts.jsonl"

    def test_good_lines(self) -> None:
        """A JSON object for each host, as a script prints them."""
        web2 = line(
            "web2",
            address="10.0.0.2",
            port=4307,
            tags=["web", "old"],
            server_name="front.example.org",
            fingerprint=PLAIN,
        )
        found = self.load(web2 + b"\n\n" + line() + b"\n")
        self.assertEqual(found, {"web1": WEB1, "web2": WEB2})
        self.assertEqual(list(found), ["web1", "web2"])

    def test_every_bad_line(self) -> None:
        """One bad line is enough to refuse the file, and all of them are told."""
        found = self.mistakes(
            b"\n".join([line(), b"secret", line("web2", tag=["x"]), line(), line("web3", port=0)])
        )
        self.assertEqual([each.split(":")[0] for each in found], [
            "line 2", "line 3", "line 4", "line 5"
        ])  # fmt: skip
        self.assertIn("`tag`", found[1])

    def test_no_suffix(self) -> None:
        """A name without any suffix is JSON too, though JSON is almost YAML."""
        self.file = self.folder / "hosts"
        self.mistakes(MAPPING)
        self.assertEqual(self.load(line()), {"web1": WEB1})


class AnyFileTests(HostsFileTestCase):
    """What holds for both."""

    def test_no_host(self) -> None:
        """A file without a host is a mistake: it may be half written."""
        for name, content in [
            ("hosts.yaml", ""),
            ("hosts.yaml", "# nothing\n"),
            ("hosts.yaml", "{}"),
            ("hosts.yaml", "[]"),
            ("hosts.json", ""),
        ]:
            self.file = self.folder / name
            self.assertEqual(self.mistakes(content), ["has no host"])

    def test_unreadable(self) -> None:
        """A file that is not there, or is no file, is told with the system's words."""
        for path, word in [(self.folder / "none", "No such file"), (self.folder, "directory")]:
            error = self.assertRaises(ConfigError, load_hosts_file, path)
            self.assertIn(f"{path}: can't be read: ", str(error))
            self.assertIn(word, str(error))
