"""Finishes clips on the accelerator: cuts the crops of an evaluation, casts from uint8, and scales.

On every device, the numbers equal those that the Garden computes on the host.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf
from official.vision.configs import video_classification as exp_cfg

# 1/255 in two parts. A byte times the first part, over 2**23, is exact in float32, so the sum is rounded only once, to
# the quotient. A division would not do: TensorFlow and XLA turn it into a product with the rounded reciprocal.
_PART = 2**23 // 255
_REST = 1 / 255 - _PART / 2**23


def for_network(features: Mapping[str, tf.Tensor], params: exp_cfg.DataConfig) -> dict[str, tf.Tensor]:
    """Turns the features that :mod:`harness.data.reader` sent into the network's input.

    Args:
      features: "image", and in an evaluation with three crops "starts" and "turned".
      params: the Garden's configuration of the data.

    Returns:
      "image" [clips, frames, height, width, 3] of the configured type in [0, 1], or in [-1, 1] where zero-centred;
      in an evaluation the views of a video follow one another, crop by crop.
    """
    image = features["image"]
    if not params.is_training:
        image = tf.reshape(_crops(features, params), [-1, *params.feature_shape])
    return {"image": scaled(image, params)}


def scaled(image: tf.Tensor, params: exp_cfg.DataConfig) -> tf.Tensor:
    """Scales bytes to [0, 1], or to [-1, 1] where zero-centred; leaves images that are scaled already."""
    if image.dtype != tf.uint8:
        return image
    if params.zero_centering_image:
        return tf.cast(tf.cast(image, tf.float32) * (2.0 / 255.0) - 1.0, params.dtype)
    return tf.cast(unit(image), params.dtype)


def unit(image: tf.Tensor) -> tf.Tensor:
    """Scales bytes to float32 in [0, 1]."""
    whole = tf.cast(tf.cast(image, tf.int32) * _PART, tf.float32) * 2.0**-23
    return whole + tf.cast(image, tf.float32) * _REST


def _crops(features: Mapping[str, tf.Tensor], params: exp_cfg.DataConfig) -> tf.Tensor:
    """Cuts the crops: [videos, clips x frames, ...] -> [videos, crops x clips x frames, height, width, 3]."""
    if params.num_test_crops == 1:
        return features["image"]
    side = params.feature_shape[1]
    frames = params.num_test_clips * params.feature_shape[0]

    def cropped(video: tuple[Any, ...]) -> tf.Tensor:
        image, starts, turned = video
        crops = [tf.slice(image, [0, 0, start, 0], [frames, side, side, 3]) for start in tf.unstack(starts)]
        together = tf.concat(crops, 0)
        return tf.cond(turned, lambda: tf.transpose(together, [0, 2, 1, 3]), lambda: together)

    spec = tf.TensorSpec([3 * frames, side, side, 3], tf.uint8)
    return tf.map_fn(cropped, (features["image"], features["starts"], features["turned"]), fn_output_signature=spec)
