"""Stages of a chain of trainings, such as pre-training and fine-tuning, each as a diff on the settings.

The stages of a row are trained one after the other, each from the weights of the stage before it. Like a toggle, a
stage is data. Unlike a toggle, it overrides the recipe: its values for label smoothing or the schedule win.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from harness.config.toggles import ToggleError, ToggleValue

PRE_TRAINING = "pre-training"


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage of a chain.

    The Garden's setting `task.init_checkpoint_modules` selects the weights that a stage takes from the stage before:
    "backbone" for everything but the head, which is then initialised from the stage's own seed; "all" for the whole
    network.

    Attributes:
      key: short name, lower case: "finetune".
      label: for tables, plans and logs: "fine-tuning".
      source: where it comes from: "Section 4.5".
      meaning: one line.
      changes: field of the settings -> literal or :class:`harness.config.toggles.PaperAmount`; they win over the
        toggles'.
      removes: prefixes of the fields that the Garden's configuration of this stage lacks.
      dataset: :data:`PRE_TRAINING` for the data set to pre-train on; None for the data set of the row.
      evaluated: whether the stage is evaluated. The record of one that is not holds its curve and weights only.
    """

    key: str
    label: str
    source: str
    meaning: str
    changes: Mapping[str, Any] = dataclasses.field(hash=False)
    removes: tuple[str, ...] = ()
    dataset: str | None = None
    evaluated: bool = True

    def __post_init__(self) -> None:
        if self.dataset not in (None, PRE_TRAINING):
            raise ToggleError(f"stage {self.key}: dataset {self.dataset!r}: expected None or {PRE_TRAINING!r}")

    def decides(self, field: str) -> bool:
        """Returns whether the stage sets or removes a field, so that toggles have no effect on it."""
        return field in self.changes or field.startswith(self.removes)

    def on(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the settings with the changes of the stage made and its removed fields left out."""
        kept = {field: value for field, value in settings.items() if not field.startswith(self.removes)}
        return {**kept, **self.changes}

    def act(self, applied: Sequence[ToggleValue]) -> tuple[ToggleValue, ...]:
        """Returns the toggles that still change something in this stage."""
        return tuple(toggle for toggle in applied if not all(map(self.decides, toggle.changes)))


def refuse_idle(applied: Sequence[ToggleValue], stages: Sequence[Stage]) -> None:
    """Refuses a toggle that would change nothing in any stage of a chain.

    Raises:
      ToggleError: a toggle changes nothing; the message names it.
    """
    for idle in applied:
        if stages and not any(stage.act([idle]) for stage in stages):
            labels = " and ".join(stage.label for stage in stages)
            raise ToggleError(f"toggle {idle.toggle.key} changes nothing: {labels} set all that it does")


def stage_names(stages: Sequence[Stage]) -> str:
    """Returns a chain in words: "pre-training, fine-tuning"."""
    return ", ".join(stage.label for stage in stages)
