"""Simulated studies with a known truth -> how often an interval holds it, a test errs, and a power forecast comes true.

Each check simulates studies by :mod:`harness.simulation`, hands them to the estimators that tables use, and counts.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
import itertools
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import optimize, special, stats

from harness import designs, estimates, power, simulation
from harness.estimates import Difference
from harness.studies import Row, Study
from harness.toggles import Toggle

SEED = 20210903
COVERAGE, CONSERVATIVE, SIZE, FORECAST, SUM = (93.0, 97.0), (93.0, 100.0), (0.0, 6.0), (-5.0, 5.0), (0.0, 1e-12)
NONE = (0.0, 100.0)  # a figure to know of, which nothing promises
SEEDS = (3, 5, 10)
_POOL = 600  # seeds whose orders are drawn once; each study takes its own among them
_RESAMPLES = 1000

Floats = npt.NDArray[np.floating]
Studies = Callable[[np.random.Generator, int], float]


@dataclasses.dataclass(frozen=True)
class Check:
    """A figure that simulation has to give.

    Attributes:
      what: what is counted: "95 % interval holds the truth".
      case: in which case: the method, its population and numbers.
      target: lowest and highest figure allowed.
      figure: a generator and a number of studies -> the figure.
      times: how many times the number of studies asked for is simulated, where studies are cheap.
      chance: whether the figure is a percentage of studies, and so has the error of a proportion.
    """

    what: str
    case: str
    target: tuple[float, float]
    figure: Studies
    times: int = 1
    chance: bool = True

    @property
    def unit(self) -> str:
        """Of the figure, where it is a proportion of studies or a difference of two."""
        return "points" if self.target == FORECAST else "%"


@dataclasses.dataclass(frozen=True)
class Found:
    """What a check found.

    Attributes:
      check: the check.
      studies: how many were simulated.
      figure: what was found, in the unit of the check's target.
      slack: by how much the target was widened for the error of simulation; 0 in a full run.
    """

    check: Check
    studies: int
    figure: float
    slack: float

    @property
    def within(self) -> bool:
        """Whether the figure is within its target."""
        low, high = self.check.target
        return low - self.slack <= self.figure <= high + self.slack


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


def run(check: Check, place: int, studies: int, widen: bool) -> Found:
    """Simulates the studies of one check.

    Args:
      check: the check.
      place: its place in the list, which its random numbers follow from.
      studies: number of studies; a check may simulate several times as many.
      widen: allow for three standard errors of the simulation beyond the target.
    """
    count = studies * check.times
    figure = check.figure(np.random.default_rng([SEED, place]), count)
    nearest = min(check.target, key=lambda edge: abs(edge - figure))
    share = min(max(nearest / 100 if check.target != FORECAST else 0.5, 0.01), 0.99)
    slack = 300 * math.sqrt(share * (1 - share) / count) if widen and check.chance else 0.0
    return Found(check, count, figure, slack)


def checks() -> list[Check]:
    """Every check, in the order of the table."""
    return [*_coverage(), *_designs(), *_size(), *_powers(), *_sums(), _warning(), *_credits_on_videos()]


def _percent(hits: Sequence[bool] | npt.NDArray[np.bool_]) -> float:
    return 100 * float(np.mean(hits))


def _holds(found: estimates.Estimate | Difference | estimates.Interaction, truth: float) -> bool:
    return found.low <= truth <= found.high


# Coverage


def _coverage() -> Iterator[Check]:
    what = "95 % interval holds the truth"
    for videos, accuracy in ((240, 0.76), (240, 0.95), (17_706, 0.76)):
        case = f"row, one seed, {videos:,} videos, accuracy {accuracy:.0%}: Wilson"
        yield Check(what, case, COVERAGE, functools.partial(_wilson, videos, accuracy), 5 if videos < 1000 else 1)
    for seeds in SEEDS:
        yield Check(what, f"row, {seeds} seeds: Student's t", COVERAGE, functools.partial(_mean, seeds), 5)
    for videos, discordance, difference in (
        (240, 0.05, 0.0), (240, 0.2, 0.0), (240, 0.2, 0.05), (1_000, 0.1, 0.0), (1_000, 0.1, 0.02),
        (1_000, 0.3, 0.05), (17_706, 0.02, 0.003), (17_706, 0.1, 0.0), (17_706, 0.1, 0.003),
    ):  # fmt: skip
        yield Check(
            what,
            f"difference, one seed, {videos:,} videos, {_flips(discordance, difference)}: Bonett and Price",
            COVERAGE,
            functools.partial(_flipped, videos, discordance, difference, lambda found, truth: _holds(found, truth)),
            5 if videos < 10_000 else 1,
        )
    yield Check(what, "difference, one seed, two trainings of 1,000 videos: Bonett and Price", COVERAGE, _trainings, 5)
    for scenario, seeds in itertools.product(SCENARIOS, SEEDS):
        case = f"difference, {seeds} seeds, {scenario.name}: paired t"
        yield Check(what, case, COVERAGE, functools.partial(_over_seeds, scenario, seeds, 240, 0.3, _holds), 2)
    case = "difference, 3 seeds, 17,706 videos: paired t"
    large = Seeds("", (0.01, 0.01), 0.0)
    yield Check(what, case, COVERAGE, functools.partial(_over_seeds, large, 3, 17_706, 0.02, _holds))


def _flips(discordance: float, difference: float) -> str:
    return f"{discordance:.0%} flip, difference {100 * difference:g}"


def _wilson(videos: int, accuracy: float, rng: np.random.Generator, studies: int) -> float:
    level, hits = simulation.level_of(accuracy, 2.5), []
    for _ in range(studies):
        effect = simulation.seed_effects(rng, 1, (0.15,), 0.0)[0, 0]
        right = simulation.answers(rng, level + 2.5 * rng.standard_normal(videos), effect)
        truth = float(simulation.expected_accuracy(level + effect, 2.5))
        hits.append(_holds(estimates.accuracy(int(right.sum()), videos), truth))
    return _percent(hits)


def _mean(seeds: int, rng: np.random.Generator, studies: int) -> float:
    hits = []
    for _ in range(studies):
        levels = simulation.levels(rng, 240, 0.76, 2.5)
        right = simulation.answers(rng, levels, simulation.seed_effects(rng, seeds, (0.15,), 0.0)[0])
        found = estimates.mean_over_seeds(right.mean(axis=1).tolist())
        hits.append(_holds(found, simulation.accuracy_over_seeds(levels, 0.15)))
    return _percent(hits)


def _flipped(
    videos: int,
    discordance: float,
    difference: float,
    counts: Callable[[Difference, float], bool],
    rng: np.random.Generator,
    studies: int,
    margin: float | None = None,
) -> float:
    """Studies of one seed, on videos that flip with known chances, of which `counts` is true."""
    draws = (simulation.flips(rng, videos, discordance, difference) for _ in range(studies))
    return _percent([counts(estimates.paired(*draw, margin=margin), difference) for draw in draws])


def _trainings(rng: np.random.Generator, studies: int) -> float:
    level, hits = simulation.level_of(0.76, 2.5), []
    for _ in range(studies):
        before, after = simulation.seed_effects(rng, 1, (0.15, 0.15), 0.0)[:, 0]
        levels = level + 2.5 * rng.standard_normal(1_000)
        right = simulation.answers(rng, levels, np.array([[before], [after + 0.2]]))
        first, second = simulation.expected_accuracy(level + np.array([before, after + 0.2]), 2.5)
        hits.append(_holds(estimates.paired(*right), float(second - first)))
    return _percent(hits)


def _over_seeds(
    scenario: Seeds,
    seeds: int,
    videos: int,
    shift: float,
    counts: Callable[[Difference, float], bool],
    rng: np.random.Generator,
    studies: int,
) -> float:
    """Studies of several seeds, the row after better by `shift` logits, of which `counts` is true."""
    hits = []
    for _ in range(studies):
        before, after, truth = _rows(scenario, seeds, videos, shift, rng)
        hits.append(counts(estimates.paired(before, after), truth))
    return _percent(hits)


def _rows(
    scenario: Seeds, seeds: int, videos: int, shift: float, rng: np.random.Generator
) -> tuple[simulation.Bools, simulation.Bools, float]:
    """Two rows on videos drawn anew, and the difference to be expected of other seeds on them."""
    levels = simulation.levels(rng, videos, 0.76, 2.5)
    effects = simulation.seed_effects(rng, seeds, scenario.spreads, scenario.correlation)
    before, after = simulation.answers(rng, levels, effects + np.array([[0.0], [shift]]))
    truth = simulation.accuracy_over_seeds(levels + shift, scenario.spreads[1])
    return before, after, truth - simulation.accuracy_over_seeds(levels, scenario.spreads[0])


# Designs


def _designs() -> Iterator[Check]:
    what = "95 % interval holds the truth"
    for seeds in SEEDS:
        case = f"main effects, full factorial of 3 toggles, {seeds} seeds: Student's t, worst toggle"
        yield Check(what, case, COVERAGE, functools.partial(_credits, "factorial", 3, 0, seeds), 2)
    for (toggles, orders), seeds in itertools.product(((6, 4), (7, 8), (8, 4)), SEEDS):
        case = f"Shapley credits, {toggles} toggles, {orders} orders a seed, {seeds} seeds: Student's t, worst toggle"
        yield Check(what, case, COVERAGE, functools.partial(_credits, "shapley", toggles, orders, seeds), 2)
    case = "interactions, full factorial of 4 toggles, 3 seeds: least squares, worst pair"
    yield Check(what, case, COVERAGE, functools.partial(_interactions, "factorial", 4, 0, 0.0))
    case = "interactions, runs of a Shapley design of 6 toggles, 3 seeds: least squares, worst pair"
    yield Check(what, case, COVERAGE, functools.partial(_interactions, "shapley", 6, 8, 0.0), 2)
    case = "interactions, full factorial of 4 toggles of which three act together, 3 seeds: least squares, worst pair"
    yield Check(what, case, CONSERVATIVE, functools.partial(_interactions, "factorial", 4, 0, 0.004))


@functools.cache
def _weights(name: str, toggles: int, orders: int, seeds: int) -> npt.NDArray[np.float64]:
    """Weights of every combination in each toggle's credit, (seeds, toggles, 2^toggles), as the design has them."""
    factors = tuple(Toggle(f"t{i}", f"T{i}", "", "", {f"t{i}": 1}, 1).at() for i in range(toggles))
    study = Study("simulated", "simulated", tuple(one.toggle for one in factors), (Row(1, "", ()),))
    (design,) = designs.build([name], designs.Question(study, factors, (), tuple(range(seeds)), orders))
    lines = {row.number: sum(2 ** factors.index(one) for one in row.applied) for row in design.study.rows}
    found = np.zeros((seeds, toggles, 2**toggles))
    for seed, credits in design.credits.items():
        for toggle, one in enumerate(factors):
            for number, weight in credits[one.toggle.key].items():
                found[seed, toggle, lines[number]] += weight
    return found


def _trained(rng: np.random.Generator, values: Floats, seeds: int) -> npt.NDArray[np.float64]:
    """Accuracies of every combination at each seed, (seeds, combinations): a seed shifts all, and each by itself."""
    noise = 0.004 * rng.standard_normal((seeds, 1)) + 0.003 * rng.standard_normal((seeds, len(values)))
    return np.asarray(values + noise)


def _credits(
    name: str,
    toggles: int,
    orders: int,
    seeds: int,
    rng: np.random.Generator,
    studies: int,
    common: bool = False,
) -> float:
    """Coverage of the toggles' credits; `common`: all seeds have the orders that one has drawn."""
    values = simulation.recipe(rng, toggles, 0.01, 0.005, 0.004)
    weights = _weights(name, toggles, orders, _POOL if orders else seeds)
    truth = simulation.shapley_values(values) if name == "shapley" else simulation.main_effects(values)
    hits = np.zeros((studies, toggles), dtype=bool)
    for study in range(studies):
        drawn = rng.permutation(len(weights))[:seeds]
        chosen = weights[np.full(seeds, drawn[0]) if common else drawn]
        credits = np.einsum("stc,sc->ts", chosen, _trained(rng, values, seeds))
        hits[study] = [_holds(estimates.contrast(one, "seeds"), true) for one, true in zip(credits, truth, strict=True)]
    return _furthest(hits)


def _furthest(hits: npt.NDArray[Any]) -> float:
    """Of the effects in the columns, the coverage furthest from 95 %."""
    found = 100 * np.nanmean(hits, axis=0)
    return float(found[np.argmax(np.abs(found - 95))])


def _interactions(name: str, toggles: int, orders: int, triple: float, rng: np.random.Generator, studies: int) -> float:
    values, seeds = simulation.recipe(rng, toggles, 0.01, 0.005, triple), 3
    weights = _weights(name, toggles, orders, _POOL if orders else seeds)
    truth, has = simulation.interaction_effects(values), simulation.subsets(toggles)
    hits = np.full((studies, len(truth)), np.nan)  # of the few studies whose runs do not tell, nothing is said
    for study in range(studies):
        visited = weights[rng.permutation(len(weights))[:seeds]].any(axis=1)
        seed, line = np.nonzero(visited)
        with contextlib.suppress(estimates.NotEstimable):
            found, _ = estimates.interactions(_trained(rng, values, seeds)[seed, line], has[line], seed)
            hits[study] = [_holds(one, true) for one, true in zip(found, truth, strict=True)]
    return _furthest(hits)


# Size


def _size() -> Iterator[Check]:
    what = "test rejects a true null"
    for videos, discordance in ((240, 0.05), (240, 0.2), (1_000, 0.1), (17_706, 0.1)):
        case = f"difference, one seed, {videos:,} videos, {_flips(discordance, 0)}: exact McNemar test"
        yield Check(what, case, SIZE, functools.partial(_flipped, videos, discordance, 0.0, _rejects), 5)
    for scenario, seeds in itertools.product(SCENARIOS, SEEDS):
        case = f"difference, {seeds} seeds, {scenario.name}: paired t"
        yield Check(what, case, SIZE, functools.partial(_null_over_seeds, scenario, seeds), 5)
    for videos, discordance, margin in ((240, 0.2, 0.05), (1_000, 0.1, 0.02), (17_706, 0.1, 0.005)):
        case = f"equivalence at the margin, one seed, {videos:,} videos, {_flips(discordance, margin)}: TOST"
        figure = functools.partial(_flipped, videos, discordance, margin, _equal, margin=margin)
        yield Check(what, case, SIZE, figure, 5)
    for seeds in SEEDS:
        case = f"equivalence at the margin, {seeds} seeds: TOST"
        yield Check(what, case, SIZE, functools.partial(_border_over_seeds, seeds), 5)
    for seeds, videos in ((1, 240), (1, 1_000), (3, 60), (3, 240), (5, 240), (10, 240)):
        # Trainings of one seed each are alike, for videos, if no seed effect tells them apart.
        spread = 0.0 if seeds == 1 else 0.15
        case = f"any of 8 steps without effect, {seeds} seed{'s' * (seeds > 1)}, {videos:,} videos: Holm"
        yield Check(what, case, SIZE, functools.partial(_holm, seeds, videos, spread), 5)
    for videos, spread in ((240, 0.15), (1_000, 0.15), (17_706, 0.02)):
        seed = f"that of its seed ({spread:g} logits)"
        case = f"any of 8 steps without effect but {seed}, 1 seed, {videos:,} videos: Holm"
        yield Check(what, case, NONE, functools.partial(_holm, 1, videos, spread))


def _rejects(found: Difference, _: float = 0.0) -> bool:
    return found.p <= 0.05


def _equal(found: Difference, _: float = 0.0) -> bool:
    return found.p_equal <= 0.05


def _null_over_seeds(scenario: Seeds, seeds: int, rng: np.random.Generator, studies: int) -> float:
    hits = []
    for _ in range(studies):
        before, after, truth = _rows(scenario, seeds, 240, 0.0, rng)
        if truth == 0.0:
            found = estimates.paired(before, after)
        else:  # seeds that vary more are a little worse on average: what is left without that is a null
            found = estimates.contrast(after.mean(axis=1) - before.mean(axis=1) - truth, "seeds")
        hits.append(_rejects(found))
    return _percent(hits)


def _border_over_seeds(seeds: int, rng: np.random.Generator, studies: int) -> float:
    """The margin is the true difference."""
    hits = []
    for _ in range(studies):
        before, after, truth = _rows(INDEPENDENT, seeds, 240, 0.6, rng)
        hits.append(_equal(estimates.paired(before, after, margin=truth)))
    return _percent(hits)


def _holm(seeds: int, videos: int, spread: float, rng: np.random.Generator, studies: int) -> float:
    """Nine rows that are all alike, each compared with the one above."""
    hits = []
    gc.freeze()  # statsmodels collects garbage whenever it corrects: 80 ms where much is loaded
    for _ in range(studies):
        levels = simulation.levels(rng, videos, 0.76, 2.5)
        rows = simulation.answers(rng, levels, simulation.seed_effects(rng, seeds, [spread] * 9, 0.5))
        p = [estimates.paired(before, after).p for before, after in itertools.pairwise(rows)]
        hits.append(bool((estimates.holm(p) <= 0.05).any()))
    gc.unfreeze()
    return _percent(hits)


# Power


def _powers() -> Iterator[Check]:
    what = "power found less power predicted"
    for videos, discordance, difference in (
        (240, 0.1, 0.05), (240, 0.2, 0.05), (240, 0.2, 0.08), (1_000, 0.1, 0.02), (1_000, 0.1, 0.03),
        (1_000, 0.3, 0.05), (17_706, 0.02, 0.003), (17_706, 0.1, 0.003), (17_706, 0.1, 0.006),
    ):  # fmt: skip
        case = f"one seed, {videos:,} videos, {_flips(discordance, difference)}: exact McNemar test"
        yield Check(what, case, FORECAST, functools.partial(_mcnemar, videos, discordance, difference))
    for seeds, shift in itertools.product(SEEDS, (0.2, 0.4, 0.8)):
        case = f"{seeds} seeds, better by {shift:g} logits: paired t"
        yield Check(what, case, FORECAST, functools.partial(_t, seeds, shift), 2)


def _mcnemar(videos: int, discordance: float, difference: float, rng: np.random.Generator, studies: int) -> float:
    found = _flipped(videos, discordance, difference, _rejects, rng, studies)
    return found - 100 * power.mcnemar_power(videos, discordance, difference)


def _t(seeds: int, shift: float, rng: np.random.Generator, studies: int) -> float:
    """Rows on the same videos in every study, since power is a matter of their difference and its spread."""
    levels, spreads = simulation.levels(rng, 240, 0.76, 2.5), INDEPENDENT.spreads
    truth = simulation.accuracy_over_seeds(levels + shift, spreads[1])
    truth -= simulation.accuracy_over_seeds(levels, spreads[0])
    spread = math.hypot(
        simulation.deviation_over_seeds(levels, spreads[0]), simulation.deviation_over_seeds(levels + shift, spreads[1])
    )
    hits = []
    for _ in range(studies):
        effects = simulation.seed_effects(rng, seeds, spreads, 0.0) + np.array([[0.0], [shift]])
        hits.append(_rejects(estimates.paired(*simulation.answers(rng, levels, effects))))
    return _percent(hits) - _t_power(seeds, truth, spread)


def _t_power(seeds: int, difference: float, spread: float) -> float:
    """The power, in per cent, at which `difference` is the smallest that :mod:`harness.power` says can be shown."""
    return 100 * float(
        optimize.brentq(
            lambda chance: power.smallest_over_seeds(seeds, spread, chance) - difference, 0.0501, 1 - 1e-9, xtol=1e-6
        )
    )


# Sums


def _sums() -> Iterator[Check]:
    what = "credits less total effect, largest"
    for toggles, orders in ((4, 16), (6, 4), (8, 4)):
        case = f"Shapley, {toggles} toggles, {f'{orders} orders a seed' if toggles > 4 else 'all orders'}"
        yield Check(what, case, SUM, functools.partial(_deviation, toggles, orders), chance=False)


def _deviation(toggles: int, orders: int, rng: np.random.Generator, studies: int) -> float:
    weights = _weights("shapley", toggles, orders, _POOL)
    values = simulation.recipe(rng, toggles, 0.01, 0.005, 0.004)
    worst = 0.0
    for _ in range(studies):
        accuracies = _trained(rng, values, 1)[0]
        credits = weights[rng.integers(len(weights))] @ accuracies
        worst = max(worst, abs(float(credits.sum() - (accuracies[-1] - accuracies[0]))))
    return worst


def _warning() -> Check:
    """What a design with the same orders for all seeds would come to."""
    case = "Shapley credits, 8 toggles, 4 orders common to 10 seeds: Student's t, worst toggle"
    figure = functools.partial(_credits, "shapley", 8, 4, 10, common=True)
    return Check("95 % interval holds the truth", case, NONE, figure)


def _credits_on_videos() -> Iterator[Check]:
    for videos in (240, 1_000):
        case = f"main effects, full factorial of 3 toggles, one seed, {videos:,} videos: Student's t, worst toggle"
        yield Check("95 % interval holds the truth", case, COVERAGE, functools.partial(_effects, videos), 2)


def _effects(videos: int, rng: np.random.Generator, studies: int) -> float:
    """Eight trainings of one seed, each with a seed effect of its own in every study, on videos drawn anew."""
    (weights,), level = _weights("factorial", 3, 0, 1), simulation.level_of(0.76, 2.5)
    hits = np.zeros((studies, 3), dtype=bool)
    for study in range(studies):
        shifts = simulation.subsets(3) @ np.array([0.0, 0.2, 0.4])
        shifts = shifts + simulation.seed_effects(rng, 1, [0.15] * 8, 0.0)[:, 0]
        right = simulation.answers(rng, level + 2.5 * rng.standard_normal(videos), shifts)
        truth = weights @ simulation.expected_accuracy(level + shifts, 2.5)
        found = [estimates.contrast(one, "videos") for one in weights @ right]
        hits[study] = [_holds(one, true) for one, true in zip(found, truth, strict=True)]
    return _furthest(hits)


# Methods for several seeds


@dataclasses.dataclass(frozen=True)
class Tried:
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


def tried(studies: int) -> Iterator[Tried]:
    """Every method for several seeds, in every scenario."""
    for place, scenario in enumerate(SCENARIOS):
        found = {
            seeds: _methods(scenario, seeds, np.random.default_rng([SEED, 1000 + place, seeds]), studies)
            for seeds in SEEDS
        }
        for method in found[SEEDS[0]]:
            yield Tried(method, scenario.name, {seeds: found[seeds][method] for seeds in SEEDS})


def _methods(scenario: Seeds, seeds: int, rng: np.random.Generator, studies: int) -> dict[str, float]:
    drawn = [_rows(scenario, seeds, 240, 0.3, rng) for _ in range(studies)]
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
    intervals = {
        "paired t": (_symmetric(differences, float(special.stdtrit(seeds - 1, 0.975))), truth),
        "Welch's t": (welch, truth),
        "normal (z)": (_symmetric(differences, float(special.ndtri(0.975))), truth),
        "percentile bootstrap over seeds": (_bootstrap(differences, rng), truth),
        "percentile bootstrap over seeds and videos": (_bootstrap_both(flipped, rng), elsewhere),
    }
    return {
        name: _percent((low <= aim + 1e-12) & (aim - 1e-12 <= high)) for name, ((low, high), aim) in intervals.items()
    }


def _symmetric(differences: Floats, quantile: float) -> tuple[Floats, Floats]:
    half = quantile * stats.sem(differences, axis=1)
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
