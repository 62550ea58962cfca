"""The distortions of contrastive pre-training: what is drawn for a clip, and what becomes of its pixels.

Those of `official.projects.video_ssl`, which are CVRL's (Qian et al. 2021) with the solarization of BYOL added: one
draw for all frames of a clip. They are drawn on the host, with the rest of a clip (:func:`drawn`), and carried out on
the accelerator (:func:`distorted`), so that clips cross as bytes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import tensorflow as tf
from official.projects.video_ssl.ops import video_ssl_preprocess_ops as gardens


@dataclasses.dataclass(frozen=True)
class ClipView:
    """How the first and the second clip of a video differ.

    Attributes:
      blurred, solarized: probabilities.
    """

    blurred: float
    solarized: float


# The Garden's numbers, which its configuration cannot say (`video_ssl_input._process_image`, `color_jitter`).
VIEWS = (ClipView(blurred=1.0, solarized=0.0), ClipView(blurred=0.1, solarized=0.2))
JITTERED, GREY = 0.8, 0.2
FACTORS = (0.2, 1.8)  # of brightness, contrast and saturation
HUE = 0.2  # the furthest that the hue is turned, of a whole turn
SIGMA = (0.1, 2.0)  # of the blur, pixels
# The operations of the jitter by their numbers; the last is to do nothing.
_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE, _NOTHING = range(5)

Drawn = Mapping[str, tf.Tensor]


def draw_distortions(view: ClipView) -> dict[str, tf.Tensor]:
    """What is drawn for one clip.

    Returns:
      "order", int32 [4]: the jitter's operations in their order, all of them 4 for none; "brightness", "contrast",
      "saturation": factors; "hue": the turn; "grey", "solarized": whether; "sigma": of the blur in pixels, 0 for none.
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
    """What was drawn with factors, turn of the hue and blur brought closer to none; at a strength of 1 as it was.

    Greyscale and solarization, which come whole or not, stay: how likely they are was drawn.
    """
    if strength == 1:
        return dict(by)
    factors = {name: 1.0 + strength * (by[name] - 1.0) for name in ("brightness", "contrast", "saturation")}
    return {**by, **factors, "hue": strength * by["hue"], "sigma": strength * by["sigma"]}


def distorted(clip: tf.Tensor, by: Drawn) -> tf.Tensor:
    """A clip after all distortions.

    Args:
      clip: float32 [frames, height, width, 3] in [0, 1].
      by: what was drawn for it, as :func:`drawn` gives it.
    """
    shape = clip.shape
    # All frames as one tall image: the contrast is that of the whole clip.
    clip = jittered(tf.reshape(clip, [-1, *shape[2:]]), by)
    clip = tf.cond(by["grey"], lambda: grey(clip), lambda: clip)
    frames = tf.reshape(clip, shape)
    frames = tf.cond(by["sigma"] > 0, lambda: blurred(frames, by["sigma"]), lambda: frames)
    frames = tf.cond(by["solarized"], lambda: solarized(frames), lambda: frames)
    return tf.ensure_shape(tf.clip_by_value(frames, 0.0, 1.0), shape)


def jittered(image: tf.Tensor, by: Drawn) -> tf.Tensor:
    """Brightness, contrast, saturation and hue in the drawn order, cut off to [0, 1] after each."""
    for place in range(_NOTHING):
        image = tf.clip_by_value(_jitter(image, by["order"][place], by), 0.0, 1.0)
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
    """The image without its colours, still of three channels."""
    return tf.repeat(tf.image.rgb_to_grayscale(image), 3, axis=-1)


def blurred(frames: tf.Tensor, sigma: tf.Tensor) -> tf.Tensor:
    """Each frame under a Gaussian as wide as a tenth of the frame's height; what is outside counts as black."""
    return tf.ensure_shape(gardens.gaussian_blur(frames, frames.shape[1] // 10, sigma), frames.shape)


def solarized(image: tf.Tensor) -> tf.Tensor:
    """The image with what is not below a half inverted."""
    return tf.where(image < 0.5, image, 1.0 - image)
