"""Tests of ``harp.questions``: when a request is not sent again."""

from __future__ import annotations

import msgspec
from twisted.trial.unittest import SynchronousTestCase

import harp
from harp.pool import Pool
from harp.questions import Question
from harp.sockets import run
from harp.wire.dispatcher import Call
from tests.harp.test_pool import MemoryEndpoint


class AttemptTests(SynchronousTestCase):
    """A request of which nothing is in doubt."""

    def test_first_attempt_that_fails(self) -> None:
        """A call that did not even find somebody is not sent again: nothing is in doubt."""
        endpoint = MemoryEndpoint()
        call = Call(1, host="h", procedure="p", arguments=msgspec.Raw(b"[]"), idempotency_key="k")
        with self.assertRaisesRegex(harp.CommunicationError, "can't connect: nobody there"):
            run(Question(Pool(endpoint), call).open())
        self.assertEqual(endpoint.attempts, 1)
