"""Checkpoints in a folder, by the names that TensorFlow gives their files; TensorFlow itself is not needed.

ckpt-<step>.index, ckpt-<step>.data-*        all that training goes on from
checkpoint                                   TensorFlow's list of them, written once each of them is whole
weights-<step>.index, weights-<step>.data-*  the network of a training that reached its last step
*_temp                                       parts of one that is being written, or that a kill left
"""

from __future__ import annotations

import contextlib
import re

from harness.system import files
from harness.system.paths import Folder

_LIST = "checkpoint"
_LISTED = re.compile(r'^model_checkpoint_path: "(?:[^"\n]*/)?ckpt-(\d+)"', re.MULTILINE)
_STEP = re.compile(r"(?:ckpt|weights)-(\d+)\.index")


def training(folder: Folder, step: int) -> Folder:
    """Path of the training checkpoint of a step, as TensorFlow names it: without an ending."""
    return folder / f"ckpt-{step}"


def weights(folder: Folder, step: int) -> Folder:
    """Path of the weights of a step, as TensorFlow names a checkpoint: without an ending."""
    return folder / f"weights-{step}"


def listed(folder: Folder) -> int | None:
    """Step of the training checkpoint that TensorFlow wrote last; None where its list is lost or not true any more."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        found = _LISTED.search((folder / _LIST).read_text())
        if found and training(folder, int(found[1])).with_suffix(".index").is_file():
            return int(found[1])
    return None


def steps(folder: Folder) -> list[int]:
    """Steps of the training checkpoints in a folder, whole or not, in order."""
    return _steps(folder, "ckpt-*.index")


def furthest(folder: Folder) -> int:
    """The step that training reached, by what is kept of it; 0 where nothing is."""
    last = listed(folder)
    return max([*_steps(folder, "weights-*.index"), last if last is not None else max(steps(folder), default=0)])


def _steps(folder: Folder, pattern: str) -> list[int]:
    return sorted(int(found[1]) for path in folder.glob(pattern) if (found := _STEP.fullmatch(path.name)))


def size(folder: Folder) -> int:
    """Bytes of all files in a folder."""
    total = 0
    for path in folder.glob("*"):
        with contextlib.suppress(FileNotFoundError):  # another attempt's, removed by it
            total += path.stat().st_size
    return total


def drop_training(folder: Folder) -> None:
    """Removes what only going on with the training needs; the weights stay."""
    drop_unfinished(folder)
    # The list first: a kill in between must not leave one that names what is gone.
    for path in (folder / _LIST, *folder.glob("ckpt-*")):
        path.unlink(missing_ok=True)


def drop_unfinished(folder: Folder) -> None:
    """Removes what a kill left of a checkpoint that was being written."""
    for path in folder.glob("*_temp"):
        files.remove_tree(path)


def keep_last(folder: Folder) -> None:
    """Removes all training checkpoints but the one that training would go on from."""
    last = listed(folder)
    for step in steps(folder):
        if last is not None and step != last:
            for path in folder.glob(f"ckpt-{step}.*"):
                path.unlink(missing_ok=True)
