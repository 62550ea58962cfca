"""Counts the parameters and multiply-adds of an R3D network from the settings alone.

Multiply-adds are those of the convolutions and dense layers for one view, squeeze-and-excitation and self-gating
included. Parameters are all weights, with the moving statistics of batch normalization, since the paper's numbers
include them. The structure is that of the Garden's `official/vision/modeling/backbones/resnet_3d.py`, and for
contrastive pre-training that of `official/projects/video_ssl/modeling/video_ssl_model.py`. Tests compare the counts
with the built model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

_BACKBONE = "task.model.backbone.resnet_3d_rs"
# Output channels of the stem's convolutions and their kernels (temporal size of the first comes from the settings).
_STEMS = {"v0": ((64, 7),), "v1": ((32, 3), (32, 3), (64, 3))}


class Cost(NamedTuple):
    """Size and cost of a network.

    Attributes:
      params: number of weights.
      multiply_adds: multiply-adds of one view in inference.
    """

    params: int
    multiply_adds: int


@dataclasses.dataclass
class _Counter:
    """Running totals while walking through the network; `shape` is (frames, height, width), `channels` the width."""

    shape: tuple[int, int, int]
    channels: int
    params: int = 0
    multiply_adds: int = 0

    def convolution(
        self, filters: int, kernel: tuple[int, int, int], strides: tuple[int, int, int] = (1, 1, 1)
    ) -> None:
        """Adds a convolution without bias, padding "same", and the batch normalization that follows it."""
        self.shape = _strided(self.shape, strides)
        weights = _volume(kernel) * self.channels * filters
        self.params += weights + 4 * filters
        self.multiply_adds += weights * _volume(self.shape)
        self.channels = filters

    def pooled_dense(self, inputs: int, outputs: int) -> None:
        """Adds a dense layer with bias on globally pooled features."""
        self.params += (inputs + 1) * outputs
        self.multiply_adds += inputs * outputs


def _volume(size: tuple[int, int, int]) -> int:
    return size[0] * size[1] * size[2]


def _strided(shape: tuple[int, int, int], strides: tuple[int, int, int]) -> tuple[int, int, int]:
    return tuple(-(-size // stride) for size, stride in zip(shape, strides, strict=True))  # type: ignore[return-value]


def count(settings: Mapping[str, Any], frames: int | None = None, size: int | None = None) -> Cost:
    """Counts the cost of the network that the settings describe.

    Args:
      settings: complete settings, under the Garden's dotted names.
      frames: frames of a view; those of the evaluation when None.
      size: side of the view in pixels; the evaluation crop when None.
    """
    frames = frames or settings["task.validation_data.feature_shape[0]"]
    size = size or settings["task.validation_data.feature_shape[1]"]
    net = _Counter((frames, size, size), settings["task.validation_data.feature_shape[3]"])
    _stem(net, settings)
    for stage in range(4):
        _stage(net, settings, stage)
    _HEADS[settings["task.model.model_type"]](net, settings)
    return Cost(net.params, net.multiply_adds)


def views(settings: Mapping[str, Any]) -> int:
    """Returns the clips of each video in a training batch: two for contrastive learning, otherwise one."""
    return 2 if settings.get("task.train_data.is_ssl") else 1


def passes(settings: Mapping[str, Any]) -> int:
    """Returns the multiply-adds of a clip in a train step, as a multiple of a forward pass.

    The backward pass takes two products for each of the forward pass; a frozen backbone has no backward pass.
    """
    return 1 if settings["task.freeze_backbone"] else 3


def training(settings: Mapping[str, Any]) -> int:
    """Returns the multiply-adds of a whole training."""
    frames, size = settings["task.train_data.feature_shape[0]"], settings["task.train_data.feature_shape[1]"]
    videos = settings["trainer.train_steps"] * settings["task.train_data.global_batch_size"]
    return int(passes(settings) * videos * views(settings) * count(settings, frames, size).multiply_adds)


def _classifier(net: _Counter, settings: Mapping[str, Any]) -> None:
    net.pooled_dense(net.channels, settings["task.train_data.num_classes"])


def _projection(net: _Counter, settings: Mapping[str, Any]) -> None:
    """Adds the hidden layers, each with batch normalization, and the embedding.

    Without hidden layers the head is one dense layer, as of a classifier.
    """
    width, hidden = net.channels, settings["task.model.hidden_dim"]
    for _ in range(settings["task.model.hidden_layer_num"]):
        net.pooled_dense(width, hidden)
        net.params += 4 * hidden
        width = hidden
    net.pooled_dense(width, settings["task.model.projection_dim"])


_HEADS = {"video_classification": _classifier, "video_ssl_model": _projection}


def _stem(net: _Counter, settings: Mapping[str, Any]) -> None:
    first = True
    for filters, kernel in _STEMS[settings[f"{_BACKBONE}.stem_type"]]:
        temporal = settings[f"{_BACKBONE}.stem_conv_temporal_kernel_size"] if first else 1
        strides = (settings[f"{_BACKBONE}.stem_conv_temporal_stride"], 2, 2) if first else (1, 1, 1)
        net.convolution(filters, (temporal, kernel, kernel), strides)
        first = False
    net.shape = _strided(net.shape, (settings[f"{_BACKBONE}.stem_pool_temporal_stride"], 2, 2))


def _stage(net: _Counter, settings: Mapping[str, Any], stage: int) -> None:
    spec = settings[f"{_BACKBONE}.block_specs[{stage}]"]
    blocks, filters = settings[f"network.blocks[{stage}]"], settings[f"network.filters[{stage}]"]
    kernels = list(spec["temporal_kernel_sizes"]) * blocks
    for block in range(blocks):
        first = block == 0
        spatial = 2 if first and stage > 0 else 1
        strides = (spec["temporal_strides"] if first else 1, spatial, spatial)
        gated = spec["use_self_gating"] and block == blocks - 1
        _block(net, filters, kernels[block], strides, gated, settings[f"{_BACKBONE}.se_ratio"])


def _block(
    net: _Counter, filters: int, temporal: int, strides: tuple[int, int, int], gated: bool, se_ratio: float
) -> None:
    """Adds a bottleneck block: three convolutions, that of the shortcut, self-gating and squeeze-and-excitation."""
    entering = dataclasses.replace(net, params=0, multiply_adds=0)
    net.convolution(filters, (temporal, 1, 1), (strides[0], 1, 1))
    net.convolution(filters, (1, 3, 3), (1, strides[1], strides[2]))
    net.convolution(4 * filters, (1, 1, 1))
    if entering.channels != 4 * filters:
        entering.convolution(4 * filters, (1, 1, 1), strides)
        net.params += entering.params
        net.multiply_adds += entering.multiply_adds
    if gated:
        net.pooled_dense(4 * filters, 4 * filters)
    if se_ratio:
        reduced = max(1, int(4 * filters * se_ratio))
        net.pooled_dense(4 * filters, reduced)
        net.pooled_dense(reduced, 4 * filters)
