"""The points of a sweep: every one of a grid, none that costs too much, and what they cost before they are trained."""

import itertools

import numpy as np
import pytest

from ablations.profiles import PAPER
from ablations.toggles import DEPTH, DSTEM, EMA, FRAMES, LS, RA, RESOLUTION, SD, TOGGLES
from harness.config import experiment
from harness.config.experiment import SettingsError
from harness.config.studies import Cell
from harness.config.toggles import ToggleError
from harness.sweep import space
from harness.sweep.space import Axis, Limits, Speed
from tests.support import sweeps


@pytest.fixture
def here(tmp_path):
    return sweeps.workspace(tmp_path)


@pytest.mark.parametrize(
    ("text", "axis"),
    [
        ("sd=0.0:0.3", Axis(SD, (), 0.0, 0.3)),
        ("wd=1e-5:1e-3:log", Axis(TOGGLES["wd"], (), 1e-5, 1e-3, log=True)),
        ("ra=0:10", Axis(RA, (), 0, 10, whole=True)),
        ("SD=0:0.5", Axis(SD, (), 0, 0.5)),
        ("dstem=v0,v1", Axis(DSTEM, ("v0", "v1"))),
        ("ls=0.1, 0.2,0.1", Axis(LS, (0.1, 0.2))),
    ],
)
def test_a_toggle_to_tune(text, axis):
    assert space.tune(text, TOGGLES) == axis


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sd=0.3:0.0", "--tune sd=0.3:0.0: expected LOW below HIGH"),
        ("sd=0.3:0.3", "expected LOW below HIGH"),
        ("nope=0:1", "--tune nope=0:1: unknown toggle 'nope'"),
        ("dstem=0:1", "--tune dstem=0:1: dstem has no range, list its values: dstem=v1,v0"),
        ("dstem=v1,v9", "dstem=v9: expected one of v1, v0"),
        ("sd=0:1", "sd=1: expected a number from 0 to 0.999"),
        ("sd=a:b", "sd=a: expected a number"),
        ("sd=nan:0.3", "sd=nan: expected a finite number"),
        ("sd=0:0.1:0.3", "--tune sd=0:0.1:0.3: expected sd=LOW:HIGH"),
        ("sd=0:0.3:log", "a logarithmic range begins above 0"),
        ("sd=0.1", "one value is nothing to search"),
        ("sd", "--tune sd: expected sd=LOW:HIGH or sd=A,B,C"),
        ("sd=", "expected sd=LOW:HIGH"),
        ("depth=50,101", "--tune depth=50,101: depth is a scaling axis, say --depth 50,101"),
    ],
)
def test_what_cannot_be_tuned_is_one_line(text, message):
    with pytest.raises(ToggleError) as error:
        space.tune(text, TOGGLES)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_values_of_a_scaling_axis():
    assert space.scale(FRAMES, "32,48x2,32") == Axis(FRAMES, (32, "48x2"))
    with pytest.raises(ToggleError, match="depth=51: expected one of 50, 101"):
        space.scale(DEPTH, "50,51")


def test_a_space_takes_what_it_searches_out_of_the_base():
    made = space.space([Axis(SD, (), 0, 0.3)], sweeps.BASE)
    assert [one.toggle.key for one in made.base] == ["ls", "se"]
    with pytest.raises(ToggleError, match="sd: is searched twice"):
        space.space([Axis(SD, (), 0, 0.3), Axis(SD, (0.1, 0.2))], ())
    with pytest.raises(ToggleError, match="say --depth 101"):
        space.space(sweeps.axes(), [DEPTH.at(101)])


def test_the_points_of_a_grid_are_the_product(here):
    searched = [*sweeps.axes(resolutions=(224, 288)), Axis(RA, (), 0, 2, whole=True), Axis(DSTEM, ("v0", "v1"))]
    made = space.space(searched, ())
    expected = list(itertools.product((50, 101, 200), (32, 48), (224, 288), (0, 1, 2), ("v0", "v1")))
    assert [tuple(point.values()) for point in made.points()] == expected
    assert made.size == len(expected) == 72
    assert space.space([*searched, Axis(SD, (), 0, 0.3)], ()).size is None


def test_a_point_costs_what_its_run_costs(here):
    asked = sweeps.sweep(here, speed=Speed(1e9, overhead=36))
    point = asked.at({"depth": 200, "frames": 48, "resolution": 224})
    run = here.complete(Cell((DEPTH.at(200), FRAMES.at(48), *sweeps.BASE)))
    assert point.run.identity == run.identity, "where an axis has its default, nothing is another run"
    (planned,) = here.plan([_study(run)], [0]).runs
    assert (point.multiply_adds, point.work) == (planned.multiply_adds, planned.work)
    assert point.steps == run.settings["trainer.train_steps"]
    assert point.hours == pytest.approx((36 + planned.work / 1e9) / 3600)


def _study(run):
    from harness.config.studies import Row, Study

    return Study("one", "One", (), (Row(1, "", run.cell.applied),))


def test_the_papers_points_have_the_papers_cost():
    data = experiment.DatasetInfo("kinetics400", 400, 215_570, 17_706)
    made = space.space([Axis(DEPTH, (50, 200)), Axis(FRAMES, (32, 48)), Axis(RESOLUTION, (224,))],
                          [TOGGLES["se"].at(), DSTEM.at()])  # fmt: skip
    found = {}
    for params in made.points():
        run = experiment.complete(made.cell(params, 0), PAPER, data)
        found[params["depth"], params["frames"]] = space.price(params, run, None).multiply_adds
    assert found[50, 32] == 57_490_997_248
    assert found[200, 32] == 203_806_670_848
    assert found[200, 48] == 305_692_606_464


def test_limits_turn_away_just_what_is_above_them(here):
    grid = sweeps.sweep(here).grid()
    middle = sorted(point.gflops for point in grid)[2]
    limits = Limits(gflops=middle)
    assert [not limits.reason(point) for point in grid] == [point.gflops <= middle for point in grid]
    assert limits.over(grid[0]) == {"gflops": grid[0].gflops - middle}
    both = Limits(gflops=1e-9, hours=1e-9)
    assert "GFLOPs, more than 1e-09 and about" in both.reason(grid[0])
    assert not Limits().over(grid[0])


def test_hours_cannot_be_limited_where_nothing_was_measured(here):
    with pytest.raises(SettingsError, match="--max-hours 2: nothing was measured here"):
        sweeps.sweep(here, limits=Limits(hours=2.0), speed=None)


def test_validations_are_denser_and_no_other_run(here):
    run = here.complete(Cell(sweeps.BASE))
    steps = run.settings["trainer.train_steps"]
    often = space.validated(run)
    assert often.bookkeeping["trainer.validation_interval"] == -(-steps // 5)
    assert often.identity == run.identity
    assert space.validated(often) == often
    averaged = here.complete(Cell((*sweeps.BASE, EMA.at(0.9))))
    assert space.validated(averaged) == averaged, "a validation moves the last digits of averaged weights"


@pytest.mark.parametrize(
    ("done", "total", "percent"),
    [(0, 448, 0), (89, 448, 0), (90, 448, 20), (179, 448, 20), (180, 448, 40), (447, 448, 80), (448, 448, 100),
     (1, 2, 40), (2, 2, 100), (1, 1, 100)],
)  # fmt: skip
def test_how_much_of_a_schedule_was_reached(done, total, percent):
    assert space.reached(done, total) == percent


def test_speed_follows_from_what_was_measured():
    work = [1e12, 2e12, 4e12, 8e12]
    found = space.speed(work, [12 + one / 5e10 for one in work], otherwise=1.0)
    assert found.runs == 4
    assert found.rate == pytest.approx(5e10)
    assert found.overhead == pytest.approx(12)
    assert space.speed([1e12, 1e12], [20, 30], None) == Speed(2e12 / 50, 0.0, 2)
    assert space.speed([], [], 4.5e10) == Speed(4.5e10)
    assert space.speed([], [], None) is None
    shrinking = space.speed(work, [80, 40, 20, 10], None)
    assert shrinking.rate == pytest.approx(sum(work) / 150), "time that falls with work is no speed"


def test_draws_lie_within_the_limits_and_are_new(here):
    limits = Limits(gflops=sorted(point.gflops for point in sweeps.sweep(here).grid())[3])
    asked, generator = sweeps.sweep(here, limits=limits), np.random.default_rng(1)
    tried = set()
    while (point := asked.draw(generator, lambda one: one.run.id in tried)) is not None:
        assert point.run.id not in tried
        tried.add(point.run.id)
    assert tried == {point.run.id for point in asked.grid() if point.gflops <= limits.gflops}
    assert len(tried) == 4


def test_draws_from_a_range(here):
    searched = (*sweeps.axes((50,), (32,)), Axis(SD, (), 0.05, 0.3), Axis(TOGGLES["wd"], (), 1e-5, 1e-3, log=True))
    asked, generator = sweeps.sweep(here, *searched), np.random.default_rng(1)
    drawn = [asked.draw(generator, lambda _: False).params for _ in range(300)]
    assert all(asked.space.holds(params) for params in drawn)
    assert np.mean([params["wd"] < 1e-4 for params in drawn]) == pytest.approx(0.5, abs=0.1), "by its logarithm"
    assert sweeps.sweep(here, *searched, limits=Limits(gflops=1e-9)).draw(generator, lambda _: False) is None


def test_a_record_is_of_a_point_by_its_identity(here):
    asked = sweeps.sweep(here)
    inside = here.complete(Cell((DEPTH.at(101), *sweeps.BASE)))
    assert asked.of_record(sweeps.record(inside, 0.5)).run.id == inside.id
    for other in (
        Cell((DEPTH.at(101), *sweeps.BASE), seed=1),
        Cell((DEPTH.at(152), *sweeps.BASE)),
        Cell((DEPTH.at(101), *sweeps.BASE[:-1])),
        Cell((DEPTH.at(101), *sweeps.BASE, RA.at())),
    ):
        assert asked.of_record(sweeps.record(here.complete(other), 0.5)) is None
