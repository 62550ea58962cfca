"""The simulator against hand counts, its checks in their fast version, and the docs' tables against what is printed."""

import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from scipy import integrate, stats

from harness import check_statistics
from harness.analysis import simulated_checks, simulated_methods, simulated_studies, simulation

DOCS = Path(__file__).parents[2] / "docs" / "statistics.md"


def rng():
    return np.random.default_rng(5)


@pytest.mark.parametrize(
    ("level", "spread", "points"), [(0.0, 2.5, 60), (1.7, 2.5, 60), (-1.0, 0.6, 12), (0.4, 0.0, 12)]
)
def test_expected_accuracy_is_the_integral(level, spread, points):
    def density(z):
        return stats.norm.pdf(z) / (1 + math.exp(-(level + spread * z)))

    found = simulation.expected_accuracy(level, spread, points)
    assert float(found) == pytest.approx(integrate.quad(density, -12, 12, epsabs=1e-10)[0], abs=1e-6)


def test_levels_have_the_accuracy_asked_for():
    assert float(simulation.expected_accuracy(simulation.level_of(0.76, 2.5), 2.5)) == pytest.approx(0.76, abs=1e-9)
    levels = simulation.levels(rng(), 200_000, 0.76, 2.5)
    assert np.mean(1 / (1 + np.exp(-levels))) == pytest.approx(0.76, abs=0.004)


def test_accuracy_of_trainings_has_the_mean_and_spread_that_are_integrated():
    draws = rng()
    levels = simulation.levels(draws, 240, 0.76, 2.5)
    effects = simulation.seed_effects(draws, 40_000, (0.5,), 0.0)[0]
    accuracies = simulation.answers(draws, levels, effects).mean(axis=1)
    assert accuracies.mean() == pytest.approx(simulation.accuracy_over_seeds(levels, 0.5), abs=0.0008)
    assert accuracies.std() == pytest.approx(simulation.deviation_over_seeds(levels, 0.5), rel=0.015)


def test_seed_effects_are_alike_as_asked():
    effects = simulation.seed_effects(rng(), 100_000, (0.5, 2.0), 0.9)
    assert effects.std(axis=1) == pytest.approx([0.5, 2.0], rel=0.01)
    assert np.corrcoef(effects)[0, 1] == pytest.approx(0.9, abs=0.005)


def test_flips_come_at_their_rates():
    before, after = simulation.flips(rng(), 1_000_000, 0.2, 0.05)
    assert before.shape == after.shape == (1, 1_000_000)
    assert np.mean(~before & after) == pytest.approx(0.125, abs=0.001)
    assert np.mean(before & ~after) == pytest.approx(0.075, abs=0.001)


def test_every_combination_once():
    assert simulation.subsets(2).tolist() == [[0, 0], [1, 0], [0, 1], [1, 1]]


def test_recipes_without_interactions_add_up():
    values = simulation.recipe(rng(), 3, 0.01, 0.0, 0.0)
    alone = values[[1, 2, 4]] - values[0]
    assert values == pytest.approx(0.6 + simulation.subsets(3) @ alone)
    assert simulation.shapley_values(values) == pytest.approx(alone)
    assert simulation.main_effects(values) == pytest.approx(alone)
    assert simulation.interaction_effects(values) == pytest.approx([0.0] * 3, abs=1e-15)


def test_shapley_values_are_the_mean_over_all_orders():
    values = simulation.recipe(rng(), 4, 0.01, 0.02, 0.03)
    steps = np.zeros(4)
    for order in itertools.permutations(range(4)):
        line = 0
        for toggle in order:
            steps[toggle] += values[line + 2**toggle] - values[line]
            line += 2**toggle
    assert simulation.shapley_values(values) == pytest.approx(steps / 24)


def test_interactions_by_hand():
    values = 0.5 + 0.02 * simulation.subsets(3)[:, [0, 2]].prod(axis=1)
    assert simulation.interaction_effects(values) == pytest.approx([0.0, 0.02, 0.0], abs=1e-15)
    assert simulation.main_effects(values) == pytest.approx([0.01, 0.0, 0.01])


@pytest.fixture(scope="module")
def printed():
    return CliRunner().invoke(check_statistics.main, ["--fast"])


def names(text):
    """Head of each Markdown table -> the first two cells of its lines."""
    tables = re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE)
    lines = [table.splitlines() for table in tables]
    return {table[0]: [line.split("|")[1:3] for line in table[2:]] for table in lines}


def test_every_figure_is_within_its_target(printed):
    assert printed.exit_code == 0, printed.stderr
    assert printed.stderr == ""


def test_the_docs_have_the_tables_that_are_printed(printed):
    found = names(printed.stdout)
    assert sorted(map(len, found.values())) == [15, len(simulated_checks.checks())]
    assert found.items() <= names(DOCS.read_text()).items()


@pytest.mark.parametrize(
    ("said", "target"),
    [("93 to 97 %", simulated_checks.COVERAGE), ("at least 93 %", simulated_checks.CONSERVATIVE),
     ("at most 6 %", simulated_checks.SIZE)],
)  # fmt: skip
def test_the_docs_have_figures_within_their_targets(said, target):
    figures = re.findall(rf"\| (\S+) % \| {said} \|", DOCS.read_text())
    assert len(figures) == sum(one.target == target for one in simulated_checks.checks())
    assert all(target[0] <= float(figure) <= target[1] for figure in figures)


def check(target, figure, times=1):
    return simulated_checks.Check("what", "case", target, lambda draws, studies: figure, times)


@pytest.mark.parametrize(
    ("target", "figure", "within"),
    [((93, 97), 93.0, True), ((93, 97), 92.9, False), ((93, 97), 97.1, False), ((0, 6), 6.1, False),
     ((-5, 5), -5.1, False)],
)  # fmt: skip
def test_a_full_run_allows_nothing_beyond_the_target(target, figure, within):
    found = simulated_checks.run(check(target, figure, 2), 0, 2000, widen=False)
    assert (found.within, found.studies) == (within, 4000)


def test_a_fast_run_allows_three_standard_errors():
    error = 100 * math.sqrt(0.93 * 0.07 / 100)
    assert simulated_checks.run(check((93, 97), 93 - 2.99 * error), 0, 100, widen=True).within
    assert not simulated_checks.run(check((93, 97), 93 - 3.01 * error), 0, 100, widen=True).within


def test_an_enumeration_is_exact():
    found = simulated_checks.run(check((0, 6), 6.01, 0), 0, 100, widen=True)
    assert (found.studies, found.slack, found.within) == (0, 0.0, False)
    assert "| exact | **6.0 %** |" in check_statistics.table([found])


def test_every_case_is_told_once():
    cases = [(one.what, one.case) for one in simulated_checks.checks()]
    assert len(set(cases)) == len(cases)


def test_the_null_of_unequal_spreads_is_one(monkeypatch):
    """What is tested are two rows as the tables have them, equally good on these videos over all seeds."""
    seen = []

    def paired(before, after):
        seen.append(after.mean() - before.mean())
        return simulated_studies.estimates.contrast([0.0, 0.0], "seeds")

    monkeypatch.setattr(simulated_studies.estimates, "paired", paired)
    simulated_studies.null_over_seeds(simulation.UNEQUAL, 100, rng(), 200)
    error = np.std(seen) / math.sqrt(200)
    assert np.mean(seen) == pytest.approx(0, abs=3 * error)
    levels = simulation.levels(rng(), 240, 0.76, 2.5)
    bias = simulation.accuracy_over_seeds(levels, 0.6) - simulation.accuracy_over_seeds(levels, 0.05)
    assert abs(bias) > 4 * error  # by so much the rows would differ without a shift


def test_the_union_of_four_designs_is_every_combination():
    four = ("additive", "reverse", "leave-one-out", "shapley")
    assert simulated_studies._ran(four, 4, 16, 3).all()
    assert simulated_studies._ran(four[:2], 4, 16, 3)[0].sum() == 8  # two chains of five that share both ends


def test_what_misses_its_target_is_named(monkeypatch):
    monkeypatch.setattr(simulated_checks, "checks", lambda: [check((93, 97), 50.0), check((93, 97), 95.0)])
    monkeypatch.setattr(
        simulated_methods, "tried", lambda studies: [simulated_methods.MethodResult("m", "s", {3: 94.0})]
    )
    done = CliRunner().invoke(check_statistics.main, ["--fast"])
    assert done.exit_code == 1
    assert "| what | case | 100 | **50.0 %** | 93 to 97 % |" in done.stdout
    assert done.stderr == "not within its target: what: case\n"


def test_an_interval_that_is_too_short_is_caught():
    """The methods that were not chosen would fail the checks that Student's t passes."""
    found = {(one.method, one.scenario): one.coverage for one in simulated_methods.tried(150)}
    for scenario in ("independent", "alike by seed", "unequal spread"):
        assert found["normal (z)", scenario][3] < 90
        assert found["percentile bootstrap over seeds", scenario][3] < 90
        assert found["paired t", scenario][3] > 90
    assert found["Welch's t", "alike by seed"][5] > 99
