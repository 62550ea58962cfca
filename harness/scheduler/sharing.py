"""How workers share a study: through which storage, and what has to be the same for all of them."""

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
# Differences that are named one by one; beyond them, how many there are.
_NAMED = 4


def url(sharing: Sharing, root: Path) -> str:
    """URL of the storage that the runs of a results folder are shared through."""
    from harness.scheduler import optuna_storage  # with all of Optuna, which a plan has nothing to do with

    return sharing.storage or optuna_storage.url_of(file_of(root))


def refuse_unseen_queue(sharing: Sharing, store: Store) -> None:
    """Refuses to train into a folder or bucket that others reach too, with a queue that they don't see.

    Raises:
      SettingsError: it is so.
    """
    if store.elsewhere is None or sharing.storage is not None:
        return
    here = "" if store.in_bucket else ", or on one machine sqlite:///FILE"
    raise SettingsError(
        f"--runs {store.runs}: training into it needs --storage postgresql+psycopg://HOST/DATABASE{here}: without, "
        "whoever does so from another --results would have a queue of its own, and train every run"
    )


def file_of(root: Path) -> Path:
    """The SQLite file of a results folder."""
    return root / FILE


def key(one: Planned) -> str:
    """Key of what is to do of a run: its id; of a further evaluation of a trained one, with the protocol."""
    return f"{one.run.id} {one.run.protocol.name}" if one.done and not one.evaluated else one.run.id


def items(plan: Plan, study: str) -> list[Item]:
    """What a plan is missing, in its order; `study` is the name that the work is kept under."""
    return [item(one, study, order) for order, one in enumerate(plan.missing)]


def item(one: Planned, study: str, order: int) -> Item:
    """What is to do of a run, at a place in a plan."""
    parent = "" if one.done or one.run.parent is None else one.run.parent[:16]
    return Item(key(one), label(one), study, order, parent, one.work)


def entry(plan: Plan, study: str, settings: Mapping[str, Any], retries: int) -> dict[str, Any]:
    """What is kept of a study beside its attempts: what it is, for those that join it, and what it wants.

    Args:
      plan: its plan.
      study: its name.
      settings: name -> value of what its runs have in common, for people.
      retries: see :class:`harness.config.sharing.Sharing`.
    """
    wanted = [item(one, study, order) for order, one in enumerate(plan.runs)]
    return {
        "began": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "retries": retries,
        "runs": [[one.key, one.label, one.work, one.order, one.parent] for one in wanted],
        "recorded": [key(one) for one in plan.runs if one.done and one.evaluated],
        "settings": dict(settings),
        "rows": _rows(plan),
        "code": code(),
    }


def _rows(plan: Plan) -> dict[str, str]:
    """Name of a row with its seed -> id of its run and protocol: what two workers must agree in."""
    protocols = plan.protocols
    return {
        f"{study} {row}, seed {seed}": f"{run_id} {protocols[run_id]}"
        for study, rows in plan.wanted.items()
        for row, own in rows.items()
        for seed, run_id in own.items()
    }


@functools.cache
def code() -> dict[str, Any]:
    """What runs: versions, and name -> SHA-256 (12 hexadecimal digits) of each source file of the harness."""
    names = {"harness": "r3d-ablations", "tensorflow": "tensorflow", "Model Garden": "tf-models-official"}
    versions = {name: metadata.version(package) for name, package in names.items()}
    return {"versions": {**versions, "Python": platform.python_version()}, "files": _sources()}


def _sources() -> dict[str, str]:
    found = {}
    for package in ("harness", "ablations"):
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            continue
        folder = Path(spec.origin).parent
        for path in sorted(folder.rglob("*")):
            if path.suffix in (".py", ".csv", ".json"):
                digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
                found[f"{package}/{path.relative_to(folder).as_posix()}"] = digest
    return found


def differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """Where two workers' ideas of one study differ, in words; empty where they do not.

    Rows that only one of them has do not count: a worker may take a part of a study.
    """
    found = [f"{name} {theirs['code']['versions'].get(name)} there, {version} here"
             for name, version in ours["code"]["versions"].items()
             if version != theirs["code"]["versions"].get(name)]  # fmt: skip
    files = _other(theirs["code"]["files"], ours["code"]["files"])
    found += [f"code: {_some(files)}"] if files else []
    found += [
        f"{name} {_said(theirs['settings'].get(name))} there, {_said(ours['settings'].get(name))} here"
        for name in _other(theirs["settings"], ours["settings"])
    ]
    rows = [row for row, run in ours["rows"].items() if theirs["rows"].get(row, run) != run]
    if rows and not found:
        found.append(f"settings of {_some(rows)}")
    return found


def _other(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    return [name for name in {**theirs, **ours} if theirs.get(name) != ours.get(name)]


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _said(value: Any) -> str:
    return "none" if value in (None, "") else str(value)
