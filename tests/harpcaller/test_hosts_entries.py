"""Tests of harpcaller.hosts.entries."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from harpcaller.hosts import Host
from harpcaller.hosts.entries import parse_hosts

SAMPLE = Path(__file__).parents[2] / "etc" / "list-hosts"
OF_OPENSSL = "SHA256:" + ":".join(["AB"] * 32)
PLAIN = "sha256:" + "ab" * 32
WEB1 = Host("web1", "10.0.0.1", 4306, "u", "secret")


def line(hostname: str = "web1", **changes: object) -> bytes:
    """Return one line of the script's output; a change to None leaves the key out."""
    login = {"user": "u", "password": "secret"}
    entry = {"hostname": hostname, "address": "10.0.0.1", "port": 4306, "credentials": login}
    entry |= changes
    return json.dumps({key: value for key, value in entry.items() if value is not None}).encode()


class HostTests(SynchronousTestCase):
    """The value."""

    def test_password_is_not_shown(self) -> None:
        """The password stays out of logs and tracebacks."""
        self.assertNotIn("secret", f"{WEB1!r} {WEB1}")


class ParseHostsTests(SynchronousTestCase):
    """The script's output."""

    def test_good_lines(self) -> None:
        """Each line is a host; blank lines and the last line's end do not matter."""
        found = parse_hosts(line() + b"\r\n\n" + line("web2", address="web2.example.org", port=1))
        web2 = Host("web2", "web2.example.org", 1, "u", "secret")
        self.assertEqual(found, ({"web1": WEB1, "web2": web2}, []))

    def test_port_is_optional(self) -> None:
        """A host without a port has harpd's own."""
        self.assertEqual(parse_hosts(line(port=None)), ({"web1": WEB1}, []))

    def test_unknown_keys(self) -> None:
        """Scripts may print more than is understood here."""
        login = {"user": "u", "password": "secret", "realm": "x"}
        found, complaints = parse_hosts(line(tag=["x"], credentials=login))
        self.assertEqual((found, complaints), ({"web1": WEB1}, []))

    def test_optional_fields(self) -> None:
        """Tags and the name of the certificate come with a host; null is no name."""
        found, _ = parse_hosts(line(tags=["web", "old"], server_name="front.example.org"))
        web1 = Host("web1", "10.0.0.1", 4306, "u", "secret", ("web", "old"), "front.example.org")
        self.assertEqual(found, {"web1": web1})
        self.assertEqual(parse_hosts(line()[:-1] + b', "server_name": null}'), ({"web1": WEB1}, []))

    def test_fingerprints(self) -> None:
        """One or several, written as OpenSSL does or without colons and in small letters."""
        for written in (OF_OPENSSL, [OF_OPENSSL], PLAIN):
            found, complaints = parse_hosts(line(fingerprint=written))
            self.assertEqual((found["web1"].fingerprints, complaints), ((PLAIN,), []))
        found, _ = parse_hosts(line(fingerprint=[PLAIN, "sha256:" + "0" * 64]))
        self.assertEqual(found["web1"].fingerprints, (PLAIN, "sha256:" + "0" * 64))
        self.assertEqual(parse_hosts(line()[:-1] + b', "fingerprint": null}'), ({"web1": WEB1}, []))

    def test_sample(self) -> None:
        """The sample script prints what is understood, and shows every field."""
        printed = subprocess.run([SAMPLE], stdout=subprocess.PIPE, check=True).stdout
        found, complaints = parse_hosts(printed, strict=True)
        self.assertEqual(complaints, [])
        self.assertTrue(any(host.tags and host.server_name for host in found.values()))

    def test_order(self) -> None:
        """The hosts come by name, however the lines stand."""
        found, _ = parse_hosts(b"\n".join(line(name) for name in ("b", "c", "a")))
        self.assertEqual(list(found), ["a", "b", "c"])

    def test_no_lines(self) -> None:
        """No output is no host, and nothing to complain about."""
        self.assertEqual(parse_hosts(b""), ({}, []))

    def test_bad_lines(self) -> None:
        """A bad line is left out and told by its number and fault, without what stood there."""
        bad = [
            line(hostname=""),
            line(address=None),
            line(address=""),
            line(port=0),
            line(port=65536),
            line(port="4306"),
            line(credentials="u:secret"),
            line(credentials={"user": "u"}),
            line(credentials={"user": "u", "password": 1}),
            line(tags="secret"),
            line(tags=["secret", 1]),
            line(tags=["secret", ""]),
            line(server_name=["secret"]),
            line(server_name=""),
            line(server_name="a secret"),
            line(fingerprint="a secret"),
            line(fingerprint=PLAIN + "00"),
            line(fingerprint=PLAIN[:-2]),
            line(fingerprint=PLAIN.replace("sha256", "sha1")),
            line(fingerprint=[]),
            line(fingerprint=7),
            line(server_name="*.example.org"),
            b'{"password": "secret"',
            b'["secret"]',
            b'"secret" \xff',
            line()[:-1] + b', "unknown": "\xff"}',
            line()[:-1] + b', "unknown": ' + b"[" * 100000,
        ]
        for entry in bad:
            found, complaints = parse_hosts(b"\n" + entry + b"\n" + line())
            self.assertEqual(found, {"web1": WEB1})
            self.assertEqual(len(complaints), 1)
            self.assertRegex(complaints[0], r"^line 2: [\w`]")
            self.assertNotIn("secret", complaints[0])

    def test_fault_is_named(self) -> None:
        """The complaint leads to the key."""
        _, complaints = parse_hosts(line(port="x") + b"\n" + line(credentials={"user": "u"}))
        self.assertIn("$.port", complaints[0])
        self.assertIn("`password`", complaints[1])

    def test_same_name_twice(self) -> None:
        """Of two lines with one name the first counts."""
        found, complaints = parse_hosts(line() + b"\n" + line(address="10.0.0.2"))
        self.assertEqual(found, {"web1": WEB1})
        self.assertEqual(len(complaints), 1)
        self.assertIn("line 2: ", complaints[0])


class StrictTests(SynchronousTestCase):
    """The lines of a file."""

    def complaint(self, entry: bytes) -> str:
        """Return what is wrong with a line that is no mistake for a script."""
        self.assertEqual(parse_hosts(entry)[1], [])
        hosts, complaints = parse_hosts(entry, strict=True)
        self.assertEqual(hosts, {})
        self.assertEqual(len(complaints), 1)
        return complaints[0]

    def test_good_lines(self) -> None:
        """All keys that there are may stand there."""
        entry = line(tags=["x"], server_name="10.0.0.2")
        self.assertEqual(parse_hosts(entry, strict=True), parse_hosts(entry))

    def test_unknown_key(self) -> None:
        """A misspelt key is a mistake; its name can't harm the log, nor fill it."""
        self.assertIn("`tag`", self.complaint(line(tag=["x"])))
        bad_key = json.dumps({"\x1b[2J" + "x" * 10000: 1}).encode()
        complaint = self.complaint(line()[:-1] + b", " + bad_key[1:])
        self.assertNotIn("\x1b", complaint)
        self.assertLess(len(complaint), 300)

    def test_unknown_key_of_credentials(self) -> None:
        """There the key may be the password itself."""
        login = {"user": "u", "password": "x", "panel:secret": 1}
        complaint = self.complaint(line(credentials=login))
        self.assertIn("$.credentials", complaint)
        self.assertNotIn("secret", complaint)

    def test_repeated_key(self) -> None:
        """A line that says two things is a mistake."""
        self.assertIn("`port`", self.complaint(line()[:-1] + b', "port": 4307}'))
