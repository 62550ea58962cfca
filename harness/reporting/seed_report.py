"""Reports which effects a study's steps could have shown, and how many seeds or videos would show smaller ones."""

from __future__ import annotations

import math
from collections.abc import Callable

import pandas as pd

from harness.analysis import power, seed_planning
from harness.analysis.seed_planning import Goal, Spread, Step
from harness.analysis.study_summary import Summary
from harness.reporting import render
from harness.reporting.render import Column, Line, Table
from harness.reporting.study_tables import NOTHING, absent, signed

_SEEDS_SHOWN = (2, 3, 5, 10, 20)


def measured(numbers: Summary) -> list[Step]:
    """Returns the steps of a summary; a step that lacks seeds has no numbers."""
    steps = []
    for row in numbers.study.rows:
        if row.follows is None:
            continue
        line, before = numbers.rows.loc[row.number], numbers.rows.loc[row.follows]
        known = {}
        if not math.isnan(line["step"]):
            known = {
                "difference": line["step"] / 100,
                "spread": line["spread"] / 100 if line["step_population"] == "seeds" else math.nan,
                "videos": int(line["videos"]),
                "discordance": float(line["discordance"]),
            }
        between = (" ".join(before["run_ids"]), " ".join(line["run_ids"]))
        seeds, wanted = (min(int(before[name]), int(line[name])) for name in ("seeds", "seeds_wanted"))
        steps.append(Step(row.number, line["setting"], between, seeds, wanted, **known))
    return steps


def report(steps: list[Step], goal: Goal) -> str:
    """Returns what the command prints: a Markdown table of the steps with a caption, and a conclusion for all."""
    table = _table(seed_planning.outlook(steps, goal), goal)
    return f"{render.markdown(table)}\n{_conclusion(steps, seed_planning.pooled(steps), goal)}"


def _table(steps: pd.DataFrame, goal: Goal) -> Table:

    effect = _given(goal.effect)
    columns = (
        Column("#", lambda line: str(line["row"]), "right"),
        Column("Step", lambda line: line["label"]),
        _number("points", "difference", lambda value: signed(100 * value)),
        _number("seeds", "seeds", "{:.0f}".format),
        _number("spread over seeds", "spread", _points),
        _number("flipped (%)", "discordance", lambda value: f"{100 * value:.1f}"),
        _number("smallest effect shown", "smallest", _points),
        _number(f"seeds for {effect}", "seeds_needed", "{:,.0f}".format),
        _number("more seeds", "more_seeds", "{:,.0f}".format),
        _number(f"videos for {effect}, one seed", "videos_needed", "{:,.0f}".format),
    )
    caption = (
        f"{100 * goal.power:g} % power at a {100 * goal.alpha:g} % level, for each step by itself; effects and spreads "
        "in percentage points. Flipped: videos that just one of the two rows has right. The smallest effect shown is "
        "that of Student's t test over seeds where there are several, which speaks of other seeds, and of McNemar's "
        "exact test over videos where there is one, which does not."
    )
    return Table(
        "plan-seeds", f"What each step could show, and what would show {effect} points", caption, columns, steps
    )


def _number(head: str, field: str, form: Callable[[float], str]) -> Column:
    """Returns a column of numbers; the cells of an unmeasured step say how many of its seeds there are."""

    def cell(line: Line) -> str:
        if math.isnan(line["difference"]):
            return absent(line["seeds"], line["wanted"])
        return NOTHING if math.isnan(line[field]) else form(line[field])

    return Column(head, cell, "right")


def _conclusion(steps: list[Step], spread: Spread | None, goal: Goal) -> str:
    if spread is None:
        return (
            "Seed variance unknown: no row has two seeds. Train more, `python -m harness.additive_study --seeds 3`, or "
            "assume it with --seed-spread POINTS."
        )
    needed, least, most = (seed_planning.seeds_needed(value, goal) for value in (spread.value, spread.low, spread.high))
    have = min(step.seeds for step in steps if step.seeds > 1)
    return (
        f"Over {spread.steps} steps together, and if it is the same for all, the spread of a step over seeds is "
        f"{_points(spread.value)} points, 95 % interval {_points(spread.low)} to {_points(spread.high)} "
        f"({spread.freedom:.1f} degrees of freedom, since steps share rows). Then {_found(goal)} with {needed:,} seeds "
        f"of each row, {max(needed - have, 0):,} more than there are; over that interval, with {least:,} to {most:,}."
    )


def _points(fraction: float) -> str:
    """Formats an estimated fraction of the videos in percentage points, with no more digits than it supports."""
    points = 100 * fraction
    return f"{points:.1f}" if points >= 1 else f"{points:.2g}"


def _given(fraction: float) -> str:
    """Formats a fraction that the user gave, in percentage points, with the digits that it was given with."""
    return f"{100 * fraction:g}"


def over_seeds(spread: float, goal: Goal) -> str:
    """Returns sentences on how many seeds find the effect at an assumed spread over seeds, a fraction."""
    needed = seed_planning.seeds_needed(spread, goal)
    shown = [
        f"{_points(power.smallest_over_seeds(seeds, spread, goal.power, goal.alpha))} with {seeds}"
        for seeds in _SEEDS_SHOWN
    ]
    return (
        f"At a spread of {_given(spread)} points over seeds, {_found(goal)} with {needed:,} seeds of each row. The "
        f"smallest effect that is: {', '.join(shown)} seeds."
    )


def on_videos(videos: int, discordance: float, goal: Goal) -> str:
    """Returns sentences on how many videos find the effect if a given fraction of them, `discordance`, flips."""
    smallest = power.smallest_on_videos(videos, discordance, goal.power, goal.alpha)
    needed = seed_planning.videos_needed(discordance, goal)
    which = "none is" if math.isnan(smallest) else f"{_points(smallest)} points"
    return (
        f"With one seed, if {100 * discordance:g} % of the videos flip, {_found(goal)} on {needed:,} videos. The "
        f"smallest effect that is on {videos:,}: {which}. That speaks of other videos, not of other seeds."
    )


def _found(goal: Goal) -> str:
    return f"an effect of {_given(goal.effect)} is found ({100 * goal.power:g} % power, {100 * goal.alpha:g} % level)"
