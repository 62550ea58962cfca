"""Adds up the forecasts of runs to the core-hours that each row of a study takes on a slice, over all its seeds."""

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
    """The cost of one run on a slice: training and the reported evaluation.

    Attributes:
      core_hours: hours of one core, 0 or more, as a lower bound or as measured; NaN if not known.
      measured: whether the hours were measured by recorded runs of the same programs.
      obstacle: why there are no hours: "does not fit" or "does not compile"; empty if no obstacle is known.
      by: the compilers whose counts a bound rests on: "libtpu 0.0.52", "XLA on the CPU (an estimate)".
    """

    core_hours: float
    measured: bool
    obstacle: str
    by: frozenset[str]

    @property
    def said(self) -> str:
        """The hours in words, such as "at least 1,234 core-hours", or the obstacle; empty if neither is known."""
        if math.isnan(self.core_hours):
            return self.obstacle
        return f"{'' if self.measured else 'at least '}{amount(self.core_hours)} core-hours"


UNKNOWN = RunCost(math.nan, measured=False, obstacle="", by=frozenset())


@dataclasses.dataclass(frozen=True)
class RowCosts:
    """The costs of the rows of a study on one slice.

    Attributes:
      topology: the slice, such as "v3:8x8".
      rows: one line for each row of the study, indexed by the row's number. Columns: "core_hours" (sum over its runs,
        NaN if unknown for any of them), "measured" (whether all of them are measured), "obstacle" (see
        :class:`RunCost`; empty if there are hours).
      by: the compilers whose counts the bounds among the rows rest on, sorted; empty if no row is a bound.
    """

    topology: str
    rows: pd.DataFrame
    by: tuple[str, ...]

    @property
    def bounded(self) -> bool:
        """Whether the hours of any row are a lower bound."""
        return bool((self.rows["core_hours"].notna() & ~self.rows["measured"]).any())

    @property
    def measured(self) -> bool:
        """Whether the hours of any row are measured."""
        return bool(self.rows["measured"].any())


def amount(value: float) -> str:
    """Formats hours or core-hours: whole numbers from 10 on, two digits below, as for small networks."""
    if round(value, 1) >= 10:
        return f"{value:,.0f}"
    return f"{value:#.2g}" if value >= 1e-3 else f"{value:.1g}"


def of_run(forecast: Forecast) -> RunCost:
    """Returns the cost of a run by its forecast."""
    known = [result for _, result in forecast.programs if result is not None]
    hours = forecast.core_hours
    if hours is None:
        return dataclasses.replace(UNKNOWN, obstacle=obstacle(known))
    return RunCost(hours, forecast.is_measured, obstacle="", by=frozenset(map(_named, known)))


def obstacle(found: Iterable[Result]) -> str:
    """Returns why one of a run's programs cannot be executed; empty if no obstacle is known."""
    unfit = [result for result in found if not result.fits]
    if not unfit:
        return ""
    return "does not fit" if all(map(proving.is_too_large, unfit)) else "does not compile"


def _named(result: Result) -> str:
    return f"{result.compiler} (an estimate)" if result.estimated else result.compiler


def of_rows(
    wanted: Mapping[int, Mapping[int, str]], costs: Mapping[str, Mapping[str, RunCost]]
) -> tuple[RowCosts, ...]:
    """Returns the costs of a study's rows on each slice for which the cost of any row is known.

    Args:
      wanted: row number -> seed -> id of the run.
      costs: topology -> id of a run -> its cost there.
    """
    slices = [_on_slice(topology, wanted, runs) for topology, runs in costs.items()]
    return tuple(
        slice_ for slice_ in slices if (slice_.rows["core_hours"].notna() | (slice_.rows["obstacle"] != "")).any()
    )


def _on_slice(topology: str, wanted: Mapping[int, Mapping[int, str]], runs: Mapping[str, RunCost]) -> RowCosts:
    by_row = {number: [runs.get(run_id, UNKNOWN) for run_id in ids.values()] for number, ids in wanted.items()}
    totals = {number: _together(costs) for number, costs in by_row.items()}
    bounds = [total for total in totals.values() if not total.measured]
    lines = [(total.core_hours, total.measured, total.obstacle) for total in totals.values()]
    rows = pd.DataFrame(lines, columns=["core_hours", "measured", "obstacle"], index=pd.Index(totals, name="number"))
    return RowCosts(topology, rows, tuple(sorted(frozenset[str]().union(*(bound.by for bound in bounds)))))


def _together(runs: Sequence[RunCost]) -> RunCost:
    """Adds up the costs of a row's runs; unknown if one of them is, since a sum over the others would mislead."""
    hours = math.fsum(run.core_hours for run in runs) if runs else math.nan
    if math.isnan(hours):
        return dataclasses.replace(UNKNOWN, obstacle=next((run.obstacle for run in runs if run.obstacle), ""))
    return RunCost(hours, all(run.measured for run in runs), "", frozenset[str]().union(*(run.by for run in runs)))
