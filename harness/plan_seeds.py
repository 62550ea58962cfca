"""python -m harness.plan_seeds: says which effects each step of Table 2 could have shown, and what would show more."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli import options
from harness.cli.options import TrainingOptions

if TYPE_CHECKING:
    from harness.analysis.seed_planning import Goal
    from harness.config.studies import Study
    from harness.planning.workspace import Workspace

_EXAMPLES = """
\b
Examples:
  python -m harness.plan_seeds --detect 0.3                         from the records under results/
  python -m harness.plan_seeds --detect 0.3 --results results/example
  python -m harness.plan_seeds --detect 0.3 --seed-spread 0.15      before anything is trained
  python -m harness.plan_seeds --detect 0.3 --videos 17706 --discordance 8

\b
Exit codes: 0 all done; 1 a record cannot be used, the others are; 2 wrong usage, or neither records nor assumptions.
"""
_INSTEAD = (
    "train some first, `python -m harness.additive_study --seeds 3`, or say what to assume: --seed-spread POINTS, or "
    "--videos N --discordance PERCENT"
)
_GOAL = {"detect", "power", "alpha"}
_ASSUMED = {"seed_spread", "videos", "discordance"}
# The flags that choose among records; the other flags of a training have no effect on that.
_RECORDED = {"results", "runs", "profile_name", "data", "replicas", "batch", "steps", "validation_videos", "seeds",
             "toggle_files", "added"}  # fmt: skip


@click.command(epilog=_EXAMPLES)
@click.option("--detect", type=click.FloatRange(0, 100, min_open=True), default=0.3, show_default=True,
              callback=options.finite,
              metavar="POINTS", help="The effect to be found, in percentage points of top-1.")  # fmt: skip
@click.option("--power", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.8, show_default=True,
              help="Chance to find it.")  # fmt: skip
@click.option("--alpha", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.05, show_default=True,
              help="Level of the two-sided test of one step; divide it by the steps for Holm's strictest.")  # fmt: skip
@click.option("--seeds", type=click.IntRange(min=1), metavar="N",
              help="Look at seeds 0 to N-1.  [default: as many as a row has]")  # fmt: skip
@click.option("--seed-spread", type=click.FloatRange(min=0, min_open=True), callback=options.finite, metavar="POINTS",
              help="Read no records: assume this standard deviation over seeds of a step.")  # fmt: skip
@click.option("--videos", type=click.IntRange(min=1), metavar="N",
              help="Read no records: assume so many videos and one seed; with --discordance.")  # fmt: skip
@click.option("--discordance", type=click.FloatRange(0, 100, min_open=True), metavar="PERCENT",
              help="Share of the videos that just one of two rows has right.")  # fmt: skip
@options.training
@options.folders
@options.toggle_files
@click.option("--add", "added", multiple=True, metavar="KEY[=VALUE]", help="A further row with this toggle added.")
@options.one_line_errors
def main(
    detect: float,
    power: float,
    alpha: float,
    seeds: int | None,
    seed_spread: float | None,
    videos: int | None,
    discordance: float | None,
    toggle_files: tuple[Path, ...],
    added: tuple[str, ...],
    **flags: Any,
) -> None:
    """Prints the smallest effect that each step of Table 2 could have shown, and how many seeds or videos show one.

    From records: the spread of a step over its seeds, and the share of the videos that it flipped. Trains nothing.
    """
    from harness.analysis.seed_planning import Goal
    from harness.config.experiment import SettingsError
    from harness.reporting import seed_report

    goal = Goal(detect / 100, power, alpha)
    if (videos is None) != (discordance is None):
        raise SettingsError("--videos and --discordance: neither says anything without the other")
    if discordance is not None and discordance < detect:
        raise SettingsError(
            f"--detect {detect:g}: a difference cannot exceed the share of videos that flip, "
            f"--discordance {discordance:g}"
        )
    if seed_spread is None and videos is None:
        options.refuse_others(_GOAL | _RECORDED, "nothing is trained here")
        _from_records(goal, _study(toggle_files, added), seeds, flags)
        return
    options.refuse_others(_GOAL | _ASSUMED, "no records are read where the spread or the discordance is assumed")
    if seed_spread is not None:
        click.echo(seed_report.over_seeds(seed_spread / 100, goal))
    if videos is not None and discordance is not None:
        click.echo(seed_report.on_videos(videos, discordance / 100, goal))


def _study(toggle_files: tuple[Path, ...], added: tuple[str, ...]) -> Study:
    from ablations.table2 import STUDY
    from harness.config.toggles import parse
    from harness.planning import catalog

    known = catalog.toggles(toggle_files)
    return STUDY.plus([parse(text, known) for text in added])


def _from_records(goal: Goal, study: Study, seeds: int | None, flags: dict[str, Any]) -> None:
    from harness.analysis import evidence
    from harness.cli import describing
    from harness.config.experiment import SettingsError
    from harness.reporting import seed_report
    from harness.scheduler import orchestrator

    workspace = _recorded(flags)
    count = seeds or _most_seeds(workspace, study)
    plan = workspace.plan([study], range(count))
    steps = seed_report.measured(evidence.summary(study, plan, evidence.evidence(workspace, plan)))
    failures = orchestrator.faults(plan)
    for failure in failures:
        click.echo(f"FAILED {failure}", err=True)
    if all(math.isnan(step.difference) for step in steps):
        with_all = f"{count} seeds" if count > 1 else "one seed"
        raise SettingsError(f"{workspace.store.runs}: no step has both its rows with {with_all}: {_INSTEAD}")
    click.echo(seed_report.report(steps, goal))
    # The cost is that of the next seed of every row.
    cost = describing.cost(workspace, workspace.plan([study], [count]))
    click.echo(f"\nOne more seed of all {len(study.rows)} rows costs: {cost}")
    if failures:
        raise SystemExit(1)


def _recorded(flags: dict[str, Any]) -> Workspace:
    from harness.config.experiment import SettingsError
    from harness.planning import workspace as workspace_
    from harness.store.run_store import Store

    store, name = Store(flags["results"], flags["runs"]), workspace_.profile(flags["profile_name"]).name
    if not any(record.profile == name for record in workspace_.readable(store)):
        raise SettingsError(f"{store.runs}: holds no record of profile {name}: {_INSTEAD}")
    return options.workspace(TrainingOptions(**flags), purpose="draw")


def _most_seeds(workspace: Workspace, study: Study) -> int:
    """Returns how many seeds, from 0 on, the row with most seeds has; at least 1."""
    recorded = (any(run.done for run in workspace.plan([study], [seed]).runs) for seed in itertools.count())
    return max(1, sum(1 for _ in itertools.takewhile(bool, recorded)))


if __name__ == "__main__":
    main()
