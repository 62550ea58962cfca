"""The layouts of studies: which table and which figure a study's summary is drawn as."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from ablations.profiles import PAPER
from ablations.toggles import R3D_RS
from harness.analysis import published
from harness.analysis.study_summary import Summary
from harness.config.studies import Study
from harness.config.toggles import ToggleError, suggest
from harness.reporting import additive_figure, cost_figure, paper_tables, study_tables
from harness.reporting.render import Table


@dataclasses.dataclass(frozen=True)
class Layout:
    """The table and the figure of a study.

    Attributes:
      table: summary -> its table.
      figure: summary -> its figure, None where there is nothing to draw.
      needs: columns that the published numbers must have; empty where the layout needs no published numbers.
    """

    table: Callable[[Summary], Table]
    figure: Callable[[Summary], Figure | None] = lambda _: None
    needs: frozenset[str] = frozenset()


def _steps_in_a_line(numbers: Summary) -> Figure | None:
    """Draws the study if no two of its steps start at the same row; otherwise the figure of credits shows the steps."""
    follows = [row.follows for row in numbers.study.rows if row.follows is not None]
    return additive_figure.additive(numbers) if follows and len(set(follows)) == len(follows) else None


def _paper(numbers: Summary) -> tuple[pd.DataFrame, Mapping[str, Any]]:
    """Returns the published numbers that the study answers to, and their source."""
    name = numbers.study.published or ""
    return published.load(name), published.source(name)


def _comparison(numbers: Summary) -> Table:
    frame, source = _paper(numbers)
    return paper_tables.comparison(numbers.study.name, frame, source, numbers)


def _scaling_table(numbers: Summary) -> Table:
    frame, _ = _paper(numbers)
    return paper_tables.scaling(frame, numbers)


def _scaling_figure(numbers: Summary) -> Figure:
    frame, source = _paper(numbers)
    return cost_figure.scaling(numbers, frame, source, cost_figure.counted(frame, PAPER, R3D_RS))


LAYOUTS: Mapping[str, Layout] = {
    "additive": Layout(study_tables.additive, _steps_in_a_line),
    "comparison": Layout(_comparison, needs=frozenset({"model", "family"})),
    "accuracy": Layout(
        _comparison,
        lambda numbers: cost_figure.accuracy(numbers, *_paper(numbers)),
        frozenset({"model", "series", "gflops"}),
    ),
    "scaling": Layout(_scaling_table, _scaling_figure, frozenset({"label", "depth", "frames", "resolution", "gflops"})),
}


def check(study: Study) -> None:
    """Refuses a study that could be trained but not drawn.

    Raises:
      ToggleError: its layout is unknown or needs other published numbers, or it names published numbers or a row of
        them that do not exist.
    """
    layout = layout_of(study)
    if study.published is None:
        if layout.needs:
            raise ToggleError(f"{study.name}: layout {study.layout!r} needs `published`, the numbers to set it beside")
        return
    if study.published not in published.names():
        raise ToggleError(f"{study.name}: published={study.published!r}: {suggest(study.published, published.names())}")
    frame = published.load(study.published)
    if missing := sorted(layout.needs - set(frame)):
        raise ToggleError(f"{study.name}: layout {study.layout!r}: {study.published} prints no {', '.join(missing)}")
    for row in study.rows:
        if row.published is not None and row.published not in frame.index:
            raise ToggleError(
                f"{study.name}, row {row.number}: published={row.published}: {study.published} has rows 1 to "
                f"{len(frame)}"
            )


def layout_of(study: Study) -> Layout:
    """Returns the layout of a study.

    Raises:
      ToggleError: the study names an unknown layout.
    """
    if study.layout not in LAYOUTS:
        raise ToggleError(f"{study.name}: layout {study.layout!r}: {suggest(study.layout, LAYOUTS)}")
    return LAYOUTS[study.layout]
