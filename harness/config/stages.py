"""A stage is one link of a chain: a training that goes before another, or starts from it, as a diff on the settings.

A row's stages are trained one after the other, each from the weights that the one before it left (pre-training, then
fine-tuning). Like a toggle a stage is data; unlike a toggle it has the last word: what the recipe says of label
smoothing or of the schedule, a stage may say otherwise.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from harness.config.toggles import Applied, ToggleError

PRE_TRAINING = "pre-training"


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage of a chain.

    What of the weights before it a stage starts from is a setting of the Garden's, `task.init_checkpoint_modules`:
    "backbone" for everything but the head, which is then drawn from the stage's own seed; "all" for the whole network.

    Attributes:
      key: short name, lower case: "finetune".
      label: for tables, plans and logs: "fine-tuning".
      source: where it comes from: "Section 4.5".
      meaning: one line.
      changes: field of the settings -> literal or :class:`harness.config.toggles.In`; they win over the toggles'.
      removes: beginnings of the fields that the Garden's configuration of this stage does not have.
      dataset: :data:`PRE_TRAINING` for the set to pre-train on; None for the row's own.
      evaluated: whether its result is a number; of a stage that is not, the record holds curve and weights alone.
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
        """Whether a field is the stage's to set, whatever a toggle says of it."""
        return field in self.changes or field.startswith(self.removes)

    def on(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Settings as the stage has them."""
        kept = {field: value for field, value in settings.items() if not field.startswith(self.removes)}
        return {**kept, **self.changes}

    def act(self, applied: Sequence[Applied]) -> tuple[Applied, ...]:
        """Those of some toggles that the stage leaves something of."""
        return tuple(one for one in applied if not all(map(self.decides, one.changes)))


def refuse_idle(applied: Sequence[Applied], stages: Sequence[Stage]) -> None:
    """Refuses a toggle that would change nothing in any stage of a chain.

    Raises:
      ToggleError: naming it.
    """
    for one in applied:
        if stages and not any(stage.act([one]) for stage in stages):
            named = " and ".join(stage.label for stage in stages)
            raise ToggleError(f"toggle {one.toggle.key} changes nothing: {named} set all that it does")


def named(stages: Sequence[Stage]) -> str:
    """A chain in words: "pre-training, fine-tuning"."""
    return ", ".join(stage.label for stage in stages)
