"""Where benchmarks run: daemons in folders of their own, and how much there is to do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import harp
from bench.figures import WrongResultError
from bench.standin import StandIn
from harpcaller.demo.deployment import HOST, Deployment

STAND_IN = "standin.example.net"
"""The host whose harpd is the stand-in."""

PATIENCE = 60.0
"""Seconds of nothing new after which what a benchmark waits for is taken never to come."""

_LOOK = 0.01
"""Seconds between two looks."""

_PROCEDURES = Path(__file__).with_name("procedures.py")


@dataclass(frozen=True)
class Setting:
    """What all benchmarks of one run share.

    :param folder: for the files of the daemons.
    :param divisor: by how much all counts are divided, for who wants to see it work, not figures.
    :param profiles: the folder for what the daemons' profiler writes, None if they have none.
    """

    folder: Path
    divisor: int = 1
    profiles: Path | None = None

    def some(self, full: int, least: int = 1) -> int:
        """Return how many of something are wanted.

        :param full: how many for figures.
        :param least: how many there must be in any case.
        """
        return max(full // self.divisor, least)

    def deployment(self, **limits: Any) -> Deployment:
        """Return daemons that are not started.

        :param limits: more keys for the dispatcher's configuration.
        """
        folder = next(
            place for number in count() if not (place := self.folder / str(number)).exists()
        )
        deployment = Deployment(folder, _PROCEDURES, limits)
        if self.profiles is not None:
            for daemon in (deployment.harpd, deployment.harpcaller):
                daemon.profile(self.profiles / f"{folder.name}-{daemon.name}.stats")
        return deployment

    @contextmanager
    def daemons(self, **limits: Any) -> Iterator[Deployment]:
        """Start daemons, warm them up, and stop them in the end."""
        with self.deployment(**limits) as deployment:
            warm_up(deployment)
            yield deployment

    @contextmanager
    def daemons_and_stand_in(self, **limits: Any) -> Iterator[tuple[Deployment, StandIn]]:
        """Start daemons, and the host `STAND_IN` beside the usual one."""
        deployment = self.deployment(**limits)
        with StandIn(deployment.folder) as stand_in:
            deployment.set_hosts(
                {
                    HOST: deployment.host_entry(),
                    STAND_IN: deployment.host_entry(port=stand_in.port),
                }
            )
            with deployment:
                warm_up(deployment, HOST, STAND_IN)
                yield deployment, stand_in


def caller(deployment: Deployment) -> harp.HarpCaller:
    """Return a client of a dispatcher."""
    return harp.HarpCaller("127.0.0.1", deployment.port)


def dispatcher_pid(deployment: Deployment) -> int:
    """Return the dispatcher's process id."""
    assert deployment.harpcaller.process is not None
    return deployment.harpcaller.process.pid


def harpd_pid(deployment: Deployment) -> int:
    """Return the process id of harpd's network-facing process."""
    assert deployment.harpd.process is not None
    return deployment.harpd.process.pid


def expect(found: object, wanted: object, what: str) -> None:
    """Say so if something is not what it must be.

    :raises WrongResultError: if it is not.
    """
    if found != wanted:
        raise WrongResultError(f"{what}: {found!r}, not {wanted!r}")


def wait_for(count: Callable[[], int], wanted: int, what: str) -> None:
    """Return as soon as there are as many of something as are wanted.

    :raises WrongResultError: if there are more, or the count does not change any more.
    """
    deadline, before = time.monotonic() + PATIENCE, -1
    while (found := count()) != wanted:
        if found != before:
            deadline, before = time.monotonic() + PATIENCE, found
        if found > wanted or time.monotonic() > deadline:
            raise WrongResultError(f"{what}: {found}, not {wanted}")
        time.sleep(_LOOK)


def warm_up(deployment: Deployment, *hosts: str) -> None:
    """Make some calls, so that nothing is done for the first time when it is measured."""
    rpc = caller(deployment)
    for host in hosts or (HOST,):
        for _ in range(20):
            rpc.host(host).echo(1).get()
