"""Kills the real daemons under load again and again, then looks whether every promise was kept.

The short form is a test; a longer one by hand: ``python -m tests.acceptance.kill_loops --seconds
300 --seed 7``. What the clients do is chosen by the seed, what that meets is chance.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import harp
from harpcaller.demo.deployment import HOST, Daemon, Deployment
from tests.acceptance import verdict
from tests.acceptance.cutting_network import CuttingNetwork
from tests.acceptance.daemons import PATIENCE, deploy, eventually, harpd_processes, is_alive
from tests.acceptance.load import Load

PROCEDURES = Path(__file__).with_name("marking_procedures.py")

KILL_GRACE = 0.5
"""Seconds between TERM and KILL, which those that are deaf to TERM take."""

VICTIMS = (
    ["harpcaller"],
    ["harpd"],
    ["zygote"],
    ["guard"],
    ["keeper"],
    ["harpcaller", "harpd"],
    ["harpcaller", "zygote"],
    ["harpd", "guard"],
    ["harpd", "keeper"],
    ["keeper", "zygote"],
    ["harpd", "zygote"],
    ["guard", "zygote"],
)
"""What is killed at once, each of them once before any comes again."""

BETWEEN = (0.2, 1.0)
"""Seconds from all being up to the next kill."""

STILL = (0.02, 0.2)
"""Seconds for which a harpd stands still before it is killed."""

END_LIMIT = 60.0
"""Seconds within which all jobs must end when nothing is killed any more."""


@dataclass(frozen=True)
class Report:
    """What came of it.

    :param kills: how often something was killed.
    :param jobs: how many calls were acknowledged.
    :param ends: how many of them ended how.
    :param cuts: how often a connection that had carried a call was cut at which moment of the next.
    :param faults: what was promised and not kept, nothing if all is well.
    """

    kills: int
    jobs: int
    ends: dict[str, int]
    cuts: dict[str, int]
    faults: list[str]


def deployment() -> Deployment:
    """Return what can be loaded, not started."""
    return deploy(PROCEDURES, {"kill_grace": KILL_GRACE})


def run(deployment: Deployment, seconds: float, kills: int, seed: int) -> Report:
    """Load a running deployment, kill its daemons for a while, and judge.

    :param seconds: for how long; the end, when all jobs have to end, comes on top.
    :param kills: how many there must be, however slow the machine is.
    """
    choice = random.Random(seed)
    marks = Path(tempfile.mkdtemp(prefix="marks-", dir=deployment.folder))
    load = Load(deployment.port, marks, str(seed))
    outages: list[verdict.Outage] = []
    due: list[list[str]] = []
    with CuttingNetwork(deployment.harpd_port, seed) as network:
        deployment.set_hosts({HOST: deployment.host_entry(port=network.port)})
        harp.HarpCaller("127.0.0.1", deployment.port).refresh_hosts()
        load.start()
        try:
            until = time.monotonic() + seconds
            while time.monotonic() < until or len(outages) < kills:
                time.sleep(choice.uniform(*BETWEEN))  # a moment by chance; nothing is waited for
                if not due:
                    due = choice.sample(VICTIMS, len(VICTIMS))
                outages.append(kill(deployment, due.pop(), choice))
        finally:
            load.stop()
        ends = verdict.ends(load.submissions, END_LIMIT)
    faults = [
        *[f"a client broke: {error!r}" for error in load.broken],
        *verdict.of_jobs(ends),
        *verdict.of_queues(ends, outages),
        *verdict.of_marks(marks),
        *verdict.of_processes(marks, PATIENCE),
    ]
    return Report(len(outages), len(ends), verdict.count(ends), dict(network.cuts), faults)


def kill(deployment: Deployment, victims: list[str], choice: random.Random) -> verdict.Outage:
    """Kill them one right after the other and start what was killed again."""
    daemons: dict[str, Daemon] = {"harpd": deployment.harpd, "harpcaller": deployment.harpcaller}
    inner = harpd_processes(deployment)
    began = time.monotonic_ns()
    for victim in choice.sample(victims, len(victims)):
        if victim == "harpd":
            _end_harpd(deployment.harpd, choice)
        elif victim in daemons:
            daemons[victim].kill()
        elif (pid := inner[victim]) is not None:
            _kill_process(pid)
    if "keeper" in victims and "harpd" not in victims:
        _end_harpd(deployment.harpd, choice)  # which has to be started again, as it says
        victims = [*victims, "harpd"]
    if any(inner.get(victim) is not None for victim in victims):
        # What a guard has adopted meanwhile would be taken for the next zygote.
        pair = [pid for name, pid in inner.items() if pid is not None and name != "keeper"]
        eventually(lambda: not any(map(is_alive, pair)), "guard and zygote have both ended")
    for victim in choice.sample(victims, len(victims)):
        if victim in daemons:
            daemons[victim].start()
    return verdict.Outage(began, time.monotonic_ns())


def _end_harpd(harpd: Daemon, choice: random.Random) -> None:
    """Kill harpd, which may have stood still while requests came, or stop it in good order."""
    assert harpd.process is not None
    how = choice.random()
    if how < 0.25:
        harpd.stop()
        return
    if how < 0.5:
        harpd.process.send_signal(signal.SIGSTOP)
        time.sleep(choice.uniform(*STILL))  # nothing tells what lies in its sockets
    harpd.kill()


def _kill_process(pid: int) -> None:
    with suppress(ProcessLookupError):  # what killed the one above it was faster
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: not is_alive(pid), f"process {pid} ends")


def main() -> None:
    """Run by hand."""
    parser = argparse.ArgumentParser(prog="python -m tests.acceptance.kill_loops")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    with deployment() as loaded:
        report = run(loaded, options.seconds, 0, options.seed)
    print(f"{report.jobs} jobs, {report.kills} kills, ends: {report.ends}")
    print(f"cut connections: {report.cuts}")
    for fault in report.faults:
        print(fault)
    sys.exit(1 if report.faults else 0)


if __name__ == "__main__":
    main()
