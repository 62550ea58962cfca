"""Writes files whole or not at all: a reader, or a kill, never meets half of one."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from pathlib import Path
from typing import TypeVar

from harness.system.paths import Address, Folder

Some = TypeVar("Some", bound=Folder)


def replace(path: Some, content: bytes) -> Some:
    """Writes a file, in place of one that is there; the path."""
    if isinstance(path, Address):
        path.written(content, path.parent)
    else:
        _written_beside(path, content).replace(path)
    return path


def create(path: Some, content: bytes) -> Some:
    """Writes a file that is not there yet; the path.

    A bucket lets two that write it at the same time both do so: see :mod:`harness.store.write_once`.

    Raises:
      FileExistsError: it is there, perhaps written by another process in the meantime; nothing was changed.
    """
    if isinstance(path, Address):
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        return replace(path, content)
    temporary = _written_beside(path, content)
    try:
        # A link, unlike a rename, fails where the file is there already: the second of two writers learns it.
        os.link(temporary, path)
    finally:
        temporary.unlink()
    return path


def remove_tree(folder: Folder) -> None:
    """Removes a folder with all that is in it, as far as that can be done."""
    if isinstance(folder, Path):
        shutil.rmtree(folder, ignore_errors=True)
        return
    with contextlib.suppress(OSError):
        folder.rmtree()


class Lines:
    """A text file that lines are added to; of one in a bucket, where nothing can be added, a copy is kept here.

    Args:
      path: the file; what it holds already stays.
    """

    def __init__(self, path: Folder) -> None:
        self._path = path
        if isinstance(path, Path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a")
            return
        self._file = tempfile.TemporaryFile("w+")  # noqa: SIM115
        with contextlib.suppress(FileNotFoundError):
            self._file.write(path.read_text(errors="replace"))

    def write(self, text: str) -> None:
        """Adds to it."""
        self._file.write(text)

    def flush(self) -> None:
        """Hands what was written to the disk."""
        self._file.flush()

    def publish(self) -> None:
        """Copies it to the bucket where it belongs to one."""
        if isinstance(self._path, Address):
            self._file.flush()
            self._file.seek(0)
            replace(self._path, self._file.read().encode())

    def close(self) -> None:
        """Ends writing."""
        self._file.close()


def _written_beside(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("wb", dir=path.parent, prefix=".", suffix=".part", delete=False) as file:
        temporary = Path(file.name)
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            temporary.chmod(0o644)
        except BaseException as error:
            temporary.unlink()
            if isinstance(error, OSError):
                error.filename = str(path)  # a full disk does not say which file it was
            raise
    return temporary
