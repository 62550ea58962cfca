"""What a study's mirror is told, and when: a run begins, its record is written, the table is drawn."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from harness.config.experiment import content_hash
from harness.planning import labels
from harness.planning.plans import Plan, Planned
from harness.store import records
from harness.store.run_store import Store
from harness.system.text import print_line
from harness.tracking import wandb
from harness.tracking.wandb import Event, Tracker

# Where on this machine a file is concerns nobody else.
_FOLDERS = re.compile(r"(?<!\w)/(?:[^\s/:]+/)+")


@dataclasses.dataclass(frozen=True)
class MirroredTable:
    """A study's table as its mirror shows it.

    Attributes:
      title: of the table.
      columns: their heads.
      rows: the cells of each row, as text, one for each column.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Mirror:
    """Tells a tracker of a study's runs.

    Args:
      tracker: who is told.
      group: name of the study.
      store: the records.
    """

    def __init__(self, tracker: Tracker, group: str, store: Store) -> None:
        self._tracker, self._group, self._store = tracker, group, store

    def begins(self, one: Planned) -> None:
        """A run is to be trained, or its training gone on with."""
        self._tracker.write(run_event(one, self._group))

    def event(self, run_id: str, event: Event) -> None:
        """What a worker reported of a run; once it is done, its record."""
        if event["event"] == "done" and self._store.has(run_id):
            event = recorded_event(self._store, run_id, self._group)
        if event["event"] == "failed":
            event = {"event": "failed", "error": _FOLDERS.sub("", event["error"])}
        self._tracker.write({**event, "run": run_id})

    def catch_up(self, plan: Plan) -> None:
        """Runs that were recorded and not mirrored: a kill came between, or the mirror was off."""
        for one in plan.runs:
            marker = self._store.folder(one.run.id) / wandb.MIRRORED
            if one.done and not one.fault and not marker.exists():
                self.begins(one)
                self._tracker.write(recorded_event(self._store, one.run.id, self._group))

    def drawn(self, table: MirroredTable, written: Sequence[Path], name: str) -> None:
        """A study's tables and figures were written, under a name; they are mirrored once, however often drawn."""
        event, marker = study_event(table, written, name), self._store.root / "wandb" / f"{name}.drawn"
        digest = content_hash(event)
        if not (marker.is_file() and marker.read_text() == digest):
            self._tracker.write({**event, "marker": str(marker), "digest": digest})


@contextlib.contextmanager
def mirror(mode: Literal["online", "offline", "off"], group: str, store: Store, console: Console) -> Iterator[Mirror]:
    """A mirror of a study, closed in the end; what W&B misses is said, and what to type."""
    tracker = wandb.tracker(mode, store.root)
    try:
        yield Mirror(tracker, group, store)
    finally:
        for line in tracker.close():
            print_line(console, line, style="yellow")


def run_event(one: Planned, group: str) -> dict[str, Any]:
    """That a run begins."""
    run, name = one.run, labels.label(one)
    data = {"data": run.data.name, "fingerprint": run.data.fingerprint}
    return {
        "event": "run",
        "run": run.id,
        "group": group,
        "job_type": name.partition(":")[0],
        "name": name,
        "tags": [applied.toggle.key for applied in run.cell.applied],
        "config": {**run.settings, **data, "profile": run.profile, "identity": run.identity},
        "cost": {"params": one.params, "multiply_adds": one.multiply_adds},
        "resumed_at": 0,
    }


def recorded_event(store: Store, run_id: str, group: str) -> dict[str, Any]:
    """That a run's record was written."""
    record = records.to_json(store.read(run_id))
    return {"event": "recorded", "run": run_id, "group": group, "folder": str(store.folder(run_id)), "record": record}


def study_event(table: MirroredTable, written: Sequence[Path], group: str) -> dict[str, Any]:
    """That a study's table was written."""
    return {
        "event": "study",
        "group": group,
        "title": table.title,
        "columns": list(table.columns),
        "rows": [list(row) for row in table.rows],
        "files": list(map(str, written)),
    }
