"""What a command works with: profile, data set, results folder and toggles, resolved from its flags. No TensorFlow."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ablations.datasets import DATASETS, GENERATED, OTHER_MOTION, WVT
from ablations.profiles import PROFILES
from harness.config import experiment
from harness.config.devices import Devices
from harness.config.embedded_spec import EmbeddedSpec
from harness.config.experiment import DatasetInfo, Overrides, Profile, Run, SettingsError
from harness.config.sharing import Sharing
from harness.config.stages import PRE_TRAINING
from harness.config.studies import Cell, Study
from harness.config.toggles import suggest
from harness.data import embedded
from harness.data import manifest as manifests
from harness.data.manifest import Manifest
from harness.planning import plans
from harness.planning.plans import RunKnowledge
from harness.store.records import RecordError, RunRecord
from harness.store.run_store import Store
from harness.training.garden_folder import GardenFolder

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
      missing: what a plan says of it while its shards are not there.
    """

    facts: DatasetInfo
    folder: Path | None
    spec: EmbeddedSpec | None
    ready: bool
    shortest: Mapping[str, int] = dataclasses.field(default_factory=dict)
    classes: tuple[str, ...] = ()
    missing: str = "not there yet"


@dataclasses.dataclass(frozen=True)
class Workspace:
    """Everything that turns a cell into a run, and where results are.

    Attributes:
      profile: the profile.
      data: the data set.
      further: more data sets, for studies that the paper asks on others.
      pre_training: the data set that chains pre-train on; None where none was named.
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
    cut: Overrides
    replicas: int
    store: Store
    devices: Devices
    parent: str | None = None
    keep: int = 2
    repeat_short: bool = False
    garden: GardenFolder | None = None
    further: tuple[DataSet, ...] = ()
    pre_training: DataSet | None = None
    preflight: bool = True
    sharing: Sharing = _ALONE

    def assigned(self, studies: Sequence[Study]) -> dict[str, DataSet]:
        """Name of a study -> the data set it is trained on, where a row names no other: see :meth:`given`.

        Raises:
          SettingsError: a study whose data set is not among those given, or two of one number of classes.
        """
        given = self.given(studies)
        return {study.name: given(study, study.datasets[0]) for study in studies}

    def given(self, studies: Sequence[Study]) -> Callable[[Study, str], DataSet]:
        """What tells the data set for a study and one of the paper's: the one with as many classes as the paper's.

        Where the paper asks all of the studies on one data set and one is given, it is that one, whatever it is.
        """
        usual = self.data.facts.name == EMBEDDED
        alone = len({name for study in studies for name in study.datasets}) == 1 and not self.further

        def of(study: Study, name: str) -> DataSet:
            if self.data.facts.name in GENERATED:  # generated clips stand in for every data set
                return self._generated(study.stand_in) if usual and self.data.spec else self.data
            return self.data if alone else self._with_as_many_classes(study, name)

        return of

    def _with_as_many_classes(self, study: Study, name: str) -> DataSet:
        wanted = DATASETS[name]
        fits = [one for one in (self.data, *self.further) if one.facts.classes == wanted.classes]
        if len(fits) == 1:
            return fits[0]
        given = ", ".join(f"{one.facts.name} ({one.facts.classes} classes)" for one in (self.data, *self.further))
        raise SettingsError(
            f"{study.name}: is asked on {name}, {wanted.classes} classes; {'several' if fits else 'none'} of "
            f"--data has as many: {given}"
        )

    def _generated(self, name: str) -> DataSet:
        """The generated set of a name; drawn, or its fingerprint counted, once it is asked for."""
        return self.data if name == self.data.facts.name else generated(GENERATED[name], self.store.root / "data")

    @property
    def _pre_training_set(self) -> DataSet:
        """The data set that chains pre-train on: the one named, or the quick profile's own.

        Raises:
          SettingsError: none was named, and the profile has none of its own.
        """
        if self.pre_training is not None:
            return self.pre_training
        if self.data.spec is not None:
            return self._generated(OTHER_MOTION.name)
        raise SettingsError(
            f"{self.data.facts.name}: a chain that pre-trains needs --pretrain-data DIR, the data set to pre-train on"
        )

    def data_of(self, run: Run) -> DataSet:
        """The data set that a run of a plan of this workspace is trained on."""
        sets = [self.data, *self.further, *([self.pre_training] if self.pre_training else [])]
        if run.data.name in GENERATED and self.data.spec is not None:
            sets.append(self._generated(run.data.name))
        return next((one for one in sets if one.facts == run.data), self.data)

    def parents_weights(self, run: Run) -> str | None:
        """Path of the weights that a run starts from, None where it starts from its seed.

        Raises:
          RecordError: the run that left them has no record, or a damaged one.
        """
        if run.parent is None:
            return None
        record = self.store.read(run.parent[:16])
        if record.identity != run.parent:
            raise RecordError(f"run {run.id}: starts from {run.parent}, not from {record.identity}")
        return str(self.store.weights(record))

    def complete(self, cell: Cell, data: DataSet | None = None) -> Run:
        """The run of a cell, on the first data set unless another is named; of a chain, that of its last stage."""
        pre_trains = cell.stage is not None and cell.stage.dataset == PRE_TRAINING
        facts_ = (self._pre_training_set if pre_trains else data or self.data).facts
        parent = self.parent if cell.before is None else self.complete(cell.before, data)
        run = experiment.complete(cell, self.profile, facts_, self.cut, self.replicas, parent)
        return dataclasses.replace(run, bookkeeping={**run.bookkeeping, "trainer.max_to_keep": self.keep})

    def plan(self, studies: Sequence[Study], seeds: Sequence[int]) -> plans.Plan:
        """The plan of some studies together, each row with each of the seeds.

        Raises:
          SettingsError: a study whose data set is not at hand, or settings that do not fit together.
        """
        given = self.given(studies)
        return plans.plan(
            studies,
            seeds,
            lambda study, cell: self.complete(cell, given(study, cell.dataset or study.dataset)),
            self._known,
            self.store.recorded,
        )

    def _known(self, run: Run) -> RunKnowledge:
        state = self.store.state(run.id)
        try:
            protocols = self.store.protocols(run.id) if state.name == "done" else None
        except RecordError as error:
            return RunKnowledge(frozenset(), state, str(error))
        known = protocols is not None or self.repeat_short
        return RunKnowledge(protocols, state, "" if known else self._too_short(run))

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
        return plans.rate(
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


def papers_pre_training() -> DataSet:
    """What the paper pre-trains on, to plan with."""
    return DataSet(WVT, None, None, ready=False, missing="private; how many are held out is a guess")


def data_sets(chosen: Sequence[str], profile_: Profile, results: Path, planning_only: bool) -> tuple[DataSet, ...]:
    """The data sets named on a command line; the paper's own where none is and nothing will be trained."""
    if not chosen and planning_only and not profile_.embedded:
        return papers()
    return tuple(data_set(one, profile_, results) for one in chosen or (None,))


def to_pre_train_on(chosen: str | None, profile_: Profile, results: Path, planning_only: bool) -> DataSet | None:
    """The data set to pre-train on that a command line names; the paper's where nothing will be trained."""
    if chosen is not None:
        return data_set(chosen, profile_, results)
    return papers_pre_training() if planning_only and not profile_.embedded else None


def data_set(chosen: str | None, profile_: Profile, results: Path) -> DataSet:
    """The data set named on a command line, or the profile's own.

    Args:
      chosen: "embedded" or another of the generated sets, the folder of a prepared one, or None for the profile's
        default.
      profile_: the profile.
      results: the results folder; the embedded data set is kept in `data/` under it.

    Raises:
      SettingsError: the profile has no default and none was named.
      ManifestError: the folder holds no prepared data set, or a damaged one.
    """
    if chosen in GENERATED or (chosen is None and profile_.embedded):
        return generated(GENERATED[chosen or EMBEDDED], results / "data")
    if chosen is None:
        raise SettingsError(
            f"--profile {profile_.name} needs --data DIR: a folder of Kinetics TFRecord shards with its manifest.json "
            "(or --data embedded, to try it on the generated clips)"
        )
    folder = Path(chosen)
    manifest = manifests.load(folder)
    return DataSet(facts(manifest), folder, None, ready=True, shortest=_shortest(manifest), classes=manifest.classes)


def generated(spec: EmbeddedSpec, root: Path) -> DataSet:
    """A generated data set, kept in a folder under `root`."""
    folder = embedded.folder(spec, root)
    if (folder / manifests.FILE_NAME).is_file():
        manifest = manifests.load(folder)
        return DataSet(facts(manifest), folder, spec, True, _shortest(manifest), manifest.classes)
    counts = (len(spec.classes), spec.train_videos, spec.validation_videos)
    planned = DatasetInfo(spec.name, *counts, embedded.content_fingerprint(spec))
    return DataSet(planned, folder, spec, False, dict.fromkeys(manifests.SPLITS, spec.frames), spec.classes)


def known_classes(data: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the classes of a data set that a record tells of; a record does not hold them."""
    spec = GENERATED.get(data["name"])
    return spec.classes if spec and data["classes"] == len(spec.classes) else ()


def generated_name(data: Mapping[str, Any]) -> str | None:
    """Name of the generated set that a record tells of; None where it is another."""
    return data["name"] if known_classes(data) else None


def _shortest(manifest: Manifest) -> dict[str, int]:
    return {name: split.frames_min for name, split in manifest.splits.items()}


def facts(manifest: Manifest) -> DatasetInfo:
    """What settings need to know of a data set with this manifest."""
    train, validation = (manifest.splits[split].examples for split in ("train", "validation"))
    return DatasetInfo(manifest.name, len(manifest.classes), train, validation, manifest.fingerprint)
