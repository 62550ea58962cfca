"""Clips from JPEG frames of many shapes: the Garden's pixels, for the same draws; and the numbers the network gets."""

import io

import numpy as np
import pytest
import tensorflow as tf
from official.vision.configs import video_classification as exp_cfg
from official.vision.dataloaders import video_input
from PIL import Image

from harness.data import decoding, seeded_ops
from harness.data import on_device as on_device_

RANDAUGMENT = {"type": "randaug", "randaug": {"num_layers": 2, "magnitude": 10}}


def video(height, width, frames=20, subsampling=2, progressive=False):
    """Frames of noise in colour, which shows any mistake at an edge."""
    rng = np.random.default_rng(height * width)
    coarse = rng.integers(0, 256, (frames, height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8)
    encoded = []
    for frame in coarse:
        buffer = io.BytesIO()
        image = Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC)
        image.save(buffer, "JPEG", quality=95, subsampling=subsampling, progressive=progressive)
        encoded.append(buffer.getvalue())
    return tf.constant(encoded)


def params_of(training, **others):
    shared = {"num_classes": 3, "temporal_stride": 2, "feature_shape": (4, 32, 32, 3), "min_image_size": 32}
    return exp_cfg.DataConfig(is_training=training, **{**shared, **others})


def gardens(params, encoded, places=1):
    """The Garden's clips as a data set makes them; a plain `tf.function` would turn its division into a product."""
    parse = video_input.Parser(params).parse_fn(params.is_training)

    def run(place):
        with seeded_ops.fixed_by(tf.stack([tf.constant(7, tf.int64), place])):
            return parse({video_input.IMAGE_KEY: encoded, video_input.LABEL_KEY: tf.constant([1], tf.int64)})[0]

    return [clip["image"].numpy() for clip in tf.data.Dataset.range(places).map(run)]


def ours(params, encoded, places=1, frame=(0, 0)):
    @tf.function
    def on_host(place):
        with seeded_ops.fixed_by(tf.stack([tf.constant(7, tf.int64), place])):
            if params.is_training:
                return {"image": decoding.training_clip(encoded, params)}
            longest = decoding.longest(params, frame) if params.num_test_crops == 3 else 0
            return decoding.evaluation_frames(encoded, params, longest)

    on_device = tf.function(lambda features: on_device_.for_network(features, params)["image"])
    clips = []
    for place in tf.range(places, dtype=tf.int64):
        sent = on_host(place)
        assert sent["image"].dtype == tf.uint8
        image = on_device({name: value[tf.newaxis] for name, value in sent.items()}).numpy()
        clips.append(image[0] if params.is_training else image.reshape(-1, *image.shape[2:]))
    return clips


def equal(these, those):
    return len(these) == len(those) and all(map(np.array_equal, these, those))


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_training_clips_are_the_gardens_bit_for_bit(subsampling, progressive):
    params = params_of(True, aug_min_area_ratio=0.08)
    encoded = video(67, 91, subsampling=subsampling, progressive=progressive)
    assert equal(ours(params, encoded, places=25), gardens(params, encoded, places=25))


@pytest.mark.parametrize(
    "others",
    [
        {"aug_type": RANDAUGMENT},
        # No recipe of ours has it, and building its twenty-five policies twice takes fifteen seconds.
        pytest.param({"aug_type": {"type": "autoaug"}}, marks=pytest.mark.slow),
        {"random_stride_range": 1, "aug_random_rotation": True},
        {"dtype": "bfloat16", "zero_centering_image": True},
        {"feature_shape": (4, 24, 40, 3)},
    ],
)
def test_training_clips_of_other_settings_are_the_gardens(others):
    params = params_of(True, **others)
    encoded = video(48, 70)
    assert equal(ours(params, encoded, places=8), gardens(params, encoded, places=8))


SIZES = [(32, 45), (90, 64), (200, 40), (32, 96)]
MORE_SIZES = [(32, 32), (45, 32), (64, 91), (32, 97)]  # further roundings of the same sums


@pytest.mark.parametrize("size", [*SIZES, *(pytest.param(size, marks=pytest.mark.slow) for size in MORE_SIZES)])
@pytest.mark.parametrize("least", [32, 38])
@pytest.mark.parametrize(("clips", "crops"), [(1, 1), (1, 3), (3, 3)])
def test_evaluation_clips_are_the_gardens_bit_for_bit(size, least, clips, crops):
    params = params_of(False, num_test_clips=clips, num_test_crops=crops, min_image_size=least)
    encoded = video(*size, frames=11)
    theirs = gardens(params, encoded)
    assert equal(ours(params, encoded), theirs)
    assert equal(ours(params, encoded, frame=size), theirs)


def test_a_frame_that_two_clips_show_is_decoded_once():
    params = params_of(False, num_test_clips=5, num_test_crops=3)
    shown = decoding._evaluated(tf.constant(9), params)
    assert len(shown) == 20
    assert set(shown.numpy().tolist()) == set(range(8))
    runs = []

    def counted(frame):
        runs.append(int(frame))
        return tf.fill([1, 1, 3], tf.cast(frame, tf.uint8))

    distinct, positions = tf.unique(shown)
    found = decoding._each_once(distinct, positions, counted, lambda pixels: pixels, [1, 1, 3])
    assert sorted(runs) == list(range(8))
    assert np.array_equal(found[:, 0, 0, 0], shown)


def test_a_frame_of_another_size_is_an_error_where_the_crop_would_fit_it():
    encoded = tf.concat([video(48, 70, frames=1), video(56, 80, frames=30)], 0)
    for training in (True, False):
        params = params_of(training, feature_shape=(31, 32, 32, 3), temporal_stride=1)
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"(?s)a frame of.*expected"):
            ours(params, encoded)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("xla", [False, True])
def test_the_device_scales_every_byte_as_the_host_would(dtype, xla):
    levels = tf.range(256)
    expected = (np.arange(256, dtype=np.float32) / np.float32(255)).astype(tf.as_dtype(dtype).as_numpy_dtype)
    scale = tf.function(lambda image: on_device_.scaled(image, params_of(True, dtype=dtype)), jit_compile=xla)
    assert np.array_equal(scale(tf.cast(levels, tf.uint8)).numpy(), expected)
