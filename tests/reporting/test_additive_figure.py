"""The points must be the summary's numbers, and the paper's must never share an axis with a stand-in's."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from harness.reporting import additive_figure, figure_style
from tests.support import summaries
from tests.support.summaries import MISSING, NAN, OURS, PAPER, PARTIAL, STUDY

ROOT = Path(__file__).parents[2]
WITH_AWKWARD = STUDY.plus([summaries.AWKWARD.at()])
CASES = {
    "full": summaries.summary(),
    "paper": summaries.summary(profile="paper"),
    "one row missing": summaries.summary({4: MISSING}),
    "partial seeds": summaries.summary({6: PARTIAL}, profile="paper"),
    "nothing run": summaries.summary(dict.fromkeys(range(1, 11), MISSING), population=""),
    "some rows": summaries.summary(study=STUDY.only([2, 5, 9])),
    "three seeds": summaries.three_seeds(),
    "one row": summaries.summary(study=STUDY.only([1])),
    "toggle added": summaries.summary(study=WITH_AWKWARD, caption="costs $5 and $ 6"),
}


def drawn(axes) -> list[float]:
    """The heights of all markers of an axis."""
    heights = [float(y) for line in axes.lines if line.get_marker() != "None" for y in line.get_ydata()]
    return [y for y in heights if not math.isnan(y)]


def test_points_are_the_given_numbers():
    points = additive_figure.additive_points(summaries.summary())
    ours = np.array([points.ours.top1, points.ours.low, points.ours.high, points.ours.step]).T
    np.testing.assert_array_equal(ours, list(OURS.values()))
    paper = np.array([points.paper.top1, points.paper.step]).T
    np.testing.assert_array_equal(paper, [(top1, step) for top1, step, _ in PAPER.values()])
    assert not any(points.ours.absent + points.paper.absent)


def test_labels_name_the_change_of_each_row():
    assert additive_figure.additive_points(summaries.summary()).labels == (
        "R3D-50", "+ LS", "+ SD", "+ WD", "+ 350-EP", "+ SJ", "+ SE", "+ D-stem", "R3D-RS-200, 48 frames", "+ RA",
    )  # fmt: skip


def test_rows_of_a_new_scale_stand_apart():
    points = additive_figure.additive_points(summaries.summary())
    assert points.stretches == ((0, 8), (8, 10))
    assert np.diff(points.x) == pytest.approx([1, 1, 1, 1, 1, 1, 1, 1.6, 1])


def test_a_row_whose_forerunner_is_not_shown_stands_apart():
    points = additive_figure.additive_points(CASES["some rows"])
    assert points.labels == ("… + LS", "… + 350-EP", "R3D-RS-200, 48 frames")
    assert points.stretches == ((0, 1), (1, 2), (2, 3))


@pytest.mark.parametrize(
    ("changes", "text"), [(MISSING, "not run"), (PARTIAL, "2 of 3 seeds"), ({"top1": 0.0}, "")]
)  # fmt: skip
def test_what_is_missing_is_said(changes, text):
    points = additive_figure.additive_points(summaries.summary({4: changes}))
    assert points.ours.absent == ("", "", "", text, *[""] * 6)
    assert math.isnan(points.ours.top1[3]) == bool(text)
    written = [one.get_text() for one in additive_figure.additive(summaries.summary({4: changes})).axes[0].texts]
    assert (text in written) == bool(text)


def test_rows_that_the_paper_has_not_are_said():
    assert additive_figure.additive_points(CASES["toggle added"]).paper.absent == (*[""] * 10, "not in the paper")


def test_without_any_number_of_the_paper_there_is_one_panel():
    nothing = {"paper_top1": NAN, "paper_step": NAN}
    points = additive_figure.additive_points(summaries.summary(dict.fromkeys(range(1, 11), nothing)))
    assert points.paper is None
    assert points.panels == ((points.ours,),)


def test_the_papers_numbers_never_share_an_axis_with_a_stand_ins():
    points = additive_figure.additive_points(summaries.summary())
    assert points.panels == ((points.ours,), (points.paper,))
    first, second = additive_figure.additive(summaries.summary()).axes
    assert drawn(first) == [top1 for top1, *_ in OURS.values()]
    assert drawn(second) == [top1 for top1, *_ in PAPER.values()]
    assert not first.get_shared_y_axes().joined(first, second)
    names = [axes.get_legend().get_texts()[0].get_text() for axes in (first, second)]
    assert names == ["ours, quick profile, 95 % interval over videos", "paper, Kinetics-400"]


def test_the_papers_recipe_shares_one_axis_with_the_paper():
    points = additive_figure.additive_points(CASES["paper"])
    assert points.panels == ((points.ours, points.paper),)
    (axes,) = additive_figure.additive(CASES["paper"]).axes
    assert sorted(drawn(axes)) == sorted([*points.ours.top1, *points.paper.top1])


def test_steps_are_marked_by_their_findings():
    points = additive_figure.additive_points(summaries.summary())
    assert points.ours.mark == ("", "", "", "≈", "*", "", "*", "*", "", "")
    assert points.paper.mark == ("",) * 10


def test_steps_are_written_with_sign_and_mark():
    axes = additive_figure.additive(summaries.summary()).axes
    assert [text.get_text() for text in axes[0].texts] == [
        "+0.5", "-1.8", "+0.0≈", "+6.2*", "+0.0", "+4.7*", "-1.1*", "+3.5",
    ]  # fmt: skip
    assert [text.get_text() for text in axes[1].texts] == [
        "+0.5", "+1.2", "+0.2", "+0.1", "+1.0", "+0.5", "+0.3", "+0.3",
    ]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_texts_are_legible_inside_and_apart(case):
    figure = additive_figure.additive(CASES[case])
    figure.draw_without_rendering()
    assert figure.get_figwidth() == figure_style.WIDTH
    ticks = [label for axes in figure.axes for label in axes.get_yticklabels()]
    texts = [text for axes in figure.axes for text in (*axes.texts, *axes.get_legend().get_texts())]
    labels = figure.axes[-1].get_xticklabels()
    everything = [*ticks, *texts, *labels, figure._suptitle, figure._supxlabel]
    assert all(text.get_fontsize() >= 7 for text in everything)
    corners = [corner for text in everything for corner in text.get_window_extent().corners()]
    assert all(figure.bbox.padded(1).contains(*corner) for corner in corners)
    apart = [*ticks, *texts, figure._suptitle, figure._supxlabel, *([] if labels[0].get_rotation() else labels)]
    for one, other in itertools.combinations(apart, 2):
        assert not one.get_window_extent().overlaps(other.get_window_extent()), (one, other)


@pytest.mark.parametrize("case", CASES)
def test_the_title_says_the_profile_and_the_caption_is_whole(case):
    figure = additive_figure.additive(CASES[case])
    assert f"({CASES[case].profile} profile)" in figure._suptitle.get_text()
    assert figure._supxlabel.get_text().split() == CASES[case].caption.split()


def test_no_percentage_above_100_is_on_the_scale():
    best = {"top1": 100.0, "low": 98.1, "high": 100.0}
    axes = additive_figure.additive(summaries.summary(dict.fromkeys(range(1, 11), best))).axes[0]
    assert max(axes.get_yticks()) <= 100


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_the_same_numbers_give_the_same_bytes(suffix):
    figure = additive_figure.additive(summaries.summary({4: MISSING}))
    first = figure_style.to_bytes(figure, suffix)
    figure_style.to_bytes(figure, "pdf" if suffix == "png" else "png")
    assert figure_style.to_bytes(figure, suffix) == first
    assert figure_style.to_bytes(additive_figure.additive(summaries.summary({4: MISSING})), suffix) == first
    assert first.startswith({"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[suffix])


def test_an_unknown_format_is_refused():
    with pytest.raises(ValueError, match="'gif': expected one of png, pdf, svg"):
        figure_style.to_bytes(additive_figure.additive(summaries.summary(study=STUDY.only([1]))), "gif")
