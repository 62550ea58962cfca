"""Trains and evaluates one run with the Garden's task and Orbit's trainer; knows no toggles, studies or result files.

What it reports while it works are plain mappings, handed to a function: {"event": "train", "step": ..., ...}.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePath
from typing import Any

import tensorflow as tf
import tf_keras
from official.common import distribute_utils
from official.core import base_trainer, config_definitions, train_lib, train_utils
from official.modeling import performance

from harness import garden
from harness.data import reader
from harness.data.manifest import Manifest
from harness.experiment import Protocol, Run, SettingsError, for_protocol
from harness.task import Predictions, VideoTask

Report = Callable[[Mapping[str, Any]], None]
_CHECKPOINT = re.compile(r"ckpt-(\d+)$")


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a run is carried out; nothing here can change its result.

    Attributes:
      data: folder of the prepared data set.
      checkpoints: folder of the run's checkpoints.
      strategy: name of the distribution strategy, as the Garden's distribution utility knows it.
      tpu: name or address of the TPU, None without one.
      parent: folder of the checkpoints that the run starts from, None where it starts from its seed.
    """

    data: str
    checkpoints: str
    strategy: str = "one_device"
    tpu: str | None = None
    parent: str | None = None

    def bookkeeping(self) -> dict[str, Any]:
        """The Garden's fields that say the same."""
        most = {"tpu": 0, "one_device": 1}.get(self.strategy)
        gpus = len(tf.config.list_physical_devices("GPU")[:most])
        return {
            "runtime.distribution_strategy": self.strategy,
            "runtime.tpu": self.tpu,
            "runtime.num_gpus": gpus,
            "task.init_checkpoint": self.parent,
            "task.train_data.input_path": f"{self.data}/train-*",
            "task.validation_data.input_path": f"{self.data}/validation-*",
        }


def last_checkpoint(folder: str) -> tuple[str, int] | None:
    """Path and step of the last whole checkpoint in a folder, None where there is none."""
    path = tf.train.latest_checkpoint(folder)
    match = _CHECKPOINT.search(path) if path else None
    return (path, int(match[1])) if match else None


def seeded(seed: int, step: int = 0) -> None:
    """Makes initialisation, dropout and stochastic depth functions of the seed, and operations deterministic.

    Args:
      seed: the run's seed.
      step: where training begins; a resumed run draws other masks than the ones it began with.
    """
    tf_keras.utils.set_random_seed((seed + 1_000_003 * step) % 2**32)
    tf.config.experimental.enable_op_determinism()


def strategy_for(place: Place) -> tf.distribute.Strategy:
    """The distribution strategy, by the Garden's distribution utility."""
    runtime = place.bookkeeping()
    strategy = distribute_utils.get_distribution_strategy(
        distribution_strategy=place.strategy, num_gpus=runtime["runtime.num_gpus"], tpu_address=place.tpu
    )
    return strategy or tf.distribute.get_strategy()


def _refuse_other_replicas(strategy: tf.distribute.Strategy, run: Run, place: Place) -> None:
    """Statistics of batch normalization are each replica's own, so another number of them is another run."""
    replicas = strategy.num_replicas_in_sync
    if replicas != run.replicas:
        raise SettingsError(
            f"strategy {place.strategy} gives {replicas} replicas here, the run was planned for {run.replicas}: "
            f"say --replicas {replicas}"
        )


def train(run: Run, manifest: Manifest, place: Place, report: Report) -> str:
    """Trains a run to its last step, from its last checkpoint where there is one, and leaves the last checkpoint.

    Returns:
      The device that trained, in words.

    Raises:
      SettingsError: settings that the Garden or this machine cannot carry out.
      RuntimeError: from the Garden, when the loss is not finite.
    """
    found = last_checkpoint(place.checkpoints)
    start = found[1] if found else 0
    with _session(run, start):
        strategy = strategy_for(place)
        _refuse_other_replicas(strategy, run, place)
        config = garden.build(run.settings, {**run.bookkeeping, **place.bookkeeping()})
        task = _task(config, run, manifest, place, start)
        curve = _Curve(config.trainer.train_steps, report)
        runner = train_lib.OrbitExperimentRunner(
            strategy,
            task,
            "train_and_eval",
            config,
            place.checkpoints,
            save_summary=False,
            train_actions=[curve.trained],
            eval_actions=[curve.validated],
        )
        curve.step = runner.trainer.global_step
        report({"event": "attempt", "step": start})
        with strategy.scope():
            runner.controller.train_and_evaluate(
                config.trainer.train_steps, config.trainer.validation_steps, config.trainer.validation_interval
            )
        return _device(strategy, place)


def evaluate(
    run: Run, protocol: Protocol, manifest: Manifest, place: Place, report: Report
) -> tuple[Predictions, str, float, str]:
    """Evaluates the last checkpoint of a run under a protocol.

    Returns:
      The predictions, the checkpoint's name, the seconds it took and the device in words.

    Raises:
      SettingsError: there is no checkpoint of the run's last step.
    """
    with _session(run):
        strategy = strategy_for(place)
        settings, bookkeeping = for_protocol(run, protocol)
        config = garden.build(settings, {**bookkeeping, **place.bookkeeping()})
        data = config.task.validation_data
        data.global_batch_size = run.evaluation_batch * strategy.num_replicas_in_sync
        found = last_checkpoint(place.checkpoints)
        if found is None or found[1] != config.trainer.train_steps:
            raise SettingsError(f"{place.checkpoints}: no checkpoint of step {config.trainer.train_steps} to evaluate")
        task = _task(
            config, run, manifest, place, 0, lambda done: report(_progress("evaluate", done, data.num_examples))
        )
        report(_progress("evaluate", 0, data.num_examples))
        with strategy.scope():
            trainer = _evaluator(config, task)
            trainer.checkpoint.restore(found[0]).assert_existing_objects_matched().expect_partial()
            began = time.monotonic()
            trainer.evaluate(tf.constant(-1))
        if task.predictions is None:
            raise SettingsError(f"{run.data.name}: the validation split is empty")
        return task.predictions, PurePath(found[0]).name, time.monotonic() - began, _device(strategy, place)


def _evaluator(config: config_definitions.ExperimentConfig, task: VideoTask) -> base_trainer.Trainer:
    """The Garden's trainer for evaluation alone; with its optimizer, whose averaged weights evaluation may use."""
    return train_utils.create_trainer(config, task, train=False, evaluate=True)


def _task(
    config: config_definitions.ExperimentConfig,
    run: Run,
    manifest: Manifest,
    place: Place,
    start_step: int,
    evaluated: Callable[[int], None] | None = None,
) -> VideoTask:
    train, validation = (
        reader.Source.of(place.data, manifest.splits[split], len(manifest.classes)) for split in ("train", "validation")
    )
    return VideoTask(config.task, train, validation, start_step, evaluated)


@contextlib.contextmanager
def _session(run: Run, step: int = 0) -> Iterator[None]:
    """A run's own seed and precision, and nothing left of the run before it."""
    tf_keras.backend.clear_session()
    gc.collect()
    seeded(run.seed, step)
    performance.set_mixed_precision_policy(run.settings["runtime.mixed_precision_dtype"])
    try:
        yield
    finally:
        performance.set_mixed_precision_policy("float32")


def _device(strategy: tf.distribute.Strategy, place: Place) -> str:
    kind = "TPU" if place.tpu else "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    return f"{strategy.num_replicas_in_sync} x {kind}, {os.cpu_count()} CPU cores, {place.strategy}"


def _progress(event: str, done: int, total: int) -> dict[str, Any]:
    return {"event": event, "done": done, "total": total}


class _Curve:
    """Reports the points of the training curve from Orbit's outputs, which carry no step of their own.

    Seconds count from here on, so they hold tracing the graph, validating and saving, but not building the network.
    """

    def __init__(self, steps: int, report: Report) -> None:
        self.step: tf.Variable | None = None
        self._steps, self._report = steps, report
        self._began = time.monotonic()

    def trained(self, output: Mapping[str, Any]) -> None:
        """After each inner loop of training."""
        self._add(
            "train",
            loss=output["training_loss"],
            top1=output["top_1_accuracy"],
            top5=output["top_5_accuracy"],
            learning_rate=output["learning_rate"],
        )

    def validated(self, output: Mapping[str, Any]) -> None:
        """After each validation."""
        self._add("validation", **{name: output[name] for name in ("loss", "top1", "top5", "videos")})

    def _add(self, split: str, **metrics: Any) -> None:
        step = int(self.step.numpy()) if self.step is not None else 0
        seconds = round(time.monotonic() - self._began, 3)
        point = {"split": split, "step": step, "seconds": seconds, **{k: float(v) for k, v in metrics.items()}}
        self._report({"event": split, "done": step, "total": self._steps, **point})


def device_versions() -> dict[str, str]:
    """Versions of what computed the result."""
    return {"tensorflow": tf.__version__, "tf_keras": tf_keras.__version__}
