"""python -m harness.scaling_sweep: searches depth, frames and resolution for most accuracy for the multiply-adds."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import click

from harness.cli import options
from harness.cli.options import TrainingOptions

_EXAMPLES = """
\b
Examples:
  python -m harness.scaling_sweep                                  tpe, ten points, quick profile
  python -m harness.scaling_sweep --plan                           what it would search and what it costs
  python -m harness.scaling_sweep --max-gflops 0.06 --tune sd=0.0:0.3 --trials 20
  python -m harness.scaling_sweep --sampler nsga2
  python -m harness.scaling_sweep --sampler grid --depth 50,101,200 --frames 32,48 --resolution 224
  python -m harness.scaling_sweep --profile paper --data /data/k400 --tpu local --max-hours 20
  optuna-dashboard sqlite:///results/sweeps/tpe-quick.db           needs pip install 'r3d-ablations[dashboard]'
"""
# Points to train if --trials does not say how many.
TRIALS = 10
POPULATION = 5


@click.command(epilog=_EXAMPLES + "\n" + options.EXIT_CODES)
@click.option("--sampler", type=click.Choice(["tpe", "nsga2", "grid"]), default="tpe", show_default=True,
              help="tpe: the highest top-1, runs that fall behind are pruned. nsga2: the front of top-1 and "
                   "multiply-adds. grid: every point.")  # fmt: skip
@click.option("--trials", type=click.IntRange(min=1), metavar="N",
              help=f"Points to train, over all starts of the command; what is recorded, turned away or proposed again "
                   f"comes on top.  [default: {TRIALS}]")  # fmt: skip
@click.option("--depth", metavar="LIST", help="Depths to search.  [default: 50,101,152,200,270,300]")
@click.option("--frames", metavar="LIST", help="Frames of a clip to search.  [default: 32,48]")
@click.option("--resolution", metavar="LIST", help="Training crops to search, pixels.  [default: 224,256]")
@click.option("--tune", "tuned", multiple=True, metavar="KEY=LOW:HIGH",
              help="Search the parameter of a toggle too: sd=0.0:0.3, wd=1e-5:1e-3:log, or some values, "
                   "dstem=v0,v1.")  # fmt: skip
@click.option("--base", metavar="LIST", help="What every point has.  [default: ls,sd,wd,ep,sj,se,dstem]")
@click.option("--max-gflops", type=click.FloatRange(0, min_open=True), callback=options.finite, metavar="G",
              help="Turn points away whose view costs more multiply-adds, 1e9.")  # fmt: skip
@click.option("--max-hours", type=click.FloatRange(0, min_open=True), callback=options.finite, metavar="H",
              help="Turn points away whose run would take longer, by what was measured here.")  # fmt: skip
@click.option("--pruner", type=click.Choice(["median", "none"]),
              help="median: end a run early whose validation is below the median of those before it.  [default: median "
                   "for tpe, none for grid; nsga2 cannot prune]")  # fmt: skip
@click.option("--population", type=click.IntRange(min=2), default=POPULATION, show_default=True, metavar="N",
              help="nsga2: points of a generation.")  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True,
              help="Of every run, and of the sampler.")  # fmt: skip
@click.option("--name", metavar="NAME", help="The sweep's name.  [default: SAMPLER-PROFILE and what is cut]")
@options.training
@options.sharing
@options.folders
@options.toggle_files
@click.option("--plots", type=click.Path(path_type=Path), default=Path("plots"), show_default=True,
              help="Folder of the figure.")  # fmt: skip
@click.option("--plan", "plan_only", is_flag=True, help="Print what would be searched and what it costs, then stop.")
@click.option("--draw", "draw_only", is_flag=True, help="Train nothing: draw what the sweep has found by now.")
@options.wandb
@options.one_line_errors
def main(
    sampler: Literal["grid", "tpe", "nsga2"],
    trials: int | None,
    depth: str | None,
    frames: str | None,
    resolution: str | None,
    tuned: tuple[str, ...],
    base: str | None,
    max_gflops: float | None,
    max_hours: float | None,
    pruner: Literal["median", "none"] | None,
    population: int,
    seed: int,
    name: str | None,
    toggle_files: tuple[Path, ...],
    plots: Path,
    plan_only: bool,
    draw_only: bool,
    wandb_mode: Literal["online", "offline", "off"],
    **flags: Any,
) -> None:
    """Searches depth, frames and resolution, and the parameter of any toggle, with Optuna.

    Recorded runs are told to the sampler and never trained again; a sweep that was stopped or killed goes on with the
    same command. Several workers may run it at once: they share its points. Its trials are kept in
    results/sweeps/NAME.db; with --storage they are there, beside the queue of runs. The front of top-1 and
    multiply-adds, the importance of each axis, and what pruning saved against the grid are printed and written in the
    end.
    """
    from rich.console import Console

    from harness.planning import catalog
    from harness.sweep import sweep_run
    from harness.sweep.search import Strategy
    from harness.sweep.space import Limits

    sweep_run.refuse_flags(sampler, trials)
    known = catalog.toggles(toggle_files)
    space = sweep_run.space_of({"depth": depth, "frames": frames, "resolution": resolution}, tuned, base, known)
    strategy = Strategy(sampler, (pruner or _PRUNERS[sampler]) == "median", population, seed)
    console = Console()
    purpose: options.Purpose = "plan" if plan_only or draw_only else "train"
    workspace = options.workspace(TrainingOptions(**flags), purpose=purpose)
    sweep = sweep_run.sweep_request(workspace, space, Limits(max_gflops, max_hours), strategy, trials or TRIALS, name)
    sweep.describe(console)
    if plan_only:
        return
    failures = [] if draw_only else sweep.carry_out(console, wandb_mode)
    sweep.draw(console, plots, "off" if draw_only else wandb_mode, failures)
    if failures:
        raise SystemExit(1)


_PRUNERS = {"tpe": "median", "nsga2": "none", "grid": "none"}


if __name__ == "__main__":
    main()
