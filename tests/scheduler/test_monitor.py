"""Where studies stand, by hand-made attempts: states, paces and times counted by hand, and what a word names."""

import pytest

from harness.scheduler import monitor, monitor_table
from harness.scheduler.monitor import OTHERS, ChoiceError
from harness.scheduler.run_states import Attempt, Item

A, B, C, D = (letter * 16 for letter in "abcd")
TRAINING = {"stage": "train", "total": 100}


def attempt(number, key, state, **about):
    """An attempt at a piece of work of 600 multiply-adds."""
    about = {"work": 600.0, "label": f"run {key[:8]}", "study": "s", "parent": "", **about}
    item = Item(key, about.pop("label"), about.pop("study"), 0, about.pop("parent"), about.pop("work"))
    return Attempt(number, item, state, **about)


def notes(*keys, recorded=(), parents=None, retries=1, name="s", began="2030-01-01T00:00:00+00:00"):
    """What the queue holds of a study: row 1 is the first key, and so on, all of 600 multiply-adds."""
    runs = [[key, f"row {row}", 600.0, row - 1, (parents or {}).get(key, "")] for row, key in enumerate(keys, start=1)]
    rows = {f"table2 {row}, seed 0": f"{key} 10x3@32" for row, key in enumerate(keys, start=1)}
    about = {"began": began, "retries": retries, "runs": runs, "recorded": list(recorded), "rows": rows}
    return {f"study {name}": about, "lease": 120}


def one_group(kept, *attempts):
    (group,) = monitor.groups(kept, attempts)
    return group


def states(group):
    return [row.state for row in group.rows]


def running(key, seconds=50.0, number=0, **progress):
    return attempt(number, key, "running", worker="gpu1:7", progress=progress, seconds=seconds)


def test_every_state():
    group = one_group(
        notes(A, B, C, D, "e" * 16, "f" * 16, "0" * 16, recorded=["0" * 16], parents={"f" * 16: D}),
        attempt(0, A, "done", worker="w", seconds=10.0),
        running(B, number=1),
        attempt(2, C, "waiting"),
        attempt(3, D, "failed", error="first"),
        attempt(4, D, "failed", error="bad\nloss \x1b[31m"),
        attempt(5, "e" * 16, "cancelled", error="cancelled"),
        attempt(6, "f" * 16, "waiting"),
    )
    assert states(group) == ["done", "running", "waiting", "failed", "cancelled", "blocked", "done"]
    assert group.rows[3].error == "bad loss [31m"
    assert group.rows[5].error == "the run it starts from, dddddddd, failed"
    assert group.counts == {"waiting": 1, "running": 1, "done": 2, "failed": 1, "cancelled": 1, "blocked": 1}
    assert not group.settled


def test_what_a_worker_has_not_added_yet_waits():
    """After a failure that is followed by another attempt, and before anybody put in the first."""
    group = one_group(notes(A, B), attempt(0, A, "failed", error="once", worker="w"))
    assert states(group) == ["waiting", "waiting"]
    assert [row.error for row in group.rows] == ["once", ""]


def test_a_cancelled_run_that_was_taken_back_has_no_error():
    group = one_group(notes(A), attempt(0, A, "cancelled", error="cancelled"), attempt(1, A, "waiting", again=True))
    assert (group.rows[0].state, group.rows[0].error) == ("waiting", "")


def test_recorded_without_an_attempt_until_somebody_trains_it_again():
    assert states(one_group(notes(A, recorded=[A]))) == ["done"]
    assert states(one_group(notes(A, recorded=[A]), attempt(0, A, "done", worker="w"), attempt(1, A, "waiting"))) == [
        "waiting"
    ]


def test_found_recorded_by_who_claimed_it():
    assert states(one_group(notes(A), attempt(0, A, "superseded", worker="w"))) == ["done"]
    assert states(one_group(notes(A), attempt(0, A, "superseded"))) == ["waiting"]  # litter


def test_progress_of_a_run_that_trains_and_of_one_that_evaluates():
    group = one_group(
        notes(A, B, C),
        running(A, step=40, trained=40, start=0, **TRAINING),
        running(B, number=1, stage="evaluate", step=3, total=12, trained=100, start=0),
        running(C, number=2, trained=30, start=30),
    )
    assert [(row.stage, row.step, row.total) for row in group.rows] == [
        ("training", 40, 100), ("evaluating", 3, 12), ("starting", 30, 0)
    ]  # fmt: skip
    assert [row.share for row in group.rows] == [0.4, 0.25, 0.0]


def test_what_was_begun_says_how_far():
    """The furthest step of all attempts, however they ended; one that began to evaluate was trained."""
    group = one_group(
        notes(A, B),
        attempt(0, A, "stale", worker="w", progress={**TRAINING, "step": 60, "trained": 60}),
        attempt(1, A, "preempted", worker="w", progress={**TRAINING, "step": 50, "trained": 50}),
        attempt(2, A, "waiting"),
        attempt(3, B, "stale", worker="w", progress={"stage": "evaluate", "step": 2, "total": 9, "trained": 100}),
        attempt(4, B, "waiting"),
    )
    assert [(row.state, row.step, row.trained) for row in group.rows] == [
        ("waiting", 60, False),
        ("waiting", 100, True),
    ]
    assert group.rows[0].lost == {"stale": 1, "preempted": 1}
    assert group.rows[0].worker == ""


def test_own_pace_counts_from_the_step_that_the_attempt_went_on_from():
    """From step 40 to 70 in 60 seconds: 2 seconds a step, 30 are left."""
    earlier = attempt(0, A, "stale", worker="w", seconds=500.0, progress={**TRAINING, "step": 45, "trained": 45})
    group = one_group(notes(A), earlier, running(A, 60.0, 1, step=70, trained=70, start=40, **TRAINING))
    assert group.rows[0].left == pytest.approx(60.0)
    assert group.seconds == 560.0


def test_hours_left_by_the_multiply_adds_of_what_was_done():
    """1,200 multiply-adds in 300 + 100 (lost) + 200 seconds are 2 a second: one that waits takes 300 s.

    One that trains went 5 of 100 steps, less than a tenth: 95 % of 300 s. Two workers share 285 + 2 * 300 s.
    """
    group = one_group(
        notes(A, B, C, D, "e" * 16),
        attempt(0, A, "done", worker="w", seconds=300.0),
        attempt(1, B, "stale", worker="w", seconds=100.0),
        attempt(2, B, "done", worker="w", seconds=200.0),
        running(C, 90.0, 3, step=5, trained=5, start=0, **TRAINING),
    )
    assert [row.left for row in group.rows] == pytest.approx([0.0, 0.0, 285.0, 300.0, 300.0])
    assert group.left == pytest.approx(885.0)
    assert (group.workers, group.eta) == (1, pytest.approx(885.0))


def test_the_longest_run_cannot_be_split():
    """Two workers: (190 + 10) / 2 would be 100 s, but one run takes 190."""
    group = one_group(
        notes(A, B),
        running(A, 10.0, 0, step=5, trained=5, start=0, **TRAINING),
        attempt(1, B, "running", worker="gpu2:8", progress={"step": 50, **TRAINING, "start": 0}, seconds=10.0),
    )
    assert [row.left for row in group.rows] == pytest.approx([190.0, 10.0])
    assert (group.workers, group.eta) == (2, pytest.approx(190.0))


def test_time_of_an_evaluation_is_that_of_the_run_less_what_was_spent():
    """Runs take 300 s; 250 were spent, and of another 400, more than all."""
    group = one_group(
        notes(A, B, C),
        attempt(0, A, "done", worker="w", seconds=300.0),
        running(B, 250.0, 1, stage="evaluate", step=0, total=10, trained=100),
        running(C, 400.0, 2, stage="evaluate", step=0, total=10, trained=100),
    )
    assert [row.left for row in group.rows] == pytest.approx([0.0, 50.0, 0.0])


def test_nothing_done_nothing_known():
    group = one_group(notes(A, B), running(A))
    assert (group.rows[0].left, group.left, group.eta) == (None, None, None)


def test_nobody_at_it_has_no_eta():
    group = one_group(notes(A, B), attempt(0, A, "done", worker="w", seconds=300.0))
    assert (group.left, group.eta) == (pytest.approx(300.0), None)


def test_a_study_without_anything_done_goes_by_the_others():
    kept = {**notes(A, name="new", began="2031"), **notes(B, name="old", began="2030")}
    old, new = monitor.groups(kept, [attempt(0, B, "done", worker="w", seconds=60.0)])
    assert (old.name, new.name, new.left) == ("old", "new", pytest.approx(60.0))


def test_a_run_that_two_studies_want_is_in_both():
    kept = {**notes(A, name="one"), **notes(A, B, name="two")}
    one, two = monitor.groups(kept, [running(A)])
    assert (states(one), states(two)) == (["running"], ["running", "waiting"])


def test_runs_of_no_study():
    """What a study trained and now evaluates in another way is its history, and not shown twice."""
    group, others = monitor.groups(
        notes(f"{A} 1x1@32"),
        [attempt(0, A, "done", worker="w"), attempt(1, B, "failed", error="e"), attempt(2, C, "waiting")],
    )
    assert states(group) == ["waiting"]
    assert (others.name, [row.item.key for row in others.rows], states(others)) == (
        OTHERS,
        [B, C],
        ["failed", "waiting"],
    )


def test_words_name_rows_and_runs():
    groups = monitor.groups(notes(A, B), [])
    for word in ("2", "table2 2", "2, seed 0", "table2 2, seed 0", "bbbb", B):
        assert [row.item.key for row in monitor.find(groups, word)] == [B]
    for word in ("3", "bbb", "table3 2", "", "b" * 17):
        with pytest.raises(ChoiceError, match=r"is no row or run in the queue; python -m harness.status shows them"):
            monitor.find(groups, word)


def test_a_row_number_of_two_studies_has_to_be_told_apart():
    kept = {**notes(A, name="table2 quick"), **notes(B, name="table2 paper")}
    groups = monitor.groups(kept, [])
    with pytest.raises(ChoiceError, match="--study 'table2 quick' 'table2 1'"):
        monitor.find(groups, "1")
    assert [row.item.key for row in monitor.find(monitor.chosen(groups, "table2 paper"), "1")] == [B]
    with pytest.raises(ChoiceError, match="--study x: is not in the queue; expected one of table2 paper, table2 quick"):
        monitor.chosen(groups, "x")


def test_a_beginning_of_two_ids_has_to_be_longer():
    groups = monitor.groups(notes("abcd1" + "0" * 11, "abcd2" + "0" * 11), [])
    with pytest.raises(ChoiceError, match="abcd100000000000, abcd200000000000 begin so; write more of it"):
        monitor.find(groups, "abcd")


def test_what_can_be_cancelled_and_tried_again():
    groups = monitor.groups(
        notes(A, B, C, D, "e" * 16, parents={"e" * 16: C}),
        [
            attempt(0, A, "done", worker="w"),
            running(B, number=1),
            attempt(2, C, "cancelled"),
            attempt(3, D, "failed", error="e"),
            attempt(4, D, "failed", error="e"),
        ],
    )
    assert [row.item.key for row in monitor.to_cancel(groups, ["2", "5"])] == [B, "e" * 16]
    assert [row.item.key for row in monitor.to_retry(groups, ["3", "4", "3"])] == [C, D]
    assert [row.item.key for row in monitor.failed(groups)] == [D]
    for word, message in (("1", "is done; "), ("3", "is cancelled already; .*retry cccccccc"), ("4", "has failed")):
        with pytest.raises(ChoiceError, match=message):
            monitor.to_cancel(groups, ["2", word])
    for word, message in (
        ("1", "is done; "),
        ("2", "gpu1:7 is at it; "),
        ("5", "starts from, cccccccc, was cancelled; "),
    ):
        with pytest.raises(ChoiceError, match=message):
            monitor.to_retry(groups, ["3", word])


def test_how_many_runs_start_from_one():
    """B from A, C from B; D is done."""
    groups = monitor.groups(notes(A, B, C, D, parents={B: A, C: B, D: A}), [attempt(0, D, "done", worker="w")])
    assert monitor.depending(groups, {A}) == 2
    assert monitor.depending(groups, {C}) == 0


def test_plain_data():
    group = one_group(
        notes(A, B),
        attempt(0, A, "done", worker="w", seconds=300.0, top1=0.25),
        attempt(1, B, "stale", worker="w", seconds=20.0, progress={**TRAINING, "step": 40, "trained": 40}),
        running(B, 60.04, 2, step=70, trained=70, start=40, **TRAINING),
    )
    plain = monitor.as_json([group])
    (study,) = plain["studies"]
    assert (plain["settled"], study["name"], study["began"]) == (False, "s", "2030-01-01T00:00:00+00:00")
    assert {name: study[name] for name in ("runs", "workers", "spent_seconds", "left_seconds", "eta_seconds")} == {
        "runs": 2, "workers": 1, "spent_seconds": 380.0, "left_seconds": 60.0, "eta_seconds": 60.0
    }  # fmt: skip
    assert study["rows"][1] == {
        "run": B, "protocol": None, "label": "row 2", "state": "running", "worker": "gpu1:7", "attempt": 2,
        "stage": "training", "step": 70, "total": 100, "share": 0.7, "eta_seconds": 60.0, "spent_seconds": 80.0,
        "attempts": 2, "stale": 1, "preempted": 0, "failed": 0, "top1": None, "parent": None, "error": None,
        "traceback": None,
    }  # fmt: skip
    assert (study["rows"][0]["top1"], study["rows"][0]["step"]) == (0.25, None)


@pytest.mark.parametrize(
    ("room", "expected"),
    [(40, "10: ls sd depth=200 ra seed=1"), (29, "10: ls sd depth=200 ra seed=1"), (16, "10: l… ra seed=1")],
)
def test_rows_that_differ_at_the_end_stay_apart_where_there_is_little_room(room, expected):
    assert monitor_table._cut("10: ls sd depth=200 ra seed=1", room) == expected
    assert len(expected) <= room
