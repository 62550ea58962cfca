"""Reads the files in which W&B keeps a run on disk, without W&B's server, and after a kill too.

A `.wandb` file is a header of 7 bytes, then blocks of 32,768 bytes as LevelDB's log has them: records of checksum,
length and type, each a serialized message or a part of one. A kill cuts the last record short; damage costs the rest of
its block. Attempts at one run are files of their own, merged by the run's id.
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
      metadata: what was said about it.
      files: name -> its copy under the folder that was read, None where that is missing.
    """

    name: str
    type: str
    metadata: Mapping[str, Any]
    files: Mapping[str, Path | None]


@dataclasses.dataclass(frozen=True)
class MirroredRun:
    """What W&B's files hold of a run, or of one attempt at it.

    Attributes:
      path: the file; of several attempts, the last one's.
      run, group, job_type, name, tags: as W&B was told.
      started: when, seconds since 1970.
      config: the settings.
      points: points of the training curve: "split", "step" and metrics.
      summary: what was summed up, nested where W&B nests.
      tables: name -> file of a table, for :func:`table`.
      artifacts: in the order they were logged.
      exit_code: as W&B was told, None where the run was not ended.
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


def read(folder: Path) -> list[MirroredRun]:
    """The attempts whose files are in a folder or below it, in the order they started.

    Files that hold no run yet are left out.

    Raises:
      RecordError: there is no such folder, or a file is not W&B's.
    """
    attempts = [attempt for path in paths(folder) if (attempt := read_file(path, folder))]
    return sorted(attempts, key=lambda attempt: (attempt.started, attempt.path))


def paths(folder: Path) -> list[Path]:
    """W&B's files in a folder and below it, sorted.

    Raises:
      RecordError: there is no such folder.
    """
    if not folder.is_dir():
        raise RecordError(f"{folder}: {'is a file; expected a folder' if folder.exists() else 'no such folder'}")
    # W&B links the latest run's folder a second time.
    return sorted(path for path in folder.rglob("*.wandb") if not any(one.is_symlink() for one in _inner(path, folder)))


def read_file(path: Path, folder: Path) -> MirroredRun | None:
    """The attempt in one file; None where the file was cut short before it said which run it is of.

    Args:
      path: the file.
      folder: where to look for copies of its artifacts' files, and nowhere else; `path` is in it.

    Raises:
      RecordError: the file is not W&B's.
    """
    # protobuf makes its classes while it is imported: types know nothing of them.
    kinds: Any = importlib.import_module("wandb.proto.wandb_internal_pb2")
    said = _Said(path, folder)
    for content in _messages(path, said):
        with said.noted():
            said.take(kinds.Record.FromString(content))
    return said.attempt()


def merged(attempts: Iterable[MirroredRun]) -> dict[str, MirroredRun]:
    """Run id -> all its attempts in one, in the order given.

    Of the curve, a later attempt's point at the same split and step stands; of all else, what was said last.
    """
    runs: dict[str, MirroredRun] = {}
    for attempt in attempts:
        runs[attempt.run] = _joined(runs[attempt.run], attempt) if attempt.run in runs else attempt
    return runs


def table(path: Path) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows of a table that W&B was given."""
    content = json.loads(path.read_text())
    return content["columns"], content["data"]


def _joined(earlier: MirroredRun, later: MirroredRun) -> MirroredRun:
    points = {(point["step"], point["split"]): point for one in (earlier, later) for point in one.points}
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


class _Said:
    """What the messages of a file come to."""

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
        """A message whose checksum is right and whose content is not is damage too."""
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
    """The copy that W&B staged, at a path of the machine it ran on: sought under each folder around the run's file."""
    parts = PurePosixPath(recorded).parts
    for around in _up(path.parent, folder):
        for start in range(1, len(parts)):
            found = _inside(around, str(PurePosixPath(*parts[start:])))
            if found:
                return found
    return None


def _up(path: Path, folder: Path) -> Iterator[Path]:
    """A path and those around it, up to and with the folder."""
    yield from _inner(path, folder)
    yield folder


def _inner(path: Path, folder: Path) -> Iterator[Path]:
    """A path and those around it, below the folder."""
    while path not in (folder, path.parent):
        yield path
        path = path.parent


def _inside(folder: Path, name: str) -> Path | None:
    """The file of this name in the folder; None where there is none or it is elsewhere."""
    path = (folder / name).resolve()
    return path if path.is_relative_to(folder.resolve()) and path.is_file() else None


def _messages(path: Path, said: _Said) -> Iterator[bytes]:
    """The messages of a file, whole ones only; notes damage."""
    content = path.read_bytes()
    if len(content) < _FILE_HEADER.size:
        said.damaged = True
        return
    if _FILE_HEADER.unpack_from(content) != _MAGIC:
        raise RecordError(f"{path}: not a file of W&B's, or of a version this harness does not know")
    parts: list[bytes] = []
    for kind, part in _parts(content, said):
        if kind in (_WHOLE, _FIRST):
            said.damaged |= bool(parts)
            parts = []
        elif not parts:
            # What it continues was lost.
            continue
        parts.append(part)
        if kind in (_WHOLE, _END):
            yield b"".join(parts)
            parts = []
    said.damaged |= bool(parts)


def _parts(content: bytes, said: _Said) -> Iterator[tuple[int, bytes]]:
    position = _FILE_HEADER.size
    while position < len(content):
        end = (position // _BLOCK + 1) * _BLOCK
        if end - position < _RECORD_HEADER.size:
            position = end
            continue
        part = _part(content, position, end)
        if part is None:
            said.damaged = True
            position = end
            continue
        position += _RECORD_HEADER.size + len(part[1])
        yield part


def _part(content: bytes, position: int, end: int) -> tuple[int, bytes] | None:
    """Type and content of the part of a record at a position; None where it is cut short or damaged."""
    begin = position + _RECORD_HEADER.size
    if begin > len(content):
        return None
    checksum, length, kind = _RECORD_HEADER.unpack_from(content, position)
    part = content[begin : begin + length]
    sound = kind in (_WHOLE, _FIRST, _MIDDLE, _END) and len(part) == length and begin + length <= end
    return (kind, part) if sound and zlib.crc32(part, zlib.crc32(bytes([kind]))) == checksum else None
