"""Takes in a run that the Model Garden trained alone: its checkpoint becomes weights, they are evaluated, recorded."""

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
from harness.training.loop import Hold, Place, Report, Stop

_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
_STEP = f"global_step{_VALUE}"
# The Garden's names of the training's points -> ours.
_POINT = {
    "training_loss": "loss",
    "top_1_accuracy": "top1",
    "top_5_accuracy": "top5",
    "learning_rate": "learning_rate",
}


def take_in(
    run: Run,
    found: GardenFolder,
    manifest: Manifest,
    place: Place,
    store: Store,
    attempt: Attempt,
    report: Report,
    stop: Stop = loop.never,
    hold: Hold = loop.held,
) -> RunRecord:
    """Evaluates a run that the Garden trained alone and writes its record.

    Args:
      run: the run, from :func:`harness.training.garden_folder.run_of`.
      found: the folder that it was read from.
      manifest: of the data set to evaluate on.
      place: where; the weights are written into its folder of checkpoints.
      store: the records.
      attempt: which attempt at the run it is.
      report: gets the events of the evaluation.
      stop: asked after each batch; a text, the reason, to stop.
      hold: as of :func:`harness.training.executor.execute`.

    Raises:
      SettingsError: the installed Garden or this machine cannot evaluate it.
      GardenFolderError: a damaged checkpoint, or one of another network than the configuration's.
      Interrupted: it was asked to stop.
      AlreadyThereError: another attempt recorded the run in the meantime.
      LostError: the run is another worker's meanwhile.
    """
    if store.has(run.id):
        return store.read(run.id)
    _refuse_misfit(run, found, place)
    try:
        weights = loop.shrink(run, str(found.checkpoint.absolute()), place)
    except AssertionError as error:
        reason = " ".join(str(error).split())[:200]
        raise GardenFolderError(f"{found.checkpoint}: of another optimizer than params.yaml says ({reason})") from error
    evaluation = executor.evaluated(run, run.protocol, manifest, place, store, attempt, report, stop, hold)
    made = {"attempt": attempt.number, "weights": store.name_of(run.id, weights)}
    provenance = _provenance(found, evaluation) | made
    record = records.of_run(run, _cost(run), curve(found.folder), evaluation, provenance)
    content = {key: value for key, value in identity_of(run, found).items() if key != "settings"}
    record = dataclasses.replace(record, identity_content=content)
    executor.written(record, store, attempt, hold)
    return record


def _cost(run: Run) -> dict[str, Any]:
    cost = network.count(run.settings)
    # No time was spent here, so nothing can be learnt from it about the speed of this machine.
    return {**cost._asdict(), "train_steps": run.settings[TRAIN_STEPS], "train_seconds": 0.0}


def _provenance(found: GardenFolder, evaluation: Evaluation) -> dict[str, Any]:
    return {
        "trained_by": TRAINER,
        "trained_in": found.folder.name,
        "checkpoint": found.checkpoint.name,
        "checkpoint_sha256": found.checkpoint_sha256,
        "config_sha256": found.config_sha256,
        "steps_in_config": found.config["trainer"]["train_steps"],
        "seed_in_config": found.config["task"]["train_data"]["seed"],
        "harness": metadata.version("r3d-ablations"),
        "tf_models_official": garden_version(),
        "python": platform.python_version(),
        **loop.device_versions(),
        **{name: evaluation.provenance[name] for name in ("evaluated", "commit", "dirty")},
        "resumed_at": [],
    }


def _refuse_misfit(run: Run, found: GardenFolder, place: Place) -> None:
    """Holds the checkpoint against the network of the configuration, variable by variable."""
    config = garden_config.build(run.settings, {**run.bookkeeping, **place.bookkeeping()})
    model = video_classification.VideoClassificationTask(config.task).build_model()
    values = _values(found.checkpoint)
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
        raise GardenFolderError(f"{found.checkpoint}: of another network than params.yaml says: {differences[0]}{more}")
    step = int(values.get(_STEP, found.step))
    if step != found.step:
        raise GardenFolderError(f"{found.checkpoint}: holds step {step}, its name says {found.step}")
    broken = [name for name in held if not np.all(np.isfinite(values[name]))]
    if broken:
        raise GardenFolderError(
            f"{found.checkpoint}: {broken[0].removesuffix(_VALUE)} is not finite: training diverged"
        )


def _values(checkpoint: Path) -> dict[str, Any]:
    """Name -> value of all that a checkpoint holds, every byte held against its checksum."""
    try:
        found = tf.train.load_checkpoint(str(checkpoint))
        return {name: np.asarray(found.get_tensor(name)) for name in found.get_variable_to_shape_map()}
    except (tf.errors.OpError, ValueError, RuntimeError, IndexError) as error:
        reason = " ".join(str(error).split())[:200]
        raise GardenFolderError(f"{checkpoint}: damaged, or no checkpoint of TensorFlow's ({reason})") from None


def _variables(model: Any) -> dict[str, tuple[int, ...]]:
    """Name in a checkpoint -> shape; TensorFlow tells the names only of one that is written."""
    with tempfile.TemporaryDirectory() as folder:
        path = tf.train.Checkpoint(model=model, **model.checkpoint_items).write(f"{folder}/fresh")
        return {name: tuple(shape) for name, shape in tf.train.list_variables(path) if name.endswith(_VALUE)}


def _shape(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else " x ".join(map(str, shape)) or "a scalar"


def curve(folder: Path) -> tuple[dict[str, Any], ...]:
    """The training's points in TensorBoard's files; seconds count from the first of them."""
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
