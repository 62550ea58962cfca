"""What the rows of a study take on slices, all of their seeds together, of the forecasts of their runs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from harness.accelerators import proving
from harness.accelerators.forecasts import Forecast
from harness.accelerators.results import Result


@dataclasses.dataclass(frozen=True)
class RunCost:
    """What one run takes on a slice, training and the reported evaluation.

    Attributes:
      core_hours: hours of one core, at least or as measured, 0 or more; NaN where they are not known.
      measured: whether they are those that recorded runs of the same program took.
      obstacle: why there are none: "does not fit", "does not compile"; empty where nothing is known to be in the way.
      by: whose counts of its programs a bound rests on: "libtpu 0.0.52", "XLA on the CPU (an estimate)".
    """

    core_hours: float
    measured: bool
    obstacle: str
    by: frozenset[str]

    @property
    def said(self) -> str:
        """The hours in words, "at least 1,234 core-hours", or the obstacle; empty where neither is known."""
        if math.isnan(self.core_hours):
            return self.obstacle
        return f"{'' if self.measured else 'at least '}{amount(self.core_hours)} core-hours"


UNKNOWN = RunCost(math.nan, measured=False, obstacle="", by=frozenset())


@dataclasses.dataclass(frozen=True)
class RowCosts:
    """What the rows of a study take on one slice.

    Attributes:
      topology: the slice: "v3:8x8".
      rows: a line for each row of the study, indexed by its number; columns "core_hours" (over its runs, NaN where they
        are not known of one), "measured" (of all of them), "obstacle" (as of :class:`RunCost`; empty beside hours).
      by: whose counts the bounds among the rows rest on, sorted; empty where none is a bound.
    """

    topology: str
    rows: pd.DataFrame
    by: tuple[str, ...]

    @property
    def bounded(self) -> bool:
        """Whether the hours of a row are a bound."""
        return bool((self.rows["core_hours"].notna() & ~self.rows["measured"]).any())

    @property
    def measured(self) -> bool:
        """Whether the hours of a row are measured."""
        return bool(self.rows["measured"].any())


def amount(value: float) -> str:
    """Hours or core-hours: whole, and two figures where they are few, as they are of small networks."""
    if round(value, 1) >= 10:
        return f"{value:,.0f}"
    return f"{value:#.2g}" if value >= 1e-3 else f"{value:.1g}"


def of_run(forecast: Forecast) -> RunCost:
    """What a forecast says that its run takes."""
    found = [result for _, result in forecast.programs if result is not None]
    hours = forecast.core_hours
    if hours is None:
        return dataclasses.replace(UNKNOWN, obstacle=obstacle(found))
    return RunCost(hours, forecast.is_measured, obstacle="", by=frozenset(map(_named, found)))


def obstacle(found: Iterable[Result]) -> str:
    """Why one of a run's programs cannot be executed; empty where none is known to be so."""
    unfit = [one for one in found if not one.fits]
    if not unfit:
        return ""
    return "does not fit" if all(map(proving.is_too_large, unfit)) else "does not compile"


def _named(result: Result) -> str:
    return f"{result.compiler} (an estimate)" if result.estimated else result.compiler


def of_rows(
    wanted: Mapping[int, Mapping[int, str]], costs: Mapping[str, Mapping[str, RunCost]]
) -> tuple[RowCosts, ...]:
    """What the rows of a study take on each slice of which something is known of a row.

    Args:
      wanted: row number -> seed -> id of the run.
      costs: topology -> id of a run -> what it takes there.
    """
    found = [_on_slice(topology, wanted, runs) for topology, runs in costs.items()]
    return tuple(one for one in found if (one.rows["core_hours"].notna() | (one.rows["obstacle"] != "")).any())


def _on_slice(topology: str, wanted: Mapping[int, Mapping[int, str]], runs: Mapping[str, RunCost]) -> RowCosts:
    every = {number: [runs.get(run_id, UNKNOWN) for run_id in own.values()] for number, own in wanted.items()}
    whole = {number: _together(own) for number, own in every.items()}
    bounds = [one for one in whole.values() if not one.measured]
    lines = [(one.core_hours, one.measured, one.obstacle) for one in whole.values()]
    rows = pd.DataFrame(lines, columns=["core_hours", "measured", "obstacle"], index=pd.Index(whole, name="number"))
    return RowCosts(topology, rows, tuple(sorted(frozenset[str]().union(*(one.by for one in bounds)))))


def _together(runs: Sequence[RunCost]) -> RunCost:
    """What the runs of one row take; a sum over those that happen to be known would mislead."""
    hours = math.fsum(one.core_hours for one in runs) if runs else math.nan
    if math.isnan(hours):
        return dataclasses.replace(UNKNOWN, obstacle=next((one.obstacle for one in runs if one.obstacle), ""))
    return RunCost(hours, all(one.measured for one in runs), "", frozenset[str]().union(*(one.by for one in runs)))
