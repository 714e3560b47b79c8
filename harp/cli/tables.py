"""Lists as columns: fitted to a terminal, and whole where another program reads them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from harp.cli.output import Output, escaped

if TYPE_CHECKING:
    from rich.text import Text

GAP = 2
"""Cells between two columns."""

LEAST = 12
"""Cells that a column has at least on a terminal, if it needs them."""

PORTION = 1000
"""Rows that are aligned with each other: no more are kept."""

Row = Sequence[str]


@dataclass(frozen=True)
class Column:
    """A column.

    :param is_whole: whether it is never cut, such as what is copied from there.
    :param is_extra: whether a narrow terminal may go without it.
    :param is_number: whether it is aligned to the right.
    :param styles: how its texts look, as rich says that.
    """

    title: str
    is_whole: bool = False
    is_extra: bool = False
    is_number: bool = False
    styles: Mapping[str, str] = field(default_factory=dict)


def show(output: Output, columns: Sequence[Column], rows: Iterable[Row], nothing: str) -> None:
    """Print rows as they come, a portion at a time.

    :param nothing: told people on a terminal in the place of no rows.
    """
    is_first = True
    for portion in _portions(rows):
        if output.is_terminal:
            for line in lines(columns, portion, output.console.width, titled=is_first):
                output.console.print(line, soft_wrap=True)
        else:
            for line in lines(columns, portion, None, titled=is_first):
                output.line(line.plain.rstrip())
        is_first = False
    if is_first and output.is_terminal:
        output.note(nothing)


def lines(
    columns: Sequence[Column], rows: Iterable[Row], width: int | None, titled: bool = True
) -> list[Text]:
    """Return the lines of a table.

    :param width: of the terminal in cells; None if nothing may be cut or left out.
    :param titled: whether the titles come first.
    """
    from rich.text import Text

    texts = [[escaped(each) or "-" for each in row] for row in rows]
    widths = _widths(columns, texts, width)
    found = []
    if titled:
        found.append(_line([Text(column.title, "bold") for column in columns], columns, widths))
    for row in texts:
        cells = [
            Text(text, column.styles.get(text, ""))
            for text, column in zip(row, columns, strict=True)
        ]
        found.append(_line(cells, columns, widths))
    return found


def _line(cells: Sequence[Text], columns: Sequence[Column], widths: Mapping[int, int]) -> Text:
    from rich.text import Text

    line = Text(no_wrap=True, overflow="ignore")
    for place, (index, width) in enumerate(widths.items()):
        cell = cells[index]
        cell.truncate(width, overflow="ellipsis")
        space = width - cell.cell_len
        before = space if columns[index].is_number else 0
        after = 0 if place == len(widths) - 1 else space - before + GAP
        line.append(" " * before).append_text(cell).append(" " * after)
    return line


def _widths(columns: Sequence[Column], rows: Sequence[Row], limit: int | None) -> dict[int, int]:
    """Return the width of each column that is shown, by its index."""
    from rich.cells import cell_len

    widths = {
        index: max([cell_len(column.title), *(cell_len(row[index]) for row in rows)])
        for index, column in enumerate(columns)
    }
    if limit is None:
        return widths
    least = {
        index: width if columns[index].is_whole else min(width, LEAST)
        for index, width in widths.items()
    }
    for index in reversed([each for each in widths if columns[each].is_extra]):
        if _total(least[each] for each in widths) > limit:
            del widths[index]
    while (total := _total(widths.values())) > limit:
        widest = max(widths, key=lambda each: widths[each] - least[each])
        if widths[widest] == least[widest]:
            break  # the terminal folds the line then
        others = [widths[each] for each in widths if each != widest and widths[each] > least[each]]
        step = min(total - limit, widths[widest] - least[widest])
        if others:
            step = min(step, max(1, widths[widest] - max(others)))
        widths[widest] -= step
    return widths


def _total(widths: Iterable[int]) -> int:
    found = list(widths)
    return sum(found) + GAP * (len(found) - 1)


def _portions(rows: Iterable[Row]) -> Iterator[list[Row]]:
    source = iter(rows)
    while portion := list(islice(source, PORTION)):
        yield portion
