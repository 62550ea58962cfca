"""Cell + profile + data set -> the complete settings of a run, as plain data, and their identity.

Settings are a flat mapping: the Model Garden's dotted names (a list's elements as `name[i]`) and, for what the Garden's
configuration cannot say, names of ours under `network.`. Every leaf of the Garden's configuration is stated here or in
the profile, none is left to a default. What cannot change a result (paths, intervals of logging, addresses) stands
apart, in the bookkeeping, and is no part of the identity.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from harness.config.studies import Cell
from harness.config.toggles import Applied, In, Toggle, ToggleError, compose, suggest
from harness.system.errors import HarnessError

# Raised whenever a change of our code changes results, so that records made before are not mistaken for the new ones.
RESULTS_VERSION = 2

TRAIN_STEPS = "trainer.train_steps"
DECAY_STEPS = "trainer.optimizer_config.learning_rate.cosine.decay_steps"
TRAIN_BATCH = "task.train_data.global_batch_size"
SEED = "task.train_data.seed"


class SettingsError(HarnessError):
    """Settings that cannot be computed or do not fit together; the message is one line for the user."""


@dataclasses.dataclass(frozen=True)
class Profile:
    """A way to train: the recipe of the baseline and how the paper's units translate.

    Attributes:
      name: "paper", "quick".
      caption: sentence for the caption of every table and figure made with it.
      settings: field -> value of the baseline, :class:`harness.config.toggles.In` where the paper's unit is meant.
      bookkeeping: likewise, for what cannot change a result.
      units: unit -> factor, or a table from the paper's amounts to the profile's.
      axes: the scaling axes, at their defaults in the baseline.
      clips, crops: the protocol of the reported evaluation (views = clips x crops).
      evaluation_batch: videos per evaluation batch and replica.
      validation_batch: videos per batch and replica of the validation while training.
      replicas: over how many replicas the batch is split on a TPU, unless the user says otherwise.
      embedded: whether the embedded data set is trained on when no other is given.
      stages: key of a stage -> what the profile makes of it, a sentence for the captions of rows that had it.
      longest: field of the bookkeeping -> steps that its interval is no longer than, however large the data set is.
      measured_rate: multiply-adds per second of trainings on two CPU cores, to plan with before anything was measured
        here; None where nobody trains it on those.
    """

    name: str
    caption: str
    settings: Mapping[str, Any]
    bookkeeping: Mapping[str, Any]
    units: Mapping[str, Any]
    axes: tuple[Toggle, ...]
    clips: int
    crops: int
    evaluation_batch: int
    validation_batch: int
    replicas: int
    embedded: bool
    measured_rate: float | None = None
    longest: Mapping[str, int] = dataclasses.field(default_factory=dict)
    stages: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class DataFacts:
    """What the settings need to know of a data set.

    Attributes:
      name: its name.
      classes: number of classes.
      train_videos, validation_videos: number of videos of the two splits.
      fingerprint: SHA-256 of its content, 64 hexadecimal digits; empty for a data set that is only planned with.
    """

    name: str
    classes: int
    train_videos: int
    validation_videos: int
    fingerprint: str = ""


@dataclasses.dataclass(frozen=True)
class Cut:
    """Deliberate departures from a profile, for trying things out; a record and a table name each of them.

    Attributes:
      steps: optimizer steps instead of the schedule's.
      batch: global training batch, in clips; steps still follow from the epochs.
      validation_videos: only the first so many videos of the validation split are evaluated.
    """

    steps: int | None = None
    batch: int | None = None
    validation_videos: int | None = None

    def __str__(self) -> str:
        given = {name: value for name, value in dataclasses.asdict(self).items() if value is not None}
        return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in given.items())

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if value is not None and value < 1:
                raise SettingsError(f"{name.replace('_', ' ')} {value}: expected at least 1")


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How a checkpoint is evaluated; numbers under different protocols never stand in one column.

    Attributes:
      clips: clips evenly spaced in time.
      crops: spatial crops of each clip, 1 (centre) or 3 (along the longer side).
      size: side of a crop, pixels.
      videos: evaluate only the first so many videos of the validation split; None for all of them.
    """

    clips: int
    crops: int
    size: int
    videos: int | None = None

    @property
    def name(self) -> str:
        """Short name, used for files: "10x3@256", "1x1@32-first2"."""
        return f"{self.clips}x{self.crops}@{self.size}" + (f"-first{self.videos}" if self.videos else "")

    def __str__(self) -> str:
        cut = f", first {self.videos} videos" if self.videos else ""
        return f"{self.clips} x {self.crops} views of {self.size} x {self.size} pixels{cut}"


@dataclasses.dataclass(frozen=True)
class Run:
    """Everything that decides one run's result, and what is needed to carry it out.

    Attributes:
      cell: the toggles, scale and seed it came from.
      profile: name of the profile.
      data: the data set.
      settings: every value that decides the result.
      bookkeeping: values that do not.
      protocol: how the result is evaluated.
      evaluation_batch: videos per evaluation batch and replica.
      replicas: over how many replicas the global batch is split.
      cut: departures from the profile.
      scale: key -> value of every scaling axis.
      parent: identity of the run whose checkpoint it starts from.
      recorded: the identity in its record, where it comes from one.
      start: the run whose checkpoint it starts from, where it is the next stage of a chain; None otherwise.
      evaluated: whether its result is a number; a run that is not is over once it is trained.
    """

    cell: Cell
    profile: str
    data: DataFacts
    settings: Mapping[str, Any]
    bookkeeping: Mapping[str, Any]
    protocol: Protocol
    evaluation_batch: int
    replicas: int
    scale: Mapping[str, Any]
    cut: Cut = Cut()
    parent: str | None = None
    recorded: str | None = None
    start: Run | None = None
    evaluated: bool = True

    @property
    def chain(self) -> tuple[Run, ...]:
        """The runs that lead to it, each starting from the one before, and itself."""
        return (*(self.start.chain if self.start else ()), self)

    @property
    def clips_per_group(self) -> int:
        """Clips, or pairs of them, of a replica: over these batch normalization takes its statistics.

        Unless it is synchronised between replicas, as for CVRL; what a replica draws depends on their number there too.
        """
        return int(self.settings[TRAIN_BATCH]) // self.replicas

    @property
    def seed(self) -> int:
        """The one seed: initialisation, data order, augmentation and dropout follow from it."""
        return int(self.settings[SEED])

    @functools.cached_property
    def identity(self) -> str:
        """SHA-256, 64 hexadecimal digits, of all that decides the result: same identity, same run."""
        return self.recorded or content_hash(identity_content(self))

    @property
    def id(self) -> str:
        """The first 16 digits of the identity: the run's name in `results/runs/`."""
        return self.identity[:16]


def identity_content(run: Run) -> dict[str, Any]:
    """What the identity is the hash of."""
    return {
        "settings": dict(run.settings),
        "data": run.data.fingerprint,
        "seed": run.seed,
        "precision": run.settings["runtime.mixed_precision_dtype"],
        "clips_per_group": run.clips_per_group,
        "model_garden": garden_version(),
        "results_version": RESULTS_VERSION,
        "parent": run.parent,
    }


def content_hash(content: Any) -> str:
    """SHA-256 of plain data: canonical JSON with sorted keys, so equal content has equal hashes everywhere."""
    text = json.dumps(_canonical(content), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _canonical(value: Any) -> Any:
    """Whole floats as integers: 0 and 0.0 are one setting and must have one hash."""
    kind = type(value)
    if kind is str or kind is int or kind is bool or value is None:  # most values: a report hashes thousands of records
        return value
    if isinstance(value, Mapping):
        return {key: _canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


@functools.cache
def garden_version() -> str:
    """Version of the installed tf-models-official, read without importing it."""
    return metadata.version("tf-models-official")


def complete(
    cell: Cell,
    profile: Profile,
    data: DataFacts,
    cut: Cut = Cut(),
    replicas: int | None = None,
    parent: str | Run | None = None,
) -> Run:
    """The complete settings of a cell under a profile, on a data set.

    Args:
      cell: the cell.
      profile: the profile.
      data: the data set of its stage.
      cut: departures from the profile.
      replicas: over how many replicas the batch is split; None for the profile's own.
      parent: the run that it starts from, or the identity of one; None where it starts from its seed.

    Raises:
      ToggleError: toggles that conflict or name no field of the settings.
      SettingsError: settings that do not fit together, such as a batch that the replicas cannot share evenly.
    """
    replicas = replicas or profile.replicas
    changes = compose((*cell.scale(profile.axes), *cell.applied))
    _refuse_unknown_fields(cell, profile)
    settings = {**profile.settings, **changes, **_data_settings(data, cell.seed)}
    if cell.stage is not None:
        settings = cell.stage.on(settings)
        cell = dataclasses.replace(cell, applied=cell.stage.act(cell.applied))
    units = {**profile.units, "classes": data.classes}
    settings[TRAIN_BATCH] = cut.batch or _convert(settings[TRAIN_BATCH], units)
    convert = functools.partial(_convert, units=units, steps=_Steps(data.train_videos, settings[TRAIN_BATCH]))
    settings = {field: convert(value) for field, value in settings.items()}
    if cut.steps is not None:
        settings[TRAIN_STEPS] = settings[DECAY_STEPS] = cut.steps
    videos = cut.validation_videos or data.validation_videos
    size = settings["task.validation_data.feature_shape[1]"]
    run = Run(
        cell=cell,
        profile=profile.name,
        data=data,
        settings=settings,
        bookkeeping=_bookkeeping(profile, convert, settings[TRAIN_STEPS], data, videos, replicas),
        protocol=Protocol(profile.clips, profile.crops, size, cut.validation_videos),
        evaluation_batch=min(profile.evaluation_batch, -(-videos // replicas)),
        replicas=replicas,
        scale=applied_as_data(cell.scale(profile.axes)),
        cut=cut,
        parent=parent.identity if isinstance(parent, Run) else parent,
        start=parent if isinstance(parent, Run) else None,
        evaluated=cell.stage is None or cell.stage.evaluated,
    )
    check(run)
    return run


def _data_settings(data: DataFacts, seed: int) -> dict[str, Any]:
    """The settings that the data set and the seed fill in."""
    return {
        "task.train_data.num_classes": data.classes,
        "task.train_data.num_examples": data.train_videos,
        "task.validation_data.num_classes": data.classes,
        SEED: seed,
        "task.validation_data.seed": seed,
    }


def _refuse_unknown_fields(cell: Cell, profile: Profile) -> None:
    for one in cell.applied:
        for field in one.changes:
            if field not in profile.settings:
                raise ToggleError(
                    f"toggle {one.toggle.key} changes {field!r}, which is no setting: "
                    f"{suggest(field, profile.settings)}"
                )


@dataclasses.dataclass(frozen=True)
class _Steps:
    """Optimizer steps of so many epochs: ceil(epochs x clips / batch), the rule of the Garden's published YAML."""

    examples: int
    batch: int

    def of(self, epochs: float) -> int:
        # Rounding first keeps 0.04 x 200 epochs of 512 clips from becoming one step too many.
        return max(1, math.ceil(round(epochs * self.examples / self.batch, 6)))


# Units of so many epochs, which become steps: of a training from scratch, and of a stage of a chain, whose epochs a
# profile may shorten otherwise.
_EPOCHS = ("epochs", "stage_epochs")


def _convert(value: Any, units: Mapping[str, Any], steps: _Steps | None = None) -> Any:
    """The paper's amounts as the profile's: recursively, through nested mappings."""
    if isinstance(value, Mapping):
        return {key: _convert(item, units, steps) for key, item in value.items()}
    if not isinstance(value, In):
        return value
    amount = _amount(value, units)
    if value.unit not in _EPOCHS:
        return amount
    if steps is None:
        raise SettingsError(f"{value}: the batch, by which epochs are counted, cannot be given in epochs")
    return steps.of(amount)


def _amount(value: In, units: Mapping[str, Any]) -> Any:
    scale = units.get(value.unit)
    if scale is None:
        raise SettingsError(f"unit {value.unit!r}: expected one of {', '.join(units)}")
    if isinstance(scale, Mapping):
        if value.amount not in scale:
            raise SettingsError(f"{value.amount} {value.unit}: the profile knows {', '.join(map(str, scale))}")
        return scale[value.amount]
    amount = value.amount * scale
    # A length in whole pixels or layers stays a whole number; a rate, given as a float, a float.
    return int(amount) if isinstance(value.amount, int) and float(amount).is_integer() else amount


def _bookkeeping(
    profile: Profile, convert: Any, train_steps: int, data: DataFacts, videos: int, replicas: int
) -> dict[str, Any]:
    """The bookkeeping with its intervals in steps, none longer than the run, and what the data set fills in."""
    filled = {
        field: min(convert(value), profile.longest.get(field, train_steps), train_steps)
        if isinstance(value, In)
        else value
        for field, value in profile.bookkeeping.items()
    }
    batch = min(profile.validation_batch, -(-videos // replicas))
    return filled | {
        "task.train_data.name": data.name,
        "task.validation_data.name": data.name,
        "task.validation_data.num_examples": videos,
        "task.validation_data.global_batch_size": batch * replicas,
    }


def check(run: Run) -> None:
    """Refuses settings that the Garden would accept and get silently wrong.

    Raises:
      SettingsError: naming the fields and what was expected.
    """
    settings = run.settings
    batch = settings[TRAIN_BATCH]
    if batch % run.replicas:
        raise SettingsError(f"batch {batch}: cannot be split evenly over {run.replicas} replicas")
    if settings["task.losses.one_hot"] != settings["task.validation_data.one_hot"]:
        raise SettingsError(
            "task.losses.one_hot and task.validation_data.one_hot differ: accuracy would be meaningless"
        )
    mixup = settings["task.train_data.mixup_and_cutmix"]
    if settings["task.train_data.one_hot"] != (settings["task.losses.one_hot"] and mixup is None):
        expected = "false with mixup, which makes its own" if mixup is not None else "the same as task.losses.one_hot"
        raise SettingsError(f"task.train_data.one_hot={settings['task.train_data.one_hot']}: expected {expected}")
    if settings["task.losses.label_smoothing"] and (mixup or {}).get("label_smoothing"):
        raise SettingsError(
            "mixup_and_cutmix.label_smoothing and task.losses.label_smoothing would smooth twice: set one of them to 0"
        )
    if settings["task.losses.label_smoothing"] and not settings["task.losses.one_hot"]:
        raise SettingsError("task.losses.label_smoothing is ignored unless task.losses.one_hot is true")
    for field, only in _ONLY.items():
        if settings[field] != only:
            raise SettingsError(f"{field}={settings[field]}: the reader knows {only} only")
    for field, only in _ONLY_CONTRASTED.items() if settings.get("task.train_data.is_ssl") else ():
        if settings[field] != only:
            raise SettingsError(f"{field}={settings[field]}: two clips of a video are read with {only} only")
    size, smallest = settings["task.validation_data.feature_shape[1]"], settings["task.validation_data.min_image_size"]
    if size > smallest:
        raise SettingsError(f"an evaluation crop of {size} from frames of {smallest} pixels would be padded with zeros")
    if run.cut.validation_videos and run.cut.validation_videos > run.data.validation_videos:
        raise SettingsError(
            f"validation videos {run.cut.validation_videos}: {run.data.name} has {run.data.validation_videos}"
        )


# What the Garden's own reader would do on these settings, ours does not.
_ONLY = {
    f"task.{split}_data.{field}": only
    for split in ("train", "validation")
    for field, only in {
        "file_type": "tfrecord",
        "compressed_input": False,
        "cache": False,
        "deterministic": True,
        "sharding": True,
        "output_audio": False,
        "is_multilabel": False,
        "is_training": split == "train",
        "drop_remainder": split == "train",
    }.items()
}

# What is not done to two clips of a video, by the Garden's reader or ours.
_ONLY_CONTRASTED = {
    "task.train_data.aug_type": None,
    "task.train_data.aug_random_rotation": False,
    "task.train_data.mixup_and_cutmix": None,
    "task.train_data.random_stride_range": 0,
}


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Field -> (value before, value after) where two settings differ."""
    fields = sorted({*before, *after})
    return {field: (before.get(field), after.get(field)) for field in fields if before.get(field) != after.get(field)}


def applied_as_data(applied: tuple[Applied, ...]) -> dict[str, Any]:
    """Key -> value of toggles or axes, for a record."""
    return {one.toggle.key: one.value for one in applied}


def for_protocol(run: Run, protocol: Protocol) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings and bookkeeping with which the Garden's task evaluates a run under a protocol."""
    views = {
        "task.validation_data.num_test_clips": protocol.clips,
        "task.validation_data.num_test_crops": protocol.crops,
        "task.validation_data.feature_shape[1]": protocol.size,
        "task.validation_data.feature_shape[2]": protocol.size,
        "task.validation_data.min_image_size": protocol.size,
    }
    batches = {
        "task.validation_data.num_examples": protocol.videos or run.data.validation_videos,
        "task.validation_data.global_batch_size": run.evaluation_batch * run.replicas,
    }
    return {**run.settings, **views}, {**run.bookkeeping, **batches}
