"""The procedures of the benchmarks in a zygote whose forks exit at once."""

import os

from bench.procedures import *  # noqa: F403 - they are all there, for a fork to cost as much

os.register_at_fork(after_in_child=lambda: os._exit(0))
