"""Where the studies in a queue stand: each row's state, and how long the rest will take. No storage, no clock here.

All of it follows from what the queue holds, so two looks at an unchanged queue say the same, on any machine.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from harness.scheduler import run_states
from harness.scheduler.run_states import SETTLED, Attempt, Item
from harness.system.errors import HarnessError

STATES = ("waiting", "running", "done", "failed", "cancelled", "blocked")
OTHERS = "other runs"
START = "start a worker: the study's own command, such as python -m harness.additive_study"
_NOTE = "study "
_TRAINING = ("train", "validation")
_EVALUATING = "evaluate"
_LOST = ("stale", "preempted", "failed")
# Of the way to its end that an attempt has gone before its own pace counts: the first steps are building and compiling.
_TENTH = 0.1
_SHORTEST = 4  # characters of a run's id that name it: a mistyped row is no run


class ChoiceError(HarnessError):
    """Rows or runs that are not there, or that cannot be cancelled or tried again; one line for the user."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One run, or further evaluation of one, and where it stands.

    Attributes:
      item: what it is.
      state: one of :data:`STATES`.
      attempts: all at it, in order.
      error: why it failed, or last failed; one line.
      rate: multiply-adds per second of what was done; None where nothing was.
    """

    item: Item
    state: str
    attempts: tuple[Attempt, ...] = ()
    error: str = ""
    rate: float | None = None

    @property
    def current(self) -> Attempt | None:
        """The attempt that runs, else the last that somebody was at."""
        own = [one for one in self.attempts if one.worker or one.state == "running"]
        return next((one for one in own if one.state == "running"), own[-1] if own else None)

    @property
    def worker(self) -> str:
        """Who is at it; empty where nobody is."""
        return self.current.worker if self.current and self.state == "running" else ""

    @property
    def stage(self) -> str:
        """What a running one is at: "training", "evaluating", or "starting"; empty for others."""
        if self.state != "running" or self.current is None:
            return ""
        stage = self.current.progress.get("stage", "")
        return "evaluating" if stage == _EVALUATING else "training" if stage in _TRAINING else stage or "starting"

    @property
    def step(self) -> int:
        """Of a running one, how far its stage is; of others, the furthest that training came."""
        if self.state == "running" and self.current is not None:
            return int(self.current.progress.get("step", self.current.step))
        return max([0, *(one.step for one in self._latest)])

    @property
    def total(self) -> int:
        """Steps of the stage that a running one is at; 0 where that is not known."""
        return int(self.current.progress.get("total", 0)) if self.stage and self.current else 0

    @property
    def trained(self) -> bool:
        """Whether an attempt came as far as its evaluation."""
        return any(one.progress.get("stage") == _EVALUATING for one in self._latest)

    @property
    def share(self) -> float:
        """How much of its stage a running one has gone; from 0 to 1."""
        return min(1.0, self.step / self.total) if self.total else 0.0

    @property
    def seconds(self) -> float:
        """Spent on it by all attempts."""
        return sum(one.seconds for one in self.attempts)

    @property
    def lost(self) -> dict[str, int]:
        """Attempts that came to nothing: "stale", "preempted" and "failed" -> how many, where there are any."""
        counts = collections.Counter(one.state for one in self.attempts)
        return {state: counts[state] for state in _LOST if counts[state]}

    @property
    def left(self) -> float | None:
        """Seconds of one worker's time that it still needs; 0 of a settled one, None where that is not known.

        A running one's from its own pace, once it has gone a tenth of the way; before, and for those that wait, from
        the multiply-adds per second of what was done.
        """
        if self.state in SETTLED:
            return 0.0
        known = None if self.rate is None else self.item.work / self.rate
        if self.state != "running" or self.current is None:
            return known
        if self.stage == "evaluating" and not self._only_evaluated:
            # How long the evaluation itself takes is not known: what the whole run takes, less what was spent.
            return None if known is None else max(0.0, known - self.seconds)
        gained = self.share - self._began
        if gained > 0 and self.current.seconds > 0 and (gained >= _TENTH or known is None):
            return self.current.seconds * (1 - self.share) / gained
        return None if known is None else known * (1 - self.share)

    @property
    def _only_evaluated(self) -> bool:
        return " " in self.item.key

    @property
    def _latest(self) -> Sequence[Attempt]:
        """The attempts since its record was removed, if it ever was."""
        ends = [place + 1 for place, one in enumerate(self.attempts) if one.state == "done"]
        return self.attempts[ends[-1] :] if ends and ends[-1] < len(self.attempts) else self.attempts

    @property
    def _began(self) -> float:
        """Share of its training at which the running attempt went on from an earlier one."""
        if self._only_evaluated or not self.total or self.current is None:
            return 0.0
        return int(self.current.progress.get("start", 0)) / self.total


@dataclasses.dataclass(frozen=True)
class Group:
    """A study, or what belongs to none.

    Attributes:
      name: of the study; :data:`OTHERS` for what belongs to none.
      began: when it was begun; ISO, UTC. Empty for what belongs to none.
      rows: its runs, in its order.
      names: name of a row with its seed, "table2 3, seed 0" -> "ID PROTOCOL" of its run.
    """

    name: str
    rows: tuple[Row, ...]
    began: str = ""
    names: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def counts(self) -> dict[str, int]:
        """State -> how many rows; all of :data:`STATES`."""
        counts = collections.Counter(row.state for row in self.rows)
        return {state: counts[state] for state in STATES}

    @property
    def settled(self) -> bool:
        """Whether nothing of it waits or runs."""
        return all(row.state in SETTLED for row in self.rows)

    @functools.cached_property
    def workers(self) -> int:
        """How many are at it now."""
        return len({row.worker or row.item.key for row in self.rows if row.state == "running"})

    @property
    def seconds(self) -> float:
        """Spent on it by all workers."""
        return sum(row.seconds for row in self.rows)

    @functools.cached_property
    def left(self) -> float | None:
        """Seconds of one worker's time that it still needs; None where that is not known."""
        own = [row.left for row in self.rows]
        known = [seconds for seconds in own if seconds is not None]
        return sum(known) if len(known) == len(own) else None

    @property
    def eta(self) -> float | None:
        """Seconds until it is done with the workers there are; None where that is not known, or nobody is at it."""
        if self.settled:
            return 0.0
        if self.left is None or not self.workers:
            return None
        # Its longest run cannot be split.
        longest = max((row.left or 0.0 for row in self.rows), default=0.0)
        return max(self.left / self.workers, longest)


def groups(notes: Mapping[str, Any], attempts: Sequence[Attempt]) -> tuple[Group, ...]:
    """The studies in a queue, in the order in which they were begun, then what belongs to none.

    Args:
      notes: what is kept beside the attempts.
      attempts: all in the queue.
    """
    found = run_states.by_key(attempts)
    about = {name.removeprefix(_NOTE): note for name, note in notes.items() if name.startswith(_NOTE)}
    noted = {str(key) for note in about.values() for key in note["recorded"]}
    recorded = _recorded(found, noted)
    whole = _rate(found.values())
    studies = [_study(name, note, found, recorded, whole) for name, note in about.items()]
    wanted = {row.item.key for study in studies for row in study.rows}
    others = _others(found, wanted, recorded, whole)
    return (*sorted(studies, key=lambda one: (one.began, one.name)), *([others] if others.rows else []))


def _study(
    name: str, note: Mapping[str, Any], found: Mapping[str, Sequence[Attempt]], recorded: set[str], whole: float | None
) -> Group:
    items = [Item(key, label, name, order, parent, work) for key, label, work, order, parent in note["runs"]]
    own = _rate(found.get(one.key, ()) for one in items)
    rows = _rows(items, found, recorded, int(note["retries"]), own or whole)
    return Group(name, rows, str(note.get("began", "")), dict(note.get("rows", {})))


def _others(found: Mapping[str, Sequence[Attempt]], wanted: set[str], recorded: set[str], whole: float | None) -> Group:
    """What no study wants; what was done of a run that a study wants in another way by now is that study's history."""
    known = {key.split()[0] for key in wanted}
    items = [
        own[-1].item
        for key, own in found.items()
        if key not in wanted and not (key in recorded and key.split()[0] in known)
    ]
    # Nobody tries them again but who began them, and then an attempt waits.
    return Group(OTHERS, _rows(items, found, recorded, 0, whole))


def _rows(
    items: Sequence[Item], found: Mapping[str, Sequence[Attempt]], recorded: set[str], retries: int, rate: float | None
) -> tuple[Row, ...]:
    every = [one for own in found.values() for one in own]
    stand = run_states.standings(items, every, recorded, retries)
    return tuple(
        Row(one, _STATE.get(at.name, at.name), at.attempts, one_line(_error(at)), rate)
        for one in items
        for at in [stand[one.key]]
    )


def _error(at: run_states.Standing) -> str:
    """Why an item is not done; of one that still may be, why it last failed, if it did."""
    if at.name in SETTLED:
        return "" if at.name == "done" else at.error
    return next((one.error for one in reversed(at.attempts) if one.state == "failed"), "")


# A worker that looks next adds what is missing.
_STATE = {"missing": "waiting"}


def _recorded(found: Mapping[str, Sequence[Attempt]], noted: set[str]) -> set[str]:
    """Keys of what is recorded, as far as the queue tells: no results folder is at hand."""
    idle = {key for key in noted if not any(one.state in run_states.UNFINISHED for one in found.get(key, ()))}
    return idle | {key for key, own in found.items() if _says_recorded(own)}


def _says_recorded(own: Sequence[Attempt]) -> bool:
    """Whether the last attempt that counts was done, or found the record there.

    What was never claimed and "superseded" was litter. An attempt that is open after one that was done says that the
    record was removed.
    """
    counted = [one for one in own if one.state != "superseded" or one.worker]
    return bool(counted) and counted[-1].state in ("done", "superseded")


def _rate(items: Iterable[Sequence[Attempt]]) -> float | None:
    """Multiply-adds per second of what was done, with all the attempts that it took; None where nothing was."""
    work = seconds = 0.0
    for own in items:
        if any(one.state == "done" and one.item.work > 0 for one in own):
            work += max(one.item.work for one in own)
            seconds += sum(one.seconds for one in own)
    return work / seconds if work and seconds else None


def one_line(text: str) -> str:
    """A text without what would break a line of a terminal, or change its colours."""
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())


def chosen(groups: Sequence[Group], name: str | None) -> tuple[Group, ...]:
    """The group of a name; all without one.

    Raises:
      ChoiceError: there is none of that name.
    """
    own = tuple(one for one in groups if name in (None, one.name))
    if name is not None and not own:
        known = ", ".join(one.name for one in groups) or "none"
        raise ChoiceError(f"--study {name}: is not in the queue; expected one of {known}")
    return own


def find(groups: Sequence[Group], word: str) -> list[Row]:
    """The rows that a word names: a row's number with all its seeds, "table2 3", a run's id or its beginning.

    Raises:
      ChoiceError: none, or several.
    """
    by_name = [(kind, rows) for group in groups for kind, rows in _named(group, word).items() if rows]
    if by_name:
        keys = {frozenset(row.item.key for row in rows) for _, rows in by_name}
        if len(keys) > 1:
            raise ChoiceError(f"row {word}: is there in {_listed([kind for kind, _ in by_name])}; name one of them")
        return by_name[0][1]
    own = [row for group in groups for row in group.rows if _is(row, word)]
    runs = {row.item.key.split()[0] for row in own}
    if not runs:
        raise ChoiceError(f"{word}: is no row or run in the queue; python -m harness.status shows them")
    if len(runs) > 1:
        raise ChoiceError(f"run {word}: {_listed(sorted(runs))} begin so; write more of it")
    return own


def _is(row: Row, word: str) -> bool:
    return row.item.key == word or (len(word) >= _SHORTEST and row.item.key.split()[0].startswith(word))


def _named(group: Group, word: str) -> dict[str, list[Row]]:
    """Where a group has a row of that name, as one would have to write it -> its runs, one for each seed."""
    wanted: dict[str, set[str]] = collections.defaultdict(set)
    for name, run in group.names.items():
        row, _, seed = name.rpartition(", seed ")
        number = row.rpartition(" ")[2]
        if word in (name, row, number, f"{number}, seed {seed}"):
            wanted[f"--study {shlex.quote(group.name)} {shlex.quote(row)}"].add(run)
    return {
        name: [row for row in group.rows if row.item.key in runs or row.item.key in {run.split()[0] for run in runs}]
        for name, runs in wanted.items()
    }


def _listed(words: Sequence[str]) -> str:
    more = f" and {len(words) - 4} more" if len(words) > 4 else ""
    return ", ".join(words[:4]) + more


def to_cancel(groups: Sequence[Group], words: Sequence[str]) -> list[Row]:
    """The rows among those named that can still be cancelled.

    Raises:
      ChoiceError: a word names nothing, or only what has ended.
    """
    return _each(groups, words, ("waiting", "running", "blocked"), _NOT_CANCELLED)


def to_retry(groups: Sequence[Group], words: Sequence[str]) -> list[Row]:
    """The rows among those named that failed or were cancelled.

    Raises:
      ChoiceError: a word names nothing, or only what did not.
    """
    return _each(groups, words, ("failed", "cancelled"), _NOT_RETRIED)


def failed(groups: Sequence[Group]) -> list[Row]:
    """The rows of studies that failed, each once."""
    rows = (row for group in groups if group.name != OTHERS for row in group.rows if row.state == "failed")
    return list({row.item.key: row for row in rows}.values())


def _each(
    groups: Sequence[Group], words: Sequence[str], states: Sequence[str], reasons: Mapping[str, str]
) -> list[Row]:
    found: dict[str, Row] = {}
    for word in words:
        own = find(groups, word)
        fitting = [row for row in own if row.state in states]
        if not fitting:
            first = own[0]
            reason = reasons[first.state].format(error=first.error, worker=first.worker, run=first.item.key[:8])
            raise ChoiceError(f"{first.item.label} ({first.item.key}): {reason}")
        found |= {row.item.key: row for row in fitting}
    return list(found.values())


# State of what was named -> why not, and what to type.
_NOT_CANCELLED = {
    "done": "is done; python -m harness.status shows what is not",
    "failed": "has failed, nobody tries it any more; python -m harness.retry {run} would",
    "cancelled": "is cancelled already; python -m harness.retry {run} takes it back",
}
_NOT_RETRIED = {
    "done": "is done; python -m harness.status shows what is not",
    "waiting": f"waits already; {START}",
    "running": "{worker} is at it; python -m harness.status shows how far",
    "blocked": "is blocked: {error}; python -m harness.retry that run",
}


def depending(groups: Sequence[Group], keys: set[str]) -> int:
    """How many runs that are not done start from these, or from one that does."""
    rows = {row.item.key: row for group in groups for row in group.rows if row.state != "done"}
    known, size = set(keys), -1
    while len(known) != size:
        size = len(known)
        known |= {key for key, row in rows.items() if row.item.parent in known}
    return len(known) - len(keys)


def as_json(groups: Sequence[Group]) -> dict[str, Any]:
    """Plain data of it; :mod:`harness.status` says which keys."""
    return {"settled": all(one.settled for one in groups), "studies": [_group_json(one) for one in groups]}


def _group_json(group: Group) -> dict[str, Any]:
    return {
        "name": group.name,
        "began": group.began or None,
        "runs": len(group.rows),
        "counts": group.counts,
        "workers": group.workers,
        "spent_seconds": round(group.seconds, 1),
        "left_seconds": _rounded(group.left),
        "eta_seconds": _rounded(group.eta),
        "rows": [_row_json(row) for row in group.rows],
    }


def _row_json(row: Row) -> dict[str, Any]:
    run, _, protocol = row.item.key.partition(" ")
    done = [one for one in row.attempts if one.state == "done"]
    traces = [one.traceback for one in row.attempts if one.traceback]
    return {
        "run": run,
        "protocol": protocol or None,
        "label": row.item.label,
        "state": row.state,
        "worker": row.worker or None,
        "attempt": row.current.number if row.current else None,
        "stage": row.stage or None,
        "step": None if row.state == "done" else row.step,
        "total": row.total or None,
        "share": round(row.share, 4) if row.total else None,
        "eta_seconds": _rounded(row.left),
        "spent_seconds": round(row.seconds, 1),
        "attempts": len(row.attempts),
        **{state: row.lost.get(state, 0) for state in _LOST},
        "top1": done[-1].top1 if done and row.state == "done" else None,
        "parent": row.item.parent or None,
        "error": row.error or None,
        "traceback": traces[-1] if traces and row.state == "failed" else None,
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
