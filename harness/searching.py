"""Asks Optuna for points, has trained what must be, and tells it what came of each; training never sees a trial."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, Protocol

import numpy as np
import optuna
from optuna.pruners import MedianPruner, NopPruner
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import TrialState

from harness import sweep_storage as storing
from harness.records import RecordError, RunRecord
from harness.store import Store
from harness.sweep_storage import ABANDONED, RECORDED, REPEATED, TRAINED, TURNED_AWAY, SweepError, Tried
from harness.sweeping import PARTS, Params, Point, Sweep, reached

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
        seed = storing.derived_seed(self.seed, number)
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
    """What came of carrying out a run; :class:`harness.conducting.Outcome` is one."""

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
      protocol: point -> name of the protocol that its top-1 is read under.
      carry: trains a point.
      say: is told a line for each trial that is not trained, or not to its end.
      trials: points to train; None for every point of a grid.
    """

    study: optuna.Study
    sweep: Sweep
    strategy: Strategy
    store: Store
    carry: Carry
    say: Callable[[str], None]
    trials: int | None
    failures: list[str] = dataclasses.field(default_factory=list)
    _failed: dict[str, str] = dataclasses.field(default_factory=dict)
    _idle: int = 0

    def __post_init__(self) -> None:
        self.study.pruner = self.strategy.pruner
        self._owner = storing.owner(self.store.root)

    def run(self) -> list[str]:
        """Goes on with the sweep until it has trained as many points as it may, or all; a line for each failure.

        A point whose process was killed is taken up, one that failed is tried once more, and what `results/` holds is
        told first.
        """
        for one in self._left_running():
            self._settle(storing.live(self.study, one.number))
        while any(one.state == "waiting" for one in self._tried()):  # a process was killed before it took them
            self._settle(self._ask())
        for params in [*self._untold(), *self._failed_before()]:
            self._settle(self._ask(params))
        while (trial := self._next()) is not None:
            self._settle(trial)
        return self.failures

    def _tried(self) -> list[Tried]:
        return storing.trials(self.study)

    def _left_running(self) -> list[Tried]:
        """Trials that a process began here and did not end: none is at them, since this one has locked the folder."""
        return [one for one in self._tried() if one.state == "running" and one.owner in ("", self._owner)]

    def _untold(self) -> Iterator[Params]:
        """Points within the limits that have a record and no trial."""
        told = {one.run for one in self._tried()}
        for run_id in self.store.ids():
            if run_id in told:
                continue
            try:
                record = self.store.read(run_id)
            except RecordError:
                continue  # named where its point is proposed
            point = self.sweep.of_record(record)
            if point and not self.sweep.limits.reason(point) and point.run.protocol.name in record.evaluations:
                yield point.params

    def _failed_before(self) -> list[Params]:
        """Points whose last trial failed, in an earlier process."""
        last = {one.run: one for one in self._tried() if one.run and one.source == TRAINED}
        return [one.params for one in last.values() if one.state == "fail"]

    def _ask(self, params: Params | None = None) -> optuna.Trial:
        """A trial at a point, or where the sampler wants one."""
        if params is not None:
            self.study.enqueue_trial(dict(params))
        self.study.sampler = self.strategy.at(len(self._tried()))
        trial = self.study.ask(storing.distributions(self.sweep.space))
        trial.set_user_attr(storing.OWNER, self._owner)
        if self.strategy.sampler == "nsga2":
            _ = trial.relative_params  # a point that was not the sampler's joins its generation only when it is asked
        return trial

    def _next(self) -> optuna.Trial | None:
        """The next trial; None where the sweep is at its end."""
        found = self._tried()
        known = {one.run for one in found if one.run and one.state != "running"}
        if self.strategy.sampler == "grid":
            left = (params for params in self.sweep.space.points() if self.sweep.at(params).run.id not in known)
            params = next(left, None)
            return None if params is None else self._ask(params)
        if self.trials is not None and self._spent(found) >= self.trials:
            return None
        if self._idle < _IDLE and not self._all_known(known):
            return self._ask()
        generator = np.random.default_rng(storing.derived_seed(self.strategy.seed, len(found)))
        point = self.sweep.draw(generator, lambda one: one.run.id in known)
        if point is None:
            self.say("No point is left within the limits that was not tried.")
            return None
        return self._ask(point.params)

    def _spent(self, found: list[Tried]) -> int:
        """Points that were trained, or are being trained; what failed in an earlier process does not count."""
        trained = {one.run for one in found if one.source == TRAINED and one.state != "fail"}
        return len(trained | set(self._failed))

    def _all_known(self, known: set[str]) -> bool:
        size = self.sweep.space.size
        return size is not None and len(known) >= size

    def _settle(self, trial: optuna.Trial) -> None:
        """Tells a trial what came of its point."""
        params = dict(trial.params)
        if not self.sweep.space.holds(params):
            trial.set_user_attr(storing.SOURCE, ABANDONED)
            self.study.tell(trial, state=TrialState.FAIL)
            return
        point = self.sweep.at(params)
        trial.set_user_attr(storing.RUN, point.run.id)
        trial.set_user_attr(storing.SCHEDULE, point.steps)
        trial.set_user_attr(storing.GFLOPS, point.gflops)
        for name, amount in self.sweep.limits.over(point).items():
            trial.set_constraint(name, amount)
        trained = trial.user_attrs.get(storing.SOURCE) == TRAINED
        if not trained and self._answered(trial, point):
            self._idle += 1
            return
        self._idle = 0
        trial.set_user_attr(storing.SOURCE, TRAINED)
        self._train(trial, point)

    def _answered(self, trial: optuna.Trial, point: Point) -> bool:
        """Whether a trial could be told without training: it costs too much, is recorded, or was tried before."""
        name = _name(trial, point)
        if reason := self.sweep.limits.reason(point):
            self._end(trial, TURNED_AWAY, TrialState.PRUNED, reason)
            self.say(f"{name}: turned away, {reason}")
            return True
        record = self._record(point)
        if record is not None:
            before = any(one.run == point.run.id and one.number != trial.number for one in self._tried())
            self._tell_record(trial, record, point, REPEATED if before else RECORDED)
            self.say(f"{name}: recorded already, top-1 {100 * _top1(record, point):.1f} %")
            return True
        if point.run.id in self._failed:
            self._end(trial, REPEATED, TrialState.FAIL, self._failed[point.run.id])
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
        name = _name(trial, point)
        frozen = self.study.get_trials(deepcopy=False)[trial.number]
        watch = _Watch(trial, point, set(frozen.intermediate_values), self.strategy)
        if (record := self._record(point)) is not None:  # trained by the process that was killed
            self._tell_record(trial, record, point, TRAINED)
            return
        if reason := watch.verdict(frozen.last_step):  # killed between the verdict and its telling
            self._prune(trial, point, reason)
            self.say(f"{name}: {reason}")
            return
        outcome = self.carry(point, name, watch if len(self.strategy.objectives) == 1 else None)
        if outcome.failure:
            self.failures.append(outcome.failure)
            self._failed[point.run.id] = outcome.failure
            trial.set_user_attr(storing.STEPS, self.store.state(point.run.id).step)
            self._end(trial, TRAINED, TrialState.FAIL, outcome.failure)
        elif outcome.ended_by_watch:
            self._prune(trial, point, str(outcome.event["reason"]))
        else:
            self._tell_record(trial, self.store.checked(point.run.id), point, TRAINED)

    def _prune(self, trial: optuna.Trial, point: Point, reason: str) -> None:
        trial.set_user_attr(storing.STEPS, self.store.state(point.run.id).step)
        self._end(trial, TRAINED, TrialState.PRUNED, reason)
        self.store.attempts(point.run.id).keep_furthest()

    def _tell_record(self, trial: optuna.Trial, record: RunRecord, point: Point, source: str) -> None:
        """Tells a trial what its run's record says."""
        if source == RECORDED and len(self.strategy.objectives) == 1:  # one told again would count twice in the median
            for percent, top1 in validations(record).items():
                trial.report(top1, percent)
        trial.set_user_attr(storing.SOURCE, source)
        trial.set_user_attr(storing.STEPS, point.steps if source == TRAINED else 0)
        values = [_top1(record, point), point.gflops][: len(self.strategy.objectives)]
        self.study.tell(trial, values)

    def _end(self, trial: optuna.Trial, source: str, state: TrialState, reason: str) -> None:
        trial.set_user_attr(storing.SOURCE, source)
        trial.set_user_attr(storing.REASON, reason)
        self.study.tell(trial, state=state)


class _Watch:
    """Reports a run's validations to its trial, and says when to end it.

    Args:
      trial: the trial.
      point: its point.
      known: percents of the schedule that were reported by an earlier process.
      strategy: how points are chosen.
    """

    def __init__(self, trial: optuna.Trial, point: Point, known: set[int], strategy: Strategy) -> None:
        self._trial, self._point, self._known, self._strategy = trial, point, known, strategy

    def __call__(self, event: Mapping[str, Any]) -> str | None:
        """After a validation: the reason to end the run, None to go on."""
        percent = reached(event["done"], event["total"])
        if percent == 0 or percent in self._known:
            return None
        self._known.add(percent)
        self._trial.report(event["top1"], percent)
        return self.verdict(percent, event)

    def verdict(self, percent: int | None, event: Mapping[str, Any] | None = None) -> str | None:
        """The same, of what was reported by now."""
        if percent is None or percent >= 100 or not self._strategy.prunes or not self._trial.should_prune():
            return None
        top1 = f", top-1 {100 * event['top1']:.1f} %" if event else ""
        return f"pruned after {percent} % of its schedule{top1}, below the median of the points before it there"


def validations(record: RunRecord) -> dict[int, float]:
    """Percent of the schedule -> validation top-1, where a record has a validation just at one of its parts."""
    total = int(record.cost["train_steps"])
    interval = -(-total // PARTS)
    points = {int(point["step"]): point["top1"] for point in record.curve if point["split"] == "validation"}
    return {reached(step, total): top1 for step, top1 in points.items() if step % interval == 0 or step == total}


def _top1(record: RunRecord, point: Point) -> float:
    return record.evaluations[point.run.protocol.name].top1


def _name(trial: optuna.Trial, point: Point) -> str:
    return f"trial {trial.number}: {' '.join(f'{key}={_value(value)}' for key, value in point.params.items())}"


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
