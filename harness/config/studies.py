"""Studies: ordered sets of rows. A row at one seed is a cell, which one run trains."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence

from harness.config import stages as stages_
from harness.config.stages import Stage
from harness.config.toggles import Toggle, ToggleError, ToggleValue, compose


@dataclasses.dataclass(frozen=True)
class Cell:
    """What one run trains: toggles and scaling axes at their values, a seed and, in a chain, the last of its stages.

    Attributes:
      applied: the toggles and axes.
      seed: the seed of every stage.
      stages: the stages of the chain up to this one; empty for a single training from its seed, with the
        profile's recipe.
      dataset: name of the paper's data set for it; None for that of its study.
    """

    applied: tuple[ToggleValue, ...]
    seed: int = 0
    stages: tuple[Stage, ...] = ()
    dataset: str | None = None

    @property
    def stage(self) -> Stage | None:
        """The stage that this cell trains; None without stages."""
        return self.stages[-1] if self.stages else None

    @property
    def before(self) -> Cell | None:
        """The cell whose weights this one starts from; None where it starts from its seed."""
        return dataclasses.replace(self, stages=self.stages[:-1]) if len(self.stages) > 1 else None

    @property
    def toggles(self) -> tuple[ToggleValue, ...]:
        """The toggles without the scaling axes, in the order given."""
        return tuple(applied for applied in self.applied if not applied.toggle.axis)

    def scale(self, axes: Iterable[Toggle]) -> tuple[ToggleValue, ...]:
        """Returns each axis at the cell's value, or at the axis's default where the cell has none."""
        values = {applied.toggle.key: applied for applied in self.applied}
        return tuple(values.get(axis.key, axis.at()) for axis in axes)

    def __str__(self) -> str:
        stage = [f"({self.stage.label})"] if self.stage else []
        return " ".join([*(applied.short for applied in self.applied), *stage, f"seed={self.seed}"])


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of a study's table.

    Attributes:
      number: position in the table, from 1.
      model: the model's name in the paper; empty where the paper leaves it blank.
      applied: toggles and axes of the row.
      published: number of the paper's row that this row reproduces, None where there is none.
      follows: number of the row that the step is measured from, None where no step is shown.
      seeds: the seeds it is trained with, None for those of the study.
      stages: the stages it is trained in, each from the one before; empty for a single training from its seed.
      dataset: name of the data set that the paper asks it on, None for that of its study.
    """

    number: int
    model: str
    applied: tuple[ToggleValue, ...]
    published: int | None = None
    follows: int | None = None
    seeds: tuple[int, ...] | None = None
    stages: tuple[Stage, ...] = ()
    dataset: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.number, bool) or not isinstance(self.number, int) or self.number < 1:
            raise ToggleError(f"row {self.number!r}: expected a number from 1")
        object.__setattr__(self, "applied", tuple(self.applied))
        for applied in self.applied:
            if not isinstance(applied, ToggleValue):
                raise ToggleError(
                    f"row {self.number}: {applied!r} is no toggle at a value: expected such as LS.at(0.1)"
                )
        if self.seeds is not None and (not self.seeds or len(set(self.seeds)) < len(self.seeds)):
            raise ToggleError(f"row {self.number}: seeds {self.seeds}: expected each once, and one at least")
        compose(self.applied)
        object.__setattr__(self, "stages", self._checked_stages())
        stages_.refuse_idle(self.applied, self.stages)

    def _checked_stages(self) -> tuple[Stage, ...]:
        """Returns the stages as a tuple; refuses a chain whose last stage is not evaluated."""
        if isinstance(self.stages, Stage):
            raise ToggleError(
                f"row {self.number}: stages is {self.stages.key} alone: expected a sequence of them, such as "
                "(PRETRAIN, FINETUNE)"
            )
        stages = tuple(self.stages)
        for stage in stages:
            if not isinstance(stage, Stage):
                raise ToggleError(f"row {self.number}: {stage!r} is no stage: expected such as FINETUNE")
        if stages and not stages[-1].evaluated:
            raise ToggleError(
                f"row {self.number}: ends with {stages[-1].label} ({stages_.stage_names(stages)}), which is not "
                "evaluated: expected a last stage that is, such as FINETUNE"
            )
        return stages

    def cell(self, seed: int) -> Cell:
        """Returns the row at one seed."""
        return Cell(self.applied, seed, self.stages, self.dataset)


@dataclasses.dataclass(frozen=True)
class Study:
    """Rows that answer one question together.

    Attributes:
      name: short name, used for files: "table2".
      title: the question, in one line.
      toggles: the toggles that are the table's columns, in order.
      rows: the rows, numbered from 1.
      published: name of the published numbers that it reproduces, None where there are none.
      dataset: name of the paper's data set for it, one of `ablations/datasets.py`.
      layout: how its figure is drawn, one of :data:`harness.reporting.layouts.LAYOUTS`.
      crops_differ: whether its rows may be evaluated at crops of different sizes, as in a study of the resolution.
      stand_in: name of the generated data set that replaces its data sets where none is available, one of `GENERATED`
        in `ablations/datasets.py`.
    """

    name: str
    title: str
    toggles: tuple[Toggle, ...]
    rows: tuple[Row, ...]
    published: str | None = None
    dataset: str = "Kinetics-400"
    layout: str = "additive"
    crops_differ: bool = False
    stand_in: str = "embedded"

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", tuple(self.rows))
        object.__setattr__(self, "toggles", tuple(self.toggles))
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", self.name):
            raise ToggleError(
                f"study {self.name!r}: its files are named so: expected up to 64 letters, digits, dots, dashes"
            )

    def check(self) -> None:
        """Refuses rows that do not form a study. A part of a study, as :meth:`only` returns it, need not pass.

        Raises:
          ToggleError: there is no row, a row number appears twice, or a row follows itself, a row that is not in the
            study, or a row on other data.
        """
        numbers = [row.number for row in self.rows]
        if not numbers:
            raise ToggleError(f"{self.name}: has no rows")
        for row in self.rows:
            if numbers.count(row.number) > 1:
                raise ToggleError(f"{self.name}: row {row.number} is there twice")
            if row.follows is not None and (row.follows not in numbers or row.follows == row.number):
                raise ToggleError(
                    f"{self.name}: row {row.number} follows row {row.follows}: expected another row of it"
                )
        sets = {row.number: self.dataset_of(row) for row in self.rows}
        for row in self.rows:
            if row.follows is not None and sets[row.follows] != sets[row.number]:
                raise ToggleError(
                    f"{self.name}: row {row.number} follows row {row.follows}: expected a row on {sets[row.number]} too"
                )

    @property
    def datasets(self) -> tuple[str, ...]:
        """Names of the paper's data sets for its rows, each once."""
        return tuple(dict.fromkeys(map(self.dataset_of, self.rows))) or (self.dataset,)

    def dataset_of(self, row: Row) -> str:
        """Returns the name of the paper's data set for a row."""
        return row.dataset or self.dataset

    @property
    def base(self) -> tuple[ToggleValue, ...]:
        """The toggles and axes of the first row, which the other rows build on."""
        return self.rows[0].applied

    @property
    def factors(self) -> tuple[ToggleValue, ...]:
        """The toggles under study, in the order of its columns, each at the value of the first row that has it."""
        values = {applied.toggle.key: applied for row in reversed(self.rows) for applied in row.applied}
        return tuple(values[toggle.key] for toggle in self.toggles if toggle.key in values and not toggle.axis)

    def only(self, numbers: Sequence[int]) -> Study:
        """Returns the study with only some of its rows; they keep their numbers.

        Raises:
          ToggleError: a number is no row of the study.
        """
        known = [row.number for row in self.rows]
        for number in numbers:
            if number not in known:
                raise ToggleError(f"row {number}: {self.name} has rows {known[0]} to {known[-1]}")
        return dataclasses.replace(self, rows=tuple(row for row in self.rows if row.number in set(numbers)))

    def plus(self, added: Sequence[ToggleValue]) -> Study:
        """Returns the study with one more row for each added toggle, which that row adds to the row before it."""
        study = self
        for applied in added:
            last = study.rows[-1]
            row = Row(last.number + 1, last.model, (*last.applied, applied), follows=last.number)
            toggles = study.toggles if applied.toggle in study.toggles else (*study.toggles, applied.toggle)
            study = dataclasses.replace(study, toggles=toggles, rows=(*study.rows, row))
        return study


def additive(
    steps: Iterable[ToggleValue], models: Mapping[int, str], base: tuple[ToggleValue, ...] = ()
) -> tuple[Row, ...]:
    """Returns rows that start from the baseline and add one toggle each.

    Args:
      steps: the toggles in the order in which they are added.
      models: row number -> name of the model; row numbers may be missing.
      base: toggles and axes of the first row.
    """
    rows = [Row(1, models.get(1, ""), base, published=1)]
    for number, step in enumerate(steps, start=2):
        applied = (*rows[-1].applied, step)
        rows.append(Row(number, models.get(number, ""), applied, published=number, follows=number - 1))
    return tuple(rows)


def parse_rows(text: str) -> list[int]:
    """Parses row numbers such as "1,3,5-8".

    Raises:
      ToggleError: the text is not of that form.
    """
    numbers: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", part.strip(), re.ASCII)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if last < first:
            raise ToggleError(f"rows {text!r}: expected numbers such as 1,3,5-8")
        numbers.extend(range(first, last + 1))
    return numbers
