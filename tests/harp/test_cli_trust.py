"""Tests of ``harp.cli.trust`` and its modules by the real script, against real TLS."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import socket
import ssl
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from twisted.trial.unittest import SynchronousTestCase

from harp.cli import certificates, known_certs
from tests.harp.commands import Done, harp, harp_on_terminal
from tests.harp.modes import identity
from tests.harp.peer import ScriptedDispatcher

DAY = timedelta(days=1)


class Identity:
    """A self-signed certificate with its key.

    :param names: DNS names and addresses.
    :param begins: when it begins to be valid, seen from now.
    """

    def __init__(
        self,
        *names: str,
        common_name: str = "harpd",
        begins: timedelta = -DAY,
        ends: timedelta = 40 * DAY,
    ) -> None:
        now = datetime.now(UTC)
        self._key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
        builder = (
            x509.CertificateBuilder(subject, subject, self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + begins)
            .not_valid_after(now + ends + timedelta(hours=1))
        )
        if names:
            found = x509.SubjectAlternativeName([_general_name(each) for each in names])
            builder = builder.add_extension(found, critical=False)
        self.certificate = builder.sign(self._key, hashes.SHA256())
        self.pem = self.certificate.public_bytes(Encoding.PEM)
        der = self.certificate.public_bytes(Encoding.DER)
        self.fingerprint = f"sha256:{hashlib.sha256(der).hexdigest()}"

    def context(self, folder: Path) -> ssl.SSLContext:
        """Return the side of a server that shows it."""
        key = self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        file = folder / "identity"
        file.write_bytes(self.pem + key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


class TrustTests(SynchronousTestCase):
    """What the command shows, asks and writes."""

    def setUp(self) -> None:
        """No certificate is known, and there is no file."""
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.file = self.folder / "known_certs.pem"
        self.own = Identity("web01.example.net", "10.0.0.7")

    def harpd(self, context: ssl.SSLContext | None = None) -> str:
        """Start what shows a certificate once, and return its address."""
        tls = context or self.own.context(self.folder)
        peer = ScriptedDispatcher([[]], tls=tls, knows_version_1=False)
        self.addCleanup(peer.stop)
        return f"127.0.0.1:{peer.port}"

    def trust(self, *options: str) -> Done:
        """Run the command without a terminal."""
        return harp("trust", "--known-certs", str(self.file), self.harpd(), *options)

    def known(self) -> list[x509.Certificate]:
        """Return what the file has."""
        return known_certs.read(self.file)

    def test_shown_and_added_after_a_yes(self) -> None:
        """All that can be known is shown; the file is one that the dispatcher reads."""
        address = self.harpd()
        arguments = ("trust", "--known-certs", str(self.file), address)
        done = harp_on_terminal(*arguments, answer="y\n")
        self.assertEqual(done.status, 0, done.out)
        for line in (
            "subject +CN=harpd",
            "made out to +web01.example.net, 10.0.0.7",
            r"issued by +itself \(self-signed\)",
            "valid .*, 40 days left",
            f"fingerprint +{self.own.fingerprint}",
            rf"Add it to {self.file}\? \[y/N\]",
            f'fingerprint: "{self.own.fingerprint}"',
        ):
            self.assertRegex(done.out, line)
        self.assertEqual(self.known(), [self.own.certificate])
        comment, _, pem = self.file.read_bytes().partition(b"\n")
        self.assertRegex(comment.decode(), f"^# {address}, added .*Z, {self.own.fingerprint}$")
        self.assertEqual(pem, self.own.pem)
        self.assertEqual(stat.S_IMODE(self.file.stat().st_mode), 0o644)

    def test_not_added_after_a_no(self) -> None:
        """Anything but a yes adds nothing."""
        for answer in ("n\n", "\n", "\x04"):
            arguments = ("trust", "--known-certs", str(self.file), self.harpd())
            done = harp_on_terminal(*arguments, answer=answer)
            self.assertEqual(done.status, 3, done.out)
            self.assertFalse(self.file.exists())

    def test_nobody_to_ask(self) -> None:
        """Without a terminal nothing is added, whatever stands on standard input."""
        done = harp("trust", "--known-certs", str(self.file), self.harpd(), given="y\n")
        self.assertEqual(done.status, 2)
        self.assertIn("this is no terminal: give --fingerprint, or --yes", done.err)
        self.assertIn(self.own.fingerprint, done.out)
        self.assertFalse(self.file.exists())

    def test_yes(self) -> None:
        """Nobody is asked where that was said before; twice makes no second one."""
        done = self.trust("--yes")
        self.assertEqual((done.status, done.err), (0, ""))
        before = self.file.read_bytes()
        done = self.trust()
        self.assertEqual((done.status, done.err), (0, ""))
        self.assertIn(f"{self.file} has it already.", done.out)
        self.assertEqual(self.file.read_bytes(), before)

    def test_as_json(self) -> None:
        """With --json what is known is one object, and what fails is another."""
        done = self.trust("--yes", "--json")
        self.assertEqual((done.status, done.err), (0, ""))
        found = json.loads(done.out)
        told = [found[key] for key in ("names", "self_signed", "fingerprint", "added")]
        wanted = [["web01.example.net", "10.0.0.7"], True, self.own.fingerprint, True]
        self.assertEqual(told, wanted)
        self.assertLess(found["begins"], found["ends"])
        self.assertFalse(json.loads(self.trust("--json").out)["added"])
        done = self.trust("--json", "--fingerprint", "sha256:" + 64 * "0")
        self.assertEqual((done.status, done.out), (5, ""))
        self.assertIn("another one", json.loads(done.err)["error"]["message"])

    def test_fingerprint(self) -> None:
        """A fingerprint says yes to one certificate only; it may be written as OpenSSL does."""
        done = self.trust("--fingerprint", "sha256:" + 64 * "0", "--yes")
        self.assertEqual(done.status, 5)
        self.assertIn("the fingerprint is another one", done.err)
        self.assertFalse(self.file.exists())
        digits = self.own.fingerprint.removeprefix("sha256:").upper()
        pairs = ":".join(digits[at : at + 2] for at in range(0, 64, 2))
        for form in (self.own.fingerprint, digits, pairs, f"SHA256:{pairs}"):
            self.assertEqual(self.trust("--fingerprint", form).status, 0, form)
            self.assertEqual(self.known(), [self.own.certificate])

    def test_other_certificate_for_the_same_name(self) -> None:
        """A certificate that takes another one's place is pointed out."""
        old, other = Identity("WEB01.example.net", "web02"), Identity("web03.example.net")
        self.file.write_bytes(old.pem + other.pem)
        done = self.trust("--yes")
        self.assertEqual(done.status, 0)
        self.assertIn(f"Warning: {self.file} has ANOTHER certificate for web01.exa", done.err)
        self.assertIn(old.fingerprint, done.err)
        self.assertNotIn(other.fingerprint, done.err)
        self.assertEqual(len(self.known()), 3)

    def test_file_stays_what_it_is(self) -> None:
        """Mode and content stay, a link stays one, and a last line without end gets it."""
        other = Identity("web02")
        self.file.write_bytes(b"# mine\n" + other.pem.rstrip())
        self.file.chmod(0o640)
        link = self.folder / "link"
        link.symlink_to(self.file.name)
        done = harp("trust", "--known-certs", str(link), self.harpd(), "--yes")
        self.assertEqual(done.status, 0, done.err)
        self.assertTrue(link.is_symlink())
        self.assertEqual(stat.S_IMODE(self.file.stat().st_mode), 0o640)
        self.assertTrue(self.file.read_bytes().startswith(b"# mine\n" + other.pem + b"# 127."))
        self.assertEqual(self.known(), [other.certificate, self.own.certificate])
        left = sorted(each.name for each in self.folder.iterdir())
        self.assertEqual(left, ["identity", "known_certs.pem", "link"])

    def test_file_that_cannot_be_used(self) -> None:
        """A file that the dispatcher could not read is not made longer."""
        broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
        self.file.write_bytes(broken)
        done = self.trust("--yes")
        self.assertEqual(done.status, 5)
        self.assertIn(f"{self.file} has something that is no certificate in PEM", done.err)
        self.assertEqual(self.file.read_bytes(), broken)
        self.file = self.folder / "missing" / "known_certs.pem"
        done = self.trust("--yes")
        self.assertEqual(done.status, 5)
        self.assertIn(f"{self.file} can't be written: No such file or directory", done.err)

    def test_not_reachable(self) -> None:
        """Where nothing listens, or something without TLS, that is the status of its own."""
        with socket.socket() as taken:  # bound, but it does not listen
            taken.bind(("127.0.0.1", 0))
            done = harp("trust", f"127.0.0.1:{taken.getsockname()[1]}")
        self.assertEqual((done.status, done.out), (6, ""))
        self.assertIn("Connection refused", done.err)
        plain = ScriptedDispatcher([[b"220 hello\r\n"]], reads=1, knows_version_1=False)
        self.addCleanup(plain.stop)
        done = harp("trust", f"localhost:{plain.port}")
        self.assertEqual((done.status, done.out), (6, ""))
        self.assertIn("no TLS came about there", done.err)

    def test_no_address(self) -> None:
        """What is no address is refused before anything is asked."""
        for address in (
            "",
            ":1",
            "h:",
            "h:x",
            "h:0",
            "h:65536",
            "[::1",
            "[::1]x",
            "a:b:c",
            "unix:/",
        ):
            done = harp("trust", address)
            if address not in ("h:", "[::1"):
                self.assertEqual((done.status, done.out), (2, ""), address)

    def test_names_that_a_terminal_would_obey(self) -> None:
        """A certificate can't write what it likes on the terminal."""
        self.own = Identity(common_name="a\x1b[2J\nb\u202ec")
        done = self.trust("--yes")
        self.assertEqual(done.status, 0, done.err)
        self.assertNotIn("\x1b", done.out)
        self.assertNotIn("\u202e", done.out)
        self.assertIn(r"made out to  a\x1b[2j\nb\u202ec", done.out)

    def test_issued_by_another(self) -> None:
        """A certificate that an authority signed names it."""
        address = self.harpd(identity("web01.example.net"))
        done = harp("trust", "--known-certs", str(self.file), address, "--yes")
        self.assertRegex(done.out, "issued by +OU=Testing CA")

    def test_dates(self) -> None:
        """A certificate that is not valid now is pointed out."""
        for own, told in (
            (Identity(begins=-9 * DAY, ends=-3 * DAY), r"EXPIRED [23] days ago"),
            (Identity(begins=4 * DAY), r"NOT VALID for another 3 days"),
        ):
            self.assertRegex(certificates.facts(own.certificate).validity, told)


class KnownCertsTests(SynchronousTestCase):
    """The file, where several write it."""

    def test_several_at_once(self) -> None:
        """Nothing is lost and nothing stands twice when several add at once."""
        file = Path(self.mktemp())
        each = [Identity("h").certificate for _ in range(4)]
        added: list[bool] = []
        threads = [
            threading.Thread(target=lambda one=one: added.append(known_certs.add(file, one, "x")))
            for one in each * 3
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        self.assertEqual(sorted(added), 8 * [False] + 4 * [True])
        self.assertCountEqual(known_certs.read(file), each)

    def test_interrupted(self) -> None:
        """A disk that is full leaves the old file and nothing else."""
        folder = Path(self.mktemp())
        folder.mkdir()
        file = folder / "known"
        file.write_bytes(Identity("h").pem)
        before = file.read_bytes()

        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        self.patch(os, "fsync", full)
        with self.assertRaises(OSError):
            known_certs.add(file, Identity("i").certificate, "x")
        self.assertEqual(file.read_bytes(), before)
        self.assertEqual(list(folder.iterdir()), [file])
