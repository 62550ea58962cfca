"""python -m harness.benchmark: measures the input pipeline, the report, and the cost of deterministic operations."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import statistics
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli import options
from harness.cli.options import TrainingOptions

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from harness.config.experiment import Run
    from harness.data.manifest import Manifest
    from harness.planning.workspace import Workspace

_EXAMPLES = """
\b
Examples:
  python -m harness.benchmark input                              the reader, on a generated shard
  python -m harness.benchmark input --json
  python -m harness.benchmark report --runs 10000                the report of so many runs, which are made up
  python -m harness.benchmark determinism                        the baseline of the quick profile
  python -m harness.benchmark determinism ls ra --depth 200 --steps 200
  python -m harness.benchmark determinism --profile paper --data /data/k400 --batch 8 --strategy mirrored
"""


@click.group(epilog=_EXAMPLES)
def main() -> None:
    """Measures the speed of the input pipeline and of the report, and what a choice costs in speed."""


@main.command("input", epilog=_EXAMPLES + "\nExit codes: 0 measured; 2 wrong usage; 130, 143 stopped.")
@click.option("--rounds", type=click.IntRange(min=1), default=7, show_default=True, metavar="N",
              help="Passes of each kind, in turns.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True,
              help="A list of objects with case, ours, garden, decode_only, vs_garden, vs_decode_only.")  # fmt: skip
@options.results
@options.one_line_errors
def reading(rounds: int, as_json: bool, results: Path) -> None:
    """Reads a generated shard by our reader, by the Garden's, and by decoding alone, in turns.

    Prints clips (in evaluation, videos) a second, and ours as ratios to the others. Decoding alone reads the videos and
    decodes whole each frame that each clip shows. It takes about a minute. Our rates are kept in
    DIR/benchmarks/input.json, where the preflight compares them with what a TPU's hosts must read.
    """
    import json

    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    # Keeps the messages with which TensorFlow starts out of the output.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from harness.data import benchmark, input_speed

    with tempfile.TemporaryDirectory() as folder:
        lines = list(benchmark.measure(benchmark.write_shard(Path(folder) / "shard.tfrecord"), rounds))
    click.echo(json.dumps(lines, indent=1) if as_json else reading_table(lines))
    input_speed.write_input_speed(results, lines)


def reading_table(lines: list[dict[str, Any]]) -> str:
    """Returns the results of :func:`harness.data.benchmark.measure` as a Markdown table."""
    head = ["case", "ours", "the Garden's", "decoding alone", "against the Garden", "against decoding alone"]
    rows = [
        [
            line["case"],
            *(f"{line[name]:.3g}" for name in ("ours", "garden", "decode_only")),
            *(f"{line[name]:.2f}" for name in ("vs_garden", "vs_decode_only")),
        ]
        for line in lines
    ]
    texts = [head, ["---", *["---:"] * 5], *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in texts)


@main.command("report", epilog=_EXAMPLES + "\nExit codes: 0 measured; 2 wrong usage; 130, 143 stopped.")
@click.option("--runs", type=click.IntRange(min=1), default=10_000, show_default=True, metavar="N",
              help="How many runs, shared out among all studies.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True,
              help="An object with runs, reading, tables, figures, whole, plan (seconds) and tensorflow.")  # fmt: skip
@options.one_line_errors
def reporting(runs: int, as_json: bool) -> None:
    """Makes up the records of so many runs in a temporary folder and measures how long their report takes.

    The report, and the plan of all studies, are commands of their own, measured from start to end. The report's parts
    are measured after it in one process, where the command has one on each core. Nothing of it is kept.
    """
    import json

    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    from harness.cli import report_speed

    with tempfile.TemporaryDirectory() as folder:
        measured = report_speed.measure(Path(folder) / "results", runs)
    click.echo(json.dumps(measured, indent=1) if as_json else report_text(measured))


def report_text(found: Mapping[str, Any]) -> str:
    """Returns the results of :func:`harness.cli.report_speed.measure` in words."""
    named = {
        "report, from start to end": "whole",
        "  reading records and predictions": "reading",
        "  statistics and tables, in one process": "tables",
        "  figures, in one process": "figures",
        "plan of all studies, from start to end": "plan",
    }
    lines = [f"{name:42}{found[key]:8.1f} s" for name, key in named.items()]
    loaded = "was loaded" if found["tensorflow"] else "was not loaded"
    return "\n".join([f"{found['runs']:,} runs", *lines, f"TensorFlow {loaded}."])


@main.command(epilog=_EXAMPLES + "\nExit codes: 0 measured; 2 wrong usage or unusable input; 130, 143 stopped.")
@options.cell
@options.training
@options.folders
@options.toggle_files
@click.option("--repeats", type=click.IntRange(min=1), default=3, show_default=True, metavar="N",
              help="Trainings of each kind, in turns.")  # fmt: skip
@options.one_line_errors
def determinism(
    changes: tuple[str, ...],
    toggle_files: tuple[Path, ...],
    depth: str | None,
    frames: str | None,
    resolution: str | None,
    seed: int,
    repeats: int,
    **flags: Any,
) -> None:
    """Trains a few steps with and without TensorFlow's deterministic operations and compares the time of a step.

    The harness always trains with them: one seed is one result. Nothing is recorded.
    """
    from harness.config.experiment import SettingsError
    from harness.config.studies import Cell
    from harness.planning import catalog

    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that nothing is left behind
    known = catalog.toggles(toggle_files)
    applied = options.applied(changes, {"depth": depth, "frames": frames, "resolution": resolution}, known)
    workspace = options.workspace(TrainingOptions(**{**flags, "steps": flags["steps"] or 120}))
    run = workspace.complete(Cell(applied, seed))
    if run.settings["trainer.train_steps"] < 2 * run.bookkeeping["trainer.steps_per_loop"]:
        raise SettingsError(f"--steps {run.settings['trainer.train_steps']}: expected two inner loops at least")
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for turn in range(repeats):
        for deterministic in (True, False) if turn % 2 else (False, True):
            seconds[deterministic].append(_measured(workspace, run, deterministic))
            kind = "deterministic" if deterministic else "not deterministic"
            click.echo(f"{kind:18}{1000 * seconds[deterministic][-1]:8.1f} ms a step")
    ratio = statistics.median(seconds[True]) / statistics.median(seconds[False])
    click.echo(f"Deterministic operations take {ratio:.2f} times as long, by the medians of {repeats}.")


def _measured(workspace: Workspace, run: Run, deterministic: bool) -> float:
    """Measures the seconds of one step, in a process of its own, since TensorFlow cannot take determinism back."""
    from multiprocessing import get_context

    from harness.store.attempts import RunError

    context = get_context("spawn")
    ours, other = context.Pipe()
    with tempfile.TemporaryDirectory() as folder:
        process = context.Process(target=_answer, args=(other, workspace, run, deterministic, folder), daemon=True)
        process.start()
        other.close()
        try:
            answer = ours.recv()
        except EOFError:
            raise RunError("the process that was measured ended without an answer") from None
        finally:
            process.kill()
            process.join()
    if isinstance(answer, str):
        raise RunError(answer)
    return float(answer)


def _answer(pipe: Connection, workspace: Workspace, run: Run, deterministic: bool, folder: str) -> None:
    """Sends the seconds of a step, or what went wrong; ends when the parent process ends."""

    def watch() -> None:
        with contextlib.suppress(EOFError, OSError):
            pipe.recv()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    try:
        pipe.send(seconds_a_step(workspace, run, deterministic, folder))
    except Exception as error:
        pipe.send(" ".join(str(error).split())[:300])


def seconds_a_step(workspace: Workspace, run: Run, deterministic: bool, folder: str) -> float:
    """Trains a run, keeps nothing of it, and returns the seconds of a step after the first inner loop.

    Args:
      workspace: gives the data set and devices.
      run: the run.
      deterministic: whether with TensorFlow's deterministic operations.
      folder: an empty folder for the files of the training.
    """
    from unittest import mock

    from harness.training import worker

    # Keeps what TensorFlow and Orbit print out of the output.
    worker.redirect_output(Path(folder) / "log.txt")
    import tensorflow as tf

    from harness.training import loop

    points: list[tuple[int, float]] = []

    def report(event: Mapping[str, Any]) -> None:
        if event["event"] == "train":
            points.append((event["step"], event["seconds"]))

    not_enabled = mock.patch.object(tf.config.experimental, "enable_op_determinism", lambda: None)
    with contextlib.nullcontext() if deterministic else not_enabled:
        described, data = _described(workspace)
        loop.train(_without_pauses(run), described, loop.RunContext(data, folder, workspace.devices), report)
    (first, began), (last, ended) = points[0], points[-1]
    return (ended - began) / (last - first)


def _described(workspace: Workspace) -> tuple[Manifest, str]:
    """Returns the data set's manifest and folder; draws the embedded data set if it is not there."""
    from harness.config.experiment import SettingsError
    from harness.data import embedded, manifest

    data = workspace.data
    if data.folder is None:
        raise SettingsError(f"{data.facts.name} was only planned with: training needs --data DIR")
    described = embedded.ensure(data.spec, data.folder.parent) if data.spec else manifest.load(data.folder)
    return described, str(data.folder.absolute())


def _without_pauses(run: Run) -> Run:
    """Returns the run, changed to validate and save a checkpoint only at the end."""
    steps = run.settings["trainer.train_steps"]
    seldom = {f"trainer.{name}_interval": steps for name in ("validation", "checkpoint")}
    return dataclasses.replace(run, bookkeeping={**run.bookkeeping, **seldom})


if __name__ == "__main__":
    main()
