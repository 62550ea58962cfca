"""Records -> the sections of a report: every study under every training that was recorded, beside the paper."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from ablations import profiles
from ablations.datasets import DATASETS, GENERATED
from harness.analysis import evidence, explain, published
from harness.analysis import trainings as trainings_
from harness.analysis.study_summary import Summary
from harness.config import experiment
from harness.config.devices import Devices
from harness.config.experiment import Cut
from harness.config.studies import Cell, Study
from harness.config.toggles import suggest
from harness.planning import workspace as workspace_
from harness.planning.plans import Plan
from harness.planning.workspace import DataSet, Workspace
from harness.reporting import architecture_table, curve_figure, layouts, paper_tables, study_tables
from harness.reporting.pages import Section
from harness.store import excerpts
from harness.store.run_store import Store


@dataclasses.dataclass(frozen=True)
class Part:
    """A section that is not drawn yet.

    Attributes:
      draw: draws it.
      runs: of how many runs, which tells how long that takes.
    """

    draw: Callable[[], Section]
    runs: int = 0


def papers_own(store: Store) -> Workspace:
    """The paper's training on the paper's data sets, which a study is shown under while nothing of it was run."""
    first, *further = workspace_.papers()
    return Workspace(
        profiles.PAPER, first, Cut(), profiles.PAPER.replicas, store, Devices(), further=tuple(further),
        pre_training=workspace_.papers_pre_training(),
    )  # fmt: skip


def architectures() -> Section:
    """The paper's Table 1, from the settings of R3D-RS-50."""
    from ablations.toggles import R3D_RS

    run = experiment.complete(Cell(R3D_RS), profiles.PAPER, DATASETS["Kinetics-400"])
    return Section("Table 1", {"table1": architecture_table.architecture(run)}, number="1")


@dataclasses.dataclass(frozen=True)
class Chosen:
    """What a section of a study is drawn from.

    Attributes:
      study: the study.
      workspace: the training.
      seeds: of its runs.
      note: what is to be said of runs that are left out; empty where there are none.
      run_ids: of the finished runs.
      flags: what tells the training from others that the study was run under; empty where there are none.
    """

    study: Study
    workspace: Workspace
    seeds: tuple[int, ...]
    note: str
    run_ids: tuple[str, ...] = ()
    flags: str = ""


def chosen(study: Study, trainings: Mapping[str, Workspace], store: Store) -> list[Chosen]:
    """What the sections of a study are drawn from: each training that has a finished run of it.

    Where none has, it is the paper's training, to be shown with the paper's numbers.

    Args:
      study: the study.
      trainings: flags that tell a training from others -> its workspace.
      store: the records.
    """
    every = {flags: chosen_of(study, workspace) for flags, workspace in fitting(study, trainings).items()}
    found = {flags: one for flags, one in every.items() if one.seeds}
    if len(found) > 1:
        return [dataclasses.replace(one, flags=flags) for flags, one in found.items()]
    notes = " ".join(dict.fromkeys(one.note for one in every.values() if one.note))
    return [*found.values()] or [Chosen(study, papers_own(store), (0,), notes)]


def fitting(study: Study, trainings: Mapping[str, Workspace]) -> dict[str, Workspace]:
    """The trainings that may be a study's; of a study on several data sets of the paper's, those on each as one."""
    own = {flags: workspace for flags, workspace in trainings.items() if fits(study, workspace)}
    if any(map(trainings_.pre_trains, study.rows)):
        own = trainings_.by_pre_training(study, own)
    if len(study.datasets) == 1:
        return own
    stand_ins = {flags: one for flags, one in own.items() if one.data.facts.name in GENERATED}
    alike: dict[Any, dict[str, Workspace]] = {}
    for flags, one in own.items():
        if flags not in stand_ins:
            alike.setdefault((one.profile.name, one.replicas, one.cut), {})[flags] = one
    return stand_ins | {flags: one for group in alike.values() for flags, one in _together(study, group)}


def _together(study: Study, group: Mapping[str, Workspace]) -> Iterator[tuple[str, Workspace]]:
    """Trainings that differ in their data alone as one, for a study on several; a missing set is the paper's."""
    known = [DATASETS[name] for name in study.datasets]
    found = [[flags for flags, one in group.items() if one.data.facts.classes == facts.classes] for facts in known]
    for choice in itertools.product(*(flags or [""] for flags in found)):
        there = {flags: group[flags] for flags in choice if flags}
        sets = [
            there[flags].data if flags else DataSet(facts, None, None, ready=False)
            for flags, facts in zip(choice, known, strict=True)
        ]
        named = {one.pre_training.facts: one.pre_training for one in there.values() if one.pre_training}
        used = [one for facts, one in named.items() if facts.fingerprint] or [*named.values()]
        if there and len(used) == 1:
            first = next(iter(there.values()))
            merged = dataclasses.replace(first, data=sets[0], further=tuple(sets[1:]), pre_training=used[0])
            yield " and ".join(there), merged


def fits(study: Study, workspace: Workspace) -> bool:
    """Whether a training's data set may be the study's: it is not another of the paper's, or another stand-in."""
    if workspace.data.facts.name in GENERATED:
        return workspace.data.facts.name == study.stand_in
    others = {facts.classes for name, facts in DATASETS.items() if name not in study.datasets}
    return workspace.data.facts.classes not in others


def chosen_of(study: Study, workspace: Workspace) -> Chosen:
    """The seeds that a study is drawn with: those that every row has which was begun; where there are none, all.

    Rows that have seeds of their own have no say, unless no other was begun.
    """
    found = _begun(study, workspace)
    begun = [set(found[row.number]) for row in study.rows if found[row.number] and row.seeds is None]
    begun = begun or [set(own) for own in found.values() if own]
    every = set[int]().union(*begun)
    shared = (set.intersection(*begun) if begun else every) or every
    left = sorted(every - shared)
    some = ", ".join(map(str, left[:5])) + (f" and {len(left) - 5} more" if len(left) > 5 else "")
    notes = [f"Seeds that not every row has are left out: {some}."] if left else []
    note = " ".join([*notes, *_without_start(study, workspace).values()])
    run_ids = tuple(run_id for own in found.values() for run_id in own.values())
    return Chosen(study, workspace, tuple(sorted(shared)), note, run_ids)


def _begun(study: Study, workspace: Workspace) -> dict[int, dict[int, str]]:
    """Number of a row -> seed -> id of its runs that have a record, told by all that decides a result."""
    given, store = workspace.given([study]), workspace.store
    kinds, unreadable = excerpts.by_kind(store.excerpts()), set(store.unreadable())
    seeds = {seed for own in kinds.values() for seed in own} if unreadable else set[int]()
    found = {}
    for row in study.rows:
        run = workspace.complete(row.cell(0), given(study, study.dataset_of(row)))
        if run.start is None:
            own = {seed: identity[:16] for seed, identity in kinds.get(excerpts.kind(run), {}).items()}
        else:  # whose seeds differ in the runs that they start from, too
            chains = {one.seed: excerpts.seeded(run, one.seed).id for one in store.excerpts() if one.parent}
            own = {seed: run_id for seed, run_id in chains.items() if store.has(run_id)}
        protocol = run.protocol.name
        own = {seed: run_id for seed, run_id in own.items() if protocol in store.excerpt(run_id).evaluations}
        # A record that cannot be read says nothing of itself, but its folder has the name of its run.
        ids = {seed: excerpts.seeded(run, seed).id for seed in seeds - set(own)}
        own |= {seed: run_id for seed, run_id in ids.items() if run_id in unreadable}
        found[row.number] = {seed: own[seed] for seed in own if row.seeds is None or seed in row.seeds}
    return found


def _without_start(study: Study, workspace: Workspace) -> dict[int, str]:
    """Number of a row -> a sentence on runs that may be its own, were it known what they started from."""
    given, said = workspace.given([study]), {}
    for row in filter(trainings_.pre_trains, study.rows):
        run = workspace.complete(row.cell(0), given(study, study.dataset_of(row)))
        lost = trainings_.without_start(run, workspace.store)
        if lost:
            said[row.number] = (
                f"Row {row.number}: run {', '.join(one.id[:8] for one in lost)} started from a run that has no record "
                "any more; what that was trained on cannot be known, and it is left out."
            )
    return said


def draw(one: Chosen, margin: float) -> Section:
    """A study under one training.

    Args:
      one: what it is drawn from.
      margin: see :class:`harness.analysis.study_summary.Evidence`.
    """
    study, workspace = one.study, one.workspace
    plan = workspace.plan([study], one.seeds)
    plan.refuse_mixed_protocols()
    numbers = evidence.summary(study, plan, evidence.evidence(workspace, plan, margin))
    name, layout = evidence.stem(workspace, study, len(one.seeds)), layouts.of(study)
    drawn = {name: layout.table(numbers)}
    if any(row.follows for row in study.rows) and numbers.rows["top1"].notna().any():
        drawn[f"{name}-steps"] = study_tables.steps(numbers)
    drawn = {own: dataclasses.replace(table, name=own) for own, table in drawn.items()}
    figures = {name: layout.figure(numbers), f"{name}-curves": _curves(numbers, plan, workspace)}
    return Section(
        title=_title(numbers, one.flags),
        tables=drawn,
        figures={own: figure for own, figure in figures.items() if figure is not None},
        values={f"{name}-flips": _csv(numbers.flips)} if len(numbers.flips) else {},
        note=one.note,
        number=_number(study),
        faults=tuple(f"{study.name}, row {', '.join(fault.rows)}: {fault.fault}" for fault in plan.faulty),
    )


def _number(study: Study) -> str:
    """What LaTeX calls its tables."""
    place = published.source(study.published)["table"].partition(";")[0] if study.published else study.name
    return place.removeprefix("Table ") if place.startswith("Table ") else f"of {place}"


def _csv(frame: pd.DataFrame) -> str:
    return str(frame.to_csv(index=False, lineterminator="\n"))


def _title(numbers: Summary, flags: str) -> str:
    of = published.source(numbers.study.published)["table"].partition(";")[0] if numbers.study.published else ""
    under = f"; {flags}" if flags else ""
    return f"{of or numbers.study.name}: {numbers.study.title} ({numbers.profile} profile{under})"


def _curves(numbers: Summary, plan: Plan, workspace: Workspace) -> Figure | None:
    """The training curves of a study's first seed; None where nothing is finished."""
    found, stages, usable = [], {}, {one.run.id for one in plan.runs if one.done and not one.fault}
    for row in numbers.study.rows:
        run_id = next(iter(plan.wanted[numbers.study.name][row.number].values()), "")
        if run_id in usable:
            label = f"{row.number}: {study_tables.change(row, numbers.study)}"
            found.append((label, workspace.store.read(run_id).curve))
            if len(row.stages) > 1:
                stages[label] = row.stages[-1].label
    if not found:
        return None
    caption = (
        "Training curves of the first seed. While it trains, a network is validated on one centre view of each video."
    )
    return curve_figure.curves(f"{numbers.study.title} ({numbers.profile} profile)", caption, found, stages)


def not_studied(name: str) -> Section:
    """A published table that no study asks for, with the paper's rows and "not run"."""
    source = published.source(name)
    table = paper_tables.comparison(name, published.load(name), source, None)
    return Section(source["table"].partition(";")[0], {name: table}, number=name.removeprefix("table"))


def report(
    studies: Sequence[Study],
    trainings: Mapping[str, Workspace],
    store: Store,
    margin: float,
    whole: bool,
    sweeps: Sequence[Section] = (),
) -> list[Part]:
    """The parts of a report, in the paper's order.

    Args:
      studies: which studies.
      trainings: as of :func:`chosen`.
      store: the records.
      margin: see :class:`harness.analysis.study_summary.Evidence`.
      whole: also Table 1, the tables that have no study, and the sweeps.
      sweeps: the sections of the scaling sweeps.
    """
    found = {study.name: chosen(study, trainings, store) for study in studies}
    store.look_at(run_id for own in found.values() for one in own for run_id in one.run_ids)
    parts: dict[str, list[Part]] = {
        name: [Part(functools.partial(draw, one, margin), len(one.run_ids)) for one in own]
        for name, own in found.items()
    }
    if not whole:
        return [part for own in parts.values() for part in own]
    asked = {study.published for study in studies}
    others = [name for name in published.names() if name not in asked and name.startswith("table")]
    parts |= {name: [Part(functools.partial(not_studied, name))] for name in others}
    order = sorted(parts, key=lambda name: (not name.startswith("table"), name))
    found_sweeps = [Part(functools.partial(_as_is, section)) for section in sweeps]
    return [Part(architectures), *(part for name in order for part in parts[name]), *found_sweeps]


def _as_is(section: Section) -> Section:
    return section


def explained(
    text: str, studies: Sequence[Study], trainings: Mapping[str, Workspace], margin: float
) -> explain.Explanation:
    """Where a number of a study's table comes from.

    Args:
      text: STUDY:ROW:COLUMN.
      studies: among these.
      trainings: as of :func:`chosen`; just one of them may have runs of the study.
      margin: see :class:`harness.analysis.study_summary.Evidence`.

    Raises:
      ExplainError: there is no such number, nothing of the study was run, or it was under several trainings.
    """
    of = explain.address(text)
    known = {study.name: study for study in studies}
    if of.study not in known:
        raise explain.ExplainError(f"{text}: unknown study {of.study!r}: {suggest(of.study, known)}")
    study = known[of.study]
    found = fitting(study, trainings)
    run = {flags: one for flags, workspace in found.items() if (one := chosen_of(study, workspace)).seeds}
    if not run and of.column.startswith("paper_"):
        run = {"": Chosen(study, papers_own(Store(Path())), (0,), "")}
    lost = {number: said for one in found.values() for number, said in _without_start(study, one).items()}
    if not run:
        raise explain.ExplainError("; ".join([f"{text}: nothing of {study.name} was run", *lost.values()]))
    if len(run) > 1:
        raise explain.ExplainError(f"{text}: was run under several trainings, say which: {'; '.join(run)}")
    (one,) = run.values()
    workspace = one.workspace
    workspace.store.look_at(one.run_ids)
    plan = workspace.plan([study], one.seeds)
    numbers = evidence.summary(study, plan, evidence.evidence(workspace, plan, margin))
    store = Store(workspace.store.root, workspace.store.elsewhere)
    said = explain.explain(numbers, plan.wanted[study.name], store, of)
    return dataclasses.replace(said, lines=(*said.lines, *([lost[of.row]] if of.row in lost else [])))
