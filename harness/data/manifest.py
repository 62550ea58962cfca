"""The manifest of a data set: a small file that says what the shards hold, checked before anything is trained.

A data set is a folder of TFRecord shards with a `manifest.json` beside them. Its identity is `Manifest.fingerprint`,
a hash of every video in it that does not depend on how the videos are spread over shards.
"""

import hashlib
import json
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from harness.system import files
from harness.system.errors import HarnessError

FILE_NAME = "manifest.json"
SCHEMA = 1
SPLITS = ("train", "validation")
# Longest media id, bytes: an id is sent to an accelerator as that many numbers.
ID_BYTES = 64

_HEX_DIGITS = frozenset("0123456789abcdef")


class ManifestError(HarnessError):
    """A data set that cannot be trusted; the message is one line: the file, what is wrong, what was expected."""


@dataclass(frozen=True)
class Shard:
    """One file of examples: its plain name inside the folder, how many examples it holds, and its size in bytes."""

    file: str
    examples: int
    bytes: int


@dataclass(frozen=True)
class Listed:
    """A file with a line for every video: its plain name inside the folder, and the SHA-256 of its content."""

    file: str
    sha256: str


@dataclass(frozen=True)
class Split:
    """One split: its shards, the shortest and the longest video in frames, and the number of videos of each class.

    Only `harness.prepare_data` knows the rest, which is None in other manifests: `frames`, the number of all stored
    frames; `left_out`, the number of videos that could not be used; `sources`, a CSV of where every video comes from.
    """

    shards: tuple[Shard, ...]
    frames_min: int
    frames_max: int
    histogram: tuple[int, ...]
    frames: int | None = None
    left_out: int | None = None
    sources: Listed | None = None

    @property
    def examples(self) -> int:
        """Number of videos, over all shards."""
        return sum(shard.examples for shard in self.shards)


@dataclass(frozen=True)
class Manifest:
    """A whole data set.

    `classes` are the class names in label order; `height` and `width` are those of the stored frames in pixels, 0 where
    they vary; `splits` has the keys of `SPLITS`; `fingerprint` is 64 hexadecimal digits; `source` says in words where
    the videos come from; `preparation` has the options of our decoder, None if the videos were decoded elsewhere.
    """

    name: str
    classes: tuple[str, ...]
    height: int
    width: int
    splits: Mapping[str, Split]
    fingerprint: str
    source: str
    preparation: Mapping[str, str] | None = None


def example_digest(media_id: str, label: int, frames: Sequence[bytes]) -> str:
    """Hash of one video: its id, its label and its encoded frames in order; 64 hexadecimal digits."""
    # The lengths are hashed first, so that moving a byte from one frame to the next changes the digest.
    digest = hashlib.sha256(json.dumps([media_id, label, [len(frame) for frame in frames]]).encode())
    for frame in frames:
        digest.update(frame)
    return digest.hexdigest()


def fingerprint(digests: Iterable[tuple[str, str, str]]) -> str:
    """Hash of a data set from its (split, media id, example digest) triples in any order; 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for triple in sorted(digests):
        digest.update((json.dumps(triple) + "\n").encode())
    return digest.hexdigest()


def load(folder: Path) -> Manifest:
    """Reads a folder's manifest and checks the shard files against it; raises `ManifestError` if anything is off."""
    path = folder / FILE_NAME
    try:
        manifest = _parse(_read(path))
        _check_files(manifest, folder)
    except ManifestError as error:
        raise ManifestError(f"{path}: {error}") from None
    return manifest


def save(manifest: Manifest, folder: Path) -> None:
    """Writes the manifest beside its shards, whole or not at all; refuses what `load` would refuse."""
    path, text = folder / FILE_NAME, dumps(manifest)
    try:
        _check_files(_parse(text), folder)
    except ManifestError as error:
        raise ManifestError(f"{path}: not written: {error}") from None
    files.replace(path, text.encode())


def dumps(manifest: Manifest) -> str:
    """Returns the text of the manifest's file."""
    options = None if manifest.preparation is None else dict(manifest.preparation)
    fields = _without_nothing(asdict(replace(manifest, splits=dict(manifest.splits), preparation=options)))
    return json.dumps({"schema": SCHEMA, **fields}, indent=1, sort_keys=True) + "\n"


def loads(text: str) -> Manifest:
    """Parses the text of a manifest's file, without looking at shards; raises `ManifestError` if anything is off."""
    return _parse(text)


def _without_nothing(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nothing(item) for key, item in value.items() if item is not None}
    return value


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ManifestError("no such file; expected the manifest of a prepared data set") from None
    except OSError as error:
        raise ManifestError(f"cannot be read ({error.strerror}); expected a file") from None
    except UnicodeDecodeError:
        raise ManifestError("is not UTF-8 text; expected JSON") from None


def _parse(text: str) -> Manifest:
    try:
        data = json.loads(text, object_pairs_hook=_without_repeats)
    except ManifestError:
        raise
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"is not JSON ({_shown(str(error))}); expected an object") from None
    # The schema comes first: in a file of another schema, other errors would mislead.
    if isinstance(data, dict) and "schema" in data and data["schema"] != SCHEMA:
        raise ManifestError(f"schema is {_shown(data['schema'])}; expected {SCHEMA}")
    return _manifest(data)


def _manifest(data: Any) -> Manifest:
    keys = ("schema", "name", "classes", "height", "width", "splits", "fingerprint", "source")
    fields = _object(data, keys, "the manifest", optional=("preparation",))
    _integer(fields["schema"], SCHEMA, "schema")
    classes = tuple(_text(item, f"classes[{i}]") for i, item in enumerate(_list(fields["classes"], "classes")))
    _unique(classes, "classes")
    splits = _object(fields["splits"], SPLITS, "splits")
    manifest = Manifest(
        name=_text(fields["name"], "name"),
        classes=classes,
        height=_integer(fields["height"], 0, "height"),
        width=_integer(fields["width"], 0, "width"),
        splits={split: _split(splits[split], len(classes), f"splits.{split}") for split in SPLITS},
        fingerprint=_text(fields["fingerprint"], "fingerprint"),
        source=_text(fields["source"], "source"),
        preparation=_preparation(fields["preparation"]) if "preparation" in fields else None,
    )
    _hash(manifest.fingerprint, "fingerprint")
    _unique((shard.file for split in SPLITS for shard in manifest.splits[split].shards), "shard files")
    return manifest


def _split(data: Any, classes: int, where: str) -> Split:
    more = ("frames", "left_out", "sources")
    fields = _object(data, ("shards", "frames_min", "frames_max", "histogram"), where, optional=more)
    shards = _list(fields["shards"], f"{where}.shards")
    counts = _list(fields["histogram"], f"{where}.histogram")
    frames_min = _integer(fields["frames_min"], 1, f"{where}.frames_min")
    split = Split(
        shards=tuple(_shard(item, f"{where}.shards[{i}]") for i, item in enumerate(shards)),
        frames_min=frames_min,
        frames_max=_integer(fields["frames_max"], frames_min, f"{where}.frames_max"),
        histogram=tuple(_integer(item, 0, f"{where}.histogram[{i}]") for i, item in enumerate(counts)),
        frames=_integer(fields["frames"], 1, f"{where}.frames") if "frames" in fields else None,
        left_out=_integer(fields["left_out"], 0, f"{where}.left_out") if "left_out" in fields else None,
        sources=_listed(fields["sources"], f"{where}.sources") if "sources" in fields else None,
    )
    if len(counts) != classes:
        raise ManifestError(f"{where}.histogram has {len(counts)} counts; expected one for each of {classes} classes")
    if sum(split.histogram) != split.examples:
        raise ManifestError(
            f"{where}.histogram adds up to {sum(split.histogram)}; expected the {split.examples} examples of its shards"
        )
    return split


def _shard(data: Any, where: str) -> Shard:
    fields = _object(data, ("file", "examples", "bytes"), where)
    name = _plain(fields["file"], f"{where}.file")
    examples = _integer(fields["examples"], 1, f"{where}.examples")
    return Shard(name, examples, _integer(fields["bytes"], 1, f"{where}.bytes"))


def _listed(data: Any, where: str) -> Listed:
    fields = _object(data, ("file", "sha256"), where)
    return Listed(_plain(fields["file"], f"{where}.file"), _hash(fields["sha256"], f"{where}.sha256"))


def _preparation(data: Any) -> dict[str, str]:
    if not isinstance(data, dict) or not data:
        raise ManifestError(f"preparation is {_shown(data)}; expected an object of options")
    return {key: _text(value, f"preparation[{_shown(key)}]") for key, value in data.items()}


def _plain(value: Any, where: str) -> str:
    name = _text(value, where)
    # A manifest may come with data from somebody else; it must not make us open a file outside the folder.
    if name in (".", "..") or any(mark in name for mark in "/\\:\0"):
        raise ManifestError(f"{where} is {_shown(name)}; expected a plain name inside the folder")
    return name


def _hash(value: Any, where: str) -> str:
    text = _text(value, where)
    if len(text) != 64 or not _HEX_DIGITS.issuperset(text):
        raise ManifestError(f"{where} is {_shown(text)}; expected 64 lower-case hexadecimal digits")
    return text


def _check_files(manifest: Manifest, folder: Path) -> None:
    for split in SPLITS:
        for shard in manifest.splits[split].shards:
            try:
                status = (folder / shard.file).stat()
            except (OSError, ValueError):  # ValueError: a name that no file system could hold
                raise ManifestError(f"shard {_shown(shard.file)} is missing; expected {shard.bytes} bytes") from None
            if not stat.S_ISREG(status.st_mode):
                raise ManifestError(f"shard {_shown(shard.file)} is not a file; expected {shard.bytes} bytes")
            if status.st_size != shard.bytes:
                raise ManifestError(f"shard {_shown(shard.file)} has {status.st_size} bytes; expected {shard.bytes}")


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    _unique((key for key, _ in pairs), "keys of one object")
    return dict(pairs)


def _unique(names: Iterable[str], where: str) -> None:
    seen = set()
    for name in names:
        if name in seen:
            raise ManifestError(f"{where} name {_shown(name)} twice; expected each once")
        seen.add(name)


def _object(value: Any, keys: Sequence[str], where: str, optional: Sequence[str] = ()) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ManifestError(f"{where} is {_shown(value)}; expected an object")
    for key in keys:
        if key not in value:
            raise ManifestError(f"{where} lacks {key!r}; expected the keys {', '.join(keys)}")
    for key in value:
        if key not in keys and key not in optional:
            raise ManifestError(f"{where} has the unknown key {_shown(key)}; expected the keys {', '.join(keys)}")
    return value


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise ManifestError(f"{where} is {_shown(value)}; expected a list of at least one")
    return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise ManifestError(f"{where} is {_shown(value)}; expected text")
    return value


def _integer(value: Any, least: int, where: str) -> int:
    # `True` is an int to Python, and would count as 1.
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ManifestError(f"{where} is {_shown(value)}; expected a whole number of at least {least}")
    return value


def _shown(value: Any) -> str:
    """Returns the value on one line of at most 60 characters."""
    if isinstance(value, dict | list):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."
