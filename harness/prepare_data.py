"""python -m harness.prepare_data: turns videos as people have them into TFRecord shards that `--data` takes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli import options

if TYPE_CHECKING:
    from collections import Counter

    from harness.data.destinations import Destination
    from harness.data.manifest import Manifest
    from harness.data.prepare import Progress, Survey
    from harness.data.sources import Listing

_EXAMPLES = """
\b
Examples:
  python -m harness.prepare_data /videos/k400 /data/k400 --format kinetics \\
      --annotations train.csv --annotations validate.csv
  python -m harness.prepare_data UCF-101 /data/ucf101 --format ucf101 --annotations ucfTrainTestlist --fold 1
  python -m harness.prepare_data hmdb51_org /data/hmdb51 --format hmdb51 --annotations testTrainMulti_7030_splits \\
      --min-frames 32
  python -m harness.prepare_data /videos/mine /data/mine --format folders
  python -m harness.prepare_data /videos/web gs://bucket/web --format csv --annotations web.csv --holdout 0.01
  python -m harness.prepare_data --check /data/k400

\b
What --format says of VIDEOS:
  kinetics  the CSVs of Kinetics-400, 600 or 700 (label, youtube_id, time_start, time_end, split), and files
            ID_000010_000020.mp4 at any depth
  ucf101    the folder of classInd.txt, trainlistNN.txt and testlistNN.txt; the test list is the validation split
  hmdb51    the folder of CLASS_test_splitN.txt; 1 is training, 2 validation, 0 is left out
  folders   train/CLASS/... and validation/CLASS/...; or CLASS/... with --holdout
  csv       columns path, label and split, by the names in the first line; without split, with --holdout

Left behind: the shards, labels.txt, manifest.json, sources-SPLIT.csv (where each video comes from) and
problems-SPLIT.csv (what was left out, and why). Stopped or killed, the same command goes on with the missing shards.

"""


@click.command(epilog=_EXAMPLES + options.EXIT_CODES)
@click.argument("videos", required=False, type=click.Path(path_type=Path))
@click.argument("out", required=False)
@click.option("--format", "kind", type=click.Choice(["kinetics", "ucf101", "hmdb51", "folders", "csv"]))
@click.option(
    "--annotations",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="PATH",
    help="CSV file, may be repeated; for ucf101 and hmdb51 the folder of the split files.",
)
@click.option(
    "--classes",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Label map, one name a line in the order of the labels; another label is an error.  "
    "[default: the names in alphabetical order; ucf101: classInd.txt]",
)
@click.option(
    "--fold",
    type=click.IntRange(1, 3),
    default=1,
    show_default=True,
    help="Which of the official splits of UCF-101 and HMDB-51.",
)
@click.option("--test-as-validation", is_flag=True, help="Take the videos of a split 'test' for validation.")
@click.option(
    "--holdout",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="SHARE",
    help="Where the source has no splits: this share of the videos, drawn by their ids, is validation.",
)
@click.option(
    "--short-side",
    type=click.IntRange(16, 4096),
    default=256,
    show_default=True,
    metavar="PIXELS",
    help="Shorter side of the stored frames, by FFmpeg's bicubic scaler; smaller videos keep their size.",
)
@click.option("--quality", type=click.IntRange(1, 95), default=95, show_default=True, help="JPEG quality.")
@click.option(
    "--fps",
    metavar="RATE",
    help="Frames per second, such as 25 or 30000/1001, resampled by timestamps.  [default: every frame of the video]",
)
@click.option(
    "--min-frames",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    metavar="N",
    help="Leave out shorter videos. 64 is the paper's longest clip: all its rows see the same videos.",
)
@click.option(
    "--videos-per-shard",
    type=click.IntRange(1, 10_000),
    default=64,
    show_default=True,
    metavar="N",
    help="At most; a killed preparation loses the shards it was at.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the order of the videos.")
@click.option("--name", help="Name of the data set.  [default: the folder's]")
@click.option("--workers", type=click.IntRange(1, 1024), metavar="N", help="Processes.  [default: one for each CPU]")
@click.option("--strict", is_flag=True, help="A video that cannot be used is an error: no manifest, exit code 1.")
@click.option("--rebuild", is_flag=True, help="Make shards again whose videos or options are no longer the same.")
@click.option(
    "--check",
    "checked",
    metavar="DIR",
    help="Read every shard of a data set and hold it against its manifest, then stop.",
)
@options.one_line_errors
def main(
    videos: Path | None,
    out: str | None,
    kind: str | None,
    annotations: tuple[Path, ...],
    classes: Path | None,
    fold: int,
    test_as_validation: bool,
    holdout: float | None,
    short_side: int,
    quality: int,
    fps: str | None,
    min_frames: int,
    videos_per_shard: int,
    seed: int,
    name: str | None,
    workers: int | None,
    strict: bool,
    rebuild: bool,
    checked: str | None,
) -> None:  # fmt: skip
    """Decodes the videos below the folder VIDEOS and writes a data set into OUT, a folder or a gs:// address."""
    if checked is not None:
        options.refuse_others({"checked"}, "is not looked at by --check DIR, which reads a prepared data set")
        _check(checked)
        return
    if videos is None or out is None or kind is None:
        raise click.UsageError("needs VIDEOS, OUT and --format; see --help for an example of each format")
    from harness.data import lists, sources, video
    from harness.data.destinations import Destination

    decoding = video.Decoding(short_side, quality, _rate(fps), min_frames)
    named = lists.names(classes) if classes else None
    request = sources.Request(videos, annotations, named, fold, test_as_validation, holdout)
    place = Destination(out)
    if kind == "folders" and place.local and Path(out).resolve().is_relative_to(videos.resolve()):
        raise lists.SourceError(f"{out}: is inside {videos}, where every folder is a class; name one outside")
    listing = sources.listing(kind, request)
    _describe(listing)
    from harness.data import prepare

    tasks = prepare.tasks(listing, videos, decoding, videos_per_shard, seed)
    made_with = {
        "format": kind, "short_side": str(short_side), "quality": str(quality), "fps": fps or "as it is",
        "min_frames": str(min_frames), "seed": str(seed), "libraries": video.versions(),
    }  # fmt: skip
    title = name or Path(place.path()).resolve().name or "prepared"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    place.make(prepare.REPORTS)
    with place.locked():
        place.sweep()
        plan = prepare.survey(tasks, place)
        if plan.refused and not rebuild:
            raise prepare.PreparingError(f"{place.path()}: {plan.refused}")
        _run(plan, place, workers or os.cpu_count() or 1, sum(len(task.videos) for task in tasks))
        left_out = prepare.problems(tasks, place)
        _describe_problems(left_out, place)
        if left_out and strict:
            place.remove("manifest.json")
            click.echo("FAILED --strict: videos cannot be used, so no manifest was written", err=True)
            raise SystemExit(1)
        source = f"prepared by harness.prepare_data from {kind} lists"
        _print_summary(place, prepare.finish(tasks, place, title, source, made_with))


def _rate(text: str | None) -> Fraction | None:
    from harness.data.prepare import PreparingError

    if text is None:
        return None
    try:
        rate = Fraction(text)
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if not 0 < rate <= 1000:
        raise PreparingError(f"--fps {text!r}: expected frames per second, such as 25 or 30000/1001")
    return rate


def _describe(listing: Listing) -> None:
    counts = {split: sum(video.split == split for video in listing.videos) for split in ("train", "validation")}
    text = ", ".join(f"{count:,} {split}" for split, count in counts.items())
    others = "".join(f"; {count:,} of split {word} are left out" for word, count in listing.left_out.items())
    click.echo(f"{text} videos of {len(listing.classes)} classes{others}")


def _describe_problems(left_out: Counter[str], place: Destination) -> None:
    if left_out:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(left_out.items()))
        click.echo(f"{left_out.total():,} videos left out ({kinds}): {place.path('problems-*.csv')}")


def _print_summary(place: Destination, manifest: Manifest) -> None:
    counts = ", ".join(f"{split.examples:,} {name}" for name, split in manifest.splits.items())
    size = sum(shard.bytes for split in manifest.splits.values() for shard in split.shards)
    frames = sum(split.frames or 0 for split in manifest.splits.values())
    click.echo(
        f"{place.path('manifest.json')}: {counts} videos of {len(manifest.classes)} classes, {frames:,} frames, "
        f"{size / 1e6:,.1f} MB, {manifest.fingerprint[:8]}"
    )


def _run(plan: Survey, place: Destination, workers: int, videos: int) -> None:
    from harness.data import prepare

    todo = sum(len(task.videos) for task in plan.todo)
    for line in plan.changed:
        click.echo(f"makes again: {line}")
    if todo < videos:
        click.echo(f"{videos - todo:,} videos are in finished shards already")
    try:
        with _shown(todo, len(plan.todo)) as progress:
            prepare.run(plan, place, workers, progress)
    except prepare.WorkerLostError as lost:
        click.echo(f"FAILED {lost}", err=True)
        raise SystemExit(1) from None
    finally:
        place.sweep()  # on a full disk, half a shard would take up space


@contextlib.contextmanager
def _shown(videos: int, shards: int) -> Iterator[Progress]:
    """Shows a bar with rate and time left in a terminal; prints a line for every shard elsewhere."""
    from rich import progress as bars
    from rich.console import Console

    from harness.data.prepare import Progress

    rate = bars.TextColumn("{task.fields[rate]} videos/s, left")
    columns = (bars.BarColumn(), bars.MofNCompleteColumn(), rate, bars.TimeRemainingColumn(elapsed_when_finished=True))
    console = Console()
    with bars.Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=videos, rate="-")
        pace = _Pace(videos)

        def video() -> None:
            pace.done += 1
            bar.update(task, advance=1, rate=f"{pace.rate:.1f}")

        def shard(name: str, report: object) -> None:
            pace.shards += 1
            if not console.is_terminal:
                click.echo(f"{name}  {pace.shards}/{shards} shards, {pace.text}")

        yield Progress(video, shard)


class _Pace:
    """Counts videos and measures how fast they are done."""

    def __init__(self, total: int) -> None:
        import time

        self.total, self.done, self.shards, self._clock, self._start = total, 0, 0, time.monotonic, time.monotonic()

    @property
    def rate(self) -> float:
        """Videos per second."""
        return self.done / max(self._clock() - self._start, 1e-9)

    @property
    def text(self) -> str:
        """Videos done, rate, and an estimate of the time left."""
        left = (self.total - self.done) / self.rate if self.done else 0.0
        return f"{self.done:,}/{self.total:,} videos, {self.rate:.1f} videos/s, {left / 60:.0f} min left"


def _check(folder: str) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    from harness.data import check
    from harness.data.destinations import Destination

    place = Destination(folder)
    manifest = check.load(place)
    total = sum(shard.bytes for split in manifest.splits.values() for shard in split.shards)
    damaged = 0
    with Progress(BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()) as bar:
        task = bar.add_task("", total=total)
        for fault in check.faults(place, manifest, lambda done: bar.advance(task, done)):
            damaged += 1
            click.echo(f"DAMAGED {fault}", err=True)
    if damaged:
        raise SystemExit(1)
    _print_summary(place, manifest)


if __name__ == "__main__":
    main()
