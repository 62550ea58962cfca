"""What a command works with: profile, data set, results folder and toggles, resolved from its flags. No TensorFlow."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ablations.datasets import DATASETS
from ablations.profiles import PROFILES
from harness import experiment, planning
from harness.data import embedded
from harness.data import manifest as manifests
from harness.data.embedded import EmbeddedSpec
from harness.data.manifest import Manifest
from harness.devices import Devices
from harness.experiment import Cut, DataFacts, Profile, Run, SettingsError
from harness.garden_folder import GardenFolder
from harness.planning import Known
from harness.records import Evaluation, RecordError, RunRecord
from harness.sharing import Sharing
from harness.store import Store
from harness.studies import Cell, Study
from harness.toggles import suggest

EMBEDDED = "embedded"
_ALONE = Sharing()


@dataclasses.dataclass(frozen=True)
class DataSet:
    """The data set a command was pointed at.

    Attributes:
      facts: what settings need to know of it.
      folder: where its shards are, or will be.
      spec: how to draw it, for the embedded data set; None for a prepared one.
      ready: whether the shards are there.
      shortest: split -> frames of its shortest video; empty where it is not known.
      classes: names of the classes, in the order of their numbers; empty where they are not known.
    """

    facts: DataFacts
    folder: Path | None
    spec: EmbeddedSpec | None
    ready: bool
    shortest: Mapping[str, int] = dataclasses.field(default_factory=dict)
    classes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Workspace:
    """Everything that turns a cell into a run, and where results are.

    Attributes:
      profile: the profile.
      data: the data set.
      further: more data sets, for studies that the paper asks on others.
      cut: departures from the profile.
      replicas: over how many replicas a batch is split.
      store: the records.
      devices: on which devices to train.
      parent: identity of the run to start from, None to start from the seed.
      keep: how many training checkpoints are kept of a run while it trains.
      repeat_short: whether a video shorter than a clip is played again from its start, or refused.
      garden: the folder to take in as a run, None to train.
      sharing: how its runs are shared with other workers.
      preflight: whether a TPU is trained on only once the largest program is known to fit.
    """

    profile: Profile
    data: DataSet
    cut: Cut
    replicas: int
    store: Store
    devices: Devices
    parent: str | None = None
    keep: int = 2
    repeat_short: bool = False
    garden: GardenFolder | None = None
    further: tuple[DataSet, ...] = ()
    preflight: bool = True
    sharing: Sharing = _ALONE

    def assigned(self, studies: Sequence[Study]) -> dict[str, DataSet]:
        """Name of a study -> the data set it is trained on: the one with as many classes as the paper's.

        Where the paper asks all of the studies on one data set and one is given, it is that one, whatever it is.

        Raises:
          SettingsError: a study whose data set is not among those given, or two of one number of classes.
        """
        if len({study.dataset for study in studies}) == 1 and not self.further:
            return {study.name: self.data for study in studies}
        return {study.name: self._assigned(study) for study in studies}

    def _assigned(self, study: Study) -> DataSet:
        if self.data.spec is not None:  # the generated clips stand in for every data set
            return self.data
        wanted = DATASETS.get(study.dataset)
        if wanted is None:
            raise SettingsError(f"{study.name}: dataset {study.dataset!r}: {suggest(study.dataset, DATASETS)}")
        fits = [one for one in (self.data, *self.further) if one.facts.classes == wanted.classes]
        if len(fits) == 1:
            return fits[0]
        given = ", ".join(f"{one.facts.name} ({one.facts.classes} classes)" for one in (self.data, *self.further))
        raise SettingsError(
            f"{study.name}: is asked on {study.dataset}, {wanted.classes} classes; {'several' if fits else 'none'} of "
            f"--data has as many: {given}"
        )

    def data_of(self, run: Run) -> DataSet:
        """The data set that a run of a plan of this workspace is trained on."""
        return next((one for one in (self.data, *self.further) if one.facts == run.data), self.data)

    @property
    def parents_weights(self) -> str | None:
        """Path of the weights that training starts from, None where it starts from the seed."""
        return str(self.store.weights(self.store.read(self.parent[:16]))) if self.parent else None

    def complete(self, cell: Cell, data: DataSet | None = None) -> Run:
        """The run of a cell, on the first data set unless another is named."""
        facts_ = (data or self.data).facts
        run = experiment.complete(cell, self.profile, facts_, self.cut, self.replicas, self.parent)
        return dataclasses.replace(run, bookkeeping={**run.bookkeeping, "trainer.max_to_keep": self.keep})

    def plan(self, studies: Sequence[Study], seeds: Sequence[int]) -> planning.Plan:
        """The plan of some studies together, each row with each of the seeds.

        Raises:
          SettingsError: a study whose data set is not at hand, or settings that do not fit together.
        """
        sets = self.assigned(studies)
        return planning.plan(
            studies,
            seeds,
            lambda study, cell: self.complete(cell, sets[study.name]),
            self._known,
            self.store.recorded,
        )

    def _known(self, run: Run) -> Known:
        state = self.store.state(run.id)
        try:
            protocols = self.store.protocols(run.id) if state.name == "done" else None
        except RecordError as error:
            return Known(frozenset(), state, str(error))
        return Known(protocols, state, "" if protocols or self.repeat_short else self._too_short(run))

    def _too_short(self, run: Run) -> str:
        """What keeps a run from training on videos shorter than its clips; empty where there are none."""
        data = self.data_of(run)
        for split, shortest in data.shortest.items():
            frames, stride = (
                run.settings[f"task.{split}_data.{name}"] for name in ("feature_shape[0]", "temporal_stride")
            )
            span = (frames - 1) * stride + 1
            if shortest < span:
                return (
                    f"{data.facts.name}: the shortest {split} video has {shortest} frames, a clip of {frames} "
                    f"frames, {stride} apart, spans {span}: leave such videos out, or say --repeat-short-videos"
                )
        return ""

    @functools.cached_property
    def rate(self) -> float | None:
        """Multiply-adds per second of trainings recorded here under this profile, None where there are none."""
        costs = [record.cost for record in readable(self.store) if record.profile == self.profile.name]
        return planning.rate(
            [cost["train_seconds"] for cost in costs], [cost.get("train_multiply_adds", 0) for cost in costs]
        )


def readable(store: Store) -> Iterator[RunRecord]:
    """The records that can be read: a damaged one elsewhere must not keep a study from its estimate or its table."""
    for run_id in store.ids():
        with contextlib.suppress(RecordError):
            yield store.read(run_id)


def profile(name: str) -> Profile:
    """A profile by its name.

    Raises:
      SettingsError: there is none of that name.
    """
    if name not in PROFILES:
        raise SettingsError(f"unknown profile {name!r}: {suggest(name, PROFILES)}")
    return PROFILES[name]


def papers() -> tuple[DataSet, ...]:
    """The paper's data sets as they were distributed, to plan with where they are not at hand; Kinetics-400 first."""
    return tuple(DataSet(facts_, None, None, ready=False) for facts_ in DATASETS.values())


def data_set(chosen: str | None, profile_: Profile, results: Path) -> DataSet:
    """The data set named on a command line, or the profile's own.

    Args:
      chosen: "embedded", the folder of a prepared data set, or None for the profile's default.
      profile_: the profile.
      results: the results folder; the embedded data set is kept in `data/` under it.

    Raises:
      SettingsError: the profile has no default and none was named.
      ManifestError: the folder holds no prepared data set, or a damaged one.
    """
    if chosen == EMBEDDED or (chosen is None and profile_.embedded):
        return _embedded(results / "data")
    if chosen is None:
        raise SettingsError(
            f"--profile {profile_.name} needs --data DIR: a folder of Kinetics TFRecord shards with its manifest.json "
            "(or --data embedded, to try it on the generated clips)"
        )
    folder = Path(chosen)
    manifest = manifests.load(folder)
    return DataSet(facts(manifest), folder, None, ready=True, shortest=_shortest(manifest), classes=manifest.classes)


def _embedded(root: Path) -> DataSet:
    spec = EmbeddedSpec()
    folder = embedded.folder(spec, root)
    if (folder / manifests.FILE_NAME).is_file():
        manifest = manifests.load(folder)
        return DataSet(facts(manifest), folder, spec, True, _shortest(manifest), manifest.classes)
    counts = (len(embedded.CLASSES), spec.train_videos, spec.validation_videos)
    planned = DataFacts(spec.name, *counts, embedded.content_fingerprint(spec))
    return DataSet(planned, folder, spec, False, dict.fromkeys(manifests.SPLITS, spec.frames), embedded.CLASSES)


def _known_classes(data: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the classes of a data set that a record tells of; a record does not hold them."""
    ours = data["name"] == EmbeddedSpec().name and data["classes"] == len(embedded.CLASSES)
    return embedded.CLASSES if ours else ()


def _shortest(manifest: Manifest) -> dict[str, int]:
    return {name: split.frames_min for name, split in manifest.splits.items()}


def facts(manifest: Manifest) -> DataFacts:
    """What settings need to know of a data set with this manifest."""
    train, validation = (manifest.splits[split].examples for split in ("train", "validation"))
    return DataFacts(manifest.name, len(manifest.classes), train, validation, manifest.fingerprint)


def recorded(
    store: Store, profile_: Profile, data: str | None, given: Mapping[str, int | None], validation_videos: int | None
) -> Workspace:
    """The one workspace that a profile's records were made in.

    Args:
      store: the records.
      profile_: the profile.
      data: name of the data set or beginning of its fingerprint, None for any.
      given: "replicas", "batch", "steps" as the user narrows them, None for any.
      validation_videos: evaluated on so many videos only, None for all.

    Raises:
      SettingsError: the records fit none, or several.
    """
    every = trainings(store, profile_.name, data, given)
    found = {flags: one for flags, one in every.items() if one.cut.validation_videos == validation_videos}
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
    for record in store.excerpts():
        of_data = data is None or record.data["name"] == data or str(record.data["fingerprint"]).startswith(data)
        of_profile = record.profile in PROFILES and profile_ in (None, record.profile)
        made = {"replicas": record.replicas, "batch": record.cut.get("batch"), "steps": record.cut.get("steps")}
        narrowed = all(value is None or made[name] == value for name, value in given.items())
        if record.taken_in or not (of_data and of_profile and narrowed):
            continue
        flags = {"data": record.data["fingerprint"][:8], **made}
        if profile_ is None:
            flags = {"profile": record.profile, **flags}
        for videos in {_first(evaluation) for evaluation in record.evaluations.values()}:
            own = {**flags, "validation-videos": videos}
            key = " ".join(f"--{name} {value}" for name, value in own.items() if value is not None)
            if key not in found:
                made_on = DataSet(DataFacts(**record.data), None, None, False, classes=_known_classes(record.data))
                cut = Cut(made["steps"], made["batch"], videos)
                found[key] = Workspace(PROFILES[record.profile], made_on, cut, record.replicas, store, Devices())
    return found


def _first(evaluation: Evaluation) -> int | None:
    """On how many videos an evaluation was cut short, None for all of them."""
    return evaluation.videos if evaluation.videos < evaluation.videos_in_split else None
