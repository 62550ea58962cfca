"""A summary -> a table without a look, and its renderings: Markdown, LaTeX, CSV and HTML text.

A table keeps raw numbers; what they look like is decided by its columns, and escaping is left to pandas.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from harness.aggregate import Summary
from harness.studies import Row
from harness.toggles import Applied, Toggle

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler

# A line of a table's data: name of a column -> its raw value.
Line = Mapping[Any, Any]

NOTHING = "–"
TICK = "✓"

_NUMBERS = [
    "gflops", "params", "top1", "low", "high", "step", "seeds", "seeds_wanted", "videos",
    "paper_top1", "paper_step", "paper_gflops", "run_ids",
]  # fmt: skip
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
    {"selector": "footnotesize", "props": ":{};"},
    {"selector": "tabcolsep", "props": ":=3pt;"},
    {"selector": "leftskip", "props": r":=0pt plus 1fil minus 0.35\textwidth;"},
    {"selector": "rightskip", "props": r":=\leftskip;"},
]


@dataclasses.dataclass(frozen=True)
class Column:
    """How one column shows a line of the table's data.

    Attributes:
      head: its head.
      form: a line of the data -> the cell: a text, or True and False for a tick and none.
      align: "left", "center" or "right".
    """

    head: str
    form: Callable[[Line], str | bool]
    align: str = "left"


@dataclasses.dataclass(frozen=True)
class Table:
    """A table before it has a look.

    Attributes:
      name: short name, for labels: "table2".
      title: one line.
      caption: what the numbers are.
      columns: what is shown, in order.
      data: raw values, a line for each row of the study, indexed by its number ("row"). Columns: "model"; for each
        toggle a boolean under its key; "gflops" (1e9 multiply-adds of one view); "params"; "top1", "low", "high"
        (percent); "step" (percentage points); "seeds", "seeds_wanted", "videos"; "paper_top1" (percent), "paper_step"
        (percentage points), "paper_gflops" (1e9); "run_ids" (tuple). Missing numbers are NaN.
    """

    name: str
    title: str
    caption: str
    columns: tuple[Column, ...]
    data: pd.DataFrame


def additive(summary: Summary) -> Table:
    """The layout of the paper's Table 2: ticks for the toggles, top-1 with its step, and the paper's beside it."""
    # A scaling axis has a value in every row, so it is named with the model; a tick would say nothing.
    toggles = [toggle for toggle in summary.study.toggles if not toggle.axis]
    shown = [
        Column("#", lambda line: str(line["row"]), "right"),
        Column("Model", lambda line: line["model"] or NOTHING),
        *(Column(toggle.label, _tick(_field(toggle)), "center") for toggle in toggles),
        Column("GFLOPs", _gflops, "right"),
        Column("top-1 (%)", _top1),
        Column("95 % interval", _interval),
    ]
    if summary.rows["paper_top1"].notna().any():
        shown.append(Column(summary.reference, _paper))
    return Table(
        name=summary.study.name,
        title=f"{summary.study.title} ({summary.profile} profile)",
        caption=summary.caption,
        columns=tuple(shown),
        data=_raw(summary, toggles),
    )


def _raw(summary: Summary, toggles: list[Toggle]) -> pd.DataFrame:
    rows = summary.rows
    models = pd.Series({row.number: model(row) for row in summary.study.rows}, dtype=object).reindex(rows.index)
    ticks = {_field(toggle): [_mark(row, toggle) for row in summary.study.rows] for toggle in toggles}
    marked = pd.DataFrame({"model": models, **ticks}, index=rows.index)
    return pd.concat([marked, rows[_NUMBERS]], axis="columns").rename_axis("row")


def _mark(row: Row, toggle: Toggle) -> bool | str:
    """Whether the row has the toggle; at another value than its default, that value, which a tick would hide."""
    value = next((one.value for one in row.applied if one.toggle.key == toggle.key), None)
    return value is not None if value in (None, toggle.default) else str(value)


def _field(toggle: Toggle) -> str:
    """Name of the toggle's column in the data: its key, unless a number has that name."""
    return f"toggle_{toggle.key}" if toggle.key in {"row", "model", *_NUMBERS} else toggle.key


def model(row: Row) -> str:
    """The row's model with the scale it is trained at: "R3D-RS-200, 48 frames"; empty where it has neither.

    A value that the model's name ends in, such as the 200, is not said again.
    """
    named = re.findall(r"\w+", row.model)
    scale = [_scale(one) for one in row.applied if one.toggle.axis and str(one.value) not in named]
    return ", ".join(filter(None, [row.model, *scale]))


def _scale(axis: Applied) -> str:
    # A label in the plural counts something: "48 frames", but "resolution 256".
    label = axis.toggle.label
    return f"{axis.value} {label}" if label.endswith("s") else f"{label} {axis.value}"


def absent(seeds: int, wanted: int) -> str:
    """What stands in place of a number that there is not: "not run", or "2 of 3 seeds"."""
    return f"{seeds} of {wanted} seeds" if seeds else "not run"


def signed(points: float) -> str:
    """A difference in percentage points, with its sign: "+0.3"; what rounds to zero is "+0.0"."""
    return f"{points:+z.1f}"


def _tick(field: str) -> Callable[[Line], bool | str]:
    return lambda line: line[field] if isinstance(line[field], str) else bool(line[field])


def _gflops(line: Line) -> str:
    value = line["gflops"]
    if math.isnan(value):
        return absent(line["seeds"], line["seeds_wanted"])
    if value < 1:  # the networks of the quick profile would all be 0.0 or 0.1
        return f"{value:#.2g}"
    return f"{value:.1f}" if round(value, 1) < 10 else f"{value:.0f}"


def _top1(line: Line) -> str:
    if math.isnan(line["top1"]):
        return absent(line["seeds"], line["seeds_wanted"])
    return _with_step(line["top1"], line["step"])


def _interval(line: Line) -> str:
    if math.isnan(line["top1"]):
        return absent(line["seeds"], line["seeds_wanted"])
    return f"[{line['low']:.1f}, {line['high']:.1f}]"


def _paper(line: Line) -> str:
    return NOTHING if math.isnan(line["paper_top1"]) else _with_step(line["paper_top1"], line["paper_step"])


def _with_step(value: float, step: float) -> str:
    return f"{value:.1f}" if math.isnan(step) else f"{value:.1f} ({signed(step)})"


def cells(table: Table) -> pd.DataFrame:
    """What the table shows, as texts, its heads as columns; nothing is escaped."""
    return _shown(table).map(_drawn(TICK))


def _shown(table: Table) -> pd.DataFrame:
    """The cells as the columns form them: texts, and booleans for ticks."""
    lines = [[column.form(line) for column in table.columns] for line in table.data.reset_index().to_dict("records")]
    return pd.DataFrame(lines, columns=[column.head for column in table.columns], dtype=object)


def _drawn(tick: str) -> Callable[[Any], str]:
    return lambda cell: (tick if cell else "") if isinstance(cell, bool) else str(cell)


def render(table: Table) -> dict[str, str]:
    """The table in every format: suffix of a file -> its text."""
    return {"md": markdown(table), "tex": latex(table), "csv": csv(table), "html": html(table)}


def markdown(table: Table) -> str:
    """The table as GitHub's Markdown, between its title and its caption."""
    shown = cells(table).map(_markdown_text).rename(columns=_markdown_text)
    align = [column.align for column in table.columns]
    body = shown.to_markdown(index=False, disable_numparse=True, colalign=align)
    return f"**{_markdown_text(table.title)}**\n\n{body}\n\n{_markdown_text(table.caption)}\n"


def _markdown_text(text: str) -> str:
    # tabulate leaves both as they are: one would end the cell, the other would begin a tag.
    return re.sub(r"[|<]", r"\\\g<0>", text)


def csv(table: Table) -> str:
    """The raw values, unrounded, a column for each; ticks are 1 and 0, or the value where it is not the default."""
    raw = table.data.map(lambda cell: int(cell) if isinstance(cell, bool) else cell)
    raw["run_ids"] = table.data["run_ids"].map(";".join)
    return str(raw.to_csv(lineterminator="\n"))


def latex(table: Table) -> str:
    """A `table` environment labelled tab:<name>, for a preamble with booktabs and amssymb."""
    styler = _styled(table, "latex", lambda cell: _typeset(_drawn(r"\checkmark")(cell)), _typeset)
    return str(
        styler.set_table_styles(_LATEX).to_latex(
            caption=_typeset(_escaped(f"{table.title}. {table.caption}", "latex")),
            label=f"tab:{table.name}",
            column_format=f"@{{}}{''.join(column.align[0] for column in table.columns)}@{{}}",
            position="htbp",
            position_float="centering",
            hrules=True,
        )
    )


def _typeset(text: str) -> str:
    # pandas leaves these: LaTeX's default text font has other glyphs at < > and |, and a hyphen is no minus sign.
    return re.sub(r"[<>|]|(?<!\w)-(?=\d)", r"$\g<0>$", text)


def html(table: Table) -> str:
    """A fragment of a page: the table with its style, which speaks of this table only."""
    styles: list[Any] = [
        {"selector": f".col{place}", "props": f"text-align: {column.align};"}
        for place, column in enumerate(table.columns)
    ]
    title, caption = _escaped(table.title, "html"), _escaped(table.caption, "html")
    styler = _styled(table, "html", _drawn(TICK), str).set_table_styles([*_CSS, *styles])
    styler.set_caption(f"<strong>{title}</strong><br>{caption}")
    return str(styler.to_html(table_uuid=table.name, cell_ids=False, doctype_html=False))


def _styled(table: Table, language: str, draw: Callable[[Any], str], draw_head: Callable[[Any], str]) -> Styler:
    """The table in pandas' hands; it escapes cells and heads for the language before they are drawn."""
    styler = _shown(table).style.format(draw, escape=language)
    return styler.format_index(draw_head, axis="columns", escape=language).hide(axis="index")


def _escaped(text: str, language: str) -> str:
    """The text as pandas escapes it: its Styler does so for cells and heads, but not for captions."""
    cell = pd.DataFrame([[text]], dtype=object).style.format(escape=language)
    return str(cell.hide(axis="index").hide(axis="columns").to_string()).strip()
