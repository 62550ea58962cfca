"""Lets a worker join a study, after checking that its results folder, code, settings and data match the others'."""

from __future__ import annotations

import hashlib
import json
import secrets
import socket
from collections.abc import Iterable, Mapping
from typing import Any

from harness.planning.plans import Plan
from harness.planning.workspace import Workspace
from harness.scheduler import optuna_storage, sharing
from harness.scheduler.optuna_storage import StorageError
from harness.scheduler.run_queue import Queue
from harness.scheduler.run_states import Attempt
from harness.store.run_store import Store
from harness.system import files

# File beside the runs of a results folder that names the storage of their queue.
_FILE = ".storage"
_RESULTS = "results"


def bind(workspace: Workspace, queue: Queue) -> None:
    """Ties a results folder and a storage to each other, since another storage would train the folder's runs again.

    Raises:
      StorageError: the folder is tied to another storage, or the storage to another folder.
    """
    with queue.alone():
        _bind(workspace, queue)


def _bind(workspace: Workspace, queue: Queue) -> None:
    local = workspace.sharing.storage is None
    name = sharing.FILE if local else optuna_storage.redacted(sharing.url(workspace.sharing, workspace.store.root))
    path = workspace.store.runs / _FILE
    theirs, noted = _read(workspace), queue.note(_RESULTS)
    queue.look_at_numbers()
    if theirs is None and (noted is None or local):
        theirs = {"id": _new_id(workspace.store, name), "storage": name}
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            files.create(path, json.dumps(theirs).encode())
        except FileExistsError:
            theirs = _read(workspace) or theirs
    if theirs is None:
        raise StorageError(
            f"{name}: keeps the runs of another results folder than {workspace.store.place}: all workers of a study "
            "have to see one; use another database, or, if that folder is gone, optuna delete-study --study-name runs"
        )
    if noted == theirs["id"]:
        return _number(workspace, queue)
    if noted is not None and not local:
        raise StorageError(
            f"{name}: keeps the runs of another results folder than {workspace.store.place}; use another"
        )
    if theirs["storage"] != name:
        raise StorageError(
            f"{workspace.store.runs}: its runs are kept by {theirs['storage']}, not {name}: say the same --storage, or "
            f"remove {path} once nobody trains into it"
        )
    _number(workspace, queue)
    queue.keep(_RESULTS, theirs["id"])


def _number(workspace: Workspace, queue: Queue) -> None:
    """Makes the queue number its attempts above those that left folders.

    A new queue, or one restored from an older state, would otherwise use their numbers again.

    Raises:
      StorageError: workers are running attempts under the queue's present numbers.
    """
    # The folders have to be read before the queue: an attempt is in the queue before it has a folder.
    first = workspace.store.next_attempt
    attempts = queue.attempts()
    if first <= queue.next_number:
        return
    if workers := _names(attempt for attempt in attempts if attempt.state == "running"):
        raise StorageError(
            f"{optuna_storage.redacted(queue.url)}: is older than {workspace.store.runs}, restored perhaps, and "
            f"{', '.join(workers)} trains with it: start once that has ended"
        )
    queue.number_from(first)


def _names(busy: Iterable[Attempt]) -> list[str]:
    """Returns the names of the workers at some attempts; one that has just claimed its run has none noted yet."""
    return sorted({attempt.worker or "another worker" for attempt in busy})


def _new_id(store: Store, name: str) -> str:
    """Returns an id of 16 hexadecimal digits; in a bucket, where two workers may write at once, both get the same."""
    if not store.in_bucket:
        return secrets.token_hex(8)
    return hashlib.sha256(f"{store.runs} {name}".encode()).hexdigest()[:16]


def _read(workspace: Workspace) -> dict[str, str] | None:
    path = workspace.store.runs / _FILE
    try:
        content = json.loads(path.read_text())
        return {"id": str(content["id"]), "storage": str(content["storage"])}
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        raise StorageError(f"{path}: damaged; remove it once nobody trains into the folder") from None


def join(workspace: Workspace, queue: Queue, plan: Plan, name: str) -> list[str]:
    """Joins a study that other workers train, takes over one that nobody trains, or begins a new one.

    Returns:
      Lines to show the user.

    Raises:
      StorageError: workers train it with other code, settings or data; the message says where they differ.
    """
    queue.find_stale()
    ours = sharing.entry(plan, name, settings(workspace), workspace.sharing.retries)
    with queue.alone():
        return _noted(queue, note_of(name), name, ours)


def _noted(queue: Queue, key: str, name: str, ours: Mapping[str, Any]) -> list[str]:
    """Stores this worker's definition of a study in the queue if it agrees with the others'; returns lines to show."""
    theirs, attempts = queue.note(key), queue.attempts()
    busy = [attempt for attempt in attempts if attempt.state == "running"]
    hosts = {attempt.worker.partition(":")[0] for attempt in busy} - {socket.gethostname(), ""}
    if hosts and queue.local:
        raise StorageError(
            f"{optuna_storage.redacted(queue.url)}: {min(hosts)} trains with it, and SQLite is for one machine; share "
            "a study by --storage postgresql+psycopg://HOST/DATABASE"
        )
    if theirs is None:
        queue.keep(key, ours)
        return []
    differ = sharing.differences(theirs, ours)
    wanted = {run[0] for run in theirs["runs"]}
    workers = _names(attempt for attempt in busy if attempt.item.key in wanted)
    if differ and workers:
        raise StorageError(
            f"study {name!r}: {', '.join(workers)} trains it with other code, settings or data: {'; '.join(differ)}; "
            "start with the same, or once it has ended"
        )
    queue.keep(key, ours if differ else _with(theirs, ours))
    lines = [f"Study {name}: goes on with other code or settings than it was begun with: {'; '.join(differ)}"]
    return (lines if differ else []) + ([f"Joining {', '.join(workers)}."] if workers else [])


def note_of(name: str) -> str:
    """Returns the name under which a study's definition is stored in the queue."""
    return f"study {name}"


def _with(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    """Merges two workers' definitions of a study, of which each may have chosen other rows."""
    runs = {run[0]: run for run in [*theirs["runs"], *ours["runs"]]}
    return {
        **ours,
        "began": theirs["began"],
        "runs": list(runs.values()),
        "recorded": sorted({*theirs["recorded"], *ours["recorded"]}),
        "rows": {**theirs["rows"], **ours["rows"]},
    }


def settings(workspace: Workspace) -> dict[str, Any]:
    """Returns the settings that all runs of a command share, by which users find where two workers differ."""
    sets = (workspace.data, *workspace.further)
    return {
        "--profile": workspace.profile.name,
        "--data": ", ".join(f"{dataset.facts.name} ({dataset.facts.fingerprint[:8]})" for dataset in sets),
        "cut": str(workspace.cut),
        "--replicas": workspace.replicas,
        "--retries": workspace.sharing.retries,
    }
