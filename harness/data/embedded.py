"""Generates the data set that comes with the project: short clips in which only motion tells the class.

Real handwritten digits (the scans that scikit-learn ships) drift over a still background. The class is the shape of
their path and nothing else. The digits are drawn at random and their positions are uniform on a torus (a digit that
leaves the frame on one side enters on the other). So a single frame has the same distribution in every class, and a
network that looks at frames one by one stays at chance. A mirrored video keeps its class, because paths that differ
from their mirror image go to the left or to the right at random; so the flips of the training recipe do no harm. The
two splits share no scan.

A second set of classes, other paths of the same digits, is there to pre-train on.

Everything is a pure function of the specification. The bytes are the same under the same versions of NumPy, Pillow and
scikit-learn; the manifest's fingerprint tells whether they are.
"""

import errno
import functools
import io
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice, pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from harness.config.embedded_spec import CLASSES, EmbeddedSpec
from harness.data import manifest as manifests
from harness.data.manifest import Manifest, ManifestError, Shard, Split
from harness.system import parallel

SHARDS: Mapping[str, int] = MappingProxyType({"train": 8, "validation": 4})

_TRAIN_SHARE = 0.7
# Videos that a process draws at a time.
_PART = 32
_EVEN_LIGHT, _EVEN_TINT = 0.25, (0.9, 0.85, 0.8)

# Direction of the straight paths as (down, right) per unit of speed; "right" turns into "left" in half of the videos.
_STRAIGHT: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "up": (-1.0, 0.0),
        "down": (1.0, 0.0),
        "sideways": (0.0, 1.0),
        "diagonal_up": (-0.75, 0.75),
        "diagonal_down": (0.75, 0.75),
    }
)
# Reach of the periodic paths as (vertical, horizontal), in units of the radius at which a circle has the drawn speed.
_PERIODIC: Mapping[str, tuple[float, float]] = MappingProxyType(
    {"circling": (1.2, 1.2), "bouncing": (1.56, 0.0), "swinging": (0.0, 1.56)}
)


_Positions = npt.NDArray[np.float64]


def _swing(turns: _Positions, times: int = 1) -> _Positions:
    """Returns a sine of amplitude 1/4 that makes `times` periods in each turn."""
    return 0.25 * np.sin(2 * np.pi * times * turns)


# The other paths (down, right) as functions of the turns made, in units of speed x period. None equals one of the
# first paths or its mirror image.
_OTHER: Mapping[str, Callable[[_Positions], tuple[_Positions, _Positions]]] = MappingProxyType(
    {
        "rising_steeply": lambda turns: (-0.92 * turns, 0.38 * turns),
        "rising_gently": lambda turns: (-0.38 * turns, 0.92 * turns),
        "sinking_gently": lambda turns: (0.38 * turns, 0.92 * turns),
        "sinking_steeply": lambda turns: (0.92 * turns, 0.38 * turns),
        "waving": lambda turns: (_swing(turns), 0.7 * turns),
        "looping": lambda turns: (_swing(turns), 0.4 * turns + _swing(turns + 0.25)),
        "rocking": lambda turns: (_swing(turns), _swing(turns)),
        "figure_eight": lambda turns: (_swing(turns, 2), 1.2 * _swing(turns)),
        "still": lambda turns: (0.0 * turns, 0.0 * turns),
    }
)


@dataclass(frozen=True)
class Video:
    """One labelled video: a unique id, an index into the classes of its set, and one JPEG file per frame."""

    media_id: str
    label: int
    frames: tuple[bytes, ...]


@functools.cache
def scan_indices(split: str) -> npt.NDArray[np.int64]:
    """Returns which of scikit-learn's digit scans a split may show, as row numbers of `load_digits()`.

    The partition is the same for every specification, so that training on one seed and validating on another does not
    leak scans either.
    """
    order = np.random.default_rng(0).permutation(len(_scans()))
    order.flags.writeable = False
    cut = int(_TRAIN_SHARE * len(order))
    return {"train": order[:cut], "validation": order[cut:]}[split]


def draw_pixels(spec: EmbeddedSpec, split: str, index: int) -> tuple[npt.NDArray[np.uint8], int]:
    """Draws video `index` of a split: pixels [frames, height, width, 3] in 0..255 and the label.

    Labels take turns, so the numbers of videos of two classes differ by at most one.
    """
    rng = np.random.default_rng([spec.seed, manifests.SPLITS.index(split), index])
    label = index % len(spec.classes)
    path = _path(spec, spec.classes[label], rng)
    light = np.repeat(_background(spec, rng)[np.newaxis], spec.frames, axis=0)
    for _ in range(spec.digits):
        light += _moved(_digit(spec, split, rng), path, rng)
    light += rng.standard_normal(light.shape, dtype=np.float32) * np.float32(spec.noise)
    tint = np.asarray(_EVEN_TINT, np.float32) if spec.alike else rng.uniform(0.7, 1.0, 3).astype(np.float32)
    pixels = np.empty((*light.shape, 3), np.uint8)
    for channel, share in enumerate(tint):  # one channel at a time, since an innermost axis of three is slow
        pixels[..., channel] = np.clip(light * share, 0, 1) * np.float32(255)
    return pixels, label


def videos(spec: EmbeddedSpec, split: str) -> Iterator[Video]:
    """Draws and encodes all videos of a split, in order."""
    return (_video(spec, split, index) for index in range(spec.count(split)))


def _video(spec: EmbeddedSpec, split: str, index: int) -> Video:
    pixels, label = draw_pixels(spec, split, index)
    frames = tuple(_jpeg(frame, spec.jpeg_quality) for frame in pixels)
    return Video(f"{spec.name}-{split}-{index:05d}", label, frames)


@functools.cache
def content_fingerprint(spec: EmbeddedSpec) -> str:
    """Returns the fingerprint that the written set will have, by drawing it all in memory, on all cores."""
    scan_indices(manifests.SPLITS[0])  # loads the scans, once for all processes
    indices = [(split, index) for split in manifests.SPLITS for index in range(spec.count(split))]
    work = [functools.partial(_digests, spec, part) for part in parallel.parts(indices, _PART)]
    return manifests.fingerprint(chain.from_iterable(parallel.each(work)))


def _digests(spec: EmbeddedSpec, indices: Sequence[tuple[str, int]]) -> list[tuple[str, str, str]]:
    """Returns (split, media id, digest) of videos, each given by its split and index."""
    drawn = ((split, _video(spec, split, index)) for split, index in indices)
    return [(split, video.media_id, _digest(video)) for split, video in drawn]


def folder(spec: EmbeddedSpec, root: Path) -> Path:
    """Returns the folder in which `ensure` keeps the set below `root`."""
    return root / f"{spec.name}-{spec.digest[:8]}"


def ensure(spec: EmbeddedSpec, root: Path) -> Manifest:
    """Returns the manifest of the set in `folder(spec, root)`, after writing the set if it is not there."""
    path = folder(spec, root)
    return _existing(spec, path) if path.exists() else write_shards(spec, path)


def write_shards(spec: EmbeddedSpec, folder: Path, shards: Mapping[str, int] = SHARDS) -> Manifest:
    """Writes the set as TFRecord files of `tf.train.SequenceExample`, under the keys that the Model Garden reads.

    `shards` is the largest number of files per split; no file is left empty. The folder appears whole or not at all; if
    another process made it meanwhile, that folder is used. A killed process can leave a hidden `.tmp` folder
    beside it, which nothing reads.
    """
    if any(shards.get(split, 0) < 1 for split in manifests.SPLITS):
        raise ValueError(f"shards is {dict(shards)!r}; expected at least one file for each of {manifests.SPLITS}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.parent / f".{folder.name}.{secrets.token_hex(4)}.tmp"
    temporary.mkdir()
    try:
        manifests.save(_write_splits(spec, temporary, shards), temporary)
        _publish(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return _existing(spec, folder)


def _existing(spec: EmbeddedSpec, folder: Path) -> Manifest:
    manifest = manifests.load(folder)
    if manifest.source != _source(spec):
        raise ManifestError(
            f"{folder / manifests.FILE_NAME}: source is {manifest.source!r}; expected {_source(spec)!r}"
        )
    return manifest


def _source(spec: EmbeddedSpec) -> str:
    return f"scikit-learn's digit scans, drawn by harness.data.embedded to specification {spec.digest}"


def _publish(temporary: Path, folder: Path) -> None:
    try:
        temporary.rename(folder)
    except OSError as error:
        # A folder that has files cannot be replaced: another process was first, and the caller checks what it wrote.
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise


def _write_splits(spec: EmbeddedSpec, folder: Path, shards: Mapping[str, int]) -> Manifest:
    digests: list[tuple[str, str, str]] = []
    splits = {}
    for split in manifests.SPLITS:
        splits[split], split_digests = _write_split(spec, split, folder, min(shards[split], spec.count(split)))
        digests += split_digests
    return Manifest(
        name=spec.name,
        classes=spec.classes,
        height=spec.height,
        width=spec.width,
        splits=splits,
        fingerprint=manifests.fingerprint(digests),
        source=_source(spec),
    )


def _write_split(spec: EmbeddedSpec, split: str, folder: Path, shards: int) -> tuple[Split, list[tuple[str, str, str]]]:
    import tensorflow as tf

    files, digests, counts = [], [], [0] * len(spec.classes)
    drawn = videos(spec, split)
    # Consecutive videos share a file: since labels take turns, every file then holds all classes.
    bounds = [spec.count(split) * k // shards for k in range(shards + 1)]
    for k, (start, stop) in enumerate(pairwise(bounds)):
        path = folder / f"{split}-{k:05d}-of-{shards:05d}.tfrecord"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for video in islice(drawn, stop - start):
                writer.write(example(video, spec.classes))
                digests.append((split, video.media_id, _digest(video)))
                counts[video.label] += 1
        files.append(Shard(path.name, stop - start, path.stat().st_size))
    return Split(tuple(files), spec.frames, spec.frames, tuple(counts)), digests


def example(video: Video, classes: Sequence[str] = CLASSES) -> bytes:
    """Serializes the video as a `tf.train.SequenceExample`; equal videos give equal bytes.

    Args:
      video: the video.
      classes: names of the classes of its set.
    """
    import tensorflow as tf

    def texts(*values: bytes) -> Any:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))

    context = {
        "clip/label/index": tf.train.Feature(int64_list=tf.train.Int64List(value=[video.label])),
        "clip/label/text": texts(classes[video.label].encode()),
        "clip/media_id": texts(video.media_id.encode()),
    }
    images = tf.train.FeatureList(feature=[texts(frame) for frame in video.frames])
    example = tf.train.SequenceExample(
        context=tf.train.Features(feature=context),
        feature_lists=tf.train.FeatureLists(feature_list={"image/encoded": images}),
    )
    # The features are a map, which protobuf writes in any order unless told otherwise.
    return bytes(example.SerializeToString(deterministic=True))


def _digest(video: Video) -> str:
    return manifests.example_digest(video.media_id, video.label, video.frames)


@functools.cache
def _scans() -> npt.NDArray[np.uint8]:
    """Returns the scans [scan, 8, 8] in 0..240; imports scikit-learn late, because that takes a second."""
    from sklearn.datasets import load_digits

    scans: npt.NDArray[np.uint8] = (load_digits().images * 15).astype(np.uint8)
    scans.flags.writeable = False
    return scans


def _path(spec: EmbeddedSpec, name: str, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Draws the displacement of the digits in pixels [frames, 2], as (down, right)."""
    time = np.arange(spec.frames)
    speed = rng.uniform(*spec.speed)
    side = rng.choice((-1.0, 1.0))
    if name in _OTHER:
        period = rng.uniform(*spec.period)
        positions = np.stack(_OTHER[name](time / period + rng.uniform()), axis=1)
        return np.asarray(positions * (1.0, side) * speed * period)
    if name in _STRAIGHT:
        down, right = _STRAIGHT[name]
        return np.stack([down * speed * time, side * right * speed * time], axis=1)
    rate = 2 * np.pi / rng.uniform(*spec.period)
    angle = rate * time + rng.uniform(0, 2 * np.pi)
    down, right = (reach * speed / rate for reach in _PERIODIC[name])
    return np.stack([down * np.sin(angle), side * right * np.cos(angle)], axis=1)


def _background(spec: EmbeddedSpec, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Draws a smooth still background [height, width] in 0.1..0.6; an even one if videos are alike."""
    if spec.alike:
        return np.full((spec.height, spec.width), _EVEN_LIGHT, np.float32)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 5), dtype=np.uint8))
    smooth = coarse.resize((spec.width, spec.height), Image.Resampling.BICUBIC)
    return np.asarray(smooth, np.float32) / np.float32(510) + np.float32(0.1)


def _digit(spec: EmbeddedSpec, split: str, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Draws a random digit of the split, always the same one if videos are alike, in the corner of a dark frame.

    Returns:
      [height, width], at its brightest as bright as the contrast drawn.
    """
    scans = scan_indices(split)[:1] if spec.alike else scan_indices(split)
    scan = Image.fromarray(_scans()[rng.choice(scans)])
    side = int(rng.integers(spec.sprite[0], spec.sprite[1] + 1))
    light = np.asarray(scan.resize((side, side), Image.Resampling.BILINEAR), np.float32) / 240
    canvas = np.zeros((spec.height, spec.width), np.float32)
    canvas[:side, :side] = light * np.float32(rng.uniform(*spec.contrast))
    return canvas


def _moved(
    canvas: npt.NDArray[np.float32], path: npt.NDArray[np.float64], rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Moves the canvas along the path from a random start, by whole pixels and around the edges: [frames, ...]."""
    down, right = (-np.rint(path + rng.uniform(0, canvas.shape)).astype(np.int64) % canvas.shape).T
    # Every shifted canvas is a window into four copies of it, two by two.
    windows = np.lib.stride_tricks.sliding_window_view(np.tile(canvas, (2, 2)), canvas.shape)
    moved: npt.NDArray[np.float32] = windows[down, right]
    return moved


def _jpeg(frame: npt.NDArray[np.uint8], quality: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
