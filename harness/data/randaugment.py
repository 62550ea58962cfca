"""RandAugment over a whole clip at once: the Garden's policy, draws and pixels, several times as fast.

Every frame of a clip gets the same operation at the same magnitude, as in the Garden. What the Garden computes once per
frame and channel is computed here once per clip: from where a warp takes each pixel, and which value replaces each grey
level. The work that remains for each pixel is compiled into one loop. The result equals the Garden's bit for bit;
`tests/test_augment.py` compares each operation with it, and the arithmetic for every byte, colour and pair of bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import tensorflow as tf
from official.vision.ops import augment

Operation = Callable[..., tf.Tensor]

# The factor by which TensorFlow multiplies numbers in [0, 1] before it truncates them to bytes.
_TO_BYTE = 255.5


class RandAugment(augment.RandAugment):
    """The Garden's policy with the operations of this module; takes the same arguments as the Garden's.

    Clips are uint8 [frames, height, width, 3] of a static shape. It makes the random draws that the Garden makes, in
    the Garden's order, so that under :func:`harness.data.seeded_ops.fixed_by` both draw the same.
    """

    def distort(self, image: tf.Tensor) -> tf.Tensor:
        """Applies `num_layers` operations to the clip, each drawn from the sixteen and none; returns uint8."""
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


def _compiled(kernel: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    """Compiles a function into one loop over the clip, with XLA.

    The caller passes numbers as arguments instead of building them in: XLA would compile the function anew for each
    number, and may merge two constant factors into one, which rounds differently.
    """
    compiled: Callable[..., tf.Tensor] = tf.function(kernel, jit_compile=True, autograph=False)
    return compiled


def _rounded(product: tf.Tensor) -> tf.Tensor:
    """Rounds a product of bytes before it is added to a sum, as in the Garden; XLA would otherwise round only the sum.

    No such product reaches the bound of the minimum, but XLA cannot know that.
    """
    return tf.minimum(product, 1e6)


def _number(clip: tf.Tensor) -> tf.Tensor:
    return tf.cast(clip, tf.float32)


def _byte(number: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.clip_by_value(number, 0.0, 255.0), tf.uint8)


def _mixed(first: tf.Tensor, second: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Blends two arrays as the Garden's `blend` does, for every factor: 0 gives the first, 1 the second."""
    return _byte(first + _rounded(factor * (second - first)))


def autocontrast(clip: tf.Tensor) -> tf.Tensor:
    """Stretches each channel of the clip to 0..255."""
    low, high = (_number(end) for end in tf.unstack(_ends(clip)))
    scale = tf.where(high > low, 255.0 / (high - low), 1.0)
    return _stretched(clip, scale, tf.where(high > low, -low * scale, 0.0))


@_compiled
def _ends(clip: tf.Tensor) -> tf.Tensor:
    """Returns the least and the greatest byte of each channel, [2, 3]."""
    rows = tf.reshape(clip, [-1, clip.shape[2] * clip.shape[3]])
    low, high = (tf.reshape(end, [-1, clip.shape[3]]) for end in (tf.reduce_min(rows, 0), tf.reduce_max(rows, 0)))
    return tf.stack([tf.reduce_min(low, 0), tf.reduce_max(high, 0)])


@_compiled
def _stretched(clip: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
    return _byte(_rounded(_number(clip) * scale) + offset)


def equalize(clip: tf.Tensor) -> tf.Tensor:
    """Evens out the histogram of each channel of the clip."""
    # The rows are made long, since TensorFlow's kernels are vectorised over them.
    rows = tf.reshape(clip, [-1, clip.shape[2] * clip.shape[3]])
    levels = tf.cast(rows, tf.int32) + tf.tile([0, 256, 512], [clip.shape[2]])
    histograms = tf.raw_ops.DenseBincount(
        input=tf.reshape(levels, [-1]), size=3 * 256, weights=tf.zeros([0], tf.int32), binary_output=False
    )
    return _looked_up(
        clip, tf.concat([_equalizing(channel) for channel in tf.unstack(tf.reshape(histograms, [3, 256]))], 0)
    )


def _equalizing(histogram: tf.Tensor) -> tf.Tensor:
    """Returns the table, uint8 [256], that evens out a histogram [256], by the Garden's integer formula."""
    present = tf.boolean_mask(histogram, histogram > 0)
    step = (tf.reduce_sum(histogram) - present[-1]) // 255
    safe = tf.maximum(step, 1)
    table = tf.clip_by_value(tf.concat([[0], ((tf.cumsum(histogram) + safe // 2) // safe)[:-1]], 0), 0, 255)
    return tf.cast(tf.where(step == 0, tf.range(256), table), tf.uint8)


@_compiled
def _looked_up(clip: tf.Tensor, table: tf.Tensor) -> tf.Tensor:
    """Replaces each byte of the clip by its entry in the table of its channel, uint8 [3 x 256]."""
    return tf.gather(table, tf.cast(clip, tf.int32) + tf.constant([0, 256, 512]))


def posterize(clip: tf.Tensor, bits: int) -> tf.Tensor:
    """Clears all but the highest bits."""
    return tf.bitwise.bitwise_and(clip, augment.posterize(tf.constant(255, tf.uint8), bits))


def solarize(clip: tf.Tensor, threshold: int) -> tf.Tensor:
    """Inverts bytes of at least the threshold; 256 counts as 0, as in the Garden at the greatest magnitude."""
    return _solarized(clip, tf.constant(threshold % 256, tf.uint8))


@_compiled
def _solarized(clip: tf.Tensor, threshold: tf.Tensor) -> tf.Tensor:
    return tf.where(clip < threshold, clip, 255 - clip)


def solarize_add(clip: tf.Tensor, addition: int) -> tf.Tensor:
    """Brightens bytes below 128 by `addition`, 0..255, at most to white."""
    return _solarized_add(clip, tf.constant(addition, tf.uint8))


@_compiled
def _solarized_add(clip: tf.Tensor, addition: tf.Tensor) -> tf.Tensor:
    return tf.where(clip < 128, clip + tf.minimum(255 - clip, addition), clip)


def color(clip: tf.Tensor, factor: float) -> tf.Tensor:
    """Blends the clip with its greyscale version."""
    weights = tf.constant([0.2989, 0.5870, 0.1140])  # `tf.image.rgb_to_grayscale`'s
    return _colored(clip, tf.constant(factor, tf.float32), tf.constant(1 / 255), weights, tf.constant(_TO_BYTE))


@_compiled
def _colored(clip: tf.Tensor, factor: tf.Tensor, unit: tf.Tensor, weights: tf.Tensor, to_byte: tf.Tensor) -> tf.Tensor:
    pixels = _number(clip)
    red, green, blue = tf.split(_rounded(pixels * unit * weights), 3, -1)
    return _mixed(tf.floor((red + green + blue) * to_byte), pixels, factor)


def contrast(clip: tf.Tensor, factor: float) -> tf.Tensor:
    """Moves each frame away from its mean colour, or towards it."""
    return _as_bytes(tf.image.adjust_contrast(tf.image.convert_image_dtype(clip, tf.float32), factor))


@_compiled
def _as_bytes(numbers: tf.Tensor) -> tf.Tensor:
    return _byte(numbers * _TO_BYTE)


def brightness(clip: tf.Tensor, factor: float) -> tf.Tensor:
    """Blends the clip with black."""
    return _brightened(clip, tf.constant(factor, tf.float32))


@_compiled
def _brightened(clip: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    return _byte(_number(clip) * factor)


def sharpness(clip: tf.Tensor, factor: float) -> tf.Tensor:
    """Blends the clip with its smoothed version; the pixels at the frames' edges stay as they are."""
    # A sum that should be a whole number may come out a little less, and then loses a whole grey level. For which sums
    # that happens depends on the machine's kernels, so XLA must not compile this; the Garden's kernels compute it.
    kernel = tf.constant([[1, 1, 1], [1, 5, 1], [1, 1, 1]], tf.float32, shape=[3, 3, 1, 1]) / 13.0
    smooth = tf.nn.depthwise_conv2d(_number(clip), tf.tile(kernel, [1, 1, 3, 1]), [1, 1, 1, 1], "SAME")
    inner = tf.fill([clip.shape[1] - 2, clip.shape[2] - 2, 1], tf.constant(factor, tf.float32))
    # With a factor of 1, the edge keeps the clip's bytes.
    return _blended(smooth, clip, tf.pad(inner, [[1, 1], [1, 1], [0, 0]], constant_values=1.0))


@_compiled
def _blended(smooth: tf.Tensor, clip: tf.Tensor, factors: tf.Tensor) -> tf.Tensor:
    return _mixed(tf.floor(tf.clip_by_value(smooth, 0.0, 255.0)), _number(clip), factors)


def cutout(clip: tf.Tensor, size: int, replace: Sequence[int]) -> tf.Tensor:
    """Fills a box of random size and position, over a random span of frames, with `replace`; ignores `size`.

    The Garden ignores it too, and the draws are the Garden's.
    """
    del size
    depth, height, width, _ = clip.shape
    row, column, frame = (_drawn(0, length) for length in (height, width, depth))
    tall, wide = (_drawn(max(1, length // 4), max(2, length // 2)) for length in (height, width))
    deep = _drawn(1, max(2, depth // 4))
    middle, half = tf.stack([frame, row, column]), tf.stack([deep, tall, wide])
    return _filled(clip, middle - half, middle + half, tf.constant(replace, tf.uint8))


def _drawn(least: int, below: int) -> tf.Tensor:
    return tf.random.uniform(shape=[], minval=least, maxval=below, dtype=tf.int32)


@_compiled
def _filled(clip: tf.Tensor, begin: tf.Tensor, end: tf.Tensor, replace: tf.Tensor) -> tf.Tensor:
    """Fills the box between the corners `begin` and `end` (frame, row, column) with `replace` [3]."""
    coordinates = [tf.range(length) for length in clip.shape[:3]]
    frames, rows, columns = (
        (begin[axis] <= coordinate) & (coordinate < end[axis]) for axis, coordinate in enumerate(coordinates)
    )
    box = frames[:, tf.newaxis, tf.newaxis] & rows[:, tf.newaxis] & columns
    return tf.where(box[..., tf.newaxis], replace, clip)


def rotate(clip: tf.Tensor, degrees: tf.Tensor, replace: Sequence[int]) -> tf.Tensor:
    """Rotates the frames; the area outside them is filled with their reflection."""
    del replace  # the reflection leaves nothing to fill
    return _moved(clip, augment.rotate(_positions(clip), degrees))


def shear_x(clip: tf.Tensor, level: tf.Tensor, replace: Sequence[int]) -> tf.Tensor:
    """Shifts each row in proportion to its number."""
    del replace
    return _moved(clip, augment.transform(_positions(clip), [1.0, level, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]))


def shear_y(clip: tf.Tensor, level: tf.Tensor, replace: Sequence[int]) -> tf.Tensor:
    """Shifts each column in proportion to its number."""
    del replace
    return _moved(clip, augment.transform(_positions(clip), [1.0, 0.0, 0.0, level, 1.0, 0.0, 0.0, 0.0]))


def translate_x(clip: tf.Tensor, pixels: tf.Tensor, replace: Sequence[int]) -> tf.Tensor:
    """Shifts the frames sideways."""
    del replace
    positions = _positions(clip)
    return _moved(clip, positions[:, :, :1] + augment.translate(positions[:, :1], [-pixels, 0]))


def translate_y(clip: tf.Tensor, pixels: tf.Tensor, replace: Sequence[int]) -> tf.Tensor:
    """Shifts the frames up or down."""
    del replace
    rows = augment.translate(tf.reshape(tf.range(clip.shape[1]), [1, -1, 1, 1]), [0, -pixels])
    return tf.gather(clip, tf.reshape(rows, [-1]), axis=1)


def _positions(clip: tf.Tensor) -> tf.Tensor:
    """Returns the number of each pixel of a frame, [1, height, width, 1].

    A warp of the Garden's takes each pixel from one position, the same in all frames and channels. So the positions are
    warped once, and then the pixels are moved.
    """
    _, height, width, _ = clip.shape
    return tf.reshape(tf.range(height * width), [1, height, width, 1])


@_compiled
def _moved(clip: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
    """Takes the pixels of each frame from `positions`."""
    frames, _, _, channels = clip.shape
    pixels = tf.reshape(clip, [frames, -1, channels])
    return tf.reshape(tf.gather(pixels, tf.reshape(positions, [-1]), axis=1), clip.shape)


OPERATIONS: Mapping[str, Operation] = MappingProxyType(
    {
        "AutoContrast": autocontrast,
        "Equalize": equalize,
        "Invert": augment.invert,
        "Rotate": rotate,
        "Posterize": posterize,
        "Solarize": solarize,
        "SolarizeAdd": solarize_add,
        "Color": color,
        "Contrast": contrast,
        "Brightness": brightness,
        "Sharpness": sharpness,
        "ShearX": shear_x,
        "ShearY": shear_y,
        "TranslateX": translate_x,
        "TranslateY": translate_y,
        "Cutout": cutout,
    }
)
