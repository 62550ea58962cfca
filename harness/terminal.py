"""Tables as a terminal shows them."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table as RichTable

from harness import tables
from harness.console import say


def show(shown: Sequence[tables.Table], failures: Sequence[str], console: Console) -> None:
    """Prints tables, each with its caption, and what failed."""
    for table in shown:
        show_table(table, console)
    for failure in failures:
        say(console, f"FAILED {failure}", style="red")


def show_table(table: tables.Table, console: Console) -> None:
    """Prints a table and its caption: with aligned columns in a terminal that is wide enough, else as Markdown."""
    drawn = _draw(table)
    unlimited = console.options.update(max_width=10_000)
    if not console.is_terminal or Measurement.get(console, unlimited, drawn).minimum > console.width:
        say(console, tables.markdown(table))
        return
    console.print(drawn, markup=False)
    say(console, f"\n{table.caption}\n")


def _draw(table: tables.Table) -> RichTable:
    drawn = RichTable(title=table.title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    cells = tables.cells(table)
    for place, column in enumerate(table.columns):
        texts = list(cells.iloc[:, place])
        justify: Any = column.align
        drawn.add_column(
            _stacked(column.head, texts), no_wrap=not column.wrap, min_width=column.wrap or None, justify=justify
        )
    for line in cells.itertuples(index=False):
        drawn.add_row(*map(str, line))
    return drawn


def _stacked(head: str, texts: Sequence[str]) -> str:
    """The head in lines no longer than the column's cells or its own longest word, so that it takes no room itself."""
    width = max(map(len, [*texts, *head.split()]))
    return "\n".join(textwrap.wrap(head, width, break_on_hyphens=False))
