"""python -m harness.study: trains any study, or several as one plan, and draws each beside the paper's numbers."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Literal

import click

from harness.cli import options
from harness.cli.options import TrainingOptions

_EXAMPLES = """
\b
Examples:
  python -m harness.study --list                            which studies there are
  python -m harness.study table3                            Table 3, quick profile
  python -m harness.study table3 table4 figure1 figure2 --plan
  python -m harness.study figure2 --seeds 3
  python -m harness.study table5 --seeds 3                  pre-trained and fine-tuned, against from scratch
  python -m harness.study mine/stems.py                     a study of your own, a file like ablations/table3.py
  python -m harness.study table3 table4 --profile paper --data /data/k400 --data /data/k600 --tpu local
  python -m harness.study table5 --profile paper --data /data/k400 --data /data/k600 --pretrain-data /data/web
"""


@click.command(epilog=_EXAMPLES + "\n" + options.EXIT_CODES)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--list", "list_only", is_flag=True, help="Name the studies there are, then stop.")
@options.training_on_several
@options.sharing
@options.folders
@options.plots
@options.repeats
@click.option("--plan", "plan_only", is_flag=True, help="Print what would run and what it costs, then stop.")
@options.wandb
@click.option("--fail-fast", is_flag=True, help="Stop at the first row that fails.")
@options.one_line_errors
def main(
    names: tuple[str, ...],
    list_only: bool,
    plots: Path,
    plan_only: bool,
    fail_fast: bool,
    wandb_mode: Literal["online", "offline", "off"],
    seeds: int,
    margin: float,
    **flags: Any,
) -> None:
    """Trains, evaluates and records the rows of studies, and draws each beside the paper's.

    NAME is a study of ablations/, such as table3, or the path of a file of yours. Several are one plan: a run that two
    of them share is trained once. Rows whose record exists are not trained again; an interrupted one goes on from its
    last checkpoint. What a row is pre-trained with is a run of its own, and shared likewise.
    """
    from rich.console import Console

    from harness.cli import describing
    from harness.planning import catalog, checks

    if list_only:
        for name, study in catalog.studies().items():
            click.echo(f"{name:10}{study.title} ({len(study.rows)} rows, {' and '.join(study.datasets)})")
        return
    if not names:
        raise click.UsageError("name a study, such as table3; --list names them all")
    studies = catalog.studies_named(names)
    if any(catalog.studies().get(study.name) != study for study in studies):
        from harness.reporting import layouts

        for study in studies:
            layouts.check(study)
    options.refuse_idle_pre_training(studies, flags["pretrain_data"])
    console = Console()
    workspace = options.workspace(TrainingOptions(**flags), purpose="plan" if plan_only else "train")
    plan = workspace.plan(studies, range(seeds))
    plan.refuse_mixed_protocols()
    checks.refuse_misfits(plan, workspace.store)
    describing.describe(workspace, plan, console)
    if plan_only:
        return
    from harness.analysis import evidence
    from harness.cli import running
    from harness.reporting import writers

    name = "-".join(evidence.stem(workspace, study, seeds) for study in studies)
    draw = functools.partial(writers.draw_each, workspace, plan, seeds, plots, margin)
    running.run(workspace, plan, name, console, running.RunOptions(wandb_mode, fail_fast=fail_fast), draw, plots)


if __name__ == "__main__":
    main()
