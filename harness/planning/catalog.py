"""Which toggles and studies there are: the project's, and those in files of the user's."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import ablations
from ablations.datasets import DATASETS, GENERATED
from ablations.toggles import TOGGLES
from harness.config.studies import Study
from harness.config.toggles import Toggle, ToggleError, suggest


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
    """Name -> study, of the modules of `ablations/` that hold one.

    Raises:
      ToggleError: the rows or data sets of one make no study.
    """
    modules = [importlib.import_module(f"ablations.{one.name}") for one in pkgutil.iter_modules(ablations.__path__)]
    held = {module.__name__: getattr(module, "STUDY", None) for module in modules}
    found = [_checked(one, name) for name, one in held.items() if isinstance(one, Study)]
    return {one.name: one for one in found}


def study(name: str) -> Study:
    """A study by its name, or of a Python file of the user's by its path.

    Raises:
      ToggleError: there is none of that name; or the file cannot be read or run, does not define STUDY, or one whose
        rows or data sets make no study.
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
    return _checked(found, str(file))


def _checked(study_: Study, where: str) -> Study:
    """A study that holds together; `where` says where it stands."""
    try:
        _refuse_unknown_data(study_)
        study_.check()
    except ToggleError as error:
        raise ToggleError(f"{where}: {error}") from error
    return study_


def _refuse_unknown_data(study_: Study) -> None:
    """Refuses names of data sets that there are not: on generated clips, which stand in for every set, they would pass.

    Raises:
      ToggleError: naming the row, where it is a row's own.
    """
    own = {f"{study_.name}, row {row.number}": row.dataset for row in study_.rows if row.dataset is not None}
    for whose, name in {study_.name: study_.dataset, **own}.items():
        if name not in DATASETS:
            raise ToggleError(f"{whose}: dataset {name!r}: {suggest(name, DATASETS)}")
    if study_.stand_in not in GENERATED:
        raise ToggleError(f"{study_.name}: stand_in {study_.stand_in!r}: {suggest(study_.stand_in, GENERATED)}")


def studies_named(names: Sequence[str]) -> list[Study]:
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
