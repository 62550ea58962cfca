"""RandAugment on clips: for the same draws the Garden's pixels, and the same operation for every frame."""

import numpy as np
import pytest
import tensorflow as tf
from official.vision.ops import augment as gardens

from harness.data import augment, draws, embedded

SHAPE = (8, 40, 56, 3)
LEVELS = (0.0, 3.0, 7.5, 10.0)
SEED = (3, 11)


def clip(seed=0):
    """Digits that move, in colour, with black, white and every frame lit otherwise."""
    spec = embedded.EmbeddedSpec(frames=SHAPE[0], height=SHAPE[1], width=SHAPE[2], seed=seed)
    pixels, _ = embedded.draw_pixels(spec, "train", 0)
    light = np.linspace(0.7, 1.3, SHAPE[0])[:, None, None, None]
    return np.clip((pixels - 20.0) * light, 0, 255).astype(np.uint8)


def args_of(name, level):
    return gardens._parse_policy_info(name, 0.5, level, [128] * 3, 40.0, 10.0)[2]


def applied(operations, name, level, pixels, seed=SEED):
    @tf.function(autograph=False, input_signature=[tf.TensorSpec(pixels.shape, tf.uint8), tf.TensorSpec([2], tf.int64)])
    def run(image, seed):
        with draws.fixed_by(seed):
            return operations[name](image, *args_of(name, level))

    return run(pixels, seed).numpy()


def test_all_sixteen_operations_are_ours():
    assert set(augment.OPERATIONS) == set(gardens.RandAugment().available_ops)
    assert len(augment.OPERATIONS) == 16


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", sorted(augment.OPERATIONS))
def test_an_operation_gives_the_gardens_pixels(name, level):
    for seed in (SEED, (4, 1)):
        ours = applied(augment.OPERATIONS, name, level, clip(), seed)
        assert np.array_equal(ours, applied(gardens.NAME_TO_FUNC, name, level, clip(), seed))


@pytest.mark.parametrize("name", sorted(set(augment.OPERATIONS) - {"Cutout"}))
def test_all_frames_get_the_same_operation_at_the_same_magnitude(name):
    # Of a clip that stands still, all frames must stay alike; and they must have changed.
    still = np.repeat(clip()[:1], SHAPE[0], axis=0)
    found = applied(augment.OPERATIONS, name, 3.0, still)
    assert (found == found[:1]).all()
    assert (found != still).any()


def test_cutout_fills_the_same_box_in_a_span_of_frames():
    still = np.repeat(clip()[:1], SHAPE[0], axis=0)
    filled = (applied(augment.OPERATIONS, "Cutout", 7.5, still) != still).any(axis=-1)
    hit = filled.any(axis=(1, 2))
    first, last = np.flatnonzero(hit)[[0, -1]]
    assert hit[first : last + 1].all()
    assert (filled[hit] == filled[first]).all()


@pytest.mark.parametrize("value", [0, 130, 255])
@pytest.mark.parametrize("name", ["AutoContrast", "Equalize", "Contrast", "Sharpness"])
def test_a_clip_of_one_colour_is_what_the_garden_makes_of_it(name, value):
    flat = np.full(SHAPE, value, np.uint8)
    ours = applied(augment.OPERATIONS, name, 10.0, flat)
    assert np.array_equal(ours, applied(gardens.NAME_TO_FUNC, name, 10.0, flat))


@pytest.mark.parametrize("choices", [{}, {"prob_to_apply": 0.5, "exclude_ops": ["Cutout", "Invert"], "num_layers": 3}])
def test_the_policy_draws_what_the_garden_draws(choices):
    def distorted(policy):
        @tf.function(input_signature=[tf.TensorSpec([2], tf.int64)])
        def run(seed):
            with draws.fixed_by(seed):
                return policy(magnitude=10, **choices).distort(tf.constant(clip()))

        return [run([5, place]).numpy() for place in range(40)]

    ours, theirs = distorted(augment.RandAugment), distorted(gardens.RandAugment)
    assert all(np.array_equal(*pair) for pair in zip(ours, theirs, strict=True))
    assert len({one.tobytes() for one in ours}) > 20
