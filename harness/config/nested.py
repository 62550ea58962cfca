"""Converts flat dotted names to nested mappings and lists, and back.

Examples of dotted names: `task.model.dropout_rate`, `task.train_data.feature_shape[0]`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from itertools import pairwise
from typing import Any

from harness.config.experiment import SettingsError

_INDEXED = re.compile(r"(.+)\[(\d+)\]$")


def nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Converts flat dotted names to nested mappings and lists, as the Garden's configuration holds them.

    Raises:
      SettingsError: an element of a list is given without the elements before it.
    """
    root: dict[str, Any] = {}
    for field in sorted(settings, key=_natural):
        container: Any = root
        steps = _steps(field)
        for name, following in pairwise(steps):
            container = _child(container, name, [] if isinstance(following, int) else {})
        _put(container, steps[-1], settings[field])
    return root


def _natural(field: str) -> tuple[tuple[bool, Any], ...]:
    return tuple((isinstance(step, str), step) for step in _steps(field))


def _steps(field: str) -> list[str | int]:
    """Splits a dotted name into the names and indices on the way to its leaf: ["a", "b", 2, "c"] for "a.b[2].c"."""
    steps: list[str | int] = []
    for part in field.split("."):
        indexed = _INDEXED.match(part)
        steps.extend([indexed[1], int(indexed[2])] if indexed else [part])
    return steps


def _child(container: Any, name: str | int, empty: Any) -> Any:
    if isinstance(container, list):
        if name == len(container):
            container.append(empty)
        return container[int(name)]
    return container.setdefault(name, empty)


def _put(container: Any, name: str | int, value: Any) -> None:
    if isinstance(container, list):
        if name != len(container):
            raise SettingsError(f"element {name} of a list stated without the {len(container)} before it")
        container.append(value)
    else:
        container[name] = value


def flat(config: Mapping[str, Any], leaves: Collection[str]) -> dict[str, Any]:
    """Converts nested mappings and lists to flat dotted names, the inverse of :func:`nested`.

    Args:
      config: the nested configuration.
      leaves: names that are leaves whatever they hold. Other mappings are flattened, and so are lists whose first
        element is in `leaves`; other lists are leaves.
    """
    return dict(_leaves(config, "", frozenset(leaves)))


def _leaves(value: Any, field: str, leaves: frozenset[str]) -> Iterator[tuple[str, Any]]:
    if field not in leaves and isinstance(value, Mapping) and value:
        for name in value:
            yield from _leaves(value[name], f"{field}.{name}" if field else name, leaves)
    elif field not in leaves and isinstance(value, list) and f"{field}[0]" in leaves:
        for index, item in enumerate(value):
            yield f"{field}[{index}]", item
    else:
        yield field, value
