"""What is kept of a run without a record: logs of its attempts, torn where one was killed, and what they come to."""

import json

import pytest

from harness.store import attempts, checkpoints
from harness.store.attempts import State
from harness.store.records import RecordError
from harness.store.run_store import Store

RUN = "0123456789abcdef"


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def event(kind, step, seconds=0.0, of=None):
    if kind == "attempt":
        return {"event": kind, "step": step} | ({} if of is None else {"of": of})
    return {"event": kind, "split": kind, "step": step, "seconds": seconds, "done": step, "total": 9}


def line(*words, **others):
    return json.dumps(event(*words, **others))


def silent(event):
    del event


def steps(found):
    return [point["step"] for point in found.curve]


def saved(attempt, *steps, weights=None, listed=True):
    """Checkpoints as TensorFlow leaves them, as far as files without content can be."""
    attempt.checkpoints.mkdir(parents=True, exist_ok=True)
    paths = [checkpoints.training(attempt.checkpoints, step) for step in steps]
    paths += [checkpoints.weights(attempt.checkpoints, weights)] if weights else []
    for path in paths:
        path.with_suffix(".index").write_text("index")
        path.with_suffix(".data-00000-of-00001").write_text("data")
    if steps and listed:
        named = "".join(f'all_model_checkpoint_paths: "ckpt-{step}"\n' for step in steps)
        (attempt.checkpoints / "checkpoint").write_text(f'model_checkpoint_path: "ckpt-{steps[-1]}"\n{named}')


def files_of(store):
    folder = store.folder(RUN)
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_attempts_are_one_curve_and_a_torn_line_costs_one_point():
    first = [line("attempt", 0), line("train", 1, 2.0), line("train", 2, 4.0), line("train", 3, 6.0)[:20]]
    second = ["", line("attempt", 2, of=0), line("train", 3, 1.5), line("validation", 3, 1.75)]
    found = attempts.history({0: first, 4: second})
    assert [(point["step"], point["split"]) for point in found.curve] == [
        (1, "train"),
        (2, "train"),
        (3, "train"),
        (3, "validation"),
    ]
    assert found.curve[2]["seconds"] == 1.5
    assert found.began == (0, 2)
    assert found.resumed_at == [2]
    assert found.seconds == 4.0 + 1.75


def test_what_was_reported_beyond_the_checkpoint_gone_on_from_is_not_on_the_curve():
    first = [line("attempt", 0), *(line("train", step, float(step)) for step in (1, 2, 3, 4, 5))]
    second = [line("attempt", 2, of=0), line("train", 4, 1.0)]
    found = attempts.history({0: first, 1: second})
    assert steps(found) == [1, 2, 4]
    assert found.seconds == 5.0 + 1.0


def test_the_curve_follows_those_attempts_that_led_to_the_last():
    # 1 was paused, 2 went on beside it from the same checkpoint and died early; 3 goes on from 1's, which reached more.
    logs = {
        0: [line("attempt", 0), line("train", 1, 1.0), line("train", 2, 2.0)],
        1: [line("attempt", 1, of=0), line("train", 2, 10.0), line("train", 3, 20.0), line("train", 4, 30.0)],
        2: [line("attempt", 1, of=0), line("train", 2, 100.0)],
        3: [line("attempt", 3, of=1), line("train", 4, 1000.0)],
    }
    found = attempts.history(logs)
    assert [(point["step"], point["seconds"]) for point in found.curve] == [(1, 1.0), (2, 10.0), (3, 20.0), (4, 1000.0)]
    assert found.began == (0, 1, 1, 3)
    assert found.seconds == 2.0 + 30.0 + 100.0 + 1000.0
    led = attempts.history(logs, last=2)
    assert [(point["step"], point["seconds"]) for point in led.curve] == [(1, 1.0), (2, 100.0)]
    assert (led.began, led.seconds) == (found.began, found.seconds), "of all attempts, whatever the curve leads to"


def test_an_attempt_goes_on_from_the_run_of_before_attempts_had_folders():
    old = [line("attempt", 0), line("train", 1, 1.0), "", line("attempt", 1), line("train", 2, 1.0)]
    new = [line("attempt", 2), line("train", 3, 1.0)]
    assert steps(attempts.history({-1: old, 7: new})) == [1, 2, 3]


def test_one_number_may_have_had_several_lives():
    lives = [line("attempt", 0), line("train", 1, 1.0), line("train", 2, 1.0), line("attempt", 1, of=0)]
    found = attempts.history({0: [*lives, line("train", 3, 1.0)]})
    assert steps(found) == [1, 3]
    begun_anew = attempts.history({0: [*lives, line("attempt", 0), line("train", 1, 9.0)]})
    assert [point["seconds"] for point in begun_anew.curve] == [9.0]


@pytest.mark.parametrize("of", [0, 1, 2, 7])
def test_logs_that_name_each_other_or_nothing_end(of):
    found = attempts.history({1: [line("attempt", 2, of=2), line("train", 3, 1.0)], 2: [line("attempt", 2, of=of)]})
    assert steps(found) in ([], [3])


@pytest.mark.parametrize(
    "damage",
    ["[]", "{}", "3", '{"event": "train"}', "\x00", line("train", 1), line("train", "x", 1.0), line("train", 1, "1")],
)
def test_a_log_damaged_by_hand_loses_lines_and_no_more(damage):
    found = attempts.history({0: [damage, line("attempt", 0), line("train", 1, 2.0)]})
    assert steps(found) == [1]
    later = attempts.history({0: [line("attempt", 0), damage, line("train", 2, 2.0)]})
    assert later.curve[-1]["step"] == 2


def test_a_runs_states_follow_one_another(store):
    one, other = store.attempt(RUN, 0), store.attempt(RUN, 3)
    assert store.state(RUN) == State("waiting")
    with one.logged(silent) as report:
        report(event("attempt", 0))
        report(event("train", 7, 1.0))
    assert store.state(RUN) == State("interrupted", 7)
    assert str(store.state(RUN)) == "interrupted at step 7"
    one.fail("it broke", "Traceback ...")
    assert store.state(RUN) == State("failed", 7, "it broke")
    assert one.failed().traceback == "Traceback ..."
    with other.logged(silent) as report:
        assert store.state(RUN) == State("interrupted", 7), "its last attempt has not failed"
        report(event("attempt", 0))
    assert store.state(RUN) == State("interrupted", 0)
    found = store.attempts(RUN).failure()
    assert (found.error, found.path) == ("it broke", store.folder(RUN) / "attempts/0/failure.json")
    other.fail("and again", "")
    assert store.attempts(RUN).failure().error == "and again"
    with other.logged(silent):
        assert other.failed() is None


def test_a_run_that_failed_before_it_began_is_failed(store):
    store.attempt(RUN, 0).fail("no such strategy", "")
    assert store.state(RUN) == State("failed", 0, "no such strategy")


def test_a_run_of_before_attempts_had_folders_is_interrupted(store):
    store.folder(RUN).mkdir(parents=True)
    (store.folder(RUN) / "curve.jsonl").write_text("\n".join([line("attempt", 0), line("train", 4, 1.0)]))
    assert store.state(RUN) == State("interrupted", 4)


def test_a_damaged_record_is_no_other_state(store):
    store.folder(RUN).mkdir(parents=True)
    (store.folder(RUN) / "record.json").write_text("{")
    assert store.state(RUN) == State("done")
    with pytest.raises(RecordError):
        store.checked(RUN)


def test_attempts_are_in_the_order_of_their_numbers(store):
    for number in (10, 9, 0):
        saved(store.attempt(RUN, number), number + 1)
    (store.folder(RUN) / "attempts" / "notes").mkdir()
    found = store.attempts(RUN)
    assert found.numbers == [0, 9, 10]
    assert [one.folder.name for one in found.before(10)] == ["9", "0", RUN], "the oldest is of before they had folders"
    assert found.furthest == 11
    saved(store.attempt(RUN, 9), 20, listed=False)
    assert found.furthest == 11, "what TensorFlow never listed may be torn"
    saved(store.attempt(RUN, 0), weights=30)
    assert found.furthest == 30
    assert found.size == sum(path.stat().st_size for path in store.folder(RUN).rglob("*") if path.is_file())


def test_nothing_is_kept_of_a_run_that_never_began(store):
    found = store.attempts(RUN)
    assert (found.numbers, found.furthest, found.size, found.failure()) == ([], 0, 0, None)
    assert found.history() == attempts.History((), (), 0)


def test_a_list_that_is_lost_or_not_true_any_more_names_no_checkpoint(store):
    folder = store.attempt(RUN, 0).checkpoints
    assert checkpoints.listed(folder) is None
    saved(store.attempt(RUN, 0), 1, 2)
    assert checkpoints.listed(folder) == 2
    (folder / "ckpt-2.index").unlink()
    assert checkpoints.listed(folder) is None
    (folder / "checkpoint").write_bytes(b"\xff\x00 damaged by hand")
    assert checkpoints.listed(folder) is None
    (folder / "checkpoint").write_text('model_checkpoint_path: "/elsewhere/ckpt-1"\n')
    assert checkpoints.listed(folder) == 1


def test_after_the_record_its_weights_stay_and_what_led_there_goes(store):
    for number in (0, 2, 5, 6):
        one = store.attempt(RUN, number)
        saved(one, 3, 4, weights=4 if number in (0, 2) else None)
        with one.logged(silent):
            one.log().write_text("said")
        one.predictions("1x1@32").write_text("guesses")
        one.fail("it broke", "")
    saved(attempts.Attempt(store.folder(RUN), -1), 1)
    later = [name for name in files_of(store) if name.startswith("attempts/6/")]
    store.attempts(RUN).settle(5, store.attempt(RUN, 2).checkpoints / "weights-4")
    assert files_of(store) == [
        "attempts/2/checkpoints/weights-4.data-00000-of-00001",
        "attempts/2/checkpoints/weights-4.index",
        "attempts/2/log.txt",
        "attempts/5/failure.json",
        "attempts/5/log.txt",
        "attempts/5/predictions-1x1@32.parquet",
        *later,
    ]
    assert not store.attempt(RUN, 5).checkpoints.exists()


def test_a_run_wanted_anew_keeps_what_its_attempt_writes(store):
    for number in (0, 2, 5):
        saved(store.attempt(RUN, number), 3, weights=4)
        store.attempt(RUN, number).log().write_text("said")
    saved(attempts.Attempt(store.folder(RUN), -1), weights=4)
    store.attempts(RUN).begin_anew(2)
    assert files_of(store) == ["attempts/2/log.txt"]


def test_of_a_run_ended_early_the_furthest_checkpoint_stays(store):
    saved(store.attempt(RUN, 0), 3, 4)
    saved(store.attempt(RUN, 1), 2, 3)
    store.attempts(RUN).keep_furthest()
    names = [name for name in files_of(store) if name.endswith(".index")]
    assert names == ["attempts/0/checkpoints/ckpt-4.index"]
    assert store.attempts(RUN).furthest == 4


@pytest.mark.parametrize(
    ("path", "of"),
    [
        ("/r/runs/ab/attempts/12/checkpoints/ckpt-3", {"of": 12}),
        ("attempts/0/checkpoints/weights-9", {"of": 0}),
        ("/r/runs/ab/checkpoints/ckpt-3", {}),
        ("/r/attempts/1/runs/ab/checkpoints/ckpt-3", {}),
        ("/r/attempts/x/checkpoints/ckpt-3", {}),
    ],
)
def test_a_checkpoint_tells_whose_it_is(path, of):
    assert attempts.origin(path) == of
