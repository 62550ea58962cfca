"""python -m harness.additive_study: trains the rows of the paper's Table 2 and draws the table beside the paper's."""

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
  python -m harness.additive_study                       all ten rows, quick profile
  python -m harness.additive_study --plan                what would run and what it costs
  python -m harness.additive_study --rows 1-4 --seeds 3  four rows, three seeds each
  python -m harness.additive_study --toggles my_toggles.py --add dropout
  python -m harness.additive_study --seeds 3 --design additive --design reverse --design leave-one-out
  python -m harness.additive_study --seeds 3 --design shapley --factors ls,sd,ep --base depth=101
  python -m harness.additive_study --profile paper --data /data/k400 --tpu local
"""
# The parameters that --draw takes into account.
_DRAWN = {
    "plots", "toggle_files", "rows", "seeds", "added", "draw_only", "results", "runs", "profile_name", "data",
    "replicas", "batch", "steps", "validation_videos", "design_names", "factors", "base", "orderings", "margin",
}  # fmt: skip


@click.command(epilog=_EXAMPLES + "\n" + options.EXIT_CODES)
@options.training
@options.sharing
@options.folders
@options.toggle_files
@options.designs
@options.plots
@click.option("--rows", metavar="LIST", help="Only these rows, such as 1,3,5-8.")
@click.option("--add", "added", multiple=True, metavar="KEY[=VALUE]", help="A further row with this toggle added.")
@click.option("--plan", "plan_only", is_flag=True, help="Print what would run and what it costs, then stop.")
@click.option(
    "--draw", "draw_only", is_flag=True, help="Train nothing: draw table and figure from the records there are."
)
@options.wandb
@click.option("--fail-fast", is_flag=True, help="Stop at the first row that fails.")
@options.one_line_errors
def main(
    plots: Path,
    toggle_files: tuple[Path, ...],
    rows: str | None,
    added: tuple[str, ...],
    plan_only: bool,
    draw_only: bool,
    fail_fast: bool,
    wandb_mode: Literal["online", "offline", "off"],
    seeds: int,
    design_names: tuple[str, ...],
    factors: str | None,
    base: str | None,
    orderings: int | None,
    margin: float,
    **flags: Any,
) -> None:
    """Trains, evaluates and records the rows of the additive study, and draws its table beside the paper's.

    Rows whose record exists are not trained again; an interrupted one goes on from its last checkpoint. With --design
    the same toggles are asked in other ways, and what each is credited with is drawn design by design.
    """
    from rich.console import Console

    from ablations.table2 import STUDY
    from harness.analysis import evidence
    from harness.cli import describing, running
    from harness.config import designs as designs_
    from harness.config.studies import parse_rows
    from harness.config.toggles import parse
    from harness.planning import catalog
    from harness.reporting import writers

    if draw_only:
        options.refuse_others(_DRAWN, "--draw trains nothing")
    known = catalog.toggles(toggle_files)
    study = STUDY.plus([parse(text, known) for text in added])
    question = options.question(study, design_names, factors, base, orderings, seeds, known)
    designs = options.designs_of(design_names, question, rows, factors, base)
    studies = [design.study for design in designs] or [study]
    console = Console()
    purpose: options.Purpose = "draw" if draw_only else "plan" if plan_only else "train"
    workspace = options.workspace(TrainingOptions(**flags), purpose=purpose)
    whole = workspace.plan(studies, range(seeds))
    whole.refuse_mixed_protocols()
    designs_.refuse_idle(designs, whole.wanted)
    chosen = whole.only(parse_rows(rows)) if rows else whole
    if not draw_only:
        describing.describe(workspace, chosen, console)
    if plan_only:
        return
    name = evidence.stem(workspace, study, seeds, evidence.design_names(question, designs))
    how = running.RunOptions(wandb_mode, train=not draw_only, fail_fast=fail_fast)
    # The table always covers the whole study, not only the rows chosen.
    draw = functools.partial(writers.draw, workspace, whole, designs, question, name, plots, margin)
    running.run(workspace, chosen, name, console, how, draw, plots)


if __name__ == "__main__":
    main()
