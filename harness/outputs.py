"""Writes a study's tables and figures, each file whole or not at all."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from harness import aggregate, credit, credit_figure, drawing, figures, files, published, rendering, store, tables
from harness.aggregate import Evidence, Summary
from harness.credit import Credits
from harness.data.embedded import EmbeddedSpec
from harness.designs import Design, Question
from harness.planning import Plan
from harness.rendering import Table
from harness.studies import Study
from harness.workspace import Workspace


def evidence(workspace: Workspace, plan: Plan, margin: float = math.nan) -> Evidence:
    """What was measured of a plan's runs by now; runs that the plan found unusable are missing in it.

    Args:
      workspace: where the records are.
      plan: the runs.
      margin: see :class:`harness.aggregate.Evidence`.

    Raises:
      RecordError: predictions that are missing or not the ones recorded.
      SettingsError: rows under several protocols.
    """
    usable = [one.run.id for one in plan.runs if not one.fault and workspace.store.has(one.run.id)]
    found = [workspace.store.read(run_id) for run_id in usable]
    outcomes = {
        record.id: store.outcomes(workspace.store.predictions(record, plan.protocol))
        for record in found
        if plan.protocol in record.evaluations
    }
    profile = workspace.profile
    frame = store.frame(found)
    faulty = frozenset(one.run.id for one in plan.faulty if one.done)
    classes = workspace.data.classes
    return Evidence(frame, outcomes, profile.name, profile.caption, plan.protocol, classes, margin, faulty)


def summary(study: Study, plan: Plan, measured: Evidence) -> Summary:
    """The summary of one of a plan's studies."""
    name = study.published
    return aggregate.summarise(study, plan.wanted[study.name], measured, published.load(name) if name else None)


def credits(designs: Sequence[Design], question: Question, plan: Plan, measured: Evidence) -> Credits:
    """What a plan's designs say of the toggles."""
    return credit.summarise(designs, question, plan.wanted, measured)


@dataclasses.dataclass(frozen=True)
class Drawn:
    """What was drawn of a plan.

    Attributes:
      tables: for the terminal, in order.
      summary: of the first study.
      files: the files written.
    """

    tables: tuple[Table, ...]
    summary: Summary
    files: tuple[Path, ...]


def draw(
    workspace: Workspace,
    plan: Plan,
    designs: Sequence[Design],
    question: Question,
    name: str,
    plots: Path,
    margin: float,
) -> Drawn:
    """Draws every study of a plan, and what its designs say of the toggles, from the records there are now.

    Args:
      workspace: where the records are; tables go into `results/tables/` beside them.
      plan: the studies and their runs.
      designs: those that the studies come from; empty where there is only the study's own.
      question: what the designs ask.
      name: of the files, as :func:`stem` gives it; a design's study adds its own.
      plots: folder of the figures.
      margin: percentage points that do not matter.
    """
    measured = evidence(workspace, plan, margin)
    summaries = [summary(study, plan, measured) for study in plan.studies]
    root, files_ = workspace.store.root, []
    for study, numbers in zip(plan.studies, summaries, strict=True):
        files_ += write(numbers, name if study is question.study else f"{name}-{study.name}", root, plots)
    shown: list[Table | None] = [tables.additive(summaries[0])]
    if len(summaries[0].flips):
        shown.append(tables.steps(summaries[0]))
    if designs:
        found = credits(designs, question, plan, measured)
        files_ += write_credits(found, f"{name}-{'-'.join(found.designs)}", root, plots)
        shown += [tables.credits(found), tables.interactions(found)]
    return Drawn(tuple(table for table in shown if table is not None), summaries[0], tuple(files_))


def stem(workspace: Workspace, question: Question, designs: Sequence[Design]) -> str:
    """Name of the files of a study's tables and figures: studies that differ never replace one another's.

    Drawing one study again, with another margin of its tests say, replaces what was drawn of it.
    """
    study, seeds = question.study, len(question.seeds)
    added = [row.applied[-1] for row in study.rows if row.published is None and row.applied]
    parts = [study.name, workspace.profile.name, *(f"plus-{one.short}" for one in added)]
    if seeds > 1:
        parts.append(f"{seeds}-seeds")
    if not question.own:
        parts += ["of", *(one.short for one in question.factors)]
        parts += ["at", *map(str, question.base)] if question.base else []
    if any(design.study.name == "shapley" for design in designs):
        parts.append(f"{question.orderings}-orders")
    facts, profile = workspace.data.facts, workspace.profile
    if (facts.name == EmbeddedSpec().name) != profile.embedded:
        parts.append(f"on-{re.sub(r'[^A-Za-z0-9.-]+', '-', facts.name)}-{facts.fingerprint[:8]}")
    if workspace.replicas not in (1, profile.replicas):
        parts.append(f"{workspace.replicas}-replicas")
    if str(workspace.cut):
        parts.append(f"cut-{str(workspace.cut).replace(', ', '-').replace(' ', '-')}")
    return "-".join(parts)


def write(numbers: Summary, name: str, results: Path, plots: Path) -> list[Path]:
    """Writes a study's tables into `results/tables/` and its figure into `plots/`, under a name; the paths written.

    What flipped class by class is a file of values alone: it is too long to be looked at.
    """
    follows = [row.follows for row in numbers.study.rows if row.follows is not None]
    steps = tables.steps(numbers) if follows else None
    written = _write_tables([(name, tables.additive(numbers)), (f"{name}-steps", steps)], results)
    (results / "tables" / f"{name}-flips.csv").unlink(missing_ok=True)
    if len(numbers.flips):
        flips = numbers.flips.to_csv(index=False, lineterminator="\n")
        written.append(files.replace(results / "tables" / f"{name}-flips.csv", flips.encode()))
    # Steps one after the other make a line; many steps from one row are drawn with the credits.
    if follows and len(set(follows)) == len(follows):
        written += _write_figure(figures.additive(numbers), name, plots)
    return written


def write_credits(found: Credits, name: str, results: Path, plots: Path) -> list[Path]:
    """Writes what designs say of the toggles, under a name; the paths written."""
    named = [(f"{name}-credit", tables.credits(found)), (f"{name}-interactions", tables.interactions(found))]
    return _write_tables(named, results) + _write_figure(credit_figure.credits(found), f"{name}-credit", plots)


def _write_tables(named: Iterable[tuple[str, Table | None]], results: Path) -> list[Path]:
    """Writes tables under their names; a table that is None leaves none of an earlier drawing behind."""
    written = []
    for name, table in named:
        rendered = rendering.render(table) if table else {}
        for suffix in rendering.SUFFIXES:
            path = results / "tables" / f"{name}.{suffix}"
            if suffix in rendered:
                written.append(files.replace(path, rendered[suffix].encode()))
            else:
                path.unlink(missing_ok=True)
    return written


def _write_figure(figure: Figure, name: str, plots: Path) -> list[Path]:
    return [files.replace(plots / f"{name}.{suffix}", drawing.to_bytes(figure, suffix)) for suffix in ("png", "pdf")]
