"""Which toggles there are: the project's, and those in files of the user's."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from ablations.toggles import TOGGLES
from harness.toggles import Toggle, ToggleError


def toggles(files: Sequence[Path] = ()) -> dict[str, Toggle]:
    """Key -> toggle, of `ablations/toggles.py` and of the user's files.

    Raises:
      ToggleError: a file that cannot be read or run, that defines no toggle, or one under a key that is taken.
    """
    known = dict(TOGGLES)
    for file in files:
        own = _toggles_of(file)
        if not own:
            raise ToggleError(f"{file}: defines no Toggle (see ablations/toggles.py for how they look)")
        for toggle in own:
            if known.get(toggle.key, toggle) != toggle:
                raise ToggleError(f"{file}: the key {toggle.key!r} is taken by {known[toggle.key].meaning!r}")
            known[toggle.key] = toggle
    return known


def _toggles_of(file: Path) -> list[Toggle]:
    """The toggles that a Python file of the user's defines, in its order."""
    if not file.is_file():
        raise ToggleError(f"{file}: no such file")
    spec = importlib.util.spec_from_file_location(f"_user_toggles_{abs(hash(str(file.resolve())))}", file)
    if spec is None or spec.loader is None:
        raise ToggleError(f"{file}: expected a Python file (.py)")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ToggleError(f"{file}: {type(error).__name__}: {error}") from error
    return [value for value in vars(module).values() if isinstance(value, Toggle)]
