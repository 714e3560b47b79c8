"""Runs the client's blocks of one page as one program.

It is called as ``python -m tests.docs.run_page PAGE PORTS``.
``PORTS`` is a JSON object: which port of this machine stands for which in the examples. Whatever
the name of a host is, it is this machine, so that the examples are run as they stand there.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import json
import socket
import sys
from pathlib import Path
from types import CodeType
from typing import Any

from tests.docs.pages import blocks


def run(page: Path) -> None:
    """Run them.

    :raises AssertionError: if they do not print what the page says.
    """
    namespace: dict[str, Any] = {"__name__": "__main__"}
    printed = io.StringIO()
    for block in blocks(page):
        if block.kind == "client":
            # Blank lines before it, so that a traceback names the line of the page.
            code = compile("\n" * (block.line - 1) + block.text, str(page), "exec")
            with contextlib.redirect_stdout(printed):
                _execute(code, namespace)
        elif block.kind == "output":
            _compare(f"{page}:{block.line}", block.text, printed.getvalue())
            printed = io.StringIO()


def _execute(code: CodeType, namespace: dict[str, Any]) -> None:
    try:
        exec(code, namespace)
    except SystemExit as end:
        if end.code:  # a program that runs a reactor ends by this
            raise


def _compare(where: str, wanted: str, printed: str) -> None:
    checker = doctest.OutputChecker()
    if not checker.check_output(wanted, printed, doctest.ELLIPSIS):
        raise AssertionError(f"{where}: the page says\n{wanted}\nthe program says\n{printed}")


def redirect(ports: dict[str, int]) -> None:
    """Let every name be this machine, and its well-known ports the ones that are free here."""
    look_up = socket.getaddrinfo

    def here(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        return look_up("127.0.0.1", ports.get(str(port), port), *args, **kwargs)

    socket.getaddrinfo = here


if __name__ == "__main__":
    redirect(json.loads(sys.argv[2]))
    run(Path(sys.argv[1]))
