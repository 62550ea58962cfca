"""Hours of runs on a slice against hand counts, from made-up results of compiling.

The paper's baseline: 215,570 videos in batches of 1,024 are 42,104 steps in 200 epochs. A core of a TPU v3 does 61.5e12
operations and moves 450e9 bytes a second; a v5e has one core, 197e12 and 819e9.
"""

import dataclasses
from types import SimpleNamespace

import pytest

from ablations import table2, table3
from ablations.toggles import EP, LS, RA, SD, SJ, WD
from harness.accelerators import forecasts
from harness.accelerators.forecasts import Measured, Total
from harness.config import slices
from harness.config.experiment import Overrides, SettingsError
from harness.planning.plans import Planned
from tests.accelerators.test_programs import made, pair, run_of
from tests.accelerators.test_results import SHORT, result

V3, V5E = slices.slice_of("v3:8x8"), slices.slice_of("v5e:8x8")


def looked_up(train=None, evaluation=None):
    """A lookup that makes a result for the train step of a run and one for its evaluation; None where there is none."""
    numbers = {"train": train, "evaluation": evaluation}
    return lambda program: None if numbers[program.kind] is None else result(program, **numbers[program.kind])


def forecast(run, lookup, slice_=V3, measured=Measured()):  # noqa: B008
    planned = Planned(run, ("1",), done=False, evaluated=False)
    (found,) = forecasts.forecasts([planned], slice_, lookup, measured)
    return found


# On a v3: half a second by its operations, and a second by what it moves.
HALF = {"operations": 30_750_000_000_000, "bytes_moved": 45_000_000_000}
SECOND = {"operations": 6_150_000_000_000, "bytes_moved": 450_000_000_000}
TOO_LARGE = {"reason": SHORT}


def test_a_run_on_64_chips_of_tpu_v3_by_hand():
    found = forecast(run_of(), looked_up(HALF, SECOND))
    assert (found.steps, found.evaluation_steps) == (42_104, 139)  # 17,706 / 128 = 138.3
    assert found.step_seconds == pytest.approx(0.5)
    assert found.evaluation_seconds == pytest.approx(139.0)
    assert found.hours == pytest.approx((42_104 / 2 + 139) / 3600)
    assert found.core_hours == pytest.approx(128 * (42_104 / 2 + 139) / 3600)
    assert found.clips_per_second == pytest.approx(8 * 8 / 0.5)  # 8 clips for each of a host's 8 cores
    assert found.fits is True
    assert found.is_measured is False


def test_the_same_run_on_64_chips_of_tpu_v5e_by_hand():
    run = run_of(replicas=64)
    found = forecast(run, looked_up(HALF, SECOND), V5E)
    assert (found.train.clips, found.evaluation_steps) == (16, 277)  # 17,706 / 64 = 276.7
    step, evaluation = 30.75 / 197, 450 / 819
    assert found.step_seconds == pytest.approx(step)
    assert found.hours == pytest.approx((42_104 * step + 277 * evaluation) / 3600)
    assert found.core_hours == pytest.approx(64 * found.hours)
    assert found.clips_per_second == pytest.approx(16 * 4 / step)


def test_longer_schedules_take_longer():
    short, long = (forecast(run_of(*changes), looked_up(HALF, SECOND)) for changes in ((), (EP.at(350),)))
    assert (long.steps, long.step_seconds) == (73_682, short.step_seconds)
    assert long.hours - short.hours == pytest.approx((73_682 - 42_104) * 0.5 / 3600)


@pytest.mark.parametrize(
    ("videos", "of_a_core", "steps"),
    [(1, 1, 1), (127, 1, 1), (128, 1, 1), (129, 1, 2), (256, 1, 2), (257, 2, 2), (17_706, 4, 35), (17_920, 4, 35)],
)
def test_an_evaluation_has_a_step_for_each_batch_of_all_cores(videos, of_a_core, steps):
    run = run_of()
    data = dataclasses.replace(run.data, validation_videos=videos)
    own = dataclasses.replace(run, data=data, evaluation_batch=of_a_core)
    assert forecast(own, looked_up()).evaluation_steps == steps


def test_a_cut_evaluation_is_of_fewer_videos():
    found = forecast(run_of(cut=Overrides(validation_videos=300)), looked_up(HALF, SECOND))
    assert found.evaluation_steps == 3
    measured = Measured({}, {found.evaluation.fed: 0.25})
    assert forecast(found.planned.run, looked_up(HALF), measured=measured).evaluation_seconds == 75.0


@pytest.mark.parametrize(
    ("train", "evaluation", "fits"),
    [
        (HALF, SECOND, True),
        (HALF, None, None),
        (None, SECOND, None),
        (None, None, None),
        (TOO_LARGE, SECOND, False),
        (HALF, TOO_LARGE, False),
        (TOO_LARGE, None, False),
        (None, TOO_LARGE, False),
        (TOO_LARGE, TOO_LARGE, False),
    ],
)
def test_without_both_programs_there_are_no_hours(train, evaluation, fits):
    found = forecast(run_of(), looked_up(train, evaluation))
    assert found.fits is fits
    assert (found.hours is not None) == (fits is True)
    assert (found.core_hours is None) == (found.hours is None)
    assert (found.step_seconds is not None) == (found.clips_per_second is not None) == (train is HALF)
    assert (found.evaluation_seconds is not None) == (evaluation is SECOND)


def test_an_estimate_of_what_does_not_fit_has_no_time():
    program = pair()[0]
    counted = result(program).executable
    assert forecasts.step_bound(result(program, reason=SHORT, executable=counted, estimated=True), V3) is None
    assert forecasts.step_bound(None, V3) is None


def test_what_was_measured_takes_the_place_of_the_bound():
    bound = forecast(run_of(), looked_up(HALF, SECOND))
    both = Measured({bound.train.fed: 2.0}, {bound.evaluation.fed: 0.1})
    found = forecast(run_of(), looked_up(HALF, SECOND), measured=both)
    assert found.is_measured is True
    assert found.hours == pytest.approx((42_104 * 2 + 17_706 * 0.1) / 3600)
    assert found.clips_per_second == pytest.approx(8 * 8 / 2)
    alone = forecast(run_of(), looked_up(), measured=both)
    assert alone.hours == found.hours, "nothing need be compiled for it"


def test_what_was_measured_of_one_program_says_nothing_of_another():
    train, evaluation = pair()
    only = Measured({train.fed: 2.0})
    found = forecast(run_of(), looked_up(HALF, SECOND), measured=only)
    assert found.hours == pytest.approx((42_104 * 2 + 139) / 3600)
    other = forecast(run_of(LS.at()), looked_up(HALF, SECOND), measured=only)
    assert (other.is_measured, other.step_seconds) == (False, pytest.approx(0.5))
    same = forecast(run_of(EP.at()), looked_up(HALF, SECOND), measured=only)
    assert (same.is_measured, same.step_seconds) == (False, 2.0), "its evaluation is a bound"
    evaluated = Measured({}, {evaluation.fed: 1.0})
    assert forecast(run_of(LS.at()), looked_up(), measured=evaluated).evaluation_seconds == 17_706.0


@pytest.mark.parametrize("change", [RA.at(), SJ.at()], ids=str)
def test_clips_that_are_made_otherwise_take_their_own_time(change):
    """The steps are the same program: the bound is shared, what was measured is not."""
    train, evaluation = pair()
    both = Measured({train.fed: 2.0}, {evaluation.fed: 0.1})
    found = forecast(run_of(change), looked_up(HALF, SECOND), measured=both)
    assert found.train.key == train.key
    assert (found.is_measured, found.step_seconds) == (False, pytest.approx(0.5))
    assert found.evaluation_seconds == pytest.approx(17_706 * 0.1), "a video is cut into the same views"
    assert found.hours == pytest.approx((42_104 * 0.5 + 17_706 * 0.1) / 3600)
    own = forecast(run_of(change), looked_up(), measured=Measured({found.train.fed: 3.0}, both.evaluations))
    assert (own.is_measured, own.hours) == (True, pytest.approx((42_104 * 3 + 17_706 * 0.1) / 3600))


def record(seconds, steps, topology="v3:8x8", evaluation=None, of="10x3@256"):
    """A record as far as it says what a run took; of its evaluation seconds, videos and slice."""
    took, videos, where = evaluation or (1.0, 1, None)
    evaluated = SimpleNamespace(seconds=took, videos=videos, provenance={"topology": where} if where else {})
    return SimpleNamespace(
        provenance={"topology": topology} if topology else {},
        cost={"train_seconds": seconds, "train_steps": steps},
        evaluations={of: evaluated},
    )


def test_runs_of_one_program_are_measured_together():
    train, evaluation = pair()
    other, augmented = pair(SD.at()), pair(RA.at())
    found = forecasts.measured(
        [
            (record(100.0, 50, evaluation=(60.0, 100, "v3:8x8")), (train, evaluation)),
            (record(500.0, 100, evaluation=(60.0, 500, "v3:8x8")), pair(EP.at())),
            (record(80.0, 10, evaluation=(30.0, 200, "v3:8x8")), augmented),
            (record(7.0, 1), other),
            (record(9000.0, 1, topology="v3:4x4"), (train, evaluation)),
            (record(9000.0, 1, topology=None), (train, evaluation)),
        ],
        "v3:8x8",
    )
    assert found.steps == {train.fed: pytest.approx(600 / 150), augmented[0].fed: 8.0, other[0].fed: 7.0}
    assert found.evaluations == {evaluation.fed: pytest.approx(150 / 800)}


@pytest.mark.parametrize(
    "evaluated",
    [
        {"evaluation": (60.0, 100, "v5e:8x8")},
        {"evaluation": (60.0, 100, None)},
        {"evaluation": (60.0, 0, "v3:8x8")},
        {"evaluation": (60.0, 100, "v3:8x8"), "of": "1x1@256"},
    ],
)
def test_an_evaluation_elsewhere_or_of_other_views_is_none(evaluated):
    train, evaluation = pair()
    found = forecasts.measured([(record(100.0, 50, **evaluated), (train, evaluation))], "v3:8x8")
    assert (found.steps, found.evaluations) == ({train.fed: 2.0}, {})


def test_a_run_without_steps_measures_nothing():
    assert forecasts.measured([(record(3.0, 0), pair())], "v3:8x8") == Measured({}, {})


def test_cores_that_cannot_share_the_batch_are_refused():
    with pytest.raises(SettingsError, match="1024"):
        forecast(run_of(), looked_up(), slices.slice_of("v3:2x6"))


def hours(steps, step=0.5, evaluation=139):
    return (steps * step + evaluation) / 3600


def test_totals_count_what_is_known_once():
    runs = [run_of(), run_of(EP.at()), run_of(LS.at()), run_of(WD.at())]
    too_large = {pair(LS.at())[0].key: TOO_LARGE, pair(WD.at())[0].key: None}

    def lookup(program):
        numbers = too_large.get(program.key, HALF if program.kind == "train" else SECOND)
        return None if numbers is None else result(program, **numbers)

    found = [forecast(run, lookup) for run in runs]
    expected = hours(42_104) + hours(73_682)
    assert forecasts.total(found) == Total(pytest.approx(expected), pytest.approx(128 * expected), 2, 2, False)
    times = {run.id: count for run, count in zip(runs, (3, 1, 2, 5), strict=True)}
    naive = forecasts.total(found, lambda one: times[one.planned.run.id])
    expected = 3 * hours(42_104) + hours(73_682)
    assert naive == Total(pytest.approx(expected), pytest.approx(128 * expected), 4, 7, False)


def test_a_total_is_measured_where_all_that_is_known_of_it_is():
    train, evaluation = pair()
    measured = Measured({train.fed: 2.0}, {evaluation.fed: 0.5})
    first, second, bound = (
        forecast(run_of(*changes), lookup, measured=measured)
        for changes, lookup in (
            ((), looked_up()), ((EP.at(),), looked_up(HALF, SECOND)), ((LS.at(),), looked_up(HALF, SECOND)),
        )
    )  # fmt: skip
    unknown = forecast(run_of(WD.at()), looked_up())
    own = hours(42_104, 2.0, 17_706 * 0.5)
    assert forecasts.total([first, unknown]) == Total(pytest.approx(own), pytest.approx(128 * own), 1, 1, True)
    assert forecasts.total([first, second]).measured
    assert not forecasts.total([first, second, bound]).measured
    assert forecasts.total([unknown]) == Total(0, 0, 0, 1, True)


def test_nothing_takes_no_time():
    assert forecasts.total([]) == Total(0, 0, 0, 0, True)


def test_without_sharing_tables_2_and_3_train_3_runs_again(tmp_path):
    plan = made(tmp_path).plan([table2.STUDY, table3.STUDY], [0])
    found = forecasts.forecasts(plan.runs, V3, looked_up(HALF, SECOND))
    # Table 2: rows 1 to 4 train 200 epochs, 5 to 10 350. Table 3 has rows 1, 8 and 10 of it, and three networks more.
    own, naive = forecasts.total(found), forecasts.total(found, lambda one: plan.times[one.planned.run.id])
    assert own.hours == pytest.approx(4 * hours(42_104) + 9 * hours(73_682))
    assert naive.hours == pytest.approx(5 * hours(42_104) + 11 * hours(73_682))
    assert (own.known, own.unknown, naive.known, naive.unknown) == (13, 0, 16, 0)
