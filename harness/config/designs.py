"""Designs: the same toggles asked in other ways; each is a study, and says what of its rows a toggle is credited with.

A toggle's credit is a weighted sum of rows' accuracies, the weights adding up to zero. Which weights is all that tells
the designs apart, so one statistic serves them all.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from harness.config.studies import Row, Study
from harness.config.toggles import Applied, ToggleError

Weights = Mapping[int, float]

# A factorial of more toggles than this has more rows than anyone trains.
MOST_FACTORS = 10


@dataclasses.dataclass(frozen=True)
class Design:
    """A way to ask what toggles are worth.

    Attributes:
      study: the rows; its name is the design's.
      credits: seed -> key of a toggle -> number of a row -> weight of its accuracy in the toggle's credit.
      note: how a toggle is credited: one sentence for captions.
      scales: key of a toggle -> the scale at which it was asked, where that is not the base's: "depth 200, 48 frames".
      drawn: whether orders were drawn at random, so that one seed's credits cannot tell how far others would lie.
    """

    study: Study
    credits: Mapping[int, Mapping[str, Weights]]
    note: str
    scales: Mapping[str, str] = dataclasses.field(default_factory=dict)
    drawn: bool = False


@dataclasses.dataclass(frozen=True)
class Question:
    """What the designs of a study are asked about.

    Attributes:
      study: the study as its file has it.
      factors: the toggles, in the order in which they are added.
      base: what every row has: toggles, or a scale.
      seeds: the seeds that rows are trained with.
      orderings: for the Shapley design: how many orderings each seed draws, an even number.
    """

    study: Study
    factors: tuple[Applied, ...]
    base: tuple[Applied, ...]
    seeds: tuple[int, ...]
    orderings: int

    @property
    def own(self) -> bool:
        """Whether this is what the study's own rows ask."""
        return self.factors == self.study.factors and self.base == self.study.base


def of_study(question: Question) -> Design:
    """The study's own rows: a toggle is credited with the step of the row that adds it."""
    study = question.study
    before = {row.number: row for row in study.rows}
    credits, scales = {}, {}
    for row in study.rows:
        added = set(row.applied) - set(before[row.follows].applied) if row.follows in before else set()
        if len(added) == 1:
            (one,) = added
            credits[one.toggle.key] = _step(row.number, row.follows or 0)
            scales[one.toggle.key] = _other_scale(row, question.base)
    note = "additive: the step of the row that adds the toggle."
    return Design(study, dict.fromkeys(question.seeds, credits), note, {key: at for key, at in scales.items() if at})


def _other_scale(row: Row, base: tuple[Applied, ...]) -> str:
    return ", ".join(one.label for one in row.applied if one.toggle.axis and one not in base)


def additive(question: Question) -> Design:
    """Adds one toggle after the other in the order given; the study's own rows where that is what they do."""
    if question.own:
        return of_study(question)
    return _chain(question, "additive", question.factors, "in the order given", "additive: the step of adding it.")


def reverse(question: Question) -> Design:
    """Adds one toggle after the other, the last of the order first."""
    note = "reverse: the step of adding it, the last toggle of the order first."
    return _chain(question, "reverse", question.factors[::-1], "in reverse order", note)


def one_at_a_time(question: Question) -> Design:
    """Adds each toggle alone to the baseline."""
    subsets = [(), *((one,) for one in question.factors)]
    rows = _rows(question, subsets, follows=[None, *[1] * len(question.factors)])
    credits = {one.toggle.key: _step(number, 1) for number, one in enumerate(question.factors, start=2)}
    return _design(question, "one-at-a-time", rows, "each toggle alone", credits, "one-at-a-time: alone, above the "
                   "baseline.")  # fmt: skip


def leave_one_out(question: Question) -> Design:
    """Takes each toggle alone out of the full recipe; its credit is what is lost."""
    full = question.factors
    subsets = [full, *(tuple(other for other in full if other != one) for one in full)]
    rows = _rows(question, subsets, follows=[None, *[1] * len(full)])
    credits = {one.toggle.key: _step(1, number) for number, one in enumerate(full, start=2)}
    return _design(question, "leave-one-out", rows, "the full recipe without each toggle", credits,
                   "leave-one-out: what the full recipe loses without it.")  # fmt: skip


def factorial(question: Question) -> Design:
    """Every combination of the toggles; a toggle's credit is its main effect."""
    from pydoe import ff2n

    note = "factorial: its main effect, the mean with it less the mean without it."
    return _factorial(question, "factorial", ff2n(_few(question)), "all combinations", note)


def fractional_factorial(question: Question) -> Design:
    """A fraction of resolution IV: main effects are free of interactions of two toggles, those of one another not."""
    from pydoe import fracfact_by_res

    count = _few(question)
    signs = fracfact_by_res(count, 4) if count > 1 else [[-1.0], [1.0]]
    aliases = _aliases(signs, question.factors)
    note = "fractional-factorial: its main effect in a fraction of resolution IV"
    note += f", where these interactions cannot be told apart: {'; '.join(aliases)}." if aliases else "."
    return _factorial(question, "fractional-factorial", signs, "a fraction of resolution IV", note)


def shapley(question: Question) -> Design:
    """Mean step of adding a toggle over all orders, or over orders drawn by each seed.

    Orders are drawn in pairs, each with its own reverse: the interactions of two toggles then cancel in every pair.
    Each seed draws its own, so that the credits of several seeds vary with the orders as well, and an interval over
    seeds covers the choice of orders. Where every combination would cost no more runs, all orders are taken.
    Source: Castro, Gomez and Tejada, 2009, "Polynomial calculation of the Shapley value based on sampling"; Mitchell
    et al., 2022, "Sampling permutations for Shapley value estimation" (antithetic pairs).
    """
    count = len(question.factors)
    if 2**count <= question.orderings * (count - 1) + 2:
        return _exact_shapley(question)
    orders = {seed: _orders(question.factors, seed, question.orderings) for seed in question.seeds}
    subsets = _distinct(prefix for own in orders.values() for order in own for prefix in _prefixes(order))
    seeds = [tuple(s for s, own in orders.items() if _visits(own, subset)) for subset in subsets]
    rows = _rows(question, [_in_order(subset, question.factors) for subset in subsets], seeds=seeds)
    numbers = {subset: number for number, subset in enumerate(subsets, start=1)}
    credits = {seed: _mean_steps(own, numbers) for seed, own in orders.items()}
    study = _study(question, "shapley", rows, f"{question.orderings} orders drawn by each seed")
    note = f"shapley: the mean step of adding it over {question.orderings} orders that each seed draws for itself."
    return Design(study, credits, note, drawn=True)


DESIGNS: Mapping[str, Callable[[Question], Design]] = {
    "additive": additive,
    "reverse": reverse,
    "one-at-a-time": one_at_a_time,
    "leave-one-out": leave_one_out,
    "factorial": factorial,
    "fractional-factorial": fractional_factorial,
    "shapley": shapley,
}


def build(names: Iterable[str], question: Question) -> tuple[Design, ...]:
    """The designs of some names, each once.

    Raises:
      ToggleError: no toggle to ask about, one that is in the base already or twice, or too many for a factorial.
    """
    keys = [one.toggle.key for one in (*question.base, *question.factors)]
    for one in question.factors:
        if one.toggle.axis and one.value == one.toggle.default:
            raise ToggleError(f"{one}: every run has it, unless another value is given")
    if not question.factors:
        raise ToggleError(f"{question.study.name}: no toggle to ask about")
    for key in keys:
        if keys.count(key) > 1:
            raise ToggleError(f"toggle {key}: is given twice, or in the base and among the toggles to ask about")
    return tuple(DESIGNS[name](question) for name in dict.fromkeys(names))


def refuse_idle(designs: Sequence[Design], wanted: Mapping[str, Mapping[int, Mapping[int, str]]]) -> None:
    """Refuses a design of which two rows are one run: a toggle at that value changes nothing.

    Args:
      designs: the designs.
      wanted: name of a design's study -> row number -> seed -> id of the run.

    Raises:
      ToggleError: naming the rows.
    """
    for design in designs:
        seen: dict[str, int] = {}
        for number, runs in wanted[design.study.name].items():
            for run_id in runs.values():
                if seen.setdefault(run_id, number) != number:
                    raise ToggleError(
                        f"{design.study.name}: rows {seen[run_id]} and {number} are the same run: one of the toggles "
                        "has the value of the baseline"
                    )


def _few(question: Question) -> int:
    count = len(question.factors)
    if count > MOST_FACTORS:
        raise ToggleError(
            f"a factorial of {count} toggles has up to {2**count:,} rows: name at most {MOST_FACTORS} with --factors"
        )
    return count


def _chain(question: Question, name: str, order: Sequence[Applied], how: str, note: str) -> Design:
    prefixes = _prefixes(order)
    rows = _rows(question, prefixes, follows=[None, *range(1, len(prefixes))])
    credits = {one.toggle.key: _step(number, number - 1) for number, one in enumerate(order, start=2)}
    return _design(question, name, rows, how, credits, note)


def _factorial(question: Question, name: str, signs: Iterable[Iterable[float]], how: str, note: str) -> Design:
    # As many toggles as a row has, so that the baseline comes first and the full recipe last.
    lines = sorted([tuple(line) for line in signs], key=lambda line: (sum(line), [-sign for sign in line]))
    chosen = [tuple(one for one, sign in zip(question.factors, line, strict=True) if sign > 0) for line in lines]
    credits = {
        one.toggle.key: {number: line[place] * 2 / len(lines) for number, line in enumerate(lines, start=1)}
        for place, one in enumerate(question.factors)
    }
    return _design(question, name, _rows(question, chosen), how, credits, note)


def _aliases(signs: Iterable[Iterable[float]], factors: Sequence[Applied]) -> list[str]:
    """Which interactions of two toggles have one column in the design: "LS x SD = WD x SE"."""
    groups: dict[tuple[float, ...], list[str]] = {}
    columns = list(zip(*signs, strict=True))
    for (one, first), (other, second) in itertools.combinations(zip(factors, columns, strict=True), 2):
        column = tuple(a * b for a, b in zip(first, second, strict=True))
        groups.setdefault(column, []).append(f"{one.toggle.label} x {other.toggle.label}")
    return [" = ".join(pairs) for pairs in groups.values() if len(pairs) > 1]


def _exact_shapley(question: Question) -> Design:
    factors, count = question.factors, len(question.factors)
    subsets = [subset for size in range(count + 1) for subset in itertools.combinations(factors, size)]
    numbers = {frozenset(subset): number for number, subset in enumerate(subsets, start=1)}
    credits = {}
    for one in factors:
        weights: dict[int, float] = {}
        for subset in subsets:
            if one not in subset:
                share = 1 / (count * math.comb(count - 1, len(subset)))
                weights[numbers[frozenset((*subset, one))]] = share
                weights[numbers[frozenset(subset)]] = -share
        credits[one.toggle.key] = weights
    note = "shapley: the mean step of adding it over all orders."
    return _design(question, "shapley", _rows(question, subsets), "all orders", credits, note)


def _orders(factors: Sequence[Applied], seed: int, count: int) -> list[tuple[Applied, ...]]:
    """So many orders of the toggles, in pairs of one and its reverse; a function of the seed alone."""
    orders = []
    for pair in range(count // 2):
        # Sorting by a hash draws an order that no version of a library of random numbers can change.
        order = tuple(
            sorted(factors, key=lambda one: hashlib.sha256(f"{seed} {pair} {one.toggle.key}".encode()).digest())
        )
        orders += [order, order[::-1]]
    return orders


def _mean_steps(
    orders: Sequence[Sequence[Applied]], numbers: Mapping[frozenset[Applied], int]
) -> Mapping[str, Weights]:
    """Weights of the mean step of each toggle over some orders."""
    credits: dict[str, dict[int, float]] = {}
    for order in orders:
        for before, after in itertools.pairwise(map(frozenset, _prefixes(order))):
            (one,) = after - before
            weights = credits.setdefault(one.toggle.key, {})
            for subset, sign in ((after, 1), (before, -1)):
                weights[numbers[subset]] = weights.get(numbers[subset], 0.0) + sign / len(orders)
    return credits


def _prefixes(order: Sequence[Applied]) -> list[tuple[Applied, ...]]:
    return [tuple(order[:length]) for length in range(len(order) + 1)]


def _distinct(subsets: Iterable[Iterable[Applied]]) -> list[frozenset[Applied]]:
    """Each once, the smaller first; equal sizes in the order in which they came."""
    return sorted(dict.fromkeys(map(frozenset, subsets)), key=len)


def _visits(orders: Sequence[Sequence[Applied]], subset: frozenset[Applied]) -> bool:
    return any(frozenset(order[: len(subset)]) == subset for order in orders)


def _in_order(subset: Iterable[Applied], factors: Sequence[Applied]) -> tuple[Applied, ...]:
    return tuple(one for one in factors if one in frozenset(subset))


def _step(after: int, before: int) -> dict[int, float]:
    return {after: 1.0, before: -1.0}


def _rows(
    question: Question,
    subsets: Sequence[Sequence[Applied]],
    follows: Sequence[int | None] | None = None,
    seeds: Sequence[tuple[int, ...]] | None = None,
) -> tuple[Row, ...]:
    """Rows of some toggles each; a row that the study has too keeps its name and the paper's numbers."""
    own = {frozenset(row.applied): row for row in question.study.rows}
    rows = []
    for place, subset in enumerate(subsets):
        applied = (*question.base, *subset)
        known = own.get(frozenset(applied))
        rows.append(
            Row(
                number=place + 1,
                model=known.model if known else _end(subset, question),
                applied=applied,
                published=known.published if known else None,
                follows=follows[place] if follows else None,
                seeds=seeds[place] if seeds else None,
            )
        )
    return tuple(rows)


def _end(subset: Sequence[Applied], question: Question) -> str:
    """What the two ends of every order are called; nothing for what lies between."""
    return {0: "baseline", len(question.factors): "full recipe"}.get(len(subset), "")


def _study(question: Question, name: str, rows: tuple[Row, ...], how: str) -> Study:
    study = question.study
    toggles = (*(one.toggle for one in question.base), *(one.toggle for one in question.factors))
    ordered = [toggle for toggle in study.toggles if toggle in toggles]
    ordered += [toggle for toggle in toggles if toggle not in ordered]
    return dataclasses.replace(study, name=name, title=f"{study.title}: {how}", toggles=tuple(ordered), rows=rows)


def _design(
    question: Question, name: str, rows: tuple[Row, ...], how: str, credits: Mapping[str, Weights], note: str
) -> Design:
    return Design(_study(question, name, rows, how), dict.fromkeys(question.seeds, credits), note)
