"""``python -m tests.fuzz TARGET``: looks for what breaks a property, with atheris."""

from __future__ import annotations

import argparse
import importlib
import os
import stat
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

_PACKAGES = ["harp", "harpd", "harpcaller", "json", "yaml"]


def main() -> None:
    """Run libFuzzer; it ends this process, with status 0 if nothing was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", nargs="?", help="what to try")
    parser.add_argument("--list", action="store_true", help="only print which targets there are")
    parser.add_argument("--seconds", type=int, default=60, help="how long to look (default: 60)")
    parser.add_argument("--found", type=Path, help="folder for inputs that reach something new")
    parser.add_argument("--keep", action="store_true", help="merge that folder into the corpus")
    parser.add_argument("flags", nargs="*", help="behind --: of libFuzzer, instead of our own")
    options = parser.parse_args()
    if options.list:
        from tests.fuzz.targets import TARGETS

        print(*TARGETS, sep="\n")
        return
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=_PACKAGES):
        from tests.fuzz.targets import TARGETS, corpus
    if options.target not in TARGETS:
        parser.error(f"TARGET must be one of {', '.join(TARGETS)}")
    test = TARGETS[options.target]
    if options.flags:
        _fuzz(atheris, test, options.target, options.flags)
    found = options.found or Path(tempfile.mkdtemp(prefix=f"fuzz-{options.target}-"))
    for folder in (found, kept := corpus(options.target)):
        folder.mkdir(parents=True, exist_ok=True)
    print(f"inputs that reach something new: {found}")
    crashes = f"-artifact_prefix={found}{os.sep}crash-"
    how = ["-merge=1", str(kept), str(found)]
    if not options.keep:
        how = [f"-max_total_time={options.seconds}", "-timeout=20", "-max_len=4096"]
        how += ["-rss_limit_mb=1024", crashes, str(found), str(kept)]
    _fuzz(atheris, test, options.target, how)


def _fuzz(atheris: Any, test: Callable[[bytes], object], target: str, flags: list[str]) -> None:
    def run(data: bytes) -> None:
        test(data)

    with tempfile.TemporaryDirectory() as folder:
        # libFuzzer merges in a process of its own, for which it wants a program.
        program = Path(folder) / "again"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m tests.fuzz {target} -- "$@"\n')
        program.chmod(stat.S_IRWXU)
        atheris.Setup([str(program), *flags], run)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
