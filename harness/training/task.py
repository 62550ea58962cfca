"""The Garden's video classification task, with a reader that depends only on the seed, and with per-video predictions.

Evaluation metrics are computed from the predictions of the videos, each counted once, not averaged over batches.
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

# The number of most probable classes that are kept for each video.
TOP = 5


@dataclasses.dataclass(frozen=True)
class Predictions:
    """The predictions of a checkpoint for each video under one protocol, averaged over the views.

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
        """Returns top-1 and top-5 accuracy as fractions, the mean loss in nats and the number of videos."""
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
      count: number of replicas.
      number: index of this replica, from 0.
      summed: sums a tensor over all replicas.
    """

    count: int
    number: Any
    summed: Callable[[tf.Tensor], tf.Tensor]

    @classmethod
    def of_strategy(cls) -> Replicas:
        """Returns the replicas of the current strategy; must be called in a replica's step."""
        context = tf.distribute.get_replica_context()
        number = context.replica_id_in_sync_group
        return cls(
            context.num_replicas_in_sync, number, lambda value: context.all_reduce(tf.distribute.ReduceOp.SUM, value)
        )

    def gathered(self, value: tf.Tensor) -> tf.Tensor:
        """Gathers a tensor from all replicas: [n, ...] -> [count x n, ...], in their order; gradients flow back."""
        if self.count == 1:
            return value

        @tf.custom_gradient  # type: ignore[untyped-decorator]
        def everywhere(local: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
            return self._concatenated(local), lambda gradient: self._local_gradient(gradient, local)

        return everywhere(value)

    def _concatenated(self, local: tf.Tensor) -> tf.Tensor:
        mask = tf.one_hot(self.number, self.count, dtype=local.dtype)
        spread = tf.reshape(mask, [self.count, *[1] * local.shape.rank]) * local
        return tf.reshape(self.summed(spread), [-1, *local.shape[1:]])

    def _local_gradient(self, gradient: tf.Tensor, local: tf.Tensor) -> tf.Tensor:
        """Sums the gradient over the replicas and returns the part for this replica's tensor."""
        return tf.reshape(self.summed(gradient), [self.count, -1, *local.shape[1:]])[self.number]


class VideoTask(video_classification.VideoClassificationTask):
    """The Garden's task on a prepared data set.

    Args:
      params: the task's configuration.
      train: shards of the training split; None if the task only evaluates.
      validation: shards of the validation split.
      start_step: the optimizer step that training data begin at.
      evaluated: is called with the number of videos evaluated so far.
      replicas: returns the replicas, in a replica's train step; by default those of the strategy. Compiling for devices
        that the machine does not have passes its own.

    Attributes:
      measured: name of a metric on the training curve -> its name in a train step.
      validates: whether the task can be validated during training.
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
        """Builds the data pipeline; see :mod:`harness.data.reader`."""
        if not params.is_training:
            return reader.evaluation(params, self._validation, input_context)
        if self._train is None:
            raise ValueError("a task without a training split cannot train")
        return reader.training(params, self._train, self._start_step, input_context)

    def explain(self, error: Exception, training: bool, at: int) -> str | None:
        """Returns what is wrong with the data, in one line, or None if the data did not cause the error.

        Args:
          error: the error that TensorFlow raised.
          training: whether training data were read, not validation data.
          at: the last optimizer step, or in an evaluation the number of videos, without an error.
        """
        if training and self._train:
            return diagnose.explain(error, self.task_config.train_data, self._train, at)
        return diagnose.explain(error, self.task_config.validation_data, self._validation, at)

    def initialize(self, model: tf_keras.Model) -> None:
        """Loads another run's weights if the configuration names them; see :mod:`harness.training.restore`.

        Raises:
          RunError: the weights do not fit the network.
        """
        if self.task_config.init_checkpoint:
            restore.take(model, self.task_config.init_checkpoint, self.task_config.init_checkpoint_modules)

    def build_metrics(self, training: bool = True) -> list[tf_keras.metrics.Metric]:
        """Returns the Garden's streaming metrics for training, and none for evaluation, which collects predictions."""
        return super().build_metrics(training) if training else []

    def train_step(self, inputs: Any, model: tf_keras.Model, optimizer: Any, metrics: Any = None) -> Any:
        """Takes the Garden's train step, with dropout and stochastic depth drawn from the seed, step and replica.

        So a resumed run draws the same as one without interruption, and so do replicas on any machine.
        """
        replicas = self._replicas()
        known = tf.get_static_value(replicas.number)  # on a TPU it is known only while the step runs
        number = tf.cast(replicas.number, tf.int64) if known is None else int(known)
        draw = optimizer.iterations * replicas.count + number
        # Negative, since the seeds of the clips' draws are zero or more.
        seed = tf.stack([tf.constant(-1 - int(self.task_config.train_data.seed), tf.int64), draw])
        features, labels = inputs
        features = self.for_network(features)
        with seeded_ops.fixed_by(seed):
            return super().train_step((features, labels), model, optimizer, metrics)

    def for_network(self, features: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Converts the features that a train step receives to the inputs of the network."""
        return for_network(features, self.task_config.train_data)

    def validation_step(self, inputs: Any, model: tf_keras.Model, metrics: Any = None) -> dict[str, tf.Tensor]:
        """Predicts one batch and gathers the predictions from all replicas.

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
        # The identity puts labels on a device: several workers cannot gather tensors that are on none.
        return {name: context.all_gather(tf.identity(value), axis=0) for name, value in logs.items()}

    def aggregate_logs(self, state: Any, step_outputs: dict[str, Any]) -> list[dict[str, np.ndarray]]:
        """Collects the batches on the host; takes them from the first replica, since each holds the gathered batch."""
        batches = state or []
        batches.append({name: np.asarray(values[0]) for name, values in step_outputs.items()})
        if self._evaluated:
            self._evaluated(sum(int(batch["valid"].sum()) for batch in batches))
        return batches

    def reduce_aggregated_logs(self, aggregated_logs: Any, global_step: Any = None) -> dict[str, float]:
        """Computes metrics over the videos, and keeps the predictions in `self.predictions`."""
        valid = [{name: value[batch["valid"] == 1] for name, value in batch.items()} for batch in aggregated_logs]
        columns = {name: np.concatenate([batch[name] for batch in valid]) for name in valid[0]}
        self.predictions = Predictions(
            media_id=list(reader.media_ids(columns["media_id"])),
            label=columns["label"],
            top_class=columns["top_class"],
            top_probability=columns["top_probability"],
            loss=columns["loss"],
        )
        return self.predictions.metrics()
