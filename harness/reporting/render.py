"""Tables of raw numbers, and their rendering as Markdown, LaTeX, CSV and HTML.

A table keeps raw numbers, its columns decide how they look, and pandas does the escaping.
"""

from __future__ import annotations

import dataclasses
import math
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler

# A line of a table's data: name of a column -> its raw value.
Line = Mapping[Any, Any]

# The formats in which a table is written.
SUFFIXES = ("md", "tex", "csv", "html")
TICK = "✓"

_CSS: list[Any] = [
    # Colours are inherited, so that the table can be read on a light page and on a dark one.
    {"selector": "", "props": "border-collapse: collapse; font: 14px/1.4 system-ui, sans-serif; color: inherit;"},
    {"selector": "caption", "props": "caption-side: top; text-align: left; padding: 0 0 .6em;"},
    {"selector": "th, td", "props": "padding: .25em .6em; white-space: nowrap; font-variant-numeric: tabular-nums;"},
    {"selector": "th", "props": "font-weight: 600;"},
    {"selector": "thead tr", "props": "border-top: 2px solid currentColor; border-bottom: 1px solid currentColor;"},
    {"selector": "tbody tr:last-child", "props": "border-bottom: 2px solid currentColor;"},
]
# Commands before the tabular. A table of eight toggles is wider than the text of a plain article. The skips that centre
# it may shrink below zero, so that it reaches into both margins equally.
_LATEX: list[Any] = [
    {"selector": "medskip", "props": ":{};"},
    {"selector": "tabcolsep", "props": ":=3pt;"},
    {"selector": "leftskip", "props": r":=0pt plus 1fil minus 0.35\textwidth;"},
    {"selector": "rightskip", "props": r":=\leftskip;"},
]
# Font size -> the most characters of a line, first alone, then with _BESIDES added for each column, for its gaps and
# the capitals in its head.
_SIZES = {"footnotesize": (110, 160), "scriptsize": (150, 184), "tiny": (math.inf, math.inf)}
_BESIDES = 3
# Typeset in math mode: LaTeX's default text font has other glyphs for < > and |, or none, and a hyphen before a digit
# is a minus sign.
_MATHS = {
    **{sign: f"${sign}$" for sign in "<>|-"},
    **{"−": "$-$", "≈": r"$\approx$", "×": r"$\times$", "±": r"$\pm$", "≤": r"$\leq$", "≥": r"$\geq$"},
}


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of a table: how it shows a line of the table's data.

    Attributes:
      head: its head.
      form: line of the data -> cell: a text, or True for a tick and False for an empty cell.
      align: "left", "center" or "right".
      wrap: characters after which a cell may break into a new line, in formats that can; 0 for never.
    """

    head: str
    form: Callable[[Line], str | bool]
    align: str = "left"
    wrap: int = 0


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of raw values, independent of any format.

    Attributes:
      name: short name, for labels: "table2".
      title: one line.
      caption: sentences that explain the numbers.
      columns: the columns shown, in order.
      data: raw values of the lines shown, indexed by what a line describes. Missing numbers are NaN.
      more: raw values for the CSV file where it has other lines than those shown; None where they are the same.
      in_latex: last change to its LaTeX; None for none.
    """

    name: str
    title: str
    caption: str
    columns: tuple[Column, ...]
    data: pd.DataFrame
    more: pd.DataFrame | None = None
    in_latex: Callable[[str], str] | None = None


def cells(table: Table) -> pd.DataFrame:
    """Returns the table's cells as texts, without escaping; the columns are the heads."""
    return _shown(table).map(_drawn(TICK))


def stacked_heads(table: Table) -> list[str]:
    """Breaks the heads into lines no longer than the cells below or their longest word, so that they add no width."""
    texts = cells(table)
    return [_stacked(column.head, texts.iloc[:, index]) for index, column in enumerate(table.columns)]


def _stacked(head: str, texts: Iterable[str]) -> str:
    width = max(map(len, [*texts, *head.split()]))
    return "\n".join(textwrap.wrap(head, width, break_on_hyphens=False))


def widths(table: Table) -> list[int]:
    """Returns the characters that each column needs, with stacked heads and cells broken where they may be."""
    shown = cells(table)
    needed = [max(map(len, shown.iloc[:, index]), default=0) for index in range(len(table.columns))]
    broken = [min(width, column.wrap or width) for width, column in zip(needed, table.columns, strict=True)]
    heads = [max(map(len, head.split("\n"))) for head in stacked_heads(table)]
    return [max(pair) for pair in zip(broken, heads, strict=True)]


def _shown(table: Table) -> pd.DataFrame:
    """Returns the cells as the columns form them: texts, and booleans for ticks."""
    lines = [[column.form(line) for column in table.columns] for line in table.data.reset_index().to_dict("records")]
    return pd.DataFrame(lines, columns=[column.head for column in table.columns], dtype=object)


def _drawn(tick: str) -> Callable[[Any], str]:
    return lambda cell: (tick if cell else "") if isinstance(cell, bool) else str(cell)


def render(table: Table) -> dict[str, str]:
    """Renders the table in every format: suffix of a file -> its text."""
    return dict(zip(SUFFIXES, (markdown(table), latex(table), csv(table), html(table)), strict=True))


def markdown(table: Table) -> str:
    """Renders the table as GitHub Markdown, between its title and its caption."""
    shown = cells(table).map(markdown_text).rename(columns=markdown_text)
    align = [column.align for column in table.columns]
    body = shown.to_markdown(index=False, disable_numparse=True, colalign=align)
    return f"**{markdown_text(table.title)}**\n\n{body}\n\n{markdown_text(table.caption)}\n"


def markdown_text(text: str) -> str:
    """Escapes a text for Markdown."""
    # tabulate does not escape these: a bar would end the cell, "<" begin a tag, and an asterisk before a word begin
    # emphasis. An asterisk after a number cannot begin emphasis and stays.
    return re.sub(r"[|<]|\*(?=\w)|(?<!\w)\*(?=[^\w\s])", r"\\\g<0>", text)


def csv(table: Table) -> str:
    """Renders the raw values, unrounded. A tick is 1 or 0, or the toggle's value where it is not the default.

    Several values in one field are separated by semicolons.
    """
    raw = table.data if table.more is None else table.more
    return str(raw.map(_field).to_csv(lineterminator="\n"))


def _field(cell: Any) -> Any:
    """Returns a value as a field of a CSV file."""
    if isinstance(cell, tuple):
        return ";".join(" ".join(map(str, item)) if isinstance(item, tuple) else str(item) for item in cell)
    return int(cell) if isinstance(cell, bool) else cell


def latex(table: Table) -> str:
    """Renders a `table` environment labelled tab:<name>; the preamble must load booktabs and amssymb."""
    styler = _styled(
        table, "latex", lambda cell: _typeset(_drawn(r"\checkmark")(cell)), _typeset_head, stacked_heads(table)
    )
    letters = sum(widths(table))
    whole = letters + _BESIDES * len(table.columns)
    size = next(size for size, (most, room) in _SIZES.items() if letters <= most and whole <= room)
    text = str(
        styler.set_table_styles([*_LATEX, {"selector": size, "props": ":{};"}]).to_latex(
            caption=_typeset(_escaped(f"{table.title}. {table.caption}", "latex")),
            label=f"tab:{table.name}",
            column_format=f"@{{}}{''.join(map(_column_format, table.columns))}@{{}}",
            position="htbp",
            position_float="centering",
            hrules=True,
        )
    )
    return text if table.in_latex is None else table.in_latex(text)


def latex_text(text: str) -> str:
    """Escapes a text for LaTeX."""
    return _typeset(_escaped(text, "latex"))


def _column_format(column: Column) -> str:
    return f"p{{{column.wrap / 2:g}em}}" if column.wrap else column.align[0]


def _typeset(text: str) -> str:
    # Keep an interval that follows a word on one line: the verdicts' narrow column would break it.
    whole = re.sub(r"(?<=[a-z] )(\[[+-]?[\d.]+,) (?=[+-]?\d)", r"\1~", text)
    return re.sub(r"[<>|−≈×±≤≥]|(?<!\w)-(?=\d)", lambda match: _MATHS[match[0]], whole)


def _typeset_head(text: str) -> str:
    lines = _typeset(text).replace("\n", r"\\{}")  # the braces keep a bracket from being read as an option
    return rf"\shortstack[l]{{{lines}}}" if "\n" in text else lines


def html(table: Table) -> str:
    """Renders a fragment of a page: the table with a style that applies to this table only."""
    styles: list[Any] = [
        {"selector": f".col{index}", "props": f"text-align: {column.align};"}
        for index, column in enumerate(table.columns)
    ]
    title, caption = _escaped(table.title, "html"), _escaped(table.caption, "html")
    styler = _styled(table, "html", _drawn(TICK), str, [column.head for column in table.columns]).set_table_styles(
        [*_CSS, *styles]
    )
    styler.set_caption(f"<strong>{title}</strong><br>{caption}")
    # A name such as "table2-plus-ema=0.99" has characters that mean something in a CSS selector.
    identifier = re.sub(r"[^\w-]", "-", table.name)
    return str(styler.to_html(table_uuid=identifier, cell_ids=False, doctype_html=False))


def _styled(
    table: Table, language: str, draw: Callable[[Any], str], draw_head: Callable[[Any], str], heads: list[str]
) -> Styler:
    """Returns pandas' Styler of the table, which escapes cells and heads for the language before they are drawn."""
    styler = _shown(table).set_axis(heads, axis="columns").style.format(draw, escape=language)
    return styler.format_index(draw_head, axis="columns", escape=language).hide(axis="index")


def _escaped(text: str, language: str) -> str:
    """Escapes a text the way pandas does. Its Styler escapes cells and heads, but not captions."""
    cell = pd.DataFrame([[text]], dtype=object).style.format(escape=language)
    return str(cell.hide(axis="index").hide(axis="columns").to_string()).strip()
