"""Stores the rate at which a machine read clips, as `benchmark input` measured it, and reads it back for planning.

The file is `results/benchmarks/input.json`; a new measurement replaces it.
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
# Frames of a clip in the benchmark: the time to read a clip grows with their number.
FRAMES = 16
_AUGMENTED = "training with RandAugment"
_PLAIN = "training"


@dataclasses.dataclass(frozen=True)
class InputSpeed:
    """How fast a machine read clips.

    Attributes:
      plain: training clips, of 16 frames each, per second.
      augmented: the same with RandAugment.
      cores: CPU cores that it could use.
    """

    plain: float
    augmented: float
    cores: int

    def clips_per_second(self, run: Run) -> float:
        """Returns how many training clips of a run the machine would read in a second.

        The rate is inversely proportional to the frames of a clip, since decoding them takes most of the time.
        """
        augmented = run.settings["task.train_data.aug_type"] is not None
        rate = self.augmented if augmented else self.plain
        return rate * FRAMES / int(run.settings["task.train_data.feature_shape[0]"])


def path(results: Path) -> Path:
    """Returns the path of the file."""
    return results / "benchmarks" / "input.json"


def write_input_speed(results: Path, measured: Sequence[Mapping[str, Any]]) -> Path:
    """Stores the results of :func:`harness.data.benchmark.measure` and returns the path of the file."""
    content = {
        "schema": SCHEMA,
        "clips_per_second": {line["case"]: line["ours"] for line in measured},
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    return files.replace(path(results), json.dumps(content, indent=1).encode() + b"\n")


def read_input_speed(results: Path) -> InputSpeed | None:
    """Reads what was stored; None if nothing was.

    Raises:
      SettingsError: the file is damaged.
    """
    try:
        content = json.loads(path(results).read_text("utf-8"))
        rates = content["clips_per_second"]
        speed = InputSpeed(float(rates[_PLAIN]), float(rates[_AUGMENTED]), int(content["cores"]))
        usable = content["schema"] == SCHEMA and speed.cores > 0
        usable = usable and all(math.isfinite(rate) and rate > 0 for rate in (speed.plain, speed.augmented))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, OverflowError, OSError):
        usable = False
    if not usable:
        raise SettingsError(f"{path(results)}: damaged; python -m harness.benchmark input writes it anew")
    return speed
