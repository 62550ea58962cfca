"""The sections of a report, from the records: every study under every recorded training, beside the paper."""

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
from harness.config.experiment import Overrides
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
class ReportPart:
    """A section of a report before it is drawn.

    Attributes:
      draw: draws the section.
      runs: number of its runs, a measure of how long drawing takes.
    """

    draw: Callable[[], Section]
    runs: int = 0


def papers_own(store: Store) -> Workspace:
    """Returns the paper's training on the paper's data sets, under which a study is shown before anything was run."""
    first, *further = workspace_.papers()
    return Workspace(
        profiles.PAPER, first, Overrides(), profiles.PAPER.replicas, store, Devices(), further=tuple(further),
        pre_training=workspace_.papers_pre_training(),
    )  # fmt: skip


def architectures() -> Section:
    """Returns the section of the paper's Table 1, from the settings of R3D-RS-50."""
    from ablations.toggles import R3D_RS

    run = experiment.complete(Cell(R3D_RS), profiles.PAPER, DATASETS["Kinetics-400"])
    return Section("Table 1", {"table1": architecture_table.architecture(run)}, number="1")


@dataclasses.dataclass(frozen=True)
class SectionSource:
    """A study under one training, from which a section is drawn.

    Attributes:
      study: the study.
      workspace: the training.
      seeds: the seeds that are shown.
      note: sentences on runs that are left out; empty where there are none.
      run_ids: ids of the finished runs.
      flags: flags that tell the training from others with runs of the study; empty where there are no others.
    """

    study: Study
    workspace: Workspace
    seeds: tuple[int, ...]
    note: str
    run_ids: tuple[str, ...] = ()
    flags: str = ""


def chosen(study: Study, trainings: Mapping[str, Workspace], store: Store) -> list[SectionSource]:
    """Returns what the sections of a study are drawn from: each training that has a finished run of it.

    If there is none, returns the paper's training, whose section shows the paper's numbers.

    Args:
      study: the study.
      trainings: flags that tell a training from others -> its workspace.
      store: the records.
    """
    candidates = {flags: chosen_of(study, workspace) for flags, workspace in fitting(study, trainings).items()}
    with_runs = {flags: candidate for flags, candidate in candidates.items() if candidate.seeds}
    if len(with_runs) > 1:
        return [dataclasses.replace(candidate, flags=flags) for flags, candidate in with_runs.items()]
    notes = " ".join(dict.fromkeys(candidate.note for candidate in candidates.values() if candidate.note))
    return [*with_runs.values()] or [SectionSource(study, papers_own(store), (0,), notes)]


def fitting(study: Study, trainings: Mapping[str, Workspace]) -> dict[str, Workspace]:
    """Returns the trainings that a study may be shown under.

    For a study on several of the paper's data sets, trainings that differ only in the data set are merged into one.
    """
    candidates = {flags: training for flags, training in trainings.items() if fits(study, training)}
    if any(map(trainings_.pre_trains, study.rows)):
        candidates = trainings_.by_pre_training(study, candidates)
    if len(study.datasets) == 1:
        return candidates
    stand_ins = {flags: training for flags, training in candidates.items() if training.data.facts.name in GENERATED}
    alike: dict[Any, dict[str, Workspace]] = {}
    for flags, training in candidates.items():
        if flags not in stand_ins:
            alike.setdefault((training.profile.name, training.replicas, training.cut), {})[flags] = training
    return stand_ins | {flags: training for group in alike.values() for flags, training in _together(study, group)}


def _together(study: Study, group: Mapping[str, Workspace]) -> Iterator[tuple[str, Workspace]]:
    """Merges trainings that differ only in their data set; a missing data set is taken from the paper."""
    known = [DATASETS[name] for name in study.datasets]
    flags_of_each = [
        [flags for flags, workspace in group.items() if workspace.data.facts.classes == facts.classes]
        for facts in known
    ]
    for choice in itertools.product(*(flags or [""] for flags in flags_of_each)):
        present = {flags: group[flags] for flags in choice if flags}
        sets = [
            present[flags].data if flags else DataSet(facts, None, None, ready=False)
            for flags, facts in zip(choice, known, strict=True)
        ]
        named = {
            workspace.pre_training.facts: workspace.pre_training
            for workspace in present.values()
            if workspace.pre_training
        }
        pre_trainings = [workspace for facts, workspace in named.items() if facts.fingerprint] or [*named.values()]
        if present and len(pre_trainings) == 1:
            first = next(iter(present.values()))
            merged = dataclasses.replace(first, data=sets[0], further=tuple(sets[1:]), pre_training=pre_trainings[0])
            yield " and ".join(present), merged


def fits(study: Study, workspace: Workspace) -> bool:
    """Returns whether a study may use a training's data set: its own stand-in, or no other data set of the paper."""
    if workspace.data.facts.name in GENERATED:
        return workspace.data.facts.name == study.stand_in
    others = {facts.classes for name, facts in DATASETS.items() if name not in study.datasets}
    return workspace.data.facts.classes not in others


def chosen_of(study: Study, workspace: Workspace) -> SectionSource:
    """Chooses the seeds that a study is drawn with: those shared by all rows that were begun; all seeds if none is.

    Rows with seeds of their own are disregarded, unless no other row was begun.
    """
    runs_by_row = _begun(study, workspace)
    begun = [set(runs_by_row[row.number]) for row in study.rows if runs_by_row[row.number] and row.seeds is None]
    begun = begun or [set(runs) for runs in runs_by_row.values() if runs]
    every = set[int]().union(*begun)
    shared = (set.intersection(*begun) if begun else every) or every
    left = sorted(every - shared)
    listed = ", ".join(map(str, left[:5])) + (f" and {len(left) - 5} more" if len(left) > 5 else "")
    notes = [f"Seeds that not every row has are left out: {listed}."] if left else []
    note = " ".join([*notes, *_without_start(study, workspace).values()])
    run_ids = tuple(run_id for runs in runs_by_row.values() for run_id in runs.values())
    return SectionSource(study, workspace, tuple(sorted(shared)), note, run_ids)


def _begun(study: Study, workspace: Workspace) -> dict[int, dict[int, str]]:
    """Finds the recorded runs of each row, compared by all that decides a result: number of a row -> seed -> run id."""
    given, store = workspace.given([study]), workspace.store
    kinds, unreadable = excerpts.by_kind(store.excerpts()), set(store.unreadable())
    seeds = {seed for runs in kinds.values() for seed in runs} if unreadable else set[int]()
    runs_by_row = {}
    for row in study.rows:
        run = workspace.complete(row.cell(0), given(study, study.dataset_of(row)))
        if run.start is None:
            runs = {seed: identity[:16] for seed, identity in kinds.get(excerpts.kind(run), {}).items()}
        else:  # runs of other seeds also start from other runs
            chains = {
                excerpt.seed: excerpts.seeded(run, excerpt.seed).id for excerpt in store.excerpts() if excerpt.parent
            }
            runs = {seed: run_id for seed, run_id in chains.items() if store.has(run_id)}
        protocol = run.protocol.name
        runs = {seed: run_id for seed, run_id in runs.items() if protocol in store.excerpt(run_id).evaluations}
        # An unreadable record is recognised by its folder, which has the name of its run.
        ids = {seed: excerpts.seeded(run, seed).id for seed in seeds - set(runs)}
        runs |= {seed: run_id for seed, run_id in ids.items() if run_id in unreadable}
        runs_by_row[row.number] = {seed: runs[seed] for seed in runs if row.seeds is None or seed in row.seeds}
    return runs_by_row


def _without_start(study: Study, workspace: Workspace) -> dict[int, str]:
    """Returns a sentence for each row with runs that are left out since the record they started from is gone."""
    given, sentences = workspace.given([study]), {}
    for row in filter(trainings_.pre_trains, study.rows):
        run = workspace.complete(row.cell(0), given(study, study.dataset_of(row)))
        lost = trainings_.without_start(run, workspace.store)
        if lost:
            sentences[row.number] = (
                f"Row {row.number}: run {', '.join(record.id[:8] for record in lost)} started from a run that has no "
                "record any more; what that was trained on cannot be known, and it is left out."
            )
    return sentences


def draw(one: SectionSource, margin: float) -> Section:
    """Draws the section of a study under one training.

    Args:
      one: the study and the training.
      margin: see :class:`harness.analysis.study_summary.Evidence`.
    """
    study, workspace = one.study, one.workspace
    plan = workspace.plan([study], one.seeds)
    plan.refuse_mixed_protocols()
    numbers = evidence.summary(study, plan, evidence.evidence(workspace, plan, margin))
    name, layout = evidence.stem(workspace, study, len(one.seeds)), layouts.layout_of(study)
    drawn = {name: layout.table(numbers)}
    if any(row.follows for row in study.rows) and numbers.rows["top1"].notna().any():
        drawn[f"{name}-steps"] = study_tables.steps(numbers)
    drawn = {file_name: dataclasses.replace(table, name=file_name) for file_name, table in drawn.items()}
    figures = {name: layout.figure(numbers), f"{name}-curves": _curves(numbers, plan, workspace)}
    return Section(
        title=_title(numbers, one.flags),
        tables=drawn,
        figures={file_name: figure for file_name, figure in figures.items() if figure is not None},
        values={f"{name}-flips": _csv(numbers.flips)} if len(numbers.flips) else {},
        note=one.note,
        number=_number(study),
        faults=tuple(f"{study.name}, row {', '.join(fault.rows)}: {fault.fault}" for fault in plan.faulty),
    )


def _number(study: Study) -> str:
    """Returns the number of a study's tables in LaTeX."""
    table = published.source(study.published)["table"].partition(";")[0] if study.published else study.name
    return table.removeprefix("Table ") if table.startswith("Table ") else f"of {table}"


def _csv(frame: pd.DataFrame) -> str:
    return str(frame.to_csv(index=False, lineterminator="\n"))


def _title(numbers: Summary, flags: str) -> str:
    of = published.source(numbers.study.published)["table"].partition(";")[0] if numbers.study.published else ""
    under = f"; {flags}" if flags else ""
    return f"{of or numbers.study.name}: {numbers.study.title} ({numbers.profile} profile{under})"


def _curves(numbers: Summary, plan: Plan, workspace: Workspace) -> Figure | None:
    """Draws the training curves of a study's first seed; None where no run is finished."""
    curves, stages, usable = [], {}, {planned.run.id for planned in plan.runs if planned.done and not planned.fault}
    for row in numbers.study.rows:
        run_id = next(iter(plan.wanted[numbers.study.name][row.number].values()), "")
        if run_id in usable:
            label = f"{row.number}: {study_tables.change(row, numbers.study)}"
            curves.append((label, workspace.store.read(run_id).curve))
            if len(row.stages) > 1:
                stages[label] = row.stages[-1].label
    if not curves:
        return None
    caption = (
        "Training curves of the first seed. While it trains, a network is validated on one centre view of each video."
    )
    return curve_figure.curves(f"{numbers.study.title} ({numbers.profile} profile)", caption, curves, stages)


def not_studied(name: str) -> Section:
    """Returns the section of a published table that has no study: the paper's rows, and "not run"."""
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
) -> list[ReportPart]:
    """Returns the parts of a report, in the paper's order.

    Args:
      studies: the studies to report.
      trainings: as of :func:`chosen`.
      store: the records.
      margin: see :class:`harness.analysis.study_summary.Evidence`.
      whole: whether to add Table 1, the tables that have no study, and the sweeps.
      sweeps: the sections of the scaling sweeps.
    """
    chosen_by_study = {study.name: chosen(study, trainings, store) for study in studies}
    store.look_at(run_id for items in chosen_by_study.values() for item in items for run_id in item.run_ids)
    parts: dict[str, list[ReportPart]] = {
        name: [ReportPart(functools.partial(draw, item, margin), len(item.run_ids)) for item in items]
        for name, items in chosen_by_study.items()
    }
    if not whole:
        return [part for items in parts.values() for part in items]
    shown = {study.published for study in studies}
    others = [name for name in published.names() if name not in shown and name.startswith("table")]
    parts |= {name: [ReportPart(functools.partial(not_studied, name))] for name in others}
    order = sorted(parts, key=lambda name: (not name.startswith("table"), name))
    sweep_parts = [ReportPart(functools.partial(_as_is, section)) for section in sweeps]
    return [ReportPart(architectures), *(part for name in order for part in parts[name]), *sweep_parts]


def _as_is(section: Section) -> Section:
    return section


def explained(
    text: str, studies: Sequence[Study], trainings: Mapping[str, Workspace], margin: float
) -> explain.Explanation:
    """Explains where a number of a study's table comes from.

    Args:
      text: STUDY:ROW:COLUMN.
      studies: the known studies.
      trainings: as of :func:`chosen`; only one of them may have runs of the study.
      margin: see :class:`harness.analysis.study_summary.Evidence`.

    Raises:
      ExplainError: there is no such number, nothing of the study was run, or it was run under several trainings.
    """
    address = explain.address(text)
    known = {study.name: study for study in studies}
    if address.study not in known:
        raise explain.ExplainError(f"{text}: unknown study {address.study!r}: {suggest(address.study, known)}")
    study = known[address.study]
    candidates = fitting(study, trainings)
    with_runs = {
        flags: candidate for flags, workspace in candidates.items() if (candidate := chosen_of(study, workspace)).seeds
    }
    if not with_runs and address.column.startswith("paper_"):
        with_runs = {"": SectionSource(study, papers_own(Store(Path())), (0,), "")}
    lost = {
        number: sentence
        for candidate in candidates.values()
        for number, sentence in _without_start(study, candidate).items()
    }
    if not with_runs:
        raise explain.ExplainError("; ".join([f"{text}: nothing of {study.name} was run", *lost.values()]))
    if len(with_runs) > 1:
        raise explain.ExplainError(f"{text}: was run under several trainings, say which: {'; '.join(with_runs)}")
    (candidate,) = with_runs.values()
    workspace = candidate.workspace
    workspace.store.look_at(candidate.run_ids)
    plan = workspace.plan([study], candidate.seeds)
    numbers = evidence.summary(study, plan, evidence.evidence(workspace, plan, margin))
    store = Store(workspace.store.root, workspace.store.elsewhere)
    explanation = explain.explain(numbers, plan.wanted[study.name], store, address)
    return dataclasses.replace(
        explanation, lines=(*explanation.lines, *([lost[address.row]] if address.row in lost else []))
    )
