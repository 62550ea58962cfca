"""Credits -> the figure of what several designs say of the same toggles: first the points, then the drawing of them."""

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

# Of Okabe and Ito, less the yellow; one for each design, in order. Colours and markers repeat together only after 56.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_SPREAD = 0.8  # share of a toggle's room that its points take
_ACROSS = 4  # designs in a row of the legend
_LEGEND_LINE = 0.17  # inches of a line of the legend


@dataclasses.dataclass(frozen=True)
class DesignSeries:
    """What one design says of each toggle; NaN where it says nothing.

    Attributes:
      name: name of the design, for the legend.
      x: position of each toggle's point, in toggles, from 0.
      credit: percentage points of top-1 that the toggle adds.
      low, high: ends of the 95 % interval, in points; NaN where there is none.
      survives: whether a difference is left after Holm's correction.
      marks: what stands above the interval: "≈" for no difference, "†" for a toggle asked at another scale.
      absent: what is written where there is no credit; empty elsewhere.
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
    """What the figure of several designs' credits shows.

    Attributes:
      title: what is asked, and the profile, one line.
      caption: what the numbers are.
      labels: a label for each toggle.
      series: the designs, from left to right in each toggle's room.
      margin: differences up to so many points count as none; NaN where no margin was given.
    """

    title: str
    caption: str
    labels: tuple[str, ...]
    series: tuple[DesignSeries, ...]
    margin: float


def credit_points(numbers: Credits) -> CreditPoints:
    """The points of a comparison of designs: each toggle's credit, design beside design."""
    count = len(numbers.designs)
    shifts = [_SPREAD * ((place + 0.5) / count - 0.5) for place in range(count)]
    return CreditPoints(
        title=f"{numbers.title} ({numbers.profile} profile)",
        caption=numbers.caption,
        labels=numbers.labels,
        series=tuple(_design(numbers, *one) for one in zip(numbers.designs, shifts, strict=True)),
        margin=numbers.margin,
    )


def _design(numbers: Credits, design: str, shift: float) -> DesignSeries:
    found = numbers.credits[numbers.credits["design"] == design].set_index("toggle").reindex(list(numbers.labels))
    words = found[["finding", "note", "absent"]].fillna("")  # a toggle of which the design does not speak
    marks = [study_tables.mark(finding) for finding in words["finding"]]
    noted = words["note"].where(found["credit"].notna(), "")
    return DesignSeries(
        name=design,
        x=tuple(place + shift for place in range(len(numbers.labels))),
        credit=_floats(found["credit"]),
        low=_floats(found["low"]),
        high=_floats(found["high"]),
        survives=tuple(mark.startswith("*") for mark in marks),
        marks=tuple(_above(mark, note) for mark, note in zip(marks, noted, strict=True)),
        absent=tuple(words["absent"]),
    )


def _above(mark: str, note: str) -> str:
    # One above the other: beside each other they would reach over the neighbour.
    return "\n".join(filter(None, [study_tables.DAGGER if note else "", mark.replace("*", "")]))


def credits(numbers: Credits) -> Figure:
    """The figure of several designs' credits: a group of points for each toggle, one for each design."""
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
    """What lies behind the points: zero, the margin around it, and a line between neighbouring toggles."""
    axes.axhline(0, color=MUTED, linewidth=0.8)
    if not math.isnan(points.margin):
        axes.axhspan(-points.margin, points.margin, color=MUTED, alpha=0.15, linewidth=0)
    for place in range(1, len(points.labels)):
        axes.axvline(place - 0.5, color=MUTED, linewidth=0.4, linestyle=":")
    axes.grid(axis="y", linewidth=0.4, alpha=0.4)
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel("credit (points of top-1)")
    axes.margins(y=0.12)


def _scale(axes: Axes, empty: bool) -> None:
    """The y axis, once all is drawn; no number, no scale."""
    axes.yaxis.set_major_locator(MaxNLocator(9, steps=[1, 2, 5, 10]))
    low, high = axes.get_ylim()
    axes.set_yticks([] if empty else [tick for tick in axes.get_yticks() if low <= tick <= high])


def _draw_design(axes: Axes, series: DesignSeries, colour: str, marker: str) -> Line2D:
    """The points and intervals of one design; its entry of the legend."""
    axes.vlines(series.x, series.low, series.high, color=colour, linewidth=1)
    for x, credit, high, filled, marks in zip(
        series.x, series.credit, series.high, series.survives, series.marks, strict=True
    ):
        if not math.isnan(credit):
            axes.plot(x, credit, color=colour, marker=marker, markersize=4.5, markerfacecolor=None if filled else "w")
            beside(axes, x, np.fmax(credit, high), marks)
    return Line2D([], [], color=colour, marker=marker, markersize=4.5, linewidth=1, label=series.name)


def _draw_key(axes: Axes, designs: Sequence[Line2D], points: CreditPoints) -> None:
    """The legends above the panel: which design, and what filling and band mean."""
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
    """Says what is missing; once, in their middle, for neighbours that miss the same."""
    for toggle in range(len(series[0].x)):
        for text, run in itertools.groupby(series, key=lambda one: one.absent[toggle]):
            say_absent(axes, [float(np.mean([one.x[toggle] for one in run]))], [text])


def _floats(column: pd.Series[Any]) -> tuple[float, ...]:
    return tuple(float(value) for value in column)
