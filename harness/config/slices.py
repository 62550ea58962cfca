"""Slices of a TPU pod by name: their chips, cores and hosts, and the peak compute and bandwidth of one core.

The names are those of Google's compiler: a generation and the sides of the slice in chips, such as "v3:8x8". The
numbers that Google publishes are in `ablations/published/tpus.json`, one object per generation, with its source. This
module adds nothing to them and needs neither a TPU nor the compiler.

A core is what the compiler and a distribution strategy count as one device. For TPU v5p that is a whole chip.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.resources
import json
import math
import re
from typing import Any, Literal

from harness.config.experiment import SettingsError
from harness.config.toggles import suggest

PACKAGE = "ablations.published"
FILENAME = "tpus.json"
# Side of a host, in chips, along each of the first two dimensions; a third is one chip. The compiler's default.
HOST_SIDE = 2
REQUIRED = ("memory_bytes", "compiler_gib_a_core", "peak_bf16", "bandwidth")


@dataclasses.dataclass(frozen=True)
class Generation:
    """Published performance of one core of a TPU generation.

    Attributes:
      name: "v3".
      cores_per_chip: devices that the compiler and a distribution strategy see on a chip, 1 or 2.
      chips_per_host: chips of a full host.
      memory: high-bandwidth memory of one core, in bytes.
      usable: the part of it that libtpu 0.0.52 gives to a program, in bytes, found by compiling programs that are too
        large.
      peak: operations of one core per second in bfloat16; one multiply-add is two operations.
      bandwidth: bytes that one core reads from or writes to its memory per second.
      source: address of the page that publishes the numbers.
    """

    name: str
    cores_per_chip: int
    chips_per_host: int
    memory: int
    usable: int
    peak: float
    bandwidth: float
    source: str


@dataclasses.dataclass(frozen=True)
class Slice:
    """Chips of one pod, used together; made by :func:`slice_of`.

    Attributes:
      topology: the compiler's name, "v3:8x8".
      generation: the generation of its chips.
      chips: number of its chips, 1 or more.
    """

    topology: str
    generation: Generation
    chips: int

    @property
    def cores(self) -> int:
        """Number of devices that take part in a step: the replicas of a data-parallel run."""
        return self.chips * self.generation.cores_per_chip

    @property
    def hosts(self) -> int:
        """Number of machines, each with its own process; a slice smaller than a host has one."""
        sides = _sides(self.topology.partition(":")[2])
        # A host has at most two chips along each side: two chips in 1x4, not four.
        return self.chips // math.prod(min(side, HOST_SIDE) for side in sides[:2])

    @property
    def cores_per_host(self) -> int:
        """Number of devices of each machine, the same for all."""
        return self.cores // self.hosts


@dataclasses.dataclass(frozen=True)
class Bound:
    """The least time that one core needs for some work, in seconds.

    Attributes:
      compute: seconds for the operations at the published peak.
      memory: seconds for the traffic between the core and its memory at the published bandwidth.
    """

    compute: float
    memory: float

    @property
    def seconds(self) -> float:
        """The larger of the two, since operations and traffic can at best overlap completely."""
        return max(self.compute, self.memory)

    @property
    def limited_by(self) -> Literal["compute", "memory"]:
        """Which of the two takes longer; "compute" where they are equal."""
        return "memory" if self.memory > self.compute else "compute"


def names() -> tuple[str, ...]:
    """Returns the known generations, oldest first: "v2", "v3", ..., "v6e"."""
    return tuple(_published())


def load(name: str) -> Generation:
    """Returns the published numbers of one generation.

    Args:
      name: one of :func:`names`.

    Raises:
      SettingsError: the name is unknown, or a number that is needed has not been published.
    """
    if name not in _published():
        raise SettingsError(f"unknown TPU generation {name!r}: {suggest(name, names())}")
    entry = _published()[name]
    missing = [field for field in REQUIRED if entry[field] is None]
    if missing:
        raise SettingsError(
            f"{entry['chip_name']}: no {' and '.join(missing)} in {FILENAME}: {' '.join(entry['notes'])}"
        )
    cores = entry["cores_per_chip"]
    return Generation(
        name=name,
        cores_per_chip=cores,
        chips_per_host=entry["chips_per_host"],
        memory=entry["memory_bytes"] // cores,
        usable=int(entry["compiler_gib_a_core"] * 2**30),
        peak=entry["peak_bf16"] / cores,
        bandwidth=entry["bandwidth"] / cores,
        source=entry["source"],
    )


def slice_of(text: str) -> Slice:
    """Reads the name of a topology.

    Args:
      text: generation and sides in chips, such as "v3:8x8" or "v4:2x2x2"; capitals and blanks around it do not matter.

    Raises:
      SettingsError: the text is not of that form, the generation is unknown or lacks a number, or the compiler or
        Google has no slice of these sides.
    """
    name, colon, shape = text.strip().lower().partition(":")
    if not colon or not re.fullmatch(r"[0-9]{1,6}(x[0-9]{1,6})*", shape):
        raise SettingsError(f"TPU topology {text!r}: expected a generation and the sides in chips, such as v3:8x8")
    generation, sides = load(name), _sides(shape)
    problem = _problem(_published()[name], name, sides)
    if problem:
        raise SettingsError(f"TPU topology {text!r}: {problem}")
    return Slice(f"{name}:{'x'.join(map(str, sides))}", generation, math.prod(sides))


def slice_named(text: str) -> Slice:
    """Returns the slice with the name of a topology, "v3:8x8", or of an accelerator type, "v3-128".

    Raises:
      SettingsError: there is no slice of that name.
    """
    return slice_of(text if ":" in text else of_accelerator(text))


def of_accelerator(text: str) -> str:
    """Turns Google Cloud's name of a slice into the compiler's.

    Args:
      text: what `gcloud` calls an accelerator type, such as "v3-128" or "v5litepod-16". Its number counts TensorCores
        for v2, v3, v4 and v5p and chips for v5e and v6e.

    Returns:
      The topology of that size's standard shape, such as "v3:8x8".

    Raises:
      SettingsError: the type is unknown; the message names the known sizes of the generation, or the known prefixes.
    """
    prefix, dash, size = text.strip().lower().rpartition("-")
    prefixes = {entry["accelerator_prefix"]: name for name, entry in _published().items()}
    if prefix + dash not in prefixes:
        example = suggest(prefix + dash, prefixes)
        raise SettingsError(f"TPU accelerator type {text!r}: expected a prefix and a size, such as v3-128: {example}")
    name = prefixes[prefix + dash]
    shapes = _published()[name]["accelerators"]
    if size not in shapes:
        raise SettingsError(f"TPU accelerator type {text!r}: expected {prefix}- and one of {', '.join(shapes)}")
    return f"{name}:{shapes[size]}"


def bound(multiply_adds: float, bytes_moved: float, generation: Generation) -> Bound:
    """Returns the least time that one core needs for some work.

    Args:
      multiply_adds: multiply-adds of this core, 0 or more.
      bytes_moved: bytes that this core reads from and writes to its memory, 0 or more.
      generation: generation of the core.

    Raises:
      SettingsError: an amount is negative or not a number.
    """
    for label, amount in (("multiply-adds", multiply_adds), ("bytes moved", bytes_moved)):
        if not amount >= 0:
            raise SettingsError(f"{label} of a core must be 0 or more, not {amount}")
    return Bound(compute=2 * multiply_adds / generation.peak, memory=bytes_moved / generation.bandwidth)


def _problem(entry: dict[str, Any], name: str, sides: tuple[int, ...]) -> str | None:
    """Returns the reason why there is no slice of these sides; None where there is one.

    The compiler must never see a side of 0: libtpu divides by it and crashes the process.
    """
    dimensions, chips = entry["dimensions"], math.prod(sides)
    if len(sides) != dimensions:
        example = f"{name}:{'x'.join('2' * dimensions)}"
        return f"{entry['chip_name']} expects {dimensions} sides, such as {example}, not {len(sides)}"
    if not chips:
        return "every side must be 1 chip or more"
    if any(side % HOST_SIDE and side != 1 for side in sides[:2]):
        return f"a host has {HOST_SIDE}x{HOST_SIDE} chips, so each of the first two sides must be 1 or even"
    if chips > entry["largest"]:
        return f"{chips} chips, but the largest slice of {entry['chip_name']} has {entry['largest']}"
    return None


def _sides(shape: str) -> tuple[int, ...]:
    return tuple(int(side) for side in shape.split("x"))


@functools.cache
def _published() -> dict[str, dict[str, Any]]:
    text = importlib.resources.files(PACKAGE).joinpath(FILENAME).read_text(encoding="utf-8")
    published: dict[str, dict[str, Any]] = json.loads(text)
    return published
