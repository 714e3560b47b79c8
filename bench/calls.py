"""Calls that run a process each: one after another, many at once, and without the dispatcher."""

from __future__ import annotations

from collections.abc import Iterator

import harp
from bench import fork_limits, limits
from bench.clients import CLIENTS, Step, in_processes, repeat
from bench.figures import RATE, Figure, Limit
from bench.processes import Work
from bench.setting import Setting, caller, dispatcher_pid, expect, harpd_pid
from harpcaller.demo.deployment import HOST, PASSWORD, USER, Deployment

_VALUE = {"text": "a value of some length", "number": 12345}


def latency(setting: Setting) -> Iterator[Figure]:
    """Submit and get an echo, one after another."""
    with setting.daemons() as deployment:
        bare = fork_limits.bare_call(setting.some(300, 20))
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
    beside = _zygote_alone(setting)
    with setting.daemons() as deployment:
        work = Work(harpd_pid(deployment), dispatcher_pid(deployment))
        outcome = in_processes(lambda number: _call(deployment), setting.some(120, 2))
        needed = work.milliseconds(len(outcome.times))
        zygote = beside.mean()
    limit = Limit(zygote, "the zygote alone: calls that exit at once")
    yield Figure("calls", outcome.rate, RATE, limit, 400, 0.6)
    limit = Limit(1000 * CLIENTS / zygote, f"{CLIENTS} such calls")
    yield Figure("calls p99", outcome.milliseconds(0.99), "ms", limit, 150)
    limit = Limit(fork_limits.forks_per_second(), "fork and exit in a loop on each core")
    yield Figure("calls, bare", outcome.rate, RATE, limit)
    limit = Limit(sum(needed.values()), "the processor time of a call, everywhere")
    for where, milliseconds in needed.items():
        yield Figure(f"calls, {where}", milliseconds, "ms", limit)


def direct(setting: Setting) -> Iterator[Figure]:
    """Call harpd by many clients at once, without a dispatcher."""
    with setting.daemons() as deployment:

        def kept(number: int) -> Step:
            server = _server(deployment)
            return lambda: expect(server.echo(_VALUE), _VALUE, "an echo")

        def new(number: int) -> Step:
            return lambda: expect(_server(deployment).echo(_VALUE), _VALUE, "an echo")

        beside = _zygote_alone(setting)
        outcome = in_processes(kept, setting.some(100, 2))
        zygote = beside.mean()
        outcome_of_new = in_processes(new, setting.some(40, 2))
        handshakes = limits.handshakes_per_second(deployment, setting.some(150, 10))
    limit = Limit(zygote, "the zygote alone: calls that exit at once")
    yield Figure("direct", outcome.rate, RATE, limit, 450)
    limit = Limit(1 / (1 / zygote + 1 / handshakes), "such a call and a bare TLS handshake each")
    yield Figure("direct, new", outcome_of_new.rate, RATE, limit)


def _zygote_alone(setting: Setting) -> limits.Beside:
    calls_at_most = setting.some(700, 50)
    return limits.Beside(lambda: fork_limits.zygote_calls_per_second(calls_at_most))


def _server(deployment: Deployment) -> harp.HarpServer:
    return harp.HarpServer("127.0.0.1", USER, PASSWORD, deployment.harpd_port, deployment.ca_file)


def _call(deployment: Deployment) -> Step:
    server = caller(deployment).host(HOST)
    return lambda: expect(server.echo(_VALUE).get(), _VALUE, "an echo")
