"""How shells ask for completions and get them.

click's own ways do, with some mending, for zsh and fish. Its way for bash takes the words as
readline cuts them, at each ``:`` and ``=``; bash has another one here: it gives the line, and gets
what is to stand in it.
"""

from __future__ import annotations

import os
import shlex
from typing import NamedTuple

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
    get_completion_class,
    shell_complete,
)

PROGRAM = "harp"
VARIABLE = "_HARP_COMPLETE"
"""The variable by which a shell asks for completions."""

SHELLS = ("bash", "zsh", "fish")

_BASH = """\
%(complete_func)s() {
    local line
    COMPREPLY=()
    while IFS= read -r line; do
        case $line in
            $'\\tfile') compopt -o default ;;
            $'\\tdir') compopt -o dirnames ;;
            ?*) COMPREPLY+=("$line") ;;
        esac
    done < <(COMP_LINE="${COMP_LINE:0:COMP_POINT}" COMP_WORDBREAKS="$COMP_WORDBREAKS" \\
        %(complete_var)s=bash_complete "$1" 2>/dev/null)
}
complete -o nosort -F %(complete_func)s %(prog_name)s 2>/dev/null ||
    complete -F %(complete_func)s %(prog_name)s
"""


class Line(NamedTuple):
    """A line of bash that is being typed.

    :param words: those that are whole, without quotes.
    :param last: the word at the cursor, without quotes.
    :param raw: the same as it stands there.
    :param quote: the quote that is open there, empty if none is.
    """

    words: list[str]
    last: str
    raw: str
    quote: str


def read_line(text: str) -> Line:
    """Read a line up to the cursor, which may stand within quotes."""
    words: list[str] = []
    last, raw, quote, is_escaped, is_word = "", "", "", False, False
    for each in text:
        if not (quote or is_escaped) and each in " \t\n":
            if is_word:
                words.append(last)
            last, raw, is_word = "", "", False
            continue
        raw, is_word = raw + each, True
        if is_escaped:
            keeps_backslash = quote and each not in '"\\$`'
            last, is_escaped = last + (f"\\{each}" if keeps_backslash else each), False
        elif each == "\\" and quote != "'":
            is_escaped = True
        elif each == quote:
            quote = ""
        elif each in "'\"" and not quote:
            quote = each
        else:
            last += each
    return Line(words, last, raw, quote)


def inserted(value: str, line: Line, breaks: str) -> str:
    """Return what readline must be given for a value to stand at the cursor.

    Within a quote that is how the value stands there. Without one, readline replaces what comes
    behind the last of the characters that break words.
    """
    if line.quote == "'":
        return value.replace("'", "'\\''")
    if line.quote:
        return "".join(f"\\{each}" if each in '"\\$`' else each for each in value)
    if not line.raw:
        return shlex.quote(value)
    kept, typed = 0, line.last
    if typed.startswith("--") and not value.startswith("--"):
        typed = typed.partition("=")[2]  # --option=value
    if value.startswith(typed) and "\\" not in line.raw:
        kept = max((typed.rfind(each) + 1 for each in breaks if each in ":="), default=0)
    return "".join(_bare(each) for each in value[kept:])


def _bare(character: str) -> str:
    is_plain = character.isalnum() or character in "_@%+=:,./-"
    return character if is_plain else f"\\{character}"


class Bash(BashComplete):
    """Completion for bash."""

    source_template = _BASH

    def source(self) -> str:
        """Return the script, which works with every bash."""
        return ShellComplete.source(self)

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words before the cursor, and the one at it."""
        line = self._line()
        return line.words[1:], line.last

    def format_completion(self, item: CompletionItem[str]) -> str:
        """Return the line that the script takes for this."""
        if item.type in ("file", "dir"):
            return f"\t{item.type}"
        return inserted(item.value, self._line(), os.environ.get("COMP_WORDBREAKS", ""))

    def _line(self) -> Line:
        return read_line(os.environ.get("COMP_LINE", ""))


class _WholeWords(ShellComplete):
    """Of shells in which what is offered takes the place of the whole word at the cursor."""

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[str]]:
        """Return what can stand at the cursor; click leaves out the option of --option=value."""
        found = super().get_completions(args, incomplete)
        option, equals, _ = incomplete.partition("=")
        if not (equals and option.startswith("--")):
            return found
        return [
            CompletionItem(f"{option}={each.value}", each.type, each.help)
            if each.type == "plain"
            else each
            for each in found
        ]


class Zsh(_WholeWords, ZshComplete):
    """Completion for zsh."""


class Fish(_WholeWords, FishComplete):
    """Completion for fish; the first comma alone ends what kind of thing is offered."""

    source_template = FishComplete.source_template.replace('split ","', 'split -m 1 ","')


def answer(command: click.Command, instruction: str) -> int:
    """Print what a shell asks for, and return the exit status."""
    _prepare()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # somebody types there
    try:
        return shell_complete(command, {}, PROGRAM, VARIABLE, instruction)
    except Exception:
        return 1


def script(command: click.Command, shell: str) -> str:
    """Return the script that a shell is to read."""
    _prepare()
    kind = get_completion_class(shell)
    assert kind is not None
    return kind(command, {}, PROGRAM, VARIABLE).source()


def _prepare() -> None:
    for kind in (Bash, Zsh, Fish):
        add_completion_class(kind)
