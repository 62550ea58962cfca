"""What a sweep's report says, held against enumeration, hand counts and records whose truth is known."""

import io
import itertools
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from harness.reporting import figure_style
from harness.reporting.render import cells, render
from harness.store.records import RecordError
from harness.sweep import front_figure, sweep_run, sweep_summary
from harness.sweep.search import Strategy
from harness.sweep.sweep_summary import pareto, summarise
from harness.sweep.trial_store import StoredSweep, SweepError, Trial
from tests.support import sweeps

SETTINGS = {"sampler": "tpe", "profile": "quick", "clips": 10, "crops": 3, "validation videos": None,
            "max gflops": None, "max hours": None}  # fmt: skip
AXES = [
    {"key": "depth", "label": "depth", "choices": [50, 101, 200], "log": False, "whole": False},
    {"key": "frames", "label": "frames", "choices": [32, 48], "log": False, "whole": False},
    {"key": "resolution", "label": "resolution", "choices": [224], "log": False, "whole": False},
]


@pytest.fixture
def grid(tmp_path):
    return sweeps.sweep(sweeps.workspace(tmp_path)).grid()


def kept(grid, *told, **settings):
    """A sweep with a trial for each (place of the point, state, source, top-1 or steps); steps are 100 a schedule."""
    trials = []
    for number, (place, state, source, value) in enumerate(told):
        point = grid[place]
        steps = {"complete": 100 if source == "trained" else 0}.get(state, value)
        values = (value,) if state == "complete" else ()
        trials.append(Trial(number, state, point.params, values, {}, point.run.id, source, steps, 100, point.gflops,
                            "a reason"))  # fmt: skip
    points = [{"run": one.run.id, "steps": 100, "gflops": one.gflops, "within": True} for one in grid]
    return StoredSweep("s", SETTINGS | settings, "Made up.", AXES, points, trials)


def records(of, grid, **changed):
    """The records of the trials that are complete."""
    runs = {point.run.id: point.run for point in grid}
    found = {one.run: sweeps.record(runs[one.run], one.values[0]) for one in of.trials if one.state == "complete"}
    return {**found, **changed}


def test_the_front_is_what_enumeration_finds():
    generator = np.random.default_rng(0)
    for _ in range(50):
        points = [tuple(map(float, pair)) for pair in generator.integers(0, 6, (12, 2))]
        expected = [
            not any(
                (other[0] >= one[0] and other[1] <= one[1]) and (other[0] > one[0] or other[1] < one[1])
                for other in points
            )
            for one in points
        ]
        assert pareto(points) == expected
    assert pareto([]) == []
    assert pareto([(1.0, 1.0), (1.0, 1.0)]) == [True, True]


def test_accuracy_is_the_records_and_the_front_is_of_it(grid):
    cheap, dear = sorted(range(len(grid)), key=lambda place: grid[place].gflops)[::5][:2]
    middle = sorted(range(len(grid)), key=lambda place: grid[place].gflops)[2]
    of = kept(grid, (dear, "complete", "trained", 0.75), (cheap, "complete", "trained", 0.5),
              (middle, "complete", "recorded", 0.5))  # fmt: skip
    found = summarise(of, records(of, grid)).points.set_index("run")
    assert list(found["gflops"]) == sorted(found["gflops"])
    line = found.loc[grid[dear].run.id]
    assert (line["top1"], line["videos"], line["state"]) == (75.0, sweeps.VIDEOS, "trained")
    # Wilson's interval of 180 of 240, by its formula.
    n, p, z = 240, 0.75, 1.959963984540054
    centre, half = (p + z * z / 2 / n) / (1 + z * z / n), z * np.sqrt(p * (1 - p) / n + z * z / 4 / n / n)
    assert line["low"] == pytest.approx(100 * (centre - half / (1 + z * z / n)))
    assert list(found["front"]) == [True, False, True], "as accurate as a cheaper one is not on the front"
    assert found.loc[grid[middle].run.id, "state"] == "recorded"


def test_a_value_that_is_not_the_records_is_an_error(grid):
    of = kept(grid, (0, "complete", "trained", 0.5))
    other = sweeps.record(grid[0].run, 0.625)
    with pytest.raises(SweepError, match=r"trial 0 holds top-1 0\.5, the record of run \w{16} says 0\.625"):
        summarise(of, {grid[0].run.id: other})


def test_missing_and_damaged_records_are_said(grid):
    of = kept(grid, (0, "complete", "trained", 0.5), (1, "complete", "trained", 0.5), (2, "complete", "trained", 0.5))
    left = {grid[1].run.id: RecordError("it is damaged"), grid[2].run.id: sweeps.record(grid[2].run, 0.5)}
    found = summarise(of, left)
    states = found.points.set_index("run")["state"]
    assert states[grid[0].run.id] == "record missing"
    assert states[grid[1].run.id] == "record unusable"
    assert "1 record missing" in found.caption
    assert "1 record unusable" in found.caption
    assert int(found.points["front"].sum()) == 1


def test_steps_against_the_grid_add_up(grid):
    assert len(grid) == 6
    of = kept(
        grid,
        (0, "complete", "trained", 0.5),
        (1, "pruned", "trained", 40),
        (1, "pruned", "repeated", 0),
        (2, "complete", "recorded", 0.5),
        (0, "complete", "repeated", 0.5),
        (3, "fail", "trained", 25),
        (4, "pruned", "turned away", 0),
    )
    found = summarise(of, records(of, grid))
    expected = {
        "the grid: every point within the limits": (6, 600),
        "trained to the end": (1, 100),
        "trained until pruned": (1, 40),
        "not trained: pruned": (1, 60),
        "not trained: recorded before": (1, 100),
        "trained until it failed": (1, 25),
        "not trained: failed": (1, 75),
        "not trained: not tried": (2, 200),
    }
    assert {what: (points, steps) for what, points, steps, _ in found.saving.itertuples(index=False)} == expected
    assert found.saving["share"].iloc[1:].sum() == pytest.approx(1.0)
    assert (
        "Pruning saved 60 of the grid's 600 training steps (10 %); the sweep trained 165 in all." in found.saving_note
    )


def test_points_over_the_limits_are_no_part_of_the_grid(grid):
    of = kept(grid, (0, "complete", "trained", 0.5), (4, "pruned", "turned away", 0))
    for place in (4, 5):
        of.points[place]["within"] = False
    found = summarise(of, records(of, grid)).saving.set_index("what")["points"]
    assert found["the grid: every point within the limits"] == 4
    assert found["not trained: not tried"] == 3


def test_a_space_without_a_grid_says_so(grid):
    of = kept(grid, (0, "complete", "trained", 0.5), (1, "pruned", "trained", 40))
    of.points.clear()
    found = summarise(of, records(of, grid))
    assert found.saving["share"].isna().all()
    assert found.saving_note.startswith("Pruning saved 60 of 200 training steps. The space has too many points")


def test_importance_is_not_said_of_few_points(grid):
    of = kept(grid, *((place, "complete", "trained", place / 8) for place in range(4)), (4, "pruned", "trained", 40))
    found = summarise(of, records(of, grid))
    assert found.importance.empty
    assert found.importance_note == "Not enough trials to say how important each axis is: 4 points of at least 5."
    assert found.importance_note in sweep_summary.front(found).caption
    assert [name for name, _ in sweep_summary.tables(found)] == ["sweep-s-front", "sweep-s-saving"]


def test_importance_names_its_evaluators(tmp_path):
    here = sweeps.workspace(tmp_path)
    wide = sweeps.sweep(here, *sweeps.axes((50, 101, 152, 200, 270, 300), (32, 48, 64))).grid()
    axes = [AXES[0] | {"choices": [50, 101, 152, 200, 270, 300]}, AXES[1] | {"choices": [32, 48, 64]}, AXES[2]]
    told = [(place, "complete", "trained", round(240 * (0.2 + point.params["depth"] / 500)) / 240)
            for place, point in enumerate(wide)]  # fmt: skip
    of = kept(wide, *told)
    found = summarise(StoredSweep("s", of.settings, "", axes, of.points, of.trials), records(of, wide))
    assert list(found.importance.columns) == ["PED-ANOVA", "fANOVA"]
    assert list(found.importance.index) == ["depth", "frames", "resolution"]
    for name in found.importance.columns:
        assert found.importance[name].idxmax() == "depth"
        assert found.importance[name].sum() == pytest.approx(1.0)
    assert found.importance.loc["resolution"].isna().all(), "what was not varied has no importance"
    assert "over 18 points" in found.importance_note
    assert "PED-ANOVA" in found.importance_note
    alike = kept(wide, *((place, "complete", "trained", 0.5) for place in range(18)))
    assert "no axis is more important" in summarise(alike, records(alike, wide)).importance_note


@pytest.mark.parametrize("told", [[], [(0, "pruned", "trained", 40)], [(0, "complete", "trained", 0.5)]])
def test_every_sweep_can_be_drawn(grid, told, tmp_path):
    of = kept(grid, *told)
    found = summarise(of, records(of, grid))
    for _, table in sweep_summary.tables(found):
        assert set(render(table)) == {"md", "tex", "csv", "html"}
    assert figure_style.to_bytes(front_figure.front(found), "png").startswith(b"\x89PNG")
    written = sweep_run.write_sweep(found, tmp_path / "results", tmp_path / "plots")
    assert {path.name for path in written} == {
        *(f"sweep-s-{name}.{suffix}" for name in ("front", "saving") for suffix in ("md", "tex", "csv", "html")),
        "sweep-s-front.png",
        "sweep-s-front.pdf",
        "sweep-s-front.svg",
    }


def test_the_table_shows_the_front_and_its_file_every_point(grid):
    of = kept(grid, *((place, "complete", "trained", 0.5) for place in range(5)), (5, "pruned", "trained", 40))
    found = summarise(of, records(of, grid))
    table = sweep_summary.front(found)
    cheapest = min(grid[:5], key=lambda point: point.gflops)
    assert list(cells(table)["run"]) == [cheapest.run.id[:8]]
    raw = pd.read_csv(io.StringIO(render(table)["csv"]))
    assert len(raw) == 6
    assert raw.set_index("run")["gflops"].to_dict() == {point.run.id: point.gflops for point in grid}


def test_the_figure_shows_every_measured_point(grid):
    of = kept(grid, *((place, "complete", "trained", (place + 1) / 8) for place in range(5)),
              (5, "pruned", "trained", 40))  # fmt: skip
    found = summarise(of, records(of, grid))
    points = front_figure.front_points(found)
    drawn = {*zip(points.front.gflops, points.front.top1, strict=True),
             *zip(points.others.gflops, points.others.top1, strict=True)}  # fmt: skip
    assert drawn == {(grid[place].gflops, 100 * round(240 * (place + 1) / 8) / 240) for place in range(5)}
    assert "Labels: depth, frames, left out where they would touch." in points.caption
    assert "Not drawn, without a top-1: 1 point that was pruned or turned away." in points.caption
    labels = dict(zip((*points.front.gflops, *points.others.gflops),
                      (*points.front.labels, *points.others.labels), strict=True))  # fmt: skip
    first = grid[0]
    assert labels[first.gflops] == f"{first.params['depth']}\n{first.params['frames']}"


def test_sweeps_are_found_without_tensorflow(tmp_path):
    here = sweeps.workspace(tmp_path)
    asked = sweeps.sweep(here)
    for name, strategy in (("a", Strategy("grid", False, 4, 0)), ("b", Strategy("nsga2", False, 4, 0))):
        trainer = sweeps.Trainer(here.store, lambda point: 0.5)
        sweeps.search(here, asked, trainer, strategy, trials=2, name=name).run()
    code = (
        "import sys; from pathlib import Path; from harness.sweep import sweep_summary; "
        f"print([sweep.name for sweep in sweep_summary.summaries(Path({str(tmp_path)!r}))]); "
        "print('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['a', 'b']\nFalse"
    first, second = sweep_summary.summaries(tmp_path)
    assert len(first.points) == len(list(itertools.product((50, 101, 200), (32, 48))))
    assert set(second.points["state"]) == {"recorded"}, "the grid had trained them all"
