"""Compiles what a plan's runs would execute on a slice, shows how far that is, and draws up what it showed."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from harness import input_speed, records, slices, terminal, workspace
from harness.console import changes, label, say
from harness.devices import Devices
from harness.experiment import Cut, Profile, Protocol, SettingsError
from harness.input_speed import InputSpeed
from harness.planning import Plan
from harness.records import RecordError
from harness.rendering import Table
from harness.slices import Slice
from harness.store import Store
from harness.studies import Study, parse_rows
from harness.tpu import compiler, compiling, forecasts, programs, proving, showing
from harness.tpu.forecasts import Forecast, Measured
from harness.tpu.programs import Program
from harness.tpu.proving import Task
from harness.tpu.results import Result, ResultError, Results
from harness.workspace import DataSet, Workspace


@dataclasses.dataclass(frozen=True)
class Asked:
    """What the command was asked.

    Attributes:
      studies: the studies.
      topology: name of the slice, or its accelerator type.
      batch: global batch in clips, None for the profile's.
      profile: name of the profile.
      data: as --data names them.
      rows: of one study, which rows; None for all.
      seeds: with how many seeds each row is trained.
      price: of a chip and hour.
      jobs: how many programs are compiled at a time, None for as many as the machine has room for.
      cached: whether nothing is compiled.
      results: the results folder.
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


def show(asked: Asked, as_json: bool) -> bool:
    """Compiles what is asked and prints it; whether every program compiles and fits.

    Raises:
      SettingsError: no such slice, or a batch that its cores cannot share evenly.
    """
    slice_ = slices.named(asked.topology)
    place = _workspace(asked, slice_)
    plan = place.plan(asked.studies, range(asked.seeds))
    if asked.rows:
        if len(asked.studies) > 1:
            raise SettingsError("--rows: names rows of one study")
        plan = plan.only(parse_rows(asked.rows))
    found = programs.distinct((one.run for one in plan.runs), slice_.cores)
    # With --json, progress goes where it is in no way of the object.
    console = Console(stderr=as_json)
    failures = {} if asked.cached else compile_missing(found.values(), slice_, asked.results, asked.jobs, console)
    drawn = _Drawn.of(plan, place, slice_, asked.results, failures)
    if as_json:
        click.echo(json.dumps(_as_data(drawn, asked.price), indent=1, default=str))
    else:
        _print(drawn, asked.price, console)
    return not failures and all(one.fits for one in drawn.found)


def _workspace(asked: Asked, slice_: Slice) -> Workspace:
    """Where the runs would be trained: on as many replicas as the slice has cores."""
    profile = workspace.profile(asked.profile)
    first, *further = _data_sets(asked.data, profile, asked.results)
    return Workspace(
        profile=profile,
        data=first,
        further=tuple(further),
        cut=Cut(batch=asked.batch),
        replicas=slice_.cores,
        store=Store(asked.results),
        devices=Devices(),
        repeat_short=True,
    )


def _data_sets(chosen: Sequence[str], profile: Profile, results: Path) -> tuple[DataSet, ...]:
    if not chosen and not profile.embedded:
        return workspace.papers()
    return tuple(workspace.data_set(one, profile, results) for one in chosen or (None,))


def compile_missing(
    wanted: Iterable[Program], slice_: Slice, results: Path, jobs: int | None, console: Console
) -> dict[str, str]:
    """Compiles the programs that are not in the results folder, and shows how far that is.

    Args:
      wanted: the programs.
      slice_: for which slice.
      results: the results folder.
      jobs: how many at a time, None for as many as the machine has room for.
      console: where to show it.

    Returns:
      Key of a program that could not be compiled -> why, one line.
    """
    every = [Task(program, slice_, results) for program in wanted]
    for task in every:
        _say_if_damaged(task, console)
    tasks = [task for task in every if not _known(task)]
    if not tasks:
        return {}
    # The largest first: it takes the longest, and is the one that may not fit.
    tasks.sort(key=lambda task: task.program.multiply_adds * (task.program.kind == "train"), reverse=True)
    by = compiler.installed() or f"{proving.ON_THE_CPU} (pip install -e '.[preflight]' brings the TPU's compiler)"
    jobs = min(jobs or compiling.jobs_at_most(), len(tasks))
    say(
        console,
        f"Compiling {len(tasks)} of {len(every)} programs for TPU {slice_.topology}, {jobs} at a time, by {by}.",
    )
    failures = {}
    with _Bar(console, len(tasks)) as bar:
        for event in compiling.compile_all(tasks, jobs):
            bar.show(event, tasks[event.task])
            if event.failure:
                failures[tasks[event.task].program.key] = event.failure
    return failures


def _say_if_damaged(task: Task, console: Console) -> None:
    try:
        Results(task.results).read(task.slice_.topology, task.program.key)
    except ResultError as error:
        say(console, f"{error}: it is compiled again", style="yellow")


def _known(task: Task) -> bool:
    """Whether nothing is left to find out: the program fits, or the largest batch that does is known."""
    found = proving.current(Results(task.results), task.slice_.topology, task.program.key)
    if found is None:
        return False
    return found.fits or not proving.is_too_large(found) or proving.searched(task, proving.current)


class _Bar:
    """Shows how far compiling is: a bar and what each process does in a terminal, a line for each program elsewhere."""

    def __init__(self, console: Console, total: int) -> None:
        self._console, self._total, self._done = console, total, 0
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
            disable=not console.is_terminal,
        )
        self._own: dict[int, TaskID] = {}

    def __enter__(self) -> _Bar:
        self._bar.start()
        self._whole = self._bar.add_task(f"0 of {self._total} programs", total=self._total)
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, event: compiling.Progress, task: Task) -> None:
        """Shows what became of a task."""
        about = f"{_named(task.program)}: {event.doing}"
        if event.task not in self._own:
            self._own[event.task] = self._bar.add_task(about, total=None)
        self._bar.update(self._own[event.task], description=about)
        if event.ended:
            self._done += 1
            self._bar.remove_task(self._own[event.task])
            self._bar.update(self._whole, completed=self._done, description=f"{self._done} of {self._total} programs")
            style = "red" if event.failure else None
            say(self._console, f"  {self._done}/{self._total}  {about}", style=style)


def _named(program: Program) -> str:
    """A program's run in a few words: "ls sd se=0.25, train"."""
    return f"{changes(program.run)}, {program.kind}"


@dataclasses.dataclass(frozen=True)
class _Drawn:
    """What there is to show: the forecasts of a plan's runs, and what is drawn of them."""

    plan: Plan
    slice_: Slice
    found: tuple[Forecast, ...]
    fitting: Mapping[str, Result | None]
    failures: Mapping[str, str]
    speed: InputSpeed | None

    @classmethod
    def of(cls, plan: Plan, place: Workspace, slice_: Slice, results: Path, failures: Mapping[str, str]) -> _Drawn:
        found = forecast(plan, place, slice_)
        every = [program for one in found for program in (one.train, one.evaluation)]
        compiled = [result for one in found for result in (one.train_result, one.evaluation_result)]
        fitting = {
            program.key: proving.fitting(Task(program, slice_, results))
            for program, result in zip(every, compiled, strict=True)
            if result is not None and not result.fits and proving.searched(Task(program, slice_, results))
        }
        return cls(plan, slice_, found, fitting, failures, input_speed.read(results))

    def tables(self, price: float | None) -> tuple[Table, Table]:
        """Of the programs and of the rows."""
        return (
            showing.programs(self.found, self.slice_, self.fitting, self.failures),
            showing.rows(self.found, self.plan.studies, price, self.speed),
        )

    @property
    def total(self) -> forecasts.Total:
        """Of all runs, each once."""
        return forecasts.total(self.found)

    @property
    def naive(self) -> forecasts.Total:
        """Of all runs, each as often as a row wants it."""
        counts = self.plan.times
        return forecasts.total(self.found, lambda one: counts[one.planned.run.id])


def forecast(plan: Plan, place: Workspace, slice_: Slice) -> tuple[Forecast, ...]:
    """What each run of a plan would take on a slice, as far as it was compiled, or measured, before."""
    results = Results(place.store.root)
    lookup = functools.partial(_looked_up, results, slice_.topology)
    return tuple(forecasts.forecasts(plan.runs, slice_, lookup, measured(place, slice_)))


def _looked_up(results: Results, topology: str, program: Program) -> Result | None:
    return proving.known(results, topology, program.key)


def measured(place: Workspace, slice_: Slice) -> Measured:
    """What recorded runs of the profile took on a slice of that name."""
    found = []
    for short in place.store.excerpts():
        here = short.provenance.get("topology") == slice_.topology and short.replicas == slice_.cores
        if short.profile != place.profile.name or not here:
            continue
        record = place.store.read(short.id)
        first = next(iter(record.evaluations.values()))
        protocol = Protocol(first.clips, first.crops, first.size)
        with contextlib.suppress(RecordError):  # of another version of the Garden, whose steps may be others
            run = records.run_of(record, protocol, place.profile.evaluation_batch)
            found.append((record, programs.of_run(run, slice_.cores)))
    return forecasts.measured(found, slice_.topology)


def _print(drawn: _Drawn, price: float | None, console: Console) -> None:
    for table in drawn.tables(price):
        terminal.show_table(table, console)
    plan = drawn.plan
    for line in showing.totals(drawn.total, drawn.naive, len(plan.runs), plan.count, drawn.slice_, price):
        say(console, line)
    for reason in _reasons(drawn):
        say(console, reason, style="red")


def _reasons(drawn: _Drawn) -> list[str]:
    """One line for each program that cannot run, with the compiler's words."""
    names = showing.letters(drawn.found)
    lines = {key: f"{names[key]}: {why}" for key, why in drawn.failures.items()}
    for one in drawn.found:
        for program, result in ((one.train, one.train_result), (one.evaluation, one.evaluation_result)):
            if result is not None and result.reason:
                lines[program.key] = f"{names[program.key]}: {result.reason}"
    return list(lines.values())


def _as_data(drawn: _Drawn, price: float | None) -> dict[str, Any]:
    """The same as plain data: bytes, seconds, operations; a missing number is null."""
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


def refuse_too_large(place: Workspace, plan: Plan, console: Console) -> None:
    """Refuses to train on a TPU what cannot fit there, before anything is trained; elsewhere does nothing.

    Where it is not known yet, the largest program of what is missing is compiled first.

    Raises:
      SettingsError: a run does not fit; the slice is not known, or has not as many cores as the runs have replicas; or
        the program could not be compiled.
    """
    to_train = [one for one in plan.missing if not one.done]
    if not (place.preflight and place.devices.strategy == "tpu") or place.profile.embedded or place.garden:
        return
    if not to_train:
        return
    slice_ = _slice_of(place)
    trained = {program.key: program for program in (programs.of_run(one.run, slice_.cores)[0] for one in to_train)}
    largest = max(trained.values(), key=lambda program: program.multiply_adds)
    failures = compile_missing([largest], slice_, place.store.root, None, console)
    if failures:
        raise SettingsError(f"{_named(largest)}: {failures[largest.key]}; {_NEVERTHELESS}")
    results = Results(place.store.root)
    for one in to_train:
        for program in programs.of_run(one.run, slice_.cores):
            result = proving.current(results, slice_.topology, program.key)
            if result is None or result.fits:
                continue
            verdict = "does not fit" if proving.is_too_large(result) else "does not compile"
            line = f"{label(one)}, {program.kind}: {verdict} on TPU {slice_.topology}: {result.reason}"
            if not result.estimated:
                raise SettingsError(f"{line}; {_advice(program, slice_, place.store.root)}{_NEVERTHELESS}")
            say(console, f"{line}. That is an estimate: pip install -e '.[preflight]' to know it.", style="yellow")


_NEVERTHELESS = "--no-preflight trains nevertheless"


def _slice_of(place: Workspace) -> Slice:
    """The slice that is trained on."""
    if place.devices.topology is None:
        raise SettingsError(
            "--strategy tpu: say which slice it is with --topology, such as v3:8x8, so that what cannot fit is refused "
            f"before it trains; {_NEVERTHELESS}"
        )
    slice_ = slices.slice_of(place.devices.topology)
    if slice_.cores != place.replicas:
        raise SettingsError(
            f"--topology {slice_.topology} has {slice_.cores} cores, the runs are planned for {place.replicas} "
            f"replicas: say --replicas {slice_.cores}"
        )
    return slice_


def _advice(program: Program, slice_: Slice, results: Path) -> str:
    """What would fit in its place."""
    best = proving.fitting(Task(program, slice_, results))
    if best is None or program.kind != "train":
        return ""
    return f"--batch {best.clips * slice_.cores} would ({best.clips} clips a core); "
