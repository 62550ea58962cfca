"""What a user can get wrong, or find broken: each a line that names it and what was expected; nothing is lost."""

import json
import shutil
from pathlib import Path

import pytest
import tensorflow as tf
from click.testing import CliRunner

from harness import additive_study, evaluate, train
from harness.data import index, manifest
from harness.planning import disk
from harness.store.run_store import Store
from tests.support import trained as trained_
from tests.support.tiny import PROTOCOL

CUT = ["--steps", "2", "--validation-videos", "8"]
DIVERGES = """
from ablations.toggles import OPTIMIZER
from harness.config.toggles import VALUE, Toggle

_RATE = f"{OPTIMIZER}.learning_rate.cosine.initial_learning_rate"
RATE = Toggle("rate", "LR", "", "learning rate", {_RATE: VALUE}, 1e30)
WARMUP = Toggle("warmup", "WU", "", "warm-up steps", {f"{OPTIMIZER}.warmup.linear.warmup_steps": VALUE}, 1)
"""
SILENTLY_WRONG = """
from harness.config.toggles import Toggle

TRAIN = Toggle("sparse", "S", "", "labels as numbers in training", {"task.train_data.one_hot": False}, 1)
LOSS = Toggle("loss", "L", "", "labels as numbers in the loss", {"task.losses.one_hot": False}, 1)
CROP = Toggle("crop", "C", "", "smallest side in evaluation", {"task.validation_data.min_image_size": 20}, 1)
FILES = Toggle("files", "F", "", "kind of files", {"task.train_data.file_type": "sstable"}, 1)
"""


@pytest.fixture(autouse=True)
def tiny(tiny_profile, kept_process):
    """Commands know the profile `tiny`, and what trains for real here does so in one process."""


@pytest.fixture
def whole(data):
    """A small prepared data set that nothing is wrong with."""
    return data.folder


@pytest.fixture
def damaged(whole, tmp_path):
    """A copy of it, to be damaged."""
    return Path(shutil.copytree(whole, tmp_path / "data"))


def call(command, tmp_path, *words):
    return CliRunner().invoke(command, [*map(str, words), "--results", str(tmp_path / "results")])


def train_on(folder, tmp_path, *words):
    return call(train.main, tmp_path, "--profile", "tiny", "--data", folder, *CUT, *words)


def said(result, code):
    assert result.exit_code == code, result.output
    assert "Traceback (most recent" not in result.output
    return " ".join(result.output.split())


def shard(folder, split):
    return sorted(folder.glob(f"{split}-*"))[0]


def rewrite(path, change):
    """Writes a shard again, its first video changed."""
    records = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
    example = tf.train.SequenceExample.FromString(records[0])
    change(example)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in [example.SerializeToString(), *records[1:]]:
            writer.write(record)


def describe_again(folder):
    """A manifest that fits the files, as someone would write who does not look into them."""
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    for split in content["splits"].values():
        for one in split["shards"]:
            one["bytes"] = (folder / one["file"]).stat().st_size
    path.write_text(json.dumps(content))


def bad_frame(example):
    for frame in example.feature_lists.feature_list["image/encoded"].feature:
        frame.bytes_list.value[0] = b"\xff\xd8no image"


def bad_label(example):
    example.context.feature["clip/label/index"].int64_list.value[0] = 99


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


def test_a_shard_cut_short_is_refused_before_anything_is_trained(damaged, tmp_path):
    path = shard(damaged, "train")
    path.write_bytes(path.read_bytes()[:-100])
    line = said(train_on(damaged, tmp_path), 2)
    assert f"shard {path.name!r} has {path.stat().st_size} bytes; expected {path.stat().st_size + 100}" in line


@pytest.mark.parametrize(
    ("split", "damage", "message"),
    [
        ("train", flipped, "does not match its checksum; expected"),
        (
            "train",
            lambda path: rewrite(path, bad_frame),
            "frame 0 (10 bytes) cannot be decoded; expected a JPEG image",
        ),
        ("validation", lambda path: rewrite(path, bad_label), "has label 99; expected 0 to 7"),
    ],
    ids=["checksum", "frame", "label"],
)
def test_damaged_videos_are_named_in_training(damaged, tmp_path, split, damage, message):
    path = shard(damaged, split)
    damage(path)
    describe_again(damaged)
    line = said(train_on(damaged, tmp_path), 1)
    assert f"{path.name}: record" in line
    assert message in line
    assert "failure.json" in line


def test_an_empty_split_is_named(damaged, tmp_path):
    content = json.loads((damaged / "manifest.json").read_text())
    content["splits"]["validation"]["shards"] = []
    (damaged / "manifest.json").write_text(json.dumps(content))
    line = said(train_on(damaged, tmp_path), 2)
    assert "splits.validation.shards is a list of 0; expected a list of at least one" in line


def test_a_split_of_empty_shards_is_named_when_a_folder_is_indexed(damaged):
    for path in damaged.glob("validation-*"):
        with tf.io.TFRecordWriter(str(path)):
            pass
    with pytest.raises(
        manifest.ManifestError, match=f"{damaged}: the shards of validation hold no video; expected at least"
    ):
        index.index(damaged, "mine", [str(number) for number in range(8)], "test", lambda _: None)


def test_videos_shorter_than_a_clip_are_refused_unless_asked_for(damaged, tmp_path):
    content = json.loads((damaged / "manifest.json").read_text())
    content["splits"]["train"] |= {"frames_min": 20, "frames_max": 40}
    (damaged / "manifest.json").write_text(json.dumps(content))
    words = ["--data", damaged, "--frames", "48", *CUT]
    line = said(call(train.main, tmp_path, *words), 1)
    assert "the shortest train video has 20 frames, a clip of 12 frames, 2 apart, spans 23" in line
    assert "--repeat-short-videos" in line
    assert "cannot run" not in said(call(train.main, tmp_path, *words, "--plan", "--repeat-short-videos"), 0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sparse"], "task.train_data.one_hot=False: expected the same as task.losses.one_hot"),
        (["loss"], "task.losses.one_hot and task.validation_data.one_hot differ: accuracy would be meaningless"),
        (["crop"], "resolution=224 and crop=1 both set task.validation_data.min_image_size"),
        (["files"], "task.train_data.file_type=sstable: the reader knows tfrecord only"),
    ],
)
def test_settings_that_the_garden_gets_silently_wrong(tmp_path, words, message):
    file = tmp_path / "mine.py"
    file.write_text(SILENTLY_WRONG)
    assert message in said(call(train.main, tmp_path, *words, "--toggles", file, *CUT), 2)


def test_a_loss_that_diverges_is_said_with_its_steps(whole, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(DIVERGES)
    words = ["rate", "warmup", "--toggles", file, "--steps", "30"]
    line = said(train_on(whole, tmp_path, *words), 1)
    assert "the training loss of steps" in line
    assert "a lower learning rate or a longer warm-up may help" in line
    again = said(train_on(whole, tmp_path, *words, "--plan"), 0)
    assert "failed" in again
    assert "the training loss of steps" in again


def test_a_disk_that_cannot_hold_the_study_is_refused_first(tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "free", lambda folder: 1_000_000)
    line = said(call(additive_study.main, tmp_path, "--plots", tmp_path / "plots", *CUT), 2)
    assert "checkpoints need 0.0" in line
    assert "0.00 GB are free: free some" in line
    assert not list((tmp_path / "results").rglob("record.json"))


@pytest.fixture
def study(pretended, tmp_path):
    """Two rows, trained by pretence; a function that calls the study again, and the records."""

    def run(rows, *words):
        flags = ["--rows", rows, *CUT, *words, "--data", pretended, "--plots", tmp_path / "plots"]
        return call(additive_study.main, tmp_path, *flags)

    said(run("1,2"), 0)
    return run, Store(tmp_path / "results")


def of_row(store, number):
    """The id of a row's run: the first has no toggle."""
    return next(run_id for run_id in store.ids() if len(store.read(run_id).toggles) == number - 1)


def test_damaged_records_and_predictions_are_named_and_the_other_rows_go_on(study):
    run, store = study
    first, second = of_row(store, 1), of_row(store, 2)
    record, predictions = store.folder(first) / "record.json", next(store.folder(second).rglob("*.parquet"))
    kept = record.read_bytes(), predictions.read_bytes()
    record.write_bytes(kept[0].replace(b'"seed": 0', b'"seed": 5'))
    predictions.write_bytes(kept[1][:-1] + b"x")
    refused = said(run("1-3", "--fail-fast"), 1)
    assert "row 3: ls sd: done" not in refused
    line = said(run("1-3"), 1)
    assert f"FAILED row 1: baseline: {record}: changed since it was written" in line
    assert f"FAILED row 2: ls: {predictions}: changed since the record was written" in line
    assert "row 3: ls sd: done" in line
    assert len(store.ids()) == 3
    record.write_bytes(kept[0])
    predictions.write_bytes(kept[1])
    assert "done 3, to do 0" in said(run("1-3"), 0)


def test_damaged_weights_are_named(trained, data):
    store, run_id = trained("whole"), trained_.baseline(data).id
    weights = next(store.folder(run_id).rglob(f"weights-{trained_.STEPS}.data*"))
    kept = weights.read_bytes()
    flipped(weights)
    words = [run_id, "--views", "1x1", "--data", data.folder]
    line = said(call(evaluate.main, store.root.parent, *words), 1)
    assert f"weights-{trained_.STEPS}: damaged checkpoint, its checksums or its index do not hold" in line
    weights.write_bytes(kept)
    assert f"{PROTOCOL.replace('2x3', '1x1')}: top-1" in said(call(evaluate.main, store.root.parent, *words), 0)


def test_a_folder_that_another_storage_keeps(study, tmp_path):
    run, store = study
    url = f"sqlite:///{tmp_path}/other.db"
    line = said(run("1-4", "--storage", url), 2)
    assert f"{store.runs}: its runs are kept by queue.db, not {url}: say the same --storage, or remove" in line
