"""Indexing shards made elsewhere: the same manifest as their maker's, and damage named."""

import shutil

import pytest
import tensorflow as tf
from click.testing import CliRunner

from harness import index_data
from harness.config import embedded_spec
from harness.data import embedded, manifest

SPEC = embedded_spec.EmbeddedSpec(train_videos=16, validation_videos=8)


@pytest.fixture
def folder(tmp_path):
    embedded.ensure(SPEC, tmp_path)
    found = tmp_path / "copy"
    shutil.copytree(embedded.folder(SPEC, tmp_path), found)
    (tmp_path / "classes.txt").write_text("\n".join(embedded_spec.CLASSES))
    return found


def index(folder, classes="classes.txt"):
    return CliRunner().invoke(index_data.main, [str(folder), "--classes", str(folder.parent / classes)])


def test_index_finds_what_the_maker_said(folder):
    made = manifest.load(folder)
    (folder / manifest.FILE_NAME).unlink()
    result = index(folder)
    assert result.exit_code == 0, result.output
    found = manifest.load(folder)
    assert (found.fingerprint, found.splits, found.classes) == (made.fingerprint, made.splits, made.classes)
    assert (found.height, found.width) == (SPEC.height, SPEC.width)


def rewritten(folder, change):
    """Rewrites the first training shard with one feature of its first video changed."""
    path = sorted(folder.glob("train*"))[0]
    examples = [tf.train.SequenceExample.FromString(r) for r in tf.data.TFRecordDataset(str(path)).as_numpy_iterator()]
    change(examples[0])
    with tf.io.TFRecordWriter(str(path)) as writer:
        for example in examples:
            writer.write(example.SerializeToString())


def drop_id(example):
    del example.context.feature["clip/media_id"]


def wrong_label(example):
    example.context.feature["clip/label/index"].int64_list.value[0] = 8


def long_id(example):
    example.context.feature["clip/media_id"].bytes_list.value[0] = b"x" * 65


def no_frames(example):
    del example.feature_lists.feature_list["image/encoded"].feature[:]


def no_jpeg(example):
    example.feature_lists.feature_list["image/encoded"].feature[0].bytes_list.value[0] = b"no image"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop_id, "key 'clip/media_id' is missing"),
        (wrong_label, "has label 8; expected 0 to 7"),
        (long_id, "has 65 bytes; expected at most 64"),
        (no_frames, "has no frames"),
        (no_jpeg, "its first frame is no JPEG image"),
    ],
)
def test_a_bad_video_is_named(folder, change, message):
    rewritten(folder, change)
    result = index(folder)
    assert result.exit_code == 2
    last = result.output.strip().splitlines()[-1]
    assert message in last
    assert "train-00000" in last


def test_other_damage_is_named(folder):
    shard = sorted(folder.glob("train*"))[0]
    content = shard.read_bytes()
    shard.write_bytes(content[: len(content) // 2])
    assert "damaged or cut short" in index(folder).output
    shard.write_bytes(sorted(folder.glob("train*"))[1].read_bytes())
    assert "is in train-00000" in index(folder).output
    for path in folder.glob("validation*"):
        path.unlink()
    assert "no shards named validation*" in index(folder).output
    assert "no such file" in index(folder, "nothing.txt").output
