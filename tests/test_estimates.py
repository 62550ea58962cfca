"""Intervals against hand formulas and simulation with a known truth."""

import math

import numpy as np
import pytest

from harness import estimates


@pytest.mark.parametrize(("correct", "videos"), [(0, 10), (5, 10), (10, 10), (13_172, 17_706)])
def test_wilson_by_hand(correct, videos):
    z, p = 1.959963984540054, correct / videos
    centre = (p + z**2 / (2 * videos)) / (1 + z**2 / videos)
    half = z / (1 + z**2 / videos) * math.sqrt(p * (1 - p) / videos + z**2 / (4 * videos**2))
    found = estimates.accuracy(correct, videos)
    assert found.value == p
    assert (found.low, found.high) == pytest.approx((centre - half, centre + half), abs=1e-9)
    assert found.population == "videos"


def test_intervals_over_seeds_cover_the_truth():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(2000):
        found = estimates.mean_over_seeds(rng.normal(76.0, 0.3, size=3))
        covered += found.low <= 76.0 <= found.high
    assert 0.93 <= covered / 2000 <= 0.97


def test_equal_seeds_have_an_interval_without_width():
    found = estimates.mean_over_seeds([0.5, 0.5, 0.5])
    assert (found.value, found.low, found.high, found.population) == (0.5, 0.5, 0.5, "seeds")
