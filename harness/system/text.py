"""Text for people: lines for a terminal or a log, and amounts in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def print_line(console: Console, text: str, style: str | None = None) -> None:
    """Prints a line as it is: without markup or highlighting, which garble paths and errors, and wrapped softly."""
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def duration(seconds: float | None) -> str:
    """Returns seconds in words: "42 s", "5 min", "3.2 h"; "-" for None."""
    if seconds is None:
        return "-"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"
