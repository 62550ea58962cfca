"""The folder that a prepared data set is written to: a local one, or one of a bucket (`gs://`) through TensorFlow.

A file appears whole or not at all: it is written under a temporary name and then renamed.
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
    """A folder, named by its path or address. TensorFlow is loaded only for an address."""

    address: str

    @property
    def local(self) -> bool:
        """Whether it is a folder of this machine."""
        return "://" not in self.address

    def path(self, name: str = "") -> str:
        """Returns the path of a file in it, or that of the folder."""
        address = self.address.rstrip("/") or "/"
        return f"{address}/{name}" if name else address

    def make(self, *folders: str) -> None:
        """Creates the folder, the named folders in it, and the one for files that are being written."""
        with self._place_errors():
            for folder in (PARTS, *folders):
                if self.local:
                    Path(self.path(folder)).mkdir(parents=True, exist_ok=True)
                else:
                    self._gfile().makedirs(self.path(folder))

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes from writing into the folder meanwhile; does nothing for a bucket, which has no locks.

        Raises:
          PlaceError: another process is writing into it.
        """
        if not self.local:
            yield
            return
        with self._place_errors():
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
        """Returns the sorted names of what is in it; none if it does not exist."""
        with self._place_errors():
            if self.local:
                folder = Path(self.address)
                return sorted(child.name for child in folder.iterdir()) if folder.exists() else []
            gfile = self._gfile()
            return sorted(name.rstrip("/") for name in gfile.listdir(self.path())) if gfile.isdir(self.path()) else []

    def size(self, name: str) -> int | None:
        """Returns the size of a file in bytes; None if there is no such file."""
        with self._place_errors():
            if self.local:
                path = Path(self.path(name))
                return path.stat().st_size if path.is_file() else None
            gfile = self._gfile()
            return gfile.stat(self.path(name)).length if gfile.exists(self.path(name)) else None

    def read(self, name: str) -> bytes | None:
        """Returns the content of a file; None if there is no such file."""
        if self.size(name) is None:
            return None
        with self._place_errors(), self._open(self.path(name), "rb") as file:
            return bytes(file.read())

    def remove(self, name: str) -> None:
        """Removes a file if it exists."""
        with self._place_errors():
            if self.size(name) is not None:
                Path(self.path(name)).unlink() if self.local else self._gfile().remove(self.path(name))

    def sweep(self) -> None:
        """Removes the half-written files that killed writers left."""
        for name in Destination(self.path(PARTS)).names():
            self.remove(f"{PARTS}/{name}")

    def part(self) -> str:
        """Returns a new temporary path for a file that is then named by :meth:`publish`."""
        return self.path(f"{PARTS}/{secrets.token_hex(8)}")

    def publish(self, part: str, name: str) -> None:
        """Gives a written file its name, replacing a file of that name; a local file is flushed to the disk first."""
        with self._place_errors():
            if not self.local:
                self._gfile().rename(part, self.path(name), overwrite=True)
                return
            with Path(part).open("rb+") as file:
                os.fsync(file.fileno())
            Path(part).replace(self.path(name))

    @contextlib.contextmanager
    def writer(self, name: str) -> Iterator[HashedWriter]:
        """Opens a file for writing, which appears under its name once it is complete."""
        part = self.part()
        try:
            with self._place_errors(), self._open(part, "wb") as file:
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
        """Removes a file at a path from :meth:`part`, if it exists."""
        with contextlib.suppress(Exception):
            self.remove(f"{PARTS}/{PurePosixPath(part).name}")

    def _open(self, path: str, mode: str) -> IO[bytes]:
        return Path(path).open(mode) if self.local else self._gfile().GFile(path, mode)

    def _gfile(self) -> Any:
        import tensorflow as tf

        return tf.io.gfile

    @contextlib.contextmanager
    def _place_errors(self) -> Iterator[None]:
        """Turns an error of the file system, TensorFlow's too, into a PlaceError of one line that names the file."""
        try:
            yield
        except OSError as error:
            raise PlaceError(f"{error.filename or self.address}: {error.strerror or error}") from error
        except Exception as error:
            if not type(error).__module__.startswith("tensorflow."):
                raise
            raise PlaceError(f"{self.address}: {str(error).splitlines()[0]}") from error


class HashedWriter:
    """A file that is being written; `sha256` is the hash of its content so far."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._hash = file, hashlib.sha256()

    def write(self, content: bytes) -> None:
        """Appends the content."""
        self._file.write(content)
        self._hash.update(content)

    @property
    def sha256(self) -> str:
        """64 hexadecimal digits."""
        return self._hash.hexdigest()
