"""Draws the figure of training curves: loss and top-1 against optimizer steps.

First the lines are computed, then drawn, so that tests can check the numbers.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from harness.reporting.figure_style import MUTED, framed, style

SPLITS = ("train", "validation")
METRICS = ("loss", "top1")

# Okabe-Ito colours without the yellow, and three of Tol's, one for each run, in order. Neighbours differ in lightness,
# and markers tell all of them apart in greyscale.
_COLOURS = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#000000", "#56B4E9", "#D55E00", "#999933", "#882255", "#999999",
)  # fmt: skip
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", "*", "p")
MOST = len(_COLOURS)  # runs that can be told apart
# Widths in characters: a line of the legend, what an entry needs beside its label, and the shortest entry.
_KEY, _ENTRY, _SHORTEST = 96, 7, 32
_PANELS, _KEY_LINE = 3.3, 0.17  # inches of both panels and of a line of the legend
_HEADS = {"loss": "loss (nats)", "top1": "top-1 (%)"}
_READ = (
    "Lines: training, the mean over the steps since the point before, on augmented clips; its loss holds weight decay "
    "and label smoothing where they are on. Hollow markers: validation, its loss the cross entropy alone. The reported "
    "accuracy is that of all views after the last step, and no point here."
)
_LAST = "Of a chain of stages the last alone is drawn, which the label ends with; what it started from is not."


@dataclasses.dataclass(frozen=True)
class Curve:
    """One metric of one split of a run, ordered by step, without gaps.

    Attributes:
      label: the run's label.
      split: "train" or "validation".
      metric: "loss" (nats) or "top1" (percent).
      steps: optimizer steps done.
      values: the metric at each step.
    """

    label: str
    split: str
    metric: str
    steps: tuple[int, ...]
    values: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class CurvePoints:
    """The content of the figure of training curves, ready to be drawn.

    Attributes:
      title: one line.
      caption: sentences that explain the numbers and name the runs that are not shown.
      labels: labels of the runs shown, at most :data:`MOST`.
      curves: their curves that have a point, in the order of the labels.
    """

    title: str
    caption: str
    labels: tuple[str, ...]
    curves: tuple[Curve, ...]


def curve_points(
    title: str,
    caption: str,
    runs: Sequence[tuple[str, Iterable[Mapping[str, Any]]]],
    stages: Mapping[str, str] = MappingProxyType({}),
) -> CurvePoints:
    """Returns the lines of a figure of training curves.

    Args:
      title: one line.
      caption: sentences that explain the numbers.
      runs: label and points of each run, as :attr:`harness.store.records.RunRecord.curve` holds them: "split" ("train"
        or "validation"), "step", and where they were measured "loss" (nats) and "top1" (a fraction). The first
        :data:`MOST` of those that have a point are shown.
      stages: label of each run that is the last of a chain -> name of that stage.
    """
    runs = [(_of_stage(label, stages), points) for label, points in runs]
    drawable = [(label, curves) for label, points in runs if (curves := _curves(label, list(points)))]
    shown, others = drawable[:MOST], [label for label, _ in drawable[MOST:]]
    without = [label for label, _ in runs if label not in dict(drawable)]
    sentences = [f"Not shown, to keep the lines apart: {', '.join(others)}."] if others else []
    sentences += [f"No curve yet: {', '.join(without)}."] if without else []
    sentences += [_LAST] if stages else []
    return CurvePoints(
        title=title,
        caption=" ".join([caption, _READ, *sentences]),
        labels=tuple(label for label, _ in shown),
        curves=tuple(curve for _, curves in shown for curve in curves),
    )


def _of_stage(label: str, stages: Mapping[str, str]) -> str:
    return f"{label}: {stages[label]}" if label in stages else label


def _curves(label: str, points: Sequence[Mapping[str, Any]]) -> list[Curve]:
    curves = [_curve(label, split, metric, points) for metric in METRICS for split in SPLITS]
    return [curve for curve in curves if curve.steps]


def _curve(label: str, split: str, metric: str, points: Sequence[Mapping[str, Any]]) -> Curve:
    scale = 100 if metric == "top1" else 1
    known = {
        int(point["step"]): scale * float(point[metric])
        for point in points
        if point["split"] == split and math.isfinite(point.get(metric, math.nan))
    }
    steps = tuple(sorted(known))
    return Curve(label, split, metric, steps, tuple(known[step] for step in steps))


def curves(
    title: str,
    caption: str,
    runs: Sequence[tuple[str, Iterable[Mapping[str, Any]]]],
    stages: Mapping[str, str] = MappingProxyType({}),
) -> Figure:
    """Draws the lines of :func:`curve_points`: loss on the left, top-1 on the right."""
    points = curve_points(title, caption, runs, stages)
    with style():
        figure = framed(points.title, points.caption)
        key = _key(points.labels)
        across = max(1, _KEY // max(_SHORTEST, _ENTRY + max(map(len, points.labels), default=0)))
        room = _KEY_LINE * max(1, -(-len(key) // across))
        figure.set_figheight(figure.get_figheight() + room)
        grid = figure.add_gridspec(2, len(METRICS), height_ratios=[room, _PANELS])
        _draw_key(figure.add_subplot(grid[0, :]), key, across)
        for index, metric in enumerate(METRICS):
            _draw_panel(figure.add_subplot(grid[1, index]), points, metric)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
    return figure


def _draw_panel(axes: Axes, points: CurvePoints, metric: str) -> None:
    shown = [curve for curve in points.curves if curve.metric == metric]
    for curve in shown:
        index = points.labels.index(curve.label)
        look: dict[str, Any] = {"color": _COLOURS[index], "marker": _MARKERS[index], "linewidth": 0.8}
        if curve.split == "validation":
            axes.plot(curve.steps, curve.values, linestyle=":", markersize=4.5, markerfacecolor="white", **look)
        else:
            axes.plot(curve.steps, curve.values, markersize=3, markevery=_marked(index, len(curve.steps)), **look)
    axes.set_xlabel("optimizer steps")
    axes.set_ylabel(_HEADS[metric])
    axes.grid(linewidth=0.4, alpha=0.4)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0, top=100 if metric == "top1" else None)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    if not shown:
        axes.set(xticks=[], yticks=[])
        axes.text(0.5, 0.5, "no curve yet", transform=axes.transAxes, ha="center", fontsize=7, color=MUTED)


def _marked(index: int, points: int) -> list[int]:
    """Returns which points of a training curve get a marker: its last, and two before it.

    Markers tell the lines apart in greyscale. Their positions differ between runs, so that the markers of lines close
    together do not overlap. The first third of a line gets none, since the lines are not apart there yet.
    """
    third = (index + 0.5) / MOST / 3
    return sorted({int(points * (1 / 3 + third)), int(points * (2 / 3 + third)), points - 1})


def _key(labels: Sequence[str]) -> list[Line2D]:
    """Returns the entries of the legend: one for each run, then one for each split."""
    look: dict[str, Any] = {"markersize": 4.5, "markerfacecolor": "white", "linewidth": 0.8}
    runs = [
        Line2D([], [], label=label, color=colour, marker=marker, **look)
        for label, colour, marker in zip(labels, _COLOURS, _MARKERS, strict=False)
    ]
    splits = [
        Line2D([], [], label="training", color=MUTED, **look),
        Line2D([], [], label="validation", color=MUTED, linestyle=":", marker="o", **look),
    ]
    return [*runs, *splits] if runs else []


def _draw_key(axes: Axes, key: Sequence[Line2D], across: int) -> None:
    """Draws the legend above both panels."""
    axes.set_axis_off()
    axes.legend(handles=key, loc="lower left", bbox_to_anchor=(0, 0), ncols=across, frameon=False, borderpad=0,
                borderaxespad=0)  # fmt: skip
