"""The Python blocks of README.md and the documentation, and how each says that it is run.

An HTML comment right before a block says so, and readers don't see it:

    <!-- example: procedures -->   it belongs to the page's procedures file
    <!-- example: client -->       it is run as a program; the blocks of a page are one program
    <!-- example: output -->       it is what the program has printed since the last such block;
                                   ``...`` stands for anything
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent

KINDS = ("procedures", "client", "output")

_BLOCK = re.compile(
    r"(?:^<!-- example: (?P<kind>[^\n]*?) -->\n\s*)?"
    r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """One fenced block.

    :param line: its first line in the page, from 1.
    :param kind: what its mark says, None if it has none.
    """

    line: int
    kind: str | None
    language: str
    text: str


def pages() -> list[Path]:
    """Return the README and every page of the documentation."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page."""
    text = page.read_text()
    return [
        Block(
            line=text.count("\n", 0, match.start("text")) + 1,
            kind=match["kind"],
            language=match["language"],
            text=match["text"],
        )
        for match in _BLOCK.finditer(text)
    ]
