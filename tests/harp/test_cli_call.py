"""Tests of ``harp call`` and what looks after jobs, against real daemons.

Without a terminal; what people see on one is in ``test_cli_terminal``.
"""

from __future__ import annotations

import json
import signal
import subprocess
from typing import Any

from harp import CALL_CANCELLED
from harpcaller.demo.deployment import HOST
from tests.acceptance.daemons import eventually
from tests.harp.cli_deployment import CommandTestCase


class CallTests(CommandTestCase):
    """What ``harp call`` prints and with what status it ends."""

    def test_result(self) -> None:
        """Only the result is data: compact JSON on one line; the job's id stands beside it."""
        done = self.call("greet", "Ada", "times=2")
        result = '{"text":"Hello, Ada!","times":2,"found":null}\n'
        self.assertEqual((done.status, done.out), (0, result))
        self.assertRegex(done.err, r"\Ajob [0-9a-f-]{36}\n\Z")

    def test_result_as_json(self) -> None:
        """With --json, before the command's name or behind it, each line says what it is."""
        for arguments in (
            ["--json", "call", HOST, "count", "2"],
            ["call", HOST, "count", "2", "--json"],
        ):
            done = self.harp(*arguments)
            job = json.loads(done.err)
            self.assertEqual(job.keys(), {"job"})
            lines = [json.loads(line) for line in done.out.splitlines()]
            told: list[dict[str, Any]]
            told = [{"stream": 0}, {"stream": 1}, {"result": {"packets": 2}}]
            self.assertEqual((done.status, lines), (0, [{**job, **each} for each in told]))

    def test_packets(self) -> None:
        """Packets come as lines of JSON, the result last."""
        done = self.call("count", "3")
        self.assertEqual((done.status, done.out), (0, '0\n1\n2\n{"packets":3}\n'))

    def test_packets_come_at_once(self) -> None:
        """Who reads a pipe has a packet as soon as it is there."""
        with self.start("call", HOST, "steps", str(self.gate)) as process:
            assert process.stdout is not None
            self.assertEqual(process.stdout.readline(), '{"step":"first"}\n')
            self.gate.touch()
            lines = process.stdout.read().splitlines()
        self.assertEqual(process.returncode, 0)
        self.assertEqual(
            lines[-2:], ['{"step":"last","progress":{"done":4,"total":4,"unit":"files"}}', "null"]
        )

    def test_exception(self) -> None:
        """What the procedure raises is told on standard error, with a status of its own."""
        done = self.call("fail", "no such disk")
        self.assertEqual((done.status, done.out), (1, ""))
        self.assertIn("\nError: the procedure raised LookupError: no such disk\n", done.err)
        done = self.harp("--json", "call", HOST, "fail", "no such disk")
        self.assertEqual((done.status, done.out), (1, ""))
        job, told = (json.loads(line) for line in done.err.splitlines())
        self.assertEqual((told["job"], told["status"]), (job["job"], 1))
        raised = {key: told["exception"][key] for key in ("type", "message", "origin")}
        wanted = {"type": "LookupError", "message": "no such disk", "origin": "procedure"}
        self.assertEqual(raised, wanted)

    def test_not_carried_out(self) -> None:
        """A call that could not be carried out is told with the remedy."""
        done = self.harp("call", "web99", "greet")
        self.assertEqual((done.status, done.out), (5, ""))
        self.assertIn("Error: unknown_host: there is no host web99", done.err)
        self.assertIn("\n  Add the host to the hosts registry.\n", done.err)

    def test_time_limit(self) -> None:
        """A time limit has a status of its own, whoever set it."""
        self.assertEqual(self.call("stall").status, 4)
        done = self.call("wait", str(self.gate), "--max-exec-time", "0.2")
        self.assertEqual(done.status, 4)
        self.assertIn("Error: timeout: ", done.err)
        self.assertNotIn("timeout: timeout", done.err)
        self.assertIn("The call may have run.", done.err)

    def test_detached(self) -> None:
        """The job's id is the data then; status and result are asked by it."""
        done = self.call("wait", str(self.gate), "--detach", "--info", '{"ticket": 7}')
        self.assertEqual((done.status, done.err), (0, ""))
        job = done.out.strip()
        status = json.loads(self.harp("status", "--json", job).out)
        told = [status[key] for key in ("job", "host", "procedure", "arguments", "info", "end")]
        self.assertEqual(told, [job, HOST, "wait", [str(self.gate)], {"ticket": 7}, None])
        self.gate.touch()
        done = self.harp("result", job)
        self.assertEqual((done.status, done.out, done.err), (0, '"waited"\n', ""))

    def test_options(self) -> None:
        """The options of a call reach the dispatcher."""
        options = ["--queue", '{"disk": "a"}', "--concurrency", "2", "--timeout", "50"]
        options += ["--max-exec-time", "60", "--idempotency-key", f"key {self.folder}"]
        words = ("wait", str(self.gate), *options, "--detach")
        first, second = (self.call(*words).out for _ in range(2))
        self.assertEqual(first, second)
        detail = self.rpc.job(first.strip()).detail()
        self.assertEqual((detail["timeout"], detail["max_exec_time"]), (50, 60))
        queue = {key: detail["queue"][key] for key in ("name", "concurrency")}
        self.assertEqual(queue, {"name": {"disk": "a"}, "concurrency": 2})

    def test_arguments(self) -> None:
        """Arguments become what the procedure declares; a mistake starts nothing."""
        done = self.call("greet", "5", "--detach")  # a text, though it looks like a number
        self.assertEqual(self.rpc.job(done.out.strip()).args(), ["5"])
        for words, told in (
            (["Ada", "nme=Bob"], "there is no parameter nme; the parameters are: name, greeting, "),
            (["Ada", "times=two"], "times must be int, not 'two'"),
            (["greeting=Hi"], "missing: name"),
            (["a", "b", "3", "4"], "there are 4 positional arguments, 3 at most"),
        ):
            done = self.call("greet", *words)
            self.assertEqual((done.status, done.out), (2, ""), words)
            self.assertIn(told, done.err)
            self.assertIn('greet(name: str, greeting: str = "Hello", times: int = 1)', done.err)
            self.assertNotIn("job ", done.err)

    def test_arguments_as_json(self) -> None:
        """They may be given as one JSON value, or as JSON where nothing is declared."""
        for words, result in (
            (["--json-args", '[1, "x"]'], '[1,"x"]'),
            (["--json-args", '{"a": {"b": null}}'], '{"a":{"b":null}}'),
            (["1", "x", "[2]", "--", "-3"], '[1,"x",[2],-3]'),
            (["a=1", "b=x"], '{"a":1,"b":"x"}'),
        ):
            self.assertEqual(self.call("echo", *words).out, f"{result}\n", words)

    def test_negative_numbers(self) -> None:
        """A negative number is an argument without more ado, and an option's value where one is."""
        for words, result in (
            (["-5", "2", "-1.5e3", "-.5x", "--timeout=5"], None),
            (["-5", "2", "-1.5e3"], "[-5,2,-1500.0]"),
            (["--timeout", "9", "-5", "--", "-6", "-x"], '[-5,-6,"-x"]'),
        ):
            done = self.call("echo", *words)
            if result is None:
                self.assertEqual((done.status, done.out), (2, ""))
                self.assertIn("No such option '-.'", done.err)
            else:
                self.assertEqual((done.status, done.out), (0, f"{result}\n"), done.err)
        job = self.call("echo", "--info", "-5", "-6", "--detach").out.strip()
        self.assertEqual((self.rpc.job(job).info(), self.rpc.job(job).get()), (-5, [-6]))
        self.assertIn("'-5' is no length", self.call("echo", "1", "--timeout", "-5").err)

    def test_secret_argument(self) -> None:
        """What a procedure declares secret is kept secret by the dispatcher."""
        done = self.call("set_password", "ada", "correct horse", "strength=strong")
        self.assertEqual(done.out, '"ada: 13 characters, strong"\n')
        job = self.rpc.job(done.err.split()[1])
        self.assertNotIn("correct", repr(job.args()))

    def test_wrong_usage(self) -> None:
        """What can't be meant is refused before anything is sent; with --json as JSON."""
        for arguments, told in (
            (["call"], "Missing argument 'HOST'"),
            (["call", HOST], "Missing argument 'PROCEDURE'"),
            (["call", HOST, "echo", "--queue", "[1]"], "it must be a JSON object"),
            (["call", HOST, "echo", "--info", "{"], "it is not JSON"),
            (["call", HOST, "echo", "--concurrency", "2"], "concurrency without queue"),
            (["call", HOST, "echo", "--timeout", "0"], "timeout must be a number of seconds above"),
            (["call", HOST, "echo", "1", "--json-args", "[]"], "give all of them in one way"),
            (["call", HOST, "_echo"], "none begins with _"),
            (["follow", "--since", "1", "--recent", "1", "x"], "two ways"),
        ):
            done = self.harp("--json", *arguments)
            self.assertEqual((done.status, done.out), (2, ""), arguments)
            told_so = json.loads(done.err)
            self.assertIn(told, told_so["error"]["message"])

    def test_help_of_a_procedure(self) -> None:
        """It is asked from the daemon: signature, docstring, types."""
        done = self.call("greet", "--help")
        self.assertEqual((done.status, done.err), (0, ""))
        wanted = """\
greet(name: str, greeting: str = "Hello", times: int = 1)

  Greet somebody.

  As often as is said.
"""
        self.assertEqual(done.out, wanted)
        described = json.loads(self.harp("--json", "call", HOST, "set_password", "-h").out)
        self.assertEqual(described["name"], "set_password")
        done = self.call("grete", "--help")
        self.assertEqual((done.status, done.out), (5, ""))
        self.assertIn("Did you mean greet?", done.err)
        done = self.harp("call", HOST, "--help")
        self.assertEqual(done.status, 0)
        self.assertIn("Usage: harp call", done.out)

    def test_broken_pipe(self) -> None:
        """A reader that has enough ends the command quietly, as it ends others."""
        with self.start("call", HOST, "count", "100000") as process:
            assert process.stdout is not None
            assert process.stderr is not None
            self.assertEqual(process.stdout.readline(), "0\n")
            process.stdout.close()
            told = process.stderr.read()
        self.assertEqual(process.returncode, -signal.SIGPIPE)
        self.assertRegex(told, r"\Ajob [0-9a-f-]{36}\n\Z")

    def test_full_device(self) -> None:
        """Data that can't be written is an error, not a success."""
        with (
            open("/dev/full", "w") as full,
            self.start("call", HOST, "greet", "Ada", stdout=full.fileno()) as process,
        ):
            assert process.stderr is not None
            told = process.stderr.read()
        self.assertEqual(process.returncode, 5)
        self.assertIn("Error: standard output: No space left on device\n", told)
        self.assertNotIn("Traceback", told)

    def test_interrupted(self) -> None:
        """Ctrl-C without a terminal leaves the job running, and tells how to go on."""
        with self.start("call", HOST, "steps", str(self.gate)) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.readline()
            process.stdout.readline()
            process.send_signal(signal.SIGINT)
            process.wait()
            job, *told = process.stderr.read().splitlines()
        self.assertEqual(process.returncode, -signal.SIGINT)
        job_id = job.removeprefix("job ")
        self.assertEqual(told[0], f"job {job_id} is left running; to go on with it:")
        self.gate.touch()
        done = self.harp(*told[1].split()[1:])
        self.assertEqual(done.status, 0)
        *_, packet, result = done.out.splitlines()
        self.assertEqual((json.loads(packet)["step"], result), ("last", "null"))


class JobTests(CommandTestCase):
    """``harp follow``, ``result``, ``status``, ``cancel``."""

    def submitted(self, procedure: str, *arguments: Any, **options: Any) -> str:
        """Submit a call and return the job's id."""
        job: str = getattr(self.rpc.host(HOST, **options), procedure)(*arguments).id()
        return job

    def test_follow(self) -> None:
        """All packets are printed, or those that are asked for."""
        job = self.submitted("count", 4)
        for options, lines in (
            ([], ["0", "1", "2", "3"]),
            (["--since", "3"], ["3"]),
            (["--recent", "2"], ["2", "3"]),
        ):
            done = self.harp("follow", job, *options)
            self.assertEqual((done.status, done.err), (0, ""))
            self.assertEqual(done.out.splitlines(), [*lines, '{"packets":4}'])

    def test_several(self) -> None:
        """Of several jobs each line names its job; the first without a result gives the status."""
        good, bad = self.submitted("count", 1), self.submitted("fail", "why")
        done = self.harp("follow", good, bad)
        self.assertEqual((done.status, done.out), (1, f'{good} 0\n{good} {{"packets":1}}\n'))
        self.assertEqual(done.err, f"Error: {bad}: the procedure raised LookupError: why\n")
        done = self.harp("--json", "result", bad, good, "nonsense")
        self.assertEqual(done.status, 1)
        self.assertEqual(json.loads(done.out), {"job": good, "result": {"packets": 1}})
        told = {each["job"]: each["status"] for each in map(json.loads, done.err.splitlines())}
        self.assertEqual(told, {bad: 1, "nonsense": 5})

    def test_cancel(self) -> None:
        """Waiting and running jobs are cancelled; one that has ended stays what it is."""
        running, ended = self.submitted("wait", str(self.gate)), self.submitted("count", 1)
        self.rpc.job(ended).get()
        done = self.harp("cancel", running, ended)
        told = f"{running} cancelled\n{ended} had ended already\n"
        self.assertEqual((done.status, done.out, done.err), (0, told, ""))
        self.assertIs(self.rpc.job(running).result(wait=True), CALL_CANCELLED)
        done = self.harp("result", running)
        self.assertEqual((done.status, done.out), (3, ""))
        self.assertEqual(done.err, "Error: the job was cancelled\n")
        done = self.harp("--json", "result", running)
        self.assertEqual(json.loads(done.err), {"job": running, "cancelled": True, "status": 3})
        done = self.harp("cancel", "nonsense")
        self.assertEqual((done.status, done.out), (5, ""))
        self.assertIn("Error: invalid_jobid: ", done.err)

    def test_status(self) -> None:
        """It tells of each job what people want to know of it."""
        queue = {"q": str(self.folder)}
        first = self.submitted("wait", str(self.gate), queue=queue)
        second = self.submitted("greet", "Ada", queue=queue, info="seven")
        done = self.harp("status", first, second)
        self.assertEqual((done.status, done.err), (0, ""))
        one, two = (
            dict(line.split(maxsplit=1) for line in each.splitlines())
            for each in done.out.split("\n\n")
        )
        name = json.dumps(queue, separators=(",", ":"))
        self.assertEqual((one["job"], one["state"]), (first, "running"))
        self.assertEqual(two["state"], f"waiting in queue {name}, next in it")
        self.assertEqual((two["arguments"], two["info"]), ('["Ada"]', '"seven"'))
        self.assertNotIn("started", two)
        self.gate.touch()
        self.rpc.job(second).get()
        self.assertIn("ended, with a result\n", self.harp("status", second).out)
        bad = self.submitted("fail", "why")
        self.rpc.job(bad).result(wait=True)
        done = self.harp("status", bad)
        self.assertEqual(done.status, 0)
        self.assertIn("ended, exception LookupError: why\n", done.out)

    def test_follower_that_waits(self) -> None:
        """It goes on until the job ends."""
        job = self.submitted("steps", str(self.gate))
        with self.start("follow", job, "--json", "--recent", "0") as process:
            eventually(lambda: self.rpc.job(job).stream().all()[1:] != [], "packets came")
            self.gate.touch()
            out, _ = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 0)
        last = json.loads(out.splitlines()[-1])
        self.assertEqual(last, {"job": job, "result": None})


class PipeTests(CommandTestCase):
    """Ends of pipes that are not there."""

    def test_help_into_a_closed_pipe(self) -> None:
        """Help ends as quietly as data does."""
        with self.start("--help", stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.close()
            told = process.stderr.read()
        self.assertEqual((process.returncode, told), (-signal.SIGPIPE, ""))
