"""Measures how long the report of a great many synthetic runs takes, and the plan of all studies."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from harness.cli import synthetic
from harness.config.devices import Devices
from harness.config.experiment import Overrides
from harness.planning import catalog, workspace
from harness.planning.workspace import Workspace
from harness.system.errors import HarnessError

_PARTS = "import json, sys; from harness.cli import report_speed; print(json.dumps(report_speed.parts(sys.argv[1])))"
# Runs a command; its last line of output says whether the command loaded TensorFlow.
_COMMAND = """
import importlib, sys
importlib.import_module(f"harness.{sys.argv[1]}").main(sys.argv[2:], standalone_mode=False)
print("tensorflow" in sys.modules)
"""


def measure(folder: Path, runs: int) -> dict[str, Any]:
    """Writes synthetic runs of all studies, and times the commands on them in separate processes.

    Args:
      folder: folder that the runs are written to; it must not exist yet.
      runs: number of runs.

    Returns:
      "runs": the number of runs. Seconds of whole commands: "whole" (the report), "plan" (of all studies). Seconds of
      parts of the report, measured within one process: "reading", "tables" (with their statistics), "figures".
      "tensorflow": whether any of the commands loaded TensorFlow.
    """
    profile = workspace.profile("quick")
    data = workspace.data_set(None, profile, folder)
    studies = catalog.studies()
    synthetic_workspace = Workspace(profile, data, Overrides(), 1, synthetic.results(folder), Devices())
    synthetic.write_synthetic(synthetic_workspace, list(studies.values()), runs)
    flags = ["--results", str(folder), "--plots", str(folder / "plots")]
    whole, loaded = _timed(["report", *flags])
    plan_arguments = [*studies, "--plan", "--profile", "paper", *flags]
    plan, also_loaded = _timed(["study", *plan_arguments])
    seconds = json.loads(_output([_PARTS, str(folder)]))
    return {"runs": runs, **seconds, "whole": whole, "plan": plan, "tensorflow": loaded or also_loaded}


def parts(folder: str) -> dict[str, float]:
    """Returns the seconds of a report's reading, tables and figures, without the time to import modules."""
    from harness.analysis import trainings as trainings_
    from harness.reporting import pages, sections
    from harness.store.run_store import Snapshot

    began = time.perf_counter()
    store = Snapshot(Path(folder))
    trainings = trainings_.trainings(store, None, None, {})
    drawn = sections.report(list(catalog.studies().values()), trainings, store, margin=0.5, whole=True)
    read = time.perf_counter()
    tables = figures = 0.0
    for part in drawn:
        began_part = time.perf_counter()
        section = part.draw()
        pages.render_tables(section)
        tables_done = time.perf_counter()
        pages.render_figures(section)
        tables += tables_done - began_part
        figures += time.perf_counter() - tables_done
    return {"reading": read - began, "tables": tables, "figures": figures}


def _timed(words: list[str]) -> tuple[float, bool]:
    """Runs a command in a separate process; returns its seconds and whether it loaded TensorFlow."""
    began = time.perf_counter()
    output = _output([_COMMAND, *words])
    return time.perf_counter() - began, output.split()[-1] == "True"


def _output(words: list[str]) -> str:
    done = subprocess.run([sys.executable, "-c", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise HarnessError(f"what was measured failed: {(done.stderr.strip() or 'without a word').splitlines()[-1]}")
    return done.stdout
