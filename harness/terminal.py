"""A summary as a terminal shows it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table as RichTable

from harness import tables
from harness.aggregate import Summary
from harness.console import say


def show(numbers: Summary, failures: Sequence[str], console: Console) -> None:
    """Prints the table, its caption, and what failed."""
    table = tables.additive(numbers)
    if console.is_terminal:
        _draw(table, console)
    else:
        say(console, tables.markdown(table))
    for failure in failures:
        say(console, f"FAILED {failure}", style="red")


def _draw(table: tables.Table, console: Console) -> None:
    """The table with aligned columns where the terminal is wide enough, lines that wrap otherwise."""
    drawn = RichTable(title=table.title, title_justify="left", box=None)
    cells = tables.cells(table)
    for column in cells.columns:
        drawn.add_column(str(column), no_wrap=True, justify="center" if len(str(column)) <= 6 else "left")
    for line in cells.itertuples(index=False):
        drawn.add_row(*map(str, line))
    unlimited = console.options.update(max_width=10_000)
    if Measurement.get(console, unlimited, drawn).maximum > console.width:
        say(console, tables.markdown(table))
        return
    console.print(drawn, markup=False)
    say(console, f"\n{table.caption}\n")
