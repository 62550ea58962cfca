"""The search of a sweep: asks Optuna for points, has them trained, and tells Optuna the results.

The training knows nothing of trials.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, Protocol

import numpy as np
import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.pruners import MedianPruner, NopPruner
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import TrialState

from harness.scheduler.optuna_storage import Patience
from harness.store.records import RecordError, RunRecord
from harness.store.run_store import Store
from harness.sweep import trial_store
from harness.sweep.space import PARTS, Params, Point, Sweep, reached
from harness.sweep.trial_store import ABANDONED, RECORDED, REPEATED, TRAINED, TURNED_AWAY, SweepError, Trial
from harness.sweep.workers import Workers

SamplerName = Literal["grid", "tpe", "nsga2"]
# Random points before TPE starts to model the results; Optuna's default would be most of a small sweep.
STARTUP = 5
# No run is pruned before this many trials have ended, nor before this percent of its schedule: early on, accuracy tells
# more of the warm-up and of the network's size than of the final accuracy.
PRUNED_AFTER, PRUNED_FROM = 5, 40
# After this many proposals in a row that needed no training, an untried point is drawn at random instead.
_IDLE = 10


@dataclasses.dataclass(frozen=True)
class Strategy:
    """How points are chosen.

    Attributes:
      sampler: "grid" (every point), "tpe" (top-1) or "nsga2" (top-1 and multiply-adds).
      prunes: whether a run is ended early when its validation is below the median of the runs before it.
      population: points in a generation of nsga2.
      seed: seed of the sampler.
    """

    sampler: SamplerName
    prunes: bool
    population: int
    seed: int

    def __post_init__(self) -> None:
        if self.prunes and self.sampler == "nsga2":
            raise SweepError("--pruner median: Optuna prunes for one objective only; nsga2 has two")

    @property
    def objectives(self) -> tuple[str, ...]:
        """Returns the names of the values that Optuna is told."""
        return ("top-1", "GFLOPs") if self.sampler == "nsga2" else ("top-1",)

    def at(self, number: int) -> BaseSampler:
        """Returns a trial's sampler, new for each trial, so that proposals don't depend on restarts of the process."""
        seed = trial_store.derived_seed(self.seed, number)
        if self.sampler == "tpe":
            return TPESampler(n_startup_trials=STARTUP, seed=seed)
        if self.sampler == "nsga2":
            return NSGAIISampler(population_size=self.population, seed=seed)
        return RandomSampler(seed=seed)

    @property
    def pruner(self) -> MedianPruner | NopPruner:
        """Returns the pruner."""
        if not self.prunes:
            return NopPruner()
        return MedianPruner(PRUNED_AFTER, PRUNED_FROM, n_min_trials=PRUNED_AFTER)


class Trained(Protocol):
    """The outcome of carrying out a run, such as :class:`harness.scheduler.orchestrator.Outcome`."""

    @property
    def event(self) -> Mapping[str, Any]:
        """Returns the last event."""

    @property
    def failure(self) -> str:
        """Returns the reason in one line if the run failed; empty otherwise."""

    @property
    def ended_by_watch(self) -> bool:
        """Returns whether the watch ended the run at a validation."""


Watch = Callable[[Mapping[str, Any]], str | None]
# Trains and evaluates what is missing of a point's run; takes the point, a name to show, and the watch.
Carry = Callable[[Point, str, Watch | None], Trained]


@dataclasses.dataclass
class Search:
    """The search of one sweep.

    Attributes:
      study: Optuna's study.
      sweep: the points and their costs.
      strategy: how points are chosen.
      store: the records.
      carry: trains a point.
      say: called with a line for each trial that is not trained, or not to its end.
      trials: number of points to train; None for every point of a grid.
      workers: the workers and their trials.
      wait: waits a little for other workers; raises if this one is asked to stop.
    """

    study: optuna.Study
    sweep: Sweep
    strategy: Strategy
    store: Store
    carry: Carry
    say: Callable[[str], None]
    trials: int | None
    workers: Workers
    wait: Callable[[], None]
    _begun: int = 0
    _taken: set[int] = dataclasses.field(default_factory=set)
    _first: list[tuple[str, Params]] | None = None
    _listed: int = 0
    _idle: int = 0

    def __post_init__(self) -> None:
        self.study.pruner = self.strategy.pruner

    def run(self) -> list[str]:
        """Continues the sweep until the allowed number of points, or all, are trained; returns a line for each failure.

        First it takes up points whose worker was killed or gave them back, tells Optuna the records in `results/`, and
        retries points that failed before. It waits for the trials of other workers.
        """
        self._begun = len(self.workers.patient(self._tried))
        while (chosen := self.workers.patient(self._next)) is not None:
            trial, point = chosen
            self._taken.add(trial.number)
            with self.workers.at(trial):
                try:
                    self._train(trial, point)
                except UpdateFinishedTrialError:
                    self.say(
                        f"{_name(trial, point)}: was given up while this worker was silent; its point is asked again"
                    )
        return list(self._failed(self.workers.patient(self._tried)).values())

    def _tried(self) -> list[Trial]:
        return trial_store.trials(self.study)

    def _next(self) -> tuple[optuna.Trial, Point] | None:
        """Returns the next trial to train with its point; None once the sweep is at its end and no worker is busy."""
        while True:
            with self.workers.alone(self.wait):
                trial = self._chosen()
                if trial is not None:
                    with self.workers.giving_back(trial):
                        point = self._settled(trial)
                    if point is not None:
                        return trial, point
                    continue
                if not self.workers.others(self._tried()):
                    return None
            self.wait()

    def _chosen(self) -> optuna.Trial | None:
        """Takes the next trial for this worker; None where nothing is left to ask."""
        if left := self.workers.left(self._tried()):
            return self.workers.take(trial_store.live(self.study, left[0].number))
        self.workers.fail_silent()
        tried = self._tried()
        if any(other.state == "waiting" for other in tried):  # a process was killed before it took its enqueued trial
            return self._ask()
        if silent := self._silent(tried):
            return self._ask_again(silent[0])
        if self._first is None:
            self._first, self._listed = [*self._untold(tried), *self._failed_before(tried)], len(tried)
        while self._first:
            run_id, params = self._first.pop(0)
            if not any(
                other.run == run_id for other in tried[self._listed :]
            ):  # skip what another worker asked meanwhile
                return self._ask(params)
        return self._proposed(tried)

    def _silent(self, trials: list[Trial]) -> list[Trial]:
        """Returns trials that were given up because their workers fell silent, and that were not asked again."""
        last = {trial.run: trial for trial in trials if trial.run and trial.source != REPEATED}
        return [
            trial
            for trial in last.values()
            if trial.state == "fail" and trial.source in ("", TRAINED) and not trial.reason
            if self.sweep.space.holds(trial.params)
        ]

    def _untold(self, trials: list[Trial]) -> Iterator[tuple[str, Params]]:
        """Yields recorded runs within the limits that have no trial, each with its point."""
        told = {trial.run for trial in trials}
        for run_id in self.store.ids():
            if run_id in told:
                continue
            try:
                record = self.store.read(run_id)
            except RecordError:
                continue  # reported when its point is proposed
            point = self.sweep.of_record(record)
            if point and not self.sweep.limits.reason(point) and point.run.protocol.name in record.evaluations:
                yield run_id, point.params

    def _failed_before(self, trials: list[Trial]) -> list[tuple[str, Params]]:
        """Returns runs whose last trial failed before this process began, each with its point."""
        last = {trial.run: trial for trial in trials if trial.run and trial.source in (TRAINED, RECORDED)}
        now = self._failed(trials)
        return [(run_id, trial.params) for run_id, trial in last.items() if trial.state == "fail" and run_id not in now]

    def _failed(self, trials: list[Trial]) -> dict[str, str]:
        """Maps the id of each run that failed since this process began, here or with another worker, to the reason."""
        failed: dict[str, str] = {}
        for trial in trials:
            if trial.state in ("complete", "pruned"):
                failed.pop(trial.run, None)
            elif (trial.number >= self._begun or trial.number in self._taken) and _went_wrong(trial):
                failed[trial.run] = trial.reason
        return failed

    def _ask(self, params: Params | None = None) -> optuna.Trial:
        """Asks for a trial at a given point, or at one that the sampler proposes."""
        if params is not None:
            self.study.enqueue_trial(dict(params))
        self.study.sampler = self.strategy.at(len(self._tried()))
        trial = self.workers.take(self.study.ask(trial_store.distributions(self.sweep.space)))
        if self.strategy.sampler == "nsga2":
            _ = trial.relative_params  # makes an enqueued point join its generation
        return trial

    def _ask_again(self, silent: Trial) -> optuna.Trial:
        """Asks for a trial that continues one that was given up."""
        trial = self._ask(silent.params)
        for percent, top1 in silent.reports.items():
            trial.report(top1, percent)
        if silent.source:
            trial.set_user_attr(trial_store.SOURCE, silent.source)
        return trial

    def _proposed(self, trials: list[Trial]) -> optuna.Trial | None:
        """Asks for the next new trial, once nothing is left to catch up with; None at the sweep's end."""
        known = {trial.run for trial in trials if trial.run}
        if self.strategy.sampler == "grid":
            left = (params for params in self.sweep.space.points() if self.sweep.at(params).run.id not in known)
            params = next(left, None)
            return None if params is None else self._ask(params)
        if self.trials is not None and self._spent(trials) >= self.trials:
            return None
        if self._idle < _IDLE and not self._all_known(known):
            return self._ask()
        generator = np.random.default_rng(trial_store.derived_seed(self.strategy.seed, len(trials)))
        point = self.sweep.draw(generator, lambda candidate: candidate.run.id in known)
        if point is None:
            if not self.workers.others(trials):
                self.say("No point is left within the limits that was not tried.")
            return None
        return self._ask(point.params)

    def _spent(self, trials: list[Trial]) -> int:
        """Counts the points that were or are being trained; failures before this process do not count."""
        trained = {trial.run for trial in trials if trial.source == TRAINED and trial.state != "fail"}
        return len(trained | set(self._failed(trials)))

    def _all_known(self, known: set[str]) -> bool:
        size = self.sweep.space.size
        return size is not None and len(known) >= size

    def _settled(self, trial: optuna.Trial) -> Point | None:
        """Ends a trial that needs no training; otherwise returns its point, which has to be trained."""
        params = dict(trial.params)
        if not self.sweep.space.holds(params):
            trial.set_user_attr(trial_store.SOURCE, ABANDONED)
            self.study.tell(trial, state=TrialState.FAIL)
            return None
        point = self.sweep.at(params)
        trial.set_user_attr(trial_store.RUN, point.run.id)
        trial.set_user_attr(trial_store.SCHEDULE, point.steps)
        trial.set_user_attr(trial_store.GFLOPS, point.gflops)
        for name, amount in self.sweep.limits.over(point).items():
            trial.set_constraint(name, amount)
        if trial.user_attrs.get(trial_store.SOURCE) != TRAINED and self._answered(trial, point):
            self._idle += 1
            return None
        self._idle = 0
        trial.set_user_attr(trial_store.SOURCE, TRAINED)
        return point

    def _answered(self, trial: optuna.Trial, point: Point) -> bool:
        """Ends a trial that costs too much, is recorded or was tried before; returns whether it did."""
        name, tried = _name(trial, point), self._tried()
        if reason := self.sweep.limits.reason(point):
            self._end(trial, TURNED_AWAY, TrialState.PRUNED, reason)
            self.say(f"{name}: turned away, {reason}")
            return True
        same = [other for other in tried if other.run == point.run.id and other.number != trial.number]
        record = self._record(point)
        if record is not None:
            before = any(other.state in ("complete", "running") for other in same)
            self._tell_record(trial, record, point, REPEATED if before else RECORDED)
            self.say(f"{name}: recorded already, top-1 {100 * _top1(record, point):.1f} %")
            return True
        reason = self._failed(tried).get(point.run.id, "")
        if busy := self.workers.others(same):
            reason = f"trial {busy[0].number} is at it"
        if reason:
            self._end(trial, REPEATED, TrialState.FAIL, reason)
            return True
        return self._pruned_before(trial, point, name)

    def _pruned_before(self, trial: optuna.Trial, point: Point, name: str) -> bool:
        for other in self._tried():
            if other.run == point.run.id and other.state == "pruned" and other.source == TRAINED:
                for percent, top1 in other.reports.items():
                    trial.report(top1, percent)
                self._end(trial, REPEATED, TrialState.PRUNED, other.reason)
                self.say(f"{name}: was pruned before, as trial {other.number}")
                return True
        return False

    def _record(self, point: Point) -> RunRecord | None:
        """Returns the point's record if it has an evaluation under the run's protocol, else None.

        A damaged record counts as none here; carrying out the run reports it.
        """
        if not self.store.has(point.run.id):
            return None
        try:
            record = self.store.checked(point.run.id)
        except RecordError:
            return None
        return record if point.run.protocol.name in record.evaluations else None

    def _train(self, trial: optuna.Trial, point: Point) -> None:
        """Has a trial's point trained, or gone on with, and tells what came of it."""
        name, told = _name(trial, point), self.workers.patient
        frozen = told(lambda: self.study.get_trials(deepcopy=False)[trial.number])
        watch = _Watch(trial, point, set(frozen.intermediate_values), self.strategy, told)
        if (record := self._record(point)) is not None:  # trained by a process that was killed before telling it
            told(lambda: self._tell_record(trial, record, point, TRAINED))
            return
        if reason := watch.verdict(frozen.last_step):  # a process was killed after the verdict and before it told it
            self._prune(trial, point, reason)
            self.say(f"{name}: {reason}")
            return
        outcome = self.carry(point, name, watch if len(self.strategy.objectives) == 1 else None)
        if outcome.failure:
            told(lambda: self._fail(trial, point, outcome.failure))
        elif outcome.ended_by_watch:
            self._prune(trial, point, str(outcome.event["reason"]))
        else:
            trained = self.store.checked(point.run.id)
            told(lambda: self._tell_record(trial, trained, point, TRAINED))

    def _fail(self, trial: optuna.Trial, point: Point, reason: str) -> None:
        trial.set_user_attr(trial_store.STEPS, self.store.state(point.run.id).step)
        self._end(trial, TRAINED, TrialState.FAIL, reason)

    def _prune(self, trial: optuna.Trial, point: Point, reason: str) -> None:
        def tell() -> None:
            trial.set_user_attr(trial_store.STEPS, self.store.state(point.run.id).step)
            self._end(trial, TRAINED, TrialState.PRUNED, reason)

        self.workers.patient(tell)

    def _tell_record(self, trial: optuna.Trial, record: RunRecord, point: Point, source: str) -> None:
        """Tells a trial the results in its run's record."""
        if source == RECORDED and len(self.strategy.objectives) == 1:  # told again, it would count twice in the median
            reported = self.study.get_trials(deepcopy=False)[trial.number].intermediate_values
            for percent, top1 in validations(record).items():
                if percent not in reported:
                    trial.report(top1, percent)
        trial.set_user_attr(trial_store.SOURCE, source)
        trial.set_user_attr(trial_store.STEPS, point.steps if source == TRAINED else 0)
        values = [_top1(record, point), point.gflops][: len(self.strategy.objectives)]
        self.study.tell(trial, values, skip_if_finished=True)

    def _end(self, trial: optuna.Trial, source: str, state: TrialState, reason: str) -> None:
        trial.set_user_attr(trial_store.SOURCE, source)
        trial.set_user_attr(trial_store.REASON, reason)
        self.study.tell(trial, state=state, skip_if_finished=True)


class _Watch:
    """Reports a run's validations to its trial, and decides when to end the run.

    Args:
      trial: the trial.
      point: its point.
      known: percents of the schedule that an earlier process reported.
      strategy: how points are chosen.
      patient: retries calls of the storage while it does not answer.
    """

    def __init__(
        self, trial: optuna.Trial, point: Point, known: set[int], strategy: Strategy, patient: Patience
    ) -> None:
        self._trial, self._point, self._known, self._strategy = trial, point, known, strategy
        self._patient = patient

    def __call__(self, event: Mapping[str, Any]) -> str | None:
        """Reports a validation, and returns the reason to end the run; None to go on."""
        percent = reached(event["done"], event["total"])
        if percent == 0 or percent in self._known:
            return None
        self._known.add(percent)
        try:
            self._patient(lambda: self._trial.report(event["top1"], percent))
        except UpdateFinishedTrialError:  # given up while this worker was silent; its new worker decides
            return None
        return self.verdict(percent, event)

    def verdict(self, percent: int | None, event: Mapping[str, Any] | None = None) -> str | None:
        """Returns the reason to end the run by what was reported so far; None to go on."""
        if percent is None or percent >= 100 or not self._strategy.prunes:
            return None
        if not self._patient(self._trial.should_prune):
            return None
        top1 = f", top-1 {100 * event['top1']:.1f} %" if event else ""
        return f"pruned after {percent} % of its schedule{top1}, below the median of the points before it there"


def validations(record: RunRecord) -> dict[int, float]:
    """Returns percent of the schedule -> validation top-1, for a record's validations at the ends of its parts."""
    total = int(record.cost["train_steps"])
    interval = -(-total // PARTS)
    points = {int(point["step"]): point["top1"] for point in record.curve if point["split"] == "validation"}
    return {reached(step, total): top1 for step, top1 in points.items() if step % interval == 0 or step == total}


def _went_wrong(trial: Trial) -> bool:
    return trial.state == "fail" and trial.source == TRAINED and bool(trial.reason)


def _top1(record: RunRecord, point: Point) -> float:
    return record.evaluations[point.run.protocol.name].top1


def _name(trial: optuna.Trial, point: Point) -> str:
    return f"trial {trial.number}: {' '.join(f'{key}={_value(value)}' for key, value in point.params.items())}"


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
