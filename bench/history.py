"""What a long history costs: the same requests to a dispatcher that has one and to one without."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

from bench.figures import Figure, Limit
from bench.setting import Setting, caller, expect
from harpcaller.demo.deployment import HOST, Deployment

_ENDED = 1_000_000
_PAGE = 100
_SAMPLES = 150
_SECONDS_APART = 2.0
"""How long after each other the jobs of the history were submitted."""


def history(setting: Setting) -> Iterator[Figure]:
    """Take turns in asking both, so that what else the machine does is the same for both."""
    empty, full = setting.deployment(), setting.deployment()
    with empty, full:
        for deployment in (empty, full):
            _leave_examples(deployment)
        full.harpcaller.stop()
        wanted = setting.some(_ENDED)
        ids = multiply(full.folder / "jobs.db", wanted)
        full.harpcaller.start()
        askers = [
            _Asker(empty, [job["job_id"] for job in islice(caller(empty).jobs(), _PAGE)]),
            _Asker(full, ids),
        ]
        for number in range(setting.some(_SAMPLES, 3)):
            for asker in askers[:: 1 if number % 2 else -1]:
                asker.ask(number)
    for name, taken in askers[1].times.items():
        limit = Limit(median(askers[0].times[name]), f"the same without {wanted:,} ended jobs")
        yield Figure(f"history {name}", median(taken), "ms", limit, goal_ratio=1.3)


class _Asker:
    """Asks one dispatcher, and keeps how long each kind of request took, in milliseconds.

    :param ids: of jobs that have ended.
    """

    def __init__(self, deployment: Deployment, ids: list[str]) -> None:
        self.times: dict[str, list[float]] = {}
        self._rpc = caller(deployment)
        self._ids = ids

    def ask(self, number: int) -> None:
        """Make one of each kind of request."""
        job = self._timed("submit", lambda: self._rpc.host(HOST).echo(number))
        expect(self._timed("get", job.get), number, "an echo")
        old = self._rpc.job(self._ids[number % len(self._ids)])
        detail = self._timed("status", old.detail)
        expect(detail["state"], "ended", "the state of a job of the history")
        page = self._timed("list", lambda: list(islice(self._rpc.jobs(), _PAGE)))
        expect(len(page), _PAGE, "jobs on a page")
        expect(page[0]["job_id"], job.id(), "the newest job")

    def _timed(self, name: str, function: Callable[[], Any]) -> Any:
        begin = time.perf_counter()
        answer = function()
        self.times.setdefault(name, []).append(1000 * (time.perf_counter() - begin))
        return answer


def _leave_examples(deployment: Deployment) -> None:
    """Run enough jobs for a page, of the kinds of which the history is to consist."""
    rpc = caller(deployment)
    for number in range(_PAGE // 4):
        queued = rpc.host(HOST, queue={"customer": number}, concurrency=2, info={"by": "bench"})
        jobs = [
            rpc.host(HOST).echo(number),
            rpc.host(HOST).echo({"text": "x" * 200, "number": number}),
            queued.echo([number] * 10),
            queued.fail("something that did not work"),
        ]
        for job in jobs:
            job.result(wait=True)


def multiply(file: Path, wanted: int) -> list[str]:
    """Put copies of the jobs of a database before them, as if they had run in the weeks before.

    Each has a job id, times and an idempotency key of its own; everything else is an example's.
    Which columns there are is asked of the database.

    :return: some of the new ids.
    """
    with closing(sqlite3.connect(file, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = DELETE")  # the dispatcher sets its own again
        database.execute("PRAGMA synchronous = OFF")
        database.execute("PRAGMA cache_size = -400000")
        values = {name: name for _, name, *_ in database.execute("PRAGMA table_info(jobs)")}
        values["seq"] = "n"
        for moment in ("submitted", "started", "ended"):
            values[moment] = f"{moment} - {_SECONDS_APART} * ({wanted} - n + 1)"
        time = f"printf('%012x', 1000 * ({values['submitted']}))"
        values["id"] = (  # of the version that harpcaller.job_ids makes
            f"substr({time}, 1, 8) || '-' || substr({time}, 9) || '-7' || substr(h, 1, 3) || '-8'"
            " || substr(h, 4, 3) || '-' || substr(h, 7, 12)"
        )
        database.execute("BEGIN")
        database.execute("CREATE TEMP TABLE examples AS SELECT * FROM jobs")
        database.execute(f"UPDATE jobs SET seq = seq + {wanted}")
        database.execute(
            f"""
            WITH RECURSIVE numbers (n, h) AS (
                SELECT 1, lower(hex(randomblob(16)))
                UNION ALL SELECT n + 1, lower(hex(randomblob(16))) FROM numbers WHERE n < {wanted}
            )
            INSERT INTO jobs ({", ".join(values)})
            SELECT {", ".join(values.values())} FROM numbers
            JOIN temp.examples AS example
            ON example.rowid = 1 + n % (SELECT count(*) FROM temp.examples)
            """
        )
        # The client gives each call a key of its own.
        database.execute(
            f"""
            INSERT INTO keys (key, submitter, on_behalf_of, job_id, submitted)
            SELECT substr(replace(id, '-', ''), 1, 12) || lower(hex(randomblob(12))), '', '', id,
            submitted
            FROM jobs WHERE seq <= {wanted}
            """
        )
        database.execute("COMMIT")
        step = max(1, wanted // _SAMPLES)
        found = database.execute(f"SELECT id FROM jobs WHERE seq % {step} = 0 AND seq <= {wanted}")
        return [job_id for (job_id,) in found]
