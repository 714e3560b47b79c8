"""The code blocks of README.md and the documentation, and how each says what a test does with it.

An HTML comment right before a block says so, and readers don't see it:

    <!-- example: procedures -->      Python, a part of the page's procedures file
    <!-- example: client -->          Python, run as a program; the blocks of a page are one
    <!-- example: console -->         commands behind ``$ ``, typed into the page's one shell; other
                                      lines are what the command prints
    <!-- example: console stays -->   one command in another terminal, which runs until the page
                                      ends; the page goes on when it has printed what stands there
    <!-- example: output -->          what the program has printed since the last such block
    <!-- example: write PATH -->      written to this file, in the page's folder
    <!-- example: append PATH -->     the same, behind what is there
    <!-- example: file PATH -->       a piece of this file of the repository, which has tests
    <!-- example: commands -->        commands that change a machine; looked at, not run
    <!-- example: usage -->           how a command is called, with its options
    <!-- example: config NAME -->     keys of a configuration: harpd, harpcaller, hosts or harp
    <!-- example: protocol NAME -->   lines of a protocol: harpd or dispatcher; words in capitals
                                      stand for values
    <!-- example: log NAME -->        lines of a daemon's log: harpd or harpcaller
    <!-- example: unit NAME -->       what is added to the systemd unit of this name in ``etc/``
    <!-- example: drawing -->         a picture made of characters
    <!-- example: figures -->         what the benchmarks have printed somewhere

In what is printed ``...`` stands for anything. What is run and written is in the order of the page;
``tests.docs.run_page`` has these, ``tests.docs.checks`` the others.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt
from mdit_py_plugins.deflist import deflist_plugin

ROOT = Path(__file__).parent.parent.parent

RUN = {
    "procedures": ("python",),
    "client": ("python",),
    "output": ("text",),
    "console": ("console",),
    "write": None,
    "append": None,
}
"""Kinds of blocks that are run, with the languages of each; None for any."""

CHECKED = {
    "file": None,
    "commands": ("console", "sh"),
    "usage": ("text",),
    "config": ("yaml",),
    "protocol": ("", "json"),
    "log": ("json",),
    "unit": ("ini",),
    "drawing": ("",),
    "figures": ("text",),
}
"""Kinds of blocks that are only looked at."""

KINDS = {**RUN, **CHECKED}

_MARK = re.compile(r"<!-- example: (?P<kind>\w+)(?: (?P<of>\S+))? -->\s*\Z")


@dataclass(frozen=True)
class Block:
    """One block of code.

    :param line: its first line in the page, from 1.
    :param kind: what its mark says, None if it has none that can be understood.
    :param of: what stands behind the kind, empty if nothing.
    """

    page: Path
    line: int
    kind: str | None
    of: str
    language: str
    text: str

    @property
    def place(self) -> str:
        """Where it stands, for messages."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    """Return the README and every page of the documentation."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@cache
def blocks(page: Path) -> tuple[Block, ...]:
    """Return the blocks of code of a page, fenced and indented ones, as Markdown has them."""
    found = []
    mark = None
    for token in MarkdownIt("commonmark").use(deflist_plugin).parse(page.read_text("utf-8")):
        if token.type in {"fence", "code_block"}:
            assert token.map is not None
            found.append(
                Block(
                    page=page,
                    line=token.map[0] + (2 if token.type == "fence" else 1),
                    kind=mark["kind"] if mark else None,
                    of=(mark["of"] or "") if mark else "",
                    language=token.info.strip(),
                    text=token.content,
                )
            )
        mark = _MARK.search(token.content) if token.type == "html_block" else None
    return tuple(found)
