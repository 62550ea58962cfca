"""A verdict must hold in simulated studies whose truth is known, and in cases worked out by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from harness.analysis import verdicts
from harness.analysis.estimates import EstimateError

VIDEOS = 17_706
DRAWS = 4000


def one_seed(accuracy, published, margin=1.0, videos=VIDEOS):
    return verdicts.against_paper([accuracy], videos, published, margin)


def newcombe(first, second, videos):
    """By hand: Newcombe's square-and-add of two Wilson intervals, as fractions."""
    z = stats.norm.ppf(0.975)

    def wilson(p):
        centre = (p + z**2 / (2 * videos)) / (1 + z**2 / videos)
        half = z / (1 + z**2 / videos) * math.sqrt(p * (1 - p) / videos + z**2 / (4 * videos**2))
        return centre - half, centre + half

    (low1, high1), (low2, high2) = wilson(first), wilson(second)
    difference = first - second
    return (
        difference - math.hypot(first - low1, high2 - second),
        difference + math.hypot(high1 - first, second - low2),
    )


@pytest.mark.parametrize(
    ("right", "published", "videos"),
    [(13173, 74.4, VIDEOS), (13500, 78.2, VIDEOS), (190, 81.0, 240), (0, 0.0, 50), (50, 100.0, 50), (0, 100.0, 3)],
)
def test_one_seed_is_newcombes_interval_and_the_rounding(right, published, videos):
    found = one_seed(right / videos, published, videos=videos)
    low, high = newcombe(right / videos, published / 100, videos)
    assert (found.low, found.high) == pytest.approx((100 * low - 0.05, 100 * high + 0.05))
    assert found.difference == pytest.approx(100 * right / videos - published)
    assert found.population == "videos"


def test_several_seeds_are_students_prediction_and_the_rounding():
    # Mean 76, standard deviation 1; 97.5 % quantile of Student's t with 2 degrees of freedom: 4.302653.
    found = verdicts.against_paper([0.75, 0.76, 0.77], VIDEOS, 76.3)
    half = 4.302653 * math.sqrt(4 / 3) + 0.05
    assert (found.difference, found.low, found.high) == pytest.approx((-0.3, -0.3 - half, -0.3 + half), abs=1e-5)
    assert (found.finding, found.population) == ("inconclusive", "seeds")


def test_seeds_that_agree_by_chance_leave_the_width_of_a_video():
    found = verdicts.against_paper([0.75, 0.75], 100, 75.0)
    assert found.high == pytest.approx(1 / math.sqrt(12) * math.sqrt(1.5) * stats.t.ppf(0.975, 1) + 0.05)


@pytest.mark.parametrize(
    ("low", "high", "finding"),
    [
        (-0.9, 0.9, "agrees"),
        (-1.0, 1.0, "agrees"),
        (0.2, 0.8, "agrees"),  # a difference, but one that does not matter
        (-0.8, -0.2, "agrees"),
        (0.2, 1.1, "above"),
        (1.5, 3.0, "above"),
        (-1.1, -0.2, "below"),
        (-3.0, -1.5, "below"),
        (-1.1, 0.5, "inconclusive"),
        (-0.5, 1.1, "inconclusive"),
        (-1.1, 0.0, "inconclusive"),
        (0.0, 1.1, "inconclusive"),
        (-9.0, 9.0, "inconclusive"),
    ],
)
def test_what_an_interval_means(low, high, finding):
    assert verdicts.finding(low, high, 1.0) == finding


@pytest.mark.parametrize(
    ("accuracy", "finding"),
    [(0.744, "agrees"), (0.7470, "inconclusive"), (0.7410, "inconclusive"), (0.76, "above"), (0.725, "below")],
)
def test_the_baseline_with_one_seed(accuracy, finding):
    assert one_seed(accuracy, 74.4).finding == finding


@pytest.mark.parametrize("margin", [0.5, 0.9])
def test_no_margin_below_the_default_can_be_agreed_on_by_one_seed(margin):
    assert one_seed(0.744, 74.4, margin).finding == "inconclusive"


def test_a_wider_margin_only_ever_turns_findings_into_agreement():
    rng = np.random.default_rng(5)
    margins = [0.1, 0.5, 1.0, 2.0, 5.0]
    for _ in range(200):
        accuracies = 0.76 + rng.normal(0, 0.004, size=rng.integers(1, 5))
        found = [verdicts.against_paper(list(accuracies), VIDEOS, 76.3, margin).finding for margin in margins]
        agreed = [one == "agrees" for one in found]
        assert agreed == sorted(agreed)
        assert len({one for one in found if one != "agrees"}) <= 1


def coverage(intervals, truth):
    return float(np.mean([low <= truth <= high for low, high in intervals]))


@pytest.mark.parametrize(("ours", "paper"), [(0.76, 0.78), (0.744, 0.744), (0.97, 0.95)])
def test_one_seed_covers_the_difference_of_two_models_on_other_videos(ours, paper):
    rng, videos = np.random.default_rng(11), 400
    right = rng.binomial(videos, [ours, paper], size=(DRAWS, 2)) / videos
    found = [one_seed(a, round(100 * b, 1), videos=videos) for a, b in right]
    share = coverage([(one.low, one.high) for one in found], 100 * (ours - paper))
    assert 0.94 <= share <= 0.975


def test_on_the_same_videos_it_covers_more_often():
    # Two thirds of the videos are easy or hard for both models.
    rng, videos = np.random.default_rng(12), 400
    found = []
    for _ in range(DRAWS // 4):
        kind = rng.random(videos)
        chance = np.where(kind < 0.55, 0.98, np.where(kind < 0.7, 0.05, 0.7))
        ours, paper = (rng.random(videos) < chance).mean(), (rng.random(videos) < chance).mean()
        found.append(one_seed(ours, round(100 * paper, 1), videos=videos))
    assert coverage([(one.low, one.high) for one in found], 0.0) >= 0.985


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_of_several_seeds_the_interval_finds_one_more_training(seeds):
    rng = np.random.default_rng(seeds)
    trainings = 0.78 + rng.normal(0, 0.005, size=(DRAWS, seeds + 1))
    found = [verdicts.against_paper(list(own), VIDEOS, round(100 * last, 1)) for *own, last in trainings]
    assert 0.94 <= coverage([(one.low, one.high) for one in found], 0.0) <= 0.965
    assert np.mean([one.finding == "below" for one in found]) <= 0.03
    assert np.mean([one.finding == "above" for one in found]) <= 0.03


@pytest.mark.parametrize(("shift", "finding"), [(-0.03, "below"), (0.03, "above")])
def test_a_recipe_that_was_missed_is_found_on_its_side(shift, finding):
    rng = np.random.default_rng(7)
    trainings = 0.78 + rng.normal(0, 0.002, size=(500, 4))
    found = [verdicts.against_paper(list(own[:3] + shift), VIDEOS, round(100 * own[3], 1)) for own in trainings]
    assert np.mean([one.finding == finding for one in found]) > 0.95
    assert {one.finding for one in found} <= {finding, "inconclusive"}


@pytest.mark.parametrize(
    ("accuracies", "videos", "published", "margin", "said"),
    [
        ([], 10, 74.4, 1.0, "accuracies"),
        ([1.2], 10, 74.4, 1.0, "accuracies"),
        ([math.nan], 10, 74.4, 1.0, "accuracies"),
        ([0.7], 0, 74.4, 1.0, "videos 0"),
        ([0.7], 10, 174.4, 1.0, "published"),
        ([0.7], 10, math.nan, 1.0, "published"),
        ([0.7], 10, 74.4, 0.0, "margin 0"),
        ([0.7], 10, 74.4, math.nan, "margin nan"),
    ],
)
def test_numbers_outside_their_range_are_refused(accuracies, videos, published, margin, said):
    with pytest.raises(EstimateError, match=said) as caught:
        verdicts.against_paper(accuracies, videos, published, margin)
    assert "\n" not in str(caught.value)
