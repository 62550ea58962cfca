"""Simulated studies with a known truth -> how often an interval holds it, a test errs, and a power forecast comes true.

Each function simulates studies by :mod:`harness.analysis.simulation`, hands them to the estimators that tables use, and
counts. Their last two arguments are a generator and the number of studies.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import optimize

from harness.analysis import estimates, power, simulation
from harness.analysis.estimates import Difference
from harness.analysis.simulation import INDEPENDENT, Seeds
from harness.config import designs
from harness.config.studies import Row, Study
from harness.config.toggles import Toggle

_STEP = 1.0  # of a whole video that flips, as harness.analysis.credit has it
_POOL = 600  # seeds whose orders are drawn once; each study takes its own among them

Floats = npt.NDArray[np.floating]
Counts = Callable[[Difference, float], bool]


def percent(hits: Sequence[bool] | npt.NDArray[np.bool_]) -> float:
    """How many are true."""
    return 100 * float(np.mean(hits))


def holds(found: estimates.Estimate | Difference | estimates.Interaction, truth: float) -> bool:
    """Whether the interval holds the truth."""
    return found.low <= truth <= found.high


def row_on_videos(videos: int, accuracy: float, rng: np.random.Generator, studies: int) -> float:
    """Coverage of one training's accuracy."""
    level, hits = simulation.level_of(accuracy, 2.5), []
    for _ in range(studies):
        effect = simulation.seed_effects(rng, 1, (0.15,), 0.0)[0, 0]
        right = simulation.answers(rng, level + 2.5 * rng.standard_normal(videos), effect)
        truth = float(simulation.expected_accuracy(level + effect, 2.5))
        hits.append(holds(estimates.accuracy(int(right.sum()), videos), truth))
    return percent(hits)


def row_over_seeds(seeds: int, accuracy: float, rng: np.random.Generator, studies: int) -> float:
    """Coverage of a row's mean accuracy on 240 videos."""
    hits = []
    for _ in range(studies):
        levels = simulation.levels(rng, 240, accuracy, 2.5)
        right = simulation.answers(rng, levels, simulation.seed_effects(rng, seeds, (0.15,), 0.0)[0])
        found = estimates.mean_over_seeds(right.mean(axis=1).tolist(), step=1 / 240)
        hits.append(holds(found, simulation.accuracy_over_seeds(levels, 0.15)))
    return percent(hits)


def flipped(
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
    return percent([counts(estimates.paired(*draw, margin=margin), difference) for draw in draws])


def trainings(rng: np.random.Generator, studies: int) -> float:
    """Coverage of the difference of two trainings, each with a seed effect of its own, on 1,000 videos."""
    level, hits = simulation.level_of(0.76, 2.5), []
    for _ in range(studies):
        before, after = simulation.seed_effects(rng, 1, (0.15, 0.15), 0.0)[:, 0]
        levels = level + 2.5 * rng.standard_normal(1_000)
        right = simulation.answers(rng, levels, np.array([[before], [after + 0.2]]))
        first, second = simulation.expected_accuracy(level + np.array([before, after + 0.2]), 2.5)
        hits.append(holds(estimates.paired(*right), float(second - first)))
    return percent(hits)


def over_seeds(
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
        before, after, truth = rows(scenario, seeds, videos, shift, rng)
        hits.append(counts(estimates.paired(before, after), truth))
    return percent(hits)


def rows(
    scenario: Seeds, seeds: int, videos: int, shift: float, rng: np.random.Generator
) -> tuple[simulation.Bools, simulation.Bools, float]:
    """Two rows on videos drawn anew, and the difference to be expected of other seeds on them."""
    levels = simulation.levels(rng, videos, 0.76, 2.5)
    return *_answered(scenario, seeds, levels, shift, rng), _shifted(scenario, levels, shift)


def _answered(
    scenario: Seeds, seeds: int, levels: Floats, shift: float, rng: np.random.Generator
) -> tuple[simulation.Bools, simulation.Bools]:
    effects = simulation.seed_effects(rng, seeds, scenario.spreads, scenario.correlation)
    before, after = simulation.answers(rng, levels, effects + np.array([[0.0], [shift]]))
    return before, after


def _shifted(scenario: Seeds, levels: Floats, shift: float) -> float:
    """The difference to be expected on these videos."""
    after = simulation.accuracy_over_seeds(levels + shift, scenario.spreads[1])
    return after - simulation.accuracy_over_seeds(levels, scenario.spreads[0])


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


def design_credits(
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
        hits[study] = [holds(estimates.contrast(one, "seeds"), true) for one, true in zip(credits, truth, strict=True)]
    return _furthest(hits)


def _furthest(hits: npt.NDArray[Any]) -> float:
    """Of the effects in the columns, the coverage furthest from 95 %."""
    found = 100 * np.nanmean(hits, axis=0)
    return float(found[np.argmax(np.abs(found - 95))])


def design_interactions(
    names: Sequence[str], toggles: int, orders: int, triple: float, rng: np.random.Generator, studies: int
) -> float:
    """Coverage of interactions told from the runs of all these designs with three seeds."""
    values, seeds = simulation.recipe(rng, toggles, 0.01, 0.005, triple), 3
    ran = _ran(tuple(names), toggles, orders, _POOL if orders else seeds)
    truth, has = simulation.interaction_effects(values), simulation.subsets(toggles)
    hits = np.full((studies, len(truth)), np.nan)  # of the few studies whose runs do not tell, nothing is said
    for study in range(studies):
        seed, line = np.nonzero(ran[rng.permutation(len(ran))[:seeds]])
        with contextlib.suppress(estimates.NotEstimable):
            found, _ = estimates.interactions(_trained(rng, values, seeds)[seed, line], has[line], seed)
            hits[study] = [holds(one, true) for one, true in zip(found, truth, strict=True)]
    return _furthest(hits)


@functools.cache
def _ran(names: tuple[str, ...], toggles: int, orders: int, seeds: int) -> npt.NDArray[np.bool_]:
    """Which combinations the designs train, (seeds, 2^toggles); no credit has a weight of 0 for one."""
    return np.asarray(sum(_weights(name, toggles, orders, seeds).any(axis=1) for name in names), dtype=bool)


def rejects(found: Difference, _: float = 0.0) -> bool:
    """Whether a difference is found."""
    return found.p <= 0.05


def equal(found: Difference, _: float = 0.0) -> bool:
    """Whether the rows are found equivalent."""
    return found.p_equal <= 0.05


def null_over_seeds(scenario: Seeds, seeds: int, rng: np.random.Generator, studies: int) -> float:
    """How often equal rows are found to differ; the row after is shifted for its seeds that vary more to be as good."""
    hits = []
    for _ in range(studies):
        levels, shift = simulation.levels(rng, 240, 0.76, 2.5), 0.0
        if scenario.spreads[0] != scenario.spreads[1]:
            shift = float(optimize.brentq(functools.partial(_shifted, scenario, levels), -1.0, 1.0, xtol=1e-6))
        hits.append(rejects(estimates.paired(*_answered(scenario, seeds, levels, shift, rng))))
    return percent(hits)


def border_over_seeds(seeds: int, rng: np.random.Generator, studies: int) -> float:
    """The margin is the true difference."""
    hits = []
    for _ in range(studies):
        before, after, truth = rows(INDEPENDENT, seeds, 240, 0.6, rng)
        hits.append(equal(estimates.paired(before, after, margin=truth)))
    return percent(hits)


def holm(seeds: int, videos: int, spread: float, rng: np.random.Generator, studies: int) -> float:
    """Nine rows that are all alike, each compared with the one above."""
    hits = []
    gc.freeze()  # statsmodels collects garbage whenever it corrects: 80 ms where much is loaded
    for _ in range(studies):
        levels = simulation.levels(rng, videos, 0.76, 2.5)
        rows = simulation.answers(rng, levels, simulation.seed_effects(rng, seeds, [spread] * 9, 0.5))
        p = [estimates.paired(before, after).p for before, after in itertools.pairwise(rows)]
        hits.append(bool((estimates.holm(p) <= 0.05).any()))
    gc.unfreeze()
    return percent(hits)


def mcnemar_forecast(
    videos: int, discordance: float, difference: float, rng: np.random.Generator, studies: int
) -> float:
    """Power of the exact McNemar test, less what was forecast."""
    found = flipped(videos, discordance, difference, rejects, rng, studies)
    return found - 100 * power.mcnemar_power(videos, discordance, difference)


def t_forecast(seeds: int, shift: float, rng: np.random.Generator, studies: int) -> float:
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
        hits.append(rejects(estimates.paired(*simulation.answers(rng, levels, effects))))
    return percent(hits) - _t_power(seeds, truth, spread)


def _t_power(seeds: int, difference: float, spread: float) -> float:
    """Returns the power, per cent, at which `difference` is the smallest that :mod:`harness.analysis.power` finds."""
    return 100 * float(
        optimize.brentq(
            lambda chance: power.smallest_over_seeds(seeds, spread, chance) - difference, 0.0501, 1 - 1e-9, xtol=1e-6
        )
    )


def deviation(toggles: int, orders: int, rng: np.random.Generator, studies: int) -> float:
    """The largest difference of the sum of all credits from the total effect, as a fraction."""
    weights = _weights("shapley", toggles, orders, _POOL)
    values = simulation.recipe(rng, toggles, 0.01, 0.005, 0.004)
    worst = 0.0
    for _ in range(studies):
        accuracies = _trained(rng, values, 1)[0]
        credits = weights[rng.integers(len(weights))] @ accuracies
        worst = max(worst, abs(float(credits.sum() - (accuracies[-1] - accuracies[0]))))
    return worst


def effects_on_videos(videos: int, rng: np.random.Generator, studies: int) -> float:
    """Eight trainings of one seed, each with a seed effect of its own in every study, on videos drawn anew."""
    (weights,), level = _weights("factorial", 3, 0, 1), simulation.level_of(0.76, 2.5)
    hits = np.zeros((studies, 3), dtype=bool)
    for study in range(studies):
        shifts = simulation.subsets(3) @ np.array([0.0, 0.2, 0.4])
        shifts = shifts + simulation.seed_effects(rng, 1, [0.15] * 8, 0.0)[:, 0]
        right = simulation.answers(rng, level + 2.5 * rng.standard_normal(videos), shifts)
        truth = weights @ simulation.expected_accuracy(level + shifts, 2.5)
        found = [estimates.contrast(one, "videos", step=_STEP) for one in weights @ right]
        hits[study] = [holds(one, true) for one, true in zip(found, truth, strict=True)]
    return _furthest(hits)


def effect_of_few_flips(
    videos: int,
    discordance: float,
    difference: float,
    counts: Counts,
    rng: np.random.Generator,
    studies: int,
    margin: float | None = None,
) -> float:
    """Eight trainings of one seed, all alike but for a toggle, which flips few videos: the hardest case for Student."""
    (weights,), has = _weights("factorial", 3, 0, 1), simulation.subsets(3)[:, 0].astype(bool)
    hits = []
    for _ in range(studies):
        before, after = simulation.flips(rng, videos, discordance, difference)
        found = estimates.contrast(weights[0] @ np.where(has[:, None], after, before), "videos", margin, step=_STEP)
        hits.append(counts(found, difference))
    return percent(hits)


def size_of_equivalence(videos: int, margins: Sequence[float], rng: np.random.Generator, studies: int) -> float:
    """How often, at most, rows that differ by the margin are found equivalent, over discordances from the margin to 1.

    Enumerated: nothing is drawn.
    """
    return max(
        100 * power.equivalence_power(videos, min(margin * times, 1.0), margin, margin)
        for margin in margins
        for times in (1, 1.1, 1.3, 1.6, 2, 4, 10, 40, 1000)
    )
