"""Carries out one run from settings to record: trains, evaluates, writes the predictions, then the record."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import platform
import subprocess
from importlib import metadata
from pathlib import Path, PurePath
from typing import Any

import pandas as pd

from harness.config import network
from harness.config.devices import Devices
from harness.config.experiment import TRAIN_STEPS, Protocol, Run
from harness.data.manifest import Manifest
from harness.store import checkpoints, records
from harness.store.attempts import Attempt, History
from harness.store.records import Evaluation, RecordError, RunRecord
from harness.store.run_store import AlreadyThereError, Store, attempt_of
from harness.training import loop
from harness.training.loop import AssertOwner, OnEvent, RunContext, ShouldStop
from harness.training.task import Predictions

_RECORDED = "recorded"


def run_context(
    store: Store,
    run: Run,
    attempt: Attempt,
    data: Path,
    devices: Devices = Devices(),
    parent: str | None = None,
    scratch: str = "",
) -> RunContext:
    """Returns where an attempt is carried out, with the checkpoints of earlier attempts that it can resume from.

    Args:
      store: the store.
      run: the run.
      attempt: the attempt.
      data: folder of the prepared data set.
      devices: the devices to use.
      parent: path of the weights that the run starts from.
      scratch: folder for files that a worker other than the chief has to write.
    """
    origins = tuple(str(earlier.checkpoints.absolute()) for earlier in store.attempts(run.id).before(attempt.number))
    return RunContext(str(data.absolute()), str(attempt.checkpoints.absolute()), devices, parent, scratch, origins)


def execute(
    run: Run,
    manifest: Manifest,
    place: RunContext,
    store: Store,
    attempt: Attempt,
    report: OnEvent,
    stop: ShouldStop = loop.never_stop,
    hold: AssertOwner = loop.always_owner,
) -> RunRecord | None:
    """Trains a run, resuming where an earlier attempt stopped, evaluates it and writes its record.

    A run that is not evaluated, such as a stage that others start from, is recorded once it is trained.

    Args:
      run: the run.
      manifest: manifest of the data set.
      place: where the run is carried out.
      store: the store.
      attempt: the attempt; everything except the record is written into its folder.
      report: is called with each event.
      stop: is called again and again; returns a reason to stop, or None to continue.
      hold: as for :func:`harness.training.loop.train`; is also called before predictions and the record are written.

    Returns:
      The record; None for a worker other than the chief, since only the chief writes it.

    Raises:
      SettingsError: the machine or the Garden cannot carry out the run.
      RunError: data or checkpoints are damaged, or the training diverged.
      AlreadyThereError: another attempt recorded the run in the meantime.
      Interrupted: the run was asked to stop; the next attempt resumes from its checkpoint.
      LostError: another worker has taken over the run.
    """
    if store.has(run.id):
        return store.read(run.id)
    if not place.devices.chief:
        if loop.trained(run, place) is None:
            loop.train(run, manifest, place, report, stop, hold)
        if run.evaluated:
            loop.evaluate(run, run.protocol, manifest, place, report, stop, hold)
        return None
    began = _now()
    provenance = {**_provenance(began), **_slice(place), "attempt": attempt.number}
    _forget_if_record_removed(store, run, attempt, hold)
    checkpoints.drop_unfinished(attempt.checkpoints)
    with attempt.logged(report) as logged:
        hold_after_publishing = logged.kept_before(hold)
        weights, device = loop.trained(run, place), None
        if weights is None:
            device = loop.train(run, manifest, place, logged, stop, hold_after_publishing)
            weights = loop.weights(place.checkpoints, run.settings[TRAIN_STEPS])
        evaluation = (
            evaluated(run, run.protocol, manifest, place, store, attempt, report, stop, hold_after_publishing)
            if run.evaluated
            else None
        )
    # After a kill between training and evaluation, only the device that evaluated is known.
    provenance["device"] = device or (evaluation.provenance["device"] if evaluation else "not known")
    provenance["weights"] = store.name_of(run.id, weights)
    record = _record(run, store.attempts(run.id).history(weights), evaluation, provenance, began)
    written(record, store, attempt, hold)
    (store.folder(run.id) / _RECORDED).touch()
    return record


def written(record: RunRecord, store: Store, attempt: Attempt, hold: AssertOwner) -> None:
    """Writes the record of an attempt and removes the files that are no longer needed.

    Raises:
      AlreadyThereError: another attempt recorded the run in the meantime; this attempt's files are removed.
      LostError: another worker has taken over the run.
    """
    hold(True)
    try:
        store.write(record)
    except AlreadyThereError:
        _leave(record.id, store, attempt)
        raise
    store.attempts(record.id).settle(attempt.number, store.weights(record))


def _leave(run_id: str, store: Store, attempt: Attempt) -> None:
    """Removes the files of an attempt that came too late, except weights that the other attempt's record names."""
    with contextlib.suppress(RecordError):
        record = store.read(run_id)
        named = {record.provenance.get("attempt"), *map(attempt_of, record.evaluations.values())}
        # If two attempts wrote the record at the same time, this one's may have been kept.
        if attempt.number not in named:
            attempt.drop(store.weights(record))


def _record(
    run: Run, history: History, evaluation: Evaluation | None, provenance: dict[str, Any], began: datetime.datetime
) -> RunRecord:
    ended = _now()
    last_attempt = {
        "ended": ended.isoformat(timespec="seconds"),
        "seconds": round((ended - began).total_seconds(), 1),
        "attempts": len(history.began),
        "resumed_at": history.resumed_at,
    }
    provenance = provenance | loop.device_versions() | last_attempt
    return records.of_run(run, _cost(run, history.seconds), history.curve, evaluation, provenance)


def evaluate(
    run: Run,
    manifest: Manifest,
    place: RunContext,
    store: Store,
    attempt: Attempt,
    report: OnEvent,
    stop: ShouldStop = loop.never_stop,
    hold: AssertOwner = loop.always_owner,
) -> RunRecord | None:
    """Evaluates a recorded run under its protocol, unless that was done before.

    The arguments and exceptions are those of :func:`execute`.

    Returns:
      The record, with the evaluation; None for a worker other than the chief.
    """
    record = store.read(run.id)
    if run.protocol.name in record.evaluations:
        return record
    place = dataclasses.replace(place, origins=(str(store.weights(record).parent),))
    if not place.devices.chief:
        loop.evaluate(run, run.protocol, manifest, place, report, stop, hold)
        return None
    evaluation = evaluated(run, run.protocol, manifest, place, store, attempt, report, stop, hold)
    hold(True)
    try:
        store.write_evaluation(record, evaluation)
    except AlreadyThereError:
        _leave(record.id, store, attempt)
        raise
    return store.read(run.id)


def evaluated(
    run: Run,
    protocol: Protocol,
    manifest: Manifest,
    place: RunContext,
    store: Store,
    attempt: Attempt,
    report: OnEvent,
    stop: ShouldStop = loop.never_stop,
    hold: AssertOwner = loop.always_owner,
) -> Evaluation:
    """Evaluates a run's weights under a protocol and writes the predictions into the attempt's folder."""
    predictions, weights, seconds, device = loop.evaluate(run, protocol, manifest, place, report, stop, hold)
    hold(True)
    name, sha256 = store.write_predictions(run.id, protocol.name, as_table(predictions), attempt.number)
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
        checkpoint=PurePath(weights).name,
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
    """Returns a table with a row for each video.

    Returns:
      Columns "media_id", "label", "top_class" and "top_probability" (lists, most probable first), "loss".
    """
    return pd.DataFrame(
        {
            "media_id": predictions.media_id,
            "label": predictions.label,
            "top_class": list(predictions.top_class),
            "top_probability": list(predictions.top_probability),
            "loss": predictions.loss,
        }
    )


def _forget_if_record_removed(store: Store, run: Run, attempt: Attempt, hold: AssertOwner) -> None:
    """Removes earlier results of a run whose record a user removed, so that the run is trained anew."""
    marker = store.folder(run.id) / _RECORDED
    if marker.exists():
        hold(True)
        store.attempts(run.id).begin_anew(attempt.number)
        marker.unlink(missing_ok=True)


def _cost(run: Run, seconds: float) -> dict[str, Any]:
    cost = network.count(run.settings)
    return {
        "params": cost.params,
        "multiply_adds": cost.multiply_adds,
        "train_steps": run.settings[TRAIN_STEPS],
        "train_multiply_adds": network.training(run.settings),
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


def _slice(place: RunContext) -> dict[str, str]:
    """Returns the TPU slice, if it is known, so that a run's time can be compared with the preflight for that slice."""
    return {} if place.devices.topology is None else {"topology": place.devices.topology}


def commit() -> dict[str, Any]:
    """Returns the commit of the running code and whether it has changes; both None outside of a repository."""

    def git(*words: str) -> str | None:
        root = Path(__file__).resolve().parent
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True).stdout.strip()
        return None

    changes = git("status", "--porcelain", "--untracked-files=no")
    return {"commit": git("rev-parse", "HEAD"), "dirty": None if changes is None else bool(changes)}
