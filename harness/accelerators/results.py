"""Stores the results of compiling programs for slices, in JSON files: `results/preflight/v3-8x8/<key>.json`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.config.experiment import SettingsError
from harness.system import files

SCHEMA = 1
FOLDER = "preflight"


class ResultError(SettingsError):
    """A file without a usable result; the message is one line that names the file."""


@dataclasses.dataclass(frozen=True)
class Memory:
    """The memory that a program needs on one core, in bytes.

    Attributes:
      arguments: the batch and the variables.
      outputs: the results.
      aliased: the part of the results that takes the place of arguments.
      temporaries: everything in between, at its peak.
      code: the program itself.
    """

    arguments: int
    outputs: int
    aliased: int
    temporaries: int
    code: int

    @property
    def needed(self) -> int:
        """Bytes needed altogether."""
        return self.arguments + self.outputs - self.aliased + self.temporaries + self.code


@dataclasses.dataclass(frozen=True)
class Executable:
    """A compiler's figures for a program.

    Attributes:
      memory: memory of one core.
      operations: operations of one core per step; a multiply-add counts as two, products with padding are not counted.
      bytes_moved: bytes moved between a core and its memory per step: operands and results of all fused operations,
        except those in on-chip memory.
    """

    memory: Memory
    operations: int
    bytes_moved: int


@dataclasses.dataclass(frozen=True)
class Result:
    """The result of compiling one program for one slice.

    Attributes:
      key: key of the program, see :class:`harness.accelerators.programs.Program`.
      topology: the slice, such as "v3:8x8".
      compiler: name and version of the compiler, such as "libtpu 0.0.52 through jax 0.10.2".
      estimated: whether memory and bytes are estimates, since no compiler for TPUs was installed.
      fits: whether the program fits into a core's memory.
      reason: the compiler's reason if it does not fit or does not compile; empty otherwise.
      executable: memory, operations and bytes moved; None if there is no executable.
      program: description of the program, see :func:`harness.accelerators.programs.described`.
      versions: versions of TensorFlow and the Garden.
      hlo: SHA-256 of the HLO module that was compiled.
      seconds: time of tracing and compiling.
      made: time of the result, ISO 8601 in UTC.
    """

    key: str
    topology: str
    compiler: str
    estimated: bool
    fits: bool
    reason: str
    executable: Executable | None
    program: Mapping[str, Any]
    versions: Mapping[str, str]
    hlo: str
    seconds: float
    made: str

    @property
    def clips(self) -> int:
        """Number of clips, or videos, per core."""
        return int(self.program["clips"])


class Results:
    """The results under a results folder.

    Args:
      root: the results folder.
    """

    def __init__(self, root: Path) -> None:
        self.folder = root / FOLDER

    def path(self, topology: str, key: str) -> Path:
        """Returns the path of a program's result for a slice, whether or not it exists."""
        return self.folder / topology.replace(":", "-") / f"{key[:16]}.json"

    def read(self, topology: str, key: str) -> Result | None:
        """Returns the result of a program for a slice; None if there is none.

        Raises:
          ResultError: the file is damaged, or from another version of the harness.
        """
        path = self.path(topology, key)
        try:
            content = json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise ResultError(f"{path}: is damaged") from error
        result = _parsed(content)
        if result is None or result.key != key or result.topology != topology:
            raise ResultError(f"{path}: holds no result of this program")
        return result

    def write(self, result: Result) -> Path:
        """Writes a result, whole or not at all, replacing any earlier one, and returns the path."""
        content = {"schema": SCHEMA, **dataclasses.asdict(result)}
        text = json.dumps(content, indent=1, sort_keys=True, allow_nan=False)
        return files.replace(self.path(result.topology, result.key), text.encode() + b"\n")

    def topologies(self) -> list[str]:
        """Returns the names of the slices with results, sorted, such as "v3:8x8"."""
        if not self.folder.is_dir():
            return []
        return sorted(path.name.replace("-", ":", 1) for path in self.folder.iterdir() if path.is_dir())


def _parsed(content: Any) -> Result | None:
    """Converts the content of a file to a result; returns None if it is not one."""
    if not isinstance(content, dict) or content.pop("schema", None) != SCHEMA:
        return None
    try:
        executable = content.pop("executable")
        if executable is not None:
            memory = Memory(**{name: int(value) for name, value in executable.pop("memory").items()})
            executable = Executable(memory, **{name: int(value) for name, value in executable.items()})
        result = Result(executable=executable, **content)
    except (TypeError, ValueError, AttributeError, KeyError, OverflowError):
        return None
    texts = (result.key, result.topology, result.compiler, result.reason, result.hlo, result.made)
    whole = (
        all(isinstance(text, str) for text in texts)
        and isinstance(result.estimated, bool)
        and isinstance(result.fits, bool)
        and isinstance(result.program, dict)
        and isinstance(result.program.get("clips"), int)
        and (executable is not None or not result.fits)
        and result.clips > 0
        and (executable is None or _no_negative(executable))
    )
    return result if whole else None


def _no_negative(executable: Executable) -> bool:
    memory = executable.memory
    numbers: tuple[int, ...] = dataclasses.astuple(memory)
    return min(executable.operations, executable.bytes_moved, memory.needed, *numbers) >= 0
