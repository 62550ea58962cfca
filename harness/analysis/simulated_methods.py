"""Methods for the difference of two rows of several seeds, tried on the same simulated studies -> how each fared."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from scipy import special, stats

from harness.analysis import simulated_studies, simulation
from harness.analysis.simulation import SCENARIOS, SEEDS, Seeds

SEED = 20210903
_RESAMPLES = 1000

Floats = npt.NDArray[np.floating]


@dataclasses.dataclass(frozen=True)
class MethodResult:
    """How a method for several seeds fared.

    Attributes:
      method: its name.
      scenario: how the seeds varied.
      coverage: number of seeds -> how often its 95 % interval held the truth, per cent; what is missing to 100 is how
        often its test rejects a true null.
    """

    method: str
    scenario: str
    coverage: dict[int, float]


def tried(studies: int) -> Iterator[MethodResult]:
    """Every method for several seeds, in every scenario."""
    for place, scenario in enumerate(SCENARIOS):
        found = {
            seeds: _methods(scenario, seeds, np.random.default_rng([SEED, 1000 + place, seeds]), studies)
            for seeds in SEEDS
        }
        for method in found[SEEDS[0]]:
            yield MethodResult(method, scenario.name, {seeds: found[seeds][method] for seeds in SEEDS})


def _methods(scenario: Seeds, seeds: int, rng: np.random.Generator, studies: int) -> dict[str, float]:
    drawn = [simulated_studies.rows(scenario, seeds, 240, 0.3, rng) for _ in range(studies)]
    before, after = (np.array([study[row] for study in drawn]).mean(axis=-1) for row in (0, 1))
    flipped = np.array([study[1].astype(np.int8) - study[0] for study in drawn], dtype=np.float32)
    truth = np.array([study[2] for study in drawn])
    # The one method that draws videos as well speaks of other videos, and answers for that.
    level, totals = simulation.level_of(0.76, 2.5), [math.hypot(2.5, spread) for spread in scenario.spreads]
    elsewhere = simulation.expected_accuracy(level + 0.3, totals[1]) - simulation.expected_accuracy(level, totals[0])
    differences = after - before
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # three seeds that agree to the video
        welch = stats.ttest_ind(after, before, axis=1, equal_var=False).confidence_interval(0.95)
    least = 1 / 240 / math.sqrt(12)  # what the tables take for the spread where seeds agree to the video
    intervals = {
        "paired t": (_symmetric(differences, float(special.stdtrit(seeds - 1, 0.975)), least), truth),
        "Welch's t": (welch, truth),
        "normal (z)": (_symmetric(differences, float(special.ndtri(0.975))), truth),
        "percentile bootstrap over seeds": (_bootstrap(differences, rng), truth),
        "percentile bootstrap over seeds and videos": (_bootstrap_both(flipped, rng), elsewhere),
    }
    return {
        name: simulated_studies.percent((low <= aim + 1e-12) & (aim - 1e-12 <= high))
        for name, ((low, high), aim) in intervals.items()
    }


def _symmetric(differences: Floats, quantile: float, least: float = 0.0) -> tuple[Floats, Floats]:
    half = quantile * np.maximum(differences.std(axis=1, ddof=1), least) / math.sqrt(differences.shape[1])
    return differences.mean(axis=1) - half, differences.mean(axis=1) + half


def _resampling(rng: np.random.Generator, units: int) -> Floats:
    """Weights of the units in each resample, (units, resamples); the same for all studies, which costs them nothing."""
    return np.asarray(rng.multinomial(units, np.full(units, 1 / units), _RESAMPLES).T / units, dtype=np.float32)


def _bootstrap(differences: Floats, rng: np.random.Generator) -> Floats:
    means = differences @ _resampling(rng, differences.shape[1])
    return np.asarray(np.percentile(means, (2.5, 97.5), axis=1))


def _bootstrap_both(flipped: Floats, rng: np.random.Generator) -> Floats:
    of_seeds, of_videos = _resampling(rng, flipped.shape[1]), _resampling(rng, flipped.shape[2])
    limits = [np.percentile(np.sum((one @ of_videos) * of_seeds, axis=0), (2.5, 97.5)) for one in flipped]
    return np.array(limits).T
