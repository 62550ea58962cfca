"""What the record of a run tells of the stage that it was, and of the run that it started from, in words."""

from __future__ import annotations

from ablations.stages import CVRL, LINEAR, PRETRAIN
from harness.config import objectives
from harness.store.records import RunRecord
from harness.store.run_store import Store

_LABELS = {stage.changes[objectives.FIELD]: stage.label for stage in (CVRL, LINEAR)}


def stage(record: RunRecord) -> str:
    """Label of the stage, such as "linear evaluation"; empty where the record does not tell it from one training."""
    objective = objectives.of(record.settings)
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
