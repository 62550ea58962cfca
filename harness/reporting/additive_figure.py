"""Draws the figure of an additive study from its summary.

:func:`additive_points` computes what is drawn, :func:`additive` draws it, so that tests can check the numbers.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from harness.analysis.study_summary import Summary
from harness.config.studies import Study
from harness.reporting import study_tables
from harness.reporting.figure_style import MUTED, beside, framed, say_absent, settle, style

# Colours of the Okabe-Ito palette; marker, filling and line style tell the two apart in greyscale as well.
_OURS: dict[str, Any] = {"color": "#0072B2", "marker": "o", "linestyle": "-"}
_PAPER: dict[str, Any] = {"color": "#000000", "marker": "s", "linestyle": "--", "markerfacecolor": "white"}


@dataclasses.dataclass(frozen=True)
class Series:
    """One line of points with a value for each row of the study, NaN for a row without one.

    Attributes:
      name: whose numbers these are, for the legend.
      top1: percent, higher is better.
      low, high: ends of the 95 % interval, in percent.
      step: percentage points above the row that it follows.
      mark: the mark of the step's finding, see :func:`harness.reporting.study_tables.mark`.
      absent: the text written where there is no value; empty elsewhere.
    """

    name: str
    top1: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    step: tuple[float, ...]
    mark: tuple[str, ...]
    absent: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class AdditivePoints:
    """The content of the figure of an additive study, ready to be drawn.

    Attributes:
      title: study and profile, one line.
      caption: sentences that explain the numbers.
      labels: a name for each row: the model, or the toggle that the row adds.
      x: position of each row, in rows, from 0. A gap separates a row from the one before it if it does not follow it.
      stretches: first index, and last index + 1, of each run of rows that follow one another.
      ours: our numbers.
      paper: the paper's numbers; None where it has too few to draw.
      comparable: whether our numbers come from the paper's recipe, so that both may share an axis.
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
        """Returns the series of each panel. Numbers that cannot be compared get a panel each."""
        if self.paper is None:
            return ((self.ours,),)
        return ((self.ours, self.paper),) if self.comparable else ((self.ours,), (self.paper,))


def additive_points(summary: Summary) -> AdditivePoints:
    """Returns the points of an additive study: top-1 for each of its rows, in order."""
    starts = _starts(summary.study)
    firsts = [index for index, start in enumerate(starts) if start]
    return AdditivePoints(
        title=f"{summary.study.title} ({summary.profile} profile)",
        caption=summary.caption,
        labels=tuple(study_tables.change(row, summary.study) for row in summary.study.rows),
        x=tuple(index + 0.6 * (sum(starts[: index + 1]) - 1) for index in range(len(starts))),
        stretches=tuple(zip(firsts, [*firsts[1:], len(starts)], strict=True)),
        ours=_ours(summary),
        # The paper's numbers need at least two points: with one there is nothing to compare.
        paper=_paper(summary) if summary.rows["paper_top1"].count() > 1 else None,
        comparable=summary.comparable,
    )


def _starts(study: Study) -> list[bool]:
    """Returns for each row whether it starts a new stretch, because it does not follow the row before it."""
    before = [None, *(row.number for row in study.rows)]
    return [row.follows is None or row.follows != last for row, last in zip(study.rows, before, strict=False)]


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
        mark=tuple(map(study_tables.mark, rows["finding"])),
        absent=tuple(study_tables.absent(seeds, wanted) if math.isnan(top1) else "" for top1, seeds, wanted in counts),
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
        mark=("",) * len(top1),
        absent=tuple("not in the paper" if math.isnan(value) else "" for value in top1),
    )


def _floats(column: pd.Series[Any]) -> tuple[float, ...]:
    return tuple(float(value) for value in column)


def additive(summary: Summary) -> Figure:
    """Draws an additive study. The paper's numbers get a panel of their own unless they can be compared with ours."""
    points = additive_points(summary)
    with style():
        figure = framed(points.title, points.caption)
        panels = points.panels
        heights = [3, 2][: len(panels)]
        axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
        for panel_axes, series in zip(axes, panels, strict=True):
            _draw_panel(panel_axes, points, series)
        _draw_labels(axes[-1], points)
        settle(figure, axes[-1])
    return figure


def _draw_panel(axes: Axes, points: AdditivePoints, panel: Sequence[Series]) -> None:
    """Draws one panel: the series side by side, their steps above and below, and a line between stretches."""
    shifts = (0.0,) if len(panel) == 1 else (-0.12, 0.12)  # moved apart so that neither hides the other's interval
    for series, shift in zip(panel, shifts, strict=True):
        _draw_series(axes, points, series, shift, _PAPER if series is points.paper else _OURS)
    for index, series in enumerate(panel):
        _draw_steps(axes, points, panel, series, _PAPER if series is points.paper else _OURS, below=index > 0)
    for first, _ in points.stretches[1:]:
        axes.axvline((points.x[first - 1] + points.x[first]) / 2, color=MUTED, linewidth=0.6, linestyle=":")
    axes.grid(axis="y", linewidth=0.4, alpha=0.4)
    axes.tick_params(axis="x", length=0)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, borderpad=0, borderaxespad=0.3)
    _scale(axes, empty=all(math.isnan(value) for series in panel for value in series.top1))


def _scale(axes: Axes, empty: bool) -> None:
    """Sets the y axis: room for the steps beyond the intervals, ticks within 0 to 100 %, no ticks in an empty panel."""
    axes.set_ylabel("top-1 (%)")
    axes.margins(y=0.2)
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    low, high = axes.get_ylim()
    axes.set_yticks([] if empty else [tick for tick in axes.get_yticks() if max(low, 0) <= tick <= min(high, 100)])


def _draw_series(axes: Axes, points: AdditivePoints, series: Series, shift: float, look: dict[str, Any]) -> None:
    x = np.array(points.x) + shift
    axes.vlines(x, series.low, series.high, color=look["color"], linewidth=1)
    for index, (first, end) in enumerate(points.stretches):
        name = None if index else series.name  # a series has one legend entry, however many stretches
        axes.plot(x[first:end], series.top1[first:end], label=name, linewidth=0.8, markersize=4.5, **look)
    say_absent(axes, x, series.absent)


def _draw_steps(
    axes: Axes, points: AdditivePoints, panel: Sequence[Series], series: Series, look: dict[str, Any], below: bool
) -> None:
    """Writes each step's signed size above or below all points and intervals of its row."""
    drawn = [values for other in panel for values in (other.top1, other.low, other.high)]
    ends = np.fmin.reduce(drawn) if below else np.fmax.reduce(drawn)
    for x, end, step, mark in zip(points.x, ends, series.step, series.mark, strict=True):
        if not math.isnan(step):
            beside(axes, x, end, f"{study_tables.signed(step)}{mark}", below, color=look["color"])


def _draw_labels(axes: Axes, points: AdditivePoints) -> None:
    axes.set_xticks(points.x, [label.replace(", ", ",\n") for label in points.labels])
    axes.set_xlim(points.x[0] - 0.6, points.x[-1] + 0.6)
