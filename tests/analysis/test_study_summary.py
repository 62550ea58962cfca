"""Summaries: steps, missing runs, several seeds, what the caption admits, what is refused."""

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from ablations.table2 import STUDY
from ablations.toggles import LS
from harness.analysis import published, study_summary
from harness.analysis.comparison import MixedError
from harness.config.experiment import DatasetInfo
from harness.config.studies import Row, Study
from tests.support.measured import evidence, first, from_outcomes, line, outcomes


def summarise(lines, wanted, rows=(1, 2, 3), profile="quick", **more):
    return of(evidence(lines, profile, **more), wanted, rows)


def of(measured, wanted, rows=(1, 2, 3)):
    by_seed = {number: dict(enumerate(ids)) for number, ids in wanted.items()}
    return study_summary.summarise(STUDY.only(list(rows)), by_seed, measured, published.load("table2"))


def test_numbers_steps_and_the_papers_beside_them():
    found = summarise([line("a", 0.5), line("b", 0.6), line("c", 0.55)], {1: ["a"], 2: ["b"], 3: ["c"]})
    assert list(found.rows["top1"]) == pytest.approx([50, 60, 55])
    assert list(found.rows["top5"]) == pytest.approx([50, 60, 55])
    assert list(found.rows["step"])[1:] == pytest.approx([10, -5])
    assert math.isnan(found.rows.loc[1, "step"])
    assert list(found.rows["paper_top1"]) == [74.4, 74.9, 76.1]
    assert (found.rows["low"] < found.rows["top1"]).all()
    assert found.reference == "paper, Kinetics-400"
    assert found.population == "videos"
    assert "over videos, of one seed" in found.caption


def test_a_step_of_one_seed_is_mcnemars_and_its_flips_are_counted():
    right = {"a": first(120), "b": np.concatenate([first(110, 120), first(40, 120)])}
    found = of(from_outcomes({name: (0, own) for name, own in right.items()}), {1: ["a"], 2: ["b"]}, rows=(1, 2))
    step = found.rows.loc[2]
    assert (step["right"], step["wrong"]) == (40, 10)
    assert step["step"] == pytest.approx(100 * 30 / 240)
    assert step["p"] == pytest.approx(stats.binomtest(10, 50).pvalue)
    assert step["p_holm"] == step["p"], "one step is a family of one"
    assert step["discordance"] == pytest.approx(50 / 240)
    assert (step["finding"], step["step_population"], step["units"]) == ("better", "videos", 240)
    assert step["settle"] == ""
    assert "exact McNemar" in found.caption
    assert "Holm's correction for 1 step." in found.caption


def test_holm_goes_over_the_steps_that_there_are():
    found = summarise([line("a", 0.5), line("b", 0.6), line("c", 0.55)], {1: ["a"], 2: ["b"], 3: ["c"]})
    plain = found.rows["p"].to_numpy()[1:]
    assert list(found.rows["p_holm"])[1:] == pytest.approx([min(1, 2 * plain.min()), max(2 * plain.min(), plain.max())])


def test_several_seeds_are_compared_by_seed():
    runs = {f"a{seed}": (seed, first(100 + 3 * seed)) for seed in range(3)}
    runs |= {f"b{seed}": (seed, first(120 + 3 * seed + seed**2)) for seed in range(3)}
    found = of(from_outcomes(runs, margin=5.0), {1: ["a0", "a1", "a2"], 2: ["b0", "b1", "b2"]}, rows=(1, 2))
    step, differences = found.rows.loc[2], np.array([20, 21, 24]) / 240
    assert step["step"] == pytest.approx(100 * differences.mean())
    assert step["p"] == pytest.approx(stats.ttest_1samp(differences, 0).pvalue)
    assert (step["step_population"], step["units"]) == ("seeds", 3)
    assert step["spread"] == pytest.approx(100 * differences.std(ddof=1))
    assert step["p_equal"] > 0.5, "a difference of 9 points is not within 5"
    assert "less than 5 points either way" in found.caption
    assert "paired by seed" in found.caption


def test_a_sure_difference_within_the_margin_is_both():
    before, after = first(8_000, 17_706), first(8_040, 17_706)
    found = of(from_outcomes({"a": (0, before), "b": (0, after)}, margin=0.5), {1: ["a"], 2: ["b"]}, rows=(1, 2))
    assert found.rows.loc[2, "finding"] == "slightly better"


def test_a_damaged_run_is_not_just_unfinished():
    measured = dataclasses.replace(evidence([line("a", 0.5)]), unusable=frozenset({"b"}))
    found = of(measured, {1: ["a"], 2: ["b"], 3: ["c"]})
    assert "Not usable, a record or its predictions are damaged: row 2." in found.caption
    assert "Not finished: row 3." in found.caption


def test_a_small_difference_is_a_finding_with_a_margin():
    runs = {"a": (0, first(8_000, 17_706)), "b": (0, first(8_003, 17_706))}
    found = of(from_outcomes(runs, margin=0.5), {1: ["a"], 2: ["b"]}, rows=(1, 2))
    assert found.rows.loc[2, "finding"] == "no difference"
    assert of(from_outcomes(runs), {1: ["a"], 2: ["b"]}, rows=(1, 2)).rows.loc[2, "finding"] == "unsettled"


def test_the_most_affected_classes_are_named():
    before, after = first(0, 80), np.isin(np.arange(80) % 8, [3])
    after[[1, 9]] = True
    named = from_outcomes({"a": (0, before), "b": (0, after)}, classes={"ab" * 32: tuple("ABCDEFGH")})
    found = of(named, {1: ["a"], 2: ["b"]}, rows=(1, 2))
    assert found.rows.loc[2, "classes"] == (("D", 10.0), ("B", 2.0))
    assert found.flips.iloc[:2].to_numpy().tolist() == [[2, 1, "D", 10, 0, 10], [2, 1, "B", 2, 0, 2]]
    assert len(found.flips) == 8


def test_a_missing_run_is_said_and_gives_no_step():
    found = summarise([line("a", 0.5), line("c", 0.55)], {1: ["a"], 2: ["b"], 3: ["c"]})
    assert math.isnan(found.rows.loc[2, "top1"])
    assert math.isnan(found.rows.loc[3, "step"])
    assert found.rows.loc[3, "finding"] == ""
    assert found.rows.loc[2, "seeds"] == 0
    assert "Not finished: row 2." in found.caption


def test_a_row_counts_once_all_its_seeds_are_there():
    lines = [line("a0", 0.5), line("a1", 0.6, seed=1), line("b0", 0.7)]
    found = summarise(lines, {1: ["a0", "a1"], 2: ["b0", "b1"]}, rows=(1, 2))
    assert found.rows.loc[1, "top1"] == pytest.approx(55)
    assert math.isnan(found.rows.loc[2, "top1"])
    assert math.isnan(found.rows.loc[2, "step"])
    assert found.rows.loc[2, ["seeds", "seeds_wanted"]].tolist() == [1, 2]
    assert "over seeds" in found.caption


def test_another_protocol_is_not_looked_at():
    found = summarise([line("a", 0.9, protocol="1x1@32")], {1: ["a"]}, rows=(1,))
    assert math.isnan(found.rows.loc[1, "top1"])


def test_a_cut_is_admitted():
    found = summarise([line("a", 0.5, cut="steps 2", classes=400, profile="paper")], {1: ["a"]}, (1,), "paper")
    assert "CUT SHORT, not the profile's own training: steps 2." in found.caption
    assert not found.comparable


@pytest.mark.parametrize(
    ("profile", "classes", "videos", "split", "trained", "comparable"),
    [
        ("paper", 400, 17_706, 17_706, 215_570, True),
        ("paper", 400, 16_000, 16_000, 200_000, True),  # videos vanish from the web
        ("paper", 400, 17_705, 17_706, 215_570, False),
        ("paper", 400, 1_000, 1_000, 215_570, False),
        ("paper", 400, 17_706, 17_706, 1_000, False),
        ("paper", 400, 20_000, 20_000, 215_570, False),  # more than there ever were: another data set
        ("paper", 8, 17_706, 17_706, 215_570, False),
        ("quick", 400, 17_706, 17_706, 215_570, False),
    ],
)
def test_only_the_papers_training_on_its_whole_data_answers_to_the_paper(
    profile, classes, videos, split, trained, comparable
):
    lines = [
        line("a", 0.5, classes=classes, videos=videos, videos_in_split=split, train_videos=trained, profile=profile)
    ]
    found = summarise(lines, {1: ["a"]}, rows=(1,), profile=profile)
    assert ("CUT SHORT, not the whole validation split." in found.caption) is (videos < split)
    assert found.comparable is comparable
    assert found.reference == ("paper" if comparable else "paper, Kinetics-400")


@pytest.mark.parametrize(
    ("classes", "videos", "like"),
    [
        (700, 70_000_000, True),
        (700, 40_000_000, True),
        (700, 900, False),
        (700, 100_000_000, False),
        (5, 70_000_000, False),
    ],
)
def test_pre_training_on_another_set_than_the_papers_earns_no_verdict(classes, videos, like):
    kinetics = {"classes": 400, "videos": 17_706, "videos_in_split": 17_706, "train_videos": 215_570}
    lines = [line(name, top1, profile="paper", **kinetics) for name, top1 in (("a", 0.744), ("b", 0.749))]
    wanted, web = {1: ["a"], 2: ["b"]}, DatasetInfo("tiny-web", classes, videos, 100, "ef" * 32)
    found = summarise(lines, wanted, (1, 2), "paper", pre_trained={"b": web})
    assert found.comparable is like
    assert (found.rows["verdict"] != "").all() == like
    if like:
        assert (
            "Row 2 pre-trained on tiny-web, which is like the paper's WVT, a private set, in its size" in found.caption
        )
    else:
        assert (
            f"No verdict: row 2 pre-trained on tiny-web, {videos:,} videos of {classes} classes; the paper's WVT, "
            "a private set, has 70,000,000 of 700." in found.caption
        )
    quick = summarise([line("a", 0.5), line("b", 0.6)], wanted, (1, 2), pre_trained={"b": web})
    assert "WVT" not in quick.caption, "nothing of it answers to the paper anyway"


@pytest.mark.parametrize(("videos", "said"), [(17_706, False), (17_300, True)])
def test_fewer_videos_than_kinetics_was_published_with_are_said(videos, said):
    lines = [line("a", 0.5, classes=400, videos=videos, videos_in_split=videos, profile="paper")]
    found = summarise(lines, {1: ["a"]}, rows=(1,), profile="paper")
    assert ("FEWER VIDEOS than Kinetics-400's validation split was published with: 17,300 of 17,706" in found.caption
            ) is said  # fmt: skip


def test_nothing_at_all_is_a_summary_too():
    found = summarise([], {1: ["a"], 2: ["b"], 3: ["c"]})
    assert found.rows["top1"].isna().all()
    assert found.population == ""
    assert "Holm" not in found.caption


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"profile": "paper"}, "more than one profile .*run a: quick, run b: paper"),
        ({"fingerprint": "cd" * 32}, "more than one data set .*run a: abababab, run b: cdcdcdcd"),
        ({"videos": 239}, "more than one number of videos .*run a: 240, run b: 239"),
    ],
)
def test_runs_that_do_not_belong_together_are_refused_by_name(changes, message):
    with pytest.raises(MixedError, match=message):
        summarise([line("a", 0.5), line("b", 0.6, **changes)], {1: ["a"], 2: ["b"]}, rows=(1, 2))


def test_rows_that_are_asked_on_different_data_share_a_table():
    rows = (
        Row(1, "a", ()),
        Row(2, "b", (LS.at(),), follows=1),
        Row(3, "c", (), dataset="Kinetics-600"),
        Row(4, "d", (LS.at(),), follows=3, dataset="Kinetics-600"),
    )
    study, wanted = Study("s", "", (LS,), rows), {1: {0: "a"}, 2: {0: "b"}, 3: {0: "c"}, 4: {0: "d"}}
    six = {"fingerprint": "cd" * 32, "dataset": "six", "classes": 3, "videos": 120, "videos_in_split": 120}
    lines = [line("a", 0.5), line("b", 0.6), line("c", 0.4, **six), line("d", 0.65, **six)]
    names = {"ab" * 32: tuple("ABCDEFGH"), "cd" * 32: tuple("xyz")}
    found = study_summary.summarise(
        study, wanted, evidence(lines, classes=names, origins={"d": "that, then this"}), None
    )
    assert list(found.rows["step"].dropna()) == pytest.approx([10, 25])
    assert found.reference == "paper, Kinetics-400 and Kinetics-600"
    assert set(found.flips.loc[found.flips["row"] == 2, "class"]) <= set("ABCDEFGH")
    others = set(found.flips.loc[found.flips["row"] == 4, "class"])
    assert others & set("xyz")
    assert not others & set("ABCDEFGH")
    assert found.caption.startswith(
        "Caption. embedded stands in for Kinetics-400 and for Kinetics-600. Row 4: that, then this."
    )
    assert "Trained on embedded (abababab), six (cdcdcdcd)" in found.caption
    mixed = [line("a", 0.5), line("b", 0.6, **six), *lines[2:]]
    with pytest.raises(MixedError, match=r"more than one data set \(run a: abababab, run b: cdcdcdcd\)"):
        study_summary.summarise(study, wanted, evidence(mixed), None)


def test_runs_of_another_profile_are_refused():
    with pytest.raises(MixedError, match="runs of profile quick cannot stand in a table of paper"):
        summarise([line("a", 0.5)], {1: ["a"]}, rows=(1,), profile="paper")


def test_a_seed_does_not_count_twice():
    with pytest.raises(MixedError, match="row 1: run a1 has seed 0 and is counted as seed 1"):
        summarise([line("a0", 0.5), line("a1", 0.6)], {1: ["a0", "a1"]}, rows=(1,))


def test_rows_on_other_videos_or_labels_are_refused_by_name():
    lines, wanted = [line("a", 0.5), line("b", 0.6)], {1: ["a"], 2: ["b"]}
    other = outcomes(first(144), names=[f"w{place:05}" for place in range(240)])
    with pytest.raises(MixedError, match=r"row 1 and row 2: evaluated on different videos \(240 and 240; 'v00000'"):
        summarise(lines, wanted, rows=(1, 2), outcomes={"b": other})
    other = outcomes(first(144), labels=np.zeros(240, dtype=int))
    with pytest.raises(MixedError, match="row 1 and row 2: video 'v00001' has another label in one"):
        summarise(lines, wanted, rows=(1, 2), outcomes={"b": other})
