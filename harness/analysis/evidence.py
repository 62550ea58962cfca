"""What was measured of a plan: its records become evidence and summaries, and its files get their names."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterable, Iterator, Sequence

from harness.accelerators import core_hours, forecasting
from harness.accelerators.core_hours import RunCost
from harness.analysis import published, study_summary
from harness.analysis.study_summary import Evidence, Summary
from harness.config import slices
from harness.config.designs import Design, Question
from harness.config.experiment import Profile, Run, SettingsError
from harness.config.slices import Slice
from harness.config.stages import PRE_TRAINING
from harness.config.studies import Study
from harness.planning import catalog
from harness.planning.plans import Plan
from harness.planning.workspace import Workspace
from harness.store import run_store
from harness.store.run_store import Store


def evidence(workspace: Workspace, plan: Plan, margin: float = math.nan) -> Evidence:
    """What was measured of a plan's runs by now; runs that the plan found unusable are missing in it.

    Args:
      workspace: where the records are.
      plan: the runs.
      margin: see :class:`harness.analysis.study_summary.Evidence`.

    Raises:
      RecordError: predictions that are missing or not the ones recorded.
    """
    usable = [one.run for one in plan.runs if not one.fault and workspace.store.has(one.run.id)]
    found = [workspace.store.excerpt(run.id) for run in usable]
    outcomes = {
        run.id: workspace.store.outcomes(record, run.protocol.name)
        for run, record in zip(usable, found, strict=True)
        if run.protocol.name in record.evaluations
    }
    return Evidence(
        records=run_store.frame(found),
        outcomes=outcomes,
        profile=workspace.profile.name,
        caption=" ".join([workspace.profile.caption, *_of_stages(workspace.profile, usable)]),
        protocols=plan.protocols,
        classes={run.data.fingerprint: workspace.data_of(run).classes for run in _one_of_each_set(usable)},
        margin=margin,
        unusable=frozenset(one.run.id for one in plan.faulty if one.done),
        origins={run.id: _origin(run, workspace.store) for run in usable if run.start is not None},
        pre_trained={run.id: link.data for run in usable for link in run.chain if _pre_trains(link)},
        costs=costs(workspace, plan),
    )


def _origin(run: Run, records: Store) -> str:
    """How a run of a chain came about: "pre-training on 512 videos of embedded-other (8b1f52e3), then ..."."""
    said = []
    for before, link in zip((None, *run.chain), run.chain, strict=False):
        label = link.cell.stage.label if link.cell.stage else "training"
        same = before is not None and before.data == link.data
        on = "" if same else f" on {link.data.train_videos:,} videos of {link.data.name} ({link.data.fingerprint[:8]})"
        said.append(f"{label}{on}{'' if records.has(link.id) else ' (which has no record any more)'}")
    return ", then ".join(said)


def _of_stages(profile: Profile, runs: Iterable[Run]) -> list[str]:
    """What a profile makes of the stages that runs had, a sentence each."""
    had = dict.fromkeys(link.cell.stage.key for run in runs for link in run.chain if link.cell.stage)
    return [profile.stages[key] for key in had if key in profile.stages]


def _pre_trains(run: Run) -> bool:
    """Whether it is trained on the set to pre-train on."""
    return run.cell.stage is not None and run.cell.stage.dataset == PRE_TRAINING


def _one_of_each_set(runs: Sequence[Run]) -> Iterable[Run]:
    """A run on each data set."""
    return {run.data: run for run in runs}.values()


def costs(workspace: Workspace, plan: Plan) -> dict[str, dict[str, RunCost]]:
    """What a plan's runs take on the slices that they were compiled for, and that have a core for each replica.

    Args:
      workspace: where the results of compiling are, and the records of what was measured.
      plan: the runs.

    Returns:
      Topology -> id of a run -> what it takes there; empty where nothing was compiled.
    """
    replicas = {one.run.replicas for one in plan.runs}
    compiled_for = [slice_ for slice_ in _slices(workspace) if replicas == {slice_.cores}]
    if not compiled_for:
        return {}
    return {
        slice_.topology: {
            one.planned.run.id: core_hours.of_run(one) for one in forecasting.forecast(plan, workspace, slice_)
        }
        for slice_ in compiled_for
    }


def _slices(workspace: Workspace) -> Iterator[Slice]:
    """The slices that something was compiled for; other folders beside theirs are none of ours."""
    for name in forecasting.topologies(workspace):
        with contextlib.suppress(SettingsError):
            yield slices.slice_of(name)


def summary(study: Study, plan: Plan, measured: Evidence) -> Summary:
    """The summary of one of a plan's studies."""
    name = study.published
    return study_summary.summarise(study, plan.wanted[study.name], measured, published.load(name) if name else None)


def design_names(question: Question, designs: Sequence[Design]) -> list[str]:
    """What the name of the files says of designs."""
    parts = []
    if not question.own:
        parts += ["of", *(one.short for one in question.factors)]
        parts += ["at", *map(str, question.base)] if question.base else []
    if any(design.study.name == "shapley" for design in designs):
        parts.append(f"{question.orderings}-orders")
    return parts


def stem(workspace: Workspace, study: Study, seeds: int, asked: Sequence[str] = ()) -> str:
    """Name of the files of a study's tables and figures: studies that differ never replace one another's.

    Drawing one study again, with another margin of its tests say, replaces what was drawn of it.

    Args:
      workspace: how it is trained.
      study: the study.
      seeds: how many seeds each row has.
      asked: what designs add, as :func:`asked` gives it.
    """
    # Only what `Study.plus` added; a study of the user's is known by its name.
    own = {row.number for row in known.rows} if (known := catalog.studies().get(study.name)) else set()
    added = [row.applied[-1] for row in study.rows if own and row.number not in own]
    parts = [study.name, workspace.profile.name, *(f"plus-{one.short}" for one in added)]
    if seeds > 1:
        parts.append(f"{seeds}-seeds")
    parts += asked
    facts, profile = workspace.assigned([study])[study.name].facts, workspace.profile
    # Of prepared data sets there may be several of one name; nothing is named after one that is only planned with.
    usual = facts.name == study.stand_in if profile.embedded else not facts.fingerprint
    if not usual:
        parts.append(f"on-{re.sub(r'[^A-Za-z0-9.-]+', '-', facts.name)}-{facts.fingerprint[:8]}")
    if workspace.replicas not in (1, profile.replicas):
        parts.append(f"{workspace.replicas}-replicas")
    if str(workspace.cut):
        parts.append(f"cut-{str(workspace.cut).replace(', ', '-').replace(' ', '-')}")
    return "-".join(parts)
