"""Where a prepared data set is put: a local folder, or one of a bucket (`gs://`), by way of TensorFlow's file systems.

A file appears whole or not at all: it is written under another name, and then renamed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from harness.system.errors import HarnessError

PARTS = ".parts"


class PlaceError(HarnessError):
    """A folder that cannot be written or read; the message is one line."""


@dataclass(frozen=True)
class Destination:
    """A folder, by its path or address. TensorFlow is loaded for an address only."""

    address: str

    @property
    def local(self) -> bool:
        """Whether it is a folder of this machine."""
        return "://" not in self.address

    def path(self, name: str = "") -> str:
        """Path of a file in it."""
        address = self.address.rstrip("/") or "/"
        return f"{address}/{name}" if name else address

    def make(self, *folders: str) -> None:
        """Makes the folder, folders in it, and the one for files that are being written."""
        with self._said():
            for folder in (PARTS, *folders):
                if self.local:
                    Path(self.path(folder)).mkdir(parents=True, exist_ok=True)
                else:
                    self._gfile().makedirs(self.path(folder))

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes from writing into it meanwhile; a bucket knows no locks.

        Raises:
          PlaceError: another process does.
        """
        if not self.local:
            yield
            return
        with self._said():
            Path(self.path(".lock")).touch()
        with Path(self.path(".lock")).open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise PlaceError(f"{self.address}: another process is preparing it; wait for it, or stop it") from None
            except OSError:  # a file system without locks
                warnings.warn(f"{self.address}: cannot be locked; start one process only", stacklevel=2)
            yield

    def names(self) -> list[str]:
        """Names of what is in it, sorted; none where it does not exist."""
        with self._said():
            if self.local:
                folder = Path(self.address)
                return sorted(child.name for child in folder.iterdir()) if folder.exists() else []
            gfile = self._gfile()
            return sorted(name.rstrip("/") for name in gfile.listdir(self.path())) if gfile.isdir(self.path()) else []

    def size(self, name: str) -> int | None:
        """Size of a file in bytes; None where there is none."""
        with self._said():
            if self.local:
                path = Path(self.path(name))
                return path.stat().st_size if path.is_file() else None
            gfile = self._gfile()
            return gfile.stat(self.path(name)).length if gfile.exists(self.path(name)) else None

    def read(self, name: str) -> bytes | None:
        """A file's content; None where there is none."""
        if self.size(name) is None:
            return None
        with self._said(), self._open(self.path(name), "rb") as file:
            return bytes(file.read())

    def remove(self, name: str) -> None:
        """Removes a file, if it is there."""
        with self._said():
            if self.size(name) is not None:
                Path(self.path(name)).unlink() if self.local else self._gfile().remove(self.path(name))

    def sweep(self) -> None:
        """Removes what killed writers left half-written."""
        for name in Destination(self.path(PARTS)).names():
            self.remove(f"{PARTS}/{name}")

    def part(self) -> str:
        """Path under which to write a file that :meth:`publish` gives its name."""
        return self.path(f"{PARTS}/{secrets.token_hex(8)}")

    def publish(self, part: str, name: str) -> None:
        """Gives a written file its name, in place of one that has it; a disk holds it before."""
        with self._said():
            if not self.local:
                self._gfile().rename(part, self.path(name), overwrite=True)
                return
            with Path(part).open("rb+") as file:
                os.fsync(file.fileno())
            Path(part).replace(self.path(name))

    @contextlib.contextmanager
    def writer(self, name: str) -> Iterator[HashedWriter]:
        """Writes a file, which appears when all of it is there."""
        part = self.part()
        try:
            with self._said(), self._open(part, "wb") as file:
                yield HashedWriter(file)
            self.publish(part, name)
        except BaseException:
            self.discard(part)
            raise

    def write(self, name: str, content: bytes) -> None:
        """Writes a file."""
        with self.writer(name) as file:
            file.write(content)

    def discard(self, part: str) -> None:
        """Removes what :meth:`part` named, if it is there."""
        with contextlib.suppress(Exception):
            self.remove(f"{PARTS}/{PurePosixPath(part).name}")

    def _open(self, path: str, mode: str) -> IO[bytes]:
        return Path(path).open(mode) if self.local else self._gfile().GFile(path, mode)

    def _gfile(self) -> Any:
        import tensorflow as tf

        return tf.io.gfile

    @contextlib.contextmanager
    def _said(self) -> Iterator[None]:
        """Errors of file systems, TensorFlow's as well, in one line that says where."""
        try:
            yield
        except OSError as error:
            raise PlaceError(f"{error.filename or self.address}: {error.strerror or error}") from error
        except Exception as error:
            if not type(error).__module__.startswith("tensorflow."):
                raise
            raise PlaceError(f"{self.address}: {str(error).splitlines()[0]}") from error


class HashedWriter:
    """A file being written; `sha256` is the hash of what was."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._hash = file, hashlib.sha256()

    def write(self, content: bytes) -> None:
        """Appends."""
        self._file.write(content)
        self._hash.update(content)

    @property
    def sha256(self) -> str:
        """64 hexadecimal digits."""
        return self._hash.hexdigest()
