"""What each run of a study would take on a slice: from compiled programs and published peaks, or as it was measured.

A bound is the least that is possible: every core at its published peak in each step, nothing waiting for input or for
another core, no validation or checkpoint in between. What was measured on a slice of the same name takes its place.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence

from harness.accelerators import programs
from harness.accelerators.programs import Program
from harness.accelerators.results import Result
from harness.config import slices
from harness.config.slices import Bound, Slice
from harness.planning.plans import Planned
from harness.store.records import RunRecord

_HOUR = 3600.0

Lookup = Callable[[Program], Result | None]


@dataclasses.dataclass(frozen=True)
class Measured:
    """What runs that were recorded on a slice took.

    Attributes:
      steps: a train step and how its clips are made (:attr:`harness.accelerators.programs.Program.fed`) -> seconds a
        step, over all of their steps, compiling, validations and checkpoints included.
      evaluations: an evaluation step, likewise -> seconds a video of a whole evaluation.
    """

    steps: Mapping[str, float] = dataclasses.field(default_factory=dict)
    evaluations: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Forecast:
    """What one run would take on a slice.

    Attributes:
      planned: the run.
      slice_: the slice.
      train, evaluation: its two programs.
      train_result, evaluation_result: what compiling them showed; None where that was not done.
      measured: what runs of the same programs took.
    """

    planned: Planned
    slice_: Slice
    train: Program
    evaluation: Program
    train_result: Result | None
    evaluation_result: Result | None
    measured: Measured = Measured()

    @property
    def programs(self) -> tuple[tuple[Program, Result | None], ...]:
        """The programs that the run comes to, with their results: of one that is not evaluated the train step alone."""
        both = (self.train, self.train_result), (self.evaluation, self.evaluation_result)
        return both if self.planned.run.evaluated else both[:1]

    @property
    def fits(self) -> bool | None:
        """Whether its programs fit; None where that is not known of one, and the other fits."""
        found = [result for _, result in self.programs]
        if any(one is not None and not one.fits for one in found):
            return False
        return None if None in found else True

    @property
    def is_measured(self) -> bool:
        """Whether its hours are those that recorded runs of both programs took; else they are a bound."""
        known = not self.planned.run.evaluated or self.evaluation.fed in self.measured.evaluations
        return self._trained_before and known

    @property
    def _trained_before(self) -> bool:
        return self.train.fed in self.measured.steps

    @property
    def steps(self) -> int:
        """Optimizer steps."""
        return int(self.planned.run.settings["trainer.train_steps"])

    @property
    def evaluation_steps(self) -> int:
        """Steps of the reported evaluation."""
        return -(-self._videos // (self.slice_.cores * self.evaluation.clips)) if self.planned.run.evaluated else 0

    @property
    def _videos(self) -> int:
        run = self.planned.run
        return run.protocol.videos or run.data.validation_videos

    @property
    def step_seconds(self) -> float | None:
        """Of a train step, at least or as measured; None where it is not known."""
        if self._trained_before:
            return self.measured.steps[self.train.fed]
        found = step_bound(self.train_result, self.slice_)
        return None if found is None else found.seconds

    @property
    def evaluation_seconds(self) -> float | None:
        """Of the reported evaluation, likewise; 0 where there is none."""
        if not self.planned.run.evaluated:
            return 0.0
        if self.evaluation.fed in self.measured.evaluations:
            return self._videos * self.measured.evaluations[self.evaluation.fed]
        found = step_bound(self.evaluation_result, self.slice_)
        return None if found is None else self.evaluation_steps * found.seconds

    @property
    def hours(self) -> float | None:
        """Of training and evaluation on the slice; None where one of them is not known, or does not fit."""
        step, evaluation = self.step_seconds, self.evaluation_seconds
        if step is None or evaluation is None:
            return None
        return (self.steps * step + evaluation) / _HOUR

    @property
    def core_hours(self) -> float | None:
        """The same, times the cores of the slice."""
        return None if self.hours is None else self.hours * self.slice_.cores

    @property
    def clips_per_second(self) -> float | None:
        """Training clips that each host must read in a second so that no core waits."""
        step = self.step_seconds
        return None if step is None else self.train.clips * self.train.views * self.slice_.cores_per_host / step


def step_bound(result: Result | None, slice_: Slice) -> Bound | None:
    """The least time of a step; None where the program is not known to fit."""
    if result is None or not result.fits or result.executable is None:
        return None
    return slices.bound(result.executable.operations / 2, result.executable.bytes_moved, slice_.generation)


def forecasts(
    planned: Iterable[Planned], slice_: Slice, lookup: Lookup, measured: Measured = Measured()
) -> list[Forecast]:
    """The forecast of each run.

    Args:
      planned: the runs.
      slice_: the slice.
      lookup: program -> what compiling it showed.
      measured: what runs took that were recorded.

    Raises:
      SettingsError: a batch that the slice's cores cannot share evenly.
    """
    found = []
    for one in planned:
        train, evaluation = programs.of_run(one.run, slice_.cores)
        found.append(Forecast(one, slice_, train, evaluation, lookup(train), lookup(evaluation), measured))
    return found


@dataclasses.dataclass(frozen=True)
class Total:
    """What runs take together.

    Attributes:
      hours: on the slice, one after the other; of the runs that are known.
      core_hours: the same times its cores.
      known: how many runs these are.
      unknown: how many runs are not among them, since their time is not known or they do not fit.
      measured: whether all of them are measured; else it is a bound.
    """

    hours: float
    core_hours: float
    known: int
    unknown: int
    measured: bool


def total(found: Sequence[Forecast], times: Callable[[Forecast], int] = lambda _: 1) -> Total:
    """What some runs take together, each so many times."""
    counts = {True: 0, False: 0}
    for one in found:
        counts[one.hours is not None] += times(one)
    hours = sum(one.hours * times(one) for one in found if one.hours is not None)
    core_hours = hours * found[0].slice_.cores if found else 0.0
    every = all(one.is_measured for one in found if one.hours is not None)
    return Total(hours, core_hours, counts[True], counts[False], every)


def measured(records: Iterable[tuple[RunRecord, Sequence[Program]]], topology: str) -> Measured:
    """What the runs took that were trained on a slice of a name.

    Args:
      records: records, each with its train step and its evaluation step.
      topology: "v3:8x8".
    """
    steps: dict[str, list[tuple[float, float]]] = {}
    evaluations: dict[str, list[tuple[float, float]]] = {}
    for record, (train, evaluation) in records:
        if record.provenance.get("topology") != topology:
            continue
        steps.setdefault(train.fed, []).append((record.cost["train_seconds"], record.cost["train_steps"]))
        found = record.evaluations.get(evaluation.run.protocol.name)
        if found is not None and found.provenance.get("topology") == topology:
            evaluations.setdefault(evaluation.fed, []).append((found.seconds, found.videos))
    return Measured(_rates(steps), _rates(evaluations))


def _rates(found: Mapping[str, Sequence[tuple[float, float]]]) -> dict[str, float]:
    """Seconds for each of what was done, over all runs."""
    return {
        program: sum(seconds for seconds, _ in pairs) / sum(done for _, done in pairs)
        for program, pairs in found.items()
        if sum(done for _, done in pairs)
    }
