"""Runs what a plan is missing, one run after the other, and says what happens."""

from __future__ import annotations

import functools

from rich.console import Console

from harness import console as console_
from harness import estimates
from harness.console import Board, duration, label, view
from harness.experiment import Run, SettingsError
from harness.planning import Plan, Planned
from harness.store import Store
from harness.studies import Study
from harness.worker import Job, Worker
from harness.workspace import Workspace


def conduct(workspace: Workspace, plan: Plan, console: Console, fail_fast: bool = False) -> list[str]:
    """Trains and evaluates what is missing.

    Args:
      workspace: where and how.
      plan: what.
      console: where to show progress.
      fail_fast: stop at the first run that fails.

    Returns:
      One line for each run that failed.
    """
    if not plan.missing:
        return []
    board = Board(plan, workspace.rate() or workspace.profile.measured_rate)
    failures: list[str] = []
    with workspace.store.locked(), Worker() as worker, view(board, console) as shown:
        for one in plan.missing:
            for event in worker.events(_job(workspace, one)):
                shown.event(one.run.id, event)
                if event["event"] == "failed":
                    log = workspace.store.log(one.run.id)
                    failures.append(f"{label(one)}: {event['error']} (details: {log})")
            if failures and fail_fast:
                break
    return failures


def _job(workspace: Workspace, planned: Planned) -> Job:
    data = workspace.data
    if data.folder is None:
        raise SettingsError(f"{data.facts.name} was only planned with: training needs --data DIR")
    return Job(
        kind="evaluate" if planned.done else "train",
        run=planned.run,
        data=data.folder,
        spec=data.spec,
        results=workspace.store.root,
        strategy=workspace.strategy,
        tpu=workspace.tpu,
        parent=str(workspace.store.checkpoints(workspace.parent[:16]).absolute()) if workspace.parent else None,
    )


def evaluation_plan(run: Run) -> Plan:
    """The plan of evaluating one finished run under the protocol it carries."""
    study = Study("evaluation", "Evaluation of one run", (), ())
    return Plan(study, (Planned(run, (), done=True, evaluated=False),), {})


def describe_results(store: Store, run_id: str, console: Console) -> None:
    """Prints a finished run's numbers under each of its protocols, and where they are."""
    say = functools.partial(console_.say, console)
    record = store.read(run_id)
    changes = " ".join(f"{key}={value}" for key, value in {**record.toggles, **record.scale}.items())
    say(f"Run {record.id}: {changes} seed={record.seed}, profile {record.profile}")
    for evaluation in record.evaluations.values():
        top1 = estimates.accuracy(round(evaluation.top1 * evaluation.videos), evaluation.videos)
        say(
            f"  {evaluation.protocol}: top-1 {100 * top1.value:.1f} % [{100 * top1.low:.1f}, {100 * top1.high:.1f}], "
            f"top-5 {100 * evaluation.top5:.1f} %, {evaluation.videos} of {evaluation.videos_in_split} videos"
        )
    say(f"  {store.folder(run_id)}")


def describe(workspace: Workspace, plan: Plan, console: Console) -> None:
    """Prints what a plan would run and what it costs."""
    profile, data = workspace.profile, workspace.data.facts
    say = functools.partial(console_.say, console)
    rows = f": {len(plan.study.rows)} rows" if len(plan.study.rows) > 1 else ""
    say(f"{plan.study.title}{rows}, profile {profile.name}.")
    say(
        f"Data: {data.name}, {data.train_videos:,} training and {data.validation_videos:,} validation videos of "
        f"{data.classes} classes{'' if workspace.data.ready else ' (not there yet)'}."
    )
    if str(workspace.cut):
        say(f"Cut: {workspace.cut}. This is not the profile's own training, and the table will say so.")
    for one in plan.runs:
        settings = one.run.settings
        state = "done" if one.done and one.evaluated else "evaluate" if one.done else "train"
        say(
            f"  {state:9}{one.run.id[:8]}  {settings['trainer.train_steps']:>7,} steps of "
            f"{settings['task.train_data.global_batch_size']} clips  {one.params / 1e6:6.2f} M params  "
            f"{one.multiply_adds / 1e9:8.3f} G multiply-adds a view  {label(one)}"
        )
    wanted = sum(len(ids) for ids in plan.wanted.values())
    say(
        f"Wanted {wanted} runs, shared {plan.shared}, done {len(plan.runs) - len(plan.missing)}, "
        f"to do {len(plan.missing)}; evaluation {plan.runs[0].run.protocol}."
    )
    say(f"Cost of what is to do: {_cost(workspace, plan)}")


def _cost(workspace: Workspace, plan: Plan) -> str:
    work = sum(one.work for one in plan.missing)
    parts = [f"{work / 1e15:,.3g} peta multiply-adds"]
    rate = workspace.rate()
    if work and rate:
        parts.append(f"about {duration(work / rate)} at the speed measured here")
    elif work and workspace.profile.measured_rate:
        parts.append(f"about {duration(work / workspace.profile.measured_rate)} on two CPU cores")
    if work and workspace.profile.name == "paper":
        parts.append(f"at least {plan.tpu_v3_core_hours:,.3g} TPU v3 core-hours (every core at its peak)")
    parts.append(f"{plan.disk / 1e9:,.2f} GB of checkpoints")
    return ", ".join(parts) + "."
