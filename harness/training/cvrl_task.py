"""The task of CVRL's contrastive pre-training: the Garden's, on a prepared data set and on any kind of replicas.

The Garden's loss gathers embeddings by the XLA replica id, which exists only on a TPU, and its step sums the losses of
the replicas. Here embeddings are gathered by the strategy's replica number, and the gradient is that of the loss over
the global batch, however the batch is split.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
import tf_keras
from official.projects.video_ssl.tasks import pretrain

from harness.data import cvrl_clips
from harness.training.task import Replicas, VideoTask

# Subtracted from a clip's similarity to itself, to take it out of the softmax, as in the Garden.
_NEVER = 1e9


def loss(embeddings: tf.Tensor, temperature: float, normalized: bool, replicas: Replicas) -> dict[str, tf.Tensor]:
    """Computes InfoNCE of both clips of each video against all clips of the global batch.

    Args:
      embeddings: [2 x videos, dimensions], the first clips of all videos, then the second clips of all videos.
      temperature: divides the similarities.
      normalized: whether embeddings are scaled to length one, so that similarities are cosines.
      replicas: the replicas whose clips serve as negatives too.

    Returns:
      "contrastive_loss": the sum over both clips, averaged over this replica's videos, nats; "contrast_acc": fraction
      of first clips whose most similar second clip is that of the same video; "contrast_entropy": entropy of the
      softmax over the second clips, nats.
    """
    if normalized:
        embeddings = tf.math.l2_normalize(embeddings, -1)
    first, second = tf.split(embeddings, 2)
    all_first, all_second = replicas.gathered(first), replicas.gathered(second)
    positives = tf.range(tf.shape(first)[0]) + tf.cast(replicas.number, tf.int32) * tf.shape(first)[0]

    def entropy(clip: tf.Tensor, others: tf.Tensor, same: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Computes the cross entropy of one clip of each video against all other clips.

        Args:
          clip: first (or second) clips of this replica's videos.
          others: second (or first) clips of all videos; each contains the positive.
          same: first (or second) clips of all videos; negatives, except the clip itself.

        Returns:
          The mean cross entropy, nats, and the similarities to `others`.
        """
        across = tf.matmul(clip, others, transpose_b=True) / temperature
        itself = tf.one_hot(positives, tf.shape(same)[0], dtype=clip.dtype) * _NEVER
        within = tf.matmul(clip, same, transpose_b=True) / temperature - itself
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(positives, tf.concat([across, within], 1))
        return tf.reduce_mean(losses), across

    first_loss, similarity = entropy(first, all_second, all_first)
    second_loss, _ = entropy(second, all_first, all_second)
    hits = tf.argmax(similarity, 1, tf.int32) == positives
    probabilities = tf.nn.softmax(similarity)
    return {
        "contrastive_loss": first_loss + second_loss,
        "contrast_acc": tf.reduce_mean(tf.cast(hits, tf.float32)),
        "contrast_entropy": -tf.reduce_mean(tf.reduce_sum(probabilities * tf.math.log(probabilities + 1e-8), -1)),
    }


class ContrastiveTask(VideoTask, pretrain.VideoSSLPretrainTask):
    """The Garden's pre-training task on a prepared data set.

    It is never evaluated: the stage that starts from it shows what it has learned.

    Args:
      *args: as for :class:`harness.training.task.VideoTask`.
      distortion: how strongly clips are distorted, as a fraction of the Garden's strength: 0 to 1.
      **kwargs: as for :class:`harness.training.task.VideoTask`.
    """

    measured: Mapping[str, str] = types.MappingProxyType({"contrast_acc": "contrast_acc"})
    validates = False

    def __init__(self, *args: Any, distortion: float = 1.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._distortion = distortion

    def for_network(self, features: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Returns distorted clips, two for each video."""
        return {"image": cvrl_clips.for_network(features, self.task_config.train_data, self._distortion)}

    def build_losses(
        self, model_outputs: tf.Tensor, num_replicas: int, model: tf_keras.Model
    ) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]:
        """Returns the loss, weight decay included, and separately the values that the Garden's metrics average."""
        del num_replicas
        losses, replicas = self.task_config.losses, self._replicas()
        measured = loss(model_outputs, losses.temperature, losses.normalize_hidden, replicas)
        kernels = [variable for variable in model.trainable_variables if "kernel" in variable.name]
        decay = losses.l2_weight_decay * tf.add_n([tf.nn.l2_loss(kernel) for kernel in kernels])
        total = _for_a_sum(measured.pop("contrastive_loss") + tf.cast(decay, tf.float32), replicas.count)
        return {"total_loss": total, self.loss: total}, {**measured, "reg_loss": decay}


def _for_a_sum(value: tf.Tensor, replicas: int) -> tf.Tensor:
    """Divides the gradient of a value, not the value, by the replicas, since the optimizer sums their gradients."""
    share = value / replicas
    return share + tf.stop_gradient(value - share)
