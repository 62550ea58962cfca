"""Estimates with their intervals: arrays in, numbers out."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import stats
from statsmodels.stats.proportion import proportion_confint


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval.

    Attributes:
      value: the estimate.
      low, high: ends of the interval.
      population: what the interval speaks of: "videos" (other videos of this kind, this very training) or "seeds"
        (other trainings with other seeds, these very videos).
    """

    value: float
    low: float
    high: float
    population: str


def accuracy(correct: int, videos: int, level: float = 0.95) -> Estimate:
    """Accuracy of one training over videos, with Wilson's interval.

    Args:
      correct: videos classified rightly, 0 to `videos`.
      videos: number of videos, at least 1.
      level: coverage of the interval.
    """
    low, high = proportion_confint(correct, videos, alpha=1 - level, method="wilson")
    return Estimate(correct / videos, float(low), float(high), "videos")


def mean_over_seeds(values: Sequence[float], level: float = 0.95) -> Estimate:
    """Mean of one number over trainings with several seeds, with Student's interval.

    Args:
      values: one number for each seed, at least two.
      level: coverage of the interval.
    """
    array = np.asarray(values, dtype=float)
    mean = float(array.mean())
    error = float(stats.sem(array))
    if error == 0.0:
        return Estimate(mean, mean, mean, "seeds")
    low, high = stats.t.interval(level, len(array) - 1, loc=mean, scale=error)
    return Estimate(mean, float(low), float(high), "seeds")
