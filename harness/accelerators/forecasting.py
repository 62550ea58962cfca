"""Forecasts runs on a slice from the files in a results folder: results of compiling, and measured times in records."""

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
    """Returns a forecast of each run of a plan on a slice, as far as it was compiled or measured before."""
    results = Results(place.store.root)
    lookup = functools.partial(_looked_up, results, slice_.topology)
    return tuple(forecasts.forecasts(plan.runs, slice_, lookup, measured(place, slice_)))


def _looked_up(results: Results, topology: str, program: Program) -> Result | None:
    return proving.known_result(results, topology, program.key)


def topologies(place: Workspace) -> list[str]:
    """Returns the slices that programs were compiled for or runs were recorded on, sorted."""
    recorded = {excerpt.provenance.get("topology") for excerpt in place.store.excerpts()}
    return sorted({*Results(place.store.root).topologies(), *(str(topology) for topology in recorded if topology)})


def measured(place: Workspace, slice_: Slice) -> Measured:
    """Returns the times that recorded runs of the profile took on a slice of that name."""
    pairs = []
    for excerpt in place.store.excerpts():
        on_slice = excerpt.provenance.get("topology") == slice_.topology and excerpt.replicas == slice_.cores
        # The time of a run that was cut short is mostly compiling, and other attempts may have been on other machines.
        complete = not excerpt.cut.get("steps") and excerpt.provenance.get("attempts", 1) == 1 and excerpt.evaluations
        if excerpt.profile != place.profile.name or not (on_slice and complete):
            continue
        record = place.store.read(excerpt.id)
        first = record.first_evaluation
        protocol = Protocol(first.clips, first.crops, first.size)
        with contextlib.suppress(RecordError):  # from another version of the Garden, whose steps may differ
            run = records.run_of(record, protocol, place.profile.evaluation_batch)
            pairs.append((record, programs.of_run(run, slice_.cores)))
    return forecasts.measured(pairs, slice_.topology)
