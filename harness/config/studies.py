"""A study is an ordered set of rows; a row at one seed is a cell, the thing that is trained."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence

from harness.config import stages as stages_
from harness.config.stages import Stage
from harness.config.toggles import Applied, Toggle, ToggleError, compose


@dataclasses.dataclass(frozen=True)
class Cell:
    """What one run trains: toggles and scaling axes at their values, and a seed; of a chain, its last stage.

    Attributes:
      applied: the toggles and axes.
      seed: the seed, of every stage.
      stages: the stages of the chain that ends with it; empty where it is trained from its seed, as the profile says.
      dataset: name of the data set that the paper asks it on; None for that of its study.
    """

    applied: tuple[Applied, ...]
    seed: int = 0
    stages: tuple[Stage, ...] = ()
    dataset: str | None = None

    @property
    def stage(self) -> Stage | None:
        """The stage that it trains."""
        return self.stages[-1] if self.stages else None

    @property
    def before(self) -> Cell | None:
        """The cell that it starts from; None where it starts from its seed."""
        return dataclasses.replace(self, stages=self.stages[:-1]) if len(self.stages) > 1 else None

    @property
    def toggles(self) -> tuple[Applied, ...]:
        """The toggles that are no scaling axes, in the order given."""
        return tuple(one for one in self.applied if not one.toggle.axis)

    def scale(self, axes: Iterable[Toggle]) -> tuple[Applied, ...]:
        """A value for each of the axes: the cell's own, the axis's default otherwise."""
        own = {one.toggle.key: one for one in self.applied}
        return tuple(own.get(axis.key, axis.at()) for axis in axes)

    def __str__(self) -> str:
        stage = [f"({self.stage.label})"] if self.stage else []
        return " ".join([*(one.short for one in self.applied), *stage, f"seed={self.seed}"])


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of a study's table.

    Attributes:
      number: position in the table, from 1.
      model: the model's name in the paper; empty where the paper leaves it blank.
      applied: toggles and axes of the row.
      published: number of the paper's row that this one answers to, None where there is none.
      follows: number of the row that the step is counted from, None where no step is shown.
      seeds: the seeds it is trained with, None for those of its study.
      stages: the stages that it is trained in, one from the other; empty for one training from its seed.
      dataset: name of the data set that the paper asks it on, None for that of its study.
    """

    number: int
    model: str
    applied: tuple[Applied, ...]
    published: int | None = None
    follows: int | None = None
    seeds: tuple[int, ...] | None = None
    stages: tuple[Stage, ...] = ()
    dataset: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.number, bool) or not isinstance(self.number, int) or self.number < 1:
            raise ToggleError(f"row {self.number!r}: expected a number from 1")
        object.__setattr__(self, "applied", tuple(self.applied))
        for one in self.applied:
            if not isinstance(one, Applied):
                raise ToggleError(f"row {self.number}: {one!r} is no toggle at a value: expected such as LS.at(0.1)")
        if self.seeds is not None and (not self.seeds or len(set(self.seeds)) < len(self.seeds)):
            raise ToggleError(f"row {self.number}: seeds {self.seeds}: expected each once, and one at least")
        compose(self.applied)
        object.__setattr__(self, "stages", self._checked_stages())
        stages_.refuse_idle(self.applied, self.stages)

    def _checked_stages(self) -> tuple[Stage, ...]:
        """The stages, which end with one that gives the row its number."""
        if isinstance(self.stages, Stage):
            raise ToggleError(
                f"row {self.number}: stages is {self.stages.key} alone: expected a sequence of them, such as "
                "(PRETRAIN, FINETUNE)"
            )
        found = tuple(self.stages)
        for stage in found:
            if not isinstance(stage, Stage):
                raise ToggleError(f"row {self.number}: {stage!r} is no stage: expected such as FINETUNE")
        if found and not found[-1].evaluated:
            raise ToggleError(
                f"row {self.number}: ends with {found[-1].label} ({stages_.named(found)}), which is not evaluated: "
                "expected a last stage that is, such as FINETUNE"
            )
        return found

    def cell(self, seed: int) -> Cell:
        """The row trained with one seed."""
        return Cell(self.applied, seed, self.stages, self.dataset)


@dataclasses.dataclass(frozen=True)
class Study:
    """Rows that answer one question together.

    Attributes:
      name: short name, used for files: "table2".
      title: one line: what is asked.
      toggles: the toggles that are the table's columns, in order.
      rows: the rows, numbered from 1.
      published: name of the published numbers it answers to, None where there are none.
      dataset: name of the data set that the paper asks it on, one of `ablations/datasets.py`.
      layout: how it is drawn, one of :data:`harness.reporting.layouts.LAYOUTS`.
      crops_differ: whether its rows may be evaluated at crops of different sizes, as a study of the resolution asks.
      stand_in: name of the generated set that stands in for its data sets where none is at hand, one of `GENERATED` in
        `ablations/datasets.py`.
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
        """Refuses rows that make no study; a part of a study, as :meth:`only` gives it, need not pass.

        Raises:
          ToggleError: no row, a number twice, a row that follows none of the others or itself, or one on other data.
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
        """Names of the data sets that the paper asks it on, each once."""
        return tuple(dict.fromkeys(map(self.dataset_of, self.rows))) or (self.dataset,)

    def dataset_of(self, row: Row) -> str:
        """Name of the data set that the paper asks a row on."""
        return row.dataset or self.dataset

    @property
    def base(self) -> tuple[Applied, ...]:
        """What its first row has, and every other adds to."""
        return self.rows[0].applied

    @property
    def factors(self) -> tuple[Applied, ...]:
        """The toggles that the study asks about, in its order, each at the value at which a row has it."""
        values = {one.toggle.key: one for row in reversed(self.rows) for one in row.applied}
        return tuple(values[toggle.key] for toggle in self.toggles if toggle.key in values and not toggle.axis)

    def only(self, numbers: Sequence[int]) -> Study:
        """The study with some of its rows; they keep their numbers.

        Raises:
          ToggleError: a number that is no row of the study.
        """
        known = [row.number for row in self.rows]
        for number in numbers:
            if number not in known:
                raise ToggleError(f"row {number}: {self.name} has rows {known[0]} to {known[-1]}")
        return dataclasses.replace(self, rows=tuple(row for row in self.rows if row.number in set(numbers)))

    def plus(self, added: Sequence[Applied]) -> Study:
        """The study with further toggles, each added to the last row in turn: one row more for each."""
        study = self
        for one in added:
            last = study.rows[-1]
            row = Row(last.number + 1, last.model, (*last.applied, one), follows=last.number)
            toggles = study.toggles if one.toggle in study.toggles else (*study.toggles, one.toggle)
            study = dataclasses.replace(study, toggles=toggles, rows=(*study.rows, row))
        return study


def additive(steps: Iterable[Applied], models: Mapping[int, str], base: tuple[Applied, ...] = ()) -> tuple[Row, ...]:
    """Rows that start from the baseline and add one toggle each.

    Args:
      steps: the toggles in the order in which they are added.
      models: row number -> name of the model, where the table gives one.
      base: what the first row has already.
    """
    rows = [Row(1, models.get(1, ""), base, published=1)]
    for number, step in enumerate(steps, start=2):
        applied = (*rows[-1].applied, step)
        rows.append(Row(number, models.get(number, ""), applied, published=number, follows=number - 1))
    return tuple(rows)


def parse_rows(text: str) -> list[int]:
    """Row numbers of "1,3,5-8".

    Raises:
      ToggleError: anything else.
    """
    numbers: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", part.strip(), re.ASCII)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if last < first:
            raise ToggleError(f"rows {text!r}: expected numbers such as 1,3,5-8")
        numbers.extend(range(first, last + 1))
    return numbers
