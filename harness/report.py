"""python -m harness.report: every table and figure of the paper from the records, and where each number comes from."""

from __future__ import annotations

from pathlib import Path

import click

from harness import options

_EXAMPLES = """
\b
Examples:
  python -m harness.report                                  everything that results/ can show
  python -m harness.report table3 figure2                   some studies only
  python -m harness.report mine/stems.py                    a study of your own
  python -m harness.report --explain table2:5:top1          where one number comes from
  python -m harness.report --explain table2:3:p_holm --results results/example
"""


@click.command(epilog=_EXAMPLES)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--explain", "explained", metavar="STUDY:ROW:COLUMN",
              help="Say which runs a number comes from, and count it anew from their predictions. COLUMN is one of the "
                   "table's CSV file.")  # fmt: skip
@click.option("--profile", "profile_name", metavar="NAME", help="Only trainings of this profile.  [default: all]")
@click.option("--data", metavar="NAME", help="Only trainings on this data set: its name, or its fingerprint's first "
                                             "digits.")  # fmt: skip
@click.option("--replicas", type=click.IntRange(min=1), metavar="N", help="Only trainings on so many devices.")
@click.option("--batch", type=click.IntRange(min=1), metavar="N", help="Only trainings cut to this batch.")
@click.option("--steps", type=click.IntRange(min=1), metavar="N", help="Only trainings cut to so many steps.")
@click.option("--validation-videos", type=click.IntRange(min=1), metavar="N",
              help="Their evaluations on the first N videos.")  # fmt: skip
@options.margin
@options.folders
@options.plots
@options.one_line_errors
def main(
    names: tuple[str, ...],
    explained: str | None,
    profile_name: str | None,
    data: str | None,
    validation_videos: int | None,
    margin: float,
    results: Path,
    plots: Path,
    **given: int | None,
) -> None:
    """Draws every study from the records there are, as it stands in the paper and beside the paper's numbers.

    Trains nothing. What was not run is shown as not run; studies under several trainings (profile, data set, devices,
    cuts) are drawn once for each, never mixed. Without records it holds the paper's published numbers alone.
    """
    from harness.store import Snapshot

    if results.exists() and not results.is_dir():
        raise click.UsageError(f"--results {results}: is a file; expected a folder")
    store = Snapshot(results)
    store.begin()  # which other processes do, while this one loads the rest
    from harness import catalog, drawing, outputs, reporting
    from harness import workspace as workspaces

    drawing.load_backends()
    studies = [catalog.study(name) for name in dict.fromkeys(names)] or list(catalog.studies().values())
    trainings = workspaces.trainings(store, profile_name, data, given, validation_videos)
    if explained is not None:
        found = reporting.explained(explained, studies, trainings, margin)
        for line in found.lines:
            click.echo(line)
        if not found.agrees:
            raise SystemExit(1)
        return
    parts = reporting.report(studies, trainings, store, margin, whole=not names)
    files = outputs.write_report(outputs.render(parts), results, plots)
    click.echo(f"Written: {len(files)} files; begin with {results / 'report.html'} or {results / 'report.md'}")


if __name__ == "__main__":
    main()
