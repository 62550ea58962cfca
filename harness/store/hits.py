"""Per-video results: which videos a run classified correctly, read from its predictions files.

Runs that were evaluated on the same videos share one index of the videos' ids, which saves time and memory.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from harness.store.records import RecordError

_READ = ["media_id", "label", "top_class"]


@dataclasses.dataclass(frozen=True)
class VideoOutcomes:
    """Which videos a run classified correctly, or several runs evaluated on the same videos.

    Attributes:
      videos: ids of the videos, sorted.
      labels: class number of each video; (videos,), or (runs, videos).
      top1, top5: whether the label was the first guess, and among the first five; same shape as the labels.
    """

    videos: pd.Index[Any]
    labels: npt.NDArray[Any]
    top1: npt.NDArray[np.bool_]
    top5: npt.NDArray[np.bool_]


class Reading:
    """Reads predictions files; if several are on the same videos, sorts and stores their ids just once."""

    def __init__(self) -> None:
        self._last: tuple[pa.ChunkedArray, npt.NDArray[Any], pd.Index[Any]] | None = None
        self._sets: dict[tuple[str, ...], pd.Index[Any]] = {}

    def __call__(self, content: bytes, where: str) -> VideoOutcomes:
        """Reads which videos a run classified correctly.

        Args:
          content: content of the run's predictions file.
          where: the file's name, for messages.

        Raises:
          RecordError: the content is not a predictions file, or a video is in it twice.
        """
        try:
            table = pq.ParquetFile(pa.BufferReader(content)).read(_READ, use_threads=False)
            ids, labels, guesses = (table.column(name) for name in _READ)
            right = _matrix(guesses) == labels.to_numpy()[:, None]
        except (pa.ArrowException, KeyError, ValueError) as error:
            raise RecordError(f"{where}: no predictions ({' '.join(str(error).split())[:200]})") from None
        order, videos = self._sorted(ids, where)
        return VideoOutcomes(videos, labels.to_numpy()[order], right[order, 0], right[order, :5].any(axis=1))

    def _sorted(self, ids: pa.ChunkedArray, where: str) -> tuple[npt.NDArray[Any], pd.Index[Any]]:
        """Returns the row numbers in the order of the sorted ids, and the sorted ids."""
        if self._last is None or not self._last[0].equals(ids):
            names = ids.to_numpy()
            order = np.argsort(names, kind="stable")
            videos = pd.Index(names[order], name="video")
            if not videos.is_unique:
                raise RecordError(f"{where}: video {videos[videos.duplicated()][0]!r} is in them twice")
            self._last = ids, order, self._sets.setdefault(tuple(videos), videos)
        return self._last[1:]


def _matrix(guesses: pa.ChunkedArray) -> npt.NDArray[Any]:
    """Converts lists of equal length to an array (videos, guesses)."""
    lists = guesses.combine_chunks()
    lengths = np.unique(lists.value_lengths().to_numpy(zero_copy_only=False))
    if len(lengths) != 1 or not lengths[0] > 0:
        raise ValueError(f"top_class: expected as many guesses for each video, found {lengths.tolist()}")
    return np.asarray(lists.flatten()).reshape(len(lists), -1)


def stacked(runs: Sequence[VideoOutcomes]) -> VideoOutcomes:
    """Stacks the hits of several runs, which must share one index of videos, into arrays (runs, videos)."""
    labels, top1, top5 = (np.stack([getattr(hits, name) for hits in runs]) for name in ("labels", "top1", "top5"))
    return VideoOutcomes(runs[0].videos, labels, top1, top5)


def frames(stack: VideoOutcomes) -> list[pd.DataFrame]:
    """Returns one frame for each run, indexed by the sorted ids of the videos; columns "label", "top1", "top5"."""
    runs, videos = stack.labels.shape
    # Slices one frame, since creating a frame takes longer than everything else here.
    whole = pd.DataFrame({"label": stack.labels.ravel(), "top1": stack.top1.ravel(), "top5": stack.top5.ravel()})
    parts = [whole.iloc[run * videos : (run + 1) * videos] for run in range(runs)]
    for part in parts:
        part.index = stack.videos
    return parts
