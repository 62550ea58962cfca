"""python -m harness.status: shows where the studies of a queue stand, from any machine that reaches its storage."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli import options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from harness.scheduler.monitor import Group
    from harness.scheduler.run_queue import Queue

_EXAMPLES = """
\b
Examples:
  python -m harness.status                         every study of results/queue.db
  python -m harness.status --watch                 until all is settled
  python -m harness.status --study "table2 quick" --json
  python -m harness.status | less                  every row, however many there are
  python -m harness.status --storage postgresql+psycopg://HOST/DATABASE
"""
_EXIT_CODES = (
    "Exit codes: 0 shown; 1 with --watch, when all is settled and a run failed or is blocked; 2 wrong usage, nothing "
    "was begun there, or a storage that does not answer; 130 stopped by Ctrl-C."
)
_EVERY = 2.0  # seconds between two looks


@click.command(epilog=_EXAMPLES + "\n" + _EXIT_CODES)
@options.queue
@click.option("--study", "name", metavar="NAME", help="Only this one.")
@click.option("--watch", is_flag=True, help="Look again every 2 seconds, until all is settled.")
@click.option("--json", "as_json", is_flag=True, help="One object instead, with every row.")
@options.one_line_errors
def main(storage: str | None, results: Path, name: str | None, watch: bool, as_json: bool) -> None:
    """Shows where every run stands, who is at it, and how long the rest will take.

    The results folder is not looked at, only the storage. A terminal that is too low for all rows shows what runs and
    what failed first; a pipe or a file gets all of them. What is left of a run that trains follows from its own pace,
    of others from the multiply-adds per second of the runs that are done. Lost are attempts that failed, that were
    preempted, or whose worker fell silent (stale).

    --json prints {"settled": ..., "studies": [...]}. A study has "name", "began" (ISO time, UTC), "runs", "counts" (a
    number for each of waiting, running, done, failed, cancelled, blocked), "workers", "spent_seconds", "left_seconds"
    (of one worker's time), "eta_seconds" (with the workers there are) and "rows". A row has "run" (its id), "protocol"
    (of a further evaluation), "label", "state", "worker", "attempt" (its number), "stage", "step", "total", "share"
    (from 0 to 1), "eta_seconds", "spent_seconds", "attempts", "stale", "preempted" and "failed" (how many attempts),
    "top1" (a fraction), "parent" (id of the run it starts from), "error" and "traceback". What is not known is null.
    """
    import json
    import os

    from harness.scheduler import looking, monitor, monitor_table

    if watch and as_json:
        raise click.UsageError("--json: one look; leave out --watch")
    console = monitor_table.console_for(os.environ.get("COLUMNS"))
    queue = looking.open_queue(storage, results, watch, _complain)
    if watch:
        _watch(queue, name, console)
        return
    groups = monitor.chosen(looking.look(queue), name)
    if as_json:
        click.echo(json.dumps(monitor.as_json(groups), indent=1))
        return
    console.print(monitor_table.draw(groups, console.width, console.height - 1 if console.is_terminal else None))


def _complain(text: str) -> None:
    click.echo(text, err=True)


def _watch(queue: Queue, name: str | None, console: Console) -> None:
    """Shows the studies until all is settled; exits with code 1 if a run failed or is blocked."""
    try:
        groups = (_live if console.is_terminal else _lines)(queue, name, console)
    except KeyboardInterrupt:
        raise SystemExit(options.INTERRUPTED) from None
    if any(group.counts["failed"] or group.counts["blocked"] for group in groups):
        raise SystemExit(1)


def _live(queue: Queue, name: str | None, console: Console) -> Sequence[Group]:
    """Draws one table anew until all is settled."""
    from rich.live import Live

    from harness.scheduler import monitor_table

    with Live(console=console, auto_refresh=False) as live:
        while True:
            groups = _look(queue, name)
            live.update(monitor_table.draw(groups, console.width, console.height - 1), refresh=True)
            if _settled(groups):
                return groups
            _pause()


def _lines(queue: Queue, name: str | None, console: Console) -> Sequence[Group]:
    """Prints tables below one another, for a pipe: another one whenever something changed."""
    from harness.scheduler import monitor_table

    before = ""
    while True:
        groups = _look(queue, name)
        with console.capture() as drawn:
            console.print(monitor_table.draw(groups, console.width))
        if drawn.get() != before:
            click.echo(("\n" if before else "") + drawn.get(), nl=False)
            before = drawn.get()
        if _settled(groups):
            return groups
        _pause()


def _look(queue: Queue, name: str | None) -> Sequence[Group]:
    from harness.scheduler import looking, monitor

    return monitor.chosen(looking.look(queue), name)


def _settled(groups: Sequence[Group]) -> bool:
    return all(group.settled for group in groups)


def _pause() -> None:
    import time

    time.sleep(_EVERY)


if __name__ == "__main__":
    main()
