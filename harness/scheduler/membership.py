"""A worker joins a study: it works in the same results folder, with the same code, settings and data as the others."""

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

# Of a results folder, beside its runs: which storage they are kept by.
_FILE = ".storage"
_RESULTS = "results"


def bind(workspace: Workspace, queue: Queue) -> None:
    """Ties a results folder and a storage to one another: another storage would train its runs a second time.

    Raises:
      StorageError: the one belongs to another of the other.
    """
    with queue.alone():
        _bind(workspace, queue)


def _bind(workspace: Workspace, queue: Queue) -> None:
    own = workspace.sharing.storage is None
    name = sharing.FILE if own else optuna_storage.shown(sharing.url(workspace.sharing, workspace.store.root))
    path = workspace.store.runs / _FILE
    theirs, noted = _read(workspace), queue.note(_RESULTS)
    queue.look_at_numbers()
    if theirs is None and (noted is None or own):
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
    if noted is not None and not own:
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
    """Has the queue go on above the numbers of the attempts that left folders, which an older or a new one reuses.

    Raises:
      StorageError: workers are at it by the numbers that it has.
    """
    # Folders first: each attempt is in the queue before it has one.
    first = workspace.store.next_attempt
    listed = queue.attempts()
    if first <= queue.next_number:
        return
    if at_it := _names(one for one in listed if one.state == "running"):
        raise StorageError(
            f"{optuna_storage.shown(queue.url)}: is older than {workspace.store.runs}, restored perhaps, and "
            f"{', '.join(at_it)} trains with it: start once that has ended"
        )
    queue.number_from(first)


def _names(busy: Iterable[Attempt]) -> list[str]:
    """Who is at some attempts; a worker that has just claimed one has not said its name yet."""
    return sorted({one.worker or "another worker" for one in busy})


def _new_id(store: Store, name: str) -> str:
    """An id, 16 hexadecimal digits; in a bucket, where two may write it at once, both write the same."""
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
    """Joins a study, or begins it, or takes one over that nobody is at; lines to say.

    Raises:
      StorageError: workers are at it whose code, settings or data differ; the line says where.
    """
    queue.find_stale()
    ours = sharing.entry(plan, name, settings(workspace), workspace.sharing.retries)
    with queue.alone():
        return _noted(queue, note_of(name), name, ours)


def _noted(queue: Queue, key: str, name: str, ours: Mapping[str, Any]) -> list[str]:
    """Notes a worker's idea of a study, if it is that of the others; lines to say."""
    theirs, attempts = queue.note(key), queue.attempts()
    busy = [one for one in attempts if one.state == "running"]
    hosts = {one.worker.partition(":")[0] for one in busy} - {socket.gethostname(), ""}
    if hosts and queue.local:
        raise StorageError(
            f"{optuna_storage.shown(queue.url)}: {min(hosts)} trains with it, and SQLite is for one machine; share a "
            "study by --storage postgresql+psycopg://HOST/DATABASE"
        )
    if theirs is None:
        queue.keep(key, ours)
        return []
    differ = sharing.differences(theirs, ours)
    wanted = {run[0] for run in theirs["runs"]}
    at_it = _names(one for one in busy if one.item.key in wanted)
    if differ and at_it:
        raise StorageError(
            f"study {name!r}: {', '.join(at_it)} trains it with other code, settings or data: {'; '.join(differ)}; "
            "start with the same, or once it has ended"
        )
    queue.keep(key, ours if differ else _with(theirs, ours))
    found = [f"Study {name}: goes on with other code or settings than it was begun with: {'; '.join(differ)}"]
    return (found if differ else []) + ([f"Joining {', '.join(at_it)}."] if at_it else [])


def note_of(name: str) -> str:
    """Under which name a study is noted in the queue."""
    return f"study {name}"


def _with(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    """One study of two workers, who may have taken different rows of it."""
    runs = {run[0]: run for run in [*theirs["runs"], *ours["runs"]]}
    return {
        **ours,
        "began": theirs["began"],
        "runs": list(runs.values()),
        "recorded": sorted({*theirs["recorded"], *ours["recorded"]}),
        "rows": {**theirs["rows"], **ours["rows"]},
    }


def settings(workspace: Workspace) -> dict[str, Any]:
    """What the runs of a command have in common, for people who look for a difference."""
    sets = (workspace.data, *workspace.further)
    return {
        "--profile": workspace.profile.name,
        "--data": ", ".join(f"{one.facts.name} ({one.facts.fingerprint[:8]})" for one in sets),
        "cut": str(workspace.cut),
        "--replicas": workspace.replicas,
        "--retries": workspace.sharing.retries,
    }
