"""python -m harness.retry: lets runs that failed or were cancelled wait for a worker again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli import options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.scheduler.monitor import Group, Row

_EXAMPLES = """
\b
Examples:
  python -m harness.retry 3                        row 3, with all its seeds
  python -m harness.retry "table2 3" 4f0c          where several studies have a row 3; a run by the beginning of its id
  python -m harness.retry --failed                 all that failed
  python -m harness.retry --failed --study "table2 quick"
"""
_EXIT_CODES = (
    "Exit codes: 0 they wait again, or --failed found none; 2 wrong usage, no such row, one that neither failed nor "
    "was cancelled, or a storage that does not answer. Where one of several cannot be tried again, none is."
)


@click.command(epilog=_EXAMPLES + "\n" + _EXIT_CODES)
@click.argument("words", nargs=-1, metavar="[ROW|RUN]...")
@options.queue
@click.option("--study", "name", metavar="NAME", help="Look for the rows in this one only.")
@click.option("--failed", "all_failed", is_flag=True, help="Every run of a study that failed.")
@options.one_line_errors
def main(words: tuple[str, ...], storage: str | None, results: Path, name: str | None, all_failed: bool) -> None:
    """Lets runs that failed or were cancelled wait again; they go on from their last checkpoint.

    ROW is a row's number, or "STUDY ROW"; RUN is a run's id or at least 4 characters of its beginning. Earlier failures
    do not count any more.
    """
    from harness.scheduler import looking, monitor

    if bool(words) == all_failed:
        raise click.UsageError("name rows or runs, or --failed")
    queue = looking.open_queue(storage, results, say=lambda text: click.echo(text, err=True))
    groups = monitor.chosen(looking.look(queue), name)
    rows = monitor.failed(groups) if all_failed else monitor.to_retry(groups, words)
    for row in rows:
        queue.add(row.item, again=True)
        begun = f", from step {row.step:,}" if row.step and not row.trained else ""
        click.echo(f"{row.item.label} ({row.item.key}): waits again{begun}")
    click.echo(_who(groups, rows) if rows else "Nothing failed.")


def _who(groups: Sequence[Group], rows: Sequence[Row]) -> str:
    """Says who will take the runs up, or what to start."""
    from harness.scheduler import monitor

    keys = {row.item.key for row in rows}
    affected = [
        group for group in groups if keys & {row.item.key for row in group.rows} and group.name != monitor.OTHERS
    ]
    if any(group.workers for group in affected):
        names = ", ".join(sorted({row.worker for group in affected for row in group.rows if row.worker}))
        return f"Taken up by a worker that is at the study now{f' ({names})' if names else ''}, or that is started."
    return f"Nobody is at it; {monitor.START}."


if __name__ == "__main__":
    main()
