"""The Debian package under a systemd that is booted for it: ``make test-deb``.

HARPCALLER_DEB names the package; without it there is nothing to test.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.acceptance.daemons import children, eventually

BOOT = Path(__file__).parents[2] / "packaging" / "deb" / "boot"
PACKAGE = os.environ.get("HARPCALLER_DEB")

LIMIT = 120
"""Seconds for one command."""

SERVICES = ("harpd", "harpcaller")

_UNSHARE = ("unshare", "--mount", "--pid", "--fork", "--uts", "--ipc", "--cgroup", "--net")
_ENTER = ("--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup", "env", "-i")
_PATH = "PATH=/usr/sbin:/usr/bin:/sbin:/bin"
_LIST = "find /etc /usr /opt /var/lib -xdev | grep -v /var/lib/systemd | sort"

CALL = """
import harp
print(harp.HarpCaller("localhost").host("localhost").host_name().get())
"""


class DebianTests(SynchronousTestCase):
    """One machine from the installation of the package to its purge."""

    if PACKAGE is None:
        skip = "HARPCALLER_DEB names no package"
    elif os.geteuid() != 0:
        skip = "only root can boot a systemd"

    def setUp(self) -> None:
        assert PACKAGE is not None
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        command = [*_UNSHARE, "--kill-child", str(BOOT), folder, PACKAGE]
        self.log = Path(self.mktemp())
        with open(self.log, "wb") as log:
            self.booting = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.addCleanup(self.booting.wait)
        self.addCleanup(self.booting.kill)
        eventually(self.is_up, "systemd is up")

    def is_up(self) -> bool:
        if self.booting.poll() is not None:
            self.fail(f"no systemd can be booted here: {self.log.read_text()}")
        self.inside = next(iter(children(self.booting.pid)), 0)
        return bool(self.inside) and "running" in self.run_in("systemctl is-system-running", True)

    def run_in(self, command: str, may_fail: bool = False) -> str:
        """Return what a command prints there."""
        enter = ("nsenter", "--target", str(self.inside), *_ENTER, _PATH, "HOME=/root")
        done = subprocess.run(
            [*enter, "sh", "-c", command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        if not may_fail:
            self.assertEqual(done.returncode, 0, done.stdout)
        return done.stdout

    def shown(self, service: str, name: str) -> str:
        """Return a property of a unit."""
        return self.run_in(f"systemctl show --value -p {name} {service}").strip()

    def call(self) -> str:
        """Return the result of a call by the dispatcher."""
        return self.run_in(f"/opt/harpcaller/bin/python -I -c '{CALL}'").strip()

    def test_life(self) -> None:
        """It installs, both services run under their units as those promise, and it goes away."""
        before = self.run_in(_LIST)
        self.run_in("dpkg -i /root/harpcaller.deb")
        name = self.run_in("uname -n").strip()
        for service in SERVICES:
            self.assertEqual(self.shown(service, "ActiveState"), "active")
            self.assertEqual(self.shown(service, "UnitFileState"), "enabled")
        self.assertRegex(self.shown("harpd", "StatusText"), "^5 procedures, ")
        self.assertRegex(self.shown("harpcaller", "StatusText"), "^1 hosts, ")
        self.assertEqual(self.call(), name)
        for service in SERVICES:
            self.reload(service)
            self.get_stuck(service)
        self.assertEqual(self.call(), name)
        self.activate()
        self.assertEqual(self.call(), name)
        self.run_in("dpkg -i /root/harpcaller.deb")
        self.assertEqual(self.call(), name)
        self.run_in("dpkg --remove harpcaller")
        kept = set(self.run_in(_LIST).split("\n")) - set(before.split("\n"))
        for file in ("/etc/harpd/key.pem", "/etc/harpcaller/hosts", "/var/lib/harpcaller"):
            self.assertIn(file, kept)
        self.assertEqual([file for file in kept if file.startswith(("/opt/h", "/usr"))], [])
        self.assertEqual(self.run_in("ps -eo args | grep -c '[t]wistd'", True), "0\n")
        self.run_in("dpkg --purge harpcaller")
        self.assertEqual(self.run_in(_LIST).split("\n"), before.split("\n"))

    def reload(self, service: str) -> None:
        """See that the configuration is read again by the process that there is."""
        pid = self.shown(service, "MainPID")
        self.run_in(f"systemctl reload {service}")
        eventually(
            lambda: "SIGHUP" in self.run_in(f"journalctl -o cat -u {service}"), "it reads again"
        )
        eventually(
            lambda: self.shown(service, "SubState") == "running", "it has read its configuration"
        )
        self.assertEqual(self.shown(service, "MainPID"), pid)

    def get_stuck(self, service: str) -> None:
        """See that a daemon that does not turn any more is replaced by another."""
        folder = f"/run/systemd/system/{service}.service.d"
        setting = "[Service]\\nWatchdogSec=3\\n"
        self.run_in(f"mkdir -p {folder}; printf '{setting}' >{folder}/soon.conf")
        self.run_in(f"systemctl daemon-reload; systemctl restart {service}")
        pid = self.shown(service, "MainPID")
        self.run_in(f"kill -{signal.SIGSTOP.value} {pid}")
        eventually(
            lambda: (
                self.shown(service, "MainPID") not in {pid, "0"}
                and self.shown(service, "SubState") == "running"
            ),
            "another runs",
        )
        self.assertIn("atchdog", self.run_in(f"journalctl -u {service}"))

    def activate(self) -> None:
        """Stop the daemons, and have their sockets open, so that the next call starts them."""
        self.run_in(
            "systemctl stop harpd harpcaller; sed -i 's/  - 127.0.0.1:3502/"
            '  - "systemd:domain=INET:index=0"/\' /etc/harpcaller/harpcaller.yaml; '
            "systemctl start harpd.socket harpcaller.socket"
        )
        for service in SERVICES:
            self.assertEqual(self.shown(service, "ActiveState"), "inactive")
