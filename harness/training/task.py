"""The Garden's video classification task, with a reader that is a function of the seed and per-video predictions.

Evaluation numbers are computed from the predictions of the videos themselves, each counted once, not from averages over
batches.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
from official.vision.configs import video_classification as exp_cfg
from official.vision.tasks import video_classification

from harness.data import diagnose, reader, seeded_ops
from harness.data.on_device import for_network
from harness.training import restore

# Classes kept of each video's probabilities.
TOP = 5


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What a checkpoint says of each video under one protocol, probabilities averaged over the views.

    Attributes:
      media_id: [videos] ids.
      label: [videos] class numbers.
      top_class: [videos, k] the k most probable classes, most probable first; k = min(5, classes).
      top_probability: [videos, k] their probabilities.
      loss: [videos] cross entropy, nats, without label smoothing or weight decay.
    """

    media_id: list[str]
    label: np.ndarray
    top_class: np.ndarray
    top_probability: np.ndarray
    loss: np.ndarray

    def metrics(self) -> dict[str, float]:
        """Top-1 and top-5 accuracy as fractions, mean loss, number of videos."""
        hits = self.top_class == self.label[:, None]
        return {
            "top1": float(hits[:, 0].mean()),
            "top5": float(hits.any(axis=1).mean()),
            "loss": float(self.loss.mean()),
            "videos": len(self.label),
        }


@dataclasses.dataclass(frozen=True)
class Replicas:
    """The replicas that take a train step together.

    Attributes:
      count: how many there are.
      number: which of them this is, from 0.
      summed: a tensor -> its sum over all of them.
    """

    count: int
    number: Any
    summed: Callable[[tf.Tensor], tf.Tensor]

    @classmethod
    def of_strategy(cls) -> Replicas:
        """Those of the strategy under which it is called, in a step of a replica."""
        context = tf.distribute.get_replica_context()
        number = context.replica_id_in_sync_group
        return cls(
            context.num_replicas_in_sync, number, lambda value: context.all_reduce(tf.distribute.ReduceOp.SUM, value)
        )

    def gathered(self, value: tf.Tensor) -> tf.Tensor:
        """[n, ...] of each -> [count x n, ...] of all, in the order of their numbers; gradients find their way back."""
        if self.count == 1:
            return value

        @tf.custom_gradient  # type: ignore[untyped-decorator]
        def everywhere(own: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
            return self._placed(own), lambda gradient: self._own(gradient, own)

        return everywhere(value)

    def _placed(self, own: tf.Tensor) -> tf.Tensor:
        here = tf.one_hot(self.number, self.count, dtype=own.dtype)
        spread = tf.reshape(here, [self.count, *[1] * own.shape.rank]) * own
        return tf.reshape(self.summed(spread), [-1, *own.shape[1:]])

    def _own(self, gradient: tf.Tensor, own: tf.Tensor) -> tf.Tensor:
        """What all replicas' losses say of this one's value."""
        return tf.reshape(self.summed(gradient), [self.count, -1, *own.shape[1:]])[self.number]


class VideoTask(video_classification.VideoClassificationTask):
    """The Garden's task on a prepared data set.

    Args:
      params: the task's configuration.
      train: shards of the training split; None where the task only evaluates.
      validation: shards of the validation split.
      start_step: the optimizer step at which training data begin.
      evaluated: called with the number of videos evaluated so far.
      replicas: called in a train step of a replica, tells it the others; by default those of the strategy. A compiler
        for devices that are not there gives theirs.

    Attributes:
      measured: what the training curve shows -> the metric's name in a train step.
      validates: whether it can be validated while it trains.
    """

    measured: Mapping[str, str] = types.MappingProxyType({"top1": "top_1_accuracy", "top5": "top_5_accuracy"})
    validates = True

    def __init__(
        self,
        params: exp_cfg.VideoClassificationTask,
        train: reader.Source | None,
        validation: reader.Source,
        start_step: int = 0,
        evaluated: Callable[[int], None] | None = None,
        replicas: Callable[[], Replicas] = Replicas.of_strategy,
    ) -> None:
        super().__init__(params)
        self._train, self._validation, self._start_step = train, validation, start_step
        self._evaluated, self._replicas = evaluated, replicas
        self.predictions: Predictions | None = None

    def build_inputs(
        self, params: exp_cfg.DataConfig, input_context: tf.distribute.InputContext | None = None
    ) -> tf.data.Dataset:
        """See :mod:`harness.data.reader`."""
        if not params.is_training:
            return reader.evaluation(params, self._validation, input_context)
        if self._train is None:
            raise ValueError("a task without a training split cannot train")
        return reader.training(params, self._train, self._start_step, input_context)

    def explain(self, error: Exception, training: bool, at: int) -> str | None:
        """What is wrong with the data, in a line, where they made training or evaluation fail; None where they did not.

        Args:
          error: what TensorFlow raised.
          training: whether it was the training data that were read.
          at: the optimizer step, or in an evaluation the number of videos, up to which all was well.
        """
        if training and self._train:
            return diagnose.explain(error, self.task_config.train_data, self._train, at)
        return diagnose.explain(error, self.task_config.validation_data, self._validation, at)

    def initialize(self, model: tf_keras.Model) -> None:
        """Starts from another run's weights, where the configuration names them; see :mod:`harness.training.restore`.

        Raises:
          RunError: they do not fit.
        """
        if self.task_config.init_checkpoint:
            restore.take(model, self.task_config.init_checkpoint, self.task_config.init_checkpoint_modules)

    def build_metrics(self, training: bool = True) -> list[tf_keras.metrics.Metric]:
        """The Garden's streaming metrics in training; none in evaluation, where predictions are collected instead."""
        return super().build_metrics(training) if training else []

    def train_step(self, inputs: Any, model: tf_keras.Model, optimizer: Any, metrics: Any = None) -> Any:
        """The Garden's, with dropout and stochastic depth drawn from the seed, the step and the replica.

        So a resumed run draws what it would have drawn, and replicas draw the same wherever they are.
        """
        replicas = self._replicas()
        known = tf.get_static_value(replicas.number)  # on a TPU it is known only there
        number = tf.cast(replicas.number, tf.int64) if known is None else int(known)
        place = optimizer.iterations * replicas.count + number
        # Below zero, since the clips' own draws use seeds from zero up.
        seed = tf.stack([tf.constant(-1 - int(self.task_config.train_data.seed), tf.int64), place])
        features, labels = inputs
        features = self.for_network(features)
        with seeded_ops.fixed_by(seed):
            return super().train_step((features, labels), model, optimizer, metrics)

    def for_network(self, features: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """What a train step was sent -> what the network takes."""
        return for_network(features, self.task_config.train_data)

    def validation_step(self, inputs: Any, model: tf_keras.Model, metrics: Any = None) -> dict[str, tf.Tensor]:
        """Predictions for one batch, gathered from all replicas.

        Args:
          inputs: (features, labels) of :func:`harness.data.reader.evaluation`.
          model: the network.
          metrics: unused; the Garden passes the list of :meth:`build_metrics`.

        Returns:
          "label", "media_id", "valid", "top_class", "top_probability", "loss", each with the global batch first.
        """
        features, labels = inputs
        features = for_network(features, self.task_config.validation_data)
        probabilities = tf.cast(self.inference_step(features, model), tf.float32)
        top = tf.math.top_k(probabilities, k=min(TOP, probabilities.shape[-1]))
        logs = {
            **labels,
            "valid": tf.cast(labels["valid"], tf.int32),
            "top_class": top.indices,
            "top_probability": top.values,
            "loss": tf_keras.losses.sparse_categorical_crossentropy(labels["label"], probabilities),
        }
        context = tf.distribute.get_replica_context()
        # Labels come from the host's dataset on no device, where several workers cannot gather.
        return {name: context.all_gather(tf.identity(value), axis=0) for name, value in logs.items()}

    def aggregate_logs(self, state: Any, step_outputs: dict[str, Any]) -> list[dict[str, np.ndarray]]:
        """Collects the batches on the host; every replica holds the gathered batch, so the first one's is taken."""
        batches = state or []
        batches.append({name: np.asarray(values[0]) for name, values in step_outputs.items()})
        if self._evaluated:
            self._evaluated(sum(int(batch["valid"].sum()) for batch in batches))
        return batches

    def reduce_aggregated_logs(self, aggregated_logs: Any, global_step: Any = None) -> dict[str, float]:
        """Metrics over the videos; the predictions themselves are left in `self.predictions`."""
        kept = [{name: value[batch["valid"] == 1] for name, value in batch.items()} for batch in aggregated_logs]
        whole = {name: np.concatenate([batch[name] for batch in kept]) for name in kept[0]}
        self.predictions = Predictions(
            media_id=list(reader.media_ids(whole["media_id"])),
            label=whole["label"],
            top_class=whole["top_class"],
            top_probability=whole["top_probability"],
            loss=whole["loss"],
        )
        return self.predictions.metrics()
