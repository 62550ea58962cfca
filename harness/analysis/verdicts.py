"""Our accuracy against a printed one -> a verdict: the same, worse, better, or not to be told. Pure."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from scipy import special
from statsmodels.stats.proportion import confint_proportions_2indep

from harness.analysis.estimates import EstimateError

FINDINGS = ("agrees", "below", "above", "inconclusive")

# Percentage points up to which our accuracy counts as the paper's. On the 17,706 videos of Kinetics-400 the interval of
# one seed reaches about 0.94 points to either side, so that no smaller margin could be agreed on by one seed at all;
# by one seed it is only where both accuracies are printed nearly alike. Three seeds that spread by 0.15 points reach
# 0.8 to either side.
MARGIN = 1.0

# Half of the last digit that the paper prints, in points.
_ROUNDING = 0.05
_LEVEL = 0.95


@dataclasses.dataclass(frozen=True)
class Verdict:
    """How our accuracy compares with the paper's.

    Attributes:
      finding: one of :data:`FINDINGS`.
      difference: ours less the paper's, percentage points; above 0 where ours is better.
      low, high: ends of its 95 % interval, points.
      population: what the interval speaks of: "videos" (two trainings, one of ours and the paper's, on other videos of
        this kind) or "seeds" (one more training of ours, on these very videos, in the place of the paper's).
    """

    finding: str
    difference: float
    low: float
    high: float
    population: str


def against_paper(accuracies: Sequence[float], videos: int, published: float, margin: float = MARGIN) -> Verdict:
    """The verdict on one printed accuracy.

    One seed: Newcombe's interval of the difference of two independent proportions (1998, Statistics in Medicine 17,
    method 10). Both trainings were measured on the same videos, of which the paper does not say which its model had
    right; their accuracies rise and fall together over videos, so that the interval is wider than it need be. It holds
    no spread over seeds: "below" says that these two trainings differ, not that the recipe was missed.

    Several seeds: Student's prediction interval of one more training, since the paper's number is that of one. It says
    in which range the paper's would lie, were it one of ours; the spread is taken to be no less than what counting
    whole videos leaves, as in :func:`harness.analysis.estimates.contrast`. It does not cover other videos.

    Either is widened by the paper's rounding to one decimal. A finding is "agrees" where the interval lies within the
    margin on both sides, zero or not; else "below" or "above" where it lies on one side of zero, and "inconclusive"
    where it does not.

    Args:
      accuracies: ours, a fraction for each seed, at least one.
      videos: on how many videos, the same for each, at least 1.
      published: the paper's, percent with one decimal.
      margin: differences up to so many percentage points do not matter, above 0.

    Raises:
      EstimateError: a number outside its range.
    """
    _check(accuracies, videos, published, margin)
    difference = 100 * float(np.mean(accuracies)) - published
    if len(accuracies) == 1:
        low, high = _over_videos(accuracies[0], videos, published)
    else:
        half = _over_seeds(accuracies, videos)
        low, high = difference - half, difference + half
    low, high = low - _ROUNDING, high + _ROUNDING
    return Verdict(finding(low, high, margin), difference, low, high, "videos" if len(accuracies) == 1 else "seeds")


def finding(low: float, high: float, margin: float = MARGIN) -> str:
    """The finding of an interval of ours less the paper's, in points."""
    if -margin <= low and high <= margin:
        return "agrees"
    if high < 0:
        return "below"
    return "above" if low > 0 else "inconclusive"


def _over_videos(accuracy: float, videos: int, published: float) -> tuple[float, float]:
    """Newcombe's interval of the difference, in points; the paper's count of videos need not be whole."""
    low, high = confint_proportions_2indep(
        round(accuracy * videos), videos, published / 100 * videos, videos, method="newcomb", alpha=1 - _LEVEL
    )
    return 100 * float(low), 100 * float(high)


def _over_seeds(accuracies: Sequence[float], videos: int) -> float:
    """Half the width of the prediction interval of one more training, in points."""
    seeds = len(accuracies)
    spread = max(float(np.std(accuracies, ddof=1)), 1 / videos / math.sqrt(12))
    return 100 * spread * math.sqrt(1 + 1 / seeds) * float(special.stdtrit(seeds - 1, (1 + _LEVEL) / 2))


def _check(accuracies: Sequence[float], videos: int, published: float, margin: float) -> None:
    if not len(accuracies) or not all(0 <= one <= 1 for one in accuracies):
        raise EstimateError(f"accuracies {list(accuracies)}: expected a fraction from 0 to 1 for each seed")
    if videos < 1:
        raise EstimateError(f"videos {videos}: expected at least 1")
    if not 0 <= published <= 100:
        raise EstimateError(f"published accuracy {published}: expected percent, from 0 to 100")
    if not 0 < margin < math.inf:
        raise EstimateError(f"margin {margin:g}: expected percentage points above 0")
