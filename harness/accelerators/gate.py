"""Compiles programs that were not compiled before, shows how far that is, and refuses to train what cannot fit."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from harness.accelerators import compilation, core_hours, programs, proving, tpu_compiler
from harness.accelerators.programs import Program
from harness.accelerators.proving import Task
from harness.accelerators.results import ResultError, Results
from harness.config import slices
from harness.config.experiment import SettingsError
from harness.config.slices import Slice
from harness.planning.labels import changes, label
from harness.planning.plans import Planned
from harness.planning.workspace import Workspace
from harness.system.text import print_line


class UnfitError(SettingsError):
    """A run that a TPU cannot carry out: it does not fit there, or does not compile; one line."""


_NEVERTHELESS = "--no-preflight trains nevertheless"


def compile_missing(
    chosen: Iterable[Program], slice_: Slice, results: Path, jobs: int | None, console: Console, live: bool = True
) -> dict[str, str]:
    """Compiles the programs that are not in the results folder, and shows how far that is.

    Args:
      chosen: the programs.
      slice_: for which slice.
      results: the results folder.
      jobs: how many at a time, None for as many as the machine has room for.
      console: where to show it.
      live: whether a terminal shows it as it goes; not within another live display.

    Returns:
      Key of a program that could not be compiled -> why, one line.
    """
    every = [Task(program, slice_, results) for program in chosen]
    for task in every:
        _say_if_damaged(task, console)
    tasks = [task for task in every if not _known(task)]
    if not tasks:
        return {}
    _refuse_closed_folder(Results(results).folder)
    # The largest first: it takes the longest, and is the one that may not fit.
    tasks.sort(key=lambda task: task.program.multiply_adds * (task.program.kind == "train"), reverse=True)
    by = tpu_compiler.installed() or f"{proving.ON_THE_CPU} (pip install -e '.[preflight]' brings the TPU's compiler)"
    jobs = min(jobs or compilation.jobs_at_most(), len(tasks))
    print_line(
        console,
        f"Compiling {len(tasks)} of {len(every)} programs for TPU {slice_.topology}, {jobs} at a time, by {by}.",
    )
    failures = {}
    with _Bar(console, len(tasks), live) as bar:
        for event in compilation.compile_all(tasks, jobs):
            bar.show(event, tasks[event.task])
            if event.failure.startswith("--topology"):
                raise SettingsError(event.failure)  # no other program would be told anything else
            if event.failure:
                failures[tasks[event.task].program.key] = event.failure
    return failures


def _refuse_closed_folder(folder: Path) -> None:
    """Better now than after the first program was compiled."""
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise SettingsError(f"{folder}: cannot be written to, which keeps what was compiled")


def _say_if_damaged(task: Task, console: Console) -> None:
    try:
        Results(task.results).read(task.slice_.topology, task.program.key)
    except ResultError as error:
        print_line(console, f"{error}: it is compiled again", style="yellow")


def _known(task: Task) -> bool:
    """Whether nothing is left to find out: the program fits, or the largest batch that does is known."""
    found = proving.current(Results(task.results), task.slice_.topology, task.program.key)
    if found is None:
        return False
    return found.fits or not proving.is_too_large(found) or proving.searched(task, proving.current)


class _Bar:
    """Shows how far compiling is: a bar and what each process does in a terminal, a line for each program elsewhere."""

    def __init__(self, console: Console, total: int, live: bool) -> None:
        self._console, self._total, self._done = console, total, 0
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
            disable=not (live and console.is_terminal),
        )
        self._own: dict[int, TaskID] = {}

    def __enter__(self) -> _Bar:
        self._bar.start()
        self._whole = self._bar.add_task(f"0 of {self._total} programs", total=self._total)
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, event: compilation.Progress, task: Task) -> None:
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
            print_line(self._console, f"  {self._done}/{self._total}  {about}", style=style)


def _named(program: Program) -> str:
    """A program's run in a few words: "ls sd se=0.25, train"."""
    return f"{changes(program.run)}, {program.kind}"


def refuse_too_large(place: Workspace, to_train: Iterable[Planned], console: Console, live: bool = True) -> None:
    """Refuses to train on a TPU what cannot fit there, before anything is trained; elsewhere does nothing.

    Of train steps and of evaluations the largest is compiled first, where it is not known yet.

    Args:
      place: where it would be trained.
      to_train: the runs.
      console: where to show it.
      live: as of :func:`compile_missing`.

    Raises:
      UnfitError: a run does not fit, or does not compile.
      SettingsError: the slice is not known, or has not as many cores as the runs have replicas; or a program could not
        be compiled.
    """
    runs = list(to_train)
    if not runs or not wanted(place):
        return
    slice_ = slice_of(place)
    executed = [programs.executed(one.run, slice_.cores) for one in runs]
    largest = [
        max(of_kind, key=lambda program: program.multiply_adds)
        for kind in ("train", "evaluation")
        if (of_kind := [program for some in executed for program in some if program.kind == kind])
    ]
    failures = compile_missing(largest, slice_, place.store.root, None, console, live)
    for program in largest:
        if program.key in failures:
            raise SettingsError(f"{_named(program)}: {failures[program.key]}; {_NEVERTHELESS}")
    for one, own in zip(runs, executed, strict=True):
        for program in own:
            _refuse(one, program, slice_, place.store.root, console)


def _refuse(one: Planned, program: Program, slice_: Slice, results: Path, console: Console) -> None:
    """Refuses a run one of whose programs is known not to fit; of an estimate it only warns."""
    result = proving.current(Results(results), slice_.topology, program.key)
    if result is None or result.fits:
        return
    line = f"{label(one)}, {program.kind}: {core_hours.obstacle([result])} on TPU {slice_.topology}: {result.reason}"
    if not result.estimated:
        raise UnfitError(f"{line}; {_advice(program, slice_, results)}{_NEVERTHELESS}")
    print_line(console, f"{line}. That is an estimate: pip install -e '.[preflight]' to know it.", style="yellow")


def wanted(place: Workspace) -> bool:
    """Whether what is trained there is compiled first: on a TPU, unless told otherwise or on the quick profile."""
    return place.devices.strategy == "tpu" and place.preflight and not place.profile.embedded and place.garden is None


def slice_of(place: Workspace) -> Slice:
    """The slice that is trained on.

    Raises:
      SettingsError: it is not known, or has not as many cores as the runs have replicas.
    """
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
    return f"--batch {best.clips * slice_.cores} would ({best.clips} {program.unit}s a core); "
