"""Checks a data set against its manifest: reads every shard and names the file and record that do not fit."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable, Iterator

from harness.data import index
from harness.data import manifest as manifests
from harness.data.destinations import Destination
from harness.data.manifest import Manifest, ManifestError, Shard, Split

# By shard, the (id, digest, number of frames) that each record had when it was written.
_Rows = dict[str, list[tuple[str, str, str]]]


def load(place: Destination) -> Manifest:
    """Returns the manifest of a data set, without looking at its shards.

    Raises:
      ManifestError: there is none, or it cannot be used.
    """
    path, content = place.path(manifests.FILE_NAME), place.read(manifests.FILE_NAME)
    if content is None:
        raise ManifestError(f"{path}: no such file; expected the manifest of a prepared data set")
    try:
        return manifests.loads(content.decode())
    except UnicodeDecodeError:
        raise ManifestError(f"{path}: is not UTF-8 text; expected JSON") from None
    except ManifestError as error:
        raise ManifestError(f"{path}: {error}") from None


def faults(place: Destination, manifest: Manifest, progress: Callable[[int], None]) -> Iterator[str]:
    """Yields one line for each shard or file that does not fit the manifest.

    Args:
      place: where the data set is.
      manifest: its manifest.
      progress: called with the bytes of each shard once it is read.
    """
    digests: list[tuple[str, str, str]] = []
    lines = 0
    for name, split in manifest.splits.items():
        sources = _sources(place, split)
        if isinstance(sources, str):
            lines += 1
            yield sources
            sources = None
        histogram = [0] * len(manifest.classes)
        for shard in split.shards:
            try:
                for example in _examples(place, shard, len(manifest.classes), sources):
                    digests.append((name, example.media_id, example.digest))
                    histogram[example.label] += 1
            except ManifestError as error:
                lines += 1
                yield str(error)
            progress(shard.bytes)
        if not lines and tuple(histogram) != split.histogram:
            lines += 1
            yield f"{place.path(manifests.FILE_NAME)}: the shards of {name} hold other labels than its histogram says"
    # A damaged shard changes the fingerprint anyway.
    if not lines and manifests.fingerprint(digests) != manifest.fingerprint:
        yield f"{place.address}: the videos are whole, but not those of fingerprint {manifest.fingerprint[:8]}"
    known = {shard.file for split in manifest.splits.values() for shard in split.shards}
    for file in place.names():
        if file.startswith(manifests.SPLITS) and file not in known:
            yield f"{place.path(file)}: is not in the manifest"


def _examples(place: Destination, shard: Shard, classes: int, sources: _Rows | None) -> Iterator[index.Example]:
    """Yields the videos of a shard.

    Raises:
      ManifestError: a record does not fit; the message names the first one.
    """
    path, size, number = place.path(shard.file), place.size(shard.file), -1
    if size is None:
        raise ManifestError(f"{path}: is missing; expected {shard.bytes} bytes")
    for number, example in enumerate(index.examples(path, classes)):
        fault = _fault(example, sources[shard.file][number : number + 1]) if sources is not None else None
        if fault:
            raise ManifestError(f"{path}: record {number}: {fault}")
        yield example
    if number + 1 != shard.examples:
        raise ManifestError(f"{path}: has {number + 1} records; expected {shard.examples}")
    if size != shard.bytes:
        raise ManifestError(f"{path}: has {size} bytes; expected {shard.bytes}")


def _fault(example: index.Example, rows: list[tuple[str, str, str]]) -> str | None:
    if not rows:
        return f"video {example.media_id!r} is one more than the list of sources has"
    media_id, digest, frames = rows[0]
    if example.media_id != media_id:
        return f"is video {example.media_id!r}; expected {media_id!r}"
    if (example.digest, str(example.frames)) != (digest, frames):
        return f"video {example.media_id!r} has other frames or another label than when it was written"
    return None


def _sources(place: Destination, split: Split) -> _Rows | str | None:
    """Returns the list of the records as they were written; None without a list, one line if it is damaged."""
    if split.sources is None:
        return None
    path, content = place.path(split.sources.file), place.read(split.sources.file)
    if content is None:
        return f"{path}: is missing"
    if hashlib.sha256(content).hexdigest() != split.sources.sha256:
        return f"{path}: does not match its hash in the manifest"
    records: _Rows = {shard.file: [] for shard in split.shards}
    for row in csv.DictReader(io.StringIO(content.decode(), newline="")):
        records.get(row["shard"], []).append((row["media_id"], row["digest"], row["frames"]))
    return records
