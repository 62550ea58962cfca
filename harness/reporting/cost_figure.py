"""Published points and our summary -> the paper's Figures 1 and 2: first the points, then the drawing of them."""

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
from harness.config.experiment import DataFacts, Profile
from harness.config.studies import Cell, Row
from harness.config.toggles import Applied
from harness.reporting import paper_tables, study_tables
from harness.reporting.figure_style import MUTED, framed, style

AXES = ("depth", "frames", "resolution")

# Of Okabe and Ito. A kind has its marker and colour; ours are filled on a whole line, the published hollow on a dashed.
_LOOKS: dict[str, dict[str, Any]] = {
    "R3D-RS": {"marker": "s", "color": "#0072B2"},
    "R3D": {"marker": "^", "color": "#000000"},
    "SlowFast": {"marker": "D", "color": "#D55E00"},
    "depth": {"marker": "o", "color": "#0072B2"},
    "frames": {"marker": "s", "color": "#D55E00"},
    "resolution": {"marker": "^", "color": "#009E73"},
}
_OTHER: dict[str, Any] = {"marker": "P", "color": "#CC79A7"}
_SIZE = 4.5  # points that a marker is wide
_UNMEASURED: dict[str, Any] = {"low": math.nan, "high": math.nan, "step": ""}  # of a published point
# Where a name may stand about its point, the best place first: direction and alignment.
_PLACES = [
    (0, 1, "center", "bottom"), (0, -1, "center", "top"), (1, 0, "left", "center"), (-1, 0, "right", "center"),
    (0.7, -0.7, "left", "top"), (-0.7, 0.7, "right", "bottom"), (0.7, 0.7, "left", "bottom"),
    (-0.7, -0.7, "right", "top"),
]  # fmt: skip
_TRIED = [(distance, *place) for distance in (5, 9, 14, 20) for place in _PLACES]  # distances in points
_OUTSIDE, _ON_NAME, _ON_BAR, _ON_LINE = 1000.0, 20.0, 6.0, 2.0  # how much worse a place is for what is there already


@dataclasses.dataclass(frozen=True)
class Series:
    """Points of one kind, of one origin, in their order; at least one is known.

    Attributes:
      kind: what they have in common: a family of models ("R3D-RS"), or the axis that is scaled ("depth").
      ours: whether they are ours; else they stand as published.
      labels: a name for each point.
      gflops: 1e9 multiply-adds of one view; NaN where they are not known.
      top1: percent, higher is better; NaN of a row of ours that is not finished: there the line breaks.
      low, high: ends of the 95 % interval, in percent; NaN where there is none.
      step: what is written of each point's step, with its mark: "-4.2*"; empty where there is none.
      start: GFLOPs and top-1 of the point of another series from which the line starts; None where it starts itself.
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
    """What a figure of accuracy against computation shows.

    Attributes:
      title: one line.
      caption: what the numbers are, and which are unknown.
      series: all points.
      profile: of ours; empty where there are none.
      comparable: True where ours come from the paper's recipe and data, and so may share an axis with the paper's.
    """

    title: str
    caption: str
    series: tuple[Series, ...]
    profile: str
    comparable: bool

    @property
    def panels(self) -> tuple[tuple[Series, ...], ...]:
        """The series of each panel: numbers that cannot be compared never share one."""
        ours = tuple(one for one in self.series if one.ours)
        published = tuple(one for one in self.series if not one.ours)
        return (self.series,) if self.comparable or not ours else (ours, published)


def accuracy_points(summary: Summary | None, published: pd.DataFrame, source: Mapping[str, Any]) -> CostPoints:
    """The points of Figure 1: top-1 against the GFLOPs of one view, by family of models.

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
    """The points of Figure 2: top-1 against the GFLOPs of one view, a line for each axis that is scaled.

    Args:
      summary: ours; rows answer to the points that :attr:`harness.config.studies.Row.published` numbers. None where
        nothing was run.
      published: the published points, as :func:`harness.analysis.published.load` gives "figure2".
      source: where they come from, as :func:`harness.analysis.published.source` gives it.
      counted: row -> GFLOPs of points whose accuracy the paper prints and whose cost it only draws, as :func:`counted`
        gives them. Without, these points are named in the caption alone.
    """
    costs = published["gflops"].fillna(pd.Series(counted or {}, dtype=float))
    own = costs.notna() & published["gflops"].isna() & published["top1"].notna()
    labels = published["label"] + own.map({True: study_tables.DAGGER, False: ""})
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


def counted(published: pd.DataFrame, profile: Profile, model: Sequence[Applied]) -> dict[int, float]:
    """GFLOPs of the points of Figure 2 whose accuracy the paper prints and whose cost it only draws.

    Args:
      published: the points, as :func:`harness.analysis.published.load` gives "figure2".
      profile: whose settings and axes are counted with: the paper's.
      model: the toggles that the scaled network has.

    Returns:
      Row -> 1e9 multiply-adds of one view, as :func:`harness.config.network.count` counts them.
    """
    open_ = published[published["gflops"].isna() & published["top1"].notna() & published["depth"].notna()]
    return {int(number): _gflops(point, profile, model) for number, point in open_.iterrows()}


def _gflops(point: pd.Series[Any], profile: Profile, model: Sequence[Applied]) -> float:
    scale = [axis.at(int(point[axis.key])) for axis in profile.axes if axis.key in AXES]
    facts = DataFacts("Kinetics-400", classes=400, train_videos=1, validation_videos=1)
    run = experiment.complete(Cell((*model, *scale)), profile, facts, replicas=1)
    return network.count(run.settings).multiply_adds / 1e9


def _counted_words(published: pd.DataFrame, costs: pd.Series[Any]) -> Iterator[str]:
    """What is said of points whose cost the paper does not print."""
    unprinted = published[published["gflops"].isna() & published["top1"].notna()]
    there = costs.loc[unprinted.index].notna()
    if there.any():
        yield f"{study_tables.DAGGER} The paper does not print this point's GFLOPs: they are counted from our settings."
    if len(missing := unprinted[~there]):
        named = ", ".join(f"{one['label']} ({one['top1']:.1f} %)" for _, one in missing.iterrows())
        yield f"Not drawn, since their GFLOPs are unknown: {named}."


def _own_words(summary: Summary | None, ours: pd.DataFrame) -> Iterator[str]:
    """What ours are; the points are a line for each row of the study, in its order."""
    if summary is None:
        yield "Nothing of ours was run."
        return
    yield f"Ours: {summary.caption}"
    labels = dict(zip((row.number for row in summary.study.rows), ours["label"], strict=True))
    found: dict[str, list[str]] = {}
    for above, row in zip([None, *labels], summary.study.rows, strict=False):
        if row.follows is not None and paper_tables.has_step(row, summary):
            whence = "the row before it" if row.follows == above else labels[row.follows]
            found.setdefault(whence, []).append(labels[row.number])
    if found:
        said = (f"of {paper_tables.listed(names)} from {whence}" for whence, names in found.items())
        yield f"A signed number is the step of a point: {'; '.join(said)}."


def _own_model(row: Row, summary: Summary, named: Set[str]) -> dict[str, Any]:
    """A row of ours as a point of Figure 1; what the paper names alike, just once, needs no scale beside its name."""
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
    """The rows of ours as points of Figure 2, under the paper's labels where they answer to its points."""
    defaults = _defaults(summary)
    for row in summary.study.rows:
        own = {one.toggle.key: one.value for one in row.applied}
        scale = {axis: own.get(axis, defaults.get(axis, "")) for axis in AXES}
        named = labels.get(row.published) or study_tables.model(row) or f"row {row.number}"
        yield {"label": named, **scale, **_own_numbers(row, summary)}


def _defaults(summary: Summary | None) -> dict[str, Any]:
    """Axis -> the value of rows that do not name it; axes that no row names are left out."""
    rows = () if summary is None else summary.study.rows
    return {one.toggle.key: one.toggle.default for row in rows for one in row.applied if one.toggle.axis}


def _families(points: pd.DataFrame, ours: bool) -> Iterator[Series]:
    """A series for each family that has a point."""
    for kind, some in points.groupby("kind", sort=False) if len(points) else ():
        yield from _series(str(kind), ours, some)


def _by_axis(points: pd.DataFrame, base: Mapping[str, Any] | pd.Series[Any], ours: bool) -> Iterator[Series]:
    """A series for each axis that has a point, starting at the point from which it is scaled.

    Args:
      points: "label", the axes, and the numbers of a series.
      base: frames and resolution that are not scaled; an axis that is not there is scaled by no point.
      ours: whether the points are.
    """
    if points.empty:
        return
    moved = {axis: points[axis].ne(base.get(axis)) & (axis in base) for axis in ("frames", "resolution")}
    deep = points[~moved["frames"] & ~moved["resolution"]]
    yield from _series("depth", ours, deep)
    for axis, other in (("frames", "resolution"), ("resolution", "frames")):
        for depth, some in points[moved[axis] & ~moved[other]].groupby("depth", sort=False):
            start = _known(deep[deep["depth"] == depth])
            yield from _series(axis, ours, some, start.iloc[0] if len(start) else None)
    yield from _series("frames and resolution", ours, points[moved["frames"] & moved["resolution"]])


def _known(points: pd.DataFrame) -> pd.DataFrame:
    return points[points["top1"].notna() & points["gflops"].notna()]


def _series(kind: str, ours: bool, points: pd.DataFrame, start: pd.Series[Any] | None = None) -> Iterator[Series]:
    """The series of some points; none where no point is known. What the paper only draws is no gap of its line."""
    some = points if ours else _known(points)
    if len(_known(some)):
        numbers = {name: tuple(map(float, some[name])) for name in ("gflops", "top1", "low", "high")}
        origin = None if start is None else (float(start["gflops"]), float(start["top1"]))
        labels, step = tuple(some["label"]), tuple(some["step"])
        yield Series(kind=kind, ours=ours, labels=labels, step=step, start=origin, **numbers)


def accuracy(summary: Summary | None, published: pd.DataFrame, source: Mapping[str, Any]) -> Figure:
    """Figure 1, of the points of :func:`accuracy_points`."""
    return draw(accuracy_points(summary, published, source))


def scaling(
    summary: Summary | None,
    published: pd.DataFrame,
    source: Mapping[str, Any],
    counted: Mapping[int, float] | None = None,
) -> Figure:
    """Figure 2, of the points of :func:`scaling_points`."""
    return draw(scaling_points(summary, published, source, counted))


def draw(points: CostPoints) -> Figure:
    """A figure of accuracy against computation; numbers that cannot be compared have a panel each, side by side."""
    with style():
        figure = framed(points.title, points.caption)
        panels = points.panels
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for one, panel in zip(axes, panels, strict=True):
            _draw_panel(one, panel, points.profile, across=1 if len(panels) > 1 else 3)
        figure.draw_without_rendering()
        # Names are placed where there is room, so nothing may move any more.
        figure.set_layout_engine("none")
        for one, panel in zip(axes, panels, strict=True):
            _name(one, panel)
    return figure


def _draw_panel(axes: Axes, panel: Sequence[Series], profile: str, across: int) -> None:
    named: set[tuple[str, bool]] = set()
    for series in panel:
        whose = f"ours, {profile} profile" if series.ours else "published"
        first = (series.kind, series.ours) not in named  # one entry of the legend for all lines of a kind
        _draw_series(axes, series, f"{series.kind}, {whose}" if first else None)
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
    """Names the points, with their steps, each where it touches the least; what the paper names alike beside, once."""
    published = {label.rstrip(study_tables.DAGGER) for series in panel if not series.ours for label in series.labels}
    taken, written = _taken(axes, panel), []
    for series in panel:
        for label, step, x, y in zip(series.labels, series.step, series.gflops, series.top1, strict=True):
            name = "" if series.ours and label in published else label
            if not math.isnan(y) and (words := "\n".join(filter(None, [name, step]))):
                # Without its name, the colour says to which line the step belongs.
                color = MUTED if name else _LOOKS.get(series.kind, _OTHER)["color"]
                written.append(_write(axes, words, (x, y), color))
    figure = axes.figure.get_figure(root=True)
    # Without a renderer, matplotlib makes one each time a text's extent is asked.
    renderer = RendererAgg(*figure.bbox.size, figure.dpi)  # type: ignore[no-untyped-call]
    # Those first that have the least room even alone.
    for text in sorted(written, key=lambda text: sum(_costs(text, axes, taken, renderer)), reverse=True):
        costs = _costs(text, axes, taken, renderer)
        taken.add(_moved(text, renderer, *_TRIED[costs.index(min(costs))]), _ON_NAME)


class _Taken:
    """Boxes, in pixels, that names should keep clear of, and how much worse a name is that touches one."""

    def __init__(self) -> None:
        self._extents, self._weights = list[npt.NDArray[np.float64]](), list[float]()

    def add(self, box: Bbox, weight: float) -> None:
        """Adds a box."""
        self._extents.append(np.array([box.xmin, box.ymin, box.xmax, box.ymax]))
        self._weights.append(weight)

    def touched(self, box: Bbox) -> float:
        """The sum of the weights of the boxes that a box touches."""
        left, bottom, right, top = np.array(self._extents).reshape(-1, 4).T
        touches = (box.xmax >= left) & (right >= box.xmin) & (box.ymax >= bottom) & (top >= box.ymin)
        return float(np.array(self._weights)[touches].sum())


def _taken(axes: Axes, panel: Sequence[Series]) -> _Taken:
    """What names should keep clear of before any is written: markers, intervals and lines."""
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
    """How much a name touches in each of the places that are tried; among equal ones the first is the best."""
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
