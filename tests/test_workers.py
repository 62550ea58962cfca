"""Two workers of one run, in short; the heavy form is a command of its own."""

import signal

import prove_workers
import pytest

from harness import devices
from harness.devices import Devices
from harness.experiment import SettingsError
from harness.store import Store

TF_CONFIG = '{"cluster": {"chief": ["a:1"], "worker": ["b:1", "c:1"]}, "task": {"type": "worker", "index": 1}}'


def test_two_processes_train_to_the_predictions_of_one(tmp_path, drawn):
    drawn(tmp_path / "two")
    found = prove_workers.prove(26, 9, tmp_path)
    assert found["videos"] == 9


def test_workers_stop_together_and_go_on_together(tmp_path, drawn):
    drawn(tmp_path)
    words = ["--steps", "60", "--validation-videos", "8"]
    workers = prove_workers.start_workers(tmp_path, words)
    for line in workers[1].stdout:
        if "step 60" in line or ": training" in line:
            break
    workers[1].send_signal(signal.SIGTERM)
    said = [worker.communicate()[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [143, 143], said
    store = Store(tmp_path)
    (folder,) = store.runs.iterdir()
    state = store.state(folder.name)
    assert state.name == "interrupted"
    prove_workers.in_two_processes(tmp_path, words)
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
    assert devices.of(*flags, environment) == expected


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
        devices.of(*flags, environment)
