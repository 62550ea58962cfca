"""Two clips of each video for contrastive pre-training, on the host and on the accelerator.

When they begin is drawn as CVRL does it (Qian et al. 2021, Section 3.2; the Garden's `sample_ssl_sequence`): the more
time between the clips the less likely, in a straight line. Each is cropped and mirrored by draws of its own.
"""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf
from official.projects.video_ssl.configs import video_ssl as exp_cfg
from official.projects.video_ssl.ops import video_ssl_preprocess_ops as gardens

from harness.data import cvrl_distortions, decoding, on_device

CLIPS = len(cvrl_distortions.VIEWS)


def training_features(encoded: tf.Tensor, params: exp_cfg.DataConfig) -> dict[str, tf.Tensor]:
    """Two random clips of a video, cropped and mirrored, and what is drawn for their distortion.

    Args:
      encoded: the video's frames, strings [n].
      params: the Garden's configuration of the training data.

    Returns:
      "image", uint8 [2 x frames, height, width, 3], and the draws of
      :func:`harness.data.cvrl_distortions.draw_distortions`, [2, ...].
    """
    frames = gardens.sample_ssl_sequence(encoded, params.feature_shape[0], True, params.temporal_stride)
    clips = [decoding.cut_out(clip, params) for clip in tf.split(frames, CLIPS)]
    draws = [cvrl_distortions.draw_distortions(view) for view in cvrl_distortions.VIEWS]
    return {"image": tf.concat(clips, 0), **{name: tf.stack([one[name] for one in draws]) for name in draws[0]}}


def for_network(features: Mapping[str, tf.Tensor], params: exp_cfg.DataConfig, strength: float = 1.0) -> tf.Tensor:
    """A batch of :func:`training_features` -> distorted clips, the first of every video before the second of any.

    Args:
      features: the batch.
      params: the Garden's configuration of the training data.
      strength: as of :func:`harness.data.cvrl_distortions.weakened`.

    Returns:
      [2 x videos, frames, height, width, 3] of the configured type in [0, 1], or in [-1, 1] where zero-centred.
    """

    def distorted(one: Mapping[str, tf.Tensor]) -> tf.Tensor:
        by = {name: value for name, value in one.items() if name != "image"}
        clip = cvrl_distortions.distorted(on_device.unit(one["image"]), by)
        return tf.cast(2.0 * clip - 1.0 if params.zero_centering_image else clip, params.dtype)

    image = tf.concat(tf.split(features["image"], CLIPS, axis=1), 0)
    drawn = {name: tf.concat(tf.unstack(value, axis=1), 0) for name, value in features.items() if name != "image"}
    drawn = cvrl_distortions.weakened(drawn, strength)
    return tf.map_fn(
        distorted, {"image": image, **drawn}, fn_output_signature=tf.TensorSpec(image.shape[1:], params.dtype)
    )
