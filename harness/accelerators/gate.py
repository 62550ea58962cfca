"""Compiles programs that were not compiled before, shows the progress, and refuses to train runs that cannot fit."""

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
    """A run that a TPU cannot carry out, because it does not fit or does not compile; the message is one line."""


_NEVERTHELESS = "--no-preflight trains nevertheless"


def compile_missing(
    chosen: Iterable[Program], slice_: Slice, results: Path, jobs: int | None, console: Console, live: bool = True
) -> dict[str, str]:
    """Compiles the programs that have no result in the results folder yet, and shows the progress.

    Args:
      chosen: the programs.
      slice_: the slice to compile for.
      results: the results folder.
      jobs: number of programs to compile at a time; None for as many as the machine has room for.
      console: where to show the progress.
      live: whether a terminal shows a live display; must be False within another live display.

    Returns:
      Key of each program that could not be compiled -> the reason, in one line.
    """
    every = [Task(program, slice_, results) for program in chosen]
    for task in every:
        _say_if_damaged(task, console)
    tasks = [task for task in every if not _known(task)]
    if not tasks:
        return {}
    _refuse_closed_folder(Results(results).folder)
    # The largest first, since it takes the longest and is the most likely not to fit.
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
                raise SettingsError(event.failure)  # every other program would fail in the same way
            if event.failure:
                failures[tasks[event.task].program.key] = event.failure
    return failures


def _refuse_closed_folder(folder: Path) -> None:
    """Refuses a folder that cannot be written to, before the first program is compiled."""
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise SettingsError(f"{folder}: cannot be written to, which keeps what was compiled")


def _say_if_damaged(task: Task, console: Console) -> None:
    try:
        Results(task.results).read(task.slice_.topology, task.program.key)
    except ResultError as error:
        print_line(console, f"{error}: it is compiled again", style="yellow")


def _known(task: Task) -> bool:
    """Returns whether nothing is left to compile: the program fits or is refused, or its largest batch is known."""
    result = proving.current(Results(task.results), task.slice_.topology, task.program.key)
    if result is None:
        return False
    return result.fits or not proving.is_too_large(result) or proving.searched(task, proving.current)


class _Bar:
    """Shows the progress: in a terminal a bar and each process's activity, elsewhere a line for each program."""

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
        """Shows the progress of a task."""
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
    """Returns a program in a few words: the run's toggles and the kind, such as "ls sd se=0.25, train"."""
    return f"{changes(program.run)}, {program.kind}"


def refuse_too_large(place: Workspace, to_train: Iterable[Planned], console: Console, live: bool = True) -> None:
    """Refuses to train runs that cannot fit their TPU, before anything is trained; does nothing without a TPU.

    The largest train step and the largest evaluation step are compiled first if their results are not known yet.

    Args:
      place: the workspace in which the runs would be trained.
      to_train: the runs.
      console: where to show the progress.
      live: see :func:`compile_missing`.

    Raises:
      UnfitError: a run does not fit, or does not compile.
      SettingsError: the slice is not known, or its number of cores is not the runs' number of replicas, or a program
        could not be compiled.
    """
    runs = list(to_train)
    if not runs or not wanted(place):
        return
    slice_ = slice_of(place)
    executed = [programs.executed(planned.run, slice_.cores) for planned in runs]
    largest = [
        max(of_kind, key=lambda program: program.multiply_adds)
        for kind in ("train", "evaluation")
        if (of_kind := [program for steps in executed for program in steps if program.kind == kind])
    ]
    failures = compile_missing(largest, slice_, place.store.root, None, console, live)
    for program in largest:
        if program.key in failures:
            raise SettingsError(f"{_named(program)}: {failures[program.key]}; {_NEVERTHELESS}")
    for planned, steps in zip(runs, executed, strict=True):
        for program in steps:
            _refuse(planned, program, slice_, place.store.root, console)


def _refuse(planned: Planned, program: Program, slice_: Slice, results: Path, console: Console) -> None:
    """Refuses a run if its program is known not to fit; only warns if that is an estimate."""
    result = proving.current(Results(results), slice_.topology, program.key)
    if result is None or result.fits:
        return
    line = (
        f"{label(planned)}, {program.kind}: {core_hours.obstacle([result])} on TPU {slice_.topology}: {result.reason}"
    )
    if not result.estimated:
        raise UnfitError(f"{line}; {_advice(program, slice_, results)}{_NEVERTHELESS}")
    print_line(console, f"{line}. That is an estimate: pip install -e '.[preflight]' to know it.", style="yellow")


def wanted(place: Workspace) -> bool:
    """Returns whether runs are compiled before training: on a TPU, except with --no-preflight or the quick profile."""
    return place.devices.strategy == "tpu" and place.preflight and not place.profile.embedded and place.garden is None


def slice_of(place: Workspace) -> Slice:
    """Returns the slice that a workspace trains on.

    Raises:
      SettingsError: the slice is not known, or its number of cores is not the runs' number of replicas.
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
    """Returns advice on the largest batch that would fit; empty if none is known."""
    best = proving.fitting(Task(program, slice_, results))
    if best is None or program.kind != "train":
        return ""
    return f"--batch {best.clips * slice_.cores} would ({best.clips} {program.unit}s a core); "
