"""Lists the videos of a data set, with label and split, from the lists that the field distributes; reads no video.

Every mistake in a list is an error here, before anything is decoded: a label outside the map, an id used twice, a video
in two splits, a path that leaves the folder. Whether a video can be decoded is not checked.
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

    If no file was found for a video, its path is the one where a file was expected.
    """

    media_id: str
    label: str
    split: str
    path: str


@dataclass(frozen=True)
class Listing:
    """The videos of a data set, sorted by split and id; `classes` in label order.

    `left_out` counts the rows that belong to neither split, by the list's word for where they belong.
    """

    classes: tuple[str, ...]
    videos: tuple[Video, ...]
    left_out: Mapping[str, int]


@dataclass(frozen=True)
class Request:
    """What the user says about a source.

    Attributes:
      videos: the folder of the videos.
      lists: the lists: CSV files, or the folder of official split files.
      classes: class names in label order, None if the source itself says them.
      fold: which of the official splits, from 1.
      test_as_validation: whether to take the videos of a split "test" for validation.
      holdout: share of the videos that goes to validation if the source has no splits, None to demand splits.
    """

    videos: Path
    lists: tuple[Path, ...] = ()
    classes: tuple[str, ...] | None = None
    fold: int = 1
    test_as_validation: bool = False
    holdout: float | None = None


@dataclass
class _Collected:
    """Collects the videos of a source as its lists are read, and the class names if the source fixes them."""

    request: Request
    videos: list[Video] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    classes: tuple[str, ...] | None = None

    def add(self, video: Video, where: str) -> None:
        """Adds a video whose split is train, validation or test; only counts it if its split is not used."""
        name = "validation" if video.split == "test" and self.request.test_as_validation else video.split
        if name not in SPLITS:
            self.left_out[name] += 1
            return
        if not video.label:
            raise SourceError(f"{where}: video {quoted(video.media_id)} has no label")
        self.videos.append(video._replace(split=name, media_id=_short_id(video.media_id, where)))


def listing(kind: str, request: Request) -> Listing:
    """Lists the videos of a source.

    Args:
      kind: one of :data:`FORMATS`.
      request: what the user says about the source.

    Raises:
      SourceError: a list cannot be read or contradicts itself.
    """
    if not request.videos.is_dir():
        raise SourceError(f"{request.videos}: no such folder; expected the folder of the videos")
    collected = _Collected(request)
    FORMATS[kind](collected)
    classes = request.classes or collected.classes or _sorted_names({video.label for video in collected.videos})
    names = frozenset(classes)
    for name in classes:
        if name.splitlines() != [name] or name != name.encode(errors="replace").decode():
            raise SourceError(f"{request.videos}: the class name {quoted(name)} is no line of UTF-8 text; rename it")
    videos = [video._replace(label=_named(video, classes, names)) for video in collected.videos]
    videos.sort(key=lambda video: (video.split, video.media_id))
    _check(videos, request)
    for split in SPLITS:
        if not any(video.split == split for video in videos):
            hint = "; --test-as-validation takes those of test" if collected.left_out["test"] else ""
            raise SourceError(f"{request.videos}: the list has no video of split {split}; expected at least one{hint}")
    return Listing(tuple(classes), tuple(videos), dict(collected.left_out))


# --- The formats ------------------------------------------------------------------------------------------------------


def _kinetics(collected: _Collected) -> None:
    request = collected.request
    if not request.lists:
        raise SourceError("--format kinetics needs --annotations FILE: the CSV files of train and validation")
    files = _files_by_stem(request.videos)
    for path in request.lists:
        for where, row in lists.rows(path, ("youtube_id", "time_start", "time_end", "split"), ("label",)):
            split = _split_of(row["split"], where)
            stem = f"{row['youtube_id']}_{_second(row, 'time_start', where)}_{_second(row, 'time_end', where)}"
            matches = files.get(stem, ())
            if len(matches) > 1:
                raise SourceError(f"{where}: {quoted(stem)} is there twice, as {matches[0]} and {matches[1]}")
            collected.add(Video(stem, row["label"], split, matches[0] if matches else f"{stem}.mp4"), where)


def _ucf101(collected: _Collected) -> None:
    request = collected.request
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
            collected.add(Video(Path(path).stem, label, split, path), where)
    collected.classes = tuple(classes)


def _hmdb51(collected: _Collected) -> None:
    request = collected.request
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
            if words[1] == "0":  # the authors put it into no split of this fold
                collected.left_out["unused"] += 1
            else:
                collected.add(Video(Path(below).stem, label, _HMDB_SPLITS[words[1]], below), where)
    collected.classes = tuple(path.name.removesuffix(ending) for path in paths)


def _folders(collected: _Collected) -> None:
    root = collected.request.videos
    names = {child.name: _SPLIT_NAMES.get(child.name.lower()) for child in _children(root)}
    if any(names.values()):
        for name, split in names.items():
            if split:
                _class_folders(collected, root / name, split)
    else:
        _class_folders(collected, root, None)


def _class_folders(collected: _Collected, folder: Path, split: str | None) -> None:
    root = collected.request.videos
    for child in _children(folder):
        if child.name.startswith("."):
            continue
        for below in _video_files(child):
            path = (child / below).relative_to(root).as_posix()
            media_id = path.rpartition(".")[0]
            collected.add(
                Video(media_id, child.name, split or _held_out(media_id, collected.request, str(root)), path), path
            )


def _any_csv(collected: _Collected) -> None:
    request = collected.request
    if not request.lists:
        raise SourceError("--format csv needs --annotations FILE: a CSV with the columns path, label and perhaps split")
    for file in request.lists:
        for where, row in lists.rows(file, ("path", "label"), ("split",)):
            path = _inside(row["path"], request.videos, where)
            media_id = path.rpartition(".")[0] or path
            split = _split_of(row["split"], where) if row["split"] else _held_out(media_id, request, where)
            collected.add(Video(media_id, row["label"], split, path), where)


FORMATS: Mapping[str, Callable[[_Collected], None]] = MappingProxyType(
    {"kinetics": _kinetics, "ucf101": _ucf101, "hmdb51": _hmdb51, "folders": _folders, "csv": _any_csv}
)


# --- Parts ------------------------------------------------------------------------------------------------------------


def _check(videos: Sequence[Video], request: Request) -> None:
    """Refuses an id used twice, and a file that is in two splits under two names (through links of any kind)."""
    by_id: dict[str, Video] = {}
    by_file: dict[tuple[int, int], Video] = {}
    for video in videos:
        other = by_id.setdefault(video.media_id, video)
        if other is not video:
            problem = "in two splits" if other.split != video.split else "listed twice"
            raise SourceError(
                f"video {quoted(video.media_id)} is {problem} ({other.path}, {video.path}); expected once"
            )
        try:
            status = (request.videos / video.path).stat()
        except (OSError, ValueError):
            continue  # a missing video is reported later; it is no mistake in the list
        twin = by_file.setdefault((status.st_dev, status.st_ino), video)
        if twin.split != video.split:
            raise SourceError(f"{video.path} is in two splits: {twin.split} has the same file as {twin.path}")


def _named(video: Video, classes: Sequence[str], names: Container[str]) -> str:
    """Returns the name of the video's class; a number is a label's index, unless a class has that name."""
    if video.label in names:
        return video.label
    if re.fullmatch(r"[0-9]{1,9}", video.label) and int(video.label) < len(classes):
        return classes[int(video.label)]
    raise SourceError(
        f"video {quoted(video.media_id)} has the label {quoted(video.label)}; expected one of the {len(classes)} "
        f"classes of the label map, such as {quoted(classes[0])}"
    )


def _sorted_names(names: set[str]) -> tuple[str, ...]:
    """Sorts names alphabetically, or by value if all of them are numbers."""
    if all(re.fullmatch(r"[0-9]{1,9}", name) for name in names):
        return tuple(sorted(names, key=int))
    return tuple(sorted(names))


def _short_id(media_id: str, where: str) -> str:
    """Cuts an id that is too long, and completes it by a hash."""
    try:
        full = media_id.encode()
    except UnicodeEncodeError:
        raise SourceError(f"{where}: the name {quoted(media_id)} is no UTF-8 text; rename it") from None
    if len(full) <= ID_BYTES:
        return media_id
    mark = "-" + hashlib.sha256(full).hexdigest()[:16]
    return full[: ID_BYTES - len(mark)].decode(errors="ignore") + mark


def _inside(name: str, folder: Path, where: str) -> str:
    """Returns the path below the folder, with '/' between its parts; refuses one that leaves it, even by a link."""
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
    """Formats a time of an annotation as file names have it: six digits."""
    if not re.fullmatch(r"[0-9]{1,6}(\.0*)?", row[key]):
        raise SourceError(f"{where}: {key} is {quoted(row[key])}; expected whole seconds")
    return f"{int(float(row[key])):06d}"


def _split_folder(request: Request, kind: str, contents: str) -> Path:
    if len(request.lists) != 1 or not request.lists[0].is_dir():
        raise SourceError(f"--format {kind} needs --annotations FOLDER: the one folder that holds {contents}")
    return request.lists[0]


def _files_by_stem(folder: Path) -> dict[str, list[str]]:
    paths: dict[str, list[str]] = {}
    for path in _video_files(folder):
        paths.setdefault(Path(path).stem, []).append(path)
    return paths


def _video_files(folder: Path) -> Iterator[str]:
    """Yields the video files below a folder at any depth, sorted; follows links, but reads each folder once."""

    def unreadable(error: OSError) -> None:
        raise SourceError(f"{error.filename}: cannot be read ({error.strerror})")

    seen = set()
    for directory, folders, names in os.walk(folder, followlinks=True, onerror=unreadable):
        real = os.path.realpath(directory)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        for name in sorted(names):
            if name.lower().endswith(EXTENSIONS) and not name.startswith("."):
                yield (Path(directory) / name).relative_to(folder).as_posix()


def _children(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if child.is_dir())
