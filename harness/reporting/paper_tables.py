"""The paper's tables of results, with our numbers beside each published row."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import pandas as pd

from harness.analysis.study_summary import Summary
from harness.config.studies import Row
from harness.reporting import study_tables
from harness.reporting.render import Column, Line, Table
from harness.reporting.study_tables import NOTHING

_OTHER, _ADDED = "other", "added"
_PICTURE = "only in the picture"
_TEXTS = ("pretrain", "dataset")
_NUMBERS = (
    "gflops", "params", "top1", "low", "high", "population", "top5", "top5_low", "top5_high", "seeds", "seeds_wanted",
    "videos", "step", "step_low", "step_high", "p_holm", "finding", "protocol", "views", "verdict", "verdict_low",
    "verdict_high", "run_ids",
)  # fmt: skip
_WORDS = {"population", "finding", "protocol", "views", "verdict"}
_PRINTED = {"gflops": "GFLOPs", "params_m": "parameters", "top1": "top-1", "top5": "top-5"}
_POINTS = "Scaling by depth, frames and resolution"  # title of Figure 2 where there is no summary


def comparison(name: str, published: pd.DataFrame, source: Mapping[str, Any], summary: Summary | None = None) -> Table:
    """Returns a table like the paper's Tables 3 to 6: published rows, ours beside those of the paper's models.

    The data have a line for each published row, and one more for each row of ours that answers to none, indexed by
    "line".
    Columns: "row" (the published row's number, NaN for one of ours alone), "model", "family" ("paper": its own;
    "other": quoted by it; "added": ours alone); each number and text of the published frame with "paper_" before its
    name; "own_row" (the number of ours in its study), "scale" (the axes of ours that are not at their default, in
    words; its model where all are), "depth" (of ours, where it is not the default), "follows" (the row of ours that its
    step is from), and ours under the names of :class:`harness.analysis.study_summary.Summary`'s rows and of
    :func:`harness.reporting.study_tables.cost_data`. Missing values are NaN or empty. The title is the summary's, or
    the published one where there is no summary.

    Args:
      name: short name, for labels: "table3".
      published: the published rows, as :func:`harness.analysis.published.load` gives them.
      source: their source, as :func:`harness.analysis.published.source` gives it.
      summary: our summary; its rows answer to the published rows that :attr:`harness.config.studies.Row.published`
        numbers. None where nothing was run.
    """
    data = _joined(published, summary)
    printed, _, _ = source["caption"].partition(". ")
    ours = _not_run() if summary is None else _own_columns(summary, published, data)
    trained = "pre-training" if "pre-train" in source["protocol"] else "training"
    return Table(
        name=name,
        title=title(summary, printed.removesuffix(".")),
        caption=" ".join([*_said_of(source, published), own_caption(summary, trained), *_costs(summary)]),
        columns=(*_published_columns(published), *ours),
        data=data,
    )


def scaling(published: pd.DataFrame, summary: Summary | None = None) -> Table:
    """Returns the numbers behind the paper's Figure 2: a line for each of its points, with ours beside it.

    The data are as of :func:`comparison`; "model" is the point's label. Name and title are the summary's.

    Args:
      published: the points, as :func:`harness.analysis.published.load` gives "figure2".
      summary: our summary; its rows answer to the points that :attr:`harness.config.studies.Row.published` numbers.
    """
    data = _joined(published.rename(columns={"label": "model"}), summary)
    shown = [
        Column("model", lambda line: line["model"]),
        Column("depth", _depth, "right"),
        Column("frames", lambda line: _whole(line["paper_frames"]), "right"),
        Column("resolution", lambda line: _whole(line["paper_resolution"]), "right"),
        Column("paper: GFLOPs", _of_the_picture("gflops", "{:.0f}"), "right", wrap=10),
        Column("paper: top-1 (%)", _of_the_picture("top1", "{:.1f}"), "right", wrap=10),
    ]
    return Table(
        name="figure2" if summary is None else summary.study.name,
        title=title(summary, _POINTS),
        caption=" ".join(
            [
                "Top-1 in percent; GFLOPs of one view; resolution is the side of the training crop in pixels.",
                *unknown_in_picture(published),
                own_caption(summary),
                *_costs(summary),
            ]
        ),
        columns=(*shown, *(_not_run() if summary is None else _own_points(summary, data))),
        data=data,
    )


def unknown_in_picture(published: pd.DataFrame) -> list[str]:
    """Returns sentences that name the numbers of the paper's Figure 2 that are only drawn, and so unknown here.

    Args:
      published: the points, as :func:`harness.analysis.published.load` gives "figure2".
    """
    missing = {quantity: _named(published, column) for column, quantity in _PRINTED.items() if column in published}
    drawn = " and ".join(f"{quantity} of {names}" for quantity, names in missing.items() if names)
    sentences = [f"Only drawn in the paper's picture, and unknown here: {drawn}."] if drawn else []
    if deep := _named(published, "depth"):
        sentences.append(f"The paper does not say which depth {deep} scale.")
    return sentences


def _named(published: pd.DataFrame, column: str) -> str:
    """Lists the labels or models of the rows that have no value in a column."""
    names = published["label" if "label" in published else "model"]
    return listed(names[published[column].isna()])


def listed(names: Iterable[str]) -> str:
    """Joins names as in a sentence: "A, B and C"."""
    *others, last = [*names] or [""]
    return f"{', '.join(others)} and {last}" if others else last


def _joined(published: pd.DataFrame, summary: Summary | None) -> pd.DataFrame:
    """Returns a line for each published row and, below, one for each row of ours that answers to none."""
    lines = pd.DataFrame(_lines(published, summary))
    lines.index = pd.RangeIndex(1, len(lines) + 1, name="line")
    if summary is None:
        return lines
    return pd.concat([lines, study_tables.cost_data(summary, lines["own_row"])], axis="columns")


def _lines(published: pd.DataFrame, summary: Summary | None) -> Iterator[dict[str, Any]]:
    ours = [] if summary is None else [(row, summary.rows.loc[row.number]) for row in summary.study.rows]
    for number, printed in published.iterrows():
        both = {"row": number, "model": printed["model"], "family": _family(printed), **_printed(published, printed)}
        answering = [pair for pair in ours if pair[0].published == number]
        yield from ({**both, **_own(*pair)} for pair in answering)
        if not answering:
            yield {**both, **_own(None, None)}
    for row, numbers in ours:
        if row.published not in published.index:
            blank = _printed(published, pd.Series(dtype=object))
            yield {"row": math.nan, "model": _named_row(row), "family": _ADDED, **blank, **_own(row, numbers)}


def _family(printed: pd.Series[Any]) -> str:
    """Returns whether a published row is the paper's own or another's; in Figure 1 the series tells."""
    is_papers = printed.get("family") != _OTHER and str(printed.get("series", "R3D")).startswith("R3D")
    return "paper" if is_papers else _OTHER


def _named_row(row: Row) -> str:
    return study_tables.model(row) or f"row {row.number}"


def _printed(published: pd.DataFrame, line: pd.Series[Any]) -> dict[str, Any]:
    """Returns the published values of a line, with "paper_" before their names."""
    names = [name for name in published if name not in {"model", "family"}]
    return {f"paper_{name}": line.get(name, math.nan) for name in names}


def _own(row: Row | None, numbers: pd.Series[Any] | None) -> dict[str, Any]:
    """Returns our values of a line; missing ones are NaN or empty."""
    if row is None or numbers is None:
        words = dict.fromkeys(_WORDS, "")
        blank = dict.fromkeys(_NUMBERS, math.nan) | words | {"seeds": 0, "seeds_wanted": 1, "run_ids": ()}
        unknown = {"own_row": math.nan, "scale": "", "depth": math.nan, "follows": math.nan}
        return unknown | {name: blank[name] for name in _NUMBERS}
    axes = [applied for applied in row.applied if applied.toggle.axis]
    depth = next((applied.value for applied in axes if applied.toggle.key == "depth"), math.nan)
    scale = ", ".join(applied.label for applied in axes) or _named_row(row)
    follows = math.nan if row.follows is None else row.follows
    ours = {"own_row": row.number, "scale": scale, "depth": depth, "follows": follows}
    return ours | {name: numbers[name] for name in _NUMBERS}


def _published_columns(published: pd.DataFrame) -> Iterator[Column]:
    """Yields the paper's columns, as far as the published table has them."""
    yield Column("model", lambda line: line["model"])
    for name in _TEXTS:
        if name in published:
            yield Column(name, _text(f"paper_{name}"))
    if "clips" in published:
        yield Column("GFLOPs × views", _paper_cost, "right")
    elif "gflops" in published:
        yield Column("GFLOPs", _number("paper_gflops", "{:.0f}"), "right")
    if "params_m" in published:
        yield Column("params (M)", _number("paper_params_m", "{:.1f}"), "right")
    yield Column("top-1 (%)", _paper_top1, "right")
    if "top5" in published:
        yield Column("top-5 (%)", _number("paper_top5", "{:.1f}"), "right")


def _not_run() -> Iterator[Column]:
    """Yields our column where nothing was run: "not run" for the paper's models, a dash for other systems."""
    yield Column("ours: top-1 (%)", _absent, "right")


def _own_columns(summary: Summary, published: pd.DataFrame, data: pd.DataFrame) -> Iterator[Column]:
    """Yields our columns, with "ours" in each head. The row's number comes first, since captions refer to it."""
    yield Column("ours: row", lambda line: _whole(line["own_row"]), "right")
    yield Column("ours: GFLOPs × views", _known("gflops", _own_cost), "right")
    if "params_m" in published:
        yield Column("ours: params (M)", _known("params", _own_params), "right")
    accuracy = list(_own_accuracy(summary, data))
    if "top5" in published:
        accuracy.insert(2, Column("ours: top-5 (%)", _number("top5", "{:.1f}"), "right"))
    yield from accuracy


def _own_points(summary: Summary, data: pd.DataFrame) -> Iterator[Column]:
    """Yields our columns beside the points of Figure 2, with the views, since they differ with the resolution."""
    yield Column("ours: row", lambda line: _whole(line["own_row"]), "right")
    yield Column("ours: depth", _own_depth, "right")
    yield Column("ours: GFLOPs", _known("gflops", lambda line: gflops(line["gflops"])), "right")
    yield Column("ours: views", lambda line: _times(line["protocol"]) or NOTHING)
    yield from _own_accuracy(summary, data)


def _own_accuracy(summary: Summary, data: pd.DataFrame) -> Iterator[Column]:
    yield Column("ours: top-1 (%)", _said(_own_top1(data["own_row"].shift())), "right")
    yield Column("ours: 95 % interval", _known("low", _own_interval))
    if summary.comparable:
        yield Column(study_tables.VERDICT_HEAD, _said(study_tables.verdict), wrap=14)
    yield from study_tables.cost_columns(summary, "ours: ")


def _own_top1(above: pd.Series[Any]) -> Callable[[Line], str]:
    """Returns the form of our accuracy and its step.

    Args:
      above: line of the table -> number of our row in the line above; NaN where that line has none of ours.
    """

    def shown(line: Line) -> str:
        if math.isnan(line["top1"]):
            return NOTHING
        step = math.nan if math.isnan(line["follows"]) else line["step"]
        where = study_tables.origin(line["follows"], above[line["line"]])
        return study_tables.with_step(line["top1"], step, study_tables.mark(line["finding"]), where)

    return shown


def _known(name: str, form: Callable[[Line], str]) -> Callable[[Line], str]:
    """Returns the form of a number that may be known before all seeds are trained; a dash where it is not."""
    return lambda line: NOTHING if math.isnan(line[name]) else form(line)


def _said(form: Callable[[Line], str]) -> Callable[[Line], str]:
    """Returns the form of a cell that says which seeds are missing; a dash in the rows of other systems."""

    def shown(line: Line) -> str:
        if line["family"] == _OTHER:
            return NOTHING
        return _absent(line) if line["seeds"] < line["seeds_wanted"] else form(line)

    return shown


def _absent(line: Line) -> str:
    return NOTHING if line["family"] == _OTHER else study_tables.absent(int(line["seeds"]), int(line["seeds_wanted"]))


def _paper_cost(line: Line) -> str:
    if math.isnan(line["paper_gflops"]):
        return NOTHING
    return f"{line['paper_gflops']:.0f} × {line['paper_clips']:.0f}×{line['paper_crops']:.0f}"


def _own_cost(line: Line) -> str:
    return f"{gflops(line['gflops'])} × {_times(line['views'])}"


def _times(views: str) -> str:
    return views.replace("x", "×")


def gflops(value: float) -> str:
    """Formats 1e9 multiply-adds: whole where they are large, to two figures where they are small, as in Table 2."""
    if value < 1:
        return f"{value:#.2g}"
    return f"{value:.1f}" if round(value, 1) < 10 else f"{value:.0f}"


def _own_interval(line: Line) -> str:
    return f"[{line['low']:.1f}, {line['high']:.1f}]"


def _own_params(line: Line) -> str:
    millions = line["params"] / 1e6
    return f"{millions:.1f}" if millions >= 1 else f"{millions:.2g}"


def _paper_top1(line: Line) -> str:
    if math.isnan(line["paper_top1"]):
        return NOTHING
    step = line.get("paper_gain", line.get("paper_delta", math.nan))
    return f"{line['paper_top1']:.1f}" + ("" if math.isnan(step) else f" ({study_tables.signed(step)})")


def _number(name: str, form: str) -> Callable[[Line], str]:
    return lambda line: NOTHING if math.isnan(line[name]) else form.format(line[name])


def _of_the_picture(name: str, form: str) -> Callable[[Line], str]:
    """Returns the form of a number of Figure 2: "only in the picture" where it is not printed, a dash in added rows."""

    def shown(line: Line) -> str:
        if line["family"] == _ADDED:
            return NOTHING
        return _PICTURE if math.isnan(line[f"paper_{name}"]) else form.format(line[f"paper_{name}"])

    return shown


def _depth(line: Line) -> str:
    shows_depth = not math.isnan(line["paper_depth"]) or line["family"] == _ADDED
    return _whole(line["paper_depth"]) if shows_depth else "not said"


def _own_depth(line: Line) -> str:
    # A row that names no depth has that of the published point.
    return _whole(line["paper_depth"] if math.isnan(line["depth"]) else line["depth"]) if line["scale"] else NOTHING


def _whole(value: float) -> str:
    return NOTHING if math.isnan(value) else f"{value:.0f}"


def _text(name: str) -> Callable[[Line], str]:
    return lambda line: line[name] if isinstance(line[name], str) else NOTHING


def title(summary: Summary | None, published: str) -> str:
    """Returns a table's or figure's title: the study's, with its profile, or the published one without a summary."""
    return published if summary is None else f"{summary.study.title} ({summary.profile} profile)"


def provenance(source: Mapping[str, Any]) -> str:
    """Returns the sentence on the origin of published numbers, from their :func:`harness.analysis.published.source`."""
    return f"As published ({source['table']}): {source['dataset']}; {source['protocol']}."


def _said_of(source: Mapping[str, Any], published: pd.DataFrame) -> Iterator[str]:
    """Yields the caption's sentences on the published numbers."""
    yield provenance(source)
    yield from _unknown(published)
    if "said" in source:
        yield source["said"]


def _unknown(published: pd.DataFrame) -> Iterator[str]:
    """Yields sentences on the unit of the GFLOPs and on the numbers that the paper does not print."""
    if "gflops" in published:
        yield "GFLOPs are of one view."
    missing = {quantity: _named(published, column) for column, quantity in _PRINTED.items() if column in published}
    if any(missing.values()):
        yield f"Not printed: {' and '.join(f'{quantity} of {names}' for quantity, names in missing.items() if names)}."


def own_caption(summary: Summary | None, trained: str = "training") -> str:
    """Returns the caption of our numbers, and how a verdict is read or why there is none.

    Args:
      summary: our summary; None where nothing was run.
      trained: the kind of training that was not run, for that sentence.
    """
    if summary is None:
        return f"Ours: nothing was run under this {trained}."
    return f"Ours: {summary.caption}{_brackets(summary)}{_reading(summary)}"


def _costs(summary: Summary | None) -> list[str]:
    return [] if summary is None else study_tables.costs_read(summary)


def has_step(row: Row, summary: Summary) -> bool:
    """Returns whether a row's step is known."""
    return row.follows is not None and not math.isnan(summary.rows.loc[row.number, "step"])


def _brackets(summary: Summary) -> str:
    stepped = any(has_step(row, summary) for row in summary.study.rows)
    return " In brackets: the step from the row above, or from the row of ours that is named." if stepped else ""


def _reading(summary: Summary) -> str:
    """Returns the sentence on what a verdict means, or on why there is none."""
    if not summary.comparable:
        return " The paper's columns are for reference: ours answers to none of them, and there is no verdict."
    return f" {study_tables.VERDICT_READ}"
