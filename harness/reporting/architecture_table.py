"""The paper's Table 1, a network's architecture, from the settings of a run: operations and output size of each stage.

Everything is read from the settings. The structure follows the Garden's
`official/vision/modeling/backbones/resnet_3d.py`, and tests compare the table with the built network.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from harness.config.experiment import Run
from harness.reporting.render import Column, Line, Table

_BACKBONE = "task.model.backbone.resnet_3d_rs"
# Filters and kernel side of the stem's convolutions; the temporal size of the first kernel comes from the settings.
_STEMS = {"v0": ((64, 7),), "v1": ((32, 3), (32, 3), (64, 3))}
_NO_KERNEL = {"kernel_time": math.nan, "kernel_space": math.nan, "stride_time": math.nan, "stride_space": math.nan}

_SIZES = "Sizes are frames × pixels² of a training clip; kernels are temporal × spatial², filters."
_STROKES = "Behind a stroke stands the stride, where it is not 1, of a stage's first block."
_UNDERLINES = "A kernel is underlined where its stride is 2, in a stage's first block."
_MEANINGS = {
    "SE": "SE: squeeze-and-excitation.",
    "SG": (
        "SG: self-gating, in the last block of its stage alone: only so do the parameters match the paper's, which "
        "speaks of every block; as the Model Garden does, it is computed before SE."
    ),
    "SD": "SD: stochastic depth.",
}


@dataclasses.dataclass
class _Walk:
    """The size of the features at the current place in the network: frames, and pixels of a side."""

    frames: int
    size: int

    def stride(self, time: int, space: int) -> None:
        self.frames, self.size = -(-self.frames // time), -(-self.size // space)


def architecture(run: Run) -> Table:
    """Returns the paper's Table 1 for the network of a run.

    The data have a line for each operation, in order. Columns: "stage"; "frames", "size" (of the stage's output, pixels
    of a side; the same in each of its lines); "operation" ("clip", "downsample", "convolution", "max pool", "modules",
    "average pool", "dropout", "dense"); "kernel_time", "kernel_space", "stride_time", "stride_space" (of the stage's
    first block), "filters" (classes of the dense layer), "amount" (the factor by which frames are left out, the drop
    rate of "dropout" and of the stochastic depth in "modules"), "modules" (text), "blocks" (how often the stage repeats
    its lines; 1 where it has no blocks), "first" (whether the line is the first of its stage). What does not apply is
    NaN or empty.
    """
    data = pd.DataFrame(_lines(run.settings))
    data["first"] = data["stage"] != data["stage"].shift()
    return Table(
        name="table1",
        title=f"Architecture of {_title(run)} ({run.profile} profile)",
        caption=_caption(data),
        columns=(
            Column("stage", lambda line: line["stage"] if line["first"] else ""),
            Column("output size", lambda line: _output(line) if line["first"] else ""),
            Column("operations", _operation),
            Column("blocks", lambda line: f"×{line['blocks']}" if line["first"] and _is_block(line) else ""),
        ),
        data=data.rename_axis("line"),
        in_latex=_in_latex,
    )


def _in_latex(text: str) -> str:
    """Underlines kernels of stride 2, as the paper does, in place of the stride after a stroke; spaces the stages."""
    text = re.sub(_STRIDED, _underlined, text).replace(_STROKES, _UNDERLINES)
    # The text font's own ² is a bitmap in pdflatex.
    return re.sub(_STAGE, r"\\addlinespace\n\g<0>", text).replace("²", "$^2$")


_STRIDED = re.compile(r"(\d+)\$\\times\$(\d+)²((?:, \d+)?) / ([12])\$\\times\$([12])²")


# The first line of each stage except the clip, which stands directly below the table's head.
_STAGE = re.compile(r"^(?!Video)\w+ & \d", re.MULTILINE)


def _underlined(match: re.Match[str]) -> str:
    time, space, filters, *strides = match.groups()
    drawn = [
        rf"\underline{{{size}}}" if stride == "2" else size for size, stride in zip((time, space), strides, strict=True)
    ]
    return rf"{drawn[0]}$\times${drawn[1]}²{filters}"


def _caption(data: pd.DataFrame) -> str:
    present = {module for modules in data["modules"] for module in modules.split("-")}
    return " ".join([_SIZES, _STROKES, *(text for module, text in _MEANINGS.items() if module in present)])


def _title(run: Run) -> str:
    """Returns the network's name, "R3D-RS-50"; for a small stand-in "the 14 layers that stand in for R3D-RS-50"."""
    layers = run.settings[f"{_BACKBONE}.model_id"]
    depth = run.scale.get("depth", layers)
    changed = {
        "D-stem": run.settings[f"{_BACKBONE}.stem_type"] == "v1",
        "SE": bool(run.settings[f"{_BACKBONE}.se_ratio"]),
    }
    name = f"R3D-RS-{depth}" if all(changed.values()) else f"R3D-{depth}"
    if any(changed.values()) and not all(changed.values()):
        name += "".join(f" with {label}" for label, present in changed.items() if present)
    return name if depth == layers else f"the {layers} layers that stand in for {name}"


def _lines(settings: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields a line for each operation of the network, from the clip to the classes."""
    walk = _Walk(settings["task.train_data.feature_shape[0]"], settings["task.train_data.feature_shape[1]"])
    every = settings["task.train_data.temporal_stride"]
    yield _line("Video clip", _Walk(every * walk.frames, walk.size), "clip")
    yield _line("Input", walk, "downsample", amount=every)
    yield from _stem(walk, settings)
    yield _pool(walk, settings)
    for stage in range(4):
        yield from _stage(walk, settings, stage)
    yield from _head(settings)


def _line(stage: str, walk: _Walk, operation: str, blocks: int = 1, **values: Any) -> dict[str, Any]:
    empty = {"operation": operation, **_NO_KERNEL, "filters": math.nan, "amount": math.nan, "modules": ""}
    return {"stage": stage, "frames": walk.frames, "size": walk.size, **empty, "blocks": blocks, **values}


def _kernel(time: int, space: int, stride_time: int = 1, stride_space: int = 1) -> dict[str, int]:
    return {"kernel_time": time, "kernel_space": space, "stride_time": stride_time, "stride_space": stride_space}


def _stem(walk: _Walk, settings: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    time, stride = (settings[f"{_BACKBONE}.stem_conv_temporal_{setting}"] for setting in ("kernel_size", "stride"))
    walk.stride(stride, 2)
    for index, (filters, side) in enumerate(_STEMS[settings[f"{_BACKBONE}.stem_type"]]):
        kernel = _kernel(1, side) if index else _kernel(time, side, stride, 2)
        yield _line("Stem", walk, "convolution", filters=filters, **kernel)


def _pool(walk: _Walk, settings: Mapping[str, Any]) -> dict[str, Any]:
    stride = settings[f"{_BACKBONE}.stem_pool_temporal_stride"]
    walk.stride(stride, 2)
    return _line("Pool", walk, "max pool", **_kernel(1 if stride == 1 else 3, 3, stride, 2))


def _stage(walk: _Walk, settings: Mapping[str, Any], stage: int) -> Iterator[dict[str, Any]]:
    """Yields the convolutions of a stage's bottleneck block, and a line for its further modules, if any."""
    spec, filters = settings[f"{_BACKBONE}.block_specs[{stage}]"], settings[f"network.filters[{stage}]"]
    name, blocks = f"C{stage + 2}", settings[f"network.blocks[{stage}]"]
    time, space = spec["temporal_strides"], 2 if stage else 1
    walk.stride(time, space)
    # The Garden takes one temporal size for all blocks of a stage.
    kernels = (_kernel(spec["temporal_kernel_sizes"][0], 1, time), _kernel(1, 3, 1, space), _kernel(1, 1))
    for kernel, width in zip(kernels, (filters, filters, 4 * filters), strict=True):
        yield _line(name, walk, "convolution", blocks, filters=width, **kernel)
    drop = settings[f"{_BACKBONE}.stochastic_depth_drop_rate"] * (stage + 2) / 5
    modules_on = {"SE": settings[f"{_BACKBONE}.se_ratio"], "SG": spec["use_self_gating"], "SD": drop}
    if any(modules_on.values()):
        modules = "-".join(module for module, on in modules_on.items() if on)
        yield _line(name, walk, "modules", blocks, modules=modules, amount=drop)


def _head(settings: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    walk = _Walk(1, 1)
    yield _line("Head", walk, "average pool")
    if rate := settings["task.model.dropout_rate"]:
        yield _line("Head", walk, "dropout", amount=rate)
    yield _line("Head", walk, "dense", filters=settings["task.train_data.num_classes"])


def _is_block(line: Line) -> bool:
    return bool(re.fullmatch(r"C\d", line["stage"]))


def _output(line: Line) -> str:
    return f"{line['frames']}×{line['size']}²"


def _operation(line: Line) -> str:
    if not math.isnan(line["kernel_time"]):
        filters = "" if math.isnan(line["filters"]) else f", {line['filters']:.0f}"
        return f"{line['kernel_time']:.0f}×{line['kernel_space']:.0f}²{filters}{_stride(line)}"
    return {
        "clip": "–",
        "downsample": "Downsample" if line["amount"] > 1 else "–",
        "modules": str(line["modules"]),
        "average pool": "Ave Pool",
        "dropout": "DropOut",
        "dense": f"FC, {line['filters']:.0f}",
    }[line["operation"]]


def _stride(line: Line) -> str:
    time, space = line["stride_time"], line["stride_space"]
    return "" if time == space == 1 else f" / {time:.0f}×{space:.0f}²"
