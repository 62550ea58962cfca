"""Prints tables in a terminal."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table as RichTable

from harness.reporting import render
from harness.system.text import print_line

_GAP = 2  # blanks between columns


def show(shown: Sequence[render.Table], failures: Sequence[str], console: Console) -> None:
    """Prints tables, each with its caption, then a line for each failure."""
    for table in shown:
        show_table(table, console)
    for failure in failures:
        print_line(console, f"FAILED {failure}", style="red")


def show_table(table: render.Table, console: Console) -> None:
    """Prints a table and its caption. Without a terminal, or in one too narrow for two columns, prints Markdown.

    A table wider than the terminal is printed in parts below one another; each begins with the first column.
    """
    parts = _parts(render.widths(table), console.width) if console.is_terminal else []
    if not parts:
        print_line(console, render.markdown(table))
        return
    print_line(console, table.title, style="italic")
    for part in parts:
        chosen = tuple(table.columns[index] for index in part)
        console.print(_draw(dataclasses.replace(table, columns=chosen)), markup=False)
        print_line(console, "")
    print_line(console, f"{table.caption}\n")


def _parts(widths: Sequence[int], room: int) -> list[list[int]]:
    """Splits the column indices into parts that fit, each with the first column; empty where a column does not fit."""
    parts: list[list[int]] = [[0]]
    for index in range(1, len(widths)):
        if len(parts[-1]) > 1 and sum(widths[column] + _GAP for column in [*parts[-1], index]) - _GAP > room:
            parts.append([0])
        parts[-1].append(index)
    fits = all(sum(widths[column] + _GAP for column in part) - _GAP <= room for part in parts)
    return parts if fits else []


def _draw(table: render.Table) -> RichTable:
    drawn = RichTable(box=None, pad_edge=False, padding=(0, _GAP, 0, 0))
    widths, heads = render.widths(table), render.stacked_heads(table)
    for column, head, width in zip(table.columns, heads, widths, strict=True):
        drawn.add_column(head, no_wrap=not column.wrap, min_width=width, justify=column.align)  # type: ignore[arg-type]
    for line in render.cells(table).itertuples(index=False):
        drawn.add_row(*map(str, line))
    return drawn
