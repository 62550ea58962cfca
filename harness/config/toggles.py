"""Toggles: named, printable diffs on the settings of an experiment; composing toggles refuses conflicts.

Values in a diff are literals, :data:`VALUE` (the toggle's own parameter) or :class:`In` (an amount in the paper's unit,
which a profile converts: epochs to optimizer steps, pixels to its own pixels, a depth to its own network). The same
toggle therefore works in the paper's training and in a small stand-in for it.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from harness.system.errors import HarnessError


class ToggleError(HarnessError):
    """A toggle, its value or a combination of toggles cannot be used; the message is one line for the user."""


@dataclasses.dataclass(frozen=True)
class Value:
    """Placeholder for the toggle's parameter in its diff."""

    def __repr__(self) -> str:
        return "VALUE"


VALUE = Value()


@dataclasses.dataclass(frozen=True)
class PaperAmount:
    """An amount in one of the paper's units, converted by the profile when the settings are computed.

    Attributes:
      unit: name of a unit that every profile knows, such as "epochs" or "pixels".
      amount: the amount in that unit, or :data:`VALUE`.
    """

    unit: str
    amount: Any = VALUE

    def __str__(self) -> str:
        return f"{self.amount} {self.unit}"


@dataclasses.dataclass(frozen=True)
class Toggle:
    """One change of the recipe that a study can switch on.

    Attributes:
      key: name on the command line, lower case: "ls".
      label: the paper's abbreviation, as a table's column head: "LS".
      source: where the change comes from: "Section 3.2".
      meaning: one line for `--help` and plans.
      changes: field of the settings (the Model Garden's dotted name) -> literal, VALUE or In; mappings may nest them.
      default: the parameter when none is given on the command line.
      choices: the allowed parameters; empty where any number within `bounds` is allowed.
      bounds: inclusive range of a numeric parameter.
      axis: True for a scaling axis (depth, frames, resolution); every run has a value of each axis.
    """

    key: str
    label: str
    source: str
    meaning: str
    changes: Mapping[str, Any] = dataclasses.field(hash=False)
    default: float | int | str
    choices: tuple[float | int | str, ...] = ()
    bounds: tuple[float, float] = (float("-inf"), float("inf"))
    axis: bool = False

    def at(self, value: float | int | str | None = None) -> ToggleValue:
        """Returns this toggle at a value, or at its default if none is given.

        Raises:
          ToggleError: the value is not among `choices`, not a finite number, or outside `bounds`.
        """
        chosen = self.default if value is None else value
        if self.choices:
            return ToggleValue(self, self._choice(chosen))
        if isinstance(chosen, bool) or not isinstance(chosen, int | float):
            raise ToggleError(f"{self.key}={chosen}: expected a number")
        low, high = self.bounds
        if not math.isfinite(chosen):
            raise ToggleError(f"{self.key}={chosen}: expected a finite number")
        if not low <= chosen <= high:
            raise ToggleError(f"{self.key}={chosen}: expected a number from {low:g} to {high:g}")
        return ToggleValue(self, chosen)

    def _choice(self, value: float | int | str) -> float | int | str:
        for choice in self.choices:
            if str(choice) == str(value):
                return choice
        allowed = ", ".join(map(str, self.choices))
        raise ToggleError(f"{self.key}={value}: expected one of {allowed}")


@dataclasses.dataclass(frozen=True)
class ToggleValue:
    """A toggle together with the value it is used at."""

    toggle: Toggle
    value: float | int | str

    def __str__(self) -> str:
        return f"{self.toggle.key}={self.value}"

    @property
    def short(self) -> str:
        """The key alone where the value is the toggle's default, key=value otherwise."""
        return self.toggle.key if self.value == self.toggle.default and not self.toggle.axis else str(self)

    @property
    def label(self) -> str:
        """The label for tables and figures, with the value unless it is the default; an axis always shows its value."""
        if self.toggle.axis:
            # The value comes before a plural label ("48 frames") and after any other ("resolution 256").
            plural = self.toggle.label.endswith("s")
            return f"{self.value} {self.toggle.label}" if plural else f"{self.toggle.label} {self.value}"
        return self.toggle.label if self.value == self.toggle.default else f"{self.toggle.label} {self.value}"

    @property
    def changes(self) -> dict[str, Any]:
        """Field -> value of the settings, with VALUE filled in; amounts stay in the paper's units."""
        return {field: _fill(term, self.value) for field, term in self.toggle.changes.items()}


def _fill(term: Any, value: Any) -> Any:
    if isinstance(term, Value):
        return value
    if isinstance(term, PaperAmount):
        return dataclasses.replace(term, amount=_fill(term.amount, value))
    if isinstance(term, Mapping):
        return {key: _fill(item, value) for key, item in term.items()}
    return term


def compose(applied: Sequence[ToggleValue]) -> dict[str, Any]:
    """Returns the union of the toggles' changes: field -> value, in the paper's units; their order does not matter.

    Raises:
      ToggleError: two toggles set a field to different values; the message names both.
    """
    changes: dict[str, Any] = {}
    setter: dict[str, ToggleValue] = {}
    for item in applied:
        for field, value in item.changes.items():
            if field in changes and changes[field] != value:
                raise ToggleError(
                    f"{setter[field]} and {item} both set {field}, to {changes[field]} and {value}: choose one of them"
                )
            changes[field], setter[field] = value, item
    return changes


def parse(text: str, known: Mapping[str, Toggle]) -> ToggleValue:
    """Reads "key" or "key=value", as written on a command line.

    Raises:
      ToggleError: the key is unknown (the message names the nearest known keys), or the toggle does not take the value.
    """
    key, separator, value = text.partition("=")
    toggle = known.get(key.strip().lower())
    if toggle is None:
        raise ToggleError(f"unknown toggle {key!r}: {suggest(key, known)}")
    if separator and not value.strip():
        raise ToggleError(f"{text}: expected a value after '='")
    return toggle.at(_number(value.strip()) if separator else None)


def _number(text: str) -> float | int | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def suggest(name: str, known: Iterable[str]) -> str:
    """Returns half a sentence for an error message: the known names that `name` resembles, or all known names."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(near)}?" if near else f"expected one of {', '.join(names)}"
