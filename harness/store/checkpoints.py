"""Checkpoints in a folder, found by the names of their files, without loading TensorFlow.

ckpt-<step>.index, ckpt-<step>.data-*        training checkpoints, which training resumes from
checkpoint                                   TensorFlow's list of them, updated after each one is complete
weights-<step>.index, weights-<step>.data-*  weights of the network after its last training step
*_temp                                       parts of a checkpoint that is being written, or was when a kill came
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
    """Returns the path of the training checkpoint of a step, without a suffix, as TensorFlow wants it."""
    return folder / f"ckpt-{step}"


def weights(folder: Folder, step: int) -> Folder:
    """Returns the path of the weights of a step, without a suffix, as TensorFlow wants it."""
    return folder / f"weights-{step}"


def listed(folder: Folder) -> int | None:
    """Returns the step of the last training checkpoint, or None if TensorFlow's list of them is missing or outdated."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        match = _LISTED.search((folder / _LIST).read_text())
        if match and training(folder, int(match[1])).with_suffix(".index").is_file():
            return int(match[1])
    return None


def steps(folder: Folder) -> list[int]:
    """Returns the steps of the training checkpoints in a folder, complete or not, in ascending order."""
    return _steps(folder, "ckpt-*.index")


def furthest(folder: Folder) -> int:
    """Returns the furthest step among the checkpoints and weights in a folder; 0 if there are none."""
    last = listed(folder)
    return max([*_steps(folder, "weights-*.index"), last if last is not None else max(steps(folder), default=0)])


def _steps(folder: Folder, pattern: str) -> list[int]:
    return sorted(int(match[1]) for path in folder.glob(pattern) if (match := _STEP.fullmatch(path.name)))


def size(folder: Folder) -> int:
    """Returns the size of all files in a folder, in bytes."""
    total = 0
    for path in folder.glob("*"):
        with contextlib.suppress(FileNotFoundError):  # removed in the meantime by the attempt it belongs to
            total += path.stat().st_size
    return total


def drop_training(folder: Folder) -> None:
    """Removes the training checkpoints; the weights stay."""
    drop_unfinished(folder)
    # The list goes first, so that a kill in between cannot leave a list that names removed files.
    for path in (folder / _LIST, *folder.glob("ckpt-*")):
        path.unlink(missing_ok=True)


def drop_unfinished(folder: Folder) -> None:
    """Removes the parts of a checkpoint whose writing was cut short by a kill."""
    for path in folder.glob("*_temp"):
        files.remove_tree(path)


def keep_last(folder: Folder) -> None:
    """Removes all training checkpoints except the one that training would resume from."""
    last = listed(folder)
    for step in steps(folder):
        if last is not None and step != last:
            for path in folder.glob(f"ckpt-{step}.*"):
                path.unlink(missing_ok=True)
