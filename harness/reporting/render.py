"""A table without a look -> its renderings: Markdown, LaTeX, CSV and HTML text.

A table keeps raw numbers; what they look like is decided by its columns, and escaping is left to pandas.
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

# Of the files that a table becomes.
SUFFIXES = ("md", "tex", "csv", "html")
TICK = "✓"

_CSS: list[Any] = [
    # Colours are the page's own, so that the table can be read on a light page and on a dark one.
    {"selector": "", "props": "border-collapse: collapse; font: 14px/1.4 system-ui, sans-serif; color: inherit;"},
    {"selector": "caption", "props": "caption-side: top; text-align: left; padding: 0 0 .6em;"},
    {"selector": "th, td", "props": "padding: .25em .6em; white-space: nowrap; font-variant-numeric: tabular-nums;"},
    {"selector": "th", "props": "font-weight: 600;"},
    {"selector": "thead tr", "props": "border-top: 2px solid currentColor; border-bottom: 1px solid currentColor;"},
    {"selector": "tbody tr:last-child", "props": "border-bottom: 2px solid currentColor;"},
]
# Commands in front of the tabular. Eight toggles are wider than the text of a plain article: what does not fit reaches
# into both margins alike, since the skips that centre the table may shrink as well.
_LATEX: list[Any] = [
    {"selector": "medskip", "props": ":{};"},
    {"selector": "tabcolsep", "props": ":=3pt;"},
    {"selector": "leftskip", "props": r":=0pt plus 1fil minus 0.35\textwidth;"},
    {"selector": "rightskip", "props": r":=\leftskip;"},
]
# Size of the type -> characters of a line that it takes, and characters with what each column takes besides: its gaps,
# and capitals in its head.
_SIZES = {"footnotesize": (110, 160), "scriptsize": (150, 184), "tiny": (math.inf, math.inf)}
_BESIDES = 3
# LaTeX's default text font has other glyphs at < > and |, or none; a hyphen before a digit is a minus sign.
_MATHS = {
    **{sign: f"${sign}$" for sign in "<>|-"},
    **{"−": "$-$", "≈": r"$\approx$", "×": r"$\times$", "±": r"$\pm$", "≤": r"$\leq$", "≥": r"$\geq$"},
}


@dataclasses.dataclass(frozen=True)
class Column:
    """How one column shows a line of the table's data.

    Attributes:
      head: its head.
      form: a line of the data -> the cell: a text, or True and False for a tick and none.
      align: "left", "center" or "right".
      wrap: characters after which a cell goes on in a new line where the format can; 0 for never.
    """

    head: str
    form: Callable[[Line], str | bool]
    align: str = "left"
    wrap: int = 0


@dataclasses.dataclass(frozen=True)
class Table:
    """A table before it has a look.

    Attributes:
      name: short name, for labels: "table2".
      title: one line.
      caption: what the numbers are.
      columns: what is shown, in order.
      data: raw values of the lines shown, indexed by what a line is of. Missing numbers are NaN.
      more: raw values of the CSV file where they are other lines than those shown; None where they are the same.
      in_latex: what is done to its LaTeX in the end; None for nothing.
    """

    name: str
    title: str
    caption: str
    columns: tuple[Column, ...]
    data: pd.DataFrame
    more: pd.DataFrame | None = None
    in_latex: Callable[[str], str] | None = None


def cells(table: Table) -> pd.DataFrame:
    """What the table shows, as texts, its heads as columns; nothing is escaped."""
    return _shown(table).map(_drawn(TICK))


def stacked_heads(table: Table) -> list[str]:
    """The heads in lines no longer than the cells below or their own longest word, so that they take no room."""
    texts = cells(table)
    return [_stacked(column.head, texts.iloc[:, place]) for place, column in enumerate(table.columns)]


def _stacked(head: str, texts: Iterable[str]) -> str:
    width = max(map(len, [*texts, *head.split()]))
    return "\n".join(textwrap.wrap(head, width, break_on_hyphens=False))


def widths(table: Table) -> list[int]:
    """Characters that each column needs, with stacked heads and cells broken where they may be."""
    shown = cells(table)
    needed = [max(map(len, shown.iloc[:, place]), default=0) for place in range(len(table.columns))]
    broken = [min(width, column.wrap or width) for width, column in zip(needed, table.columns, strict=True)]
    heads = [max(map(len, head.split("\n"))) for head in stacked_heads(table)]
    return [max(pair) for pair in zip(broken, heads, strict=True)]


def _shown(table: Table) -> pd.DataFrame:
    """The cells as the columns form them: texts, and booleans for ticks."""
    lines = [[column.form(line) for column in table.columns] for line in table.data.reset_index().to_dict("records")]
    return pd.DataFrame(lines, columns=[column.head for column in table.columns], dtype=object)


def _drawn(tick: str) -> Callable[[Any], str]:
    return lambda cell: (tick if cell else "") if isinstance(cell, bool) else str(cell)


def render(table: Table) -> dict[str, str]:
    """The table in every format: suffix of a file -> its text."""
    return dict(zip(SUFFIXES, (markdown(table), latex(table), csv(table), html(table)), strict=True))


def markdown(table: Table) -> str:
    """The table as GitHub's Markdown, between its title and its caption."""
    shown = cells(table).map(markdown_text).rename(columns=markdown_text)
    align = [column.align for column in table.columns]
    body = shown.to_markdown(index=False, disable_numparse=True, colalign=align)
    return f"**{markdown_text(table.title)}**\n\n{body}\n\n{markdown_text(table.caption)}\n"


def markdown_text(text: str) -> str:
    """A text outside of tables, as Markdown."""
    # tabulate leaves these as they are: a bar would end the cell, < begin a tag, and such an asterisk emphasis; one
    # that follows a number cannot begin it and stays as it is.
    return re.sub(r"[|<]|\*(?=\w)|(?<!\w)\*(?=[^\w\s])", r"\\\g<0>", text)


def csv(table: Table) -> str:
    """The raw values, unrounded, a column for each; ticks are 1 and 0, or the value where it is not the default.

    Several values in one field are separated by semicolons.
    """
    raw = table.data if table.more is None else table.more
    return str(raw.map(_field).to_csv(lineterminator="\n"))


def _field(cell: Any) -> Any:
    """A value as a field of a CSV file."""
    if isinstance(cell, tuple):
        return ";".join(" ".join(map(str, one)) if isinstance(one, tuple) else str(one) for one in cell)
    return int(cell) if isinstance(cell, bool) else cell


def latex(table: Table) -> str:
    """A `table` environment labelled tab:<name>, for a preamble with booktabs and amssymb."""
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
    """A text outside of tables, as LaTeX."""
    return _typeset(_escaped(text, "latex"))


def _column_format(column: Column) -> str:
    return f"p{{{column.wrap / 2:g}em}}" if column.wrap else column.align[0]


def _typeset(text: str) -> str:
    # No line ends within an interval that follows a word, as a verdict's does in its narrow column.
    whole = re.sub(r"(?<=[a-z] )(\[[+-]?[\d.]+,) (?=[+-]?\d)", r"\1~", text)
    return re.sub(r"[<>|−≈×±≤≥]|(?<!\w)-(?=\d)", lambda match: _MATHS[match[0]], whole)


def _typeset_head(text: str) -> str:
    lines = _typeset(text).replace("\n", r"\\{}")  # the braces keep a bracket from being read as an option
    return rf"\shortstack[l]{{{lines}}}" if "\n" in text else lines


def html(table: Table) -> str:
    """A fragment of a page: the table with its style, which speaks of this table only."""
    styles: list[Any] = [
        {"selector": f".col{place}", "props": f"text-align: {column.align};"}
        for place, column in enumerate(table.columns)
    ]
    title, caption = _escaped(table.title, "html"), _escaped(table.caption, "html")
    styler = _styled(table, "html", _drawn(TICK), str, [column.head for column in table.columns]).set_table_styles(
        [*_CSS, *styles]
    )
    styler.set_caption(f"<strong>{title}</strong><br>{caption}")
    # A name may hold what has a meaning in a selector of CSS: "table2-plus-ema=0.99".
    own = re.sub(r"[^\w-]", "-", table.name)
    return str(styler.to_html(table_uuid=own, cell_ids=False, doctype_html=False))


def _styled(
    table: Table, language: str, draw: Callable[[Any], str], draw_head: Callable[[Any], str], heads: list[str]
) -> Styler:
    """The table in pandas' hands; it escapes cells and heads for the language before they are drawn."""
    styler = _shown(table).set_axis(heads, axis="columns").style.format(draw, escape=language)
    return styler.format_index(draw_head, axis="columns", escape=language).hide(axis="index")


def _escaped(text: str, language: str) -> str:
    """The text as pandas escapes it: its Styler does so for cells and heads, but not for captions."""
    cell = pd.DataFrame([[text]], dtype=object).style.format(escape=language)
    return str(cell.hide(axis="index").hide(axis="columns").to_string()).strip()
