"""Works out the state of each run from the attempts in the queue: done, claimable, missing. Uses no storage.

An attempt is one trial of the queue. A run may have many attempts: it waits while one of them waits, and is tried again
after one that failed, was preempted or fell silent. Two rules keep a run from being trained twice, however many
attempts are put into the queue, by whichever worker:

- An attempt may only be claimed if all attempts of its run with lower numbers have ended and none of them is done. An
  attempt that has ended stays ended, and numbers only grow, so the condition stays true once it is: there are never two
  workers at one run.
- The run that the attempt's run starts from has to be done.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

# States of an attempt. "stale": its worker fell silent; "superseded": the run was done, or recorded, without it.
UNFINISHED = ("waiting", "running")
ENDED = ("done", "failed", "preempted", "stale", "cancelled", "superseded")
# States of an item of work.
SETTLED = ("done", "failed", "cancelled", "blocked")
# Attempts that may fall silent at the same step, beyond the retries; after more, the run itself probably takes its
# machines down.
_SILENT = 2


@dataclasses.dataclass(frozen=True)
class Item:
    """A piece of work: a run to be trained, or a further evaluation of a run.

    Attributes:
      key: id of the run; for a further evaluation "ID PROTOCOL".
      label: the name that users see, such as "row 3: ls sd".
      study: name of the study that wants it.
      order: position in the plan; lower ones are claimed first.
      parent: key of the run that it starts from; empty if there is none.
      work: multiply-adds.
    """

    key: str
    label: str
    study: str
    order: int = 0
    parent: str = ""
    work: float = 0.0


@dataclasses.dataclass(frozen=True)
class Attempt:
    """One attempt at an item, as the queue holds it.

    Attributes:
      number: its number in the queue, from 0; names its folder.
      item: the item.
      state: one of :data:`UNFINISHED` or :data:`ENDED`.
      again: whether `harness.retry` asked for it: earlier failures do not count any more.
      worker: the worker that has, or had, claimed it: "host:process"; empty if it was never claimed.
      token: token of the worker's process, by which its own machine tells whether it is alive.
      progress: progress as last reported: "stage", the stage's progress ("step" of "total"), "trained" (the last
        optimizer step), "start" (the step it resumed from), "seconds" since it began; empty before the first report.
      seconds: time that it took; as last reported if it did not end by itself.
      top1: top-1 accuracy as a fraction, if it is done; None otherwise.
      error: why it failed, or ended, in one line.
      traceback: end of a failure's traceback.
    """

    number: int
    item: Item
    state: str
    again: bool = False
    worker: str = ""
    token: str = ""
    progress: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0
    top1: float | None = None
    error: str = ""
    traceback: str = ""

    @property
    def step(self) -> int:
        """The last optimizer step that was reported."""
        return int(self.progress.get("trained", 0))


@dataclasses.dataclass(frozen=True)
class ItemStatus:
    """The status of an item.

    Attributes:
      name: "missing" (not in the queue), "waiting", "running", "done", "failed" (for good), "cancelled", or "blocked"
        (the run that it starts from failed or was cancelled).
      attempts: the attempts at it, in order.
      error: why it failed, or last failed, in one line.
    """

    name: str
    attempts: tuple[Attempt, ...] = ()
    error: str = ""


def by_key(attempts: Iterable[Attempt]) -> dict[str, list[Attempt]]:
    """Groups attempts by the key of their item, in the order of their numbers."""
    grouped: dict[str, list[Attempt]] = collections.defaultdict(list)
    for attempt in sorted(attempts, key=lambda attempt: attempt.number):
        grouped[attempt.item.key].append(attempt)
    return dict(grouped)


def standing(own: Sequence[Attempt], recorded: bool, retries: int) -> ItemStatus:
    """Returns the status of an item, given the attempts at it.

    Args:
      own: the attempts at it, in order.
      recorded: whether its record exists. If an attempt is done but there is no record, the record was removed, and the
        run is wanted again.
      retries: number of failures after which the item is tried again.
    """
    attempts = tuple(attempt for attempt in own if attempt.state != "superseded")
    if recorded:
        return ItemStatus("done", attempts)
    for state in reversed(UNFINISHED):
        if any(attempt.state == state for attempt in attempts):
            return ItemStatus(state, attempts, _last_error(attempts))
    counted = attempts[_first_counted(attempts) :]
    if counted and counted[-1].state == "cancelled":
        return ItemStatus("cancelled", attempts, "cancelled")
    failures = [attempt for attempt in counted if attempt.state == "failed"]
    if len(failures) > retries:
        return ItemStatus("failed", attempts, failures[-1].error)
    silent = _silent_without_progress(counted)
    if silent > retries + _SILENT:
        return ItemStatus("failed", attempts, f"its workers fell silent {silent} times without a step forward")
    return ItemStatus("missing", attempts, _last_error(attempts))


def _first_counted(attempts: Sequence[Attempt]) -> int:
    """Returns the index of the first attempt whose failure counts."""
    retried = [index for index, attempt in enumerate(attempts) if attempt.again]
    # An attempt that is done does not count, nor those before it: its record was removed since.
    removed = [index + 1 for index, attempt in enumerate(attempts) if attempt.state == "done"]
    return max([0, *retried, *removed])


def _silent_without_progress(attempts: Sequence[Attempt]) -> int:
    """Returns how many attempts in a row, up to the last, fell silent at a step that an earlier one had reached."""
    count, furthest = 0, -1
    for attempt in attempts:
        if attempt.state != "stale" or attempt.step > furthest:
            count = 0
        if attempt.state == "stale":
            count += 1
        furthest = max(furthest, attempt.step)
    return count


def _last_error(attempts: Sequence[Attempt]) -> str:
    return next((attempt.error for attempt in reversed(attempts) if attempt.error), "")


def standings(
    items: Iterable[Item], attempts: Iterable[Attempt], recorded: Container[str], retries: int
) -> dict[str, ItemStatus]:
    """Returns the status of every item, by its key.

    Args:
      items: the items that are wanted.
      attempts: all attempts in the queue.
      recorded: keys of the recorded items.
      retries: see :func:`standing`.
    """
    grouped, wanted = by_key(attempts), list(items)
    alone = {item.key: standing(grouped.get(item.key, ()), item.key in recorded, retries) for item in wanted}
    parents = {key: group[0].item.parent for key, group in grouped.items()} | {item.key: item.parent for item in wanted}
    return {item.key: _blocked(item, alone, grouped, parents, recorded, retries) for item in wanted}


def _blocked(
    item: Item, alone: Mapping[str, ItemStatus], grouped: Mapping[str, Sequence[Attempt]], parents: Mapping[str, str],
    recorded: Container[str], retries: int,
) -> ItemStatus:  # fmt: skip
    """Returns the status of an item, taking into account the runs that it starts from.

    Args:
      item: the item.
      alone: key -> status of an item without regard to the run that it starts from.
      grouped: key of an item -> the attempts at it.
      parents: key of an item -> key of the run that it starts from.
      recorded: keys of the recorded items.
      retries: see :func:`standing`.
    """
    status, seen = alone[item.key], {item.key}
    parent = item.parent
    while status.name not in ("done", "running", "failed", "cancelled") and parent and parent not in seen:
        seen.add(parent)
        parent_status = alone.get(parent) or standing(grouped.get(parent, ()), parent in recorded, retries)
        if parent_status.name in ("failed", "cancelled"):
            return ItemStatus(
                "blocked", status.attempts, f"the run it starts from, {parent[:8]}, {_SAID[parent_status.name]}"
            )
        if parent_status.name in ("done", "running"):
            break
        parent = parents.get(parent, "")
    return status


_SAID = {"failed": "failed", "cancelled": "was cancelled"}


def claimable(attempts: Iterable[Attempt], items: Mapping[str, Item], recorded: Container[str]) -> list[Attempt]:
    """Returns the attempts that may be claimed, in the order of the claimer's plan.

    Args:
      attempts: all attempts in the queue.
      items: key -> item, for the items that the claimer can carry out, with its own order.
      recorded: keys of the recorded items.
    """
    grouped = by_key(attempts)
    open_ = [
        first
        for key, group in grouped.items()
        if key in items and key not in recorded
        for first in [next((attempt for attempt in group if attempt.state in UNFINISHED), None)]
        if first is not None and first.state == "waiting" and _ready(items[key].parent, recorded)
    ]
    return sorted(open_, key=lambda attempt: (items[attempt.item.key].order, attempt.number))


def _ready(parent: str, recorded: Container[str]) -> bool:
    return not parent or parent in recorded


def missing(standings: Mapping[str, ItemStatus], items: Iterable[Item]) -> list[Item]:
    """Returns the items that need an attempt in the queue and have none."""
    return [item for item in items if standings[item.key].name == "missing"]


def litter(attempts: Iterable[Attempt], recorded: Container[str]) -> list[Attempt]:
    """Returns the superfluous waiting attempts: at recorded items, or in addition to an unfinished one at the item."""
    superfluous = []
    for key, group in by_key(attempts).items():
        unfinished = [attempt for attempt in group if attempt.state in UNFINISHED]
        spare = unfinished if key in recorded else unfinished[1:]
        superfluous += [attempt for attempt in spare if attempt.state == "waiting"]
    return superfluous


def untold(attempts: Iterable[Attempt], items: Mapping[str, Item], recorded: Container[str]) -> list[Item]:
    """Returns the recorded items for which the queue has no attempt that is done or unfinished.

    This happens if a worker ends after it has written the record and before it has reported that to the queue.
    """
    return [
        items[key]
        for key, group in by_key(attempts).items()
        if key in items
        and key in recorded
        and not any(attempt.state == "done" or attempt.state in UNFINISHED for attempt in group)
    ]
