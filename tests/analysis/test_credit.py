"""Credits: what designs say of toggles, on made-up runs whose effects are known."""

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from ablations.table2 import STUDY
from ablations.toggles import TOGGLES
from harness.analysis import credit, estimates
from harness.config import designs
from harness.config.designs import Question
from tests.support.measured import from_outcomes

KEYS = ("ls", "sd", "ep")
VIDEOS = 1_000


def runs_of(built, accuracy):
    """Wanted and evidence: each cell right on its first videos, so many as `accuracy` of its toggles and seed says."""
    wanted, runs = {}, {}
    for design in built:
        rows = wanted.setdefault(design.study.name, {})
        for row in design.study.rows:
            seeds = design.credits if row.seeds is None else row.seeds
            keys = frozenset(one.toggle.key for one in row.applied)
            rows[row.number] = {seed: f"{'-'.join(sorted(keys))}/{seed}" for seed in seeds}
            for seed, run_id in rows[row.number].items():
                runs[run_id] = (seed, np.arange(VIDEOS) < accuracy(keys, seed))
    return wanted, runs


def credits(names, accuracy, seeds=(0, 1, 2), drop=(), keys=KEYS, **more):
    question = Question(STUDY, tuple(TOGGLES[key].at() for key in keys), (), seeds, 4)
    built = designs.build(names, question)
    wanted, runs = runs_of(built, accuracy)
    measured = from_outcomes({run_id: run for run_id, run in runs.items() if run_id not in drop}, **more)
    return credit.summarise(built, question, wanted, measured)


def accuracy(keys, seed):
    """Of 1,000 videos: label smoothing helps by 40, epochs by 100 and 20 more with label smoothing, seeds differ."""
    both = 20 * ({"ls", "ep"} <= keys)
    return 400 + 40 * ("ls" in keys) + 100 * ("ep" in keys) + both + 7 * seed + (seed + 1) * ("ep" in keys)


def value(found, design, label, column="credit"):
    lines = found.credits
    return lines.loc[(lines["design"] == design) & (lines["toggle"] == label), column].item()


def test_each_design_credits_what_its_rows_say():
    found = credits(["additive", "reverse", "one-at-a-time", "leave-one-out", "shapley"], accuracy)
    assert found.designs == ("additive", "reverse", "one-at-a-time", "leave-one-out", "shapley")
    assert found.labels == ("LS", "SD", "350-EP")
    label_smoothing = {"additive": 4.0, "reverse": 6.0, "one-at-a-time": 4.0, "leave-one-out": 6.0, "shapley": 5.0}
    for design, points in label_smoothing.items():
        assert value(found, design, "LS") == pytest.approx(points)
        assert value(found, design, "SD") == pytest.approx(0)
    assert value(found, "shapley", "350-EP") == pytest.approx(10 + 1 + 0.2)
    total = sum(value(found, "shapley", label) for label in found.labels)
    assert total == pytest.approx(np.mean([accuracy(set(KEYS), s) - accuracy(set(), s) for s in range(3)]) / 10)


def test_several_seeds_give_students_interval_over_seeds():
    found = credits(["one-at-a-time"], accuracy)
    per_seed = [10.1, 10.2, 10.3]
    test = stats.ttest_1samp(per_seed, 0)
    assert value(found, "one-at-a-time", "350-EP", "p") == pytest.approx(test.pvalue)
    assert value(found, "one-at-a-time", "350-EP", "low") == pytest.approx(test.confidence_interval().low)
    assert value(found, "one-at-a-time", "350-EP", "population") == "seeds"
    assert value(found, "one-at-a-time", "SD", "p") == 1.0


def test_a_credit_that_is_a_step_is_the_step_of_the_tables():
    def steady(keys, seed):
        return 400 + 40 * ("ls" in keys)

    found = credits(["one-at-a-time"], steady)
    step = estimates.paired(*(np.tile(np.arange(VIDEOS) < right, (3, 1)) for right in (400, 440)))
    assert value(found, "one-at-a-time", "LS", "p") == pytest.approx(step.p)
    assert step.p > 0, "three seeds that agree to the video do not make it certain"


def test_one_seed_speaks_of_videos():
    found = credits(["one-at-a-time", "shapley"], accuracy, seeds=(0,))
    # Nested right answers: 40 videos flip to right, none to wrong.
    assert value(found, "one-at-a-time", "LS", "p") == pytest.approx(2 * 0.5**40)
    per_video = np.zeros(VIDEOS)
    per_video[400:440] += 1 / 2  # without 350-EP: weights 1/3 + 1/6
    per_video[501:561] += 1 / 2  # with it, where label smoothing is worth 60
    # Two videos more, one flipped each way in all rows.
    interval = stats.ttest_1samp([*per_video, 1, -1], 0).confidence_interval()
    assert value(found, "shapley", "LS") == pytest.approx(5.0)
    assert value(found, "shapley", "LS", "low") == pytest.approx(100 * interval.low)
    assert value(found, "shapley", "LS", "population") == "videos"
    assert "exact McNemar" in found.caption


def test_holm_goes_over_the_toggles_of_a_design():
    found = credits(["one-at-a-time", "reverse"], accuracy)
    own = found.credits[found.credits["design"] == "reverse"]
    assert own["p_holm"].min() == pytest.approx(min(1, 3 * own["p"].min()))


def test_findings_are_said_in_words():
    found = credits(["one-at-a-time"], accuracy, margin=1.0)
    assert "One-at-a-time: LS, 350-EP help; SD does not matter." in found.caption
    assert list(found.credits["finding"]) == ["better", "no difference", "better"]


def test_interactions_by_least_squares_find_the_one_there_is():
    def noisy(keys, seed):
        noise = np.random.default_rng([seed, *sorted(map(ord, "".join(sorted(keys))))]).integers(-3, 4)
        return accuracy(keys, seed) + 100 * ({"ls", "ep"} <= keys) + int(noise)

    found = credits(["factorial"], noisy)
    first = found.interactions.iloc[0]
    assert (first["first"], first["second"], first["finding"]) == ("LS", "350-EP", "more")
    assert first["effect"] == pytest.approx(12, abs=0.5)
    assert (found.interactions["finding"].iloc[1:] == "unsettled").all()
    assert found.interactions["effect"].abs().is_monotonic_decreasing
    assert "over the 24 runs" in found.interactions_note


def test_interactions_that_cannot_be_told_are_not_there():
    found = credits(["one-at-a-time"], accuracy)
    assert found.interactions.empty
    assert "12 runs (at least 10 are needed), in which some toggles are never switched without others" in found.caption
    assert credits(["factorial"], accuracy, keys=("ls",)).interactions_note.endswith("there is one toggle only.")


def test_a_missing_run_is_said_and_nothing_is_averaged_over_it():
    found = credits(["factorial", "one-at-a-time"], accuracy, drop={"ls/1"})
    assert math.isnan(value(found, "one-at-a-time", "LS"))
    assert value(found, "one-at-a-time", "LS", "absent") == "5 of 6 runs"
    assert value(found, "one-at-a-time", "SD", "absent") == ""
    assert found.credits.loc[found.credits["design"] == "factorial", "credit"].isna().all()
    assert "Interactions: not told, 1 of 24 runs are missing." in found.caption
    assert credits(["reverse"], accuracy, drop=set(runs_of_reverse())).credits["absent"].tolist() == ["not run"] * 3


def runs_of_reverse():
    question = Question(STUDY, tuple(TOGGLES[key].at() for key in KEYS), (), (0, 1, 2), 4)
    return runs_of(designs.build(["reverse"], question), accuracy)[1]


def test_a_toggle_asked_at_another_scale_is_marked_and_not_among_the_interactions():
    question = Question(STUDY, STUDY.factors, STUDY.base, (0,), 4)
    built = designs.build(["additive"], question)
    wanted, runs = runs_of(built, lambda keys, seed: 400 + len(keys))
    found = credit.summarise(built, question, wanted, from_outcomes(runs))
    assert value(found, "additive", "RA", "note") == "depth 200, 48 frames"
    assert "†: RA was asked at depth 200, 48 frames." in found.caption
    assert "8 runs" in found.interactions_note


def test_drawn_orders_of_one_seed_have_no_interval():
    keys = ("ls", "sd", "wd", "ep", "sj", "se")
    single, several = (credits(["shapley"], accuracy, seeds=seeds, keys=keys) for seeds in ((0,), (0, 1)))
    assert not single.credits["credit"].isna().any()
    assert single.credits[["low", "high", "p", "p_equal"]].isna().all(axis=None)
    assert (single.credits["finding"] == "not tested").all()
    assert "Credits over drawn orders have no interval with one seed" in single.caption
    assert "McNemar" not in single.caption
    assert not several.credits["p"].isna().any()
    assert "two seeds can hardly show anything" in several.caption


def test_what_one_seed_shows_is_said_of_its_trainings():
    found = credits(["one-at-a-time"], accuracy, seeds=(0,))
    assert "One-at-a-time (these trainings of one seed; other seeds may say otherwise): LS, 350-EP are better" in (
        found.caption
    )


def test_a_value_that_is_not_the_default_is_shown():
    question = Question(STUDY, (TOGGLES["sd"].at(0.3), TOGGLES["depth"].at(101)), (), (0,), 4)
    built = designs.build(["one-at-a-time"], question)
    wanted, runs = runs_of(built, lambda keys, seed: 400 + len(keys))
    found = credit.summarise(built, question, wanted, from_outcomes(runs))
    assert found.labels == ("SD 0.3", "depth 101")


def test_missing_toggles_count_in_holms_family():
    whole = credits(["one-at-a-time"], accuracy)
    partly = credits(["one-at-a-time"], accuracy, drop={"sd/1", "ls/0"})
    label = "350-EP"
    assert value(partly, "one-at-a-time", label, "p_holm") == pytest.approx(
        3 * value(whole, "one-at-a-time", label, "p")
    )


def test_a_base_is_said():
    question = Question(STUDY, (TOGGLES["ls"].at(),), (TOGGLES["depth"].at(101),), (0,), 4)
    built = designs.build(["one-at-a-time"], question)
    wanted, runs = runs_of(built, lambda keys, seed: 400)
    assert "Every run has depth=101." in credit.summarise(built, question, wanted, from_outcomes(runs)).caption


def test_credits_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        credits(["reverse"], accuracy).name = "x"
