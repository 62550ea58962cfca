"""Runs in a bucket, which a `file://` address stands for here: it goes the whole way that `gs://` goes.

Two writers are found, a run that was killed goes on, and what is drawn is what is drawn from a folder.
"""

import dataclasses
import inspect
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from click.testing import CliRunner

from harness import report, train
from harness.config.experiment import TRAIN_STEPS
from harness.config.sharing import Sharing
from harness.scheduler import membership, sharing
from harness.store import run_store, write_once
from harness.store.attempts import Attempts, LostError
from harness.store.run_store import AlreadyThereError, Snapshot, Store
from harness.system import files, paths
from harness.training import executor, worker
from harness.training.worker import Job, Worker
from tests.support import trained as stores
from tests.support.made_up import IDENTITY, evaluation, record
from tests.support.printing import printing
from tests.support.tiny import PROTOCOL

RUN = IDENTITY[:16]
EXAMPLE = Path(__file__).parents[2] / "results" / "example"
TABLE = pd.DataFrame(
    {"media_id": ["b", "a"], "label": [1, 0], "top_class": [[1, 0], [1, 0]], "top_probability": [[0.9, 0.1]] * 2}
)


def bucket(folder):
    return paths.path_of(f"file://{folder}/bucket")


@pytest.fixture
def remote(tmp_path):
    return Store(tmp_path / "results", bucket(tmp_path))


def by(attempt, **others):
    """A record that an attempt came to."""
    made = record(IDENTITY, *others.pop("evaluations", ()))
    settings = {**made.settings, TRAIN_STEPS: 9}
    return dataclasses.replace(made, settings=settings, provenance={"attempt": attempt, **others})


def answers(own):
    """What every public method of a store answers, along the life of a run; folders as their paths below the runs."""

    def below(path):
        return str(path).removeprefix(f"{own.runs}/").removeprefix(f"{own.runs.absolute()}/")

    said = {"empty": (own.ids(), own.has(RUN), own.next_attempt, str(own.state(RUN)), own.excerpts())}
    name, sha256 = own.write_predictions(RUN, "10x3@32", TABLE, attempt=4)
    later = own.write_predictions(RUN, "1x1@32", TABLE, attempt=5)
    said["predictions"] = name, sha256, later
    weights = own.attempt(RUN, 4).checkpoints / "weights-9"
    files.replace(weights.parent / "weights-9.index", b"w")
    first = evaluation(predictions=name, predictions_sha256=sha256)
    second = evaluation("1x1@32", predictions=later[0], predictions_sha256=later[1])
    made = by(4, evaluations=[first], weights=own.name_of(RUN, str(weights)))
    said["written"] = below(own.write(made)), below(own.write_evaluation(made, second)), made.provenance
    for what, arguments in ((own.write, [by(5)]), (own.write_evaluation, [made, second])):
        with pytest.raises(AlreadyThereError) as error:
            what(*arguments)
        said[f"second {what.__name__}"] = below(error.value)
    read = own.read(RUN)
    said["read"] = read, own.checked(RUN), own.find("0123"), own.protocols(RUN), own.excerpt(RUN), own.excerpts()
    said["there"] = own.ids(), own.has(RUN), own.next_attempt, str(own.state(RUN)), own.unreadable(), own.recorded("")
    said["place"] = own.place.is_dir()
    said["files"] = [
        below(path)
        for path in (own.folder(RUN), own.weights(read), own.weights_file(read), own.predictions_file(read, "1x1@32"))
    ]
    said["attempts"] = own.attempts(RUN).numbers, below(own.attempt(RUN, 4).folder)
    said["outcomes"] = own.outcomes(read, "1x1@32").to_dict(), own.predictions(read, "10x3@32").to_dict()
    own.look_at([RUN])
    with own.locked(), pytest.raises(run_store.RecordError):
        own.find("f")
    snapshot = Snapshot(own.root, own.elsewhere)
    snapshot.begin()
    snapshot.look_at(snapshot.ids())
    said["snapshot"] = snapshot.ids(), snapshot.excerpts(), snapshot.faults(), snapshot.protocols(RUN)
    files.replace(own.predictions_file(read, "1x1@32"), b"changed")
    for damaged in (lambda: own.checked(RUN), lambda: own.predictions(read, "1x1@32")):
        with pytest.raises(run_store.RecordError) as error:
            damaged()
        said[str(len(said))] = below(error.value)
    return said


def test_a_bucket_answers_as_a_folder_does(tmp_path, remote):
    expected, found = answers(Store(tmp_path / "local")), answers(remote)
    assert list(found) == list(expected)
    for name in expected:
        assert repr(found[name]) == repr(expected[name]), name
    asked = {name for name in vars(Store) if not name.startswith("_")} - {"root", "elsewhere", "in_bucket", "hits"}
    assert asked <= set(re.findall(r"own\.(\w+)", inspect.getsource(answers))), "every public method is asked"
    assert not (tmp_path / "results" / "runs").exists()


def test_runs_may_be_in_another_folder(tmp_path):
    own = Store(tmp_path / "results", tmp_path / "elsewhere")
    assert (own.place, Store(tmp_path / "results").place) == (tmp_path / "elsewhere", tmp_path / "results")
    own.write(by(0))
    assert own.ids() == Store(tmp_path / "other", tmp_path / "elsewhere").ids() == [RUN]
    assert not (tmp_path / "results").exists()
    assert not own.in_bucket


def kept(remote):
    """Number of the attempt whose record stands, and of those that have a draft."""
    drafts = [int(path.parent.name) for path in remote.folder(RUN).glob("attempts/*/record.json")]
    return remote.read(RUN).provenance["attempt"], sorted(drafts)


@pytest.mark.parametrize(("one", "other"), [(3, 5), (5, 3)])
def test_of_two_that_write_at_once_both_are_named(monkeypatch, remote, one, other):
    said = []

    def other_writes():
        try:
            remote.write(by(other))
        except AlreadyThereError as error:
            said.append(str(error))

    # The other one comes between the look whether the record is there and its being written.
    looked = paths.Address.exists
    count = []

    def exists(self):
        found = looked(self)
        count.append(self)
        if len(count) == 2:
            assert not found
            monkeypatch.undo()
            other_writes()
        return found

    monkeypatch.setattr(paths.Address, "exists", exists)
    with pytest.raises(AlreadyThereError) as error:
        remote.write(by(one))
    path = remote.folder(RUN) / "record.json"
    named = f"{path}: attempt {one} and attempt {other} wrote it at the same time"
    assert str(error.value).startswith(named)
    assert "\n" not in str(error.value)
    attempt, drafts = kept(remote)
    assert attempt in drafts, "what stands is whole, and its attempt's files are"
    if other > one:
        assert said == [], "the other one had written before, and found this one's draft removed: it is the record's"
    assert remote.read(RUN) == by(attempt)


def test_an_attempt_that_was_taken_for_dead_gives_way_when_it_wakes(monkeypatch, remote):
    """It was paused between its look and its record; the next one recorded the run, and removed what it had left."""
    looked, count = paths.Address.exists, []

    def exists(self):
        found = looked(self)
        count.append(self)
        if len(count) == 2:
            monkeypatch.undo()
            remote.write(by(5))
            remote.attempts(RUN).settle(5, remote.attempt(RUN, 5).checkpoints / "weights-9")
        return found

    monkeypatch.setattr(paths.Address, "exists", exists)
    with pytest.raises(AlreadyThereError, match="attempt 3 and attempt 5 wrote it at the same time"):
        remote.write(by(3))
    assert kept(remote) == (5, [5])


def test_what_a_killed_attempt_drafted_is_no_second_writer(remote):
    files.replace(remote.attempt(RUN, 3).folder / "record.json", b"{}")
    remote.write(by(5))
    assert kept(remote) == (5, [5])


def test_the_one_whose_record_stands_keeps_its_files(remote):
    for number in (3, 5):
        remote.write_predictions(RUN, "10x3@32", TABLE, number)
    remote.write(by(5, weights="attempts/5/checkpoints/weights-2"))
    for number in (3, 5):
        executor._leave(RUN, remote, remote.attempt(RUN, number))
    assert not remote.attempt(RUN, 3).predictions("10x3@32").exists()
    assert remote.attempt(RUN, 5).predictions("10x3@32").exists()


def test_nothing_that_no_attempt_wrote_has_a_draft(remote):
    path = write_once.write_once(remote.folder(RUN), "record.json", b"1", None)
    with pytest.raises(FileExistsError):
        write_once.write_once(remote.folder(RUN), "record.json", b"2", None)
    assert path.read_bytes() == b"1"
    assert Attempts(remote.folder(RUN)).numbers == []


@pytest.mark.slow
def test_a_run_killed_in_a_bucket_goes_on_as_one_in_a_folder(data, remote, trained):
    run = stores.baseline(data)
    points = []

    def killed(event):
        points.append((event.get("split"), event.get("step")))
        if event["event"] == "train" and event["step"] == 3:
            raise LostError  # nothing is copied after it, as after a kill

    with pytest.raises(LostError):
        data.execute(remote, run, killed)
    first = remote.attempts(run.id)[0]
    assert first.checkpoints.glob("ckpt-2.*")
    left = [json.loads(line) for line in first.lines() if line]
    assert [(one["event"], one["step"]) for one in left] == [
        ("attempt", 0), ("train", 1), ("validation", 1), ("train", 2), ("validation", 2),
    ], "its curve up to its last checkpoint"  # fmt: skip
    assert str(remote.state(run.id)) == "interrupted at step 2"
    found = data.execute(remote, run)
    local = trained("whole", "local")
    whole = local.read(run.id)
    assert found == remote.read(run.id)
    assert found.provenance["resumed_at"] == [2]
    assert found.provenance["weights"] == "attempts/1/checkpoints/weights-4"

    def points_of(record):
        return [{name: value for name, value in point.items() if name != "seconds"} for point in record.curve]

    assert points_of(found) == points_of(whole)
    pd.testing.assert_frame_equal(remote.predictions(found, PROTOCOL), local.predictions(whole, PROTOCOL))
    folder = Path(str(remote.folder(run.id)).removeprefix("file://"))
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()) == [
        "attempts/1/checkpoints/weights-4.data-00000-of-00001",
        "attempts/1/checkpoints/weights-4.index",
        f"attempts/1/predictions-{PROTOCOL}.parquet",
        "attempts/1/record.json",
        "record.json",
        "recorded",
    ]
    assert data.execute(remote, run, None) == found


@pytest.fixture
def job(tmp_path):
    results = tmp_path / "results"
    return Job("train", SimpleNamespace(id=RUN), tmp_path, None, results, attempt=4, runs=bucket(tmp_path))


@pytest.mark.parametrize(
    ("kind", "held", "event", "said"),
    [
        ("train", True, "done", "first\nsecond\n"),
        ("die", True, "failed", "first\nsecond\n"),
        ("train", False, "lost", None),
    ],
)
def test_what_a_process_prints_is_copied_to_the_bucket(job, kind, held, event, said):
    log = job.store.attempt(RUN, 4).log()
    copies = []

    def answer(_):
        copies.append(log.exists())
        return held

    with Worker(printing) as process:
        found = list(process.events(dataclasses.replace(job, kind=kind), held=answer))
        (scratch,) = [Path(process._scratch.name)]
        assert (log.read_text() if log.exists() else None) == said
        assert list(process.events(dataclasses.replace(job, attempt=5)))[-1]["event"] == "done"
    assert found[-1]["event"] == event
    if kind == "die":
        assert found[-1]["traceback"] == f"see {log}"
    assert job.store.attempt(RUN, 5).log().read_text() == "first\nsecond\n", "of each attempt its own"
    assert not scratch.exists()
    assert not job.results.exists()


def test_the_log_so_far_is_there_before_a_checkpoint_is(job, monkeypatch):
    copied = []
    monkeypatch.setattr(worker.files, "replace", lambda path, content: copied.append((str(path), content)))
    with Worker(printing) as process:
        list(process.events(job))
    log = str(job.store.attempt(RUN, 4).log())
    assert copied == [(log, b"first\n"), (log, b"first\nsecond\n")]


def test_a_report_from_a_bucket_is_that_from_a_folder(tmp_path):
    drawn = []
    shutil.copytree(EXAMPLE / "runs", tmp_path / "bucket")
    for name, extra in (("local", []), ("remote", ["--runs", str(bucket(tmp_path))])):
        results, plots = tmp_path / name / "results", tmp_path / name / "plots"
        if not extra:
            shutil.copytree(EXAMPLE / "runs", results / "runs")
        found = CliRunner().invoke(report.main, ["table2", "--results", str(results), "--plots", str(plots), *extra])
        assert found.exit_code == 0, found.output
        files_ = [path for path in (tmp_path / name).rglob("*") if path.is_file() and "runs" not in path.parts]
        drawn.append({str(path.relative_to(tmp_path / name)): path.read_bytes() for path in files_})
    local, remote = drawn
    assert sorted(local) == sorted(remote)
    assert len(local) > 5
    assert [name for name in local if local[name] != remote[name]] == []


def test_a_bucket_of_runs_needs_a_storage_that_all_see(tmp_path):
    arguments = ["--runs", str(bucket(tmp_path)), "--results", str(tmp_path), "--steps", "1", "--wandb", "off"]
    found = CliRunner(env={"HARNESS_STORAGE": ""}).invoke(train.main, arguments)
    assert found.exit_code == 2
    assert [line for line in found.output.splitlines() if line.startswith("Error")] == [
        f"Error: --runs {bucket(tmp_path)}: training into it needs --storage postgresql+psycopg://HOST/DATABASE: "
        "without, whoever does so from another --results would have a queue of its own, and train every run"
    ]
    planned = CliRunner(env={"HARNESS_STORAGE": ""}).invoke(train.main, [*arguments, "--plan"])
    assert planned.exit_code == 0, planned.output
    assert "of the bucket while it trains" in planned.output
    assert not (tmp_path / "runs").exists()


def test_another_folder_of_runs_needs_a_storage_too(tmp_path):
    arguments = ["--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "a"), "--steps", "1", "--wandb", "off"]
    found = CliRunner(env={"HARNESS_STORAGE": ""}).invoke(train.main, arguments)
    assert found.exit_code == 2
    assert "or on one machine sqlite:///FILE: without, whoever does so from another --results" in found.output
    assert not (tmp_path / "runs").exists()


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    found = CliRunner().invoke(train.main, ["--runs", str(tmp_path / "file"), "--plan"])
    assert found.exit_code == 2
    assert "is a file; expected a folder" in found.output


def test_two_workers_that_begin_in_a_bucket_at_once_write_the_same(remote, tmp_path):
    one, other = (membership._new_id(remote, "db") for _ in "ab")
    assert one == other
    assert membership._new_id(remote, "another") != one
    local = Store(tmp_path)
    assert membership._new_id(local, "db") != membership._new_id(local, "db")
    sharing.refuse_unseen_queue(Sharing("sqlite:///x"), remote)
    sharing.refuse_unseen_queue(Sharing(), local)
