"""What is in etc/: the samples work as they stand there, and systemd understands its files."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

import harpcaller.config
import harpd.config
from harpcaller.hosts.entries import parse_hosts
from tests.acceptance.daemons import deploy

ETC = Path(__file__).parents[2] / "etc"

UNITS = ("harpcaller.service", "harpcaller.socket", "harpd.service", "harpd.socket")

EXPOSURE = 20
"""How exposed the dispatcher's unit may be, in tenths of the points of systemd-analyze security.
Newer versions of systemd count more. harpd's procedures may do everything, so it has no bound."""


def found(program: str) -> str:
    """Return where a program is; skip the test if this machine does not have it."""
    path = shutil.which(program)
    if path is None:
        raise SkipTest(f"there is no {program} here")
    return path


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a program and take what it prints."""
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


class SampleTests(SynchronousTestCase):
    """The sample configurations, with nothing changed but the folders."""

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        for file in ETC.iterdir():
            name = {"list-hosts": "hosts"}.get(file.name, file.name)
            copied = shutil.copy(file, self.folder / name)
            text = re.sub(r"/etc/harp(d|caller)\b", str(self.folder), file.read_text())
            Path(copied).write_text(text)

    def check(self, name: str, *options: str) -> str:
        """Return what --test prints."""
        twistd = str(Path(sys.executable).with_name("twistd"))
        return run(twistd, "--nodaemon", "--pidfile=", name, *options, "--test").stdout

    def test_harpcaller(self) -> None:
        """The dispatcher's passes --test."""
        printed = self.check("harpcaller", f"--config={self.folder}/harpcaller.yaml")
        self.assertEqual(printed, "OK\n")

    def test_harpd(self) -> None:
        """What harpd has passes --test with the sample procedures, given certificate and users."""
        deployment = deploy()
        for source, name in (("harpd.pem", "cert.pem"), ("harpd.key", "key.pem")):
            shutil.copy(deployment.folder / source, self.folder / name)
        shutil.copy(deployment.folder / "passwords", self.folder / "passwd")
        printed = self.check(
            "harpd",
            f"--config={self.folder}/harpd.yaml",
            f"--procedures={self.folder}/procedures.py",
        )
        self.assertEqual(printed, "OK\n")

    def test_hosts_file(self) -> None:
        """The file of hosts can take the place of the script."""
        file = self.folder / "harpcaller.yaml"
        text = re.sub(r"^(host_db\w*:)", r"#\1", file.read_text(), flags=re.M)
        file.write_text(text.replace("#hosts_file:", "hosts_file:"))
        self.assertEqual(self.check("harpcaller", f"--config={file}"), "OK\n")

    def test_every_key(self) -> None:
        """All keys that the daemons know stand in the samples, some of them in comments."""
        samples = {"harpcaller.yaml": harpcaller.config, "harpd.yaml": harpd.config}
        for sample, module in samples.items():
            text = (ETC / sample).read_text()
            asked: set[str] = set()
            for source in Path(str(module.__file__)).parent.glob("*.py"):
                pattern = r"(?:keys|root|section|network)\.\w+\(\s*\"([a-z_0-9]+)\""
                asked |= set(re.findall(pattern, source.read_text()))
            self.assertGreater(len(asked), 10)
            missing = [key for key in asked if not re.search(rf"\b{key}:", text)]
            self.assertEqual(missing, [], sample)

    def test_list_hosts(self) -> None:
        """The script prints hosts that the registry takes, all of them."""
        hosts, complaints = parse_hosts(run(str(ETC / "list-hosts")).stdout.encode(), strict=True)
        self.assertEqual(complaints, [])
        self.assertEqual(set(hosts), {"web01.example.net", "web02.example.net"})


class UnitTests(SynchronousTestCase):
    """What systemd says of its files."""

    def test_verify(self) -> None:
        """The units have no mistakes but that what they start is not installed here."""
        analyze = found("systemd-analyze")
        printed = run(analyze, "verify", "--man=no", *(str(ETC / name) for name in UNITS)).stderr
        wrong = [line for line in printed.splitlines() if "twistd is not executable" not in line]
        self.assertEqual(wrong, [])

    def test_security(self) -> None:
        """The dispatcher's unit stays as closed as it is."""
        analyze = found("systemd-analyze")
        unit = str(ETC / "harpcaller.service")
        done = run(analyze, "security", "--offline=true", f"--threshold={EXPOSURE}", unit)
        self.assertEqual(done.returncode, 0, done.stdout[-200:] + done.stderr)

    def test_users_and_folders(self) -> None:
        """The users are made, then the folders that are theirs, on a machine that has neither."""
        sysusers, tmpfiles = found("systemd-sysusers"), found("systemd-tmpfiles")
        if os.geteuid() != 0:
            raise SkipTest("only root can give files away")
        root = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, root)
        (root / "etc").mkdir()
        for program, name, options in (
            (sysusers, "sysusers.conf", []),
            (tmpfiles, "tmpfiles.conf", ["--create"]),
        ):
            done = run(program, f"--root={root}", *options, str(ETC / name))
            self.assertEqual(done.returncode, 0, done.stderr)
        users = (root / "etc" / "passwd").read_text()
        for name in ("harpcaller", "harpd"):
            self.assertRegex(users, rf"(?m)^{name}:.*:/usr/sbin/nologin$")
        for name, mode in (("etc/harpcaller", 0o750), ("etc/harpd", 0o700)):
            self.assertEqual((root / name).stat().st_mode & 0o777, mode)
        owner = (root / "var" / "lib" / "harpcaller").stat().st_uid
        self.assertIn(f"harpcaller:x:{owner}:", users)
