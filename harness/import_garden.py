"""python -m harness.import_garden: takes in, evaluates and records a run that the Model Garden trained alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import click

from harness.cli import options
from harness.config import devices
from harness.system.paths import Folder

_EXAMPLES = """
\b
Examples:
  python -m harness.import_garden models/r3d --data /data/k400
  python -m harness.import_garden models/r3d --data /data/k400 --checkpoint ckpt-42104 --views 1x1 --tpu local
"""


@click.command(epilog=_EXAMPLES + "\n" + options.EXIT_CODES)
@click.argument("model_dir", type=click.Path(path_type=Path))
@click.option("--data", metavar="DIR", help="Folder of the data set to evaluate on, or 'embedded'.")
@click.option("--checkpoint", metavar="ckpt-N", help="Which checkpoint to take.  [default: the last]")
@click.option("--views", metavar="CLIPSxCROPS",
              help="Clips evenly spaced in time, times crops (1: centre, 3: three).  [default: 10x3]")  # fmt: skip
@click.option("--replicas", type=click.IntRange(min=1), metavar="N",
              help="Over how many devices the batch was split.  [default: as its configuration says]")  # fmt: skip
@options.devices
@options.folders
@options.storage
@options.wandb
@options.one_line_errors
def main(
    model_dir: Path,
    data: str | None,
    checkpoint: str | None,
    views: str | None,
    replicas: int | None,
    strategy: str | None,
    tpu: str | None,
    topology: str | None,
    worker_hosts: str | None,
    task_index: int | None,
    results: Path,
    runs: Folder | None,
    storage: str | None,
    wandb_mode: Literal["online", "offline", "off"],
) -> None:
    """Takes MODEL_DIR in as a run: the --model_dir that the Model Garden's own train.py trained into.

    Its last checkpoint is evaluated as the harness evaluates its own runs, and the record says who trained it. It is
    another run than one of the harness's with the same settings, so no study takes it for its own.
    """
    from rich.console import Console

    from ablations.profiles import PROFILES
    from harness.cli import describing
    from harness.config.experiment import Overrides
    from harness.config.sharing import Sharing
    from harness.planning import workspace
    from harness.scheduler import orchestrator
    from harness.store.run_store import Store
    from harness.tracking import study_mirror
    from harness.training import garden_folder

    chosen = devices.devices_from_flags(strategy, tpu, worker_hosts, task_index, os.environ, topology)
    if chosen.workers > 1:
        raise garden_folder.GardenFolderError(f"--strategy {chosen.strategy}: a folder is taken in by one process")
    trained = garden_folder.read_garden_folder(model_dir, checkpoint)
    profile = garden_folder.profile_of(trained, PROFILES.values())
    data_set = workspace.data_set(data, profile, results)
    run = garden_folder.run_of(trained, profile, data_set.facts, replicas, options.views_of(views) if views else None)
    store, console = Store(results, runs), Console()
    if not store.has(run.id):
        shared = Sharing(storage)
        run_workspace = workspace.Workspace(
            profile, data_set, Overrides(), run.replicas, store, chosen, garden=trained, sharing=shared
        )
        with study_mirror.mirror(wandb_mode, f"import-{profile.name}", store, console) as mirror:
            failures = orchestrator.conduct(run_workspace, orchestrator.plan_of_one(run, done=False), console, mirror)
        if failures:
            click.echo(f"FAILED {failures[0]}", err=True)
            raise SystemExit(1)
    elif run.protocol.name not in store.read(run.id).evaluations:
        raise garden_folder.GardenFolderError(
            f"{model_dir}: taken in before; python -m harness.evaluate {run.id} --views "
            f"{run.protocol.clips}x{run.protocol.crops} evaluates it again"
        )
    describing.describe_results(store, run.id, console)


if __name__ == "__main__":
    main()
