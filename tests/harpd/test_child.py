"""Tests of harpd.child: real forks of a real zygote, read at the other end of their sockets."""

from __future__ import annotations

import grp
import json
import os
import pwd
import signal
import socket
from pathlib import Path
from typing import Any

from harpd.tree import PARENT_DIED
from tests.harpd.waiting import PATIENCE, alive, wait_gone, wait_until
from tests.harpd.zygotes import BareCall, ZygoteTestCase

SIMPLE = """
    @procedure
    def f(*args, **kwargs):
        return [args, kwargs]
"""


class ChildTestCase(ZygoteTestCase):
    """Runs a procedure ``f`` to its end."""

    def replies(self, procedures: str, arguments: str = "[]", **settings: Any) -> list[Any]:
        """Return what is replied."""
        replied, _ = self.start(procedures, arguments, **settings).to_end()
        return [json.loads(line) for line in replied.splitlines()]

    def body(self, *lines: str, **settings: Any) -> list[Any]:
        """Return what is replied by a procedure of these lines."""
        return self.replies(_procedure(*lines), **settings)

    def assert_error(self, type: str, message: str, replies: list[Any]) -> None:
        """Check that an error with this text in its message is the only reply."""
        self.assertEqual([set(reply) for reply in replies], [{"harp", "error"}], replies)
        self.assertEqual(replies[0]["error"]["type"], type)
        self.assertIn(message, replies[0]["error"]["message"])


def _procedure(*lines: str) -> str:
    return "\n".join(["@procedure", "def f():", *(f"    {line}" for line in lines)])


class RunTests(ChildTestCase):
    """What a procedure gives becomes replies."""

    def test_arguments(self) -> None:
        """A list is positional arguments, an object is keyword arguments."""
        zygote = self.zygote(SIMPLE)
        for arguments, expected in [
            ("[]", [[], {}]),
            ('[1,"\\u017c",null]', [[1, "ż", None], {}]),
            ('{"a":{"b":[1.5]}}', [[], {"a": {"b": [1.5]}}]),
        ]:
            replied, _ = zygote.start("f", arguments).to_end()
            self.assertEqual(json.loads(replied), {"result": expected})

    def test_result_bytes(self) -> None:
        """A result is one compact line in UTF-8, and the process ends with status 0."""
        call = self.start(_procedure("return {'ż': [1, True, None]}"))
        self.assertEqual(call.to_end(), ('{"result":{"ż":[1,true,null]}}\n'.encode(), b""))
        self.assertEqual(call.exit_code(), 0)

    def test_exception(self) -> None:
        """What the procedure raises is reported with its class; its traceback is printed."""
        call = self.start("""
            class Outer:
                class Broken(Exception):
                    pass

            @procedure
            def f():
                raise Outer.Broken("no", "way")
        """)
        replied, printed = call.to_end()
        data = {"class": "Outer.Broken", "module": "harpd_procedures"}
        fault = {"type": "Broken", "message": "('no', 'way')", "data": data}
        self.assertEqual(json.loads(replied), {"exception": fault})
        self.assertIn(b'raise Outer.Broken("no", "way")', printed)
        self.assertEqual(call.exit_code(), 0)

    def test_exits_raised(self) -> None:
        """SystemExit and KeyboardInterrupt are exceptions like any other."""
        for what, type in [("sys.exit(3)", "SystemExit"), ("raise KeyboardInterrupt", None)]:
            (reply,) = self.body(what)
            self.assertEqual(reply["exception"]["type"], type or "KeyboardInterrupt")

    def test_exception_without_text(self) -> None:
        """An exception whose text can't be made or encoded is reported all the same."""
        zygote = self.zygote("""
            class Mute(Exception):
                def __str__(self):
                    raise ValueError

            @procedure
            def f():
                raise Mute

            @procedure
            def g():
                raise ValueError("\\udcff")
        """)
        messages = [
            json.loads(zygote.start(name).to_end()[0])["exception"]["message"] for name in "fg"
        ]
        self.assertEqual(messages, ["(Mute can't be shown as text)", "\\udcff"])

    def test_wrong_arguments(self) -> None:
        """Arguments that do not fit are refused with the reason before anything runs."""
        procedures = """
            @procedure
            def f(a, *, b=1):
                print("has run")
        """
        zygote = self.zygote(procedures)
        for arguments, reason in [
            ("[]", "missing a required argument: 'a'"),
            ("[1,2]", "too many positional arguments"),
            ('{"a":1,"c":2}', "got an unexpected keyword argument 'c'"),
        ]:
            replied, printed = zygote.start("f", arguments).to_end()
            self.assert_error("invalid_argument_list", f"f: {reason}", [json.loads(replied)])
            self.assertEqual(printed, b"")

    def test_wrong_types(self) -> None:
        """Values that are not what the hints say are refused, with the place, before it runs."""
        zygote = self.zygote("""
            @procedure
            def f(count: int, options: "dict[str, int]" = {}):
                print("has run")
        """)
        for arguments, path, found in [
            ('["1"]', "$.count", "str"),
            ("[true]", "$.count", "bool"),
            ('{"count":1,"options":{"\u017c":null}}', "$.options.ż", "None"),
        ]:
            replied, printed = zygote.start("f", arguments).to_end()
            (argument, _, _) = path.removeprefix("$.").partition(".")
            error = json.loads(replied)["error"]
            self.assertEqual(error["type"], "invalid_argument_list")
            self.assertEqual(error["message"], f"f: argument {path}: expected int, found {found}")
            data = {"argument": argument, "problem": "type", "path": path}
            self.assertEqual(error["data"], data | {"expected": "int", "found": found})
            self.assertEqual(printed, b"")

    def test_unfit_name(self) -> None:
        """A name that can't be sent back is refused like any other."""
        replies = self.replies("@procedure\ndef f(): pass", '{"\\ud800":1}')
        self.assert_error("invalid_argument_list", "got an unexpected keyword argument", replies)
        self.assertEqual(
            replies[0]["error"]["data"], {"argument": "\\ud800", "problem": "unexpected"}
        )

    def test_instances(self) -> None:
        """Instances of subclasses and bound methods run like functions."""
        zygote = self.zygote("""
            from harpd.proc import Procedure, StreamingProcedure

            class Restart(Procedure):
                def __init__(self, service):
                    super().__init__(timeout=5)
                    self.service = service

                def __call__(self, force: bool = False):
                    return [self.service, force]

            class Count(StreamingProcedure):
                def __call__(self, to):
                    yield from range(to)
                    yield Result(to)

            class Twice(Procedure):
                def __call__(self, *args):
                    return [super().__call__(*args), super(Twice, self).__call__(*args)]

            restart = Restart("nginx")
            count = Count()
            twice = Twice(lambda a: a)
            method = procedure(["x", "y"].index)
        """)
        for name, arguments, expected in [
            ("restart", '{"force":true}', [{"result": ["nginx", True]}]),
            ("count", "[1]", [{"stream": 0}, {"result": 1}]),
            ("twice", "[5]", [{"result": [5, 5]}]),
            ("method", '["y"]', [{"result": 1}]),
        ]:
            replied, _ = zygote.start(name, arguments).to_end()
            self.assertEqual([json.loads(line) for line in replied.splitlines()], expected)
        replied, _ = zygote.start("restart", '["yes"]').to_end()
        self.assert_error("invalid_argument_list", "$.force: ", [json.loads(replied)])

    def test_own_type_error(self) -> None:
        """A TypeError of the procedure itself is not taken for unfit arguments."""
        (reply,) = self.body("len(5)")
        self.assertEqual(reply["exception"]["type"], "TypeError")

    def test_arguments_not_understood(self) -> None:
        """Arguments that can't be parsed here are refused, however deep or long."""
        zygote = self.zygote(SIMPLE)
        for arguments in ["[" * 100_000 + "]" * 100_000, f"[{'1' * 10_000}]", "nonsense"]:
            replied, _ = zygote.start("f", arguments).to_end()
            self.assert_error("invalid_request", "arguments or context: ", [json.loads(replied)])


class ContextTests(ChildTestCase):
    """A procedure may ask who calls it."""

    CONTEXT = '{"user":"panel","client":"192.0.2.1","job_id":"\u017c"}'

    def test_given(self) -> None:
        """It gets the context in the parameter that it names, also in a stream."""
        zygote = self.zygote("""
            @procedure(context=True)
            def plain(a, context):
                return [a, context]

            @streaming_procedure(context="about")
            def stream(about, a):
                yield [a, about]
        """)
        expected = [1, json.loads(self.CONTEXT)]
        for arguments in ("[1]", '{"a":1}'):
            for name, kind in [("plain", "result"), ("stream", "stream")]:
                call = zygote.start(name, arguments, self.CONTEXT)
                self.assertEqual(call.line(), {kind: expected})

    def test_not_by_the_caller(self) -> None:
        """A caller can't pass for somebody else."""
        zygote = self.zygote("""
            @procedure(context=True)
            def f(context, *rest, **extra):
                return [context["user"], list(rest)]
        """)
        replied, _ = zygote.start("f", '{"context":{"user":"root"}}', self.CONTEXT).to_end()
        self.assert_error("invalid_argument_list", "'context'", [json.loads(replied)])
        call = zygote.start("f", '[{"user":"root"}]', self.CONTEXT)
        self.assertEqual(call.line(), {"result": ["panel", [{"user": "root"}]]})

    def test_not_asked(self) -> None:
        """Who does not ask gets none."""
        call = self.start(SIMPLE, "[1]", self.CONTEXT)
        self.assertEqual(call.line(), {"result": [[1], {}]})

    def test_not_understood(self) -> None:
        """A call without a context that can be understood is refused."""
        zygote = self.zygote(SIMPLE)
        for context in ["", "nonsense", "[" * 100_000 + "]" * 100_000]:
            replied, _ = zygote.start("f", "[]", context).to_end()
            self.assert_error("invalid_request", "arguments or context: ", [json.loads(replied)])


class StreamTests(ChildTestCase):
    """What a streaming procedure yields becomes packets."""

    def test_stream(self) -> None:
        """Packets are reported in their order; without a Result the end result is null."""
        replies = self.replies("""
            @streaming_procedure
            def f():
                yield 1
                yield {"a": None}
        """)
        self.assertEqual(replies, [{"stream": 1}, {"stream": {"a": None}}, {"result": None}])

    def test_result(self) -> None:
        """Result ends the stream: nothing after it runs but what is in ``finally``."""
        call = self.start("""
            @streaming_procedure
            def f():
                try:
                    yield 1
                    yield Result([2])
                    yield 3
                finally:
                    print("tidied")
        """)
        replied, printed = call.to_end()
        self.assertEqual((replied, printed), (b'{"stream":1}\n{"result":[2]}\n', b"tidied\n"))

    def test_at_once(self) -> None:
        """A packet leaves when it is yielded, not when the procedure ends."""
        call = self.start("""
            @streaming_procedure
            def f():
                yield "first"
                sys.stdin = open(sys.stdin.fileno())
                signal.pause()
        """)
        self.assertEqual(call.line(), {"stream": "first"})

    def test_exception(self) -> None:
        """A stream that breaks off ends with the exception."""
        replies = self.replies("""
            @streaming_procedure
            def f():
                yield 1
                raise LookupError("gone")
        """)
        self.assertEqual(replies[0], {"stream": 1})
        self.assertEqual(replies[1]["exception"]["type"], "LookupError")

    def test_bad_packet(self) -> None:
        """A packet that JSON can't carry ends the stream; the procedure can tidy up."""
        call = self.start("""
            @streaming_procedure
            def f():
                try:
                    yield 1
                    yield {2}
                finally:
                    print("tidied")
        """)
        replied, printed = call.to_end()
        first, last = map(json.loads, replied.splitlines())
        self.assertEqual(first, {"stream": 1})
        self.assert_error("invalid_message", "JSON can't carry the packet", [last])
        self.assertEqual(printed, b"tidied\n")

    def test_any_iterable(self) -> None:
        """A streaming procedure need not be a generator, but what it returns must be iterable."""
        replies = self.replies("@streaming_procedure\ndef f(): return [1]")
        self.assertEqual(replies, [{"stream": 1}, {"result": None}])
        call = self.start("""
            class Packets(list):
                def close(self):
                    print("closed")

            kept = Packets([1, Result(2), 3])

            @streaming_procedure
            def f(): return kept
        """)
        self.assertEqual(call.to_end(), (b'{"stream":1}\n{"result":2}\n', b"closed\n"))
        (reply,) = self.replies("@streaming_procedure\ndef f(): return 1")
        self.assertEqual(reply["exception"]["type"], "TypeError")


class UnfitValueTests(ChildTestCase):
    """What JSON can't carry is refused here and never sent."""

    def test_unfit_values(self) -> None:
        """NaN, other types, lone surrogates, cycles, depth: each is an invalid_message."""
        zygote = self.zygote("""
            @procedure
            def f(what):
                deep = []
                for _ in range(100_000):
                    deep = [deep]
                cycle = []
                cycle.append(cycle)
                values = {
                    "nan": float("nan"), "infinity": [float("inf")], "bytes": b"x", "object": {1},
                    "surrogate": "\\ud800", "key": {(1, 2): 3}, "cycle": cycle, "deep": deep,
                }
                return values[what]
        """)
        for what in ["nan", "infinity", "bytes", "object", "surrogate", "key", "cycle", "deep"]:
            replied, _ = zygote.start("f", json.dumps([what])).to_end()
            self.assert_error(
                "invalid_message", "JSON can't carry the result: ", [json.loads(replied)]
            )

    def test_too_long(self) -> None:
        """A line over the limit is refused, one of exactly the limit is not."""
        room = 1000 - len('{"result":""}\n')
        self.assertEqual(self.body(f"return 'x' * {room}", max_line=1000), [{"result": "x" * room}])
        self.assert_error(
            "invalid_message",
            "the result has 1001 bytes, over 1000",
            self.body(f"return 'x' * {room + 1}", max_line=1000),
        )
        self.assert_error(
            "invalid_message",
            "the exception has ",
            self.body("raise ValueError('x' * 1000)", max_line=1000),
        )


class SuddenEndTests(ChildTestCase):
    """A process that goes away without a result replies nothing, and its status tells."""

    def end(self, *lines: str) -> tuple[bytes, int]:
        """Return what is replied, and how the process ended."""
        call = self.start(_procedure(*lines))
        replied, _ = call.to_end()
        return replied, call.exit_code()

    def test_exit(self) -> None:
        """os._exit ends the process at once, with its status."""
        self.assertEqual(self.end("os._exit(7)"), (b"", 7))

    def test_signal(self) -> None:
        """A signal ends the process; TERM, which ends a call, gives a status of its own."""
        self.assertEqual(self.end("os.kill(os.getpid(), signal.SIGKILL)"), (b"", -9))
        self.assertEqual(self.end("os.kill(os.getpid(), signal.SIGSEGV)"), (b"", -11))
        self.assertEqual(self.end("os.kill(os.getpid(), signal.SIGTERM)"), (b"", 143))

    def test_closed_descriptors(self) -> None:
        """A procedure that closes descriptors it does not own can't reply, and fails."""
        self.assertEqual(self.end("os.closerange(3, 256)"), (b"", 1))

    def test_reopened_descriptor(self) -> None:
        """A file that took the number of the closed socket does not get our lines."""
        file = os.path.abspath(self.mktemp())
        ending = self.end(
            "os.closerange(3, 256)",
            "files = [os.open(" + repr(file) + ", os.O_CREAT | os.O_WRONLY) for _ in range(30)]",
            "assert files[0] == 3",
        )
        self.assertEqual(ending, (b"", 1))
        self.assertEqual(os.path.getsize(file), 0)

    def test_reopened_as_socket(self) -> None:
        """A connection that took the number of the closed socket does not get our lines."""
        path = os.path.relpath(self.mktemp())  # the address of a socket must be short
        listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(listener.close)
        listener.bind(path)
        listener.listen(30)
        listener.settimeout(PATIENCE)
        ending = self.end(
            f"os.chdir({os.getcwd()!r})",
            "os.closerange(3, 256)",
            "global sockets  # open when the result is reported",
            "sockets = [socket.socket(socket.AF_UNIX) for _ in range(30)]",
            "assert sockets[0].fileno() == 3",
            f"for each in sockets: each.connect({path!r})",
        )
        self.assertEqual(ending, (b"", 1))
        for _ in range(30):
            connection, _ = listener.accept()
            with connection:
                self.assertEqual(connection.recv(100), b"")

    def test_everything_closed(self) -> None:
        """A procedure that closes all of its descriptors still only ends its own call."""
        zygote = self.zygote(_procedure("os.closerange(0, 256)") + "\n" + _procedure_g())
        self.assertEqual(zygote.start("f").exit_code(), 1)
        self.assertEqual(zygote.start("g").to_end(), (b'{"result":1}\n', b""))

    def test_standard_error_closed(self) -> None:
        """A procedure that closed what it prints to is told to have raised all the same."""
        for close in ["os.close(1); os.close(2)", "sys.stderr.close()", "sys.stderr = None"]:
            (reply,) = self.body(close, "raise LookupError('x')")
            self.assertEqual(reply["exception"]["type"], "LookupError", close)


def _procedure_g() -> str:
    return "@procedure\ndef g():\n    return 1\n"


class ForkTests(ChildTestCase):
    """A procedure may fork; its call is answered once."""

    def test_child_that_returns(self) -> None:
        """A forked copy that runs on to the end of the procedure does not answer."""
        for ending in ["return 'child'", "raise ValueError", "return {1}", "sys.exit(0)"]:
            call = self.start(
                _procedure(
                    "pid = os.fork()",
                    "if pid == 0:",
                    f"    {ending}",
                    "os.waitpid(pid, 0)",
                    "return 'parent'",
                )
            )
            self.assertEqual(call.to_end()[0], b'{"result":"parent"}\n', ending)

    def test_streaming_child(self) -> None:
        """A forked copy of a streaming procedure sends no packets."""
        replies = self.replies("""
            @streaming_procedure
            def f():
                yield 1
                pid = os.fork()
                if pid:
                    os.waitpid(pid, 0)
                yield 2
        """)
        self.assertEqual(replies, [{"stream": 1}, {"stream": 2}, {"result": None}])


class PrintTests(ChildTestCase):
    """What is printed goes to the output, never among the replies."""

    def test_order(self) -> None:
        """Both outputs are one, in the order of writing, also without an end of line."""
        call = self.start(
            _procedure(
                "print('one')", "print('two', file=sys.stderr)", "print('three', end='', flush=1)"
            )
        )
        self.assertEqual(call.to_end(), (b'{"result":null}\n', b"one\ntwo\nthree"))

    def test_unfinished_line(self) -> None:
        """What is still in a buffer when the procedure ends is printed."""
        self.assertEqual(self.start(_procedure("sys.stdout.write('x')")).to_end()[1], b"x")

    def test_subprocess(self) -> None:
        """What other programs print is printed too."""
        call = self.start(_procedure("subprocess.run(['/bin/echo', 'x'])"))
        self.assertEqual(call.to_end(), (b'{"result":null}\n', b"x\n"))

    def test_surrogates(self) -> None:
        """Text that can't be encoded is printed escaped instead of failing the procedure."""
        call = self.start(_procedure("print('\\udcff')"))
        self.assertEqual(call.to_end(), (b'{"result":null}\n', b"\\udcff\n"))

    def test_megabytes(self) -> None:
        """Much output does not keep a result from coming."""
        replied, printed = self.start(_procedure("print('x' * 5_000_000)")).to_end()
        self.assertEqual((replied, len(printed)), (b'{"result":null}\n', 5_000_001))


class SurroundingsTests(ChildTestCase):
    """What a procedure finds around itself."""

    def test_descriptors(self) -> None:
        """It has nothing open but its own: not the zygote's, nor other calls'."""
        zygote = self.zygote("""
            @procedure
            def f():
                found = []
                for number in os.listdir("/proc/self/fd"):
                    try:
                        found.append(os.readlink(f"/proc/self/fd/{number}").partition(":")[0])
                    except FileNotFoundError:
                        pass  # the one that listed them
                return sorted(found)

            @procedure
            def wait():
                print("waiting")
                signal.pause()
        """)
        other = zygote.start("wait")
        self.assertEqual(other.printed_line(), b"waiting\n")
        reply = json.loads(zygote.start("f").to_end()[0])
        self.assertEqual(reply["result"], ["/dev/null", "pipe", "pipe", "socket"])

    def test_descriptors_not_inherited(self) -> None:
        """A program that is started gets the three standard descriptors and no more."""
        call = self.start(
            _procedure("subprocess.run(['/bin/ls', '/proc/self/fd'], close_fds=False)")
        )
        self.assertEqual(call.to_end()[1].split(), [b"0", b"1", b"2", b"3"])

    def test_session(self) -> None:
        """It leads a session and a process group of its own."""
        (reply,) = self.body("return [os.getpid() == os.getsid(0) == os.getpgrp()]")
        self.assertEqual(reply, {"result": [True]})

    def test_signals(self) -> None:
        """Signals do what they do in any process, also to the programs that it starts."""
        (reply,) = self.body(
            "names = 'SIGINT', 'SIGHUP', 'SIGCHLD', 'SIGPIPE'",
            "before = signal.set_wakeup_fd(-1)",
            "return [before] + [str(signal.getsignal(getattr(signal, n))) for n in names]",
        )
        default = str(signal.SIG_DFL)
        # Python ignores SIGPIPE in every program and gives it back to those it starts.
        self.assertEqual(reply["result"], [-1, default, default, default, str(signal.SIG_IGN)])


class TerminateTests(ChildTestCase):
    """TERM is how a call is told to end."""

    def waiting(self, *lines: str) -> BareCall:
        """Start a procedure of these lines and wait until it has printed."""
        call = self.start(_procedure(*lines))
        self.assertEqual(call.printed_line(), b"ready\n")
        return call

    def test_finally(self) -> None:
        """``finally`` blocks run to their end, even if TERM comes again."""
        call = self.waiting(
            "try:",
            "    print('ready')",
            "    signal.pause()",
            "finally:",
            "    os.kill(os.getpid(), signal.SIGTERM)",
            "    print('tidied')",
        )
        call.zygote.signal(call, kill=False)
        self.assertEqual(call.to_end(), (b"", b"tidied\n"))
        self.assertEqual(call.exit_code(), 143)

    def test_just_before_it_waits(self) -> None:
        """A TERM that comes between Python's last look and a system call that waits is seen."""
        call = self.start(
            _procedure(
                "import ctypes, functools, operator",
                "libc = ctypes.CDLL(None)",
                "telling = functools.partial(libc.kill, os.getpid(), signal.SIGTERM)",
                "try:",
                "    print(os.getpid())",
                "    list(map(operator.call, [telling, signal.pause]))  # no look between the two",
                "finally:",
                "    print('tidied')",
            )
        )
        status = Path(f"/proc/{int(call.printed_line())}/stat")
        wait_until(lambda: b") S " in status.read_bytes(), "it waits")
        call.zygote.wake(call)
        self.assertEqual(call.to_end(), (b"", b"tidied\n"))
        self.assertEqual(call.exit_code(), 143)

    def test_woken_for_nothing(self) -> None:
        """A call that was not told to end goes on."""
        call = self.start(_procedure("print(os.getpid())", "signal.pause()", "return 'here'"))
        status = Path(f"/proc/{int(call.printed_line())}/stat")
        wait_until(lambda: b") S " in status.read_bytes(), "it waits")
        call.zygote.wake(call)
        self.assertEqual(call.line(), {"result": "here"})

    def test_caught(self) -> None:
        """``except Exception`` does not catch it."""
        call = self.waiting(
            "while True:",
            "    try:",
            "        print('ready')",
            "        signal.pause()",
            "    except Exception:",
            "        pass",
        )
        call.zygote.signal(call, kill=False)
        self.assertEqual(call.exit_code(), 143)

    def test_waits_for_descendants(self) -> None:
        """What a descendant starts when it is told to end is still found to be killed."""
        call = self.waiting(
            "trap = 'setsid sleep 100 & echo $!; exit'",
            "script = f'trap \\'{trap}\\' TERM; echo ready; sleep 100 & wait'",
            "subprocess.Popen(['/bin/sh', '-c', script])",
            "signal.pause()",
        )
        call.zygote.signal(call, kill=False)
        late = int(call.printed_line())
        call.zygote.signal(call, kill=True)
        call.exit_code()
        wait_gone(late)

    def test_dies_with_the_zygote(self) -> None:
        """When its guard is killed the call is too, though it ignores TERM."""
        call = self.waiting("print('ready')", "signal.signal(15, signal.SIG_IGN)", "while 1: pass")
        call.zygote.process.kill()
        self.assertEqual(call.to_end(), (b"", b""))


class IdentityTests(ChildTestCase):
    """A procedure runs as the user and with the groups that it names."""

    REPORT = """
        def f():
            import ctypes
            died = ctypes.c_int()
            ctypes.CDLL(None).prctl(2, ctypes.byref(died))
            return [os.getresuid(), os.getresgid(), sorted(os.getgroups()), died.value]
    """

    def setUp(self) -> None:
        if os.geteuid() != 0:
            self.skipTest("only root can become another user")

    def identity(self, options: str) -> Any:
        """Return what a procedure with these options finds that it is."""
        (reply,) = self.replies(
            self.REPORT.replace("def f", f"@procedure({options})\n        def f")
        )
        return reply["result"]

    def test_user(self) -> None:
        """The uid gives the user and exactly that user's groups; it learns when the zygote dies."""
        nobody = pwd.getpwnam("nobody")
        groups = sorted(os.getgrouplist("nobody", nobody.pw_gid))
        expected = [[nobody.pw_uid] * 3, [nobody.pw_gid] * 3, groups, PARENT_DIED]
        self.assertEqual(self.identity("uid='nobody'"), expected)
        self.assertEqual(self.identity(f"uid={nobody.pw_uid}"), expected)

    def test_groups(self) -> None:
        """The first of a list of groups is the primary one, and there are no others."""
        users, nogroup = grp.getgrnam("users").gr_gid, grp.getgrgid(pwd.getpwnam("nobody").pw_gid)
        user, group, groups, _ = self.identity(f"uid='nobody', gid=['users', {nogroup.gr_gid}, 7]")
        self.assertEqual(user, [pwd.getpwnam("nobody").pw_uid] * 3)
        self.assertEqual(group, [users] * 3)
        self.assertEqual(groups, sorted([users, nogroup.gr_gid, 7]))

    def test_group_alone(self) -> None:
        """A gid alone keeps the user."""
        user, group, groups, _ = self.identity("gid='users'")
        users = grp.getgrnam("users").gr_gid
        self.assertEqual((user, group, groups), ([0] * 3, [users] * 3, [users]))

    def test_no_number_of_a_user(self) -> None:
        """A number without an entry in the user database needs its groups."""
        user, group, groups, _ = self.identity("uid=54321, gid=54322")
        self.assertEqual((user, group, groups), ([54321] * 3, [54322] * 3, [54322]))

    def test_other_calls(self) -> None:
        """The user of one call is not the next call's."""
        zygote = self.zygote("""
            @procedure(uid="nobody")
            def other():
                return os.getuid()

            @procedure
            def own():
                return os.getuid()
        """)
        nobody = pwd.getpwnam("nobody").pw_uid
        replies = [zygote.start(name).to_end()[0] for name in ("other", "own", "other")]
        expected = [b'{"result":%d}\n' % uid for uid in (nobody, 0, nobody)]
        self.assertEqual(replies, expected)


class RefusedIdentityTests(ChildTestCase):
    """What the kernel refuses fails the call before the procedure runs."""

    def test_no_permission(self) -> None:
        """A daemon that is not root can't run a procedure as another user: system_error."""
        if os.geteuid() == 0:
            # The zygote gives up root while it loads the file.
            become = "os.setresgid(65534, 65534, 65534)\nos.setresuid(65534, 65534, 65534)\n"
        else:
            become = ""
        replies = self.replies(become + "@procedure(uid=0)\ndef f(): print('has run')")
        self.assert_error("system_error", "the process of the call: ", replies)


class LeftBehindTests(ChildTestCase):
    """What a call that ended by itself started may live on."""

    def test_background_process(self) -> None:
        """A process in the background outlives its call and is not in the way of its end."""
        call = self.start(
            _procedure(
                "background = subprocess.Popen(['/bin/sleep', '100'])",
                "background.returncode = 0",
                "return background.pid",
            )
        )
        pid = call.line()["result"]
        self.assertEqual(call.exit_code(), 0)
        self.assertTrue(alive(pid))
        os.kill(pid, signal.SIGKILL)
        wait_gone(pid)
