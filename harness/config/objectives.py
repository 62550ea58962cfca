"""The learning objective of a run: the setting that names it, and its values. Does not load TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# The settings lack it where the run learns classes, as in the baseline.
FIELD = "network.objective"
CVRL = "cvrl"
LINEAR = "linear"


def objective(settings: Mapping[str, Any]) -> str | None:
    """Returns the objective of a run with these settings: :data:`CVRL`, :data:`LINEAR`, or None for classes."""
    value: str | None = settings.get(FIELD)
    return value
