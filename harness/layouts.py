"""How a study is drawn: a layout names the table and the figure that a summary of it becomes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from ablations.profiles import PAPER
from ablations.toggles import R3D_RS
from harness import figures, paper_figures, paper_tables, published, tables
from harness.aggregate import Summary
from harness.rendering import Table
from harness.studies import Study
from harness.toggles import ToggleError, suggest


@dataclasses.dataclass(frozen=True)
class Layout:
    """What is drawn of a study.

    Attributes:
      table: summary -> its table.
      figure: summary -> its figure, None where there is nothing to draw.
    """

    table: Callable[[Summary], Table]
    figure: Callable[[Summary], Figure | None] = lambda _: None


def _steps_in_a_line(numbers: Summary) -> Figure | None:
    """Steps one after the other make a line; many steps from one row are drawn with the credits."""
    follows = [row.follows for row in numbers.study.rows if row.follows is not None]
    return figures.additive(numbers) if follows and len(set(follows)) == len(follows) else None


def _paper(numbers: Summary) -> tuple[pd.DataFrame, Mapping[str, Any]]:
    """The published numbers that the study answers to, and where they come from.

    Raises:
      ToggleError: it answers to none, and its layout is one that sets the paper's numbers beside.
    """
    study = numbers.study
    if study.published is None:
        raise ToggleError(f"{study.name}: layout {study.layout!r} needs `published`, the numbers to set it beside")
    return published.load(study.published), published.source(study.published)


def _comparison(numbers: Summary) -> Table:
    frame, source = _paper(numbers)
    return paper_tables.comparison(numbers.study.name, frame, source, numbers)


def _scaling_table(numbers: Summary) -> Table:
    frame, _ = _paper(numbers)
    return paper_tables.scaling(frame, numbers)


def _scaling_figure(numbers: Summary) -> Figure:
    frame, source = _paper(numbers)
    return paper_figures.scaling(numbers, frame, source, paper_figures.counted(frame, PAPER, R3D_RS))


LAYOUTS: Mapping[str, Layout] = {
    "additive": Layout(tables.additive, _steps_in_a_line),
    "comparison": Layout(_comparison),
    "accuracy": Layout(_comparison, lambda numbers: paper_figures.accuracy(numbers, *_paper(numbers))),
    "scaling": Layout(_scaling_table, _scaling_figure),
}


def of(study: Study) -> Layout:
    """The layout of a study.

    Raises:
      ToggleError: it names none that there is.
    """
    if study.layout not in LAYOUTS:
        raise ToggleError(f"{study.name}: layout {study.layout!r}: {suggest(study.layout, LAYOUTS)}")
    return LAYOUTS[study.layout]
