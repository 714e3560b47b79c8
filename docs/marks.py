"""What Sphinx is told in HTML comments of the pages, which the readers of a forge don't see.

<!-- pages -->             here Sphinx learns of all pages of this folder, for its sidebar
<!-- pages: A B -->        of these, in this order; * is all that are not named
<!-- sphinx: …             the lines to the closing --> are Markdown for Sphinx alone
"""

from __future__ import annotations

import re
from typing import Any

_PAGES = re.compile(r"^<!-- pages(?:: (?P<names>[^\n]*?))? -->$", re.MULTILINE)
_SPHINX = re.compile(r"^<!-- sphinx:\n(?P<text>.*?)^-->$", re.MULTILINE | re.DOTALL)


def setup(app: Any) -> dict[str, bool]:
    """Register it with Sphinx."""
    app.connect("source-read", _read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _read(_app: Any, _page: str, source: list[str]) -> None:
    text = _PAGES.sub(_toctree, source[0])
    source[0] = _SPHINX.sub(lambda match: match["text"], text)


def _toctree(match: re.Match[str]) -> str:
    names = (match["names"] or "*").split()
    return "\n".join(["```{toctree}", ":hidden:", ":glob:", "", *names, "```"])
