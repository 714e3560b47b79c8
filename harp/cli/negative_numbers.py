"""Negative numbers as arguments of a call: click would take them for options."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import click

_NUMBER = re.compile(r"-([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_MARK = "\0"  # which no word of a command line can have


class TakesNegativeNumbers(click.Command):
    """A command that has no option such as ``-5``: that is an argument."""

    def make_parser(self, ctx: click.Context) -> Any:
        """Return click's parser, for which such words look like others while it parses."""
        parser = super().make_parser(ctx)
        parse = parser.parse_args

        def parse_args(args: list[str]) -> tuple[dict[str, Any], list[str], list[click.Parameter]]:
            found, left, order = parse(list(self._marked(args)))
            return {name: _plain(value) for name, value in found.items()}, left, order

        parser.parse_args = parse_args  # type: ignore[method-assign]
        return parser

    def _marked(self, words: Sequence[str]) -> Iterator[str]:
        options = [each for each in self.params if isinstance(each, click.Option)]
        with_value = {name for each in options if not each.is_flag for name in each.opts}
        before = ""
        for index, word in enumerate(words):
            if word == "--":
                yield from words[index:]
                return
            is_argument = before not in with_value and _NUMBER.fullmatch(word)
            yield f"{_MARK}{word}" if is_argument else word
            before = word


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return value.removeprefix(_MARK)
    return tuple(map(_plain, value)) if isinstance(value, tuple) else value
