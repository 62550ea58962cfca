"""The rooms of harness/ keep their order: import-linter holds it, and is seen to refuse what would break it."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
# A module, an import that its room may not have, and the contract that it breaks.
FORBIDDEN = (
    ("harness/store/records.py", "import harness.cli.options", "A room imports from lower rooms alone"),
    ("ablations/stages.py", "import harness.training.worker", "The science imports what it is said in"),
    ("harness/analysis/estimates.py", "import tensorflow", "TensorFlow is imported where training happens"),
    ("harness/reporting/render.py", "import optuna", "Optuna is imported by the queue and the sweep"),
    ("harness/planning/plans.py", "import wandb", "W&B is imported by the trackers"),
)


def linted(folder):
    command = [str(Path(sys.executable).with_name("lint-imports")), "--config", "pyproject.toml", "--no-cache"]
    return subprocess.run(command, cwd=folder, env={"PYTHONPATH": str(folder)}, capture_output=True, text=True)


def test_an_import_of_a_higher_room_is_refused(tmp_path):
    for name in ("harness", "ablations"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    assert linted(tmp_path).returncode == 0
    for path, line, _ in FORBIDDEN:
        with (tmp_path / path).open("a") as module:
            module.write(f"\n{line}\n")
    done = linted(tmp_path)
    assert done.returncode == 1
    for path, line, contract in FORBIDDEN:
        assert any(contract in text and text.endswith("BROKEN") for text in done.stdout.splitlines()), contract
        module = path.removesuffix(".py").replace("/", ".")
        assert f"{module} -> {line.removeprefix('import ')}" in done.stdout


def test_a_room_can_be_taken_in_at_a_glance():
    packages = [path.parent for path in (ROOT / "harness").rglob("__init__.py")]
    rooms = [path for path in packages if path.parent == ROOT / "harness"]
    assert len(rooms) <= 14
    for package in packages:
        modules = [path for path in package.glob("*.py") if path.name != "__init__.py"]
        assert len(modules) <= (20 if package != ROOT / "harness" else 21), package
