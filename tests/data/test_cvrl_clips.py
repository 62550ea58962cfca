"""Two clips of a video: when they begin, the Garden's pixels, and draws that are functions of the seed."""

import numpy as np
import pytest
import tensorflow as tf
from official.projects.video_ssl.configs import video_ssl
from official.projects.video_ssl.ops import video_ssl_preprocess_ops
from official.vision.ops import preprocess_ops_3d
from scipy import stats

from ablations.profiles import QUICK
from ablations.stages import CVRL
from harness.config import embedded_spec, experiment
from harness.config.experiment import DatasetInfo
from harness.config.studies import Cell
from harness.data import cvrl_clips, embedded, on_device, reader, seeded_ops
from harness.training import garden_config, tasks
from tests.data.test_cvrl_distortions import by_colour, contrasted, smoothed

SPEC = embedded_spec.EmbeddedSpec(train_videos=20, validation_videos=2)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    manifest = embedded.ensure(SPEC, root)
    return reader.Source.of(str(embedded.folder(SPEC, root)), manifest.splits["train"], len(manifest.classes))


def params(**changed):
    config = {
        "is_ssl": True,
        "is_training": True,
        "feature_shape": (8, 28, 28, 3),
        "temporal_stride": 2,
        "aug_min_area_ratio": 0.3,
        "global_batch_size": 4,
        "num_classes": 8,
        "shuffle_buffer_size": 64,
        "seed": 0,
    }
    return video_ssl.DataConfig(**config | changed)


def encoded(source):
    record = next(iter(tf.data.TFRecordDataset(source.paths[0])))
    features = {"image/encoded": tf.io.VarLenFeature(tf.string)}
    return tf.io.parse_single_sequence_example(record, sequence_features=features)[1]["image/encoded"].values


def test_starts_lie_as_far_apart_as_the_paper_says():
    """With room for so many starts, a distance d between the two is drawn in proportion to the mass of a falling line.

    CVRL: monotonically decreasing in the distance; the Garden's line is 2 (m - d) / m^2, summed up over each frame.
    """
    frames, count, stride, draws_ = 40, 8, 2, 1500
    room = frames - (count - 1) * stride

    @tf.function
    def starts(number):
        with seeded_ops.fixed_by(tf.stack([3, number])):
            chosen = video_ssl_preprocess_ops.sample_ssl_sequence(tf.range(frames), count, True, stride)
        return chosen

    found = tf.map_fn(starts, tf.range(draws_), fn_output_signature=tf.TensorSpec([2 * count], tf.int32)).numpy()
    assert np.array_equal(np.diff(found[:, :count]), np.full((draws_, count - 1), stride))
    first, second = found[:, 0], found[:, count]
    apart = np.bincount(np.abs(first - second), minlength=room)
    below = 1 - (1 - np.arange(room + 1) / room) ** 2
    assert stats.chisquare(apart, draws_ * np.diff(below)).pvalue > 1e-3
    # The first clip is as often the earlier one; of one distance every place is as likely as the next.
    later = np.minimum(first, second)[np.abs(first - second) == 5]
    assert stats.chisquare(np.bincount(later, minlength=room - 5)).pvalue > 1e-3
    assert (first < second).mean() == pytest.approx((first > second).mean(), abs=0.05)


def test_crops_and_flips_are_the_gardens_bit_for_bit(source):
    frames, config = encoded(source), params()
    for number in range(4):
        seed = tf.constant([0, number], tf.int64)
        with seeded_ops.fixed_by(seed):
            ours = cvrl_clips.training_features(frames, config)["image"]
        with seeded_ops.fixed_by(seed):
            clip = video_ssl_preprocess_ops.sample_ssl_sequence(frames, 8, True, 2)
            clips = tf.split(preprocess_ops_3d.decode_jpeg(clip, 3), 2)
            theirs = []
            for one in clips:
                cropped = preprocess_ops_3d.random_crop_resize(one, 28, 28, 8, 3, (0.5, 2), (0.3, 1))
                theirs.append(preprocess_ops_3d.random_flip_left_right(cropped))
        assert np.array_equal(ours, tf.concat(theirs, 0))


def test_the_stream_is_a_function_of_the_seed_and_resumes(source):
    def batches(count, start=0, **changed):
        dataset = reader.training(params(**changed), source, start).take(count)
        return [{name: value.numpy() for name, value in features.items()} for features, _ in dataset]

    def same(one, other):
        return all(np.array_equal(a[name], b[name]) for a, b in zip(one, other, strict=True) for name in a)

    whole = batches(8)
    assert same(whole, batches(8))
    assert same(whole[6:], batches(2, start=6))  # in the second epoch: 20 videos make five batches
    assert not same(whole, batches(8, seed=1))
    assert whole[0]["image"].shape == (4, 16, 28, 28, 3)
    assert whole[0]["order"].shape == (4, 2, 4)


def test_no_draw_is_left_to_chance(source):
    parse = reader._parser(params(), source)

    @tf.function(input_signature=[tf.TensorSpec([], tf.string)])
    def fixed(record):
        with seeded_ops.fixed_by(tf.constant([0, 1])):
            return parse(record)[0]

    assert seeded_ops.stateful_draws(fixed.get_concrete_function().graph) == []


@pytest.mark.parametrize("centred", [False, True])
def test_the_network_gets_all_first_clips_before_the_second_ones(source, centred):
    config = params(zero_centering_image=centred)
    features, _ = next(iter(reader.training(config, source)))
    plain = {"order": 4 * tf.ones_like(features["order"]), "sigma": tf.zeros_like(features["sigma"])}
    plain |= {name: tf.zeros_like(features[name]) for name in ("grey", "solarized")}
    found = cvrl_clips.for_network({**features, **plain}, config)
    unit = on_device.unit(features["image"])
    expected = tf.concat([unit[:, :8], unit[:, 8:]], 0)
    assert np.allclose(found, 2 * expected - 1 if centred else expected, atol=1e-6)
    # Distorted, the clips of a video differ from each other in colour.
    assert np.abs(cvrl_clips.for_network(features, config) - found).max() > 0.1


def in_numpy(clip, strength):
    """A clip after contrast, hue, brightness, saturation and blur, each as far from none as the strength says."""
    clip = np.clip(contrasted(clip, 1 - 0.6 * strength), 0, 1)
    clip = by_colour(clip, lambda h, s, v: ((h + 0.2 * strength) % 1, s, v))
    clip = np.clip(clip * (1 + 0.6 * strength), 0, 1)
    clip = by_colour(clip, lambda h, s, v: (h, s * (1 - 0.5 * strength), v))
    return smoothed(clip, 1.5 * strength, radius=1)


@pytest.mark.parametrize("strength", [0.25, 1.0])
def test_clips_are_distorted_as_strongly_as_the_settings_say(strength):
    run = experiment.complete(Cell((), stages=(CVRL,)), QUICK, DatasetInfo("clips", 8, 32, 8))
    settings = {**run.settings, tasks.DISTORTION: strength}
    task = tasks.task_maker(settings)(garden_config.build(settings, run.bookkeeping).task, None, None)
    image = np.random.default_rng(0).integers(0, 256, (1, 4, 20, 24, 3), dtype=np.uint8)
    drawn = {"contrast": 0.4, "hue": 0.2, "brightness": 1.6, "saturation": 0.5, "sigma": 1.5}
    features = {name: tf.fill([1, 2], value) for name, value in {**drawn, "grey": False, "solarized": False}.items()}
    order = tf.tile([[[1, 3, 0, 2]]], [1, 2, 1])
    found = task.for_network({"image": tf.constant(image), "order": order, **features})["image"].numpy()
    clips = np.split(image[0].astype(np.float32) / 255, 2)
    assert found == pytest.approx(np.stack([in_numpy(clip, strength) for clip in clips]), abs=1e-4)
