"""python -m harness.index_data: writes the manifest of a folder of shards made elsewhere, for use with `--data`."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli import options

_EXAMPLES = """
\b
Examples:
  python -m harness.index_data /data/k400 --classes /data/k400/labels.txt
  python -m harness.index_data /data/k600 --classes labels600.txt --name kinetics600

The file of classes has one name a line, in the order of the labels.
"""


@click.command(epilog=_EXAMPLES + "\n" + options.EXIT_CODES)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--classes", required=True, type=click.Path(path_type=Path), help="File of class names.")
@click.option("--name", help="Name of the data set.  [default: the folder's]")
@options.one_line_errors
def main(folder: Path, classes: Path, name: str | None) -> None:
    """Reads every shard in FOLDER and writes FOLDER/manifest.json: counts, labels, and a fingerprint of the content.

    FOLDER holds TFRecord files named train* and validation*, of SequenceExamples with the Model Garden's keys
    `image/encoded` and `clip/label/index`, and `clip/media_id`.
    """
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    from harness.data import manifest as manifests
    from harness.data.manifest import ManifestError

    if not folder.is_dir():
        raise ManifestError(f"{folder}: no such folder")
    if not classes.is_file():
        raise ManifestError(f"{classes}: no such file; expected one class name a line")
    try:
        names = [line.strip() for line in classes.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise ManifestError(f"{classes}: is no UTF-8 text; expected one class name a line") from None

    import os

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from harness.data import index

    shards = [path for split in manifests.SPLITS for path in index.shard_files(folder, split)]
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        task = progress.add_task("", total=sum(path.stat().st_size for path in shards))
        source = f"indexed from {len(shards)} shards"
        manifest = index.index(
            folder, name or folder.resolve().name, names, source, lambda done: progress.advance(task, done)
        )
    manifests.save(manifest, folder)
    counts = ", ".join(f"{split.examples:,} {key}" for key, split in manifest.splits.items())
    click.echo(f"{folder / manifests.FILE_NAME}: {counts} videos of {len(names)} classes, {manifest.fingerprint[:8]}")


if __name__ == "__main__":
    main()
