"""What many running jobs and many followers cost the dispatcher."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack

from bench import fork_limits, limits
from bench.clients import CLIENTS, Step, in_processes, repeat
from bench.figures import Figure, Limit
from bench.processes import descriptors, resident, wait_until_idle
from bench.setting import (
    PATIENCE,
    STAND_IN,
    Setting,
    caller,
    dispatcher_pid,
    expect,
    wait_for,
)
from harpcaller.demo.deployment import HOST, Deployment

_KB = 1000
_AT_ONCE = 40
"""Connections that may wait to be accepted: with more than 50 Linux drops them for a second."""


def running(setting: Setting) -> Iterator[Figure]:
    """Have many jobs run at once, then make new calls."""
    each = setting.some(5000 // CLIENTS + 1)
    jobs = each * CLIENTS
    with setting.daemons_and_stand_in(max_running=2 * jobs) as (deployment, stand_in):
        pid = dispatcher_pid(deployment)
        wait_until_idle(pid)
        before = resident(pid)

        def prepare(number: int) -> Step:
            server = caller(deployment).host(STAND_IN)
            return lambda: server.hold("a job", number)

        in_processes(prepare, each)
        wait_for(stand_in.held, jobs, "jobs that run at once")
        wait_until_idle(pid)
        grown = resident(pid) - before
        limit = Limit(limits.connection_memory(deployment) / _KB, "a bare TLS client's connection")
        yield Figure("running", grown / jobs / _KB, "kB", limit, 100)
        server = caller(deployment).host(HOST)
        outcome = repeat(
            lambda: expect(server.echo("new").get(), "new", "an echo"), setting.some(200, 20)
        )
        bare = fork_limits.bare_call(setting.some(200, 20))
        expect(stand_in.held(), jobs, "jobs that run at once")
    limit = Limit(bare.milliseconds(0.5), "fork and exit with a commit before and after")
    yield Figure("running p50", outcome.milliseconds(0.5), "ms", limit, 15)


def followers(setting: Setting) -> Iterator[Figure]:
    """Have many clients follow a job that streams nothing."""
    wanted = setting.some(10_000)
    with setting.daemons_and_stand_in() as (deployment, stand_in), ExitStack() as opened:
        pid = dispatcher_pid(deployment)
        job = caller(deployment).host(STAND_IN).hold()
        wait_for(stand_in.held, 1, "jobs that run")
        _follow(deployment, job.id()).close()
        wait_until_idle(pid)
        before = resident(pid)
        open_before = descriptors(pid)
        clients: list[socket.socket] = []
        while len(clients) < wanted:
            for _ in range(min(_AT_ONCE, wanted - len(clients))):
                clients.append(opened.enter_context(_follow(deployment, job.id())))
            wait_for(lambda: descriptors(pid) - open_before, len(clients), "connections")
        wait_until_idle(pid)
        grown = resident(pid) - before
        stand_in.let_go()
        for client in clients:
            with client.makefile("rb") as replies:
                expect(replies.read(), b'{"result":[]}\n', "what a follower gets in the end")
    limit = Limit(limits.transport_memory() / _KB, "an idle connection of a bare Twisted server")
    yield Figure("followers", grown / wanted / _KB, "kB", limit, 10)


def _follow(deployment: Deployment, job_id: str) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", deployment.port), PATIENCE)
    client.sendall(json.dumps({"harpcaller": 1, "follow_stream": job_id}).encode() + b"\n")
    return client
