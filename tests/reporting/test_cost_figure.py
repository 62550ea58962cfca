"""The points must be the published and the summary's numbers; what cannot be compared must not share an axis."""

import dataclasses
import functools
import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from ablations.profiles import PAPER, QUICK
from ablations.toggles import DEPTH, DSTEM, FRAMES, RESOLUTION, SE
from harness.analysis import published
from harness.config.studies import Row, Study
from harness.reporting import cost_figure, figure_style
from harness.reporting.cost_figure import Series
from tests.support import paper_summaries
from tests.support.paper_summaries import FIGURE_2, TABLE_3
from tests.support.summaries import MISSING, NAN, PARTIAL

ROOT = Path(__file__).parents[2]
FRAME_1, SOURCE_1 = published.load("figure1"), published.source("figure1")
FRAME_2, SOURCE_2 = published.load("figure2"), published.source("figure2")
COUNTED = cost_figure.counted(FRAME_2, PAPER, (SE.at(), DSTEM.at()))
# Every R3D and SlowFast row of the paper's Table 3, typed from its page.
TABLE_3_POINTS = {(60, 74.4), (58, 78.2), (115, 79.5), (168, 79.9), (204, 80.4), (307, 81.0), (213, 78.9), (234, 79.8)}
# As the study of the name asks it: each row is compared with the one that it scales.
FOLLOWS = {2: 1, 3: 2, 4: 3, **dict.fromkeys(range(5, 11), 4)}
FOLLOWED = dataclasses.replace(
    FIGURE_2, rows=tuple(dataclasses.replace(row, follows=FOLLOWS.get(row.number)) for row in FIGURE_2.rows)
)
NOTHING = dict.fromkeys(range(1, 11), MISSING)


def first(summary=None):
    return cost_figure.accuracy_points(summary, FRAME_1, SOURCE_1)


def second(summary=None, counted=COUNTED):
    return cost_figure.scaling_points(summary, FRAME_2, SOURCE_2, counted)


def of(study, profile="quick", changes=None):
    return paper_summaries.summary(study, profile, changes)


CASES = {
    "figure 1, nothing run": first(),
    "figure 1, quick": first(of(TABLE_3)),
    "figure 1, quick, nothing finished": first(of(TABLE_3, changes=NOTHING)),
    "figure 1, paper": first(of(TABLE_3, "paper")),
    "figure 1, paper in parts": first(of(TABLE_3, "paper", {2: MISSING, 3: PARTIAL})),
    "figure 1, one row": first(of(TABLE_3.only([1]))),
    "figure 2, nothing run": second(),
    "figure 2, nothing counted": second(counted=None),
    "figure 2, quick": second(of(FIGURE_2)),
    "figure 2, paper": second(of(FIGURE_2, "paper")),
    "figure 2, paper in parts": second(of(FIGURE_2, "paper", {4: MISSING, 9: PARTIAL})),
    "figure 2, one row": second(of(FIGURE_2.only([8]))),
    "figure 2, quick, steps": second(of(FOLLOWED)),
    "figure 2, paper, steps": second(of(FOLLOWED, "paper")),
    "figure 2, paper in parts, steps": second(of(FOLLOWED, "paper", {4: MISSING | {"step": NAN}, 9: PARTIAL})),
    "figure 2, no interval": second(of(FIGURE_2, "paper", {1: {"low": NAN, "high": NAN}})),
}


@functools.cache
def figure_of(case):
    figure = cost_figure.draw(CASES[case])
    figure.draw_without_rendering()
    return figure


def kinds(points, ours):
    return {series.kind: series for series in points.series if series.ours == ours}


def drawn(axes):
    """The heights of all markers of an axis."""
    heights = [float(y) for line in axes.lines if line.get_marker() != "None" for y in line.get_ydata()]
    return sorted(y for y in heights if not math.isnan(y))


@pytest.mark.parametrize("case", [case for case in CASES if case.startswith("figure 1")])
def test_figure_1_holds_every_r3d_and_slowfast_row_of_table_3(case):
    there = [series for series in CASES[case].series if not series.ours]
    assert {point for series in there for point in zip(series.gflops, series.top1, strict=True)} == TABLE_3_POINTS
    assert [series.kind for series in there] == ["R3D", "SlowFast", "R3D-RS"]
    table = published.load("table3")
    rows = table[table["model"].str.startswith(("R3D", "SlowFast"))]
    assert set(zip(rows["gflops"], rows["top1"], strict=True)) == TABLE_3_POINTS
    assert {label for series in there for label in series.labels} == set(FRAME_1["model"])


@pytest.mark.parametrize("case", [case for case in CASES if case.startswith("figure 2")])
def test_figure_2_holds_every_value_that_is_known(case):
    known = {"RS-50": 78.2, "RS-101": 79.5, "RS-152": 79.9, "RS-200": 80.4, "RS-270†": 79.9, "RS-300†": 79.7,
             "RS-200@f48": 80.7}  # fmt: skip
    if "nothing counted" in case:
        for label in ("RS-270†", "RS-300†"):
            assert f"{label[:-1]} ({known.pop(label):.1f} %)" in CASES[case].caption
    there = [series for series in CASES[case].series if not series.ours]
    assert {label: top1 for one in there for label, top1 in zip(one.labels, one.top1, strict=True)} == known


@pytest.mark.parametrize("case", [case for case in CASES if case.startswith("figure 2")])
def test_what_is_only_drawn_is_listed_and_never_a_point(case):
    points = CASES[case]
    assert "top-1 of @f64, @i256 and @i288." in points.caption
    labels = [label for series in points.series if not series.ours for label in series.labels]
    assert not [label for label in labels if label.startswith("@")]


def test_costs_that_the_paper_only_draws_are_counted_and_marked():
    # Against facts: RS-200's 203,806,670,848 multiply-adds, to which deeper networks add.
    assert set(COUNTED) == {5, 6}
    assert 204 < COUNTED[5] < COUNTED[6] < 307
    line = kinds(second(), False)["depth"]
    costs = dict(zip(line.labels, line.gflops, strict=True))
    assert (costs["RS-270†"], costs["RS-300†"], costs["RS-200"]) == (COUNTED[5], COUNTED[6], 204)
    assert "† The paper does not print" in second().caption and "†" not in second(counted=None).caption


def test_counting_uses_the_models_own_settings():
    rows = FRAME_2.assign(gflops=NAN).loc[[1, 4, 7]]
    counted = cost_figure.counted(rows, PAPER, (SE.at(), DSTEM.at()))
    assert counted == pytest.approx({1: 57.490997248, 4: 203.806670848, 7: 305.692606464})
    assert cost_figure.counted(rows, QUICK, (SE.at(), DSTEM.at()))[4] < 1


def test_ours_are_the_summarys_numbers():
    summary = of(TABLE_3)
    found = kinds(first(summary), True)
    assert set(found) == {"R3D", "R3D-RS"}
    assert found["R3D"].labels == ("R3D-50",)
    rows = summary.rows.loc[2:]
    for name in ("gflops", "top1", "low", "high"):
        assert getattr(found["R3D-RS"], name) == tuple(rows[name])
    assert found["R3D-RS"].labels[-1] == "R3D-RS-200, 48 frames"


def test_ours_of_figure_2_has_a_line_for_each_axis():
    found = kinds(second(of(FIGURE_2, "paper")), True)
    assert set(found) == {"depth", "frames", "resolution"}
    assert found["depth"].labels == ("RS-50", "RS-101", "RS-152", "RS-200", "RS-270", "RS-300")
    assert found["frames"] == Series(
        "frames", True, ("RS-200@f48", "@f64"), (305.7, 407.0), (80.8, 80.6), (80.8 - 0.65, 80.6 - 0.65),
        (80.8 + 0.65, 80.6 + 0.65), ("", ""), start=(203.8, 80.5),
    )  # fmt: skip
    assert found["resolution"].labels == ("@i256", "@i288") and found["resolution"].start == (203.8, 80.5)


def test_steps_stand_beside_the_points_and_the_caption_says_from_where():
    made = CASES["figure 2, quick, steps"]
    found = kinds(made, True)
    assert found["depth"].step == ("", "+0.5", "-1.8", "+0.0≈", "+6.2*", "+0.0")
    assert (found["frames"].step, found["resolution"].step) == (("+4.7*", "-1.1*"), ("", "+3.5"))
    assert made.caption.endswith(
        "A signed number is the step of a point: of RS-101, RS-152, RS-200 and RS-270 from the row before it; of "
        "RS-300, RS-200@f48, @f64 and @i288 from RS-200."
    )
    assert not any(any(one.step) for one in made.series if not one.ours)
    texts = [text.get_text() for text in figure_of("figure 2, quick, steps").axes[0].texts]
    assert "RS-270\n+6.2*" in texts and "RS-50" in texts
    shared = [text.get_text() for text in figure_of("figure 2, paper, steps").axes[0].texts]
    assert "RS-270†" in shared and "+6.2*" in shared and "@f64\n-1.1*" in shared


def test_titles_are_the_studys_own():
    study = dataclasses.replace(FIGURE_2, title="Is it depth?")
    assert second(dataclasses.replace(of(FIGURE_2), study=study)).title == "Is it depth? (quick profile)"
    assert second().title == "Scaling by depth, frames and resolution"
    assert first(of(TABLE_3)).title == f"{TABLE_3.title} (quick profile)"


def test_a_line_whose_start_is_missing_has_none():
    found = kinds(second(of(FIGURE_2, changes={4: MISSING})), True)
    assert found["frames"].start is None and math.isnan(found["depth"].top1[found["depth"].labels.index("RS-200")])


def test_rows_of_ours_alone_keep_their_own_names_and_lines():
    rows = (
        Row(1, "R3D-RS-50", (), published=1),
        Row(2, "R3D-RS-50", (FRAMES.at("32x2"),)),
        Row(3, "", (FRAMES.at(48), RESOLUTION.at(256))),
        Row(4, "", (DEPTH.at(101), RESOLUTION.at(288))),
    )
    found = kinds(second(of(Study("figure2", "Own", (), rows))), True)
    assert {kind: series.labels for kind, series in found.items()} == {
        "depth": ("RS-50",),
        "frames": ("R3D-RS-50, 32x2 frames",),
        "resolution": ("depth 101, resolution 288",),
        "frames and resolution": ("48 frames, resolution 256",),
    }
    assert found["frames"].start == (0.040, 82.1) and found["resolution"].start is None


def test_a_point_that_is_scaled_is_so_even_alone():
    found = kinds(CASES["figure 2, one row"], True)
    assert {kind: series.labels for kind, series in found.items()} == {"frames": ("@f64",)}
    plain = kinds(second(of(FIGURE_2.only([1]))), True)
    assert {kind: series.labels for kind, series in plain.items()} == {"depth": ("RS-50",)}


def test_what_the_paper_names_alike_is_named_so():
    rows = (*TABLE_3.rows[:5], Row(6, "R3D-RS-200*", TABLE_3.rows[5].applied, published=8))
    labels = kinds(first(of(Study("table3", "Own", (), rows), "paper")), True)["R3D-RS"].labels
    assert labels == ("R3D-RS-50", "R3D-RS-101", "R3D-RS-152", "R3D-RS-200", "R3D-RS-200*")


def test_a_row_without_a_model_is_named_by_what_it_changes():
    study = Study("table3", "Own", (), (Row(1, "", (SE.at(),)), Row(2, "", ())))
    assert kinds(first(of(study)), True)["others"].labels == ("+ SE", "row 2")


@pytest.mark.parametrize("points", [first, second])
def test_the_papers_numbers_never_share_an_axis_with_a_stand_ins(points):
    study = TABLE_3 if points is first else FIGURE_2
    made = points(of(study))
    assert [{series.ours for series in panel} for panel in made.panels] == [{True}, {False}]
    ours, paper = cost_figure.draw(made).axes
    assert drawn(ours) == sorted(top1 for one in made.series if one.ours for top1 in one.top1)
    assert drawn(paper) == sorted(top1 for series in made.series if not series.ours for top1 in series.top1)
    assert not ours.get_shared_x_axes().joined(ours, paper) and not ours.get_shared_y_axes().joined(ours, paper)
    assert all("ours, quick profile" in text.get_text() for text in ours.get_legend().get_texts())
    assert all("published" in text.get_text() for text in paper.get_legend().get_texts())


@pytest.mark.parametrize("points", [first, second])
def test_the_papers_recipe_shares_one_axis_with_the_paper(points):
    made = points(of(TABLE_3 if points is first else FIGURE_2, "paper"))
    assert made.panels == (made.series,)
    (axes,) = cost_figure.draw(made).axes
    assert drawn(axes) == sorted(top1 for series in made.series for top1 in series.top1)


@pytest.mark.parametrize(
    "case", ["figure 1, nothing run", "figure 1, quick, nothing finished", "figure 2, nothing run"]
)
def test_with_nothing_run_the_published_are_drawn_alone(case):
    (panel,) = CASES[case].panels
    assert not any(series.ours for series in panel)
    (axes,) = figure_of(case).axes
    assert len(drawn(axes)) == (8 if "1" in case else 7)
    if "nothing run" in case:
        assert CASES[case].caption.endswith("Nothing of ours was run.")


def test_what_is_missing_is_left_out_and_the_summary_says_it():
    made = CASES["figure 1, paper in parts"]
    ours = kinds(made, True)["R3D-RS"]
    assert np.isnan(ours.top1).tolist() == [True, True, False, False, False]
    assert np.isnan(ours.gflops).tolist() == [True, False, False, False, False]  # its first seeds are there
    assert made.caption.endswith(of(TABLE_3, "paper").caption)


def test_a_line_does_not_reach_over_what_is_missing():
    made = first(of(TABLE_3, "paper", {4: MISSING}))
    lines = [line for line in cost_figure.draw(made).axes[0].lines if line.get_linestyle() == "-"]
    (line,) = [line for line in lines if len(line.get_xdata()) == 5]
    assert np.isnan(line.get_ydata()).tolist() == [False, False, True, False, False]


def test_intervals_are_drawn_where_there_are_any():
    (axes,) = figure_of("figure 2, no interval").axes
    bars = [np.ma.filled(bar, NAN) for lines in axes.collections for bar in lines.get_segments()]
    assert sum(len(bar) > 0 and bool(np.isfinite(bar).all()) for bar in bars) == 9


@pytest.mark.parametrize("case", CASES)
def test_every_point_is_named_once_and_texts_are_legible_inside_and_apart(case):
    points = CASES[case]
    figure = figure_of(case)
    assert figure.get_figwidth() == figure_style.WIDTH
    for axes, panel in zip(figure.axes, points.panels, strict=True):
        labels = [label for series in panel if not series.ours for label in series.labels]
        own = [
            (label, step)
            for series in panel
            if series.ours
            for label, step, top1 in zip(series.labels, series.step, series.top1, strict=True)
            if not math.isnan(top1)
        ]
        plain = {label.rstrip("†") for label in labels}
        beside = [step if label in plain else f"{label}\n{step}".strip() for label, step in own]
        wanted = sorted([*labels, *filter(None, beside)])
        assert sorted(text.get_text().replace(",\n", ", ") for text in axes.texts) == wanted
    ticks = [label for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for label in axis.get_ticklabels()
             if axes.get_xlim()[0] <= label.get_position()[0] <= axes.get_xlim()[1] or axis is axes.yaxis]  # fmt: skip
    texts = [text for axes in figure.axes for text in (*axes.texts, *axes.get_legend().get_texts())]
    heads = [figure._suptitle, figure._supxlabel]
    heads += [label for axes in figure.axes for label in (axes.xaxis.label, axes.yaxis.label)]
    everything = [*ticks, *texts, *heads]
    assert all(text.get_fontsize() >= 7 for text in everything)
    corners = [corner for text in everything for corner in text.get_window_extent().corners()]
    assert all(figure.bbox.padded(1).contains(*corner) for corner in corners)
    for one, other in itertools.combinations(everything, 2):
        assert not one.get_window_extent().overlaps(other.get_window_extent()), (one, other)


@pytest.mark.parametrize("case", CASES)
def test_no_name_hides_a_marker(case):
    figure = figure_of(case)
    for axes, panel in zip(figure.axes, CASES[case].panels, strict=True):
        places = [axes.transData.transform(at) for one in panel for at in zip(one.gflops, one.top1, strict=True)
                  if not math.isnan(at[1])]  # fmt: skip
        for text in axes.texts:
            box = text.get_window_extent()
            assert not any(box.contains(*place) for place in places), text


@pytest.mark.parametrize("case", CASES)
def test_the_title_says_the_profile_and_the_caption_is_whole(case):
    figure = figure_of(case)
    assert figure._supxlabel.get_text().split() == CASES[case].caption.split()
    assert ("profile)" in figure._suptitle.get_text()) == bool(CASES[case].profile)


def test_ours_and_the_papers_differ_without_colour():
    (axes,) = figure_of("figure 2, paper").axes
    looks = [(line.get_marker(), line.get_linestyle(), str(line.get_markerfacecolor())) for line in
             axes.get_legend().legend_handles]  # fmt: skip
    assert len(set(looks)) == len(looks) == 5


@functools.cache
def drawn_twice():
    """Figures 1 and 2, each drawn twice from the same numbers."""
    figures = [cost_figure.accuracy(of(TABLE_3), FRAME_1, SOURCE_1) for _ in range(2)]
    return figures + [cost_figure.scaling(of(FIGURE_2), FRAME_2, SOURCE_2, COUNTED) for _ in range(2)]


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_the_same_numbers_give_the_same_bytes(suffix):
    one, two, three, four = [figure_style.to_bytes(figure, suffix) for figure in drawn_twice()]
    assert one == two and three == four
    assert one.startswith({"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[suffix])
