"""Writes a study's tables and figures, each file whole or not at all."""

from __future__ import annotations

from pathlib import Path

from harness import aggregate, figures, files, published, store, tables
from harness.aggregate import Summary
from harness.planning import Plan
from harness.studies import Study
from harness.workspace import Workspace


def summary(workspace: Workspace, plan: Plan) -> Summary:
    """The summary of a study from the records there are now; runs that the plan found unusable are missing in it."""
    usable = [one.run.id for one in plan.runs if not one.fault and workspace.store.has(one.run.id)]
    found = [workspace.store.read(run_id) for run_id in usable]
    name = plan.study.published
    return aggregate.summarise(
        plan.study,
        plan.wanted,
        store.frame(found),
        published.load(name) if name else None,
        workspace.profile.name,
        workspace.profile.caption,
        plan.protocol,
    )


def stem(workspace: Workspace, study: Study, seeds: int) -> str:
    """Name of the files of a study's table and figure: what is drawn differently never replaces one another."""
    added = [row.applied[-1] for row in study.rows if row.published is None and row.applied]
    parts = [study.name, workspace.profile.name, *(f"plus-{one.short}" for one in added)]
    if seeds > 1:
        parts.append(f"{seeds}-seeds")
    if str(workspace.cut):
        parts.append("cut")
    return "-".join(parts)


def write(numbers: Summary, name: str, results: Path, plots: Path) -> list[Path]:
    """Writes the table into `results/tables/` and the figure into `plots/`, under a name; the paths written."""
    written = [
        files.replace(results / "tables" / f"{name}.{suffix}", text.encode())
        for suffix, text in tables.render(tables.additive(numbers)).items()
    ]
    figure = figures.additive(numbers)
    return written + [
        files.replace(plots / f"{name}.{suffix}", figures.to_bytes(figure, suffix)) for suffix in ("png", "pdf")
    ]
