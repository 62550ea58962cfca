"""Writes a study's tables and figures, each file whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from harness import aggregate, figures, published, store, tables
from harness.aggregate import Summary
from harness.planning import Plan
from harness.workspace import Workspace


def summary(workspace: Workspace, plan: Plan) -> Summary:
    """The summary of a study from the records there are now."""
    wanted = {run_id for ids in plan.wanted.values() for run_id in ids}
    found = [workspace.store.read(run_id) for run_id in workspace.store.ids() if run_id in wanted]
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


def write(numbers: Summary, results: Path, plots: Path, cut: bool = False) -> list[Path]:
    """Writes the table into `results/tables/` and the figure into `plots/`; the paths written.

    Args:
      numbers: what to write.
      results: the results folder.
      plots: the folder of figures.
      cut: whether the runs were cut short; their files have names of their own, so that they replace no others.
    """
    stem = f"{numbers.study.name}-{numbers.profile}{'-cut' if cut else ''}"
    written = [
        _replace(results / "tables" / f"{stem}.{suffix}", text.encode())
        for suffix, text in tables.render(tables.additive(numbers)).items()
    ]
    figure = figures.additive(numbers)
    return written + [
        _replace(plots / f"{stem}.{suffix}", figures.to_bytes(figure, suffix)) for suffix in ("png", "pdf")
    ]


def _replace(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("wb", dir=path.parent, prefix=".", suffix=".part", delete=False) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary = Path(file.name)
    temporary.chmod(0o644)
    return temporary.replace(path)
