"""python -m harness.report: draws every table and figure of the paper from the records, and explains their numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli import options
from harness.system.paths import Folder

if TYPE_CHECKING:
    from harness.planning.workspace import Workspace
    from harness.reporting.pages import Section
    from harness.store.run_store import Store

_EXAMPLES = """
\b
Examples:
  python -m harness.report                                  everything that results/ can show
  python -m harness.report table3 figure2                   some studies only
  python -m harness.report mine/stems.py                    a study of your own
  python -m harness.report --explain table2:5:top1          where one number comes from
  python -m harness.report --explain table2:3:p_holm --results results/example
"""
_CODES = (
    "Exit codes: 0 written; 1 a record cannot be used, and is named, or a number is not what its files say; 2 wrong "
    "usage or unusable input."
)


# The only parameters that count while there is no record yet.
_WITHOUT_RECORDS = {"names", "plots", "margin", "explained"}


@click.command(epilog=_EXAMPLES + "\n" + _CODES)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--explain", "explained", metavar="STUDY:ROW:COLUMN",
              help="Say which runs a number comes from, and count it anew from their predictions. ROW is a row of the "
                   "study ('ours: row'), COLUMN one of the table's CSV file.")  # fmt: skip
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
    runs: Folder | None,
    plots: Path,
    **given: int | None,
) -> None:
    """Draws every study from the records there are, as it stands in the paper and beside the paper's numbers.

    Trains nothing. What was not run is shown as not run; studies under several trainings (profile, data set, devices,
    cuts) are drawn once for each, never mixed. Without records it holds the paper's published numbers alone.
    """
    from harness.store.run_store import Snapshot

    if results.exists() and not results.is_dir():
        raise click.UsageError(f"--results {results}: is a file; expected a folder")
    store = Snapshot(results, runs)
    store.begin()  # other processes read the records, while this one imports the rest
    from harness.planning import catalog
    from harness.reporting import figure_style, layouts, writers
    from harness.reporting import sections as sections_

    figure_style.load_backends()
    studies = catalog.studies_named(names) or list(catalog.studies().values())
    for study in studies:
        layouts.check(study)
    trainings = _trainings(store, profile_name, data, {**given, "validation_videos": validation_videos})
    if explained is not None:
        explanation = sections_.explained(explained, studies, trainings, margin)
        for line in explanation.lines:
            click.echo(line)
        if not explanation.agrees:
            raise SystemExit(1)
        return
    parts = sections_.report(studies, trainings, store, margin, not names, [] if names else _sweeps(store))
    sections, page = writers.render(parts), "-".join(["report", *(study.name for study in studies if names)])
    files = writers.write_report(sections, results, plots, page)
    click.echo(f"Written: {len(files)} files; begin with {results / page}.html or {results / page}.md")
    faults = [*store.faults(), *(fault for section in sections for fault in section.faults)]
    for fault in dict.fromkeys(faults):
        click.echo(f"NOT USED {fault}", err=True)
    if faults:
        raise SystemExit(1)


def _sweeps(store: Store) -> list[Section]:
    """Returns the sections of the scaling sweeps."""
    if not (store.root / "sweeps").is_dir():
        return []
    from harness.sweep import sections  # imports Optuna, which takes as long as all the rest

    return sections.sweeps(store)


def _trainings(
    store: Store, profile: str | None, data: str | None, given: Mapping[str, int | None]
) -> dict[str, Workspace]:
    """Returns the trainings that the flags narrow the report to.

    Raises:
      SettingsError: the flags fit no record, or a folder that was named does not exist.
    """
    from harness.analysis import trainings as trainings_
    from harness.config.experiment import SettingsError
    from harness.planning import workspace

    folder = store.place
    if not folder.is_dir():
        options.refuse_others(_WITHOUT_RECORDS, f"{folder}: no such folder")
    if profile is not None:
        workspace.profile(profile)
    cut = {name: value for name, value in given.items() if name != "validation_videos"}
    matching = trainings_.trainings(store, profile, data, cut)
    videos = given["validation_videos"]
    matching = {
        flags: training for flags, training in matching.items() if videos in (None, training.cut.validation_videos)
    }
    filters = {"profile": profile, "data": data, **given}
    flags = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in filters.items() if value is not None)
    if flags and not matching:
        raise SettingsError(f"{flags}: fits none of the records under {store.runs}")
    return matching


if __name__ == "__main__":
    main()
