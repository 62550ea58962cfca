"""The Garden's contrastive pre-training of CVRL, on a prepared data set, over replicas of any kind.

The Garden's loss gathers embeddings by an XLA replica id, which only a TPU has, and its step sums the replicas' losses.
Here embeddings are gathered by the strategy's own replica number, and the gradient is that of the loss over the global
batch, however it is split.
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

# Takes a clip's similarity to itself out of the softmax, as in the Garden.
_NEVER = 1e9


def loss(embeddings: tf.Tensor, temperature: float, normalized: bool, replicas: Replicas) -> dict[str, tf.Tensor]:
    """InfoNCE of both clips of each video against all clips of the global batch.

    Args:
      embeddings: [2 x videos, dimensions], the first clip of every video before the second of any.
      temperature: divides the similarities.
      normalized: whether embeddings are brought to length one, so that similarities are cosines.
      replicas: whose clips are negatives too.

    Returns:
      "contrastive_loss": nats, the mean over this replica's videos of the sum over both clips; "contrast_acc": share of
      first clips to which, of all second clips, their own video's is the most similar; "contrast_entropy": of the
      softmax over them, nats.
    """
    if normalized:
        embeddings = tf.math.l2_normalize(embeddings, -1)
    first, second = tf.split(embeddings, 2)
    all_first, all_second = replicas.gathered(first), replicas.gathered(second)
    own = tf.range(tf.shape(first)[0]) + tf.cast(replicas.number, tf.int32) * tf.shape(first)[0]

    def entropy(clip: tf.Tensor, others: tf.Tensor, same: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Of clips against the other clips of all videos and against those of the same place."""
        across = tf.matmul(clip, others, transpose_b=True) / temperature
        itself = tf.one_hot(own, tf.shape(same)[0], dtype=clip.dtype) * _NEVER
        within = tf.matmul(clip, same, transpose_b=True) / temperature - itself
        crossed = tf.nn.sparse_softmax_cross_entropy_with_logits(own, tf.concat([across, within], 1))
        return tf.reduce_mean(crossed), across

    of_first, similarity = entropy(first, all_second, all_first)
    of_second, _ = entropy(second, all_first, all_second)
    hits = tf.argmax(similarity, 1, tf.int32) == own
    share = tf.nn.softmax(similarity)
    return {
        "contrastive_loss": of_first + of_second,
        "contrast_acc": tf.reduce_mean(tf.cast(hits, tf.float32)),
        "contrast_entropy": -tf.reduce_mean(tf.reduce_sum(share * tf.math.log(share + 1e-8), -1)),
    }


class ContrastiveTask(VideoTask, pretrain.VideoSSLPretrainTask):
    """The Garden's pre-training task on a prepared data set.

    It is never evaluated: what it learns shows in the stage after it.

    Args:
      as of :class:`harness.training.task.VideoTask`.
      distortion: how strongly clips are distorted, of the Garden's strength: 0 to 1.
    """

    measured: Mapping[str, str] = types.MappingProxyType({"contrast_acc": "contrast_acc"})
    validates = False

    def __init__(self, *args: Any, distortion: float = 1.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._distortion = distortion

    def for_network(self, features: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Distorted clips, two for each video."""
        return {"image": cvrl_clips.for_network(features, self.task_config.train_data, self._distortion)}

    def build_losses(
        self, model_outputs: tf.Tensor, num_replicas: int, model: tf_keras.Model
    ) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]:
        """The loss with weight decay and, apart, what the Garden's metrics take the mean of."""
        del num_replicas
        losses, replicas = self.task_config.losses, self._replicas()
        found = loss(model_outputs, losses.temperature, losses.normalize_hidden, replicas)
        kernels = [variable for variable in model.trainable_variables if "kernel" in variable.name]
        decay = losses.l2_weight_decay * tf.add_n([tf.nn.l2_loss(kernel) for kernel in kernels])
        total = _for_a_sum(found.pop("contrastive_loss") + tf.cast(decay, tf.float32), replicas.count)
        return {"total_loss": total, self.loss: total}, {**found, "reg_loss": decay}


def _for_a_sum(value: tf.Tensor, replicas: int) -> tf.Tensor:
    """The value, with a replica's share of its gradient: the optimizer sums gradients over the replicas."""
    share = value / replicas
    return share + tf.stop_gradient(value - share)
