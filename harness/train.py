"""python -m harness.train: trains, evaluates and records one run, given by flags."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import click

from harness.cli import options
from harness.cli.options import TrainingOptions

_EXAMPLES = """
\b
Examples:
  python -m harness.train                                          the baseline
  python -m harness.train ls sd=0.1 --depth 101 --frames 48 --seed 3
  python -m harness.train ls dropout=0.1 --toggles my_toggles.py
  python -m harness.train ls sd wd ep --plan
"""


@click.command(epilog=_EXAMPLES + "\n" + options.EXIT_CODES)
@options.cell
@options.training
@options.sharing
@options.folders
@options.toggle_files
@click.option("--parent", metavar="RUN", help="Start from the checkpoint of this run (its id, or the start of it).")
@click.option(
    "--plan", "plan_only", is_flag=True, help="Print the run, what differs from the baseline, and its cost, then stop."
)
@options.wandb
@click.option("--list-toggles", is_flag=True, help="Print the toggles there are, then stop.")
@options.one_line_errors
def main(
    changes: tuple[str, ...],
    toggle_files: tuple[Path, ...],
    depth: str | None,
    frames: str | None,
    resolution: str | None,
    seed: int,
    parent: str | None,
    plan_only: bool,
    list_toggles: bool,
    wandb_mode: Literal["online", "offline", "off"],
    **flags: Any,
) -> None:
    """Trains, evaluates and records one run: the baseline with the toggles CHANGES, each at its value.

    A run that is recorded already is not trained again; an interrupted one goes on from its last checkpoint.
    """
    from rich.console import Console

    from harness.cli import describing
    from harness.config import experiment
    from harness.config.studies import Cell, Row, Study
    from harness.planning import catalog, checks
    from harness.scheduler import orchestrator
    from harness.tracking import study_mirror

    known = catalog.toggles(toggle_files)
    console = Console()
    if list_toggles:
        for toggle in known.values():
            default = "" if toggle.axis else f" [{toggle.default}]"
            click.echo(f"{toggle.key:12}{toggle.label:12}{toggle.meaning}{default}")
        return
    applied = options.applied(changes, {"depth": depth, "frames": frames, "resolution": resolution}, known)
    workspace = options.workspace(TrainingOptions(**flags, parent=parent), purpose="plan" if plan_only else "train")
    study = Study("train", "One run", tuple(change.toggle for change in applied), (Row(1, "", applied),))
    plan = workspace.plan([study], [seed])
    checks.refuse_misfits(plan, workspace.store)
    describing.describe(workspace, plan, console)
    if plan_only:
        baseline = workspace.complete(Cell((), seed))
        for field, (before, after) in experiment.difference(baseline.settings, plan.runs[0].run.settings).items():
            click.echo(f"  {field}: {before} -> {after}")
        return
    mode = wandb_mode if workspace.devices.chief else "off"
    with study_mirror.mirror(mode, f"train-{workspace.profile.name}", workspace.store, console) as mirror:
        mirror.catch_up(plan)
        failures = orchestrator.faults(plan) + orchestrator.conduct(workspace, plan, console, mirror)
    if failures:
        click.echo(f"FAILED {failures[0]}", err=True)
        raise SystemExit(1)
    if not workspace.devices.chief:
        return
    describing.describe_results(workspace.store, plan.runs[0].run.id, console)


if __name__ == "__main__":
    main()
