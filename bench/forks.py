"""A zygote that does nothing but fork: what the limit of forking is measured with.

It has in memory what the real one has, the procedures file included, for the cost of a fork
follows that. For each line it reads, a number, it forks as many children, which exit at once, and
answers with how long that took in seconds. Run as a program: ``python -P forks.py PROCEDURES``.
"""

from __future__ import annotations

import gc
import os
import sys
import time

import harpd.zygote  # noqa: F401
from harpd.catalogue import load
from harpd.options import Defaults

IN_FLIGHT = 4
"""How many children it does not wait for, so that they can end while it forks the next."""


def main() -> None:
    """Load the procedures, then fork as told."""
    load(sys.argv[1], Defaults())
    gc.collect()
    gc.freeze()
    print(flush=True)  # ready
    for line in sys.stdin:
        begin = time.perf_counter()
        _fork(int(line))
        print(time.perf_counter() - begin, flush=True)


def _fork(count: int) -> None:
    for number in range(count):
        if number >= IN_FLIGHT:
            os.wait()
        if os.fork() == 0:
            os._exit(0)
    for _ in range(min(count, IN_FLIGHT)):
        os.wait()


if __name__ == "__main__":
    main()
