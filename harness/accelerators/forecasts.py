"""Forecasts the time of each run of a study on a slice: a lower bound from compiled programs, or a measured time.

The bound is the least time that is possible: every core works at its published peak in each step, nothing waits for
input or for another core, and there are no validations or checkpoints. A time measured on a slice of the same name
takes the place of the bound.
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
    """The times that recorded runs took on a slice.

    Attributes:
      steps: a train step and how its clips are made (:attr:`harness.accelerators.programs.Program.fed`) -> seconds per
        step, averaged over all steps, including compiling, validations and checkpoints.
      evaluations: an evaluation step, by the same key -> seconds per video of a whole evaluation.
    """

    steps: Mapping[str, float] = dataclasses.field(default_factory=dict)
    evaluations: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Forecast:
    """The forecast of one run on a slice.

    Attributes:
      planned: the run.
      slice_: the slice.
      train, evaluation: its two programs.
      train_result, evaluation_result: the results of compiling them; None if that was not done.
      measured: the times of recorded runs.
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
        """The programs that the run executes, with their results; only the train step if it is not evaluated."""
        both = (self.train, self.train_result), (self.evaluation, self.evaluation_result)
        return both if self.planned.run.evaluated else both[:1]

    @property
    def fits(self) -> bool | None:
        """Whether its programs fit; None if that is not known for one of them and the other fits."""
        results = [result for _, result in self.programs]
        if any(result is not None and not result.fits for result in results):
            return False
        return None if None in results else True

    @property
    def is_measured(self) -> bool:
        """Whether its hours were measured by recorded runs of its programs; otherwise they are a bound."""
        known = not self.planned.run.evaluated or self.evaluation.fed in self.measured.evaluations
        return self._trained_before and known

    @property
    def _trained_before(self) -> bool:
        return self.train.fed in self.measured.steps

    @property
    def steps(self) -> int:
        """Number of optimizer steps."""
        return int(self.planned.run.settings["trainer.train_steps"])

    @property
    def evaluation_steps(self) -> int:
        """Number of steps of the reported evaluation; 0 if there is none."""
        return -(-self._videos // (self.slice_.cores * self.evaluation.clips)) if self.planned.run.evaluated else 0

    @property
    def _videos(self) -> int:
        run = self.planned.run
        return run.protocol.videos or run.data.validation_videos

    @property
    def step_seconds(self) -> float | None:
        """Seconds of a train step, as a lower bound or as measured; None if not known."""
        if self._trained_before:
            return self.measured.steps[self.train.fed]
        bound = step_bound(self.train_result, self.slice_)
        return None if bound is None else bound.seconds

    @property
    def evaluation_seconds(self) -> float | None:
        """Seconds of the reported evaluation, as a bound or as measured; None if not known, 0 if there is none."""
        if not self.planned.run.evaluated:
            return 0.0
        if self.evaluation.fed in self.measured.evaluations:
            return self._videos * self.measured.evaluations[self.evaluation.fed]
        bound = step_bound(self.evaluation_result, self.slice_)
        return None if bound is None else self.evaluation_steps * bound.seconds

    @property
    def hours(self) -> float | None:
        """Hours of training and evaluation on the slice; None if one of them is not known or does not fit."""
        step, evaluation = self.step_seconds, self.evaluation_seconds
        if step is None or evaluation is None:
            return None
        return (self.steps * step + evaluation) / _HOUR

    @property
    def core_hours(self) -> float | None:
        """Hours times the cores of the slice; None like `hours`."""
        return None if self.hours is None else self.hours * self.slice_.cores

    @property
    def clips_per_second(self) -> float | None:
        """Training clips that each host must read per second so that no core waits; None if the step is not known."""
        step = self.step_seconds
        return None if step is None else self.train.clips * self.train.views * self.slice_.cores_per_host / step


def step_bound(result: Result | None, slice_: Slice) -> Bound | None:
    """Returns the least time of a step; None if the program is not known to fit."""
    if result is None or not result.fits or result.executable is None:
        return None
    return slices.bound(result.executable.operations / 2, result.executable.bytes_moved, slice_.generation)


def forecasts(
    planned: Iterable[Planned], slice_: Slice, lookup: Lookup, measured: Measured = Measured()
) -> list[Forecast]:
    """Returns the forecast of each run.

    Args:
      planned: the runs.
      slice_: the slice.
      lookup: returns the result of compiling a program, or None if it was not compiled.
      measured: the times of recorded runs.

    Raises:
      SettingsError: the slice's cores cannot share a run's batch evenly.
    """
    result = []
    for planned_run in planned:
        train, evaluation = programs.of_run(planned_run.run, slice_.cores)
        result.append(Forecast(planned_run, slice_, train, evaluation, lookup(train), lookup(evaluation), measured))
    return result


@dataclasses.dataclass(frozen=True)
class Total:
    """The total time of runs.

    Attributes:
      hours: hours on the slice, one run after the other, of the runs whose time is known.
      core_hours: `hours` times the cores of the slice.
      known: number of runs whose time is known.
      unknown: number of runs that are left out since their time is not known or they do not fit.
      measured: whether all known times are measured; otherwise the total is a lower bound.
    """

    hours: float
    core_hours: float
    known: int
    unknown: int
    measured: bool


def total(found: Sequence[Forecast], times: Callable[[Forecast], int] = lambda _: 1) -> Total:
    """Returns the total of forecasts, each counted `times` times."""
    counts = {True: 0, False: 0}
    for forecast in found:
        counts[forecast.hours is not None] += times(forecast)
    hours = sum(forecast.hours * times(forecast) for forecast in found if forecast.hours is not None)
    core_hours = hours * found[0].slice_.cores if found else 0.0
    all_measured = all(forecast.is_measured for forecast in found if forecast.hours is not None)
    return Total(hours, core_hours, counts[True], counts[False], all_measured)


def measured(records: Iterable[tuple[RunRecord, Sequence[Program]]], topology: str) -> Measured:
    """Returns the times that recorded runs took on a slice of a name.

    Args:
      records: records of runs, each with its train step and its evaluation step.
      topology: name of the slice, such as "v3:8x8".
    """
    steps: dict[str, list[tuple[float, float]]] = {}
    evaluations: dict[str, list[tuple[float, float]]] = {}
    for record, (train, evaluation) in records:
        if record.provenance.get("topology") != topology:
            continue
        steps.setdefault(train.fed, []).append((record.cost["train_seconds"], record.cost["train_steps"]))
        reported = record.evaluations.get(evaluation.run.protocol.name)
        if reported is not None and reported.provenance.get("topology") == topology:
            evaluations.setdefault(evaluation.fed, []).append((reported.seconds, reported.videos))
    return Measured(_rates(steps), _rates(evaluations))


def _rates(times: Mapping[str, Sequence[tuple[float, float]]]) -> dict[str, float]:
    """Returns seconds per unit over all runs: program -> its total seconds divided by its total of steps or videos."""
    return {
        program: sum(seconds for seconds, _ in pairs) / sum(done for _, done in pairs)
        for program, pairs in times.items()
        if sum(done for _, done in pairs)
    }
