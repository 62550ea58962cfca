"""Draws the state of the studies in a queue: for each a table of rows, cut to the terminal's height, and a summary."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence

from rich.console import Console, RenderableType
from rich.console import Group as Stack
from rich.table import Table
from rich.text import Text

from harness.scheduler.monitor import OTHERS, START, Group, Row, one_line
from harness.system.text import duration

_STYLES = {"done": "green", "waiting": "dim", "failed": "red", "blocked": "red", "cancelled": "yellow"}
# Rows in these states are shown first if there is not room for all.
_FIRST = ("running", "failed", "blocked", "waiting", "cancelled", "done")
# Lines of a study besides its rows: title, head, note on rows left out, blank line, foot and advice of two lines each.
_AROUND = 8
_BRIEF = 3  # lines of a study none of whose rows is shown
_GAP = 2
_WIDE = 200  # columns for output into a file, which has no width
# Width of a row's name for which other columns are shortened, and the least width of a name.
_NAME, _LEAST = 20, 10
_WORKER = 14


def console_for(columns: str | None) -> Console:
    """Returns the console to print tables to: as wide as the terminal, as COLUMNS says, or 200 columns in a file."""
    console = Console()
    return console if console.is_terminal or columns else Console(width=_WIDE)


def draw(groups: Sequence[Group], width: int, height: int | None = None) -> RenderableType:
    """Draws the tables of all studies, one below the other.

    Args:
      groups: the studies.
      width: number of columns available.
      height: number of lines available; None for no limit.
    """
    if not groups:
        return Text("The queue is empty: no study was begun with it.")
    shown = _fitting(groups, height)
    parts = [
        part
        for group, rows in zip(groups, shown, strict=True)
        for part in (*_draw(group, rows, width, height is not None), Text(""))
    ]
    return Stack(*parts[:-1])


def _fitting(groups: Sequence[Group], height: int | None) -> list[tuple[Row, ...]]:
    """Returns, for each group, the rows that there is room for, in the group's order."""
    every = [(group, row) for group in groups for row in group.rows]
    if height is None or sum(map(_lines, (row for _, row in every))) + _AROUND * len(groups) <= height:
        return [group.rows for group in groups]
    going = [group for group in groups if not group.settled] or groups[-1:]
    room = max(1, height - _AROUND * len(going) - _BRIEF * (len(groups) - len(going)))
    chosen: dict[str, set[str]] = {group.name: set() for group in going}
    for group, row in sorted(every, key=lambda pair: _FIRST.index(pair[1].state)):
        if group.name in chosen:
            room -= _lines(row)
            if room < 0:
                break
            chosen[group.name].add(row.item.key)
    return [tuple(row for row in group.rows if row.item.key in chosen.get(group.name, ())) for group in groups]


def _lines(row: Row) -> int:
    return 2 if _error_line(row) else 1


def _draw(group: Group, shown: Sequence[Row], width: int, cut: bool) -> list[RenderableType]:
    """Draws a group's title, table, errors, note on rows left out, and foot; `cut` limits each error to one line."""
    parts: list[RenderableType] = [Text(group.name, "italic")]
    if shown:
        parts.append(_table(shown, width))
        errors = [error for error in map(_error_line, shown) if error]
        parts += [Text(error, "red", no_wrap=cut, overflow="ellipsis" if cut else None) for error in errors]
        if more := _more(group, shown):
            parts.append(Text(more, "dim"))
    parts.append(Text(foot(group), "bold"))
    if hint := advice(group):
        parts.append(Text(hint))
    return parts


def _table(rows: Sequence[Row], width: int) -> Table:
    """Draws a table that fits the width: workers are shortened first, then lost attempts, then progress, then names."""
    names = [one_line(row.item.label).removeprefix("row ") for row in rows]
    longest = max(len(name) for name in names)
    for tight in range(4):
        columns = _columns(rows, tight)
        room = width - sum(_GAP + max(map(len, (name, *cells))) for name, cells in columns.items())
        if room >= min(longest, _NAME):
            break
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0))
    for head in ("row", *columns):
        table.add_column(head, no_wrap=True, justify="right" if head in ("left", "spent") else "left")
    for row, name, text, *rest in zip(rows, names, *columns.values(), strict=True):
        table.add_row(Text(_cut(name, max(room, _LEAST))), Text(text, _STYLES.get(row.state, "bold")), *map(Text, rest))
    return table


def _cut(name: str, room: int) -> str:
    """Shortens a name by its middle, since rows of a study differ in their number and at the end."""
    if len(name) <= room:
        return name
    head = (room - 1) // 3
    return f"{name[:head]}…{name[len(name) - (room - 1 - head) :]}"


def _columns(rows: Sequence[Row], tight: int) -> dict[str, list[str]]:
    """Returns the columns besides the name, head -> cells, without those that are empty in every row."""
    workers = [one_line(row.worker) for row in rows]
    columns = {
        "state": [state(row, short=tight >= 3) for row in rows],
        "left": [duration(row.left) if row.left else "" for row in rows],
        "spent": [duration(row.seconds) if row.seconds else "" for row in rows],
        # Cut at the beginning, since workers' names differ at the end.
        "worker": [f"…{name[1 - _WORKER :]}" if tight and len(name) > _WORKER else name for name in workers],
        "lost": [_lost(row, short=tight >= 2) for row in rows],
    }
    return {head: cells for head, cells in columns.items() if any(cells)}


def state(row: Row, short: bool = False) -> str:
    """Returns a row's state as shown: "training, 12 of 26, 46 %", "waiting, step 12" or "done, top-1 45.2 %"."""
    if row.state == "running" and row.total:
        steps = "" if short else f"{row.step:,} of {row.total:,}, "
        return f"{row.stage}, {steps}{100 * row.share:.0f} %"
    if row.state == "running":
        return f"{row.stage}, step {row.step:,}" if row.step else row.stage
    if row.state == "done":
        known = [attempt.top1 for attempt in row.attempts if attempt.state == "done" and attempt.top1]
        return f"done, top-1 {100 * known[-1]:.1f} %" if known else "done"
    begun = "trained" if row.trained else f"step {row.step:,}" if row.step else ""
    return f"{row.state}, {begun}" if begun and row.state == "waiting" else row.state


def _lost(row: Row, short: bool) -> str:
    """Returns the unsuccessful attempts by state, "2 stale, 1 failed", or in short their number."""
    if short:
        return str(sum(row.lost.values()) or "")
    return ", ".join(f"{count} {name}" for name, count in row.lost.items())


def _error_line(row: Row) -> str:
    """Returns the line that says why a row failed, or last failed; empty if it did not."""
    if not row.error or row.state == "cancelled":
        return ""
    return f"  {one_line(row.item.label)}: {'' if row.state in ('failed', 'blocked') else 'before, '}{row.error}"


def _more(group: Group, shown: Sequence[Row]) -> str:
    """Returns a note on the rows that there was no room for: "... and 7 more waiting, 2 done"."""
    keys = {row.item.key for row in shown}
    left = collections.Counter(row.state for row in group.rows if row.item.key not in keys)
    counts = [f"{left[state]:,} {'' if index else 'more '}{state}" for index, state in enumerate(_in_order(left))]
    return f"... and {', '.join(counts)}" if counts else ""


def _in_order(counts: Mapping[str, int]) -> list[str]:
    return [state for state in _FIRST if counts.get(state)]


def foot(group: Group) -> str:
    """Returns the summary of a group: rows by state, number of workers, time spent and time left."""
    counts = [f"{group.counts[state]:,} {state}" for state in _FIRST if group.counts[state] and state != "done"]
    states = ", ".join([f"{group.counts['done']:,} of {len(group.rows):,} done", *counts])
    spent = f"{duration(group.seconds)} spent" if group.seconds else ""
    return "; ".join(part for part in (states, _working(group), spent, _to_go(group)) if part)


def _working(group: Group) -> str:
    """Returns the number of workers in words, if it differs from the number of running rows."""
    if group.workers == group.counts["running"]:
        return ""
    return f"{group.workers} worker{'s' if group.workers > 1 else ''}"


def _to_go(group: Group) -> str:
    if group.settled:
        return ""
    if group.left is None:
        return "time left unknown until a run is done"
    ends = "" if group.eta is None else f", done in about {duration(group.eta)}"
    return f"about {duration(group.left)} of work left{ends}"


def advice(group: Group) -> str:
    """Returns what the user should type next; empty if nothing."""
    sentences = []
    if group.counts["failed"] and group.name != OTHERS:
        sentences.append("python -m harness.retry --failed tries what failed again.")
    if not group.settled and not group.workers:
        sentences.append(
            "Nobody is at it: start again what began it." if group.name == OTHERS else f"Nobody is at it; {START}."
        )
    return " ".join(sentences)
