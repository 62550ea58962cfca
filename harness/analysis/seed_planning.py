"""What each step of a study could have shown, and how many seeds or videos would show more; numbers in, numbers out."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from harness.analysis import power


@dataclasses.dataclass(frozen=True)
class Step:
    """One step as it was measured; differences, spreads and discordances are fractions of the videos.

    Attributes:
      number: of the row that it leads to.
      label: what it changes.
      between: names of the two rows it compares; rows that are trained alike have one name.
      seeds: with how many both rows were trained; 0 while the step is not measured.
      wanted: with how many they should be.
      difference: mean over seeds of the later row's accuracy less the earlier one's.
      spread: standard deviation over seeds of that difference, NaN with fewer than two.
      videos: on how many both were evaluated.
      discordance: share of videos that just one of the two has right, mean over seeds.
    """

    number: int
    label: str
    between: tuple[str, str]
    seeds: int
    wanted: int
    difference: float = math.nan
    spread: float = math.nan
    videos: int = 0
    discordance: float = math.nan


@dataclasses.dataclass(frozen=True)
class Goal:
    """What is to be found.

    Attributes:
      effect: a difference of accuracies, as a fraction of the videos, above 0.
      power: chance to find it.
      alpha: level of the two-sided test.
    """

    effect: float
    power: float = 0.8
    alpha: float = 0.05


@dataclasses.dataclass(frozen=True)
class Spread:
    """A standard deviation over seeds, estimated from several steps together.

    Attributes:
      value: the estimate, a fraction of the videos.
      low: lower end of its 95 % interval.
      high: upper end.
      steps: how many steps it is from.
      freedom: degrees of freedom of the interval, fewer than the steps' own together where they share rows.
    """

    value: float
    low: float
    high: float
    steps: int
    freedom: float


def outlook(steps: Sequence[Step], goal: Goal) -> pd.DataFrame:
    """What each step could have shown, and what it would take to find the goal's effect.

    Args:
      steps: the steps.
      goal: what is to be found.

    Returns:
      A line for each step, indexed by "row" (its number); columns: those of :class:`Step`, and
        smallest: the smallest effect that its test finds as it was measured, a fraction of the videos: Student's t
          over seeds where there are several, McNemar's over videos where there is one.
        seeds_needed: seeds of both rows that find the goal's effect, if its spread is the one measured.
        more_seeds: how many of them are still to be trained.
        videos_needed: videos on which one seed finds it, if the discordance is the one measured.
      NaN where it cannot be said.

    Raises:
      PowerError: a number out of its range.
    """
    lines = [{**dataclasses.asdict(step), **_outlook(step, goal)} for step in steps]
    return pd.DataFrame(lines).rename(columns={"number": "row"}).set_index("row")


def _outlook(step: Step, goal: Goal) -> dict[str, float]:
    needed = math.nan if math.isnan(step.spread) else seeds_needed(step.spread, goal)
    return {
        "smallest": smallest(step, goal),
        "seeds_needed": needed,
        "more_seeds": needed if math.isnan(needed) else max(needed - step.seeds, 0),
        "videos_needed": math.nan if math.isnan(step.discordance) else videos_needed(step.discordance, goal),
    }


def smallest(step: Step, goal: Goal) -> float:
    """The smallest effect that the test of a step finds with the goal's power; NaN where none, or not measured."""
    if not math.isnan(step.spread):
        return power.smallest_over_seeds(step.seeds, step.spread, goal.power, goal.alpha)
    # Where no video flipped, a test of the flips finds nothing.
    if step.seeds != 1 or not step.discordance > 0:
        return math.nan
    return power.smallest_on_videos(step.videos, step.discordance, goal.power, goal.alpha)


def seeds_needed(spread: float, goal: Goal) -> int:
    """Seeds of both rows that find the goal's effect, at this standard deviation over seeds."""
    return power.seeds_needed(goal.effect, spread, goal.power, goal.alpha)


def videos_needed(discordance: float, goal: Goal) -> int:
    """Videos on which one seed finds the goal's effect, if this share of them flips.

    No effect is larger than the share that flips: where less flips than the effect, as much as the effect is assumed.
    """
    return power.videos_needed(goal.effect, max(discordance, goal.effect), goal.power, goal.alpha)


def pooled(steps: Sequence[Step], level: float = 0.95) -> Spread | None:
    """The spread over seeds that all steps share, as far as they do; None where no step has two seeds.

    Variances are averaged by their degrees of freedom. The interval is that of a variance with chi-square's
    distribution whose degrees of freedom are Satterthwaite's: two steps that share one of their rows correlate by one
    half either way, whether or not rows of one seed correlate, so their variances do by a quarter.

    Args:
      steps: the steps; those without a spread are left out.
      level: coverage of the interval, for normal spreads that are equal in all steps.
    """
    known = [step for step in steps if not math.isnan(step.spread)]
    if not known:
        return None
    own = np.array([step.seeds - 1 for step in known], dtype=float)
    weight = own / own.sum()
    alike = np.array([[len(set(one.between) & set(other.between)) / 2 for other in known] for one in known]) ** 2
    freedom = 1 / float(weight @ (alike / np.sqrt(np.outer(own, own))) @ weight)
    value = math.sqrt(float(weight @ np.array([step.spread for step in known]) ** 2))
    ends = stats.chi2.isf([(1 - level) / 2, (1 + level) / 2], freedom)
    low, high = (value * math.sqrt(freedom / end) for end in ends)
    return Spread(value, low, high, len(known), freedom)
