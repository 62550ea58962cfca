"""The lines must be the records' points, of both splits, and runs that are not shown must be named."""

import itertools
from pathlib import Path

import pytest

from harness.reporting import curve_figure, figure_style

ROOT = Path(__file__).parents[2]
TITLE, CAPTION = "Training curves (quick profile)", "Made by hand; costs $5."


def points(shift=0, steps=10):
    """What a record holds of a run: a point of training every ten steps, of validation every fifty."""
    train = [
        {"split": "train", "step": step, "seconds": 1.0, "loss": 2.5 - step / 80 + shift / 9, "top1": step / 200,
         "top5": 1.0, "learning_rate": 0.1} for step in range(10, 10 * steps + 1, 10)
    ]  # fmt: skip
    validation = [
        {"split": "validation", "step": step, "seconds": 2.0, "loss": 2.0 - shift / 9, "top1": step / 150, "top5": 1.0,
         "videos": 240.0} for step in range(50, 10 * steps + 1, 50)
    ]  # fmt: skip
    return [*train, *validation]


def runs(count):
    return [(f"row {number}: + toggle {number}", points(number)) for number in range(1, count + 1)]


CASES = {
    "none": [],
    "no points": [("row 1", []), ("row 2", [])],
    "one": runs(1),
    "three": runs(3),
    "as many as can be told apart": runs(10),
    "more": runs(13),
    "long labels": [(f"row {number}: R3D-RS-200 with 48 frames and resolution 288", points()) for number in range(4)],
    "one not begun": [*runs(2), ("row 3", ())],
    "training alone": [("row 1", [point for point in points() if point["split"] == "train"])],
    "one point": [("row 1", points(steps=1))],
}


def made(case):
    return curve_figure.curve_points(TITLE, CAPTION, CASES[case])


def of(curves, split, metric):
    return [curve for curve in curves if (curve.split, curve.metric) == (split, metric)]


def test_curves_are_the_records_points_in_percent():
    found = made("one").curves
    assert [(curve.split, curve.metric) for curve in found] == [
        ("train", "loss"), ("validation", "loss"), ("train", "top1"), ("validation", "top1"),
    ]  # fmt: skip
    (loss,), (top1,) = of(found, "train", "loss"), of(found, "validation", "top1")
    assert loss.steps == tuple(range(10, 101, 10))
    assert loss.values == pytest.approx([2.5 - step / 80 + 1 / 9 for step in range(10, 101, 10)])
    assert (top1.steps, top1.values) == ((50, 100), pytest.approx((100 / 3, 200 / 3)))


def test_points_are_put_in_order_and_what_is_missing_is_left_out():
    shuffled = [
        {"split": "train", "step": 30, "loss": 1.0},
        {"split": "train", "step": 10, "loss": 3.0, "top1": 0.1},
        {"split": "train", "step": 20, "loss": float("nan"), "top1": 0.2},
    ]
    found = curve_figure.curve_points(TITLE, CAPTION, [("imported", shuffled)]).curves
    assert [(curve.metric, curve.steps, curve.values) for curve in found] == [
        ("loss", (10, 30), (3.0, 1.0)), ("top1", (10, 20), (10.0, 20.0)),
    ]  # fmt: skip


def test_so_many_are_shown_as_can_be_told_apart_and_the_others_named():
    points = made("more")
    assert curve_figure.MOST == 10  # rows of the paper's Table 2
    assert points.labels == tuple(label for label, _ in CASES["more"][:10])
    assert len(points.curves) == 10 * 4
    assert "Not shown, to keep the lines apart: row 11: + toggle 11, row 12: + toggle 12, row 13: + toggle 13." in (
        points.caption
    )
    assert "Not shown" not in made("as many as can be told apart").caption


def test_a_run_without_a_point_is_named_and_takes_no_colour():
    points = made("one not begun")
    assert points.labels == ("row 1: + toggle 1", "row 2: + toggle 2")
    assert points.caption.endswith("No curve yet: row 3.")


def test_of_a_chain_the_last_stage_is_drawn_and_named():
    stages = {"row 2: + toggle 2": "linear evaluation"}
    found = curve_figure.curve_points(TITLE, CAPTION, CASES["one not begun"], stages)
    assert found.labels == ("row 1: + toggle 1", "row 2: + toggle 2: linear evaluation")
    assert {curve.label for curve in found.curves} == set(found.labels)
    assert "Of a chain of stages the last alone is drawn, which the label ends with" in found.caption
    assert "chain" not in made("three").caption
    figure = curve_figure.curves(TITLE, CAPTION, CASES["one not begun"], stages)
    assert figure.axes[0].get_legend().get_texts()[1].get_text() == found.labels[1]


def test_each_curve_is_drawn_in_its_panel():
    points = made("three")
    _, loss, top1 = curve_figure.curves(TITLE, CAPTION, CASES["three"]).axes
    for axes, metric in ((loss, "loss"), (top1, "top1")):
        wanted = [curve for curve in points.curves if curve.metric == metric]
        drawn = [(tuple(line.get_xdata()), tuple(line.get_ydata())) for line in axes.lines]
        assert drawn == [(curve.steps, curve.values) for curve in wanted]
    assert (loss.get_ylabel(), top1.get_ylabel(), top1.get_ylim()) == ("loss (nats)", "top-1 (%)", (0, 100))
    assert loss.get_xlabel() == top1.get_xlabel() == "optimizer steps"


def test_runs_and_splits_differ_without_colour():
    figure = curve_figure.curves(TITLE, CAPTION, CASES["as many as can be told apart"])
    key, loss, _ = figure.axes
    entries = key.get_legend().get_texts()
    assert [text.get_text() for text in entries] == [*made("as many as can be told apart").labels,
                                                     "training", "validation"]  # fmt: skip
    looks = {(line.get_marker(), line.get_linestyle()) for line in loss.lines}
    assert len(looks) == len(loss.lines) == 20
    assert len({line.get_color() for line in loss.lines}) == 10
    # Lines of training are marked at their ends and elsewhere one beside the other.
    every = [line.get_markevery() for line in loss.lines if line.get_linestyle() == "-"]
    assert all(marked[-1] == 9 and len(marked) > 1 for marked in every) and len(set(map(tuple, every))) > 3


@pytest.mark.parametrize("case", ["none", "no points"])
def test_nothing_run_is_said(case):
    figure = curve_figure.curves(TITLE, CAPTION, CASES[case])
    _, *panels = figure.axes
    assert [[text.get_text() for text in axes.texts] for axes in panels] == [["no curve yet"]] * 2
    assert not any(len(axes.get_xticks()) for axes in panels)


@pytest.mark.parametrize("case", CASES)
def test_texts_are_legible_inside_and_apart(case):
    figure = curve_figure.curves(TITLE, CAPTION, CASES[case])
    figure.draw_without_rendering()
    assert figure.get_figwidth() == figure_style.WIDTH
    key, *panels = figure.axes
    texts = [*(key.get_legend().get_texts()), figure._suptitle, figure._supxlabel]
    for axes in panels:
        texts += [*axes.texts, axes.xaxis.label, axes.yaxis.label]
        # Ticks beyond the ends of an axis have labels that are not drawn.
        for axis, (low, high), place in ((axes.xaxis, axes.get_xlim(), 0), (axes.yaxis, axes.get_ylim(), 1)):
            texts += [label for label in axis.get_ticklabels() if low <= label.get_position()[place] <= high]
    assert all(text.get_fontsize() >= 7 for text in texts)
    corners = [corner for text in texts for corner in text.get_window_extent().corners()]
    assert all(figure.bbox.padded(1).contains(*corner) for corner in corners)
    for one, other in itertools.combinations(texts, 2):
        assert not one.get_window_extent().overlaps(other.get_window_extent()), (one, other)
    assert figure._supxlabel.get_text().split() == made(case).caption.split()


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_the_same_points_give_the_same_bytes(suffix):
    one, two = (figure_style.to_bytes(curve_figure.curves(TITLE, CAPTION, CASES["three"]), suffix) for _ in range(2))
    assert one == two
