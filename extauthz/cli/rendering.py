"""Tables, and how far a command is: drawn by rich, which commands that print neither do not load."""

from __future__ import annotations

import io
import shutil
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
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
NARROW = 6
"""Columns of a text that is cut, at least."""
CUT = "…"
"""Where rich cuts a text."""
PATIENCE = 2.0
"""Seconds that a command takes before it shows how far it is."""


def write_table(columns: Sequence[str], rows: Iterable[Sequence[str | None]], *, whole: int = 1, ids: Sequence[int] = (0,)) -> None:
    """Print a table, one line a row, as wide as the terminal.

    The first `whole` columns are never cut, and those of `ids` also never left out; others that do not fit are named.
    """
    from rich.console import Console
    from rich.table import Table

    cells = [[printable(value or "-", lines=False) for value in row] for row in rows]
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if is_terminal else WIDE
    least = _least_widths(columns, cells, whole, ids)
    visible = _visible_columns(least, width, ids)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for index in visible:
        table.add_column(_cell(columns[index]), no_wrap=True, min_width=least[index], overflow="ellipsis")
    for row in cells:
        table.add_row(*(_cell(row[index]) for index in visible))
    drawn = io.StringIO()
    # Whoever has a terminal narrower than the ids reads them on two lines.
    # Without a height it would take 80 columns where TERM is dumb.
    Console(file=drawn, width=max(width, _width_of(least, visible)), height=HEIGHT, force_terminal=is_terminal).print(table)
    text = drawn.getvalue()
    write(text if can_show(CUT) else text.replace(CUT, "~"))
    if len(visible) < len(columns):
        names = ", ".join(name for index, name in enumerate(columns) if index not in visible)
        echo(f"Left out, because the terminal is too narrow: {names}. --json has them.", err=True)


def _least_widths(columns: Sequence[str], cells: Sequence[Sequence[str]], whole: int, ids: Sequence[int]) -> list[int]:
    from rich.cells import cell_len

    least = []
    for index, name in enumerate(columns):
        needed = max([cell_len(name), *(cell_len(row[index]) for row in cells)])
        is_whole = index < whole or index in ids
        least.append(needed if is_whole else min(needed, NARROW))
    return least


def _visible_columns(least: Sequence[int], width: int, ids: Sequence[int]) -> list[int]:
    visible = list(range(len(least)))
    while _width_of(least, visible) > width and (others := [index for index in visible if index not in ids]):
        visible.remove(others[-1])
    return visible


def _width_of(least: Sequence[int], visible: Sequence[int]) -> int:
    return sum(least[index] for index in visible) + 2 * (len(visible) - 1)


def _cell(text: str) -> Text:
    """Make a cell of one line, cut where the column ends; no markup is read."""
    from rich.text import Text

    return Text(text, no_wrap=True, overflow="ellipsis")


@contextmanager
def progress(title: str, total: int, *, console: Console | None = None, patience: float = PATIENCE) -> Iterator[Progress]:
    """Show on a terminal how far the block is, once it has taken longer than `patience`; it advances task 0."""
    from rich.console import Console
    from rich.progress import Progress

    bar = Progress(console=console or Console(stderr=True), transient=True)
    bar.add_task(titled(title), total=total)
    if not bar.console.is_terminal:
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
