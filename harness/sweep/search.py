"""Asks Optuna for points, has trained what must be, and tells it what came of each; training never sees a trial."""

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
from harness.sweep.trial_store import ABANDONED, RECORDED, REPEATED, TRAINED, TURNED_AWAY, SweepError, Tried
from harness.sweep.workers import Workers

SamplerName = Literal["grid", "tpe", "nsga2"]
# Points at random before TPE models what it was told; so many of Optuna's default would be most of a small sweep.
STARTUP = 5
# Trials that end before any is pruned, and the percent of the schedule before which none is: early on, the warm-up and
# the size of a network say more about its accuracy than where it will end.
PRUNED_AFTER, PRUNED_FROM = 5, 40
# Proposals in a row that cost nothing, after which a point that was not tried yet is drawn instead.
_IDLE = 10


@dataclasses.dataclass(frozen=True)
class Strategy:
    """How points are chosen.

    Attributes:
      sampler: "grid" (every point), "tpe" (top-1) or "nsga2" (top-1 and multiply-adds).
      prunes: whether a run whose validations are below the median of those before it is ended early.
      population: points of a generation of nsga2.
      seed: of the sampler.
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
        """Names of what is told."""
        return ("top-1", "GFLOPs") if self.sampler == "nsga2" else ("top-1",)

    def at(self, number: int) -> BaseSampler:
        """The sampler for a trial; made anew for each, so that none depends on how often a process was started."""
        seed = trial_store.derived_seed(self.seed, number)
        if self.sampler == "tpe":
            return TPESampler(n_startup_trials=STARTUP, seed=seed)
        if self.sampler == "nsga2":
            return NSGAIISampler(population_size=self.population, seed=seed)
        return RandomSampler(seed=seed)

    @property
    def pruner(self) -> MedianPruner | NopPruner:
        """The pruner."""
        if not self.prunes:
            return NopPruner()
        return MedianPruner(PRUNED_AFTER, PRUNED_FROM, n_min_trials=PRUNED_AFTER)


class Trained(Protocol):
    """What came of carrying out a run; :class:`harness.scheduler.orchestrator.Outcome` is one."""

    @property
    def event(self) -> Mapping[str, Any]:
        """The last event."""

    @property
    def failure(self) -> str:
        """One line where it failed; empty otherwise."""

    @property
    def ended_by_watch(self) -> bool:
        """Whether it was ended at a validation."""


Watch = Callable[[Mapping[str, Any]], str | None]
# Trains and evaluates what is missing of a point's run, under a name for people to read.
Carry = Callable[[Point, str, Watch | None], Trained]


@dataclasses.dataclass
class Search:
    """One sweep while it is searched.

    Attributes:
      study: Optuna's study.
      sweep: the points and what they cost.
      strategy: how they are chosen.
      store: the records.
      carry: trains a point.
      say: is told a line for each trial that is not trained, or not to its end.
      trials: points to train; None for every point of a grid.
      workers: who is at which trial.
      wait: waits a little for what other workers are at; raises where this one is asked to stop.
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
        """Goes on with the sweep until it has trained as many points as it may, or all; a line for each failure.

        A point whose worker was killed, or gave it back, is taken up, one that failed before is tried once more, and
        what `results/` holds is told first. What other workers are at is waited for.
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

    def _tried(self) -> list[Tried]:
        return trial_store.trials(self.study)

    def _next(self) -> tuple[optuna.Trial, Point] | None:
        """The next trial to train, with its point; None at the sweep's end, once nobody is at a point of it."""
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
        """The next trial, this worker's; None where nothing is left to ask."""
        if left := self.workers.left(self._tried()):
            return self.workers.take(trial_store.live(self.study, left[0].number))
        self.workers.fail_silent()
        found = self._tried()
        if any(one.state == "waiting" for one in found):  # a process was killed before it took them
            return self._ask()
        if silent := self._silent(found):
            return self._ask_again(silent[0])
        if self._first is None:
            self._first, self._listed = [*self._untold(found), *self._failed_before(found)], len(found)
        while self._first:
            run_id, params = self._first.pop(0)
            if not any(one.run == run_id for one in found[self._listed :]):  # another worker has asked it meanwhile
                return self._ask(params)
        return self._proposed(found)

    def _silent(self, found: list[Tried]) -> list[Tried]:
        """Trials that were given up since their workers fell silent, and were not asked again."""
        last = {one.run: one for one in found if one.run and one.source != REPEATED}
        return [
            one
            for one in last.values()
            if one.state == "fail" and one.source in ("", TRAINED) and not one.reason
            if self.sweep.space.holds(one.params)
        ]

    def _untold(self, found: list[Tried]) -> Iterator[tuple[str, Params]]:
        """Runs, with their points, within the limits that have a record and no trial."""
        told = {one.run for one in found}
        for run_id in self.store.ids():
            if run_id in told:
                continue
            try:
                record = self.store.read(run_id)
            except RecordError:
                continue  # named where its point is proposed
            point = self.sweep.of_record(record)
            if point and not self.sweep.limits.reason(point) and point.run.protocol.name in record.evaluations:
                yield run_id, point.params

    def _failed_before(self, found: list[Tried]) -> list[tuple[str, Params]]:
        """Runs, with their points, whose last trial failed before this process."""
        last = {one.run: one for one in found if one.run and one.source in (TRAINED, RECORDED)}
        now = self._failed(found)
        return [(run_id, one.params) for run_id, one in last.items() if one.state == "fail" and run_id not in now]

    def _failed(self, found: list[Tried]) -> dict[str, str]:
        """Id of a run -> why it failed, here or with another worker, since this process began."""
        failed: dict[str, str] = {}
        for one in found:
            if one.state in ("complete", "pruned"):
                failed.pop(one.run, None)
            elif (one.number >= self._begun or one.number in self._taken) and _went_wrong(one):
                failed[one.run] = one.reason
        return failed

    def _ask(self, params: Params | None = None) -> optuna.Trial:
        """A trial at a point, or where the sampler wants one."""
        if params is not None:
            self.study.enqueue_trial(dict(params))
        self.study.sampler = self.strategy.at(len(self._tried()))
        trial = self.workers.take(self.study.ask(trial_store.distributions(self.sweep.space)))
        if self.strategy.sampler == "nsga2":
            _ = trial.relative_params  # a point that was not the sampler's joins its generation only when it is asked
        return trial

    def _ask_again(self, silent: Tried) -> optuna.Trial:
        """A trial that goes on with one that was given up."""
        trial = self._ask(silent.params)
        for percent, top1 in silent.reports.items():
            trial.report(top1, percent)
        if silent.source:
            trial.set_user_attr(trial_store.SOURCE, silent.source)
        return trial

    def _proposed(self, found: list[Tried]) -> optuna.Trial | None:
        """The next trial of a sweep that has nothing to catch up with; None where it is at its end."""
        known = {one.run for one in found if one.run}
        if self.strategy.sampler == "grid":
            left = (params for params in self.sweep.space.points() if self.sweep.at(params).run.id not in known)
            params = next(left, None)
            return None if params is None else self._ask(params)
        if self.trials is not None and self._spent(found) >= self.trials:
            return None
        if self._idle < _IDLE and not self._all_known(known):
            return self._ask()
        generator = np.random.default_rng(trial_store.derived_seed(self.strategy.seed, len(found)))
        point = self.sweep.draw(generator, lambda one: one.run.id in known)
        if point is None:
            if not self.workers.others(found):
                self.say("No point is left within the limits that was not tried.")
            return None
        return self._ask(point.params)

    def _spent(self, found: list[Tried]) -> int:
        """Points that were trained, or are being trained; what failed before this process does not count."""
        trained = {one.run for one in found if one.source == TRAINED and one.state != "fail"}
        return len(trained | set(self._failed(found)))

    def _all_known(self, known: set[str]) -> bool:
        size = self.sweep.space.size
        return size is not None and len(known) >= size

    def _settled(self, trial: optuna.Trial) -> Point | None:
        """Tells a trial what is known of its point; its point where it has to be trained."""
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
        """Whether a trial could be told without training: it costs too much, is recorded, or was tried before."""
        name, found = _name(trial, point), self._tried()
        if reason := self.sweep.limits.reason(point):
            self._end(trial, TURNED_AWAY, TrialState.PRUNED, reason)
            self.say(f"{name}: turned away, {reason}")
            return True
        same = [one for one in found if one.run == point.run.id and one.number != trial.number]
        record = self._record(point)
        if record is not None:
            before = any(one.state in ("complete", "running") for one in same)
            self._tell_record(trial, record, point, REPEATED if before else RECORDED)
            self.say(f"{name}: recorded already, top-1 {100 * _top1(record, point):.1f} %")
            return True
        reason = self._failed(found).get(point.run.id, "")
        if at_it := self.workers.others(same):
            reason = f"trial {at_it[0].number} is at it"
        if reason:
            self._end(trial, REPEATED, TrialState.FAIL, reason)
            return True
        return self._pruned_before(trial, point, name)

    def _pruned_before(self, trial: optuna.Trial, point: Point, name: str) -> bool:
        for one in self._tried():
            if one.run == point.run.id and one.state == "pruned" and one.source == TRAINED:
                for percent, top1 in one.reports.items():
                    trial.report(top1, percent)
                self._end(trial, REPEATED, TrialState.PRUNED, one.reason)
                self.say(f"{name}: was pruned before, as trial {one.number}")
                return True
        return False

    def _record(self, point: Point) -> RunRecord | None:
        """The point's record, its evaluation under the run's protocol in it; None where there is none.

        A damaged one is left to what carries the run out, which names it.
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
        if (record := self._record(point)) is not None:  # trained by the process that was killed
            told(lambda: self._tell_record(trial, record, point, TRAINED))
            return
        if reason := watch.verdict(frozen.last_step):  # killed between the verdict and its telling
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
        """Tells a trial what its run's record says."""
        if source == RECORDED and len(self.strategy.objectives) == 1:  # one told again would count twice in the median
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
    """Reports a run's validations to its trial, and says when to end it.

    Args:
      trial: the trial.
      point: its point.
      known: percents of the schedule that were reported by an earlier process.
      strategy: how points are chosen.
      patient: asks the storage again while it does not answer.
    """

    def __init__(
        self, trial: optuna.Trial, point: Point, known: set[int], strategy: Strategy, patient: Patience
    ) -> None:
        self._trial, self._point, self._known, self._strategy = trial, point, known, strategy
        self._patient = patient

    def __call__(self, event: Mapping[str, Any]) -> str | None:
        """After a validation: the reason to end the run, None to go on."""
        percent = reached(event["done"], event["total"])
        if percent == 0 or percent in self._known:
            return None
        self._known.add(percent)
        try:
            self._patient(lambda: self._trial.report(event["top1"], percent))
        except UpdateFinishedTrialError:  # given up while this worker was silent: whoever has it now decides
            return None
        return self.verdict(percent, event)

    def verdict(self, percent: int | None, event: Mapping[str, Any] | None = None) -> str | None:
        """The same, of what was reported by now."""
        if percent is None or percent >= 100 or not self._strategy.prunes:
            return None
        if not self._patient(self._trial.should_prune):
            return None
        top1 = f", top-1 {100 * event['top1']:.1f} %" if event else ""
        return f"pruned after {percent} % of its schedule{top1}, below the median of the points before it there"


def validations(record: RunRecord) -> dict[int, float]:
    """Percent of the schedule -> validation top-1, where a record has a validation just at one of its parts."""
    total = int(record.cost["train_steps"])
    interval = -(-total // PARTS)
    points = {int(point["step"]): point["top1"] for point in record.curve if point["split"] == "validation"}
    return {reached(step, total): top1 for step, top1 in points.items() if step % interval == 0 or step == total}


def _went_wrong(one: Tried) -> bool:
    return one.state == "fail" and one.source == TRAINED and bool(one.reason)


def _top1(record: RunRecord, point: Point) -> float:
    return record.evaluations[point.run.protocol.name].top1


def _name(trial: optuna.Trial, point: Point) -> str:
    return f"trial {trial.number}: {' '.join(f'{key}={_value(value)}' for key, value in point.params.items())}"


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
