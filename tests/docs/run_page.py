"""Runs what is to be run of one page, from its first block to its last.

It is called as ``python -m tests.docs.run_page PAGE``, in the page's folder and with the
environment that ``tests.docs.setting`` gives.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path
from types import CodeType
from typing import Any

from tests.docs.pages import blocks
from tests.docs.shell import Shell, compare


def run(page: Path) -> None:
    """Run them.

    :raises AssertionError: if they do not print what the page says.
    """
    shell = Shell(Path.cwd(), dict(os.environ))
    with contextlib.closing(shell):
        namespace: dict[str, Any] = {"__name__": "__main__"}
        printed = io.StringIO()
        for block in blocks(page):
            match block.kind:
                case "client":
                    # Blank lines before it, so that a traceback names the line of the page.
                    code = compile("\n" * (block.line - 1) + block.text, str(page), "exec")
                    with contextlib.redirect_stdout(printed):
                        _execute(code, namespace)
                case "output":
                    compare(block.place, block.text, printed.getvalue())
                    printed = io.StringIO()
                case "console" if block.of == "stays":
                    shell.stay(block.place, block.text)
                case "console":
                    shell.type(block.place, block.text)
                case "write" | "append":
                    _write(Path(block.of), block.text, "w" if block.kind == "write" else "a")


def _execute(code: CodeType, namespace: dict[str, Any]) -> None:
    try:
        exec(code, namespace)
    except SystemExit as end:
        if end.code:  # a program that runs a reactor ends by this
            raise


def _write(path: Path, text: str, mode: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, mode) as file:
        file.write(text)


if __name__ == "__main__":
    run(Path(sys.argv[1]))
