"""From a plan to its drawn tables: what the commands that train studies have in common."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import click
from rich.console import Console

from harness.analysis.study_summary import Summary
from harness.planning.plans import Plan
from harness.planning.workspace import Workspace
from harness.reporting import terminal
from harness.reporting.writers import Drawn
from harness.scheduler import orchestrator
from harness.tracking import study_mirror
from harness.tracking.study_mirror import MirroredTable


@dataclasses.dataclass(frozen=True)
class How:
    """How a plan is carried out.

    Attributes:
      wandb: mode of the mirror.
      train: whether what is missing is trained; else only drawn.
      fail_fast: stop at the first run that fails.
    """

    wandb: Literal["online", "offline", "off"]
    train: bool = True
    fail_fast: bool = False


def run(
    workspace: Workspace, plan: Plan, name: str, console: Console, how: How, draw: Callable[[], Drawn], plots: Path
) -> None:
    """Trains what a plan is missing, draws it, shows it, and mirrors it.

    Args:
      workspace: where and how.
      plan: what to train.
      name: of the study, for the mirror.
      console: where it is shown.
      how: see there.
      draw: draws what there is once nothing is left to train.
      plots: folder that it draws figures into.

    Raises:
      SystemExit: code 1, a run failed or a record cannot be used; the others are done.
    """
    failures = orchestrator.faults(plan)
    mode = how.wandb if workspace.devices.chief and how.train else "off"
    with study_mirror.mirror(mode, name, workspace.store, console) as mirror:
        mirror.catch_up(plan)
        if how.train and not (failures and how.fail_fast):
            failures += orchestrator.conduct(workspace, plan, console, mirror, _joined(workspace, plan), how.fail_fast)
        if not workspace.devices.chief:
            return
        drawn = draw()
        terminal.show(drawn.tables, failures, console)
        for own, (numbers, paths) in drawn.studies.items():
            mirror.drawn(_mirrored(numbers), paths, own)
        where = ", ".join(f"{workspace.store.root / 'tables' / own}*, {plots / own}*" for own in drawn.studies)
        click.echo(f"Written: {len(drawn.files)} files, {where}")
    if failures:
        raise SystemExit(1)


def _mirrored(numbers: Summary) -> MirroredTable:
    """A study's table as its mirror shows it."""
    from harness.reporting import layouts, render  # matplotlib has no part in training

    cells = render.cells(layouts.of(numbers.study).table(numbers))
    return MirroredTable(
        title=f"{numbers.study.title} ({numbers.profile})",
        columns=tuple(map(str, cells.columns)),
        rows=tuple(tuple(map(str, row)) for row in cells.itertuples(index=False)),
    )


def _joined(workspace: Workspace, plan: Plan) -> str:
    """Name under which workers join to carry out a plan, whatever rows and seeds: its studies' and profile's."""
    return " ".join([*(study.name for study in plan.studies), workspace.profile.name])
