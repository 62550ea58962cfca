"""Names in one line the video that made the input pipeline fail; TensorFlow names neither the file nor the record.

The search repeats what the pipeline did, from the last step that it is known to have passed. It makes the same clips
with the same draws, so it fails at the same video, and only that video is then examined frame by frame. Damaged files
are searched for in the order in which the pipeline opened them. Records and frames are numbered from zero.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator
from pathlib import PurePath

import tensorflow as tf
from official.vision.configs import video_classification as exp_cfg

from harness.data import reader

# Only errors of a data set's iterator are the data's fault; a damaged checkpoint raises a DataLossError, too.
_FROM_INPUT = "IteratorGetNext"
_OF_FILES = (
    tf.errors.DataLossError,
    tf.errors.FailedPreconditionError,
    tf.errors.NotFoundError,
    tf.errors.PermissionDeniedError,
)
_OF_VIDEOS = (tf.errors.InvalidArgumentError,)
# Size of the header and checksums of a record in a TFRecord file.
_FRAMING_BYTES = 16


def explain(
    error: Exception,
    params: exp_cfg.DataConfig,
    source: reader.Source,
    start: int = 0,
    context: tf.distribute.InputContext | None = None,
    limit_s: float = 300.0,
) -> str | None:
    """Finds the fault in the data behind an error: file, record, video, frame, what is wrong and what was expected.

    Args:
      error: what training or evaluation raised.
      params: the Garden's configuration of the data that were read.
      source: the shards.
      start: the last optimizer step known to be done; in evaluation, the number of videos.
      context: the pipeline that failed, if there were several.
      limit_s: seconds after which the search ends.

    Returns:
      One line; None if the error is not the data's fault.
    """
    if not isinstance(error, _OF_FILES + _OF_VIDEOS) or _FROM_INPUT not in str(error):
        return None
    places = reader.places(params, source, start, context)
    until = time.monotonic() + limit_s
    try:
        if isinstance(error, _OF_FILES):
            return _damaged_file(source, places, until)
        clips = reader.clips if params.is_training else reader.videos
        return _faulty_video(params, source, clips(params, source, start, context), places, until)
    except TimeoutError:
        where, unit = PurePath(source.paths[0]).parent, "step" if params.is_training else "video"
        return (
            f"{where}: a video or file cannot be read; searched {limit_s:.0f} s from {unit} {start} and did not find it"
        )


def video_fault(record: bytes, params: exp_cfg.DataConfig, classes: int) -> str | None:
    """Returns what is wrong with a serialized video and what was expected; None if nothing is wrong."""
    try:
        example = tf.train.SequenceExample.FromString(record)
    except Exception:  # protobuf's own error, which carries no types
        return "expected a SequenceExample"
    context, lists = example.context.feature, example.feature_lists.feature_list
    ids = context[reader.MEDIA_ID].bytes_list.value
    labels = context[params.label_field_key].int64_list.value
    frames = [value for feature in lists[params.image_field_key].feature for value in feature.bytes_list.value]
    if len(ids) != 1:
        return f"has {len(ids)} ids under {reader.MEDIA_ID!r}; expected one"
    name = _shown(ids[0])
    if len(ids[0]) > reader.ID_BYTES:
        return f"the id {name} has {len(ids[0])} bytes; expected at most {reader.ID_BYTES}"
    if not labels:
        return f"video {name} has no label under {params.label_field_key!r}"
    if not 0 <= labels[0] < classes:
        return f"video {name} has label {labels[0]}; expected 0 to {classes - 1}"
    if not frames:
        return f"video {name} has no frames under {params.image_field_key!r}"
    fault = _frame_fault(frames)
    return f"video {name}: {fault}" if fault else None


def _frame_fault(frames: list[bytes]) -> str | None:
    first: tuple[int, int] | None = None
    for number, frame in enumerate(frames):
        try:
            height, width, _ = tf.io.decode_image(frame, channels=3, expand_animations=False).shape
        except tf.errors.InvalidArgumentError:
            return f"frame {number} ({len(frame)} bytes) cannot be decoded; expected a JPEG image"
        first = first or (height, width)
        if (height, width) != first:
            return f"frame {number} has {height} x {width} pixels; expected {first[0]} x {first[1]} as in frame 0"
    return None


def _shown(media_id: bytes) -> str:
    text = media_id.decode(errors="replace")
    return repr(text) if len(text) <= reader.ID_BYTES else f"{text[:20]!r}..."


def _faulty_video(
    params: exp_cfg.DataConfig, source: reader.Source, clips: tf.data.Dataset, places: tf.data.Dataset, until: float
) -> str | None:
    passed = _passed(clips, until)
    if passed is None:
        return None
    shard, number = next(places.skip(passed).as_numpy_iterator())
    path = source.paths[shard]
    record = next(tf.data.TFRecordDataset(path).skip(number).as_numpy_iterator())
    return f"{path}: record {number}: {video_fault(record, params, source.classes) or 'cannot be read as a video'}"


def _passed(clips: tf.data.Dataset, until: float) -> int | None:
    """Returns the number of clips before the one that fails; None if none fails."""
    passed = 0
    with contextlib.suppress(*_OF_FILES):  # only a faulty video is looked for, not a damaged file
        try:
            for _ in clips:
                passed += 1
                _stop_after(until)
        except _OF_VIDEOS:
            return passed
    return None


def _damaged_file(source: reader.Source, places: tf.data.Dataset, until: float) -> str | None:
    for shard in _shards(source, places):
        fault = _file_fault(source.paths[shard], source.counts[shard])
        if fault:
            return fault
        _stop_after(until)
    return None


def _shards(source: reader.Source, places: tf.data.Dataset) -> Iterator[int]:
    """Yields each shard once, in the order in which the shards are read."""
    # Even from the middle of an epoch, two epochs' worth of videos come from all shards.
    upcoming = (int(shard) for shard, _ in places.take(2 * source.videos).as_numpy_iterator())
    seen: set[int] = set()
    for shard in itertools.chain(upcoming, range(len(source.paths))):
        if shard not in seen:
            seen.add(shard)
            yield shard


def _stop_after(until: float) -> None:
    if time.monotonic() > until:
        raise TimeoutError


def _file_fault(path: str, expected: int) -> str | None:
    number = position = 0
    try:
        for record in tf.data.TFRecordDataset(path).as_numpy_iterator():
            number, position = number + 1, position + len(record) + _FRAMING_BYTES
    except tf.errors.DataLossError as error:
        problem = "is cut short" if "truncated" in str(error) else "does not match its checksum"
        return f"{path}: record {number}, at byte {position}, {problem}; expected {expected} whole records"
    except tf.errors.OpError as error:
        problem = "is missing" if isinstance(error, tf.errors.NotFoundError) else "cannot be read"
        return f"{path}: {problem}; expected a TFRecord file of {expected} videos"
    return None if number == expected else f"{path}: has {number} records; expected {expected}"
