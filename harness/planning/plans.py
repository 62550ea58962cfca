"""A study -> the runs it wants, what of them is done, and what the rest costs; nothing here trains."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Container, Iterator, Mapping, Sequence

from harness.config import network, slices
from harness.config.experiment import Run, SettingsError
from harness.config.studies import Cell, Row, Study
from harness.store import excerpts
from harness.store.attempts import State

# Bytes of a float32 number in a checkpoint.
_BYTES = 4


@dataclasses.dataclass(frozen=True)
class Planned:
    """One distinct run of a study.

    Attributes:
      run: the run.
      rows: names of the rows that want it, or a run that starts from it: "3", and where there are several studies
        "reverse 3".
      done: whether its record exists.
      evaluated: whether its record holds the wanted protocol, or there is none to hold.
      state: where it stands.
      fault: why it cannot be carried out, or its record not be used: one line; empty where it can.
    """

    run: Run
    rows: tuple[str, ...]
    done: bool
    evaluated: bool
    state: State = State("waiting")
    fault: str = ""

    @property
    def multiply_adds(self) -> int:
        """Of one evaluation view."""
        return network.count(self.run.settings).multiply_adds

    @property
    def params(self) -> int:
        """Number of weights."""
        return network.count(self.run.settings).params

    @property
    def checkpoint(self) -> int:
        """Bytes of one checkpoint: weights, their momentum, and their average where there is one."""
        averaged = self.run.settings["trainer.optimizer_config.ema"] is not None
        return _BYTES * self.params * (3 if averaged else 2)

    @property
    def weights(self) -> int:
        """Bytes of what is kept of it once it is done."""
        return _BYTES * self.params

    @property
    def peak(self) -> int:
        """Bytes of its checkpoints while it trains: one more than are kept, since the next is written first."""
        return self.checkpoint * (int(self.run.bookkeeping["trainer.max_to_keep"]) + 1)

    @property
    def work(self) -> int:
        """Multiply-adds still to be done: training unless it is done, and the evaluation unless it is."""
        protocol = self.run.protocol
        videos = protocol.videos or self.run.data.validation_videos
        views = protocol.clips * protocol.crops * videos * self.multiply_adds
        training = 0 if self.done else network.training(self.run.settings)
        return training + (views if self.run.evaluated and not self.evaluated else 0)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What one study wants, or several together: a run that two of them want is in it once.

    Attributes:
      studies: the studies, each with a name of its own.
      runs: the distinct runs, in the order of the studies and their rows; each after the one that it starts from.
      wanted: name of a study -> row number -> seed -> id of the run; of a chain, its last.
    """

    studies: tuple[Study, ...]
    runs: tuple[Planned, ...]
    wanted: Mapping[str, Mapping[int, Mapping[int, str]]]

    @property
    def protocols(self) -> dict[str, str]:
        """Id of a run -> name of the protocol that it is evaluated under."""
        return {one.run.id: one.run.protocol.name for one in self.runs}

    def refuse_mixed_protocols(self) -> None:
        """Refuses a study whose rows are evaluated in different ways: their numbers cannot stand in one column.

        Raises:
          SettingsError: naming the study and the protocols. A study may say that the size of its crops differs.
        """
        protocols = {one.run.id: one.run.protocol for one in self.runs}
        for study in self.studies:
            wanted = {protocols[run_id] for own in self.wanted[study.name].values() for run_id in own.values()}
            kinds = {dataclasses.replace(one, size=0) if study.crops_differ else one for one in wanted}
            if len(kinds) > 1:
                names = ", ".join(sorted(one.name for one in wanted))
                raise SettingsError(f"{study.name}: rows under different protocols cannot share a table: {names}")

    def only(self, numbers: Sequence[int]) -> Plan:
        """The plan of some rows of its one study.

        Raises:
          ToggleError: a number that is no row of the study.
        """
        (study,) = self.studies
        chosen = study.only(numbers)
        wanted = {study.name: {row.number: self.wanted[study.name][row.number] for row in chosen.rows}}
        ids = set(_ids(wanted))
        ids = {link.id for one in self.runs if one.run.id in ids for link in one.run.chain}
        return Plan((chosen,), tuple(one for one in self.runs if one.run.id in ids), wanted)

    @property
    def count(self) -> int:
        """How many runs the rows want, with those that they start from, each counted as often as it is wanted."""
        return sum(self.times.values())

    @property
    def times(self) -> Mapping[str, int]:
        """Id of a run -> how often rows want it, or one that starts from it."""
        chains = {one.run.id: one.run.chain for one in self.runs}
        return collections.Counter(link.id for run_id in _ids(self.wanted) for link in chains[run_id])

    @property
    def missing(self) -> tuple[Planned, ...]:
        """Runs that are still to be trained or evaluated."""
        open_ = [one for one in self.runs if not (one.fault or (one.done and one.evaluated))]
        asked = set(_ids(self.wanted))
        asked |= {one.run.id for one in open_ if one.run.evaluated}
        # A stage that is only started from is needed while something is to start from it.
        done = {one.run.id for one in self.runs if one.done}
        needed = asked | {run_id for one in open_ if one.run.id in asked for run_id in _awaited(one.run, done)}
        return tuple(one for one in open_ if one.run.id in needed)

    @property
    def faulty(self) -> tuple[Planned, ...]:
        """Runs that cannot be carried out, or whose record cannot be used."""
        return tuple(one for one in self.runs if one.fault)

    @property
    def shared(self) -> int:
        """How many runs the rows have in common: wanted less distinct."""
        return self.count - len(self.runs)

    def disk(self, held: Mapping[str, int]) -> int:
        """Bytes of checkpoints at most while it trains: the run that trains, and what those done by then leave.

        Args:
          held: id of a run -> bytes that its checkpoints take already.
        """
        left, most = 0, 0
        for one in self.missing:
            if not one.done:
                most = max(most, left + one.peak + one.weights - held.get(one.run.id, 0))
                left += one.weights - held.get(one.run.id, 0)
        return most

    @property
    def kept(self) -> int:
        """Bytes of weights that are left in the end."""
        return sum(one.weights for one in self.missing if not one.done)

    @property
    def tpu_v3_core_hours(self) -> float:
        """Lower bound for what is missing."""
        return tpu_v3_core_hours(sum(one.work for one in self.missing))


def _awaited(run: Run, done: Container[str]) -> Iterator[str]:
    """Ids of the runs that have to be trained before a run can start."""
    while run.id not in done and (start := run.start) is not None and start.id not in done:
        yield start.id
        run = start


def _ids(wanted: Mapping[str, Mapping[int, Mapping[int, str]]]) -> list[str]:
    return [run_id for rows in wanted.values() for own in rows.values() for run_id in own.values()]


@dataclasses.dataclass(frozen=True)
class RunKnowledge:
    """What is known of a run before it is planned.

    Attributes:
      protocols: names of the protocols its record holds; None where there is no record.
      state: where it stands.
      fault: why it cannot be carried out, or its record not be used.
    """

    protocols: frozenset[str] | None = None
    state: State = State("waiting")
    fault: str = ""


def plan(
    studies: Sequence[Study],
    seeds: Sequence[int],
    complete: Callable[[Study, Cell], Run],
    known: Callable[[Run], RunKnowledge] = lambda _: RunKnowledge(),
    recorded: Callable[[str], Mapping[int, str]] = lambda _: {},
) -> Plan:
    """The plan of some studies together.

    Args:
      studies: the studies, each with a name of its own.
      seeds: each row is trained once with each, unless it has seeds of its own.
      complete: study and cell -> run with its settings; asked once for each row.
      known: run -> what is known of it.
      recorded: kind of a run, as :func:`harness.store.excerpts.kind` gives it -> seed -> identity, where records say
        it: these are not counted anew.
    """
    runs: dict[str, Run] = {}
    names: dict[str, list[str]] = {}
    wanted: dict[str, dict[int, dict[int, str]]] = {study.name: {} for study in studies}
    for study in studies:
        for row in study.rows:
            own = _with_seeds(study, row, seeds if row.seeds is None else row.seeds, complete, recorded)
            wanted[study.name][row.number] = {seed: run.id for seed, run in own.items()}
            for run in (link for one in own.values() for link in one.chain):
                if run.id not in runs or run.evaluated:  # one row may start from what another shows
                    runs[run.id] = run
                names.setdefault(run.id, []).append(_name(study, row, alone=len(studies) == 1))
    # Every run after the one that it starts from, so that its fault is known.
    planned: dict[str, Planned] = {}
    for run_id, run in runs.items():
        planned[run_id] = _planned(run, tuple(names[run_id]), known(run), planned)
    return Plan(tuple(studies), tuple(planned.values()), wanted)


def _with_seeds(
    study: Study,
    row: Row,
    seeds: Sequence[int],
    complete: Callable[[Study, Cell], Run],
    recorded: Callable[[str], Mapping[int, str]],
) -> dict[int, Run]:
    """Seed -> run of a row."""
    if not seeds:
        return {}
    first = complete(study, row.cell(seeds[0]))
    if len(seeds) == 1:
        return {seeds[0]: first}
    # Runs of a chain differ in more than their seed: in the run that they start from.
    identities = recorded(excerpts.kind(first)) if first.start is None else {}
    return {seed: excerpts.seeded(first, seed, identities.get(seed)) for seed in seeds}


def _name(study: Study, row: Row, alone: bool) -> str:
    return str(row.number) if alone else f"{study.name} {row.number}"


def _planned(run: Run, rows: tuple[str, ...], known: RunKnowledge, before: Mapping[str, Planned]) -> Planned:
    evaluated = not run.evaluated or run.protocol.name in (known.protocols or frozenset())
    done, fault = known.protocols is not None, known.fault
    if run.start is not None and not done and not fault and (lost := before[run.start.id].fault):
        fault = f"starts from run {run.start.id[:8]}: {lost}"
    return Planned(run, rows, done, evaluated, known.state, fault)


def tpu_v3_core_hours(multiply_adds: float) -> float:
    """Core-hours that some work takes at least on what the paper trained on: every core at its peak all the time."""
    return 2 * multiply_adds / slices.load("v3").peak / 3600


def rate(seconds: Sequence[float], work: Sequence[float]) -> float | None:
    """Multiply-adds per second over runs that were measured, None where none was."""
    total = sum(seconds)
    return sum(work) / total if total > 0 else None
