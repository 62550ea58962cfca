"""The distortions of contrastive pre-training: draws their parameters for a clip, and applies them to its pixels.

They are those of `official.projects.video_ssl`, that is, CVRL's (Qian et al. 2021) plus the solarization of BYOL, with
one draw for all frames of a clip. The parameters are drawn on the host, with the rest of a clip (:func:`drawn`), and
applied on the accelerator (:func:`distorted`), so that clips are sent there as bytes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import tensorflow as tf
from official.projects.video_ssl.ops import video_ssl_preprocess_ops as gardens


@dataclasses.dataclass(frozen=True)
class ClipView:
    """The distortions in which the first and the second clip of a video differ.

    Attributes:
      blurred, solarized: probabilities that a clip is blurred, or solarized.
    """

    blurred: float
    solarized: float


# The Garden has these numbers in its code, not in its configuration (`video_ssl_input._process_image`, `color_jitter`).
VIEWS = (ClipView(blurred=1.0, solarized=0.0), ClipView(blurred=0.1, solarized=0.2))
JITTERED, GREY = 0.8, 0.2
FACTORS = (0.2, 1.8)  # of brightness, contrast and saturation
HUE = 0.2  # largest rotation of the hue, as a fraction of a full turn
SIGMA = (0.1, 2.0)  # of the blur, pixels
# The numbers of the jitter's operations; the last does nothing.
_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE, _NOTHING = range(5)

Drawn = Mapping[str, tf.Tensor]


def draw_distortions(view: ClipView) -> dict[str, tf.Tensor]:
    """Draws the distortions of one clip.

    Returns:
      "order", int32 [4]: the jitter's operations in order, or four times 4 for no jitter; "brightness", "contrast",
      "saturation": factors; "hue": the rotation, as a fraction of a full turn; "grey", "solarized": whether to apply
      them; "sigma": that of the blur in pixels, 0 for no blur.
    """
    order, jittered = tf.random.shuffle(tf.range(_NOTHING)), _happens(JITTERED)
    return {
        "order": tf.where(jittered, order, _NOTHING),
        **{name: tf.random.uniform([], *FACTORS) for name in ("brightness", "contrast", "saturation")},
        "hue": tf.random.uniform([], -HUE, HUE),
        "grey": _happens(GREY),
        "sigma": tf.random.uniform([], *SIGMA) * tf.cast(_happens(view.blurred), tf.float32),
        "solarized": _happens(view.solarized),
    }


def _happens(probability: float) -> tf.Tensor:
    return tf.random.uniform([]) < probability


def weakened(by: Drawn, strength: float) -> dict[str, tf.Tensor]:
    """Weakens factors, rotation of the hue and blur in proportion to `strength`; 1 leaves them as they were drawn.

    Greyscale and solarization have no strength, only a probability, and stay as they were drawn.
    """
    if strength == 1:
        return dict(by)
    factors = {name: 1.0 + strength * (by[name] - 1.0) for name in ("brightness", "contrast", "saturation")}
    return {**by, **factors, "hue": strength * by["hue"], "sigma": strength * by["sigma"]}


def distorted(clip: tf.Tensor, by: Drawn) -> tf.Tensor:
    """Applies all distortions to a clip.

    Args:
      clip: float32 [frames, height, width, 3] in [0, 1].
      by: the parameters that :func:`drawn` drew for it.
    """
    shape = clip.shape
    # All frames become one tall image, so that contrast is relative to the mean of the whole clip.
    clip = jittered(tf.reshape(clip, [-1, *shape[2:]]), by)
    clip = tf.cond(by["grey"], lambda: grey(clip), lambda: clip)
    frames = tf.reshape(clip, shape)
    frames = tf.cond(by["sigma"] > 0, lambda: blurred(frames, by["sigma"]), lambda: frames)
    frames = tf.cond(by["solarized"], lambda: solarized(frames), lambda: frames)
    return tf.ensure_shape(tf.clip_by_value(frames, 0.0, 1.0), shape)


def jittered(image: tf.Tensor, by: Drawn) -> tf.Tensor:
    """Changes brightness, contrast, saturation and hue in the drawn order, clipping to [0, 1] after each."""
    for position in range(_NOTHING):
        image = tf.clip_by_value(_jitter(image, by["order"][position], by), 0.0, 1.0)
    return image


def _jitter(image: tf.Tensor, number: tf.Tensor, by: Drawn) -> tf.Tensor:
    operations: dict[int, Callable[[], tf.Tensor]] = {
        _BRIGHTNESS: lambda: image * by["brightness"],
        _CONTRAST: lambda: tf.image.adjust_contrast(image, by["contrast"]),
        _SATURATION: lambda: tf.image.adjust_saturation(image, by["saturation"]),
        _HUE: lambda: tf.image.adjust_hue(image, by["hue"]),
    }
    return tf.ensure_shape(tf.switch_case(number, operations, default=lambda: tf.identity(image)), image.shape)


def grey(image: tf.Tensor) -> tf.Tensor:
    """Removes the colours of the image, which keeps three channels."""
    return tf.repeat(tf.image.rgb_to_grayscale(image), 3, axis=-1)


def blurred(frames: tf.Tensor, sigma: tf.Tensor) -> tf.Tensor:
    """Blurs each frame with a Gaussian kernel a tenth of its height wide; pixels outside the frame count as black."""
    return tf.ensure_shape(gardens.gaussian_blur(frames, frames.shape[1] // 10, sigma), frames.shape)


def solarized(image: tf.Tensor) -> tf.Tensor:
    """Inverts the values of the image that are 0.5 or more."""
    return tf.where(image < 0.5, image, 1.0 - image)
