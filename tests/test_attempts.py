"""What is kept of a run without a record: the log of its attempts, torn where one was killed, and its state."""

import json
import subprocess
import sys

import pytest

from harness import attempts
from harness.attempts import Attempts, State
from harness.records import RecordError
from harness.store import Store

RUN = "0123456789abcdef"


def event(kind, step, seconds=0.0):
    if kind == "attempt":
        return {"event": kind, "step": step}
    return {"event": kind, "split": kind, "step": step, "seconds": seconds, "done": step, "total": 9}


def line(*words):
    return json.dumps(event(*words))


def silent(event):
    del event


def test_attempts_are_one_curve_and_a_torn_line_costs_one_point():
    first = [line("attempt", 0), line("train", 1, 2.0), line("train", 2, 4.0), line("train", 3, 6.0)[:20]]
    second = ["", line("attempt", 2), line("train", 3, 1.5), line("validation", 3, 1.75)]
    found = attempts.history("\n".join([*first, *second]).splitlines())
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


@pytest.mark.parametrize(
    "damage",
    ["[]", "{}", "3", '{"event": "train"}', "\x00", line("train", 1), line("train", "x", 1.0), line("train", 1, "1")],
)
def test_a_log_damaged_by_hand_loses_lines_and_no_more(damage):
    found = attempts.history([damage, line("attempt", 0), line("train", 1, 2.0)])
    assert [point["step"] for point in found.curve] == [1]
    later = attempts.history([line("attempt", 0), damage, line("train", 2, 2.0)])
    assert later.curve[-1]["step"] == 2


def test_a_runs_states_follow_one_another(tmp_path):
    store = Store(tmp_path)
    kept = store.attempts(RUN)
    assert store.state(RUN) == State("waiting")
    with kept.logged(silent) as report:
        report(event("attempt", 0))
        report(event("train", 7, 1.0))
        assert store.state(RUN) == State("running", 7)
    assert store.state(RUN) == State("interrupted", 7)
    assert str(store.state(RUN)) == "interrupted at step 7"
    kept.fail("it broke", "Traceback ...")
    assert store.state(RUN) == State("failed", 7, "it broke")
    assert json.loads(kept.failure.read_text())["traceback"] == "Traceback ..."
    with kept.logged(silent):
        assert store.state(RUN) == State("running", 7), "the next attempt forgets why the last one failed"
    assert store.state(RUN).name == "interrupted"


def test_a_run_that_failed_before_it_began_is_failed(tmp_path):
    kept = Attempts(tmp_path / RUN)
    kept.fail("no such strategy", "")
    assert kept.state() == State("failed", 0, "no such strategy")


def test_a_killed_process_leaves_its_run_interrupted(tmp_path):
    code = (
        "import os, sys, pathlib\nfrom harness.attempts import Attempts\n"
        "with Attempts(pathlib.Path(sys.argv[1])).logged(lambda _: None) as report:\n"
        "    report({'event': 'attempt', 'step': 0})\n    print('at it', flush=True)\n    sys.stdin.read()\n"
    )
    folder = tmp_path / RUN
    with subprocess.Popen([sys.executable, "-c", code, folder], stdin=-1, stdout=-1) as process:
        process.stdout.readline()
        assert Attempts(folder).state() == State("running")
        process.kill()
    assert Attempts(folder).state() == State("interrupted")


def test_a_damaged_record_is_no_other_state(tmp_path):
    store = Store(tmp_path)
    store.folder(RUN).mkdir(parents=True)
    (store.folder(RUN) / "record.json").write_text("{")
    assert store.state(RUN) == State("done")
    with pytest.raises(RecordError):
        store.checked(RUN)
