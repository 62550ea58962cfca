"""Compares rows on the same videos: their differences and the findings; refuses rows that cannot be compared."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from harness.analysis import estimates, power
from harness.analysis.estimates import Difference
from harness.system.errors import HarnessError

LEVEL = 0.05  # of every test, after Holm's correction
_MOST = 100_000  # more seeds or videos than anyone would add


class MixedError(HarnessError):
    """Numbers that cannot be compared; the message is one line for the user."""


@dataclasses.dataclass(frozen=True)
class Outcomes:
    """Which videos the runs of a row classified rightly.

    Attributes:
      name: name of the row in messages: "row 3".
      seeds: the seeds of its runs, sorted.
      videos: ids of the videos, sorted.
      labels: classes of the videos, numbers from 0.
      right: whether the first guess of a run was right; (seeds, videos).
    """

    name: str
    seeds: tuple[int, ...]
    videos: np.ndarray
    labels: np.ndarray
    right: np.ndarray


def outcomes(name: str, runs: Mapping[int, str], found: Mapping[str, pd.DataFrame]) -> Outcomes:
    """Collects which videos the runs of a row classified rightly.

    Args:
      name: name of the row.
      runs: seed -> id of the run; each has predictions.
      found: id -> predictions, as :meth:`harness.store.run_store.Store.outcomes` gives them.

    Raises:
      MixedError: two of the runs were evaluated on different videos.
    """
    tables = [found[runs[seed]] for seed in sorted(runs)]
    for table in tables[1:]:
        _refuse_other_videos(name, name, tables[0], table)
    right = np.stack([table["top1"].to_numpy(dtype=bool) for table in tables])
    first = tables[0]
    return Outcomes(name, tuple(sorted(runs)), first.index.to_numpy(), first["label"].to_numpy(), right)


def refuse_several_sets(named: Mapping[str, pd.DataFrame]) -> None:
    """Refuses outcomes that have other videos or other labels than the first.

    Args:
      named: name for messages -> outcomes of a run.

    Raises:
      MixedError: two differ; the message names them.
    """
    first, *others = named
    for other in others:
        _refuse_other_videos(first, other, named[first], named[other])


def _refuse_other_videos(one: str, other: str, first: pd.DataFrame, second: pd.DataFrame) -> None:
    # Runs on the same videos mostly share one index object. Comparing its texts would take as long as all the rest.
    if first.index is not second.index and not first.index.equals(second.index):
        unshared = first.index.symmetric_difference(second.index)
        example = f"; {unshared[0]!r} is in one only" if len(unshared) else ""
        raise MixedError(
            f"{one} and {other}: evaluated on different videos ({len(first):,} and {len(second):,}{example}): they "
            "cannot be compared"
        )
    if not np.array_equal(first["label"].to_numpy(), second["label"].to_numpy()):
        video = first.index[(first["label"] != second["label"]).to_numpy()][0]
        raise MixedError(f"{one} and {other}: video {video!r} has another label in one: they cannot be compared")


def refuse_other_videos(one: Outcomes, other: Outcomes) -> None:
    """Refuses two rows whose videos or labels differ.

    Raises:
      MixedError: their videos or labels differ.
    """
    tables = [pd.DataFrame({"label": outcome.labels}, index=pd.Index(outcome.videos)) for outcome in (one, other)]
    _refuse_other_videos(one.name, other.name, *tables)


def compare(before: Outcomes, after: Outcomes, margin: float | None) -> Difference:
    """Returns the paired difference of two rows with the same seeds, `after` less `before`.

    Args:
      before: the first row.
      after: the second row.
      margin: the largest difference that counts as none, a fraction; None for no margin.

    Raises:
      MixedError: they were evaluated on different videos.
    """
    refuse_other_videos(before, after)
    return estimates.paired(before.right, after.right, margin=margin)


def discordance(before: Outcomes, after: Outcomes) -> float:
    """Returns the fraction of the videos that flipped, mean over the seeds."""
    return float((before.right != after.right).mean())


def flipped_by_class(before: Outcomes, after: Outcomes, classes: Sequence[str]) -> pd.DataFrame:
    """Counts the videos of each class that flipped to right and to wrong, means over the seeds; the largest net first.

    Returns:
      Indexed by the class's name; columns "right", "wrong", "net" (right less wrong).
    """
    gained = (after.right & ~before.right).mean(axis=0)
    lost = (before.right & ~after.right).mean(axis=0)
    table = pd.DataFrame({"label": after.labels, "right": gained, "wrong": lost}).groupby("label").sum()
    table["net"] = table["right"] - table["wrong"]
    table.index = pd.Index([_class_name(classes, int(label)) for label in table.index], name="class")
    return table.iloc[np.argsort(-table["net"].abs().to_numpy(), kind="stable")]


def _class_name(classes: Sequence[str], label: int) -> str:
    return classes[label] if label < len(classes) else f"class {label}"


def verdicts(differences: Sequence[Difference | None], family: int) -> pd.DataFrame:
    """Returns the findings of the differences of one table: a line for each, in order; None is a missing difference.

    Args:
      differences: the differences.
      family: how many differences the table has when complete. Holm's correction counts the missing ones too, so that a
        mark given early stays.

    Returns:
      Columns "value", "low", "high" (percentage points), "p", "p_holm", "p_equal", "p_equal_holm", "finding" ("better",
      "worse"; "slightly better", "slightly worse": by less than the margin; "no difference", "unsettled"; "not tested"
      where there is no p-value; empty where the difference is missing), "population", "units", "spread" (percentage
      points), "right", "wrong", "method". Missing numbers are NaN.
    """
    lines = pd.DataFrame([_verdict(difference) for difference in differences], columns=_VERDICT)
    for column in ("p", "p_equal"):
        p_values = lines[column].astype(float).tolist()
        missing = family - sum(not math.isnan(p) for p in p_values)
        lines[f"{column}_holm"] = estimates.holm([*p_values, *[1.0] * missing])[: len(p_values)]
    lines["finding"] = [_finding(line) for line in lines.to_dict("records")]
    return lines


_VERDICT = ["value", "low", "high", "p", "p_equal", "population", "units", "spread", "right", "wrong", "method"]


def _verdict(one: Difference | None) -> dict[str, Any]:
    if one is None:
        return dict.fromkeys(_VERDICT, math.nan) | {"population": "", "units": 0, "method": ""}
    values = dataclasses.asdict(one)
    return {name: 100 * values[name] if name in ("value", "low", "high", "spread") else values[name]
            for name in _VERDICT}  # fmt: skip


def _finding(line: Mapping[Any, Any]) -> str:
    if math.isnan(line["value"]):
        return ""
    if math.isnan(line["p_holm"]):
        return "not tested"
    within = line["p_equal_holm"] <= LEVEL
    if line["p_holm"] <= LEVEL:
        return f"{'slightly ' if within else ''}{'better' if line['value'] > 0 else 'worse'}"
    return "no difference" if within else "unsettled"


def smallest(difference: Difference, flipped: float, family: int) -> float:
    """Returns the smallest difference, in percentage points, that its test would have shown with 80 % power.

    Args:
      difference: the difference.
      flipped: fraction of the videos that flipped.
      family: number of differences that Holm's correction covers; the test uses its strictest level.
    """
    bar = {"alpha": LEVEL / family}
    if difference.population == "seeds":
        known = difference.spread > 0
        return 100 * power.smallest_over_seeds(difference.units, difference.spread, **bar) if known else math.nan
    return 100 * power.smallest_on_videos(difference.units, flipped, **bar) if flipped else math.nan


def settle(difference: Difference, flipped: float, family: int) -> str:
    """Says how many more seeds or videos would show a difference as large as the one seen, with 80 % power.

    Args:
      difference: the difference.
      flipped: fraction of the videos that flipped.
      family: see :func:`smallest`.
    """
    size, bar = abs(difference.value), {"alpha": LEVEL / family}
    if not size or not difference.spread or not flipped:
        return ""
    unit = difference.population.removesuffix("s")
    try:
        needed = (
            power.seeds_needed(size, difference.spread, **bar)
            if unit == "seed"
            else power.videos_needed(size, max(flipped, size), **bar)
        )
    except power.PowerError:
        needed = _MOST + 1 + difference.units
    more = needed - difference.units
    if more <= 0:
        return ""
    return f"over {_MOST:,} more {unit}s" if more > _MOST else f"{more:,} more {unit}{'s' if more > 1 else ''}"
