"""Says which videos a data set has, with label and split: reads the lists that the field distributes, and no video.

Everything a list can get wrong is an error here, before anything is decoded: a label outside the map, an id twice, a
video in two splits, a path that leaves the folder. Whether a video can be decoded is not asked.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from harness.data import lists
from harness.data.lists import SourceError, quoted
from harness.data.manifest import ID_BYTES, SPLITS

EXTENSIONS = (".mp4", ".avi", ".mkv", ".webm", ".mov", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".ogv", ".ts")
_SPLIT_NAMES: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("train", "training"), "train"),
        **dict.fromkeys(("val", "valid", "validate", "validation", "dev", "eval"), "validation"),
        **dict.fromkeys(("test", "testing", "holdout_test"), "test"),
    }
)
_HMDB_SPLITS: Mapping[str, str] = MappingProxyType({"1": "train", "2": "validation"})


class Video(NamedTuple):
    """A labelled video: its unique id, the name of its class, its split, and its path below the folder of videos.

    A video that no file was found for has the path at which it was expected.
    """

    media_id: str
    label: str
    split: str
    path: str


@dataclass(frozen=True)
class Listing:
    """The videos of a data set, sorted by split and id; `classes` in label order.

    `left_out` counts rows that belong to neither split, by the word that says so.
    """

    classes: tuple[str, ...]
    videos: tuple[Video, ...]
    left_out: Mapping[str, int]


@dataclass(frozen=True)
class Request:
    """What a user says of a source.

    Attributes:
      videos: the folder of the videos.
      lists: the lists: CSV files, or the folder of official split files.
      classes: class names in label order, None where the source itself says them.
      fold: which of the official splits, from 1.
      test_as_validation: take videos of a split "test" for validation.
      holdout: share of the videos that goes to validation where the source has no splits, None to demand splits.
    """

    videos: Path
    lists: tuple[Path, ...] = ()
    classes: tuple[str, ...] | None = None
    fold: int = 1
    test_as_validation: bool = False
    holdout: float | None = None


@dataclass
class _Found:
    """What a source has, as it is read: videos with the place that lists each, and the class names it fixes."""

    request: Request
    videos: list[Video] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    classes: tuple[str, ...] | None = None

    def add(self, video: Video, where: str) -> None:
        """Takes a video whose split is one of train, validation, test."""
        name = "validation" if video.split == "test" and self.request.test_as_validation else video.split
        if name not in SPLITS:
            self.left_out[name] += 1
            return
        if not video.label:
            raise SourceError(f"{where}: video {quoted(video.media_id)} has no label")
        self.videos.append(video._replace(split=name, media_id=_short_id(video.media_id, where)))


def listing(kind: str, request: Request) -> Listing:
    """The videos of a source.

    Args:
      kind: one of :data:`FORMATS`.
      request: where they are.

    Raises:
      SourceError: a list that cannot be read or contradicts itself.
    """
    if not request.videos.is_dir():
        raise SourceError(f"{request.videos}: no such folder; expected the folder of the videos")
    found = _Found(request)
    FORMATS[kind](found)
    classes = request.classes or found.classes or _sorted_names({video.label for video in found.videos})
    names = frozenset(classes)
    for name in classes:
        if name.splitlines() != [name] or name != name.encode(errors="replace").decode():
            raise SourceError(f"{request.videos}: the class name {quoted(name)} is no line of UTF-8 text; rename it")
    videos = [video._replace(label=_named(video, classes, names)) for video in found.videos]
    videos.sort(key=lambda video: (video.split, video.media_id))
    _check(videos, request)
    for split in SPLITS:
        if not any(video.split == split for video in videos):
            hint = "; --test-as-validation takes those of test" if found.left_out["test"] else ""
            raise SourceError(f"{request.videos}: the list has no video of split {split}; expected at least one{hint}")
    return Listing(tuple(classes), tuple(videos), dict(found.left_out))


# --- The formats ------------------------------------------------------------------------------------------------------


def _kinetics(found: _Found) -> None:
    request = found.request
    if not request.lists:
        raise SourceError("--format kinetics needs --annotations FILE: the CSV files of train and validation")
    files = _files_by_stem(request.videos)
    for path in request.lists:
        for where, row in lists.rows(path, ("youtube_id", "time_start", "time_end", "split"), ("label",)):
            split = _split_of(row["split"], where)
            stem = f"{row['youtube_id']}_{_second(row, 'time_start', where)}_{_second(row, 'time_end', where)}"
            there = files.get(stem, ())
            if len(there) > 1:
                raise SourceError(f"{where}: {quoted(stem)} is there twice, as {there[0]} and {there[1]}")
            found.add(Video(stem, row["label"], split, there[0] if there else f"{stem}.mp4"), where)


def _ucf101(found: _Found) -> None:
    request = found.request
    folder = _split_folder(request, "ucf101", "classInd.txt, trainlist01.txt and testlist01.txt")
    classes: list[str] = []
    for where, words in lists.words(folder / "classInd.txt"):
        if len(words) != 2 or words[0] != str(len(classes) + 1):
            raise SourceError(f"{where}: expected '{len(classes) + 1} NameOfClass'")
        classes.append(words[1])
    numbers = {name: str(number) for number, name in enumerate(classes, start=1)}
    for name, split in (("trainlist", "train"), ("testlist", "validation")):
        for where, words in lists.words(folder / f"{name}{request.fold:02d}.txt"):
            path = _inside(words[0], request.videos, where)
            label = path.split("/")[0]
            if label in numbers and words[1:] and words[1] != numbers[label]:
                raise SourceError(f"{where}: label {quoted(words[1])} of {quoted(path)} is not that of classInd.txt")
            found.add(Video(Path(path).stem, label, split, path), where)
    found.classes = tuple(classes)


def _hmdb51(found: _Found) -> None:
    request = found.request
    folder = _split_folder(request, "hmdb51", "NAME_test_split1.txt")
    ending = f"_test_split{request.fold}.txt"
    paths = sorted(path for path in folder.iterdir() if path.name.endswith(ending))
    if not paths:
        raise SourceError(f"{folder}: has no file named NAME{ending}")
    for path in paths:
        label = path.name.removesuffix(ending)
        for where, words in lists.words(path):
            if len(words) != 2 or words[1] not in ("0", "1", "2"):
                raise SourceError(f"{where}: expected 'video.avi N' with N one of 0, 1, 2")
            below = _inside(f"{label}/{words[0]}", request.videos, where)
            if words[1] == "0":  # in no split of this fold, by the authors
                found.left_out["unused"] += 1
            else:
                found.add(Video(Path(below).stem, label, _HMDB_SPLITS[words[1]], below), where)
    found.classes = tuple(path.name.removesuffix(ending) for path in paths)


def _folders(found: _Found) -> None:
    root = found.request.videos
    names = {child.name: _SPLIT_NAMES.get(child.name.lower()) for child in _children(root)}
    if any(names.values()):
        for name, split in names.items():
            if split:
                _class_folders(found, root / name, split)
    else:
        _class_folders(found, root, None)


def _class_folders(found: _Found, folder: Path, split: str | None) -> None:
    root = found.request.videos
    for child in _children(folder):
        if child.name.startswith("."):
            continue
        for below in _video_files(child):
            path = (child / below).relative_to(root).as_posix()
            media_id = path.rpartition(".")[0]
            found.add(Video(media_id, child.name, split or _held_out(media_id, found.request, str(root)), path), path)


def _any_csv(found: _Found) -> None:
    request = found.request
    if not request.lists:
        raise SourceError("--format csv needs --annotations FILE: a CSV with the columns path, label and perhaps split")
    for file in request.lists:
        for where, row in lists.rows(file, ("path", "label"), ("split",)):
            path = _inside(row["path"], request.videos, where)
            media_id = path.rpartition(".")[0] or path
            split = _split_of(row["split"], where) if row["split"] else _held_out(media_id, request, where)
            found.add(Video(media_id, row["label"], split, path), where)


FORMATS: Mapping[str, Callable[[_Found], None]] = MappingProxyType(
    {"kinetics": _kinetics, "ucf101": _ucf101, "hmdb51": _hmdb51, "folders": _folders, "csv": _any_csv}
)


# --- Parts ------------------------------------------------------------------------------------------------------------


def _check(videos: Sequence[Video], request: Request) -> None:
    """Refuses an id that is there twice, and a file that is in two splits under two names (links of any kind)."""
    by_id: dict[str, Video] = {}
    by_file: dict[tuple[int, int], Video] = {}
    for video in videos:
        other = by_id.setdefault(video.media_id, video)
        if other is not video:
            what = "in two splits" if other.split != video.split else "listed twice"
            raise SourceError(f"video {quoted(video.media_id)} is {what} ({other.path}, {video.path}); expected once")
        try:
            found = (request.videos / video.path).stat()
        except (OSError, ValueError):
            continue  # a missing video is a finding, not a mistake in the list
        twin = by_file.setdefault((found.st_dev, found.st_ino), video)
        if twin.split != video.split:
            raise SourceError(f"{video.path} is in two splits: {twin.split} has the same file as {twin.path}")


def _named(video: Video, classes: Sequence[str], names: Container[str]) -> str:
    """The name of the video's class; a number is one, too, where the map has no class of that name."""
    if video.label in names:
        return video.label
    if re.fullmatch(r"[0-9]{1,9}", video.label) and int(video.label) < len(classes):
        return classes[int(video.label)]
    raise SourceError(
        f"video {quoted(video.media_id)} has the label {quoted(video.label)}; expected one of the {len(classes)} "
        f"classes of the label map, such as {quoted(classes[0])}"
    )


def _sorted_names(names: set[str]) -> tuple[str, ...]:
    """In the order of the alphabet, numbers by their size."""
    if all(re.fullmatch(r"[0-9]{1,9}", name) for name in names):
        return tuple(sorted(names, key=int))
    return tuple(sorted(names))


def _short_id(media_id: str, where: str) -> str:
    """The id, cut and completed by a hash where it is longer than ids may be."""
    try:
        full = media_id.encode()
    except UnicodeEncodeError:
        raise SourceError(f"{where}: the name {quoted(media_id)} is no UTF-8 text; rename it") from None
    if len(full) <= ID_BYTES:
        return media_id
    mark = "-" + hashlib.sha256(full).hexdigest()[:16]
    return full[: ID_BYTES - len(mark)].decode(errors="ignore") + mark


def _inside(name: str, folder: Path, where: str) -> str:
    """The path below the folder, with '/' between its parts; refuses one that leads out of it, also by a link."""
    root, text = folder.resolve(), name.strip()
    if not text or "\0" in text:
        raise SourceError(f"{where}: the path {quoted(name)} is none; expected a path below {folder}")
    plain = Path(os.path.normpath(folder.absolute() / text))
    if not plain.is_relative_to(folder.absolute()) or not Path(os.path.realpath(plain)).is_relative_to(root):
        raise SourceError(f"{where}: the path {quoted(name)} leaves the folder {folder}; expected one inside")
    return plain.relative_to(folder.absolute()).as_posix()


def _held_out(media_id: str, request: Request, where: str) -> str:
    if request.holdout is None:
        raise SourceError(f"{where}: says no split; expected train or validation, or --holdout SHARE to draw them")
    draw = int.from_bytes(hashlib.sha256(media_id.encode(errors="replace")).digest()[:7], "big") / 2**56
    return "validation" if draw < request.holdout else "train"


def _split_of(text: str, where: str) -> str:
    if text.lower() not in _SPLIT_NAMES:
        raise SourceError(f"{where}: the split {quoted(text)} is unknown; expected train, validation or test")
    return _SPLIT_NAMES[text.lower()]


def _second(row: Mapping[str, str], key: str, where: str) -> str:
    """A time of an annotation as file names have it: six digits."""
    if not re.fullmatch(r"[0-9]{1,6}(\.0*)?", row[key]):
        raise SourceError(f"{where}: {key} is {quoted(row[key])}; expected whole seconds")
    return f"{int(float(row[key])):06d}"


def _split_folder(request: Request, kind: str, what: str) -> Path:
    if len(request.lists) != 1 or not request.lists[0].is_dir():
        raise SourceError(f"--format {kind} needs --annotations FOLDER: the one folder that holds {what}")
    return request.lists[0]


def _files_by_stem(folder: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for path in _video_files(folder):
        found.setdefault(Path(path).stem, []).append(path)
    return found


def _video_files(folder: Path) -> Iterator[str]:
    """Paths of the video files below a folder at any depth, sorted; follows links to folders, each folder once."""

    def unreadable(error: OSError) -> None:
        raise SourceError(f"{error.filename}: cannot be read ({error.strerror})")

    seen = set()
    for place, folders, names in os.walk(folder, followlinks=True, onerror=unreadable):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        for name in sorted(names):
            if name.lower().endswith(EXTENSIONS) and not name.startswith("."):
                yield (Path(place) / name).relative_to(folder).as_posix()


def _children(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if child.is_dir())
