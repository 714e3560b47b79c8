"""Tests of ``harpcaller.summaries``: what is told of an end, and what never is."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from harp.errors import ERROR_TYPES, Origin
from harp.wire import dispatcher as wire
from harp.wire import results
from harp.wire.results import CANCELLED, EndKind, EndResult
from harpcaller.hosts import Host
from harpcaller.summaries import end_of, host_summary
from tests.harpcaller.memory import ended_job, running_job

RESULT = EndResult(EndKind.RESULT, b"1")
EXCEPTION = EndResult(EndKind.EXCEPTION, b'{"type":"E","message":""}')


class EndTests(SynchronousTestCase):
    """Whether a procedure may have run."""

    def may_have_run(self, end: EndResult, started: float | None = 1001.5) -> bool:
        """Return what is told of a job with this end."""
        detail = end_of(ended_job(running_job(started=started), end), True).detail
        assert detail is not None
        return detail.may_have_run

    def test_no_error(self) -> None:
        """Who has a result or an exception has run; who was cancelled may have."""
        for end in (RESULT, EXCEPTION, CANCELLED):
            self.assertTrue(self.may_have_run(end))

    def test_never_started(self) -> None:
        """A job that waited to its end has not run, whatever the end."""
        for end in (CANCELLED, *map(_error, ERROR_TYPES)):
            self.assertFalse(self.may_have_run(end, started=None))

    def test_errors(self) -> None:
        """For an error the table says it; one that is not in the table may have run."""
        for name, row in ERROR_TYPES.items():
            self.assertEqual(self.may_have_run(_error(name)), row.may_have_run, name)
        self.assertEqual({row.may_have_run for row in ERROR_TYPES.values()}, {True, False})
        unknown = EndResult(EndKind.ERROR, b'{"type":"of_tomorrow","message":""}')
        self.assertTrue(self.may_have_run(unknown))

    def test_without_detail(self) -> None:
        """Who does not ask for more gets the very end that was recorded."""
        job = ended_job(running_job(origin=Origin.HARPD), EXCEPTION)
        self.assertIs(end_of(job, False), EXCEPTION)


def _error(name: str) -> EndResult:
    return results.error(ERROR_TYPES[name], "")


class HostTests(SynchronousTestCase):
    """What is told of a host."""

    def test_no_credentials(self) -> None:
        """Everything but who we are there."""
        host = Host("web01", "10.0.0.1", 4306, "us3r", "s3cret", ("db", "eu"), "web.example.org")
        line = wire.encode_reply(wire.Hosts([host_summary(host)]))
        self.assertEqual(
            line,
            b'{"hosts":[{"name":"web01","address":"10.0.0.1","port":4306,"tags":["db","eu"],'
            b'"server_name":"web.example.org"}],"cursor":null}\n',
        )
