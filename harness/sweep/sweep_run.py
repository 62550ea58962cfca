"""Sets up a sweep from its flags, carries it out, and writes its tables and figure."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import optuna
from rich.console import Console

from ablations import figure2
from ablations.toggles import AXES
from harness.accelerators import gate
from harness.config.embedded_spec import EmbeddedSpec
from harness.config.experiment import SettingsError
from harness.config.studies import Row, Study
from harness.config.toggles import Toggle, parse
from harness.planning import disk
from harness.planning.plans import Plan, Planned
from harness.planning.workspace import Workspace, readable
from harness.reporting import render, terminal, writers
from harness.scheduler import liveness, optuna_storage, orchestrator, progress, run_queue
from harness.scheduler.optuna_storage import Patience
from harness.scheduler.orchestrator import Orchestrator, Outcome
from harness.scheduler.progress import ProgressView
from harness.store.records import RunRecord
from harness.sweep import front_figure, sweep_summary, trial_store
from harness.sweep.progress import TrialBoard, describe, likely
from harness.sweep.search import Search, Strategy, Watch
from harness.sweep.space import Axis, Limits, Point, Space, Sweep, measured, scale, space, speed, tune, validated
from harness.sweep.sweep_summary import Summary
from harness.sweep.trial_store import TRAINED, SweepError
from harness.sweep.workers import Workers
from harness.system.text import print_line
from harness.tracking import study_mirror
from harness.tracking.study_mirror import Mirror

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def refuse_flags(sampler: str, trials: int | None) -> None:
    """Refuses flags that contradict one another.

    Raises:
      SweepError: --trials was given for a grid.
    """
    if sampler == "grid" and trials is not None:
        raise SweepError(f"--trials {trials}: a grid trains every point within the limits; narrow its axes instead")


def space_of(
    scales: Mapping[str, str | None], tuned: tuple[str, ...], base: str | None, known: Mapping[str, Toggle]
) -> Space:
    """Returns the space that the flags describe.

    Raises:
      ToggleError: an unknown toggle, or a value that it does not take.
    """
    axes: list[Axis] = []
    for toggle in AXES:
        text = scales[toggle.key]
        axes.append(Axis(toggle, figure2.SCALES[toggle.key]) if text is None else scale(toggle, text))
    axes += [tune(text, known) for text in tuned]
    applied = figure2.BASE if base is None else tuple(parse(part.strip(), known) for part in base.split(","))
    return space(axes, applied)


@dataclasses.dataclass(frozen=True)
class SweepRequest:
    """A sweep as its flags describe it.

    Attributes:
      name: its name.
      workspace: where and how its runs are trained.
      sweep: its points.
      strategy: how points are chosen.
      trials: number of points to train; None for all of a grid.
      url: URL of Optuna's storage.
      records: id -> record of each recorded run of its space.
    """

    name: str
    workspace: Workspace
    sweep: Sweep
    strategy: Strategy
    trials: int | None
    url: str
    records: Mapping[str, RunRecord]

    @property
    def settings(self) -> dict[str, object]:
        """Returns all settings that identify the sweep; a restart with other settings is refused."""
        workspace, limits = self.workspace, self.sweep.limits
        return {
            "sampler": self.strategy.sampler,
            "pruner": "median" if self.strategy.prunes else "none",
            "population": self.strategy.population if self.strategy.sampler == "nsga2" else None,
            "seed": self.sweep.seed,
            "space": list(map(str, self.sweep.space.axes)),
            "base": list(map(str, self.sweep.space.base)),
            "profile": workspace.profile.name,
            "data": workspace.data.facts.name,
            "fingerprint": workspace.data.facts.fingerprint,
            "cut": str(workspace.cut),
            "replicas": workspace.replicas,
            "max gflops": limits.gflops,
            "max hours": limits.hours,
            "clips": workspace.profile.clips,
            "crops": workspace.profile.crops,
            "validation videos": workspace.cut.validation_videos,
        }

    def describe(self, console: Console) -> None:
        """Prints what the sweep would do and what it costs."""
        facts, cut = self.workspace.data.facts, str(self.workspace.cut)
        say = functools.partial(print_line, console)
        say(
            f"Scaling sweep {self.name}, profile {self.workspace.profile.name}, in {optuna_storage.redacted(self.url)}."
        )
        say(f"Data: {facts.name}, {facts.train_videos:,} training and {facts.validation_videos:,} validation videos.")
        if cut:
            say(f"Cut: {cut}. This is not the profile's own training, and the tables will say so.")
        trials = self._begun()
        trained = {trial.run for trial in trials if trial.source == TRAINED and trial.state in ("complete", "pruned")}
        points = self.trials if self.trials is not None else len(likely(self.sweep))
        describe(self.sweep, self.strategy, self.records, points, len(trained), console)

    def _begun(self) -> list[trial_store.Trial]:
        """Returns its trials so far; none, without creating a file, for a sweep that was not begun."""
        if not self._is_there():
            return []
        kept = optuna_storage.open_storage(self.url)
        with optuna_storage.faults_named(self.url, "the sweep's storage"):
            if self.name not in optuna.get_all_study_names(kept):
                return []
            return trial_store.trials(optuna.load_study(study_name=self.name, storage=kept))

    def _is_there(self) -> bool:
        is_default = self.url == _own_url(self.workspace, self.name)
        return not is_default or trial_store.file_of(self.workspace.store.root, self.name).is_file()

    def carry_out(self, console: Console, wandb: Literal["online", "offline", "off"]) -> list[str]:
        """Begins or continues the search; returns a line for each failure.

        Raises:
          SweepError: its storage holds another sweep under its name.
          StorageError: its storage cannot be used, or workers with other code train the sweep.
          Stopped: a signal asked to stop.
        """
        workspace = self.workspace
        if gate.wanted(workspace):
            gate.slice_of(workspace)
        say = functools.partial(print_line, console)
        with (
            study_mirror.mirror(wandb, self._group, workspace.store, console) as mirror,
            orchestrator.orchestration(workspace, console, mirror) as conducted,
            liveness.present() as token,
            optuna_storage.faults_named(self.url, "the sweep's storage"),
        ):
            conducted.join(Plan((), (), {}), "")
            study, workers = self._joined(conducted, token, say)
            before, board = len(trial_store.trials(study)), self._board()
            with progress.progress_view(board, console) as shown:
                carry = functools.partial(self._carry, conducted, board, shown, console)
                search = Search(study, self.sweep, self.strategy, workspace.store, carry, say, self.trials, workers,
                                conducted.wait)  # fmt: skip
                failures = search.run()
            self._catch_up(study, workers, before, mirror)
        return failures

    @property
    def _group(self) -> str:
        return f"sweep-{self.name}"

    def _joined(self, conducted: Orchestrator, token: str, say: Callable[[str], None]) -> tuple[optuna.Study, Workers]:
        """Joins the sweep; returns its Optuna study and its workers."""
        kept, where, sweep = optuna_storage.open_storage(self.url), optuna_storage.redacted(self.url), self.sweep
        study = trial_store.study(kept, self.name, self.settings, self.strategy.objectives, where)
        patient = Patience(self.url, say, lambda: conducted.asked)
        workers = Workers(study, kept, token, conducted.lease, patient)
        for line in workers.join(where):
            say(line)
        trial_store.keep_space(study, sweep.space, sweep.grid(), sweep.limits, self.workspace.profile.caption)
        return study, workers

    def _board(self) -> TrialBoard:
        within = [point for point in likely(self.sweep) if point.run.id not in self.records]
        points = len(within) if self.trials is None else self.trials
        rate = self.sweep.speed.rate if self.sweep.speed else None
        return TrialBoard(rate, points, sum(point.work for point in within) / max(1, len(within)))

    def _carry(
        self, conducted: Orchestrator, board: TrialBoard, shown: ProgressView, console: Console, point: Point, name:
          str,
        watch: Watch | None,
    ) -> Outcome:  # fmt: skip
        """Carries out the run of a point."""
        planned = self._planned(point, name)
        if planned.fault:
            return Outcome({"event": "failed"}, f"{name}: {planned.fault}")
        disk.refuse_small_disk(self.workspace, Plan((), (planned,), {}))
        try:
            gate.refuse_too_large(self.workspace, [] if planned.done else [planned], console, live=False)
        except gate.UnfitError as error:  # only this point fails, since others may fit
            return Outcome({"event": "failed"}, f"{name}: {error}")
        board.begin(planned)
        return conducted.carry_out(planned, shown, watch)

    def _planned(self, point: Point, name: str) -> Planned:
        row = Row(1, "", point.run.cell.applied)
        (planned,) = self.workspace.plan([Study("sweep", "One point", (), (row,))], [self.sweep.seed]).runs
        return dataclasses.replace(planned, rows=(name.partition(":")[0],), run=validated(planned.run))

    def _catch_up(self, study: optuna.Study, workers: Workers, before: int, mirror: Mirror) -> None:
        """Mirrors runs that were recorded elsewhere, or while the mirror was off.

        Other workers mirror what they train themselves, which leaves out their trials from number `before` on.
        """
        complete = [trial for trial in trial_store.trials(study) if trial.state == "complete"]
        theirs = {
            trial.run
            for trial in complete
            if trial.source == TRAINED and trial.number >= before and not workers.has(trial)
        }
        told = {trial.run: trial for trial in complete if trial.run not in theirs}
        names = {run_id: f"trial {trial.number}" for run_id, trial in told.items()}
        points = [self.sweep.at(trial.params) for trial in told.values() if self.sweep.space.holds(trial.params)]
        mirror.catch_up(Plan((), tuple(self._planned(point, names[point.run.id]) for point in points), {}))

    def draw(
        self, console: Console, plots: Path, wandb: Literal["online", "offline", "off"], failures: list[str]
    ) -> None:
        """Prints and writes the sweep's results so far.

        Raises:
          SweepError: the sweep was never begun, or a value in its storage differs from its record.
        """
        if not self._is_there():
            raise SweepError(f"{optuna_storage.redacted(self.url)}: no such sweep yet; run it without --draw")
        kept = optuna_storage.open_storage(self.url)
        with optuna_storage.faults_named(self.url, "the sweep's storage"):
            if self.name not in optuna.get_all_study_names(kept):
                raise SweepError(f"{optuna_storage.redacted(self.url)}: holds no sweep {self.name!r}")
            sweep = trial_store.stored_sweep(optuna.load_study(study_name=self.name, storage=kept))
        summary = sweep_summary.summarize(sweep, self.workspace.store)
        written = write_sweep(summary, self.workspace.store.root, plots)
        terminal.show([table for _, table in sweep_summary.tables(summary)], failures, console)
        with study_mirror.mirror(wandb, self._group, self.workspace.store, console) as mirror:
            mirror.event(self._group, _mirrored(summary, written, self._group))
        places = f"{self.workspace.store.root / 'tables' / self._group}* and {plots / self._group}*"
        print_line(console, f"Written: {len(written)} files, {places}")


def _mirrored(summary: Summary, written: list[Path], group: str) -> dict[str, object]:
    cells = render.cells(sweep_summary.front(summary))
    rows = [list(map(str, line)) for line in cells.itertuples(index=False)]
    return {"event": "study", "group": group, "title": summary.title, "columns": list(map(str, cells.columns)),
            "rows": rows, "files": list(map(str, written))}  # fmt: skip


def write_sweep(summary: Summary, results: Path, plots: Path) -> list[Path]:
    """Writes a sweep's tables into `results/tables/` and its figure into `plots/`; returns the paths."""
    tables = dict(sweep_summary.tables(summary))
    named = [(name, tables.get(name)) for name in sweep_summary.names(summary)]
    return writers.write_tables(named, results) + writers.write_figure(
        front_figure.front(summary), sweep_summary.names(summary)[0], plots
    )


def sweep_request(
    workspace: Workspace,
    of: Space,
    limits: Limits,
    strategy: Strategy,
    trials: int,
    name: str | None,
) -> SweepRequest:
    """Returns the sweep that the flags ask for.

    Raises:
      SettingsError, SweepError: flags that contradict one another, or no point lies within the limits.
    """
    if workspace.devices.workers > 1:
        raise SettingsError("--strategy multi_worker_mirrored: a sweep is led by one process; use another strategy")
    if strategy.sampler == "grid" and not of.listed:
        endless = [str(axis) for axis in of.axes if not axis.values]
        which = f"--tune {endless[0]}: is a range, which has no grid; name its values" if endless else "narrow its axes"
        raise SweepError(f"--sampler grid: {which}" if endless else f"--sampler grid: {of.size:,} points; {which}")
    if name is not None and not _NAME.fullmatch(name):
        raise SweepError(f"--name {name!r}: expected letters, digits, '.', '_' and '-'")
    if name == run_queue.NAME:
        raise SweepError(f"--name {name}: is what the queue of runs is called; choose another")
    records = [record for record in readable(workspace.store) if record.profile == workspace.profile.name]
    costs = [measured(record) for record in records if "trained_by" not in record.identity_content]
    pace = speed([work for work, _ in costs], [seconds for _, seconds in costs], workspace.profile.measured_rate)
    sweep = Sweep(of, limits, strategy.seed, workspace.complete, pace)
    if not likely(sweep):
        raise SweepError(f"no point of the space lies within the limits: {_cheapest(sweep)}")
    chosen = name or default_name(workspace, strategy)
    url = workspace.sharing.storage or _own_url(workspace, chosen)
    grid = None if strategy.sampler == "grid" else trials
    return SweepRequest(chosen, workspace, sweep, strategy, grid, url, _held(sweep, records))


def _held(sweep: Sweep, known: list[RunRecord]) -> dict[str, RunRecord]:
    """Returns id -> record of the points that are recorded under the sweep's protocol."""
    points = {record.id: sweep.of_record(record) for record in known}
    return {
        record.id: record
        for record in known
        if (point := points[record.id]) is not None and point.run.protocol.name in record.evaluations
    }


def _own_url(workspace: Workspace, name: str) -> str:
    return optuna_storage.url_of(trial_store.file_of(workspace.store.root, name))


def _cheapest(sweep: Sweep) -> str:
    if not sweep.space.listed:
        return "say higher ones"
    points = sweep.grid()
    cheapest = [f"the cheapest has {min(point.gflops for point in points):.3g} GFLOPs"]
    if sweep.limits.hours is not None:
        cheapest.append(f"the quickest takes about {min(point.hours or 0 for point in points):.3g} hours")
    return " and ".join(cheapest)


def default_name(workspace: Workspace, strategy: Strategy) -> str:
    """Returns a sweep's default name: its sampler, its profile, and how its runs differ from the profile's."""
    facts, profile = workspace.data.facts, workspace.profile
    parts = [strategy.sampler, profile.name]
    if (facts.name == EmbeddedSpec().name) != profile.embedded:
        parts.append(f"on-{facts.name}")
    if strategy.seed:
        parts.append(f"seed-{strategy.seed}")
    if str(workspace.cut):
        parts.append(f"cut-{workspace.cut}")
    return re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(parts))
