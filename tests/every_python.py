"""Runs the tests on every Python from 3.11 on that this machine has: ``make test-all``.

Each has an environment of its own in ``.venvs``, made by ``make``. Modules of trial that are named
as arguments are run instead of all tests.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]

OLDEST = (3, 11)

_NAME = re.compile(r"python3(\.[0-9]+)?")
_ASK = "import platform, sys; print(sys.implementation.name, platform.python_version())"
_VERSION = re.compile(r"cpython (([0-9]+)\.([0-9]+)\.[0-9]+)")  # none that is not released
_RAN = re.compile(r"^Ran ([0-9]+) tests", re.MULTILINE)


def candidates() -> Iterator[Path]:
    """Find what could be an interpreter: in pyenv's folders and in PATH."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    folders = [*sorted(pyenv.glob("versions/*/bin"))]
    folders += map(Path, os.environ.get("PATH", "").split(os.pathsep))
    for folder in folders:
        if folder != pyenv / "shims" and folder.is_dir():
            yield from (file for file in sorted(folder.iterdir()) if _NAME.fullmatch(file.name))


def interpreters() -> dict[str, Path]:
    """Return the interpreters by their versions, of several with the same version one."""
    found: dict[str, Path] = {}
    seen: set[Path] = set()
    for file in candidates():
        real = file.resolve()
        # An environment is not an interpreter of its own, but links to one.
        if real in seen or (file.parent.parent / "pyvenv.cfg").exists():
            continue
        seen.add(real)
        asked = subprocess.run([file, "-c", _ASK], capture_output=True, text=True, check=False)
        match = _VERSION.fullmatch(asked.stdout.strip())
        if match and (int(match[2]), int(match[3])) >= OLDEST:
            found.setdefault(match[1], file)
    return dict(sorted(found.items(), key=lambda each: [int(n) for n in each[0].split(".")]))


def run(version: str, python: Path, tests: list[str]) -> tuple[str, bool]:
    """Run the tests on one of them; return what came of it, and whether that is good."""
    environment = Path(".venvs") / version
    make = ["make", f"VENV={environment}", f"PYTHON={python}", f"{environment}/.installed"]
    (ROOT / ".venvs").mkdir(exist_ok=True)
    if subprocess.run(make, cwd=ROOT, check=False).returncode != 0:
        return "could not be installed", False
    log = ROOT / environment / "test.log"
    trial = [f"{environment}/bin/python", "-W", "error::ResourceWarning", "-m", "twisted.trial"]
    temporary = f"--temp-directory={ROOT / environment / '_trial_temp'}"
    with open(log, "w") as out:
        done = subprocess.run(
            [*trial, temporary, *(tests or ["tests"])],
            cwd=ROOT,
            stdout=out,
            stderr=subprocess.STDOUT,
            check=False,
        )
    said = log.read_text()
    ran = _RAN.search(said)
    count = ran[1] if ran else "0"
    last = said.strip().rpartition("\n")[2]
    is_good = done.returncode == 0 and count != "0"
    where = "" if is_good else f", see {log.relative_to(ROOT)}"
    return f"{count} tests, {last}{where}", is_good


def main() -> None:
    """Run them all, then say of each what came of it."""
    rows = []
    for version, python in interpreters().items():
        print(f"Python {version}, {python}", flush=True)
        start = time.monotonic()
        told, is_good = run(version, python, sys.argv[1:])
        rows.append((version, told, is_good, time.monotonic() - start))
    print()
    for version, told, is_good, seconds in rows:
        print(f"{version:8} {'passed' if is_good else 'FAILED':6} {seconds:5.0f} s  {told}")
    if not rows or not all(is_good for _, _, is_good, _ in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
