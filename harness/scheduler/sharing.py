"""Defines how workers share a study: the storage that they use, and what has to be the same for all of them."""

from __future__ import annotations

import datetime
import functools
import hashlib
import importlib.util
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.config.experiment import SettingsError
from harness.config.sharing import Sharing
from harness.planning.labels import label
from harness.scheduler.run_states import Item

if TYPE_CHECKING:
    from harness.planning.plans import Plan, Planned
    from harness.store.run_store import Store

FILE = "queue.db"
# Most names that a message lists; it only counts the others.
_NAMED = 4


def url(sharing: Sharing, root: Path) -> str:
    """Returns the URL of the storage through which the runs of a results folder are shared."""
    from harness.scheduler import optuna_storage  # imported here because it loads Optuna, which a plan does not need

    return sharing.storage or optuna_storage.url_of(file_of(root))


def refuse_unseen_queue(sharing: Sharing, store: Store) -> None:
    """Refuses to train into a shared folder or bucket with a queue that other workers cannot see.

    Raises:
      SettingsError: the runs go into such a folder, and no shared storage was given.
    """
    if store.elsewhere is None or sharing.storage is not None:
        return
    here = "" if store.in_bucket else ", or on one machine sqlite:///FILE"
    raise SettingsError(
        f"--runs {store.runs}: training into it needs --storage postgresql+psycopg://HOST/DATABASE{here}: without, "
        "whoever does so from another --results would have a queue of its own, and train every run"
    )


def file_of(root: Path) -> Path:
    """Returns the SQLite file of a results folder."""
    return root / FILE


def key(one: Planned) -> str:
    """Returns the key of a run's item: the run's id, with the protocol for a further evaluation of a trained run."""
    return f"{one.run.id} {one.run.protocol.name}" if one.done and not one.evaluated else one.run.id


def items(plan: Plan, study: str) -> list[Item]:
    """Returns the missing items of a plan in its order; `study` is the name that they get in the queue."""
    return [item(planned, study, order) for order, planned in enumerate(plan.missing)]


def item(one: Planned, study: str, order: int) -> Item:
    """Returns the item for a run at position `order` of a plan."""
    parent = "" if one.done or one.run.parent is None else one.run.parent[:16]
    return Item(key(one), label(one), study, order, parent, one.work)


def entry(plan: Plan, study: str, settings: Mapping[str, Any], retries: int) -> dict[str, Any]:
    """Returns the definition of a study as the queue keeps it: its code and settings, for workers that join, its runs.

    Args:
      plan: plan of the study.
      study: name of the study.
      settings: name -> value of the settings that its runs share, for users to read.
      retries: see :class:`harness.config.sharing.Sharing`.
    """
    wanted = [item(planned, study, order) for order, planned in enumerate(plan.runs)]
    return {
        "began": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "retries": retries,
        "runs": [[run.key, run.label, run.work, run.order, run.parent] for run in wanted],
        "recorded": [key(planned) for planned in plan.runs if planned.done and planned.evaluated],
        "settings": dict(settings),
        "rows": _rows(plan),
        "code": code(),
    }


def _rows(plan: Plan) -> dict[str, str]:
    """Returns what two workers must agree on: name of a row with its seed -> id of its run and its protocol."""
    protocols = plan.protocols
    return {
        f"{study} {row}, seed {seed}": f"{run_id} {protocols[run_id]}"
        for study, rows in plan.wanted.items()
        for row, runs in rows.items()
        for seed, run_id in runs.items()
    }


@functools.cache
def code() -> dict[str, Any]:
    """Returns the code in use: versions, and name -> SHA-256 (12 hexadecimal digits) of each of the harness's files."""
    names = {"harness": "r3d-ablations", "tensorflow": "tensorflow", "Model Garden": "tf-models-official"}
    versions = {name: metadata.version(package) for name, package in names.items()}
    return {"versions": {**versions, "Python": platform.python_version()}, "files": _sources()}


def _sources() -> dict[str, str]:
    digests = {}
    for package in ("harness", "ablations"):
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            continue
        folder = Path(spec.origin).parent
        for path in sorted(folder.rglob("*")):
            if path.suffix in (".py", ".csv", ".json"):
                digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
                digests[f"{package}/{path.relative_to(folder).as_posix()}"] = digest
    return digests


def differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """Returns in words where two workers' definitions of a study differ; empty if they agree.

    Rows that only one of the two has do not count, since a worker may take a part of a study.
    """
    lines = [f"{name} {theirs['code']['versions'].get(name)} there, {version} here"
             for name, version in ours["code"]["versions"].items()
             if version != theirs["code"]["versions"].get(name)]  # fmt: skip
    files = _differing(theirs["code"]["files"], ours["code"]["files"])
    lines += [f"code: {_listed(files)}"] if files else []
    lines += [
        f"{name} {_shown(theirs['settings'].get(name))} there, {_shown(ours['settings'].get(name))} here"
        for name in _differing(theirs["settings"], ours["settings"])
    ]
    rows = [row for row, run in ours["rows"].items() if theirs["rows"].get(row, run) != run]
    if rows and not lines:
        lines.append(f"settings of {_listed(rows)}")
    return lines


def _differing(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    return [name for name in {**theirs, **ours} if theirs.get(name) != ours.get(name)]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _shown(value: Any) -> str:
    return "none" if value in (None, "") else str(value)
