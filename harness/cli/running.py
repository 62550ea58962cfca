"""The steps that all commands which train studies share: carry out a plan, draw its tables, show and mirror them."""

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
from harness.reporting.writers import DrawnStudies
from harness.scheduler import orchestrator
from harness.tracking import study_mirror
from harness.tracking.study_mirror import MirroredTable


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """How a plan is carried out.

    Attributes:
      wandb: mode of the W&B mirror.
      train: whether to train the missing runs, rather than only draw the results.
      fail_fast: whether to stop at the first run that fails.
    """

    wandb: Literal["online", "offline", "off"]
    train: bool = True
    fail_fast: bool = False


def run(
    workspace: Workspace,
    plan: Plan,
    name: str,
    console: Console,
    how: RunOptions,
    draw: Callable[[], DrawnStudies],
    plots: Path,
) -> None:
    """Trains the missing runs of a plan, then draws, shows and mirrors the results.

    Args:
      workspace: the folders, settings and devices to use.
      plan: the runs that are wanted.
      name: name of the study, for the mirror.
      console: where to show progress and results.
      how: how to carry out the plan, see :class:`How`.
      draw: draws the results once nothing is left to train.
      plots: folder that `draw` writes figures to.

    Raises:
      SystemExit: with code 1 if a run failed or a record cannot be used; the other runs are done.
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
        for study, (numbers, paths) in drawn.studies.items():
            mirror.drawn(_mirrored(numbers), paths, study)
        where = ", ".join(f"{workspace.store.root / 'tables' / study}*, {plots / study}*" for study in drawn.studies)
        click.echo(f"Written: {len(drawn.files)} files, {where}")
    if failures:
        raise SystemExit(1)


def _mirrored(numbers: Summary) -> MirroredTable:
    """Returns a study's table in the form that the mirror shows."""
    from harness.reporting import layouts, render  # imported here because they load matplotlib, which training must not

    cells = render.cells(layouts.layout_of(numbers.study).table(numbers))
    return MirroredTable(
        title=f"{numbers.study.title} ({numbers.profile})",
        columns=tuple(map(str, cells.columns)),
        rows=tuple(tuple(map(str, row)) for row in cells.itertuples(index=False)),
    )


def _joined(workspace: Workspace, plan: Plan) -> str:
    """Returns the name under which workers join a plan: those of its studies and profile, whatever rows and seeds."""
    return " ".join([*(study.name for study in plan.studies), workspace.profile.name])
