"""Summaries made by hand that answer to the paper's Table 3 and Figure 2, for the tests of its tables and figures."""

from __future__ import annotations

from typing import Any

from ablations.toggles import AXES, DEPTH, DSTEM, FRAMES, RA, RESOLUTION, SE
from harness.accelerators.core_hours import RowCosts
from harness.analysis.study_summary import Summary
from harness.config.studies import Row, Study
from tests.support import summaries
from tests.support.summaries import NAN

RS = (SE.at(), DSTEM.at())
TABLE_3 = Study(
    "table3",
    "Models from scratch on Kinetics-400",
    AXES,
    (
        Row(1, "R3D-50", (), published=8),
        Row(2, "R3D-RS-50", RS, published=9),
        Row(3, "R3D-RS-101", (*RS, DEPTH.at(101)), published=10),
        Row(4, "R3D-RS-152", (*RS, DEPTH.at(152)), published=11),
        Row(5, "R3D-RS-200", (*RS, DEPTH.at(200)), published=12),
        Row(6, "R3D-RS-200", (*RS, DEPTH.at(200), FRAMES.at(48), RA.at()), published=13),
    ),
    published="table3",
)
_SCALES = [
    (), (DEPTH.at(101),), (DEPTH.at(152),), (DEPTH.at(200),), (DEPTH.at(270),), (DEPTH.at(300),),
    (DEPTH.at(200), FRAMES.at(48)), (DEPTH.at(200), FRAMES.at(64)), (DEPTH.at(200), RESOLUTION.at(256)),
    (DEPTH.at(200), RESOLUTION.at(288)),
]  # fmt: skip
FIGURE_2 = Study(
    "figure2",
    "Scaling by depth, frames and resolution",
    AXES,
    tuple(Row(number, "", (*RS, *scale), published=number) for number, scale in enumerate(_SCALES, start=1)),
    published="figure2",
)
# Multiply-adds, 1e9, and top-1, as if the paper's recipe had been trained, by row.
_PAPER = {
    "table3": {1: (59.5, 74.9), 2: (57.5, 78.0), 3: (114.5, 79.6), 4: (167.3, 79.1), 5: (203.8, 80.5),
               6: (305.7, 82.9)},
    "figure2": {1: (57.5, 78.0), 2: (114.5, 79.6), 3: (167.3, 79.1), 4: (203.8, 80.5), 5: (291.0, 80.1),
                6: (312.0, 79.9), 7: (305.7, 80.8), 8: (407.0, 80.6), 9: (257.9, 80.1), 10: (318.4, 79.7)},
}  # fmt: skip
_QUICK = {
    "table3": {1: (0.055, 70.4), 2: (0.040, 82.1), 3: (0.045, 84.0), 4: (0.051, 83.1), 5: (0.054, 85.4),
               6: (0.066, 60.4)},
    "figure2": {1: (0.040, 82.1), 2: (0.045, 84.0), 3: (0.051, 83.1), 4: (0.054, 85.4), 5: (0.058, 80.4),
                6: (0.063, 86.2), 7: (0.066, 87.5), 8: (0.081, 90.0), 9: (0.062, 84.6), 10: (0.083, 79.2)},
}  # fmt: skip
VERDICTS = ("agrees", "inconclusive", "above", "below")


def summary(
    study: Study,
    profile: str = "quick",
    changes: dict[int, dict[str, Any]] | None = None,
    costs: tuple[RowCosts, ...] = (),
) -> Summary:
    """A summary of one of the two studies.

    Args:
      study: the study, perhaps with fewer or more rows.
      profile: "paper" for numbers that answer to the paper's, else a stand-in's.
      changes: row number -> columns that differ.
      costs: what the rows take on slices.
    """
    numbers = (_PAPER if profile == "paper" else _QUICK)[study.name]
    half = 0.65 if profile == "paper" else 4.5
    lines = {
        row.number: _line(row, *numbers.get(row.number, (250.0, 79.0)), half, profile)
        | (changes or {}).get(row.number, {})
        for row in study.rows
    }
    caption = f"{profile.capitalize()} profile, 17 videos."
    return summaries.summary(lines, profile=profile, study=study, caption=caption, costs=costs)


def _line(row: Row, gflops: float, top1: float, half: float, profile: str) -> dict[str, Any]:
    judged = profile == "paper" and row.published is not None
    size = {224: 256, 256: 288, 288: 320}[next((o.value for o in row.applied if o.toggle is RESOLUTION), 224)]
    return {
        "gflops": gflops,
        "params": gflops * 6e5,
        "top1": top1,
        "low": top1 - half,
        "high": top1 + half,
        "top5": top1 + 10,
        "verdict": VERDICTS[row.number % 4] if judged else "",
        "verdict_low": -0.44 if judged else NAN,
        "verdict_high": 0.66 if judged else NAN,
        "protocol": f"10x3@{size}",
        "views": "10x3",
    }
