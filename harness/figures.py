"""A summary -> a figure: first the points, then the drawing of them."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import math
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

import matplotlib
import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from harness import tables
from harness.aggregate import Summary
from harness.studies import Row, Study

WIDTH = 7.0  # inches: the text of a paper in two columns
_PANELS = 3.5  # inches that all panels share in height, with their labels
_LINE = 0.13  # inches of one line of the caption

_STYLE: dict[str, Any] = {
    "font.size": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 8,
    "figure.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "text.parse_math": False,  # a dollar sign in a label is a dollar sign
    "pdf.fonttype": 42,  # TrueType, which publishers ask for
    "svg.hashsalt": "harness",  # without a salt the ids in the file are random
}
_METADATA: dict[str, dict[str, None]] = {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}
# Colours of Okabe and Ito; marker, filling and line tell the two apart in grey as well.
_OURS: dict[str, Any] = {"color": "#0072B2", "marker": "o", "linestyle": "-"}
_PAPER: dict[str, Any] = {"color": "#000000", "marker": "s", "linestyle": "--", "markerfacecolor": "white"}
_MUTED = "#595959"


@dataclasses.dataclass(frozen=True)
class Series:
    """One line of points, a value for each row of the study; NaN where there is none.

    Attributes:
      name: whose numbers they are, for the legend.
      top1: percent, higher is better.
      low, high: ends of the 95 % interval, in percent.
      step: percentage points above the row that it follows.
      absent: what is written where there is no value; empty elsewhere.
    """

    name: str
    top1: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    step: tuple[float, ...]
    absent: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class AdditivePoints:
    """What the figure of an additive study shows.

    Attributes:
      title: study and profile, one line.
      caption: what the numbers are.
      labels: a name for each row: the model, or the toggle that the row adds.
      x: position of each row, in rows, from 0; rows that are no step from their neighbour stand further apart.
      stretches: first and last index + 1 of the rows that follow one another.
      ours: our numbers.
      paper: the paper's, None where it has none for any row.
      comparable: True where both come from the paper's recipe, and so may share an axis.
    """

    title: str
    caption: str
    labels: tuple[str, ...]
    x: tuple[float, ...]
    stretches: tuple[tuple[int, int], ...]
    ours: Series
    paper: Series | None
    comparable: bool

    @property
    def panels(self) -> tuple[tuple[Series, ...], ...]:
        """The series of each panel: numbers that cannot be compared never share one."""
        if self.paper is None:
            return ((self.ours,),)
        return ((self.ours, self.paper),) if self.comparable else ((self.ours,), (self.paper,))


def additive_points(summary: Summary) -> AdditivePoints:
    """The points of an additive study: top-1 against its rows, in order."""
    starts = _starts(summary.study)
    firsts = [index for index, start in enumerate(starts) if start]
    return AdditivePoints(
        title=f"{summary.study.title} ({summary.profile} profile)",
        caption=summary.caption,
        labels=tuple(_label(row, start, summary) for row, start in zip(summary.study.rows, starts, strict=True)),
        x=tuple(index + 0.6 * (sum(starts[: index + 1]) - 1) for index in range(len(starts))),
        stretches=tuple(zip(firsts, [*firsts[1:], len(starts)], strict=True)),
        ours=_ours(summary),
        paper=_paper(summary) if summary.rows["paper_top1"].notna().any() else None,
        comparable=summary.comparable,
    )


def _starts(study: Study) -> list[bool]:
    """For each row, whether it is no step from the row before it."""
    before = [None, *(row.number for row in study.rows)]
    return [row.follows is None or row.follows != last for row, last in zip(study.rows, before, strict=False)]


def _label(row: Row, start: bool, summary: Summary) -> str:
    setting = str(summary.rows.loc[row.number, "setting"])
    if row.follows is None:
        return tables.model(row) or setting or f"row {row.number}"
    # The rows in between are not part of this study.
    return f"… + {setting}" if start else f"+ {setting}"


def _ours(summary: Summary) -> Series:
    rows = summary.rows
    over = f", 95 % interval over {summary.population}" if summary.population else ""
    counts = zip(rows["top1"], rows["seeds"], rows["seeds_wanted"], strict=True)
    return Series(
        name=f"ours, {summary.profile} profile{over}",
        top1=_floats(rows["top1"]),
        low=_floats(rows["low"]),
        high=_floats(rows["high"]),
        step=_floats(rows["step"]),
        absent=tuple(tables.absent(seeds, wanted) if math.isnan(top1) else "" for top1, seeds, wanted in counts),
    )


def _paper(summary: Summary) -> Series:
    top1 = _floats(summary.rows["paper_top1"])
    unknown = (math.nan,) * len(top1)
    return Series(
        name=summary.reference,
        top1=top1,
        low=unknown,
        high=unknown,
        step=_floats(summary.rows["paper_step"]),
        absent=tuple("not in the paper" if math.isnan(value) else "" for value in top1),
    )


def _floats(column: pd.Series[Any]) -> tuple[float, ...]:
    return tuple(float(value) for value in column)


def additive(summary: Summary) -> Figure:
    """The figure of an additive study: the paper's numbers in a panel of their own unless they can be compared."""
    points = additive_points(summary)
    with _style():
        caption = textwrap.wrap(points.caption, 135)
        figure = Figure(figsize=(WIDTH, _PANELS + _LINE * (len(caption) + 2)), layout="constrained")
        figure.suptitle(points.title, x=0.01, ha="left", weight="bold")
        figure.supxlabel("\n".join(caption), x=0.01, ha="left", fontsize=7, color=_MUTED)
        panels = points.panels
        heights = [3, 2][: len(panels)]
        axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
        for one, series in zip(axes, panels, strict=True):
            _draw_panel(one, points, series)
        _draw_labels(axes[-1], points)
        _settle(figure, axes[-1])
    return figure


def _draw_panel(axes: Axes, points: AdditivePoints, panel: Sequence[Series]) -> None:
    """One axis: the series side by side, their steps above and below, and lines where the scale changes."""
    shifts = (0.0,) if len(panel) == 1 else (-0.12, 0.12)  # neither hides the other's interval
    for series, shift in zip(panel, shifts, strict=True):
        _draw_series(axes, points, series, shift, _PAPER if series is points.paper else _OURS)
    for place, series in enumerate(panel):
        _draw_steps(axes, points, panel, series, _PAPER if series is points.paper else _OURS, below=place > 0)
    for first, _ in points.stretches[1:]:
        axes.axvline((points.x[first - 1] + points.x[first]) / 2, color=_MUTED, linewidth=0.6, linestyle=":")
    axes.grid(axis="y", linewidth=0.4, alpha=0.4)
    axes.tick_params(axis="x", length=0)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, borderpad=0, borderaxespad=0.3)
    _scale(axes, empty=all(math.isnan(value) for series in panel for value in series.top1))


def _scale(axes: Axes, empty: bool) -> None:
    """The y axis: room for the steps beyond the intervals, but no percentage that cannot be; no number, no scale."""
    axes.set_ylabel("top-1 (%)")
    axes.margins(y=0.2)
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    low, high = axes.get_ylim()
    axes.set_yticks([] if empty else [tick for tick in axes.get_yticks() if max(low, 0) <= tick <= min(high, 100)])


def _draw_series(axes: Axes, points: AdditivePoints, series: Series, shift: float, look: dict[str, Any]) -> None:
    x = np.array(points.x) + shift
    axes.vlines(x, series.low, series.high, color=look["color"], linewidth=1)
    for place, (first, end) in enumerate(points.stretches):
        name = None if place else series.name  # one entry of the legend for all stretches
        axes.plot(x[first:end], series.top1[first:end], label=name, linewidth=0.8, markersize=4.5, **look)
    for position, text in zip(x, series.absent, strict=True):
        if text:
            axes.text(position, 0.04, text, transform=axes.get_xaxis_transform(), rotation=90, ha="center",
                      va="bottom", fontsize=7, color=_MUTED)  # fmt: skip


def _draw_steps(
    axes: Axes, points: AdditivePoints, panel: Sequence[Series], series: Series, look: dict[str, Any], below: bool
) -> None:
    """Each step's signed size, clear of every point and interval of its row."""
    drawn = [values for one in panel for values in (one.top1, one.low, one.high)]
    ends = np.fmin.reduce(drawn) if below else np.fmax.reduce(drawn)
    for x, end, step in zip(points.x, ends, series.step, strict=True):
        if not math.isnan(step):
            axes.annotate(tables.signed(step), (x, end), xytext=(0, -5 if below else 4), textcoords="offset points",
                          ha="center", va="top" if below else "bottom", fontsize=7, color=look["color"])  # fmt: skip


def _draw_labels(axes: Axes, points: AdditivePoints) -> None:
    axes.set_xticks(points.x, [label.replace(", ", ",\n") for label in points.labels])
    axes.set_xlim(points.x[0] - 0.6, points.x[-1] + 0.6)


def _settle(figure: Figure, axes: Axes) -> None:
    """Turns labels that would touch, then keeps the layout, so that drawing again changes nothing."""
    labels = axes.get_xticklabels()
    figure.draw_without_rendering()
    if _touching(labels):
        _turn(figure, labels)
    figure.set_layout_engine("none")


def _touching(labels: Sequence[Text]) -> bool:
    boxes = [label.get_window_extent() for label in labels]
    return any(left.x1 + 2 > right.x0 for left, right in itertools.pairwise(boxes))


def _turn(figure: Figure, labels: Sequence[Text]) -> None:
    """Slants the labels; the figure grows by what they need, so that the panels keep their height."""
    before = max(label.get_window_extent().height for label in labels)
    for label in labels:
        label.set(rotation=40, ha="right", rotation_mode="anchor")
    after = max(label.get_window_extent().height for label in labels)
    figure.set_size_inches(WIDTH, figure.get_figheight() + (after - before) / figure.dpi)
    figure.draw_without_rendering()


def to_bytes(figure: Figure, suffix: str) -> bytes:
    """The content of a file with the figure; the same numbers give the same bytes.

    Args:
      figure: the figure.
      suffix: "png" (200 dots per inch), "pdf" or "svg".

    Raises:
      ValueError: any other suffix.
    """
    if suffix not in _METADATA:
        raise ValueError(f"figure format {suffix!r}: expected one of {', '.join(_METADATA)}")
    buffer = io.BytesIO()
    with _style():
        figure.savefig(buffer, format=suffix, dpi=200, metadata=_METADATA[suffix])
    return buffer.getvalue()


@contextlib.contextmanager
def _style() -> Iterator[None]:
    """Matplotlib's own defaults with the changes above, whatever the user's matplotlibrc says."""
    with matplotlib.style.context(["default", _STYLE]):
        yield
