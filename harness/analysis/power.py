"""Which difference a test could have shown, and how many videos or seeds would show one: exact McNemar and Student's t.

Differences, discordances and spreads are fractions of the videos (0.01 = one point of accuracy).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy import optimize, stats

from harness.analysis import estimates
from harness.system.errors import HarnessError

_MOST = 10**8  # videos or seeds: nobody has more, and up to here the search takes about a second
_TAIL = 1e-12  # chance of the numbers of discordant videos that the sum over them leaves out, on each side


class PowerError(HarnessError):
    """A number that no such test can have."""


def mcnemar_power(videos: int, discordance: float, difference: float, alpha: float = 0.05) -> float:
    """Chance that the exact two-sided McNemar test rejects "no difference", over other videos of this kind.

    Exact and unconditional: summed over the number of discordant videos, which is binomial, as is the part of them
    that flips to right (Connett, Smith & McHugh 1987, Statistics in Medicine 6).

    Args:
      videos: evaluated by both rows, at least 1.
      discordance: chance that a video is right in just one of the two rows, above 0, at most 1.
      difference: of the two accuracies, from -discordance to discordance.
      alpha: significance level, between 0 and 1.

    Raises:
      PowerError: a number out of its range.
    """
    _check_two_rows(videos, discordance, difference, alpha)
    return _mcnemar_power(videos, discordance, difference, alpha)


def _mcnemar_power(videos: int, discordance: float, difference: float, alpha: float) -> float:
    number = stats.binom(videos, discordance)
    discordant = np.arange(number.ppf(_TAIL), number.isf(_TAIL) + 1)
    # The largest number of the rarer flips at which the test still rejects; -1 where none is few enough.
    few = stats.binom.ppf(alpha / 2, discordant, 0.5)
    few -= stats.binom.cdf(few, discordant, 0.5) > alpha / 2
    right = min((discordance + difference) / (2 * discordance), 1.0)
    rejects = stats.binom.cdf(few, discordant, right) + stats.binom.cdf(few, discordant, 1 - right)
    return float(np.sum(number.pmf(discordant) * np.where(few >= 0, rejects, 0.0)))


def equivalence_power(videos: int, discordance: float, difference: float, margin: float, alpha: float = 0.05) -> float:
    """Chance that two rows are found equal within the margin; at the margin, the size of that test.

    The test is :func:`harness.analysis.estimates.equivalence`.

    Exact and unconditional, as :func:`mcnemar_power` is.

    Args:
      videos: evaluated by both rows, at least 1.
      discordance: chance that a video is right in just one of the two rows, above 0, at most 1.
      difference: of the two accuracies, from -discordance to discordance.
      margin: differences of at most this size do not matter, a fraction of the videos above 0.
      alpha: significance level, between 0 and 1.

    Raises:
      PowerError: a number out of its range.
      EstimateError: a margin that is not above 0.
    """
    _check_two_rows(videos, discordance, difference, alpha)
    number = stats.binom(videos, discordance)
    flips = np.arange(number.ppf(_TAIL), number.isf(_TAIL) + 1)
    half = np.ceil(flips / 2)
    # The largest number of flips one way that is equivalent, by halving; fewer than half where none is.
    most, too_many = half - 1, flips + 1
    while (unknown := too_many - most > 1).any():
        middle = np.where(unknown, np.floor((most + too_many) / 2), half)
        equal = estimates.equivalence(middle, flips - middle, videos, margin) <= alpha
        most, too_many = np.where(unknown & equal, middle, most), np.where(unknown & ~equal, middle, too_many)
    right = min((discordance + difference) / (2 * discordance), 1.0)
    chance = stats.binom.cdf(most, flips, right) - stats.binom.cdf(flips - most - 1, flips, right)
    return float(np.sum(number.pmf(flips) * np.where(most >= half, chance, 0.0)))


def smallest_on_videos(videos: int, discordance: float, power: float = 0.8, alpha: float = 0.05) -> float:
    """The smallest difference that the exact McNemar test finds with a chance of `power`.

    Args:
      videos: evaluated by both rows, at least 1.
      discordance: chance that a video is right in just one of the two rows, above 0, at most 1.
      power: chance to find it, above alpha and below 1.
      alpha: significance level, between 0 and 1.

    Returns:
      A fraction of the videos; NaN where not even the largest possible one, the discordance, is found.

    Raises:
      PowerError: a number out of its range.
    """
    _check_power(power, alpha)
    if mcnemar_power(videos, discordance, discordance, alpha) < power:
        return math.nan
    found = optimize.brentq(
        lambda difference: _mcnemar_power(videos, discordance, difference, alpha) - power, 0.0, discordance
    )
    return float(found)


def videos_needed(difference: float, discordance: float, power: float = 0.8, alpha: float = 0.05) -> int:
    """Videos at which the exact McNemar test finds a difference with a chance of `power`, and with one less does not.

    Args:
      difference: of the two accuracies, not 0, from -discordance to discordance.
      discordance: chance that a video is right in just one of the two rows, above 0, at most 1.
      power: chance to find it, above alpha and below 1.
      alpha: significance level, between 0 and 1.

    Raises:
      PowerError: a number out of its range, or more than 10^8 videos would be needed.
    """
    _check_power(power, alpha)
    _check_difference(difference)
    mcnemar_power(1, discordance, difference, alpha)  # says what is out of range
    return _first(
        lambda videos: _mcnemar_power(videos, discordance, difference, alpha) >= power,
        1,
        f"difference {difference:g}: more than {_MOST:.0e} videos would be needed",
    )


def smallest_over_seeds(seeds: int, spread: float, power: float = 0.8, alpha: float = 0.05) -> float:
    """The smallest difference that Student's two-sided t test over seeds finds with a chance of `power`.

    Args:
      seeds: trained of both rows, at least 2.
      spread: standard deviation over seeds of the paired difference, as a fraction of the videos, at least 0.
      power: chance to find it, above alpha and below 1.
      alpha: significance level, between 0 and 1.

    Returns:
      A fraction of the videos.

    Raises:
      PowerError: a number out of its range.
    """
    _check_count("seeds", seeds, 2)
    _check_spread(spread)
    _check_power(power, alpha)
    enough = 1.0
    while _t_power(enough, seeds, alpha) < power:
        enough *= 2
    return spread * float(optimize.brentq(lambda effect: _t_power(effect, seeds, alpha) - power, 0.0, enough))


def seeds_needed(difference: float, spread: float, power: float = 0.8, alpha: float = 0.05) -> int:
    """Seeds of both rows with which Student's two-sided t test finds a difference with a chance of `power`.

    Args:
      difference: of the two mean accuracies, not 0.
      spread: standard deviation over seeds of the paired difference, as a fraction of the videos, at least 0.
      power: chance to find it, above alpha and below 1.
      alpha: significance level, between 0 and 1.

    Returns:
      At least 2.

    Raises:
      PowerError: a number out of its range, or more than 10^8 seeds would be needed.
    """
    _check_power(power, alpha)
    _check_difference(difference)
    _check_spread(spread)
    if spread == 0.0:
        return 2
    return _first(
        lambda seeds: _t_power(abs(difference) / spread, seeds, alpha) >= power,
        2,
        f"difference {difference:g}: more than {_MOST:.0e} seeds would be needed",
    )


def _t_power(effect: float, seeds: int, alpha: float) -> float:
    """Power of the one-sample t test at a difference of `effect` standard deviations, at least 0."""
    critical, shift = stats.t.isf(alpha / 2, seeds - 1), effect * math.sqrt(seeds)
    right_way = stats.nct.sf(critical, seeds - 1, shift)
    # SciPy gives NaN for some tails that are as good as 0, which is why statsmodels' TTestPower does too.
    wrong_way = np.nan_to_num(stats.nct.cdf(-critical, seeds - 1, shift))
    return float(right_way + wrong_way)


def _first(enough: Callable[[int], bool], least: int, too_many: str) -> int:
    """A number from `least` on that is enough while the one below it is not, found by doubling and halving."""
    low, high = least - 1, least
    while not enough(high):
        low, high = high, 2 * high
        if high > _MOST:
            raise PowerError(too_many)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _check_two_rows(videos: int, discordance: float, difference: float, alpha: float) -> None:
    _check_count("videos", videos, 1)
    _check_discordance(discordance)
    _check_chance("alpha", alpha)
    if not abs(difference) <= discordance:
        raise PowerError(f"difference {difference:g}: expected at most the discordance, {discordance:g}, either way")


def _check_count(name: str, number: int, least: int) -> None:
    if not least <= number <= _MOST or number != int(number):
        raise PowerError(f"{name} {number}: expected a whole number from {least} to {_MOST:.0e}")


def _check_chance(name: str, chance: float) -> None:
    if not 0 < chance < 1:
        raise PowerError(f"{name} {chance:g}: expected a number between 0 and 1")


def _check_power(power: float, alpha: float) -> None:
    _check_chance("alpha", alpha)
    if not alpha < power < 1:
        raise PowerError(f"power {power:g}: expected a number between alpha, {alpha:g}, and 1")


def _check_discordance(discordance: float) -> None:
    if not 0 < discordance <= 1:
        raise PowerError(f"discordance {discordance:g}: expected a fraction of the videos above 0, at most 1")


def _check_difference(difference: float) -> None:
    if difference == 0 or not math.isfinite(difference):
        raise PowerError(f"difference {difference:g}: expected a fraction of the videos that is not 0")


def _check_spread(spread: float) -> None:
    if not 0 <= spread < math.inf:
        raise PowerError(f"spread {spread:g}: expected a fraction of the videos, at least 0")
