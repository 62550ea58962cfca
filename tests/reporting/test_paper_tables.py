"""Every published row must stand as published, ours beside it and never in its place, and what is missing be said."""

import dataclasses
import io
import math
import re

import pandas as pd
import pytest

from ablations.toggles import EMA, FRAMES
from harness.analysis import published
from harness.config.studies import Row
from harness.reporting import paper_tables, render, study_tables
from tests.support import paper_summaries, summaries
from tests.support.paper_summaries import FIGURE_2, TABLE_3
from tests.support.summaries import MISSING, NAN, PARTIAL

# As the study of the name asks it: each row is compared with the one that it scales.
FOLLOWS = {2: 1, 3: 2, 4: 3, **dict.fromkeys(range(5, 11), 4)}
FOLLOWED = dataclasses.replace(
    FIGURE_2, rows=tuple(dataclasses.replace(row, follows=FOLLOWS.get(row.number)) for row in FIGURE_2.rows)
)
NAMES = ("table3", "table4", "table5", "table6")
QUICK = paper_summaries.summary(TABLE_3)
PAPER = paper_summaries.summary(TABLE_3, "paper")
PARTS = paper_summaries.summary(TABLE_3, "paper", {2: MISSING, 3: PARTIAL})
SLICES = (summaries.costs(), summaries.costs("v5e:8x16"))
SCALED = paper_summaries.summary(FIGURE_2, "paper")


def comparison(name="table3", summary=None):
    return paper_tables.comparison(name, published.load(name), published.source(name), summary)


def scaling(summary=None):
    return paper_tables.scaling(published.load("figure2"), summary)


def shown(made, model):
    """The cells of the first row of a model by their heads."""
    cells = render.cells(made)
    return dict(cells[cells["model"] == model].iloc[0])


CASES = {
    **{f"{name}, nothing run": comparison(name) for name in NAMES},
    "table3, quick": comparison(summary=QUICK),
    "table3, paper": comparison(summary=PAPER),
    "table3, in parts": comparison(summary=PARTS),
    "figure1, nothing run": comparison("figure1"),
    "table3, more of ours": comparison(summary=paper_summaries.summary(TABLE_3.plus([EMA.at()]), "paper")),
    "figure2, nothing run": scaling(),
    "figure2, quick": scaling(paper_summaries.summary(FIGURE_2)),
    "figure2, paper": scaling(SCALED),
    "figure2, steps": scaling(paper_summaries.summary(FOLLOWED, "paper")),
    "figure2, in parts": scaling(paper_summaries.summary(FIGURE_2, "paper", {4: MISSING, 9: PARTIAL})),
    "table3, core-hours": comparison(summary=dataclasses.replace(PARTS, costs=SLICES[:1])),
    "figure2, core-hours": scaling(dataclasses.replace(SCALED, costs=SLICES)),
}


@pytest.mark.parametrize(
    ("name", "heads"),
    [
        ("table3", ["model", "GFLOPs × views", "params (M)", "top-1 (%)", "top-5 (%)"]),
        ("table4", ["model", "GFLOPs × views", "params (M)", "top-1 (%)"]),
        ("table5", ["model", "pretrain", "dataset", "GFLOPs × views", "top-1 (%)"]),
        ("table6", ["model", "top-1 (%)"]),
    ],
)
def test_columns_are_those_of_the_papers_tables(name, heads):
    assert list(render.cells(comparison(name)).columns) == [*heads, "ours: top-1 (%)"]


@pytest.mark.parametrize(
    ("name", "model", "cells"),
    [
        ("table3", "R(2+1)D", ["75 × 10×1", "61.8", "72.0", "90.0"]),
        ("table3", "SlowFast-16x8, R101", ["213 × 10×3", "–", "78.9", "93.5"]),
        ("table3", "MViT-B, 64x3", ["455 × 3×3", "36.6", "81.2", "95.1"]),
        ("table3", "R3D-RS-200 + RA (48 frames)", ["307 × 10×3", "121.6", "81.0", "–"]),
        ("table4", "R3D-RS-200", ["205 × 10×3", "122.0", "83.1"]),
        ("table5", "Swin-L, 384", ["ImageNet-21K", "Kinetics-400", "2107 × 10×5", "84.9"]),
        ("table5", "R3D-RS-200 (48 frames)", ["WVT", "Kinetics-400", "307 × 10×3", "83.5 (+2.5)"]),
        ("table6", "R3D-RS-50", ["66.1"]),
        ("table6", "R3D-RS-152", ["67.1 (+0.0)"]),
        ("table6", "R3D-RS-270", ["67.5 (+0.2)"]),
    ],
)
def test_a_row_is_as_the_paper_prints_it(name, model, cells):
    assert list(shown(comparison(name), model).values())[:-1] == [model, *cells]


@pytest.mark.parametrize("name", NAMES)
def test_with_nothing_run_the_papers_own_models_say_so(name):
    frame, made = published.load(name), comparison(name)
    own = ["–" if family == "other" else "not run" for family in frame.get("family", ["ours"] * len(frame))]
    assert list(render.cells(made)["ours: top-1 (%)"]) == own
    assert set(own) == ({"not run"} if name == "table6" else {"not run", "–"})
    trained = "training" if name in {"table3", "table4"} else "pre-training"
    assert made.caption.endswith(f"Ours: nothing was run under this {trained}.")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("summary", [None, QUICK], ids=["nothing run", "quick"])
def test_every_published_number_is_there_unchanged(name, summary):
    frame = published.load(name)
    data = comparison(name, summary if name == "table3" else None).data.set_index("row")
    for column in frame.columns.difference(["model", "family"]):
        pd.testing.assert_series_equal(data[f"paper_{column}"], frame[column], check_names=False, check_dtype=False)
    assert list(data["model"]) == list(frame["model"])


def test_figure_1s_numbers_are_a_table_as_well():
    made = comparison("figure1", paper_summaries.summary(TABLE_3.only([1])))
    assert list(shown(made, "SlowFast-16x8, R101").values()) == ["SlowFast-16x8, R101", "213", "78.9", *["–"] * 4]
    # Row 1 of the study answers to row 8.
    assert shown(made, "R3D-RS-200*")["ours: top-1 (%)"] == "70.4"
    assert shown(made, "R3D-50")["ours: top-1 (%)"] == "not run"


def test_ours_stands_beside_the_papers_own_models():
    assert shown(comparison(summary=PAPER), "R3D-RS-101") == {
        "model": "R3D-RS-101",
        **{"GFLOPs × views": "115 × 10×3", "params (M)": "85.1", "top-1 (%)": "79.5", "top-5 (%)": "94.2"},
        "ours: row": "3",
        "ours: GFLOPs × views": "114 × 10×3",
        "ours: params (M)": "68.7",
        "ours: top-1 (%)": "79.6",
        "ours: 95 % interval": "[78.9, 80.2]",
        "ours: top-5 (%)": "89.6",
        "verdict, ours − paper": "below [-0.4, +0.7]",
    }


def test_a_stand_in_has_no_verdict():
    made = comparison(summary=QUICK)
    assert "verdict, ours − paper" not in render.cells(made).columns
    assert "for reference" in made.caption and "agrees" not in made.caption
    assert shown(made, "R3D-RS-50")["ours: GFLOPs × views"] == "0.040 × 10×3"
    assert shown(made, "R3D-RS-50")["ours: params (M)"] == "0.024"


@pytest.mark.parametrize("summary", [QUICK, PAPER, PARTS], ids=["quick", "paper", "parts"])
def test_other_systems_have_no_cell_of_ours(summary):
    frame, cells = published.load("table3"), render.cells(comparison(summary=summary))
    ours = [head for head in cells if head.startswith(("ours", "verdict"))]
    assert len(ours) >= 6
    assert (cells.loc[: (frame["family"] == "other").sum() - 1, ours] == "–").all(axis=None)
    assert (cells.loc[(frame["family"] == "other").sum() :, "ours: top-1 (%)"] != "–").all()


@pytest.mark.parametrize(("model", "said"), [("R3D-RS-50", "not run"), ("R3D-RS-101", "2 of 3 seeds")])
def test_what_is_missing_of_ours_is_said(model, said):
    cells = shown(comparison(summary=PARTS), model)
    assert {cells[head] for head in ("ours: top-1 (%)", "verdict, ours − paper")} == {said}
    assert {cells[head] for head in ("ours: 95 % interval", "ours: top-5 (%)")} == {"–"}
    # What a network costs is known with its first seed.
    assert (cells["ours: params (M)"] == "–") == (said == "not run")


def test_a_row_that_the_study_does_not_have_was_not_run():
    made = comparison(summary=paper_summaries.summary(TABLE_3.only([1, 2]), "paper"))
    assert shown(made, "R3D-RS-152")["ours: top-1 (%)"] == "not run"
    assert shown(made, "R3D-RS-50")["ours: top-1 (%)"] == "78.0"


def test_a_row_of_ours_alone_stands_below():
    made = CASES["table3, more of ours"]
    last = dict(render.cells(made).iloc[-1])
    assert (last["model"], last["top-1 (%)"], last["ours: top-1 (%)"]) == ("R3D-RS-200, 48 frames", "–", "79.0 (+4.7*)")
    assert last["verdict, ours − paper"] == "–"
    unknown = paper_summaries.summary(TABLE_3, "paper", {1: {"verdict": "not run", "verdict_low": NAN}})
    assert shown(comparison(summary=unknown), "R3D-50 (baseline)")["verdict, ours − paper"] == "not run"
    assert len(made.data) == 14 and made.data["row"].isna().sum() == 1


def test_two_of_ours_may_answer_to_one_row():
    study = TABLE_3.only([1])
    twice = type(study)(
        study.name, study.title, study.toggles, (*study.rows, Row(2, "R3D-50", (FRAMES.at("32x2"),), published=8))
    )
    cells = render.cells(comparison(summary=paper_summaries.summary(twice, "paper")))
    assert list(cells.loc[cells["model"] == "R3D-50 (baseline)", "ours: top-1 (%)"]) == ["74.9", "78.0"]


def test_captions_say_what_is_unknown_and_where_it_comes_from():
    assert (
        "Not printed: parameters of SlowFast-16x8, R101 and top-5 of R3D-RS-200 + RA (48 frames)."
        in comparison().caption
    )
    assert "Not printed" not in comparison("table5").caption
    assert comparison("table4").caption.startswith("As published (Table 4; section 4.2): Kinetics-600;")
    assert comparison().title == "Comparisons of models trained from scratch on Kinetics-400"
    assert comparison(summary=QUICK).title == "Models from scratch on Kinetics-400 (quick profile)"
    assert QUICK.caption in comparison(summary=QUICK).caption


def test_core_hours_are_ours_and_known_before_anything_is_run():
    made = CASES["table3, core-hours"]
    assert list(render.cells(made).columns)[-1] == "ours: core-hours, TPU v3:8x8"
    frame = published.load("table3")
    assert list(render.cells(made)["ours: core-hours, TPU v3:8x8"]) == [
        *["–"] * int((frame["family"] == "other").sum()), "≥ 753", "3,309", "does not fit", "–", "≥ 1,234,568", "≥ 10",
    ]  # fmt: skip
    assert shown(made, "R3D-RS-50")["ours: top-1 (%)"] == "not run"
    without = comparison(summary=PARTS)
    said = made.caption.removeprefix(without.caption)
    assert said.startswith(" Core-hours: of training and the reported evaluation") and said.count(".") == 3
    pd.testing.assert_frame_equal(made.data[without.data.columns], without.data)
    own = made.data.set_index("own_row")
    assert own.loc[2, "core_hours_v3:8x8"] == 3308.8355
    measured = pd.read_csv(io.StringIO(render.csv(made)), dtype=str)["measured_v3:8x8"]
    assert list(measured) == ["1" if number == 2 else "0" for number in made.data["own_row"]]


def test_figure_2_has_core_hours_for_each_slice():
    cells = render.cells(CASES["figure2, core-hours"])
    heads = ["ours: core-hours, TPU v3:8x8", "ours: core-hours, TPU v5e:8x16"]
    assert list(cells.columns)[-2:] == heads
    assert [list(cells[head])[:2] for head in heads] == [["≥ 753", "3,309"]] * 2
    assert CASES["figure2, core-hours"].caption.count("Core-hours") == 1


def test_a_study_of_the_users_has_its_own_name_and_title():
    made = scaling(paper_summaries.summary(FIGURE_2))
    own = scaling(dataclasses.replace(SCALED, study=dataclasses.replace(FIGURE_2, name="deeper", title="Is it depth?")))
    assert (own.name, own.title) == ("deeper", "Is it depth? (paper profile)")
    assert r"\label{tab:deeper}" in render.latex(own) and "Is it depth? (paper profile)." in render.latex(own)
    assert (made.name, scaling().name) == ("figure2", "figure2")
    assert made.title == f"{scaling().title} (quick profile)"


def test_our_steps_carry_their_mark_and_the_row_they_are_from():
    made = CASES["figure2, steps"]
    assert [cell.partition(" ")[2] for cell in render.cells(made)["ours: top-1 (%)"]] == [
        "", "(+0.5)", "(-1.8)", "(+0.0≈)", "(+6.2*)", "(+0.0, from row 4)", "(+4.7*, from row 4)",
        "(-1.1*, from row 4)", "", "(+3.5, from row 4)",
    ]  # fmt: skip
    assert "In brackets: the step from the row above" in made.caption
    assert list(made.data["follows"].dropna()) == list(FOLLOWS.values())
    assert list(made.data["step"])[1:3] == [0.5, -1.75] and made.data["finding"].iloc[4] == "better"
    assert "In brackets" not in CASES["figure2, paper"].caption


def test_a_row_above_that_is_none_of_ours_is_not_the_one_followed():
    rows = (TABLE_3.rows[0], Row(2, "", (FRAMES.at(48),), published=10, follows=1))
    made = comparison(summary=paper_summaries.summary(dataclasses.replace(TABLE_3, rows=rows)))
    assert shown(made, "R3D-RS-101")["ours: top-1 (%)"] == "82.1 (+0.5, from row 1)"


def test_figure_2s_numbers_and_what_is_only_drawn():
    made = scaling(SCALED)
    assert list(shown(made, "RS-200@f48").values()) == [
        "RS-200@f48", "200", "48", "224", "307", "80.7", "7", "200", "306", "10×3@256", "80.8",
        "[80.1, 81.5]", "below [-0.4, +0.7]",
    ]  # fmt: skip
    assert list(shown(made, "@i288").values())[:10] == [
        "@i288", "not said", "32", "288", "only in the picture", "only in the picture", "10", "200", "318",
         "10×3@320",
    ]  # fmt: skip
    assert shown(made, "RS-270")["paper: GFLOPs"] == "only in the picture"
    assert shown(made, "RS-270")["paper: top-1 (%)"] == "79.9"
    assert [shown(made, label)["ours: depth"] for label in ("RS-50", "RS-101")] == ["50", "101"]
    assert list(made.data["scale"])[5:8] == ["depth 300", "depth 200, 48 frames", "depth 200, 64 frames"]


def test_the_caption_names_all_that_is_only_drawn():
    assert paper_tables.unknown_in_picture(published.load("figure2")) == [
        "Only drawn in the paper's picture, and unknown here: GFLOPs of RS-270, RS-300, @f64, @i256 and @i288 and "
        "top-1 of @f64, @i256 and @i288.",
        "The paper does not say which depth @f64, @i256 and @i288 scale.",
    ]
    for made in (scaling(), scaling(SCALED)):
        assert all(text in made.caption for text in paper_tables.unknown_in_picture(published.load("figure2")))
    assert paper_tables.unknown_in_picture(published.load("figure2").dropna()) == []


def test_a_missing_point_of_ours_is_said():
    made = CASES["figure2, in parts"]
    assert shown(made, "RS-200")["ours: top-1 (%)"] == "not run"
    assert shown(made, "@i256")["ours: top-1 (%)"] == "2 of 3 seeds"
    few = scaling(paper_summaries.summary(FIGURE_2.only([1])))
    assert (shown(few, "RS-101")["ours: depth"], shown(few, "RS-101")["ours: top-1 (%)"]) == ("–", "not run")


@pytest.mark.parametrize("case", CASES)
def test_no_cell_is_blank_or_nan(case):
    made = CASES[case]
    assert (render.cells(made) != "").all(axis=None)
    for text in render.render(made).values():
        assert not re.search(r"\bnan\b", text, flags=re.IGNORECASE)


@pytest.mark.parametrize("case", ["table3, paper", "table3, in parts", "figure2, paper", "figure2, in parts"])
def test_csv_holds_ours_unrounded(case):
    back = pd.read_csv(io.StringIO(render.csv(CASES[case])), float_precision="round_trip")
    for name in ("gflops", "params", "top1", "low", "high", "top5", "verdict_low", "verdict_high", "paper_top1"):
        assert back[name].astype(float).equals(CASES[case].data.reset_index()[name].astype(float)), name
    assert list(back["verdict"].fillna("")) == list(CASES[case].data["verdict"])


@pytest.mark.parametrize(
    ("gflops", "text"),
    [(0.0399283, "0.040"), (0.99, "0.99"), (1.04, "1.0"), (9.94, "9.9"), (9.96, "10"), (305.69, "306")],
)
def test_gflops_are_written_as_in_table_2(gflops, text):
    assert paper_tables.gflops(gflops) == text
    of_table_2 = study_tables.additive(summaries.summary({1: {"gflops": gflops}}))
    assert render.cells(of_table_2)["GFLOPs"].iloc[0] == text


def judged(profile="paper", **changes):
    lines = {number: {"verdict": "agrees", "verdict_low": -0.25, "verdict_high": 0.5} for number in range(1, 11)}
    return summaries.summary({**lines, **{int(k[1:]): lines[int(k[1:])] | v for k, v in changes.items()}}, profile)


def test_table_2_has_a_column_of_verdicts():
    made = study_tables.additive(judged(r4=MISSING | {"verdict": ""}, r5={"verdict": "", "verdict_low": NAN}))
    cells = render.cells(made)
    head = "verdict, ours − paper"
    assert list(cells.columns)[-2:] == ["paper", head] and head in render.cells(CASES["table3, paper"])
    agrees = "agrees [-0.2, +0.5]"
    assert list(cells[head])[:6] == [*[agrees] * 3, "not run", "–", agrees]
    assert made.caption.endswith(study_tables.VERDICT_READ) and "within 1 either way" in made.caption
    assert list(made.data["verdict_high"])[:2] == [0.5, 0.5] and math.isnan(made.data["verdict_low"].iloc[4])


def test_a_stand_ins_table_2_has_none():
    made = study_tables.additive(judged("quick"))
    assert not any("verdict" in head for head in render.cells(made).columns)
    assert "verdict" not in made.caption
