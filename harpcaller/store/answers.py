"""The answers of the store's threads, in the reactor's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred


def fire(answers: Sequence[Deferred[Any]], outcomes: Sequence[object]) -> None:
    """Give each Deferred its outcome; one that is a `Failure` fails it."""
    for answer, outcome in zip(answers, outcomes, strict=True):
        answer.callback(outcome)
