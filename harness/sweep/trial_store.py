"""Sweeps in Optuna's storage: SQLite under `results/sweeps/` unless another is named; trials as plain data."""

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
# Values of SOURCE: the sweep trained it; a record was there; it was tried before and is answered alike; it costs too
# much; a process ended before its values were known.
TRAINED, RECORDED, REPEATED, TURNED_AWAY, ABANDONED = "trained", "recorded", "repeated", "turned away", "abandoned"

_SETTINGS = "settings"
_SPACE = "space"


class SweepError(HarnessError):
    """A sweep that cannot be read, or that is another than asked for; one line for the user."""


@dataclasses.dataclass(frozen=True)
class Tried:
    """One trial, as plain data.

    Attributes:
      number: its number in Optuna.
      state: "waiting", "running", "complete", "pruned" or "fail".
      params: its point; without some axes where a process ended too early.
      values: what was told: top-1 (a fraction), and with two objectives multiply-adds (1e9); empty where nothing was.
      reports: percent of the schedule -> validation top-1, a fraction.
      run: id of its run; empty where it has none.
      source: where its values come from, see :data:`SOURCE`; empty where that is not settled yet.
      steps: optimizer steps that were trained for it.
      schedule: optimizer steps of its whole schedule; 0 where it has no run.
      gflops: multiply-adds of one evaluation view, 1e9; 0 where it has no run.
      reason: why it was turned away, pruned or failed.
      owner: "host:process" and token of the worker that has it, or had it; empty where nobody has.
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
    """File of a sweep under a results folder."""
    return root / "sweeps" / f"{name}.db"


def study(
    storage: RDBStorage, name: str, settings: Mapping[str, Any], objectives: tuple[str, ...], where: str
) -> optuna.Study:
    """The Optuna study of a sweep, made where there is none.

    Args:
      storage: where.
      name: of the sweep.
      settings: all that makes it this sweep; plain data.
      objectives: names of what is told: "top-1", which is maximised, and perhaps "GFLOPs", minimised.
      where: what the storage is called in messages.

    Raises:
      SweepError: there is a study of that name that is no sweep, or one with other settings: says where they differ.
    """
    directions = [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE][: len(objectives)]
    found = optuna.create_study(storage=storage, study_name=name, directions=directions, load_if_exists=True)
    begun = bool(found.get_trials(deepcopy=False))  # looked at first: another worker may begin it just now
    if _SETTINGS not in found.user_attrs:
        if begun:
            raise SweepError(f"{where}: holds a study {name!r} that is no sweep of this harness; choose another --name")
        found.set_metric_names(list(objectives))
        found.set_user_attr(_SETTINGS, _plain(settings))
    before = found.user_attrs[_SETTINGS]
    if before != _plain(settings):
        raise SweepError(f"{where}: {name!r} is another sweep ({_different(before, _plain(settings))}); choose another "
                         "--name, or give the flags that it was begun with")  # fmt: skip
    return found


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """As it comes back from a storage."""
    return dict(json.loads(json.dumps(settings)))


def _different(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return "; ".join(f"{name}: it has {_short(before.get(name))}, now {_short(now.get(name))}" for name in names)


def _short(value: Any) -> str:
    if value is None:
        return "none"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def keep_space(of: optuna.Study, space: Space, grid: Sequence[Point], limits: Limits, caption: str) -> None:
    """Keeps the axes and what each point costs, so that a report needs nothing but the storage and the records.

    Args:
      of: the study.
      space: the points.
      grid: each of them, with its cost; empty where they cannot be gone through.
      limits: what a point may cost.
      caption: the profile's.
    """
    axes = [
        {"key": axis.key, "label": axis.toggle.label, "choices": axis.choices, "log": axis.log, "whole": axis.whole,
         **({} if axis.choices else {"low": axis.low, "high": axis.high})}
        for axis in space.axes
    ]  # fmt: skip
    points = [
        {"run": one.run.id, "steps": one.steps, "gflops": one.gflops, "within": not limits.reason(one)} for one in grid
    ]
    content = _plain({"axes": axes, "points": points, "caption": caption})
    if of.user_attrs.get(_SPACE) != content:
        of.set_user_attr(_SPACE, content)


@dataclasses.dataclass(frozen=True)
class Kept:
    """A sweep as its storage holds it.

    Attributes:
      name: its name.
      settings: all that makes it this sweep.
      caption: the profile's.
      axes: "key", "label", "choices" (empty for a range), "log" and "whole" of each axis; of a range "low" and "high".
      points: "run", "steps", "gflops" and "within" (the limits) of every point; empty where they are too many.
      trials: its trials, in order.
    """

    name: str
    settings: Mapping[str, Any]
    caption: str
    axes: list[dict[str, Any]]
    points: list[dict[str, Any]]
    trials: list[Tried]


def kept(of: optuna.Study) -> Kept:
    """What a storage holds of a sweep."""
    space = of.user_attrs.get(_SPACE, {"caption": "", "axes": [], "points": []})
    return Kept(of.study_name, of.user_attrs[_SETTINGS], space["caption"], space["axes"], space["points"], trials(of))


def trials(of: optuna.Study) -> list[Tried]:
    """Its trials, in order."""
    return [tried(one) for one in of.get_trials(deepcopy=False)]


def tried(trial: FrozenTrial) -> Tried:
    """An Optuna trial as plain data."""
    attributes = trial.user_attrs
    return Tried(
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
    # Sweeps of before they were shared say which results folder it is, whose one process has ended.
    return (str(value[0]), str(value[1])) if isinstance(value, list) else ("", "")


def live(of: optuna.Study, number: int) -> optuna.Trial:
    """The running trial of a number, so that a process can go on with what another began."""
    # Optuna makes such an object only when it is asked for a new trial; it holds nothing but the two.
    return optuna.Trial(of, of.get_trials(deepcopy=False)[number]._trial_id)


def distributions(of: Space) -> dict[str, BaseDistribution]:
    """A space as Optuna's distributions."""
    return {axis.key: _distribution(axis) for axis in of.axes}


def _distribution(axis: Axis) -> BaseDistribution:
    if axis.choices:
        return CategoricalDistribution(axis.choices)
    if axis.whole:
        return IntDistribution(int(axis.low), int(axis.high))
    return FloatDistribution(axis.low, axis.high, log=axis.log)


def derived_seed(seed: int, number: int) -> int:
    """The sampler's seed for one trial: a sweep that was killed and restarted proposes what it would have proposed."""
    return int.from_bytes(hashlib.sha256(f"{seed} {number}".encode()).digest()[:4], "big")


def found(root: Path) -> list[Kept]:
    """Every sweep in the SQLite files under a results folder, by name.

    Raises:
      SweepError: a file that is no Optuna storage.
    """
    return [one for path in sorted((root / "sweeps").glob("*.db")) for one in _sweeps_of(url_of(path))]


def _sweeps_of(url: str) -> list[Kept]:
    try:
        storage = open_storage(url)
        with faults_named(url):
            names = sorted(optuna.get_all_study_names(storage))
            studies = [optuna.load_study(study_name=name, storage=storage) for name in names]
            return [kept(one) for one in studies if _SETTINGS in one.user_attrs]
    except StorageError as error:
        raise SweepError(str(error)) from None
