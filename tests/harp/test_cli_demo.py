"""Tests of ``harp demo`` by the real script, away from the checkout."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import harp as client
from harpcaller.demo.deployment import HOST
from tests.harp.commands import SCRIPT, TIME_LIMIT, Started, harp


class DemoTests(SynchronousTestCase):
    """What it shows, and what is left of it."""

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp()).resolve()
        self.addCleanup(subprocess.run, ["rm", "-rf", str(self.folder)], check=True)
        self.temporary = self.folder / "tmp"
        self.working = self.folder / "working"
        for each in (self.temporary, self.working):
            each.mkdir()

    def start(self, *options: str) -> Started:
        """Return the demo, running."""
        return Started(
            [SCRIPT, "demo", *options],
            cwd=self.working,
            env={**os.environ, "TMPDIR": str(self.temporary)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def test_until_ctrl_c(self) -> None:
        """With --keep its dispatcher answers others, until Ctrl-C; then nothing is left of it."""
        with self.start("--keep") as demo:
            assert demo.stdout is not None
            said = ""
            while "Ctrl-C stops them." not in said:
                line = demo.stdout.readline()
                self.assertNotEqual(line, "", said)
                said += line
            for text in ("disk_usage", "'text': 'event 5'", "RemoteException: LookupError"):
                self.assertIn(text, said)
            (found,) = [line for line in said.splitlines() if "HARP_DISPATCHER=" in line]
            rpc = client.HarpCaller("127.0.0.1", int(found.rpartition(":")[2]))
            self.addCleanup(rpc.close)
            self.assertEqual(rpc.host(HOST).disk_usage("/").get()["path"], "/")
            self.assertEqual(len(list(self.temporary.iterdir())), 1)
            demo.send_signal(signal.SIGINT)
            self.assertIn("have been stopped", demo.stdout.read())
            self.assertEqual(demo.wait(TIME_LIMIT), 0)
        self.assertEqual([*self.temporary.iterdir(), *self.working.iterdir()], [])

    def test_folder(self) -> None:
        """A folder that is named has all files afterwards, and belongs to nobody else before."""
        with self.start("--folder=here") as demo:
            said, _ = demo.communicate(timeout=TIME_LIMIT)
        self.assertEqual(demo.returncode, 0, said)
        self.assertTrue((self.working / "here" / "harpcaller.log").exists())
        self.assertEqual(list(self.temporary.iterdir()), [])
        before = sorted((self.working / "here").iterdir())
        refused = harp("demo", f"--folder={self.working / 'here'}")
        self.assertEqual((refused.status, refused.out), (2, ""))
        self.assertIn("is not empty", refused.err)
        self.assertEqual(sorted((self.working / "here").iterdir()), before)

    def test_folder_that_can_not_be(self) -> None:
        """A folder that can't be made is named, without a traceback."""
        done = harp("demo", "--folder=/proc/none")
        self.assertEqual(done.status, 5)
        self.assertRegex(done.err, r"\AError: .*'/proc/none'\n\Z")

    def test_reader_that_leaves(self) -> None:
        """A reader that leaves ends it without a word, and nothing is left of it."""
        demo = subprocess.Popen(
            [SCRIPT, "demo", "--keep"],
            cwd=self.working,
            env={**os.environ, "TMPDIR": str(self.temporary)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert demo.stdout is not None
        demo.stdout.close()
        with demo:
            assert demo.stderr is not None
            self.assertEqual(demo.stderr.read(), "")
        self.assertEqual(demo.returncode, 128 + signal.SIGPIPE)
        self.assertEqual(list(self.temporary.iterdir()), [])
