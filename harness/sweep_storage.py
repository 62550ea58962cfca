"""Sweeps in Optuna's storage: SQLite under `results/sweeps/` unless another is named; trials as plain data.

SQLite as Optuna opens it hands one waiting trial to several processes, since it ignores `FOR UPDATE`. Here every
transaction begins as a writer's (`BEGIN IMMEDIATE`), so that what it read still holds when it writes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import socket
import sqlite3
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from harness.sweeping import Axis, Limits, Point, Space

optuna.logging.set_verbosity(optuna.logging.ERROR)

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
_WAIT = 60.0  # seconds that a transaction waits for another's


class SweepError(ValueError):
    """A sweep whose storage cannot be used, or that is another than asked for; one line for the user."""


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
      owner: which results folder it is trained in.
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
    owner: str = ""


def file_of(root: Path, name: str) -> Path:
    """File of a sweep under a results folder."""
    return root / "sweeps" / f"{name}.db"


def url_of(path: Path) -> str:
    """URL of an SQLite file."""
    url = sqlalchemy.URL.create("sqlite", database=str(path.absolute())).render_as_string()
    return url.replace("{", "{{").replace("}", "}}")  # Optuna fills in braces


def shown(url: str) -> str:
    """A storage's URL without its user, password and options."""
    try:
        made = sqlalchemy.make_url(url)
    except (ArgumentError, ValueError):
        return "the storage"
    # Of a password with an @ that is not escaped, the end is read as the beginning of the host.
    host = f"{(made.host or '').rpartition('@')[2]}{f':{made.port}' if made.port else ''}"
    return f"{made.drivername}://{host}/{made.database or ''}"


def owner(root: Path) -> str:
    """Who trains into a results folder; says nothing of what the machine or the folder are called."""
    return hashlib.sha256(f"{socket.gethostname()} {root.absolute()}".encode()).hexdigest()[:12]


def open_storage(url: str) -> RDBStorage:
    """Optuna's storage behind a URL.

    Raises:
      SweepError: it cannot be opened; credentials are not repeated.
    """
    try:
        made = sqlalchemy.make_url(url)
        with _quiet():
            if made.get_backend_name() == "sqlite" and made.database:
                return _sqlite(url, Path(made.database.replace("{{", "{").replace("}}", "}")))
            return RDBStorage(url)
    except (SQLAlchemyError, ImportError, RuntimeError, KeyError, ValueError, AssertionError) as error:
        raise SweepError(f"{shown(url)}: cannot be opened as an Optuna storage ({_said(error, url)})") from None


def _sqlite(url: str, path: Path) -> RDBStorage:
    path.parent.mkdir(parents=True, exist_ok=True)

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(path, timeout=_WAIT, isolation_level=None, check_same_thread=False)

    with (path.parent / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two processes that made its tables at once would both fail
        storage = RDBStorage(url, engine_kwargs={"creator": connect})
    sqlalchemy.event.listen(storage.engine, "begin", _begin_immediate)
    return storage


def _begin_immediate(connection: sqlalchemy.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _said(error: Exception, url: str) -> str:
    """What an error says, in one line, nothing of which is a credential."""
    kind = type(error).__name__
    try:
        made = sqlalchemy.make_url(url)
    except (ArgumentError, ValueError):
        return kind
    if isinstance(error, KeyError | IndexError) or "@" in (made.host or ""):
        return kind  # it quotes what stood in braces, or a password's end that was taken for the host
    text = " ".join(str(getattr(error, "orig", None) or error).split())[:200]
    secrets = [url, *(str(value) for value in made.query.values()), made.password, made.username]
    for secret in filter(None, map(str, filter(None, secrets))):
        text = text.replace(secret, "***")
    return f"{kind}: {text}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's warnings of what is experimental, which are no user's to heed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def faults_named(url: str) -> Iterator[None]:
    """Says which storage it is that fails in the middle of a sweep.

    Raises:
      SweepError: the storage failed.
    """
    try:
        with _quiet():
            yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        raise SweepError(
            f"{shown(url)}: the sweep's storage failed ({_said(cause, url)}); records are not lost: move it away to "
            "begin anew, and runs that finished are told from their records"
        ) from None


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
    if _SETTINGS not in found.user_attrs:
        if found.get_trials(deepcopy=False):
            raise SweepError(f"{where}: holds a study {name!r} that is no sweep of this harness; choose another --name")
        with _quiet():
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
        owner=attributes.get(OWNER, ""),
    )


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
    storage = open_storage(url)
    with faults_named(url):
        names = sorted(optuna.get_all_study_names(storage))
        studies = [optuna.load_study(study_name=name, storage=storage) for name in names]
        return [kept(one) for one in studies if _SETTINGS in one.user_attrs]
