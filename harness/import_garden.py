"""python -m harness.import_garden: a run that the Model Garden trained alone, taken in, evaluated and recorded."""

from __future__ import annotations

import os
import re
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness import devices, options

if TYPE_CHECKING:
    from harness.devices import Devices
    from harness.experiment import Run
    from harness.garden_folder import GardenFolder
    from harness.workspace import DataSet

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
@options.one_line_errors
def main(
    model_dir: Path,
    data: str | None,
    checkpoint: str | None,
    views: str | None,
    replicas: int | None,
    strategy: str | None,
    tpu: str | None,
    worker_hosts: str | None,
    task_index: int | None,
    results: Path,
) -> None:
    """Takes MODEL_DIR in as a run: the --model_dir that the Model Garden's own train.py trained into.

    Its last checkpoint is evaluated as the harness evaluates its own runs, and the record says who trained it. It is
    another run than one of the harness's with the same settings, so no study takes it for its own.
    """
    from rich.console import Console

    from ablations.profiles import PROFILES
    from harness import conducting, garden_folder, workspace
    from harness.store import Store

    chosen = devices.of(strategy, tpu, worker_hosts, task_index, os.environ)
    if chosen.workers > 1:
        raise garden_folder.GardenFolderError(f"--strategy {chosen.strategy}: a folder is taken in by one process")
    found = garden_folder.read(model_dir, checkpoint)
    profile = garden_folder.profile_of(found, PROFILES.values())
    data_set = workspace.data_set(data, profile, results)
    run = garden_folder.run_of(found, profile, data_set.facts, replicas, _views(views) if views else None)
    store, console = Store(results), Console()
    if not store.has(run.id):
        with store.locked(), ProcessPoolExecutor(1, get_context("spawn")) as process:
            process.submit(carry_out, run, found, data_set, results, chosen).result()
    elif run.protocol.name not in store.read(run.id).evaluations:
        raise garden_folder.GardenFolderError(
            f"{model_dir}: taken in before; python -m harness.evaluate {run.id} --views "
            f"{run.protocol.clips}x{run.protocol.crops} evaluates it again"
        )
    conducting.describe_results(store, run.id, console)


def _views(text: str) -> tuple[int, int]:
    from harness.experiment import SettingsError

    match = re.fullmatch(r"(\d{1,3})x([13])", text)
    if not match or int(match[1]) < 1:
        raise SettingsError(f"--views {text!r}: expected CLIPSxCROPS with 1 or 3 crops, such as 10x3 or 1x1")
    return int(match[1]), int(match[2])


def carry_out(run: Run, found: GardenFolder, data_set: DataSet, results: Path, chosen: Devices) -> None:
    """Evaluates and records, in a process of its own: TensorFlow is loaded there alone."""
    from harness import worker
    from harness.store import Store

    # Read when TensorFlow is imported, which happens below.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    store, folder = Store(results), data_set.folder
    log = store.log(run.id)
    log.parent.mkdir(parents=True, exist_ok=True)
    worker._redirect_output(log)
    from harness import importing
    from harness.data import embedded, manifest
    from harness.runner import Place

    if folder is None:
        raise ValueError("a data set that was only planned with cannot be evaluated on")
    described = embedded.ensure(data_set.spec, folder.parent) if data_set.spec else manifest.load(folder)
    place = Place(str(folder.absolute()), str(store.checkpoints(run.id).absolute()), chosen)
    importing.take_in(run, found, described, place, store, lambda event: None)


if __name__ == "__main__":
    main()
