"""Writes files whole or not at all: a reader, or a kill, never meets half of one."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def replace(path: Path, content: bytes) -> Path:
    """Writes a file, in place of one that is there; the path."""
    temporary = _written_beside(path, content)
    return temporary.replace(path)


def create(path: Path, content: bytes) -> Path:
    """Writes a file that is not there yet; the path.

    Raises:
      FileExistsError: it is there, perhaps written by another process in the meantime; nothing was changed.
    """
    temporary = _written_beside(path, content)
    try:
        # A link, unlike a rename, fails where the file is there already: the second of two writers learns it.
        os.link(temporary, path)
    finally:
        temporary.unlink()
    return path


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
