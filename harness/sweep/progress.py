"""Reports a sweep's plan with its cost, and the progress of its trials."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console

from harness.planning import plans
from harness.planning.plans import Plan, Planned
from harness.scheduler.progress import ProgressState
from harness.store.records import RunRecord
from harness.sweep.search import PRUNED_AFTER, PRUNED_FROM, STARTUP, Strategy
from harness.sweep.space import MOST, PARTS, Point, Sweep
from harness.sweep.sweep_summary import shown_value
from harness.system.text import duration, print_line

_LISTED = 60  # most points that a plan lists
_DRAWN = 30  # points drawn to estimate the cost of a space that is too large to list


class TrialBoard(ProgressState):
    """The state of the trials begun so far, and how long these and the rest will take.

    Args:
      rate: multiply-adds per second; None where unknown.
      points: most points to train.
      work: mean multiply-adds of a point.
    """

    def __init__(self, rate: float | None, points: int, work: float) -> None:
        super().__init__(Plan((), (), {}), rate)
        self._ahead, self._work = points, work

    def begin(self, planned: Planned) -> None:
        """Adds the run of a trial that is about to be trained."""
        self.states |= ProgressState(Plan((), (planned,), {}), None).states
        self._ahead -= 1

    def update(self, run_id: str, event: Mapping[str, Any]) -> Any:
        """Updates the state by an event; a run that was pruned needs no more time."""
        state = super().update(run_id, event)
        if event["event"] == "interrupted" and event.get("watched"):
            state.stage, state.note, state.seconds = "pruned", event["reason"].removeprefix("pruned "), 0.0
        return state

    @property
    def remaining(self) -> float | None:
        """Returns the seconds still to go; None where nothing was measured yet."""
        begun = super().remaining
        if begun is None or self.rate is None:
            return None
        return begun + max(self._ahead, 0) * self._work / self.rate


def likely(sweep: Sweep) -> list[Point]:
    """Returns the points within the limits: all, or a random sample where the space is too large to list."""
    if sweep.space.listed:
        return [point for point in sweep.grid() if not sweep.limits.reason(point)]
    generator = np.random.default_rng(0)
    drawn = (sweep.draw(generator, lambda _: False) for _ in range(_DRAWN))
    return [point for point in drawn if point is not None]


def describe(
    sweep: Sweep,
    strategy: Strategy,
    records: Mapping[str, RunRecord],
    points: int,
    trained: int,
    console: Console,
) -> None:
    """Prints what a sweep would do and what it costs.

    Args:
      sweep: the sweep.
      strategy: how points are chosen.
      records: id -> record of each recorded run.
      points: number of points to train in all.
      trained: how many of these are trained by now.
      console: where to print.
    """
    say = functools.partial(print_line, console)
    within = likely(sweep)
    say(f"{_CHOSEN[strategy.sampler].format(startup=STARTUP, population=strategy.population)}{_pruning(strategy)}.")
    base = " ".join(applied.short for applied in sweep.space.base) or "no toggle"
    say(f"Space: {' '.join(map(str, sweep.space.axes))}; every point has {base}.")
    size = sweep.space.size
    if size is None or size > MOST:
        say("  Infinitely many points." if size is None else f"  {size:,} points.")
    elif size <= _LISTED:
        for point in sweep.grid():
            say(_line(point, sweep, records))
    known = sum(point.run.id in records for point in within) if sweep.space.listed else 0
    if sweep.space.listed:
        say(f"Points: {size}, within the limits {len(within)}, recorded already {known}.")
    say(f"To train: {max(0, points - trained)} of {points} points, {trained} are.")
    say(_cost([point for point in within if point.run.id not in records], max(0, points - trained), sweep))


_CHOSEN = {
    "grid": "Grid: every point within the limits, in order",
    "tpe": "TPE: the highest top-1; {startup} points at random, then where earlier ones were good",
    "nsga2": "NSGA-II: the front of high top-1 and few multiply-adds; generations of {population} points",
}


def _pruning(strategy: Strategy) -> str:
    if not strategy.prunes:
        return ", none is pruned"
    return (
        f"; a run is pruned where its validation, at each {100 // PARTS} % of the schedule from {PRUNED_FROM} % on, is "
        f"below the median of the runs before it, once {PRUNED_AFTER} have ended"
    )


def _line(point: Point, sweep: Sweep, records: Mapping[str, RunRecord]) -> str:
    values = "  ".join(f"{key}={shown_value(value)}" for key, value in point.params.items())
    about = duration(None if point.hours is None else point.hours * 3600)
    if record := records.get(point.run.id):
        evaluation = record.evaluations[point.run.protocol.name]
        took = duration(record.cost["train_seconds"] + evaluation.seconds)
        about = f"done: top-1 {100 * evaluation.top1:.1f} %, {took}"
    elif reason := sweep.limits.reason(point):
        about = f"turned away: {reason}"
    return f"  {point.run.id[:8]}  {point.steps:>7,} steps  {point.gflops:8.3g} GFLOPs  {values}  {about}"


def _cost(left: Sequence[Point], points: int, sweep: Sweep) -> str:
    """Returns the sentence on the mean and the highest cost of what is still to be trained."""
    points = min(points, len(left)) if sweep.space.listed else points
    if not points or not left:
        return "Cost of what is to do: nothing."
    work = sorted((point.work for point in left), reverse=True)
    most = sum(work[:points]) if sweep.space.listed else points * work[0]
    text = f"Cost of what is to do: about {points * statistics.mean(work) / 1e15:,.3g} peta multiply-adds"
    if known := sweep.speed:
        mean, highest = statistics.mean(map(known.seconds, work)), points * known.overhead + most / known.rate
        source = f"by {known.runs} runs measured here" if known.runs else "on two CPU cores"
        text += f", about {duration(points * mean)} and at most {duration(highest)} {source}"
    else:
        core_hours = plans.tpu_v3_core_hours(points * statistics.mean(work))
        text += f", at least {core_hours:,.3g} TPU v3 core-hours (every core at its peak)"
    checkpoint = max(Planned(point.run, (), False, False).checkpoint for point in left)
    peak = max(Planned(point.run, (), False, False).peak for point in left)
    return f"{text}, at most {(points * checkpoint + peak) / 1e9:,.2f} GB of disk; pruning makes it less."
