"""Makes the manifest of a data set made elsewhere: reads its shards for counts, labels, sizes and fingerprint."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import tensorflow as tf

from harness.data import manifest as manifests
from harness.data.manifest import Manifest, ManifestError, Shard, Split
from harness.data.reader import ID_BYTES

_KEYS = ("clip/label/index", "clip/media_id")
_FRAMES = "image/encoded"


@dataclasses.dataclass(frozen=True)
class Example:
    """One video of a shard: its id, label and hash, its number of frames, and the size of the first frame in pixels."""

    media_id: str
    label: int
    digest: str
    frames: int
    height: int
    width: int


def index(folder: Path, name: str, classes: Sequence[str], source: str, progress: Callable[[int], None]) -> Manifest:
    """Makes the manifest of a folder whose shards are named `train*` and `validation*`.

    Args:
      folder: the folder.
      name: name of the data set.
      classes: class names in label order.
      source: where the videos come from, in words.
      progress: called with the bytes of each shard once it is read.

    Raises:
      ManifestError: there are no shards, one is damaged, a key is missing, a label is outside the classes, or an id is
        used twice.
    """
    digests: list[tuple[str, str, str]] = []
    sizes: set[tuple[int, int]] = set()
    splits = {}
    seen: dict[str, str] = {}
    for split in manifests.SPLITS:
        shards, videos = [], []
        for path in shard_files(folder, split):
            shard_videos = list(examples(str(path), len(classes)))
            for example in shard_videos:
                if example.media_id in seen:
                    raise ManifestError(f"{path}: video {example.media_id!r} is in {seen[example.media_id]} already")
                seen[example.media_id] = path.name
            shards.append(Shard(path.name, len(shard_videos), path.stat().st_size))
            videos += shard_videos
            progress(path.stat().st_size)
        if not videos:
            raise ManifestError(f"{folder}: the shards of {split} hold no video; expected at least one")
        digests += [(split, video.media_id, video.digest) for video in videos]
        sizes |= {(video.height, video.width) for video in videos}
        splits[split] = _split(shards, videos, len(classes))
    height, width = sizes.pop() if len(sizes) == 1 else (0, 0)
    return Manifest(name, tuple(classes), height, width, splits, manifests.fingerprint(digests), source)


def shard_files(folder: Path, split: str) -> list[Path]:
    """Returns the files of the shards of a split, sorted.

    Raises:
      ManifestError: there are none.
    """
    paths = sorted(path for path in folder.glob(f"{split}*") if path.is_file())
    if not paths:
        raise ManifestError(f"{folder}: no shards named {split}*; expected TFRecords like {split}-00000-of-00008")
    return paths


def _split(shards: Sequence[Shard], examples: Sequence[Example], classes: int) -> Split:
    histogram = [0] * classes
    for example in examples:
        histogram[example.label] += 1
    lengths = [example.frames for example in examples]
    return Split(tuple(shards), min(lengths), max(lengths), tuple(histogram))


def examples(path: str, classes: int) -> Iterator[Example]:
    """Yields the videos of a shard, in order.

    Raises:
      ManifestError: a record is damaged, lacks something, or has a label outside the classes, or the shard cannot be
        opened; the message names the record or the shard.
    """
    number = 0
    try:
        for record in tf.data.TFRecordDataset(path).as_numpy_iterator():
            yield _example(record, f"{path}: record {number}", classes)
            number += 1
    except tf.errors.DataLossError as error:
        raise ManifestError(
            f"{path}: record {number}: damaged or cut short ({error.message}); expected TFRecords"
        ) from None
    except tf.errors.OpError as error:
        raise ManifestError(f"{path}: cannot be read ({error.message}); expected TFRecords") from None


def _example(record: bytes, where: str, classes: int) -> Example:
    try:
        parsed = tf.train.SequenceExample.FromString(record)
    except Exception:
        raise ManifestError(f"{where}: expected a SequenceExample") from None
    context = parsed.context.feature
    for key in _KEYS:
        if key not in context:
            raise ManifestError(f"{where}: key {key!r} is missing; it has {', '.join(sorted(context)) or 'none'}")
    if _FRAMES not in parsed.feature_lists.feature_list:
        raise ManifestError(f"{where}: the list {_FRAMES!r} is missing")
    labels, ids = context["clip/label/index"].int64_list.value, context["clip/media_id"].bytes_list.value
    if len(labels) != 1 or len(ids) != 1:
        raise ManifestError(f"{where}: {len(labels)} labels and {len(ids)} ids; expected one of each")
    label, media_id = labels[0], ids[0].decode(errors="replace")
    if len(ids[0]) > ID_BYTES:
        raise ManifestError(
            f"{where}: the id {media_id[:20]!r}... has {len(ids[0])} bytes; expected at most {ID_BYTES}"
        )
    if not 0 <= label < classes:
        raise ManifestError(f"{where}: video {media_id!r} has label {label}; expected 0 to {classes - 1}")
    frames = _frames(parsed.feature_lists.feature_list[_FRAMES].feature)
    if not frames:
        raise ManifestError(f"{where}: video {media_id!r} has no frames")
    height, width = _size(frames[0], f"{where}: video {media_id!r}")
    return Example(media_id, label, manifests.example_digest(media_id, label, frames), len(frames), height, width)


def _frames(features: Iterable[tf.train.Feature]) -> list[bytes]:
    return [value for feature in features for value in feature.bytes_list.value]


def _size(frame: bytes, where: str) -> tuple[int, int]:
    try:
        height, width, _ = tf.io.extract_jpeg_shape(frame).numpy()
    except tf.errors.InvalidArgumentError:
        raise ManifestError(f"{where}: its first frame is no JPEG image") from None
    return int(height), int(width)
