"""Whether the disk can hold what a plan writes."""

from __future__ import annotations

import shutil
from pathlib import Path

from harness.config.experiment import SettingsError
from harness.planning.plans import Plan
from harness.planning.workspace import Workspace
from harness.store.run_store import Store


def refuse_small_disk(workspace: Workspace, plan: Plan) -> None:
    """Refuses a plan whose checkpoints the disk cannot hold: better now than after a week.

    Raises:
      SettingsError: the checkpoints of what is to do do not fit on the disk.
    """
    room = free(workspace.store)
    if room is not None and (need := plan.disk(held(workspace, plan))) > room:
        raise SettingsError(
            f"{workspace.store.place}: checkpoints need {gigabytes(need)} at most, {gigabytes(room)} are free: free "
            "some, choose another --results, or keep fewer with --keep-checkpoints"
        )


def free(store: Store) -> int | None:
    """Bytes free where checkpoints are or will be; None in a bucket, which has no limit."""
    folder = store.place
    if not isinstance(folder, Path):
        return None
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    return shutil.disk_usage(there).free


def held(workspace: Workspace, plan: Plan) -> dict[str, int]:
    """Id of a run that was begun -> bytes that its checkpoints take already."""
    return {one.run.id: workspace.store.attempts(one.run.id).size for one in plan.missing if not one.done}


def gigabytes(size: float) -> str:
    """A size in bytes in words: "1.25 GB"."""
    return f"{size / 1e9:,.2f} GB"
