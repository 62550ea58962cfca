"""The reader: the Garden's clips, in an order and with draws that are functions of the seed, each video once."""

import collections

import numpy as np
import pytest
import tensorflow as tf
from official.vision.dataloaders import video_input
from official.vision.tasks import video_classification

from ablations.profiles import QUICK
from ablations.toggles import RA, SJ
from harness import experiment, garden
from harness.data import draws, embedded, reader
from harness.experiment import Protocol
from harness.studies import Cell
from harness.workspace import facts

SPEC = embedded.EmbeddedSpec(train_videos=40, validation_videos=21)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    manifest = embedded.ensure(SPEC, root)
    return manifest, str(embedded.folder(SPEC, root))


def source(prepared, split):
    manifest, folder = prepared
    return reader.Source.of(folder, manifest.splits[split], len(manifest.classes))


def run_of(prepared, *applied, seed=0):
    return experiment.complete(Cell(applied, seed), QUICK, facts(prepared[0]))


def training_params(prepared, *applied, seed=0, batch=8):
    run = run_of(prepared, *applied, seed=seed)
    settings = {**run.settings, "task.train_data.global_batch_size": batch}
    return garden.build(settings, run.bookkeeping).task.train_data


def evaluation_params(prepared, protocol, batch):
    run = run_of(prepared)
    settings, bookkeeping = experiment.for_protocol(run, protocol)
    bookkeeping |= {"task.validation_data.global_batch_size": batch}
    return garden.build(settings, bookkeeping).task.validation_data


def batches(prepared, count, start_step=0, **others):
    dataset = reader.training(training_params(prepared, **others), source(prepared, "train"), start_step)
    return [(features["image"].numpy(), labels.numpy()) for features, labels in dataset.take(count)]


def same(one, other):
    return all(np.array_equal(a, b) for pair in zip(one, other, strict=True) for a, b in zip(*pair, strict=True))


def test_one_seed_gives_one_stream_and_another_seed_another(prepared):
    assert same(batches(prepared, 7), batches(prepared, 7))
    assert not same(batches(prepared, 7), batches(prepared, 7, seed=1))


def test_a_resumed_stream_continues_the_interrupted_one(prepared):
    # Step 6 lies in the second epoch: 40 videos make five steps of eight.
    assert same(batches(prepared, 9)[6:], batches(prepared, 3, start_step=6))


def test_randaugment_is_a_function_of_the_seed_too(prepared):
    params = training_params(prepared, RA.at(), SJ.at())
    one, other = (
        [features["image"].numpy() for features, _ in reader.training(params, source(prepared, "train")).take(3)]
        for _ in "ab"
    )
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_an_epoch_holds_each_video_once_and_epochs_differ(prepared):
    params = training_params(prepared)
    ordered = reader._ordered(params, source(prepared, "train"), reader._Pipeline(0, 1, False), 0)
    decoder = video_input.Decoder()
    decoder.add_context(reader.MEDIA_ID, tf.io.FixedLenFeature((), tf.string))
    ids = [decoder.decode(record)[reader.MEDIA_ID].numpy() for record in ordered.take(80)]
    assert set(collections.Counter(ids).values()) == {2}
    assert len(set(ids[:40])) == 40
    assert ids[:40] != ids[40:]


@pytest.mark.parametrize("by_shard", [False, True])
def test_pipelines_share_an_epoch_out_between_them(prepared, by_shard):
    params = training_params(prepared)
    records = []
    for index in range(2):
        pipeline = reader._Pipeline(index, 2, by_shard)
        records += list(reader._ordered(params, source(prepared, "train"), pipeline, 0).take(20).as_numpy_iterator())
    assert len(set(records)) == 40


def test_no_draw_of_the_training_pipeline_is_left_to_chance(prepared):
    params = training_params(prepared, RA.at(), SJ.at())
    parse = reader._parser(params, source(prepared, "train"))

    @tf.function(input_signature=[tf.TensorSpec([], tf.string)])
    def fixed(record):
        with draws.fixed_by(tf.constant([0, 1])):
            return parse(record)[0]

    @tf.function(input_signature=[])
    def free():
        return tf.cond(tf.constant(True), lambda: tf.random.uniform([]), lambda: tf.random.normal([]))

    assert draws.stateful_draws(fixed.get_concrete_function().graph) == []
    assert draws.stateful_draws(free.get_concrete_function().graph) == ["RandomStandardNormal", "RandomUniform"]


@pytest.mark.parametrize(("clips", "crops"), [(1, 1), (10, 3), (2, 3)])
def test_evaluation_clips_are_the_gardens_bit_for_bit(prepared, clips, crops):
    params = evaluation_params(prepared, Protocol(clips, crops, 32), batch=7)
    ours = [features["image"].numpy() for features, _ in reader.evaluation(params, source(prepared, "validation"))]
    theirs = _gardens(prepared, params)
    assert np.array_equal(np.concatenate(ours), np.concatenate(theirs))


def _gardens(prepared, params):
    """The Garden's own pipeline over the same shards, one file after another."""
    config = garden.build(run_of(prepared).settings, run_of(prepared).bookkeeping)
    task = video_classification.VideoClassificationTask(config.task)
    params.override({"cycle_length": 1, "input_path": ",".join(source(prepared, "validation").paths)})
    return [features["image"].numpy() for features, _ in task.build_inputs(params)]


@pytest.mark.parametrize("batch", [4, 8, 21, 64])
@pytest.mark.parametrize("videos", [None, 2])
def test_every_video_is_evaluated_once_in_batches_of_one_shape(prepared, batch, videos):
    params = evaluation_params(prepared, Protocol(1, 1, 32, videos), batch)
    dataset = reader.evaluation(params, source(prepared, "validation"))
    assert dataset.element_spec[0]["image"].shape == (batch, 8, 32, 32, 3)
    labels = [label for _, label in dataset]
    valid = np.concatenate([label["valid"] for label in labels])
    numbers = np.concatenate([label["media_id"] for label in labels])[valid]
    assert len(set(reader.media_ids(numbers))) == valid.sum() == (videos or 21)


@pytest.mark.parametrize(("replicas", "pipelines"), [(1, 1), (2, 1), (4, 2), (3, 3)])
def test_pipelines_evaluate_each_video_once_in_equally_many_batches(prepared, replicas, pipelines):
    params = evaluation_params(prepared, Protocol(1, 1, 32), 12)
    ids, counts = [], set()
    for index in range(pipelines):
        context = tf.distribute.InputContext(pipelines, index, replicas)
        labels = [label for _, label in reader.evaluation(params, source(prepared, "validation"), context)]
        counts.add(len(labels) / (replicas // pipelines))
        for label in labels:
            ids += list(reader.media_ids(label["media_id"].numpy()[label["valid"].numpy()]))
    assert len(ids) == len(set(ids)) == 21
    assert counts == {2}


def test_a_label_outside_the_classes_is_named(prepared):
    wrong = reader.Source(source(prepared, "train").paths, source(prepared, "train").counts, classes=3)
    dataset = reader.training(training_params(prepared), wrong)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"(?s)label.*expected 0 to.*2"):
        next(iter(dataset))


def test_fewer_videos_than_the_manifest_says_is_an_error(prepared):
    one = source(prepared, "validation")
    more = reader.Source(one.paths, (*one.counts[:-1], one.counts[-1] + 1), one.classes)
    params = evaluation_params(prepared, Protocol(1, 1, 32), 22)
    params.num_examples = 22
    with pytest.raises(tf.errors.FailedPreconditionError, match="expected to contain 22"):
        list(reader.evaluation(params, more))
