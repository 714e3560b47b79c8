"""Loads the real daemons for as long as one likes while random faults befall them, then judges.

By hand: ``python -m tests.acceptance.soak --minutes 60 --seed 7``. In the first part of the run
processes are killed too; in the second none is, so that memory and descriptors of one and the same
process at rest can be compared. What is done is chosen by the seed, what that meets is chance.
"""

from __future__ import annotations

import argparse
import errno
import os
import random
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import harp
from harpcaller.demo.deployment import HOST, Daemon, Deployment
from tests.acceptance import kill_loops, usage, verdict
from tests.acceptance.cutting_network import CuttingNetwork
from tests.acceptance.daemons import PATIENCE, connect_harpd, deploy, harpd_processes
from tests.acceptance.load import Calls
from tests.acceptance.steady_load import SteadyLoad
from tests.acceptance.test_followers import Follower
from tests.faults import preload

RATE = 250.0
"""Calls a second: half of what ``bench calls`` reaches on two cores."""

CALM = 0.4
"""Which part of the run is without kills."""

REST = 65.0
"""Seconds without calls before memory and descriptors are looked at: the dispatcher keeps
connections with harpd for a minute."""

BETWEEN = (1.0, 6.0)
"""Seconds from the end of one fault to the next."""

STANDSTILL = (0.1, 3.0)
"""Seconds for which a process is stopped."""

HELD = (2.0, 20.0)
"""Seconds for which connections that are a nuisance stay."""

CUTS = 0.001
"""How likely a kept connection is cut at a request."""

MAX_AGE = 0.25
"""Hours after which the dispatcher forgets a job, so that its database has an end."""

JUMP = 300
"""Seconds by which a clock jumps at most; less than jobs are kept."""

LOG = 64 << 20
"""Bytes of log after which it is begun anew."""

FAIR = (b" printed: ", b"StoreError")
"""What stands in lines of the log whose tracebacks are no mistakes."""

SHOWN = 5
"""How many tracebacks are shown."""

TOLD = 60.0
"""Seconds between two lines that tell how far it is."""

_STREAM = 20_000  # packets of the job that slow followers follow


class Faults:
    """What befalls a running deployment.

    :ivar done: how often each kind did.
    """

    def __init__(
        self, deployment: Deployment, marks: Path, seed: int, orders: preload.Orders | None
    ) -> None:
        self.done: Counter[str] = Counter()
        self._deployment = deployment
        self._marks = marks
        self._choice = random.Random(seed)
        self._held: list[tuple[float, Callable[[], None]]] = []
        self._due: list[list[str]] = []
        self._calls = Calls(deployment.port, {"stream": 1}, [_STREAM])
        self._mild: list[Callable[[], str]] = [
            self._stand_still,
            self._stand_still,
            self._reload,
            self._silent,
            self._garbage,
            self._slow_followers,
        ]
        self._orders = orders
        if orders is not None:
            self._mild += [self._disk, self._clock]

    def one(self, kills: bool) -> None:
        """Do one after a while, and end what is over by then.

        :param kills: whether it may end a process.
        """
        time.sleep(self._choice.uniform(*BETWEEN))  # a moment by chance; nothing is waited for
        self.release(time.monotonic())
        if kills and self._choice.random() < 0.5:
            if not self._due:
                self._due = self._choice.sample(kill_loops.VICTIMS, len(kill_loops.VICTIMS))
            victims = self._due.pop()
            kill_loops.kill(self._deployment, victims, self._choice)
            self.done[f"killed {' and '.join(victims)}"] += 1
            return
        fault = self._choice.choice(self._mild)
        with suppress(OSError, harp.HarpException):  # a connection may be refused, that is fair
            self.done[fault()] += 1

    def release(self, until: float) -> None:
        """Close the connections that are held until then at most."""
        for _, close in [each for each in self._held if each[0] <= until]:
            close()
        self._held = [each for each in self._held if each[0] > until]

    def _hold(self, close: Callable[[], None]) -> None:
        self._held.append((time.monotonic() + self._choice.uniform(*HELD), close))

    def _daemon(self) -> Daemon:
        return self._choice.choice([self._deployment.harpd, self._deployment.harpcaller])

    def _stand_still(self) -> str:
        helpers = harpd_processes(self._deployment)
        pids = {name: pid for name, pid in helpers.items() if pid is not None}
        for daemon in (self._deployment.harpd, self._deployment.harpcaller):
            assert daemon.process is not None
            pids[daemon.name] = daemon.process.pid
        name = self._choice.choice(sorted(pids))
        with suppress(ProcessLookupError):  # a zygote that had just been replaced
            os.kill(pids[name], signal.SIGSTOP)
            time.sleep(self._choice.uniform(*STANDSTILL))  # the fault itself
            os.kill(pids[name], signal.SIGCONT)
        return f"stopped {name} for a while"

    def _reload(self) -> str:
        daemon = self._daemon()
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGHUP)
        return f"reloaded {daemon.name}"

    def _port(self) -> int:
        return self._choice.choice([self._deployment.port, self._deployment.harpd_port])

    def _silent(self) -> str:
        """Say nothing, on one of the connections behind a handshake."""
        for _ in range(self._choice.randrange(1, 50)):
            self._hold(socket.create_connection(("127.0.0.1", self._port()), PATIENCE).close)
        self._hold(connect_harpd(self._deployment).close)
        return "silent connections"

    def _garbage(self) -> str:
        """Send random bytes, and half of a request."""
        for _ in range(self._choice.randrange(1, 20)):
            connection = socket.create_connection(("127.0.0.1", self._port()), PATIENCE)
            self._hold(connection.close)
            half = b'{"harpcaller":1,"get_result":"'
            connection.sendall(self._choice.choice([self._choice.randbytes(3000), half]))
        with connect_harpd(self._deployment) as secured:
            secured.sendall(self._choice.randbytes(3000))
        return "garbage"

    def _slow_followers(self) -> str:
        """Follow a stream by ten that take a little of it and then nothing more."""
        mark = self._marks / f"followed-{self._choice.getrandbits(64):x}"
        job = self._calls.submit(self._choice, mark).job
        for _ in range(10):
            follower = Follower(self._deployment, job, since=0)
            self._hold(follower.close)
            follower.read(bool)
        return "slow followers"

    def _disk(self) -> str:
        """Let the dispatcher's disk fail for a while."""
        assert self._orders is not None
        if self._choice.random() < 0.5:
            self._orders.give(sync_error=errno.EIO)
            what = "failing disk"
        else:
            self._orders.give(write_error=errno.ENOSPC)
            what = "full disk"
        time.sleep(self._choice.uniform(*STANDSTILL))  # the fault itself
        self._orders.give()
        return what

    def _clock(self) -> str:
        """Set the dispatcher's clock, and set it right after a while."""
        assert self._orders is not None
        self._orders.give(clock=self._choice.randrange(-JUMP, JUMP))
        time.sleep(self._choice.uniform(*STANDSTILL))  # the fault itself
        self._orders.give()
        return "jumping clock"


class Logs:
    """The daemons' logs: what may be a mistake of theirs is counted, and they are kept short.

    :ivar tracebacks: how many each has written.
    :ivar first: the lines of the first ones.
    """

    def __init__(self, deployment: Deployment) -> None:
        self.tracebacks: Counter[str] = Counter()
        self.first: list[str] = []
        self._read = {deployment.harpd: 0, deployment.harpcaller: 0}

    def look(self) -> None:
        """Read what is new; to be called while no daemon is being started."""
        for daemon, seen in self._read.items():
            with open(daemon.log, "rb") as log:
                log.seek(seen)
                new = log.read()
            self._read[daemon] += len(new)
            for line in new.splitlines():
                # What calls print is theirs, and a disk may fail.
                if b"Traceback" in line and not any(fair in line for fair in FAIR):
                    self.tracebacks[daemon.name] += 1
                    if len(self.first) < SHOWN:
                        self.first.append(line.decode(errors="replace"))
            if self._read[daemon] > LOG:
                os.truncate(daemon.log, 0)  # what is written between is not missed much
                self._read[daemon] = 0


class Soak:
    """One run.

    :param orders: for its dispatcher, None if they can't be given here.
    :param rate: calls a second.
    :param rest: seconds before memory and descriptors are looked at.
    """

    def __init__(
        self,
        deployment: Deployment,
        orders: preload.Orders | None,
        seed: int,
        rate: float,
        rest: float,
    ) -> None:
        self._deployment = deployment
        self._rest = rest
        self._extra = _folder(deployment)
        self._marks = _folder(deployment)
        self._load = SteadyLoad(deployment.port, self._marks, rate, seed)
        self._faults = Faults(deployment, self._extra, seed, orders)
        self._logs = Logs(deployment)
        self._used: list[dict[str, usage.Usage]] = []
        self._told: Counter[str] = Counter()

    def part(self, seconds: float, kills: bool) -> None:
        """Call and do faults for so long, then rest and look at memory and descriptors."""
        print(f"{seconds:.0f} s {'with' if kills else 'without'} kills", flush=True)
        began = told = time.monotonic()
        self._load.start()
        while (now := time.monotonic()) < began + seconds:
            self._faults.one(kills)
            self._logs.look()
            self._load.sweep()
            if now > told + TOLD:
                told = now
                print(f"{now - began:6.0f} s: {self._counts()}", flush=True)
        self._faults.release(float("inf"))
        self._load.pause()
        print(f"ends in this part: {_listed(self._load.ends - self._told)}", flush=True)
        self._told = Counter(self._load.ends)
        for mark in self._extra.iterdir():
            mark.unlink()
        time.sleep(self._rest)  # as long as connections are kept, which nothing tells
        self._logs.look()
        self._used.append(usage.of_daemons(self._deployment))

    def judge(self) -> bool:
        """Print what came of it; return whether all was as it should be."""
        self._load.stop()
        self._load.sweep()
        start, end = self._used
        print(self._counts())
        for what, counted in (
            ("faults", self._faults.done),
            ("ends in all", self._load.ends),
            ("not acknowledged", self._load.refused),
            ("tracebacks in the logs", self._logs.tracebacks),
        ):
            print(f"{what}: {_listed(counted)}")
        for name in end:
            print(f"{name}: at rest before the part without kills {start.get(name, 'not there')}")
            print(f"{name}: at rest at the end {end[name]}")
        for text in self._logs.first:
            print(f"from a log: {text}")
        wrong = [
            *self._load.faults,
            *verdict.of_processes(self._marks, PATIENCE),
            *usage.growth(start, end),
        ]
        print("\n".join(wrong) or "nothing is wrong")
        return not wrong

    def _counts(self) -> str:
        load = self._load
        return (
            f"{load.acknowledged} calls, {sum(self._faults.done.values())} faults,"
            f" {load.lost} lost, {load.duplicated} duplicated, {load.other} wrong otherwise"
        )


def run(minutes: float, seed: int, rate: float, rest: float) -> bool:
    """Do it all, and tell; return whether all was as it should be.

    :param minutes: for how long calls are made; two rests come on top.
    """
    harpd = {"kill_grace": kill_loops.KILL_GRACE}
    deployment = deploy(kill_loops.PROCEDURES, harpd, max_age=MAX_AGE)
    orders = None
    if reason := preload.missing():
        print(f"no faults of disk and clock: {reason}")
    else:
        orders = preload.Orders(deployment.harpcaller)
    with deployment, CuttingNetwork(deployment.harpd_port, seed, CUTS) as network:
        deployment.set_hosts({HOST: deployment.host_entry(port=network.port)})
        harp.HarpCaller("127.0.0.1", deployment.port).refresh_hosts()
        soak = Soak(deployment, orders, seed, rate, rest)
        soak.part((1 - CALM) * 60 * minutes, kills=True)
        soak.part(CALM * 60 * minutes, kills=False)
        print(f"connections cut: {dict(network.cuts)}")
        return soak.judge()


def _listed(counted: Counter[str]) -> str:
    return ", ".join(f"{many} {name}" for name, many in sorted(counted.items()))


def _folder(deployment: Deployment) -> Path:
    return Path(tempfile.mkdtemp(prefix="marks-", dir=deployment.folder))


def main() -> None:
    """Run by hand."""
    parser = argparse.ArgumentParser(prog="python -m tests.acceptance.soak")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--rate", type=float, default=RATE, help="calls a second")
    parser.add_argument("--rest", type=float, default=REST, help="seconds at rest, twice")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    sys.exit(0 if run(options.minutes, options.seed, options.rate, options.rest) else 1)


if __name__ == "__main__":
    main()
