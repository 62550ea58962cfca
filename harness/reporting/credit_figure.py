"""Draws the figure of credits: how much several designs say that each toggle adds.

First the points are computed, then drawn, so that tests can check the numbers.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import ScaledTranslation

from harness.analysis.credit import Credits
from harness.reporting import study_tables
from harness.reporting.figure_style import MUTED, beside, framed, say_absent, settle, style

# Okabe-Ito colours without the yellow, one for each design, in order. Pairs of colour and marker repeat after 56.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_SPREAD = 0.8  # share of a toggle's width that its points take
_ACROSS = 4  # designs in a row of the legend
_LEGEND_LINE = 0.17  # inches of a line of the legend


@dataclasses.dataclass(frozen=True)
class DesignSeries:
    """The credit that one design gives each toggle, NaN for toggles of which it says nothing.

    Attributes:
      name: name of the design, for the legend.
      x: position of each toggle's point, in toggles, from 0.
      credit: percentage points of top-1 that the toggle adds.
      low, high: ends of the 95 % interval, in points; NaN where there is none.
      survives: whether the difference is still significant after Holm's correction.
      marks: text above the interval: "≈" for no difference, "†" for a toggle that was studied at another scale.
      absent: the text written where there is no credit; empty elsewhere.
    """

    name: str
    x: tuple[float, ...]
    credit: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    survives: tuple[bool, ...]
    marks: tuple[str, ...]
    absent: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class CreditPoints:
    """The content of the figure of several designs' credits, ready to be drawn.

    Attributes:
      title: the question and the profile, one line.
      caption: sentences that explain the numbers.
      labels: a label for each toggle.
      series: the designs, from left to right within each toggle's width.
      margin: largest difference, in points, that counts as none; NaN where no margin was given.
    """

    title: str
    caption: str
    labels: tuple[str, ...]
    series: tuple[DesignSeries, ...]
    margin: float


def credit_points(numbers: Credits) -> CreditPoints:
    """Returns the points of a comparison of designs: each toggle's credit, design beside design."""
    count = len(numbers.designs)
    shifts = [_SPREAD * ((index + 0.5) / count - 0.5) for index in range(count)]
    return CreditPoints(
        title=f"{numbers.title} ({numbers.profile} profile)",
        caption=numbers.caption,
        labels=numbers.labels,
        series=tuple(_design(numbers, *design) for design in zip(numbers.designs, shifts, strict=True)),
        margin=numbers.margin,
    )


def _design(numbers: Credits, design: str, shift: float) -> DesignSeries:
    credits = numbers.credits[numbers.credits["design"] == design].set_index("toggle").reindex(list(numbers.labels))
    words = credits[["finding", "note", "absent"]].fillna("")  # empty for toggles that the design does not cover
    marks = [study_tables.mark(finding) for finding in words["finding"]]
    noted = words["note"].where(credits["credit"].notna(), "")
    return DesignSeries(
        name=design,
        x=tuple(index + shift for index in range(len(numbers.labels))),
        credit=_floats(credits["credit"]),
        low=_floats(credits["low"]),
        high=_floats(credits["high"]),
        survives=tuple(mark.startswith("*") for mark in marks),
        marks=tuple(_above(mark, note) for mark, note in zip(marks, noted, strict=True)),
        absent=tuple(words["absent"]),
    )


def _above(mark: str, note: str) -> str:
    # Stacked, since side by side they would overlap the neighbouring point.
    return "\n".join(filter(None, [study_tables.DAGGER if note else "", mark.replace("*", "")]))


def credits(numbers: Credits) -> Figure:
    """Draws several designs' credits: a group of points for each toggle, with a point for each design."""
    points = credit_points(numbers)
    with style():
        figure = framed(points.title, points.caption)
        axes = figure.subplots()
        _draw_ground(axes, points)
        looks = zip(points.series, itertools.cycle(_COLOURS), itertools.cycle(_MARKERS), strict=False)
        handles = [_draw_design(axes, *look) for look in looks]
        _draw_all_absent(axes, points.series)
        _draw_key(axes, handles, points)
        _scale(axes, empty=all(math.isnan(credit) for series in points.series for credit in series.credit))
        axes.set_xticks(range(len(points.labels)), points.labels)
        axes.set_xlim(-0.55, len(points.labels) - 0.45)
        settle(figure, axes)
    return figure


def _draw_ground(axes: Axes, points: CreditPoints) -> None:
    """Draws the background: the zero line, the margin around it, and a line between neighbouring toggles."""
    axes.axhline(0, color=MUTED, linewidth=0.8)
    if not math.isnan(points.margin):
        axes.axhspan(-points.margin, points.margin, color=MUTED, alpha=0.15, linewidth=0)
    for index in range(1, len(points.labels)):
        axes.axvline(index - 0.5, color=MUTED, linewidth=0.4, linestyle=":")
    axes.grid(axis="y", linewidth=0.4, alpha=0.4)
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel("credit (points of top-1)")
    axes.margins(y=0.12)


def _scale(axes: Axes, empty: bool) -> None:
    """Sets the ticks of the y axis once all is drawn; an empty figure has none."""
    axes.yaxis.set_major_locator(MaxNLocator(9, steps=[1, 2, 5, 10]))
    low, high = axes.get_ylim()
    axes.set_yticks([] if empty else [tick for tick in axes.get_yticks() if low <= tick <= high])


def _draw_design(axes: Axes, series: DesignSeries, colour: str, marker: str) -> Line2D:
    """Draws the points and intervals of one design, and returns its legend entry."""
    axes.vlines(series.x, series.low, series.high, color=colour, linewidth=1)
    for x, credit, high, filled, marks in zip(
        series.x, series.credit, series.high, series.survives, series.marks, strict=True
    ):
        if not math.isnan(credit):
            axes.plot(x, credit, color=colour, marker=marker, markersize=4.5, markerfacecolor=None if filled else "w")
            beside(axes, x, np.fmax(credit, high), marks)
    return Line2D([], [], color=colour, marker=marker, markersize=4.5, linewidth=1, label=series.name)


def _draw_key(axes: Axes, designs: Sequence[Line2D], points: CreditPoints) -> None:
    """Draws the legends above the panel: one names the designs, one explains filled markers and the band."""
    grey: dict[str, Any] = {"color": MUTED, "marker": "o", "markersize": 4.5, "linestyle": "none"}
    meanings: list[Artist] = [
        Line2D([], [], label="not zero, after Holm's correction", **grey),
        Line2D([], [], label="may be zero", markerfacecolor="white", **grey),
    ]
    if not math.isnan(points.margin):
        meanings.append(Patch(color=MUTED, alpha=0.15, linewidth=0, label=f"counts as none: ±{points.margin:g} points"))
    look: dict[str, Any] = {"loc": "lower left", "frameon": False, "borderpad": 0, "borderaxespad": 0.3,
                            "columnspacing": 1.2}  # fmt: skip
    above = axes.transAxes + ScaledTranslation(0, _LEGEND_LINE, axes.figure.dpi_scale_trans)
    axes.add_artist(axes.legend(handles=meanings, bbox_to_anchor=(0, 1), ncols=len(meanings), **look))
    axes.legend(handles=designs, bbox_to_anchor=(0, 1), bbox_transform=above, ncols=_ACROSS, **look)


def _draw_all_absent(axes: Axes, series: Sequence[DesignSeries]) -> None:
    """Writes why credits are missing; neighbours with the same reason share one text in their middle."""
    for toggle in range(len(series[0].x)):
        for text, neighbours in itertools.groupby(series, key=lambda design: design.absent[toggle]):
            say_absent(axes, [float(np.mean([design.x[toggle] for design in neighbours]))], [text])


def _floats(column: pd.Series[Any]) -> tuple[float, ...]:
    return tuple(float(value) for value in column)
