"""Carries out one run from settings to record: train, evaluate, write the predictions, then the record."""

from __future__ import annotations

import contextlib
import datetime
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd

from harness import counting, records, runner
from harness.attempts import Attempts, History
from harness.data.manifest import Manifest
from harness.experiment import Protocol, Run
from harness.records import Evaluation, RunRecord
from harness.runner import Place, Report, Stop
from harness.store import Store
from harness.task import Predictions

_RECORDED = "recorded"


def execute(
    run: Run, manifest: Manifest, place: Place, store: Store, report: Report, stop: Stop = lambda: None
) -> RunRecord | None:
    """Trains a run, or goes on where it was interrupted, evaluates what it left and writes its record.

    Returns:
      The record; None for a worker that is not the chief, which leaves that to the chief.

    Raises:
      SettingsError: the machine or the Garden cannot carry it out.
      RunError: damaged data or checkpoints, or a training that diverged.
      RecordError: another process recorded the run in the meantime.
      Interrupted: it was asked to stop; it goes on from its checkpoint.
    """
    if store.has(run.id):
        return store.read(run.id)
    if not place.devices.chief:
        if not runner.has_weights(run, place):
            runner.train(run, manifest, place, report, stop)
        runner.evaluate(run, run.protocol, manifest, place, report, stop)
        return None
    attempts, began = store.attempts(run.id), _now()
    provenance = _provenance(began) | _slice(place)
    with attempts.logged(report) as logged:
        if store.has(run.id):  # by a process that was at it until now
            attempts.forget()
            return store.read(run.id)
        _forget_if_record_removed(store.folder(run.id), attempts)
        store.drop_unfinished_checkpoints(run.id)
        device = runner.train(run, manifest, place, logged, stop) if not runner.has_weights(run, place) else None
        evaluation = evaluated(run, run.protocol, manifest, place, store, report, stop)
        # Where a kill came after the last step, the machine that evaluated is the only one known.
        provenance["device"] = device or evaluation.provenance["device"]
        record = _record(run, attempts.history(), evaluation, provenance, began)
        # Before the record: a run that has one is never looked at again.
        store.drop_training_checkpoints(run.id)
        store.write(record)
        (store.folder(run.id) / _RECORDED).touch()
        attempts.forget()
    return record


def _record(
    run: Run, history: History, evaluation: Evaluation, provenance: dict[str, Any], began: datetime.datetime
) -> RunRecord:
    ended = _now()
    about = {
        "ended": ended.isoformat(timespec="seconds"),
        "seconds": round((ended - began).total_seconds(), 1),
        "attempts": len(history.began),
        "resumed_at": history.resumed_at,
    }
    provenance = provenance | runner.device_versions() | about
    return records.of_run(run, _cost(run, history.seconds), history.curve, evaluation, provenance)


def evaluated(
    run: Run,
    protocol: Protocol,
    manifest: Manifest,
    place: Place,
    store: Store,
    report: Report,
    stop: Stop = lambda: None,
) -> Evaluation:
    """Evaluates what a run's training left under a protocol and writes the predictions file."""
    predictions, checkpoint, seconds, device = runner.evaluate(run, protocol, manifest, place, report, stop)
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
        provenance={
            "evaluated": _now().isoformat(timespec="seconds"),
            "device": device,
            **_slice(place),
            **commit(),
        },
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


def _forget_if_record_removed(folder: Path, attempts: Attempts) -> None:
    """A run whose record was written and then removed is wanted anew: what it left must not stand in for training."""
    if (folder / _RECORDED).exists():
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        attempts.begin_anew()
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


def _slice(place: Place) -> dict[str, str]:
    """Which slice of a TPU it is, where that is known: what it took is compared with preflights for that slice."""
    return {} if place.devices.topology is None else {"topology": place.devices.topology}


def commit() -> dict[str, Any]:
    """The commit of the code that runs and whether it was changed since; None where the code is in no repository."""

    def git(*words: str) -> str | None:
        root = Path(__file__).resolve().parent
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True).stdout.strip()
        return None

    changes = git("status", "--porcelain", "--untracked-files=no")
    return {"commit": git("rev-parse", "HEAD"), "dirty": None if changes is None else bool(changes)}
