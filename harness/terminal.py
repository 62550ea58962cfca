"""A summary as a terminal shows it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table as RichTable

from harness import tables
from harness.aggregate import Summary


def show(numbers: Summary, written: Sequence[Path], failures: Sequence[str], console: Console) -> None:
    """Prints the table, its caption, the files it was written to, and what failed."""
    table = tables.additive(numbers)
    drawn = RichTable(title=table.title, caption=table.caption, caption_justify="left", box=None)
    cells = tables.cells(table)
    for column in cells.columns:
        drawn.add_column(str(column), no_wrap=True, justify="center" if len(str(column)) <= 6 else "left")
    for line in cells.itertuples(index=False):
        drawn.add_row(*map(str, line))
    # A narrow terminal would cut the table; lines that wrap can still be read.
    console.print(drawn, markup=False, crop=False, no_wrap=True) if console.is_terminal else _plain(table, console)
    for failure in failures:
        console.print(f"FAILED {failure}", style="red", markup=False, highlight=False, soft_wrap=True)
    console.print(f"Written: {', '.join(map(str, written))}", markup=False, highlight=False, soft_wrap=True)


def _plain(table: tables.Table, console: Console) -> None:
    console.print(tables.markdown(table), markup=False, highlight=False, soft_wrap=True)
