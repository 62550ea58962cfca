"""Workers that share a study while they, its database and its disk fail: tests.proofs.sharing in short.

What that counts is asked to be nothing, and for each count an error is planted that it has to find.
"""

from __future__ import annotations

import collections
import dataclasses
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import OperationalError

from harness.scheduler import optuna_storage
from harness.store.run_store import Store
from tests.proofs import sharing
from tests.proofs.sharing import CHECK, Command, Evidence, Found, Trial, counted, leaks
from tests.support import postgres

# Of each kind of fault one.
FAULTS, RUNS, WORKERS = 13, 14, 3
FOUND = (
    "records lost", "doubled", "records unsound", "neither recorded nor failed", "failures unexplained",
    "overlap too long", "trained after completion", "begun after completion", "two writers",
    "parents unknown to the queue", "begun before its parent",
)  # fmt: skip
SEEN = ("did not end", "processes left", "crashes", "credentials")


@pytest.fixture(scope="module")
def endured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Evidence, Found]]:
    """A study that suffered a fault of each kind."""
    folder = tmp_path_factory.mktemp("sharing")
    with postgres.server() as server:
        yield sharing.endure(FAULTS, WORKERS, RUNS, 1, server, folder, pace=(0.1, 0.6))


def test_after_a_fault_of_each_kind_each_run_is_recorded_once(endured: tuple[Evidence, Found]) -> None:
    left, seen = endured
    found = counted(left)
    assert not found.shown()
    assert not seen.shown()
    assert (set(found.wrong), set(seen.wrong)) == (set(FOUND), set(SEEN))
    assert found.told["records"] + len(found.told["runs failed for good"]) >= len(left.runs) >= RUNS
    assert found.told["runs with a parent"] == 3 * len(left.runs) // 10
    kinds = collections.Counter(seen.told["faults"])
    assert kinds.total() == FAULTS
    assert len(kinds) == FAULTS, "a kind of fault was left out"
    assert found.told["attempts ended"].get("stale", 0) >= 1, "the kills ended no attempt"
    assert found.told["trials"] > len(left.runs)


@pytest.mark.slow
def test_machines_that_share_but_a_bucket_and_a_database_record_each_run_once(tmp_path: Path) -> None:
    with postgres.server() as server:
        left, seen = sharing.endure(4, 2, 10, 1, server, tmp_path, pace=(0.1, 0.6), bucket=True)
    found = counted(left)
    assert not found.shown()
    assert not seen.shown()
    assert found.told["records"] + len(found.told["runs failed for good"]) >= len(left.runs) >= 10
    assert left.store.runs == tmp_path / "bucket"
    machines = sorted(path.name for path in tmp_path.glob("machine-*"))
    assert machines == ["machine-0", "machine-1"]
    assert not list(tmp_path.glob("machine-*/results/runs")), "the runs are in the bucket alone"


# Planted errors.


@pytest.fixture
def copied(endured: tuple[Evidence, Found], tmp_path: Path) -> Evidence:
    """What that study left, to be spoilt."""
    left, _ = endured
    shutil.copytree(left.store.root, tmp_path / "results", copy_function=shutil.copy2)
    return dataclasses.replace(left, store=Store(tmp_path / "results"), heard=list(left.heard))


def _recorded(left: Evidence) -> str:
    """A run that another one starts from, and its record is there."""
    return next(run.parent[:16] for run in left.runs if run.parent and left.store.has(run.parent[:16]))


def _event(left: Evidence, run: str, does: str, time_: float, attempt: int = 999) -> dict[str, Any]:
    return {"time": time_, "process": 1, "run": run, "attempt": attempt, "does": does, "step": 1}


def _with_events(left: Evidence, *events: dict[str, Any]) -> Evidence:
    return dataclasses.replace(left, heard=[*left.heard, *events])


def _with_trial(left: Evidence, run: str, state: str, cause: str = "", error: str = "") -> Evidence:
    return dataclasses.replace(left, queue=[*left.queue, Trial(999, run, "", state, cause, error)])


def _removes_a_record(left: Evidence) -> Evidence:
    (left.store.runs / _recorded(left) / "record.json").unlink()
    return left


def _forgets_a_run(left: Evidence) -> Evidence:
    run = _recorded(left)
    shutil.rmtree(left.store.runs / run)
    return dataclasses.replace(left, queue=[one for one in left.queue if one.run != run])


def _completes_twice(left: Evidence) -> Evidence:
    return _with_trial(left, _recorded(left), "COMPLETE")


def _fails_without_reason(left: Evidence) -> Evidence:
    return _with_trial(left, left.runs[0].id, "FAIL", "failed", "KeyError: 'step'")


def _truncates_predictions(left: Evidence) -> Evidence:
    path = next((left.store.runs / _recorded(left)).glob("attempts/*/predictions-*"))
    os.truncate(path, path.stat().st_size // 2)
    return left


def _skips_a_step(left: Evidence) -> Evidence:
    store = left.store
    index = Path(str(store.weights(store.read(_recorded(left)))) + ".index")
    index.write_text(index.read_text().replace('"chain": "', '"chain": "0'))
    return left


def _records_an_unknown_attempt(left: Evidence) -> Evidence:
    run = _recorded(left)
    number = left.store.read(run).provenance["attempt"]
    return dataclasses.replace(left, queue=[one for one in left.queue if (one.run, one.number) != (run, number)])


def _goes_on_beside_a_later_attempt(left: Evidence) -> Evidence:
    began, run = time.time() - 3600, _recorded(left)
    steps = [_event(left, run, "step", began + 0.4 * number, 998) for number in range(round(CHECK / 0.4) + 3)]
    return _with_events(left, *steps, _event(left, run, "attempt", began + 0.01, 999))


def _trains_on(left: Evidence) -> Evidence:
    run = _recorded(left)
    written = (left.store.runs / run / "record.json").stat().st_mtime
    steps = [_event(left, run, "step", written + 0.4 * number) for number in range(round(CHECK / 0.4) + 3)]
    return _with_events(left, *steps)


def _begins_what_is_done(left: Evidence) -> Evidence:
    return _with_events(left, _event(left, _recorded(left), "attempt", time.time()))


def _records_twice(left: Evidence) -> Evidence:
    return _with_events(left, _event(left, _recorded(left), "recorded", time.time()))


def _loses_a_parent(left: Evidence) -> Evidence:
    return dataclasses.replace(left, queue=[dataclasses.replace(one, parent="") for one in left.queue])


def _begins_before_its_parent(left: Evidence) -> Evidence:
    heir = next(run for run in left.runs if run.parent)
    return _with_events(left, _event(left, heir.id, "attempt", time.time() - 7200, 0))


@pytest.mark.parametrize(
    ("spoil", "name"),
    [
        (_removes_a_record, "records lost"),
        (_removes_a_record, "neither recorded nor failed"),
        (_forgets_a_run, "neither recorded nor failed"),
        (_completes_twice, "doubled"),
        (_fails_without_reason, "failures unexplained"),
        (_truncates_predictions, "records unsound"),
        (_skips_a_step, "records unsound"),
        (_records_an_unknown_attempt, "records unsound"),
        (_goes_on_beside_a_later_attempt, "overlap too long"),
        (_trains_on, "trained after completion"),
        (_begins_what_is_done, "begun after completion"),
        (_records_twice, "two writers"),
        (_loses_a_parent, "parents unknown to the queue"),
        (_begins_before_its_parent, "begun before its parent"),
    ],
)
def test_a_planted_error_is_found(copied: Evidence, spoil: Callable[[Evidence], Evidence], name: str) -> None:
    assert not counted(copied).shown(), "nothing is wrong before"
    assert counted(spoil(copied)).wrong[name]


def test_a_password_is_found(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    assert not leaks(tmp_path, ["postgresql+psycopg://127.0.0.1:5/postgres: does not answer"])
    (tmp_path / "runs" / "log.txt").write_bytes(b"connecting to postgresql://harness:se%3Ac%40r%25t@127.0.0.1")
    found = leaks(tmp_path, [f"could not connect with {postgres.PASSWORD}"])
    assert found == ["runs/log.txt", f"could not connect with {postgres.PASSWORD}"]


def test_a_crash_is_found() -> None:
    command = Command(["--bogus"], {})
    assert command.process.wait(60) == 2
    assert command.crashed == ""
    command.said.extend(["Traceback (most recent call last):\n", "KeyError: 'step'\n"])
    assert command.crashed == "KeyError: 'step'"


def test_a_database_that_goes_down_while_it_is_opened_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(*_: object, **__: object) -> None:
        lost = OperationalError("commit", {}, ConnectionError("server closed the connection"))
        raise StorageInternalError("An exception is raised during the commit.") from lost

    monkeypatch.setattr(optuna_storage, "RDBStorage", opened)
    with pytest.raises(optuna_storage.StorageError, match="cannot be opened as an Optuna storage") as refused:
        optuna_storage.open_storage("postgresql+psycopg://harness:word@127.0.0.1:1/runs")
    assert "word" not in str(refused.value)
    assert "server closed the connection" in str(refused.value)
