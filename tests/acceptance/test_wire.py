"""Both protocols byte for byte: the exact lines of version 1 through a bare socket."""

from __future__ import annotations

import json
import re
import uuid
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.acceptance.daemons import (
    HOST,
    ask_dispatcher,
    ask_harpd,
    eventually,
    harpd_request,
    shared,
)

DEEP = b"[" * 100_000 + b"]" * 100_000

# What is no sound request line, and the error that it gets from both daemons. %s is the protocol's
# version key.
UNSOUND = [
    (b"nonsense\n", "parse_error"),
    (b"\n", "parse_error"),
    (b'{"%s": 1, "procedure": "\xff"}\n', "parse_error"),
    (b'{"%s": 1, "arguments": [NaN]}\n', "parse_error"),
    (b'{"%s": 1, "arguments": ' + DEEP + b"}\n", "parse_error"),
    (b"[1, 2]\n", "invalid_protocol"),
    (b"{}\n", "invalid_protocol"),
    (b'{"%s": 2}\n', "invalid_protocol"),
    (b'{"%s": "1"}\n', "invalid_protocol"),
    (b'{"%s": true}\n', "invalid_protocol"),
    (b'{"%s": 1}\n', "invalid_request"),
    (b'{"%s": 1, "procedure": "add", "procedure": "fail"}\n', "invalid_request"),
    (b'{"%s": 1, "arguments": [{"a": 1, "a": 2}]}\n', "invalid_request"),
    (b'{"%s": 1}\nmore', "invalid_request"),
    (b"x" * (1024 * 1024 + 2), "invalid_request"),
    (b"x" * (8 * 1024 * 1024), "invalid_request"),
]


class DispatcherWireTests(SynchronousTestCase):
    """Version 1 between clients and the dispatcher."""

    def ask(self, line: str | bytes) -> bytes:
        text = line.encode() if isinstance(line, str) else line
        return ask_dispatcher(shared(), text)

    def submit(self, procedure: str, arguments: Any, more: str = "") -> str:
        answer = self.ask(
            f'{{"harpcaller": 1, "host": "{HOST}", "procedure": "{procedure}",'
            f' "arguments": {json.dumps(arguments)}{more}}}\n'
        )
        match = re.fullmatch(rb'\{"harpcaller":1,"job_id":"([0-9a-f-]{36})"\}\n', answer)
        assert match is not None, answer
        return str(uuid.UUID(match[1].decode()))

    def test_call_and_result(self) -> None:
        """A call gets a job id, the id gets the result, each on a connection of its own."""
        job = self.submit("add", [2, 3])
        self.assertEqual(
            self.ask(f'{{"harpcaller": 1, "get_result": "{job}", "wait": true}}\n'),
            b'{"result":5}\n',
        )

    def test_crlf(self) -> None:
        r"""A \r before the end of the line is tolerated."""
        job = self.submit("add", {"a": 2})
        self.assertEqual(
            self.ask(f'{{"harpcaller": 1, "get_result": "{job}"}}\r\n'), b'{"result":3}\n'
        )

    def test_client_ends_its_direction(self) -> None:
        """A client that says by its end of the stream that it says no more is answered."""
        job = self.submit("add", [1])
        self.ask(f'{{"harpcaller": 1, "get_result": "{job}"}}\n')
        for request, answer in (
            (f'"get_result": "{job}", "wait": false', b'{"result":2}\n'),
            (f'"read_stream": "{job}"', b'{"result":2}\n'),
            (f'"cancel": "{job}"', b'{"cancelled":false}\n'),
        ):
            line = f'{{"harpcaller": 1, {request}}}\n'.encode()
            self.assertEqual(ask_dispatcher(shared(), line, half_close=True), answer)

    def test_too_much_for_harpd(self) -> None:
        """A call that harpd would refuse for its length is refused before it is a job."""
        arguments = json.dumps(["x" * (1024 * 1024 - 200)])
        answer = self.ask(
            f'{{"harpcaller":1,"host":"h","procedure":"p","arguments":{arguments}}}\n'
        )
        error = json.loads(answer)["error"]
        self.assertEqual(error["type"], "invalid_request")
        self.assertIn("$.arguments", error["message"])

    def test_payloads_come_back_as_they_were(self) -> None:
        """Arguments and info travel as the bytes that arrived, whatever JSON they are."""
        arguments = (
            '[{"z": 1e2, "a":[ ] , "é": "\\u00e9\\n", "big": 123456789012345678901234567890}]'
        )
        answer = self.ask(
            f'{{"harpcaller": 1, "host": "{HOST}", "procedure": "echo",'
            f' "arguments": {arguments}, "info": {arguments}}}\n'
        )
        job = json.loads(answer)["job_id"]
        status = self.ask(f'{{"harpcaller": 1, "get_status": "{job}"}}\n').decode()
        self.assertEqual(status.count(arguments), 2)

    def test_status(self) -> None:
        """A status has exactly these keys in this order, and whole seconds."""
        job = self.submit("add", [1], ', "info": {"ticket": 7}')
        self.ask(f'{{"harpcaller": 1, "get_result": "{job}"}}\n')
        answer = self.ask(f'{{"harpcaller": 1, "get_status": "{job}"}}\n').decode()
        self.assertRegex(
            answer,
            rf'^{{"call":{{"host":"{HOST}","procedure":"add","arguments":\[1\]}},'
            r'"time":{"submit":\d+,"start":\d+,"end":\d+},"info":{"ticket": 7}}\n$',
        )

    def test_no_result_yet(self) -> None:
        """Who does not want to wait is told that there is no result; then it is cancelled."""
        job = self.submit("sleep", [3600], ', "timeout": 600, "max_exec_time": 600')
        ask = f'{{"harpcaller": 1, "get_result": "{job}", "wait": false}}\n'
        self.assertEqual(self.ask(ask), b'{"no_result":true}\n')
        self.assertEqual(
            self.ask(f'{{"harpcaller": 1, "read_stream": "{job}"}}\n'), b'{"continue":true}\n'
        )
        cancel = f'{{"harpcaller": 1, "cancel": "{job}"}}\n'
        self.assertEqual(self.ask(cancel), b'{"cancelled":true}\n')
        self.assertEqual(self.ask(ask), b'{"cancelled":true}\n')
        self.assertEqual(self.ask(cancel), b'{"cancelled":false}\n')

    def test_exception(self) -> None:
        """What the procedure raises comes with class and module."""
        job = self.submit("fail", ["no such thing"])
        self.assertEqual(
            self.ask(f'{{"harpcaller": 1, "get_result": "{job}"}}\n'),
            b'{"exception":{"type":"LookupError","message":"no such thing",'
            b'"data":{"class":"LookupError","module":"builtins"}}}\n',
        )

    def test_streams(self) -> None:
        """Packets are numbered from 0, and the last line is the end result."""
        job = self.submit("count", [3])
        packets = [b'{"packet":%d,"data":%d}\n' % (n, n) for n in range(3)]
        end = b'{"result":3}\n'
        self.ask(f'{{"harpcaller": 1, "get_result": "{job}"}}\n')

        def both(options: str, lines: list[bytes]) -> None:
            for kind in ("follow_stream", "read_stream"):
                answer = self.ask(f'{{"harpcaller": 1, "{kind}": "{job}"{options}}}\n')
                self.assertEqual(answer, b"".join(lines), kind + options)

        both(', "since": 0', [*packets, end])
        both(', "since": 2', [packets[2], end])
        both(', "since": 9', [end])
        both(', "recent": 2', [*packets[1:], end])
        both(', "recent": 9', [*packets, end])
        both(', "recent": 0', [end])
        self.assertEqual(
            self.ask(f'{{"harpcaller": 1, "read_stream": "{job}"}}\n'), b"".join([*packets, end])
        )
        self.assertEqual(self.ask(f'{{"harpcaller": 1, "follow_stream": "{job}"}}\n'), end)

    def test_unknown_job(self) -> None:
        """Every request that names a job says so if there is none."""
        for request in (
            '"cancel": "x"',
            '"get_result": "x"',
            '"get_result": "x", "wait": false',
            '"get_status": "x"',
            '"follow_stream": "x"',
            '"read_stream": "x", "since": 1',
        ):
            self.assertEqual(
                self.ask(f'{{"harpcaller": 1, {request}}}\n'),
                b'{"error":{"type":"invalid_jobid","message":"there is no job x"}}\n',
                request,
            )

    def test_unsound_requests(self) -> None:
        """Each gets its error, and the dispatcher lives on."""
        process = shared().harpcaller.process
        for line, type in UNSOUND:
            answer = json.loads(self.ask(line.replace(b"%s", b"harpcaller")))
            self.assertEqual(set(answer), {"error"})
            self.assertEqual(answer["error"]["type"], type, line[:80])
        self.assertEqual(shared().harpcaller.process, process)
        self.submit("add", [1])

    def test_faults_are_named(self) -> None:
        """A message says which key is wrong."""
        call = f'"host": "{HOST}", "procedure": "add", "arguments": [1]'
        for request, part in (
            (call + ', "max_exec_tme": 5', "max_exec_tme"),
            (call + ', "timeout": 0', "$.timeout"),
            (call + ', "queue": {"name": []}', "$.queue.name"),
            (call + ', "queue": {"name": {}, "concurrency": 0}', "$.queue.concurrency"),
            (call + ', "queue": {"name": {"a": 1e999}}', "$.queue.name"),
            (call.replace("[1]", "1"), "$.arguments"),
            ('"follow_stream": "x", "since": 1, "recent": 1', "`since` and `recent`"),
            ('"follow_stream": "x", "since": -1', "$.since"),
            ('"get_result": "x", "cancel": "x"', "`cancel`, `get_result`"),
            ('"get_result": 5', "$.get_result"),
        ):
            error = json.loads(self.ask(f'{{"harpcaller": 1, {request}}}\n'))["error"]
            self.assertEqual(error["type"], "invalid_request")
            self.assertIn(part, error["message"])


class HarpdWireTests(SynchronousTestCase):
    """Version 1 between harpd and who calls it."""

    def call(self, procedure: str, arguments: Any = ()) -> bytes:
        return ask_harpd(shared(), harpd_request(procedure, list(arguments)))

    def test_result(self) -> None:
        """The acknowledgement, then the result, then the end of the connection."""
        self.assertEqual(
            self.call("add", [1, 2]), b'{"harp":1,"stream_result":false}\n{"result":3}\n'
        )

    def test_keyword_arguments(self) -> None:
        """An object is keyword arguments."""
        self.assertEqual(
            ask_harpd(shared(), harpd_request("add", {"b": 5, "a": 1})),
            b'{"harp":1,"stream_result":false}\n{"result":6}\n',
        )

    def test_stream(self) -> None:
        """Packets between the acknowledgement and the end result."""
        self.assertEqual(
            self.call("count", [2]),
            b'{"harp":1,"stream_result":true}\n{"stream":0}\n{"stream":1}\n{"result":2}\n',
        )

    def test_exception(self) -> None:
        """An exception may come in the place of a result."""
        self.assertEqual(
            self.call("fail", ["gone"]),
            b'{"harp":1,"stream_result":false}\n'
            b'{"exception":{"type":"LookupError","message":"gone",'
            b'"data":{"class":"LookupError","module":"builtins"}}}\n',
        )

    def test_no_such_procedure(self) -> None:
        """An error comes in the place of the acknowledgement; its data names the procedure."""
        self.assertEqual(
            self.call("nothing"),
            b'{"harp":1,"error":{"type":"no_such_procedure","message":"no procedure nothing",'
            b'"data":{"procedure":"nothing"}}}\n',
        )

    def test_login(self) -> None:
        """A wrong password and an unknown user get the same answer."""
        refused = (
            b'{"harp":1,"error":{"type":"auth_error","message":"unknown user or wrong password"}}\n'
        )
        for user, password in (("panel", "wrong"), ("nobody", "wrong"), ("", ""), ("panel", "\0")):
            request = harpd_request("add", [1], user, password)
            self.assertEqual(ask_harpd(shared(), request), refused)

    def test_unsound_requests(self) -> None:
        """Each gets its error, and harpd lives on."""
        process = shared().harpd.process
        for line, type in UNSOUND:
            answer = json.loads(ask_harpd(shared(), line.replace(b"%s", b"harp")))
            self.assertEqual((set(answer), answer["harp"]), ({"harp", "error"}, 1))
            self.assertEqual(answer["error"]["type"], type, line[:80])
        self.assertEqual(shared().harpd.process, process)
        self.call("add", [1])

    def test_unknown_keys(self) -> None:
        """A key that is not known is refused by name."""
        request = json.loads(harpd_request("add", [1]))
        for changed, key in (
            ({**request, "argumnets": []}, "argumnets"),
            ({**request, "auth": {**request["auth"], "token": ""}}, "token"),
        ):
            answer = json.loads(ask_harpd(shared(), json.dumps(changed).encode() + b"\n"))
            self.assertEqual(answer["error"]["type"], "invalid_request")
            self.assertIn(key, answer["error"]["message"])

    def test_printing_stays_out_of_the_protocol(self) -> None:
        """What a procedure prints, it or what it runs, goes to the log with the call's name."""
        self.assertEqual(
            self.call("print_protocol"),
            b'{"harp":1,"stream_result":false}\n{"result":"genuine"}\n',
        )
        forged = json.dumps('{"result":"forged"}')[1:]
        for printed in (
            r"call \d+ of print_protocol printed: " + re.escape(forged),
            "the procedures file printed: procedures loaded",
        ):
            self.assert_logged(printed)

    def assert_logged(self, pattern: str) -> None:
        """Wait for a text in harpd's log: it comes by another way than the result."""
        log = shared().harpd.log
        eventually(lambda: bool(re.search(pattern, log.read_text())), f"{pattern} is in the log")
