"""Calls Google's TPU compiler, which is part of libtpu and can compile for a slice that is not present.

All uses of private parts of jax, jaxlib and libtpu are in this module; `tests/accelerators/test_tpu_compiler.py` names
the part that is missing if one of them moves.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from harness.accelerators import traffic
from harness.accelerators.results import Executable, Memory
from harness.config.experiment import SettingsError
from harness.config.slices import Slice

# Has to be set before jax is loaded, which TensorFlow does by itself, so that jax neither looks for a TPU of this
# machine nor asks Google's servers about one.
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # a training on this machine may hold its TPUs, which are not used here
}
# TensorFlow's modules contain mhlo.copy, an identity that the TPU compiler does not accept; it is replaced by a reshape
# to the same shape.
_COPY = re.compile(r"mhlo\.copy (%\S+) : (tensor<[^>]*>)")
_RESHAPE = r"stablehlo.reshape \1 : (\2) -> \2"
REFUSED = "the compiler refuses it"
_FULL = ("RESOURCE_EXHAUSTED", "Ran out of memory")


class TooLargeError(Exception):
    """A program that needs more memory than a core has; the message is the compiler's reason in one line."""


class RefusedError(Exception):
    """A program that the compiler rejects, whatever its size; the message is the compiler's reason in one line."""


class CompilerError(SettingsError):
    """A slice that the compiler does not know; the message is one line."""


def installed() -> str | None:
    """Returns the compiler's name and version, "libtpu 0.0.52 through jax 0.10.2"; None if it is not installed."""
    try:
        versions = [metadata.version(name) for name in ("jax", "jaxlib", "libtpu")]
    except metadata.PackageNotFoundError:
        return None
    return f"libtpu {versions[-1]} through jax {versions[0]}"


def compile_for(hlo: bytes, slice_: Slice, cores: int) -> Executable:
    """Compiles a module for a number of cores of a slice that execute it together.

    Args:
      hlo: the serialized, unoptimised HLO module of one core.
      slice_: the slice.
      cores: number of cores: all of the slice's, or 1 if they do not exchange anything.

    Raises:
      TooLargeError: the module does not fit into a core's memory.
      RefusedError: the compiler rejects the module.
      CompilerError: the compiler does not know the slice.
    """
    _prepare(slice_)
    import jax.errors

    devices = _devices(slice_)[:cores]
    try:
        executable = _compile(_readable(hlo), devices)
    except jax.errors.JaxRuntimeError as error:
        if any(word in str(error) for word in _FULL):
            raise TooLargeError(_shortage(str(error))) from error
        raise RefusedError(f"{REFUSED}: {_first_line(str(error))}") from error
    text = "".join(module.to_string() for module in executable.hlo_modules())
    return _described(executable.get_compiled_memory_stats(), executable.cost_analysis(), text)


def devices(slice_: Slice) -> tuple[int, int]:
    """Returns the numbers of devices and hosts of a slice, as the compiler counts them.

    Raises:
      CompilerError: the compiler does not know the slice.
    """
    _prepare(slice_)
    slice_devices = _devices(slice_)
    return len(slice_devices), len({device.process_index for device in slice_devices})


def _prepare(slice_: Slice) -> None:
    os.environ.update(ENVIRONMENT | {"TPU_ACCELERATOR_TYPE": f"{slice_.generation.name}-8"})


def _devices(slice_: Slice) -> list[Any]:
    """Returns the devices of a slice, which need not be present."""
    import jax.errors
    from jax.experimental import topologies

    try:
        return list(topologies.get_topology_desc(platform="tpu", topology_name=slice_.topology).devices)
    except (jax.errors.JaxRuntimeError, RuntimeError, ValueError) as error:
        reason = _first_line(str(error))
        raise CompilerError(f"--topology {slice_.topology}: the TPU compiler does not know it: {reason}") from error


def _readable(hlo: bytes) -> str:
    """Returns the module as StableHLO text, which the compiler takes as input."""
    from jaxlib import _jax, xla_client

    text = _jax.mlir.xla_computation_to_mlir_module(xla_client.XlaComputation(hlo))
    return _COPY.sub(_RESHAPE, text if isinstance(text, str) else text.decode())


def _compile(text: str, devices: list[Any]) -> Any:
    """Compiles a module for devices that execute it together, each as a replica; returns the executable."""
    import numpy as np
    from jax._src.interpreters import mlir
    from jax._src.lib.mlir import ir
    from jaxlib import xla_client

    options = xla_client.CompileOptions()
    options.num_replicas, options.num_partitions = len(devices), 1
    options.device_assignment = xla_client.DeviceAssignment.create(np.array([[device.id] for device in devices]))
    with mlir.make_ir_context():
        return devices[0].client.compile(ir.Module.parse(text), xla_client.DeviceList(tuple(devices)), options)


def _described(memory: Any, costs: Any, text: str) -> Executable:
    cost: Mapping[str, float] = costs[0] if isinstance(costs, list) else costs
    counted = int(cost["bytes accessed"])
    return Executable(
        Memory(
            arguments=int(memory.argument_size_in_bytes),
            outputs=int(memory.output_size_in_bytes),
            aliased=int(memory.alias_size_in_bytes),
            temporaries=int(memory.temp_size_in_bytes),
            code=int(memory.generated_code_size_in_bytes),
        ),
        operations=int(cost["flops"]),
        bytes_moved=min(counted, traffic.off_chip(text)) if traffic.ON_CHIP in text else counted,
    )


def _shortage(text: str) -> str:
    """Returns the compiler's message about the missing memory, in one line."""
    line = _first_line(text)
    match = re.search(r"Ran out of memory.*?(?=\. HLO module|$)", line)
    return match[0] if match else line


def _first_line(text: str) -> str:
    return " ".join(text.split("\n", 1)[0].split())[:300]
