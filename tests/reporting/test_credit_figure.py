"""Credits under several designs: their tables and their figure, where anything may be missing."""

import io
import itertools
import math

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from harness.reporting import credit_figure, figure_style, render, study_tables, terminal
from tests.support import summaries
from tests.support.summaries import DESIGNS, LABELS, NAN, NOT_RUN

NOTHING_RUN = {(design, label): NOT_RUN for design in DESIGNS for label in LABELS}
LONG = tuple(f"{label}, and some more words" for label in LABELS)
CASES = {
    "four designs": summaries.credits(),
    "one design": summaries.credits(DESIGNS[:1]),
    "every design": summaries.credits(DESIGNS),
    "one toggle": summaries.credits(labels=("LS",)),
    "one missing": summaries.credits(changes={("reverse", "SD"): NOT_RUN}),
    "some missing": summaries.credits(
        DESIGNS, changes={(one, "SJ"): NOT_RUN | {"absent": "2 of 3 seeds"} for one in DESIGNS[2:5]}
    ),
    "nothing run": summaries.credits(changes=NOTHING_RUN),
    "no margin": summaries.credits(margin=NAN),
    "long labels": summaries.credits(labels=LONG),
    "long labels, every design": summaries.credits(DESIGNS, labels=LONG),
    "marks and notes everywhere": summaries.credits(
        DESIGNS,
        changes={
            (one, label): {"finding": "no difference", "note": "depth 200"} for one in DESIGNS for label in LABELS
        },
    ),
}


def cell(numbers, design: str, label: str) -> str:
    return str(render.cells(study_tables.credits(numbers)).set_index("toggle").loc[label, design])


def test_there_is_a_line_for_each_toggle_and_a_column_for_each_design():
    cells = render.cells(study_tables.credits(CASES["every design"]))
    assert list(cells.columns) == ["toggle", *DESIGNS]
    assert list(cells["toggle"]) == list(LABELS)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "+1.3 [+0.2, +2.4]*"),
        ({"finding": "worse"}, "+1.3 [+0.2, +2.4]*"),
        ({"finding": "no difference"}, "+1.3 [+0.2, +2.4]≈"),
        ({"finding": "unsettled"}, "+1.3 [+0.2, +2.4]"),
        ({"note": "depth 200, 48 frames"}, "+1.3 [+0.2, +2.4]*†"),
        ({"low": NAN, "high": NAN}, "+1.3*"),
        (NOT_RUN, "not run"),
        (NOT_RUN | {"note": "depth 200"}, "not run"),
        (NOT_RUN | {"absent": "2 of 3 seeds"}, "2 of 3 seeds"),
        (NOT_RUN | {"absent": ""}, "–"),
    ],
)
def test_a_credit_with_interval_mark_and_note(changes, text):
    assert cell(summaries.credits(changes={("additive", "LS"): changes}), "additive", "LS") == text


def test_a_toggle_of_which_a_design_does_not_speak_gets_a_dash():
    numbers = summaries.credits()
    few = summaries.credits(credits=numbers.credits[numbers.credits["toggle"] != "LS"])
    assert cell(few, "additive", "LS") == "–"
    assert math.isnan(credit_figure.credit_points(few).series[0].credit[0])
    assert credit_figure.credit_points(few).series[0].absent[0] == ""


@pytest.mark.parametrize("case", CASES)
def test_csv_holds_every_number_unrounded(case):
    wanted = CASES[case].credits
    back = pd.read_csv(io.StringIO(render.csv(study_tables.credits(CASES[case]))), float_precision="round_trip")
    assert list(back.columns) == list(wanted.columns)
    for name in ("credit", "low", "high", "p", "p_holm", "p_equal"):
        np.testing.assert_array_equal(back[name].astype(float), wanted[name].astype(float))
    assert list(back["run_ids"]) == [";".join(ids) for ids in wanted["run_ids"]]


@pytest.mark.parametrize("case", CASES)
def test_no_cell_is_blank_or_nan(case):
    made = study_tables.credits(CASES[case])
    assert (render.cells(made) != "").all(axis=None)
    assert all("nan" not in text for text in render.render(made).values())


def test_the_ten_largest_interactions_are_shown_and_all_are_in_the_file():
    made = study_tables.interactions(summaries.credits(pairs=28))
    cells = render.cells(made)
    assert cells.iloc[:2].to_numpy().tolist() == [
        ["LS × SD", "+6.5 [+4.5, +8.5]*", "<0.001", "0.011", "more"],
        ["SD × WD", "-6.2 [-8.2, -4.2]*", "<0.001", "0.011", "less"],
    ]
    assert len(cells) == 10 and "The 10 largest of 28" in made.caption
    assert len(pd.read_csv(io.StringIO(render.csv(made)))) == 28


@pytest.mark.parametrize(("pairs", "lines"), [(1, 1), (10, 10)])
def test_few_interactions_are_all_shown(pairs, lines):
    made = study_tables.interactions(summaries.credits(pairs=pairs))
    assert (len(render.cells(made)), made.caption) == (lines, "Interactions are told from 37 runs.")


def test_without_interactions_there_is_no_table():
    assert study_tables.interactions(summaries.credits(pairs=0)) is None


def test_points_are_the_given_numbers():
    numbers = CASES["every design"]
    points = credit_figure.credit_points(numbers)
    assert (points.labels, points.margin) == (LABELS, 0.5)
    assert [series.name for series in points.series] == list(DESIGNS)
    for series in points.series:
        lines = numbers.credits[numbers.credits["design"] == series.name]
        np.testing.assert_array_equal(series.credit, lines["credit"])
        np.testing.assert_array_equal(series.low, lines["low"])
        np.testing.assert_array_equal(series.high, lines["high"])
        # LS and 350-EP better, SE worse; the others unsettled or no different.
        assert series.survives == (True, False, False, True, False, True, False, False)


def test_marks_stand_above_and_notes_above_them():
    first, second, *_ = credit_figure.credit_points(CASES["four designs"]).series
    assert first.marks == ("", "", "≈", "", "", "", "", "†")
    assert second.marks == ("", "", "≈", "", "", "", "", "")
    both = summaries.credits(changes={("additive", "WD"): {"note": "depth 200"}})
    assert credit_figure.credit_points(both).series[0].marks[2] == "†\n≈"


@pytest.mark.parametrize("count", range(1, 8))
def test_the_designs_of_a_toggle_stand_apart_around_its_label(count):
    series = credit_figure.credit_points(summaries.credits(DESIGNS[:count])).series
    places = np.array([one.x for one in series])
    np.testing.assert_allclose(places.mean(axis=0), range(8), atol=1e-12)
    assert (np.diff(places, axis=0) > 0.1).all()
    assert (np.abs(places - np.arange(8)) < 0.5).all()


def test_a_missing_credit_is_said_once_for_neighbours():
    texts = [one.get_text() for one in credit_figure.credits(CASES["some missing"]).axes[0].texts]
    assert texts.count("2 of 3 seeds") == 1
    apart = {(one, "SJ"): NOT_RUN for one in (DESIGNS[0], DESIGNS[2])}
    texts = [one.get_text() for one in credit_figure.credits(summaries.credits(changes=apart)).axes[0].texts]
    assert texts.count("not run") == 2


def markers(axes):
    """Colour, marker and whether it is filled of every point drawn."""
    drawn = [line for line in axes.lines if line.get_marker() not in ("None", "")]
    return [(line.get_color(), line.get_marker(), line.get_markerfacecolor() == line.get_color()) for line in drawn]


def test_what_survives_is_filled_and_each_design_has_its_own_colour_and_marker():
    found = markers(credit_figure.credits(CASES["every design"]).axes[0])
    assert [filled for *_, filled in found] == [True, False, False, True, False, True, False, False] * len(DESIGNS)
    assert len({marker for _, marker, _ in found}) == len({colour for colour, *_ in found}) == len(DESIGNS)


@pytest.mark.parametrize(("margin", "there"), [(0.5, True), (NAN, False)])
def test_the_margin_is_a_band_that_the_legend_explains(margin, there):
    figure = credit_figure.credits(summaries.credits(margin=margin))
    bands = [patch for patch in figure.axes[0].patches if patch.get_alpha()]
    assert bool(bands) == there
    if there:
        box = bands[0].get_extents().transformed(figure.axes[0].transData.inverted())
        assert (box.y0, box.y1) == pytest.approx((-0.5, 0.5))
    words = [text.get_text() for one in legends(figure) for text in one.get_texts()]
    assert any("±0.5" in word for word in words) == there


def legends(figure):
    axes = figure.axes[0]
    return [axes.get_legend(), *(one for one in axes.artists if hasattr(one, "get_texts"))]


@pytest.mark.parametrize("case", CASES)
def test_texts_are_legible_inside_and_apart(case):
    figure = credit_figure.credits(CASES[case])
    figure.draw_without_rendering()
    assert figure.get_figwidth() == figure_style.WIDTH
    axes = figure.axes[0]
    assert len(legends(figure)) == 2
    labels = axes.get_xticklabels()
    words = [text for one in legends(figure) for text in one.get_texts()]
    marks = [text for text in axes.texts if text.get_text()]
    everything = [*axes.get_yticklabels(), *labels, *words, *marks, figure._suptitle, figure._supxlabel]
    assert all(text.get_fontsize() >= 7 for text in everything)
    corners = [corner for text in everything for corner in text.get_window_extent().corners()]
    assert all(figure.bbox.padded(1).contains(*corner) for corner in corners)
    apart = [text for text in everything if text not in labels or not text.get_rotation()]
    boxes = [(text.get_text(), text.get_window_extent()) for text in apart]
    for (one, box), (other, second) in itertools.combinations(boxes, 2):
        assert not box.overlaps(second), (one, other)


@pytest.mark.parametrize("suffix", ["png", "pdf"])
def test_the_same_credits_give_the_same_bytes(suffix):
    first, second = (figure_style.to_bytes(credit_figure.credits(CASES["one missing"]), suffix) for _ in range(2))
    assert first == second


TABLES = {
    "additive": study_tables.additive(summaries.summary()),
    "steps": study_tables.steps(summaries.summary()),
    "credits": study_tables.credits(CASES["every design"]),
    "interactions": study_tables.interactions(CASES["four designs"]),
}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("width", [30, 80, 130, 200])
@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_terminal_of_any_width_shows_every_cell_whole(name, width, is_terminal):
    console = Console(file=io.StringIO(), width=width, force_terminal=is_terminal, color_system=None)
    terminal.show_table(TABLES[name], console)
    text = console.file.getvalue()
    unbroken = [place for place, column in enumerate(TABLES[name].columns) if not column.wrap]
    for shown in render.cells(TABLES[name]).iloc[:, unbroken].to_numpy().ravel():
        assert shown.replace("<", r"\<" if "|" in text else "<") in text
    assert "…" not in text
    words = text.split()
    assert set(TABLES[name].caption.split()) <= set(words)


def test_a_table_wider_than_the_terminal_is_shown_in_parts():
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    terminal.show_table(TABLES["credits"], console)
    lines = console.file.getvalue().splitlines()
    assert sum(line.startswith("350-EP") for line in lines) == 3
    assert all(len(line) <= 80 for line in lines if line.startswith(LABELS))


def test_show_prints_tables_and_failures():
    console = Console(file=io.StringIO(), width=130, force_terminal=True, color_system=None)
    terminal.show([TABLES["additive"], TABLES["steps"]], ["row 3: boom"], console)
    text = console.file.getvalue()
    assert text.index("paper,") < text.index("to settle") < text.index("FAILED row 3: boom")


def test_heads_stand_in_lines_that_take_no_room():
    made = TABLES["steps"]
    for head, column, width in zip(render.stacked_heads(made), made.columns, render.widths(made), strict=True):
        assert head.replace("\n", " ") == column.head
        assert max(map(len, head.split("\n"))) <= width
