"""The mirror stays out of the study's way: whatever W&B does, `write` returns at once and `close` within the limit."""

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.store.run_store import Store
from harness.tracking import wandb, wandb_files
from tests.support import mirrored
from tests.support.mirrored import Diary
from tests.support.wandb_server import Server

ROOT = Path(__file__).parents[2]
KEY = "0123456789abcdef" * 2 + "5ec3e7aa"


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    """Processes that find the trackers of these tests, and a home that must stay empty."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    (tmp_path / "home").mkdir()


def diaries(tmp_path, *names, **others):
    stages = [functools.partial(Diary, tmp_path / name) for name in names]
    return wandb.SubprocessTracker(stages, tmp_path / "mirror.log", "Type this.", **others)


def tell(tracker, *events):
    """Tells a tracker; the seconds it took."""
    began = time.monotonic()
    for event in events:
        tracker.write(event)
    return time.monotonic() - began


def closed(tracker):
    """What closing says, and the seconds it took."""
    began = time.monotonic()
    return tracker.close(), time.monotonic() - began


def wait_until(found, seconds=30):
    end = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return value


def alive(pid):
    """Whether a process runs; one that ended and that nobody has waited for does not."""
    done = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return bool(done.stdout.strip()) and not done.stdout.startswith("Z")


def children(pid):
    table = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    return [int(line.split()[0]) for line in table.splitlines() if line.split()[1] == str(pid)]


RUN = {"event": "run", "run": "a"}


def point(step, **others):
    return {"event": "train", "run": "a", "step": step, **others}


def test_off_keeps_nothing(tmp_path):
    tracker = wandb.tracker("off", tmp_path / "results")
    assert tell(tracker, RUN) < 0.1
    assert tracker.close() == []
    assert not (tmp_path / "results").exists()


def test_several_are_all_told():
    class Listed(list):
        def write(self, event):
            self.append(event)

        def close(self):
            return [f"{len(self)} told"]

    one, other = Listed(), Listed()
    both = wandb.CompositeTracker([one, other])
    both.write(RUN)
    assert one == other == [RUN]
    assert both.close() == ["1 told", "1 told"]


def test_a_mirror_that_is_told_nothing_starts_nothing(tmp_path):
    assert diaries(tmp_path, "one").close() == []
    assert not (tmp_path / "mirror.log").exists()


def test_events_arrive_in_order_in_another_process(tmp_path):
    events = [RUN, *(point(step) for step in range(50))]
    mirror = diaries(tmp_path, "one")
    tell(mirror, *events)
    assert mirror.close() == []
    assert mirrored.told(tmp_path / "one") == [*events, {"event": "closed"}]
    (pid,) = {line["pid"] for line in mirrored.lines(tmp_path / "one")}
    assert pid != os.getpid()
    assert not alive(pid)


@pytest.mark.parametrize("misdeed", ["raise", "die", "sleep"])
def test_the_next_one_hears_the_open_run_from_its_beginning(tmp_path, misdeed):
    before = [{"event": "run", "run": "0"}, {"event": "recorded", "run": "0"}]
    events = [RUN, point(1), point(2, misbehave={"one": misdeed}), point(3)]
    mirror = diaries(tmp_path, "one", "two", patience=8.0)
    tell(mirror, *before, *events)
    ((line,), seconds) = closed(mirror)
    assert line.startswith("W&B: ")
    assert line.endswith(". Type this.")
    assert "\n" not in line
    assert seconds < 25
    assert mirrored.told(tmp_path / "one") == [*before, *events[:3]]
    assert mirrored.told(tmp_path / "two") == [*events, {"event": "closed"}]


def test_the_last_one_goes_on_after_an_error(tmp_path):
    mirror = diaries(tmp_path, "one")
    tell(mirror, RUN, point(1, misbehave={"one": "raise"}), point(2, misbehave={"one": "raise"}), point(3))
    assert mirror.close() == ["W&B: OSError: no space left on the device. Type this."]
    assert mirrored.told(tmp_path / "one")[-2:] == [point(3), {"event": "closed"}]
    assert "Traceback" in (tmp_path / "mirror.log").read_text()


def test_a_mirror_that_is_gone_is_one_line(tmp_path):
    mirror = diaries(tmp_path, "one")
    tell(mirror, RUN, point(1, misbehave={"one": "die"}), point(2))
    (line,) = mirror.close()
    assert line.startswith("W&B: the process that mirrors is gone (")


def test_what_cannot_be_sent_costs_a_warning(tmp_path):
    mirror = diaries(tmp_path, "one")
    tell(mirror, RUN, point(1, strange=lambda: None), point(2))
    (line,) = mirror.close()
    assert "pickle" in line
    assert mirrored.told(tmp_path / "one") == [RUN, point(2), {"event": "closed"}]


def test_one_that_hangs_at_the_end_is_killed_at_the_limit(tmp_path):
    mirror = diaries(tmp_path, "one", "two", limit=2.0)
    assert tell(mirror, RUN, point(1, misbehave={"one": "sleep", "two": "sleep"}), *map(point, range(2, 5000))) < 1
    ((line,), seconds) = closed(mirror)
    assert "no answer" in line
    assert seconds < 3
    assert not any(alive(line["pid"]) for name in ("one", "two") for line in mirrored.lines(tmp_path / name))


def test_signals_to_it_wait_for_the_study(tmp_path):
    mirror = diaries(tmp_path, "one")
    tell(mirror, RUN)
    pid = wait_until(lambda: mirrored.lines(tmp_path / "one"))[0]["pid"]
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(pid, number)
    assert os.getpgid(pid) != os.getpgid(0)
    tell(mirror, point(1))
    assert mirror.close() == []
    assert mirrored.told(tmp_path / "one") == [RUN, point(1), {"event": "closed"}]


def test_it_ends_when_the_study_is_killed(tmp_path):
    study = _study(f"""
        tracker = wandb.SubprocessTracker([functools.partial(mirrored.Diary, Path({str(tmp_path / "one")!r}))],
                                 Path({str(tmp_path / "mirror.log")!r}), "")
        tracker.write({RUN!r})
    """)
    pid = wait_until(lambda: mirrored.lines(tmp_path / "one"))[0]["pid"]
    os.killpg(study.pid, signal.SIGKILL)
    study.wait()
    wait_until(lambda: not alive(pid))
    assert mirrored.told(tmp_path / "one") == [RUN, {"event": "closed"}]


def _study(text):
    """A process that does what a text says and then goes on until it is killed."""
    head = (
        "import functools, json, sys, time\nfrom pathlib import Path\n"
        "from harness.tracking import wandb\nfrom tests.support import mirrored\n"
    )
    body = "\n".join(line.strip() for line in text.strip().splitlines())
    code = f"{head}{body}\ntime.sleep(600)\n"
    return subprocess.Popen([sys.executable, "-c", code], start_new_session=True)


@pytest.fixture
def attempt(tmp_path):
    """A study that was begun and goes on: its results folder, its process, and its run's id."""
    results = tmp_path / "results"
    found = mirrored.write(results)
    study = _study(f"""
        tracker = wandb.tracker("offline", Path({str(results)!r}))
        for event in json.loads({json.dumps(mirrored.whole(results, found)[:-1])!r}): tracker.write(event)
    """)
    yield results, study, found
    if study.poll() is None:
        os.killpg(study.pid, signal.SIGKILL)
        study.wait()


def held(results):
    return wandb_files.merged(wandb_files.read_runs(results)) if results.is_dir() else {}


def all_held(results, found):
    """What is held of a run, once all its points are."""
    run = held(results).get(found.id)
    return run if run and len(run.points) == len(found.curve) else None


def test_all_points_are_on_disk_after_everything_was_killed(attempt):
    results, study, found = attempt
    wait_until(lambda: all_held(results, found))
    (mirror,) = children(study.pid)
    (service,) = children(mirror)
    for pid in (service, mirror, study.pid):
        os.kill(pid, signal.SIGKILL)
    study.wait()
    run = held(results)[found.id]
    assert run.exit_code is None
    assert [dict(one) for one in run.points] == sorted(found.curve, key=lambda one: (one["step"], one["split"]))
    assert run.config == mirrored.SETTINGS
    assert run.summary["state"] == "running"


def test_a_run_of_a_killed_study_is_marked_interrupted(attempt):
    results, study, found = attempt
    wait_until(lambda: all_held(results, found))
    (mirror,) = children(study.pid)
    os.killpg(study.pid, signal.SIGKILL)
    study.wait()
    wait_until(lambda: not alive(mirror))
    run = held(results)[found.id]
    assert run.exit_code == 1
    assert run.summary["state"] == "interrupted"
    assert not (Store(results).folder(found.id) / wandb.MIRRORED).exists()


def test_a_failed_run_says_why_in_one_line(tmp_path):
    tracker = wandb.tracker("offline", tmp_path / "results")
    tell(tracker, mirrored.begins("a" * 16), {"event": "unknown"})
    tell(tracker, {"event": "failed", "run": "a" * 16, "error": "no\nmemory", "traceback": "secret"})
    assert tracker.close() == []
    run = held(tmp_path / "results")["a" * 16]
    assert (run.exit_code, run.summary["state"], run.summary["error"]) == (1, "failed", "no memory")
    assert not any(b"secret" in content for content in mirrored.contents(tmp_path).values())


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
def test_nothing_is_sent_offline(tmp_path):
    results, calls = tmp_path / "results", tmp_path / "calls"
    found = mirrored.write(results)
    code = (
        "import json, sys; from pathlib import Path; from harness.tracking import wandb\n"
        "tracker = wandb.tracker('offline', Path(sys.argv[1]))\n"
        "for event in json.load(sys.stdin): tracker.write(event)\n"
        "print(tracker.close())\n"
    )
    events = json.dumps([*mirrored.whole(results, found), mirrored.study(results)])
    traced = ["strace", "-f", "-qq", "-e", "trace=connect,sendto,sendmsg,sendmmsg", "-o", str(calls)]
    done = subprocess.run(
        [*traced, sys.executable, "-c", code, str(results)], input=events, capture_output=True, text=True, check=False
    )
    if "ptrace" in done.stderr:
        pytest.skip("may not trace here")
    assert done.stdout == "[]\n", done.stderr
    assert held(results)[found.id].exit_code == 0
    assert "AF_UNIX" in calls.read_text()
    assert "AF_INET" not in calls.read_text()


@pytest.fixture
def server(monkeypatch):
    with Server() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        yield server


def test_online_every_point_arrives_and_the_key_stays_in_memory(tmp_path, server):
    results = tmp_path / "results"
    found = mirrored.write(results)
    tracker = wandb.tracker("online", results)
    assert tell(tracker, *mirrored.whole(results, found), mirrored.study(results)) < 0.1
    assert tracker.close() == []
    arrived = server.lines[found.id]
    assert [line["train/loss"] for line in arrived if "train/loss" in line] == [
        one["loss"] for one in found.curve if one["split"] == "train"
    ]
    assert {line["step"] for line in arrived} == {1, 2, 3, 4}
    assert server.operations.count("CreateArtifact") == 3  # the record, the table, the study's files
    assert (Store(results).folder(found.id) / wandb.MIRRORED).read_text() == "online\n"
    _no_trace_outside(tmp_path)


def test_offline_the_key_is_nowhere(tmp_path):
    results = tmp_path / "results"
    found = mirrored.write(results)
    tracker = wandb.tracker("offline", results)
    tell(tracker, *mirrored.whole(results, found))
    assert tracker.close() == []
    assert (Store(results).folder(found.id) / wandb.MIRRORED).read_text() == "offline\n"
    _no_trace_outside(tmp_path)


def _no_trace_outside(tmp_path):
    assert mirrored.contents(tmp_path / "home") == {}
    assert {path.name for path in (tmp_path / "results").iterdir()} <= {"runs", "wandb", "table2-quick.md"}
    secrets = [KEY.encode(), os.uname().nodename.encode() + b'"']
    found = mirrored.contents(tmp_path)
    assert [name for name, content in found.items() if any(secret in content for secret in secrets)] == []


@pytest.mark.parametrize("behaviour", ["gone", "500", "hang"])
def test_a_server_that_cannot_be_reached_costs_a_warning(tmp_path, server, behaviour):
    server.become(behaviour)
    results = tmp_path / "results"
    found = [mirrored.write(results, seed) for seed in range(2)]
    tracker = wandb.tracker("online", results, limit=12.0)
    spent = tell(tracker, *(event for one in found for event in mirrored.whole(results, one)))
    assert spent + tell(tracker, mirrored.study(results)) < 0.1
    ((line,), seconds) = closed(tracker)
    assert line.startswith("W&B: CommError: ")
    assert line.endswith(f"to send it type: wandb sync {results}/wandb")
    assert seconds < 12.5
    _assert_offline(results, found)


@pytest.mark.parametrize("behaviour", ["gone", "hang"])
def test_a_server_that_dies_in_the_middle_costs_a_warning(tmp_path, server, behaviour):
    results = tmp_path / "results"
    found = [mirrored.write(results, seed) for seed in range(2)]
    stages = [functools.partial(wandb.Wandb, results, mode) for mode in ("online", "offline")]
    tracker = wandb.SubprocessTracker(stages, results / "wandb/mirror.log", "Type this.", limit=20.0, patience=5.0)
    first = mirrored.whole(results, found[0])
    tell(tracker, *first[:3])
    assert server.wait_for("UpsertBucket")
    server.become(behaviour)
    assert tell(tracker, *first[3:], *mirrored.whole(results, found[1]), mirrored.study(results)) < 0.1
    ((line,), seconds) = closed(tracker)
    assert line.startswith("W&B: no answer for ")
    assert seconds < 20
    _assert_offline(results, found)


def test_without_a_login_it_goes_on_offline(tmp_path, server, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY")
    results = tmp_path / "results"
    found = mirrored.write(results)
    tracker = wandb.tracker("online", results)
    tell(tracker, *mirrored.whole(results, found))
    ((line,), seconds) = closed(tracker)
    assert "wandb login" in line
    assert seconds < 10
    _assert_offline(results, [found])


def _assert_offline(results, found):
    """Each run is whole in W&B's offline files."""
    offline = [run for run in wandb_files.read_runs(results) if run.path.parent.name.startswith("offline-")]
    runs = wandb_files.merged(offline)
    for one in found:
        assert len(runs[one.id].points) == len(one.curve)
        assert runs[one.id].exit_code == 0
        assert set(runs[one.id].artifacts[0].files) == {"record.json", "attempts/0/predictions-10x3@32.parquet"}
        assert (Store(results).folder(one.id) / wandb.MIRRORED).read_text() == "offline\n"
