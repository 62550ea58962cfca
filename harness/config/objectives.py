"""What a run learns: the field of ours among its settings that says it, and its values. No TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Absent where classes are learned, as the baseline does.
FIELD = "network.objective"
CVRL = "cvrl"
LINEAR = "linear"


def of(settings: Mapping[str, Any]) -> str | None:
    """What a run with these settings learns: :data:`CVRL`, :data:`LINEAR`, or None for classes."""
    found: str | None = settings.get(FIELD)
    return found
