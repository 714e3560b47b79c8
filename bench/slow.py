"""Readers that do not read while a procedure streams a lot: what piles up, and who waits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import harp
from bench.figures import Figure, Limit, WrongResultError
from bench.processes import family, forget_peak, peak, resident, wait_until_idle
from bench.setting import Setting, caller, dispatcher_pid, expect, harpd_pid
from harpcaller.demo.deployment import HOST, PASSWORD, USER, Deployment

_SIZE = 10_000
_BYTES = 200_000_000
_LEAST = 2_000
"""Packets that are more than all sockets on the way can keep."""

_MB = 1_000_000
_GOAL = 20


def slow(setting: Setting) -> Iterator[Figure]:
    """Stream to a follower by the dispatcher, then to a direct client."""
    count = setting.some(_BYTES // _SIZE, _LEAST)
    ways = {"follower": _by_dispatcher, "direct": _directly}
    with setting.daemons() as deployment:
        for name, way in ways.items():
            memory = _Memory(deployment)
            growth = {"the process of the call": way(deployment, count), **memory.growth()}
            most = max(growth, key=growth.__getitem__)
            limit = Limit(count * _SIZE / _MB, f"all that is streamed; {most} grew most")
            yield Figure(f"slow {name}", growth[most] / _MB, "MB", limit, _GOAL)


def _by_dispatcher(deployment: Deployment, count: int) -> int:
    """Let the job end although its follower does not read; who then gets everything."""
    job = caller(deployment).host(HOST).flood(count, _SIZE)
    with job.follow(since=0) as packets:
        grown = job.get()
        next(packets)  # the process id
        expect(_read(packets), count, "packets for the follower that came late to read")
    return int(grown)


def _directly(deployment: Deployment, count: int) -> int:
    """Let the process of the call wait for its reader, who then gets everything."""
    server = harp.HarpServer("127.0.0.1", USER, PASSWORD, deployment.harpd_port, deployment.ca_file)
    with server.flood(count, _SIZE) as packets:
        try:
            wait_until_idle(next(packets))
        except FileNotFoundError:
            raise WrongResultError("the call has ended without its reader") from None
        end: list[harp.Result] = []
        texts = (packet for packet in packets if not _is_end(packet, end))
        expect(_read(texts), count, "packets for the direct reader")
    return int(end[0].value)


def _is_end(packet: object, end: list[harp.Result]) -> bool:
    if isinstance(packet, harp.Result):
        end.append(packet)
        return True
    return False


def _read(packets: Iterable[str]) -> int:
    return sum(len(packet) == _SIZE for packet in packets)


class _Memory:
    """How much the daemons have grown at most since this was made."""

    def __init__(self, deployment: Deployment) -> None:
        self._names = {dispatcher_pid(deployment): "the dispatcher"}
        front = harpd_pid(deployment)
        for pid in family(front):
            self._names[pid] = "harpd" if pid == front else "the zygote or its guard"
        self._before = {}
        for pid in self._names:
            wait_until_idle(pid)
            forget_peak(pid)
            self._before[pid] = resident(pid)

    def growth(self) -> dict[str, int]:
        """Return the growth in bytes."""
        grown: dict[str, int] = {}
        for pid, before in self._before.items():
            name = self._names[pid]
            grown[name] = max(grown.get(name, 0), peak(pid) - before)
        return grown
