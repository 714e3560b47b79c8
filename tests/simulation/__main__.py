"""The simulation by hand.

``python -m tests.simulation SEED`` runs one seed and tells what happens;
``python -m tests.simulation --seeds N --from M`` runs many and tells of those that fail.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback

from tests.simulation.violation import Violation
from tests.simulation.world import run


def tell(seed: int) -> int:
    """Run one seed and tell what happens; return 1 if it failed."""
    try:
        run(seed, print)
    except Violation as violation:
        traceback.print_exception(violation.__cause__)
        print(violation)
        return 1
    return 0


def main() -> int:
    """Run what the command line says; return 1 if a seed failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("seed", type=int, nargs="?", help="run this one and tell what happens")
    parser.add_argument("--seeds", type=int, default=1000, help="how many to run")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first of them")
    options = parser.parse_args()
    if options.seed is not None:
        return tell(options.seed)
    failed = 0
    begun = time.monotonic()
    for seed in range(options.first, options.first + options.seeds):
        try:
            run(seed)
        except Violation as violation:
            failed += 1
            print(f"{violation}\n    python -m tests.simulation {seed}", flush=True)
    rate = options.seeds / (time.monotonic() - begun)
    print(f"{options.seeds} seeds, {failed} failed, {rate:.0f} a second")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
