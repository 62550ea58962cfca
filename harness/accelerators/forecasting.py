"""Reads what forecasts of runs on a slice rest on: what was compiled for it, and what records say that it took."""

from __future__ import annotations

import contextlib
import functools

from harness.accelerators import forecasts, programs, proving
from harness.accelerators.forecasts import Forecast, Measured
from harness.accelerators.programs import Program
from harness.accelerators.results import Result, Results
from harness.config.experiment import Protocol
from harness.config.slices import Slice
from harness.planning.plans import Plan
from harness.planning.workspace import Workspace
from harness.store import records
from harness.store.records import RecordError


def forecast(plan: Plan, place: Workspace, slice_: Slice) -> tuple[Forecast, ...]:
    """What each run of a plan would take on a slice, as far as it was compiled, or measured, before."""
    results = Results(place.store.root)
    lookup = functools.partial(_looked_up, results, slice_.topology)
    return tuple(forecasts.forecasts(plan.runs, slice_, lookup, measured(place, slice_)))


def _looked_up(results: Results, topology: str, program: Program) -> Result | None:
    return proving.known(results, topology, program.key)


def topologies(place: Workspace) -> list[str]:
    """Slices of which something is known: what was compiled for them, or recorded on them; sorted."""
    recorded = {one.provenance.get("topology") for one in place.store.excerpts()}
    return sorted({*Results(place.store.root).topologies(), *(str(one) for one in recorded if one)})


def measured(place: Workspace, slice_: Slice) -> Measured:
    """What recorded runs of the profile took on a slice of that name."""
    found = []
    for short in place.store.excerpts():
        here = short.provenance.get("topology") == slice_.topology and short.replicas == slice_.cores
        # What was cut short is compiling for the most part, and of several attempts others may have been elsewhere.
        whole = not short.cut.get("steps") and short.provenance.get("attempts", 1) == 1 and short.evaluations
        if short.profile != place.profile.name or not (here and whole):
            continue
        record = place.store.read(short.id)
        first = record.first_evaluation
        protocol = Protocol(first.clips, first.crops, first.size)
        with contextlib.suppress(RecordError):  # of another version of the Garden, whose steps may be others
            run = records.run_of(record, protocol, place.profile.evaluation_batch)
            found.append((record, programs.of_run(run, slice_.cores)))
    return forecasts.measured(found, slice_.topology)
