"""What passes between a worker and its training process; two workers of one run, in short."""

import dataclasses
import errno
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.config import devices
from harness.config.devices import Devices
from harness.config.experiment import SettingsError
from harness.store.attempts import RunError
from harness.store.run_store import Store
from harness.training import worker as worker_
from harness.training.worker import Job, Worker
from tests.proofs import workers as two_workers
from tests.support import forked, waiting

TF_CONFIG = '{"cluster": {"chief": ["a:1"], "worker": ["b:1", "c:1"]}, "task": {"type": "worker", "index": 1}}'


@pytest.fixture
def job(tmp_path):
    return Job("train", SimpleNamespace(id="0123456789abcdef"), tmp_path, None, tmp_path, attempt=4)


def failing(error):
    """A job that ends so."""

    def do(*_):
        raise error

    return do


def with_cause(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "event", "said"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a/b"), "interrupted", "a/b: no space left on device"),
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), "a/b"), "interrupted", "a/b: disk quota exceeded"),
        (
            with_cause(RunError("the checkpoint"), ValueError("UNKNOWN: a/b; No space left on device")),
            "interrupted",
            "the checkpoint",
        ),
        (
            FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"),
            "interrupted",
            "file system: no usable temporary directory found in ['/tmp']",
        ),
        (
            OSError(errno.EIO, "Could not append to the internal temporary file.", "gs://lab/a"),
            "interrupted",
            "gs://lab/a: could not append to the internal temporary file.",
        ),
        (with_cause(RunError("other"), OSError(errno.EIO, "no")), "failed", "other"),
        (FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "a/b"), "failed", "a/b: no such file or directory"),
        (OSError(errno.EACCES, os.strerror(errno.EACCES), "a/b"), "failed", "a/b: permission denied"),
    ],
)
def test_a_full_disk_is_no_fault_of_the_run(job, monkeypatch, error, event, said):
    monkeypatch.setattr(worker_, "_do", failing(error))
    monkeypatch.setattr(worker_, "redirect_output", lambda _: None)
    found = worker_._carried_out(job, None, None)
    assert (found["event"], found.get("reason", found.get("error"))) == (event, said)
    assert found.get("full", False) == (event == "interrupted")


def asking(pipe):
    """A training process that asks, says what it was answered, and ends its jobs as they say."""
    while True:
        job = pipe.recv()
        for now in (False, True, True):
            pipe.send({"event": "held?", "now": now})
            if not pipe.recv():
                pipe.send({"event": "lost"})
                break
            pipe.send({"event": "train", "step": int(now)})
        else:
            pipe.send({"event": "done", "attempt": job.attempt, "process": os.getpid()})


def dying(pipe):
    pipe.recv()
    os._exit(3)


def silent(pipe):
    pipe.recv()
    time.sleep(600)


def test_the_parent_says_whether_the_run_is_still_its_own(job):
    asked = []

    def held(now):
        asked.append(now)
        return len(asked) != 5

    with Worker(asking) as worker:
        found = [list(worker.events(job, held=held)) for _ in "abc"]
    kinds = [[event["event"] for event in events] for events in found]
    assert kinds == [["train", "train", "train", "done"], ["train", "lost"], ["train", "train", "train", "done"]]
    assert asked == [False, True, True, False, True, False, True, True]
    assert found[0][-1] == found[2][-1], "one that lost its run stays for the next"
    assert found[0][-1]["attempt"] == 4


def test_without_anyone_to_ask_the_run_is_its_own(job):
    with Worker(asking) as worker:
        assert list(worker.events(job))[-1]["event"] == "done"


def test_a_process_that_dies_names_its_attempts_log(job, tmp_path):
    with Worker(dying) as worker:
        (event,) = worker.events(job)
    log = tmp_path / "runs" / job.run.id / "attempts" / "4" / "log.txt"
    assert event == {
        "event": "failed",
        "error": "the training process ended with exit code 3",
        "traceback": f"see {log}",
    }


def test_a_process_that_says_nothing_is_ended(job):
    with Worker(silent, silence=1) as worker:
        (event,) = worker.events(job)
        assert event["event"] == "failed"
        assert event["error"] == "the training process said nothing for 0.000277778 hours and was ended"
        (again,) = worker.events(dataclasses.replace(job, attempt=5))
        assert Path("attempts", "5", "log.txt").as_posix() in again["traceback"]


def training(pipe):
    pipe.recv()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    pipe.send({"event": "attempt", "step": 0})
    time.sleep(600)


def test_one_that_does_not_stop_is_killed_after_its_grace(job):
    with Worker(training, grace=0.5) as worker:
        events = worker.events(job)
        assert next(events)["event"] == "attempt"
        worker.stop()
        (last,) = events
    assert last["event"] == "interrupted"
    assert "the steps since its last checkpoint are lost" in last["reason"]


GONE = {"event": "interrupted", "reason": "the first worker left it", "deserted": True}


def test_who_trains_with_one_that_left_is_ended_at_once(job):
    events = []
    with Worker(training) as worker:
        for event in worker.events(job, over=lambda: GONE if events else None):
            events.append(event)
        assert [event["event"] for event in events] == ["attempt", "interrupted"]
        assert events[-1] == GONE
        assert not worker._process, "TensorFlow would not join the others a second time"


def test_others_that_do_not_come_are_not_waited_for_for_ever(job):
    several = Devices("multi_worker_mirrored", None, ("a:1", "b:1"), 0)
    with Worker(silent, wait=1) as worker:
        (event,) = worker.events(dataclasses.replace(job, devices=several))
    assert event["deserted"]
    assert event["alone"]
    assert event["reason"] == "the other workers did not come within 1 seconds"


def test_one_that_trains_alone_waits_for_nobody(job):
    with Worker(asking, wait=0) as worker:
        assert list(worker.events(job))[-1]["event"] == "done"


def outliving(pipe):
    """Starts a training process that does nothing, says which, and is killed."""
    with Worker(_end_with_parent_and_say) as worker:
        (event,) = worker.events(pipe.recv())
        pipe.send(event)
        os.kill(os.getpid(), signal.SIGKILL)


def _end_with_parent_and_say(pipe):
    worker_._end_with_parent()
    pipe.recv()
    pipe.send({"event": "done", "process": os.getpid()})
    time.sleep(600)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells a process of its parent's end")
def test_a_training_process_ends_with_the_process_that_started_it(job):
    context = multiprocessing.get_context("spawn")
    pipe, other = context.Pipe()
    parent = context.Process(target=outliving, args=(other,))
    parent.start()
    pipe.send(job)
    child = pipe.recv()["process"]
    parent.join()
    while Path(f"/proc/{child}").exists() and "Z" not in Path(f"/proc/{child}/stat").read_text().split()[2]:
        time.sleep(0.01)


@pytest.mark.slow
def test_two_processes_train_to_the_predictions_of_one(tmp_path, drawn):
    drawn(tmp_path / "two")
    found = two_workers.prove(14, 9, tmp_path, forked.Command)
    assert found["videos"] == 9


@pytest.mark.slow
def test_workers_stop_together_and_go_on_together(tmp_path, drawn):
    drawn(tmp_path)
    words = ["--steps", "40", "--validation-videos", "8"]

    def start(module, words):
        """The second worker trains until it is told to stop, and the first has to wait for it."""
        waits = waiting.SIGNAL if words[-1] == 1 else ""
        return forked.Command(module, words, environment={waiting.VARIABLE: waits})

    workers = two_workers.start_workers(tmp_path, words, start)
    assert any(": training" in line for line in workers[1].stdout)
    workers[1].send_signal(signal.SIGTERM)
    said = [worker.communicate()[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [143, 143], said
    store = Store(tmp_path)
    (folder,) = store.runs.glob("[!.]*")
    state = store.state(folder.name)
    assert state.name == "interrupted"
    assert 0 < state.step < 40
    two_workers.in_two_processes(tmp_path, words, forked.Command)
    assert store.read(folder.name).provenance["resumed_at"] == [state.step]


@pytest.mark.parametrize(
    ("flags", "environment", "expected"),
    [
        ((None, None, None, None), {}, Devices()),
        ((None, "local", None, None), {}, Devices("tpu", "local")),
        (("mirrored", None, None, None), {"TF_CONFIG": TF_CONFIG}, Devices("mirrored")),
        (("multi_worker_mirrored", None, "a:1,b:2", 1), {}, Devices("multi_worker_mirrored", None, ("a:1", "b:2"), 1)),
        (
            ("multi_worker_mirrored", None, None, None),
            {"TF_CONFIG": TF_CONFIG},
            Devices("multi_worker_mirrored", None, ("a:1", "b:1", "c:1"), 2),
        ),
    ],
)
def test_flags_and_environment_mean_devices(flags, environment, expected):
    assert devices.devices_from_flags(*flags, environment) == expected


@pytest.mark.parametrize(
    ("flags", "environment", "message"),
    [
        (("tpu", None, None, None), {}, "--strategy tpu needs --tpu NAME"),
        (("mirrored", "t", None, None), {}, "--tpu and --strategy mirrored: choose one"),
        (("mirrored", None, "a:1", 0), {}, "belong to --strategy multi_worker_mirrored"),
        (("multi_worker_mirrored", None, None, None), {}, "needs --worker-hosts HOST:PORT"),
        (("multi_worker_mirrored", None, "a:1,b:1", None), {}, "--worker-hosts needs --task-index"),
        (("multi_worker_mirrored", None, "a:1,b:1", 2), {}, "task index 2: expected 0 to 1"),
        (("multi_worker_mirrored", None, "a,b", 0), {}, "'a': expected host:port"),
        (("multi_worker_mirrored", None, "a:1,a:1", 0), {}, "named twice"),
        (("multi_worker_mirrored", None, None, None), {"TF_CONFIG": "{"}, "TF_CONFIG: expected"),
        (("multi_worker_mirrored", None, None, None), {"TF_CONFIG": "[]"}, "TF_CONFIG: expected"),
    ],
)
def test_flags_that_contradict_each_other(flags, environment, message):
    with pytest.raises(SettingsError, match=message):
        devices.devices_from_flags(*flags, environment)
