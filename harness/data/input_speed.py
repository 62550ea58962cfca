"""The rate at which a machine read clips, as `benchmark input` measured it: kept, and read again to plan with.

It is in `results/benchmarks/input.json`; a machine that measures again replaces it.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.config.experiment import Run, SettingsError
from harness.system import files

SCHEMA = 1
# Of the frames that the benchmark's clips have: what is read grows with their number.
FRAMES = 16
_AUGMENTED = "training with RandAugment"
_PLAIN = "training"


@dataclasses.dataclass(frozen=True)
class InputSpeed:
    """What a machine read.

    Attributes:
      plain: training clips of 16 frames a second.
      augmented: the same with RandAugment.
      cores: CPU cores that it had.
    """

    plain: float
    augmented: float
    cores: int

    def clips_per_second(self, run: Run) -> float:
        """Training clips of a run that the machine would read in a second, since decoding frames is most of it."""
        augmented = run.settings["task.train_data.aug_type"] is not None
        rate = self.augmented if augmented else self.plain
        return rate * FRAMES / int(run.settings["task.train_data.feature_shape[0]"])


def path(results: Path) -> Path:
    """Where it is kept."""
    return results / "benchmarks" / "input.json"


def write_input_speed(results: Path, measured: Sequence[Mapping[str, Any]]) -> Path:
    """Keeps what :func:`harness.data.benchmark.measure` found; the path of the file."""
    content = {
        "schema": SCHEMA,
        "clips_per_second": {line["case"]: line["ours"] for line in measured},
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    return files.replace(path(results), json.dumps(content, indent=1).encode() + b"\n")


def read_input_speed(results: Path) -> InputSpeed | None:
    """What was kept; None where nothing was.

    Raises:
      SettingsError: the file is damaged.
    """
    try:
        content = json.loads(path(results).read_text("utf-8"))
        rates = content["clips_per_second"]
        found = InputSpeed(float(rates[_PLAIN]), float(rates[_AUGMENTED]), int(content["cores"]))
        usable = content["schema"] == SCHEMA and found.cores > 0
        usable = usable and all(math.isfinite(rate) and rate > 0 for rate in (found.plain, found.augmented))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, OverflowError, OSError):
        usable = False
    if not usable:
        raise SettingsError(f"{path(results)}: damaged; python -m harness.benchmark input writes it anew")
    return found
