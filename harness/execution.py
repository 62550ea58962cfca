"""Carries out one run from settings to record: train, evaluate, write the predictions, then the record."""

from __future__ import annotations

import contextlib
import datetime
import json
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd

from harness import counting, records, runner
from harness.data.manifest import Manifest
from harness.experiment import Protocol, Run
from harness.records import Evaluation, RunRecord
from harness.runner import Place, Report
from harness.store import Store
from harness.task import Predictions

_CURVE = "curve.jsonl"
_RECORDED = "recorded"


def execute(run: Run, manifest: Manifest, place: Place, store: Store, report: Report) -> RunRecord:
    """Trains a run, or goes on where it was interrupted, evaluates its last checkpoint and writes its record.

    Raises:
      SettingsError: the machine or the Garden cannot carry it out.
      RecordError: another process recorded the run in the meantime.
    """
    if store.has(run.id):
        return store.read(run.id)
    folder = store.folder(run.id)
    _forget_if_record_removed(folder)
    folder.mkdir(parents=True, exist_ok=True)
    began = _now()
    provenance = _provenance(began)
    with (folder / _CURVE).open("a") as log:
        log.write("\n")  # a line that a kill cut short must not swallow the first of this attempt
        device = runner.train(run, manifest, place, _logged(report, log.write, log.flush))
    curve, attempts, seconds = whole_curve((folder / _CURVE).read_text().splitlines())
    evaluation = evaluated(run, run.protocol, manifest, place, store, report)
    ended = _now()
    record = records.of_run(
        run,
        _cost(run, seconds),
        curve,
        evaluation,
        provenance
        | runner.device_versions()
        | {
            "device": device,
            "ended": ended.isoformat(timespec="seconds"),
            "seconds": round((ended - began).total_seconds(), 1),
            "resumed_at": [step for step in attempts if step],
        },
    )
    store.write(record)
    (folder / _RECORDED).touch()
    (folder / _CURVE).unlink(missing_ok=True)
    return record


def evaluated(
    run: Run, protocol: Protocol, manifest: Manifest, place: Place, store: Store, report: Report
) -> Evaluation:
    """Evaluates the last checkpoint of a run under a protocol and writes the predictions file."""
    predictions, checkpoint, seconds, device = runner.evaluate(run, protocol, manifest, place, report)
    name, sha256 = store.write_predictions(run.id, protocol.name, as_table(predictions))
    metrics = predictions.metrics()
    return Evaluation(
        protocol=protocol.name,
        clips=protocol.clips,
        crops=protocol.crops,
        size=protocol.size,
        videos=int(metrics["videos"]),
        videos_in_split=run.data.validation_videos,
        top1=metrics["top1"],
        top5=metrics["top5"],
        loss=metrics["loss"],
        checkpoint=checkpoint,
        seconds=round(seconds, 3),
        predictions=name,
        predictions_sha256=sha256,
        provenance={"evaluated": _now().isoformat(timespec="seconds"), "device": device, **commit()},
    )


def as_table(predictions: Predictions) -> pd.DataFrame:
    """A line for each video: "media_id", "label", "top_class" and "top_probability" (lists, best first), "loss"."""
    return pd.DataFrame(
        {
            "media_id": predictions.media_id,
            "label": predictions.label,
            "top_class": list(predictions.top_class),
            "top_probability": list(predictions.top_probability),
            "loss": predictions.loss,
        }
    )


def _forget_if_record_removed(folder: Path) -> None:
    """A run whose record was written and then removed is wanted anew: its checkpoint must not stand in for training."""
    if (folder / _RECORDED).exists():
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        (folder / _CURVE).unlink(missing_ok=True)
        (folder / _RECORDED).unlink()


def _cost(run: Run, seconds: float) -> dict[str, Any]:
    cost = counting.count(run.settings)
    return {
        "params": cost.params,
        "multiply_adds": cost.multiply_adds,
        "train_steps": run.settings["trainer.train_steps"],
        "train_multiply_adds": counting.training(run.settings),
        "train_seconds": round(seconds, 3),
    }


def _logged(report: Report, write: Callable[[str], Any], flush: Callable[[], None]) -> Report:
    """A report that also keeps the curve's points, so that an interrupted run loses none."""

    def reported(event: Mapping[str, Any]) -> None:
        if event["event"] in ("attempt", "train", "validation"):
            write(json.dumps(dict(event)) + "\n")
            flush()
        report(event)

    return reported


def whole_curve(lines: Iterable[str]) -> tuple[tuple[dict[str, Any], ...], list[int], float]:
    """What the log of a run's attempts comes to.

    Args:
      lines: an event a line; the last line of an attempt that was killed may be cut short.

    Returns:
      The points, each step once (the later attempt's); the steps at which attempts began; the seconds of them all.
    """
    points: dict[tuple[int, str], dict[str, Any]] = {}
    attempts: list[int] = []
    seconds: list[float] = []
    for line in lines:
        with contextlib.suppress(json.JSONDecodeError):
            event = json.loads(line)
            if event["event"] == "attempt":
                attempts.append(event["step"])
                seconds.append(0.0)
                continue
            point = {name: value for name, value in event.items() if name not in ("event", "done", "total")}
            points[event["step"], event["split"]] = point
            seconds[-1] = event["seconds"]
    return tuple(points[key] for key in sorted(points)), attempts, sum(seconds)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _provenance(began: datetime.datetime) -> dict[str, Any]:
    return {
        **commit(),
        "harness": metadata.version("r3d-ablations"),
        "tf_models_official": metadata.version("tf-models-official"),
        "python": platform.python_version(),
        "started": began.isoformat(timespec="seconds"),
    }


def commit() -> dict[str, Any]:
    """The commit of the code that runs and whether it was changed since; None where the code is in no repository."""

    def git(*words: str) -> str | None:
        root = Path(__file__).resolve().parent
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True).stdout.strip()
        return None

    changes = git("status", "--porcelain", "--untracked-files=no")
    return {"commit": git("rev-parse", "HEAD"), "dirty": None if changes is None else bool(changes)}
