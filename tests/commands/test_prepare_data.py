"""Preparing a mixed folder: what is written, left out, refused, taken up again after kills, and found by a check."""

from __future__ import annotations

import csv
import fcntl
import functools
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf
from click.testing import CliRunner

from harness import prepare_data, train
from harness.config import embedded_spec
from harness.data import manifest as manifests
from harness.data import prepare as prepare_
from harness.data import shards
from harness.data.destinations import Destination, PlaceError
from tests.support import odd_videos

LESS = ["--min-frames", "16", "--videos-per-shard", "2"]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> Path:
    """13 good videos of two classes and 7 bad ones."""
    root = tmp_path_factory.mktemp("mixed")
    for number in range(9):
        odd_videos.write(root / f"train/{'ab'[number % 2]}/{number}.mp4", 20 + number)
    for number in range(4):
        odd_videos.write(root / f"validation/{'ab'[number % 2]}/{number}.mp4", 16)
    bad = root / "train/b"
    (bad / "empty.mp4").touch()
    (bad / "text.mp4").write_text("no video")
    (bad / "gone.mp4").symlink_to("nowhere.mp4")
    odd_videos.cut(odd_videos.write(bad / "half.mp4"))
    odd_videos.write_audio(bad / "sound.mp4")
    odd_videos.write(bad / "short.mp4", 15)
    odd_videos.damage(odd_videos.write(root / "validation/a/damaged.mp4"), 0.7, 200)
    return root


def prepare(videos, out, *words, kind="folders", workers=1):
    flags = ["--format", kind, "--workers", workers, *LESS, *words]
    return CliRunner().invoke(prepare_data.main, [str(word) for word in (videos, out, *flags)])


def check(out):
    return CliRunner().invoke(prepare_data.main, ["--check", str(out)])


@pytest.fixture(scope="module")
def whole(mixed, tmp_path_factory) -> Path:
    """The folder prepared without a disturbance. Not to be changed."""
    out = tmp_path_factory.mktemp("out") / "whole"
    result = prepare(mixed, out)
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture
def prepared(whole, tmp_path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(whole, tmp_path / "whole"))


def content(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir() if path.is_file() and path.name != ".lock"}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def records(path: Path) -> list[tf.train.SequenceExample]:
    return [tf.train.SequenceExample.FromString(r) for r in tf.data.TFRecordDataset(str(path)).as_numpy_iterator()]


# --- What is written --------------------------------------------------------------------------------------------------


def test_shards_hold_the_videos_under_the_gardens_keys(whole):
    manifest = manifests.load(whole)
    assert manifest.classes == ("a", "b")
    assert (whole / "labels.txt").read_text() == "a\nb\n"
    found = {}
    for split in manifest.splits.values():
        for shard in split.shards:
            for example in records(whole / shard.file):
                context = example.context.feature
                frames = example.feature_lists.feature_list["image/encoded"].feature
                label = context["clip/label/index"].int64_list.value[0]
                assert context["clip/label/text"].bytes_list.value[0].decode() == "ab"[label]
                found[context["clip/media_id"].bytes_list.value[0].decode()] = (label, len(frames))
    assert found == {f"train/{'ab'[n % 2]}/{n}": (n % 2, 20 + n) for n in range(9)} | {
        f"validation/{'ab'[n % 2]}/{n}": (n % 2, 16) for n in range(4)
    }


def test_the_manifest_counts(whole):
    train, validation = (manifests.load(whole).splits[split] for split in manifests.SPLITS)
    assert (train.examples, train.histogram, train.left_out) == (9, (5, 4), 6)
    assert (train.frames, train.frames_min, train.frames_max) == (sum(range(20, 29)), 20, 28)
    assert (validation.examples, validation.histogram, validation.left_out) == (4, (2, 2), 1)
    sources = rows(whole / "sources-train.csv")
    assert {row["path"] for row in sources} == {f"train/{'ab'[n % 2]}/{n}.mp4" for n in range(9)}
    places = [(shard.file, str(n)) for shard in train.shards for n in range(shard.examples)]
    assert [(row["shard"], row["record"]) for row in sources] == places


def test_bad_videos_are_listed_with_their_kind(whole, mixed):
    found = {row["path"]: row["kind"] for split in manifests.SPLITS for row in rows(whole / f"problems-{split}.csv")}
    assert found == {
        "train/b/empty.mp4": "empty",
        "train/b/text.mp4": "not a video",
        "train/b/gone.mp4": "missing",
        "train/b/half.mp4": "not a video",
        "train/b/sound.mp4": "no video stream",
        "train/b/short.mp4": "too short",
        "validation/a/damaged.mp4": "corrupt",
    }


def test_counts_are_said_and_strict_makes_them_an_error(mixed, prepared):
    result = prepare(mixed, prepared)
    assert result.exit_code == 0
    expected = "7 videos left out (1 corrupt, 1 empty, 1 missing, 1 no video stream, 2 not a video, 1 too short)"
    assert expected in result.output
    result = prepare(mixed, prepared, "--strict")
    assert result.exit_code == 1
    assert "FAILED --strict" in result.output
    assert not (prepared / manifests.FILE_NAME).exists()


def test_the_fingerprint_is_of_the_content(mixed, whole, tmp_path):
    """Other shards, same identity; other pixels, another one."""
    first = manifests.load(whole).fingerprint
    assert prepare(mixed, tmp_path / "a", "--videos-per-shard", "1", "--seed", "7").exit_code == 0
    assert prepare(mixed, tmp_path / "b", "--quality", "50").exit_code == 0
    assert manifests.load(tmp_path / "a").fingerprint == first
    assert manifests.load(tmp_path / "b").fingerprint != first
    assert {shard.examples for shard in manifests.load(tmp_path / "a").splits["train"].shards} == {1}


def test_index_data_finds_the_same(prepared):
    from harness import index_data

    manifest = manifests.load(prepared)
    (prepared / manifests.FILE_NAME).unlink()
    result = CliRunner().invoke(index_data.main, [str(prepared), "--classes", str(prepared / "labels.txt")])
    assert result.exit_code == 0, result.output
    assert manifests.load(prepared).fingerprint == manifest.fingerprint


def test_classes_are_mixed_over_shards():
    videos = [preparing_video(f"v{n}", n // 100) for n in range(400)]
    listing = prepare_.Listing(tuple("0123"), tuple(videos), {})
    made = [task for task in prepare_.tasks(listing, Path("v"), shards.Decoding(), 50, 0) if task.split == "train"]
    assert [len(task.videos) for task in made] == [50] * 8
    assert all(len({video.label for video in task.videos}) == 4 for task in made)
    assert sorted(video for task in made for video in task.videos) == sorted(videos)
    assert prepare_.tasks(listing, Path("v"), shards.Decoding(), 50, 1)[0].videos != made[0].videos


def preparing_video(media_id: str, label: int) -> shards.Video:
    return shards.Video(media_id, str(label), "train", f"{media_id}.mp4")


def test_a_bucket_is_written_by_way_of_tensorflow(mixed, whole):
    """TensorFlow's file system in memory stands for a bucket: neither is a path."""
    assert prepare(mixed, "ram://bucket/set").exit_code == 0
    again = prepare(mixed, "ram://bucket/set")
    assert "20 videos are in finished shards already" in again.output
    for name, expected in content(whole).items():
        if name != manifests.FILE_NAME:  # it names the folder
            assert tf.io.gfile.GFile(f"ram://bucket/set/{name}", "rb").read() == expected
    assert check("ram://bucket/set").exit_code == 0
    assert tf.io.gfile.listdir("ram://bucket/set/.parts") == []


def test_it_trains_by_the_same_path_as_the_embedded_set(whole, tmp_path, tiny_profile, kept_process):
    words = ["ls", "--profile", "tiny", "--data", str(whole), "--steps", "2", "--batch", "4"]
    words += ["--results", str(tmp_path), "--wandb", "off", "--repeat-short-videos"]
    done = CliRunner().invoke(train.main, words)
    assert done.exit_code == 0, done.output
    assert "9 training and 4 validation videos of 2 classes" in done.output
    record = json.loads(next((tmp_path / "runs").glob("*/record.json")).read_text())
    assert manifests.load(whole).fingerprint in json.dumps(record)


# --- Kills, restarts, and changes in between --------------------------------------------------------------------------


def command(videos: Path, out: Path, workers: int) -> list[str]:
    flags = ["--format", "folders", "--workers", str(workers), *LESS]
    return [sys.executable, "-m", "harness.prepare_data", str(videos), str(out), *flags]


def killed_after(words: list[str], events: int) -> int:
    """Kills the command when it has printed so many shards; how many it printed before it was dead or done."""
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        seen = 0
        for line in process.stdout:  # ends when the last of its workers has ended, too
            seen += ".tfrecord " in line
            if seen == events:
                process.send_signal(signal.SIGKILL)
    return seen


@pytest.mark.slow
def test_kills_at_random_points_change_no_byte(mixed, whole, tmp_path):
    out, rng, made = tmp_path / "whole", random.Random(6), 0
    for _ in range(4):
        made += killed_after(command(mixed, out, rng.choice([1, 2])), rng.choice([1, 2]))
        assert not (out / manifests.FILE_NAME).exists()
    done = subprocess.run(command(mixed, out, 2), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "videos are in finished shards already" in done.stdout
    assert made >= 4
    assert content(out) == content(whole)
    assert list((out / ".parts").iterdir()) == []


def test_a_shard_without_its_report_is_made_again(mixed, prepared, whole):
    (prepared / ".reports/train-00000-of-00008.tfrecord.json").unlink()
    (prepared / "train-00001-of-00008.tfrecord").write_bytes(b"cut")
    (prepared / ".reports/train-00002-of-00008.tfrecord.json").write_text("{")
    (prepared / ".parts/left").write_text("by a kill")
    result = prepare(mixed, prepared)
    assert result.exit_code == 0, result.output
    assert result.output.count(".tfrecord ") == 3
    assert content(prepared) == content(whole)


def test_other_options_are_refused_and_rebuilt_when_told_to(mixed, prepared, whole):
    result = prepare(mixed, prepared, "--quality", "50")
    assert result.exit_code == 2
    last = result.output.strip().splitlines()[-1]
    assert "the way of decoding is another" in last
    assert "--rebuild makes them again" in last
    assert content(prepared) == content(whole)
    assert prepare(mixed, prepared, "--quality", "50", "--rebuild").exit_code == 0
    assert check(prepared).exit_code == 0
    result = prepare(mixed, prepared, "--videos-per-shard", "1")
    assert result.exit_code == 2
    result = prepare(mixed, prepared, "--videos-per-shard", "1", "--rebuild")
    assert result.exit_code == 0
    assert check(prepared).exit_code == 0


def test_a_video_that_changed_is_named(mixed, tmp_path, whole):
    videos, out = Path(shutil.copytree(mixed, tmp_path / "v", symlinks=True)), tmp_path / "whole"
    assert prepare(videos, out).exit_code == 0
    assert content(out) == content(whole)
    odd_videos.write(videos / "train/b/nowhere.mp4", 30)
    (videos / "train/b/gone.mp4").unlink()
    (videos / "train/b/nowhere.mp4").rename(videos / "train/b/gone.mp4")
    result = prepare(videos, out)
    assert result.exit_code == 2
    assert "train/b/gone.mp4 has changed since; --rebuild makes them again" in result.output
    result = prepare(videos, out, "--rebuild")
    assert result.exit_code == 0
    assert result.output.count(".tfrecord ") == 1
    assert manifests.load(out).splits["train"].examples == 10
    assert check(out).exit_code == 0


def test_a_second_process_is_refused(mixed, prepared):
    with (prepared / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        result = prepare(mixed, prepared)
    assert result.exit_code == 2
    assert "another process is preparing it" in result.output.strip().splitlines()[-1]
    assert prepare(mixed, prepared).exit_code == 0


def test_a_folder_of_somebody_elses_is_left_alone(mixed, tmp_path):
    (tmp_path / "train-0").write_text("mine")
    result = prepare(mixed, tmp_path)
    assert result.exit_code == 2
    assert "train-0: is there and was not prepared here" in result.output
    (tmp_path / "file").write_text("")
    assert prepare(mixed, tmp_path / "file").exit_code == 2
    assert "is inside" in prepare(mixed, mixed / "out").output


def test_a_full_disk_is_one_line_and_leaves_nothing(mixed, tmp_path):
    """A limit on the size of files stands for a full disk."""

    def limited():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    words = command(mixed, tmp_path / "out", 1)
    done = subprocess.run(words, capture_output=True, text=True, preexec_fn=limited)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("Error: ")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out" / manifests.FILE_NAME).exists()
    assert list((tmp_path / "out/.parts").iterdir()) == []
    assert prepare(mixed, tmp_path / "out").exit_code == 0
    assert check(tmp_path / "out").exit_code == 0


def test_ctrl_c_ends_it_and_its_workers(tmp_path):
    videos, out = tmp_path / "videos", tmp_path / "whole"
    long = odd_videos.write(videos / "train/a/0.mp4", 300)
    for number in range(1, 16):  # seconds of work, so that it is not done before the signal arrives
        (videos / f"train/a/{number}.mp4").hardlink_to(long)
    odd_videos.write(videos / "validation/a/0.mp4", 20)
    with subprocess.Popen(
        command(videos, out, 2),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Tests in a shell's background find Ctrl-C ignored, and so would what they start.
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.default_int_handler),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline(), process.stdout.readline()  # the counts, and the first shard
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()  # ends with the last of its workers
    assert process.returncode == 130
    assert "the same command goes on from here" in said
    assert "Traceback" not in said
    assert prepare(videos, out, workers=2).exit_code == 0
    assert check(out).exit_code == 0


def test_a_worker_that_is_killed_is_said(mixed, tmp_path, monkeypatch):
    listing = prepare_.Listing(("0",), (preparing_video("a", 0), preparing_video("b", 0)), {})
    tasks = prepare_.tasks(listing, mixed, shards.Decoding(), 1, 0)
    monkeypatch.setattr(prepare_, "_make", _die)
    plan, progress = prepare_.Survey(tasks, (), ()), prepare_.Progress(int, lambda name, report: None)
    with pytest.raises(prepare_.WorkerLostError, match=r"killed while it made one of train-0000.*goes on"):
        prepare_.run(plan, Destination(str(tmp_path)), 2, progress)


def _die(task, place):
    os.kill(os.getpid(), signal.SIGKILL)


# --- The check --------------------------------------------------------------------------------------------------------


def damaged(out: Path) -> list[str]:
    result = check(out)
    assert result.exit_code == 1, result.output
    return [line.removeprefix("DAMAGED ") for line in result.output.splitlines() if line.startswith("DAMAGED")]


def test_a_check_of_sound_data(whole):
    result = check(whole)
    assert result.exit_code == 0, result.output
    assert manifests.load(whole).fingerprint[:8] in result.output


def test_a_flipped_bit_is_named_by_shard_and_record(prepared):
    shard = next(s for s in manifests.load(prepared).splits["train"].shards if s.examples == 2)
    path = prepared / shard.file
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    found = damaged(prepared)
    assert len(found) == 1
    assert found[0].startswith(f"{path}: record 1: damaged or cut short")


def test_other_damage_is_named(prepared):
    train = manifests.load(prepared).splits["train"].shards
    first, second, third, fourth = (prepared / shard.file for shard in train[:4])
    first.unlink()
    second.write_bytes(second.read_bytes()[:-9])
    third.write_bytes(fourth.read_bytes())
    (prepared / "train-extra").write_bytes(b"")
    found = damaged(prepared)
    assert len(found) == 4
    assert found[0].startswith(f"{first}: is missing")
    assert found[1].startswith(f"{second}: record ")
    assert found[2].startswith(f"{third}: record 0: is video")
    assert found[3] == f"{prepared / 'train-extra'}: is not in the manifest"


def test_a_video_written_anew_with_other_frames_is_named(prepared):
    shard = manifests.load(prepared).splits["train"].shards[0]
    examples = records(prepared / shard.file)
    frames = examples[0].feature_lists.feature_list["image/encoded"].feature
    swapped = [frames[0].bytes_list.value[0], frames[1].bytes_list.value[0]]
    frames[0].bytes_list.value[0], frames[1].bytes_list.value[0] = reversed(swapped)
    with tf.io.TFRecordWriter(str(prepared / shard.file)) as writer:
        for example in examples:
            writer.write(example.SerializeToString(deterministic=True))
    assert "record 0: video" in damaged(prepared)[0]
    (prepared / "sources-train.csv").unlink()
    assert [line.rpartition(": ")[2] for line in damaged(prepared)] == ["is missing"]


def test_a_changed_fingerprint_or_histogram_is_found(prepared):
    path = prepared / manifests.FILE_NAME
    text = path.read_text()
    path.write_text(text.replace(manifests.load(prepared).fingerprint, "0" * 64))
    assert "the videos are whole, but not those of fingerprint 00000000" in damaged(prepared)[0]
    fields = json.loads(text)
    fields["splits"]["train"]["histogram"].reverse()
    path.write_text(json.dumps(fields))
    assert "other labels than its histogram says" in damaged(prepared)[0]


def test_the_embedded_set_can_be_checked_too(tmp_path):
    from harness.data import embedded

    spec = embedded_spec.EmbeddedSpec(train_videos=8, validation_videos=8, frames=4)
    embedded.ensure(spec, tmp_path)
    assert check(embedded.folder(spec, tmp_path)).exit_code == 0
    assert check(tmp_path).exit_code == 2


# --- Odd usage --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "needs VIDEOS, OUT and --format"),
        (["v", "o"], "needs VIDEOS, OUT and --format"),
        (["/nowhere", "o", "--format", "folders"], "/nowhere: no such folder"),
        (["v", "o", "--format", "folders", "--fps", "nan"], "--fps 'nan': expected frames per second"),
        (["v", "o", "--format", "folders", "--fps", "1/0"], "--fps '1/0': expected frames per second"),
        (["v", "o", "--format", "folders", "--fps", "-25"], "--fps '-25': expected frames per second"),
        (["v", "o", "--format", "folders", "--classes", "none"], "none: cannot be read"),
        (["--check", "o", "--strict"], "--strict: is not looked at by --check"),
        (["--check", "/nowhere"], "/nowhere/manifest.json: no such file"),
    ],
)
def test_mistakes_are_one_line(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "v").mkdir()
    result = CliRunner().invoke(prepare_data.main, words)
    assert result.exit_code == 2
    assert message in result.output.strip().splitlines()[-1]
    assert not (tmp_path / "o").exists()


def test_no_video_and_one_video(tmp_path):
    (tmp_path / "v/train/a").mkdir(parents=True)
    assert "has no video of split train" in prepare(tmp_path / "v", tmp_path / "o").output
    odd_videos.write(tmp_path / "v/train/a/1.mp4")
    odd_videos.cut(odd_videos.write(tmp_path / "v/val/a/2.mp4"))
    result = prepare(tmp_path / "v", tmp_path / "o")
    assert result.exit_code == 2
    assert "problems-validation.csv: none of the 1 videos of validation can be used" in result.output
    assert not (tmp_path / "o" / manifests.FILE_NAME).exists()
    odd_videos.write(tmp_path / "v/val/a/2.mp4")
    assert prepare(tmp_path / "v", tmp_path / "o", "--rebuild").exit_code == 0
    assert check(tmp_path / "o").exit_code == 0


def test_a_file_that_cannot_be_written_keeps_the_old_one(tmp_path):
    place = Destination(str(tmp_path))
    place.make()
    place.write("a", b"old")
    with pytest.raises(ZeroDivisionError), place.writer("a") as file:
        file.write(b"new")
        raise ZeroDivisionError
    assert place.read("a") == b"old"
    assert list((tmp_path / ".parts").iterdir()) == []
    with pytest.raises(PlaceError):
        Destination(str(tmp_path / "a")).make()
