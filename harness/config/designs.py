"""Designs of an ablation: which combinations of toggles are trained, and how each toggle is credited from them.

Each design is a study with weights. A toggle's credit is a weighted sum of the accuracies of rows, and the weights add
up to zero. Designs differ in their rows and weights only, so one statistic serves them all.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from harness.config.studies import Row, Study
from harness.config.toggles import ToggleError, ToggleValue

Weights = Mapping[int, float]

# A factorial of more toggles than this has more rows than anyone trains.
MOST_FACTORS = 10


@dataclasses.dataclass(frozen=True)
class Design:
    """A study with the weights that turn accuracies of its rows into credits of toggles.

    Attributes:
      study: the rows; its name is the design's.
      credits: seed -> key of a toggle -> number of a row -> weight of its accuracy in the toggle's credit.
      note: one sentence for captions that says how a toggle is credited.
      scales: key of a toggle -> the scale at which it is tested, where that is not the base's: "depth 200, 48 frames".
      drawn: whether orders of toggles were drawn at random. One seed's credits then cannot tell how much
        other draws vary.
    """

    study: Study
    credits: Mapping[int, Mapping[str, Weights]]
    note: str
    scales: Mapping[str, str] = dataclasses.field(default_factory=dict)
    drawn: bool = False


@dataclasses.dataclass(frozen=True)
class Question:
    """The toggles, base and seeds for which the designs of a study are built.

    Attributes:
      study: the study as its file defines it.
      factors: the toggles, in the order in which they are added.
      base: toggles and values of scaling axes that every row has.
      seeds: the seeds that rows are trained with.
      orderings: number of orderings that each seed draws in the Shapley design, an even number.
    """

    study: Study
    factors: tuple[ToggleValue, ...]
    base: tuple[ToggleValue, ...]
    seeds: tuple[int, ...]
    orderings: int

    @property
    def own(self) -> bool:
        """Whether the factors and the base are those of the study itself."""
        return self.factors == self.study.factors and self.base == self.study.base


def of_study(question: Question) -> Design:
    """Returns the study's own rows as a design that credits a toggle with the step of the row that adds it."""
    study = question.study
    before = {row.number: row for row in study.rows}
    credits, scales = {}, {}
    for row in study.rows:
        added = set(row.applied) - set(before[row.follows].applied) if row.follows in before else set()
        if len(added) == 1:
            (added_toggle,) = added
            credits[added_toggle.toggle.key] = _step(row.number, row.follows or 0)
            scales[added_toggle.toggle.key] = _other_scale(row, question.base)
    note = "additive: the step of the row that adds the toggle."
    return Design(
        study, dict.fromkeys(question.seeds, credits), note, {key: scale for key, scale in scales.items() if scale}
    )


def _other_scale(row: Row, base: tuple[ToggleValue, ...]) -> str:
    """Returns the labels of the row's scaling axes whose values are not the base's."""
    return ", ".join(axis.label for axis in row.applied if axis.toggle.axis and axis not in base)


def additive(question: Question) -> Design:
    """Adds one toggle after the other in the order given; uses the study's own rows if it is the study's question."""
    if question.own:
        return of_study(question)
    return _chain(question, "additive", question.factors, "in the order given", "additive: the step of adding it.")


def reverse(question: Question) -> Design:
    """Adds one toggle after the other, in reverse order."""
    note = "reverse: the step of adding it, the last toggle of the order first."
    return _chain(question, "reverse", question.factors[::-1], "in reverse order", note)


def one_at_a_time(question: Question) -> Design:
    """Adds each toggle alone to the baseline."""
    subsets = [(), *((factor,) for factor in question.factors)]
    rows = _rows(question, subsets, follows=[None, *[1] * len(question.factors)])
    credits = {factor.toggle.key: _step(number, 1) for number, factor in enumerate(question.factors, start=2)}
    return _design(question, "one-at-a-time", rows, "each toggle alone", credits, "one-at-a-time: alone, above the "
                   "baseline.")  # fmt: skip


def leave_one_out(question: Question) -> Design:
    """Removes each toggle alone from the full recipe; its credit is the accuracy that is lost."""
    full = question.factors
    subsets = [full, *(tuple(other for other in full if other != factor) for factor in full)]
    rows = _rows(question, subsets, follows=[None, *[1] * len(full)])
    credits = {factor.toggle.key: _step(1, number) for number, factor in enumerate(full, start=2)}
    return _design(question, "leave-one-out", rows, "the full recipe without each toggle", credits,
                   "leave-one-out: what the full recipe loses without it.")  # fmt: skip


def factorial(question: Question) -> Design:
    """Trains every combination of the toggles; a toggle's credit is its main effect."""
    from pydoe import ff2n

    note = "factorial: its main effect, the mean with it less the mean without it."
    return _factorial(question, "factorial", ff2n(_few(question)), "all combinations", note)


def fractional_factorial(question: Question) -> Design:
    """Trains a fraction of resolution IV of all combinations.

    Interactions of two toggles do not bias main effects in it, but may be confounded with each other.
    """
    from pydoe import fracfact_by_res

    count = _few(question)
    signs = fracfact_by_res(count, 4) if count > 1 else [[-1.0], [1.0]]
    aliases = _aliases(signs, question.factors)
    note = "fractional-factorial: its main effect in a fraction of resolution IV"
    note += f", where these interactions cannot be told apart: {'; '.join(aliases)}." if aliases else "."
    return _factorial(question, "fractional-factorial", signs, "a fraction of resolution IV", note)


def shapley(question: Question) -> Design:
    """Credits a toggle with the mean step of adding it, over all orders or over orders that each seed draws.

    Orders are drawn in pairs of an order and its reverse, so that interactions of two toggles cancel in every pair.
    Each seed draws its own orders. The credits of several seeds then vary with the orders too, and an interval over
    seeds covers the choice of orders. Where training every combination costs no more runs, all orders are used.
    Source: Castro, Gomez and Tejada, 2009, "Polynomial calculation of the Shapley value based on sampling"; Mitchell
    et al., 2022, "Sampling permutations for Shapley value estimation" (antithetic pairs).
    """
    count = len(question.factors)
    if 2**count <= question.orderings * (count - 1) + 2:
        return _exact_shapley(question)
    orders = {seed: _orders(question.factors, seed, question.orderings) for seed in question.seeds}
    subsets = _distinct(
        prefix for seed_orders in orders.values() for order in seed_orders for prefix in _prefixes(order)
    )
    seeds = [tuple(seed for seed, seed_orders in orders.items() if _visits(seed_orders, subset)) for subset in subsets]
    rows = _rows(question, [_in_order(subset, question.factors) for subset in subsets], seeds=seeds)
    numbers = {subset: number for number, subset in enumerate(subsets, start=1)}
    credits = {seed: _mean_steps(seed_orders, numbers) for seed, seed_orders in orders.items()}
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
    """Builds the designs of these names, each once.

    Raises:
      ToggleError: there are no factors, a factor is given twice or is in the base too, a scaling axis is at its
        default, or there are too many factors for a factorial.
    """
    keys = [factor.toggle.key for factor in (*question.base, *question.factors)]
    for factor in question.factors:
        if factor.toggle.axis and factor.value == factor.toggle.default:
            raise ToggleError(f"{factor}: every run has it, unless another value is given")
    if not question.factors:
        raise ToggleError(f"{question.study.name}: no toggle to ask about")
    for key in keys:
        if keys.count(key) > 1:
            raise ToggleError(f"toggle {key}: is given twice, or in the base and among the toggles to ask about")
    return tuple(DESIGNS[name](question) for name in dict.fromkeys(names))


def refuse_idle(designs: Sequence[Design], wanted: Mapping[str, Mapping[int, Mapping[int, str]]]) -> None:
    """Refuses a design in which two rows are the same run, because a toggle has the value of the baseline.

    Args:
      designs: the designs.
      wanted: name of a design's study -> row number -> seed -> id of the run.

    Raises:
      ToggleError: two rows are the same run; the message names them.
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
    """Returns the number of factors; refuses more than :data:`MOST_FACTORS`."""
    count = len(question.factors)
    if count > MOST_FACTORS:
        raise ToggleError(
            f"a factorial of {count} toggles has up to {2**count:,} rows: name at most {MOST_FACTORS} with --factors"
        )
    return count


def _chain(question: Question, name: str, order: Sequence[ToggleValue], how: str, note: str) -> Design:
    prefixes = _prefixes(order)
    rows = _rows(question, prefixes, follows=[None, *range(1, len(prefixes))])
    credits = {factor.toggle.key: _step(number, number - 1) for number, factor in enumerate(order, start=2)}
    return _design(question, name, rows, how, credits, note)


def _factorial(question: Question, name: str, signs: Iterable[Iterable[float]], how: str, note: str) -> Design:
    # Rows with fewer toggles come first, so that the baseline is the first row and the full recipe the last.
    lines = sorted([tuple(line) for line in signs], key=lambda line: (sum(line), [-sign for sign in line]))
    chosen = [tuple(factor for factor, sign in zip(question.factors, line, strict=True) if sign > 0) for line in lines]
    credits = {
        factor.toggle.key: {number: line[position] * 2 / len(lines) for number, line in enumerate(lines, start=1)}
        for position, factor in enumerate(question.factors)
    }
    return _design(question, name, _rows(question, chosen), how, credits, note)


def _aliases(signs: Iterable[Iterable[float]], factors: Sequence[ToggleValue]) -> list[str]:
    """Lists interactions of two toggles that share a column of the design: "LS x SD = WD x SE"."""
    groups: dict[tuple[float, ...], list[str]] = {}
    columns = list(zip(*signs, strict=True))
    for (factor, first), (other, second) in itertools.combinations(zip(factors, columns, strict=True), 2):
        column = tuple(a * b for a, b in zip(first, second, strict=True))
        groups.setdefault(column, []).append(f"{factor.toggle.label} x {other.toggle.label}")
    return [" = ".join(pairs) for pairs in groups.values() if len(pairs) > 1]


def _exact_shapley(question: Question) -> Design:
    factors, count = question.factors, len(question.factors)
    subsets = [subset for size in range(count + 1) for subset in itertools.combinations(factors, size)]
    numbers = {frozenset(subset): number for number, subset in enumerate(subsets, start=1)}
    credits = {}
    for factor in factors:
        weights: dict[int, float] = {}
        for subset in subsets:
            if factor not in subset:
                share = 1 / (count * math.comb(count - 1, len(subset)))
                weights[numbers[frozenset((*subset, factor))]] = share
                weights[numbers[frozenset(subset)]] = -share
        credits[factor.toggle.key] = weights
    note = "shapley: the mean step of adding it over all orders."
    return _design(question, "shapley", _rows(question, subsets), "all orders", credits, note)


def _orders(factors: Sequence[ToggleValue], seed: int, count: int) -> list[tuple[ToggleValue, ...]]:
    """Returns `count` orders of the toggles, in pairs of an order and its reverse; the same for the same seed."""
    orders = []
    for pair in range(count // 2):
        # Sorting by a hash gives the same order whatever the version of a random number library.
        order = tuple(
            sorted(factors, key=lambda factor: hashlib.sha256(f"{seed} {pair} {factor.toggle.key}".encode()).digest())
        )
        orders += [order, order[::-1]]
    return orders


def _mean_steps(
    orders: Sequence[Sequence[ToggleValue]], numbers: Mapping[frozenset[ToggleValue], int]
) -> Mapping[str, Weights]:
    """Returns the weights of each toggle's mean step over the orders."""
    credits: dict[str, dict[int, float]] = {}
    for order in orders:
        for before, after in itertools.pairwise(map(frozenset, _prefixes(order))):
            (added,) = after - before
            weights = credits.setdefault(added.toggle.key, {})
            for subset, sign in ((after, 1), (before, -1)):
                weights[numbers[subset]] = weights.get(numbers[subset], 0.0) + sign / len(orders)
    return credits


def _prefixes(order: Sequence[ToggleValue]) -> list[tuple[ToggleValue, ...]]:
    return [tuple(order[:length]) for length in range(len(order) + 1)]


def _distinct(subsets: Iterable[Iterable[ToggleValue]]) -> list[frozenset[ToggleValue]]:
    """Returns each subset once, smaller ones first; subsets of equal size keep their order."""
    return sorted(dict.fromkeys(map(frozenset, subsets)), key=len)


def _visits(orders: Sequence[Sequence[ToggleValue]], subset: frozenset[ToggleValue]) -> bool:
    return any(frozenset(order[: len(subset)]) == subset for order in orders)


def _in_order(subset: Iterable[ToggleValue], factors: Sequence[ToggleValue]) -> tuple[ToggleValue, ...]:
    return tuple(factor for factor in factors if factor in frozenset(subset))


def _step(after: int, before: int) -> dict[int, float]:
    return {after: 1.0, before: -1.0}


def _rows(
    question: Question,
    subsets: Sequence[Sequence[ToggleValue]],
    follows: Sequence[int | None] | None = None,
    seeds: Sequence[tuple[int, ...]] | None = None,
) -> tuple[Row, ...]:
    """Makes a row of each subset. A row that the study has too keeps its model name and its published number."""
    study_rows = {frozenset(row.applied): row for row in question.study.rows}
    rows = []
    for index, subset in enumerate(subsets):
        applied = (*question.base, *subset)
        known = study_rows.get(frozenset(applied))
        rows.append(
            Row(
                number=index + 1,
                model=known.model if known else _end(subset, question),
                applied=applied,
                published=known.published if known else None,
                follows=follows[index] if follows else None,
                seeds=seeds[index] if seeds else None,
            )
        )
    return tuple(rows)


def _end(subset: Sequence[ToggleValue], question: Question) -> str:
    """Names the empty subset "baseline" and the full one "full recipe"; returns "" for any other."""
    return {0: "baseline", len(question.factors): "full recipe"}.get(len(subset), "")


def _study(question: Question, name: str, rows: tuple[Row, ...], how: str) -> Study:
    study = question.study
    toggles = (*(applied.toggle for applied in question.base), *(factor.toggle for factor in question.factors))
    ordered = [toggle for toggle in study.toggles if toggle in toggles]
    ordered += [toggle for toggle in toggles if toggle not in ordered]
    return dataclasses.replace(study, name=name, title=f"{study.title}: {how}", toggles=tuple(ordered), rows=rows)


def _design(
    question: Question, name: str, rows: tuple[Row, ...], how: str, credits: Mapping[str, Weights], note: str
) -> Design:
    return Design(_study(question, name, rows, how), dict.fromkeys(question.seeds, credits), note)
