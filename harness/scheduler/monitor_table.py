"""Draws where studies stand: a table of rows for each, cut to the height of a terminal, and a foot."""

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
# Which rows come first where there is not room for all.
_FIRST = ("running", "failed", "blocked", "waiting", "cancelled", "done")
# Lines of a study beside its rows: title, head, what is left out, a blank one, foot and advice of two lines each.
_AROUND = 8
_BRIEF = 3  # lines of one of which no row is shown
_GAP = 2
_WIDE = 200  # columns in a file, which has none of its own
# Of a row's name where there is not room for all columns; and at the very least.
_NAME, _LEAST = 20, 10
_WORKER = 14


def console_for(columns: str | None) -> Console:
    """The console that tables are printed to: as wide as the terminal, as COLUMNS says, or as they need in a file."""
    console = Console()
    return console if console.is_terminal or columns else Console(width=_WIDE)


def draw(groups: Sequence[Group], width: int, height: int | None = None) -> RenderableType:
    """The tables, below one another.

    Args:
      groups: the studies.
      width: columns there are.
      height: lines there are; None for as many as it takes.
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
    """The rows of each group that there is room for, in their order."""
    every = [(group, row) for group in groups for row in group.rows]
    if height is None or sum(map(_lines, (row for _, row in every))) + _AROUND * len(groups) <= height:
        return [group.rows for group in groups]
    going = [group for group in groups if not group.settled] or groups[-1:]
    room = max(1, height - _AROUND * len(going) - _BRIEF * (len(groups) - len(going)))
    chosen: dict[str, set[str]] = {group.name: set() for group in going}
    for group, row in sorted(every, key=lambda one: _FIRST.index(one[1].state)):
        if group.name in chosen:
            room -= _lines(row)
            if room < 0:
                break
            chosen[group.name].add(row.item.key)
    return [tuple(row for row in group.rows if row.item.key in chosen.get(group.name, ())) for group in groups]


def _lines(row: Row) -> int:
    return 2 if _told(row) else 1


def _draw(group: Group, shown: Sequence[Row], width: int, cut: bool) -> list[RenderableType]:
    """Title, table, errors, what is left out, and foot of a group; `cut` keeps an error to its line."""
    parts: list[RenderableType] = [Text(group.name, "italic")]
    if shown:
        parts.append(_table(shown, width))
        errors = [told for told in map(_told, shown) if told]
        parts += [Text(told, "red", no_wrap=cut, overflow="ellipsis" if cut else None) for told in errors]
        if more := _more(group, shown):
            parts.append(Text(more, "dim"))
    parts.append(Text(foot(group), "bold"))
    if said := advice(group):
        parts.append(Text(said))
    return parts


def _table(rows: Sequence[Row], width: int) -> Table:
    """A table as wide as there is room: who is at it is cut first, then what was lost, how far it is, and names."""
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
    for row, name, at, *others in zip(rows, names, *columns.values(), strict=True):
        table.add_row(Text(_cut(name, max(room, _LEAST))), Text(at, _STYLES.get(row.state, "bold")), *map(Text, others))
    return table


def _cut(name: str, room: int) -> str:
    """A name without its middle: rows of one study differ in their number, and at the end."""
    if len(name) <= room:
        return name
    head = (room - 1) // 3
    return f"{name[:head]}…{name[len(name) - (room - 1 - head) :]}"


def _columns(rows: Sequence[Row], tight: int) -> dict[str, list[str]]:
    """Head -> cells, of the columns beside the name; what no row has takes no room."""
    workers = [one_line(row.worker) for row in rows]
    columns = {
        "state": [state(row, short=tight >= 3) for row in rows],
        "left": [duration(row.left) if row.left else "" for row in rows],
        "spent": [duration(row.seconds) if row.seconds else "" for row in rows],
        # What tells workers apart is at the end.
        "worker": [f"…{name[1 - _WORKER :]}" if tight and len(name) > _WORKER else name for name in workers],
        "lost": [_lost(row, short=tight >= 2) for row in rows],
    }
    return {head: cells for head, cells in columns.items() if any(cells)}


def state(row: Row, short: bool = False) -> str:
    """State of a row as it is shown: "training, 12 of 26, 46 %", "waiting, step 12", "done, top-1 45.2 %"."""
    if row.state == "running" and row.total:
        far = "" if short else f"{row.step:,} of {row.total:,}, "
        return f"{row.stage}, {far}{100 * row.share:.0f} %"
    if row.state == "running":
        return f"{row.stage}, step {row.step:,}" if row.step else row.stage
    if row.state == "done":
        known = [one.top1 for one in row.attempts if one.state == "done" and one.top1]
        return f"done, top-1 {100 * known[-1]:.1f} %" if known else "done"
    begun = "trained" if row.trained else f"step {row.step:,}" if row.step else ""
    return f"{row.state}, {begun}" if begun and row.state == "waiting" else row.state


def _lost(row: Row, short: bool) -> str:
    """Attempts that came to nothing: "2 stale, 1 failed", or how many."""
    if short:
        return str(sum(row.lost.values()) or "")
    return ", ".join(f"{count} {name}" for name, count in row.lost.items())


def _told(row: Row) -> str:
    """Why a row failed, or last failed; empty where it did not."""
    if not row.error or row.state == "cancelled":
        return ""
    return f"  {one_line(row.item.label)}: {'' if row.state in ('failed', 'blocked') else 'before, '}{row.error}"


def _more(group: Group, shown: Sequence[Row]) -> str:
    """The rows there was no room for: "... and 7 more waiting, 2 done"."""
    keys = {row.item.key for row in shown}
    left = collections.Counter(row.state for row in group.rows if row.item.key not in keys)
    said = [f"{left[state]:,} {'' if place else 'more '}{state}" for place, state in enumerate(_in_order(left))]
    return f"... and {', '.join(said)}" if said else ""


def _in_order(counts: Mapping[str, int]) -> list[str]:
    return [state for state in _FIRST if counts.get(state)]


def foot(group: Group) -> str:
    """What a group comes to: what is done, who is at it, what was spent, what is left."""
    counts = [f"{group.counts[state]:,} {state}" for state in _FIRST if group.counts[state] and state != "done"]
    said = ", ".join([f"{group.counts['done']:,} of {len(group.rows):,} done", *counts])
    spent = f"{duration(group.seconds)} spent" if group.seconds else ""
    return "; ".join(part for part in (said, _working(group), spent, _to_go(group)) if part)


def _working(group: Group) -> str:
    """How many workers are at it, where that is not how many runs are running."""
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
    """What to type next; empty where nothing has to be."""
    said = []
    if group.counts["failed"] and group.name != OTHERS:
        said.append("python -m harness.retry --failed tries what failed again.")
    if not group.settled and not group.workers:
        said.append(
            "Nobody is at it: start again what began it." if group.name == OTHERS else f"Nobody is at it; {START}."
        )
    return " ".join(said)
