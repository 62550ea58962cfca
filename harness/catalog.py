"""Which toggles and studies there are: the project's, and those in files of the user's."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import ablations
from ablations.toggles import TOGGLES
from harness.studies import Study
from harness.toggles import Toggle, ToggleError, suggest


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


def studies() -> dict[str, Study]:
    """Name -> study, of the modules of `ablations/` that hold one."""
    modules = [importlib.import_module(f"ablations.{one.name}") for one in pkgutil.iter_modules(ablations.__path__)]
    return {module.STUDY.name: module.STUDY for module in modules if isinstance(getattr(module, "STUDY", None), Study)}


def study(name: str) -> Study:
    """A study by its name, or of a Python file of the user's by its path.

    Raises:
      ToggleError: there is none of that name; or the file cannot be read or run, or does not define STUDY.
    """
    known = studies()
    if name in known:
        return known[name]
    file = Path(name)
    if file.suffix != ".py" and file.name == name:
        raise ToggleError(f"unknown study {name!r}: {suggest(name, known)} (or the path of a file, NAME.py)")
    found = getattr(_module(file), "STUDY", None)
    if not isinstance(found, Study):
        raise ToggleError(f"{file}: defines no STUDY (see ablations/table3.py for how it looks)")
    if known.get(found.name, found) != found:
        raise ToggleError(f"{file}: the name {found.name!r} is taken by {known[found.name].title!r}")
    try:
        found.check()
    except ToggleError as error:
        raise ToggleError(f"{file}: {error}") from error
    return found


def named(names: Sequence[str]) -> list[Study]:
    """The studies of some names and paths, each once.

    Raises:
      ToggleError: there is none of a name, or two files name a study alike.
    """
    found = list(dict.fromkeys(study(name) for name in names))
    for one in found:
        if sum(other.name == one.name for other in found) > 1:
            raise ToggleError(f"two of the files name their study {one.name!r}: expected a name of its own for each")
    return found


def _toggles_of(file: Path) -> list[Toggle]:
    """The toggles that a Python file of the user's defines, in its order."""
    return [value for value in vars(_module(file)).values() if isinstance(value, Toggle)]


def _module(file: Path) -> ModuleType:
    """A Python file of the user's, run."""
    if not file.is_file():
        raise ToggleError(f"{file}: no such file")
    spec = importlib.util.spec_from_file_location(f"_user_file_{abs(hash(str(file.resolve())))}", file)
    if spec is None or spec.loader is None:
        raise ToggleError(f"{file}: expected a Python file (.py)")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise ToggleError(f"{file}: {type(error).__name__}: {error}") from error
    return module
