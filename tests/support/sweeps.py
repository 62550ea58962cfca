"""A workspace of the quick profile and a trainer that trains nothing, for the tests of sweeps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pandas as pd

from ablations.profiles import QUICK
from ablations.toggles import DEPTH, FRAMES, RESOLUTION, TOGGLES
from harness.config import network
from harness.config.devices import Devices
from harness.config.experiment import Overrides, Run
from harness.planning import workspace as workspace_
from harness.planning.workspace import Workspace
from harness.scheduler.optuna_storage import Patience, open_storage, url_of
from harness.store import records
from harness.store.records import Evaluation, RunRecord
from harness.store.run_store import Store
from harness.sweep.search import Search, Strategy
from harness.sweep.space import Axis, Limits, Point, Speed, Sweep, space, validated
from harness.sweep.trial_store import file_of, keep_space, study
from harness.sweep.workers import Workers

VIDEOS = 240
NO_LIMITS, SPEED = Limits(), Speed(1e10)
BASE = tuple(TOGGLES[key].at() for key in ("ls", "sd", "se"))


def workspace(results) -> Workspace:
    data = workspace_.data_set(None, QUICK, results)
    return Workspace(QUICK, data, Overrides(), 1, Store(results), Devices())


def axes(depths=(50, 101, 200), frames=(32, 48), resolutions=(224,)) -> list[Axis]:
    return [Axis(DEPTH, depths), Axis(FRAMES, frames), Axis(RESOLUTION, resolutions)]


def sweep(of: Workspace, *searched: Axis, limits=NO_LIMITS, seed=0, speed=SPEED) -> Sweep:
    return Sweep(space(searched or axes(), BASE), limits, seed, of.complete, speed)


def record(run: Run, top1: float, seconds: float = 10.0, curve=(), **changes) -> RunRecord:
    """The record of a run with an accuracy, its predictions file said to be `predictions.parquet`."""
    protocol = run.protocol
    evaluation = Evaluation(
        protocol.name, protocol.clips, protocol.crops, protocol.size, VIDEOS, VIDEOS, top1, min(1.0, top1 + 0.1), 1.0,
        "weights", 1.0, f"predictions-{protocol.name}.parquet", "0" * 64, {"device": "1 x CPU"},
    )  # fmt: skip
    cost = network.count(run.settings)
    costs = {"params": cost.params, "multiply_adds": cost.multiply_adds, "train_seconds": seconds,
             "train_steps": run.settings["trainer.train_steps"],
             "train_multiply_adds": network.training(run.settings)}  # fmt: skip
    made = records.of_run(run, costs, tuple(curve), evaluation, {"device": "1 x CPU"})
    return dataclasses.replace(made, **changes)


def keep(store: Store, of: RunRecord) -> None:
    """Writes a record with its predictions file."""
    for protocol, evaluation in of.evaluations.items():
        name, digest = store.write_predictions(of.id, protocol, pd.DataFrame({"media_id": ["a"]}))
        sealed = dataclasses.replace(evaluation, predictions=name, predictions_sha256=digest)
        of = dataclasses.replace(of, evaluations={**of.evaluations, protocol: sealed})
    store.write(of)


@dataclasses.dataclass
class Ended:
    """What came of a run that was not trained."""

    event: dict
    failure: str = ""
    ended_by_watch: bool = False


class Killed(Exception):  # noqa: N818
    """The process is gone."""


class Trainer:
    """Records a known accuracy for each point, validating at each fifth of the schedule.

    Args:
      store: where.
      top1: point -> accuracy of its record.
      while_training: (point, percent) -> accuracy of a validation; the share of the record's by default.
      dies: number of the training at which the process is killed, and after how many percent.
      fails: points that fail.
    """

    def __init__(
        self,
        store: Store,
        top1: Callable[[Point], float],
        while_training: Callable[[Point, int], float] | None = None,
        dies: tuple[int, int] | None = None,
        fails: Callable[[Point], bool] = lambda _: False,
    ) -> None:
        self.store, self.top1, self.dies, self.fails = store, top1, dies, fails
        self.while_training = while_training or (lambda point, percent: top1(point) * percent / 100)
        self.trained: list[Point] = []
        self.steps: dict[str, int] = {}

    def __call__(self, point, name, watch):
        self.trained.append(point)
        run, curve = validated(point.run), []
        interval = run.bookkeeping["trainer.validation_interval"]
        begun = self.steps.get(run.id, 0)
        attempt = self.store.attempt(run.id, 0)
        with attempt.logged(lambda _: None) as log:
            log({"event": "attempt", "step": begun})
            for step in [*range(interval, point.steps, interval), point.steps]:
                if step <= begun:
                    continue
                top1 = self.while_training(point, 100 * step // point.steps)
                event = {"event": "validation", "split": "validation", "step": step, "done": step, "seconds": 1.0,
                         "total": point.steps, "top1": top1}  # fmt: skip
                log(event)
                curve.append({"split": "validation", "step": step, "top1": event["top1"]})
                reason = watch(event) if watch else None
                self.steps[run.id] = step
                if self.dies == (len(self.trained), 100 * step // point.steps):
                    raise Killed
                if reason:
                    return Ended({"event": "interrupted", "reason": reason, "watched": True}, ended_by_watch=True)
                if self.fails(point):
                    return Ended({"event": "failed"}, f"{name}: the training loss is nan")
        keep(self.store, record(point.run, self.top1(point), curve=curve))
        attempt.forget()
        return Ended({"event": "done"})


def search(of: Workspace, asked: Sweep, trainer, strategy=None, trials=4, name="s", said=None, token="", wait=None):
    """A search of a sweep in its own SQLite file, as the command makes it; in a test's second worker with a token."""
    strategy = strategy or Strategy("tpe", False, 4, asked.seed)
    url = url_of(file_of(of.store.root, name))
    settings = {"sampler": strategy.sampler, "profile": "quick", "clips": 10, "crops": 3, "validation videos": None,
                "max gflops": asked.limits.gflops, "max hours": asked.limits.hours}  # fmt: skip
    kept = open_storage(url)
    made = study(kept, name, settings, strategy.objectives, "here")
    keep_space(made, asked.space, asked.grid(), asked.limits, "Made up.")
    said = said if said is not None else []
    workers = Workers(made, kept, token, 120, Patience(url))
    return Search(made, asked, strategy, of.store, trainer, said.append, trials, workers, wait or _nobody)


def _nobody():
    raise AssertionError("there is no other worker to wait for")
