"""Records -> the workspaces that they were made in: which trainings a results folder holds, told by their flags."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ablations.datasets import GENERATED
from ablations.profiles import PROFILES
from harness.config.devices import Devices
from harness.config.experiment import DatasetInfo, Overrides, Profile, Run, SettingsError
from harness.config.stages import PRE_TRAINING
from harness.config.studies import Row, Study
from harness.data import embedded
from harness.data import manifest as manifests
from harness.data.manifest import ManifestError
from harness.planning.workspace import EMBEDDED, DataSet, Workspace, facts, known_classes, papers_pre_training
from harness.store import excerpts
from harness.store.excerpts import RecordSummary
from harness.store.records import Evaluation
from harness.store.run_store import Store


def recorded(
    store: Store, profile_: Profile, data: str | None, given: Mapping[str, int | None], validation_videos: int | None
) -> Workspace:
    """The one workspace that a profile's records were made in.

    Args:
      store: the records.
      profile_: the profile.
      data: name of the data set or beginning of its fingerprint; None for the profile's own where it was trained on,
        otherwise for any.
      given: "replicas", "batch", "steps" as the user narrows them, None for any.
      validation_videos: evaluated on so many videos only, None for all.

    Raises:
      SettingsError: the records fit none, or several.
    """
    every = trainings(store, profile_.name, data, given)
    found = {flags: one for flags, one in every.items() if one.cut.validation_videos == validation_videos}
    if data is None and profile_.embedded:  # what the profile trains on unless told otherwise is meant
        found = {flags: one for flags, one in found.items() if one.data.facts.name == EMBEDDED} or found
    if not found:
        raise SettingsError(f"{store.runs}: holds no record of profile {profile_.name} to draw")
    if len(found) > 1:
        raise SettingsError(f"{store.runs}: holds records of several trainings, say which to draw: {'; '.join(found)}")
    (one,) = found.values()
    return one


def trainings(
    store: Store, profile_: str | None, data: str | None, given: Mapping[str, int | None]
) -> dict[str, Workspace]:
    """The workspaces that records were made in, by the flags that tell them apart; arguments as of :func:`recorded`.

    `profile_` is the name of a profile, None for any. A training that was evaluated on several numbers of videos is
    there for each. Runs that were taken in from elsewhere are no rows of a study.
    """
    found: dict[str, Workspace] = {}
    every = store.excerpts()
    names = _names(every)
    for record in every:
        of_data = data is None or record.data["name"] == data or str(record.data["fingerprint"]).startswith(data)
        of_profile = record.profile in PROFILES and profile_ in (None, record.profile)
        made = {"replicas": record.replicas, "batch": record.cut.get("batch"), "steps": record.cut.get("steps")}
        narrowed = all(value is None or made[name] == value for name, value in given.items())
        if record.taken_in or not (of_data and of_profile and narrowed):
            continue
        made_on = _of_record(record.data)
        flags = {"data": _called(made_on.facts, names), **made}
        if profile_ is None:
            flags = {"profile": record.profile, **flags}
        for videos in {_first(evaluation) for evaluation in record.evaluations.values()}:
            own = {**flags, "validation-videos": videos}
            key = " ".join(f"--{name} {value}" for name, value in own.items() if value is not None)
            if key not in found:
                cut = Overrides(made["steps"], made["batch"], videos)
                found[key] = Workspace(
                    PROFILES[record.profile], made_on, cut, record.replicas, store, Devices(),
                    pre_training=papers_pre_training(),  # which nothing was trained on
                )  # fmt: skip
    return found


def by_pre_training(study: Study, trainings: Mapping[str, Workspace]) -> dict[str, Workspace]:
    """Trainings as :func:`trainings` gives them, one for each data set that runs of a study's rows pre-trained on."""
    found = {}
    for flags, workspace in trainings.items():
        own = _pre_trained_on(study, workspace) or [workspace.pre_training or papers_pre_training()]
        names = _names(workspace.store.excerpts())
        for one in own:
            named = f"{flags} --pretrain-data {_called(one.facts, names)}" if len(own) > 1 else flags
            found[named] = dataclasses.replace(workspace, pre_training=one)
    return found


def _pre_trained_on(study: Study, workspace: Workspace) -> list[DataSet]:
    """The data sets that recorded runs of a study's rows pre-trained on.

    A run's identity holds that of the run it started from, and so its data: this one need not have a record any more.
    """
    every, rows = workspace.store.excerpts(), [row for row in study.rows if pre_trains(row)]
    kinds, known = excerpts.by_kind(every), {one.identity for one in every}
    of_data = [one for one in every if one.parent and one.data["fingerprint"] == workspace.data.facts.fingerprint]
    started = {one.parent for one in of_data}

    def could_start(run: Run) -> Iterator[str | None]:
        """Identities of what it starts from, under the seeds there are; those that have a record are not counted."""
        alone = run.start is not None and run.start.start is None
        yield from kinds.get(excerpts.kind(run.start), {}).values() if run.start is not None and alone else ()
        for seed in sorted({one.seed for one in of_data if not alone or one.parent not in known}):
            yield excerpts.seeded(run, seed).parent

    def used(data: DataSet) -> bool:
        there = dataclasses.replace(workspace, pre_training=data)
        runs = (there.complete(row.cell(0), workspace.data) for row in rows)
        return any(identity in started for run in runs for identity in could_start(run))

    return [data for data in _at_hand(workspace.store, every) if used(data)] if started else []


def pre_trains(row: Row) -> bool:
    """Whether a row's chain has a stage on the set to pre-train on."""
    return any(stage.dataset == PRE_TRAINING for stage in row.stages)


def _at_hand(store: Store, every: Iterable[RecordSummary]) -> list[DataSet]:
    """The data sets that records tell of, and the generated ones that were drawn, without their videos."""
    found = {DatasetInfo(**one.data): _of_record(one.data) for one in every}
    for spec in GENERATED.values():
        with contextlib.suppress(ManifestError):
            drawn = facts(manifests.load(embedded.folder(spec, store.root / "data")))
            found.setdefault(drawn, _of_record(dataclasses.asdict(drawn)))
    return list(found.values())


def without_start(run: Run, store: Store) -> list[RecordSummary]:
    """The records of a run, under any seed, but for what it started from: that has no record, and is not the run's own.

    What such a record started from was trained on cannot be known.

    Args:
      run: the last of a chain.
      store: the records.
    """
    every = store.excerpts()
    known = {one.identity for one in every}
    lost = [one for one in every if one.parent and one.parent not in known and not one.taken_in]
    found = []
    for one in lost:
        own = excerpts.seeded(run, one.seed)
        last = dataclasses.replace(own, start=None, parent=one.parent)
        if own.parent != one.parent and last.identity == one.identity:
            found.append(one)
    return found


def _of_record(data: Mapping[str, Any]) -> DataSet:
    """The data set that a record tells of, without its videos."""
    return DataSet(DatasetInfo(**data), None, None, False, classes=known_classes(data))


def _names(every: Iterable[RecordSummary]) -> dict[str, set[str]]:
    """Name of a data set that records tell of -> the fingerprints of those that have it."""
    found: dict[str, set[str]] = {}
    for one in every:
        found.setdefault(one.data["name"], set()).add(one.data["fingerprint"])
    return found


def _called(data: DatasetInfo, names: Mapping[str, set[str]]) -> str:
    """What --data calls a data set: its name where no other has it, the beginning of its fingerprint otherwise."""
    plain = re.fullmatch(r"\w[\w.-]*", data.name, re.ASCII)
    return data.name if plain and names.get(data.name, set()) <= {data.fingerprint} else data.fingerprint[:8]


def _first(evaluation: Evaluation) -> int | None:
    """On how many videos an evaluation was cut short, None for all of them."""
    return evaluation.videos if evaluation.videos < evaluation.videos_in_split else None
