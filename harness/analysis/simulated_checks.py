"""What simulation has to show of intervals, tests and forecasts: every case, and the figure that is allowed."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np

from harness.analysis import simulated_studies
from harness.analysis.simulation import SCENARIOS, SEEDS, Seeds

SEED = 20210903
COVERAGE, CONSERVATIVE, SIZE, FORECAST, SUM = (93.0, 97.0), (93.0, 100.0), (0.0, 6.0), (-5.0, 5.0), (0.0, 1e-12)
NONE = (0.0, 100.0)  # a figure to know of, which nothing promises
_HOLDS, _REJECTS = "95 % interval holds the truth", "test rejects a true null"

Studies = Callable[[np.random.Generator, int], float]


@dataclasses.dataclass(frozen=True)
class Check:
    """A figure that simulation has to give.

    Attributes:
      what: what is counted: "95 % interval holds the truth".
      case: in which case: the method, its population and numbers.
      target: lowest and highest figure allowed.
      figure: a generator and a number of studies -> the figure.
      times: how many times the number of studies asked for is simulated, where studies are cheap; 0: the figure is
        exact, an enumeration.
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
class CheckResult:
    """What a check found.

    Attributes:
      check: the check.
      studies: how many were simulated; 0: none, the figure is exact.
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


def run(check: Check, place: int, studies: int, widen: bool) -> CheckResult:
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
    slack = 300 * math.sqrt(share * (1 - share) / count) if widen and check.chance and count else 0.0
    return CheckResult(check, count, figure, slack)


def checks() -> list[Check]:
    """Every check, in the order of the table."""
    return [
        *_rows(),
        *_differences(),
        *_designs(),
        *_interactions(),
        *_size(),
        *_equivalence(),
        *_holm(),
        *_powers(),
        *_sums(),
        _warning(),
        *_effects_on_videos(),
    ]


def _rows() -> Iterator[Check]:
    for videos, accuracy in ((240, 0.76), (240, 0.95), (17_706, 0.76)):
        case = f"row, one seed, {videos:,} videos, accuracy {accuracy:.0%}: Wilson"
        figure = functools.partial(simulated_studies.row_on_videos, videos, accuracy)
        yield Check(_HOLDS, case, COVERAGE, figure, 5 if videos < 1000 else 1)
    for accuracy, seeds in itertools.product((0.76, 0.95, 0.99), SEEDS):
        # Near 100 % two seeds agree so often that the floor of their spread widens many intervals.
        floor = seeds == 2 and accuracy > 0.9
        how = "Student's t, conservative by the floor of its spread" if floor else "Student's t"
        figure = functools.partial(simulated_studies.row_over_seeds, seeds, accuracy)
        case = f"row, {seeds} seeds, 240 videos, accuracy {accuracy:.0%}: {how}"
        yield Check(_HOLDS, case, CONSERVATIVE if floor else COVERAGE, figure, 5)


def _differences() -> Iterator[Check]:
    for videos, discordance, difference in (
        (240, 0.05, 0.0), (240, 0.2, 0.0), (240, 0.2, 0.05), (1_000, 0.1, 0.0), (1_000, 0.1, 0.02),
        (1_000, 0.3, 0.05), (17_706, 0.02, 0.003), (17_706, 0.1, 0.0), (17_706, 0.1, 0.003),
    ):  # fmt: skip
        few = videos * discordance < 20  # two videos more are many then: by enumeration it holds the truth in 97.1 %
        how = "Bonett and Price, conservative by their two videos" if few else "Bonett and Price"
        case = f"difference, one seed, {videos:,} videos, {_flips(discordance, difference)}: {how}"
        figure = functools.partial(simulated_studies.flipped, videos, discordance, difference, simulated_studies.holds)
        yield Check(_HOLDS, case, CONSERVATIVE if few else COVERAGE, figure, 5 if videos < 10_000 else 1)
    case = "difference, one seed, two trainings of 1,000 videos: Bonett and Price"
    yield Check(_HOLDS, case, COVERAGE, simulated_studies.trainings, 5)
    over_seeds = functools.partial(functools.partial, simulated_studies.over_seeds)
    for scenario, seeds in itertools.product(SCENARIOS, SEEDS):
        case = f"difference, {seeds} seeds, {scenario.name}: paired t"
        yield Check(_HOLDS, case, COVERAGE, over_seeds(scenario, seeds, 240, 0.3, simulated_studies.holds), 2)
    large = Seeds("", (0.01, 0.01), 0.0)
    for seeds in (2, 3):
        case = f"difference, {seeds} seeds, 17,706 videos: paired t"
        yield Check(_HOLDS, case, COVERAGE, over_seeds(large, seeds, 17_706, 0.02, simulated_studies.holds))


def _flips(discordance: float, difference: float) -> str:
    return f"{100 * discordance:g}% flip, difference {100 * difference:g}"


def _designs() -> Iterator[Check]:
    for seeds in SEEDS:
        case = f"main effects, full factorial of 3 toggles, {seeds} seeds: Student's t, worst toggle"
        yield Check(
            _HOLDS, case, COVERAGE, functools.partial(simulated_studies.design_credits, "factorial", 3, 0, seeds), 2
        )
    for (toggles, orders), seeds in itertools.product(((6, 4), (7, 8), (8, 4)), SEEDS):
        case = f"Shapley credits, {toggles} toggles, {orders} orders a seed, {seeds} seeds: Student's t, worst toggle"
        figure = functools.partial(simulated_studies.design_credits, "shapley", toggles, orders, seeds)
        yield Check(_HOLDS, case, COVERAGE, figure, 2)


def _interactions() -> Iterator[Check]:
    union = "runs of additive, reverse, leave-one-out and Shapley together, 4 toggles"
    four = ("additive", "reverse", "leave-one-out", "shapley")
    three = " of which three act together"
    for case, names, toggles, orders, triple, target, times in (
        ("full factorial of 4 toggles", ("factorial",), 4, 0, 0.0, COVERAGE, 1),
        ("runs of a Shapley design of 6 toggles", ("shapley",), 6, 8, 0.0, COVERAGE, 2),
        (union, four, 4, 16, 0.0, COVERAGE, 1),
        (f"full factorial of 4 toggles{three}", ("factorial",), 4, 0, 0.004, CONSERVATIVE, 1),
        (f"{union}{three}", four, 4, 16, 0.004, CONSERVATIVE, 1),
    ):
        figure = functools.partial(simulated_studies.design_interactions, names, toggles, orders, triple)
        yield Check(_HOLDS, f"interactions, {case}, 3 seeds: least squares, worst pair", target, figure, times)


def _size() -> Iterator[Check]:
    for videos, discordance in ((240, 0.05), (240, 0.2), (1_000, 0.1), (17_706, 0.1)):
        case = f"difference, one seed, {videos:,} videos, {_flips(discordance, 0)}: exact McNemar test"
        figure = functools.partial(simulated_studies.flipped, videos, discordance, 0.0, simulated_studies.rejects)
        yield Check(_REJECTS, case, SIZE, figure, 5)
    for scenario, seeds in itertools.product(SCENARIOS, SEEDS):
        case = f"difference, {seeds} seeds, {scenario.name}: paired t"
        yield Check(_REJECTS, case, SIZE, functools.partial(simulated_studies.null_over_seeds, scenario, seeds), 5)


def _equivalence() -> Iterator[Check]:
    for videos, discordance, margin in (
        (240, 0.2, 0.05), (240, 0.01, 0.01), (240, 0.0185, 0.0185), (1_000, 0.1, 0.02), (1_000, 0.0039, 0.0039),
        (1_000, 0.006, 0.0039), (17_706, 0.1, 0.005), (17_706, 0.001, 0.001),
    ):  # fmt: skip
        case = f"equivalence at the margin, one seed, {videos:,} videos, {_flips(discordance, margin)}: Tango's TOST"
        figure = functools.partial(
            simulated_studies.flipped, videos, discordance, margin, simulated_studies.equal, margin=margin
        )
        yield Check(_REJECTS, case, SIZE, figure, 5)
    margins = np.geomspace(0.001, 0.05, 60).tolist()
    for videos in (240, 1_000, 17_706):
        where = f"{videos:,} videos, worst of margins from 0.1 to 5 points, any discordance"
        case = f"equivalence, one seed, {where}: Tango's TOST"
        yield Check(_REJECTS, case, SIZE, functools.partial(simulated_studies.size_of_equivalence, videos, margins), 0)
    for seeds in SEEDS:
        case = f"equivalence at the margin, {seeds} seeds: TOST"
        yield Check(_REJECTS, case, SIZE, functools.partial(simulated_studies.border_over_seeds, seeds), 5)


def _holm() -> Iterator[Check]:
    for seeds, videos in ((1, 240), (1, 1_000), (2, 240), (3, 60), (3, 240), (5, 240), (10, 240)):
        # Trainings of one seed each are alike, for videos, if no seed effect tells them apart.
        spread = 0.0 if seeds == 1 else 0.15
        case = f"any of 8 steps without effect, {seeds} seed{'s' * (seeds > 1)}, {videos:,} videos: Holm"
        yield Check(_REJECTS, case, SIZE, functools.partial(simulated_studies.holm, seeds, videos, spread), 5)
    for videos, spread in ((240, 0.15), (1_000, 0.15), (17_706, 0.02)):
        seed = f"that of its seed ({spread:g} logits)"
        case = f"any of 8 steps without effect but {seed}, 1 seed, {videos:,} videos: Holm"
        yield Check(_REJECTS, case, NONE, functools.partial(simulated_studies.holm, 1, videos, spread))


def _powers() -> Iterator[Check]:
    what = "power found less power predicted"
    for videos, discordance, difference in (
        (240, 0.1, 0.05), (240, 0.2, 0.05), (240, 0.2, 0.08), (1_000, 0.1, 0.02), (1_000, 0.1, 0.03),
        (1_000, 0.3, 0.05), (17_706, 0.02, 0.003), (17_706, 0.1, 0.003), (17_706, 0.1, 0.006),
    ):  # fmt: skip
        case = f"one seed, {videos:,} videos, {_flips(discordance, difference)}: exact McNemar test"
        yield Check(
            what, case, FORECAST, functools.partial(simulated_studies.mcnemar_forecast, videos, discordance, difference)
        )
    for seeds, shift in itertools.product(SEEDS, (0.2, 0.4, 0.8)):
        case = f"{seeds} seeds, better by {shift:g} logits: paired t"
        yield Check(what, case, FORECAST, functools.partial(simulated_studies.t_forecast, seeds, shift), 2)


def _sums() -> Iterator[Check]:
    what = "credits less total effect, largest"
    for toggles, orders in ((4, 16), (6, 4), (8, 4)):
        case = f"Shapley, {toggles} toggles, {f'{orders} orders a seed' if toggles > 4 else 'all orders'}"
        yield Check(what, case, SUM, functools.partial(simulated_studies.deviation, toggles, orders), chance=False)


def _warning() -> Check:
    """What a design with the same orders for all seeds would come to."""
    case = "Shapley credits, 8 toggles, 4 orders common to 10 seeds: Student's t, worst toggle"
    return Check(
        _HOLDS, case, NONE, functools.partial(simulated_studies.design_credits, "shapley", 8, 4, 10, common=True)
    )


def _effects_on_videos() -> Iterator[Check]:
    for videos in (240, 1_000):
        case = f"main effects, full factorial of 3 toggles, one seed, {videos:,} videos: Student's t, worst toggle"
        yield Check(_HOLDS, case, CONSERVATIVE, functools.partial(simulated_studies.effects_on_videos, videos), 2)
    alike = "main effect, full factorial, one seed, rows alike but for the toggle"
    few = functools.partial(functools.partial, simulated_studies.effect_of_few_flips)
    for videos, discordance, difference, target in (
        (240, 0.05, 0.0, CONSERVATIVE), (240, 0.05, 0.05, CONSERVATIVE), (240, 0.01, 0.0, CONSERVATIVE),
        (240, 0.01, 0.01, CONSERVATIVE), (1_000, 0.02, 0.01, CONSERVATIVE), (1_000, 0.005, 0.005, CONSERVATIVE),
    ):  # fmt: skip
        case = f"{alike}, {videos:,} videos, {_flips(discordance, difference)}: Student's t"
        yield Check(_HOLDS, case, target, few(videos, discordance, difference, simulated_studies.holds), 5)
    for videos, discordance in ((240, 0.02), (240, 0.05), (1_000, 0.01)):
        case = f"{alike}, {videos:,} videos, {_flips(discordance, 0)}: Student's t"
        yield Check(_REJECTS, case, SIZE, few(videos, discordance, 0.0, simulated_studies.rejects), 5)
    for videos, discordance, margin in ((240, 0.01, 0.01), (240, 0.034, 0.0225), (1_000, 0.0039, 0.0039)):
        case = f"equivalence at the margin, {alike}, {videos:,} videos, {_flips(discordance, margin)}: TOST"
        yield Check(_REJECTS, case, SIZE, few(videos, discordance, margin, simulated_studies.equal, margin=margin), 5)
