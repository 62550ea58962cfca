"""Summaries: steps, missing runs, several seeds, what the caption admits."""

import math

import pandas as pd
import pytest

from ablations.table2 import STUDY
from harness import aggregate, published, store


def line(run_id, top1, seed=0, protocol="10x3@32", **others):
    values = dict.fromkeys(store.FRAME) | {
        "id": run_id,
        "seed": seed,
        "protocol": protocol,
        "top1": top1,
        "videos": 240,
        "videos_in_split": 240,
        "params": 1e6,
        "multiply_adds": 5e7,
        "dataset": "embedded",
        "fingerprint": "ab" * 32,
        "classes": 8,
        "cut": "",
    }
    return values | others


def summarise(lines, wanted, rows=(1, 2, 3), profile="quick"):
    frame = pd.DataFrame(lines, columns=store.FRAME)
    study = STUDY.only(list(rows))
    return aggregate.summarise(study, wanted, frame, published.load("table2"), profile, "Caption.", "10x3@32")


def test_numbers_steps_and_the_papers_beside_them():
    found = summarise([line("a", 0.5), line("b", 0.6), line("c", 0.55)], {1: ["a"], 2: ["b"], 3: ["c"]})
    assert list(found.rows["top1"]) == pytest.approx([50, 60, 55])
    assert list(found.rows["step"])[1:] == pytest.approx([10, -5])
    assert math.isnan(found.rows.loc[1, "step"])
    assert list(found.rows["paper_top1"]) == [74.4, 74.9, 76.1]
    assert (found.rows["low"] < found.rows["top1"]).all()
    assert found.reference == "paper, Kinetics-400"
    assert found.population == "videos"
    assert "over videos, of one seed" in found.caption


def test_a_missing_run_is_said_and_gives_no_step():
    found = summarise([line("a", 0.5), line("c", 0.55)], {1: ["a"], 2: ["b"], 3: ["c"]})
    assert math.isnan(found.rows.loc[2, "top1"])
    assert math.isnan(found.rows.loc[3, "step"])
    assert found.rows.loc[2, "seeds"] == 0
    assert "Not finished: row 2." in found.caption


def test_a_row_counts_once_all_its_seeds_are_there():
    lines = [line("a0", 0.5), line("a1", 0.6, seed=1), line("b0", 0.7)]
    found = summarise(lines, {1: ["a0", "a1"], 2: ["b0", "b1"]}, rows=(1, 2))
    assert found.rows.loc[1, "top1"] == pytest.approx(55)
    assert math.isnan(found.rows.loc[2, "top1"])
    assert found.rows.loc[2, ["seeds", "seeds_wanted"]].tolist() == [1, 2]
    assert "over seeds" in found.caption


def test_another_protocol_is_not_looked_at():
    found = summarise([line("a", 0.9, protocol="1x1@32")], {1: ["a"]}, rows=(1,))
    assert math.isnan(found.rows.loc[1, "top1"])


def test_a_cut_is_admitted():
    found = summarise([line("a", 0.5, cut="steps 2", classes=400)], {1: ["a"]}, rows=(1,), profile="paper")
    assert "CUT SHORT, not the profile's own training: steps 2." in found.caption
    assert not found.comparable


@pytest.mark.parametrize(
    ("profile", "classes", "split", "comparable"),
    [("paper", 400, 240, True), ("paper", 400, 241, False), ("paper", 8, 240, False), ("quick", 400, 240, False)],
)
def test_only_the_papers_training_on_its_whole_data_answers_to_the_paper(profile, classes, split, comparable):
    lines = [line("a", 0.5, classes=classes, videos_in_split=split)]
    found = summarise(lines, {1: ["a"]}, rows=(1,), profile=profile)
    assert ("CUT SHORT, not the whole validation split." in found.caption) is (split == 241)
    assert found.comparable is comparable
    assert found.reference == ("paper" if comparable else "paper, Kinetics-400")


def test_nothing_at_all_is_a_summary_too():
    found = summarise([], {1: ["a"], 2: ["b"], 3: ["c"]})
    assert found.rows["top1"].isna().all()
    assert found.population == ""
