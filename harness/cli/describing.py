"""Says what a plan would run and cost, and what came of a run."""

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
    """Prints a finished run's numbers under each of its protocols, and where they are."""
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
    """What a recorded run is: its toggles and axes, its stage, what it started from, and who trained it."""
    changes = [f"{key}={value}" for key, value in {**record.toggles, **record.scale, "seed": record.seed}.items()]
    stage = labels.stage(record)
    start = f"starts from {labels.start(record.parent, store)}" if stage or record.parent else ""
    by = f"trained by the {record.provenance['trained_by']}" if "trained_by" in record.provenance else ""
    return ", ".join(part for part in (" ".join(changes), stage, start, f"profile {record.profile}", by) if part)


# What a batch is counted in, by the clips that it has of a video.
_UNITS = {1: "clips", 2: "pairs of clips"}


def describe(workspace: Workspace, plan: Plan, console: Console) -> None:
    """Prints what a plan would run and what it costs."""
    say = functools.partial(print_line, console)
    several = len(plan.studies) > 1
    for study in plan.studies:
        rows = f": {len(study.rows)} rows" if len(study.rows) > 1 else ""
        say(f"{f'{study.name}: ' if several else ''}{study.title}{rows}, profile {workspace.profile.name}.")
    # By all that is known of them: two sets may have one name.
    sets = {one.run.data: workspace.data_of(one.run) for one in plan.runs}
    for facts, data in sets.items():
        say(
            f"Data: {facts.name}, {facts.train_videos:,} training and {facts.validation_videos:,} validation videos of "
            f"{facts.classes} classes{'' if data.ready else f' ({data.missing})'}."
        )
    if str(workspace.cut):
        say(f"Cut: {workspace.cut}. This is not the profile's own training, and the table will say so.")
    known, busy = _compiled_for(workspace, plan), _running(workspace)
    missing, idle = {one.run.id for one in plan.missing}, _not_needed(plan)
    for one in plan.runs:
        settings = one.run.settings
        state = "not needed" if one.run.id in idle else _state(one, busy)
        say(
            f"  {state:24}{one.run.id[:8]}  {settings['trainer.train_steps']:>7,} steps of "
            f"{settings['task.train_data.global_batch_size']} {_UNITS[network.views(settings)]}  "
            f"{one.params / 1e6:6.2f} M params  {one.multiply_adds / 1e9:8.3f} G multiply-adds a view  "
            f"{label(one)}{_on_slices(one, known)}{_started_elsewhere(one.run, plan, workspace)}"
        )
        if one.fault or one.state.name == "failed":
            say(f"    {one.fault or one.state.error}")
    done = len(plan.runs) - len(missing) - len(plan.faulty) - len(idle)
    unneeded = f", not needed {len(idle)}" if idle else ""
    say(
        f"Wanted {plan.count} runs, saved {plan.shared} that rows share, done {done}{unneeded}, to do {len(missing)}; "
        f"evaluation {' and '.join(sorted({str(one.run.protocol) for one in plan.runs if one.run.evaluated}))}."
    )
    say(f"Cost of what is to do: {cost(workspace, plan)}")
    for topology, costs in known.items():
        say(f"On TPU {topology}, by its preflight: {_whole(plan, costs)}.")


def _not_needed(plan: Plan) -> set[str]:
    """Ids of runs that others would have started from, which are done without."""
    missing = {one.run.id for one in plan.missing}
    return {one.run.id for one in plan.runs if not (one.done or one.fault) and one.run.id not in missing}


def _started_elsewhere(run: Run, plan: Plan, workspace: Workspace) -> str:
    """What a run starts from that is no part of the plan, for the end of its line."""
    listed = run.parent is None or any(one.run.identity == run.parent for one in plan.runs)
    return "" if listed else f", starts from {labels.start(run.parent, workspace.store)}"


def _compiled_for(workspace: Workspace, plan: Plan) -> Mapping[str, Mapping[str, RunCost]]:
    """Topology -> id of a run -> what it takes there, where something was compiled."""
    if not forecasting.topologies(workspace):
        return {}
    from harness.analysis import evidence  # with all the statistics, which a plan has nothing else to do with

    found = evidence.costs(workspace, plan)
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
    return f"{least}{core_hours.amount(math.fsum(cost.core_hours for cost in known))} core-hours for {of}"


def _running(workspace: Workspace) -> Mapping[str, Attempt]:
    """Key of what is to do of a run -> the attempt that a worker is at now."""
    if workspace.sharing.storage is None and not sharing.file_of(workspace.store.root).is_file():
        return {}
    from harness.scheduler import (  # with all of Optuna, which a first plan has nothing to do with
        looking,
        optuna_storage,
    )

    try:
        queue = looking.open_queue(workspace.sharing.storage, workspace.store.root)
    except optuna_storage.StorageError:  # nothing was begun there; what else is wrong is said when something is
        return {}
    queue.find_stale()
    return {one.item.key: one for one in queue.attempts() if one.state == "running"}


def _state(one: Planned, busy: Mapping[str, Attempt]) -> str:
    """Where a run stands, for the list of a plan."""
    if at := busy.get(sharing.key(one)):
        return f"running at step {at.step}" if at.step else "running"
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
    most = disk.gigabytes(plan.disk(disk.held(workspace, plan)))
    free = disk.free(workspace.store)
    where, room = ("the bucket", "") if free is None else ("disk", f" ({disk.gigabytes(free)} are free)")
    amount = f"at most {most} of {where} while it trains, {disk.gigabytes(plan.kept)} after{room}"
    return ", ".join([*parts, amount]) + "."
