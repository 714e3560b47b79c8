"""Runs the benchmarks against real daemons on this machine and prints a table.

Rates depend on the machine and on what else it does: what is to be compared are the ratios.
"""

from __future__ import annotations

import argparse
import json
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from bench import calls, history, queues, scale, slow, streams
from bench.figures import Figure, WrongResultError, head, machine
from bench.setting import Setting
from harp import HarpException

BENCHMARKS: dict[str, Callable[[Setting], Iterable[Figure]]] = {
    "latency": calls.latency,
    "calls": calls.calls,
    "direct": calls.direct,
    "submit": queues.submit,
    "drain": queues.drain,
    "stream": streams.stream,
    "streams": streams.streams,
    "replay": streams.replay,
    "running": scale.running,
    "followers": scale.followers,
    "history": history.history,
    "slow": slow.slow,
}

_QUICK = 100


def main() -> int:
    """Run what the command line says; return the exit status.

    Missing a goal is no failure, for it may be the machine's. A wrong result is one.
    """
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to a file too")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="do a hundredth of it: shows that it works, the figures mean nothing",
    )
    parser.add_argument(
        "--profile",
        type=Path,
        metavar="FOLDER",
        help="have the daemons write there what they do all the time, for pstats; it slows them",
    )
    options = parser.parse_args()
    if unknown := set(options.names) - BENCHMARKS.keys():
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    about = machine()
    figures: list[Figure] = []
    mistakes: dict[str, str] = {}
    seconds: dict[str, float] = {}
    print(head(), flush=True)
    for name in options.names or BENCHMARKS:
        begin = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="harpcaller-bench-") as folder:
            profiles = None if options.profile is None else options.profile / name
            if profiles is not None:
                profiles.mkdir(parents=True, exist_ok=True)
            setting = Setting(Path(folder), _QUICK if options.quick else 1, profiles)
            try:
                for figure in BENCHMARKS[name](setting):
                    print(figure.row(), flush=True)
                    figures.append(figure)
            except (WrongResultError, HarpException) as error:
                print(f"{name}: WRONG: {error}", flush=True)
                mistakes[name] = str(error)
        seconds[name] = round(time.monotonic() - begin, 1)
    print(f"{sum(seconds.values()):.0f} seconds", flush=True)
    if options.json is not None:
        found = {
            "machine": about,
            "figures": [figure.as_json() for figure in figures],
            "mistakes": mistakes,
            "seconds": seconds,
        }
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    return 1 if mistakes else 0


def _prepare_process() -> None:
    """Let this process and what it starts have as many descriptors as they may, and end in order.

    The daemons have sessions of their own: what ends this process must not leave them behind.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


if __name__ == "__main__":
    _prepare_process()
    sys.exit(main())
