"""Designs: which rows they have, and what a toggle is credited with; against accuracies whose effects are known."""

import itertools
import math

import pytest

from ablations.table2 import STUDY
from ablations.toggles import DEPTH, FRAMES, LS, SD, TOGGLES
from harness.config import designs
from harness.config.designs import DESIGNS, Question
from harness.config.toggles import ToggleError

KEYS = ("ls", "sd", "wd", "ep", "se")
SEEDS = (0, 1, 2)


def question(keys=KEYS, orderings=4, base=(), seeds=SEEDS):
    return Question(STUDY, tuple(TOGGLES[key].at() for key in keys), base, seeds, orderings)


def built(name, **asked):
    (design,) = designs.build([name], question(**asked))
    return design


def keys_of(row):
    return frozenset(one.toggle.key for one in row.applied if not one.toggle.axis)


def credit(design, key, value, seed=0):
    """The toggle's credit where a set of toggles has an accuracy."""
    rows = {row.number: row for row in design.study.rows}
    return sum(weight * value(keys_of(rows[number])) for number, weight in design.credits[seed][key].items())


EFFECTS = dict(zip(KEYS, (1.0, -2.0, 0.5, 4.0, 0.0), strict=True))


def additive_value(present):
    return 50 + sum(EFFECTS[key] for key in present)


def value(present):
    """With interactions of two toggles and of three."""
    pairs = {("ls", "sd"): 3.0, ("wd", "ep"): -1.5, ("ls", "se"): 0.7}
    twos = sum(size for pair, size in pairs.items() if set(pair) <= present)
    return additive_value(present) + twos + 2.5 * ({"ls", "wd", "se"} <= present)


def shapley_by_hand(key):
    orders = list(itertools.permutations(KEYS))
    steps = [value({*order[: order.index(key) + 1]}) - value({*order[: order.index(key)]}) for order in orders]
    return sum(steps) / len(orders)


@pytest.mark.parametrize("name", DESIGNS)
def test_every_design_finds_effects_that_add_up(name):
    design = built(name)
    assert design.study.name == name
    for seed, key in itertools.product(SEEDS, KEYS):
        assert credit(design, key, additive_value, seed) == pytest.approx(EFFECTS[key], abs=1e-12)


@pytest.mark.parametrize("name", DESIGNS)
def test_weights_of_a_credit_add_up_to_nothing_and_rows_have_the_seeds_they_need(name):
    design = built(name, keys=tuple(TOGGLES)[:8])
    rows = {row.number: row for row in design.study.rows}
    assert [row.number for row in design.study.rows] == list(range(1, len(rows) + 1))
    assert len({frozenset(row.applied) for row in rows.values()}) == len(rows)
    for seed, credits in design.credits.items():
        for weights in credits.values():
            assert sum(weights.values()) == pytest.approx(0, abs=1e-12)
            assert all(rows[number].seeds is None or seed in rows[number].seeds for number in weights)


def test_orders_and_their_ends():
    additive, reverse = built("additive"), built("reverse")
    assert [keys_of(row) for row in additive.study.rows] == [frozenset(KEYS[:length]) for length in range(6)]
    assert [keys_of(row) for row in reverse.study.rows] == [frozenset(KEYS[5 - length :]) for length in range(6)]
    assert [row.follows for row in reverse.study.rows] == [None, 1, 2, 3, 4, 5]
    # Label smoothing interacts with what was added before it: 3.0 with sd, 0.7 with se, 2.5 with wd and se.
    assert credit(additive, "ls", value) == 1.0
    assert credit(reverse, "ls", value) == pytest.approx(1.0 + 3.0 + 0.7 + 2.5)


def test_one_at_a_time_and_leave_one_out():
    alone, without = built("one-at-a-time"), built("leave-one-out")
    assert [keys_of(row) for row in alone.study.rows] == [frozenset(), *(frozenset({key}) for key in KEYS)]
    assert [keys_of(row) for row in without.study.rows] == [frozenset(KEYS), *(frozenset(KEYS) - {key} for key in KEYS)]
    assert credit(alone, "wd", value) == 0.5
    assert credit(without, "wd", value) == pytest.approx(0.5 - 1.5 + 2.5)


def test_factorial_main_effects():
    design = built("factorial")
    assert {keys_of(row) for row in design.study.rows} == {
        frozenset(own) for size in range(6) for own in itertools.combinations(KEYS, size)
    }
    assert (keys_of(design.study.rows[0]), keys_of(design.study.rows[-1])) == (frozenset(), frozenset(KEYS))
    # Half of each interaction of two that it is in, a quarter of the one of three.
    assert credit(design, "ls", value) == pytest.approx(1.0 + 3.0 / 2 + 0.7 / 2 + 2.5 / 4)


def test_a_fraction_keeps_main_effects_free_of_pairs():
    design = built("fractional-factorial", keys=("ls", "sd", "wd", "ep"))
    assert len(design.study.rows) == 8
    assert "LS x SD = WD x 350-EP; LS x WD = SD x 350-EP; LS x 350-EP = SD x WD." in design.note

    def pairs(present):
        return 7.0 * ({"ls", "sd"} <= present) - 3.0 * ({"wd", "ep"} <= present)

    assert credit(design, "ls", pairs) == pytest.approx(7.0 / 2)
    assert credit(design, "ep", pairs) == pytest.approx(-3.0 / 2)


@pytest.mark.parametrize("name", ["factorial", "fractional-factorial"])
def test_a_factorial_of_one_toggle_is_its_step(name):
    design = built(name, keys=("ls",))
    assert credit(design, "ls", additive_value) == 1.0


def test_shapley_over_all_orders_is_exact():
    design = built("shapley", orderings=8)
    assert len(design.study.rows) == 32
    for key in KEYS:
        assert credit(design, key, value) == pytest.approx(shapley_by_hand(key))


def test_drawn_orders_pair_with_their_reverse_so_that_pairs_of_toggles_cancel():
    design = built("shapley", orderings=2)

    def pairs(present):
        return additive_value(present) + 3.0 * ({"ls", "sd"} <= present) - 1.5 * ({"wd", "ep"} <= present)

    # Shapley's share of an interaction of two is a half for each.
    for seed in SEEDS:
        assert credit(design, "ls", pairs, seed) == pytest.approx(1.0 + 1.5)
        assert credit(design, "ep", pairs, seed) == pytest.approx(4.0 - 0.75)


@pytest.mark.parametrize("orderings", [2, 4, 8])
def test_shapley_credits_sum_to_the_whole_effect(orderings):
    design = built("shapley", orderings=orderings)
    for seed in SEEDS:
        total = sum(credit(design, key, value, seed) for key in KEYS)
        assert total == pytest.approx(value(frozenset(KEYS)) - value(frozenset()))


def test_each_seed_draws_orders_of_its_own_and_keeps_them_when_seeds_are_added():
    few, more = built("shapley", seeds=(0, 1)), built("shapley", seeds=(0, 1, 2, 3))
    assert few.credits[0] != few.credits[1]
    for seed in (0, 1):
        own = [{keys_of(row) for row in one.study.rows if seed in (row.seeds or ())} for one in (few, more)]
        assert own[0] == own[1]


def test_sampled_shapley_is_right_on_average():
    seeds = tuple(range(400))
    design = built("shapley", orderings=2, seeds=seeds)
    for key in KEYS:
        found = [credit(design, key, value, seed) for seed in seeds]
        mean = sum(found) / len(found)
        error = math.sqrt(sum((one - mean) ** 2 for one in found) / (len(found) - 1) / len(found))
        assert abs(mean - shapley_by_hand(key)) < 4 * error + 1e-9


def test_the_study_is_its_own_additive_design():
    own = Question(STUDY, STUDY.factors, STUDY.base, (0,), 4)
    (design,) = designs.build(["additive"], own)
    assert design.study is STUDY
    assert set(design.credits[0]) == {one.toggle.key for one in STUDY.factors}
    assert design.credits[0]["ls"] == {2: 1.0, 1: -1.0}
    # Row 9 changes depth and frames, no toggle; row 10 asks RandAugment there.
    assert design.credits[0]["ra"] == {10: 1.0, 9: -1.0}
    assert design.scales == {"ra": "depth 200, 48 frames"}


def test_rows_that_the_paper_has_answer_to_it():
    own = Question(STUDY, STUDY.factors, STUDY.base, (0,), 4)
    reverse, without = designs.build(["reverse", "leave-one-out"], own)
    assert [row.published for row in reverse.study.rows if row.published] == [1]
    assert [(row.number, row.published, row.model) for row in without.study.rows if row.published] == [
        (9, 8, "R3D-RS-50")
    ]


def test_a_base_is_in_every_row_and_added_toggles_are_asked_too():
    design = built("leave-one-out", keys=("ls", "sd"), base=(DEPTH.at(101), FRAMES.at(48)))
    assert all({DEPTH.at(101), FRAMES.at(48)} <= set(row.applied) for row in design.study.rows)
    assert [one.toggle.key for one in STUDY.plus([TOGGLES["ema"].at()]).factors][-1] == "ema"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"keys": ()}, "no toggle to ask about"),
        ({"keys": ("ls", "sd", "ls")}, "toggle ls: is given twice"),
        ({"keys": ("ls", "depth")}, "depth=50: every run has it, unless another value is given"),
        ({"base": (SD.at(0.1),)}, "toggle sd: is given twice, or in the base"),
    ],
)
def test_questions_that_make_no_sense_are_refused(asked, message):
    with pytest.raises(ToggleError, match=message):
        built("reverse", **asked)


def test_a_factorial_of_too_many_toggles_is_refused_by_its_rows(monkeypatch):
    monkeypatch.setattr(designs, "MOST_FACTORS", 4)
    with pytest.raises(ToggleError, match=r"a factorial of 5 toggles has up to 32 rows: .* --factors"):
        built("factorial")


def test_a_toggle_that_changes_nothing_is_refused():
    design = built("reverse", keys=("ls", "dstem"))
    same = {1: {0: "a"}, 2: {0: "a"}, 3: {0: "b"}}
    with pytest.raises(ToggleError, match="reverse: rows 1 and 2 are the same run: one of the toggles has"):
        designs.refuse_idle([design], {"reverse": same})
    designs.refuse_idle([design], {"reverse": {1: {0: "a"}, 2: {0: "c"}, 3: {0: "b"}}})


def test_the_ends_of_an_order_that_the_study_does_not_name_are_named():
    assert [row.model for row in built("leave-one-out").study.rows] == ["full recipe", "", "", "", "", ""]
    assert built("reverse").study.rows[0].model == "R3D-50"


def test_a_design_is_built_once():
    assert len(designs.build(["reverse", "reverse"], question())) == 1
    assert LS.at() in question().factors
