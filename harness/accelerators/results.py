"""What compiling a program for a slice showed, kept in a JSON file: `results/preflight/v3-8x8/<key>.json`."""

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
    """A file that holds no result that can be used; one line that names it."""


@dataclasses.dataclass(frozen=True)
class Memory:
    """Memory of one core, bytes.

    Attributes:
      arguments: the batch and the variables.
      outputs: results.
      aliased: of these, what takes the place of arguments.
      temporaries: everything in between, at its peak.
      code: the program.
    """

    arguments: int
    outputs: int
    aliased: int
    temporaries: int
    code: int

    @property
    def needed(self) -> int:
        """All of it together."""
        return self.arguments + self.outputs - self.aliased + self.temporaries + self.code


@dataclasses.dataclass(frozen=True)
class Executable:
    """What a compiler says of a program.

    Attributes:
      memory: of one core.
      operations: of one core and step, a multiply-add being two; what is multiplied with padding is not counted.
      bytes_moved: between a core and its memory in a step: operands and results of all fused operations that are not in
        on-chip memory.
    """

    memory: Memory
    operations: int
    bytes_moved: int


@dataclasses.dataclass(frozen=True)
class Result:
    """What compiling one program for one slice showed.

    Attributes:
      key: of the program, as :class:`harness.accelerators.programs.Program` has it.
      topology: the slice: "v3:8x8".
      compiler: which compiler, and its version: "libtpu 0.0.52 through jax 0.10.2".
      estimated: whether memory and bytes are an estimate, since no compiler for TPUs was there.
      fits: whether it fits into a core's memory.
      reason: the compiler's words where it does not fit, or does not compile; empty otherwise.
      executable: what it needs and does; None where there is none.
      program: what the program is, as :func:`harness.accelerators.programs.described` says it.
      versions: of TensorFlow and the Garden.
      hlo: SHA-256 of what was compiled.
      seconds: that tracing and compiling took.
      made: when, ISO 8601 in UTC.
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
        """Clips, or videos, of one core."""
        return int(self.program["clips"])


class Results:
    """The results under a results folder.

    Args:
      root: the results folder.
    """

    def __init__(self, root: Path) -> None:
        self.folder = root / FOLDER

    def path(self, topology: str, key: str) -> Path:
        """Where the result of a program for a slice is, or would be."""
        return self.folder / topology.replace(":", "-") / f"{key[:16]}.json"

    def read(self, topology: str, key: str) -> Result | None:
        """The result of a program for a slice; None where there is none.

        Raises:
          ResultError: the file is damaged, or of another version of the harness.
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
        """Writes a result, whole or not at all, in place of one that is there; the path."""
        content = {"schema": SCHEMA, **dataclasses.asdict(result)}
        text = json.dumps(content, indent=1, sort_keys=True, allow_nan=False)
        return files.replace(self.path(result.topology, result.key), text.encode() + b"\n")

    def topologies(self) -> list[str]:
        """Slices of which there is a result, sorted: "v3:8x8"."""
        if not self.folder.is_dir():
            return []
        return sorted(path.name.replace("-", ":", 1) for path in self.folder.iterdir() if path.is_dir())


def _parsed(content: Any) -> Result | None:
    """A result of what a file holds; None where it holds none."""
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
