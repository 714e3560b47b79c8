"""Jobs that wait in queues: how fast they are taken, and how fast they are run."""

from __future__ import annotations

import time
from collections.abc import Iterator

from bench import limits
from bench.clients import CLIENTS, Outcome, Step, in_processes
from bench.figures import RATE, Figure, Limit
from bench.setting import STAND_IN, Setting, caller, expect, wait_for
from harpcaller.demo.deployment import Deployment

_QUEUES, _CONCURRENCY = 200, 2
_GROUP = 100
"""Rows of a commit where the end of each job lets another one go on."""


def submit(setting: Setting) -> Iterator[Figure]:
    """Submit jobs by many clients at once, into queues in which they have to wait."""
    with setting.daemons_and_stand_in() as (deployment, stand_in):
        rpc = caller(deployment)
        for number in range(CLIENTS):
            rpc.host(STAND_IN, queue={"client": number}).hold()
        wait_for(stand_in.held, CLIENTS, "jobs of which each is the first of its queue")

        beside = limits.Beside(lambda: limits.rows_per_second(CLIENTS))

        def prepare(number: int) -> Step:
            server = caller(deployment).host(STAND_IN, queue={"client": number})
            return lambda: server.echo("a job", number)

        outcome = in_processes(prepare, setting.some(600, 2))
        limit = Limit(beside.mean(), f"rows into SQLite, {CLIENTS} a commit")
        expect(_waiting(deployment), len(outcome.times), "jobs that wait")
    yield Figure("submit", outcome.rate, RATE, limit, 3000)


def drain(setting: Setting) -> Iterator[Figure]:
    """Run the jobs that wait in many queues, each of which takes no time at all."""
    each = setting.some(20_000 // _QUEUES, 2)
    wanted = each * _QUEUES
    with setting.daemons_and_stand_in() as (deployment, stand_in):
        _fill(deployment, "hold", _CONCURRENCY)
        first = _QUEUES * _CONCURRENCY
        wait_for(stand_in.held, first, "jobs that are the first of their queues")
        _fill(deployment, "echo", each)
        expect(_waiting(deployment), wanted, "jobs that wait")
        beside = limits.Beside(lambda: limits.rows_per_second(_GROUP))
        before = stand_in.answered()
        begin = time.perf_counter()
        stand_in.let_go()
        wait_for(stand_in.answered, before + first + wanted, "jobs that have run")
        rpc = caller(deployment)
        wait_for(lambda: _QUEUES - sum(1 for _ in rpc.queues()), _QUEUES, "queues that are done")
        took = time.perf_counter() - begin
        limit = Limit(beside.mean() / 2, f"two rows each into SQLite, {_GROUP} a commit")
        failed = rpc.jobs(end=["exception", "error", "cancelled"])
        expect(next(failed, None), None, "a job that ended without a result")
    yield Figure("drain", (first + wanted) / took, RATE, limit, 900)


def _fill(deployment: Deployment, procedure: str, each: int) -> Outcome:
    def prepare(number: int) -> Step:
        rpc = caller(deployment)
        mine = [
            getattr(rpc.host(STAND_IN, queue={"queue": queue}, concurrency=_CONCURRENCY), procedure)
            for queue in range(number, _QUEUES, CLIENTS)
        ]
        return lambda: [submit_one(1) for submit_one in mine]

    return in_processes(prepare, each)


def _waiting(deployment: Deployment) -> int:
    return sum(queue["waiting"] for queue in caller(deployment).queues())
