"""Reads the files in which W&B keeps a run on disk, without W&B's server, even after a kill.

A `.wandb` file is a header of 7 bytes, then blocks of 32,768 bytes in the format of LevelDB's log. A block holds
records of checksum, length, type and content, which is a serialized message or a part of one. After a kill, the last
record may be cut short. If a record is damaged, the rest of its block is skipped. Each attempt at a run has its own
file; the files are merged by the run's id.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from harness.store.records import RecordError

_BLOCK = 32_768
_FILE_HEADER = struct.Struct("<4sHB")
_MAGIC = (b":W&B", 0xBEE1, 0)
_RECORD_HEADER = struct.Struct("<IHB")
_WHOLE, _FIRST, _MIDDLE, _END = 1, 2, 3, 4
_NOT_FINITE = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}


@dataclasses.dataclass(frozen=True)
class Artifact:
    """An artifact as a run logged it.

    Attributes:
      name, type: such as "run-0123456789abcdef", "run-record".
      metadata: metadata that it was logged with.
      files: name -> path of the copy below the folder that was read; None if the copy is missing.
    """

    name: str
    type: str
    metadata: Mapping[str, Any]
    files: Mapping[str, Path | None]


@dataclasses.dataclass(frozen=True)
class MirroredRun:
    """A run, or one attempt at it, as W&B's files hold it.

    Attributes:
      path: the file; the last one's if there are several attempts.
      run, group, job_type, name, tags: as they were given to W&B.
      started: time of the start, seconds since 1970.
      config: the settings.
      points: points of the training curve: "split", "step" and metrics.
      summary: W&B's summary of the run, nested as in W&B.
      tables: name -> file of a table, for :func:`table`.
      artifacts: the artifacts, in the order they were logged.
      exit_code: the exit code given to W&B; None if the run was not ended.
      damaged: whether a part of the file could not be read, as after a kill.
    """

    path: Path
    run: str
    group: str
    job_type: str
    name: str
    tags: tuple[str, ...]
    started: float
    config: Mapping[str, Any]
    points: tuple[Mapping[str, Any], ...]
    summary: Mapping[str, Any]
    tables: Mapping[str, Path]
    artifacts: tuple[Artifact, ...]
    exit_code: int | None
    damaged: bool


def read_runs(folder: Path) -> list[MirroredRun]:
    """Reads the attempts whose files are in a folder or below it, in the order they started.

    Files that hold no run yet are left out.

    Raises:
      RecordError: the folder does not exist, or a file is not W&B's.
    """
    attempts = [attempt for path in paths(folder) if (attempt := read_file(path, folder))]
    return sorted(attempts, key=lambda attempt: (attempt.started, attempt.path))


def paths(folder: Path) -> list[Path]:
    """Returns the paths of W&B's files in a folder and below it, sorted.

    Raises:
      RecordError: the folder does not exist.
    """
    if not folder.is_dir():
        raise RecordError(f"{folder}: {'is a file; expected a folder' if folder.exists() else 'no such folder'}")
    # Skips symbolic links, since W&B adds one to the folder of the latest run.
    return sorted(
        path
        for path in folder.rglob("*.wandb")
        if not any(parent.is_symlink() for parent in _parents_below(path, folder))
    )


def read_file(path: Path, folder: Path) -> MirroredRun | None:
    """Reads the attempt in one file; None if the file was cut short before it names its run.

    Args:
      path: the file, which is in `folder`.
      folder: the only folder in which to look for copies of the artifacts' files.

    Raises:
      RecordError: the file is not W&B's.
    """
    # Imported as Any, since protobuf creates its classes during the import, where mypy cannot see them.
    kinds: Any = importlib.import_module("wandb.proto.wandb_internal_pb2")
    content = _Content(path, folder)
    for message in _messages(path, content):
        with content.noted():
            content.take(kinds.Record.FromString(message))
    return content.attempt()


def merged(attempts: Iterable[MirroredRun]) -> dict[str, MirroredRun]:
    """Merges the attempts at each run: run id -> all its attempts in one.

    If attempts differ, the later one in the order given wins; on the curve, this goes for each split and step.
    """
    runs: dict[str, MirroredRun] = {}
    for attempt in attempts:
        runs[attempt.run] = _joined(runs[attempt.run], attempt) if attempt.run in runs else attempt
    return runs


def table(path: Path) -> tuple[list[str], list[list[Any]]]:
    """Reads the columns and rows of a table that was logged to W&B."""
    content = json.loads(path.read_text())
    return content["columns"], content["data"]


def _joined(earlier: MirroredRun, later: MirroredRun) -> MirroredRun:
    points = {(point["step"], point["split"]): point for attempt in (earlier, later) for point in attempt.points}
    return dataclasses.replace(
        later,
        group=later.group or earlier.group,
        job_type=later.job_type or earlier.job_type,
        tags=later.tags or earlier.tags,
        started=earlier.started,
        config={**earlier.config, **later.config},
        points=tuple(points[key] for key in sorted(points)),
        summary={**earlier.summary, **later.summary},
        tables={**earlier.tables, **later.tables},
        artifacts=earlier.artifacts + later.artifacts,
        damaged=earlier.damaged or later.damaged,
    )


class _Content:
    """The content of a file, collected from its messages."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.path, self.folder = path, folder
        self.damaged = False
        self.run: Any = None
        self.exit_code: int | None = None
        self.config: dict[str, Any] = {}
        self.summary: dict[str, Any] = {}
        self.points: list[Mapping[str, Any]] = []
        self.artifacts: list[Artifact] = []

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Counts a message with a correct checksum and invalid content as damage."""
        message: Any = importlib.import_module("google.protobuf.message")
        try:
            yield
        except (message.DecodeError, ValueError):
            self.damaged = True

    def take(self, record: Any) -> None:
        kind = record.WhichOneof("record_type")
        if kind == "run":
            self.run = record.run
            _update(self.config, record.run.config.update)
        elif kind == "config":
            _update(self.config, record.config.update)
        elif kind == "summary":
            _update(self.summary, record.summary.update)
        elif kind == "history":
            self.points += _points(record.history.item)
        elif kind == "artifact":
            self.artifacts.append(_artifact(record.artifact, self.path, self.folder))
        elif kind == "exit":
            self.exit_code = record.exit.exit_code

    def attempt(self) -> MirroredRun | None:
        if self.run is None:
            return None
        return MirroredRun(
            path=self.path,
            run=self.run.run_id,
            group=self.run.run_group,
            job_type=self.run.job_type,
            name=self.run.display_name,
            tags=tuple(self.run.tags),
            started=self.run.start_time.seconds + self.run.start_time.nanos / 1e9,
            config=_ours(self.config),
            points=tuple(self.points),
            summary=_ours(self.summary),
            tables=_tables(self.path.parent / "files", self.summary),
            artifacts=tuple(self.artifacts),
            exit_code=self.exit_code,
            damaged=self.damaged,
        )


def _ours(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if not key.startswith("_")}


def _update(values: dict[str, Any], items: Iterable[Any]) -> None:
    for item in items:
        *outer, last = list(item.nested_key) or [item.key]
        into = values
        for key in outer:
            if not isinstance(into.get(key), dict):
                into[key] = {}
            into = into[key]
        into[last] = _value(item.value_json)


def _value(text: str) -> Any:
    value = json.loads(text)
    return _NOT_FINITE.get(value, value) if isinstance(value, str) else value


def _points(items: Iterable[Any]) -> list[Mapping[str, Any]]:
    row: dict[str, Any] = {}
    _update(row, items)
    points: dict[str, dict[str, Any]] = {}
    for key, value in row.items():
        split, slash, name = key.partition("/")
        if slash and split in ("train", "validation"):
            points.setdefault(split, {"split": split, "step": row.get("step")})[name] = value
    return [point for point in points.values() if point["step"] is not None]


def _tables(files: Path, summary: Mapping[str, Any]) -> dict[str, Path]:
    entries = {key: value for key, value in summary.items() if isinstance(value, dict)}
    tables = {key: str(entry.get("path")) for key, entry in entries.items() if entry.get("_type") == "table-file"}
    return {key: path for key, name in tables.items() if (path := _inside(files, name))}


def _artifact(record: Any, path: Path, folder: Path) -> Artifact:
    entries = record.manifest.contents
    metadata = json.loads(record.metadata or "{}")
    return Artifact(
        name=record.name,
        type=record.type,
        metadata=metadata if isinstance(metadata, dict) else {},
        files={entry.path: _staged(entry.local_path, path, folder) for entry in entries},
    )


def _staged(recorded: str, path: Path, folder: Path) -> Path | None:
    """Finds the copy of an artifact's file that W&B staged, which may have been moved here from another machine.

    Args:
      recorded: path of the copy on the machine that W&B ran on; its ends are looked up in each folder above `path`.
      path: the run's file.
      folder: the highest folder to look in.
    """
    parts = PurePosixPath(recorded).parts
    for parent in _parents_up_to(path.parent, folder):
        for start in range(1, len(parts)):
            copy = _inside(parent, str(PurePosixPath(*parts[start:])))
            if copy:
                return copy
    return None


def _parents_up_to(path: Path, folder: Path) -> Iterator[Path]:
    """Yields a path and its parents, up to and including the folder."""
    yield from _parents_below(path, folder)
    yield folder


def _parents_below(path: Path, folder: Path) -> Iterator[Path]:
    """Yields a path and its parents that are below the folder."""
    while path not in (folder, path.parent):
        yield path
        path = path.parent


def _inside(folder: Path, name: str) -> Path | None:
    """Returns the path of a file in the folder; None if it does not exist or lies outside of the folder."""
    path = (folder / name).resolve()
    return path if path.is_relative_to(folder.resolve()) and path.is_file() else None


def _messages(path: Path, content: _Content) -> Iterator[bytes]:
    """Yields the complete messages of a file; notes damage in `content`."""
    data = path.read_bytes()
    if len(data) < _FILE_HEADER.size:
        content.damaged = True
        return
    if _FILE_HEADER.unpack_from(data) != _MAGIC:
        raise RecordError(f"{path}: not a file of W&B's, or of a version this harness does not know")
    parts: list[bytes] = []
    for kind, part in _parts(data, content):
        if kind in (_WHOLE, _FIRST):
            content.damaged |= bool(parts)
            parts = []
        elif not parts:
            # The beginning of this message was lost.
            continue
        parts.append(part)
        if kind in (_WHOLE, _END):
            yield b"".join(parts)
            parts = []
    content.damaged |= bool(parts)


def _parts(data: bytes, content: _Content) -> Iterator[tuple[int, bytes]]:
    position = _FILE_HEADER.size
    while position < len(data):
        end = (position // _BLOCK + 1) * _BLOCK
        if end - position < _RECORD_HEADER.size:
            position = end
            continue
        part = _part(data, position, end)
        if part is None:
            content.damaged = True
            position = end
            continue
        position += _RECORD_HEADER.size + len(part[1])
        yield part


def _part(data: bytes, position: int, end: int) -> tuple[int, bytes] | None:
    """Returns type and content of the record at a position; None if it is cut short or damaged."""
    begin = position + _RECORD_HEADER.size
    if begin > len(data):
        return None
    checksum, length, kind = _RECORD_HEADER.unpack_from(data, position)
    part = data[begin : begin + length]
    sound = kind in (_WHOLE, _FIRST, _MIDDLE, _END) and len(part) == length and begin + length <= end
    return (kind, part) if sound and zlib.crc32(part, zlib.crc32(bytes([kind]))) == checksum else None
