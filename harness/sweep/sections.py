"""The sections of a report on the scaling sweeps under a results folder."""

from __future__ import annotations

from harness.reporting.pages import Section
from harness.store.run_store import Store
from harness.sweep import front_figure, sweep_summary, trial_store


def sweeps(store: Store) -> list[Section]:
    """Returns a section for each scaling sweep under a results folder; if a storage is damaged, one that names it."""
    if not (store.root / "sweeps").is_dir():
        return []
    try:
        summaries = sweep_summary.summaries(store.root, store.elsewhere)
    except trial_store.SweepError as error:
        return [Section("Scaling sweeps", {}, note=str(error), faults=(str(error),))]
    return [
        Section(
            title=f"Scaling sweep {summary.name}",
            tables=dict(sweep_summary.tables(summary)),
            figures={sweep_summary.names(summary)[0]: front_figure.front(summary)},
            number=f"of {summary.name}",
        )
        for summary in summaries
    ]
