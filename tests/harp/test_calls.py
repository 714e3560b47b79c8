"""Tests of ``harp.calls``, ``harp.outcomes``: values to requests, replies to values."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

import harp
from harp import calls, outcomes
from harp.errors import (
    CancelledException,
    Origin,
    RemoteError,
    RemoteException,
    RemoteProtocolError,
)
from harp.wire.dispatcher import CancelOutcome, Continue, JobId, NoResult, Reply
from harp.wire.results import CANCELLED, EndDetail, EndKind, EndResult

NO_OPTIONS = calls.call_options(None, None, None, None, None)
CIRCULAR: list[Any] = []
CIRCULAR.append(CIRCULAR)


class ArgumentTests(SynchronousTestCase):
    """What JSON can carry is passed on unchanged, all else is refused by its name."""

    def arguments(self, /, *args: object, **kwargs: object) -> bytes:
        """Return the arguments of a call as they go on the wire."""
        return bytes(calls.call_request("h", "p", args, kwargs, NO_OPTIONS).arguments)

    def test_lists_and_objects(self) -> None:
        """Positional arguments are a list, keyword arguments an object, none are a list."""
        self.assertEqual(self.arguments(), b"[]")
        self.assertEqual(self.arguments(1, (2.5, None), "ż"), '[1,[2.5,null],"ż"]'.encode())
        self.assertEqual(self.arguments(size=1, self=[True]), b'{"size":1,"self":[true]}')
        self.assertEqual(self.arguments(2**70, {"a": {}}), b'[1180591620717411303424,{"a":{}}]')

    def test_both_kinds(self) -> None:
        """Arguments of both kinds are refused, for the protocol can't carry them."""
        with self.assertRaisesRegex(TypeError, r"p\(\).*positional or keyword.*list or an object"):
            self.arguments(1, size=2)

    def test_not_json(self) -> None:
        """A value that JSON can't carry is refused with the name of its argument."""
        cases: list[tuple[object, type[Exception]]] = [
            (b"bytes", TypeError),
            ({1, 2}, TypeError),
            (object(), TypeError),
            ([harp.CALL_NOT_FINISHED], TypeError),
            ({(1, 2): 3}, TypeError),
            (math.nan, ValueError),
            ([{"a": -math.inf}], ValueError),
            (CIRCULAR, ValueError),
            ("\ud800", ValueError),
        ]
        for value, kind in cases:
            with self.assertRaisesRegex(kind, r"^p\(\): argument 2: "):
                self.arguments(0, value)
            with self.assertRaisesRegex(kind, r"^p\(\): argument size: "):
                self.arguments(size=value)


class OptionTests(SynchronousTestCase):
    """The options of a host are checked where they are given."""

    def test_mistakes(self) -> None:
        """A wrong type is a TypeError, a wrong value a ValueError; both name the option."""
        cases: list[tuple[dict[str, Any], type[Exception], str]] = [
            ({"queue": "q"}, TypeError, "queue must be a dict, not str"),
            ({"queue": ["q"]}, TypeError, "queue must be a dict, not list"),
            ({"queue": {"a": {1}}}, TypeError, "queue: "),
            ({"queue": {"a": math.nan}}, ValueError, "queue: "),
            ({"concurrency": 2}, ValueError, "concurrency without queue"),
            ({"queue": {}, "concurrency": 0}, ValueError, "concurrency must be 1 or more, not 0"),
            ({"queue": {}, "concurrency": 1.0}, TypeError, "concurrency must be a whole number"),
            ({"queue": {}, "concurrency": True}, TypeError, "concurrency must be a whole number"),
            ({"timeout": 0}, ValueError, "timeout must be a number of seconds above 0, not 0"),
            ({"timeout": math.nan}, ValueError, "timeout"),
            ({"timeout": "60"}, TypeError, "timeout must be a number of seconds, not str"),
            ({"timeout": True}, TypeError, "timeout"),
            ({"max_exec_time": -1}, ValueError, "max_exec_time"),
            ({"max_exec_time": math.inf}, ValueError, "max_exec_time"),
            ({"info": object()}, TypeError, "info: "),
            ({"info": math.nan}, ValueError, "info: "),
            ({"idempotency_key": 7}, TypeError, "idempotency_key must be a str, not int"),
            ({"idempotency_key": ""}, ValueError, "idempotency_key must have 1 to 200 char"),
            ({"idempotency_key": "x" * 201}, ValueError, "idempotency_key .* not 201"),
            ({"dedup": []}, TypeError, "dedup must be a dict, not list"),
            ({"dedup": {"key": {}}}, ValueError, "dedup must have the keys 'key' and 'within'"),
            ({"dedup": {"key": [], "within": 1}}, TypeError, r"dedup\['key'\] must be a dict"),
            ({"dedup": {"key": {}, "within": 0}}, ValueError, r"dedup\['within'\] must be"),
        ]
        first = ("queue", "concurrency", "timeout", "max_exec_time", "info")
        names = (*first, "idempotency_key", "dedup")
        for options, kind, told in cases:
            with self.assertRaisesRegex(kind, f"^{told}"):
                calls.call_options(*(options.get(name) for name in names))

    def test_read_at_once(self) -> None:
        """What happens to a dict after it was given changes no call."""
        queue, info = {"a": 1}, ["x"]
        options = calls.call_options(queue, None, None, None, info)
        queue["a"], info[0] = 2, "y"
        assert options.queue is not None
        self.assertEqual(bytes(options.queue.name), b'{"a":1}')
        self.assertEqual(bytes(options.info), b'["x"]')

    def test_where_a_stream_begins(self) -> None:
        """A stream begins at a whole number, said in one way."""
        self.assertEqual(calls.stream_start(0, None), {"since": 0, "recent": None})
        self.assertEqual(calls.stream_start(None, 7), {"since": None, "recent": 7})
        wrong: list[tuple[Any, Any, type[Exception], str]] = [
            (0, 0, ValueError, "since and recent"),
            (-1, None, ValueError, "since must be 0 or more, not -1"),
            (None, -1, ValueError, "recent must be 0 or more"),
            (1.0, None, TypeError, "since must be a whole number, not float"),
            (None, "1", TypeError, "recent must be a whole number, not str"),
        ]
        for since, recent, kind, told in wrong:
            with self.assertRaisesRegex(kind, told):
                calls.stream_start(since, recent)


class OutcomeTests(SynchronousTestCase):
    """An end result becomes a value or an exception with all that came."""

    def test_result(self) -> None:
        """A result is its value, with numbers of any size."""
        for payload, value in [
            (b'{"a":[1,2.0,null]}', {"a": [1, 2.0, None]}),
            (b"null", None),
            (b"1180591620717411303424", 2**70),
        ]:
            found = outcomes.outcome(EndResult(EndKind.RESULT, payload))
            self.assertEqual(found, value)
            self.assertEqual(outcomes.value_of(found, "ID"), value)

    def test_failures(self) -> None:
        """An exception and an error are returned by one and raised by the other."""
        with_data = b'{"type":"T","message":"M","data":[1]}'
        for kind, raised in [
            (EndKind.EXCEPTION, RemoteException),
            (EndKind.ERROR, RemoteError),
        ]:
            for payload, data in [(with_data, [1]), (b'{"type":"T","message":"M"}', None)]:
                found = outcomes.outcome(EndResult(kind, payload))
                self.assertIs(type(found), raised)
                self.assertEqual((found.type, found.message, found.data), ("T", "M", data))
                with self.assertRaises(raised) as caught:
                    outcomes.value_of(found, "ID")
                self.assertIs(caught.exception, found)

    def test_no_value(self) -> None:
        """A job that runs has no value yet, and asking for that of a cancelled one raises."""
        self.assertIs(outcomes.outcome(NoResult()), harp.CALL_NOT_FINISHED)
        self.assertIs(outcomes.value_of(harp.CALL_NOT_FINISHED, "ID"), harp.CALL_NOT_FINISHED)
        self.assertIs(outcomes.outcome(CANCELLED), harp.CALL_CANCELLED)
        with self.assertRaisesRegex(CancelledException, "job ID was cancelled"):
            outcomes.value_of(harp.CALL_CANCELLED, "ID")

    def test_payload_that_cannot_be_held(self) -> None:
        """JSON that Python can't hold, or can't reach the bottom of, is a protocol error."""
        for payload in (b"1e999", b"[" * 100_000 + b"]" * 100_000):
            with self.assertRaisesRegex(RemoteProtocolError, "a payload can't be decoded"):
                outcomes.outcome(EndResult(EndKind.RESULT, payload))

    def test_answer(self) -> None:
        """A request is answered or refused."""
        self.assertEqual(outcomes.answer(JobId("x"), JobId), JobId("x"))
        with self.assertRaises(RemoteError) as caught:
            outcomes.answer(EndResult(EndKind.ERROR, b'{"type":"T","message":"M"}'), CancelOutcome)
        self.assertEqual(caught.exception.type, "T")

    def test_where_an_error_arose(self) -> None:
        """Who tells an error narrows down where it arose; what was refused started nothing."""
        line = b'{"type":"%b","message":"M"}'
        cases = [
            (b"invalid_request", outcomes.REFUSED, Origin.DISPATCHER, False),
            (b"invalid_request", outcomes.DIRECT, Origin.HARPD, True),
            (b"invalid_request", outcomes.ANYWHERE, None, True),
            (b"os_error", outcomes.REFUSED, Origin.DISPATCHER, True),
            (b"killed", outcomes.DIRECT, None, True),
            (b"auth_error", outcomes.ANYWHERE, Origin.HARPD, False),
            (b"new_one", outcomes.ANYWHERE, None, True),
            (b"new_one", outcomes.REFUSED, Origin.DISPATCHER, True),
        ]
        for type, origins, origin, may_have_run in cases:
            error = outcomes.outcome(EndResult(EndKind.ERROR, line % type), origins)
            self.assertEqual((error.origin, error.may_have_run), (origin, may_have_run), type)

    def test_origin_that_the_dispatcher_knows(self) -> None:
        """A detail is believed; an origin that is not known here is none."""
        line = b'{"type":"timeout","message":"M"}'
        for told, origin in [("harpd", Origin.HARPD), (None, None), ("moon", None)]:
            end = EndResult(EndKind.ERROR, line, EndDetail(told, False, 1.5))
            error = outcomes.outcome(end)
            self.assertEqual((error.origin, error.may_have_run), (origin, False))

    def test_end_of_a_stream(self) -> None:
        """Only a job that there is not is raised at a stream's end, not how a job ended."""
        fault = b'{"type":"%b","message":"M"}'
        ends: list[Reply] = [
            Continue(),
            CANCELLED,
            EndResult(EndKind.RESULT, b"1"),
            EndResult(EndKind.EXCEPTION, fault % b"invalid_jobid"),
            EndResult(EndKind.ERROR, fault % b"invalid_request"),
            EndResult(EndKind.ERROR, fault % b"timeout"),
        ]
        for end in ends:
            outcomes.refuse_stream(end)
        with self.assertRaises(RemoteError) as caught:
            outcomes.refuse_stream(EndResult(EndKind.ERROR, fault % b"invalid_jobid"))
        self.assertEqual(caught.exception.type, "invalid_jobid")


class NoValueTests(SynchronousTestCase):
    """CALL_NOT_FINISHED and CALL_CANCELLED are compared with ``is``."""

    def test_identity(self) -> None:
        """A copy or a pickle of one is the very same object."""
        for value in (harp.CALL_NOT_FINISHED, harp.CALL_CANCELLED):
            self.assertIs(copy.copy(value), value)
            self.assertIs(copy.deepcopy([value])[0], value)
            for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
                self.assertIs(pickle.loads(pickle.dumps(value, protocol)), value)

    def test_repr_and_truth(self) -> None:
        """They print as their names, and are true as no empty result is."""
        self.assertEqual(repr(harp.CALL_NOT_FINISHED), "harp.CALL_NOT_FINISHED")
        self.assertEqual(repr(harp.CALL_CANCELLED), "harp.CALL_CANCELLED")
        self.assertEqual(str(harp.CALL_CANCELLED), "harp.CALL_CANCELLED")
        self.assertTrue(harp.CALL_NOT_FINISHED)
        self.assertTrue(harp.CALL_CANCELLED)
