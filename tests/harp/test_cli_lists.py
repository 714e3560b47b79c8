"""Tests of ``harp jobs``, ``queues``, ``hosts`` and ``procedures`` against real daemons."""

from __future__ import annotations

import json
import signal
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from harp import CommunicationError
from harp.cli import jobs_watched
from harpcaller.demo.deployment import HOST
from tests.harp.cli_site import AWAY, DISK, DISK_TEXT, OTHER, Site, ageless, site
from tests.harp.commands import TIME_LIMIT, Done
from tests.harp.terminal import Terminal

JOB = "J" * 36

NARROW = f"""\
JOB                                   STATE      HOST             PROCEDURE  AGE
{JOB}  waiting    web01.example.…  sleep       Ns
{JOB}  running    web01.example.…  sleep       Ns
{JOB}  cancelled  web01.example.…  sleep       Ns
{JOB}  error      web99.example.…  add         Ns
{JOB}  exception  db01.example.n…  fail        Ns
{JOB}  result     web01.example.…  add         Ns"""

WIDE = f"""\
JOB                                   STATE      HOST               PROCEDURE  AGE  RAN  QUEUE             USER
{JOB}  waiting    web01.example.net  sleep       Ns    -  {{"disk":"web01"}}  -
{JOB}  running    web01.example.net  sleep       Ns   Ns  {{"disk":"web01"}}  -
{JOB}  cancelled  web01.example.net  sleep       Ns   Ns  -                 -
{JOB}  error      web99.example.net  add         Ns   Ns  -                 -
{JOB}  exception  db01.example.net   fail        Ns   Ns  -                 -
{JOB}  result     web01.example.net  add         Ns   Ns  -                 -"""  # noqa: E501

QUEUE_JOBS = f"""\
JOB                                   STATE    HOST          PROCEDURE  AGE  RAN
{JOB}  running  web01.examp…  sleep       Ns   Ns
{JOB}  waiting  web01.examp…  sleep       Ns    -"""

QUEUES = """\
QUEUE             RUNNING  WAITING  CONCURRENCY
{"disk":"web01"}        1        1            1"""


class ListTestCase(SynchronousTestCase):
    """A test of what is listed."""

    def setUp(self) -> None:
        self.site: Site = site()

    def terminal(self, *arguments: str, columns: int = 80, **environment: str) -> Terminal:
        """Run a command on a terminal."""
        variables = self.site.variables(**environment)
        terminal = Terminal(*arguments, columns=columns, environment=variables)
        self.addCleanup(terminal.close)
        return terminal

    def screen(self, *arguments: str, columns: int = 80) -> str:
        """Return what a command leaves on a terminal; its status is 0."""
        terminal = self.terminal(*arguments, columns=columns)
        self.assertEqual(terminal.end(), 0, terminal.screen)
        return ageless(terminal.screen)

    def lines(self, *arguments: str) -> list[Any]:
        """Return the JSON lines that a command prints; its status is 0."""
        done = self.site.within("--json", *arguments)
        self.assertEqual((done.status, done.err), (0, ""))
        return [json.loads(line) for line in done.out.splitlines()]

    def assert_usage(self, done: Done, part: str) -> None:
        """Check that a command was refused as wrongly called."""
        self.assertEqual((done.status, done.out), (2, ""))
        self.assertIn(part, done.err)


class JobsTests(ListTestCase):
    """``harp jobs``."""

    def ids(self, *options: str) -> list[int]:
        """Return which of the site's jobs are listed, the oldest being 0."""
        found = [job["job_id"] for job in self.lines("jobs", *self.site.then, *options)]
        return [self.site.jobs.index(each) for each in found]

    def test_on_a_terminal(self) -> None:
        """The columns are fitted to the terminal, and the job ids are whole in any case."""
        self.assertEqual(self.screen("jobs", *self.site.then), NARROW)
        self.assertEqual(self.screen("jobs", *self.site.then, columns=120), WIDE)

    def test_colours(self) -> None:
        """Only a terminal gets colours, and not if NO_COLOR is set."""
        environments: list[dict[str, Any]] = [{}, {"NO_COLOR": "1"}]
        for environment, is_coloured in zip(environments, (True, False), strict=True):
            terminal = self.terminal("jobs", *self.site.then, **environment)
            terminal.end()
            self.assertEqual(b"\x1b[32mresult" in terminal.raw, is_coloured)

    def test_in_a_pipe(self) -> None:
        """Another program gets the same columns, aligned and never cut, without colours."""
        done = self.site.harp("jobs", *self.site.then, COLUMNS="40")
        self.assertEqual((done.status, done.err), (0, ""))
        title, *rows = [line.split() for line in done.out.splitlines()]
        names = ["JOB", "STATE", "HOST", "PROCEDURE", "AGE", "RAN", "QUEUE", "USER"]
        self.assertEqual(title, names)
        self.assertEqual([row[0] for row in rows], self.site.jobs[::-1])
        self.assertEqual(
            rows[0][1:4] + rows[0][5:], ["waiting", HOST, "sleep", "-", DISK_TEXT, "-"]
        )

    def test_json(self) -> None:
        """With --json each job is a line, as the dispatcher tells it."""
        wanted = self.site.rpc.jobs(submitted_before=self.site.ready).all()
        self.assertEqual(self.lines("jobs", *self.site.then), wanted)

    def test_filters(self) -> None:
        """Each option leaves out what does not fit."""
        for options, wanted in (
            ([], [5, 4, 3, 2, 1, 0]),
            (["--state", "running"], [4]),
            (["--state", "running", "--state", "waiting"], [5, 4]),
            (["--end", "error", "--end", "cancelled"], [3, 2]),
            (["--host", OTHER], [1]),
            (["--procedure", "add", "--host", AWAY], [2]),
            (["--queue", '{ "disk": "web01" }'], [5, 4]),
            (["--user", "anna"], []),
            (["--since", "1h"], [5, 4, 3, 2, 1, 0]),
            (["--before", "1h"], []),
            (["--since", "2999-01-01"], []),
            (["--before", "2999-01-01T10:00", "--state", "running"], [4]),
        ):
            self.assertEqual(self.ids(*options), wanted, options)

    def test_limit(self) -> None:
        """Where there are more jobs than are listed, that is told beside the list."""
        done = self.site.within("jobs", *self.site.then, "--json", "--limit", "2")
        self.assertEqual(len(done.out.splitlines()), 2)
        self.assertEqual(json.loads(done.err), {"limit": 2, "more": True})
        done = self.site.within("jobs", *self.site.then, "--limit", "5")
        self.assertIn("These are 5, there are more", done.err)
        self.assertEqual(self.site.within("jobs", *self.site.then, "--limit", "6").err, "")
        self.assertEqual(len(self.lines("jobs", *self.site.then, "--limit", "2", "--all")), 6)

    def test_nothing(self) -> None:
        """Nothing is nothing for a program; a person is told so."""
        self.assertEqual(self.site.harp("jobs", "--user", "anna"), Done(0, "", ""))
        self.assertEqual(self.screen("jobs", "--user", "anna"), "no such jobs")

    def test_wrong_usage(self) -> None:
        """What can't be meant is refused with what it should be."""
        for options, part in (
            (["--queue", "web01"], "JSON"),
            (["--queue", "[1]"], "object"),
            (["--state", "asleep"], "waiting"),
            (["--since", "yesterday"], "2h (ago)"),
            (["--since", "2026-13-01"], "2h (ago)"),
            (["--limit", "0"], "--limit"),
            (["--watch", "--all"], "--all with --watch"),
        ):
            self.assert_usage(self.site.within("jobs", *options), part)

    def test_watched_on_a_terminal(self) -> None:
        """A terminal shows how the jobs are now, until Ctrl-C."""
        terminal = self.terminal("jobs", "--watch", "--interval=0.1", "--procedure=echo")
        terminal.wait_for("no such jobs")
        self.site.rpc.host(HOST).echo("x")
        terminal.wait_for("result  web01.exampl…  echo")
        self.assertNotIn("no such jobs", terminal.screen)
        self.assertEqual(terminal.screen.count("JOB "), 1)
        terminal.ctrl_c()
        self.assertEqual(terminal.end(), 130)

    def test_watched_by_a_program(self) -> None:
        """A program gets a line for each job that is new or has changed."""
        with self.site.start("jobs", "--watch", "--interval=0.1", "--json") as process:
            assert process.stdout is not None
            known = ""
            while known != self.site.jobs[-1]:
                known = json.loads(process.stdout.readline())["job_id"]
            job = self.site.rpc.host(HOST, queue={"after": 1}).sleep(3600)
            new = json.loads(process.stdout.readline())
            while new["job_id"] != job.id():  # those of other tests
                new = json.loads(process.stdout.readline())
            self.assertIsNone(new["end"])
            job.cancel()
            changed = json.loads(process.stdout.readline())
            self.assertEqual((changed["job_id"], changed["end"]), (job.id(), "cancelled"))
            process.send_signal(signal.SIGINT)
            self.assertEqual(process.communicate(timeout=TIME_LIMIT), ("", ""))
        self.assertEqual(process.returncode, -signal.SIGINT)

    def test_watched_while_the_dispatcher_is_away(self) -> None:
        """A watch goes on when the dispatcher is back."""
        gone = CommunicationError("gone")
        answers: list[str | CommunicationError] = [gone, gone, "b", "c"]

        def look() -> str:
            answer = answers.pop(0)
            if isinstance(answer, CommunicationError):
                raise answer
            return answer

        found = jobs_watched.looks("a", look, interval=0)
        self.assertEqual([next(found) for _ in range(5)], ["a", gone, gone, "b", "c"])

    def test_reader_that_leaves(self) -> None:
        """A reader that leaves ends a watch without a word, as a signal would."""
        with self.site.start("jobs", "--watch", "--interval=0.1") as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.readline()
            process.stdout.close()
            self.site.rpc.host(HOST).add(1)
            self.assertEqual(process.wait(TIME_LIMIT), -signal.SIGPIPE)
            self.assertEqual(process.stderr.read(), "")


class QueuesTests(ListTestCase):
    """``harp queues``."""

    def test_list(self) -> None:
        """The queues, with how many of their jobs run and wait."""
        self.assertEqual(self.screen("queues"), QUEUES)
        self.assertEqual(self.site.harp("queues").out, f"{QUEUES}\n")
        self.assertEqual(self.lines("queues"), self.site.rpc.queues().all())

    def test_jobs(self) -> None:
        """The jobs of one, in the order in which they run."""
        self.assertEqual(self.screen("queues", '{"disk": "web01"}'), QUEUE_JOBS)
        self.assertEqual(self.lines("queues", DISK_TEXT), self.site.rpc.queue(DISK).all())
        self.assertEqual(self.screen("queues", "{}"), "there is no such queue now")

    def test_foreign_text(self) -> None:
        """What a terminal would obey is shown instead."""
        name = {"\x1b[2J": "\x9b31m", "z": "ż"}
        running = self.site.rpc.host(HOST, queue=name).sleep(3600)
        self.addCleanup(running.cancel)
        terminal = self.terminal("queues", columns=120)
        terminal.end()
        self.assertIn(r'{"\u001b[2J":"\u009b31m","z":"ż"}', terminal.screen)
        self.assertNotIn("\x9b", terminal.raw.decode())
        self.assertNotIn("\x1b[2J", terminal.raw.decode())
        (found,) = [each["name"] for each in self.lines("queues") if each["name"] != DISK]
        self.assertEqual(found, name)

    def test_cancel(self) -> None:
        """All jobs of a queue are cancelled, and it is told how many."""
        for options, wanted in ((["--json"], '{"cancelled_jobs":2}\n'), ([], "2 jobs cancelled\n")):
            jobs = [self.site.rpc.host(HOST, queue={"a": 1}).sleep(3600) for _ in range(2)]
            done = self.site.harp("queues", '{"a":1}', "--cancel", *options)
            self.assertEqual(done, Done(0, wanted, ""))
            self.assertEqual({job.detail()["state"] for job in jobs}, {"ended"})
            for job in jobs:
                self.assertEqual(job.result(wait=True), job.result())
        self.assertEqual(self.site.rpc.queue(DISK).all()[0]["state"], "running")

    def test_wrong_usage(self) -> None:
        """A queue is named by an object, and there is nothing to cancel without."""
        self.assert_usage(self.site.within("queues", "web01"), "JSON")
        self.assert_usage(self.site.within("queues", '"web01"'), "object")
        self.assert_usage(self.site.within("queues", "--cancel"), "without a QUEUE")


class HostsTests(ListTestCase):
    """``harp hosts``."""

    def test_list(self) -> None:
        """The hosts, without anything secret."""
        done = self.site.harp("hosts")
        port = str(self.site.deployment.harpd_port)
        self.assertEqual(
            [line.split() for line in done.out.splitlines()],
            [
                ["HOST", "ADDRESS", "PORT", "TAGS", "CERTIFICATE", "FOR"],
                [OTHER, "127.0.0.1", port, "db,old", HOST],
                [HOST, "127.0.0.1", port, "-", "-"],
            ],
        )
        self.assertEqual(self.screen("hosts"), done.out.rstrip("\n"))
        self.assertEqual(self.lines("hosts"), self.site.rpc.hosts().all())

    def test_refresh(self) -> None:
        """They are read again first; if they can't be, it is told why and the old list stays."""
        self.assertEqual(self.lines("hosts", "--refresh"), self.site.rpc.hosts().all())
        hosts = self.site.deployment.folder / "hosts.jsonl"
        content = hosts.read_bytes()
        self.addCleanup(hosts.write_bytes, content)
        hosts.write_bytes(b"nonsense\n")
        done = self.site.harp("hosts", "--refresh")
        self.assertEqual((done.status, done.out), (5, ""))
        self.assertIn("the old list of 2 hosts stays: ", done.err)
        done = self.site.harp("hosts", "--refresh", "--json")
        told = json.loads(done.err)
        self.assertEqual((told["hosts_known"], told["status"], done.out), (2, 5, ""))
        self.assertIn(told["error"]["message"], told["problem"])

    def test_accept_loss(self) -> None:
        """That hosts are missing can be accepted, and only where they are read again."""
        self.assert_usage(self.site.within("hosts", "--accept-loss"), "without --refresh")
        self.assertEqual(len(self.lines("hosts", "--refresh", "--accept-loss")), 2)


class ProceduresTests(ListTestCase):
    """``harp procedures``."""

    def test_list(self) -> None:
        """What a host offers, as its author wrote it."""
        done = self.site.harp("procedures", HOST)
        self.assertRegex(done.out, r"(?m)^add\(a: int, b: int = 1\)  +Return a sum\.$")
        screen = self.screen("procedures", HOST)
        self.assertIn("print_much(megabytes: int)", screen)
        self.assertLessEqual(max(map(len, screen.splitlines())), 80)
        self.assertEqual(self.lines("procedures", HOST), self.site.rpc.procedures(HOST))

    def test_one(self) -> None:
        """All that is known of one."""
        done = self.site.harp("procedures", HOST, "add")
        self.assertEqual(done, Done(0, "add(a: int, b: int = 1)\n\n  Return a sum.\n", ""))
        (found,) = self.lines("procedures", HOST, "add")
        self.assertEqual(found, self.site.rpc.procedures(HOST)[0])

    def test_none(self) -> None:
        """A name that is not there is told with those that are like it; so is a host."""
        done = self.site.harp("procedures", HOST, "adds")
        self.assertEqual((done.status, done.out), (5, ""))
        self.assertIn("add", done.err.splitlines()[1])
        done = self.site.harp("procedures", AWAY)
        self.assertEqual((done.status, done.out), (5, ""))
        self.assertIn(AWAY, done.err)


class AwayTests(ListTestCase):
    """A dispatcher that is not there."""

    def test_unreachable(self) -> None:
        """It has a status of its own, and a text that names the address."""
        for command in (["jobs"], ["jobs", "--watch"], ["queues"], ["hosts"], ["procedures", HOST]):
            done = self.site.within(*command, "--dispatcher", "127.0.0.1:1")
            self.assertEqual((done.status, done.out), (6, ""), command)
            self.assertIn("127.0.0.1:1", done.err)
