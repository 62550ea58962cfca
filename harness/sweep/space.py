"""What a scaling sweep searches: axes with their values, the points they span, what a point costs and what is too much.

Nothing here reads a file, and nothing knows who proposes the points.
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
from harness.config.toggles import Applied, Toggle, ToggleError, parse, suggest
from harness.store.records import RunRecord

Value = float | int | str
# Name of an axis -> its value.
Params = Mapping[str, Value]

# A schedule is validated at each of so many equal parts of it.
PARTS = 5
# So many points are listed, and their costs added up, and no more.
MOST = 2000
_DRAWS = 1000
_EMA = "trainer.optimizer_config.ema"
_INTERVAL = "trainer.validation_interval"


@dataclasses.dataclass(frozen=True)
class Axis:
    """A toggle or a scaling axis whose value is searched: among choices, or within a range.

    Attributes:
      toggle: whose value it is.
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
        """Its name, on the command line and in Optuna."""
        return self.toggle.key

    @property
    def values(self) -> tuple[Value, ...]:
        """All its values; empty where there are infinitely many."""
        if self.choices:
            return self.choices
        return tuple(range(int(self.low), int(self.high) + 1)) if self.whole else ()

    def holds(self, value: Any) -> bool:
        """Whether the value lies on the axis."""
        if self.choices:
            return value in self.choices
        return isinstance(value, int if self.whole else int | float) and self.low <= value <= self.high

    def draw(self, generator: np.random.Generator) -> Value:
        """A value at random, on the axis's own scale."""
        if values := self.values:
            return values[int(generator.integers(len(values)))]
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        drawn = float(generator.uniform(low, high))
        return min(max(math.exp(drawn) if self.log else drawn, self.low), self.high)

    def __str__(self) -> str:
        """As it is written on the command line."""
        if self.choices:
            return f"{self.key}={','.join(map(str, self.choices))}"
        return f"{self.key}={self.low:g}:{self.high:g}{':log' if self.log else ''}"


def scale(toggle: Toggle, text: str) -> Axis:
    """The axis of "50,101", the values of a scaling axis.

    Raises:
      ToggleError: a value that the axis does not have.
    """
    parsed = (parse(f"{toggle.key}={part.strip()}", {toggle.key: toggle}).value for part in text.split(","))
    return Axis(toggle, tuple(dict.fromkeys(parsed)))


def tune(text: str, known: Mapping[str, Toggle]) -> Axis:
    """The axis of "sd=0.0:0.3", "wd=1e-5:1e-3:log" or "dstem=v0,v1".

    Raises:
      ToggleError: an unknown toggle, values it does not take, or a range that is none.
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
    """The axis of "0.0:0.3"."""
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
    whole = all(isinstance(one, int) for one in (low, high, toggle.default)) and not log
    return Axis(toggle, (), low, high, log, whole)


def _listed(toggle: Toggle) -> str:
    return f"{toggle.key}={','.join(map(str, toggle.choices))}"


@dataclasses.dataclass(frozen=True)
class Space:
    """The points of a sweep.

    Attributes:
      axes: what is searched, scaling axes first.
      base: toggles that every point has, at their values.
    """

    axes: tuple[Axis, ...]
    base: tuple[Applied, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of the axes."""
        return tuple(axis.key for axis in self.axes)

    @property
    def size(self) -> int | None:
        """Number of points; None where there are infinitely many."""
        counts = [len(axis.values) for axis in self.axes]
        return math.prod(counts) if all(counts) else None

    @property
    def listed(self) -> bool:
        """Whether its points can be gone through."""
        return self.size is not None and self.size <= MOST

    def points(self) -> Iterator[dict[str, Value]]:
        """Every point, the last axis changing fastest; for a space that is `listed`."""
        for values in itertools.product(*(axis.values for axis in self.axes)):
            yield dict(zip(self.keys, values, strict=True))

    def cell(self, params: Params, seed: int) -> Cell:
        """What a run at a point trains."""
        return Cell((*(axis.toggle.at(params[axis.key]) for axis in self.axes), *self.base), seed)

    def holds(self, params: Mapping[str, Any]) -> bool:
        """Whether there is a value for every axis, and each lies on it."""
        return set(params) == set(self.keys) and all(axis.holds(params[axis.key]) for axis in self.axes)

    def params_of(self, record: RunRecord) -> dict[str, Value] | None:
        """The point that a record may be of, by its toggles and scale; None where it lies outside.

        Whether the rest of its settings are the sweep's own, only its identity tells.
        """
        held = {**record.toggles, **record.scale}
        params = {key: held[key] for key in self.keys if key in held}
        return params if self.holds(params) else None


def space(axes: Sequence[Axis], base: Sequence[Applied]) -> Space:
    """The space of some axes; what one of them searches is taken out of the base.

    Raises:
      ToggleError: two axes of one toggle, or a scaling axis in the base.
    """
    keys = [axis.key for axis in axes]
    for key in keys:
        if keys.count(key) > 1:
            raise ToggleError(f"{key}: is searched twice; name it once")
    for one in base:
        if one.toggle.axis:
            raise ToggleError(f"--base {one}: say --{one.toggle.key} {one.value}")
    return Space(tuple(axes), tuple(one for one in base if one.toggle.key not in keys))


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a point may cost; None for no limit.

    Attributes:
      gflops: multiply-adds of one evaluation view, 1e9.
      hours: estimated hours of its training and evaluation.
    """

    gflops: float | None = None
    hours: float | None = None

    def over(self, point: Point) -> dict[str, float]:
        """Name of each limit there is -> by how much the point is above it; below it, a number below 0."""
        over = {} if self.gflops is None else {"gflops": point.gflops - self.gflops}
        if self.hours is not None and point.hours is not None:
            over["hours"] = point.hours - self.hours
        return over

    def reason(self, point: Point) -> str:
        """Why a point is turned away; empty where it is not."""
        over = self.over(point)
        reasons = []
        if over.get("gflops", 0) > 0:
            reasons.append(f"{point.gflops:.3g} GFLOPs, more than {self.gflops:g}")
        if over.get("hours", 0) > 0:
            reasons.append(f"about {point.hours:.3g} hours, more than {self.hours:g}")
        return " and ".join(reasons)


@dataclasses.dataclass(frozen=True)
class Speed:
    """How long runs take here: seconds = overhead + work / rate.

    Attributes:
      rate: multiply-adds per second.
      overhead: seconds that a run takes whatever its size.
      runs: from how many measured runs it follows; 0 for the profile's own figure.
    """

    rate: float
    overhead: float = 0.0
    runs: int = 0

    def seconds(self, work: float) -> float:
        """Of a run with so many multiply-adds."""
        return self.overhead + work / self.rate


def speed(work: Sequence[float], seconds: Sequence[float], otherwise: float | None) -> Speed | None:
    """The speed that measured runs show, by least squares where they differ in size.

    Args:
      work: multiply-adds of each run.
      seconds: what it took.
      otherwise: multiply-adds per second where nothing was measured; None where that is not known either.
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
    """Multiply-adds and seconds of a recorded run, its training and its evaluations."""
    views = sum(one.clips * one.crops * one.videos for one in record.evaluations.values())
    work = record.cost.get("train_multiply_adds", 0) + views * record.cost["multiply_adds"]
    return work, record.cost["train_seconds"] + sum(one.seconds for one in record.evaluations.values())


@dataclasses.dataclass(frozen=True)
class Point:
    """A point of the space and what it costs, before anything is trained.

    Attributes:
      params: its values.
      run: the run.
      multiply_adds: of one evaluation view.
      steps: optimizer steps of its schedule.
      work: multiply-adds of its training and evaluation.
      hours: what they take, by estimate; None where nothing is known.
    """

    params: Params
    run: Run
    multiply_adds: int
    steps: int
    work: int
    hours: float | None

    @property
    def gflops(self) -> float:
        """Multiply-adds of one evaluation view, 1e9."""
        return self.multiply_adds / 1e9


def price(params: Params, run: Run, known: Speed | None) -> Point:
    """What a point costs."""
    videos = run.protocol.videos or run.data.validation_videos
    one_view = network.count(run.settings).multiply_adds
    work = network.training(run.settings) + run.protocol.clips * run.protocol.crops * videos * one_view
    hours = known.seconds(work) / 3600 if known else None
    return Point(params, run, one_view, run.settings[TRAIN_STEPS], work, hours)


def validated(run: Run, parts: int = PARTS) -> Run:
    """The run, validated at each of so many equal parts of its schedule, or as often as it is anyway.

    How often it is validated is bookkeeping and changes nothing that is learned; except where weights are averaged,
    whose swapping for a validation moves their last digits, so such a run is validated as its profile says.
    """
    if run.settings[_EMA] is not None:
        return run
    interval = min(run.bookkeeping[_INTERVAL], math.ceil(run.settings[TRAIN_STEPS] / parts))
    return dataclasses.replace(run, bookkeeping={**run.bookkeeping, _INTERVAL: interval})


def reached(done: int, total: int, parts: int = PARTS) -> int:
    """Percent of the schedule, rounded down to one of its parts: 40 for any step from 40 to below 60 %."""
    return 100 * (parts * done // total) // parts


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A space with what a point may cost and how its run follows.

    Attributes:
      space: the points.
      limits: what a point may cost.
      seed: the seed of every run.
      complete: cell -> run.
      speed: how long runs take here, None where nothing is known.
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
        """A point with its cost."""
        return price(params, self.complete(self.space.cell(params, self.seed)), self.speed)

    def grid(self) -> list[Point]:
        """Every point, those over the limits too; empty where they cannot be gone through."""
        return [self.at(params) for params in self.space.points()] if self.space.listed else []

    def draw(self, generator: np.random.Generator, tried: Callable[[Point], bool]) -> Point | None:
        """A point at random that lies within the limits and was not tried; None where none is found."""
        if self.space.listed:
            left = [point for point in self.grid() if not self.limits.reason(point) and not tried(point)]
            return left[int(generator.integers(len(left)))] if left else None
        for _ in range(_DRAWS):
            point = self.at({axis.key: axis.draw(generator) for axis in self.space.axes})
            if not self.limits.reason(point) and not tried(point):
                return point
        return None

    def of_record(self, record: RunRecord) -> Point | None:
        """The point that a record is of; None where it is another run than any of the sweep's."""
        params = self.space.params_of(record)
        if params is None:
            return None
        try:
            point = self.at(params)
        except (SettingsError, ToggleError):
            return None
        return point if point.run.identity == record.identity else None
