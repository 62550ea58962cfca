"""Makes one shard of a prepared data set: decodes its videos and writes them, with a report beside the shard.

A shard is a function of its task and of the files of its videos, whichever process makes it and however often it was
tried. Its report is written after it. It says what is in the shard, what was left out and why, and which files (by size
and modification time) were read. A shard without a report that fits it is made again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness.data import manifest as manifests
from harness.data.destinations import Destination, PlaceError
from harness.data.sources import Video
from harness.data.video import Decoded, Decoding, VideoError, decode

REPORTS = ".reports"


@dataclass(frozen=True)
class Task:
    """One shard to make: its file name, its videos in order, their folder, and the number of each class."""

    file: str
    split: str
    videos: tuple[Video, ...]
    folder: str
    labels: Mapping[str, int]
    decoding: Decoding
    libraries: str

    @property
    def digest(self) -> str:
        """Hash of everything that determines the shard except the content of the videos; 64 hexadecimal digits."""
        options = {name: str(value) for name, value in asdict(self.decoding).items()} | {"libraries": self.libraries}
        rows = [(video.media_id, self.labels[video.label], video.label, video.path) for video in self.videos]
        return hashlib.sha256(json.dumps([self.file, options, rows]).encode()).hexdigest()


@dataclass(frozen=True)
class Entry:
    """What happened to one video.

    Attributes:
      media_id, label, path: as in :class:`harness.data.sources.Video`.
      file: [size in bytes, modification time in ns] of the file that was read; None if there was none.
      frames, height, width: number and size in pixels of the stored frames; 0 if it was left out.
      digest: its :func:`harness.data.manifest.example_digest`; empty if it was left out.
      kind, reason: why it was left out; empty if it was not.
    """

    media_id: str
    label: str
    path: str
    file: tuple[int, int] | None
    frames: int = 0
    height: int = 0
    width: int = 0
    digest: str = ""
    kind: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Report:
    """The content of a shard: its task's digest, its bytes (0: no file, all was left out), and every video in order."""

    task: str
    bytes: int
    entries: tuple[Entry, ...] = field(repr=False)

    @property
    def stored(self) -> list[Entry]:
        """The videos that are in the shard, in its order."""
        return [entry for entry in self.entries if not entry.kind]


def make(task: Task, place: Destination, tick: Callable[[], None]) -> Report:
    """Makes a shard and its report.

    Args:
      task: the shard.
      place: the folder to write to.
      tick: called after every video.

    Raises:
      PlaceError: the shard cannot be written.
    """
    import tensorflow as tf

    # After a kill, the report of an earlier shard must not vouch for the new one.
    place.remove(_report_name(task.file))
    part, entries = place.part(), []
    try:
        with tf.io.TFRecordWriter(part) as writer:
            for video in task.videos:
                entry, record = _entry(task, video)
                if record is not None:
                    writer.write(record)
                entries.append(entry)
                tick()
        report = Report(task.digest, _publish(part, place, task, entries), tuple(entries))
    except tf.errors.OpError as error:
        raise PlaceError(f"{place.path(task.file)}: {error.message.splitlines()[0]}") from None
    finally:
        place.discard(part)
    place.write(_report_name(task.file), _dumped(report))
    return report


def _publish(part: str, place: Destination, task: Task, entries: list[Entry]) -> int:
    """Publishes the shard and returns its size in bytes; a shard without videos is not kept."""
    if all(entry.kind for entry in entries):
        place.remove(task.file)
        return 0
    place.publish(part, task.file)
    size = place.size(task.file)
    if not size:
        raise PlaceError(f"{place.path(task.file)}: is gone after it was written")
    return size


def _entry(task: Task, video: Video) -> tuple[Entry, bytes | None]:
    path = Path(task.folder) / video.path
    file = stamp(path)
    try:
        decoded = decode(path, task.decoding)
    except VideoError as error:
        return Entry(video.media_id, video.label, video.path, file, kind=error.kind, reason=str(error)), None
    label = task.labels[video.label]
    digest = manifests.example_digest(video.media_id, label, decoded.frames)
    size = len(decoded.frames), decoded.height, decoded.width
    return Entry(video.media_id, video.label, video.path, file, *size, digest), _record(video, label, decoded)


def stamp(path: Path) -> tuple[int, int] | None:
    """Returns size in bytes and modification time in ns of a video's file; None if it cannot be read."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_size, status.st_mtime_ns


def _record(video: Video, label: int, decoded: Decoded) -> bytes:
    """Serializes the video as a `tf.train.SequenceExample`; equal videos give equal bytes."""
    import tensorflow as tf

    def texts(*values: bytes) -> Any:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))

    context = {
        "clip/label/index": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
        "clip/label/text": texts(video.label.encode()),
        "clip/media_id": texts(video.media_id.encode()),
    }
    images = tf.train.FeatureList(feature=[texts(frame) for frame in decoded.frames])
    example = tf.train.SequenceExample(
        context=tf.train.Features(feature=context),
        feature_lists=tf.train.FeatureLists(feature_list={"image/encoded": images}),
    )
    # The features are a map, which protobuf writes in any order unless told otherwise.
    return bytes(example.SerializeToString(deterministic=True))


# --- Reports ----------------------------------------------------------------------------------------------------------


def read_report(place: Destination, file: str) -> Report | None:
    """Returns the report of a shard that is there whole; None if there is none."""
    content = place.read(_report_name(file))
    if content is None:
        return None
    try:
        report = _loaded(content)
    except (ValueError, TypeError, KeyError):
        return None  # not a report of this kind: the shard is made again
    return report if (place.size(file) or 0) == report.bytes else None


def difference(report: Report, task: Task) -> str | None:
    """Says in words what changed since a finished shard was made; None if nothing did."""
    if report.task != task.digest:
        return "its list of videos or the way of decoding is another"
    for entry in report.entries:
        if entry.file != stamp(Path(task.folder) / entry.path):
            return f"{entry.path} has changed since"
    return None


def reported(place: Destination) -> set[str]:
    """Returns the file names of the shards that have a report."""
    return {name.removesuffix(".json") for name in Destination(place.path(REPORTS)).names()}


def forget(place: Destination, file: str) -> None:
    """Removes a shard with its report."""
    place.remove(_report_name(file))
    place.remove(file)


def _report_name(file: str) -> str:
    return f"{REPORTS}/{file}.json"


def _dumped(report: Report) -> bytes:
    return (json.dumps(asdict(report), ensure_ascii=False) + "\n").encode()


def _loaded(content: bytes) -> Report:
    fields = json.loads(content)
    return Report(str(fields["task"]), int(fields["bytes"]), tuple(_entries(fields["entries"])))


def _entries(rows: list[dict[str, Any]]) -> Iterator[Entry]:
    for row in rows:
        yield Entry(**{**row, "file": tuple(row["file"]) if row["file"] is not None else None})
