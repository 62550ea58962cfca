"""Every format must show what the summary holds: nothing missing goes unsaid, nothing is rounded before it is shown."""

import csv
import dataclasses
import html.parser
import io
import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from ablations import table6
from ablations.toggles import DEPTH, EMA, FRAMES, LS, RESOLUTION, SD, TABLE_2
from harness.config.studies import Row, Study
from harness.config.toggles import Toggle
from harness.reporting import render, study_tables
from tests.support import summaries
from tests.support.summaries import MISSING, NAN, PARTIAL, STEPLESS, STUDY

CLEAR = r"\clearpage"
ROOT = Path(__file__).parents[2]
WITH_AWKWARD = STUDY.plus([summaries.AWKWARD.at()])
FEW_TOGGLES = dataclasses.replace(STUDY.plus([SD.at()]), toggles=(SD,))
SLICES = (summaries.costs(), summaries.costs("v5e:8x16"))
CASES = {
    "full": summaries.summary(),
    "paper": summaries.summary(profile="paper"),
    "one row missing": summaries.summary({4: MISSING}),
    "partial seeds": summaries.summary({6: PARTIAL}),
    "nothing run": summaries.summary(dict.fromkeys(range(1, 11), MISSING), population=""),
    "some rows": summaries.summary(study=STUDY.only([2, 9])),
    "toggle added": summaries.summary(study=WITH_AWKWARD, caption="a_b & <c|d> 50% {e}"),
    "core-hours": summaries.summary(costs=(summaries.costs(),)),
    "core-hours, two slices": summaries.summary({4: MISSING}, study=FEW_TOGGLES, costs=SLICES),
}


def table(case: str) -> render.Table:
    return study_tables.additive(CASES[case])


def shown(summary, row: int) -> dict[str, str]:
    """The cells of one row by their heads."""
    cells = render.cells(study_tables.additive(summary))
    return dict(cells.set_index("#").loc[str(row)])


def read(text: str) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(text), index_col="row", float_precision="round_trip")


class Cells(html.parser.HTMLParser):
    """Collects the texts of a table's cells."""

    def __init__(self):
        super().__init__()
        self.rows = []
        self.inside = False

    def handle_starttag(self, tag, attrs):
        self.inside = tag in {"td", "th"}
        if tag == "tr":
            self.rows.append([])
        elif self.inside:
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.rows[-1][-1] += data


def test_columns_are_those_of_the_papers_table():
    assert list(render.cells(table("full")).columns) == [
        "#", "Model", "LS", "SD", "WD", "350-EP", "SJ", "SE", "D-stem", "RA",
        "GFLOPs", "top-1 (%)", "95 % interval", "step's 95 % interval", "paper, Kinetics-400",
    ]  # fmt: skip
    assert list(render.cells(table("paper")).columns)[-1] == "paper"


def test_a_row_shows_its_toggles_and_numbers():
    assert shown(summaries.summary(), 3) == {
        "Model": "–",
        **{"LS": "✓", "SD": "✓", "WD": "", "350-EP": "", "SJ": "", "SE": "", "D-stem": "", "RA": ""},
        "GFLOPs": "0.055",
        "top-1 (%)": "60.2 (-1.8)",
        "95 % interval": "[53.3, 66.8]",
        "step's 95 % interval": "[-7.2, +3.8]",
        "paper, Kinetics-400": "76.1 (+1.2)",
    }


@pytest.mark.parametrize(
    ("row", "model"),
    [(1, "R3D-50"), (2, "–"), (8, "R3D-RS-50"), (9, "R3D-RS-200, 48 frames"), (10, "R3D-RS-200, 48 frames")],
)
def test_rows_of_another_scale_say_so(row, model):
    assert shown(summaries.summary(), row)["Model"] == model


@pytest.mark.parametrize(
    ("name", "applied", "model"),
    [
        ("", (), ""),
        ("", (FRAMES.at(32), RESOLUTION.at(256)), "32 frames, resolution 256"),
        ("R3D-RS-50", (LS.at(), FRAMES.at("48x2")), "R3D-RS-50, 48x2 frames"),
        ("R3D-RS-200 (48 frames)", (FRAMES.at(48),), "R3D-RS-200 (48 frames)"),
    ],
)
def test_model_names_the_scale_once(name, applied, model):
    assert study_tables.model(Row(1, name, applied)) == model


@pytest.mark.parametrize(
    ("points", "text"),
    [(0.0, "+0.0"), (-0.0, "+0.0"), (-0.04, "+0.0"), (0.04, "+0.0"), (-0.06, "-0.1"), (12.34, "+12.3")],
)
def test_steps_carry_a_sign_and_zero_is_not_negative(points, text):
    assert study_tables.signed(points) == text
    assert shown(summaries.summary({2: {"step": points}}), 2)["top-1 (%)"] == f"62.0 ({text})"


@pytest.mark.parametrize(
    ("gflops", "text"),
    [(0.0399283, "0.040"), (0.99, "0.99"), (1.04, "1.0"), (9.94, "9.9"), (9.96, "10"), (305.69, "306")],
)
def test_gflops_keep_two_figures_while_small(gflops, text):
    assert shown(summaries.summary({1: {"gflops": gflops}}), 1)["GFLOPs"] == text


@pytest.mark.parametrize(
    ("changes", "gflops", "text"),
    [
        (MISSING, "not run", "not run"),
        (MISSING | {"seeds_wanted": 3}, "not run", "not run"),
        (PARTIAL, "0.055", "2 of 3 seeds"),
    ],
)
def test_what_is_missing_is_said(changes, gflops, text):
    row = shown(summaries.summary({4: changes}), 4)
    assert (row["GFLOPs"], row["top-1 (%)"], row["95 % interval"]) == (gflops, text, text)
    assert row["paper, Kinetics-400"] == "76.3 (+0.2)"


def test_a_step_from_a_missing_row_is_left_out():
    assert shown(summaries.summary({4: MISSING, 5: {"step": NAN}}), 5)["top-1 (%)"] == "66.5"


def test_a_row_that_the_paper_has_not_gets_a_dash():
    row = shown(summaries.summary(study=WITH_AWKWARD), 11)
    assert (row[summaries.AWKWARD.label], row["paper, Kinetics-400"]) == ("✓", "–")


def test_without_any_number_of_the_paper_there_is_no_column_for_it():
    nothing = {"paper_top1": NAN, "paper_step": NAN}
    summary = summaries.summary(dict.fromkeys(range(1, 11), nothing))
    assert list(render.cells(study_tables.additive(summary)).columns)[-1] == "step's 95 % interval"


def test_without_any_interval_of_a_step_there_is_no_column_for_it():
    summary = summaries.summary(dict.fromkeys(range(1, 11), STEPLESS))
    assert "step's 95 % interval" not in render.cells(study_tables.additive(summary)).columns


@pytest.mark.parametrize(
    ("finding", "top1"),
    [("better", "62.0 (+0.5*)"), ("worse", "62.0 (+0.5*)"), ("no difference", "62.0 (+0.5≈)"),
     ("unsettled", "62.0 (+0.5)"), ("", "62.0 (+0.5)")],
)  # fmt: skip
def test_a_step_is_marked_by_its_finding(finding, top1):
    assert shown(summaries.summary({2: {"finding": finding}}), 2)["top-1 (%)"] == top1


def test_the_caption_says_what_the_heads_stand_for():
    made = table("full")
    assert made.caption.startswith(
        "LS: label smoothing; SD: stochastic depth; WD: reduced weight decay; 350-EP: training epochs; SJ: scale "
        "jittering; SE: squeeze-and-excitation in every block; D-stem: 3D ResNet-D stem; RA: RandAugment. Quick"
    )
    few = dataclasses.replace(STUDY, toggles=(SD, RESOLUTION))
    assert study_tables.additive(summaries.summary(study=few)).caption.startswith("SD: stochastic depth. Quick")
    unsaid = dataclasses.replace(STUDY, toggles=(dataclasses.replace(LS, meaning=""),))
    assert study_tables.additive(summaries.summary(study=unsaid)).caption == summaries.CAPTION


def test_core_hours_are_bounds_unless_they_are_measured():
    made = table("core-hours")
    cells = render.cells(made)
    assert list(cells.columns)[-2:] == ["paper, Kinetics-400", "core-hours, TPU v3:8x8"]
    assert list(cells["core-hours, TPU v3:8x8"]) == [
        "≥ 753", "3,309", "does not fit", "–", "≥ 1,234,568", "≥ 10", "0.031", "does not compile", "–", "–",
    ]  # fmt: skip
    assert made.caption == (
        f"{table('full').caption} Core-hours: of training and the reported evaluation on that slice, all seeds of a "
        "row together; ≥: the least that is possible, by the counts of libtpu 9.9.9 and published peaks; without a "
        "sign: as measured on recorded runs."
    )
    back = read(render.csv(made))
    assert list(back["core_hours_v3:8x8"].dropna()) == [753.4577, 3308.8355, 1234567.8, 9.96, 0.0312]
    assert back["measured_v3:8x8"].tolist() == [0, 1, 0, 0, 0, 0, 1, 0, 0, 0]
    assert back["obstacle_v3:8x8"].dropna().to_dict() == {3: "does not fit", 8: "does not compile"}
    assert "core-hours" not in render.markdown(study_tables.steps(CASES["core-hours"]))


@pytest.mark.parametrize(
    ("hours", "text"),
    [(0.0, "0"), (0.00002, "2e-05"), (0.99, "0.99"), (9.94, "9.9"), (9.96, "10"), (12.5001, "13"), (1e6, "1,000,000")],
)
def test_few_core_hours_keep_two_figures(hours, text):
    made = summaries.summary(costs=(summaries.costs(hours={1: (hours, True, "")}),))
    assert shown(made, 1)["core-hours, TPU v3:8x8"] == text


def test_a_scaling_axis_has_no_ticks():
    added = summaries.summary(study=STUDY.plus([RESOLUTION.at(256)]))
    assert "resolution" not in render.cells(study_tables.additive(added)).columns
    assert shown(added, 11)["Model"] == "R3D-RS-200, 48 frames, resolution 256"


@pytest.mark.parametrize("case", CASES)
def test_no_cell_but_a_tick_is_blank_or_nan(case):
    made = table(case)
    cells = render.cells(made)
    texts = [place for place, column in enumerate(made.columns) if column.align != "center"]
    assert (cells.iloc[:, texts] != "").all(axis=None)
    for text in (*render.render(made).values(), cells.to_string()):
        assert not re.search(r"\bnan\b", text, flags=re.IGNORECASE)


@pytest.mark.parametrize("case", CASES)
def test_csv_holds_the_unrounded_numbers(case):
    rows = CASES[case].rows
    numbers = [
        "gflops", "params", "top1", "low", "high", "top5", "top5_low", "top5_high", "step", "step_low", "step_high",
        "p", "p_holm", "p_equal", "p_equal_holm", "right", "wrong", "smallest", "spread", "units", "discordance",
        "seeds", "seeds_wanted", "videos", "paper_top1", "paper_step", "paper_gflops",
    ]  # fmt: skip
    back = read(render.csv(table(case)))
    pd.testing.assert_frame_equal(
        back[numbers].astype(float), rows[numbers].astype(float), check_exact=True, check_names=False
    )
    for toggle in CASES[case].study.toggles:
        assert list(back[toggle.key]) == [int(toggle.key in keys) for keys in rows["keys"]]


def test_csv_says_findings_and_classes():
    back = read(render.csv(table("full")))
    assert back["finding"].fillna("").tolist()[:4] == ["", "unsettled", "unsettled", "no difference"]
    assert back.loc[2, ["classes", "settle", "step_population"]].tolist() == [
        "east 5.0;north-east -3.0", "12,900 videos", "videos",
    ]  # fmt: skip


def test_csv_joins_ids_and_leaves_what_is_missing_empty():
    text = render.csv(study_tables.additive(summaries.summary({2: MISSING | {"run_ids": ("a", "b")}})))
    line = text.splitlines()[2]
    assert line.startswith("2,,1,0,") and line.endswith(",a;b")
    assert read(text).loc[2, ["model", "gflops", "top1", "low", "high", "step"]].isna().all()


def test_a_toggle_named_like_a_number_keeps_its_column():
    study = STUDY.plus([Toggle("step", "Step", "test", "test", {"x": 1}, default=1).at()])
    summary = summaries.summary(study=study)
    assert list(read(render.csv(study_tables.additive(summary)))["toggle_step"]) == [0] * 10 + [1]
    assert (shown(summary, 11)["Step"], shown(summary, 10)["Step"]) == ("✓", "")


def test_title_says_the_profile():
    for text in (render.markdown(table("full")), render.latex(table("full")), render.html(table("full"))):
        assert "(quick profile)" in text


def test_markdown_has_a_line_for_each_row_and_escapes_bars():
    text = render.markdown(table("toggle added"))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [re.split(r"(?<!\\)\|", line) for line in lines]
    assert len(lines) == 2 + 11
    assert len({len(line) for line in cells}) == 1
    assert r"a_b & \<c\|d> 50% {e}" in lines[0]


def test_html_escapes_and_styles_only_itself():
    text = render.html(table("toggle added"))
    assert "a_b &amp; &lt;c|d&gt; 50% {e}</th>" in text
    assert "<caption><strong>" in text and "a_b &amp; &lt;c|d&gt; 50% {e}</caption>" in text
    assert "<c|d>" not in text
    style = text[text.index(">") + 1 : text.index("</style>")]
    assert all(line.startswith("#T_table2") for line in style.splitlines() if line.endswith("{"))


def test_html_styles_a_table_of_any_name():
    text = render.html(dataclasses.replace(table("full"), name="table2-plus-ema=0.99"))
    assert '<table id="T_table2-plus-ema-0-99">' in text and "#T_table2-plus-ema-0-99 caption" in text


def test_html_holds_the_same_cells():
    reader = Cells()
    reader.feed(render.html(table("toggle added")))
    cells = render.cells(table("toggle added"))
    assert reader.rows[0] == list(cells.columns)
    assert reader.rows[1:] == cells.to_numpy().tolist()


def test_latex_is_a_whole_environment():
    text = render.latex(table("toggle added"))
    assert text.startswith(r"\begin{table}") and text.rstrip().endswith(r"\end{table}")
    for part in (r"\toprule", r"\midrule", r"\bottomrule", r"\label{tab:table2}", r"\caption{", r"($-$1.8)"):
        assert part in text
    # The head, which stands in as many lines as it has words, what it is said to mean, and the caption.
    assert text.replace(r"\\{}", " ").count(r"a\_b \& $<$c$|$d$>$ 50\% \{e\}") == 3
    keys = [key for keys in CASES["toggle added"].rows["keys"] for key in keys if key not in {"depth", "frames"}]
    assert text.count(r"\checkmark") == len(keys)


PAGES = {
    **{case: study_tables.additive(summary) for case, summary in CASES.items()},
    **{f"steps, {case}": study_tables.steps(summary) for case, summary in CASES.items()},
    "steps, three seeds": study_tables.steps(summaries.three_seeds()),
    "two designs": study_tables.credits(summaries.credits(summaries.DESIGNS[:2])),
    "every design": study_tables.credits(summaries.credits(summaries.DESIGNS)),
    "interactions": study_tables.interactions(summaries.credits(pairs=28)),
}


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="pdflatex is not installed")
def test_latex_compiles_each_onto_a_page(tmp_path):
    parts = [render.latex(made) for made in PAGES.values()]
    document = "\n".join(
        [
            r"\documentclass{article}",
            r"\usepackage[utf8]{inputenc}",
            r"\usepackage{booktabs,amssymb}",
            rf"\begin{{document}}{chr(10).join(rf'{part}{CLEAR}' for part in parts)}\end{{document}}",
        ]
    )
    (tmp_path / "page.tex").write_text(document, encoding="utf-8")
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"],
        cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    assert f"Output written on page.pdf ({len(PAGES)} pages" in done.stdout
    assert "Overfull" not in done.stdout
    assert "Missing character" not in done.stdout


def test_render_gives_every_format_and_the_same_text_twice():
    texts = render.render(table("full"))
    assert set(texts) == {"md", "tex", "csv", "html"}
    assert texts == render.render(table("full"))


def test_rendering_leaves_the_summary_as_it_was():
    summary = summaries.summary({4: MISSING})
    before = summary.rows.copy(deep=True)
    render.render(study_tables.additive(summary))
    pd.testing.assert_frame_equal(summary.rows, before)


def test_a_toggle_at_another_value_than_its_default_shows_the_value():
    study = summaries.STUDY.plus([EMA.at(0.99)])
    table = study_tables.additive(summaries.summary(study=study))
    assert list(render.cells(table)["EMA"])[-2:] == ["", "0.99"]
    assert pd.read_csv(io.StringIO(render.csv(table)))["ema"].tolist()[-2:] == [0.0, 0.99]


def steps(summary, row: int) -> dict[str, str]:
    """The cells of one row of the table of steps by their heads."""
    return dict(render.cells(study_tables.steps(summary)).set_index("#").loc[str(row)])


def test_a_step_shows_all_that_is_known_of_it():
    assert steps(summaries.summary(), 2) == {
        "change": "+ LS",
        "top-5 (%)": "83.1 [78.1, 86.0]",
        "step, 95 % interval": "+0.5 [-5.1, +6.1]",
        "p": "0.850",
        "p (Holm)": "1.000",
        "finding": "unsettled",
        "flipped right / wrong": "31 / 30",
        "most affected classes": "east +5, north-east -3",
        "smallest visible step": "8.2",
        "to settle": "12,900 videos",
    }


def test_a_row_without_a_step_is_there_for_its_top5():
    row = steps(summaries.summary(), 1)
    assert (row.pop("change"), row.pop("top-5 (%)")) == ("R3D-50", "82.6 [77.6, 85.5]")
    assert set(row.values()) == {"–"}


@pytest.mark.parametrize(
    ("row", "cell"),
    [(4, "not run"), (5, "row 4: not run"), (6, "2 of 3 seeds"), (7, "row 6: 2 of 3 seeds"), (8, "–"), (9, "–")],
)
def test_what_is_missing_of_a_step_is_said(row, cell):
    # Of row 8 both accuracies are there, but no step between them.
    summary = summaries.summary({4: MISSING, 5: STEPLESS, 6: PARTIAL, 7: STEPLESS, 8: STEPLESS})
    assert steps(summary, row)["step, 95 % interval"] == cell
    assert steps(summary, row)["finding"] == "–"


def test_a_step_may_have_neither_interval_nor_flips():
    nothing = {"step_low": NAN, "step_high": NAN, "right": NAN, "wrong": NAN, "smallest": NAN, "p": NAN}
    row = steps(summaries.summary({5: nothing}), 5)
    assert row["step, 95 % interval"] == "+6.2*"
    assert (row["flipped right / wrong"], row["smallest visible step"], row["p"]) == ("–", "–", "–")


@pytest.mark.parametrize(
    ("p", "text"),
    [(0.0, "<0.001"), (0.00099, "<0.001"), (0.001, "0.001"), (0.0321, "0.032"), (0.0496, "0.050"), (1.0, "1.000")],
)
def test_p_values(p, text):
    assert study_tables.p_value(p) == text


@pytest.mark.parametrize(
    ("right", "wrong", "text"), [(0, 0, "0 / 0"), (1200, 3.0, "1,200 / 3"), (2.5, 1 / 3, "2.5 / 0.3")]
)
def test_flips_over_seeds_may_be_fractions(right, wrong, text):
    assert steps(summaries.summary({2: {"right": right, "wrong": wrong}}), 2)["flipped right / wrong"] == text


@pytest.mark.parametrize(
    ("applied", "before", "text"),
    [
        ((LS.at(),), (), "+ LS"),
        ((), (LS.at(),), "− LS"),
        ((LS.at(), SD.at()), (SD.at(),), "+ LS"),
        ((LS.at(),), (SD.at(),), "+ LS − SD"),
        ((EMA.at(0.99),), (EMA.at(),), "EMA 0.99"),
        ((LS.at(), DEPTH.at(200), FRAMES.at(48)), (LS.at(),), "depth 200 48 frames"),
        ((LS.at(),), (LS.at(),), "–"),
    ],
)
def test_a_change_is_what_a_row_adds_or_takes_away(applied, before, text):
    row = Row(2, "", applied, follows=1)
    study = Study("s", "S", TABLE_2, (Row(1, "base", before), row))
    assert study_tables.change(row, study) == text


def test_a_change_without_a_row_to_follow():
    assert study_tables.change(table6.STUDY.rows[1], table6.STUDY) == "+ self-supervised pre-training"
    assert study_tables.change(Row(1, "R3D-50", ()), STUDY) == "R3D-50"
    assert study_tables.change(Row(1, "", (LS.at(),)), STUDY) == "+ LS"
    assert study_tables.change(Row(7, "", ()), STUDY) == "row 7"
    assert study_tables.change(Row(2, "", (LS.at(),), follows=1), STUDY.only([2])) == "… + LS"


def test_leaving_one_out_is_written_with_a_minus():
    whole = Row(1, "full", tuple(one.at() for one in TABLE_2))
    rows = [Row(n, "", tuple(o for o in whole.applied if o.toggle is not left), follows=1)
            for n, left in enumerate(TABLE_2, start=2)]  # fmt: skip
    summary = summaries.summary(study=Study("loo", "Leave one out", TABLE_2, (whole, *rows)))
    changes = [f"− {one.label}" for one in TABLE_2]
    assert list(render.cells(study_tables.steps(summary))["change"]) == [
        "full", changes[0], *(f"{one} (from row 1)" for one in changes[1:]),
    ]  # fmt: skip
    assert list(study_tables.steps(summary).data["change"]) == ["full", *changes]
    assert read(render.csv(study_tables.steps(summary)))["follows"].fillna(0).tolist() == [0] + [1] * 8
    assert list(render.cells(study_tables.additive(summary))["top-1 (%)"])[1:4] == [
        "62.0 (+0.5)", "60.2 (-1.8, from row 1)", "60.2 (+0.0≈, from row 1)",
    ]  # fmt: skip
    assert "$-$ LS" in render.latex(study_tables.steps(summary))


@pytest.mark.parametrize("case", CASES)
def test_steps_csv_says_which_row_each_is_from(case):
    lines = render.csv(study_tables.steps(CASES[case])).splitlines()
    assert lines[0].startswith("row,change,follows,absent,")
    for row, line in zip(CASES[case].study.rows, lines[1:], strict=True):
        assert next(csv.reader([line]))[2] == ("" if row.follows is None else str(row.follows))


@pytest.mark.parametrize("case", CASES)
def test_no_cell_of_the_steps_is_blank_or_nan(case):
    made = study_tables.steps(CASES[case])
    assert (render.cells(made) != "").all(axis=None)
    for text in render.render(made).values():
        assert not re.search(r"\bnan\b", text, flags=re.IGNORECASE)
    back = read(render.csv(made))
    rows = CASES[case].rows
    for name in ("step", "step_low", "step_high", "p", "p_holm", "top5", "right", "wrong", "smallest"):
        assert back[name].astype(float).equals(rows[name].astype(float).rename_axis("row"))


def test_signs_are_typeset():
    text = render.latex(table("full"))
    assert r"60.2 (+0.0$\approx$)" in text and "66.5 (+6.2*)" in text
    assert "$<$0.001" in render.latex(study_tables.steps(CASES["full"]))
    verdicts = summaries.summary({2: {"verdict": "agrees", "verdict_low": -0.25, "verdict_high": 0.5}}, "paper")
    rest = dict.fromkeys(("verdict_low", "verdict_high"), NAN) | {"verdict": ""}
    filled = verdicts.rows.assign(**{name: verdicts.rows[name].fillna(value) for name, value in rest.items()})
    assert "agrees [$-$0.2,~+0.5]" in render.latex(study_tables.additive(dataclasses.replace(verdicts, rows=filled)))


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("62.0 (+0.5*)", "62.0 (+0.5*)"),
        ("+1.3 [+0.2, +2.4]*", "+1.3 [+0.2, +2.4]*"),
        ("* a difference", "* a difference"),
        ("*a*", r"\*a*"),
        ("(*) or (*)", r"(\*) or (\*)"),
    ],
)
def test_no_asterisk_begins_an_emphasis_in_markdown(text, escaped):
    made = study_tables.additive(summaries.summary(caption=text))
    assert render.markdown(made).rstrip().endswith(escaped)
