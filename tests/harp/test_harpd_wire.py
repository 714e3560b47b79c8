"""Tests of ``harp.wire.harpd`` and ``harp.wire.results``: the lines as protocol.md has them."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harp import errors
from harp.errors import RemoteProtocolError
from harp.wire import harpd, results
from harp.wire.packets import Packets
from harp.wire.results import EndKind, EndResult
from harp.wire.text import refuse_repeated_keys

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    # Surrogates can't be written in UTF-8.
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=20,
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))

REQUEST: dict[str, Any] = {
    "harp": 1,
    "procedure": "du",
    "arguments": ["/srv", 2],
    "auth": {"user": "u", "password": "p"},
}

FAULT = b'{"type":"T","message":"M"}'
FAULT_WITH_DATA = b'{"type":"T","message":"M","data":{"class":"T","module":"m"}}'

# Every reply of version 1, as harpd writes it, and those of extensions.
REPLIES: list[tuple[bytes, harpd.Reply]] = [
    (b'{"harp":1,"stream_result":true}', harpd.Ack(True)),
    (b'{"harp":1,"stream_result":false}', harpd.Ack(False)),
    (
        b'{"harp":1,"stream_result":true,"shown_arguments":["(secret)"]}',
        harpd.Ack(True, b'["(secret)"]'),
    ),
    (b'{"stream":{"a":[1, 2.0]}}', Packets(1, b'{"a":[1, 2.0]}')),
    (b'{"stream":null}', Packets(1, b"null")),
    (b'{"result":{"used":1}}', EndResult(EndKind.RESULT, b'{"used":1}')),
    (b'{"result":null}', EndResult(EndKind.RESULT, b"null")),
    (b'{"exception":%b}' % FAULT, EndResult(EndKind.EXCEPTION, FAULT)),
    (b'{"exception":%b}' % FAULT_WITH_DATA, EndResult(EndKind.EXCEPTION, FAULT_WITH_DATA)),
    (b'{"harp":1,"error":%b}' % FAULT, EndResult(EndKind.ERROR, FAULT)),
    (b'{"harp":1,"error":%b}' % FAULT_WITH_DATA, EndResult(EndKind.ERROR, FAULT_WITH_DATA)),
    (b'{"harp":1,"waiting":{"lock":"disk"}}', harpd.Waiting("disk")),
    (b'{"harp":1,"waiting":null}', harpd.Waiting(None)),
    (b'{"harp":1,"procedures":[{"name":"du"}]}', harpd.Procedures(b'[{"name":"du"}]')),
    (b'{"harp":1,"procedures":[],"time":1.5}', harpd.Procedures(b"[]", 1.5)),
]


def call(arguments: bytes, **options: Any) -> harpd.CallRequest:
    """Return the request with these arguments and extensions."""
    auth = harpd.Auth("u", "p")
    return harpd.CallRequest(
        harp=1, auth=auth, procedure="du", arguments=msgspec.Raw(arguments), **options
    )


def called(line: bytes) -> harpd.CallRequest:
    """Return the call that a line asks for."""
    request = harpd.decode_request_line(line)
    assert isinstance(request, harpd.CallRequest)
    return request


def changed(**changes: object) -> bytes:
    """Return the request with other values; ... leaves a key out."""
    fields = {**REQUEST, **changes}
    return json.dumps({key: value for key, value in fields.items() if value is not ...}).encode()


class AuthTests(SynchronousTestCase):
    """Who calls."""

    def test_shown(self) -> None:
        """The password does not stand in what a log shows of it, nor of the request."""
        decoded = harpd.decode_request_line(
            json.dumps(REQUEST).replace('"p"', '"hunter2"').encode()
        )
        self.assertEqual(decoded.auth.password, "hunter2")
        for shown in (repr(decoded.auth), str(decoded.auth), f"{decoded}"):
            self.assertNotIn("hunter2", shown)
            self.assertIn("Auth(user='u'", shown)


class RequestTests(SynchronousTestCase):
    """The request of a call."""

    def test_written_exactly(self) -> None:
        """A request is one line with the keys of version 1 and no other."""
        self.assertEqual(
            harpd.encode_request(call(b'["/srv", 2]')),
            b'{"harp":1,"auth":{"user":"u","password":"p"},'
            b'"procedure":"du","arguments":["/srv", 2]}\n',
        )

    def test_extensions(self) -> None:
        """What an extension adds is written and read, and only where it is asked for."""
        asking = call(
            b"[]",
            keepalive=True,
            report_lock=True,
            report_secret=True,
            context=msgspec.Raw(b'{"a":1}'),
        )
        line = harpd.encode_request(asking)
        self.assertEqual(
            line,
            b'{"harp":1,"auth":{"user":"u","password":"p"},"procedure":"du","arguments":[],'
            b'"keepalive":true,"context":{"a":1},"report_lock":true,"report_secret":true}\n',
        )
        self.assertEqual(harpd.decode_request_line(line), asking)

    def test_describe(self) -> None:
        """The question what a daemon offers is a request of its own."""
        asked = harpd.DescribeRequest(harp=1, auth=harpd.Auth("u", "p"), describe=True)
        line = harpd.encode_request(asked)
        self.assertEqual(line, b'{"harp":1,"auth":{"user":"u","password":"p"},"describe":true}\n')
        self.assertEqual(harpd.decode_request_line(line), asked)

    def test_faults_of_extensions(self) -> None:
        """What is wrong with an extension is told by its name."""
        for line, told in [
            (changed(context=[]), "$.context"),
            (changed(context=None), "$.context"),
            (changed(keepalive=1), "$.keepalive"),
            (changed(report_lock="x"), "$.report_lock"),
            (changed(report_secret="x"), "$.report_secret"),
            (changed(describe=True), "procedure"),
            (changed(describe=False, procedure=..., arguments=...), "true"),
            (changed(describe=True, procedure=..., arguments=..., auth=...), "auth"),
        ]:
            with self.assertRaises(RemoteProtocolError, msg=line) as caught:
                harpd.decode_request_line(line)
            self.assertEqual(caught.exception.type, errors.INVALID_REQUEST, line)
            self.assertIn(told, caught.exception.message)

    def test_read(self) -> None:
        """A request is read with its arguments as the bytes that arrived."""
        for arguments in (b"[]", b"{}", b'["/srv", 2.0]', b'{"path":"/srv"}'):
            found = called(harpd.encode_request(call(arguments)).rstrip(b"\n"))
            self.assertEqual(
                (found.procedure, bytes(found.arguments), found.auth),
                ("du", arguments, harpd.Auth("u", "p")),
            )

    def test_order_of_keys_and_spaces_do_not_matter(self) -> None:
        """A request as an old dispatcher may write it is understood."""
        line = (
            b'{ "auth": {"password": "p", "user": "u"}, "arguments": [ ],'
            b' "procedure": "du", "harp": 1 }'
        )
        self.assertEqual(called(line).procedure, "du")

    def test_faults_of_structure(self) -> None:
        """What is missing, unknown, repeated or of the wrong type is an invalid_request by name."""
        for line, told in [
            (changed(procedure=...), "procedure"),
            (changed(arguments=...), "arguments"),
            (changed(auth=...), "auth"),
            (changed(auth={"user": "u"}), "password"),
            (changed(auth={"user": "u", "password": 1}), "$.auth.password"),
            (changed(auth={"user": "u", "password": "p", "realm": "r"}), "realm"),
            (changed(auth=None), "$.auth"),
            (changed(procedure=7), "$.procedure"),
            (changed(arguments="all"), "$.arguments"),
            (changed(arguments=None), "$.arguments"),
            (changed(arguments=1), "$.arguments"),
            (changed(proceduer="du"), "proceduer"),
            (changed()[:-1] + b',"procedure":"rm"}', "`procedure` stands twice"),
            (changed(arguments=...)[:-1] + b',"arguments":{"x":1,"x":2}}', "`x` stands twice"),
        ]:
            with self.assertRaises(RemoteProtocolError, msg=line) as caught:
                harpd.decode_request_line(line)
                refuse_repeated_keys(line)
            self.assertEqual(caught.exception.type, errors.INVALID_REQUEST, line)
            self.assertIn(told, caught.exception.message)

    def test_password_is_not_told(self) -> None:
        """What is said about a fault does not repeat the password."""
        for auth in ({"user": 1, "password": "s3cret"}, {"user": "u", "password": ["s3cret"]}):
            with self.assertRaises(RemoteProtocolError) as caught:
                harpd.decode_request_line(changed(auth=auth))
            self.assertNotIn("s3cret", caught.exception.message)

    def test_other_protocol(self) -> None:
        """A request that belongs to the dispatcher, or to another version, is told so."""
        for line in (changed(harp=...), changed(harp=2), changed(harp=..., harpcaller=1)):
            with self.assertRaises(RemoteProtocolError) as caught:
                harpd.decode_request_line(line)
            self.assertEqual(caught.exception.type, errors.INVALID_PROTOCOL)

    @settings(deadline=None)
    @given(TEXT, st.lists(JSON) | st.dictionaries(TEXT, JSON), TEXT, TEXT)
    def test_round_trip(self, procedure: str, arguments: object, user: str, password: str) -> None:
        """Whatever is asked for arrives, on one line."""
        payload = json.dumps(arguments).encode()
        request = harpd.CallRequest(
            harp=1,
            auth=harpd.Auth(user, password),
            procedure=procedure,
            arguments=msgspec.Raw(payload),
        )
        line = harpd.encode_request(request)
        self.assertEqual(line.index(b"\n"), len(line) - 1)
        self.assertEqual(harpd.decode_request_line(line[:-1]), request)


class ReplyTests(SynchronousTestCase):
    """The acknowledgement, the packets and the end results."""

    def test_written_exactly(self) -> None:
        """A reply is one line with the keys of version 1 and no other."""
        for line, reply in REPLIES:
            self.assertEqual(harpd.encode_reply(reply), line + b"\n")

    def test_read(self) -> None:
        """A reply is read with its payload as the bytes that arrived."""
        for line, reply in REPLIES:
            self.assertEqual(harpd.decode_reply_line(line), reply, line)

    def test_unknown_keys_are_ignored(self) -> None:
        """A reader ignores keys that it does not know."""
        for line, reply in REPLIES:
            found = harpd.decode_reply_line(line[:-1] + b',"later":{"a":[1]}}')
            self.assertEqual(found, reply)

    def test_more_or_less_than_one_meaning(self) -> None:
        """A reply that says two things, or nothing, is a protocol_error."""
        for line in [
            b"{}",
            b'{"harp":1}',
            b'{"stream":1,"result":2}',
            b'{"stream_result":true,"stream":1}',
            b'{"waiting":null,"stream":1}',
            b'{"result":1,"error":%b}' % FAULT,
            b'{"exception":%b,"error":%b}' % (FAULT, FAULT),
            b'{"cancelled":true}',
        ]:
            with self.assertRaises(RemoteProtocolError, msg=line) as caught:
                harpd.decode_reply_line(line)
            self.assertEqual(caught.exception.type, errors.PROTOCOL_ERROR)

    def test_faults(self) -> None:
        """A reply that can't be understood is a protocol_error."""
        for line in [
            b"",
            b"HTTP/1.1 400 Bad Request",
            b'{"stream":NaN}',
            b'{"stream":"\xff"}',
            b'{"stream":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
            b'{"stream_result":1}',
            b'{"stream_result":true,"shown_arguments":1}',
            b'{"waiting":{}}',
            b'{"waiting":"disk"}',
            b'{"error":"text"}',
            b'{"error":{"type":"timeout"}}',
            b'{"exception":{"type":1,"message":""}}',
        ]:
            with self.assertRaises(RemoteProtocolError, msg=line[:40]) as caught:
                harpd.decode_reply_line(line)
            self.assertEqual(caught.exception.type, errors.PROTOCOL_ERROR)

    def test_error_of_the_table(self) -> None:
        """An error is made from a row of the table."""
        line = harpd.encode_reply(results.error(errors.KILLED, "gone", {"signal": 9}))
        self.assertEqual(
            json.loads(line),
            {"harp": 1, "error": {"type": "killed", "message": "gone", "data": {"signal": 9}}},
        )

    @settings(deadline=None)
    @given(JSON)
    def test_round_trip(self, value: object) -> None:
        """Whatever JSON can carry arrives as it was sent, in a packet and in a result."""
        payload = json.dumps(value).encode()
        replies: list[harpd.Reply] = [
            Packets(1, payload),
            EndResult(EndKind.RESULT, payload),
        ]
        for reply in replies:
            line = harpd.encode_reply(reply)
            self.assertEqual(harpd.decode_reply_line(line[:-1]), reply)


class PasswordTests(SynchronousTestCase):
    """What stands in a request that nobody may see."""

    def test_repr(self) -> None:
        """What a traceback or a log could show of a request has no password."""
        auth = harpd.Auth("dispatcher", "hunter2")
        request = harpd.DescribeRequest(harp=1, auth=auth, describe=True)
        self.assertIn("dispatcher", repr(request))
        self.assertNotIn("hunter2", repr(request))
