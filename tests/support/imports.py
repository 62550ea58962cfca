"""What modules and commands bring in, shown by one process that imports them all in turn.

    python -m tests.support.imports FOLDER

takes each step of :data:`STEPS` and prints, as JSON, what of :data:`HEAVY` was there after it and what it printed.
Modules stay, so a step answers for those before it too: steps that may load less come first, and where a step finds a
module that it may not load, "brought" says which step brought it. Whatever a step writes goes below the folder.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

HEAVY = (
    "tensorflow", "tf_keras", "official", "jax", "libtpu", "numpy", "pandas", "scipy", "matplotlib",
    "matplotlib.pyplot", "optuna", "sqlalchemy", "rich", "wandb",
)  # fmt: skip
FIRST = ("check_statistics",)  # which computes in processes of its own, and has to say with how many threads
QUEUE = ("status", "cancel", "retry")
COMMANDS = (
    "scaling_sweep",
    "plan_seeds",
    "import_wandb",
    "additive_study",
    "train",
    "evaluate",
    "benchmark",
    "costs",
    "index_data",
    "prepare_data",
    "export",
    "import_garden",
    "paper_significance",
    "report",
    "study",
)


class Step(NamedTuple):
    """Something to do.

    Attributes:
      name: what the step is called.
      without: what it may not load, and none before it.
      do: what is done, in a folder; what it returns is reported.
      result: what it returns where nothing fails.
    """

    name: str
    without: tuple[str, ...]
    do: Callable[[Path], Any]
    result: object = None


def importing(name: str, *without: str) -> Step:
    """Imports a module."""

    def do(_: Path) -> None:
        importlib.import_module(f"harness.{name}")

    return Step(f"import {name}", without, do)


def calling(name: str, words: tuple[str, ...], *without: str, code: int = 0) -> Step:
    """Calls a command, which ends with an exit code; the words' "{}" is the folder."""

    def do(folder: Path) -> object:
        try:
            main = importlib.import_module(f"harness.{name}").main
            main([word.replace("{}", str(folder)) for word in words], prog_name=name)
        except SystemExit as done:
            return done.code
        raise AssertionError("a command ends with its exit code")

    return Step(f"{name} {' '.join(words)}", without, do, code)


def _slices(_: Path) -> None:
    from harness.config import slices

    slices.load("v3")


def _addresses(_: Path) -> str:
    from harness.system import paths

    return str(paths.path_of("results/runs").parent)


def _published(_: Path) -> None:
    from harness.analysis import published

    published.load("table2")


def _pixels(_: Path) -> None:
    from harness.config import embedded_spec
    from harness.data import embedded

    embedded.draw_pixels(embedded_spec.EmbeddedSpec(), "train", 0)


def _unchanged(draw: Callable[[], Any]) -> Callable[[Path], bool]:
    """Whether Matplotlib's settings are the same once a figure is drawn."""

    def do(_: Path) -> bool:
        import matplotlib

        from harness.reporting import figure_style

        before = matplotlib.rcParams.copy()  # dict() would load pyplot to find a backend
        figure_style.to_bytes(draw(), "pdf")
        return bool(matplotlib.rcParams.copy() == before)

    return do


def _additive() -> Any:
    from harness.reporting import additive_figure
    from tests.support import summaries

    return additive_figure.additive(summaries.summary())


def _scaling() -> Any:
    from harness.analysis import published
    from harness.reporting import cost_figure

    return cost_figure.scaling(None, published.load("figure2"), published.source("figure2"))


_LITTLE = ("tensorflow", "pandas", "matplotlib")
_SWEEP = (*_LITTLE, "optuna", "sqlalchemy", "scipy", "wandb")
_WHERE = ("--results", "{}", "--plots", "{}/plots")
STEPS = (
    Step("read slices", ("tensorflow", "jax", "libtpu", "numpy", "pandas"), _slices),
    *(importing(name, *_SWEEP, "numpy") for name in FIRST),
    *(importing(name, *_SWEEP, "rich") for name in QUEUE),
    *(importing(name, *_SWEEP) for name in COMMANDS[:3]),
    *(importing(name, *_LITTLE) for name in COMMANDS[3:]),
    *(calling(name, ("--help",), *_LITTLE) for name in (*FIRST, *QUEUE, *COMMANDS)),
    Step("know an address", ("tensorflow",), _addresses, "results"),
    calling("costs", ("--json",), "tensorflow"),
    Step("draw pixels", ("tensorflow",), _pixels),
    importing("reporting.study_tables", "tensorflow", "matplotlib"),
    Step("read a published table", ("tensorflow",), _published),
    importing("analysis.simulated_checks", "tensorflow"),
    importing("analysis.simulated_methods", "tensorflow"),
    calling(
        "preflight",
        ("table2", "--topology", "v3:8x8", "--results", "{}", "--cached", "--json"),
        "tensorflow", "tf_keras", "official", "jax", "libtpu", code=1,
    ),
    calling("report", ("table2", *_WHERE), "tensorflow"),
    calling("study", ("table2", "table4", "--plan", "--profile", "paper", *_WHERE), "tensorflow"),
    importing("reporting.curve_figure", "tensorflow", "matplotlib.pyplot"),
    Step("draw a figure", ("tensorflow", "matplotlib.pyplot"), _unchanged(_additive), True),
    Step("draw a figure of the paper", ("tensorflow", "matplotlib.pyplot"), _unchanged(_scaling), True),
)  # fmt: skip


def main(folder: Path) -> None:
    """Takes all steps; one that fails is reported with its error, and those after it are taken."""
    reports, brought = {}, dict[str, str]()
    for step in STEPS:
        printed, result = io.StringIO(), None
        with contextlib.redirect_stdout(printed):
            try:
                result = step.do(folder)
            except Exception as error:
                result = f"{type(error).__name__}: {error}"
        brought |= {name: step.name for name in HEAVY if name in sys.modules and name not in brought}
        reports[step.name] = {"brought": dict(brought), "result": result, "printed": printed.getvalue()}
    print(json.dumps(reports))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
