"""Computes a run's complete settings and its identity from a cell, a profile and a data set, as plain data.

Settings are a flat mapping of the Model Garden's dotted names (elements of a list as `name[i]`). Settings that the
Garden's configuration lacks have names under `network.`. This module or the profile states every leaf of the Garden's
configuration; none is left to a default. Values that cannot change a result (paths, logging intervals, addresses) are
kept apart, in the bookkeeping, and are not part of the identity.
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
from harness.config.toggles import PaperAmount, Toggle, ToggleError, ToggleValue, compose, suggest
from harness.system.errors import HarnessError

# Increased whenever a change of our code changes results, so that older records do not count as results of new code.
RESULTS_VERSION = 2

TRAIN_STEPS = "trainer.train_steps"
DECAY_STEPS = "trainer.optimizer_config.learning_rate.cosine.decay_steps"
TRAIN_BATCH = "task.train_data.global_batch_size"
SEED = "task.train_data.seed"


class SettingsError(HarnessError):
    """Settings that cannot be computed or do not fit together; the message is one line for the user."""


@dataclasses.dataclass(frozen=True)
class Profile:
    """A way to train: the recipe of the baseline, and the conversion of the paper's units.

    Attributes:
      name: "paper", "quick".
      caption: sentence for the caption of every table and figure made with it.
      settings: field -> value of the baseline, :class:`harness.config.toggles.PaperAmount` where the paper's unit is
        meant.
      bookkeeping: the same, for fields that cannot change a result.
      units: unit -> factor, or a table from the paper's amounts to the profile's.
      axes: the scaling axes, at their defaults in the baseline.
      clips, crops: the protocol of the reported evaluation (views = clips x crops).
      evaluation_batch: videos per evaluation batch and replica.
      validation_batch: videos per batch and replica of the validation while training.
      replicas: number of replicas that the batch is split over on a TPU, unless the user chooses another.
      embedded: whether the embedded data set is trained on when no other is given.
      stages: key of a stage -> a sentence, for captions of rows with that stage, about how the profile changes it.
      longest: field of the bookkeeping -> longest interval in steps, however large the data set is.
      measured_rate: multiply-adds per second of trainings on two CPU cores, used in plans until this machine has
        measurements of its own; None for a profile that is not meant for CPUs.
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
class DatasetInfo:
    """The facts about a data set that settings depend on.

    Attributes:
      name: its name.
      classes: number of classes.
      train_videos, validation_videos: number of videos of the two splits.
      fingerprint: SHA-256 of its content, 64 hexadecimal digits; empty for a data set that is only used in plans.
    """

    name: str
    classes: int
    train_videos: int
    validation_videos: int
    fingerprint: str = ""


@dataclasses.dataclass(frozen=True)
class Overrides:
    """Deliberate departures from a profile, for try-outs; records and tables name each of them.

    Attributes:
      steps: optimizer steps instead of the schedule's.
      batch: global training batch, in clips; the number of steps still follows from the epochs.
      validation_videos: number of videos, from the first of the validation split, that are evaluated.
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
    """How a checkpoint is evaluated; numbers under different protocols never share a column.

    Attributes:
      clips: clips evenly spaced in time.
      crops: spatial crops of each clip, 1 (centre) or 3 (along the longer side).
      size: side of a crop, pixels.
      videos: number of videos, from the first of the validation split, that are evaluated; None for all.
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
    """Everything that determines the result of one run, and the values needed to carry it out.

    Attributes:
      cell: the toggles, scale and seed that the settings were computed from.
      profile: name of the profile.
      data: the data set.
      settings: every value that can change the result.
      bookkeeping: values that cannot.
      protocol: how the result is evaluated.
      evaluation_batch: videos per evaluation batch and replica.
      replicas: number of replicas that the global batch is split over.
      cut: departures from the profile.
      scale: key -> value of every scaling axis.
      parent: identity of the run whose checkpoint it starts from.
      recorded: the identity that its record holds; None for a run that was not read from a record.
      start: the previous stage of a chain, whose checkpoint it starts from; None where there is none.
      evaluated: whether it is evaluated after training.
    """

    cell: Cell
    profile: str
    data: DatasetInfo
    settings: Mapping[str, Any]
    bookkeeping: Mapping[str, Any]
    protocol: Protocol
    evaluation_batch: int
    replicas: int
    scale: Mapping[str, Any]
    cut: Overrides = Overrides()
    parent: str | None = None
    recorded: str | None = None
    start: Run | None = None
    evaluated: bool = True

    @property
    def chain(self) -> tuple[Run, ...]:
        """The earlier runs of its chain, first one first, and the run itself; each starts from the one before it."""
        return (*(self.start.chain if self.start else ()), self)

    @property
    def clips_per_group(self) -> int:
        """Clips of a replica's batch (CVRL: pairs of clips), over which batch normalization computes its statistics.

        CVRL synchronises batch normalization between replicas. Its result depends on this number all the same, since
        what a replica draws depends on the number of replicas.
        """
        return int(self.settings[TRAIN_BATCH]) // self.replicas

    @property
    def seed(self) -> int:
        """The seed that initialisation, data order, augmentation and dropout all follow from."""
        return int(self.settings[SEED])

    @functools.cached_property
    def identity(self) -> str:
        """SHA-256, 64 hexadecimal digits, of everything that determines the result: same identity, same run."""
        return self.recorded or content_hash(identity_content(self))

    @property
    def id(self) -> str:
        """The first 16 digits of the identity: the run's name in `results/runs/`."""
        return self.identity[:16]


def identity_content(run: Run) -> dict[str, Any]:
    """Returns the content that the identity is the hash of."""
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
    """Returns the SHA-256 of plain data as canonical JSON with sorted keys, so that equal content has equal hashes."""
    text = json.dumps(_canonical(content), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _canonical(value: Any) -> Any:
    """Turns whole floats into integers, since 0 and 0.0 are the same setting and must have the same hash."""
    kind = type(value)
    if (
        kind is str or kind is int or kind is bool or value is None
    ):  # a short cut for most values: a report hashes thousands of records
        return value
    if isinstance(value, Mapping):
        return {key: _canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


@functools.cache
def garden_version() -> str:
    """Returns the version of the installed tf-models-official without importing it."""
    return metadata.version("tf-models-official")


def complete(
    cell: Cell,
    profile: Profile,
    data: DatasetInfo,
    cut: Overrides = Overrides(),
    replicas: int | None = None,
    parent: str | Run | None = None,
) -> Run:
    """Computes the complete settings of a cell under a profile, on a data set.

    Args:
      cell: the cell.
      profile: the profile.
      data: the data set that its stage is trained on.
      cut: departures from the profile.
      replicas: number of replicas that the batch is split over; None for the profile's.
      parent: the run to start from, or its identity; None to start from the seed.

    Raises:
      ToggleError: toggles conflict, or change a field that the settings lack.
      SettingsError: settings do not fit together, such as a batch that the replicas cannot share evenly.
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


def _data_settings(data: DatasetInfo, seed: int) -> dict[str, Any]:
    """Returns the settings that follow from the data set and the seed."""
    return {
        "task.train_data.num_classes": data.classes,
        "task.train_data.num_examples": data.train_videos,
        "task.validation_data.num_classes": data.classes,
        SEED: seed,
        "task.validation_data.seed": seed,
    }


def _refuse_unknown_fields(cell: Cell, profile: Profile) -> None:
    for applied in cell.applied:
        for field in applied.changes:
            if field not in profile.settings:
                raise ToggleError(
                    f"toggle {applied.toggle.key} changes {field!r}, which is no setting: "
                    f"{suggest(field, profile.settings)}"
                )


@dataclasses.dataclass(frozen=True)
class _Steps:
    """Converts epochs to optimizer steps: ceil(epochs x clips / batch), the rule of the Garden's published YAML."""

    examples: int
    batch: int

    def of(self, epochs: float) -> int:
        # Without rounding, float error would add a step to 0.04 x 200 epochs of 512 clips.
        return max(1, math.ceil(round(epochs * self.examples / self.batch, 6)))


# Units that are converted to steps: epochs of a training from scratch, and of a stage of a chain. They are two because
# a profile may shorten stages by another factor.
_EPOCHS = ("epochs", "stage_epochs")


def _convert(value: Any, units: Mapping[str, Any], steps: _Steps | None = None) -> Any:
    """Converts the paper's amounts to the profile's, in nested mappings too."""
    if isinstance(value, Mapping):
        return {key: _convert(item, units, steps) for key, item in value.items()}
    if not isinstance(value, PaperAmount):
        return value
    amount = _amount(value, units)
    if value.unit not in _EPOCHS:
        return amount
    if steps is None:
        raise SettingsError(f"{value}: the batch, by which epochs are counted, cannot be given in epochs")
    return steps.of(amount)


def _amount(value: PaperAmount, units: Mapping[str, Any]) -> Any:
    scale = units.get(value.unit)
    if scale is None:
        raise SettingsError(f"unit {value.unit!r}: expected one of {', '.join(units)}")
    if isinstance(scale, Mapping):
        if value.amount not in scale:
            raise SettingsError(f"{value.amount} {value.unit}: the profile knows {', '.join(map(str, scale))}")
        return scale[value.amount]
    amount = value.amount * scale
    # An integer amount (pixels, layers) stays an integer where it can; a float (a rate) stays a float.
    return int(amount) if isinstance(value.amount, int) and float(amount).is_integer() else amount


def _bookkeeping(
    profile: Profile, convert: Any, train_steps: int, data: DatasetInfo, videos: int, replicas: int
) -> dict[str, Any]:
    """Returns the bookkeeping, with intervals in steps (none longer than the run) and the values of the data set."""
    filled = {
        field: min(convert(value), profile.longest.get(field, train_steps), train_steps)
        if isinstance(value, PaperAmount)
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
    """Refuses settings that the Garden would accept but silently handle wrongly.

    Raises:
      SettingsError: the settings are refused; the message names the fields and what was expected.
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


# The only values that our reader supports; the Garden's supports others.
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

# The only values that reading two clips of a video supports, with the Garden's reader as with ours.
_ONLY_CONTRASTED = {
    "task.train_data.aug_type": None,
    "task.train_data.aug_random_rotation": False,
    "task.train_data.mixup_and_cutmix": None,
    "task.train_data.random_stride_range": 0,
}


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Returns field -> (value before, value after) of the fields in which two settings differ."""
    fields = sorted({*before, *after})
    return {field: (before.get(field), after.get(field)) for field in fields if before.get(field) != after.get(field)}


def applied_as_data(applied: tuple[ToggleValue, ...]) -> dict[str, Any]:
    """Returns key -> value of toggles or axes, as a record holds them."""
    return {item.toggle.key: item.value for item in applied}


def for_protocol(run: Run, protocol: Protocol) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the settings and the bookkeeping for evaluating a run under a protocol with the Garden's task."""
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
