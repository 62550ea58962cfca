"""python -m harness.evaluate: evaluates a finished run under a further protocol, without training it again."""

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
  python -m harness.evaluate 3f9c --views 1x1
  python -m harness.evaluate 3f9c --views 10x3 --data /data/k400 --tpu local
"""


@click.command(epilog=_EXAMPLES + "\n" + options.EXIT_CODES)
@click.argument("run", metavar="RUN")
@click.option("--views", default="10x3", show_default=True, metavar="CLIPSxCROPS",
              help="Clips evenly spaced in time, times crops (1: centre, 3: along the longer side).")  # fmt: skip
@click.option("--data", metavar="DIR", help="Folder of the data set the run was trained on, or 'embedded'.")
@options.devices
@options.folders
@options.storage
@options.wandb
@options.one_line_errors
def main(
    run: str,
    views: str,
    data: str | None,
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
    """Evaluates the last checkpoint of a finished run under another protocol and adds it to the run's record.

    RUN is a run's id, or the start of it; `results/runs/` has a folder for each.
    """
    from rich.console import Console

    from harness.cli import describing
    from harness.config.experiment import Overrides, Protocol, SettingsError
    from harness.config.sharing import Sharing
    from harness.planning import workspace
    from harness.scheduler import orchestrator
    from harness.store import records
    from harness.store.run_store import Store
    from harness.tracking import study_mirror

    chosen = devices.devices_from_flags(strategy, tpu, worker_hosts, task_index, os.environ, topology)
    clips, crops = options.views_of(views)
    store = Store(results, runs)
    record = store.find(run)
    first = record.first_evaluation
    wanted = Protocol(clips, crops, first.size)
    console = Console()
    if wanted.name not in record.evaluations:
        profile = workspace.profile(record.profile)
        data_set = workspace.data_set(data or workspace.generated_name(record.data), profile, results)
        if data_set.facts.fingerprint != record.data["fingerprint"]:
            raise SettingsError(
                f"run {record.id} was trained on {record.data['name']} ({record.data['fingerprint'][:8]}), "
                f"the data named are {data_set.facts.name} ({data_set.facts.fingerprint[:8]})"
            )
        again = records.run_of(record, wanted, profile.evaluation_batch)
        run_workspace = workspace.Workspace(
            profile, data_set, Overrides(), again.replicas, store, chosen, sharing=Sharing(storage)
        )
        with study_mirror.mirror(wandb_mode, f"evaluate-{record.profile}", store, console) as mirror:
            failures = orchestrator.conduct(run_workspace, orchestrator.plan_of_one(again, done=True), console, mirror)
        if failures:
            click.echo(f"FAILED {failures[0]}", err=True)
            raise SystemExit(1)
    describing.describe_results(store, record.id, console)


if __name__ == "__main__":
    main()
