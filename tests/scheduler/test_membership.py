"""Who may work in a results folder and at a study, and who is told in one line why not; no TensorFlow, no server."""

import dataclasses
import json
import os
import shutil
import socket
from pathlib import Path

import pytest

from ablations.profiles import QUICK
from ablations.table2 import STUDY
from harness.config.devices import Devices
from harness.config.experiment import DatasetInfo, Overrides
from harness.config.sharing import Sharing
from harness.config.studies import Row
from harness.planning import plans
from harness.planning.plans import RunKnowledge
from harness.planning.workspace import DataSet, Workspace
from harness.scheduler import membership, optuna_storage, run_queue, sharing
from harness.scheduler.optuna_storage import StorageError
from harness.scheduler.run_queue import Queue
from harness.store.run_store import Store

NAME = "table2 quick"
ME = f"{socket.gethostname()}:{os.getpid()}"
DATA = DataSet(DatasetInfo("clips", 8, 512, 240, "cd" * 32), None, None, ready=True)
ROWS = dataclasses.replace(STUDY, rows=STUDY.rows[:3])


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """An empty queue, to be copied: making the tables takes longer than a test."""
    path = tmp_path_factory.mktemp("made") / "queue.db"
    Queue(optuna_storage.url_of(path), lease=3600)
    return path


@pytest.fixture
def made(template, tmp_path):
    """Makes workspaces, each in a folder of its own name; kept by its own file, or by one of another name."""

    def make(name="results", kept=None):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        path = tmp_path / f"{kept}.db" if kept else folder / sharing.FILE
        if not path.exists():
            shutil.copy(template, path)
        return of(folder, optuna_storage.url_of(path) if kept else None)

    return make


def of(folder, url=None):
    return Workspace(QUICK, DATA, Overrides(), 1, Store(folder), Devices(), sharing=Sharing(url))


def queue_of(workspace):
    return Queue(sharing.url(workspace.sharing, workspace.store.root))


def bound(workspace):
    queue = queue_of(workspace)
    membership.bind(workspace, queue)
    return queue


def token(workspace):
    return json.loads((workspace.store.runs / ".storage").read_text())["id"]


def plan(workspace, study=ROWS):
    return workspace.plan([study], [0])


def begins(queue, work):
    """A lease of the first run of a plan, of a worker that has said who it is and lives."""
    queue.reconcile(sharing.items(work, NAME), set, 0)
    lease = queue.claim()
    with lease:
        pass
    return lease


def refused(function, *given):
    with pytest.raises(StorageError) as found:
        function(*given)
    assert "\n" not in str(found.value)
    return str(found.value)


# A folder and its storage.


def test_a_folder_and_its_storage_hold_the_same_token(made):
    workspace = made()
    queue = bound(workspace)
    first = token(workspace)
    assert queue.note("results") == first
    bound(workspace)
    assert (token(workspace), queue.note("results")) == (first, first)


@pytest.mark.parametrize("kept", [None, "shared"])
def test_a_copied_folder_goes_on_with_its_token(made, tmp_path, kept):
    workspace = made(kept=kept)
    begins(bound(workspace), plan(workspace))
    shutil.copytree(tmp_path / "results", tmp_path / "copy")
    copied = of(tmp_path / "copy", workspace.sharing.storage)
    queue = bound(copied)
    assert token(copied) == token(workspace) == queue.note("results")
    assert [one.state for one in queue.attempts()] == ["running", "waiting", "waiting"]


def test_another_storage_than_the_folders_is_refused_and_left_as_it_was(made):
    workspace, other = made(), made(kept="other")
    bound(workspace)
    queue = queue_of(other)
    said = refused(membership.bind, other, queue)
    assert said.startswith(f"{workspace.store.runs}: its runs are kept by queue.db, not sqlite://")
    assert queue.note("results") is None


def test_another_folder_than_the_storages_is_refused_whether_it_is_new_or_not(made):
    bound(made("first", "shared"))
    new, old = made("second", "shared"), made("third", "other")
    said = refused(bound, new)
    assert "keeps the runs of another results folder" in said
    assert not (new.store.runs / ".storage").exists()
    bound(old)
    assert "keeps the runs of another results folder" in refused(bound, made("third", "shared"))


def test_where_its_own_file_was_removed_numbers_go_on_above_the_folders(made):
    workspace = made()
    lease = begins(bound(workspace), plan(workspace))
    first = token(workspace)
    assert lease.attempt.number == 0
    for run, number in ((lease.attempt.item.key, 0), ("f" * 16, 6), ("f" * 16, 10)):
        workspace.store.attempt(run, number).folder.mkdir(parents=True)
    (workspace.store.root / sharing.FILE).unlink()
    queue = bound(workspace)
    assert token(workspace) == first == queue.note("results")
    assert begins(queue, plan(workspace)).attempt.number == 11
    # Another worker, that did not choose the number, goes by it.
    assert [one.number for one in queue_of(workspace).attempts()] == [11, 12, 13]
    assert begins(bound(workspace), plan(workspace)).attempt.number == 12


def test_a_queue_that_was_put_back_from_a_copy_goes_on_above_the_folders(made, tmp_path):
    workspace = made()
    lease = begins(bound(workspace), plan(workspace))
    workspace.store.attempt("f" * 16, 6).folder.mkdir(parents=True)
    said = refused(bound, workspace)
    assert f"is older than {workspace.store.runs}, restored perhaps, and {ME} trains with it" in said
    lease.preempted("stopped")
    queue = bound(workspace)
    assert [one.number for one in queue.attempts()] == [7, 8, 9]
    assert begins(queue, plan(workspace)).attempt.number == 10
    assert [one.number for one in bound(workspace).attempts()] == [7, 8, 9, 10], "and once only"


@pytest.mark.parametrize("content", [b"", b"[]", b'{"id": "a"}', b"\xff\xfe"])
def test_a_damaged_note_is_named_and_left(made, content):
    workspace = made()
    queue = bound(workspace)
    path = workspace.store.runs / ".storage"
    path.write_bytes(content)
    said = refused(membership.bind, workspace, queue)
    assert said.startswith(f"{path}: damaged")
    assert path.read_bytes() == content


# Workers at one study: "there" is a worker that trains, "here" one that comes later.


@pytest.fixture
def study(made):
    """A workspace and two workers of it."""
    workspace = made()
    return workspace, bound(workspace), queue_of(workspace)


def joins(workspace, queue, work):
    return membership.join(workspace, queue, work, NAME)


def noted(queue):
    return queue.note(f"study {NAME}")


def test_who_begins_a_study_has_nothing_to_say_and_who_joins_it_says_whom(study):
    workspace, there, here = study
    work = plan(workspace)
    assert joins(workspace, there, work) == []
    assert joins(workspace, here, work) == [], "nobody is at it"
    lease = begins(there, work)
    assert joins(workspace, here, work) == [f"Joining {ME}."]
    lease.done(0.5)
    assert joins(workspace, here, work) == []


def test_a_worker_that_has_not_said_its_name_yet_is_at_it_too(study, monkeypatch):
    workspace, there, here = study
    joins(workspace, there, plan(workspace))
    there.reconcile(sharing.items(plan(workspace), NAME), set, 0)
    assert there.claim() is not None
    assert joins(workspace, here, plan(workspace)) == ["Joining another worker."]
    changed, work, words = _other_code(workspace, monkeypatch)
    assert f"another worker trains it with other code, settings or data: {words}" in refused(joins, changed, here, work)


def test_of_two_that_begin_at_once_one_waits_for_the_other(study, monkeypatch):
    workspace, there, here = study
    monkeypatch.setattr(run_queue, "_TRIES", 1)
    with there.alone():
        said = refused(joins, workspace, here, plan(workspace))
    assert "another process keeps this one from it; is it paused?" in said
    assert joins(workspace, here, plan(workspace)) == []


def test_of_two_folders_that_begin_with_one_storage_at_once_one_waits_for_the_other(made, monkeypatch):
    first, second = made("first", "shared"), made("second", "shared")
    monkeypatch.setattr(run_queue, "_TRIES", 1)
    with queue_of(first).alone():
        assert "another process keeps this one from it; is it paused?" in refused(bound, second)
    assert not (second.store.runs / ".storage").exists()
    bound(first)
    assert "keeps the runs of another results folder" in refused(bound, second)


def _other_code(workspace, monkeypatch):
    changed = {**sharing.code(), "files": {**sharing.code()["files"], "harness/training/loop.py": "0" * 12}}
    monkeypatch.setattr(sharing, "code", lambda: changed)
    return workspace, plan(workspace), "code: harness/training/loop.py"


def _other_version(workspace, monkeypatch):
    versions = sharing.code()["versions"]
    changed = {**sharing.code(), "versions": {**versions, "tensorflow": "0.1"}}
    monkeypatch.setattr(sharing, "code", lambda: changed)
    return workspace, plan(workspace), f"tensorflow {versions['tensorflow']} there, 0.1 here"


def _other_replicas(workspace, _):
    changed = dataclasses.replace(workspace, replicas=2)
    return changed, plan(changed), "--replicas 1 there, 2 here"


def _other_steps(workspace, _):
    changed = dataclasses.replace(workspace, cut=Overrides(steps=16))
    return changed, plan(changed), "cut none there, steps 16 here"


def _other_retries(workspace, _):
    changed = dataclasses.replace(workspace, sharing=dataclasses.replace(workspace.sharing, retries=3))
    return changed, plan(changed), "--retries 1 there, 3 here"


def _other_data(workspace, _):
    facts = dataclasses.replace(workspace.data.facts, fingerprint="ab" * 32)
    changed = dataclasses.replace(workspace, data=dataclasses.replace(workspace.data, facts=facts))
    return changed, plan(changed), "--data clips (cdcdcdcd) there, clips (abababab) here"


def _other_rows(workspace, _):
    first, second, third = ROWS.rows
    swapped = (first, Row(2, "b", third.applied), Row(3, "c", second.applied))
    work = plan(workspace, dataclasses.replace(ROWS, rows=swapped))
    return workspace, work, "settings of table2 2, seed 0, table2 3, seed 0"


OTHERS = (
    _other_code, _other_version, _other_replicas, _other_steps, _other_retries, _other_data, _other_rows,
)  # fmt: skip


@pytest.mark.parametrize("other", OTHERS)
def test_what_differs_is_refused_while_a_worker_is_at_it_and_said_where_none_is(study, monkeypatch, other):
    workspace, there, here = study
    joins(workspace, there, plan(workspace))
    lease, kept = begins(there, plan(workspace)), noted(there)
    changed, work, words = other(workspace, monkeypatch)
    said = refused(joins, changed, here, work)
    assert f"study {NAME!r}: {ME} trains it with other code, settings or data: {words}; start with the same" in said
    assert noted(there) == kept
    lease.preempted("stopped")
    (line,) = joins(changed, here, work)
    assert line.endswith(f"than it was begun with: {words}")
    assert noted(there)["rows"] == {
        f"table2 {row}, seed 0": f"{run} 10x3@32" for row, own in work.wanted["table2"].items() for run in own.values()
    }
    assert joins(changed, here, work) == [], "it was taken over"


def test_a_worker_at_another_study_is_in_nobodys_way(study):
    workspace, there, here = study
    first, rest = plan(workspace).only([1]), plan(workspace).only([2, 3])
    joins(workspace, here, rest)
    begins(there, first)
    (line,) = joins(dataclasses.replace(workspace, sharing=Sharing(retries=3)), here, rest)
    assert line.endswith("--retries 1 there, 3 here")


def test_the_rows_of_two_workers_are_one_study(study):
    workspace, there, here = study
    every = plan(workspace)
    joins(workspace, there, every.only([1, 2]))
    there.keep(f"study {NAME}", {**noted(there), "began": "2030-01-01T00:00:00+00:00"})
    begins(there, every.only([1, 2]))
    assert joins(workspace, here, every.only([2, 3])) == [f"Joining {ME}."]
    found, ids = noted(there), [one.run.id for one in every.runs]
    assert [run[0] for run in found["runs"]] == ids
    assert found["rows"] == {f"table2 {row}, seed 0": f"{run} 10x3@32" for row, run in enumerate(ids, start=1)}
    assert found["began"] == "2030-01-01T00:00:00+00:00"


def test_a_file_that_another_machine_trains_with_is_refused(study):
    workspace, there, here = study
    there._worker = "elsewhere:7"
    lease = begins(there, plan(workspace))
    said = refused(joins, workspace, here, plan(workspace))
    assert "elsewhere trains with it, and SQLite is for one machine" in said
    assert noted(there) is None
    lease.preempted("stopped")
    assert joins(workspace, here, plan(workspace)) == []


# What is kept of a study, and where two differ.


def planned(known=None, **changes):
    """A plan of the three rows whose first is known so far, and whose runs are changed."""
    workspace = of(Path("unused"))

    def complete(_, cell):
        return dataclasses.replace(workspace.complete(cell), **changes)

    first = complete(None, ROWS.rows[0].cell(0)).id
    return plans.plan([ROWS], [0], complete, lambda run: RunKnowledge(known if run.id == first else None))


def test_items_are_what_is_missing_in_the_order_of_the_plan():
    ids = [one.run.id for one in planned().runs]
    assert [(one.key, one.order, one.parent, one.study) for one in sharing.items(planned(), "s")] == [
        (run, order, "", "s") for order, run in enumerate(ids)
    ]
    trained = sharing.items(planned(frozenset({"1x1@32"})), "s")
    assert [one.key for one in trained] == [f"{ids[0]} 10x3@32", *ids[1:]]
    assert trained[0].work < trained[1].work / 2, "only its evaluation is left"
    assert [one.key for one in sharing.items(planned(frozenset({"10x3@32"})), "s")] == ids[1:]


def test_an_item_waits_for_the_run_it_starts_from_until_it_is_trained():
    assert [one.parent for one in sharing.items(planned(parent="ef" * 32), "s")] == ["ef" * 8] * 3
    known = planned(frozenset({"1x1@32"}), parent="ef" * 32)
    assert [one.parent for one in sharing.items(known, "s")] == ["", "ef" * 8, "ef" * 8]


def test_an_entry_tells_what_is_recorded_and_is_plain_data():
    work = planned(frozenset({"10x3@32"}))
    found = sharing.entry(work, "s", {"--replicas": 1}, 2)
    ids = [one.run.id for one in work.runs]
    assert (found["recorded"], found["retries"], found["settings"]) == ([ids[0]], 2, {"--replicas": 1})
    assert [run[0] for run in found["runs"]] == ids
    assert json.loads(json.dumps(found)) == found
    assert {"harness/scheduler/sharing.py", "ablations/table2.py"} <= set(found["code"]["files"])


ENTRY = {
    "code": {"versions": {"harness": "1", "Python": "3"}, "files": {"a.py": "0", "b.py": "0"}},
    "settings": {"--profile": "quick", "cut": ""},
    "rows": {"s 1, seed 0": "a p", "s 2, seed 0": "b p"},
}


def entry(**changes):
    """That entry with some of its leaves changed; None takes one out."""
    found = json.loads(json.dumps(ENTRY))
    for name, changed in changes.items():
        place = found["code"][name] if name in found["code"] else found[name]
        place.update(changed)
        for key in [key for key, value in place.items() if value is None]:
            del place[key]
    return found


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, []),
        ({"rows": {"s 2, seed 0": None, "s 3, seed 0": "c p"}}, []),
        ({"versions": {"Python": "4"}}, ["Python 3 there, 4 here"]),
        ({"versions": {"wandb": "1"}}, ["wandb None there, 1 here"]),
        ({"files": {"b.py": "1", "c.py": "1"}}, ["code: b.py, c.py"]),
        ({"files": {"a.py": None}}, ["code: a.py"]),
        ({"files": {f"{n}.py": "1" for n in range(6)}}, ["code: 0.py, 1.py, 2.py, 3.py and 2 more"]),
        ({"settings": {"cut": "8 steps"}}, ["cut none there, 8 steps here"]),
        ({"settings": {"--profile": None, "cut": "c"}}, ["--profile quick there, none here", "cut none there, c here"]),
        ({"rows": {"s 2, seed 0": "c p"}}, ["settings of s 2, seed 0"]),
        ({"rows": {"s 1, seed 0": "a q", "s 2, seed 0": "c p"}}, ["settings of s 1, seed 0, s 2, seed 0"]),
        ({"rows": {"s 2, seed 0": "c p"}, "settings": {"cut": "c"}}, ["cut none there, c here"]),
    ],
)
def test_differences(changes, said):
    assert sharing.differences(entry(), entry(**changes)) == said
