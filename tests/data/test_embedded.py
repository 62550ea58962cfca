"""The embedded set: it repeats, it is whole or absent, the Garden reads it, and only motion tells its classes."""

import dataclasses
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from harness.config import embedded_spec
from harness.config.embedded_spec import CLASSES, EmbeddedSpec
from harness.data import embedded
from harness.data import manifest as manifests
from harness.data.manifest import ManifestError

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

TINY = EmbeddedSpec(name="tiny", train_videos=16, validation_videos=9, frames=6)


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a folder."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root folder under which `ensure` has put the tiny set."""
    root = tmp_path_factory.mktemp("sets")
    embedded.ensure(TINY, root)
    return root


# --- The set as files -------------------------------------------------------------------------------------------------


def test_same_seed_same_bytes(written: Path, tmp_path: Path) -> None:
    place = embedded.folder(TINY, written)
    manifest = embedded.write_shards(TINY, tmp_path / "again")
    assert hashes(tmp_path / "again") == hashes(place)
    assert manifest == manifests.load(place)
    assert embedded.content_fingerprint(TINY) == manifest.fingerprint


def test_the_fingerprint_is_that_of_all_videos_one_after_the_other() -> None:
    spec = dataclasses.replace(TINY, train_videos=70)  # three processes' worth
    digests = [
        (split, video.media_id, manifests.example_digest(video.media_id, video.label, video.frames))
        for split in manifests.SPLITS
        for video in embedded.videos(spec, split)
    ]
    assert embedded.content_fingerprint(spec) == manifests.fingerprint(digests)


def test_other_sharding_same_fingerprint(written: Path, tmp_path: Path) -> None:
    other = embedded.write_shards(TINY, tmp_path / "other", {"train": 3, "validation": 1})
    first = manifests.load(embedded.folder(TINY, written))
    assert other.fingerprint == first.fingerprint
    assert [shard.examples for shard in other.splits["train"].shards] == [5, 5, 6]
    assert other.splits["train"].histogram == first.splits["train"].histogram


@pytest.mark.parametrize("change", [{"seed": 1}, {"noise": 0.03}, {"train_videos": 17}, {"name": "other"}])
def test_any_other_specification_is_another_set(change: dict[str, Any]) -> None:
    other = dataclasses.replace(TINY, **change)
    assert embedded.folder(other, Path()) != embedded.folder(TINY, Path())
    assert embedded.content_fingerprint(other) != embedded.content_fingerprint(TINY)


def test_what_the_manifest_says(written: Path) -> None:
    manifest = manifests.load(embedded.folder(TINY, written))
    assert (manifest.name, manifest.classes) == ("tiny", CLASSES)
    assert (manifest.height, manifest.width) == (40, 54)
    train, validation = manifest.splits["train"], manifest.splits["validation"]
    assert (train.examples, train.histogram) == (16, (2,) * 8)
    assert (validation.examples, validation.histogram) == (9, (2, *(1,) * 7))
    assert (train.frames_min, train.frames_max) == (6, 6)
    assert [shard.file for shard in validation.shards] == [f"validation-0000{k}-of-00004.tfrecord" for k in range(4)]


def test_ensure_writes_once(written: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in written.rglob("*")}
    embedded.ensure(TINY, written)
    assert {path: path.stat().st_mtime_ns for path in written.rglob("*")} == before


def test_the_first_of_two_writers_wins(written: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in written.rglob("*")}
    # Writing where another process has already renamed its folder to.
    manifest = embedded.write_shards(TINY, embedded.folder(TINY, written))
    assert manifest == embedded.ensure(TINY, written)
    assert {path: path.stat().st_mtime_ns for path in written.rglob("*.*")} == {
        path: time for path, time in before.items() if path.is_file()
    }
    assert [path.name for path in written.iterdir()] == [embedded.folder(TINY, written).name]


def test_an_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = embedded.videos

    def interrupted(spec: EmbeddedSpec, split: str) -> Iterator[embedded.Video]:
        yield next(whole(spec, split))
        raise KeyboardInterrupt

    monkeypatch.setattr(embedded, "videos", interrupted)
    with pytest.raises(KeyboardInterrupt):
        embedded.ensure(TINY, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_another_set_in_the_folder_is_refused(written: Path) -> None:
    other = dataclasses.replace(TINY, seed=1)
    with pytest.raises(ManifestError, match=r"manifest\.json: source is .*; expected .* specification " + other.digest):
        embedded.write_shards(other, embedded.folder(TINY, written))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_videos": 0}, "train_videos is 0; expected at least 1"),
        ({"speed": (2.0, 1.0)}, r"speed is \(2.0, 1.0\); expected \(least, most\) with 0 < least <= most"),
        ({"period": (float("nan"), 1.0)}, r"period is \(nan, 1.0\); expected \(least, most\)"),
        ({"sprite": (10, 41)}, r"sprite is \(10, 41\); expected at most the 40 pixels of the frame's shorter side"),
        ({"seed": -1}, "seed is -1; expected at least 0"),
        ({"noise": -0.1}, "noise is -0.1; expected at least 0"),
        ({"jpeg_quality": 100}, "jpeg_quality is 100; expected 1 to 95"),
        ({"name": "../x"}, "name is '../x'; expected letters, digits, '-' and '_'"),
        ({"name": "-"}, "name is '-'; expected letters, digits, '-' and '_'"),
    ],
)
def test_what_cannot_be_drawn_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **change)


def test_every_split_needs_a_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"shards is \{'train': 1\}; expected at least one file for each"):
        embedded.write_shards(TINY, tmp_path / "set", {"train": 1})


# --- The set as examples ----------------------------------------------------------------------------------------------


def test_the_garden_reads_it_back(written: Path) -> None:
    import tensorflow as tf
    from official.vision.dataloaders import video_input

    decoder = video_input.Decoder()
    place = embedded.folder(TINY, written)
    manifest = manifests.load(place)
    files = [str(place / shard.file) for shard in manifest.splits["validation"].shards]
    records = list(tf.data.TFRecordDataset(files).as_numpy_iterator())
    assert len(records) == 9
    for index, (record, video) in enumerate(zip(records, embedded.videos(TINY, "validation"), strict=True)):
        example = decoder.decode(tf.constant(record))
        pixels, label = embedded.draw_pixels(TINY, "validation", index)
        assert example["clip/label/index"].numpy().tolist() == [label]
        frames = np.stack([tf.io.decode_jpeg(frame).numpy() for frame in example["image/encoded"].numpy()])
        assert frames.shape == pixels.shape
        # What JPEG loses is about as small as the noise in the pictures.
        assert np.abs(frames.astype(float) - pixels).mean() < 4
        context = tf.train.SequenceExample.FromString(record).context.feature
        assert context["clip/label/text"].bytes_list.value[:] == [CLASSES[label].encode()]
        assert context["clip/media_id"].bytes_list.value[:] == [video.media_id.encode()]


def test_frames_are_jpeg_and_ids_unique() -> None:
    drawn = [video for split in manifests.SPLITS for video in embedded.videos(TINY, split)]
    assert len({video.media_id for video in drawn}) == len(drawn) == 25
    with Image.open(io.BytesIO(drawn[0].frames[0])) as image:
        assert (image.format, image.size, image.mode) == ("JPEG", (54, 40), "RGB")


def test_drawing_depends_on_nothing_drawn_before() -> None:
    late = embedded.draw_pixels(TINY, "train", 5)[0]
    np.random.default_rng().random()
    embedded.draw_pixels(TINY, "train", 4)
    assert np.array_equal(embedded.draw_pixels(TINY, "train", 5)[0], late)
    assert not np.array_equal(embedded.draw_pixels(TINY, "validation", 5)[0], late)


def test_the_splits_share_no_scan() -> None:
    train, validation = embedded.scan_indices("train"), embedded.scan_indices("validation")
    assert sorted([*train, *validation]) == list(range(1797))
    # No scan is there twice under two numbers, either.
    assert len(np.unique(embedded._scans().reshape(1797, -1), axis=0)) == 1797


def test_a_digit_is_carried_around_the_edges() -> None:
    draw = np.random.default_rng(0)
    canvas, path = draw.random((7, 9), dtype=np.float32), draw.uniform(-40, 40, (30, 2))
    start = np.random.default_rng(5).uniform(0, canvas.shape)
    steps = np.rint(path + start).astype(int)
    expected = [np.roll(canvas, tuple(step), axis=(0, 1)) for step in steps]
    assert np.array_equal(embedded._moved(canvas, path, np.random.default_rng(5)), expected)


def test_only_scans_of_the_split_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    scans = np.zeros((1797, 8, 8), np.uint8)
    scans[embedded.scan_indices("validation")] = 240
    monkeypatch.setattr(embedded, "_scans", lambda: scans)
    spec = dataclasses.replace(TINY, noise=0.0)

    def moves(split: str) -> list[bool]:
        return [bool(np.ptp(embedded.draw_pixels(spec, split, i)[0], axis=0).any()) for i in range(16)]

    assert not any(moves("train"))
    assert all(moves("validation"))


@pytest.mark.parametrize("split", manifests.SPLITS)
def test_labels_are_balanced(split: str) -> None:
    spec = EmbeddedSpec(frames=1)
    labels = [embedded.draw_pixels(spec, split, i)[1] for i in range(spec.count(split))]
    assert np.bincount(labels).tolist() == [spec.count(split) // 8] * 8


# --- The classes, recovered from pixels -------------------------------------------------------------------------------

# One small dim digit without noise: every pixel shows the bare background at some time, and nothing saturates.
BARE = EmbeddedSpec(digits=1, sprite=(5, 5), contrast=(0.3, 0.4), noise=0.0, train_videos=8 * 25)


def positions(pixels: np.ndarray) -> np.ndarray:
    """Centre of what moves, from pixels [frames, height, width, 3]: pixels on the torus [frames, 2] as (down, right).

    A circular mean, which does not care where the edges are.
    """
    light = pixels.astype(float).sum(axis=3)
    light -= light.min(axis=0)
    sizes = np.array(light.shape[1:])
    rims = light.sum(axis=2), light.sum(axis=1)
    turns = [np.angle(rim @ np.exp(2j * np.pi * np.arange(n) / n)) for rim, n in zip(rims, sizes, strict=True)]
    return np.asarray(np.stack(turns, axis=1) / (2 * np.pi) * sizes % sizes)


def recovered_class(pixels: np.ndarray) -> str:
    """The class a person would give the motion: knows what the names mean, and nothing of how videos are drawn."""
    sizes = np.array(pixels.shape[1:3])
    steps = (np.diff(positions(pixels), axis=0) + sizes / 2) % sizes - sizes / 2
    way = np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)])
    down, right = way[-1]
    # A straight path gets ahead in the same way all the time; a periodic one comes back and back.
    if np.hypot(down, right) < 0.5 * np.hypot(*steps.T).sum():
        reach = np.ptp(way, axis=0)
        if reach.min() > 0.5 * reach.max():
            return "circling"
        return "bouncing" if reach[0] > reach[1] else "swinging"
    angle = np.degrees(np.arctan2(-down, abs(right)))
    return ("down", "diagonal_down", "sideways", "diagonal_up", "up")[round(float(angle) / 45) + 2]


def test_motion_is_what_the_label_says_and_mirroring_keeps_it() -> None:
    for index in range(5 * len(CLASSES)):
        pixels, label = embedded.draw_pixels(BARE, "train", index)
        assert recovered_class(pixels) == CLASSES[label], index
        assert recovered_class(pixels[:, :, ::-1]) == CLASSES[label], index


def test_the_oracle_tells_other_flips_apart() -> None:
    # Upside down or backwards, "up" is "down": an oracle that said the same for everything would fail here.
    pixels, label = embedded.draw_pixels(BARE, "train", CLASSES.index("up"))
    assert CLASSES[label] == "up"
    assert recovered_class(pixels[:, ::-1]) == recovered_class(pixels[::-1]) == "down"
    turned = embedded.draw_pixels(BARE, "train", CLASSES.index("bouncing"))[0].transpose(0, 2, 1, 3)
    assert recovered_class(turned) == "swinging"


def test_the_splits_share_no_background() -> None:
    # Labels take turns in both splits: shared backgrounds would go with shared labels, and could be learned by heart.
    grounds = [embedded.draw_pixels(BARE, split, i)[0].min(axis=0) for split in manifests.SPLITS for i in range(16)]
    assert len({ground.tobytes() for ground in grounds}) == 32


@pytest.mark.parametrize("name", ["sideways", "diagonal_up", "diagonal_down", "circling"])
def test_paths_take_either_side_alike(name: str) -> None:
    count, rng = 200, np.random.default_rng(0)
    paths = np.stack([embedded._path(BARE, name, rng) for _ in range(count)])
    step = paths[:, 1] - paths[:, 0]
    # Around its centre a circle turns left or right; a straight path goes there.
    centre = paths.mean(axis=1) if name == "circling" else paths[:, 0] + (1, 0)
    arm = paths[:, 0] - centre
    turn = step[:, 1] * arm[:, 0] - step[:, 0] * arm[:, 1]
    assert stats.binomtest(int((turn > 0).sum()), count).pvalue > 0.01


def test_positions_are_uniform_at_any_time_in_every_class() -> None:
    drawn = [embedded.draw_pixels(BARE, "train", i) for i in range(BARE.train_videos)]
    found = np.stack([positions(pixels) for pixels, _ in drawn]) / (BARE.height, BARE.width)
    labels = np.array([label for _, label in drawn])
    # 3 frames x 2 axes x (all videos + 8 classes): Bonferroni keeps the whole test at 5 %.
    tests = [
        stats.kstest(found[chosen, frame, axis], "uniform").pvalue
        for frame in (0, 20, 39)
        for axis in (0, 1)
        for chosen in (labels >= 0, *(labels == label for label in range(len(CLASSES))))
    ]
    assert min(tests) > 0.05 / len(tests)


def test_a_digit_that_leaves_comes_in_on_the_other_side() -> None:
    for index in range(len(CLASSES)):
        pixels, _ = embedded.draw_pixels(BARE, "train", index)
        light = pixels.astype(float).sum(axis=3)
        mass = (light - light.min(axis=0)).sum(axis=(1, 2))
        # Pixels are whole numbers, hence the little that remains.
        assert np.ptp(mass) < 0.05 * mass.mean()


# --- Only motion tells the class --------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Drawn:
    """All videos of the default set in grey [video, frame, height, width] in 0..1, and their labels, by split."""

    train: np.ndarray
    train_labels: np.ndarray
    validation: np.ndarray
    validation_labels: np.ndarray


@pytest.fixture(scope="module")
def drawn() -> Drawn:
    """Draw the default set at its real size."""
    spec, parts = EmbeddedSpec(), []
    for split in manifests.SPLITS:
        videos = [embedded.draw_pixels(spec, split, i) for i in range(spec.count(split))]
        parts += [
            np.stack([pixels.mean(axis=3, dtype=np.float32) / 255 for pixels, _ in videos]),
            np.array([label for _, label in videos]),
        ]
    return Drawn(*parts)


def correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Pictures [..., 40, 54], twice -> [..., 15, 15]: their likeness when one is moved by -7..7 pixels both ways."""
    size = first.shape[-2:]
    cross = np.fft.irfft2(np.fft.rfft2(first).conj() * np.fft.rfft2(second), s=size)
    return np.fft.fftshift(cross, axes=(-2, -1))[..., 20 - 7 : 20 + 8, 27 - 7 : 27 + 8]


def unit(features: np.ndarray) -> np.ndarray:
    """Features [n, ...] -> [n, m], each example scaled to length one."""
    flat = features.reshape(len(features), -1)
    return np.asarray(flat / np.linalg.norm(flat, axis=1, keepdims=True))


def frame_features(frames: np.ndarray) -> np.ndarray:
    """Single frames [n, 40, 54] -> [n, 1005].

    The picture at half size (540), 8 gradient directions in 5 x 6 cells (240), and the likeness of the frame to itself
    (225), which is where a blur or a texture that goes with the motion would show, wherever the digits are.
    """
    small = frames.reshape(len(frames), 20, 2, 27, 2).mean(axis=(2, 4))
    down, right = np.gradient(frames, axis=(1, 2))
    direction = np.floor(np.arctan2(down, right) / (2 * np.pi) * 8).astype(int) % 8
    strength = np.hypot(down, right)
    cells = [np.where(direction == k, strength, 0).reshape(-1, 5, 8, 6, 9).sum(axis=(2, 4)) for k in range(8)]
    itself = frames - frames.mean(axis=(1, 2), keepdims=True)
    parts = (small.reshape(len(frames), -1), unit(np.stack(cells, axis=3)), unit(correlation(itself, itself)))
    return np.concatenate(parts, axis=1)


def motion_features(videos: np.ndarray) -> np.ndarray:
    """Videos [n, frames, 40, 54] -> [n, 225]: the likeness of frames to those two later, averaged over time."""
    moving = videos - videos.mean(axis=1, keepdims=True)
    return unit(correlation(moving[:, :-2:5], moving[:, 2::5]).mean(axis=1))


def logistic() -> Any:
    """A linear classifier, shrunk enough for more features than videos."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))


def forest() -> Any:
    """A classifier that is not linear."""
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(100, random_state=0, n_jobs=2)


CLASSIFIERS: dict[str, Callable[[], Any]] = {"logistic": logistic, "forest": forest}
# The drawing is a pure function of its specification, whose bytes are held by the tests above; so that it leaks nothing
# is shown by one classifier in the quick tests, and by both in the slow ones.
ASKED = ["forest", pytest.param("logistic", marks=pytest.mark.slow)]
MOMENTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "first frame": lambda videos: np.zeros((len(videos), 1), int),
    "middle frame": lambda videos: np.full((len(videos), 1), 20),
    "last frame": lambda videos: np.full((len(videos), 1), 39),
    # The frame a clip reader would pick; several of each training video, to give a leak more to be learned from.
    "random frame": lambda videos: np.random.default_rng(1).integers(0, 40, (len(videos), 2)),
}


def correct(classifier: Any, train: np.ndarray, train_labels: np.ndarray, held: np.ndarray, labels: np.ndarray) -> int:
    """Number of held-out examples a freshly trained classifier gets right."""
    return int((classifier.fit(train, train_labels).predict(held) == labels).sum())


def interval(right: int, count: int, confidence: float) -> tuple[float, float]:
    """Wilson interval of an accuracy."""
    found = stats.binomtest(right, count).proportion_ci(confidence, method="wilson")
    return float(found.low), float(found.high)


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("classifier", ASKED)
def test_a_single_frame_says_nothing(drawn: Drawn, classifier: str, moment: str) -> None:
    """The accuracy on single frames is that of guessing, 1/8.

    Eight such tests are made (two classifiers, four choices of the frame). Each is held to a 1 - 0.05/8 interval
    (Bonferroni), so that a set without any leak passes all eight together with a probability of at least 95 %.
    """
    chosen = MOMENTS[moment](drawn.train)
    train = np.take_along_axis(drawn.train, chosen[:, :, np.newaxis, np.newaxis], axis=1).reshape(-1, 40, 54)
    held = MOMENTS[moment](drawn.validation)[:, 0]
    right = correct(
        CLASSIFIERS[classifier](),
        frame_features(train),
        np.repeat(drawn.train_labels, chosen.shape[1]),
        frame_features(drawn.validation[np.arange(len(held)), held]),
        drawn.validation_labels,
    )
    low, high = interval(right, len(held), 1 - 0.05 / (len(CLASSIFIERS) * len(MOMENTS)))
    assert low <= 1 / len(CLASSES) <= high, f"{right} of {len(held)}"


@pytest.mark.parametrize("classifier", ASKED)
def test_motion_says_the_class(drawn: Drawn, classifier: str) -> None:
    """The control of the test above: the same classifiers on the same videos, given motion, are far above chance."""
    right = correct(
        CLASSIFIERS[classifier](),
        motion_features(drawn.train),
        drawn.train_labels,
        motion_features(drawn.validation),
        drawn.validation_labels,
    )
    low, _ = interval(right, len(drawn.validation), 0.95)
    assert low > 0.5, f"{right} of {len(drawn.validation)}"


@pytest.mark.parametrize("classifier", ASKED)
def test_a_leak_into_single_frames_would_be_seen(drawn: Drawn, classifier: str) -> None:
    """The other control: pictures with motion blur (three frames laid over each other) do give the class away."""
    right = correct(
        CLASSIFIERS[classifier](),
        frame_features(drawn.train[:, 19:22].mean(axis=1)),
        drawn.train_labels,
        frame_features(drawn.validation[:, 19:22].mean(axis=1)),
        drawn.validation_labels,
    )
    low, _ = interval(right, len(drawn.validation), 1 - 0.05 / (len(CLASSIFIERS) * len(MOMENTS)))
    assert low > 1 / len(CLASSES), f"{right} of {len(drawn.validation)}"


# --- The set to pre-train on ------------------------------------------------------------------------------------------

OTHER = EmbeddedSpec(name="other", paths="other", seed=1)


def test_there_are_other_classes_and_the_first_set_is_as_it_was(tmp_path: Path) -> None:
    manifest = embedded.write_shards(dataclasses.replace(TINY, name="others", paths="other"), tmp_path / "others")
    assert manifest.classes == OTHER.classes == embedded_spec.OTHER_CLASSES
    assert manifest.splits["train"].histogram == (2,) * 7 + (1,) * 2
    assert not set(manifest.classes) & set(CLASSES)
    # The specification before there were others, by hand: its folder is found again.
    known = {"drawing": 1, "name": "tiny", "train_videos": 16, "validation_videos": 9, "frames": 6, "height": 40,
             "width": 54, "seed": 0, "digits": 6, "speed": [1.0, 3.0], "period": [10.0, 16.0], "sprite": [10, 16],
             "contrast": [0.6, 1.0], "noise": 0.01, "jpeg_quality": 95}  # fmt: skip
    assert TINY.digest == hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


@pytest.mark.parametrize("name", embedded_spec.OTHER_CLASSES)
def test_an_other_path_goes_where_its_name_says(name: str) -> None:
    """Net way over whole turns, and the reach around it, in units of what the digits' speed makes in that time."""
    spec = dataclasses.replace(OTHER, frames=101, speed=(2.0, 2.0), period=(20.0, 20.0))
    path = embedded._path(spec, name, np.random.default_rng(0))
    down, right = (path[100] - path[0]) / 200
    # By hand: angles of a half and of one and a half times 45 degrees; drifts of 0.7 and 0.4.
    ways = {"rising_steeply": (-0.92, 0.38), "rising_gently": (-0.38, 0.92), "sinking_gently": (0.38, 0.92),
            "sinking_steeply": (0.92, 0.38), "waving": (0, 0.7), "looping": (0, 0.4)}  # fmt: skip
    assert (down, abs(right)) == pytest.approx(ways.get(name, (0, 0)), abs=1e-9)
    around = path - path[0] - np.outer(np.arange(101) / 100, path[100] - path[0])
    reach = np.ptp(around, axis=0) / (2 * 20)
    reaches = {"waving": (0.5, 0), "looping": (0.5, 0.5), "rocking": (0.5, 0.5), "figure_eight": (0.5, 0.6)}
    assert tuple(reach) == pytest.approx(reaches.get(name, (0, 0)), abs=0.02)
    backwards = {embedded._path(spec, name, np.random.default_rng(seed))[3, 1] > 0 for seed in range(20)}
    assert len(backwards) == (1 if name == "still" else 2), "either side"


@pytest.mark.parametrize("alike", [True, False])
def test_videos_that_are_alike_show_the_same_light_at_other_places(alike: bool) -> None:
    """Of one digit that never overlaps itself, every frame of every video holds the same pixel values, moved."""
    spec = dataclasses.replace(
        TINY, digits=1, noise=0, contrast=(0.75, 0.75), sprite=(13, 13), alike=alike, train_videos=9
    )
    videos = [embedded.draw_pixels(spec, "train", index)[0] for index in range(9)]
    values = {tuple(np.sort(frame, axis=None)) for video in videos for frame in video}
    assert len(values) == 1 if alike else len(values) > 9
    assert len({video.tobytes() for video in videos}) == 9, "they move otherwise, and from other places"


@pytest.mark.slow
def test_of_the_other_classes_too_only_motion_tells() -> None:
    features: dict[str, list[np.ndarray]] = {"frame": [], "motion": []}
    labels = []
    for split in manifests.SPLITS:
        videos = [embedded.draw_pixels(OTHER, split, i) for i in range(OTHER.count(split))]
        grey = np.stack([pixels.mean(axis=3, dtype=np.float32) / 255 for pixels, _ in videos])
        features["frame"].append(frame_features(grey[:, 20]))
        features["motion"].append(motion_features(grey))
        labels.append(np.array([label for _, label in videos]))
    right = {kind: correct(forest(), train, labels[0], held, labels[1]) for kind, (train, held) in features.items()}
    low, high = interval(right["frame"], len(labels[1]), 0.95)
    assert low <= 1 / 9 <= high, right
    assert interval(right["motion"], len(labels[1]), 0.95)[0] > 0.5, right
