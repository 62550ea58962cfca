"""Power against brute-force enumeration, other implementations, and its own inverses."""

import functools
import itertools
import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower

from harness.analysis import estimates, power


@functools.cache
def p_value(right, wrong):
    return stats.binomtest(right, right + wrong).pvalue


def enumerated(videos, discordance, difference, alpha):
    """Every number of flips each way, its chance, and what SciPy's binomial test says of it."""
    right, wrong, total = (discordance + difference) / 2, (discordance - difference) / 2, 0.0
    for r, w in itertools.product(range(videos + 1), repeat=2):
        if 0 < r + w <= videos and p_value(r, w) <= alpha:
            ways = math.comb(videos, r) * math.comb(videos - r, w)
            total += ways * right**r * wrong**w * (1 - right - wrong) ** (videos - r - w)
    return total


@pytest.mark.parametrize(
    ("videos", "discordance", "difference", "alpha"),
    [(1, 0.5, 0.2, 0.05), (12, 0.5, 0.3, 0.05), (20, 0.3, -0.2, 0.05), (15, 1.0, 0.4, 0.1), (15, 0.6, 0.6, 0.01),
     (20, 0.4, 0.0, 0.05)],
)  # fmt: skip
def test_mcnemar_by_enumeration(videos, discordance, difference, alpha):
    found = power.mcnemar_power(videos, discordance, difference, alpha)
    assert found == pytest.approx(enumerated(videos, discordance, difference, alpha), abs=1e-9)


def test_mcnemar_of_many_videos_nears_the_normal_formula():
    videos, discordance, difference = 100_000, 0.1, 0.003
    error = math.sqrt(discordance - difference**2)
    normal = stats.norm.sf((1.96 * math.sqrt(discordance) - difference * math.sqrt(videos)) / error)
    assert power.mcnemar_power(videos, discordance, difference) == pytest.approx(normal, abs=0.01)


@pytest.mark.parametrize(
    ("videos", "discordance", "difference", "margin"),
    [(12, 0.5, 0.3, 0.3), (20, 0.3, -0.1, 0.25), (15, 1.0, 0.2, 0.6), (25, 0.2, 0.0, 0.2), (20, 0.2, 0.2, 0.2),
     (9, 0.1, 0.0, 0.9)],
)  # fmt: skip
def test_equivalence_by_enumeration(videos, discordance, difference, margin):
    right, wrong, total = (discordance + difference) / 2, (discordance - difference) / 2, 0.0
    for r, w in itertools.product(range(videos + 1), repeat=2):
        if r + w <= videos and estimates.equivalence(r, w, videos, margin) <= 0.05:
            ways = math.comb(videos, r) * math.comb(videos - r, w)
            total += ways * right**r * wrong**w * (1 - right - wrong) ** (videos - r - w)
    assert power.equivalence_power(videos, discordance, difference, margin) == pytest.approx(total, abs=1e-9)


@pytest.mark.parametrize("videos", [240, 1_000, 17_706])
@pytest.mark.parametrize("alpha", [0.05, 0.05 / 8])
def test_equivalence_keeps_its_size(videos, alpha):
    """Margins of 0.1 to 5 points, discordance from the margin on, where few flips go one way only."""
    worst = max(
        power.equivalence_power(videos, min(margin * times, 1.0), margin, margin, alpha)
        for margin in (*np.geomspace(0.001, 0.05, 25), 1 / 100, 0.0039)
        for times in (1, 1.05, 1.2, 1.5, 2, 4, 20, 1000)
    )
    assert worst <= 1.2 * alpha


def test_equivalence_is_found():
    assert power.equivalence_power(17_706, 0.1, 0.0, 0.01) > 0.98
    assert power.equivalence_power(17_706, 0.1, 0.0, 0.0001) == 0.0


def test_smallest_on_videos():
    found = power.smallest_on_videos(1000, 0.1, 0.8)
    assert power.mcnemar_power(1000, 0.1, found) == pytest.approx(0.8, abs=1e-6)
    assert power.smallest_on_videos(17_706, 0.1) < found
    assert math.isnan(power.smallest_on_videos(20, 0.1))


@pytest.mark.parametrize(("difference", "discordance"), [(0.3, 0.5), (-0.05, 0.2), (0.003, 0.1)])
def test_videos_needed(difference, discordance):
    found = power.videos_needed(difference, discordance)
    assert power.mcnemar_power(found, discordance, difference) >= 0.8
    assert power.mcnemar_power(found - 1, discordance, difference) < 0.8


def test_videos_needed_by_enumeration():
    found = power.videos_needed(0.7, 0.9)
    assert enumerated(found - 1, 0.9, 0.7, 0.05) < 0.8 <= enumerated(found, 0.9, 0.7, 0.05)


@pytest.mark.parametrize("seeds", [2, 3, 5, 10, 100])
@pytest.mark.parametrize("chance", [0.5, 0.8, 0.95])
def test_smallest_over_seeds_against_statsmodels(seeds, chance):
    found = power.smallest_over_seeds(seeds, 0.003, chance)
    said = TTestPower().power(found / 0.003, seeds, 0.05)
    if math.isnan(said):  # where statsmodels gives up
        shift = found / 0.003 * math.sqrt(seeds)
        said = stats.nct.sf(stats.t.isf(0.025, seeds - 1), seeds - 1, shift)
    assert said == pytest.approx(chance, abs=1e-6)


def test_seeds_needed():
    for difference, spread in ((0.003, 0.003), (-0.003, 0.003), (0.003, 0.02), (0.01, 0.003)):
        found = power.seeds_needed(difference, spread)
        assert TTestPower().power(abs(difference) / spread, found, 0.05) >= 0.8
        assert found == 2 or TTestPower().power(abs(difference) / spread, found - 1, 0.05) < 0.8
    assert power.seeds_needed(0.003, 0.003) == 10
    assert power.seeds_needed(1.0, 0.001) == 2
    assert power.seeds_needed(0.003, 0.0) == 2


def test_power_by_simulation():
    rng = np.random.default_rng(3)
    smallest = power.smallest_over_seeds(5, 1.0, 0.8)
    p = stats.ttest_1samp(rng.normal(smallest, 1.0, (20_000, 5)), 0, axis=1).pvalue
    assert np.mean(p <= 0.05) == pytest.approx(0.8, abs=0.012)


@pytest.mark.parametrize(
    ("function", "numbers", "said"),
    [
        (power.mcnemar_power, (0, 0.1, 0.01), "videos 0"),
        (power.mcnemar_power, (10.5, 0.1, 0.01), "videos 10.5"),
        (power.mcnemar_power, (10, 0.0, 0.0), "discordance 0"),
        (power.mcnemar_power, (10, 1.1, 0.0), "discordance 1.1"),
        (power.mcnemar_power, (10, 0.1, 0.2), "difference 0.2"),
        (power.mcnemar_power, (10, 0.1, math.nan), "difference nan"),
        (power.mcnemar_power, (10, 0.1, 0.1, 0.0), "alpha 0"),
        (power.equivalence_power, (0, 0.1, 0.01, 0.1), "videos 0"),
        (power.equivalence_power, (10, 0.1, 0.2, 0.1), "difference 0.2"),
        (power.smallest_on_videos, (10, 0.1, 1.0), "power 1"),
        (power.smallest_on_videos, (10, 0.1, 0.05), "power 0.05"),
        (power.videos_needed, (0.0, 0.1), "difference 0"),
        (power.videos_needed, (0.2, 0.1), "difference 0.2"),
        (power.videos_needed, (1e-7, 0.5), "more than 1e+08 videos"),
        (power.smallest_over_seeds, (1, 0.1), "seeds 1"),
        (power.smallest_over_seeds, (3, -0.1), "spread -0.1"),
        (power.smallest_over_seeds, (3, math.nan), "spread nan"),
        (power.seeds_needed, (0.0, 0.1), "difference 0"),
        (power.seeds_needed, (1e-7, 0.5), "more than 1e+08 seeds"),
    ],
)  # fmt: skip
def test_numbers_out_of_range(function, numbers, said):
    with pytest.raises(power.PowerError) as error:
        function(*numbers)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
