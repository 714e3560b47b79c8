"""Tests of ``harp direct`` against a real harpd."""

from __future__ import annotations

import signal
import tempfile
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from harpcaller.demo.deployment import PASSWORD, USER
from tests.acceptance.daemons import eventually
from tests.harp.cli_site import Site, site
from tests.harp.commands import TIME_LIMIT, Done
from tests.harp.terminal import Terminal

LOGIN = {"HARPD_USER": USER, "HARPD_PASSWORD": PASSWORD}


class DirectTests(SynchronousTestCase):
    """Calls without a dispatcher."""

    def setUp(self) -> None:
        self.site: Site = site()
        self.address = f"127.0.0.1:{self.site.deployment.harpd_port}"
        self.trust = f"--ca-file={self.site.deployment.ca_file}"

    def direct(self, *words: str, **environment: str) -> Done:
        """Call as the user."""
        variables: dict[str, Any] = {**LOGIN, **environment}
        return self.site.within("direct", self.address, self.trust, *words, **variables)

    def test_result(self) -> None:
        """What the procedure returns is printed; the arguments are what it declares."""
        self.assertEqual(self.direct("add", "1", "b=5"), Done(0, "6\n", ""))
        self.assertEqual(self.direct("echo", "007x"), Done(0, '"007x"\n', ""))
        self.assertEqual(self.direct("add", "-7", "-1"), Done(0, "-8\n", ""))
        self.assertEqual(self.direct("--json", "add", "1"), Done(0, '{"result":2}\n', ""))
        self.assertEqual(self.direct("add", "--json-args", '{"a": 4}'), Done(0, "5\n", ""))
        self.assertRegex(self.direct("process_id").out, r"\A[0-9]+\n\Z")

    def test_packets(self) -> None:
        """Packets come as lines, the result last."""
        self.assertEqual(self.direct("count", "2"), Done(0, "0\n1\n2\n", ""))
        wanted = '{"stream":0}\n{"stream":1}\n{"result":2}\n'
        self.assertEqual(self.direct("count", "2", "--json"), Done(0, wanted, ""))

    def test_failures(self) -> None:
        """Each kind of failure has its status, and is told on standard error."""
        elsewhere = ["direct", "127.0.0.1:1", "add", "1"]
        for done, status, part in (
            (self.direct("fail", "no such disk"), 1, "LookupError: no such disk"),
            (self.direct("add"), 5, "invalid_argument_list"),
            (self.direct("add", "x"), 2, "a must be int, not 'x'"),
            (self.direct("add", "1", "c=2"), 2, "there is no parameter c"),
            (self.direct("adds", "1"), 5, "no_such_procedure"),
            (self.direct("_add"), 2, "_add"),
            (self.direct("sleep_too_long"), 4, "timeout"),
            (self.direct("add", "1", HARPD_PASSWORD="wrong"), 7, "auth_error"),
            (self.direct("add", "1", "--json-args=[]"), 2, "--json-args"),
            (self.direct("add", "--json-args=1"), 2, "array or object"),
            (self.site.within(*elsewhere, **LOGIN), 6, "127.0.0.1:1"),
            (self.site.within("direct", self.address, "add", **LOGIN), 6, "certificate"),
            (self.site.within("direct", "unix:/x", "add", **LOGIN), 2, "unix:/x"),
        ):
            self.assertEqual((done.status, done.out), (status, ""), part)
            self.assertIn(part, done.err)
            self.assertNotIn(PASSWORD, done.err)

    def test_insecure(self) -> None:
        """Whoever is there is talked to only if that is said."""
        done = self.site.within("direct", self.address, "--insecure", "add", "1", **LOGIN)
        self.assertEqual(done, Done(0, "2\n", ""))

    def test_password_file(self) -> None:
        """The password may stand in a file; one that can't be read is named."""
        file = Path(self.mktemp())
        file.write_text(f"{PASSWORD}\nand nothing else counts\n")
        words = ("add", "1", "--user", USER)
        done = self.direct(*words, f"--password-file={file}", HARPD_USER="", HARPD_PASSWORD="")
        self.assertEqual(done, Done(0, "2\n", ""))
        done = self.direct(*words, f"--password-file={file}.not")
        self.assertEqual((done.status, done.out), (2, ""))
        self.assertIn(f"{file}.not", done.err)

    def test_nobody_to_ask(self) -> None:
        """Without a terminal nobody is asked for what is missing."""
        for missing, part in (("HARPD_USER", "--user"), ("HARPD_PASSWORD", "--password-file")):
            words = ("direct", self.address, "add", "1")
            done = self.site.harp(*words, **{**LOGIN, missing: ""})
            self.assertEqual((done.status, done.out), (2, ""))
            self.assertIn(part, done.err)

    def test_asked(self) -> None:
        """A person is asked, and the password is not shown."""
        variables = self.site.variables(HARPD_USER="", HARPD_PASSWORD="")
        words = ("direct", self.address, self.trust, "add", "40", "2")
        terminal = Terminal(*words, environment=variables)
        self.addCleanup(terminal.close)
        terminal.wait_for("User:")
        terminal.type(f"{USER}\r")
        terminal.wait_for("Password:")
        terminal.type(f"{PASSWORD}\r")
        self.assertEqual(terminal.end(), 0, terminal.screen)
        self.assertEqual(terminal.screen.splitlines()[-1], "42")
        self.assertNotIn(PASSWORD, terminal.screen)

    def test_interrupted(self) -> None:
        """Ctrl-C ends the command, and with it the call."""
        with tempfile.TemporaryDirectory() as folder:
            diary = Path(folder) / "diary"
            diary.touch()
            words = ["direct", self.address, self.trust, "keep_diary", str(diary)]
            with self.site.start(*words, **LOGIN) as process:
                eventually(lambda: diary.read_text() != "", "the call has begun")
                process.send_signal(signal.SIGINT)
                self.assertEqual(process.communicate(timeout=TIME_LIMIT), ("", ""))
            self.assertEqual(process.returncode, -signal.SIGINT)
            eventually(lambda: "told" in diary.read_text(), "the call was ended")
