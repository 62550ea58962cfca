"""Imports a run that the Model Garden trained alone: converts its checkpoint to weights, evaluates and records it."""

from __future__ import annotations

import dataclasses
import platform
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from official.vision.tasks import video_classification

from harness.config import network
from harness.config.experiment import TRAIN_STEPS, Run, garden_version
from harness.data.manifest import Manifest
from harness.store import records
from harness.store.attempts import Attempt
from harness.store.records import Evaluation, RunRecord
from harness.store.run_store import Store
from harness.training import executor, garden_config, loop
from harness.training.garden_folder import TRAINER, GardenFolder, GardenFolderError, identity_of
from harness.training.loop import AssertOwner, OnEvent, RunContext, ShouldStop

_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
_STEP = f"global_step{_VALUE}"
# Names of metrics in the Garden's curve -> their names in a record's curve.
_POINT = {
    "training_loss": "loss",
    "top_1_accuracy": "top1",
    "top_5_accuracy": "top5",
    "learning_rate": "learning_rate",
}


def take_in(
    run: Run,
    source: GardenFolder,
    manifest: Manifest,
    place: RunContext,
    store: Store,
    attempt: Attempt,
    report: OnEvent,
    stop: ShouldStop = loop.never_stop,
    hold: AssertOwner = loop.always_owner,
) -> RunRecord:
    """Evaluates a run that the Garden trained alone and writes its record.

    Args:
      run: the run, from :func:`harness.training.garden_folder.run_of`.
      source: the folder that it was read from.
      manifest: manifest of the data set to evaluate on.
      place: where the run is evaluated; the weights are written into its folder of checkpoints.
      store: the store.
      attempt: the attempt.
      report: is called with each event of the evaluation.
      stop: is called after each batch; returns a reason to stop, or None to continue.
      hold: as for :func:`harness.training.executor.execute`.

    Raises:
      SettingsError: the installed Garden or this machine cannot evaluate the run.
      GardenFolderError: the checkpoint is damaged, or holds another network than the configuration's.
      Interrupted: the evaluation was asked to stop.
      AlreadyThereError: another attempt recorded the run in the meantime.
      LostError: another worker has taken over the run.
    """
    if store.has(run.id):
        return store.read(run.id)
    _refuse_misfit(run, source, place)
    try:
        weights = loop.shrink(run, str(source.checkpoint.absolute()), place)
    except AssertionError as error:
        reason = " ".join(str(error).split())[:200]
        raise GardenFolderError(
            f"{source.checkpoint}: of another optimizer than params.yaml says ({reason})"
        ) from error
    evaluation = executor.evaluated(run, run.protocol, manifest, place, store, attempt, report, stop, hold)
    about_attempt = {"attempt": attempt.number, "weights": store.name_of(run.id, weights)}
    provenance = _provenance(source, evaluation) | about_attempt
    record = records.of_run(run, _cost(run), curve(source.folder), evaluation, provenance)
    content = {key: value for key, value in identity_of(run, source).items() if key != "settings"}
    record = dataclasses.replace(record, identity_content=content)
    executor.written(record, store, attempt, hold)
    return record


def _cost(run: Run) -> dict[str, Any]:
    cost = network.count(run.settings)
    # Zero, since the run was not trained here: it must say nothing about the speed of this machine.
    return {**cost._asdict(), "train_steps": run.settings[TRAIN_STEPS], "train_seconds": 0.0}


def _provenance(source: GardenFolder, evaluation: Evaluation) -> dict[str, Any]:
    return {
        "trained_by": TRAINER,
        "trained_in": source.folder.name,
        "checkpoint": source.checkpoint.name,
        "checkpoint_sha256": source.checkpoint_sha256,
        "config_sha256": source.config_sha256,
        "steps_in_config": source.config["trainer"]["train_steps"],
        "seed_in_config": source.config["task"]["train_data"]["seed"],
        "harness": metadata.version("r3d-ablations"),
        "tf_models_official": garden_version(),
        "python": platform.python_version(),
        **loop.device_versions(),
        **{name: evaluation.provenance[name] for name in ("evaluated", "commit", "dirty")},
        "resumed_at": [],
    }


def _refuse_misfit(run: Run, source: GardenFolder, place: RunContext) -> None:
    """Compares the checkpoint with the configuration's network, variable by variable.

    Raises:
      GardenFolderError: the variables or the step differ, or a value is not finite.
    """
    config = garden_config.build(run.settings, {**run.bookkeeping, **place.bookkeeping()})
    model = video_classification.VideoClassificationTask(config.task).build_model()
    values = _values(source.checkpoint)
    held = {
        name: value.shape
        for name, value in values.items()
        if name.startswith(("model/", "backbone/")) and ".OPTIMIZER_SLOT" not in name
    }
    expected = _variables(model)
    differences = [
        f"{name.removesuffix(_VALUE)} is {_shape(held.get(name))}, the network's {_shape(expected.get(name))}"
        for name in sorted({*held, *expected})
        if held.get(name) != expected.get(name)
    ]
    if differences:
        more = f" ({len(differences)} variables differ)" if len(differences) > 1 else ""
        raise GardenFolderError(
            f"{source.checkpoint}: of another network than params.yaml says: {differences[0]}{more}"
        )
    step = int(values.get(_STEP, source.step))
    if step != source.step:
        raise GardenFolderError(f"{source.checkpoint}: holds step {step}, its name says {source.step}")
    broken = [name for name in held if not np.all(np.isfinite(values[name]))]
    if broken:
        raise GardenFolderError(
            f"{source.checkpoint}: {broken[0].removesuffix(_VALUE)} is not finite: training diverged"
        )


def _values(checkpoint: Path) -> dict[str, Any]:
    """Returns name -> value of everything in a checkpoint, after checking every byte against its checksums."""
    try:
        reader = tf.train.load_checkpoint(str(checkpoint))
        return {name: np.asarray(reader.get_tensor(name)) for name in reader.get_variable_to_shape_map()}
    except (tf.errors.OpError, ValueError, RuntimeError, IndexError) as error:
        reason = " ".join(str(error).split())[:200]
        raise GardenFolderError(f"{checkpoint}: damaged, or no checkpoint of TensorFlow's ({reason})") from None


def _variables(model: Any) -> dict[str, tuple[int, ...]]:
    """Returns name -> shape of a model's variables in a checkpoint; writes one, since only then the names are known."""
    with tempfile.TemporaryDirectory() as folder:
        path = tf.train.Checkpoint(model=model, **model.checkpoint_items).write(f"{folder}/fresh")
        return {name: tuple(shape) for name, shape in tf.train.list_variables(path) if name.endswith(_VALUE)}


def _shape(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else " x ".join(map(str, shape)) or "a scalar"


def curve(folder: Path) -> tuple[dict[str, Any], ...]:
    """Reads the points of the training curve from TensorBoard's files; seconds count from the first point."""
    points: dict[int, dict[str, Any]] = {}
    for path in sorted((folder / "train").glob("events.out.tfevents.*")):
        for content in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(content.numpy())
            for value in event.summary.value:
                if value.tag in _POINT:
                    point = points.setdefault(event.step, {"split": "train", "step": event.step})
                    point[_POINT[value.tag]] = float(tf.make_ndarray(value.tensor))
                    point["seconds"] = event.wall_time
    began = min((point["seconds"] for point in points.values()), default=0.0)
    return tuple({**points[step], "seconds": round(points[step]["seconds"] - began, 3)} for step in sorted(points))
