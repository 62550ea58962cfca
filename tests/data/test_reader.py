"""The reader: the Garden's clips, in an order and with draws that are functions of the seed, each video once."""

import collections
import os

import numpy as np
import pytest
import tensorflow as tf
from official.vision.dataloaders import video_input
from official.vision.tasks import video_classification

from ablations.profiles import QUICK
from ablations.toggles import RA, SJ
from harness.config import embedded_spec, experiment
from harness.config.experiment import Protocol
from harness.config.studies import Cell
from harness.config.toggles import VALUE, Toggle
from harness.data import embedded, on_device, reader, seeded_ops
from harness.planning.workspace import facts
from harness.training import garden_config

MIXUP = Toggle(
    "mixup",
    "MX",
    "",
    "mixup",
    {
        "task.train_data.one_hot": False,
        "task.train_data.mixup_and_cutmix": {
            "mixup_alpha": VALUE,
            "cutmix_alpha": 0.5,
            "prob": 1.0,
            "switch_prob": 0.5,
            "label_smoothing": 0.0,
        },
    },
    default=0.2,
)
SPEC = embedded_spec.EmbeddedSpec(train_videos=40, validation_videos=21)


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
    return garden_config.build(settings, run.bookkeeping).task.train_data


def evaluation_params(prepared, protocol, batch):
    run = run_of(prepared)
    settings, bookkeeping = experiment.for_protocol(run, protocol)
    bookkeeping |= {"task.validation_data.global_batch_size": batch}
    return garden_config.build(settings, bookkeeping).task.validation_data


def batches(prepared, count, start_step=0, **others):
    dataset = reader.training(training_params(prepared, **others), source(prepared, "train"), start_step)
    return [(features["image"].numpy(), labels.numpy()) for features, labels in dataset.take(count)]


def same(one, other):
    return all(np.array_equal(a, b) for pair in zip(one, other, strict=True) for a, b in zip(*pair, strict=True))


def test_one_seed_gives_one_stream_which_goes_on_where_it_is_resumed(prepared):
    stream = batches(prepared, 9)
    assert same(stream[:3], batches(prepared, 3))
    assert not same(stream[:3], batches(prepared, 3, seed=1))
    # Step 6 lies in the second epoch: 40 videos make five steps of eight.
    assert same(stream[6:], batches(prepared, 3, start_step=6))


def test_randaugment_is_a_function_of_the_seed_too(prepared):
    params = training_params(prepared, RA.at(), SJ.at())
    one, other = (
        [features["image"].numpy() for features, _ in reader.training(params, source(prepared, "train")).take(3)]
        for _ in "ab"
    )
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_an_epoch_holds_each_video_once_and_epochs_differ(prepared):
    params = training_params(prepared)
    train = source(prepared, "train")
    ordered = reader._ordered(params, train, reader._Pipeline.of(params, train), 0, reader._records(train))
    decoder = video_input.Decoder()
    decoder.add_context(reader.MEDIA_ID, tf.io.FixedLenFeature((), tf.string))
    ids = [decoder.decode(record)[reader.MEDIA_ID].numpy() for record in ordered.take(80)]
    assert set(collections.Counter(ids).values()) == {2}
    assert len(set(ids[:40])) == 40
    assert ids[:40] != ids[40:]


@pytest.mark.parametrize("by_shard", [False, True])
def test_pipelines_share_an_epoch_out_between_them(prepared, by_shard):
    params, train = training_params(prepared), source(prepared, "train")
    records = []
    for index in range(2):
        pipeline = reader._Pipeline(index, 2, replicas=1, batch=4, by_shard=by_shard)
        ordered = reader._ordered(params, train, pipeline, 0, reader._records(train))
        records += list(ordered.take(20).as_numpy_iterator())
    assert len(set(records)) == 40


def stream(prepared, params, pipelines, replicas, steps, start_step=0):
    """What each replica is fed, [step][replica]; each pipeline deals its batches out to its replicas in turn."""
    found = [[] for _ in range(steps)]
    own = replicas // pipelines
    for index in range(pipelines):
        context = tf.distribute.InputContext(pipelines, index, replicas)
        dataset = reader.training(params, source(prepared, "train"), start_step, context).take(steps * own)
        for number, (features, labels) in enumerate(dataset):
            found[number // own].append((features["image"].numpy(), labels.numpy()))
    return found


@pytest.mark.parametrize(("pipelines", "replicas"), [(2, 2), pytest.param(3, 6, marks=pytest.mark.slow)])
def test_what_a_replica_is_fed_does_not_depend_on_the_number_of_pipelines(prepared, pipelines, replicas):
    # Four steps of twelve: the first epoch of 40 videos ends within the fourth.
    params = training_params(prepared, RA.at(), MIXUP.at(), batch=12)
    one = stream(prepared, params, 1, replicas, 5)
    several = stream(prepared, params, pipelines, replicas, 5)
    assert all(same(*pair) for pair in zip(one, several, strict=True))
    resumed = stream(prepared, params, pipelines, replicas, 2, start_step=3)
    assert all(same(*pair) for pair in zip(one[3:], resumed, strict=True))


def test_the_replicas_batches_are_the_parts_of_the_one_batch(prepared):
    params = training_params(prepared, batch=12)
    whole = stream(prepared, params, 1, 1, 4)
    parts = stream(prepared, params, 2, 2, 4)
    for ((images, labels),), replicas in zip(whole, parts, strict=True):
        assert np.array_equal(images, np.concatenate([own for own, _ in replicas]))
        assert np.array_equal(labels, np.concatenate([own for _, own in replicas]))


@pytest.mark.parametrize("each", [1, 3])
def test_no_two_pipelines_have_a_place_in_common(each):
    pipelines = [reader._Pipeline(index, 3, replicas=1, batch=each, by_shard=True) for index in range(3)]
    places = [pipeline.place(number, each) for pipeline in pipelines for number in range(4 * each)]
    assert sorted(places) == list(range(12 * each))


@pytest.mark.parametrize("pipelines", [1, 2])
@pytest.mark.parametrize("by_shard", [False, True])
def test_places_say_where_the_records_stand(prepared, monkeypatch, pipelines, by_shard):
    params, train = training_params(prepared), source(prepared, "train")
    shards = [list(tf.data.TFRecordDataset(path).as_numpy_iterator()) for path in train.paths]
    monkeypatch.setattr(reader, "_SHARDS_PER_PIPELINE", 1 if by_shard else 32)
    context = tf.distribute.InputContext(pipelines, pipelines - 1, pipelines)
    pipeline = reader._Pipeline.of(params, train, context)
    assert pipeline.by_shard == by_shard
    records = reader._ordered(params, train, pipeline, 4, reader._records(train)).take(30)
    found = [
        shards[shard][record] for shard, record in reader.places(params, train, 4, context).take(30).as_numpy_iterator()
    ]
    assert found == list(records.as_numpy_iterator())


def test_no_draw_of_the_training_pipeline_is_left_to_chance(prepared):
    params = training_params(prepared, RA.at(), SJ.at())
    parse = reader._parser(params, source(prepared, "train"))

    @tf.function(input_signature=[tf.TensorSpec([], tf.string)])
    def fixed(record):
        with seeded_ops.fixed_by(tf.constant([0, 1])):
            return parse(record)[0]

    @tf.function(input_signature=[])
    def free():
        return tf.cond(tf.constant(True), lambda: tf.random.uniform([]), lambda: tf.random.normal([]))

    assert seeded_ops.stateful_draws(fixed.get_concrete_function().graph) == []
    assert seeded_ops.stateful_draws(free.get_concrete_function().graph) == ["RandomStandardNormal", "RandomUniform"]


@pytest.mark.parametrize(("clips", "crops"), [(1, 1), (10, 3), (2, 3)])
def test_evaluation_clips_are_the_gardens_bit_for_bit(prepared, clips, crops):
    params = evaluation_params(prepared, Protocol(clips, crops, 32), batch=7)
    dataset = reader.evaluation(params, source(prepared, "validation"))
    ours = [on_device.for_network(features, params)["image"].numpy() for features, _ in dataset]
    theirs = _gardens(prepared, params)
    assert np.array_equal(np.concatenate(ours), np.concatenate(theirs))


def _gardens(prepared, params):
    """The Garden's own pipeline over the same shards, one file after another."""
    config = garden_config.build(run_of(prepared).settings, run_of(prepared).bookkeeping)
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
def test_pipelines_evaluate_each_video_once_in_the_order_of_one(prepared, replicas, pipelines):
    params = evaluation_params(prepared, Protocol(1, 1, 32), 12)
    own, steps = replicas // pipelines, [[], []]
    for index in range(pipelines):
        context = tf.distribute.InputContext(pipelines, index, replicas)
        labels = [label for _, label in reader.evaluation(params, source(prepared, "validation"), context)]
        assert len(labels) == 2 * own
        for number, label in enumerate(labels):
            steps[number // own] += list(reader.media_ids(label["media_id"].numpy()[label["valid"].numpy()]))
    assert steps[0] + steps[1] == [f"embedded-validation-{number:05d}" for number in range(21)]


@pytest.mark.parametrize(("processors", "tuned"), [(2, False), (16, False), (96, True)])
def test_tf_data_tunes_itself_where_it_does_not_use_all_processors_anyway(prepared, monkeypatch, processors, tuned):
    monkeypatch.setattr(os, "cpu_count", lambda: processors)
    training = reader.training(training_params(prepared), source(prepared, "train"))
    evaluation = reader.evaluation(evaluation_params(prepared, Protocol(1, 1, 32), 8), source(prepared, "validation"))
    assert [one.options().autotune.enabled for one in (training, evaluation)] == [tuned, tuned]


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
