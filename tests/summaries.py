"""Summaries made by hand, for the tests of tables and figures."""

from __future__ import annotations

import dataclasses
from typing import Any

import pandas as pd

from ablations.table2 import STUDY
from harness.aggregate import Summary
from harness.studies import Study
from harness.toggles import Toggle

NAN = float("nan")
CAPTION = (
    "Quick profile: networks of 14 to 23 layers, made of the same blocks, stand in for the paper's and train for "
    "seconds on generated clips. It shows that the study works; it says nothing about the paper's numbers. Trained on "
    "digits (0123abcd); evaluated on 200 of 200 validation videos, 10x3 views. Intervals are Wilson's at 95 %, over "
    "videos, of one seed: they do not cover the seed's own spread."
)
# Made up: top-1, both ends of its interval, and the step; a step down and two that round to zero, from both sides.
OURS = {
    1: (61.5, 54.6, 68.0, NAN),
    2: (62.0, 55.1, 68.5, 0.5),
    3: (60.25, 53.3, 66.8, -1.75),
    4: (60.25, 53.3, 66.8, 0.0),
    5: (66.5, 59.7, 72.7, 6.25),
    6: (66.46, 59.6, 72.6, -0.04),
    7: (71.1234567890123, 64.5, 76.9, 4.6634567890123),
    8: (70.0, 63.3, 75.9, -1.1234567890123),
    9: (74.5, 68.0, 80.0, NAN),
    10: (78.0, 71.8, 83.2, 3.5),
}
# As Table 2 of the paper prints them.
PAPER = {
    1: (74.4, NAN, 60), 2: (74.9, 0.5, 60), 3: (76.1, 1.2, 60), 4: (76.3, 0.2, 60), 5: (76.4, 0.1, 60),
    6: (77.4, 1.0, 60), 7: (77.9, 0.5, 60), 8: (78.2, 0.3, 58), 9: (80.7, NAN, 307), 10: (81.0, 0.3, 307),
}  # fmt: skip
# A row of whose three seeds the first so many are finished.
MISSING = {"top1": NAN, "low": NAN, "high": NAN, "step": NAN, "gflops": NAN, "params": NAN, "seeds": 0, "videos": 0}
PARTIAL = {"top1": NAN, "low": NAN, "high": NAN, "step": NAN, "seeds": 2, "seeds_wanted": 3}

# Every character that means something to LaTeX, HTML or Markdown in one label.
AWKWARD = Toggle("awk", "a_b & <c|d> 50% {e}", "test", "test", {"x": 1}, default=1)


def summary(
    changes: dict[int, dict[str, Any]] | None = None, profile: str = "quick", study: Study = STUDY, **fields: Any
) -> Summary:
    """A summary of a study with Table 2's rows and perhaps more.

    Args:
      changes: row number -> columns that differ from the full summary's.
      profile: name of the profile.
      study: the study.
      **fields: further attributes of the summary to set.
    """
    lines = pd.DataFrame([_line(row) | (changes or {}).get(row.number, {}) for row in study.rows]).set_index("number")
    made = Summary(
        study=study,
        profile=profile,
        caption=CAPTION,
        reference="paper" if profile == "paper" else "paper, Kinetics-400",
        rows=lines,
        population="videos",
        comparable=profile == "paper",
    )
    return dataclasses.replace(made, **fields)


def _line(row: Any) -> dict[str, Any]:
    top1, low, high, step = OURS.get(row.number, (79.0, 72.9, 84.1, 1.0))
    paper_top1, paper_step, paper_gflops = PAPER.get(row.number, (NAN, NAN, NAN))
    return {
        "number": row.number,
        "model": row.model,
        "keys": frozenset(one.toggle.key for one in row.applied),
        "setting": row.applied[-1].toggle.label if row.applied else row.model,
        "gflops": 0.055286272 if row.number < 9 else 12.4321,
        "params": 448778.0,
        "top1": top1,
        "low": low,
        "high": high,
        "population": "videos",
        "seeds": 1,
        "seeds_wanted": 1,
        "videos": 200,
        "paper_top1": paper_top1,
        "paper_step": paper_step,
        "paper_gflops": paper_gflops,
        "run_ids": (f"{row.number:04x}",),
        "step": step,
    }
