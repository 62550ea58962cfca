"""python -m harness.export: writes a run as configuration files for the Model Garden's own trainer."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli import options
from harness.cli.options import TrainingOptions

if TYPE_CHECKING:
    from harness.config.experiment import Run
    from harness.data.manifest import Manifest
    from harness.planning.workspace import DataSet, Workspace

_EXAMPLES = """
\b
Examples:
  python -m harness.export row3
  python -m harness.export row10 --profile paper --data /data/k400 --tpu local --output r3d-rs-200
  python -m harness.export 3f9c
"""
# The record of a run says how it was trained; these flags say where and how the Garden will train it.
_OPEN = {"what", "output", "gpus", "results", "runs", "data", "strategy", "tpu", "worker_hosts", "task_index"}


@click.command(epilog=_EXAMPLES + "\n" + options.EXIT_CODES)
@click.argument("what", metavar="RUN|ROW")
@click.option("--output", type=click.Path(path_type=Path), metavar="DIR",
              help="Folder to write into.  [default: export/ID under --results]")  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of a row.")
@click.option("--gpus", type=click.IntRange(min=0), metavar="N",
              help="GPUs of each machine that will train.  [default: as many as share the batch]")  # fmt: skip
@options.training
@options.folders
@options.one_line_errors
def main(what: str, output: Path | None, seed: int, gpus: int | None, **flags: Any) -> None:
    """Writes Garden YAML that the Garden's own trainer trains to the same configuration, and prints the command.

    The trainer is `official/vision/train.py`; of self-supervised pre-training and of the linear evaluation after it,
    `official/projects/video_ssl/train.py`.

    RUN is the id of a recorded run, or the start of it; ROW is a row of the additive study: row1 to row10.
    """
    from harness.training import garden_export

    row = re.fullmatch(r"row(\d{1,4})", what)
    if row:
        workspace = options.workspace(TrainingOptions(**flags), purpose="plan")
        run, changes = _of_row(int(row[1]), workspace, seed)
    else:
        options.refuse_others(_OPEN, f"run {what!r} was trained already; the flag is for a row")
        run, changes, workspace = _recorded(what, flags)
    manifest = _manifest(workspace.data)
    target = garden_export.Target(
        devices=workspace.devices,
        gpus=garden_export.gpus_for(run, workspace.devices, gpus),
        data=workspace.data.folder.absolute() if workspace.data.folder else garden_export.ELSEWHERE,
        manifest=manifest,
        parent=str(workspace.store.weights(workspace.store.read(run.parent[:16]))) if run.parent else None,
    )
    folder = output or workspace.store.root / "export" / run.id
    command = garden_export.write_export(run, target, changes, folder)
    _print_commands(folder, command, run, manifest, workspace)


def _of_row(number: int, workspace: Workspace, seed: int) -> tuple[Run, dict[str, Any]]:
    from ablations.table2 import STUDY
    from harness.config.experiment import applied_as_data

    run = workspace.complete(STUDY.only([number]).rows[0].cell(seed))
    return run, {**applied_as_data(run.cell.toggles), **run.scale}


def _recorded(what: str, flags: dict[str, Any]) -> tuple[Run, dict[str, Any], Workspace]:
    """Returns a recorded run, its toggles and axes, and a workspace with its data set."""
    from harness.config.experiment import Protocol, SettingsError
    from harness.planning import workspace as workspace_
    from harness.store import records
    from harness.store.run_store import Store

    record = Store(flags["results"], flags["runs"]).find(what)
    fixed = {"profile_name": record.profile, "data": flags["data"] or workspace_.generated_name(record.data)}
    workspace = options.workspace(TrainingOptions(**{**flags, **fixed}), purpose="plan")
    given, recorded = workspace.data.facts, record.data
    if workspace.data.folder and given.fingerprint != recorded["fingerprint"]:
        raise SettingsError(
            f"run {record.id} was trained on {recorded['name']} ({recorded['fingerprint'][:8]}), "
            f"the data named are {given.name} ({given.fingerprint[:8]})"
        )
    profile, size = workspace.profile, record.settings["task.validation_data.feature_shape[1]"]
    # A stage that other runs start from was not evaluated.
    first = next(iter(record.evaluations.values()), Protocol(profile.clips, profile.crops, size))
    run = records.run_of(record, Protocol(first.clips, first.crops, first.size), profile.evaluation_batch)
    run = dataclasses.replace(run, evaluated=bool(record.evaluations))
    return run, {**record.toggles, **record.scale}, workspace


def _manifest(data: DataSet) -> Manifest | None:
    """Returns the manifest of the data set, after drawing an embedded one; None if the data set is not at hand."""
    from harness.data import embedded, manifest

    if data.folder is None:
        return None
    if data.spec is None:
        return manifest.load(data.folder)
    if not data.ready:
        click.echo("Drawing the embedded clips ...")
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    return embedded.ensure(data.spec, data.folder.parent)


def _print_commands(
    folder: Path, command: list[str], run: Run, manifest: Manifest | None, workspace: Workspace
) -> None:
    from harness.config import objectives
    from harness.config.devices import MULTI_WORKER
    from harness.training import garden_export

    click.echo(f"Wrote {', '.join(sorted(str(path) for path in folder.glob('*') if path.is_file()))}.")
    if manifest is None:
        click.echo(f"Put the folder of {workspace.data.facts.name} in place of {garden_export.ELSEWHERE} in it.")
    where = "; on every worker, with TF_CONFIG set" if workspace.devices.strategy == MULTI_WORKER else ""
    click.echo(f"To train it with the Model Garden alone{where}:\n  {garden_export.typed(command)}")
    if objectives.objective(run.settings) is not None:
        return  # import_garden takes in only the Garden's video classification
    importing = ["python", "-m", "harness.import_garden", str(folder / "model"), "--results", str(workspace.store.root)]
    if workspace.store.elsewhere is not None:
        importing += ["--runs", str(workspace.store.elsewhere)]
    if manifest is None or workspace.data.spec is None:
        importing += ["--data", str(workspace.data.folder or garden_export.ELSEWHERE)]
    click.echo(f"To take in what it trained:\n  {garden_export.typed(importing)}")


if __name__ == "__main__":
    main()
