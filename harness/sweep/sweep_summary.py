"""What a sweep found, from its trials and the records: the front, each axis's importance, what pruning saved; tables.

Optuna's storage says which points were tried; how accurate they are is read from their records alone.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import BaseImportanceEvaluator, FanovaImportanceEvaluator, PedAnovaImportanceEvaluator

from harness.analysis import estimates, study_summary
from harness.config.experiment import Protocol
from harness.reporting.render import Column, Line, Table
from harness.store import run_store
from harness.store.records import Evaluation, RecordError, RunRecord
from harness.store.run_store import Store
from harness.sweep import trial_store
from harness.sweep.trial_store import RECORDED, TRAINED, TURNED_AWAY, Kept, SweepError, Tried
from harness.system.paths import Folder

NOTHING = "–"
# Points that ended, below which no importance is said: of fewer, a ranking is chance.
FEWEST = 5
_QUARTER = 0.25
_SIZE = "task.validation_data.feature_shape[1]"
# Columns of a summary's points that are not its axes.
POINT = [
    "trial", "run", "state", "gflops", "params", "top1", "low", "high", "top5", "videos", "steps", "schedule", "hours",
    "front", "reason",
]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Summary:
    """A sweep's findings.

    Attributes:
      name: the sweep's name.
      title: one line: what was searched, and how.
      profile: the profile.
      caption: what the numbers are, in sentences.
      axes: key of each axis -> its label.
      points: a line for each run that was proposed, cheapest first. A column for each axis under its key, and "trial"
        (its first number), "run" (id), "state" ("trained", "recorded", "pruned", "failed", "turned away", "running",
        "record missing", "record unusable"), "gflops" (one view), "params", "top1", "low", "high", "top5" (percent,
        95 % interval over videos), "videos", "steps" (trained in this sweep), "schedule" (all of its steps), "hours"
        (of its training and evaluation), "front" (whether no other point is at least as good in both and better in
        one), "reason" (why it ended early). Numbers of accuracy are NaN where no record says them.
      importance: a line for each axis, indexed by its label; a column for each evaluator, shares that add up to 1; NaN
        where an axis was not varied. Empty where there are too few points.
      importance_note: what the numbers are, or why there are none.
      saving: a line for each part of the grid: "what", "points", "steps", "share" (of the grid; NaN without a grid).
      saving_note: how they are counted.
    """

    name: str
    title: str
    profile: str
    caption: str
    axes: Mapping[str, str]
    points: pd.DataFrame
    importance: pd.DataFrame
    importance_note: str
    saving: pd.DataFrame
    saving_note: str


def found(root: Path, runs: Folder | None = None) -> list[Summary]:
    """The summaries of all sweeps under a results folder, by name.

    Raises:
      SweepError: a storage that cannot be read, or values in it that are not their records'.
    """
    return [of(kept, Store(root, runs)) for kept in trial_store.found(root)]


def of(kept: Kept, records: Store) -> Summary:
    """The summary of a sweep, from its storage and the records.

    Raises:
      SweepError: a value in the storage is not its record's.
    """
    ids = {one.run for one in kept.trials if one.state == "complete"}
    return summarise(kept, {run_id: _read(records, run_id) for run_id in sorted(ids) if records.has(run_id)})


def _read(records: Store, run_id: str) -> RunRecord | RecordError:
    try:
        return records.checked(run_id)
    except RecordError as error:
        return error


def summarise(kept: Kept, records: Mapping[str, RunRecord | RecordError]) -> Summary:
    """The summary of a sweep.

    Args:
      kept: the sweep.
      records: id -> its record, or why it cannot be used, of every run that has one.

    Raises:
      SweepError: a value in the storage is not its record's.
    """
    points = _points(kept, records)
    importance, importance_note = _importance(kept, points)
    saving, saving_note = _saving(kept, points)
    settings = kept.settings
    return Summary(
        name=kept.name,
        title=f"Scaling sweep {kept.name}: {_SEARCHED[settings['sampler']]}",
        profile=settings["profile"],
        caption=" ".join(_caption(kept, points, records)),
        axes={axis["key"]: axis["label"] for axis in kept.axes},
        points=points,
        importance=importance,
        importance_note=importance_note,
        saving=saving,
        saving_note=saving_note,
    )


_SEARCHED = {
    "grid": "every point of a grid",
    "tpe": "top-1, by TPE",
    "nsga2": "the front of top-1 and multiply-adds, by NSGA-II",
}


def pareto(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Which points are on the front.

    Args:
      points: (what is to be high, what is to be low) of each.

    Returns:
      For each, whether no other is at least as good in both and better in one; equal points are on it together.
    """
    return [not any(_dominates(other, one) for other in points) for one in points]


def _dominates(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one != other and one[0] >= other[0] and one[1] <= other[1]


def _points(kept: Kept, records: Mapping[str, RunRecord | RecordError]) -> pd.DataFrame:
    keys = [axis["key"] for axis in kept.axes]
    by_run: dict[str, list[Tried]] = {}
    for one in kept.trials:
        if one.run:
            by_run.setdefault(one.run, []).append(one)
    lines = [_line(kept, own, records.get(run_id)) for run_id, own in by_run.items()]
    points = pd.DataFrame(lines, columns=[*keys, *POINT])
    known = points[points["top1"].notna()]
    on = pareto(list(zip(known["top1"], known["gflops"], strict=True)))
    points["front"] = points.index.isin(known.index[on])
    return points.sort_values(["gflops", "trial"], ignore_index=True)


def _line(kept: Kept, own: Sequence[Tried], record: RunRecord | RecordError | None) -> dict[str, Any]:
    """The line of one run, from all of its trials."""
    last = max(own, key=_settled)
    line = {**last.params, "trial": own[0].number, "run": last.run, "state": _state(last), "gflops": last.gflops,
            "steps": max(one.steps for one in own), "schedule": last.schedule, "front": False,
            "reason": last.reason}  # fmt: skip
    if last.state != "complete":
        return line
    if not isinstance(record, RunRecord):
        return line | {"state": "record unusable" if record else "record missing", "reason": str(record or "")}
    evaluation = record.evaluations.get(_protocol(kept.settings, record))
    if evaluation is None:
        return line | {"state": "record unusable", "reason": "not evaluated under the sweep's protocol"}
    if told := [one for one in own if one.state == "complete" and one.values[0] != evaluation.top1]:
        raise SweepError(
            f"sweep {kept.name}: trial {told[0].number} holds top-1 {told[0].values[0]!r}, the record of run "
            f"{record.id} says {evaluation.top1!r}: one of the two was changed"
        )
    return line | _measured(record, evaluation)


def _settled(one: Tried) -> tuple[bool, bool, int]:
    """Which of a run's trials says most of it: one that ended, then one that trained, then the last."""
    return one.state == "complete", one.source == TRAINED, one.number


def _state(one: Tried) -> str:
    if one.source == TURNED_AWAY or one.state in ("running", "waiting"):
        return TURNED_AWAY if one.source == TURNED_AWAY else one.state
    if one.state == "complete":
        return TRAINED if one.source == TRAINED else RECORDED
    return "failed" if one.state == "fail" else one.state


def _protocol(settings: Mapping[str, Any], record: RunRecord) -> str:
    """Name of the protocol that a run's top-1 is read under: the crop's size is the run's own."""
    return Protocol(settings["clips"], settings["crops"], record.settings[_SIZE], settings["validation videos"]).name


def _measured(record: RunRecord, evaluation: Evaluation) -> dict[str, Any]:
    top1 = estimates.accuracy(round(evaluation.top1 * evaluation.videos), evaluation.videos)
    return {
        "gflops": record.cost["multiply_adds"] / 1e9,
        "params": record.cost["params"],
        "top1": 100 * top1.value,
        "low": 100 * top1.low,
        "high": 100 * top1.high,
        "top5": 100 * evaluation.top5,
        "videos": evaluation.videos,
        "hours": (record.cost["train_seconds"] + evaluation.seconds) / 3600,
    }


def _caption(kept: Kept, points: pd.DataFrame, records: Mapping[str, RunRecord | RecordError]) -> list[str]:
    usable = [one for one in records.values() if isinstance(one, RunRecord) and one.id in set(points["run"])]
    settings, counts = kept.settings, points["state"].value_counts()
    frame = run_store.frame(usable)
    read = {one.id: _protocol(settings, one) for one in usable}
    sentences = [kept.caption, *study_summary.provenance(frame[frame["protocol"] == frame["id"].map(read)])]
    ended = int(points["top1"].notna().sum())
    sentences.append(
        "Intervals are Wilson's at 95 %, over videos, of one seed: they do not cover the seed's own spread, and the "
        f"best of {ended} points is chosen on the very videos that it is measured on, so its top-1 is flattered."
    )
    said = [f"{counts[state]} {state}" for state in counts.index]
    sentences.append(f"Points: {', '.join(said)}{_limits(settings)}.")
    return sentences


def _limits(settings: Mapping[str, Any]) -> str:
    limits = [f"{settings[name]:g} {unit}" for name, unit in (("max gflops", "GFLOPs"), ("max hours", "hours a run"))
              if settings[name] is not None]  # fmt: skip
    return f"; at most {' and '.join(limits)}" if limits else ""


def _importance(kept: Kept, points: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Shares of the axes in what top-1 depends on, by each evaluator, and what they are."""
    ended = points[points["top1"].notna()]
    if len(ended) < FEWEST:
        few = f"{len(ended)} points of at least {FEWEST}"
        return pd.DataFrame(), f"Not enough trials to say how important each axis is: {few}."
    if ended["top1"].nunique() < 2:
        return pd.DataFrame(), f"All {len(ended)} points have one top-1: no axis is more important than another."
    varied = [axis for axis in kept.axes if ended[axis["key"]].nunique() > 1]
    columns = {name: _shares(evaluator(), ended, varied) for name, evaluator in EVALUATORS.items()}
    labels = {axis["key"]: axis["label"] for axis in kept.axes}
    table = pd.DataFrame(columns).reindex([axis["key"] for axis in kept.axes]).rename(index=labels).rename_axis("axis")
    rankings = {tuple(table[name].sort_values(ascending=False).index) for name in table.columns}
    agree = "agree on" if len(rankings) == 1 else "DISAGREE about"
    return table, (
        f"Shares in what decides top-1, over {len(ended)} points that were trained to the end; each column adds up to "
        "1. PED-ANOVA tells the best quarter of the points from all (Optuna's default takes the best tenth), fANOVA "
        f"explains the variance by a forest. The two {agree} the order of the axes; with so few points neither is firm."
    )


EVALUATORS: Mapping[str, Callable[[], BaseImportanceEvaluator]] = {
    "PED-ANOVA": lambda: PedAnovaImportanceEvaluator(target_quantile=_QUARTER),
    "fANOVA": lambda: FanovaImportanceEvaluator(seed=0),
}


def _shares(
    evaluator: BaseImportanceEvaluator, ended: pd.DataFrame, axes: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    distributions = {axis["key"]: _distribution(axis) for axis in axes}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study = optuna.create_study(direction="maximize")
        for line in ended.to_dict("records"):
            params = {key: line[key] for key in distributions}
            study.add_trial(optuna.create_trial(value=line["top1"], params=params, distributions=distributions))
        try:
            return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))
        except RuntimeError:  # a forest that finds no variance
            return {}


def _distribution(axis: Mapping[str, Any]) -> BaseDistribution:
    if axis["choices"]:
        return CategoricalDistribution(axis["choices"])
    if axis["whole"]:
        return IntDistribution(axis["low"], axis["high"])
    return FloatDistribution(axis["low"], axis["high"], log=axis["log"])


def _saving(kept: Kept, points: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The grid's steps, split up into what became of them."""
    tried = points[~points["state"].isin([TURNED_AWAY, "running", "waiting"])]
    parts = _parts(tried)
    lines = [(what, len(own), int(steps.sum())) for what, (own, steps) in parts.items()]
    total = sum(steps for _, _, steps in lines)
    untried = [one for one in kept.points if one["within"] and one["run"] not in set(tried["run"])]
    if kept.points:
        lines.append(("not trained: not tried", len(untried), sum(one["steps"] for one in untried)))
        total += lines[-1][2]
        lines.insert(0, ("the grid: every point within the limits", len(tried) + len(untried), total))
    table = pd.DataFrame(lines, columns=["what", "points", "steps"])
    table["share"] = table["steps"] / total if kept.points and total else math.nan
    return table, _saved(table, bool(kept.points))


def _parts(tried: pd.DataFrame) -> dict[str, tuple[pd.DataFrame, pd.Series[Any]]]:
    """What became of the points that were tried -> the points, and their steps; together, the steps of them all."""
    by = {state: tried[tried["state"] == state] for state in ("pruned", "failed")}
    ended = tried[~tried["state"].isin(["pruned", "failed"])]
    # A trial that this sweep trained says how many steps it took; one that it was told says 0.
    here, before = ended[ended["steps"] > 0], ended[ended["steps"] == 0]
    parts = {
        "trained to the end": (here, here["schedule"]),
        "trained until pruned": (by["pruned"], by["pruned"]["steps"]),
        "not trained: pruned": (by["pruned"], by["pruned"]["schedule"] - by["pruned"]["steps"]),
        "not trained: recorded before": (before, before["schedule"]),
    }
    if len(by["failed"]):
        parts["trained until it failed"] = (by["failed"], by["failed"]["steps"])
        parts["not trained: failed"] = (by["failed"], by["failed"]["schedule"] - by["failed"]["steps"])
    return parts


def _saved(table: pd.DataFrame, grid: bool) -> str:
    steps = {str(what): int(count) for what, count in zip(table["what"], table["steps"], strict=True)}
    pruned, trained = steps["not trained: pruned"], sum(steps[what] for what in steps if what.startswith("trained"))
    counted = (
        "Steps are those of the schedules: what a kill lost and a restart trained again is not counted, nor are "
        "evaluations."
    )
    if not grid:
        of = f" of {trained + pruned:,}" if pruned else ""
        return (
            f"Pruning saved {pruned:,}{of} training steps. The space has too many points for a grid to compare with. "
            f"{counted}"
        )
    total = next(iter(steps.values()))
    share = f" ({100 * pruned / total:.0f} %)" if total else ""
    return (
        f"Pruning saved {pruned:,} of the grid's {total:,} training steps{share}; the sweep trained {trained:,} in "
        f"all. The grid is every point of the space within the limits, each trained to its end. {counted}"
    )


def names(summary: Summary) -> tuple[str, str, str]:
    """Names of the files of a sweep's tables: the front, which is its figure's too, importance and saving."""
    front, importance, saving = (f"sweep-{summary.name}-{part}" for part in ("front", "importance", "saving"))
    return front, importance, saving


def tables(summary: Summary) -> list[tuple[str, Table]]:
    """The tables of a sweep, each with the name of its files: the front, importance where it can be said, saving."""
    first, second, third = names(summary)
    told = [(second, importance(summary))] if len(summary.importance) else []
    return [(first, front(summary)), *told, (third, saving(summary))]


def front(summary: Summary) -> Table:
    """The points on the front, cheapest first; its CSV file has every point that was proposed."""
    every = summary.points.set_index("trial")
    shown = every[every["front"]]
    kept_back = "" if len(summary.importance) else f" {summary.importance_note}"
    return Table(
        name=f"sweep-{summary.name}-front",
        title=f"{summary.title}: the front ({summary.profile} profile)",
        caption=f"Points than which no other has both fewer multiply-adds and a higher top-1. {summary.caption}"
        f"{kept_back}",
        columns=(
            *(Column(label, _value(key), "right") for key, label in summary.axes.items()),
            Column("GFLOPs", lambda line: f"{line['gflops']:.3g}", "right"),
            Column("params (M)", lambda line: f"{line['params'] / 1e6:.3g}", "right"),
            Column("top-1 (%)", lambda line: f"{line['top1']:.1f}", "right"),
            Column("95 % interval", lambda line: f"[{line['low']:.1f}, {line['high']:.1f}]"),
            Column("run", lambda line: line["run"][:8]),
        ),
        data=shown,
        more=every,
    )


def _value(key: str) -> Callable[[Line], str]:
    return lambda line: shown_value(line[key])


def shown_value(value: Any) -> str:
    """A value of an axis, in four digits where it is a fraction."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def importance(summary: Summary) -> Table:
    """How much of top-1 each axis decides, by each evaluator."""
    return Table(
        name=f"sweep-{summary.name}-importance",
        title=f"{summary.title}: importance of each axis ({summary.profile} profile)",
        caption=summary.importance_note,
        columns=(
            Column("axis", lambda line: line["axis"]),
            *(Column(name, _share(name), "right") for name in summary.importance.columns),
        ),
        data=summary.importance,
    )


def _percent(line: Line) -> str:
    return NOTHING if math.isnan(line["share"]) else f"{100 * line['share']:.0f} %"


def _share(name: str) -> Callable[[Line], str]:
    return lambda line: NOTHING if math.isnan(line[name]) else f"{line[name]:.2f}"


def saving(summary: Summary) -> Table:
    """The grid's training steps, and what became of them."""
    return Table(
        name=f"sweep-{summary.name}-saving",
        title=f"{summary.title}: training steps against the grid ({summary.profile} profile)",
        caption=summary.saving_note,
        columns=(
            Column("", lambda line: line["what"]),
            Column("points", lambda line: f"{line['points']:,}", "right"),
            Column("steps", lambda line: f"{line['steps']:,}", "right"),
            Column("share", _percent, "right"),
        ),
        data=summary.saving.set_index("what"),
    )
