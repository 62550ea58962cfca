"""Synthetic predictions with known effects, and the truth about them: generators in, arrays out.

Each video has a level of its own (normal on the logit scale), each training a seed effect on that scale, and a training
answers each video rightly by chance (Bernoulli). Truths are integrals (Gauss-Hermite) or enumerations; nothing here
uses an estimator.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

Floats = npt.NDArray[np.floating]
Bools = npt.NDArray[np.bool_]

_MANY, _FEW = 60, 12  # points of an integral over videos, which vary by several logits, and over seeds


@dataclasses.dataclass(frozen=True)
class Seeds:
    """How the seeds of two rows vary.

    Attributes:
      name: for tables.
      spreads: standard deviation of the seed effect in the row before and after, logits.
      correlation: of the effects of one seed in the two rows.
    """

    name: str
    spreads: tuple[float, float]
    correlation: float


INDEPENDENT = Seeds("independent", (0.15, 0.15), 0.0)
CORRELATED = Seeds("alike by seed", (0.5, 0.5), 0.9)
UNEQUAL = Seeds("unequal spread", (0.05, 0.6), 0.0)
SCENARIOS = (INDEPENDENT, CORRELATED, UNEQUAL)
SEEDS = (2, 3, 5, 10)


@functools.cache
def _points(count: int) -> tuple[Floats, Floats]:
    nodes, weights = np.polynomial.hermite_e.hermegauss(count)
    return nodes, weights / weights.sum()


def expected_accuracy(level: float | Floats, spread: float, points: int = _MANY) -> Floats:
    """Chance of a right answer at levels that vary normally.

    Args:
      level: mean level, logits, any shape.
      spread: standard deviation of the level, logits.
      points: of the integral; 60 are exact to 10^-7 for spreads up to 3, 12 for spreads up to 0.6.

    Returns:
      Fractions, the shape of `level`.
    """
    nodes, weights = _points(points)
    return np.asarray(special.expit(np.add.outer(np.asarray(level, dtype=float), spread * nodes)) @ weights)


@functools.cache
def level_of(accuracy: float, spread: float) -> float:
    """The mean level at which videos that vary by `spread` logits are answered with this accuracy."""
    return float(optimize.brentq(lambda level: float(expected_accuracy(level, spread)) - accuracy, -60.0, 60.0))


def levels(rng: np.random.Generator, videos: int, accuracy: float, spread: float) -> Floats:
    """Levels of videos that are drawn from those with this expected accuracy, (videos,), logits."""
    return level_of(accuracy, spread) + spread * rng.standard_normal(videos)


def accuracy_over_seeds(video_levels: Floats, spread: float) -> float:
    """Expected accuracy on these very videos of trainings whose seed effects vary by `spread` logits."""
    return float(expected_accuracy(video_levels, spread, _FEW).mean())


def deviation_over_seeds(video_levels: Floats, spread: float) -> float:
    """Standard deviation of the accuracy on these very videos over trainings whose seed effects vary by `spread`."""
    nodes, weights = _points(_FEW)
    chances = special.expit(np.add.outer(video_levels, spread * nodes))
    of_answers = float((chances * (1 - chances)).mean(axis=0) @ weights) / len(video_levels)
    means = chances.mean(axis=0)
    return math.sqrt(of_answers + float(means**2 @ weights) - float(means @ weights) ** 2)


def seed_effects(
    rng: np.random.Generator, seeds: int, spreads: Sequence[float], correlation: float
) -> npt.NDArray[np.float64]:
    """Seed effects of rows, normal with mean 0.

    Args:
      rng: draws.
      seeds: number of seeds.
      spreads: standard deviation for each row, logits.
      correlation: of the effects of one seed in two rows, 0 to 1.

    Returns:
      Logits (rows, seeds).
    """
    shared = rng.standard_normal((1, seeds))
    own = rng.standard_normal((len(spreads), seeds))
    mixed = math.sqrt(correlation) * shared + math.sqrt(1 - correlation) * own
    return np.asarray(np.asarray(spreads)[:, None] * mixed)


def answers(rng: np.random.Generator, video_levels: Floats, effects: Floats) -> Bools:
    """Whether each training answers each video rightly.

    Args:
      rng: draws.
      video_levels: levels, (videos,), logits.
      effects: of the trainings, (...), logits, added to the level of every video.

    Returns:
      Booleans (..., videos).
    """
    logits = np.add.outer(np.asarray(effects), video_levels).astype(np.float32)
    return np.asarray(rng.random(logits.shape, dtype=np.float32) < special.expit(logits))


def flips(rng: np.random.Generator, videos: int, discordance: float, difference: float) -> tuple[Bools, Bools]:
    """One training of each of two rows, on videos drawn so that the discordance and the difference are known.

    Args:
      rng: draws.
      videos: number of videos.
      discordance: chance that a video is right in just one of the rows.
      difference: chance to flip to right less the chance to flip to wrong, -discordance to discordance.

    Returns:
      Booleans before and after, both (1, videos).
    """
    chance = rng.random((1, videos))
    to_right = chance < (discordance + difference) / 2
    flipped = chance < discordance
    other = rng.random((1, videos)) < 0.75  # what becomes of the others is of no consequence to a difference
    return np.where(flipped, ~to_right, other), np.where(flipped, to_right, other)


def subsets(toggles: int) -> npt.NDArray[np.int64]:
    """Every combination of toggles, (2^toggles, toggles) of 0 and 1; line i is i in binary, the first toggle lowest."""
    return (np.arange(2**toggles)[:, None] >> np.arange(toggles)) & 1


def recipe(rng: np.random.Generator, toggles: int, main: float, pair: float, triple: float) -> npt.NDArray[np.float64]:
    """Expected accuracies of every combination of toggles that act alone, in pairs and in threes.

    Args:
      rng: draws the effects, each normal.
      toggles: how many.
      main: standard deviation of what a toggle adds alone, a fraction of the videos.
      pair: standard deviation of what two toggles add together.
      triple: standard deviation of what three toggles add together.

    Returns:
      Fractions (2^toggles,), in the order of :func:`subsets`; 0.6 for none.
    """
    has = subsets(toggles)
    values = np.full(len(has), 0.6)
    for size, spread in ((1, main), (2, pair), (3, triple)):
        for group in itertools.combinations(range(toggles), size):
            values += spread * rng.standard_normal() * has[:, group].prod(axis=1)
    return values


def shapley_values(values: Floats) -> npt.NDArray[np.float64]:
    """Shapley value of each toggle by enumeration of all combinations.

    Args:
      values: of every combination, (2^toggles,), in the order of :func:`subsets`.

    Returns:
      (toggles,), in the unit of `values`; they sum to the value of all toggles less that of none.
    """
    count = int(math.log2(len(values)))
    sizes = subsets(count).sum(axis=1)
    found = np.empty(count)
    for toggle in range(count):
        without = np.flatnonzero(~subsets(count)[:, toggle].astype(bool))
        weights = 1 / (count * special.comb(count - 1, sizes[without]))
        found[toggle] = np.sum(weights * (values[without + 2**toggle] - values[without]))
    return found


def main_effects(values: Floats) -> npt.NDArray[np.float64]:
    """Of each toggle, the mean of all combinations with it less the mean of those without.

    Args:
      values: of every combination, (2^toggles,), in the order of :func:`subsets`.

    Returns:
      (toggles,), in the unit of `values`.
    """
    has = subsets(int(math.log2(len(values)))).astype(bool).T
    return np.array([values[on].mean() - values[~on].mean() for on in has])


def interaction_effects(values: Floats) -> npt.NDArray[np.float64]:
    """Of every two toggles, by how much more the first adds where the second is on, averaged over the others.

    Args:
      values: of every combination, (2^toggles,), in the order of :func:`subsets`.

    Returns:
      (pairs,), first toggle before second, in the unit of `values`.
    """
    has = subsets(int(math.log2(len(values)))).astype(bool)
    found = []
    for first, second in itertools.combinations(range(has.shape[1]), 2):
        means = {
            on: values[(has[:, first] == on[0]) & (has[:, second] == on[1])].mean()
            for on in itertools.product((False, True), repeat=2)
        }
        found.append(means[True, True] - means[False, True] - means[True, False] + means[False, False])
    return np.array(found)
