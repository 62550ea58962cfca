"""Reads a folder that the Model Garden's own trainer wrote, and makes a run of it; needs no TensorFlow.

MODEL_DIR/params.yaml            the configuration
MODEL_DIR/ckpt-<step>.*          its checkpoints
MODEL_DIR/train/events.out.*     TensorBoard's points of the training curve
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from harness.config import nested
from harness.config.experiment import (
    SEED,
    TRAIN_BATCH,
    TRAIN_STEPS,
    DatasetInfo,
    Profile,
    Protocol,
    Run,
    content_hash,
    identity_content,
)
from harness.config.studies import Cell
from harness.system.errors import HarnessError

CONFIG = "params.yaml"
TRAINER = "Model Garden"
DEPTH = "task.model.backbone.resnet_3d_rs.model_id"
PRECISION = "runtime.mixed_precision_dtype"

Stages = tuple[tuple[int, int], ...]

_FILTERS = (64, 128, 256, 512)
# Layers -> (filters, blocks) of the four stages: RESNET_SPECS of official/vision/modeling/backbones/resnet_3d.py.
SHIPPED: dict[int, Stages] = {
    depth: tuple(zip(_FILTERS, blocks, strict=True))
    for depth, blocks in {
        50: (3, 4, 6, 3),
        101: (3, 4, 23, 3),
        152: (3, 8, 36, 3),
        200: (3, 24, 36, 3),
        270: (4, 29, 53, 4),
        300: (4, 36, 54, 4),
        350: (4, 36, 72, 4),
    }.items()
}
# Endings of fields that hold paths and addresses of the machine that trained: useless here, and private.
_PLACES = ("input_path", "init_checkpoint", "tfds_data_dir", "service_address", "runtime.tpu", "worker_hosts")
_PARTS = ("task", "trainer", "runtime")
_CHECKPOINT = re.compile(r"ckpt-(\d+)")
# Fields that the harness computes with before TensorFlow could check them.
_NUMBERS = (
    DEPTH,
    TRAIN_BATCH,
    TRAIN_STEPS,
    "task.train_data.num_classes",
    *(f"task.{split}_data.feature_shape[{axis}]" for split in ("train", "validation") for axis in range(4)),
)


class GardenFolderError(HarnessError):
    """A folder that cannot be imported as a run; the message says in one line what is wrong and what was expected."""


@dataclasses.dataclass(frozen=True)
class GardenFolder:
    """The content of a folder that the Garden's trainer wrote.

    Attributes:
      folder: the folder.
      config: the configuration, nested.
      checkpoint: path of the checkpoint to import: ".../ckpt-208".
      config_sha256: hash of the configuration's file.
      checkpoint_sha256: hash of the hashes of the checkpoint's files, index first.
    """

    folder: Path
    config: Mapping[str, Any]
    checkpoint: Path
    config_sha256: str
    checkpoint_sha256: str

    @property
    def step(self) -> int:
        """Number of optimizer steps before the checkpoint."""
        return int(self.checkpoint.name.removeprefix("ckpt-"))

    @property
    def trained_by(self) -> dict[str, str]:
        """The part of the identity that sets this run apart from one that the harness trains with the same settings."""
        return {"trainer": TRAINER, "config": self.config_sha256, "checkpoint": self.checkpoint_sha256}


def stages(settings: Mapping[str, Any]) -> Stages:
    """Returns (filters, blocks) of the four stages of a run's network."""
    return tuple((settings[f"network.filters[{stage}]"], settings[f"network.blocks[{stage}]"]) for stage in range(4))


def read_garden_folder(folder: Path, checkpoint: str | None = None) -> GardenFolder:
    """Reads a folder that the Garden's trainer wrote.

    Args:
      folder: the `--model_dir` of the Garden's `train.py`.
      checkpoint: name of the checkpoint to import, such as "ckpt-208"; None for the last.

    Raises:
      GardenFolderError: the folder does not exist, or has no configuration of the Garden's or no such checkpoint.
    """
    if not folder.is_dir():
        raise GardenFolderError(f"{folder}: no such folder")
    path = folder / CONFIG
    if not path.is_file():
        raise GardenFolderError(f"{path}: no such file; expected the configuration that the Garden's train.py writes")
    content = path.read_bytes()
    chosen = _checkpoint(folder, checkpoint)
    return GardenFolder(folder, _parse(content, path), chosen, hashlib.sha256(content).hexdigest(), _hash(chosen))


def _parse(content: bytes, path: Path) -> dict[str, Any]:
    import yaml  # type: ignore[import-untyped]

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """Loads plain data; tuples, which the Garden writes, become lists."""

    Loader.add_constructor(
        "tag:yaml.org,2002:python/tuple", lambda loader, node: loader.construct_sequence(node, deep=True)
    )
    try:
        config = yaml.load(content, Loader)  # noqa: S506 - a safe loader, made above
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise GardenFolderError(f"{path}: is no YAML of plain values: {' '.join(str(error).split())[:200]}") from None
    if (
        not isinstance(config, dict)
        or set(config) != set(_PARTS)
        or not all(isinstance(config[p], dict) for p in _PARTS)
    ):
        raise GardenFolderError(f"{path}: expected a configuration of the Model Garden: task, trainer and runtime")
    return config


def _checkpoint(folder: Path, name: str | None) -> Path:
    """Returns the path of the named checkpoint, or of the one with the highest step."""
    checkpoints = {
        int(match[1]): path for path in folder.glob("ckpt-*.index") if (match := _CHECKPOINT.fullmatch(path.stem))
    }
    if not checkpoints:
        raise GardenFolderError(f"{folder}: no checkpoint ckpt-*.index in it")
    if name is None:
        return checkpoints[max(checkpoints)].with_suffix("")
    by_name = {path.stem: path.with_suffix("") for path in checkpoints.values()}
    if name not in by_name:
        known = ", ".join(f"ckpt-{step}" for step in sorted(checkpoints))
        raise GardenFolderError(f"{folder}: no checkpoint {name!r}: expected one of {known}")
    return by_name[name]


def _hash(checkpoint: Path) -> str:
    """Hashes the hashes of a checkpoint's files, index first, so that the files' names do not matter."""
    shards = sorted(checkpoint.parent.glob(f"{checkpoint.name}.data-*"))
    if not shards:
        raise GardenFolderError(f"{checkpoint}.data-*: no such file; expected the values of the checkpoint")
    digest = hashlib.sha256()
    for path in (checkpoint.with_name(f"{checkpoint.name}.index"), *shards):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def profile_of(source: GardenFolder, profiles: Iterable[Profile]) -> Profile:
    """Returns the profile that a folder's network belongs to.

    Raises:
      GardenFolderError: none of the profiles has this backbone or depth.
    """
    path = source.folder / CONFIG
    named = nested.flat(source.config, ())
    backbone, depth = named.get("task.model.backbone.type"), named.get(DEPTH)
    if backbone != "resnet_3d_rs":
        raise GardenFolderError(f"{path}: backbone {backbone!r}: expected video classification with 'resnet_3d_rs'")
    known: set[int] = set()
    for profile in profiles:
        networks = _networks(profile)
        if type(depth) is int and depth in networks:
            return profile
        known |= set(networks)
    expected = ", ".join(map(str, sorted(known)))
    raise GardenFolderError(f"{path}: a network of {depth} layers: expected one of {expected}")


def run_of(
    source: GardenFolder,
    profile: Profile,
    data: DatasetInfo,
    replicas: int | None = None,
    views: tuple[int, int] | None = None,
) -> Run:
    """Makes the run that a folder holds.

    Args:
      source: the folder's content.
      profile: the profile that its network belongs to.
      data: the data set to evaluate on.
      replicas: number of replicas that the batch was split over; None to read it from the configuration.
      views: clips and crops of the evaluation; None for the profile's.

    Raises:
      GardenFolderError: the harness cannot evaluate the folder's task or data set.
    """
    path = source.folder / CONFIG
    stated = nested.flat(source.config, {*profile.settings, *profile.bookkeeping})
    _refuse_incomplete(stated, profile, path)
    _refuse_unfit(stated, data, path)
    replicas = replicas or _replicas(stated, path)
    if stated[TRAIN_BATCH] % replicas:
        raise GardenFolderError(f"{path}: batch {stated[TRAIN_BATCH]} cannot have been split over {replicas} replicas")
    bookkeeping = {field: stated.pop(field) for field in profile.bookkeeping if field in stated}
    bookkeeping |= {field: profile.bookkeeping[field] for field in bookkeeping if field.endswith(_PLACES)}
    # The run ends with this checkpoint, even if training went further. Without a seed in the configuration, take 0.
    given = {TRAIN_STEPS: source.step, SEED: stated[SEED] or 0}
    clips, crops = views or (profile.clips, profile.crops)
    run = Run(
        cell=Cell((), given[SEED]),
        profile=profile.name,
        data=data,
        settings={**stated, **_network(stated[DEPTH], profile), **given},
        bookkeeping=bookkeeping,
        protocol=Protocol(clips, crops, stated["task.validation_data.feature_shape[1]"]),
        evaluation_batch=min(profile.evaluation_batch, -(-data.validation_videos // replicas)),
        replicas=replicas,
        scale={},
    )
    return dataclasses.replace(run, recorded=content_hash(identity_of(run, source)))


def identity_of(run: Run, source: GardenFolder) -> dict[str, Any]:
    """Returns the content whose hash is the identity of a run that the Garden trained."""
    return {**identity_content(run), "trained_by": source.trained_by}


def _networks(profile: Profile) -> dict[int, Stages]:
    """Returns layers -> stages of the profile's networks and, if they are equally wide, of those the Garden ships."""
    filters = tuple(profile.settings[f"network.filters[{stage}]"] for stage in range(4))
    networks = {
        layers: tuple((filters[stage], profile.units[f"blocks[{stage}]"][depth]) for stage in range(4))
        for depth, layers in profile.units["depth"].items()
    }
    return (SHIPPED if filters == _FILTERS else {}) | networks


def _network(depth: int, profile: Profile) -> dict[str, int]:
    """Returns the settings that describe a profile's network with a number of layers."""
    return {
        f"network.{name}[{stage}]": value
        for stage, filters_and_blocks in enumerate(_networks(profile)[depth])
        for name, value in zip(("filters", "blocks"), filters_and_blocks, strict=True)
    }


def _refuse_incomplete(stated: Mapping[str, Any], profile: Profile, path: Path) -> None:
    """Checks the fields that every configuration of the Garden's video classification has.

    The optimizer's fields depend on which optimizer it is, so they are not checked.

    Raises:
      GardenFolderError: a field is missing, or is not a whole number where one is needed.
    """
    optimizer = "trainer.optimizer_config"
    needed = (field for field in profile.settings if not field.startswith(("network.", optimizer)))
    missing = [field for field in needed if field not in stated]
    if missing:
        raise GardenFolderError(
            f"{path}: {missing[0]} is missing ({len(missing)} fields are): not written by the Garden?"
        )
    for field in _NUMBERS:
        if type(stated[field]) is not int or stated[field] < 1:
            raise GardenFolderError(f"{path}: {field} is {stated[field]!r}: expected a whole number of at least 1")


def _refuse_unfit(stated: Mapping[str, Any], data: DatasetInfo, path: Path) -> None:
    """Refuses configurations that the evaluation would silently get wrong.

    Raises:
      GardenFolderError: the number of classes or another field does not fit.
    """
    classes = stated["task.train_data.num_classes"]
    if classes != data.classes:
        raise GardenFolderError(f"{path}: trained on {classes} classes, {data.name} has {data.classes}")
    only = {
        "task.train_data.is_multilabel": (False,),
        "task.train_data.output_audio": (False,),
        "task.validation_data.output_audio": (False,),
        "task.validation_data.is_training": (False,),
        "task.validation_data.feature_shape[2]": (stated["task.validation_data.feature_shape[1]"],),
        PRECISION: ("float32", "bfloat16", "float16"),
    }
    for field, allowed in only.items():
        if stated[field] not in allowed:
            expected = " or ".join(map(str, allowed))
            raise GardenFolderError(f"{path}: {field} is {stated[field]!r}: the evaluation knows {expected} only")


def _replicas(stated: Mapping[str, Any], path: Path) -> int:
    """Returns the number of replicas that the batch was split over, according to the configuration.

    Raises:
      GardenFolderError: the configuration does not tell.
    """
    strategy = stated.get("runtime.distribution_strategy")
    if strategy in ("one_device", "off"):
        return 1
    if strategy == "mirrored":
        return max(1, int(stated.get("runtime.num_gpus") or 0))
    raise GardenFolderError(
        f"{path}: trained with strategy {strategy}, which does not say over how many replicas: say --replicas N"
    )
