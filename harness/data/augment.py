"""RandAugment over a whole clip at once: the Garden's policy, draws and pixels, several times as fast.

Every frame of a clip gets the same operation at the same magnitude, as in the Garden. What the Garden computes once per
frame and channel is computed here once per clip: where a warp takes each pixel from, and what becomes of each grey
level. The result is the Garden's bit for bit; `tests/test_augment.py` holds each operation against it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import tensorflow as tf
from official.vision.ops import augment

Operation = Callable[..., tf.Tensor]


class RandAugment(augment.RandAugment):
    """The Garden's policy with the operations of this module; takes what the Garden's takes.

    Clips are uint8 [frames, height, width, 3] of a static shape. It makes the random draws that the Garden makes, in
    the Garden's order, so that under :func:`harness.data.draws.fixed_by` both draw the same.
    """

    def distort(self, image: tf.Tensor) -> tf.Tensor:
        """The clip after `num_layers` operations, each drawn from the sixteen and none, as uint8."""
        for _ in range(self.num_layers):
            distorted = self._layer(image)
            if self.prob_to_apply is not None:
                applied = tf.random.uniform(shape=[], dtype=tf.float32) < self.prob_to_apply
                distorted = tf.cond(applied, lambda new=distorted: new, lambda old=image: old)
            image = distorted
        return image

    def _layer(self, clip: tf.Tensor) -> tf.Tensor:
        chosen = tf.random.uniform([], maxval=len(self.available_ops) + 1, dtype=tf.int32)
        branches = [self._bound(name, clip) for name in self.available_ops]
        distorted = tf.switch_case(chosen, dict(enumerate(branches)), default=lambda: tf.identity(clip))
        return tf.ensure_shape(distorted, clip.shape)

    def _bound(self, name: str, clip: tf.Tensor) -> Callable[[], tf.Tensor]:
        # The Garden draws a probability for each operation, and then ignores it.
        unused = tf.random.uniform([], minval=0.2, maxval=0.8, dtype=tf.float32)
        _, _, args = augment._parse_policy_info(
            name, unused, self.magnitude, [128] * 3, self.cutout_const, self.translate_const, self.magnitude_std
        )
        return lambda: OPERATIONS[name](clip, *args)


def _rows(clip: tf.Tensor) -> tf.Tensor:
    """[frames x height, width x 3]: long rows, over which TensorFlow's kernels are vectorised."""
    return tf.reshape(clip, [-1, clip.shape[2] * clip.shape[3]])


def _along_a_row(channels: Any, clip: tf.Tensor) -> tf.Tensor:
    """A value for each channel, [3] -> [width x 3]."""
    return tf.tile(channels, [clip.shape[2]])


def autocontrast(clip: tf.Tensor) -> tf.Tensor:
    """Stretches each channel of the clip to 0..255."""
    low = tf.cast(tf.reduce_min(clip, [0, 1, 2]), tf.float32)
    high = tf.cast(tf.reduce_max(clip, [0, 1, 2]), tf.float32)
    scale = tf.where(high > low, 255.0 / (high - low), 1.0)
    offset = tf.where(high > low, -low * scale, 0.0)
    stretched = tf.cast(_rows(clip), tf.float32) * _along_a_row(scale, clip) + _along_a_row(offset, clip)
    return tf.reshape(tf.cast(tf.clip_by_value(stretched, 0.0, 255.0), tf.uint8), clip.shape)


def equalize(clip: tf.Tensor) -> tf.Tensor:
    """Evens out the histogram of each channel of the clip."""
    levels = tf.cast(_rows(clip), tf.int32) + _along_a_row([0, 256, 512], clip)
    histograms = tf.raw_ops.DenseBincount(
        input=tf.reshape(levels, [-1]), size=3 * 256, weights=tf.zeros([0], tf.int32), binary_output=False
    )
    table = tf.concat([_equalizing(one) for one in tf.unstack(tf.reshape(histograms, [3, 256]))], 0)
    return tf.reshape(tf.gather(table, levels), clip.shape)


def _equalizing(histogram: tf.Tensor) -> tf.Tensor:
    """The table of grey levels, uint8 [256], that evens out a histogram [256], by the Garden's integer formula."""
    present = tf.boolean_mask(histogram, histogram > 0)
    step = (tf.reduce_sum(histogram) - present[-1]) // 255
    safe = tf.maximum(step, 1)
    table = tf.clip_by_value(tf.concat([[0], ((tf.cumsum(histogram) + safe // 2) // safe)[:-1]], 0), 0, 255)
    return tf.cast(tf.where(step == 0, tf.range(256), table), tf.uint8)


def solarize(clip: tf.Tensor, threshold: int) -> tf.Tensor:
    """Inverts what is not below the threshold; 256 is taken as 0, as the Garden takes it at the greatest magnitude."""
    inverted = tf.cast(clip >= tf.constant(threshold % 256, tf.uint8), tf.uint8) * tf.constant(255, tf.uint8)
    return tf.bitwise.bitwise_xor(clip, inverted)


def solarize_add(clip: tf.Tensor, addition: int) -> tf.Tensor:
    """Brightens what is below 128 by `addition`, 0..255, up to white."""
    room = tf.bitwise.bitwise_xor(clip, tf.constant(255, tf.uint8))
    below = tf.cast(clip < tf.constant(128, tf.uint8), tf.uint8)
    return clip + below * tf.minimum(room, tf.constant(addition, tf.uint8))


def sharpness(clip: tf.Tensor, factor: float) -> tf.Tensor:
    """Blends the clip with its smoothed self; the frames' edges stay as they are."""
    kernel = tf.constant([[1, 1, 1], [1, 5, 1], [1, 1, 1]], tf.float32, shape=[3, 3, 1, 1]) / 13.0
    smooth = tf.nn.depthwise_conv2d(tf.cast(clip, tf.float32), tf.tile(kernel, [1, 1, 3, 1]), [1, 1, 1, 1], "VALID")
    smooth = tf.cast(tf.clip_by_value(smooth, 0.0, 255.0), tf.uint8)
    inner = augment.blend(smooth, clip[:, 1:-1, 1:-1], factor)
    around = [[0, 0], [1, 1], [1, 1], [0, 0]]
    edge = tf.pad(tf.zeros(inner.shape[1:], tf.uint8), around[1:], constant_values=1)
    return clip * edge + tf.pad(inner, around)


def cutout(clip: tf.Tensor, size: int, replace: Sequence[int]) -> tf.Tensor:
    """Fills a box of random size and place, over a random span of frames, with `replace`; ignores `size`.

    So does the Garden, whose draws these are.
    """
    del size
    depth, height, width, channels = clip.shape
    row, column, frame = (_number(0, length) for length in (height, width, depth))
    tall, wide = (_number(max(1, length // 4), max(2, length // 2)) for length in (height, width))
    deep = _number(1, max(2, depth // 4))
    spans = ((frame, deep, depth, 1), (row, tall, height, 1), (column, wide, width, channels))
    margins = [
        [tf.maximum(0, middle - half) * unit, tf.maximum(0, length - middle - half) * unit]
        for middle, half, length, unit in spans
    ]
    box = [length * unit - before - after for (_, _, length, unit), (before, after) in zip(spans, margins, strict=True)]
    kept = tf.reshape(tf.pad(tf.zeros(box, tf.uint8), margins, constant_values=1), [-1, width * channels])
    filling = (tf.constant(1, tf.uint8) - kept) * _along_a_row(tf.constant(replace, tf.uint8), clip)
    return tf.reshape(_rows(clip) * kept + filling, clip.shape)


def _number(least: int, below: int) -> tf.Tensor:
    return tf.random.uniform(shape=[], minval=least, maxval=below, dtype=tf.int32)


def rotate(clip: tf.Tensor, degrees: tf.Tensor, replace: Sequence[int]) -> tf.Tensor:
    """Turns the frames; what comes in from outside is their reflection."""
    del replace  # the reflection leaves nothing to fill
    return _warped(clip, lambda places: augment.rotate(places, degrees))


def shear_x(clip: tf.Tensor, level: tf.Tensor, replace: Sequence[int]) -> tf.Tensor:
    """Shifts each row in proportion to its place."""
    del replace
    return _warped(clip, lambda places: augment.transform(places, [1.0, level, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]))


def shear_y(clip: tf.Tensor, level: tf.Tensor, replace: Sequence[int]) -> tf.Tensor:
    """Shifts each column in proportion to its place."""
    del replace
    return _warped(clip, lambda places: augment.transform(places, [1.0, 0.0, 0.0, level, 1.0, 0.0, 0.0, 0.0]))


def translate_x(clip: tf.Tensor, pixels: tf.Tensor, replace: Sequence[int]) -> tf.Tensor:
    """Shifts the frames sideways."""
    del replace
    return _warped(clip, lambda places: augment.translate(places, [-pixels, 0]))


def translate_y(clip: tf.Tensor, pixels: tf.Tensor, replace: Sequence[int]) -> tf.Tensor:
    """Shifts the frames up or down."""
    del replace
    return _warped(clip, lambda places: augment.translate(places, [0, -pixels]))


def _warped(clip: tf.Tensor, warp: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """The clip under a warp of the Garden's that takes each pixel from one place.

    The places themselves are warped, once for all frames and channels.
    """
    frames, height, width, channels = clip.shape
    places = warp(tf.reshape(tf.range(height * width), [1, height, width, 1]))
    bytes_ = tf.reshape(channels * tf.reshape(places, [-1, 1]) + tf.range(channels), [-1])
    # A place of all frames at a time: fewer and longer copies.
    moved = tf.gather(tf.transpose(tf.reshape(clip, [frames, -1])), bytes_)
    return tf.reshape(tf.transpose(moved), clip.shape)


OPERATIONS: Mapping[str, Operation] = MappingProxyType(
    {
        "AutoContrast": autocontrast,
        "Equalize": equalize,
        "Invert": augment.invert,
        "Rotate": rotate,
        "Posterize": augment.posterize,
        "Solarize": solarize,
        "SolarizeAdd": solarize_add,
        "Color": augment.color,
        "Contrast": augment.contrast,
        "Brightness": augment.brightness,
        "Sharpness": sharpness,
        "ShearX": shear_x,
        "ShearY": shear_y,
        "TranslateX": translate_x,
        "TranslateY": translate_y,
        "Cutout": cutout,
    }
)
