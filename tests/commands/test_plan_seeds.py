"""What steps could have shown and what would show more: against tables of power, simulation, and hand-made records."""

import dataclasses
import itertools
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from scipy import stats

from ablations.table2 import STUDY
from harness import plan_seeds
from harness.analysis import power, seed_planning
from harness.analysis.seed_planning import Goal, Step
from harness.analysis.study_summary import Summary
from harness.reporting import seed_report

ROOT = Path(__file__).parents[2]
GOAL = Goal(effect=0.003)
# Three seeds of both rows; a step that differs between seeds by half a point, and flips 8 % of the videos.
STEP = Step(2, "LS", ("a", "b"), 3, 3, difference=0.005, spread=0.005, videos=17_706, discordance=0.08)
ONE_SEED = dataclasses.replace(STEP, seeds=1, wanted=1, spread=math.nan)
MISSING = Step(4, "WD", ("c", "d"), 1, 3)


def call(*words):
    return CliRunner().invoke(plan_seeds.main, [str(word) for word in words])


def t_test_finds(effect, spread, seeds, alpha, generator, studies=20_000):
    """Share of simulated studies in which Student's t test over seeds finds the effect."""
    differences = generator.normal(effect, spread, (studies, seeds))
    return float(np.mean(stats.ttest_1samp(differences, 0, axis=1).pvalue <= alpha))


@pytest.mark.parametrize(("power_", "alpha"), [(0.8, 0.05), (0.6, 0.01)])
def test_a_test_over_seeds_finds_the_smallest_effect_as_often_as_said(power_, alpha):
    goal = Goal(0.003, power_, alpha)
    found = seed_planning.smallest(STEP, goal)
    assert t_test_finds(found, 0.005, 3, alpha, np.random.default_rng(0)) == pytest.approx(power_, abs=0.02)


@pytest.mark.parametrize("spread", [0.001, 0.002, 0.005])
def test_seeds_needed_are_enough_and_one_less_is_not(spread):
    needed, generator = seed_planning.seeds_needed(spread, GOAL), np.random.default_rng(1)
    assert t_test_finds(0.003, spread, needed, 0.05, generator) > 0.79
    assert t_test_finds(0.003, spread, needed - 1, 0.05, generator) < 0.81


def test_seeds_needed_as_in_cohens_tables():
    # Cohen (1988), two-sided 5 %, 80 % power: an effect of half a standard deviation takes 34 pairs, of a whole one 10.
    assert seed_planning.seeds_needed(0.006, GOAL) == 34
    assert seed_planning.seeds_needed(0.003, GOAL) == 10


def test_videos_needed_are_enough_and_fewer_are_not():
    needed, generator = seed_planning.videos_needed(0.08, GOAL), np.random.default_rng(2)
    for videos, enough in ((needed, True), (round(0.8 * needed), False)):
        flips = generator.multinomial(videos, [0.0415, 0.0385, 0.92], size=4_000)
        fewer = np.minimum(flips[:, 0], flips[:, 1])
        share = np.mean(2 * stats.binom.cdf(fewer, flips[:, 0] + flips[:, 1], 0.5) <= 0.05)
        assert (share > 0.78) == enough


def test_one_seed_is_tested_over_videos():
    lines = seed_planning.outlook([ONE_SEED], GOAL)
    found = lines.loc[2, "smallest"]
    assert power.mcnemar_power(17_706, 0.08, found) == pytest.approx(0.8, abs=1e-6)
    assert math.isnan(lines.loc[2, "seeds_needed"])
    assert math.isnan(lines.loc[2, "more_seeds"])
    assert lines.loc[2, "videos_needed"] > 17_706


def test_an_effect_is_never_larger_than_what_flips():
    assert seed_planning.videos_needed(0.001, GOAL) == seed_planning.videos_needed(0.003, GOAL)
    # All flips one way: the test needs six of them, and 80 % power about nine expected ones.
    assert 6 / 0.003 < seed_planning.videos_needed(0.0, GOAL) < 12 / 0.003


def test_where_nothing_flipped_or_varied():
    still = dataclasses.replace(ONE_SEED, discordance=0.0)
    assert math.isnan(seed_planning.smallest(still, GOAL))
    alike = dataclasses.replace(STEP, spread=0.0)
    line = seed_planning.outlook([alike], GOAL).loc[2]
    assert (line["smallest"], line["seeds_needed"], line["more_seeds"]) == (0.0, 2, 0)


def test_a_step_that_is_not_measured_has_no_numbers():
    lines = seed_planning.outlook([STEP, MISSING], GOAL)
    assert lines.index.tolist() == [2, 4]
    assert lines.loc[4, ["smallest", "seeds_needed", "more_seeds", "videos_needed"]].isna().all()
    needed = lines.loc[2, "seeds_needed"]
    assert lines.loc[2, "more_seeds"] == needed - 3 > 0


def test_more_seeds_are_never_fewer_than_none():
    many = dataclasses.replace(STEP, seeds=1000, wanted=1000)
    assert seed_planning.outlook([many], GOAL).loc[2, "more_seeds"] == 0


def test_one_step_alone_has_the_interval_of_a_variance():
    found = seed_planning.pooled([STEP, ONE_SEED, MISSING])
    # Chi-square's quantiles with two degrees of freedom, from its table: 0.05064 and 7.3778.
    assert (found.steps, found.freedom) == (1, pytest.approx(2))
    assert found.value == pytest.approx(0.005)
    assert found.low == pytest.approx(0.005 * math.sqrt(2 / 7.3778), rel=1e-4)
    assert found.high == pytest.approx(0.005 * math.sqrt(2 / 0.05064), rel=1e-3)


def test_variances_are_averaged_by_their_degrees_of_freedom():
    steps = [
        dataclasses.replace(STEP, between=("a", "b"), seeds=3, spread=0.001),
        dataclasses.replace(STEP, between=("c", "d"), seeds=5, spread=0.004),
    ]
    found = seed_planning.pooled(steps)
    assert found.value**2 == pytest.approx((2 * 0.001**2 + 4 * 0.004**2) / 6)
    assert found.freedom == pytest.approx(6)


def test_the_same_step_twice_is_no_more_than_once():
    assert seed_planning.pooled([STEP, STEP]) == dataclasses.replace(seed_planning.pooled([STEP]), steps=2)


def test_no_spread_without_two_seeds():
    assert seed_planning.pooled([ONE_SEED, MISSING]) is None


@pytest.mark.parametrize(("shape", "seeds"), [("chain", 3), ("chain", 5), ("star", 3)])
@pytest.mark.parametrize("shared_by_seed", [0.0, 0.01])
def test_the_interval_of_the_pooled_spread_covers_the_truth(shape, seeds, shared_by_seed):
    generator, truth = np.random.default_rng(3), 0.004
    pairs = list(itertools.pairwise(range(9))) if shape == "chain" else [(0, row) for row in range(1, 9)]
    covered, studies = 0, 1_000
    for _ in range(studies):
        # Rows of one seed have some luck in common, which cancels in a step.
        common = generator.normal(0, shared_by_seed, seeds)
        top1 = common + generator.normal(0, truth / math.sqrt(2), (9, seeds))
        spreads = {(str(a), str(b)): float(np.std(top1[b] - top1[a], ddof=1)) for a, b in pairs}
        steps = [dataclasses.replace(STEP, between=pair, seeds=seeds, spread=own) for pair, own in spreads.items()]
        found = seed_planning.pooled(steps)
        covered += found.low <= truth <= found.high
    assert 0.93 <= covered / studies <= 0.97


def summary_of(seeds, seeds_of_row_4):
    """A summary of Table 2's rows 1 to 4, each a point above the one before and with its own runs."""
    missing, population = seeds_of_row_4 < seeds, "seeds" if seeds > 1 else "videos"
    rows = pd.DataFrame(
        {
            "setting": ["R3D-50", "LS", "SD", "WD"],
            "step": [math.nan, 1.0, 1.0, math.nan if missing else 1.0],
            "step_population": ["", population, population, "" if missing else population],
            "spread": [math.nan, 0.3, 0.4, math.nan if missing else 0.5],
            "discordance": [math.nan, 0.1, 0.2, math.nan if missing else 0.3],
            "videos": 1000,
            "seeds": [seeds, seeds, seeds, seeds_of_row_4],
            "seeds_wanted": seeds,
            "run_ids": [tuple(f"{row}-{seed}" for seed in range(seeds)) for row in range(1, 5)],
        },
        index=pd.Index([1, 2, 3, 4], name="number"),
    )
    return Summary(STUDY.only([1, 2, 3, 4]), "quick", "", "paper", rows, population, comparable=False)


def test_steps_of_a_summary_are_fractions_of_the_videos():
    steps = seed_report.measured(summary_of(3, 3))
    assert [(step.number, step.label, step.seeds, step.videos) for step in steps] == [
        (2, "LS", 3, 1000), (3, "SD", 3, 1000), (4, "WD", 3, 1000),
    ]  # fmt: skip
    assert [step.spread for step in steps] == pytest.approx([0.003, 0.004, 0.005])
    assert [step.difference for step in steps] == pytest.approx([0.01] * 3)
    assert [step.discordance for step in steps] == pytest.approx([0.1, 0.2, 0.3])
    assert steps[0].between[1] == steps[1].between[0] != steps[2].between[0]


def test_the_spread_over_videos_is_none_over_seeds():
    assert all(math.isnan(step.spread) for step in seed_report.measured(summary_of(1, 1)))


def test_a_missing_seed_is_said_and_left_out():
    steps = seed_report.measured(summary_of(3, 2))
    assert (steps[2].seeds, steps[2].wanted) == (2, 3)
    assert math.isnan(steps[2].difference)
    text = seed_report.report(steps, GOAL)
    assert "2 of 3 seeds" in text.splitlines()[6]
    assert "Over 2 steps together" in text


def test_the_report_says_what_all_steps_need():
    steps = seed_report.measured(summary_of(3, 3))
    pooled = seed_planning.pooled(steps)
    assert pooled.value == pytest.approx(math.sqrt((0.003**2 + 0.004**2 + 0.005**2) / 3))
    # Three steps of three seeds: 6 degrees of freedom, were they not to share rows 2 and 3.
    assert pooled.freedom == pytest.approx(6 * 3 / (3 + 4 * 0.25))
    needed, least, most = (power.seeds_needed(0.003, one) for one in (pooled.value, pooled.low, pooled.high))
    text = seed_report.report(steps, GOAL)
    assert f"with {needed} seeds of each row, {needed - 3} more than there are" in text
    assert f"over that interval, with {least} to {most}." in text
    (line,) = [line for line in text.splitlines() if "| LS" in line]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    own = power.seeds_needed(0.003, 0.003)
    assert cells[:6] == ["2", "LS", "+1.0", "3", "0.3", "10.0"]
    assert cells[7:] == [str(own), str(own - 3), f"{power.videos_needed(0.003, 0.1):,}"]


def test_one_seed_leaves_the_seed_variance_unknown():
    text = seed_report.report([ONE_SEED], GOAL)
    assert "Seed variance unknown: no row has two seeds." in text
    assert f"{power.videos_needed(0.003, 0.08):,}" in text


def test_the_example_has_one_seed():
    result = call("--detect", 0.3, "--results", ROOT / "results" / "example")
    assert result.exit_code == 0, result.output
    assert "Seed variance unknown: no row has two seeds." in result.output
    assert len([line for line in result.output.splitlines() if line.startswith("|")]) == 2 + 8
    assert "One more seed of all 10 rows costs: " in result.output
    assert "at the speed measured here" in result.output


def test_the_example_has_no_second_seed():
    result = call("--results", ROOT / "results" / "example", "--seeds", 2)
    assert result.exit_code == 2
    assert "no step has both its rows with 2 seeds: train some first" in result.output


def test_assumed_spread_needs_no_records(tmp_path):
    result = call("--detect", 0.3, "--seed-spread", 0.3)
    assert result.exit_code == 0
    assert "is found (80 % power, 5 % level) with 10 seeds of each row" in result.output


def test_assumed_discordance_needs_no_records():
    result = call("--detect", 0.3, "--videos", 17706, "--discordance", 8)
    needed = power.videos_needed(0.003, 0.08)
    assert f"on {needed:,} videos" in result.output
    assert f"{100 * power.smallest_on_videos(17_706, 0.08):.2g} points" in result.output


def test_too_few_videos_show_nothing():
    result = call("--detect", 0.3, "--videos", 5, "--discordance", 8)
    assert "that is on 5: none is" in result.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--videos", "100"], "--videos and --discordance: neither says anything without the other"),
        (["--seed-spread", "0.1", "--results", "r"], "--results: no records are read where"),
        (["--tpu", "local"], "--tpu: nothing is trained here"),
        (["--seed-spread", "0.1", "--power", "0.01"], "power 0.01: expected a number between alpha, 0.05, and 1"),
        (["--detect", "0"], "0.0 is not in the range 0<x<=100"),
        (["--profile", "papre"], "unknown profile 'papre'"),
        (["--detect", "0.0000001", "--seed-spread", "1"], "seeds would be needed"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(words, message):
    result = call(*words)
    assert result.exit_code == 2
    last = result.output.strip().splitlines()[-1]
    assert last.startswith("Error: ")
    assert message in last


def test_neither_records_nor_assumptions_is_refused_with_what_to_give(tmp_path):
    result = call("--results", tmp_path / "results")
    assert result.exit_code == 2
    (line,) = result.output.strip().splitlines()
    for way in ("holds no record of profile quick", "harness.additive_study --seeds 3", "--seed-spread", "--videos N"):
        assert way in line
    assert list(tmp_path.iterdir()) == []


def test_help_has_an_example():
    assert "python -m harness.plan_seeds --detect 0.3" in call("--help").output
