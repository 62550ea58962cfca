"""The mirror of a study: tells a tracker when a run begins, when its record is written and when the table is drawn."""

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

# Folders in a path, which are removed from errors: where a file is on this machine is private.
_FOLDERS = re.compile(r"(?<!\w)/(?:[^\s/:]+/)+")


@dataclasses.dataclass(frozen=True)
class MirroredTable:
    """A study's table as its mirror shows it.

    Attributes:
      title: title of the table.
      columns: heads of the columns.
      rows: the cells of each row, as text, one for each column.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Mirror:
    """Tells a tracker what happens in a study.

    Args:
      tracker: the tracker.
      group: name of the study.
      store: the store of the study's runs.
    """

    def __init__(self, tracker: Tracker, group: str, store: Store) -> None:
        self._tracker, self._group, self._store = tracker, group, store

    def begins(self, planned: Planned) -> None:
        """Tells that a run is about to be trained, or its training to be resumed."""
        self._tracker.write(run_event(planned, self._group))

    def event(self, run_id: str, event: Event) -> None:
        """Passes on an event of a run; once the run is done, tells of its record instead."""
        if event["event"] == "done" and self._store.has(run_id):
            event = recorded_event(self._store, run_id, self._group)
        if event["event"] == "failed":
            event = {"event": "failed", "error": _FOLDERS.sub("", event["error"])}
        self._tracker.write({**event, "run": run_id})

    def catch_up(self, plan: Plan) -> None:
        """Tells of runs that were recorded but not mirrored, because of a kill or because the mirror was off."""
        for planned in plan.runs:
            marker = self._store.folder(planned.run.id) / wandb.MIRRORED
            if planned.done and not planned.fault and not marker.exists():
                self.begins(planned)
                self._tracker.write(recorded_event(self._store, planned.run.id, self._group))

    def drawn(self, table: MirroredTable, written: Sequence[Path], name: str) -> None:
        """Tells that a study's table and figures were written, unless the same content was mirrored before.

        Args:
          table: the table.
          written: the files that were written.
          name: name that they are mirrored under.
        """
        event, marker = study_event(table, written, name), self._store.root / "wandb" / f"{name}.drawn"
        digest = content_hash(event)
        if not (marker.is_file() and marker.read_text() == digest):
            self._tracker.write({**event, "marker": str(marker), "digest": digest})


@contextlib.contextmanager
def mirror(mode: Literal["online", "offline", "off"], group: str, store: Store, console: Console) -> Iterator[Mirror]:
    """Opens a mirror of a study and closes it at the end.

    If W&B is missing something then, the console shows what, and which command to type.
    """
    tracker = wandb.tracker(mode, store.root)
    try:
        yield Mirror(tracker, group, store)
    finally:
        for line in tracker.close():
            print_line(console, line, style="yellow")


def run_event(planned: Planned, group: str) -> dict[str, Any]:
    """Returns the event that a run begins."""
    run, name = planned.run, labels.label(planned)
    data = {"data": run.data.name, "fingerprint": run.data.fingerprint}
    return {
        "event": "run",
        "run": run.id,
        "group": group,
        "job_type": name.partition(":")[0],
        "name": name,
        "tags": [applied.toggle.key for applied in run.cell.applied],
        "config": {**run.settings, **data, "profile": run.profile, "identity": run.identity},
        "cost": {"params": planned.params, "multiply_adds": planned.multiply_adds},
        "resumed_at": 0,
    }


def recorded_event(store: Store, run_id: str, group: str) -> dict[str, Any]:
    """Returns the event that a run's record was written."""
    record = records.to_json(store.read(run_id))
    return {"event": "recorded", "run": run_id, "group": group, "folder": str(store.folder(run_id)), "record": record}


def study_event(table: MirroredTable, written: Sequence[Path], group: str) -> dict[str, Any]:
    """Returns the event that a study's table was written."""
    return {
        "event": "study",
        "group": group,
        "title": table.title,
        "columns": list(table.columns),
        "rows": [list(row) for row in table.rows],
        "files": list(map(str, written)),
    }
