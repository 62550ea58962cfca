"""Decodes the JPEG frames of a video into clips of uint8 that equal the Garden's bit for bit, and no more than needed.

For training, only the region that the crop keeps is decoded of each frame. For evaluation, each frame is decoded once,
however many clips show it, and its crops are cut on the accelerator (:mod:`harness.data.on_device`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf
from official.vision.configs import video_classification as exp_cfg
from official.vision.ops import augment as gardens
from official.vision.ops import preprocess_ops_3d

from harness.data import randaugment

# Pixels decoded beyond the region on its left and right: the decoder interpolates colour between neighbouring pixels.
_MARGIN = 2


def training_clip(encoded: tf.Tensor, params: exp_cfg.DataConfig) -> tf.Tensor:
    """Returns a random clip of a video, with the Garden's draws of time, crop, flip and augmentation, and its pixels.

    Args:
      encoded: the video's frames, strings [n].
      params: the Garden's configuration of the training data.

    Returns:
      uint8 [frames, height, width, 3].
    """
    frames = preprocess_ops_3d.sample_sequence(encoded, params.feature_shape[0], True, _stride(params))
    clip = cut_out(frames, params)
    if params.aug_random_rotation:
        clip = tf.ensure_shape(preprocess_ops_3d.random_rotation(clip), clip.shape)
    distort = _augmentation(params)
    return tf.ensure_shape(distort(clip), clip.shape) if distort else clip


def cut_out(frames: tf.Tensor, params: exp_cfg.DataConfig) -> tf.Tensor:
    """Cuts a random region out of all frames of a clip, resizes and perhaps mirrors it: the Garden's draws and pixels.

    Args:
      frames: the clip's frames, strings [frames].
      params: the Garden's configuration of the training data.

    Returns:
      uint8 [frames, height, width, 3].
    """
    count, height, width, _ = params.feature_shape
    size = _size(frames[0], params)
    corner, extent = _region(size, params)
    decode = _region_decoder(params, size, corner, extent)

    def resized(frame: tf.Tensor) -> tf.Tensor:
        return tf.cast(tf.image.resize(decode(frame), (height, width)), tf.uint8)

    clip = tf.map_fn(resized, frames, fn_output_signature=tf.TensorSpec([height, width, 3], tf.uint8))
    return _flipped(tf.ensure_shape(clip, [count, height, width, 3]))


def _stride(params: exp_cfg.DataConfig) -> int | tf.Tensor:
    stride, spread = params.temporal_stride, params.random_stride_range
    if not spread:
        return stride
    return tf.random.uniform([], max(stride - spread, 1), stride + spread, dtype=tf.int32)


def _region(size: tf.Tensor, params: exp_cfg.DataConfig) -> tuple[tf.Tensor, tf.Tensor]:
    """Draws the crop: its corner (down, right) and its extent (height, width), in pixels."""
    factor = params.feature_shape[2] / params.feature_shape[1]
    begin, extent, _ = tf.image.sample_distorted_bounding_box(
        size,
        bounding_boxes=tf.constant([0.0, 0.0, 1.0, 1.0], shape=[1, 1, 4]),
        min_object_covered=0.1,
        aspect_ratio_range=(params.aug_min_aspect_ratio * factor, params.aug_max_aspect_ratio * factor),
        area_range=(params.aug_min_area_ratio, params.aug_max_area_ratio),
        max_attempts=100,
        use_image_if_no_bounding_boxes=True,
    )
    return begin[:2], extent[:2]


def _flipped(clip: tf.Tensor) -> tf.Tensor:
    """Mirrors the clip, with a probability of one half."""
    mirrored = tf.random.uniform((), minval=0, maxval=2, dtype=tf.int32)
    # On three axes, TensorFlow reverses whole rows at a time.
    rows = tf.reshape(clip, [-1, *clip.shape[2:]])
    return tf.cond(mirrored == 1, lambda: tf.reshape(tf.reverse(rows, [1]), clip.shape), lambda: clip)


def _augmentation(params: exp_cfg.DataConfig) -> Callable[[tf.Tensor], tf.Tensor] | None:
    kind = params.aug_type
    if kind is None:
        return None
    if kind.type == "randaug":
        policy = kind.randaug
        return randaugment.RandAugment(
            num_layers=policy.num_layers,
            magnitude=policy.magnitude,
            cutout_const=policy.cutout_const,
            translate_const=policy.translate_const,
            prob_to_apply=policy.prob_to_apply,
            exclude_ops=policy.exclude_ops,
        ).distort
    if kind.type == "autoaug":
        policy = kind.autoaug
        return gardens.AutoAugment(
            augmentation_name=policy.augmentation_name,
            cutout_const=policy.cutout_const,
            translate_const=policy.translate_const,
        ).distort
    raise ValueError(f"aug_type.type is {kind.type!r}; expected 'randaug' or 'autoaug'")


def evaluation_frames(encoded: tf.Tensor, params: exp_cfg.DataConfig, longest: int) -> dict[str, tf.Tensor]:
    """Returns the frames of a video's evaluation clips, resized as the Garden does; three crops are not cut yet.

    Args:
      encoded: the video's frames, strings [n].
      params: the Garden's configuration of the validation data.
      longest: with three crops, width of the result; :func:`longest` says what it must be.

    Returns:
      "image", uint8 [clips x frames, height, width, 3]. With three crops, the longer side of the frames lies along
      the width, padded with zeros, and there are two more entries: "starts", int32 [3], where the crops begin along the
      width, and "turned", whether the frames were transposed for this.
    """
    indices = _evaluated(tf.shape(encoded)[0], params)
    distinct, positions = tf.unique(indices)
    frames = tf.gather(encoded, distinct)
    size = _size(frames[0], params)
    if params.num_test_crops == 1:
        return {
            "image": _each_once(frames, positions, _decoder(params, size), _central(params), params.feature_shape[1:])
        }
    resized, turned, starts = _layout(size, params, longest)
    laid, side = _laid_along(params, longest, resized, turned, starts), params.feature_shape[1]
    image = _each_once(frames, positions, _decoder(params, size), laid, [side, longest, 3])
    # Where there are gaps between the crops, only the crops are kept, side by side.
    starts = tf.where(tf.reduce_max(resized) > longest, side * tf.range(3), starts)
    return {"image": image, "starts": starts, "turned": turned}


def longest(params: exp_cfg.DataConfig, frame: tuple[int, int] = (0, 0)) -> int:
    """Returns how many pixels of the longer side the three crops can reach in any video.

    Args:
      params: the Garden's configuration of the validation data.
      frame: height and width of all frames of the data set, or zeros where they differ.
    """
    _, height, width, _ = params.feature_shape
    if height != width:
        raise ValueError(f"three crops of {height} x {width} pixels: expected square ones")
    short, long = sorted(frame)
    reach = long * params.min_image_size // short if short else 3 * height
    return max(height, min(3 * height, reach))


def _evaluated(count: tf.Tensor, params: exp_cfg.DataConfig) -> tf.Tensor:
    """Returns the numbers of the frames that the clips show, clip after clip, int32 [clips x frames]."""
    numbers, frames, stride = tf.range(count), params.feature_shape[0], params.temporal_stride
    if params.num_test_clips > 1:
        return preprocess_ops_3d.sample_linspace_sequence(numbers, params.num_test_clips, frames, stride)
    return preprocess_ops_3d.sample_sequence(numbers, frames, False, stride)


def _each_once(
    frames: tf.Tensor,
    positions: tf.Tensor,
    decode: Callable[[tf.Tensor], tf.Tensor],
    laid: Callable[[tf.Tensor], tf.Tensor],
    shape: Sequence[int],
) -> tf.Tensor:
    """Decodes each frame once, turns it into one of `shape` by `laid`, and puts it wherever it is shown."""
    count = tf.shape(frames)[0]
    _, done = tf.while_loop(
        lambda number, _: number < count,
        lambda number, done: (number + 1, done.write(number, tf.ensure_shape(laid(decode(frames[number])), shape))),
        (tf.constant(0), tf.TensorArray(tf.uint8, count, element_shape=shape)),
    )
    return tf.ensure_shape(done.gather(positions), [positions.shape[0], *shape])


def _central(params: exp_cfg.DataConfig) -> Callable[[tf.Tensor], tf.Tensor]:
    _, height, width, _ = params.feature_shape

    def cropped(frame: tf.Tensor) -> tf.Tensor:
        resized = preprocess_ops_3d.resize_smallest(frame[tf.newaxis], params.min_image_size)
        return preprocess_ops_3d.crop_image(resized, height, width)[0]

    return cropped


def _layout(size: tf.Tensor, params: exp_cfg.DataConfig, longest: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the frame's resized height and width, whether to transpose it, and where the Garden's crops begin."""
    side, least = params.feature_shape[1], params.min_image_size
    height, width = size[0], size[1]
    resized = tf.maximum(least, tf.stack([height * least // width, width * least // height]))
    turned = tf.logical_and(resized[0] >= resized[1], resized[0] > side)
    long = tf.cast(tf.reduce_max(resized), tf.float32)
    starts = tf.cast(tf.round(tf.stack([0.0, long / 2 - side // 2, long - side])), tf.int32)
    fits = tf.logical_or(tf.reduce_max(resized) <= longest, longest == 3 * side)
    message = ["resized frames of", resized, "pixels; expected at most", longest, "on the longer side"]
    with tf.control_dependencies([tf.debugging.Assert(fits, message)]):
        return tf.identity(resized), turned, starts


def _laid_along(
    params: exp_cfg.DataConfig, longest: int, resized: tf.Tensor, turned: tf.Tensor, starts: tf.Tensor
) -> Callable[[tf.Tensor], tf.Tensor]:
    side = params.feature_shape[1]

    def filled(frame: tf.Tensor) -> tf.Tensor:
        # This copies whole rows at a time, which `tf.pad` does not.
        return tf.concat([frame, tf.zeros([side, longest - tf.shape(frame)[1], 3], tf.uint8)], 1)

    def compact(frame: tf.Tensor) -> tf.Tensor:
        return tf.concat([frame[:, start : start + side] for start in tf.unstack(starts)], 1)

    def laid(frame: tf.Tensor) -> tf.Tensor:
        frame = preprocess_ops_3d.resize_smallest(frame[tf.newaxis], params.min_image_size)[0]
        frame = tf.cond(turned, lambda: tf.transpose(frame, [1, 0, 2]), lambda: frame)[:side]
        return tf.cond(tf.reduce_max(resized) > longest, lambda: compact(frame), lambda: filled(frame))

    return laid


def _size(frame: tf.Tensor, params: exp_cfg.DataConfig) -> tf.Tensor:
    """Returns height, width and channels of a frame, int32 [3]."""
    jpeg = params.input_image_format == "jpeg"
    size = tf.io.extract_jpeg_shape(frame) if jpeg else tf.shape(_any_image(frame))
    return tf.concat([size[:2], [3]], 0)


def _decoder(params: exp_cfg.DataConfig, size: tf.Tensor) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns a function that decodes a frame, which must have the size of the video."""

    def decode(frame: tf.Tensor) -> tf.Tensor:
        jpeg = params.input_image_format == "jpeg"
        pixels = tf.image.decode_jpeg(frame, channels=3) if jpeg else _any_image(frame)
        with tf.control_dependencies([_same(tf.shape(pixels), size)]):
            return tf.identity(pixels)

    return decode


def _region_decoder(
    params: exp_cfg.DataConfig, size: tf.Tensor, corner: tf.Tensor, extent: tf.Tensor
) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns a function that decodes a region of a frame."""
    if params.input_image_format != "jpeg":
        decode = _decoder(params, size)
        return lambda frame: tf.slice(decode(frame), [*tf.unstack(corner), 0], [*tf.unstack(extent), 3])
    left = tf.maximum(corner[1] - _MARGIN, 0)
    right = tf.minimum(corner[1] + extent[1] + _MARGIN, size[1])
    window = tf.stack([corner[0], left, extent[0], right - left])
    inset = corner[1] - left

    def decode_region(frame: tf.Tensor) -> tf.Tensor:
        with tf.control_dependencies([_same(_size(frame, params), size)]):
            pixels = tf.image.decode_and_crop_jpeg(frame, window, channels=3)
        return pixels[:, inset : inset + extent[1]]

    return decode_region


def _any_image(frame: tf.Tensor) -> tf.Tensor:
    pixels = tf.image.decode_image(frame, channels=3, expand_animations=False)
    return tf.ensure_shape(pixels, [None, None, 3])


def _same(actual: tf.Tensor, expected: tf.Tensor) -> tf.Operation:
    return tf.debugging.Assert(
        tf.reduce_all(actual == expected), ["a frame of", actual, "pixels; expected", expected, "as in the first"]
    )
