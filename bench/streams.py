"""Packets: live to one follower and to many, and from the database."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import harp
from bench import limits
from bench.clients import Step, in_processes, repeat
from bench.figures import RATE, Figure, Limit
from bench.setting import Setting, caller, expect
from harpcaller.demo.deployment import HOST, Deployment

_SIZE = 50
"""Bytes of a packet's text."""

_STREAMS, _FOLLOWERS = 32, 64


def stream(setting: Setting) -> Iterator[Figure]:
    """Follow one stream live."""
    count = setting.some(200_000)
    with setting.daemons() as deployment:
        gate = deployment.folder / "gate"
        job = _job(deployment, count, gate)
        packets = job.follow(since=0)

        def follow() -> None:
            gate.touch()
            expect(_length(packets), count, "packets followed")

        beside = _beside()
        took = repeat(follow, 1).took
        limit = _limit(beside)
        expect(job.get(), count, "packets streamed")
        expect(_length(job.stream()), count, "packets read afterwards")
        expect(_recorded(deployment, job.id()), count, "packets in the database")
    yield Figure("stream", count / took, RATE, limit, 60_000)


def streams(setting: Setting) -> Iterator[Figure]:
    """Follow many streams live, each by two."""
    count = setting.some(6_000)
    with setting.daemons() as deployment:
        gate = deployment.folder / "gate"
        jobs = [_job(deployment, count, gate).id() for _ in range(_STREAMS)]

        def prepare(number: int) -> Step:
            packets = caller(deployment).job(jobs[number % _STREAMS]).follow(since=0)

            def follow() -> None:
                gate.touch()
                expect(_length(packets), count, "packets followed")

            return follow

        beside = _beside()
        took = in_processes(prepare, 1, processes=4, threads=_FOLLOWERS // 4).took
        limit = _limit(beside)
        for job in jobs:
            expect(_recorded(deployment, job), count, "packets in the database")
    yield Figure("streams", _FOLLOWERS * count / took, RATE, limit, 60_000)


def replay(setting: Setting) -> Iterator[Figure]:
    """Read the packets of a job that has ended."""
    count = setting.some(200_000)
    with setting.daemons() as deployment:
        gate = deployment.folder / "gate"
        gate.touch()
        job = _job(deployment, count, gate)
        expect(job.get(), count, "packets streamed")
        beside = _beside()
        read = repeat(lambda: expect(_length(job.stream()), count, "packets read"), 2)
        limit = _limit(beside)
    yield Figure("replay", 2 * count / read.took, RATE, limit, 150_000)


def _job(deployment: Deployment, count: int, gate: Path) -> harp.RemoteCall:
    return caller(deployment).host(HOST).packets(count, _SIZE, str(gate))


def _length(packets: harp.StreamIterator) -> int:
    return sum(1 for _ in packets)


def _recorded(deployment: Deployment, job_id: str) -> int:
    """Count a job's packets in the file itself, in however many rows they stand."""
    file = f"file:{deployment.folder}/jobs.db?mode=ro"
    packet = json.dumps("x" * _SIZE).encode()
    with closing(sqlite3.connect(file, uri=True)) as database:
        rows = database.execute(
            "SELECT data FROM packets JOIN jobs ON jobs.seq = packets.job WHERE id = ?", (job_id,)
        )
        return sum(data.count(packet) for (data,) in rows)


def _beside() -> limits.Beside:
    return limits.Beside(lambda: limits.lines_per_second(_SIZE))


def _limit(beside: limits.Beside) -> Limit:
    return Limit(beside.mean(), "lines through a socket pair, encoded and decoded")
