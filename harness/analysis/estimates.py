"""Estimates with intervals, and differences with tests, computed from arrays."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from harness.system.errors import HarnessError

_ROUNDING = 1e-12  # accuracies are counts over videos: a spread below this is the rounding of sums
_UNIFORM = 1 / math.sqrt(12)  # standard deviation of rounding to whole numbers


class EstimateError(HarnessError):
    """The number cannot be estimated from these arrays."""


class NotEstimable(EstimateError):  # noqa: N818 - what is said of an effect
    """The runs do not tell the effects apart."""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval.

    Attributes:
      value: the estimate.
      low, high: ends of the interval.
      population: the population that the interval covers: "videos" (other videos of this kind, this very training)
        or "seeds" (other trainings with other seeds, these very videos).
    """

    value: float
    low: float
    high: float
    population: str


@dataclasses.dataclass(frozen=True)
class Difference:
    """A difference of accuracies, with its 95 % interval and tests.

    Attributes:
      value: the estimate, a fraction of the videos (0.01 = one point).
      low, high: ends of the interval.
      p: two-sided p-value of "no difference".
      p_equal: p-value of the equivalence test: small where the difference lies within the margin on both sides. The
        larger of two one-sided p-values (TOST; Schuirmann 1987); NaN without a margin.
      population: the population that interval and p-values cover: "videos" (other videos of this kind, these very
        trainings) or "seeds" (other trainings with other seeds, these very videos).
      units: number of videos or seeds.
      spread: standard deviation of the difference over those units (divisor units - 1; NaN for one unit).
      right, wrong: videos that flipped to right and to wrong, on average over the seeds; NaN for a general contrast.
      method: how the p-value was computed: "exact McNemar" or "Student's t".
    """

    value: float
    low: float
    high: float
    p: float
    p_equal: float
    population: str
    units: int
    spread: float
    right: float
    wrong: float
    method: str = "Student's t"


@dataclasses.dataclass(frozen=True)
class Interaction:
    """The interaction of two toggles: how much more the first adds where the second is on, a difference of differences.

    Attributes:
      first, second: columns of the two toggles; exchanging them changes nothing else.
      value: the estimate, a fraction of the videos (0.01 = one point).
      low, high: ends of its 95 % interval.
      p: two-sided p-value of "they do not interact".
    """

    first: int
    second: int
    value: float
    low: float
    high: float
    p: float


def accuracy(correct: int, videos: int, level: float = 0.95) -> Estimate:
    """Returns the accuracy of one training over videos, with Wilson's interval.

    Args:
      correct: videos classified rightly, 0 to `videos`.
      videos: number of videos, at least 1.
      level: coverage of the interval.
    """
    low, high = proportion_confint(correct, videos, alpha=1 - level, method="wilson")
    return Estimate(correct / videos, float(low), float(high), "videos")


def mean_over_seeds(values: Sequence[float], level: float = 0.95, step: float = 0.0) -> Estimate:
    """Returns the mean accuracy over seeds with Student's interval, cut at 0 and 1, which loses no coverage.

    Args:
      values: the accuracy at each seed, a fraction, at least two.
      level: coverage of the interval.
      step: the values are whole multiples of this, 1 / videos; see `step` of :func:`contrast` over seeds.

    Raises:
      EstimateError: there are fewer than two values, or one is not finite.
    """
    mean = contrast(values, "seeds", level=level, step=step)
    return Estimate(mean.value, max(mean.low, 0.0), min(mean.high, 1.0), "seeds")


def paired(before: npt.ArrayLike, after: npt.ArrayLike, margin: float | None = None, level: float = 0.95) -> Difference:
    """Returns the difference of two rows' accuracies on the same videos, `after` less `before`.

    With one seed, the population is videos. p is that of the exact McNemar test. The interval is Student's, on the
    differences of the single videos (-1, 0 or 1) and of two added pseudo-videos, one flipped each way (Bonett & Price
    2012, Journal of Educational and Behavioral Statistics 37), so that the interval has a width even without flips. The
    estimate is the plain difference, which an interval of 70 % or more always contains. p_equal: :func:`equivalence`.

    With several seeds, the population is seeds: Student's t on one difference per seed, whether or not the two
    trainings of a seed are alike. Accuracies are whole numbers of videos, so the seeds of a small set sometimes agree
    exactly; see `step` of :func:`contrast`.

    Args:
      before: whether each video was right in the first row, booleans (seeds, videos).
      after: the same of the second row, the same seeds and videos in the same order.
      margin: differences of at most this size do not matter, a fraction of the videos above 0.
      level: coverage of the interval.

    Raises:
      EstimateError: the arrays do not match, or the margin is not above 0.
    """
    old, new = np.asarray(before), np.asarray(after)
    if old.shape != new.shape or old.ndim != 2 or old.size == 0 or old.dtype != bool or new.dtype != bool:
        raise EstimateError(
            f"arrays {old.dtype} {old.shape} and {new.dtype} {new.shape}: "
            "expected booleans of one shape (seeds, videos), at least one of each"
        )
    right, wrong = np.sum(~old & new, axis=1), np.sum(old & ~new, axis=1)
    if len(old) == 1:
        return _on_videos(int(right[0]), int(wrong[0]), old.shape[1], margin, level)
    difference = contrast((right - wrong) / old.shape[1], "seeds", margin, level, step=1 / old.shape[1])
    return dataclasses.replace(difference, right=float(right.mean()), wrong=float(wrong.mean()))


def _on_videos(right: int, wrong: int, videos: int, margin: float | None, level: float) -> Difference:
    """Computes :func:`paired` of one seed from the numbers of videos and of flips."""
    low, high, _ = _student(*_moments(right + 1, wrong + 1, videos + 2), videos + 2, level)
    return Difference(
        (right - wrong) / videos,
        max(low, -1.0),
        min(high, 1.0),
        float(mcnemar([[0, wrong], [right, 0]], exact=True).pvalue),
        math.nan if margin is None else float(equivalence(right, wrong, videos, margin)),
        "videos",
        videos,
        _moments(right, wrong, videos)[1],
        float(right),
        float(wrong),
        "exact McNemar",
    )


def equivalence(right: npt.ArrayLike, wrong: npt.ArrayLike, videos: int, margin: float) -> npt.NDArray[np.float64]:
    """Returns the p-value of "two rows of one seed differ by the margin or more".

    These are two one-sided score tests of paired proportions. Since few flips say little about the spread, the tests
    use its most likely value if the difference *were* the margin (Tango 1998, Statistics in Medicine 17; Liu et al.
    2002, Statistics in Medicine 21). A continuity correction of half a video accounts for whole counts; without it the
    test errs in up to 6.7 %.

    Args:
      right: videos that flipped to right, whole numbers of any shape.
      wrong: videos that flipped to wrong, the same shape; `right` and `wrong` add up to at most `videos`.
      videos: number of videos.
      margin: differences of at most this size do not matter, a fraction of the videos above 0.

    Returns:
      The larger of the two p-values, the shape of `right`.

    Raises:
      EstimateError: the margin is not above 0.
    """
    _check_margin(margin)
    up, down = np.asarray(right, dtype=float), np.asarray(wrong, dtype=float)
    if margin >= 1:
        return np.asarray(np.abs(up - down) >= margin * videos, dtype=float)
    return np.asarray(np.maximum(_score(up, down, videos, margin), _score(down, up, videos, margin)))


def _score(
    up: npt.NDArray[np.float64], down: npt.NDArray[np.float64], videos: int, margin: float
) -> npt.NDArray[np.float64]:
    """Returns the p-value of a one-sided score test.

    Its null hypothesis is "flips up are likelier than flips down by the margin or more".
    """
    known = margin * (1 - margin)
    linear = (2 * videos - up + down) * margin - up - down
    # The maximum-likelihood chance of a flip down if the difference is the margin.
    least = (np.sqrt(linear**2 + 8 * videos * down * known) - linear) / (4 * videos)
    error = np.sqrt(videos * (2 * least + known))
    return np.asarray(special.ndtr((up - down - videos * margin + 0.5) / error))


def _moments(right: int, wrong: int, videos: int) -> tuple[float, float]:
    """Returns mean and standard deviation of `videos` values: `right` times 1, `wrong` times -1, the rest 0."""
    mean = (right - wrong) / videos
    squares = right + wrong - videos * mean**2
    return mean, math.sqrt(max(squares, 0.0) / (videos - 1)) if videos > 1 else math.nan


def contrast(
    values: npt.ArrayLike, population: str, margin: float | None = None, level: float = 0.95, step: float = 0.0
) -> Difference:
    """Returns the mean over units of a weighted sum of rows' accuracies, with Student's interval and tests.

    Over videos with a `step`, interval and tests include two pseudo-videos, one step above 0 and one below. The
    interval then has a width even where rows agree on every video; for two rows (step 1) it is Bonett and Price's. The
    equivalence test assumes at least the spread that results if videos that flip in all rows at once make up the
    margin, since few flips say little about the spread. It also allows half a video, since counts are whole.

    Args:
      values: the weighted sum for each unit, such as a toggle's credit or main effect at each seed; at least two. Over
        videos the positive weights sum to 1, so that every value is from -1 to 1.
      population: the units: "videos" or "seeds".
      margin: sums of at most this size do not matter, a fraction of the videos above 0.
      level: coverage of the interval.
      step: the smallest change of a value. Over videos it is 1, for a video that flips in all rows; a smaller step
        makes the interval too short where hardly any video flips. Over seeds it is the smallest absolute weight /
        videos, which is 1 / videos for the difference of two rows. Interval and tests then assume at least the spread
        of rounding to such steps, step / sqrt(12); otherwise a few seeds that agree by chance would make a difference
        certain. 0 where the values are continuous.

    Raises:
      EstimateError: there are fewer than two values, one is not finite, or the margin is not above 0.
    """
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or len(array) < 2 or not np.isfinite(array).all():
        raise EstimateError(f"values {array.tolist()}: expected two finite numbers at least, one for each unit")
    _check_margin(margin)
    mean, spread = float(array.mean()), float(array.std(ddof=1))
    if population == "videos" and step:
        array = np.append(array, [step, -step])
        centre, noise = float(array.mean()), float(array.std(ddof=1))
        null = 0.0 if margin is None else max(noise, math.sqrt(margin * max(1 - margin, 0.0)))
        p_equal = _two_one_sided(abs(centre) + 0.5 / len(array), null, len(array), margin)
    else:
        centre, noise = mean, max(spread, step * _UNIFORM)
        p_equal = _two_one_sided(abs(centre), noise, len(array), margin)
    low, high, p = _student(centre, noise, len(array), level)
    units = len(np.asarray(values))
    return Difference(mean, low, high, p, p_equal, population, units, spread, math.nan, math.nan)


def _student(mean: float, spread: float, units: int, level: float) -> tuple[float, float, float]:
    """Returns the ends of the interval and the p-value of "no difference"."""
    if spread <= _ROUNDING:
        return mean, mean, float(abs(mean) <= _ROUNDING)
    error, freedom = spread / math.sqrt(units), units - 1
    half = error * float(special.stdtrit(freedom, (1 + level) / 2))
    return mean - half, mean + half, 2 * float(special.stdtr(freedom, -abs(mean) / error))


def _two_one_sided(size: float, spread: float, units: int, margin: float | None) -> float:
    """Returns the larger p-value of two one-sided t tests of a mean of this absolute size; NaN without a margin."""
    if margin is None:
        return math.nan
    if spread <= _ROUNDING:
        return float(size >= margin - _ROUNDING)
    return float(special.stdtr(units - 1, (size - margin) / (spread / math.sqrt(units))))


def _check_margin(margin: float | None) -> None:
    if margin is not None and not 0 < margin < math.inf:
        raise EstimateError(f"margin {margin:g}: expected a fraction of the videos above 0")


def holm(p: Sequence[float]) -> npt.NDArray[np.float64]:
    """Returns the p-values adjusted by Holm's method, in the order given.

    Args:
      p: p-values; NaN means not tested, stays NaN and does not count.
    """
    adjusted = np.asarray(p, dtype=float).copy()
    tested = ~np.isnan(adjusted)
    if tested.any():
        adjusted[tested] = multipletests(adjusted[tested], method="holm")[1]
    return adjusted


def interactions(
    accuracies: npt.ArrayLike, toggles: npt.ArrayLike, seeds: npt.ArrayLike, level: float = 0.95
) -> tuple[list[Interaction], int]:
    """Estimates the interactions of every two toggles by ordinary least squares over runs, with an intercept per seed.

    Toggles are coded -1/2 and 1/2, so that the coefficient of a product is a difference of differences at the middle
    of the other toggles. Interactions of three toggles count as noise.

    Args:
      accuracies: accuracy of each run, (runs,), as fractions.
      toggles: which toggles a run had, 0 or 1, (runs, toggles), at least two toggles.
      seeds: seed of each run, (runs,).
      level: coverage of the intervals.

    Returns:
      The interactions, first toggle before second, and the residual degrees of freedom of the fit.

    Raises:
      NotEstimable: the runs are too few, cannot tell the effects apart, or leave no noise to judge them by.
      EstimateError: the arrays do not match.
    """
    y, x, blocks = np.asarray(accuracies, dtype=float), np.asarray(toggles), np.asarray(seeds)
    if x.ndim != 2 or x.shape[1] < 2 or not y.shape == blocks.shape == x.shape[:1] or not np.isfinite(y).all():
        raise EstimateError(
            f"accuracies {y.shape}, toggles {x.shape}, seeds {blocks.shape}: expected finite (runs,), "
            "(runs, at least 2) and (runs,)"
        )
    if not np.isin(x, (0, 1)).all():
        raise EstimateError("toggles: expected 0 or 1 for every toggle of every run")
    pairs = list(itertools.combinations(range(x.shape[1]), 2))
    fit = _fitted(y, x - 0.5, blocks, pairs)
    if not math.sqrt(fit.scale) > _ROUNDING:
        raise NotEstimable(
            f"interactions of {x.shape[1]} toggles: {len(y)} runs that the effects explain to the last digit, which "
            "leaves no noise to judge them by"
        )
    columns = slice(-len(pairs), None)
    limits = fit.conf_int(alpha=1 - level)[columns].tolist()
    estimates = [
        Interaction(*pair, value, low, high, p)
        for pair, value, (low, high), p in zip(
            pairs, fit.params[columns].tolist(), limits, fit.pvalues[columns].tolist(), strict=True
        )
    ]
    return estimates, int(fit.df_resid)


def _fitted(
    y: npt.NDArray[Any], coded: npt.NDArray[Any], blocks: npt.NDArray[Any], pairs: list[tuple[int, int]]
) -> Any:
    """Returns the fit of statsmodels; its last columns are the products of the pairs."""
    levels = blocks[:, None] == np.unique(blocks)
    columns = np.column_stack([levels, coded, *(coded[:, i] * coded[:, j] for i, j in pairs)]).astype(float)
    needed = columns.shape[1] + 1
    if len(y) < needed:
        raise NotEstimable(f"interactions of {coded.shape[1]} toggles: {len(y)} runs; at least {needed} are needed")
    if np.linalg.matrix_rank(columns) < needed - 1:
        raise NotEstimable(
            f"interactions of {coded.shape[1]} toggles: {len(y)} runs (at least {needed} are needed), in which some "
            "toggles are never switched without others"
        )
    from statsmodels.regression.linear_model import OLS  # slow to load and seldom needed

    return OLS(y, columns).fit()
