"""Summarises a sweep from its trials and records: the front, the importance of each axis, and what pruning saved.

Optuna's storage tells which points were tried; their accuracy is read from their records only.
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
from harness.sweep.trial_store import RECORDED, TRAINED, TURNED_AWAY, StoredSweep, SweepError, Trial
from harness.system.paths import Folder

NOTHING = "–"
# Fewest finished points for which importances are given; with fewer, a ranking is chance.
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
      title: what was searched and how, one line.
      profile: the profile.
      caption: sentences that explain the numbers.
      axes: key of each axis -> its label.
      points: a line for each run that was proposed, cheapest first. A column for each axis under its key, and "trial"
        (its first number), "run" (id), "state" ("trained", "recorded", "pruned", "failed", "turned away", "running",
        "record missing", "record unusable"), "gflops" (one view), "params", "top1", "low", "high", "top5" (percent,
        95 % interval over videos), "videos", "steps" (trained in this sweep), "schedule" (all of its steps), "hours"
        (of its training and evaluation), "front" (whether no other point is at least as good in both and better in
        one), "reason" (why it ended early). Accuracies are NaN where there is no record.
      importance: a line for each axis, indexed by its label; a column for each evaluator, shares that add up to 1; NaN
        where an axis was not varied. Empty where there are too few points.
      importance_note: sentences that explain these numbers, or why there are none.
      saving: a line for each part of the grid: "what", "points", "steps", "share" (of the grid; NaN without a grid).
      saving_note: sentences on how these numbers are counted.
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


def summaries(root: Path, runs: Folder | None = None) -> list[Summary]:
    """Returns the summaries of all sweeps under a results folder, by name.

    Raises:
      SweepError: a storage cannot be read, or a value in it differs from its record.
    """
    return [summarize(kept, Store(root, runs)) for kept in trial_store.stored_sweeps(root)]


def summarize(kept: StoredSweep, records: Store) -> Summary:
    """Summarises a sweep from its storage and the records.

    Raises:
      SweepError: a value in the storage differs from its record.
    """
    ids = {trial.run for trial in kept.trials if trial.state == "complete"}
    return summarise(kept, {run_id: _read(records, run_id) for run_id in sorted(ids) if records.has(run_id)})


def _read(records: Store, run_id: str) -> RunRecord | RecordError:
    try:
        return records.checked(run_id)
    except RecordError as error:
        return error


def summarise(kept: StoredSweep, records: Mapping[str, RunRecord | RecordError]) -> Summary:
    """Summarises a sweep.

    Args:
      kept: the sweep.
      records: id of each run with a record -> the record, or why it cannot be used.

    Raises:
      SweepError: a value in the storage differs from its record.
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
    """Finds the points on the Pareto front.

    Args:
      points: for each point, the value to maximise and the value to minimise.

    Returns:
      For each point, whether no other is at least as good in both and better in one. Of equal points, all or none are
      on the front.
    """
    return [not any(_dominates(other, point) for other in points) for point in points]


def _dominates(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one != other and one[0] >= other[0] and one[1] <= other[1]


def _points(kept: StoredSweep, records: Mapping[str, RunRecord | RecordError]) -> pd.DataFrame:
    keys = [axis["key"] for axis in kept.axes]
    by_run: dict[str, list[Trial]] = {}
    for trial in kept.trials:
        if trial.run:
            by_run.setdefault(trial.run, []).append(trial)
    lines = [_line(kept, trials, records.get(run_id)) for run_id, trials in by_run.items()]
    points = pd.DataFrame(lines, columns=[*keys, *POINT])
    known = points[points["top1"].notna()]
    on = pareto(list(zip(known["top1"], known["gflops"], strict=True)))
    points["front"] = points.index.isin(known.index[on])
    return points.sort_values(["gflops", "trial"], ignore_index=True)


def _line(kept: StoredSweep, trials: Sequence[Trial], record: RunRecord | RecordError | None) -> dict[str, Any]:
    """Returns the line of one run, from all of its trials."""
    last = max(trials, key=_settled)
    line = {**last.params, "trial": trials[0].number, "run": last.run, "state": _state(last), "gflops": last.gflops,
            "steps": max(trial.steps for trial in trials), "schedule": last.schedule, "front": False,
            "reason": last.reason}  # fmt: skip
    if last.state != "complete":
        return line
    if not isinstance(record, RunRecord):
        return line | {"state": "record unusable" if record else "record missing", "reason": str(record or "")}
    evaluation = record.evaluations.get(_protocol(kept.settings, record))
    if evaluation is None:
        return line | {"state": "record unusable", "reason": "not evaluated under the sweep's protocol"}
    if told := [trial for trial in trials if trial.state == "complete" and trial.values[0] != evaluation.top1]:
        raise SweepError(
            f"sweep {kept.name}: trial {told[0].number} holds top-1 {told[0].values[0]!r}, the record of run "
            f"{record.id} says {evaluation.top1!r}: one of the two was changed"
        )
    return line | _measured(record, evaluation)


def _settled(trial: Trial) -> tuple[bool, bool, int]:
    """Ranks a run's trials by how much they tell: a complete one, then one that trained, then the last."""
    return trial.state == "complete", trial.source == TRAINED, trial.number


def _state(trial: Trial) -> str:
    if trial.source == TURNED_AWAY or trial.state in ("running", "waiting"):
        return TURNED_AWAY if trial.source == TURNED_AWAY else trial.state
    if trial.state == "complete":
        return TRAINED if trial.source == TRAINED else RECORDED
    return "failed" if trial.state == "fail" else trial.state


def _protocol(settings: Mapping[str, Any], record: RunRecord) -> str:
    """Returns the name of the protocol of a run's top-1; the crop's size depends on the run."""
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


def _caption(kept: StoredSweep, points: pd.DataFrame, records: Mapping[str, RunRecord | RecordError]) -> list[str]:
    usable = [
        record for record in records.values() if isinstance(record, RunRecord) and record.id in set(points["run"])
    ]
    settings, counts = kept.settings, points["state"].value_counts()
    frame = run_store.frame(usable)
    read = {record.id: _protocol(settings, record) for record in usable}
    sentences = [kept.caption, *study_summary.provenance(frame[frame["protocol"] == frame["id"].map(read)])]
    ended = int(points["top1"].notna().sum())
    sentences.append(
        "Intervals are Wilson's at 95 %, over videos, of one seed: they do not cover the seed's own spread, and the "
        f"best of {ended} points is chosen on the very videos that it is measured on, so its top-1 is flattered."
    )
    counted = [f"{counts[state]} {state}" for state in counts.index]
    sentences.append(f"Points: {', '.join(counted)}{_limits(settings)}.")
    return sentences


def _limits(settings: Mapping[str, Any]) -> str:
    limits = [f"{settings[name]:g} {unit}" for name, unit in (("max gflops", "GFLOPs"), ("max hours", "hours a run"))
              if settings[name] is not None]  # fmt: skip
    return f"; at most {' and '.join(limits)}" if limits else ""


def _importance(kept: StoredSweep, points: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Returns each axis's share in what decides top-1, by each evaluator, and sentences that explain the shares."""
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


def _saving(kept: StoredSweep, points: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Returns the grid's steps by what became of them, and sentences on what pruning saved."""
    tried = points[~points["state"].isin([TURNED_AWAY, "running", "waiting"])]
    parts = _parts(tried)
    lines = [(what, len(group), int(steps.sum())) for what, (group, steps) in parts.items()]
    total = sum(steps for _, _, steps in lines)
    untried = [point for point in kept.points if point["within"] and point["run"] not in set(tried["run"])]
    if kept.points:
        lines.append(("not trained: not tried", len(untried), sum(point["steps"] for point in untried)))
        total += lines[-1][2]
        lines.insert(0, ("the grid: every point within the limits", len(tried) + len(untried), total))
    table = pd.DataFrame(lines, columns=["what", "points", "steps"])
    table["share"] = table["steps"] / total if kept.points and total else math.nan
    return table, _saved(table, bool(kept.points))


def _parts(tried: pd.DataFrame) -> dict[str, tuple[pd.DataFrame, pd.Series[Any]]]:
    """Groups the tried points by what became of them: outcome -> points and steps, which add up to all their steps."""
    by = {state: tried[tried["state"] == state] for state in ("pruned", "failed")}
    ended = tried[~tried["state"].isin(["pruned", "failed"])]
    # A trial that this sweep trained has its number of steps, one that it read from a record has 0.
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
    """Returns the base names of a sweep's files: front (table and figure), importance and saving."""
    front, importance, saving = (f"sweep-{summary.name}-{part}" for part in ("front", "importance", "saving"))
    return front, importance, saving


def tables(summary: Summary) -> list[tuple[str, Table]]:
    """Returns a sweep's tables with their files' base names: front, importance where there is any, and saving."""
    first, second, third = names(summary)
    told = [(second, importance(summary))] if len(summary.importance) else []
    return [(first, front(summary)), *told, (third, saving(summary))]


def front(summary: Summary) -> Table:
    """Returns the table of the front, cheapest point first; its CSV file has every proposed point."""
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
    """Formats a value of an axis; a float gets four significant digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def importance(summary: Summary) -> Table:
    """Returns the table of each axis's importance for top-1, by each evaluator."""
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
    """Returns the table of the grid's training steps and what became of them."""
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
