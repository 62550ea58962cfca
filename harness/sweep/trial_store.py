"""Sweeps in Optuna's storage, and their trials as plain data.

The storage is an SQLite file under `results/sweeps/` unless another is named.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from harness.scheduler.optuna_storage import StorageError, faults_named, open_storage, url_of
from harness.sweep.space import Axis, Limits, Point, Space
from harness.system.errors import HarnessError

# Attributes of a trial, beside Optuna's own.
RUN = "run"
SOURCE = "source"
STEPS = "steps"
SCHEDULE = "schedule"
GFLOPS = "gflops"
REASON = "reason"
OWNER = "owner"
# Values of SOURCE: the sweep trained it; it was recorded already; it repeats an earlier trial and gets its answer; it
# costs too much; a process ended before its values were known.
TRAINED, RECORDED, REPEATED, TURNED_AWAY, ABANDONED = "trained", "recorded", "repeated", "turned away", "abandoned"

_SETTINGS = "settings"
_SPACE = "space"


class SweepError(HarnessError):
    """A sweep that cannot be read, or that differs from the one asked for; one line for the user."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """One trial, as plain data.

    Attributes:
      number: its number in Optuna.
      state: "waiting", "running", "complete", "pruned" or "fail".
      params: its point; incomplete where a process ended too early.
      values: values told: top-1 (a fraction), and with two objectives multiply-adds (1e9); empty where none was.
      reports: percent of the schedule -> validation top-1, a fraction.
      run: id of its run; empty where it has none.
      source: where its values come from, a value of :data:`SOURCE`; empty where that is not known yet.
      steps: optimizer steps trained for it.
      schedule: optimizer steps of its whole schedule; 0 where it has no run.
      gflops: multiply-adds of one evaluation view, 1e9; 0 where it has no run.
      reason: why it was turned away or pruned, or why it failed.
      owner: "host:process" and token of the worker that has or had it; empty for none.
    """

    number: int
    state: str
    params: Mapping[str, Any]
    values: tuple[float, ...] = ()
    reports: Mapping[int, float] = dataclasses.field(default_factory=dict)
    run: str = ""
    source: str = ""
    steps: int = 0
    schedule: int = 0
    gflops: float = 0.0
    reason: str = ""
    owner: tuple[str, str] = ("", "")


def file_of(root: Path, name: str) -> Path:
    """Returns the file of a sweep under a results folder."""
    return root / "sweeps" / f"{name}.db"


def study(
    storage: RDBStorage, name: str, settings: Mapping[str, Any], objectives: tuple[str, ...], where: str
) -> optuna.Study:
    """Loads the Optuna study of a sweep, or creates it.

    Args:
      storage: the storage.
      name: name of the sweep.
      settings: all settings that identify the sweep, as plain data.
      objectives: names of the values told: "top-1", which is maximised, and perhaps "GFLOPs", minimised.
      where: name of the storage in messages.

    Raises:
      SweepError: a study of that name is no sweep, or has other settings; the message says which.
    """
    directions = [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE][: len(objectives)]
    study_ = optuna.create_study(storage=storage, study_name=name, directions=directions, load_if_exists=True)
    begun = bool(
        study_.get_trials(deepcopy=False)
    )  # read before the settings, since another worker may begin the study now
    if _SETTINGS not in study_.user_attrs:
        if begun:
            raise SweepError(f"{where}: holds a study {name!r} that is no sweep of this harness; choose another --name")
        study_.set_metric_names(list(objectives))
        study_.set_user_attr(_SETTINGS, _plain(settings))
    before = study_.user_attrs[_SETTINGS]
    if before != _plain(settings):
        raise SweepError(f"{where}: {name!r} is another sweep ({_different(before, _plain(settings))}); choose another "
                         "--name, or give the flags that it was begun with")  # fmt: skip
    return study_


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings as a storage would return them, by way of JSON."""
    return dict(json.loads(json.dumps(settings)))


def _different(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return "; ".join(f"{name}: it has {_short(before.get(name))}, now {_short(now.get(name))}" for name in names)


def _short(value: Any) -> str:
    if value is None:
        return "none"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def keep_space(of: optuna.Study, space: Space, grid: Sequence[Point], limits: Limits, caption: str) -> None:
    """Stores the axes and the cost of each point, so that a report needs only the storage and the records.

    Args:
      of: the study.
      space: the points.
      grid: every point with its cost; empty where the space is too large to list.
      limits: what a point may cost.
      caption: the profile's caption.
    """
    axes = [
        {"key": axis.key, "label": axis.toggle.label, "choices": axis.choices, "log": axis.log, "whole": axis.whole,
         **({} if axis.choices else {"low": axis.low, "high": axis.high})}
        for axis in space.axes
    ]  # fmt: skip
    points = [
        {"run": point.run.id, "steps": point.steps, "gflops": point.gflops, "within": not limits.reason(point)}
        for point in grid
    ]
    content = _plain({"axes": axes, "points": points, "caption": caption})
    if of.user_attrs.get(_SPACE) != content:
        of.set_user_attr(_SPACE, content)


@dataclasses.dataclass(frozen=True)
class StoredSweep:
    """A sweep as its storage holds it.

    Attributes:
      name: its name.
      settings: all settings that identify it.
      caption: the profile's caption.
      axes: "key", "label", "choices" (empty for a range), "log" and "whole" of each axis; of a range "low" and "high".
      points: "run", "steps", "gflops" and "within" (the limits) of every point; empty where there are too many.
      trials: its trials, in order.
    """

    name: str
    settings: Mapping[str, Any]
    caption: str
    axes: list[dict[str, Any]]
    points: list[dict[str, Any]]
    trials: list[Trial]


def stored_sweep(of: optuna.Study) -> StoredSweep:
    """Reads a sweep from its storage."""
    space = of.user_attrs.get(_SPACE, {"caption": "", "axes": [], "points": []})
    return StoredSweep(
        of.study_name, of.user_attrs[_SETTINGS], space["caption"], space["axes"], space["points"], trials(of)
    )


def trials(of: optuna.Study) -> list[Trial]:
    """Returns a study's trials, in order."""
    return [tried(trial) for trial in of.get_trials(deepcopy=False)]


def tried(trial: FrozenTrial) -> Trial:
    """Converts an Optuna trial to plain data."""
    attributes = trial.user_attrs
    return Trial(
        number=trial.number,
        state=trial.state.name.lower(),
        params=dict(trial.params),
        values=tuple(trial.values) if trial.state == TrialState.COMPLETE else (),
        reports=dict(trial.intermediate_values),
        run=attributes.get(RUN, ""),
        source=attributes.get(SOURCE, ""),
        steps=attributes.get(STEPS, 0),
        schedule=attributes.get(SCHEDULE, 0),
        gflops=attributes.get(GFLOPS, 0.0),
        reason=attributes.get(REASON, ""),
        owner=_owner(attributes.get(OWNER)),
    )


def _owner(value: Any) -> tuple[str, str]:
    # Sweeps from before they could be shared hold a results folder here, whose only process has ended.
    return (str(value[0]), str(value[1])) if isinstance(value, list) else ("", "")


def live(of: optuna.Study, number: int) -> optuna.Trial:
    """Returns a running trial by its number, so that a process can continue what another began."""
    # Optuna itself makes a Trial only for new trials; it holds nothing but the study and the id.
    return optuna.Trial(of, of.get_trials(deepcopy=False)[number]._trial_id)


def distributions(of: Space) -> dict[str, BaseDistribution]:
    """Returns a space as Optuna's distributions."""
    return {axis.key: _distribution(axis) for axis in of.axes}


def _distribution(axis: Axis) -> BaseDistribution:
    if axis.choices:
        return CategoricalDistribution(axis.choices)
    if axis.whole:
        return IntDistribution(int(axis.low), int(axis.high))
    return FloatDistribution(axis.low, axis.high, log=axis.log)


def derived_seed(seed: int, number: int) -> int:
    """Returns the sampler's seed for one trial, so that a restarted sweep proposes the same points."""
    return int.from_bytes(hashlib.sha256(f"{seed} {number}".encode()).digest()[:4], "big")


def stored_sweeps(root: Path) -> list[StoredSweep]:
    """Reads every sweep in the SQLite files under a results folder, by name.

    Raises:
      SweepError: a file that is no Optuna storage.
    """
    return [sweep for path in sorted((root / "sweeps").glob("*.db")) for sweep in _sweeps_of(url_of(path))]


def _sweeps_of(url: str) -> list[StoredSweep]:
    try:
        storage = open_storage(url)
        with faults_named(url):
            names = sorted(optuna.get_all_study_names(storage))
            studies = [optuna.load_study(study_name=name, storage=storage) for name in names]
            return [stored_sweep(study) for study in studies if _SETTINGS in study.user_attrs]
    except StorageError as error:
        raise SweepError(str(error)) from None
