"""Intervals and tests against hand formulas, other implementations, and enumeration."""

import itertools
import math

import numpy as np
import pytest
from scipy import optimize, special, stats

from harness.analysis import estimates

NAN = math.nan


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
        found = estimates.mean_over_seeds(rng.normal(0.76, 0.003, size=3))
        covered += found.low <= 0.76 <= found.high
    assert 0.93 <= covered / 2000 <= 0.97


def test_equal_seeds_have_an_interval_without_width():
    found = estimates.mean_over_seeds([0.5, 0.5, 0.5])
    assert (found.value, found.low, found.high, found.population) == (0.5, 0.5, 0.5, "seeds")


def test_seeds_that_agree_are_not_certain_of_a_rows_accuracy():
    found = estimates.mean_over_seeds([1.0, 1.0, 1.0], step=1 / 240)
    half = stats.t.ppf(0.975, 2) / 240 / math.sqrt(12) / math.sqrt(3)
    assert (found.value, found.low, found.high) == pytest.approx((1.0, 1 - half, 1.0))
    wide = [0.7, 0.75, 0.8]
    assert estimates.mean_over_seeds(wide, step=1 / 240) == estimates.mean_over_seeds(wide)
    interval = stats.ttest_1samp(wide, 0).confidence_interval(0.9)
    found = estimates.mean_over_seeds(wide, level=0.9)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


@pytest.mark.parametrize("values", [[0.5], [0.5, NAN]])
def test_seeds_without_a_mean(values):
    with pytest.raises(estimates.EstimateError, match="finite"):
        estimates.mean_over_seeds(values)


def test_an_interval_over_seeds_holds_no_accuracy_that_cannot_be():
    found = estimates.mean_over_seeds([0.3, 0.9, 0.85])
    assert (found.low, found.high) == (0.0, 1.0)


def flipped(right, wrong, videos):
    """Arrays (1, videos) of which so many flip to right and to wrong."""
    before, after = np.zeros((1, videos), dtype=bool), np.zeros((1, videos), dtype=bool)
    after[0, :right] = True
    before[0, right : right + wrong] = True
    before[0, right + wrong :: 2] = after[0, right + wrong :: 2] = True
    return before, after


@pytest.mark.parametrize(
    ("right", "wrong", "videos"), [(9, 2, 40), (2, 9, 40), (5, 5, 10), (0, 0, 10), (120, 85, 1000)]
)
def test_one_seed(right, wrong, videos):
    found = estimates.paired(*flipped(right, wrong, videos), margin=0.05)
    assert found.value == (right - wrong) / videos
    assert (found.right, found.wrong, found.units, found.population) == (right, wrong, videos, "videos")
    assert found.p == pytest.approx(stats.binomtest(right, right + wrong).pvalue if right + wrong else 1.0)
    differences = np.repeat([1.0, -1.0, 0.0], [right, wrong, videos - right - wrong])
    assert found.spread == pytest.approx(differences.std(ddof=1))
    # Two videos more, as Bonett and Price have it.
    more = np.append(differences, [1.0, -1.0])
    interval = stats.ttest_1samp(more, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.p_equal == pytest.approx(max(score(right, wrong, videos, 0.05), score(wrong, right, videos, 0.05)))


def score(up, down, videos, margin):
    """P-value of a difference of the margin or more: the likelihood at the margin is searched for its maximum."""

    def unlikely(q):
        chances = [q + margin, q, 1 - margin - 2 * q]
        return -float(special.xlogy([up, down, videos - up - down], chances).sum())

    found = optimize.minimize_scalar(unlikely, bounds=(0, (1 - margin) / 2), method="bounded", options={"xatol": 1e-12})
    variance = videos * (2 * found.x + margin - margin**2)
    return stats.norm.cdf((up - down - videos * margin + 0.5) / math.sqrt(variance))


def test_equivalence_of_many_counts_at_once():
    right, wrong = np.array([0, 3, 30]), np.array([0, 4, 1])
    found = estimates.equivalence(right, wrong, 240, 0.03)
    assert found.tolist() == [float(estimates.equivalence(r, w, 240, 0.03)) for r, w in zip(right, wrong, strict=True)]
    assert found[0] < 0.05 < found[2]


def test_equivalence_gets_no_surer_with_a_larger_difference():
    for flips in range(0, 61):
        right = np.arange(math.ceil(flips / 2), flips + 1)
        assert (np.diff(estimates.equivalence(right, flips - right, 60, 0.1)) >= 0).all()


def test_no_difference_is_larger_than_all_videos():
    assert estimates.equivalence(10, 0, 10, 1.0) == 1.0
    assert estimates.equivalence(9, 1, 10, 1.0) == 0.0
    assert estimates.equivalence(10, 0, 10, 1.5) == 0.0


def test_few_flips_that_all_went_one_way_are_no_equivalence():
    """No flip in 240 videos is what a difference of one point gives in 9 %."""
    assert 0.99**240 > 0.08
    assert estimates.paired(*flipped(0, 0, 240), margin=0.01).p_equal > 0.09


def two_one_sided(values, margin):
    above = stats.ttest_1samp(values, -margin, alternative="greater").pvalue
    below = stats.ttest_1samp(values, margin, alternative="less").pvalue
    return max(above, below)


def test_the_interval_of_one_seed_holds_its_estimate():
    for videos in range(1, 13):
        for right, wrong in itertools.product(range(videos + 1), repeat=2):
            if right + wrong <= videos:
                found = estimates.paired(*flipped(right, wrong, videos), level=0.7)
                assert -1 <= found.low <= found.value <= found.high <= 1


def test_no_flips_are_not_certainty():
    found = estimates.paired(*flipped(0, 0, 240), margin=0.001)
    assert (found.value, found.p) == (0.0, 1.0)
    assert found.low < 0 < found.high
    assert found.p_equal > 0.05


def test_one_video():
    found = estimates.paired([[False]], [[True]])
    assert (found.value, found.p, found.high) == (1.0, 1.0, 1.0)
    assert math.isnan(found.spread)


def test_several_seeds():
    rng = np.random.default_rng(1)
    before, after = rng.random((4, 50)) < 0.6, rng.random((4, 50)) < 0.8
    found = estimates.paired(before, after, margin=0.3, level=0.9)
    first, second = before.mean(axis=1), after.mean(axis=1)
    other = stats.ttest_rel(second, first)
    interval = other.confidence_interval(0.9)
    assert (found.value, found.p) == pytest.approx(((second - first).mean(), other.pvalue))
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.p_equal == pytest.approx(two_one_sided(second - first, 0.3))
    assert (found.population, found.units) == ("seeds", 4)
    assert found.spread == pytest.approx(np.std(second - first, ddof=1))
    assert found.right == np.mean([sum(~b & a) for b, a in zip(before, after, strict=True)])
    assert found.wrong == np.mean([sum(b & ~a) for b, a in zip(before, after, strict=True)])


def test_seeds_that_agree_to_the_video_are_not_certainty():
    before = np.zeros((3, 240), dtype=bool)
    after = before.copy()
    for seed in range(3):
        after[seed, seed * 7] = True
    found = estimates.paired(before, after, margin=0.01)
    error = 1 / 240 / math.sqrt(12) / math.sqrt(3)
    assert found.spread == 0.0
    assert found.p == pytest.approx(2 * stats.t.sf((1 / 240) / error, 2))
    assert found.high == pytest.approx(1 / 240 + stats.t.ppf(0.975, 2) * error)
    assert 0 < found.p_equal < 0.05


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (np.zeros((1, 3), bool), np.zeros((1, 4), bool), "(1, 3) and bool (1, 4)"),
        (np.zeros((2, 3), bool), np.zeros((1, 3), bool), "one shape"),
        (np.zeros(3, bool), np.zeros(3, bool), "(seeds, videos)"),
        (np.zeros((1, 0), bool), np.zeros((1, 0), bool), "at least one"),
        (np.zeros((1, 3)), np.zeros((1, 3)), "booleans"),
    ],
)
def test_arrays_that_do_not_fit(before, after, said):
    with pytest.raises(estimates.EstimateError) as error:
        estimates.paired(before, after)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("margin", [0.0, -0.1, NAN, math.inf])
def test_margins(margin):
    with pytest.raises(estimates.EstimateError, match="above 0"):
        estimates.contrast([0.1, 0.2], "seeds", margin)


@pytest.mark.parametrize("values", [[0.1], [], [0.1, NAN], [[0.1, 0.2]]])
def test_values_that_make_no_contrast(values):
    with pytest.raises(estimates.EstimateError, match="finite"):
        estimates.contrast(values, "seeds")


def test_student_by_hand():
    found = estimates.contrast([0.01, 0.02, 0.06], "seeds", margin=0.1)
    mean, spread = 0.03, math.sqrt((0.02**2 + 0.01**2 + 0.03**2) / 2)
    error = spread / math.sqrt(3)
    assert (found.value, found.spread) == pytest.approx((mean, spread))
    assert (found.low, found.high) == pytest.approx((mean - 4.302652729911 * error, mean + 4.302652729911 * error))
    # With two degrees of freedom Student's distribution has a closed form.
    t = mean / error
    assert found.p == pytest.approx(1 - t / math.sqrt(2 + t**2))
    assert found.p_equal == pytest.approx(two_one_sided([0.01, 0.02, 0.06], 0.1))
    assert math.isnan(found.right)
    assert math.isnan(found.wrong)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("value", "p", "p_equal"), [(0.0, 1.0, 0.0), (0.01, 0.0, 0.0), (-0.01, 0.0, 0.0), (0.05, 0.0, 1.0), (0.1, 0.0, 1.0)]
)
def test_no_spread(value, p, p_equal):
    found = estimates.contrast([value] * 3, "seeds", margin=0.05)
    assert (found.low, found.value, found.high) == pytest.approx((value, value, value))
    assert found.low == found.high
    assert (found.p, found.p_equal) == (p, p_equal)
    assert math.isnan(estimates.contrast([value] * 3, "seeds").p_equal)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [0.0, 0.25, -1.0])
def test_rows_that_agree_on_every_video_are_not_certain(value):
    found = estimates.contrast([value] * 240, "videos", margin=0.01, step=0.25)
    assert (found.value, found.spread, found.units) == (value, 0.0, 240)
    assert found.low < value < found.high
    assert found.p_equal > 0.05
    assert found.p > 0


@pytest.mark.parametrize(("right", "wrong"), [(9, 2), (0, 0), (3, 12)])
def test_a_contrast_of_two_rows_is_bonett_and_prices(right, wrong):
    before, after = flipped(right, wrong, 100)
    found = estimates.contrast(after[0].astype(float) - before[0], "videos", step=1.0)
    other = estimates.paired(before, after)
    assert (found.value, found.low, found.high) == pytest.approx((other.value, other.low, other.high))
    assert (found.units, found.spread) == (100, pytest.approx(other.spread))


def test_equivalence_of_a_contrast_over_videos_by_hand():
    values = np.array([0.25] * 5 + [-0.5] * 3 + [0.0] * 92)
    more = np.append(values, [0.25, -0.25])
    shifted = np.abs(more.mean()) + 0.5 / 102 - 0.03
    floor = math.sqrt(0.03 * 0.97)  # larger than the spread seen
    assert more.std(ddof=1) < floor
    found = estimates.contrast(values, "videos", margin=0.03, step=0.25)
    assert found.p_equal == pytest.approx(stats.t.cdf(shifted / (floor / math.sqrt(102)), 101))
    noisy = np.tile([1.0, -1.0], 200)
    more = np.append(noisy, [0.25, -0.25])
    found = estimates.contrast(noisy, "videos", margin=0.1, step=0.25)
    expected = stats.t.cdf((0.5 / 402 - 0.1) / (more.std(ddof=1) / math.sqrt(402)), 401)
    assert found.p_equal == pytest.approx(expected)


def test_the_rounding_of_sums_is_no_spread():
    assert estimates.contrast([0.1 + 0.2 - 0.3, 0.0, 0.0], "seeds").p == 1.0


def test_holm_by_hand():
    found = estimates.holm([0.01, NAN, 0.04, 0.03, 0.5])
    assert found.tolist() == pytest.approx([0.04, NAN, 0.09, 0.09, 0.5], nan_ok=True)
    assert estimates.holm([0.6, 0.7]).tolist() == [1.0, 1.0]
    assert math.isnan(estimates.holm([NAN])[0])
    assert len(estimates.holm([])) == 0


def runs(toggles, seeds):
    x = np.array(list(itertools.product((0, 1), repeat=toggles)) * seeds)
    return x, np.repeat(np.arange(seeds), 2**toggles)


def test_interactions_almost_without_noise():
    x, seed = runs(3, 2)
    y = 0.5 + 0.1 * x[:, 0] + 0.03 * x[:, 0] * x[:, 1] - 0.02 * x[:, 1] * x[:, 2] + 0.01 * seed
    y += 1e-7 * np.random.default_rng(4).standard_normal(16)
    found, freedom = estimates.interactions(y, x, seed)
    assert [(one.first, one.second) for one in found] == [(0, 1), (0, 2), (1, 2)]
    assert [one.value for one in found] == pytest.approx([0.03, 0.0, -0.02], abs=1e-6)
    assert freedom == 16 - 2 - 3 - 3


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("effect", [0.0, 0.03])
def test_interactions_without_noise_cannot_be_judged(effect):
    x, seed = runs(3, 2)
    with pytest.raises(estimates.NotEstimable, match=r"3 toggles: 16 runs .* no noise to judge them by"):
        estimates.interactions(0.7 + 0.1 * x[:, 0] + effect * x[:, 0] * x[:, 1] + 0.01 * seed, x, seed)


def test_interactions_with_noise_by_hand():
    """In two toggles and four seeds the product is orthogonal to all else, and so a difference of differences."""
    x, seed = runs(2, 4)
    y = np.random.default_rng(2).normal(0.7, 0.01, 16)
    (found,), freedom = estimates.interactions(y, x, seed)
    cells = y.reshape(4, 2, 2)
    assert found.value == pytest.approx((cells[:, 1, 1] - cells[:, 0, 1] - cells[:, 1, 0] + cells[:, 0, 0]).mean())
    fitted = y.reshape(4, 4).mean(axis=1, keepdims=True) + y.reshape(4, 4).mean(axis=0) - y.mean()
    error = math.sqrt(((y.reshape(4, 4) - fitted) ** 2).sum() / freedom)  # variance of the effect: 16 s^2 / 16 runs
    assert freedom == 16 - 4 - 2 - 1
    assert found.high - found.value == pytest.approx(stats.t.ppf(0.975, freedom) * error)
    assert found.p == pytest.approx(2 * stats.t.sf(abs(found.value) / error, freedom))


def test_interactions_that_cannot_be_told():
    x, seed = runs(2, 1)
    with pytest.raises(estimates.NotEstimable, match="4 runs; at least 5 are needed"):
        estimates.interactions([0.1, 0.2, 0.3, 0.4], x, seed)
    alone = np.array([[0, 0], [1, 0], [0, 1]] * 4)
    with pytest.raises(estimates.NotEstimable, match=r"12 runs .* never switched without others"):
        estimates.interactions(np.linspace(0, 1, 12), alone, np.repeat(range(4), 3))


@pytest.mark.parametrize(
    ("y", "x", "seeds"),
    [
        ([0.1, 0.2], [[0], [1]], [0, 0]),
        ([0.1], [[0, 0], [1, 1]], [0, 0]),
        ([0.1, NAN], [[0, 0], [1, 1]], [0, 0]),
        ([0.1, 0.2], [[0, 0], [1, 2]], [0, 0]),
    ],
)
def test_runs_that_do_not_fit(y, x, seeds):
    with pytest.raises(estimates.EstimateError, match="expected"):
        estimates.interactions(y, x, seeds)
