"""Tests of ``harp completion``: real shells, names from a real dispatcher, and what goes wrong."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pexpect
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from harp.cli import completers, shells
from harp.cli.main import harp as command
from harp.cli.shells import inserted, read_line
from harpcaller.demo.deployment import HOST
from tests.acceptance.daemons import PATIENCE
from tests.harp.cli_site import AWAY, DISK_TEXT, OTHER, Site, site
from tests.harp.commands import SCRIPT, TIME_LIMIT, Done, harp

PROMPT = "ready> "
BREAKS = " \t\n\"'><=;|&(:"


class LineTests(SynchronousTestCase):
    """What stands on a line of bash, and what is put there."""

    def test_read(self) -> None:
        """Words are those that bash will see; the last is also told as it stands there."""
        for text, words, last, raw, quote in (
            ("harp jo", ["harp"], "jo", "jo", ""),
            ("harp jobs ", ["harp", "jobs"], "", "", ""),
            ('harp  \'a b\'  "c\\" d" e\\ f', ["harp", "a b", 'c" d'], "e f", "e\\ f", ""),
            ('harp queues \'{"a": ', ["harp", "queues"], '{"a": ', '\'{"a": ', "'"),
            ('harp x "a\\"b\\x', ["harp", "x"], 'a"b\\x', '"a\\"b\\x', '"'),
            ("harp '' ", ["harp", ""], "", "", ""),
            ("", [], "", "", ""),
        ):
            self.assertEqual(read_line(text), (words, last, raw, quote))

    def test_inserted(self) -> None:
        """A value is quoted as the line wants it; only what is behind a break is replaced."""
        for line, value, wanted in (
            ("harp ", "web01", "web01"),
            ("harp ", '{"a":1}', "'{\"a\":1}'"),
            ("harp '{", '{"a":"it\'s"}', '{"a":"it\'\\\'\'s"}'),
            ('harp "{', '{"a":"$"}', '{\\"a\\":\\"\\$\\"}'),
            ("harp unix:/r", "unix:/run", "/run"),
            ("harp --dispatcher=a:4", "a:40", "40"),
            ("harp we", "web 01", "web\\ 01"),
        ):
            self.assertEqual(inserted(value, read_line(line), BREAKS), wanted)

    def test_bash_reads_it(self) -> None:
        """What is inserted for a new word is that value for bash."""
        for value in ("web01", DISK_TEXT, "it's", 'a "b" $HOME `x` \\', "*", "ż"):
            line = f"printf %s {inserted(value, read_line('harp '), BREAKS)}"
            self.assertEqual(subprocess.check_output(["bash", "-c", line]).decode(), value)


class CompletersTests(SynchronousTestCase):
    """What is offered."""

    def setUp(self) -> None:
        self.site: Site = site()

    def offered(self, line: str, **environment: str) -> list[str]:
        """Return what bash is offered for a line, however long that takes."""
        self.patch(completers, "LIMIT", PATIENCE)
        own = {"COMP_LINE": line, "COMP_WORDBREAKS": BREAKS, **environment}
        with patch.dict(os.environ, self.site.variables(**own)):
            completion = shells.Bash(command, {}, shells.PROGRAM, shells.VARIABLE).complete()
        return completion.splitlines()

    def ask(self, line: str, **environment: str) -> Done:
        """Ask as the script for bash does."""
        variables = {shells.VARIABLE: "bash_complete", "COMP_LINE": line, **environment}
        return self.site.harp(COMP_WORDBREAKS=BREAKS, **variables)

    def test_commands_and_options(self) -> None:
        """Commands, their options, and the values of those."""
        self.assertEqual(self.offered("harp qu"), ["queues"])
        self.assertEqual(self.offered("harp jobs --st"), ["--state"])
        self.assertEqual(self.offered("harp jobs --state run"), ["running"])
        self.assertEqual(self.offered("harp admin re"), ["reload"])

    def test_names(self) -> None:
        """Hosts, procedures, queues and jobs, from the dispatcher that is meant."""
        self.assertEqual(self.offered("harp call web"), [HOST])
        self.assertEqual(self.offered("harp procedures "), [OTHER, HOST])
        self.assertEqual(self.offered(f"harp call {HOST} print_"), ["print_much", "print_protocol"])
        self.assertEqual(self.offered("harp jobs --procedure fa"), ["fail"])
        self.assertEqual(self.offered(f"harp jobs --host {AWAY} --procedure "), ["add"])
        queues = self.offered("harp queues ", HARP_DISPATCHER="")
        self.assertEqual(queues, [])  # nobody is there
        line = f"harp --dispatcher {self.site.address} queues "
        self.assertEqual(self.offered(line, HARP_DISPATCHER=""), [f"'{DISK_TEXT}'"])
        self.assertEqual(self.offered(f"harp result {self.site.jobs[0]}"), [self.site.jobs[0]])
        self.assertEqual(self.offered(f"harp cancel {self.site.jobs[0]}"), [])
        self.assertEqual(self.offered(f"harp cancel {self.site.jobs[-1]}"), [self.site.jobs[-1]])

    def test_words_of_zsh_and_fish(self) -> None:
        """What they are offered is the whole word, and may have commas and colons in it."""
        line = f"harp jobs --host={HOST[:3]}"
        for shell, current, wanted in (
            ("zsh", "2", ["plain", f"--host={HOST}", "_"]),
            ("fish", f"--host={HOST[:3]}", [f"plain,--host={HOST}"]),
        ):
            variables = {shells.VARIABLE: f"{shell}_complete", "COMP_CWORD": current}
            done = self.site.harp(COMP_WORDS=line, **variables)
            self.assertEqual(done.out.splitlines(), wanted)

    def test_silent(self) -> None:
        """Whatever is wrong, nothing is offered, and nothing told."""
        for environment in (
            {"HARP_DISPATCHER": "127.0.0.1:1"},
            {"HARP_DISPATCHER": "[nonsense"},
            {"HARP_DISPATCHER": "", "HARP_PROFILE": "unknown"},
            {"HARP_TOKEN": "harp_unknown"},
        ):
            done = self.ask("harp call ", **environment)
            self.assertEqual((done.out.strip(), done.err), ("", ""), environment)

    def test_slow_dispatcher(self) -> None:
        """Nobody waits long for a dispatcher that does not answer."""
        with socket.create_server(("127.0.0.1", 0)) as silent:
            asked: list[Any] = []
            context = command.make_context(
                "harp",
                [f"--dispatcher=127.0.0.1:{silent.getsockname()[1]}", "jobs"],
                resilient_parsing=True,
            )
            self.patch(completers, "LIMIT", 0.05)
            asked += completers.hosts(context, context.command.params[0], "")
            self.assertEqual(asked, [])


class ShellTests(SynchronousTestCase):
    """The scripts in the shells that they are for."""

    def test_usage(self) -> None:
        """A script is printed for each shell that is known, and for no other."""
        for shell in shells.SHELLS:
            done = harp("completion", shell)
            self.assertEqual((done.status, done.err), (0, ""))
            self.assertIn("_harp_completion", done.out)
        self.assertEqual(harp("completion", "tcsh").status, 2)

    def start(self, *shell: str, init: str) -> None:
        """Start a shell that has read the script."""
        if shutil.which(shell[0]) is None:
            raise SkipTest(f"{shell[0]} is not installed")
        home = Path(self.mktemp()).absolute()
        home.mkdir()
        environment = {
            **os.environ,
            **site().variables(),
            "PATH": f"{SCRIPT.parent}:{os.environ['PATH']}",
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(home),
            "INPUTRC": "/dev/null",
            "TERM": "dumb",
            "LANG": "C.UTF-8",
        }
        self.shell = pexpect.spawn(
            shell[0],
            list(shell[1:]),
            env=environment,
            dimensions=(24, 200),
            timeout=TIME_LIMIT,
            encoding="utf-8",
        )
        self.addCleanup(self.shell.close, force=True)
        self.shell.sendline(init)
        self.shell.expect(rf"[\r\n]{PROMPT}" if shell[0] != "fish" else PROMPT)

    def assert_completed(self, typed: str, wanted: str) -> None:
        """Check that what is typed becomes, with a Tab, what is wanted."""
        self.shell.send(typed)
        self.shell.expect_exact(typed)
        deadline = time.monotonic() + PATIENCE
        while True:  # a machine with much to do may not answer in time
            self.shell.send("\t")
            with contextlib.suppress(pexpect.TIMEOUT):
                self.shell.expect_exact(wanted, timeout=10)
                break
            self.assertLess(time.monotonic(), deadline, self.shell.before)
        self.shell.sendcontrol("u")

    def complete(self, new_queue: str) -> None:
        """Check names of each kind, and a queue within the quotes of the shell."""
        for typed, wanted in (
            ("harp pro", "cedures "),
            (f"harp procedures {HOST[:3]}", f"{HOST[3:]} "),
            (f"harp call {HOST} print_m", "uch "),
            (f"harp cancel {site().jobs[-1][:-4]}", site().jobs[-1][-4:]),
            ("harp queues '{", f"{DISK_TEXT[1:]}'"),
            ("harp queues ", new_queue),
        ):
            self.assert_completed(typed, wanted)

    def test_bash(self) -> None:
        """Bash, whose readline breaks words at colons and equals signs."""
        self.start(
            *("bash", "--norc", "--noprofile", "-i"),
            init="bind 'set enable-bracketed-paste off';"
            f" source <(harp completion bash); PS1='{PROMPT}'",
        )
        self.complete(f"'{DISK_TEXT}'")
        dispatcher = f"--dispatcher={site().address}"
        self.assert_completed(f"unset HARP_DISPATCHER; harp {dispatcher} hosts --ref", "resh ")

    def test_zsh(self) -> None:
        """Zsh."""
        self.start(
            *("zsh", "-f", "-i"),
            init="unsetopt zle_bracketed_paste; autoload -Uz compinit; compinit -u -D;"
            f" source <(harp completion zsh); PS1='{PROMPT}'",
        )
        self.complete("")

    def test_fish(self) -> None:
        """Fish."""
        self.start(
            *("fish", "--private", "--no-config", "-i"),
            init=f"harp completion fish | source; function fish_prompt; echo -n '{PROMPT}'; end",
        )
        self.complete("")
