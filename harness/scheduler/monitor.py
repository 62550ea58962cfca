"""Works out, from the attempts in a queue, the state of each study's rows and the time that is left.

It reads neither the storage nor a clock: everything follows from the contents of the queue, so an unchanged queue gives
the same result each time, on any machine.
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
# Share of its steps after which an attempt's own pace is used: building and compiling slow down the first ones.
_TENTH = 0.1
_SHORTEST = 4  # fewest characters of a run's id that name it, so that a mistyped row is not taken for a run


class ChoiceError(HarnessError):
    """Raised for rows or runs that do not exist, or that cannot be cancelled or tried again; a line for the user."""


@dataclasses.dataclass(frozen=True)
class Row:
    """A run, or a further evaluation of a run, and its state.

    Attributes:
      item: the run or evaluation.
      state: one of :data:`STATES`.
      attempts: all attempts at it, in order.
      error: why it failed, or last failed, in one line.
      rate: multiply-adds per second of the finished items, for estimates; None if none is finished.
    """

    item: Item
    state: str
    attempts: tuple[Attempt, ...] = ()
    error: str = ""
    rate: float | None = None

    @property
    def current(self) -> Attempt | None:
        """The running attempt, or else the last one that a worker has claimed."""
        claimed = [attempt for attempt in self.attempts if attempt.worker or attempt.state == "running"]
        return next((attempt for attempt in claimed if attempt.state == "running"), claimed[-1] if claimed else None)

    @property
    def worker(self) -> str:
        """The worker that is running it; empty if none is."""
        return self.current.worker if self.current and self.state == "running" else ""

    @property
    def stage(self) -> str:
        """Stage of a running row: "training", "evaluating" or "starting", say; empty for other rows."""
        if self.state != "running" or self.current is None:
            return ""
        stage = self.current.progress.get("stage", "")
        return "evaluating" if stage == _EVALUATING else "training" if stage in _TRAINING else stage or "starting"

    @property
    def step(self) -> int:
        """Steps done of a running row's stage; for other rows, the furthest training step of any attempt."""
        if self.state == "running" and self.current is not None:
            return int(self.current.progress.get("step", self.current.step))
        return max([0, *(attempt.step for attempt in self._latest)])

    @property
    def total(self) -> int:
        """Steps in a running row's stage; 0 if not known."""
        return int(self.current.progress.get("total", 0)) if self.stage and self.current else 0

    @property
    def trained(self) -> bool:
        """Whether an attempt reached its evaluation."""
        return any(attempt.progress.get("stage") == _EVALUATING for attempt in self._latest)

    @property
    def share(self) -> float:
        """Share of a running row's stage that is done, from 0 to 1."""
        return min(1.0, self.step / self.total) if self.total else 0.0

    @property
    def seconds(self) -> float:
        """Seconds that all attempts took together."""
        return sum(attempt.seconds for attempt in self.attempts)

    @property
    def lost(self) -> dict[str, int]:
        """Number of unsuccessful attempts by state: "stale", "preempted" and "failed", without the zeros."""
        counts = collections.Counter(attempt.state for attempt in self.attempts)
        return {state: counts[state] for state in _LOST if counts[state]}

    @property
    def left(self) -> float | None:
        """Seconds that one worker still needs for it; 0 for a settled row, None if not known.

        For a running row the estimate uses its own pace once a tenth of its stage is done. Before that, and for waiting
        rows, it uses the multiply-adds per second of the finished items.
        """
        if self.state in SETTLED:
            return 0.0
        known = None if self.rate is None else self.item.work / self.rate
        if self.state != "running" or self.current is None:
            return known
        if self.stage == "evaluating" and not self._only_evaluated:
            # The duration of the evaluation itself is not known: take that of the whole run, less the time spent.
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
        """The attempts since the row's record was removed; all of them if it never was."""
        ends = [index + 1 for index, attempt in enumerate(self.attempts) if attempt.state == "done"]
        return self.attempts[ends[-1] :] if ends and ends[-1] < len(self.attempts) else self.attempts

    @property
    def _began(self) -> float:
        """Share of its training at which the running attempt resumed from an earlier one."""
        if self._only_evaluated or not self.total or self.current is None:
            return 0.0
        return int(self.current.progress.get("start", 0)) / self.total


@dataclasses.dataclass(frozen=True)
class Group:
    """The rows of a study, or the rows that belong to no study.

    Attributes:
      name: name of the study; :data:`OTHERS` for the rows of no study.
      began: when the study was begun, as ISO in UTC; empty for the rows of no study.
      rows: the study's runs, in the study's order.
      names: name of a row with its seed, such as "table2 3, seed 0" -> "ID PROTOCOL" of its run.
    """

    name: str
    rows: tuple[Row, ...]
    began: str = ""
    names: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def counts(self) -> dict[str, int]:
        """Number of rows in each state, for all of :data:`STATES`."""
        counts = collections.Counter(row.state for row in self.rows)
        return {state: counts[state] for state in STATES}

    @property
    def settled(self) -> bool:
        """Whether no row waits or runs any more."""
        return all(row.state in SETTLED for row in self.rows)

    @functools.cached_property
    def workers(self) -> int:
        """Number of workers that are running its rows now."""
        return len({row.worker or row.item.key for row in self.rows if row.state == "running"})

    @property
    def seconds(self) -> float:
        """Seconds that all workers spent on it."""
        return sum(row.seconds for row in self.rows)

    @functools.cached_property
    def left(self) -> float | None:
        """Seconds that one worker would still need for all rows; None if not known."""
        estimates = [row.left for row in self.rows]
        known = [seconds for seconds in estimates if seconds is not None]
        return sum(known) if len(known) == len(estimates) else None

    @property
    def eta(self) -> float | None:
        """Seconds until the present workers finish it; None if not known or if it has no worker."""
        if self.settled:
            return 0.0
        if self.left is None or not self.workers:
            return None
        # Workers cannot share a run, so it takes at least as long as the longest one.
        longest = max((row.left or 0.0 for row in self.rows), default=0.0)
        return max(self.left / self.workers, longest)


def groups(notes: Mapping[str, Any], attempts: Sequence[Attempt]) -> tuple[Group, ...]:
    """Returns the studies in a queue in the order in which they were begun, then the rows of no study, if any.

    Args:
      notes: the data that the queue keeps beside the attempts.
      attempts: all attempts in the queue.
    """
    attempts_by_key = run_states.by_key(attempts)
    definitions = {name.removeprefix(_NOTE): note for name, note in notes.items() if name.startswith(_NOTE)}
    noted = {str(key) for note in definitions.values() for key in note["recorded"]}
    recorded = _recorded(attempts_by_key, noted)
    overall_rate = _rate(attempts_by_key.values())
    studies = [_study(name, note, attempts_by_key, recorded, overall_rate) for name, note in definitions.items()]
    wanted = {row.item.key for study in studies for row in study.rows}
    others = _others(attempts_by_key, wanted, recorded, overall_rate)
    return (*sorted(studies, key=lambda study: (study.began, study.name)), *([others] if others.rows else []))


def _study(
    name: str,
    note: Mapping[str, Any],
    attempts_by_key: Mapping[str, Sequence[Attempt]],
    recorded: set[str],
    overall_rate: float | None,
) -> Group:
    items = [Item(key, label, name, order, parent, work) for key, label, work, order, parent in note["runs"]]
    rate = _rate(attempts_by_key.get(item.key, ()) for item in items)
    rows = _rows(items, attempts_by_key, recorded, int(note["retries"]), rate or overall_rate)
    return Group(name, rows, str(note.get("began", "")), dict(note.get("rows", {})))


def _others(
    attempts_by_key: Mapping[str, Sequence[Attempt]], wanted: set[str], recorded: set[str], overall_rate: float | None
) -> Group:
    """Returns the rows that no study wants.

    A recorded item is left out if a study wants the same run in another way by now: it is part of that study's history.
    """
    known = {key.split()[0] for key in wanted}
    items = [
        attempts[-1].item
        for key, attempts in attempts_by_key.items()
        if key not in wanted and not (key in recorded and key.split()[0] in known)
    ]
    # No retries: only the command that began these runs tries them again, and then an attempt waits in the queue.
    return Group(OTHERS, _rows(items, attempts_by_key, recorded, 0, overall_rate))


def _rows(
    items: Sequence[Item],
    attempts_by_key: Mapping[str, Sequence[Attempt]],
    recorded: set[str],
    retries: int,
    rate: float | None,
) -> tuple[Row, ...]:
    everything = [attempt for attempts in attempts_by_key.values() for attempt in attempts]
    standings = run_states.standings(items, everything, recorded, retries)
    return tuple(
        Row(item, _STATE.get(standing.name, standing.name), standing.attempts, one_line(_error(standing)), rate)
        for item in items
        for standing in [standings[item.key]]
    )


def _error(standing: run_states.ItemStatus) -> str:
    """Returns why an item failed; for one that is not settled, why it last failed, if it did."""
    if standing.name in SETTLED:
        return "" if standing.name == "done" else standing.error
    return next((attempt.error for attempt in reversed(standing.attempts) if attempt.state == "failed"), "")


# A missing item counts as waiting, since the next worker that looks at the queue adds an attempt at it.
_STATE = {"missing": "waiting"}


def _recorded(attempts_by_key: Mapping[str, Sequence[Attempt]], noted: set[str]) -> set[str]:
    """Returns the keys of recorded items, as far as the queue tells, since the results folder is not at hand."""
    idle = {
        key
        for key in noted
        if not any(attempt.state in run_states.UNFINISHED for attempt in attempts_by_key.get(key, ()))
    }
    return idle | {key for key, attempts in attempts_by_key.items() if _says_recorded(attempts)}


def _says_recorded(attempts: Sequence[Attempt]) -> bool:
    """Returns whether the last attempt that counts was done, or found that the record already existed.

    Attempts that ended as "superseded" without having been claimed do not count: they were superfluous. An open attempt
    after one that was done means that the record was removed.
    """
    counted = [attempt for attempt in attempts if attempt.state != "superseded" or attempt.worker]
    return bool(counted) and counted[-1].state in ("done", "superseded")


def _rate(items: Iterable[Sequence[Attempt]]) -> float | None:
    """Returns multiply-adds per second of the finished items, counting the time of all attempts; None if none is."""
    work = seconds = 0.0
    for attempts in items:
        if any(attempt.state == "done" and attempt.item.work > 0 for attempt in attempts):
            work += max(attempt.item.work for attempt in attempts)
            seconds += sum(attempt.seconds for attempt in attempts)
    return work / seconds if work and seconds else None


def one_line(text: str) -> str:
    """Removes from a text the characters that would break a terminal's line or change its colours."""
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())


def chosen(groups: Sequence[Group], name: str | None) -> tuple[Group, ...]:
    """Returns the group with a name, or all groups if the name is None.

    Raises:
      ChoiceError: there is no group with that name.
    """
    matching = tuple(group for group in groups if name in (None, group.name))
    if name is not None and not matching:
        known = ", ".join(group.name for group in groups) or "none"
        raise ChoiceError(f"--study {name}: is not in the queue; expected one of {known}")
    return matching


def find(groups: Sequence[Group], word: str) -> list[Row]:
    """Returns the rows that a word names.

    Args:
      groups: the groups to search.
      word: a row's number, for all its seeds; a row's name such as "table2 3"; a run's id, or the beginning of one.

    Raises:
      ChoiceError: the word names nothing, or more than one row or run.
    """
    by_name = [(kind, rows) for group in groups for kind, rows in _rows_by_name(group, word).items() if rows]
    if by_name:
        keys = {frozenset(row.item.key for row in rows) for _, rows in by_name}
        if len(keys) > 1:
            raise ChoiceError(f"row {word}: is there in {_listed([kind for kind, _ in by_name])}; name one of them")
        return by_name[0][1]
    matching = [row for group in groups for row in group.rows if _matches(row, word)]
    runs = {row.item.key.split()[0] for row in matching}
    if not runs:
        raise ChoiceError(f"{word}: is no row or run in the queue; python -m harness.status shows them")
    if len(runs) > 1:
        raise ChoiceError(f"run {word}: {_listed(sorted(runs))} begin so; write more of it")
    return matching


def _matches(row: Row, word: str) -> bool:
    return row.item.key == word or (len(word) >= _SHORTEST and row.item.key.split()[0].startswith(word))


def _rows_by_name(group: Group, word: str) -> dict[str, list[Row]]:
    """Finds the rows of a group that a word names: flag and name that would name each uniquely -> its runs."""
    runs_by_name: dict[str, set[str]] = collections.defaultdict(set)
    for name, run in group.names.items():
        row, _, seed = name.rpartition(", seed ")
        number = row.rpartition(" ")[2]
        if word in (name, row, number, f"{number}, seed {seed}"):
            runs_by_name[f"--study {shlex.quote(group.name)} {shlex.quote(row)}"].add(run)
    return {
        name: [row for row in group.rows if row.item.key in runs or row.item.key in {run.split()[0] for run in runs}]
        for name, runs in runs_by_name.items()
    }


def _listed(words: Sequence[str]) -> str:
    more = f" and {len(words) - 4} more" if len(words) > 4 else ""
    return ", ".join(words[:4]) + more


def to_cancel(groups: Sequence[Group], words: Sequence[str]) -> list[Row]:
    """Returns those of the named rows that can still be cancelled.

    Raises:
      ChoiceError: a word names nothing, or only rows that have ended.
    """
    return _select(groups, words, ("waiting", "running", "blocked"), _NOT_CANCELLED)


def to_retry(groups: Sequence[Group], words: Sequence[str]) -> list[Row]:
    """Returns those of the named rows that failed or were cancelled.

    Raises:
      ChoiceError: a word names nothing, or only rows that neither failed nor were cancelled.
    """
    return _select(groups, words, ("failed", "cancelled"), _NOT_RETRIED)


def failed(groups: Sequence[Group]) -> list[Row]:
    """Returns the failed rows of all studies, each once."""
    rows = (row for group in groups if group.name != OTHERS for row in group.rows if row.state == "failed")
    return list({row.item.key: row for row in rows}.values())


def _select(
    groups: Sequence[Group], words: Sequence[str], states: Sequence[str], reasons: Mapping[str, str]
) -> list[Row]:
    chosen_rows: dict[str, Row] = {}
    for word in words:
        named = find(groups, word)
        fitting = [row for row in named if row.state in states]
        if not fitting:
            first = named[0]
            reason = reasons[first.state].format(error=first.error, worker=first.worker, run=first.item.key[:8])
            raise ChoiceError(f"{first.item.label} ({first.item.key}): {reason}")
        chosen_rows |= {row.item.key: row for row in fitting}
    return list(chosen_rows.values())


# State of a named row -> why it cannot be cancelled or retried, and what to type instead.
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
    """Returns how many unfinished runs start from the given ones, directly or through other runs."""
    rows = {row.item.key: row for group in groups for row in group.rows if row.state != "done"}
    known, size = set(keys), -1
    while len(known) != size:
        size = len(known)
        known |= {key for key, row in rows.items() if row.item.parent in known}
    return len(known) - len(keys)


def as_json(groups: Sequence[Group]) -> dict[str, Any]:
    """Returns the groups as plain data; :mod:`harness.status` documents the keys."""
    return {"settled": all(group.settled for group in groups), "studies": [_group_json(group) for group in groups]}


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
    done = [attempt for attempt in row.attempts if attempt.state == "done"]
    traces = [attempt.traceback for attempt in row.attempts if attempt.traceback]
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
