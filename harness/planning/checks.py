"""Whether the weights of one run can fit the network of another, as far as settings tell: before anything is begun.

A training that starts from weights which do not fit fails however often it is tried. What settings cannot tell is
found once the weights are read (:mod:`harness.training.restore`). No TensorFlow.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.config import experiment, network
from harness.config.experiment import Run, SettingsError
from harness.planning import labels
from harness.planning.labels import label
from harness.planning.plans import Plan
from harness.store.run_store import Store

Settings = Mapping[str, Any]

MODULES = "task.init_checkpoint_modules"
_BACKBONE = "task.model.backbone.resnet_3d_rs."
_NETWORK = (_BACKBONE, "network.")
_NO_HEAD = {"task.model.model_type": "video_classification", "task.train_data.num_classes": 0}
# What differs is named up to so many settings.
_NAMED = 3


def refuse_misfits(plan: Plan, store: Store) -> None:
    """Refuses a plan with a run that is to start from the weights of another network.

    Args:
      plan: the plan.
      store: the records, of the runs that are started from and are no part of the plan.

    Raises:
      SettingsError: naming the run, the one that it is to start from, what differs, and what to do.
      RecordError: a damaged record of a run to start from.
    """
    for one in plan.missing:
        before = None if one.done else _before(one.run, store)
        if before is not None and (words := misfit(before, one.run.settings)):
            start = labels.start(one.run.parent, store) if one.run.start is None else f"run {one.run.start.id[:8]}"
            raise SettingsError(f"{label(one)}: cannot start from {start}: {words}")


def _before(run: Run, store: Store) -> Settings | None:
    """The settings of the run that one starts from; None where there is none, or no record of it."""
    if run.start is not None:
        return run.start.settings
    return store.read(run.parent[:16]).settings if run.parent and store.has(run.parent[:16]) else None


def misfit(before: Settings, after: Settings) -> str:
    """Why the weights of one training do not fit another's network, and what would; empty where they may.

    Args:
      before: settings of the training that left the weights.
      after: settings of the one that is to start from them; they say what of the weights it takes.
    """
    if _weights(before) != _weights(after):
        differ = experiment.difference(_network(before, after), _network(after, before))
        decide = [field for field, (old, _) in differ.items() if _weights({**after, field: old}) != _weights(after)]
        named = [f"{field.removeprefix(_BACKBONE)} {differ[field][0]!r} instead of {differ[field][1]!r}"
                 for field in decide[:_NAMED]]  # fmt: skip
        more = ", ..." if len(decide) > _NAMED else ""
        return f"its network is another, {', '.join(named)}{more}: choose a run of the same network"
    if after[MODULES] == "all" and network.count(before).params != network.count(after).params:
        return (
            f"its head is another, and {MODULES} is 'all': choose a run with the same head, or set {MODULES} to "
            "'backbone' by a toggle of your own or a stage such as fine-tuning"
        )
    return ""


def _weights(settings: Settings) -> int:
    """Number of weights, the head's aside."""
    return network.count({**settings, **_NO_HEAD}).params


def _network(settings: Settings, other: Settings) -> dict[str, Any]:
    """The settings of a network, of those that another's have too."""
    return {field: value for field, value in settings.items() if field.startswith(_NETWORK) and field in other}
