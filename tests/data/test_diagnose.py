"""Each fault of the data, made on disk and met by the real reader: its line names file, record, video and frame."""

import io
import math
import os
import re
import shutil

import pytest
import tensorflow as tf
from PIL import Image

from ablations.profiles import QUICK
from harness.config import embedded_spec, experiment
from harness.config.experiment import Protocol
from harness.config.studies import Cell
from harness.data import diagnose, embedded, reader
from harness.planning.workspace import facts
from harness.training import garden_config

# Eight shards of three videos, and four of three and once four.
SPEC = embedded_spec.EmbeddedSpec(train_videos=24, validation_videos=13)
DAMAGED = {"train": "train-00002-of-00008.tfrecord", "validation": "validation-00002-of-00004.tfrecord"}
# The damaged record is the second of its shard.
VIDEO = {"train": "embedded-train-00007", "validation": "embedded-validation-00007"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    return embedded.ensure(SPEC, root), embedded.folder(SPEC, root)


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path):
    os.truncate(path, path.stat().st_size * 2 // 3)


def missing(path):
    path.unlink()


def one_fewer(path):
    write(path, records(path)[:-1])


def no_sequence_example(path):
    first, _, *rest = records(path)
    write(path, [first, b"\xff no message", *rest])


def label(path):
    edit(path, lambda example: example.context.feature["clip/label/index"].int64_list.value.__setitem__(0, 99))


def no_label(path):
    edit(path, lambda example: example.context.feature.pop("clip/label/index"))


def long_id(path):
    edit(path, lambda example: example.context.feature["clip/media_id"].bytes_list.value.__setitem__(0, b"x" * 70))


def no_id(path):
    edit(path, lambda example: example.context.feature.pop("clip/media_id"))


def no_frames(path):
    edit(path, lambda example: example.feature_lists.feature_list.pop("image/encoded"))


def frames(path, first, step, content):
    """Puts something else in the place of a video's frames, from the `first` on, each `step`-th."""

    def changed(example):
        for frame in example.feature_lists.feature_list["image/encoded"].feature[first::step]:
            frame.bytes_list.value[0] = content(frame.bytes_list.value[0])

    edit(path, changed)


def garbage(path):
    frames(path, 5, 1, lambda _: b"garbage")


def halved(path):
    frames(path, 5, 1, lambda frame: frame[: len(frame) // 2])


def smaller(path):
    other = io.BytesIO()
    Image.new("RGB", (30, 20)).save(other, "JPEG")
    # Frames 2, 3 of every four: a clip takes every second frame, and must meet both sizes.
    frames(path, 2, 4, lambda _: other.getvalue())
    frames(path, 3, 4, lambda _: other.getvalue())


def records(path):
    return list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())


def write(path, found):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in found:
            writer.write(record)


def edit(path, change):
    found = records(path)
    example = tf.train.SequenceExample.FromString(found[1])
    change(example)
    found[1] = example.SerializeToString()
    write(path, found)


FAULTS = {
    flipped: r": record 1, at byte \d+, does not match its checksum; expected 3 whole records",
    cut: r": record [12], at byte \d+, is cut short; expected 3 whole records",
    missing: r": is missing; expected a TFRecord file of 3 videos",
    no_sequence_example: r": record 1: expected a SequenceExample",
    label: r": record 1: video 'VIDEO' has label 99; expected 0 to 7",
    no_label: r": record 1: video 'VIDEO' has no label under 'clip/label/index'",
    long_id: r": record 1: the id 'x{20}'\.\.\. has 70 bytes; expected at most 64",
    no_id: r": record 1: has 0 ids under 'clip/media_id'; expected one",
    no_frames: r": record 1: video 'VIDEO' has no frames under 'image/encoded'",
    garbage: r": record 1: video 'VIDEO': frame 5 \(7 bytes\) cannot be decoded; expected a JPEG image",
    halved: r": record 1: video 'VIDEO': frame 5 \(\d+ bytes\) cannot be decoded; expected a JPEG image",
    smaller: r": record 1: video 'VIDEO': frame 2 has 20 x 30 pixels; expected 40 x 54 as in frame 0",
}


def damaged(whole, folder, split, damage):
    """The source of a split of a damaged copy."""
    manifest, original = whole
    shutil.copytree(original, folder, dirs_exist_ok=True)
    damage(folder / DAMAGED[split])
    return reader.Source.of(str(folder), manifest.splits[split], len(manifest.classes))


def params_of(whole, split):
    run = experiment.complete(Cell(()), QUICK, facts(whole[0]))
    settings = {**run.settings, "task.train_data.global_batch_size": 4}
    if split == "train":
        return garden_config.build(settings, run.bookkeeping).task.train_data
    settings, bookkeeping = experiment.for_protocol(run, Protocol(2, 1, 32))
    return garden_config.build(
        settings, bookkeeping | {"task.validation_data.global_batch_size": 4}
    ).task.validation_data


def failure(params, source, start=0):
    """What reading the split raises inside a graph, as training does it."""
    dataset = (
        reader.training(params, source, start).take(6) if params.is_training else reader.evaluation(params, source)
    )
    following = tf.function(lambda iterator: next(iterator))
    iterator = iter(dataset)
    with pytest.raises(tf.errors.OpError) as caught:
        for _ in range(6):
            following(iterator)
    assert not isinstance(caught.value, tf.errors.OutOfRangeError), "nothing failed"
    return caught.value


def cases():
    """Each fault in each split; the quick tests meet each of them in one, in turn."""
    for number, damage in enumerate(FAULTS):
        for split in ("train", "validation"):
            marks = [pytest.mark.slow] if (split == "train") == bool(number % 2) else []
            yield pytest.param(damage, split, marks=marks, id=f"{damage.__name__}-{split}")


@pytest.mark.parametrize(("damage", "split"), cases())
def test_the_line_names_the_culprit(whole, tmp_path, damage, split):
    source, params = damaged(whole, tmp_path, split, damage), params_of(whole, split)
    line = diagnose.explain(failure(params, source), params, source)
    expected = re.escape(str(tmp_path / DAMAGED[split])) + FAULTS[damage].replace("VIDEO", VIDEO[split])
    assert re.fullmatch(expected, line), line


def test_a_shard_with_fewer_videos_than_the_manifest_says_is_named(whole, tmp_path):
    source, params = damaged(whole, tmp_path, "validation", one_fewer), params_of(whole, "validation")
    line = diagnose.explain(failure(params, source), params, source)
    assert line == f"{tmp_path / DAMAGED['validation']}: has 2 records; expected 3"


def test_a_resumed_run_is_searched_from_its_own_step(whole, tmp_path):
    source, params = damaged(whole, tmp_path, "train", label), params_of(whole, "train")
    # The second epoch, of six steps.
    error = failure(params, source, start=6)
    assert VIDEO["train"] in diagnose.explain(error, params, source, start=6)
    places = [tuple(place) for place in reader.places(params, source, 6).take(24).as_numpy_iterator()]
    passed = diagnose._passed(reader.clips(params, source, 6), math.inf)
    assert places[passed] == (2, 1)


def test_shards_are_searched_in_the_order_in_which_they_are_read(whole):
    params, source = params_of(whole, "train"), reader.Source.of(str(whole[1]), whole[0].splits["train"], 8)
    params.cycle_length, params.shuffle_buffer_size = 2, 2
    places = reader.places(params, source, 3)
    order = list(diagnose._shards(source, places))
    assert sorted(order) == list(range(8))
    assert order[:2] == list(dict.fromkeys(int(shard) for shard, _ in places.take(6).as_numpy_iterator()))[:2]


def test_a_search_that_takes_too_long_ends_with_what_is_known(whole, tmp_path):
    source, params = damaged(whole, tmp_path, "train", garbage), params_of(whole, "train")
    line = diagnose.explain(failure(params, source), params, source, limit_s=-1)
    assert line.startswith(f"{tmp_path}: a video or file cannot be read; searched")


def test_errors_that_are_not_the_datas_are_left_alone(whole, tmp_path):
    source, params = damaged(whole, tmp_path, "train", garbage), params_of(whole, "train")
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        tf.reshape(tf.zeros([3]), [2])
    for error in (caught.value, ValueError("IteratorGetNext"), tf.errors.DataLossError(None, None, "a checkpoint")):
        assert diagnose.explain(error, params, source) is None
