"""What Sphinx is told in HTML comments of the pages, which the readers of a forge don't see.

<!-- pages -->             here Sphinx learns of all pages of this folder, for its sidebar
<!-- pages: A B -->        of these, in this order; * is all that are not named
<!-- keys: FILE -->        here it puts the keys of a sample configuration, see `docs.samples`
<!-- commands: MODULE:FUNCTION NAME -->
                           here it puts the help of a click command, see `docs.usage`
<!-- names: MODULE A B --> here it puts what these names of a module are, or if none is given
                           all that are public, by autodoc
"""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import FunctionType
from typing import Any

from docutils import nodes

from docs import samples, usage

ROOT = Path(__file__).parent.parent

_MARK = re.compile(r"^<!-- (?P<what>pages|keys|commands|names)(?:: (?P<of>[^\n]*?))? -->$", re.M)


def setup(app: Any) -> dict[str, bool]:
    """Register it with Sphinx."""
    app.connect("source-read", _read)
    app.connect("doctree-resolved", _without_links)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _read(app: Any, _page: str, source: list[str]) -> None:
    def made(match: re.Match[str]) -> str:
        return _MADE[match["what"]](match["of"] or "", app.env.note_dependency)

    source[0] = _MARK.sub(made, source[0])


def _without_links(app: Any, doctree: nodes.document, _page: str) -> None:
    """Leave the text alone of links to other pages, which a manual page can't have."""
    if app.builder.name == "man":
        for link in list(doctree.findall(nodes.reference)):
            if link.get("internal"):
                link.replace_self(link.children)


def _pages(of: str, note: Callable[[str], None]) -> str:
    return "\n".join(["```{toctree}", ":hidden:", ":glob:", "", *(of or "*").split(), "```"])


def _keys(of: str, note: Callable[[str], None]) -> str:
    note(str(ROOT / of))
    return samples.markdown(ROOT / of)


def _commands(of: str, note: Callable[[str], None]) -> str:
    module_name, function, name = re.split("[: ]", of)
    module = import_module(module_name)
    for file in Path(str(module.__file__)).parent.glob("*.py"):
        note(str(file))
    return usage.markdown(getattr(module, function), name)


def _names(of: str, note: Callable[[str], None]) -> str:
    module_name, *names = of.split()
    module = import_module(module_name)
    found = ["```{eval-rst}"]
    for name in names or module.__all__:
        thing = getattr(module, name)
        options: list[str] = []
        match thing:
            case type() if issubclass(thing, BaseException):
                kind, options = (
                    "exception",
                    ["members", "inherited-members: Exception, BaseException"],
                )
            case type():
                kind, options = "class", ["members", "inherited-members"]
                options.append("exclude-members: StreamIterator")
            case FunctionType():
                kind = "function"
            case _:
                kind, options = "data", ["no-value"]
        lines = [f"   :{option}" if ":" in option else f"   :{option}:" for option in options]
        found += [f".. auto{kind}:: {module_name}.{name}", *lines, ""]
    return "\n".join([*found, "```"])


_MADE = {"pages": _pages, "keys": _keys, "commands": _commands, "names": _names}
