"""Prepares a data set: assigns videos to shards, makes the missing shards in parallel, and writes the manifest.

Everything but the decoding is decided from the sorted list of videos: a video keeps its shard and its place in the
order, whether or not others can be decoded, and whichever process makes the shard. A bad video is left out and
reported.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import multiprocessing
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from pathlib import Path

from harness.data import manifest as manifests
from harness.data import shards, video
from harness.data.destinations import Destination
from harness.data.manifest import Listed, Manifest, Shard, Split
from harness.data.shards import Entry, Report, Task
from harness.data.sources import Listing
from harness.data.video import Decoding
from harness.system.errors import HarnessError

REPORTS = shards.REPORTS
LABELS = "labels.txt"
_SOURCES = ("media_id", "label", "shard", "record", "frames", "height", "width", "digest", "path")
_PROBLEMS = ("media_id", "label", "path", "kind", "reason")
# At least this many shards, if there are enough videos: the reader mixes shards, and workers share them out.
_FEWEST_SHARDS = 8


class PreparingError(HarnessError):
    """A preparation that cannot start or go on; the message is one line."""


class WorkerLostError(PreparingError):
    """A worker process ended before its shard was made."""


@dataclasses.dataclass(frozen=True)
class Progress:
    """Callbacks for progress: `video` after every video, `shard` with the name and report of every finished shard."""

    video: Callable[[], None]
    shard: Callable[[str, Report], None]


@dataclasses.dataclass(frozen=True)
class Survey:
    """The work to do: shards to make (`todo`), why some are made again (`changed`), and shards of no task (`gone`)."""

    todo: tuple[Task, ...]
    changed: tuple[str, ...]
    gone: tuple[str, ...]

    @property
    def refused(self) -> str:
        """Why shards would have to be made again, which the user must ask for; empty if none would."""
        again = [
            *self.changed,
            *(f"{name}: belongs to another list of videos or number of shards" for name in self.gone),
        ]
        more = f", and {len(again) - 1} more shards" if len(again) > 1 else ""
        return f"{again[0]}{more}; --rebuild makes them again, or name another folder" if again else ""


def tasks(listing: Listing, folder: Path, decoding: Decoding, per_shard: int, seed: int) -> tuple[Task, ...]:
    """Assigns the videos to shards, each with its videos in order.

    Args:
      listing: the videos.
      folder: the folder of the videos.
      decoding: how they become frames.
      per_shard: most videos of a shard.
      seed: seed of the order of the videos, which mixes the classes.
    """
    labels = {name: number for number, name in enumerate(listing.classes)}
    planned = []
    for split in manifests.SPLITS:
        videos = sorted(
            (item for item in listing.videos if item.split == split), key=lambda item: _draw(seed, item.media_id)
        )
        count = max(-(-len(videos) // per_shard), min(_FEWEST_SHARDS, len(videos)))
        for k in range(count):
            chunk = tuple(videos[len(videos) * k // count : len(videos) * (k + 1) // count])
            name = f"{split}-{k:05d}-of-{count:05d}.tfrecord"
            planned.append(Task(name, split, chunk, str(folder), labels, decoding, video.versions()))
    return tuple(planned)


def _draw(seed: int, media_id: str) -> bytes:
    # A hash is the same under every version of every library; the numbers of a random generator are not.
    return hashlib.sha256(f"{seed} {media_id}".encode()).digest()


def survey(wanted: Sequence[Task], place: Destination) -> Survey:
    """Compares the tasks with what is in the folder; an unfinished shard counts as not made.

    Raises:
      PreparingError: the folder holds shards or a manifest that were not prepared here.
    """
    reported = shards.reported(place)
    foreign = [name for name in place.names() if name.startswith((*manifests.SPLITS, manifests.FILE_NAME))]
    if foreign and not reported:
        raise PreparingError(f"{place.path(foreign[0])}: is there and was not prepared here; name another folder")
    todo, changed = [], []
    for task in wanted:
        report = shards.read_report(place, task.file) if task.file in reported else None
        why = shards.difference(report, task) if report else None
        if why:
            changed.append(f"{task.file}: {why}")
        if why or not report:
            todo.append(task)
    return Survey(tuple(todo), tuple(changed), tuple(sorted(reported - {task.file for task in wanted})))


def run(plan: Survey, place: Destination, workers: int, progress: Progress) -> None:
    """Makes the shards that are missing or no longer fit.

    Args:
      plan: the work to do.
      place: the folder to write to.
      workers: number of processes; 1 works in this one.
      progress: called after every video and shard.

    Raises:
      WorkerLostError: a worker was killed.
      PlaceError: a shard cannot be written.
    """
    if plan.todo or plan.gone:
        place.remove(manifests.FILE_NAME)  # until all shards are there again, nobody may train on them
    for name in plan.gone:
        shards.forget(place, name)
    if workers == 1:
        for task in plan.todo:
            progress.shard(task.file, shards.make(task, place, progress.video))
    elif plan.todo:
        _side_by_side(plan.todo, place, min(workers, len(plan.todo)), progress)


def _side_by_side(todo: Sequence[Task], place: Destination, workers: int, progress: Progress) -> None:
    context = multiprocessing.get_context("spawn")
    alive, held = context.Pipe(duplex=False)
    ticks, ticker = context.Pipe(duplex=False)
    with futures.ProcessPoolExecutor(workers, context, _start, (alive, ticker)) as pool:
        waiting, running = iter(todo), dict[futures.Future[Report], str]()
        try:
            while True:
                while len(running) < 2 * workers and (task := next(waiting, None)):
                    running[pool.submit(_make, task, place)] = task.file
                if not running:
                    return
                done, _ = futures.wait(running, timeout=0.2, return_when=futures.FIRST_COMPLETED)
                _count(ticks, progress)
                for future in done:
                    report = future.result()
                    progress.shard(running.pop(future), report)
        except BrokenProcessPool:
            names = ", ".join(sorted(running.values())[:workers])
            raise WorkerLostError(
                f"{place.address}: a worker process was killed while it made one of {names} (out of memory? try fewer "
                "--workers); finished shards are kept, the same command goes on"
            ) from None
        finally:
            held.close()  # the workers notice that, and end


def _count(ticks: Connection, progress: Progress) -> None:
    while ticks.poll():
        ticks.recv_bytes()
        progress.video()


_ticker: Connection | None = None


def _start(alive: Connection, ticker: Connection) -> None:
    """Sets up a worker: it ends when its parent ends, however that ends, and leaves Ctrl-C to its parent."""
    global _ticker
    _ticker = ticker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(alive,), daemon=True).start()


def _end_with(alive: Connection) -> None:
    try:
        alive.recv_bytes()
    finally:
        os._exit(1)


def _make(task: Task, place: Destination) -> Report:
    return shards.make(task, place, _tick)


def _tick() -> None:
    if _ticker is not None:
        _ticker.send_bytes(b".")


# --- The manifest -----------------------------------------------------------------------------------------------------


def problems(wanted: Sequence[Task], place: Destination) -> Counter[str]:
    """Counts the videos left out, by kind, and writes `problems-SPLIT.csv`."""
    kinds: Counter[str] = Counter()
    for split in manifests.SPLITS:
        with place.writer(f"problems-{split}.csv") as file:
            file.write(_row(_PROBLEMS))
            for _, report in _reports(wanted, place, split):
                for entry in report.entries:
                    if entry.kind:
                        kinds[entry.kind] += 1
                        file.write(_row([getattr(entry, name) for name in _PROBLEMS]))
    return kinds


def finish(wanted: Sequence[Task], place: Destination, name: str, source: str, preparation: dict[str, str]) -> Manifest:
    """Writes the label map, the source of every video, and last the manifest, all from the reports of the shards.

    Raises:
      PreparingError: a split has no video that can be used.
    """
    classes = tuple(wanted[0].labels)
    place.write(LABELS, "".join(f"{label}\n" for label in classes).encode())
    digests: list[tuple[str, str, str]] = []
    sizes: set[tuple[int, int]] = set()
    splits = {split: _split(wanted, place, split, digests, sizes) for split in manifests.SPLITS}
    height, width = sizes.pop() if len(sizes) == 1 else (0, 0)
    manifest = Manifest(name, classes, height, width, splits, manifests.fingerprint(digests), source, preparation)
    text = manifests.dumps(manifest)
    manifests.loads(text)
    place.write(manifests.FILE_NAME, text.encode())
    return manifest


def _split(
    wanted: Sequence[Task],
    place: Destination,
    split: str,
    digests: list[tuple[str, str, str]],
    sizes: set[tuple[int, int]],
) -> Split:
    """Returns one split of the manifest and writes its `sources-SPLIT.csv`; adds to `digests` and `sizes`."""
    files, histogram, lengths, left_out = [], [0] * len(wanted[0].labels), Counter[int](), 0
    name = f"sources-{split}.csv"
    with place.writer(name) as file:
        file.write(_row(_SOURCES))
        for task, report in _reports(wanted, place, split):
            stored = report.stored
            left_out += len(report.entries) - len(stored)
            if stored:
                files.append(Shard(task.file, len(stored), report.bytes))
            for number, entry in enumerate(stored):
                file.write(_source(task, number, entry))
                digests.append((split, entry.media_id, entry.digest))
                histogram[task.labels[entry.label]] += 1
                lengths[entry.frames] += 1
                sizes.add((entry.height, entry.width))
    if not files:
        raise PreparingError(
            f"{place.path(f'problems-{split}.csv')}: none of the {left_out} videos of {split} can be used; see there"
        )
    frames = sum(length * count for length, count in lengths.items())
    listed = Listed(name, file.sha256)
    return Split(tuple(files), min(lengths), max(lengths), tuple(histogram), frames, left_out, listed)


def _reports(wanted: Sequence[Task], place: Destination, split: str) -> Iterator[tuple[Task, Report]]:
    """Yields the reports of a split one by one, so that only one shard's videos are in memory."""
    for task in wanted:
        if task.split == split:
            report = shards.read_report(place, task.file)
            if report is None:
                raise PreparingError(f"{place.path(task.file)}: was changed while the rest was made; start again")
            yield task, report


def _source(task: Task, number: int, entry: Entry) -> bytes:
    fields = {**dataclasses.asdict(entry), "shard": task.file, "record": number}
    return _row([fields[name] for name in _SOURCES])


def _row(cells: Sequence[object]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()
