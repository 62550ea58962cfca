"""Names of runs for people: by their rows and what they change, by their stage, by the run that they started from."""

from __future__ import annotations

from ablations.stages import CVRL, LINEAR, PRETRAIN
from harness.config import objectives
from harness.config.experiment import Run
from harness.planning.plans import Planned
from harness.store.records import RunRecord
from harness.store.run_store import Store

_LABELS = {stage.changes[objectives.FIELD]: stage.label for stage in (CVRL, LINEAR)}


def stage(record: RunRecord) -> str:
    """Label of the stage, such as "linear evaluation"; empty where the record does not tell it from one training."""
    objective = objectives.objective(record.settings)
    # Of those that learn classes, only one that others start from has no evaluation.
    return _LABELS.get(objective, "") if objective else "" if record.evaluations else PRETRAIN.label


def start(parent: str | None, store: Store) -> str:
    """What a run starts from: "its seed", or "run 6e73a1b2 (self-supervised pre-training)".

    Args:
      parent: identity of the run that it starts from, None for its seed.
      store: the records.

    Raises:
      RecordError: a damaged record of that run.
    """
    if parent is None:
        return "its seed"
    if not store.has(parent[:16]):
        return f"run {parent[:8]}, whose record is not there any more"
    before = store.read(parent[:16])
    label = stage(before) or f"{before.cost['train_steps']} steps on {before.data['name']}"
    return f"run {before.id[:8]} ({label})"


def label(planned: Planned) -> str:
    """Name of a run in lists and logs: "row 3: ls sd", "table2 3, reverse 8 and 2 more: ls sd"."""
    if not planned.rows:
        return f"run {planned.run.id[:8]}"
    more = f" and {len(planned.rows) - 2} more" if len(planned.rows) > 2 else ""
    numbers = ", ".join(planned.rows[:2]) + more
    numbers = f"row {numbers}" if planned.rows[0].isdigit() else numbers
    stage = planned.run.cell.stage
    return f"{numbers}{f' ({stage.label})' if stage else ''}: {changes(planned.run)}"


def changes(run: Run) -> str:
    """What sets a run apart: "ls sd=0.1 depth=101 seed=2", or "baseline"."""
    seed = f" seed={run.seed}" if run.seed else ""
    return (" ".join(one.short for one in run.cell.applied) or "baseline") + seed
