"""Draws the paper's Figures 1 and 2, accuracy against computation, from its published points and our summary.

First the points are computed, then drawn, so that tests can check the numbers.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox

from harness.analysis.study_summary import Summary
from harness.config import experiment, network
from harness.config.experiment import DatasetInfo, Profile
from harness.config.studies import Cell, Row
from harness.config.toggles import ToggleValue
from harness.reporting import paper_tables, study_tables
from harness.reporting.figure_style import MUTED, framed, style

AXES = ("depth", "frames", "resolution")

# Okabe-Ito colours. Each kind has a marker and a colour; ours are filled on a solid line, published ones hollow on a
# dashed line.
_LOOKS: dict[str, dict[str, Any]] = {
    "R3D-RS": {"marker": "s", "color": "#0072B2"},
    "R3D": {"marker": "^", "color": "#000000"},
    "SlowFast": {"marker": "D", "color": "#D55E00"},
    "depth": {"marker": "o", "color": "#0072B2"},
    "frames": {"marker": "s", "color": "#D55E00"},
    "resolution": {"marker": "^", "color": "#009E73"},
}
_OTHER: dict[str, Any] = {"marker": "P", "color": "#CC79A7"}
_SIZE = 4.5  # width of a marker, in typographic points
# Published points have no interval, and their steps are not written.
_UNMEASURED: dict[str, Any] = {"low": math.nan, "high": math.nan, "step": ""}
# Positions of a name around its point, best first: direction right and up, horizontal and vertical alignment.
_PLACES = [
    (0, 1, "center", "bottom"), (0, -1, "center", "top"), (1, 0, "left", "center"), (-1, 0, "right", "center"),
    (0.7, -0.7, "left", "top"), (-0.7, 0.7, "right", "bottom"), (0.7, 0.7, "left", "bottom"),
    (-0.7, -0.7, "right", "top"),
]  # fmt: skip
_TRIED = [(distance, *place) for distance in (5, 9, 14, 20) for place in _PLACES]  # distances in points
# Penalties of a position: outside the panel, on a name or a marker, on an interval, on a line.
_OUTSIDE, _ON_NAME, _ON_BAR, _ON_LINE = 1000.0, 20.0, 6.0, 2.0


@dataclasses.dataclass(frozen=True)
class Series:
    """Points of one kind, all ours or all published, in order; at least one is known.

    Attributes:
      kind: what the points share: a family of models ("R3D-RS"), or the axis that is scaled ("depth").
      ours: True for our points, False for published ones.
      labels: a name for each point.
      gflops: 1e9 multiply-adds of one view; NaN where they are not known.
      top1: percent, higher is better; NaN for an unfinished row of ours, where the line breaks.
      low, high: ends of the 95 % interval, in percent; NaN where there is none.
      step: the text of each point's step with its mark, "-4.2*"; empty where there is none.
      start: GFLOPs and top-1 of the point of another series at which the line starts; None to start at its own first.
    """

    kind: str
    ours: bool
    labels: tuple[str, ...]
    gflops: tuple[float, ...]
    top1: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    step: tuple[str, ...]
    start: tuple[float, float] | None = None


@dataclasses.dataclass(frozen=True)
class CostPoints:
    """The content of a figure of accuracy against computation, ready to be drawn.

    Attributes:
      title: one line.
      caption: sentences that explain the numbers and name those that are unknown.
      series: all points.
      profile: the profile of our points; empty where there are none.
      comparable: whether ours come from the paper's recipe and data, so that they may share an axis with the paper's.
    """

    title: str
    caption: str
    series: tuple[Series, ...]
    profile: str
    comparable: bool

    @property
    def panels(self) -> tuple[tuple[Series, ...], ...]:
        """Returns the series of each panel. Numbers that cannot be compared get a panel each."""
        ours = tuple(series for series in self.series if series.ours)
        published = tuple(series for series in self.series if not series.ours)
        return (self.series,) if self.comparable or not ours else (ours, published)


def accuracy_points(summary: Summary | None, published: pd.DataFrame, source: Mapping[str, Any]) -> CostPoints:
    """Returns the points of Figure 1: top-1 against the GFLOPs of one view, by family of models.

    Args:
      summary: ours, such as the summary of Table 3's models; None where nothing was run.
      published: the published points, as :func:`harness.analysis.published.load` gives "figure1".
      source: where they come from, as :func:`harness.analysis.published.source` gives it.
    """
    printed = published.assign(label=published["model"], kind=published["series"], **_UNMEASURED)
    named = set(published["model"])
    ours = pd.DataFrame([] if summary is None else [_own_model(row, summary, named) for row in summary.study.rows])
    return CostPoints(
        title=paper_tables.title(summary, "Top-1 against computation"),
        caption=" ".join([paper_tables.provenance(source), *source["notes"], *_own_words(summary, ours)]),
        series=(*_families(printed, ours=False), *_families(ours, ours=True)),
        profile="" if summary is None else summary.profile,
        comparable=summary is not None and summary.comparable,
    )


def scaling_points(
    summary: Summary | None,
    published: pd.DataFrame,
    source: Mapping[str, Any],
    counted: Mapping[int, float] | None = None,
) -> CostPoints:
    """Returns the points of Figure 2: top-1 against the GFLOPs of one view, a line for each axis that is scaled.

    Args:
      summary: ours; rows answer to the points that :attr:`harness.config.studies.Row.published` numbers. None where
        nothing was run.
      published: the published points, as :func:`harness.analysis.published.load` gives "figure2".
      source: where they come from, as :func:`harness.analysis.published.source` gives it.
      counted: row -> GFLOPs of points whose accuracy the paper prints and whose cost it only draws, as :func:`counted`
        gives them. Points without it are only named in the caption.
    """
    costs = published["gflops"].fillna(pd.Series(counted or {}, dtype=float))
    is_counted = costs.notna() & published["gflops"].isna() & published["top1"].notna()
    labels = published["label"] + is_counted.map({True: study_tables.DAGGER, False: ""})
    printed = published.assign(gflops=costs, label=labels, **_UNMEASURED)
    ours = pd.DataFrame([] if summary is None else _own_scales(summary, published["label"]))
    return CostPoints(
        title=paper_tables.title(summary, "Scaling by depth, frames and resolution"),
        caption=" ".join(
            [
                paper_tables.provenance(source),
                *paper_tables.unknown_in_picture(published),
                *_counted_words(published, costs),
                *_own_words(summary, ours),
            ]
        ),
        series=(
            *_by_axis(printed, published.iloc[0], ours=False),
            *_by_axis(ours, _defaults(summary), ours=True),
        ),
        profile="" if summary is None else summary.profile,
        comparable=summary is not None and summary.comparable,
    )


def counted(published: pd.DataFrame, profile: Profile, model: Sequence[ToggleValue]) -> dict[int, float]:
    """Counts the GFLOPs of the points of Figure 2 whose accuracy the paper prints but whose cost it only draws.

    Args:
      published: the points, as :func:`harness.analysis.published.load` gives "figure2".
      profile: the profile whose settings and axes are counted: the paper's.
      model: the toggles that the scaled network has.

    Returns:
      Row -> 1e9 multiply-adds of one view, as :func:`harness.config.network.count` counts them.
    """
    open_ = published[published["gflops"].isna() & published["top1"].notna() & published["depth"].notna()]
    return {int(number): _gflops(point, profile, model) for number, point in open_.iterrows()}


def _gflops(point: pd.Series[Any], profile: Profile, model: Sequence[ToggleValue]) -> float:
    scale = [axis.at(int(point[axis.key])) for axis in profile.axes if axis.key in AXES]
    facts = DatasetInfo("Kinetics-400", classes=400, train_videos=1, validation_videos=1)
    run = experiment.complete(Cell((*model, *scale)), profile, facts, replicas=1)
    return network.count(run.settings).multiply_adds / 1e9


def _counted_words(published: pd.DataFrame, costs: pd.Series[Any]) -> Iterator[str]:
    """Yields the caption's sentences on points whose cost the paper does not print."""
    unprinted = published[published["gflops"].isna() & published["top1"].notna()]
    is_known = costs.loc[unprinted.index].notna()
    if is_known.any():
        yield f"{study_tables.DAGGER} The paper does not print this point's GFLOPs: they are counted from our settings."
    if len(missing := unprinted[~is_known]):
        named = ", ".join(f"{point['label']} ({point['top1']:.1f} %)" for _, point in missing.iterrows())
        yield f"Not drawn, since their GFLOPs are unknown: {named}."


def _own_words(summary: Summary | None, ours: pd.DataFrame) -> Iterator[str]:
    """Yields the caption's sentences on our points, which have a line for each row of the study, in its order."""
    if summary is None:
        yield "Nothing of ours was run."
        return
    yield f"Ours: {summary.caption}"
    labels = dict(zip((row.number for row in summary.study.rows), ours["label"], strict=True))
    steps_from: dict[str, list[str]] = {}
    for above, row in zip([None, *labels], summary.study.rows, strict=False):
        if row.follows is not None and paper_tables.has_step(row, summary):
            source = "the row before it" if row.follows == above else labels[row.follows]
            steps_from.setdefault(source, []).append(labels[row.number])
    if steps_from:
        phrases = (f"of {paper_tables.listed(names)} from {source}" for source, names in steps_from.items())
        yield f"A signed number is the step of a point: {'; '.join(phrases)}."


def _own_model(row: Row, summary: Summary, named: Set[str]) -> dict[str, Any]:
    """Returns a row of ours as a point of Figure 1.

    The scale is left out of its label if the paper has a point of that model and the study just one row of it.
    """
    family = re.match(r"(.+?)-\d", row.model)
    alone = [other.model for other in summary.study.rows].count(row.model) == 1
    label = row.model if row.model in named and alone else study_tables.model(row)
    kind = family[1] if family else "others"
    return {"label": label or study_tables.change(row, summary.study), "kind": kind, **_own_numbers(row, summary)}


def _own_numbers(row: Row, summary: Summary) -> dict[str, Any]:
    line = summary.rows.loc[row.number]
    known = paper_tables.has_step(row, summary)
    step = study_tables.signed(line["step"]) + study_tables.mark(line["finding"]) if known else ""
    return {"step": step, **{name: float(line[name]) for name in ("gflops", "top1", "low", "high")}}


def _own_scales(summary: Summary, labels: pd.Series[Any]) -> Iterator[dict[str, Any]]:
    """Yields our rows as points of Figure 2, labelled like the paper's points that they answer to."""
    defaults = _defaults(summary)
    for row in summary.study.rows:
        values = {applied.toggle.key: applied.value for applied in row.applied}
        scale = {axis: values.get(axis, defaults.get(axis, "")) for axis in AXES}
        named = labels.get(row.published) or study_tables.model(row) or f"row {row.number}"
        yield {"label": named, **scale, **_own_numbers(row, summary)}


def _defaults(summary: Summary | None) -> dict[str, Any]:
    """Maps each axis that some row names to its default, the value of rows that do not name it."""
    rows = () if summary is None else summary.study.rows
    return {item.toggle.key: item.toggle.default for row in rows for item in row.applied if item.toggle.axis}


def _families(points: pd.DataFrame, ours: bool) -> Iterator[Series]:
    """Yields a series for each family that has a point."""
    for kind, members in points.groupby("kind", sort=False) if len(points) else ():
        yield from _series(str(kind), ours, members)


def _by_axis(points: pd.DataFrame, base: Mapping[str, Any] | pd.Series[Any], ours: bool) -> Iterator[Series]:
    """Yields a series for each axis that has a point, starting at the point from which it is scaled.

    Args:
      points: "label", the axes, and the numbers of a series.
      base: unscaled frames and resolution; no point scales an axis that is missing here.
      ours: whether the points are ours.
    """
    if points.empty:
        return
    moved = {axis: points[axis].ne(base.get(axis)) & (axis in base) for axis in ("frames", "resolution")}
    deep = points[~moved["frames"] & ~moved["resolution"]]
    yield from _series("depth", ours, deep)
    for axis, other in (("frames", "resolution"), ("resolution", "frames")):
        for depth, scaled in points[moved[axis] & ~moved[other]].groupby("depth", sort=False):
            start = _known(deep[deep["depth"] == depth])
            yield from _series(axis, ours, scaled, start.iloc[0] if len(start) else None)
    yield from _series("frames and resolution", ours, points[moved["frames"] & moved["resolution"]])


def _known(points: pd.DataFrame) -> pd.DataFrame:
    return points[points["top1"].notna() & points["gflops"].notna()]


def _series(kind: str, ours: bool, points: pd.DataFrame, start: pd.Series[Any] | None = None) -> Iterator[Series]:
    """Yields the series of some points, if any is known.

    Unknown points of the paper are dropped, so that its line has no gap there; unknown points of ours break the line.
    """
    shown = points if ours else _known(points)
    if len(_known(shown)):
        numbers = {name: tuple(map(float, shown[name])) for name in ("gflops", "top1", "low", "high")}
        origin = None if start is None else (float(start["gflops"]), float(start["top1"]))
        labels, step = tuple(shown["label"]), tuple(shown["step"])
        yield Series(kind=kind, ours=ours, labels=labels, step=step, start=origin, **numbers)


def accuracy(summary: Summary | None, published: pd.DataFrame, source: Mapping[str, Any]) -> Figure:
    """Draws Figure 1 from the points of :func:`accuracy_points`."""
    return draw(accuracy_points(summary, published, source))


def scaling(
    summary: Summary | None,
    published: pd.DataFrame,
    source: Mapping[str, Any],
    counted: Mapping[int, float] | None = None,
) -> Figure:
    """Draws Figure 2 from the points of :func:`scaling_points`."""
    return draw(scaling_points(summary, published, source, counted))


def draw(points: CostPoints) -> Figure:
    """Draws accuracy against computation. Numbers that cannot be compared get a panel each, side by side."""
    with style():
        figure = framed(points.title, points.caption)
        panels = points.panels
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for panel_axes, panel in zip(axes, panels, strict=True):
            _draw_panel(panel_axes, panel, points.profile, across=1 if len(panels) > 1 else 3)
        figure.draw_without_rendering()
        # The names are placed around what is drawn by now, so the layout must not move any more.
        figure.set_layout_engine("none")
        for panel_axes, panel in zip(axes, panels, strict=True):
            _name(panel_axes, panel)
    return figure


def _draw_panel(axes: Axes, panel: Sequence[Series], profile: str, across: int) -> None:
    named: set[tuple[str, bool]] = set()
    for series in panel:
        origin = f"ours, {profile} profile" if series.ours else "published"
        first = (series.kind, series.ours) not in named  # all lines of a kind share one legend entry
        _draw_series(axes, series, f"{series.kind}, {origin}" if first else None)
        named.add((series.kind, series.ours))
    axes.set_xlabel("GFLOPs of one view")
    axes.set_ylabel("top-1 (%)")
    axes.margins(0.13, 0.15)
    axes.grid(linewidth=0.4, alpha=0.4)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
    low, high = axes.get_ylim()
    axes.set_yticks([tick for tick in axes.get_yticks() if max(low, 0) <= tick <= min(high, 100)])
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=across, frameon=False, borderpad=0, borderaxespad=0.3)


def _draw_series(axes: Axes, series: Series, name: str | None) -> None:
    look = {**_LOOKS.get(series.kind, _OTHER), **({} if series.ours else {"markerfacecolor": "white"})}
    line = "-" if series.ours else "--"
    x, y = zip(*([series.start] if series.start else []), *zip(series.gflops, series.top1, strict=True), strict=True)
    axes.plot(x, y, color=look["color"], linestyle=line, linewidth=0.8)
    axes.vlines(series.gflops, series.low, series.high, color=look["color"], linewidth=1)
    axes.plot(series.gflops, series.top1, linestyle="none", markersize=_SIZE, **look)
    axes.plot([], [], label=name, linestyle=line, linewidth=0.8, markersize=_SIZE, **look)


def _name(axes: Axes, panel: Sequence[Series]) -> None:
    """Writes each point's name and step where they overlap the least.

    A point of ours whose label the paper's points in the panel have too gets only its step.
    """
    published = {label.rstrip(study_tables.DAGGER) for series in panel if not series.ours for label in series.labels}
    taken, written = _taken(axes, panel), []
    for series in panel:
        for label, step, x, y in zip(series.labels, series.step, series.gflops, series.top1, strict=True):
            name = "" if series.ours and label in published else label
            if not math.isnan(y) and (words := "\n".join(filter(None, [name, step]))):
                # A step without a name takes its line's colour, to show where it belongs.
                color = MUTED if name else _LOOKS.get(series.kind, _OTHER)["color"]
                written.append(_write(axes, words, (x, y), color))
    figure = axes.figure.get_figure(root=True)
    # One renderer for all: without it, matplotlib makes a new one each time it measures a text.
    renderer = RendererAgg(*figure.bbox.size, figure.dpi)  # type: ignore[no-untyped-call]
    # Texts with the least room are placed first.
    for text in sorted(written, key=lambda text: sum(_costs(text, axes, taken, renderer)), reverse=True):
        costs = _costs(text, axes, taken, renderer)
        taken.add(_moved(text, renderer, *_TRIED[costs.index(min(costs))]), _ON_NAME)


class _Taken:
    """Boxes, in pixels, that names should keep clear of, each with the penalty for touching it."""

    def __init__(self) -> None:
        self._extents, self._weights = list[npt.NDArray[np.float64]](), list[float]()

    def add(self, box: Bbox, weight: float) -> None:
        """Adds a box."""
        self._extents.append(np.array([box.xmin, box.ymin, box.xmax, box.ymax]))
        self._weights.append(weight)

    def touched(self, box: Bbox) -> float:
        """Returns the sum of the weights of the boxes that a box touches."""
        left, bottom, right, top = np.array(self._extents).reshape(-1, 4).T
        touches = (box.xmax >= left) & (right >= box.xmin) & (box.ymax >= bottom) & (top >= box.ymin)
        return float(np.array(self._weights)[touches].sum())


def _taken(axes: Axes, panel: Sequence[Series]) -> _Taken:
    """Returns what names should keep clear of before any is placed: markers, intervals and lines."""
    half, side = _SIZE / 2 / 72 * axes.figure.dpi, np.array([1.0, 0.0])
    taken = _Taken()
    for series in panel:
        at, low, high = (_pixels(axes, series.gflops, y) for y in (series.top1, series.low, series.high))
        for point in at:
            if np.isfinite(point).all():
                taken.add(Bbox([point - half, point + half]), _ON_NAME)
        for foot, head in zip(low, high, strict=True):
            if np.isfinite([foot, head]).all():
                taken.add(Bbox([foot - side, head + side]), _ON_BAR)
        start = [_pixels(axes, [series.start[0]], [series.start[1]])[0]] if series.start else []
        for point, following in itertools.pairwise([*start, *at]):
            if np.isfinite([point, following]).all():
                for part in np.linspace(0, 1, 25):
                    taken.add(Bbox([point + (following - point) * part] * 2).padded(1), _ON_LINE)
    return taken


def _pixels(axes: Axes, x: Sequence[float], y: Sequence[float]) -> npt.NDArray[np.float64]:
    return np.asarray(axes.transData.transform(np.column_stack([x, y])))


def _write(axes: Axes, text: str, point: tuple[float, float], color: str) -> Annotation:
    return axes.annotate(text.replace(", ", ",\n"), point, xytext=(0, 0), textcoords="offset points", fontsize=7,
                         linespacing=0.9, color=color,
                         path_effects=[withStroke(linewidth=1.5, foreground="white")])  # fmt: skip


def _costs(written: Annotation, axes: Axes, taken: _Taken, renderer: RendererAgg) -> list[float]:
    """Returns the penalty of a name at each position tried; of equal ones the first is the best."""
    return [_cost(_moved(written, renderer, *position), axes, taken) for position in _TRIED]


def _moved(
    written: Annotation, renderer: RendererAgg, distance: float, right: float, up: float, across: str, along: str
) -> Bbox:
    written.set(ha=across, va=along)
    written.set_position((distance * right, distance * up))
    return written.get_window_extent(renderer)


def _cost(box: Bbox, axes: Axes, taken: _Taken) -> float:
    inside = axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1 and axes.bbox.y0 <= box.y0 and box.y1 <= axes.bbox.y1
    return taken.touched(box) + (0.0 if inside else _OUTSIDE)
