"""Records -> the sections of a report: every study under every training that was recorded, beside the paper."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure

from ablations import profiles
from ablations.datasets import DATASETS
from harness import (
    architecture,
    curve_figure,
    experiment,
    explaining,
    gathering,
    layouts,
    paper_tables,
    published,
    tables,
)
from harness import workspace as workspaces
from harness.aggregate import Summary
from harness.devices import Devices
from harness.experiment import Cut, applied_as_data
from harness.planning import Plan
from harness.report_pages import Section
from harness.store import Snapshot, Store
from harness.studies import Cell, Row, Study
from harness.toggles import suggest
from harness.workspace import Workspace


def papers_own(store: Snapshot) -> Workspace:
    """The paper's training on the paper's data sets, which a study is shown under while nothing of it was run."""
    first, *further = workspaces.papers()
    return Workspace(profiles.PAPER, first, Cut(), profiles.PAPER.replicas, store, Devices(), further=tuple(further))


def architectures() -> Section:
    """The paper's Table 1, from the settings of R3D-RS-50."""
    from ablations.toggles import R3D_RS

    run = experiment.complete(Cell(R3D_RS), profiles.PAPER, DATASETS["Kinetics-400"])
    return Section("Table 1", {"table1": architecture.architecture(run)})


def of_study(study: Study, trainings: Mapping[str, Workspace], store: Snapshot, margin: float) -> list[Section]:
    """A section for each training that has a finished run of the study; where none has, one with the paper's numbers.

    Args:
      study: the study.
      trainings: flags that tell a training from others -> its workspace.
      store: the records.
      margin: see :class:`harness.aggregate.Evidence`.
    """
    found = [_section(study, workspace, margin) for workspace in trainings.values() if fits(study, workspace)]
    sections = [section for section in found if section is not None]
    return sections or [_drawn(study, papers_own(store), (0,), margin, "")]


def fits(study: Study, workspace: Workspace) -> bool:
    """Whether a training's data set may be the study's: it is not another of the paper's."""
    others = {facts.classes for name, facts in DATASETS.items() if name != study.dataset}
    return workspace.data.facts.classes not in others


def _section(study: Study, workspace: Workspace, margin: float) -> Section | None:
    """The study under one training; None where no run of it is finished."""
    seeds, note = chosen_seeds(study, workspace)
    return _drawn(study, workspace, seeds, margin, note) if seeds else None


def chosen_seeds(study: Study, workspace: Workspace) -> tuple[tuple[int, ...], str]:
    """The seeds that a study is drawn with, and what is to be said of the others.

    They are those that every row has which was begun; where the rows have none in common, all.
    """
    asked = sorted(_asked(study, workspace))
    plan = workspace.plan([study], asked)
    done = {one.run.id for one in plan.runs if one.done}
    by_row = {
        number: frozenset(seed for seed, run_id in own.items() if run_id in done)
        for number, own in plan.wanted[study.name].items()
    }
    begun = [seeds for seeds in by_row.values() if seeds]
    every = frozenset[int]().union(*begun)
    shared = frozenset.intersection(*begun) if begun else every
    left = sorted(every - shared) if shared else []
    if not left:
        return tuple(sorted(every)), ""
    some = ", ".join(map(str, left[:5])) + (f" and {len(left) - 5} more" if len(left) > 5 else "")
    return tuple(sorted(shared)), f"Seeds that not every row has are left out: {some}."


def _asked(study: Study, workspace: Workspace) -> set[int]:
    """Seeds of records that look like a row of the study: the plan tells whether they are."""
    rows = {_look(applied_as_data(row.cell(0).toggles), _scale(row, workspace)) for row in study.rows}
    return {
        record.seed for record in workspaces.readable(workspace.store) if _look(record.toggles, record.scale) in rows
    }


def _scale(row: Row, workspace: Workspace) -> Mapping[str, object]:
    return applied_as_data(row.cell(0).scale(workspace.profile.axes))


def _look(toggles: Mapping[str, object], scale: Mapping[str, object]) -> tuple[frozenset[tuple[str, str]], ...]:
    return tuple(frozenset((key, str(value)) for key, value in one.items()) for one in (toggles, scale))


def _drawn(study: Study, workspace: Workspace, seeds: Sequence[int], margin: float, note: str) -> Section:
    plan = workspace.plan([study], seeds)
    plan.refuse_mixed_protocols()
    numbers = gathering.summary(study, plan, gathering.evidence(workspace, plan, margin))
    name, layout = gathering.stem(workspace, study, len(seeds)), layouts.of(study)
    drawn = {name: layout.table(numbers)}
    if any(row.follows for row in study.rows) and numbers.rows["top1"].notna().any():
        drawn[f"{name}-steps"] = tables.steps(numbers)
    figures = {name: layout.figure(numbers), f"{name}-curves": _curves(numbers, plan, workspace)}
    return Section(
        title=_title(numbers),
        tables=drawn,
        figures={own: figure for own, figure in figures.items() if figure is not None},
        values={f"{name}-flips": _csv(numbers.flips)} if len(numbers.flips) else {},
        note=note,
    )


def _csv(frame: pd.DataFrame) -> str:
    return str(frame.to_csv(index=False, lineterminator="\n"))


def _title(numbers: Summary) -> str:
    of = published.source(numbers.study.published)["table"].partition(";")[0] if numbers.study.published else ""
    return f"{of or numbers.study.name}: {numbers.study.title} ({numbers.profile} profile)"


def _curves(numbers: Summary, plan: Plan, workspace: Workspace) -> Figure | None:
    """The training curves of a study's first seed; None where nothing is finished."""
    found = []
    for row in numbers.study.rows:
        run_id = next(iter(plan.wanted[numbers.study.name][row.number].values()), "")
        if run_id and workspace.store.has(run_id):
            found.append((f"{row.number}: {tables.change(row, numbers.study)}", workspace.store.read(run_id).curve))
    if not found:
        return None
    caption = (
        "Training curves of the first seed. While it trains, a network is validated on one centre view of each video."
    )
    return curve_figure.curves(f"{numbers.study.title} ({numbers.profile} profile)", caption, found)


def not_studied(names: Iterable[str]) -> list[Section]:
    """The published tables that no study asks for yet, with the paper's rows and "not run"."""
    return [
        Section(
            f"{published.source(name)['table'].partition(';')[0]}",
            {name: paper_tables.comparison(name, published.load(name), published.source(name), None)},
        )
        for name in names
    ]


def report(
    studies: Sequence[Study], trainings: Mapping[str, Workspace], store: Snapshot, margin: float, whole: bool
) -> list[Section]:
    """The sections of a report, in the paper's order.

    Args:
      studies: which studies.
      trainings: as of :func:`of_study`.
      store: the records.
      margin: see :class:`harness.aggregate.Evidence`.
      whole: also Table 1, the tables that have no study, and the sweeps.
    """
    found = {study.name: of_study(study, trainings, store, margin) for study in studies}
    if not whole:
        return [section for own in found.values() for section in own]
    asked = {study.published for study in studies}
    others = [name for name in published.names() if name not in asked and name.startswith("table")]
    found |= {name: [section] for name, section in zip(others, not_studied(others), strict=True)}
    order = sorted(found, key=lambda name: (not name.startswith("table"), name))
    return [architectures(), *(section for name in order for section in found[name])]


def explained(
    text: str, studies: Sequence[Study], trainings: Mapping[str, Workspace], margin: float
) -> explaining.Explanation:
    """Where a number of a study's table comes from.

    Args:
      text: STUDY:ROW:COLUMN.
      studies: among these.
      trainings: as of :func:`of_study`; just one of them may have runs of the study.
      margin: see :class:`harness.aggregate.Evidence`.

    Raises:
      ExplainError: there is no such number, nothing of the study was run, or it was under several trainings.
    """
    of = explaining.address(text)
    known = {study.name: study for study in studies}
    if of.study not in known:
        raise explaining.ExplainError(f"{text}: unknown study {of.study!r}: {suggest(of.study, known)}")
    study = known[of.study]
    fitting = {flags: workspace for flags, workspace in trainings.items() if fits(study, workspace)}
    run = {flags: (workspace, chosen_seeds(study, workspace)[0]) for flags, workspace in fitting.items()}
    run = {flags: pair for flags, pair in run.items() if pair[1]}
    if not run:
        raise explaining.ExplainError(f"{text}: nothing of {study.name} was run")
    if len(run) > 1:
        raise explaining.ExplainError(f"{text}: was run under several trainings, say which: {'; '.join(run)}")
    ((workspace, seeds),) = run.values()
    plan = workspace.plan([study], seeds)
    numbers = gathering.summary(study, plan, gathering.evidence(workspace, plan, margin))
    return explaining.explain(numbers, plan.wanted[study.name], Store(workspace.store.root), of)
