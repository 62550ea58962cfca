"""Draws the figure of a sweep's Pareto front from its summary.

First the points are computed, then drawn, so that tests can check the numbers.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox

from harness.reporting.figure_style import MUTED, beside, framed, settle, style
from harness.sweep.sweep_summary import Summary, shown_value

# Okabe-Ito colours; marker and filling tell the two apart in greyscale as well.
# The front is drawn in steps, since nothing is known to lie on a straight line between its points.
_FRONT: dict[str, Any] = {"color": "#0072B2", "marker": "o", "drawstyle": "steps-post"}
_OTHERS: dict[str, Any] = {"color": "#D55E00", "marker": "s", "markerfacecolor": "white"}
_MOST = 12  # most points that have room for labels


@dataclasses.dataclass(frozen=True)
class Cloud:
    """Points of one kind, cheapest first.

    Attributes:
      name: for the legend.
      gflops: multiply-adds of one evaluation view, 1e9.
      top1, low, high: percent, with the ends of the 95 % interval.
      labels: the values of each point; empty where there is no room for them.
    """

    name: str
    gflops: tuple[float, ...]
    top1: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    labels: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class FrontPoints:
    """The content of the figure of a sweep, ready to be drawn.

    Attributes:
      title: what was searched, and the profile, one line.
      caption: sentences that explain the numbers and the labels.
      front: the points on the front.
      others: the other points whose accuracy is known.
    """

    title: str
    caption: str
    front: Cloud
    others: Cloud


def front_points(summary: Summary) -> FrontPoints:
    """Returns the points of a sweep: top-1 against multiply-adds."""
    known = summary.points[summary.points["top1"].notna()]
    axes = {key: label for key, label in summary.axes.items() if known[key].nunique() > 1}
    on, off = known[known["front"]], known[~known["front"]]
    named = f" Labels: {', '.join(axes.values())}, left out where they would touch." if axes else ""
    pruned = int(summary.points["state"].isin(["pruned", "turned away"]).sum())
    were = "point that was" if pruned == 1 else "points that were"
    absent = f" Not drawn, without a top-1: {pruned} {were} pruned or turned away." if pruned else ""
    return FrontPoints(
        title=f"{summary.title} ({summary.profile} profile)",
        caption=f"{summary.caption}{named}{absent}",
        front=_cloud("on the front", on, list(axes), len(on) <= _MOST),
        others=_cloud("not on the front", off, list(axes), len(known) <= _MOST),
    )


def _cloud(name: str, points: pd.DataFrame, keys: list[str], named: bool) -> Cloud:
    labels = ["\n".join(shown_value(line[key]) for key in keys) for line in points.to_dict("records")]
    gflops, top1, low, high = (tuple(map(float, points[column])) for column in ("gflops", "top1", "low", "high"))
    return Cloud(name, gflops, top1, low, high, tuple(labels if named else [""] * len(points)))


def front(summary: Summary) -> Figure:
    """Draws the figure of a sweep's front."""
    points = front_points(summary)
    with style():
        figure = framed(points.title, points.caption)
        axes = figure.subplots()
        _draw(axes, points.front, _FRONT, "-", below=False)
        _draw(axes, points.others, _OTHERS, "none", below=True)
        axes.set_xlabel("multiply-adds of one view (1e9)")
        axes.set_ylabel("top-1 (%)")
        axes.grid(linewidth=0.4, alpha=0.4)
        axes.margins(x=0.08, y=0.2)
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        if points.front.top1:
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, borderpad=0, borderaxespad=0.3)
        else:
            axes.text(0.5, 0.5, "no point was trained to its end", transform=axes.transAxes, ha="center", color=MUTED)
        settle(figure, axes)
        _thin(axes)
    return figure


def _thin(axes: Axes) -> None:
    """Hides labels that would overlap an earlier one; the labels of the front come first."""
    kept: list[Bbox] = []
    for text in axes.texts:
        box = text.get_window_extent()
        if any(box.overlaps(other) for other in kept):
            text.set_visible(False)
        else:
            kept.append(box)


def _draw(axes: Axes, cloud: Cloud, look: dict[str, Any], line: str, below: bool) -> None:
    """Draws the points of one kind with their intervals, and labels beyond the intervals."""
    if not cloud.top1:
        return
    axes.vlines(cloud.gflops, cloud.low, cloud.high, color=look["color"], linewidth=0.8, alpha=0.6)
    axes.plot(cloud.gflops, cloud.top1, label=cloud.name, linewidth=0.8, markersize=4.5, linestyle=line, **look)
    for x, low, high, label in zip(cloud.gflops, cloud.low, cloud.high, cloud.labels, strict=True):
        beside(axes, x, low if below else high, label, below, color=look["color"])
