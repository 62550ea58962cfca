"""Runs what a plan is missing, one run after the other, and says what happens."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import shutil
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from harness import console as console_
from harness import estimates, forecasting, precompiling
from harness.console import Board, View, duration, label, view
from harness.devices import DevicesError
from harness.experiment import Run, SettingsError
from harness.mirroring import Mirror
from harness.planning import Plan, Planned
from harness.store import Store
from harness.studies import Study
from harness.tpu import costing
from harness.tpu.costing import RunCost
from harness.worker import Job, Watch, Worker
from harness.workspace import Workspace


class Stopped(Exception):  # noqa: N818 - no error: the user, or the system, asked for it
    """A study that was asked to stop; the message is one line.

    Attributes:
      signal: what asked: SIGINT, or SIGTERM also for a TPU that is being preempted.
    """

    def __init__(self, message: str, by: int) -> None:
        super().__init__(message)
        self.signal = by


def conduct(workspace: Workspace, plan: Plan, console: Console, mirror: Mirror, fail_fast: bool = False) -> list[str]:
    """Trains and evaluates what is missing.

    Args:
      workspace: where and how.
      plan: what.
      console: where to show progress.
      mirror: is told of each run.
      fail_fast: stop at the first run that fails.

    Returns:
      One line for each run that failed.

    Raises:
      SettingsError: the disk is too small for it, or the TPU.
      DevicesError: this machine does not have the devices asked for.
      RecordError: another process trains into the same folder.
      Stopped: a signal asked to stop; the run that was training saved its checkpoint.
    """
    if not plan.missing:
        return []
    refuse_small_disk(workspace, plan)
    precompiling.refuse_too_large(workspace, (one for one in plan.missing if not one.done), console)
    failures: list[str] = []
    board = Board(plan, workspace.rate or workspace.profile.measured_rate)
    with conductor(workspace, console, mirror) as conducted, view(board, console) as shown:
        for one in plan.missing:
            failure = conducted.carry_out(one, shown).failure
            failures += [failure] if failure else []
            if failures and fail_fast:
                break
    return failures


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How carrying out a run ended.

    Attributes:
      event: the last event.
      failure: one line where it failed; empty otherwise.
    """

    event: Mapping[str, Any]
    failure: str = ""

    @property
    def ended_by_watch(self) -> bool:
        """Whether the run was ended at a validation, its checkpoint saved, by the one who watched it."""
        return self.event["event"] == "interrupted" and bool(self.event.get("watched"))


class Conductor:
    """Carries out runs, one after the other, in one worker; made by :func:`conductor`."""

    def __init__(self, workspace: Workspace, worker: Worker, mirror: Mirror, asked: list[int]) -> None:
        self._workspace, self._worker, self._mirror, self._asked = workspace, worker, mirror, asked

    def carry_out(self, one: Planned, shown: View, watch: Watch | None = None) -> Outcome:
        """Trains and evaluates a run, or evaluates it only where it is trained.

        Args:
          one: the run.
          shown: is shown its events.
          watch: may end the run at a validation.

        Raises:
          DevicesError: this machine does not have the devices asked for.
          Stopped: a signal asked to stop; the run saved its checkpoint.
        """
        event = _carried_out(self._workspace, one, self._worker, shown, self._mirror, watch)
        if event.get("every run"):
            raise DevicesError(event["error"])
        failure = _failed(self._workspace, one, event) if event["event"] == "failed" else ""
        if event["event"] == "done":
            self._workspace.store.attempts(one.run.id).failure.unlink(missing_ok=True)
        outcome = Outcome(event, failure)
        if self._asked or (event["event"] == "interrupted" and not outcome.ended_by_watch):
            raise Stopped(_how_it_stopped(one, event), self._asked[0] if self._asked else signal.SIGTERM)
        return outcome


@contextlib.contextmanager
def conductor(workspace: Workspace, console: Console, mirror: Mirror) -> Iterator[Conductor]:
    """A conductor, while the results folder is locked and signals ask the run that trains to save and stop.

    Raises:
      RecordError: another process trains into the same folder.
    """
    with _alone(workspace), Worker() as worker, _asking(worker, console) as asked:
        yield Conductor(workspace, worker, mirror, asked)


def faults(plan: Plan) -> list[str]:
    """One line for each run that cannot be carried out or whose record cannot be used."""
    return [f"{label(one)}: {one.fault}" for one in plan.faulty]


def _alone(workspace: Workspace) -> contextlib.AbstractContextManager[None]:
    """Keeps others out of the results folder; workers that share one run share the folder with their chief."""
    return workspace.store.locked() if workspace.devices.chief else contextlib.nullcontext()


def _carried_out(
    workspace: Workspace, one: Planned, worker: Worker, shown: View, mirror: Mirror, watch: Watch | None
) -> Mapping[str, Any]:
    """The last event of a run; each is shown and mirrored."""
    if not one.done:
        mirror.begins(one)
    event: Mapping[str, Any] = {}
    for event in worker.events(_job(workspace, one), watch):
        shown.event(one.run.id, event)
        mirror.event(one.run.id, event)
    return event


def _failed(workspace: Workspace, one: Planned, event: Mapping[str, Any]) -> str:
    attempts = workspace.store.attempts(one.run.id)
    devices = workspace.devices
    if not devices.chief:
        return f"{label(one)}: {event['error']} (traceback: {workspace.store.log(one.run.id, devices.task_index)})"
    with contextlib.suppress(OSError):  # a full disk, perhaps the failure itself: the study goes on without the file
        attempts.fail(event["error"], event["traceback"])
    return f"{label(one)}: {event['error']} (traceback: {attempts.failure})"


def _how_it_stopped(one: Planned, event: Mapping[str, Any]) -> str:
    if event["event"] != "interrupted":
        return f"after {label(one)}"
    return f"{label(one)}: {event['reason']}"


@contextlib.contextmanager
def _asking(worker: Worker, console: Console) -> Iterator[list[int]]:
    """While active, Ctrl-C and SIGTERM ask the worker to save and stop; the signals that came are in the list.

    A second Ctrl-C ends at once.
    """
    asked: list[int] = []

    def handle(number: int, _: object) -> None:
        if number == signal.SIGINT and asked:
            raise KeyboardInterrupt
        asked.append(number)
        if number == signal.SIGINT:
            console_.say(
                console,
                "Stopping once a checkpoint is saved; Ctrl-C again stops at once and loses what came since the last.",
            )
        worker.stop()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _job(workspace: Workspace, planned: Planned) -> Job:
    data = workspace.data_of(planned.run)
    if data.folder is None:
        raise SettingsError(f"{data.facts.name} was only planned with: training needs --data DIR")
    return Job(
        kind="evaluate" if planned.done else "train",
        run=planned.run,
        data=data.folder,
        spec=data.spec,
        results=workspace.store.root,
        devices=workspace.devices,
        parent=workspace.parents_weights,
        garden=workspace.garden,
    )


def _free(folder: Path) -> int:
    """Bytes free where a folder is or will be."""
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    return shutil.disk_usage(there).free


def refuse_small_disk(workspace: Workspace, plan: Plan) -> None:
    """Better now than after a week.

    Raises:
      SettingsError: the checkpoints of what is to do do not fit on the disk.
    """
    need, free = plan.disk(_held(workspace, plan)), _free(workspace.store.root)
    if need > free:
        raise SettingsError(
            f"{workspace.store.root}: checkpoints need {_gigabytes(need)} at most, {_gigabytes(free)} are free: free "
            "some, choose another --results, or keep fewer with --keep-checkpoints"
        )


def _held(workspace: Workspace, plan: Plan) -> dict[str, int]:
    """Id of a run that was begun -> bytes that its checkpoints take already."""
    folders = {one.run.id: workspace.store.checkpoints(one.run.id) for one in plan.missing if not one.done}
    return {run_id: sum(path.stat().st_size for path in folder.glob("*")) for run_id, folder in folders.items()}


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:,.2f} GB"


def plan_of_one(run: Run, done: bool) -> Plan:
    """The plan of one run under the protocol it carries: trained already, and to be evaluated only, or not."""
    return Plan((Study("one", "One run", (), ()),), (Planned(run, (), done, evaluated=False),), {})


def describe_results(store: Store, run_id: str, console: Console) -> None:
    """Prints a finished run's numbers under each of its protocols, and where they are."""
    say = functools.partial(console_.say, console)
    record = store.read(run_id)
    changes = [f"{key}={value}" for key, value in {**record.toggles, **record.scale, "seed": record.seed}.items()]
    by = f", trained by the {record.provenance['trained_by']}" if "trained_by" in record.provenance else ""
    say(f"Run {record.id}: {' '.join(changes)}, profile {record.profile}{by}")
    for evaluation in record.evaluations.values():
        top1 = estimates.accuracy(round(evaluation.top1 * evaluation.videos), evaluation.videos)
        say(
            f"  {evaluation.protocol}: top-1 {100 * top1.value:.1f} % [{100 * top1.low:.1f}, {100 * top1.high:.1f}], "
            f"top-5 {100 * evaluation.top5:.1f} %, {evaluation.videos} of {evaluation.videos_in_split} videos"
        )
    say(f"  {store.folder(run_id)}")


def describe(workspace: Workspace, plan: Plan, console: Console) -> None:
    """Prints what a plan would run and what it costs."""
    say = functools.partial(console_.say, console)
    several = len(plan.studies) > 1
    for study in plan.studies:
        rows = f": {len(study.rows)} rows" if len(study.rows) > 1 else ""
        say(f"{f'{study.name}: ' if several else ''}{study.title}{rows}, profile {workspace.profile.name}.")
    for data in {workspace.data_of(one.run).facts.name: workspace.data_of(one.run) for one in plan.runs}.values():
        facts = data.facts
        say(
            f"Data: {facts.name}, {facts.train_videos:,} training and {facts.validation_videos:,} validation videos of "
            f"{facts.classes} classes{'' if data.ready else ' (not there yet)'}."
        )
    if str(workspace.cut):
        say(f"Cut: {workspace.cut}. This is not the profile's own training, and the table will say so.")
    known = _compiled_for(workspace, plan)
    for one in plan.runs:
        settings = one.run.settings
        say(
            f"  {_state(one):24}{one.run.id[:8]}  {settings['trainer.train_steps']:>7,} steps of "
            f"{settings['task.train_data.global_batch_size']} clips  {one.params / 1e6:6.2f} M params  "
            f"{one.multiply_adds / 1e9:8.3f} G multiply-adds a view  {label(one)}{_on_slices(one, known)}"
        )
        if one.fault or one.state.name == "failed":
            say(f"    {one.fault or one.state.error}")
    done = len(plan.runs) - len(plan.missing) - len(plan.faulty)
    say(
        f"Wanted {plan.count} runs, saved {plan.shared} that rows share, done {done}, to do {len(plan.missing)}; "
        f"evaluation {' and '.join(sorted({str(one.run.protocol) for one in plan.runs}))}."
    )
    say(f"Cost of what is to do: {cost(workspace, plan)}")
    for topology, costs in known.items():
        say(f"On TPU {topology}, by its preflight: {_whole(plan, costs)}.")


def _compiled_for(workspace: Workspace, plan: Plan) -> Mapping[str, Mapping[str, RunCost]]:
    """Topology -> id of a run -> what it takes there, where something was compiled."""
    if not forecasting.topologies(workspace):
        return {}
    from harness import gathering  # with all the statistics, which a plan has nothing else to do with

    found = gathering.costs(workspace, plan)
    return {topology: runs for topology, runs in found.items() if any(cost.said for cost in runs.values())}


def _on_slices(one: Planned, known: Mapping[str, Mapping[str, RunCost]]) -> str:
    """What a run takes on each slice, for the end of its line."""
    costs = {topology: runs[one.run.id] for topology, runs in known.items()}
    return "".join(f", {cost.said} on TPU {topology}" for topology, cost in costs.items() if cost.said)


def _whole(plan: Plan, costs: Mapping[str, RunCost]) -> str:
    """What the runs that are not trained yet take together."""
    left = [costs[one.run.id] for one in plan.missing if not one.done]
    known = [cost for cost in left if not math.isnan(cost.core_hours)]
    least = "" if all(cost.measured for cost in known) else "at least "
    if not known:
        return f"none of the {len(left)} runs left fits, or is known"
    of = "what is left" if len(known) == len(left) else f"{len(known)} of the {len(left)} runs left"
    return f"{least}{costing.amount(math.fsum(cost.core_hours for cost in known))} core-hours for {of}"


def _state(one: Planned) -> str:
    """Where a run stands, for the list of a plan."""
    if one.fault:
        return "cannot run" if not one.done else "unusable"
    return "to be evaluated" if one.done and not one.evaluated else str(one.state)


def cost(workspace: Workspace, plan: Plan) -> str:
    """What is to do of a plan costs: multiply-adds, time, disk; a sentence."""
    work = sum(one.work for one in plan.missing)
    parts = [f"{work / 1e15:,.3g} peta multiply-adds"]
    rate = workspace.rate
    if work and rate:
        parts.append(f"about {duration(work / rate)} at the speed measured here")
    elif work and workspace.profile.measured_rate:
        parts.append(f"about {duration(work / workspace.profile.measured_rate)} on two CPU cores")
    if work and workspace.profile.name == "paper":
        parts.append(f"at least {plan.tpu_v3_core_hours:,.3g} TPU v3 core-hours (every core at its peak)")
    most = _gigabytes(plan.disk(_held(workspace, plan)))
    disk = f"at most {most} of disk while it trains, {_gigabytes(plan.kept)} after"
    return ", ".join([*parts, f"{disk} ({_gigabytes(_free(workspace.store.root))} are free)"]) + "."
