"""Prints what a plan would run and what it costs, and the results of a run."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping

from rich.console import Console

from harness.accelerators import core_hours, forecasting
from harness.accelerators.core_hours import RunCost
from harness.analysis import estimates
from harness.config import network
from harness.config.experiment import Run
from harness.planning import disk, labels
from harness.planning.labels import label
from harness.planning.plans import Plan, Planned
from harness.planning.workspace import Workspace
from harness.scheduler import sharing
from harness.scheduler.run_states import Attempt
from harness.store.records import RunRecord
from harness.store.run_store import Store
from harness.system.text import duration, print_line


def describe_results(store: Store, run_id: str, console: Console) -> None:
    """Prints a finished run's results under each of its protocols, and its folder."""
    say = functools.partial(print_line, console)
    record = store.read(run_id)
    say(f"Run {record.id}: {_what(record, store)}")
    for evaluation in record.evaluations.values():
        top1 = estimates.accuracy(round(evaluation.top1 * evaluation.videos), evaluation.videos)
        say(
            f"  {evaluation.protocol}: top-1 {100 * top1.value:.1f} % [{100 * top1.low:.1f}, {100 * top1.high:.1f}], "
            f"top-5 {100 * evaluation.top5:.1f} %, {evaluation.videos} of {evaluation.videos_in_split} videos"
        )
    say(f"  {store.folder(run_id)}")


def _what(record: RunRecord, store: Store) -> str:
    """Returns a recorded run in words: its toggles and axes, its stage, what it started from, and who trained it."""
    changes = [f"{key}={value}" for key, value in {**record.toggles, **record.scale, "seed": record.seed}.items()]
    stage = labels.stage(record)
    start = f"starts from {labels.start(record.parent, store)}" if stage or record.parent else ""
    by = f"trained by the {record.provenance['trained_by']}" if "trained_by" in record.provenance else ""
    return ", ".join(part for part in (" ".join(changes), stage, start, f"profile {record.profile}", by) if part)


# Unit of a batch, by the number of clips that it has of each video.
_UNITS = {1: "clips", 2: "pairs of clips"}


def describe(workspace: Workspace, plan: Plan, console: Console) -> None:
    """Prints what a plan would run and what it costs."""
    say = functools.partial(print_line, console)
    several = len(plan.studies) > 1
    for study in plan.studies:
        rows = f": {len(study.rows)} rows" if len(study.rows) > 1 else ""
        say(f"{f'{study.name}: ' if several else ''}{study.title}{rows}, profile {workspace.profile.name}.")
    # Keyed by all facts, since two data sets may have the same name.
    sets = {planned.run.data: workspace.data_of(planned.run) for planned in plan.runs}
    for facts, data in sets.items():
        say(
            f"Data: {facts.name}, {facts.train_videos:,} training and {facts.validation_videos:,} validation videos of "
            f"{facts.classes} classes{'' if data.ready else f' ({data.missing})'}."
        )
    if str(workspace.cut):
        say(f"Cut: {workspace.cut}. This is not the profile's own training, and the table will say so.")
    known, busy = _compiled_for(workspace, plan), _running(workspace)
    missing, idle = {planned.run.id for planned in plan.missing}, _not_needed(plan)
    for planned in plan.runs:
        settings = planned.run.settings
        state = "not needed" if planned.run.id in idle else _state(planned, busy)
        say(
            f"  {state:24}{planned.run.id[:8]}  {settings['trainer.train_steps']:>7,} steps of "
            f"{settings['task.train_data.global_batch_size']} {_UNITS[network.views(settings)]}  "
            f"{planned.params / 1e6:6.2f} M params  {planned.multiply_adds / 1e9:8.3f} G multiply-adds a view  "
            f"{label(planned)}{_on_slices(planned, known)}{_started_elsewhere(planned.run, plan, workspace)}"
        )
        if planned.fault or planned.state.name == "failed":
            say(f"    {planned.fault or planned.state.error}")
    done = len(plan.runs) - len(missing) - len(plan.faulty) - len(idle)
    unneeded = f", not needed {len(idle)}" if idle else ""
    say(
        f"Wanted {plan.count} runs, saved {plan.shared} that rows share, done {done}{unneeded}, to do {len(missing)}; "
        "evaluation "
        f"{' and '.join(sorted({str(planned.run.protocol) for planned in plan.runs if planned.run.evaluated}))}."
    )
    say(f"Cost of what is to do: {cost(workspace, plan)}")
    for topology, costs in known.items():
        say(f"On TPU {topology}, by its preflight: {_whole(plan, costs)}.")


def _not_needed(plan: Plan) -> set[str]:
    """Returns the ids of runs that are not needed, since the runs that would start from them are done already."""
    missing = {planned.run.id for planned in plan.missing}
    return {
        planned.run.id for planned in plan.runs if not (planned.done or planned.fault) and planned.run.id not in missing
    }


def _started_elsewhere(run: Run, plan: Plan, workspace: Workspace) -> str:
    """Returns, for the end of a run's line, the run that it starts from, if that is not part of the plan."""
    listed = run.parent is None or any(planned.run.identity == run.parent for planned in plan.runs)
    return "" if listed else f", starts from {labels.start(run.parent, workspace.store)}"


def _compiled_for(workspace: Workspace, plan: Plan) -> Mapping[str, Mapping[str, RunCost]]:
    """Returns topology -> id of a run -> its cost there, for the topologies with any known cost."""
    if not forecasting.topologies(workspace):
        return {}
    from harness.analysis import evidence  # imported here because it loads all the statistics

    costs = evidence.costs(workspace, plan)
    return {topology: runs for topology, runs in costs.items() if any(cost.said for cost in runs.values())}


def _on_slices(planned: Planned, known: Mapping[str, Mapping[str, RunCost]]) -> str:
    """Returns, for the end of a run's line, its cost on each slice."""
    costs = {topology: runs[planned.run.id] for topology, runs in known.items()}
    return "".join(f", {cost.said} on TPU {topology}" for topology, cost in costs.items() if cost.said)


def _whole(plan: Plan, costs: Mapping[str, RunCost]) -> str:
    """Returns in words what the runs that are not trained yet cost together."""
    left = [costs[planned.run.id] for planned in plan.missing if not planned.done]
    known = [cost for cost in left if not math.isnan(cost.core_hours)]
    least = "" if all(cost.measured for cost in known) else "at least "
    if not known:
        return f"none of the {len(left)} runs left fits, or is known"
    of = "what is left" if len(known) == len(left) else f"{len(known)} of the {len(left)} runs left"
    return f"{least}{core_hours.amount(math.fsum(cost.core_hours for cost in known))} core-hours for {of}"


def _running(workspace: Workspace) -> Mapping[str, Attempt]:
    """Returns key of an item -> the attempt at it that is running now."""
    if workspace.sharing.storage is None and not sharing.file_of(workspace.store.root).is_file():
        return {}
    from harness.scheduler import (  # imported here because they load Optuna, which a first plan does not need
        looking,
        optuna_storage,
    )

    try:
        queue = looking.open_queue(workspace.sharing.storage, workspace.store.root)
    except optuna_storage.StorageError:  # there is no queue yet; any other error is reported once something is begun
        return {}
    queue.find_stale()
    return {attempt.item.key: attempt for attempt in queue.attempts() if attempt.state == "running"}


def _state(planned: Planned, busy: Mapping[str, Attempt]) -> str:
    """Returns a run's state in words, for the list of a plan."""
    if attempt := busy.get(sharing.key(planned)):
        return f"running at step {attempt.step}" if attempt.step else "running"
    if planned.fault:
        return "cannot run" if not planned.done else "unusable"
    return "to be evaluated" if planned.done and not planned.evaluated else str(planned.state)


def cost(workspace: Workspace, plan: Plan) -> str:
    """Returns a sentence on the cost of a plan's missing runs: multiply-adds, time, disk."""
    work = sum(planned.work for planned in plan.missing)
    parts = [f"{work / 1e15:,.3g} peta multiply-adds"]
    rate = workspace.rate
    if work and rate:
        parts.append(f"about {duration(work / rate)} at the speed measured here")
    elif work and workspace.profile.measured_rate:
        parts.append(f"about {duration(work / workspace.profile.measured_rate)} on two CPU cores")
    if work and workspace.profile.name == "paper":
        parts.append(f"at least {plan.tpu_v3_core_hours:,.3g} TPU v3 core-hours (every core at its peak)")
    most = disk.gigabytes(plan.disk(disk.held(workspace, plan)))
    free = disk.free(workspace.store)
    where, room = ("the bucket", "") if free is None else ("disk", f" ({disk.gigabytes(free)} are free)")
    amount = f"at most {most} of {where} while it trains, {disk.gigabytes(plan.kept)} after{room}"
    return ", ".join([*parts, amount]) + "."
