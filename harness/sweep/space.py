"""The search space of a scaling sweep: axes and their values, the points they span, and their costs and limits.

This module reads no files and doesn't know how points are proposed.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.optimize import nnls

from harness.config import network
from harness.config.experiment import TRAIN_STEPS, Run, SettingsError
from harness.config.studies import Cell
from harness.config.toggles import Toggle, ToggleError, ToggleValue, parse, suggest
from harness.store.records import RunRecord

Value = float | int | str
# Name of an axis -> its value.
Params = Mapping[str, Value]

# A run is validated at the end of each of this many equal parts of its schedule.
PARTS = 5
# A space with more points than this is not listed, nor are its costs added up.
MOST = 2000
_DRAWS = 1000
_EMA = "trainer.optimizer_config.ema"
_INTERVAL = "trainer.validation_interval"


@dataclasses.dataclass(frozen=True)
class Axis:
    """A toggle or a scaling axis whose value is searched, among choices or within a range.

    Attributes:
      toggle: the toggle or scaling axis.
      choices: the values; empty for a range.
      low, high: ends of the range, inclusive.
      log: whether the range is searched on a logarithmic scale.
      whole: whether only whole numbers are searched.
    """

    toggle: Toggle
    choices: tuple[Value, ...] = ()
    low: float = math.nan
    high: float = math.nan
    log: bool = False
    whole: bool = False

    @property
    def key(self) -> str:
        """Returns its name, on the command line and in Optuna."""
        return self.toggle.key

    @property
    def values(self) -> tuple[Value, ...]:
        """Returns all its values; empty where there are infinitely many."""
        if self.choices:
            return self.choices
        return tuple(range(int(self.low), int(self.high) + 1)) if self.whole else ()

    def holds(self, value: Any) -> bool:
        """Returns whether the value lies on the axis."""
        if self.choices:
            return value in self.choices
        return isinstance(value, int if self.whole else int | float) and self.low <= value <= self.high

    def draw(self, generator: np.random.Generator) -> Value:
        """Draws a random value, uniformly on the axis's scale."""
        if values := self.values:
            return values[int(generator.integers(len(values)))]
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        drawn = float(generator.uniform(low, high))
        return min(max(math.exp(drawn) if self.log else drawn, self.low), self.high)

    def __str__(self) -> str:
        """Returns the axis as it is written on the command line."""
        if self.choices:
            return f"{self.key}={','.join(map(str, self.choices))}"
        return f"{self.key}={self.low:g}:{self.high:g}{':log' if self.log else ''}"


def scale(toggle: Toggle, text: str) -> Axis:
    """Parses the values of a scaling axis, such as "50,101".

    Raises:
      ToggleError: a value that the axis does not have.
    """
    parsed = (parse(f"{toggle.key}={part.strip()}", {toggle.key: toggle}).value for part in text.split(","))
    return Axis(toggle, tuple(dict.fromkeys(parsed)))


def tune(text: str, known: Mapping[str, Toggle]) -> Axis:
    """Parses an axis such as "sd=0.0:0.3", "wd=1e-5:1e-3:log" or "dstem=v0,v1".

    Raises:
      ToggleError: an unknown toggle, values it does not take, or an invalid range.
    """
    key, separator, values = (part.strip() for part in text.partition("="))
    toggle = known.get(key.lower())
    if toggle is None:
        raise ToggleError(f"--tune {text}: unknown toggle {key!r}: {suggest(key, known)}")
    if toggle.axis:
        raise ToggleError(f"--tune {text}: {key} is a scaling axis, say --{key} {values or 'LIST'}")
    if not separator or not values:
        raise ToggleError(f"--tune {text}: expected {key}=LOW:HIGH or {key}=A,B,C")
    if ":" in values:
        return _range(toggle, text, values)
    chosen = scale(toggle, values)
    if len(chosen.choices) < 2:
        raise ToggleError(f"--tune {text}: one value is nothing to search; put it into --base")
    return chosen


def _range(toggle: Toggle, text: str, values: str) -> Axis:
    """Parses a range such as "0.0:0.3"."""
    if toggle.choices:
        raise ToggleError(f"--tune {text}: {toggle.key} has no range, list its values: {_listed(toggle)}")
    ends, log = values.removesuffix(":log"), values.endswith(":log")
    parts = ends.split(":")
    if len(parts) != 2:
        raise ToggleError(f"--tune {text}: expected {toggle.key}=LOW:HIGH, or LOW:HIGH:log")
    low, high = (parse(f"{toggle.key}={part.strip()}", {toggle.key: toggle}).value for part in parts)
    if not isinstance(low, int | float) or not isinstance(high, int | float) or low >= high:
        raise ToggleError(f"--tune {text}: expected LOW below HIGH")
    if log and low <= 0:
        raise ToggleError(f"--tune {text}: a logarithmic range begins above 0")
    whole = all(isinstance(value, int) for value in (low, high, toggle.default)) and not log
    return Axis(toggle, (), low, high, log, whole)


def _listed(toggle: Toggle) -> str:
    return f"{toggle.key}={','.join(map(str, toggle.choices))}"


@dataclasses.dataclass(frozen=True)
class Space:
    """The points of a sweep.

    Attributes:
      axes: the axes searched, scaling axes first.
      base: toggles that every point has, with their values.
    """

    axes: tuple[Axis, ...]
    base: tuple[ToggleValue, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        """Returns the names of the axes."""
        return tuple(axis.key for axis in self.axes)

    @property
    def size(self) -> int | None:
        """Returns the number of points; None where there are infinitely many."""
        counts = [len(axis.values) for axis in self.axes]
        return math.prod(counts) if all(counts) else None

    @property
    def listed(self) -> bool:
        """Returns whether there are few enough points to list."""
        return self.size is not None and self.size <= MOST

    def points(self) -> Iterator[dict[str, Value]]:
        """Yields every point, the last axis changing fastest; for a space that is `listed`."""
        for values in itertools.product(*(axis.values for axis in self.axes)):
            yield dict(zip(self.keys, values, strict=True))

    def cell(self, params: Params, seed: int) -> Cell:
        """Returns the cell that a run at a point trains."""
        return Cell((*(axis.toggle.at(params[axis.key]) for axis in self.axes), *self.base), seed)

    def holds(self, params: Mapping[str, Any]) -> bool:
        """Returns whether there is a value for every axis and no other, each on its axis."""
        return set(params) == set(self.keys) and all(axis.holds(params[axis.key]) for axis in self.axes)

    def params_of(self, record: RunRecord) -> dict[str, Value] | None:
        """Returns the point that a record may belong to, by its toggles and scale; None where that lies outside.

        Only the run's identity tells whether its other settings are the sweep's, too.
        """
        held = {**record.toggles, **record.scale}
        params = {key: held[key] for key in self.keys if key in held}
        return params if self.holds(params) else None


def space(axes: Sequence[Axis], base: Sequence[ToggleValue]) -> Space:
    """Makes a space of axes; toggles that an axis searches are removed from the base.

    Raises:
      ToggleError: two axes of one toggle, or a scaling axis in the base.
    """
    keys = [axis.key for axis in axes]
    for key in keys:
        if keys.count(key) > 1:
            raise ToggleError(f"{key}: is searched twice; name it once")
    for applied in base:
        if applied.toggle.axis:
            raise ToggleError(f"--base {applied}: say --{applied.toggle.key} {applied.value}")
    return Space(tuple(axes), tuple(applied for applied in base if applied.toggle.key not in keys))


@dataclasses.dataclass(frozen=True)
class Limits:
    """Upper limits of a point's cost; None for no limit.

    Attributes:
      gflops: multiply-adds of one evaluation view, 1e9.
      hours: estimated hours of its training and evaluation.
    """

    gflops: float | None = None
    hours: float | None = None

    def over(self, point: Point) -> dict[str, float]:
        """Returns name of each limit that is set -> by how much the point exceeds it; negative below the limit."""
        over = {} if self.gflops is None else {"gflops": point.gflops - self.gflops}
        if self.hours is not None and point.hours is not None:
            over["hours"] = point.hours - self.hours
        return over

    def reason(self, point: Point) -> str:
        """Returns why a point is turned away; empty where it is not."""
        over = self.over(point)
        reasons = []
        if over.get("gflops", 0) > 0:
            reasons.append(f"{point.gflops:.3g} GFLOPs, more than {self.gflops:g}")
        if over.get("hours", 0) > 0:
            reasons.append(f"about {point.hours:.3g} hours, more than {self.hours:g}")
        return " and ".join(reasons)


@dataclasses.dataclass(frozen=True)
class Speed:
    """The speed of runs on this machine: seconds = overhead + work / rate.

    Attributes:
      rate: multiply-adds per second.
      overhead: seconds that a run of any size takes.
      runs: number of measured runs that it is fitted to; 0 for the profile's figure.
    """

    rate: float
    overhead: float = 0.0
    runs: int = 0

    def seconds(self, work: float) -> float:
        """Returns the seconds of a run, from its multiply-adds."""
        return self.overhead + work / self.rate


def speed(work: Sequence[float], seconds: Sequence[float], otherwise: float | None) -> Speed | None:
    """Fits the speed to measured runs, by least squares if they have more than two sizes.

    Args:
      work: multiply-adds of each run.
      seconds: seconds that each run took.
      otherwise: multiply-adds per second to use where nothing was measured; None where unknown.
    """
    if sum(seconds) <= 0:
        return None if otherwise is None else Speed(otherwise)
    if len(set(work)) > 2:
        scaled = max(work)
        (overhead, slope), _ = nnls(np.column_stack([np.ones(len(work)), np.array(work) / scaled]), np.array(seconds))
        if slope > 0:
            return Speed(scaled / float(slope), float(overhead), len(work))
    return Speed(sum(work) / sum(seconds), 0.0, len(work))


def measured(record: RunRecord) -> tuple[float, float]:
    """Returns the multiply-adds and seconds of a recorded run, in training and evaluations."""
    views = sum(evaluation.clips * evaluation.crops * evaluation.videos for evaluation in record.evaluations.values())
    work = record.cost.get("train_multiply_adds", 0) + views * record.cost["multiply_adds"]
    return work, record.cost["train_seconds"] + sum(evaluation.seconds for evaluation in record.evaluations.values())


@dataclasses.dataclass(frozen=True)
class Point:
    """A point of the space and its cost, known before anything is trained.

    Attributes:
      params: its value on each axis.
      run: the run.
      multiply_adds: multiply-adds of one evaluation view.
      steps: optimizer steps of its schedule.
      work: multiply-adds of its training and evaluation.
      hours: estimated hours of its training and evaluation; None where unknown.
    """

    params: Params
    run: Run
    multiply_adds: int
    steps: int
    work: int
    hours: float | None

    @property
    def gflops(self) -> float:
        """Returns the multiply-adds of one evaluation view, 1e9."""
        return self.multiply_adds / 1e9


def price(params: Params, run: Run, known: Speed | None) -> Point:
    """Returns a point with its cost."""
    videos = run.protocol.videos or run.data.validation_videos
    one_view = network.count(run.settings).multiply_adds
    work = network.training(run.settings) + run.protocol.clips * run.protocol.crops * videos * one_view
    hours = known.seconds(work) / 3600 if known else None
    return Point(params, run, one_view, run.settings[TRAIN_STEPS], work, hours)


def validated(run: Run, parts: int = PARTS) -> Run:
    """Returns the run with a validation after each of `parts` equal parts of its schedule, or as often as it has.

    Validations don't change what is learned, except where weights are averaged: swapping the averages in and out for a
    validation changes their last digits. Such a run keeps the validations of its profile.
    """
    if run.settings[_EMA] is not None:
        return run
    interval = min(run.bookkeeping[_INTERVAL], math.ceil(run.settings[TRAIN_STEPS] / parts))
    return dataclasses.replace(run, bookkeeping={**run.bookkeeping, _INTERVAL: interval})


def reached(done: int, total: int, parts: int = PARTS) -> int:
    """Returns the percent of the schedule done, rounded down to a part: 40 for any step from 40 to below 60 %."""
    return 100 * (parts * done // total) // parts


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A space with its limits, and with what turns a point into a run and its cost.

    Attributes:
      space: the points.
      limits: upper limits of a point's cost.
      seed: the seed of every run.
      complete: cell -> run.
      speed: speed of runs on this machine; None where unknown.
    """

    space: Space
    limits: Limits
    seed: int
    complete: Callable[[Cell], Run]
    speed: Speed | None

    def __post_init__(self) -> None:
        if self.limits.hours is not None and self.speed is None:
            raise SettingsError(
                f"--max-hours {self.limits.hours:g}: nothing was measured here yet that hours could be estimated from; "
                "train one point without it, or say --max-gflops"
            )

    def at(self, params: Params) -> Point:
        """Returns the point at these values, with its cost."""
        return price(params, self.complete(self.space.cell(params, self.seed)), self.speed)

    def grid(self) -> list[Point]:
        """Returns every point, including those over the limits; empty where the space is too large to list."""
        return [self.at(params) for params in self.space.points()] if self.space.listed else []

    def draw(self, generator: np.random.Generator, tried: Callable[[Point], bool]) -> Point | None:
        """Draws a random untried point within the limits; None where none is found."""
        if self.space.listed:
            left = [point for point in self.grid() if not self.limits.reason(point) and not tried(point)]
            return left[int(generator.integers(len(left)))] if left else None
        for _ in range(_DRAWS):
            point = self.at({axis.key: axis.draw(generator) for axis in self.space.axes})
            if not self.limits.reason(point) and not tried(point):
                return point
        return None

    def of_record(self, record: RunRecord) -> Point | None:
        """Returns the point that a record belongs to; None where its run is not one of the sweep's."""
        params = self.space.params_of(record)
        if params is None:
            return None
        try:
            point = self.at(params)
        except (SettingsError, ToggleError):
            return None
        return point if point.run.identity == record.identity else None
