"""Tables, and how far a command is: drawn by rich, which is loaded when there is something to draw."""

from __future__ import annotations

import io
import shutil
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from itertools import zip_longest
from typing import TYPE_CHECKING

from extauthz.cli.terminal import can_show, echo, fitting, printable, write

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.text import Text

WIDE = 240
"""Columns of a table that no terminal shows."""
HEIGHT = 25
"""Lines of a terminal, of which a table takes no notice."""
LEAST = 16
"""Cells of a text that is cut or wrapped, at least, where a column says nothing else."""
GAP = "  "
INDENT = "    "
CUT = "…"
"""Where rich cuts a text."""
PATIENCE = 2.0
"""Seconds that a command takes before it shows how far it is."""


class Fit(StrEnum):
    """What becomes of a text that is wider than its column."""

    WHOLE = "whole"
    """The column is as wide as its texts."""
    CUT = "cut"
    WRAP = "wrap"
    """It goes on in the lines below; without a terminal it is cut, so that a row stays a line."""
    BELOW = "below"
    """It stands under its row, as wide as the terminal, where it has no room beside the others."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table; `need` tells which are left out first where a terminal is narrow: those with most, and never with 0."""

    name: str
    need: int = 0
    fit: Fit = Fit.WHOLE
    least: int = LEAST
    """Cells of a text that is cut or wrapped, at least."""


def write_table(columns: Sequence[Column], rows: Iterable[Sequence[str | None]]) -> None:
    """Print a table as wide as the terminal, and name the columns that it has no room for; without a terminal a row is a line."""
    from rich.cells import cell_len
    from rich.console import Console
    from rich.text import Text

    cells = [[printable(value or "-", lines=False) for value in row] for row in rows]
    terminal = terminal_width()
    is_terminal, width = terminal is not None, WIDE if terminal is None else terminal
    needed = [max([cell_len(column.name), *(cell_len(row[index]) for row in cells)]) for index, column in enumerate(columns)]
    layout = _layout(columns, needed, width)
    drawn = io.StringIO()
    # Whoever has a terminal narrower than the ids reads them on two lines.
    # Without a height it would take 80 columns where TERM is dumb.
    console = Console(file=drawn, width=max(width, _sum(layout.widths)), height=HEIGHT, force_terminal=is_terminal)
    console.print(_lines(console, columns, layout, [column.name for column in columns], wraps=False), style="bold")
    for row in cells:
        console.print(_lines(console, columns, layout, row, wraps=is_terminal))
        for index in layout.below:
            for line in Text(row[index]).wrap(console, max(width - len(INDENT), LEAST), overflow="fold"):
                line.rstrip()
                console.print(Text(INDENT, no_wrap=True).append(line), style="dim")
    text = drawn.getvalue()
    write(text if can_show(CUT) else text.replace(CUT, "~"))
    if left_out := [column.name for index, column in enumerate(columns) if index not in {*layout.widths, *layout.below}]:
        echo(f"Left out, because the terminal is too narrow: {', '.join(left_out)}. --json has them.", err=True)


def terminal_width() -> int | None:
    """Return the columns of the terminal that standard output is, None for none."""
    return shutil.get_terminal_size().columns if sys.stdout is not None and sys.stdout.isatty() else None


@dataclass(frozen=True, slots=True)
class _Layout:
    """The width of each column that stands beside the others, in their order, and the columns that stand below."""

    widths: Mapping[int, int]
    below: tuple[int, ...]


def _layout(columns: Sequence[Column], needed: Sequence[int], width: int) -> _Layout:
    from rich.cells import cell_len

    least = {
        index: needed[index] if column.fit is Fit.WHOLE else min(needed[index], max(column.least, cell_len(column.name)))
        for index, column in enumerate(columns)
    }
    by_need = sorted(least, key=lambda index: columns[index].need)
    below = []
    while _sum(least) > width and columns[by_need[-1]].need:
        # A text that can stand below makes room first, whatever is needed less.
        can_move = [index for index in by_need if columns[index].fit is Fit.BELOW]
        index = can_move[-1] if can_move else by_need[-1]
        below += can_move[-1:]
        del least[index]
        by_need.remove(index)
    room = width - _sum(least)
    while room > 0 and (growing := [index for index in by_need if least[index] < needed[index]]):
        for index in growing[:room]:
            least[index] += 1
        room -= len(growing[:room])
    return _Layout(least, tuple(below))


def _sum(widths: Mapping[int, int]) -> int:
    return sum(widths.values()) + len(GAP) * (len(widths) - 1)


def _lines(console: Console, columns: Sequence[Column], layout: _Layout, row: Sequence[str], *, wraps: bool) -> Text:
    """Return the lines of a row; no markup is read."""
    from rich.text import Text

    parts: list[list[Text]] = []
    for index, width in layout.widths.items():
        text = Text(row[index], no_wrap=True, overflow="ellipsis")
        if wraps and columns[index].fit in (Fit.WRAP, Fit.BELOW):
            parts.append(list(text.wrap(console, width, overflow="fold", no_wrap=False)))
        else:
            text.truncate(width, overflow="ellipsis")
            parts.append([text])
    lines = []
    for cells in zip_longest(*parts, fillvalue=Text()):
        line = Text()
        for cell, width in zip(cells, layout.widths.values(), strict=True):
            line.append(cell).append(" " * (width - cell.cell_len) + GAP)
        line.rstrip()
        lines.append(line)
    return Text("\n", no_wrap=True, overflow="fold").join(lines)


@contextmanager
def progress(
    title: str, total: int, *, console: Console | None = None, patience: float = PATIENCE, prints: bool = False
) -> Iterator[Progress]:
    """Show on a terminal how far the block is, once it has taken longer than `patience`; it advances task 0.

    A block that `prints` to the same terminal shows by its lines how far it is.
    """
    from rich.console import Console
    from rich.progress import Progress

    # What is printed meanwhile is written to where it belongs, and not to the terminal of the bar.
    bar = Progress(console=console or Console(stderr=True), transient=True, redirect_stdout=False, redirect_stderr=False)
    bar.add_task(titled(title), total=total)
    if not bar.console.is_terminal or (prints and sys.stdout is not None and sys.stdout.isatty()):
        yield bar
        return
    timer = threading.Timer(patience, bar.start)
    timer.daemon = True
    timer.start()
    try:
        yield bar
    finally:
        timer.cancel()
        timer.join()
        bar.stop()


def titled(title: str) -> str:
    """Return the title of a progress bar that shows nothing but its letters."""
    from rich.markup import escape

    return escape(fitting(title, err=True))
