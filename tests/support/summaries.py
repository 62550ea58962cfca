"""Summaries and credits made by hand, for the tests of tables and figures."""

from __future__ import annotations

import dataclasses
from typing import Any

import pandas as pd

from ablations.table2 import STUDY
from harness.accelerators.core_hours import RowCosts
from harness.analysis.credit import Credits
from harness.analysis.study_summary import Summary
from harness.config.studies import Row, Study
from harness.config.toggles import Toggle

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
# What is known of a step, by row: 95 % interval, p, p after Holm, finding, videos flipped right and wrong, classes, and
# what would settle it; a p too small to be written, flips that are a mean over seeds, long names of classes.
STEPS: dict[int, tuple[Any, ...]] = {
    2: (-5.1, 6.1, 0.8501, 1.0, "unsettled", 31, 30, (("east", 5.0), ("north-east", -3.0)), "12,900 videos"),
    3: (-7.25, 3.75, 0.6, 1.0, "unsettled", 20, 23.5, (), "320 videos"),
    4: (-0.4, 0.4, 1.0, 1.0, "no difference", 1, 1, (), ""),
    5: (2.1, 10.4, 0.0049999, 0.025, "better", 18, 5, (("massaging person's head", 4.5),), ""),
    6: (-1.0, 1.0, 0.9, 1.0, "unsettled", 0, 0, (("catching or throwing frisbee", -1.0),), "1,240 videos"),
    7: (1.5, 7.8, 0.0000123, 0.0001, "better", 13, 3, (), ""),
    8: (-2.6, -0.2, 0.02, 0.04, "worse", 2, 4, (("a", -2.0), ("b", 1.0), ("c", -1.0)), ""),
    10: (-1.0, 8.0, 0.0321, 0.1284, "unsettled", 1200, 1193.25, (), "3 seeds"),
}
_NO_STEP = (NAN, NAN, NAN, NAN, "", NAN, NAN, (), "")
# A row whose step is not known, though the row may be.
STEPLESS: dict[str, Any] = {
    "step": NAN, "step_low": NAN, "step_high": NAN, "p": NAN, "p_holm": NAN, "p_equal": NAN, "p_equal_holm": NAN,
    "finding": "", "right": NAN, "wrong": NAN, "classes": (), "smallest": NAN, "settle": "", "spread": NAN,
    "units": NAN, "step_population": "", "discordance": NAN,
}  # fmt: skip
_NO_NUMBER = {"top1": NAN, "low": NAN, "high": NAN, "top5": NAN, "top5_low": NAN, "top5_high": NAN, **STEPLESS}
# A row of whose three seeds the first so many are finished.
MISSING = {**_NO_NUMBER, "gflops": NAN, "params": NAN, "seeds": 0, "videos": 0}
PARTIAL = {**_NO_NUMBER, "seeds": 2, "seeds_wanted": 3}

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
        margin=NAN,
    )
    return dataclasses.replace(made, **fields)


# Core-hours of a row, whether they are measured, and what stands in their place.
HOURS: dict[int, tuple[float, bool, str]] = {
    1: (753.4577, False, ""), 2: (3308.8355, True, ""), 3: (NAN, False, "does not fit"), 4: (NAN, False, ""),
    5: (1234567.8, False, ""), 6: (9.96, False, ""), 7: (0.0312, True, ""), 8: (NAN, False, "does not compile"),
}  # fmt: skip


def costs(topology: str = "v3:8x8", hours: dict[int, tuple[float, bool, str]] | None = None) -> RowCosts:
    """What some rows take on a slice; of other rows nothing is said."""
    lines = pd.DataFrame.from_dict(hours or HOURS, orient="index", columns=["core_hours", "measured", "obstacle"])
    return RowCosts(topology, lines.rename_axis("number"), ("libtpu 9.9.9",))


def three_seeds(**fields: Any) -> Summary:
    """The summary of a study of which each row was trained with three seeds."""
    changes = {"seeds": 3, "seeds_wanted": 3, "population": "seeds", "step_population": "seeds", "units": 3}
    ids = {number: {**changes, "run_ids": tuple(f"{number:03x}{seed}" for seed in range(3))} for number in OURS}
    return summary(ids, population="seeds", **fields)


def _line(row: Row) -> dict[str, Any]:
    top1, low, high, step = OURS.get(row.number, (79.0, 72.9, 84.1, 1.0))
    low_step, high_step, p, p_holm, finding, right, wrong, classes, settle = STEPS.get(row.number, _NO_STEP)
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
        "top5": min(100.0, top1 + 21.125),
        "top5_low": min(100.0, top1 + 21.125) - 5.0,
        "top5_high": min(100.0, top1 + 24.0),
        "step_low": low_step,
        "step_high": high_step,
        "p": p,
        "p_holm": p_holm,
        "p_equal": p / 3,
        "p_equal_holm": p / 2,
        "finding": finding,
        "right": right,
        "wrong": wrong,
        "classes": classes,
        "smallest": 8.25 if finding else NAN,
        "settle": settle,
        "spread": 55.5 if finding else NAN,
        "units": 200 if finding else NAN,
        "step_population": "videos" if finding else "",
        "discordance": (right + wrong) / 200,
    }


CREDIT_CAPTION = (
    "Credit of each toggle under each design, points of top-1 with 95 % intervals over seeds. * a difference after "
    "Holm's correction over the design's toggles; ≈ no difference of more than 0.5 points; † asked at another scale."
)
DESIGNS = (
    "additive", "reverse", "one-at-a-time", "leave-one-out", "factorial", "fractional-factorial", "shapley",
)  # fmt: skip
LABELS = ("LS", "SD", "WD", "350-EP", "SJ", "SE", "D-stem", "RA")
# Credit, interval and finding of each toggle; a design shifts the credit and its interval.
CREDITS: dict[str, tuple[float, float, float, str]] = {
    "LS": (1.3, 0.2, 2.4, "better"),
    "SD": (-1.75, -3.5, 0.0, "unsettled"),
    "WD": (0.04, -0.3, 0.3, "no difference"),
    "350-EP": (12.3456789012345, 10.2, 14.4, "better"),
    "SJ": (-0.04, -2.0, 2.0, "unsettled"),
    "SE": (-10.5, -12.5, -8.5, "worse"),
    "D-stem": (3.0, NAN, NAN, "unsettled"),
    "RA": (0.25, -0.25, 0.75, "unsettled"),
}
NOT_RUN = {"credit": NAN, "low": NAN, "high": NAN, "p": NAN, "p_holm": NAN, "finding": "", "absent": "not run"}


def credits(
    designs: tuple[str, ...] = DESIGNS[:4],
    labels: tuple[str, ...] = LABELS,
    changes: dict[tuple[str, str], dict[str, Any]] | None = None,
    pairs: int = 2,
    **fields: Any,
) -> Credits:
    """What some designs credit some toggles with; RA at another scale in the first design.

    Args:
      designs: names of the designs.
      labels: labels of the toggles.
      changes: design and label -> columns that differ.
      pairs: how many interactions there are.
      **fields: further attributes to set.
    """
    lines = [
        _credit(design, label, shift) | (changes or {}).get((design, label), {})
        for shift, design in enumerate(designs)
        for label in labels
    ]
    made = Credits(
        name="table2",
        title="What each toggle is worth",
        profile="quick",
        caption=CREDIT_CAPTION,
        designs=designs,
        labels=labels,
        credits=pd.DataFrame(lines, columns=list(_credit("", "LS", 0))),
        interactions=pd.DataFrame([_pair(number) for number in range(pairs)], columns=list(_pair(0))),
        interactions_note="Interactions are told from 37 runs.",
        margin=0.5,
    )
    return dataclasses.replace(made, **fields)


def _credit(design: str, label: str, shift: int) -> dict[str, Any]:
    credit, low, high, finding = CREDITS.get(label, (0.5, -0.5, 1.5, "unsettled"))
    return {
        "design": design,
        "toggle": label,
        "credit": credit + shift / 4,
        "low": low + shift / 4,
        "high": high + shift / 4,
        "p": 0.04,
        "p_holm": 0.32,
        "p_equal": NAN,
        "p_equal_holm": NAN,
        "finding": finding,
        "population": "seeds",
        "note": "depth 200, 48 frames" if (label, shift) == ("RA", 0) else "",
        "absent": "",
        "run_ids": (f"{design}-{label}", "base"),
    }


def _pair(number: int) -> dict[str, Any]:
    effect = (-1.0) ** number * (6.5 - number / 4)
    return {
        "first": LABELS[number % 8],
        "second": LABELS[(number + 1 + number // 8) % 8],
        "effect": effect,
        "low": effect - 2,
        "high": effect + 2,
        "p": 0.0004,
        "p_holm": 0.0112,
        "finding": ("less" if number % 2 else "more") if number < 2 else "unsettled",
    }
