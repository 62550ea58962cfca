"""Writes files whole or not at all, so that neither a reader nor a kill leaves anyone with half a file."""

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
    """Writes a file, replacing any that exists, and returns the path."""
    if isinstance(path, Address):
        path.written(content, path.parent)
    else:
        _written_beside(path, content).replace(path)
    return path


def create(path: Some, content: bytes) -> Some:
    """Writes a file that does not exist yet, and returns the path.

    In a bucket, two processes that write the file at the same time both succeed: see :mod:`harness.store.write_once`.

    Raises:
      FileExistsError: the file exists, perhaps written by another process in the meantime; nothing was changed.
    """
    if isinstance(path, Address):
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        return replace(path, content)
    temporary = _written_beside(path, content)
    try:
        # A link, unlike a rename, fails if the file exists, so the second of two writers learns of the first.
        os.link(temporary, path)
    finally:
        temporary.unlink()
    return path


def remove_tree(folder: Folder) -> None:
    """Removes a folder with everything in it, as far as possible, and ignores errors."""
    if isinstance(folder, Path):
        shutil.rmtree(folder, ignore_errors=True)
        return
    with contextlib.suppress(OSError):
        folder.rmtree()


class AppendedFile:
    """A text file to which lines are appended; for a file in a bucket, which cannot be appended to, via a local copy.

    Args:
      path: the file; its present content stays.
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
        """Appends text."""
        self._file.write(text)

    def flush(self) -> None:
        """Flushes the text to the disk."""
        self._file.flush()

    def publish(self) -> None:
        """Copies the local copy to the bucket, if the file is in one."""
        if isinstance(self._path, Address):
            self._file.flush()
            self._file.seek(0)
            replace(self._path, self._file.read().encode())

    def close(self) -> None:
        """Closes the file."""
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
                error.filename = str(path)  # the error of a full disk does not name the file
            raise
    return temporary
