"""Calls that run a process each: one after another, many at once, and without the dispatcher."""

from __future__ import annotations

from collections.abc import Iterator

import harp
from bench import limits
from bench.clients import CLIENTS, Step, in_processes, repeat
from bench.figures import RATE, Figure, Limit
from bench.setting import Setting, caller, expect
from demo.deployment import HOST, PASSWORD, USER, Deployment

_VALUE = {"text": "a value of some length", "number": 12345}


def latency(setting: Setting) -> Iterator[Figure]:
    """Submit and get an echo, one after another."""
    with setting.daemons() as deployment:
        bare = limits.bare_call(setting.some(300, 20))
        outcome = repeat(_call(deployment), setting.some(500, 20))
    what = "fork and exit with a commit before and after"
    for part, goal in (0.5, 6.0), (0.99, 20.0):
        yield Figure(
            f"latency p{100 * part:.0f}",
            outcome.milliseconds(part),
            "ms",
            Limit(bare.milliseconds(part), what),
            goal,
        )


def calls(setting: Setting) -> Iterator[Figure]:
    """Submit and get echoes by many clients at once."""
    with setting.daemons() as deployment:
        outcome = in_processes(lambda number: _call(deployment), setting.some(120, 2))
    forks = limits.forks_per_second()
    yield Figure("calls", outcome.rate, RATE, Limit(forks, "forks on all cores"), 400, 0.6)
    wait = Limit(1000 * CLIENTS / forks, f"{CLIENTS} such forks")
    yield Figure("calls p99", outcome.milliseconds(0.99), "ms", wait, 150)


def direct(setting: Setting) -> Iterator[Figure]:
    """Call harpd by many clients at once, without a dispatcher."""
    with setting.daemons() as deployment:

        def prepare(number: int) -> Step:
            server = harp.HarpServer(
                "127.0.0.1", USER, PASSWORD, deployment.harpd_port, deployment.ca_file
            )
            return lambda: expect(server.echo(_VALUE), _VALUE, "an echo")

        outcome = in_processes(prepare, setting.some(80, 2))
        seconds = 1 / limits.forks_per_second() + 1 / limits.handshakes_per_second(deployment)
    limit = Limit(1 / seconds, "a fork and a TLS handshake each, on all cores")
    yield Figure("direct", outcome.rate, RATE, limit, 450)


def _call(deployment: Deployment) -> Step:
    server = caller(deployment).host(HOST)
    return lambda: expect(server.echo(_VALUE).get(), _VALUE, "an echo")
