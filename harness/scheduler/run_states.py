"""What the attempts in a queue come to: which runs are done, which may be claimed, what is missing. No storage here.

An attempt is one trial of the queue. A run may have many: it waits while an attempt of it waits, and is tried again
after one that failed, was preempted or fell silent. Rules that keep a run from being trained twice, whoever puts how
many attempts into the queue:

- An attempt may be claimed only where every attempt of its run with a lower number has ended, and none of them is done.
  What has ended stays so and numbers only grow, so what is seen once holds for ever: no two are ever at one run.
- The run that it starts from has to be done.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

# States of an attempt. "stale": its worker fell silent; "superseded": the run was done, or there already, without it.
UNFINISHED = ("waiting", "running")
ENDED = ("done", "failed", "preempted", "stale", "cancelled", "superseded")
# States of an item of work.
SETTLED = ("done", "failed", "cancelled", "blocked")
# Attempts that may fall silent at one step, beyond the retries: such a run takes its machines with it.
_SILENT = 2


@dataclasses.dataclass(frozen=True)
class Item:
    """A piece of work that is wanted: a run to be trained, or a further evaluation of one.

    Attributes:
      key: id of the run; of a further evaluation "ID PROTOCOL".
      label: for people: "row 3: ls sd".
      study: name of the study that wants it.
      order: place in the plan; lower ones are claimed first.
      parent: key of the run it starts from; empty without one.
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
      item: what it is at.
      state: one of :data:`UNFINISHED` or :data:`ENDED`.
      again: whether `harness.retry` asked for it: what failed before does not count any more.
      worker: who is, or was, at it: "host:process"; empty where it was never claimed.
      token: of the worker, for its own machine.
      progress: as last reported: "stage", how far that is ("step" of "total"), "trained" (the last optimizer step),
        "start" (the one it went on from), "seconds" since it began; empty before anything was.
      seconds: that it took; as last reported where it did not end by itself.
      top1: a fraction, of one that is done; None otherwise.
      error: why it failed, or ended, in one line.
      traceback: of a failure, its end.
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
class Standing:
    """Where an item stands.

    Attributes:
      name: "missing" (not in the queue), "waiting", "running", "done", "failed" (for good), "cancelled", or "blocked"
        (the run it starts from failed, or was cancelled).
      attempts: the attempts at it, in order.
      error: why it failed, or last failed; one line.
    """

    name: str
    attempts: tuple[Attempt, ...] = ()
    error: str = ""


def by_key(attempts: Iterable[Attempt]) -> dict[str, list[Attempt]]:
    """Key of an item -> the attempts at it, in the order of their numbers."""
    found: dict[str, list[Attempt]] = collections.defaultdict(list)
    for one in sorted(attempts, key=lambda one: one.number):
        found[one.item.key].append(one)
    return dict(found)


def standing(own: Sequence[Attempt], recorded: bool, retries: int) -> Standing:
    """Where an item stands by the attempts at it.

    Args:
      own: the attempts at it, in order.
      recorded: whether its record is there. An attempt that is done and left none had its record removed: the run is
        wanted anew.
      retries: failures that are followed by another attempt.
    """
    attempts = tuple(one for one in own if one.state != "superseded")
    if recorded:
        return Standing("done", attempts)
    for state in reversed(UNFINISHED):
        if any(one.state == state for one in attempts):
            return Standing(state, attempts, _last_error(attempts))
    counted = attempts[_begun_anew(attempts) :]
    if counted and counted[-1].state == "cancelled":
        return Standing("cancelled", attempts, "cancelled")
    failures = [one for one in counted if one.state == "failed"]
    if len(failures) > retries:
        return Standing("failed", attempts, failures[-1].error)
    silent = _silent_without_progress(counted)
    if silent > retries + _SILENT:
        return Standing("failed", attempts, f"its workers fell silent {silent} times without a step forward")
    return Standing("missing", attempts, _last_error(attempts))


def _begun_anew(attempts: Sequence[Attempt]) -> int:
    """Index of the attempt from which on failures count."""
    anew = [index for index, one in enumerate(attempts) if one.again]
    gone = [index + 1 for index, one in enumerate(attempts) if one.state == "done"]  # its record was removed
    return max([0, *anew, *gone])


def _silent_without_progress(attempts: Sequence[Attempt]) -> int:
    """How many attempts in a row, up to the last, fell silent at a step that one before them had reached."""
    count, furthest = 0, -1
    for one in attempts:
        if one.state != "stale" or one.step > furthest:
            count = 0
        if one.state == "stale":
            count += 1
        furthest = max(furthest, one.step)
    return count


def _last_error(attempts: Sequence[Attempt]) -> str:
    return next((one.error for one in reversed(attempts) if one.error), "")


def standings(
    items: Iterable[Item], attempts: Iterable[Attempt], recorded: Container[str], retries: int
) -> dict[str, Standing]:
    """Key -> where it stands, of every item.

    Args:
      items: what is wanted.
      attempts: all in the queue.
      recorded: keys of what is recorded.
      retries: as of :func:`standing`.
    """
    found, wanted = by_key(attempts), list(items)
    alone = {one.key: standing(found.get(one.key, ()), one.key in recorded, retries) for one in wanted}
    parents = {key: own[0].item.parent for key, own in found.items()} | {one.key: one.parent for one in wanted}
    return {one.key: _blocked(one, alone, found, parents, recorded, retries) for one in wanted}


def _blocked(
    item: Item, alone: Mapping[str, Standing], found: Mapping[str, Sequence[Attempt]], parents: Mapping[str, str],
    recorded: Container[str], retries: int,
) -> Standing:  # fmt: skip
    """An item's standing, with that of what it starts from."""
    own, seen = alone[item.key], {item.key}
    parent = item.parent
    while own.name not in ("done", "running", "failed", "cancelled") and parent and parent not in seen:
        seen.add(parent)
        above = alone.get(parent) or standing(found.get(parent, ()), parent in recorded, retries)
        if above.name in ("failed", "cancelled"):
            return Standing("blocked", own.attempts, f"the run it starts from, {parent[:8]}, {_SAID[above.name]}")
        if above.name in ("done", "running"):
            break
        parent = parents.get(parent, "")
    return own


_SAID = {"failed": "failed", "cancelled": "was cancelled"}


def claimable(attempts: Iterable[Attempt], items: Mapping[str, Item], recorded: Container[str]) -> list[Attempt]:
    """The attempts that may be claimed, the first of the plan first.

    Args:
      attempts: all in the queue.
      items: key -> item, of what the claimer can carry out, in its own order.
      recorded: keys of what is recorded.
    """
    found = by_key(attempts)
    open_ = [
        first
        for key, own in found.items()
        if key in items and key not in recorded
        for first in [next((one for one in own if one.state in UNFINISHED), None)]
        if first is not None and first.state == "waiting" and _ready(items[key].parent, recorded)
    ]
    return sorted(open_, key=lambda one: (items[one.item.key].order, one.number))


def _ready(parent: str, recorded: Container[str]) -> bool:
    return not parent or parent in recorded


def missing(standings: Mapping[str, Standing], items: Iterable[Item]) -> list[Item]:
    """The items that the queue should hold an attempt of, and does not."""
    return [one for one in items if standings[one.key].name == "missing"]


def litter(attempts: Iterable[Attempt], recorded: Container[str]) -> list[Attempt]:
    """Waiting attempts that nobody needs: at what is recorded, or beside another unfinished one at the same item."""
    found = []
    for key, own in by_key(attempts).items():
        unfinished = [one for one in own if one.state in UNFINISHED]
        spare = unfinished if key in recorded else unfinished[1:]
        found += [one for one in spare if one.state == "waiting"]
    return found


def untold(attempts: Iterable[Attempt], items: Mapping[str, Item], recorded: Container[str]) -> list[Item]:
    """The items that are recorded though no attempt says so: a worker ended between writing the record and telling."""
    return [
        items[key]
        for key, own in by_key(attempts).items()
        if key in items and key in recorded and not any(one.state == "done" or one.state in UNFINISHED for one in own)
    ]
