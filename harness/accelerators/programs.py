"""The programs of a study: the train step and the evaluation step that each core of an accelerator executes.

Runs share a program if they differ only in settings that do not shape it: the data that they draw, its augmentation,
and the schedule. This module does not load TensorFlow.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.resources
from collections.abc import Iterable, Mapping
from importlib import metadata
from typing import Any, Literal

from harness.config import network
from harness.config.experiment import Run, SettingsError, content_hash, for_protocol

Kind = Literal["train", "evaluation"]

# Settings that change only constants or inputs of a train step: the data, its augmentation, the schedule.
_FREE = (
    "task.train_data.aug_",
    "task.init_checkpoint_modules",  # the checkpoint that it starts from
    "task.train_data.global_batch_size",
    "task.train_data.min_image_size",
    "task.train_data.num_examples",
    "task.train_data.random_stride_range",
    "task.train_data.seed",
    "task.train_data.shuffle_buffer_size",
    "task.train_data.split",
    "task.train_data.temporal_stride",
    "task.validation_data.",
    "trainer.train_steps",
    "trainer.optimizer_config.learning_rate.cosine.decay_steps",
    "trainer.optimizer_config.learning_rate.cosine.initial_learning_rate",
    "trainer.optimizer_config.warmup.linear.warmup_steps",
)
# Settings that an evaluation does not depend on either: the loss, the optimizer, and parts of the network that work in
# training only.
_FREE_IN_EVALUATION = (
    *(field for field in _FREE if field != "task.validation_data."),
    "task.train_data.",
    "task.validation_data.aug_",
    "task.validation_data.num_test_",  # set by the protocol
    "task.validation_data.seed",
    "task.validation_data.shuffle_buffer_size",
    "task.validation_data.split",
    "task.validation_data.temporal_stride",
    "task.losses.",
    "task.model.backbone.resnet_3d_rs.stochastic_depth_drop_rate",
    "task.model.dropout_rate",
    "task.model.norm_activation.norm_momentum",
    "trainer.",
)
# Settings of how training clips are made, which takes time besides the step.
_MADE = ("task.train_data.aug_", "task.train_data.temporal_stride", "task.train_data.random_stride_range")
# The modules that define the step and how it is counted; a change in one of them makes all earlier results out of date.
_SOURCES = (
    "training/task.py", "training/tasks.py", "training/cvrl_task.py", "training/garden_config.py",
    "training/determinism.py", "data/reader.py", "data/decoding.py", "data/cvrl_clips.py", "data/cvrl_distortions.py",
    "data/on_device.py", "data/seeded_ops.py", "accelerators/lower.py", "accelerators/tpu_compiler.py",
    "accelerators/traffic.py", "accelerators/estimating.py",
)  # fmt: skip
_PACKAGES = ("tf-models-official", "tensorflow", "tf-keras")


@dataclasses.dataclass(frozen=True)
class Program:
    """The program that one core executes in one step.

    Attributes:
      kind: "train", a train step; or "evaluation", the step that evaluates one batch of videos with all their views.
      run: a run that executes it, the first of those that share it.
      clips: clips per core in a train step; videos per core in an evaluation, or if each video gives two clips to
        contrast.
      cores: number of cores over which gradients are summed; it matters because the compiler plans for the exchange.
    """

    kind: Kind
    run: Run
    clips: int
    cores: int

    @functools.cached_property
    def shape(self) -> str:
        """SHA-256, 64 hexadecimal digits, of the settings that shape it, whatever the version of the harness."""
        free = _FREE if self.kind == "train" else _FREE_IN_EVALUATION
        settings = self.run.settings if self.kind == "train" else for_protocol(self.run, self.run.protocol)[0]
        protocol = self.run.protocol
        return content_hash(
            {
                "kind": self.kind,
                "clips": self.clips,
                "cores": self.cores if self.kind == "train" else 1,
                "classes": self.run.data.classes,
                "views": None if self.kind == "train" else [protocol.clips, protocol.crops],
                "settings": {field: value for field, value in settings.items() if not field.startswith(free)},
            }
        )

    @functools.cached_property
    def fed(self) -> str:
        """SHA-256 of its shape and of how its input is made; the speeds of runs with equal hashes can be compared."""
        made = {field: value for field, value in self.run.settings.items() if field.startswith(_MADE)}
        return content_hash({"shape": self.shape, "fed": made if self.kind == "train" else None})

    @functools.cached_property
    def key(self) -> str:
        """SHA-256, 64 hexadecimal digits, that identifies the program: its shape, versions and source files."""
        return content_hash({"shape": self.shape, "versions": versions(), "sources": sources()})

    @property
    def views(self) -> int:
        """Number of views, clips times crops, that the network sees of each video in a step."""
        protocol = self.run.protocol
        return network.views(self.run.settings) if self.kind == "train" else protocol.clips * protocol.crops

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of one core in a step, in convolutions and dense layers."""
        settings, seen = self.run.settings, self.clips * self.views
        if self.kind == "evaluation":
            return seen * network.count(settings, size=self.run.protocol.size).multiply_adds
        frames, size = settings["task.train_data.feature_shape[0]"], settings["task.train_data.feature_shape[1]"]
        return network.passes(settings) * seen * network.count(settings, frames, size).multiply_adds

    def of(self, clips: int) -> Program:
        """Returns the same program with another number of clips, or videos, per core."""
        return dataclasses.replace(self, clips=clips)

    @property
    def batch(self) -> str:
        """Batch of one core in words: "8 clips", "1 video"."""
        return f"{self.clips} {self.unit}{'' if self.clips == 1 else 's'}"

    @property
    def unit(self) -> str:
        """Unit of the batch: "clip" or "video"."""
        return "clip" if self.kind == "train" and self.views == 1 else "video"


def of_run(run: Run, cores: int) -> tuple[Program, Program]:
    """Returns the train step and the evaluation step of a run on a number of cores.

    Raises:
      SettingsError: the cores cannot share the run's batch evenly.
    """
    batch = int(run.settings["task.train_data.global_batch_size"])
    if batch % cores:
        raise SettingsError(f"batch {batch}: cannot be split evenly over {cores} cores; choose another --batch")
    return Program("train", run, batch // cores, cores), Program("evaluation", run, run.evaluation_batch, cores)


def distinct(runs: Iterable[Run], cores: int) -> dict[str, Program]:
    """Returns key -> program, each once, in the order of the runs, a run's train step before its evaluation step.

    Raises:
      SettingsError: see :func:`of_run`.
    """
    programs: dict[str, Program] = {}
    for run in runs:
        for program in executed(run, cores):
            programs.setdefault(program.key, program)
    return programs


def executed(run: Run, cores: int) -> tuple[Program, ...]:
    """Returns the programs that a run executes: both, or only the train step if it is not evaluated.

    Raises:
      SettingsError: see :func:`of_run`.
    """
    train, evaluation = of_run(run, cores)
    return (train, evaluation) if run.evaluated else (train,)


@functools.cache
def versions() -> Mapping[str, str]:
    """Returns the versions of the packages that make a step, without importing them."""
    return {name: metadata.version(name) for name in _PACKAGES}


@functools.cache
def sources() -> str:
    """Returns the SHA-256 of the source files of the modules that make a step."""
    digest = hashlib.sha256()
    for name in _SOURCES:
        digest.update((importlib.resources.files("harness") / name).read_bytes())
    return digest.hexdigest()


def described(program: Program) -> dict[str, Any]:
    """Returns the description of a program in its result's file: "kind", "clips", "cores" and its network."""
    settings = program.run.settings
    part = "train" if program.kind == "train" else "validation"
    return {
        "kind": program.kind,
        "clips": program.clips,
        "cores": program.cores,
        "views": program.views,
        "toggles": {applied.toggle.key: applied.value for applied in program.run.cell.applied},
        "shape": [settings[f"task.{part}_data.feature_shape[{side}]"] for side in range(4)],
        "multiply_adds": program.multiply_adds,
    }
