"""RandAugment on clips: for the same draws the Garden's pixels, and the same operation for every frame."""

import numpy as np
import pytest
import tensorflow as tf
from official.vision.ops import augment as gardens

from harness.config import embedded_spec
from harness.data import embedded, randaugment, seeded_ops

SHAPE = (8, 40, 56, 3)
LEVELS = (0.0, 3.0, 7.5, 10.0)
# All levels in the slow tests; in the quick ones two, of which one moves pixels by fractions.
ASKED_LEVELS = [
    3.0, 10.0, *(pytest.param(level, marks=pytest.mark.slow) for level in LEVELS if level not in (3.0, 10.0)),
]  # fmt: skip
SEED = (3, 11)


def clip(seed=0):
    """Digits that move, in colour, with black, white and every frame lit otherwise."""
    spec = embedded_spec.EmbeddedSpec(frames=SHAPE[0], height=SHAPE[1], width=SHAPE[2], seed=seed)
    pixels, _ = embedded.draw_pixels(spec, "train", 0)
    light = np.linspace(0.7, 1.3, SHAPE[0])[:, None, None, None]
    return np.clip((pixels - 20.0) * light, 0, 255).astype(np.uint8)


def args_of(name, level):
    return gardens._parse_policy_info(name, 0.5, level, [128] * 3, 40.0, 10.0)[2]


def traced(operations, name, level, shape):
    @tf.function(autograph=False, input_signature=[tf.TensorSpec(shape, tf.uint8), tf.TensorSpec([2], tf.int64)])
    def run(image, seed):
        with seeded_ops.fixed_by(seed):
            return operations[name](image, *args_of(name, level))

    return lambda pixels, seed: run(pixels, seed).numpy()


def applied(operations, name, level, pixels, seed=SEED):
    return traced(operations, name, level, pixels.shape)(pixels, seed)


def test_all_sixteen_operations_are_ours():
    assert set(randaugment.OPERATIONS) == set(gardens.RandAugment().available_ops)
    assert len(randaugment.OPERATIONS) == 16


@pytest.mark.parametrize("level", ASKED_LEVELS)
@pytest.mark.parametrize("name", sorted(randaugment.OPERATIONS))
def test_an_operation_gives_the_gardens_pixels(name, level):
    for seed in (SEED, (4, 1)):
        ours = applied(randaugment.OPERATIONS, name, level, clip(), seed)
        assert np.array_equal(ours, applied(gardens.NAME_TO_FUNC, name, level, clip(), seed))


@pytest.mark.parametrize("name", sorted(set(randaugment.OPERATIONS) - {"Cutout"}))
def test_all_frames_get_the_same_operation_at_the_same_magnitude(name):
    # Of a clip that stands still, all frames must stay alike; and they must have changed.
    still = np.repeat(clip()[:1], SHAPE[0], axis=0)
    found = applied(randaugment.OPERATIONS, name, 3.0, still)
    assert (found == found[:1]).all()
    assert (found != still).any()


def test_cutout_fills_the_same_box_in_a_span_of_frames():
    still = np.repeat(clip()[:1], SHAPE[0], axis=0)
    filled = (applied(randaugment.OPERATIONS, "Cutout", 7.5, still) != still).any(axis=-1)
    hit = filled.any(axis=(1, 2))
    first, last = np.flatnonzero(hit)[[0, -1]]
    assert hit[first : last + 1].all()
    assert (filled[hit] == filled[first]).all()


def extremes(shape):
    """Noise; clips of one colour; a channel of one value, of two, of all but a few pixels the same."""
    noise = np.random.default_rng(7).integers(0, 256, shape).astype(np.uint8)
    yield noise
    for value in (0, 1, 130, 254, 255):
        yield np.full(shape, value, np.uint8)
    sparse = noise // 255 * 200
    yield np.stack([np.full(shape[:3], 77, np.uint8), noise[..., 1] % 2 + 128, sparse[..., 2]], -1)


SHAPES = [(3, 12, 10, 3), (1, 1, 1, 3)]
MORE_SHAPES = [(2, 5, 17, 3), (1, 3, 3, 3), (4, 1, 6, 3)]


@pytest.mark.parametrize("shape", [*SHAPES, *(pytest.param(shape, marks=pytest.mark.slow) for shape in MORE_SHAPES)])
@pytest.mark.parametrize("name", sorted(randaugment.OPERATIONS))
def test_an_operation_gives_the_gardens_pixels_on_extreme_clips_of_odd_sizes(name, shape):
    if name == "Sharpness" and min(shape[1:3]) < 3:
        pytest.skip("the Garden's smoothing needs three pixels a side")
    for level in LEVELS[1::2]:
        ours, theirs = (traced(each, name, level, shape) for each in (randaugment.OPERATIONS, gardens.NAME_TO_FUNC))
        for pixels in extremes(shape):
            for seed in (SEED, (4, 1), (0, 6)):
                assert np.array_equal(ours(pixels, seed), theirs(pixels, seed))


@pytest.mark.parametrize("level", ASKED_LEVELS)
def test_every_colour_blends_with_its_grey_as_in_the_garden(level):
    ours, theirs = (
        traced(each, "Color", level, (1, 512, 2048, 3)) for each in (randaugment.OPERATIONS, gardens.NAME_TO_FUNC)
    )
    for begin in range(0, 1 << 24, 1 << 20):
        colours = np.arange(begin, begin + (1 << 20)).reshape(1, 512, 2048)
        pixels = np.stack([colours >> 16, colours >> 8 & 255, colours & 255], -1).astype(np.uint8)
        assert np.array_equal(ours(pixels, SEED), theirs(pixels, SEED))


@pytest.mark.parametrize("factor", [0.0, 0.1, 0.28, 0.64, 1.0, 1.45, 1.72, 1.9])
def test_every_two_bytes_blend_as_in_the_garden(factor):
    first, second = (each.astype(np.uint8) for each in np.mgrid[:256, :256])
    ours = randaugment._blended(tf.cast(first, tf.float32), tf.constant(second), tf.constant(factor, tf.float32))
    assert np.array_equal(ours, gardens.blend(first, second, factor))


def test_every_range_is_stretched_with_two_roundings():
    # A range for each channel, all bytes in each.
    low, high = (each.astype(np.float32) for each in np.triu_indices(256, 1))
    scale = np.float32(255) / (high - low)
    levels = np.repeat(np.arange(256, dtype=np.uint8)[None, None, :, None], len(low), axis=3)
    ours = randaugment._stretched(levels, tf.constant(scale), tf.constant(-low * scale))
    products = levels * scale
    assert products.dtype == np.float32
    assert np.array_equal(ours, np.clip(products - low * scale, 0, 255).astype(np.uint8))


LAYERS = {"prob_to_apply": 0.5, "exclude_ops": ["Cutout", "Invert"], "num_layers": 3}  # three times as much to trace


@pytest.mark.parametrize("choices", [{}, pytest.param(LAYERS, marks=pytest.mark.slow)])
def test_the_policy_draws_what_the_garden_draws(choices):
    def distorted(policy):
        @tf.function(input_signature=[tf.TensorSpec([2], tf.int64)])
        def run(seed):
            with seeded_ops.fixed_by(seed):
                return policy(magnitude=10, **choices).distort(tf.constant(clip()))

        return [run([5, place]).numpy() for place in range(40)]

    ours, theirs = distorted(randaugment.RandAugment), distorted(gardens.RandAugment)
    assert all(np.array_equal(*pair) for pair in zip(ours, theirs, strict=True))
    assert len({one.tobytes() for one in ours}) > 20
