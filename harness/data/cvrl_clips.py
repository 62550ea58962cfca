"""Makes two clips of each video for contrastive pre-training: draws them on the host, distorts them on the accelerator.

Their start times are drawn as in CVRL (Qian et al. 2021, Section 3.2; the Garden's `sample_ssl_sequence`): the
probability falls linearly with the time between the clips. Each clip is cropped and mirrored by its own draws.
"""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf
from official.projects.video_ssl.configs import video_ssl as exp_cfg
from official.projects.video_ssl.ops import video_ssl_preprocess_ops as gardens

from harness.data import cvrl_distortions, decoding, on_device

CLIPS = len(cvrl_distortions.VIEWS)


def training_features(encoded: tf.Tensor, params: exp_cfg.DataConfig) -> dict[str, tf.Tensor]:
    """Draws two clips of a video, cropped and mirrored, and the parameters of their distortions.

    Args:
      encoded: the video's frames, strings [n].
      params: the Garden's configuration of the training data.

    Returns:
      "image", uint8 [2 x frames, height, width, 3], and for both clips what
      :func:`harness.data.cvrl_distortions.draw_distortions` draws, [2, ...].
    """
    frames = gardens.sample_ssl_sequence(encoded, params.feature_shape[0], True, params.temporal_stride)
    clips = [decoding.cut_out(clip, params) for clip in tf.split(frames, CLIPS)]
    draws = [cvrl_distortions.draw_distortions(view) for view in cvrl_distortions.VIEWS]
    return {"image": tf.concat(clips, 0), **{name: tf.stack([draw[name] for draw in draws]) for name in draws[0]}}


def for_network(features: Mapping[str, tf.Tensor], params: exp_cfg.DataConfig, strength: float = 1.0) -> tf.Tensor:
    """Distorts a batch of :func:`training_features` and puts the first clips of all videos before the second ones.

    Args:
      features: the batch.
      params: the Garden's configuration of the training data.
      strength: as in :func:`harness.data.cvrl_distortions.weakened`.

    Returns:
      [2 x videos, frames, height, width, 3] of the configured type in [0, 1], or in [-1, 1] where zero-centred.
    """

    def distorted(element: Mapping[str, tf.Tensor]) -> tf.Tensor:
        draws = {name: value for name, value in element.items() if name != "image"}
        clip = cvrl_distortions.distorted(on_device.unit(element["image"]), draws)
        return tf.cast(2.0 * clip - 1.0 if params.zero_centering_image else clip, params.dtype)

    image = tf.concat(tf.split(features["image"], CLIPS, axis=1), 0)
    drawn = {name: tf.concat(tf.unstack(value, axis=1), 0) for name, value in features.items() if name != "image"}
    drawn = cvrl_distortions.weakened(drawn, strength)
    return tf.map_fn(
        distorted, {"image": image, **drawn}, fn_output_signature=tf.TensorSpec(image.shape[1:], params.dtype)
    )
