"""The body of the preflight command: compiles the programs of a plan's runs for a slice, and prints the results."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from harness.accelerators import forecasting, forecasts, gate, programs, proving
from harness.accelerators.forecasts import Forecast
from harness.accelerators.proving import Task
from harness.accelerators.results import Result
from harness.config import slices
from harness.config.devices import Devices
from harness.config.experiment import Overrides, SettingsError
from harness.config.slices import Slice
from harness.config.studies import Study, parse_rows
from harness.data import input_speed
from harness.data.input_speed import InputSpeed
from harness.planning import workspace
from harness.planning.plans import Plan
from harness.planning.workspace import Workspace
from harness.reporting import preflight_tables, terminal
from harness.reporting.render import Table
from harness.store.run_store import Store
from harness.system.paths import Folder
from harness.system.text import print_line


@dataclasses.dataclass(frozen=True)
class PreflightRequest:
    """The request to the preflight command.

    Attributes:
      studies: the studies.
      topology: name of the slice, or its accelerator type.
      batch: global batch in clips; None for the profile's.
      profile: name of the profile.
      data: the data sets, as in --data.
      rows: the rows of a single study; None for all.
      seeds: number of seeds with which each row is trained.
      price: price of a chip per hour.
      jobs: number of programs to compile at a time; None for as many as the machine has room for.
      cached: whether to use only earlier results and compile nothing.
      results: the results folder.
      runs: folder or bucket of the runs; None for the results folder's own.
      pretrain_data: the data set to pre-train on, as in --pretrain-data.
    """

    studies: tuple[Study, ...]
    topology: str
    batch: int | None
    profile: str
    data: tuple[str, ...]
    rows: str | None
    seeds: int
    price: float | None
    jobs: int | None
    cached: bool
    results: Path
    runs: Folder | None
    pretrain_data: str | None = None


def show(asked: PreflightRequest, as_json: bool) -> bool:
    """Compiles the requested programs, prints the results, and returns whether every program compiles and fits.

    Raises:
      SettingsError: there is no such slice, or its cores cannot share the batch evenly.
    """
    slice_ = slices.slice_named(asked.topology)
    workspace = _workspace(asked, slice_)
    plan = workspace.plan(asked.studies, range(asked.seeds))
    if asked.rows:
        if len(asked.studies) > 1:
            raise SettingsError("--rows: names rows of one study")
        plan = plan.only(parse_rows(asked.rows))
    chosen = programs.distinct((planned.run for planned in plan.runs), slice_.cores)
    speed = input_speed.read_input_speed(
        asked.results
    )  # read first, so that a damaged file is reported before compiling
    # With --json, progress goes to stderr, so that stdout holds the object only.
    console = Console(stderr=as_json)
    failures = {} if asked.cached else gate.compile_missing(chosen.values(), slice_, asked.results, asked.jobs, console)
    drawn = _Drawn.of(plan, workspace, slice_, speed, failures)
    if as_json:
        click.echo(json.dumps(_as_data(drawn, asked.price), indent=1, default=str))
    else:
        _print(drawn, asked.price, console)
    return not failures and all(forecast.fits for forecast in drawn.found)


def _workspace(asked: PreflightRequest, slice_: Slice) -> Workspace:
    """Returns the workspace in which the runs would be trained, with as many replicas as the slice has cores."""
    profile = workspace.profile(asked.profile)
    first, *further = workspace.data_sets(asked.data, profile, asked.results, planning_only=True)
    return Workspace(
        profile=profile,
        data=first,
        further=tuple(further),
        pre_training=workspace.to_pre_train_on(asked.pretrain_data, profile, asked.results, planning_only=True),
        cut=Overrides(batch=asked.batch),
        replicas=slice_.cores,
        store=Store(asked.results, asked.runs),
        devices=Devices(),
        repeat_short=True,
    )


@dataclasses.dataclass(frozen=True)
class _Drawn:
    """The results to show: the forecasts of a plan's runs, and the tables and totals made from them."""

    plan: Plan
    slice_: Slice
    found: tuple[Forecast, ...]
    fitting: Mapping[str, Result | None]
    failures: Mapping[str, str]
    speed: InputSpeed | None

    @classmethod
    def of(
        cls, plan: Plan, workspace: Workspace, slice_: Slice, speed: InputSpeed | None, failures: Mapping[str, str]
    ) -> _Drawn:
        results = workspace.store.root
        found = forecasting.forecast(plan, workspace, slice_)
        fitting = {
            program.key: proving.fitting(Task(program, slice_, results))
            for forecast in found
            for program, result in forecast.programs
            if result is not None and not result.fits and proving.searched(Task(program, slice_, results))
        }
        return cls(plan, slice_, found, fitting, failures, speed)

    def tables(self, price: float | None) -> tuple[Table, Table]:
        """Returns the table of the programs and the table of the rows."""
        return (
            preflight_tables.programs(self.found, self.slice_, self.fitting, self.failures),
            preflight_tables.rows(self.found, self.plan.studies, price, self.speed),
        )

    @property
    def total(self) -> forecasts.Total:
        """Total of all runs, counting each once."""
        return forecasts.total(self.found)

    @property
    def naive(self) -> forecasts.Total:
        """Total of all runs, counting each as often as a row wants it."""
        counts = self.plan.times
        return forecasts.total(self.found, lambda forecast: counts[forecast.planned.run.id])


def _print(drawn: _Drawn, price: float | None, console: Console) -> None:
    for table in drawn.tables(price):
        terminal.show_table(table, console)
    plan = drawn.plan
    for line in preflight_tables.totals(drawn.total, drawn.naive, plan.count > len(plan.runs), drawn.slice_, price):
        print_line(console, line)
    for reason in _reasons(drawn):
        print_line(console, reason, style="red")


def _reasons(drawn: _Drawn) -> list[str]:
    """Returns a line for each program that cannot run, with the compiler's reason."""
    names = preflight_tables.letters(drawn.found)
    lines = {key: f"{names[key]}: {why}" for key, why in drawn.failures.items()}
    for forecast in drawn.found:
        for program, result in forecast.programs:
            if result is not None and result.reason:
                lines[program.key] = f"{names[program.key]}: {result.reason}"
    return list(lines.values())


def _as_data(drawn: _Drawn, price: float | None) -> dict[str, Any]:
    """Returns the results as plain data, in bytes, seconds and operations; a missing number is null."""
    slice_ = drawn.slice_
    shown, lines = (table.data.reset_index().to_dict("records") for table in drawn.tables(price))
    return {
        "slice": {
            "topology": slice_.topology,
            "chips": slice_.chips,
            "cores": slice_.cores,
            "hosts": slice_.hosts,
            "memory_of_a_core": slice_.generation.memory,
        },
        "programs": [_without_nan(line) for line in shown],
        "rows": [_without_nan(line) for line in lines],
        "total": dataclasses.asdict(drawn.total),
        "without_sharing": dataclasses.asdict(drawn.naive),
        "failures": _reasons(drawn),
    }


def _without_nan(line: Mapping[Any, Any]) -> dict[str, Any]:
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in line.items()}
