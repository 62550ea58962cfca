"""Exports a run to the Model Garden's own trainer: writes a YAML file and gives the command that trains with it.

This needs no TensorFlow, since the configuration consists of the settings under the Garden's names. A test compares it
with what the Garden itself parses.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from harness.config import nested, objectives
from harness.config.devices import MULTI_WORKER, Devices
from harness.config.experiment import Run, SettingsError
from harness.data.manifest import Manifest
from harness.system import files
from harness.training import garden_folder


@dataclasses.dataclass(frozen=True)
class Trainer:
    """The Garden's own trainer for a task.

    Attributes:
      experiment: name of an experiment in the Garden with the same task; its trainer requires one to start from, and
        the YAML file overrides all of it.
      module: module of the trainer.
      mode: mode that the trainer is run in.
    """

    experiment: str
    module: str
    mode: str


# Objective -> trainer. The Garden's trainer for CVRL can validate only at the crop size that it trains at.
TRAINERS: Mapping[str | None, Trainer] = {
    None: Trainer("video_classification", "official.vision.train", "train_and_eval"),
    objectives.CVRL: Trainer("video_ssl_pretrain_kinetics400", "official.projects.video_ssl.train", "train"),
    objectives.LINEAR: Trainer("video_ssl_linear_eval_kinetics400", "official.projects.video_ssl.train", "train"),
}
CONFIG = "experiment.yaml"
TRAINER = "train.py"
# Placeholder for the folder of a data set that is not on this machine.
ELSEWHERE = PurePath("DATA")


@dataclasses.dataclass(frozen=True)
class Target:
    """Where the Garden's trainer will train: folders and devices; none of this can change the result.

    Attributes:
      devices: the devices to use.
      gpus: number of GPUs in each machine.
      data: folder of the data set; :data:`ELSEWHERE` if it is not on this machine.
      manifest: manifest of the data set; None if it is not on this machine.
      parent: path of the weights that the run starts from; None if it starts from its seed.
    """

    devices: Devices
    gpus: int
    data: PurePath
    manifest: Manifest | None
    parent: str | None = None

    def bookkeeping(self) -> dict[str, Any]:
        """Returns the Garden's fields with this information, as :class:`harness.training.loop.RunContext` does."""
        hosts = self.devices.worker_hosts
        return {
            "runtime.distribution_strategy": self.devices.strategy,
            "runtime.tpu": self.devices.tpu,
            "runtime.num_gpus": self.gpus,
            "runtime.worker_hosts": ",".join(hosts) or None,
            "runtime.task_index": self.devices.task_index if hosts else -1,
            "task.init_checkpoint": self.parent,
            "task.train_data.input_path": self._shards("train"),
            "task.validation_data.input_path": self._shards("validation"),
        }

    def _shards(self, split: str) -> str:
        """Returns the pattern or list of files with which the Garden's reader finds the shards of a split."""
        pattern = f"{split}-*"
        names = [shard.file for shard in self.manifest.splits[split].shards] if self.manifest else []
        if not names or sorted(names) == sorted(path.name for path in Path(self.data).glob(pattern)):
            return str(self.data / pattern)
        return ",".join(str(self.data / name) for name in names)


def gpus_for(run: Run, devices: Devices, given: int | None) -> int:
    """Returns the number of GPUs in each machine with which the strategy splits the batch as the run does.

    Args:
      run: the run.
      devices: the devices that will train it.
      given: the number of GPUs that the user gives; None for as many as are needed.

    Raises:
      SettingsError: the batch would be split over another number of replicas.
    """
    workers = devices.workers
    several = devices.strategy in ("mirrored", MULTI_WORKER) and run.replicas > workers
    gpus = given if given is not None else run.replicas // workers if several else 0
    replicas = {"one_device": 1, "tpu": run.replicas}.get(devices.strategy, workers * max(1, gpus))
    if devices.strategy == "one_device" and gpus > 1:
        raise SettingsError(f"--gpus {gpus}: --strategy one_device uses one at most")
    if replicas != run.replicas:
        raise SettingsError(
            f"run {run.id} splits its batch over {run.replicas} replicas, --strategy {devices.strategy} here over "
            f"{replicas}: choose another --strategy or --gpus, or --tpu NAME"
        )
    return gpus


def configuration(run: Run, target: Target) -> dict[str, Any]:
    """Returns the Garden's configuration, nested and complete."""
    stated = {**run.settings, **run.bookkeeping, **target.bookkeeping()}
    return nested.nested({field: value for field, value in stated.items() if not field.startswith("network.")})


def yaml_of(run: Run, target: Target, changes: Mapping[str, Any]) -> str:
    """Returns the configuration as YAML, with comments that tell a reader what to know about it.

    Args:
      run: the run.
      target: where it will be trained.
      changes: key -> value of its toggles and scaling axes.
    """
    import yaml  # type: ignore[import-untyped]

    # JSON turns tuples into lists and copies shared lists, for which YAML would write anchors.
    content = json.loads(json.dumps(configuration(run, target)))
    header = "\n".join(f"# {line}".rstrip() for line in _header(run, target, changes))
    return f"{header}\n\n{yaml.safe_dump(content, sort_keys=True, default_flow_style=False)}"


def _header(run: Run, target: Target, changes: Mapping[str, Any]) -> list[str]:
    applied = " ".join(f"{key}={value}" for key, value in changes.items())
    data = f"{run.data.name} {run.data.fingerprint[:8]}".rstrip()
    replicas = f"{run.replicas} replicas" if run.replicas > 1 else "1 replica"
    return [
        f"Model Garden configuration of run {run.id}, written by python -m harness.export.",
        "; ".join([f"Profile {run.profile}", *([applied] if applied else []), f"seed {run.seed}", f"data {data}"]),
        f"{replicas}, {run.clips_per_group} clips to each for batch normalization.",
        *([f"Cut: {run.cut}; not the profile's own training."] if str(run.cut) else []),
        *([f"Put the folder of the data set in place of {ELSEWHERE}."] if target.data == ELSEWHERE else []),
        *([f"Starts from run {run.parent[:16]}: {target.parent}."] if run.parent else []),
        "",
        "What no configuration can say, the Garden's own trainer does differently from the harness:",
        *_departures(run),
    ]


def _departures(run: Run) -> list[str]:
    """Lists, line by line, what the Garden's own trainer does differently with the same configuration."""
    return [
        *_ALWAYS,
        *(_evaluated(run) if run.evaluated else []),
        *_OF_OBJECTIVE.get(objectives.objective(run.settings), ()),
    ]


_ALWAYS = (
    "- The seed fixes the order of shards and clips and nothing else: initialisation, augmentation, dropout and",
    "  stochastic depth are drawn anew each time, so two trainings differ.",
    "- Epochs run into one another: shards are repeated before clips are shuffled, so a clip can come twice before",
    "  another comes once. A training that is resumed begins the order again.",
)
_OF_OBJECTIVE: Mapping[str | None, tuple[str, ...]] = {
    objectives.CVRL: (
        "- Crops and distortions are those written into its reader: areas of 0.3 to 1, distortions at full strength.",
        "- Negatives come from all replicas on a TPU only; elsewhere several replicas fail. Gradients are summed over",
        "  the replicas, not averaged, which layers that LARS does not adapt feel.",
    ),
    objectives.LINEAR: (
        "- It validates only where crops have the size that is trained at: so it trains, and evaluates apart.",
    ),
}


def _evaluated(run: Run) -> list[str]:
    """Lists, line by line, how the Garden's evaluation differs."""
    videos = run.bookkeeping["task.validation_data.num_examples"]
    batch = run.bookkeeping["task.validation_data.global_batch_size"]
    clips, crops = (run.settings[f"task.validation_data.num_test_{name}"] for name in ("clips", "crops"))
    return [
        f"- Validation is {clips} x {crops} views in batches of {batch}, the last one smaller, not {run.protocol};",
        "  its loss is the mean over batches, label smoothing and weight decay included.",
        *(
            [f"- Validation takes all {run.data.validation_videos} videos, not the first {videos}."]
            if videos < run.data.validation_videos
            else []
        ),
    ]


def _trained_by(run: Run) -> Trainer:
    return TRAINERS[objectives.objective(run.settings)]


def trainer_of(run: Run) -> str | None:
    """Returns a `train.py` that registers the network and runs the Garden's trainer; None for a network it ships."""
    depth = run.settings[garden_folder.DEPTH]
    stages = garden_folder.stages(run.settings)
    if stages == garden_folder.SHIPPED.get(depth):
        return None
    registered = "\n".join(f'    ("bottleneck3d", {filters}, {blocks}),' for filters, blocks in stages)
    return f'''"""The Model Garden's own trainer, told of the network of run {run.id}, which it does not ship."""

import runpy

from official.vision.modeling.backbones import resnet_3d

resnet_3d.RESNET_SPECS[{depth}] = [
{registered}
]
runpy.run_module("{_trained_by(run).module}", run_name="__main__", alter_sys=True)
'''


def write_export(run: Run, target: Target, changes: Mapping[str, Any], folder: Path) -> list[str]:
    """Writes the YAML and, if one is needed, the trainer into a folder; returns the command that trains, in words."""
    files.replace(folder / CONFIG, yaml_of(run, target, changes).encode())
    trainer, garden_trainer = trainer_of(run), _trained_by(run)
    (folder / TRAINER).unlink(missing_ok=True)
    if trainer:
        files.replace(folder / TRAINER, trainer.encode())
    return [
        "python",
        *([str(folder / TRAINER)] if trainer else ["-m", garden_trainer.module]),
        f"--experiment={garden_trainer.experiment}",
        f"--config_file={folder / CONFIG}",
        f"--mode={garden_trainer.mode}",
        f"--model_dir={folder / 'model'}",
        # This flag overrides the YAML's value, even if it is not given.
        *([f"--tpu={target.devices.tpu}"] if target.devices.tpu else []),
    ]


def typed(command: list[str]) -> str:
    """Returns a command as it is typed in a shell."""
    return shlex.join(command)
