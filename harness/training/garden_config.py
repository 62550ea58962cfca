"""Converts a run's settings to the Model Garden's `ExperimentConfig` without adding any decision.

The configuration must contain exactly what the settings state. A field of the Garden's that they do not state, or that
reads back differently, is an error. So an update of the Garden cannot slip a new default into a run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from official.core import config_definitions
from official.projects.video_ssl.configs import video_ssl
from official.vision.configs import video_classification
from official.vision.modeling.backbones import resnet_3d

from harness.config import objectives
from harness.config.experiment import SettingsError
from harness.config.nested import nested

# Objective -> the Garden's configuration of its task.
_TASKS = {
    None: video_classification.VideoClassificationTask,
    objectives.CVRL: video_ssl.VideoSSLPretrainTask,
    objectives.LINEAR: video_ssl.VideoSSLEvalTask,
}


def build(settings: Mapping[str, Any], bookkeeping: Mapping[str, Any]) -> config_definitions.ExperimentConfig:
    """Builds the Garden's configuration of a run, and registers the network's stages with the Garden.

    Raises:
      SettingsError: the Garden does not know a field, the settings do not state one of the Garden's, or a field reads
        back differently; the message names each.
    """
    stated = nested(
        {field: value for field, value in {**settings, **bookkeeping}.items() if not field.startswith("network.")}
    )
    config = config_definitions.ExperimentConfig(
        task=_TASKS[objectives.objective(settings)](),
        trainer=config_definitions.TrainerConfig(),
        runtime=config_definitions.RuntimeConfig(),
    )
    try:
        config.override(stated, is_strict=True)
    except KeyError as error:
        raise SettingsError(f"the installed Model Garden does not know a setting: {error.args[0]}") from error
    built = {part: config.as_dict()[part] for part in ("task", "trainer", "runtime")}
    differences = list(_differences(stated, built, ""))
    if differences:
        raise SettingsError("settings and the Model Garden's configuration differ: " + "; ".join(differences))
    register_network(settings)
    return config


def _differences(stated: Any, built: Any, prefix: str) -> list[str]:
    if isinstance(stated, Mapping) and isinstance(built, Mapping):
        differences = [f"{prefix}{name} is not stated" for name in sorted(set(built) - set(stated))]
        differences += [f"{prefix}{name} is not of the Garden's" for name in sorted(set(stated) - set(built))]
        for name in sorted(set(stated) & set(built)):
            differences += _differences(stated[name], built[name], f"{prefix}{name}.")
        return differences
    if isinstance(stated, list | tuple) and isinstance(built, list | tuple) and len(stated) == len(built):
        return [
            line
            for i, pair in enumerate(zip(stated, built, strict=True))
            for line in _differences(*pair, f"{prefix}{i}.")
        ]
    return [] if stated == built else [f"{prefix[:-1]} is {built!r}, stated {stated!r}"]


_GARDENS_OWN = frozenset(resnet_3d.RESNET_SPECS)


def register_network(settings: Mapping[str, Any]) -> None:
    """Registers the stages in the settings with the Garden, under the model_id in the settings.

    Raises:
      SettingsError: the Garden ships a network with that number of layers and other stages.
    """
    depth = settings["task.model.backbone.resnet_3d_rs.model_id"]
    stages = [
        ("bottleneck3d", settings[f"network.filters[{stage}]"], settings[f"network.blocks[{stage}]"])
        for stage in range(4)
    ]
    known = resnet_3d.RESNET_SPECS[depth] if depth in _GARDENS_OWN else stages
    if known != stages:
        raise SettingsError(f"a network of {depth} layers is {known} in the Garden, not {stages}")
    resnet_3d.RESNET_SPECS[depth] = stages
