"""python -m harness.cancel: takes runs out of a study, whether they wait or a worker is at them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli import options

if TYPE_CHECKING:
    from harness.scheduler.monitor import Row
    from harness.scheduler.run_queue import Queue

_EXAMPLES = """
\b
Examples:
  python -m harness.cancel 3                       row 3, with all its seeds
  python -m harness.cancel "3, seed 1"             one of them
  python -m harness.cancel "table2 3" 4f0c         where several studies have a row 3; a run by the beginning of its id
  python -m harness.cancel 3 --study "table2 quick"
"""
_EXIT_CODES = (
    "Exit codes: 0 cancelled; 1 done meanwhile; 2 wrong usage, no such row, one that has ended, or a storage that does "
    "not answer. Where one of several cannot be cancelled, none is."
)
# Tries to cancel a row: a worker may add an attempt just after the open ones were ended.
_ROUNDS = 5


@click.command(epilog=_EXAMPLES + "\n" + _EXIT_CODES)
@click.argument("words", nargs=-1, required=True, metavar="ROW|RUN...")
@options.queue
@click.option("--study", "name", metavar="NAME", help="Look for the rows in this one only.")
@options.one_line_errors
def main(words: tuple[str, ...], storage: str | None, results: Path, name: str | None) -> None:
    """Cancels runs that wait or that a worker is at, which drops it at its next check; what it wrote stays.

    ROW is a row's number, or "STUDY ROW"; RUN is a run's id or at least 4 characters of its beginning. Runs that start
    from a cancelled one are blocked until it is retried.
    """
    from harness.scheduler import looking, monitor

    queue = looking.open_queue(storage, results, say=lambda text: click.echo(text, err=True))
    groups = monitor.chosen(looking.look(queue), name)
    rows = monitor.to_cancel(groups, words)
    ended = {row.item.key: _cancel(queue, row) for row in rows}
    for row in rows:
        note = f", {row.worker} drops it at its next check" if row.worker else ""
        outcome = f"cancelled{note}" if ended[row.item.key] else "was done meanwhile"
        click.echo(f"{row.item.label} ({row.item.key}): {outcome}")
    if blocked := monitor.depending(groups, {key for key, cancelled in ended.items() if cancelled}):
        click.echo(f"Blocked, since they start from there: {blocked} run{'s' if blocked > 1 else ''}.")
    if any(ended.values()):
        click.echo("python -m harness.retry takes a cancelled run back.")
    if not all(ended.values()):
        raise SystemExit(1)


def _cancel(queue: Queue, row: Row) -> bool:
    """Ends every open attempt at a row as cancelled; returns False if the run was done meanwhile."""
    from harness.scheduler.run_states import UNFINISHED

    for _ in range(_ROUNDS):
        attempts = [attempt for attempt in queue.attempts() if attempt.item.key == row.item.key]
        open_ = [attempt for attempt in attempts if attempt.state in UNFINISHED]
        last = attempts[-1] if attempts and not open_ else None
        if last and last.state == "cancelled":
            return True
        if last and (last.state == "done" or (last.state == "superseded" and last.worker)):
            return False
        if not open_:
            queue.add(row.item)
        for attempt in open_:
            queue.end(attempt.number, "cancelled", error="cancelled")
    return False


if __name__ == "__main__":
    main()
