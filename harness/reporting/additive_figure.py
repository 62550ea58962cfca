"""A summary -> a figure: first the points, then the drawing of them."""

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

# Colours of Okabe and Ito; marker, filling and line tell the two apart in grey as well.
_OURS: dict[str, Any] = {"color": "#0072B2", "marker": "o", "linestyle": "-"}
_PAPER: dict[str, Any] = {"color": "#000000", "marker": "s", "linestyle": "--", "markerfacecolor": "white"}


@dataclasses.dataclass(frozen=True)
class Series:
    """One line of points, a value for each row of the study; NaN where there is none.

    Attributes:
      name: whose numbers they are, for the legend.
      top1: percent, higher is better.
      low, high: ends of the 95 % interval, in percent.
      step: percentage points above the row that it follows.
      mark: what is known of the step: see :func:`harness.reporting.study_tables.mark`.
      absent: what is written where there is no value; empty elsewhere.
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
        labels=tuple(study_tables.change(row, summary.study) for row in summary.study.rows),
        x=tuple(index + 0.6 * (sum(starts[: index + 1]) - 1) for index in range(len(starts))),
        stretches=tuple(zip(firsts, [*firsts[1:], len(starts)], strict=True)),
        ours=_ours(summary),
        # A panel with one point would compare nothing.
        paper=_paper(summary) if summary.rows["paper_top1"].count() > 1 else None,
        comparable=summary.comparable,
    )


def _starts(study: Study) -> list[bool]:
    """For each row, whether it is no step from the row before it."""
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
    """The figure of an additive study: the paper's numbers in a panel of their own unless they can be compared."""
    points = additive_points(summary)
    with style():
        figure = framed(points.title, points.caption)
        panels = points.panels
        heights = [3, 2][: len(panels)]
        axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
        for one, series in zip(axes, panels, strict=True):
            _draw_panel(one, points, series)
        _draw_labels(axes[-1], points)
        settle(figure, axes[-1])
    return figure


def _draw_panel(axes: Axes, points: AdditivePoints, panel: Sequence[Series]) -> None:
    """One axis: the series side by side, their steps above and below, and lines where the scale changes."""
    shifts = (0.0,) if len(panel) == 1 else (-0.12, 0.12)  # neither hides the other's interval
    for series, shift in zip(panel, shifts, strict=True):
        _draw_series(axes, points, series, shift, _PAPER if series is points.paper else _OURS)
    for place, series in enumerate(panel):
        _draw_steps(axes, points, panel, series, _PAPER if series is points.paper else _OURS, below=place > 0)
    for first, _ in points.stretches[1:]:
        axes.axvline((points.x[first - 1] + points.x[first]) / 2, color=MUTED, linewidth=0.6, linestyle=":")
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
    say_absent(axes, x, series.absent)


def _draw_steps(
    axes: Axes, points: AdditivePoints, panel: Sequence[Series], series: Series, look: dict[str, Any], below: bool
) -> None:
    """Each step's signed size, clear of every point and interval of its row."""
    drawn = [values for one in panel for values in (one.top1, one.low, one.high)]
    ends = np.fmin.reduce(drawn) if below else np.fmax.reduce(drawn)
    for x, end, step, mark in zip(points.x, ends, series.step, series.mark, strict=True):
        if not math.isnan(step):
            beside(axes, x, end, f"{study_tables.signed(step)}{mark}", below, color=look["color"])


def _draw_labels(axes: Axes, points: AdditivePoints) -> None:
    axes.set_xticks(points.x, [label.replace(", ", ",\n") for label in points.labels])
    axes.set_xlim(points.x[0] - 0.6, points.x[-1] + 0.6)
