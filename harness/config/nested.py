"""Flat dotted names <-> nested mappings and lists: `task.model.dropout_rate`, `task.train_data.feature_shape[0]`."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from itertools import pairwise
from typing import Any

from harness.config.experiment import SettingsError

_INDEXED = re.compile(r"(.+)\[(\d+)\]$")


def nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Flat dotted names -> nested mappings and lists, as the Garden's configuration holds them.

    Raises:
      SettingsError: an element of a list is stated without those before it.
    """
    root: dict[str, Any] = {}
    for field in sorted(settings, key=_natural):
        place: Any = root
        steps = _steps(field)
        for name, following in pairwise(steps):
            place = _child(place, name, [] if isinstance(following, int) else {})
        _put(place, steps[-1], settings[field])
    return root


def _natural(field: str) -> tuple[tuple[bool, Any], ...]:
    return tuple((isinstance(step, str), step) for step in _steps(field))


def _steps(field: str) -> list[str | int]:
    """Names and indices on the way to a leaf: ["a", "b", 2, "c"] for "a.b[2].c"."""
    steps: list[str | int] = []
    for part in field.split("."):
        indexed = _INDEXED.match(part)
        steps.extend([indexed[1], int(indexed[2])] if indexed else [part])
    return steps


def _child(place: Any, name: str | int, empty: Any) -> Any:
    if isinstance(place, list):
        if name == len(place):
            place.append(empty)
        return place[int(name)]
    return place.setdefault(name, empty)


def _put(place: Any, name: str | int, value: Any) -> None:
    if isinstance(place, list):
        if name != len(place):
            raise SettingsError(f"element {name} of a list stated without the {len(place)} before it")
        place.append(value)
    else:
        place[name] = value


def flat(config: Mapping[str, Any], leaves: Collection[str]) -> dict[str, Any]:
    """Nested mappings and lists -> flat dotted names, the inverse of :func:`nested`.

    Args:
      config: the nested configuration.
      leaves: names that are a leaf whatever they hold. Other mappings are taken apart, and so are lists one of whose
        elements is a leaf; other lists are leaves.
    """
    return dict(_leaves(config, "", frozenset(leaves)))


def _leaves(value: Any, place: str, leaves: frozenset[str]) -> Iterator[tuple[str, Any]]:
    if place not in leaves and isinstance(value, Mapping) and value:
        for name in value:
            yield from _leaves(value[name], f"{place}.{name}" if place else name, leaves)
    elif place not in leaves and isinstance(value, list) and f"{place}[0]" in leaves:
        for index, item in enumerate(value):
            yield f"{place}[{index}]", item
    else:
        yield place, value
