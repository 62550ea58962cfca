"""The distortions of contrastive pre-training against NumPy, the same for all frames of a clip, as likely as said."""

import colorsys

import numpy as np
import pytest
import tensorflow as tf

from harness.data import cvrl_distortions, seeded_ops

NONE = {
    "order": [4, 4, 4, 4],
    "brightness": 1.0,
    "contrast": 1.0,
    "saturation": 1.0,
    "hue": 0.0,
    "grey": False,
    "sigma": 0.0,
    "solarized": False,
}
CLIP = np.random.default_rng(0).uniform(size=(3, 20, 24, 3)).astype(np.float32)


def distorted(clip, **changed):
    return cvrl_distortions.distorted(
        tf.constant(clip), {**{k: tf.constant(v) for k, v in (NONE | changed).items()}}
    ).numpy()


def by_colour(clip, change):
    """A change of hue and saturation, colour by colour, by Python's own conversion."""
    pixels = [colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*pixel))) for pixel in clip.reshape(-1, 3).tolist()]
    return np.array(pixels, np.float32).reshape(clip.shape)


def smoothed(clip, sigma, radius):
    """A separable Gaussian, written out; what is outside counts as zero."""
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-(offsets**2) / (2 * sigma**2))
    weights /= weights.sum()
    for axis in (1, 2):
        padded = np.pad(clip, [(radius, radius) if one == axis else (0, 0) for one in range(4)])
        size = clip.shape[axis]
        clip = sum(w * np.take(padded, range(k, k + size), axis) for k, w in enumerate(weights))
    return clip


def contrasted(clip, factor):
    mean = clip.mean((0, 1, 2))
    return np.clip((clip - mean) * factor + mean, 0, 1)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, CLIP),
        ({"order": [0, 4, 4, 4], "brightness": 1.7}, np.clip(CLIP * 1.7, 0, 1)),
        ({"order": [4, 1, 4, 4], "contrast": 0.4}, contrasted(CLIP, 0.4)),
        ({"order": [4, 4, 2, 4], "saturation": 1.5}, by_colour(CLIP, lambda h, s, v: (h, min(1, 1.5 * s), v))),
        ({"order": [4, 4, 4, 3], "hue": -0.15}, by_colour(CLIP, lambda h, s, v: ((h - 0.15) % 1, s, v))),
        ({"grey": True}, np.repeat(CLIP @ np.array([0.2989, 0.587, 0.114], np.float32)[:, None], 3, -1)),
        ({"sigma": 1.3}, smoothed(CLIP, 1.3, radius=1)),
        ({"solarized": True}, np.where(CLIP < 0.5, CLIP, 1 - CLIP)),
    ],
    ids=["nothing", "brightness", "contrast", "saturation", "hue", "grey", "blur", "solarized"],
)
def test_each_operation_is_the_one_written_out(changed, expected):
    assert distorted(CLIP, **changed) == pytest.approx(expected, abs=2e-5)


def test_the_jitter_goes_in_the_drawn_order():
    there = distorted(CLIP, order=[0, 1, 4, 4], brightness=1.8, contrast=1.8)
    back = distorted(CLIP, order=[1, 0, 4, 4], brightness=1.8, contrast=1.8)
    assert there == pytest.approx(contrasted(np.clip(CLIP * 1.8, 0, 1), 1.8), abs=2e-5)
    assert back == pytest.approx(np.clip(contrasted(CLIP, 1.8) * 1.8, 0, 1), abs=2e-5)
    assert np.abs(there - back).max() > 0.1


def test_a_still_clip_stays_still():
    still = np.repeat(CLIP[:1], 3, axis=0)
    everything = {"order": [3, 1, 0, 2], "brightness": 1.2, "contrast": 1.4, "saturation": 0.5, "hue": 0.1}
    found = distorted(still, **everything, sigma=0.8, solarized=True)
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])
    assert np.abs(found - still).max() > 0.1


def test_draws_are_as_likely_as_said():
    @tf.function
    def some(number):
        with seeded_ops.fixed_by(tf.stack([7, number])):
            return [cvrl_distortions.draw_distortions(view) for view in cvrl_distortions.VIEWS]

    count = 600
    found = tf.map_fn(some, tf.range(count), fn_output_signature=tf.nest.map_structure(like, some(tf.constant(0))))
    for view, drawn in zip(cvrl_distortions.VIEWS, found, strict=True):
        one = {name: value.numpy() for name, value in drawn.items()}
        shares = {
            "jitter": ((one["order"][:, 0] < 4).mean(), 0.8),
            "grey": (one["grey"].mean(), 0.2),
            "blur": ((one["sigma"] > 0).mean(), view.blurred),
            "solarized": (one["solarized"].mean(), view.solarized),
        }
        for share, expected in shares.values():
            # Five standard errors.
            assert share == pytest.approx(expected, abs=5 * np.sqrt(expected * (1 - expected) / count))
        jittered = one["order"][one["order"][:, 0] < 4]
        assert np.array_equal(np.sort(jittered, 1), np.tile(np.arange(4), (len(jittered), 1)))
        assert len(np.unique(jittered, axis=0)) == 24
        for name, (low, high) in {"brightness": (0.2, 1.8), "contrast": (0.2, 1.8), "hue": (-0.2, 0.2)}.items():
            span = high - low
            assert low <= one[name].min() < low + 0.05 * span
            assert high - 0.05 * span < one[name].max() <= high
    assert not np.array_equal(found[0]["hue"].numpy(), found[1]["hue"].numpy())


def like(value):
    return tf.TensorSpec(value.shape, value.dtype)


def test_weakened_draws_lie_between_none_and_their_own():
    drawn = {name: tf.constant(value) for name, value in NONE.items()}
    drawn |= {name: tf.constant([0.2, 1.8]) for name in ("brightness", "contrast", "saturation")}
    drawn |= {"hue": tf.constant([-0.2, 0.1]), "sigma": tf.constant([2.0, 0.0]), "grey": tf.constant([True, False])}
    half = {name: value.numpy().tolist() for name, value in cvrl_distortions.weakened(drawn, 0.5).items()}
    for name in ("brightness", "contrast", "saturation"):
        assert half[name] == pytest.approx([0.6, 1.4])
    assert (half["hue"], half["sigma"]) == (pytest.approx([-0.1, 0.05]), [1.0, 0.0])
    assert (half["grey"], half["order"]) == ([True, False], [4, 4, 4, 4])
    whole = cvrl_distortions.weakened(drawn, 1.0)
    assert all(whole[name] is drawn[name] for name in drawn)
