"""Paths of files and folders in a bucket (`gs://`), or wherever `tf.io.gfile` reaches, with the methods of pathlib.

TensorFlow is loaded at the first access to such a path, so never for a local folder. Its file systems must not be used
in a process that was forked from one that has used them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import importlib
import os
import re
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

_MARK = "://"
_IN_PATTERNS = re.compile(r"([*?\[\\])")
# Name of TensorFlow's error -> the system's error number.
_ERRORS = {
    "NotFoundError": errno.ENOENT,
    "AlreadyExistsError": errno.EEXIST,
    "PermissionDeniedError": errno.EACCES,
    "UnauthenticatedError": errno.EACCES,
    "ResourceExhaustedError": errno.ENOSPC,
    "UnimplementedError": errno.EOPNOTSUPP,
}


@dataclasses.dataclass(frozen=True)
class Status:
    """The status of a file, with the names of :class:`os.stat_result`; `st_size` in bytes."""

    st_size: int


@dataclasses.dataclass(frozen=True, order=True)
class Address:
    """The address of a file or folder; it has the methods of :class:`pathlib.Path`, which raise the same errors.

    Unlike on a disk, a file appears whole or not at all; with two writers, nothing more is guaranteed.

    Attributes:
      text: the address, such as "gs://bucket/table2/runs".
    """

    text: str

    def __post_init__(self) -> None:
        scheme, _, rest = self.text.partition(_MARK)
        parts = [part for part in rest.split("/") if part]
        absolute = "/" if rest.startswith("/") else ""  # as in file:///tmp
        object.__setattr__(self, "text", f"{scheme}{_MARK}{absolute}{'/'.join(parts)}")

    def __str__(self) -> str:
        return self.text

    def __truediv__(self, name: str) -> Address:
        return Address(f"{self.text}/{name}")

    @property
    def name(self) -> str:
        """Last part of the address."""
        return PurePosixPath(self.text.partition(_MARK)[2]).name

    @property
    def parent(self) -> Address:
        """Folder that contains it."""
        scheme, _, rest = self.text.partition(_MARK)
        head = rest.rpartition("/")[0] if rest.rpartition("/")[0] else rest
        return Address(f"{scheme}{_MARK}{head}")

    def with_suffix(self, suffix: str) -> Address:
        """Returns the address with another suffix."""
        return self.parent / PurePosixPath(self.name).with_suffix(suffix).name

    def absolute(self) -> Address:
        """Returns the address itself, which is always absolute."""
        return self

    def exists(self) -> bool:
        """Returns whether the file or folder exists."""
        return bool(self._ask(lambda files: files.exists(self.text)))

    def is_dir(self) -> bool:
        """Returns whether it is a folder."""
        return bool(self._ask(lambda files: files.isdir(self.text)))

    def is_file(self) -> bool:
        """Returns whether it is a file."""
        return self.exists() and not self.is_dir()

    def stat(self) -> Status:
        """Returns the status of the file: its size."""
        return Status(int(self._ask(lambda files: files.stat(self.text).length)))

    def glob(self, pattern: str) -> list[Address]:
        """Returns the sorted addresses in the folder that match a pattern, which may span several levels of folders."""
        whole = _IN_PATTERNS.sub(r"\\\1", self.text) + f"/{pattern}"
        try:
            matches: Sequence[str] = self._ask(lambda files: files.glob(whole))
        except FileNotFoundError:
            return []
        return sorted(Address(match) for match in matches)

    def read_bytes(self) -> bytes:
        """Returns the file's content."""

        def read(files: Any) -> bytes:
            with files.GFile(self.text, "rb") as file:
                return bytes(file.read())

        content: bytes = self._ask(read)
        return content

    def read_text(self, errors: str = "strict") -> str:
        """Returns the file's content as text."""
        return self.read_bytes().decode(errors=errors)

    def write_bytes(self, content: bytes) -> None:
        """Writes the file, replacing any that exists."""
        self.written(content, self.parent)

    def write_text(self, content: str) -> None:
        """Writes the file with text, replacing any that exists."""
        self.write_bytes(content.encode())

    def written(self, content: bytes, beside: Address) -> Address:
        """Writes the file, under another name in the folder `beside` until it is whole, and returns its address."""
        part = beside / f".{secrets.token_hex(8)}.part"

        def write(files: Any) -> None:
            for folder in {self.parent.text, beside.text}:
                files.makedirs(folder)
            with files.GFile(part.text, "wb") as file:
                file.write(content)
            files.rename(part.text, self.text, overwrite=True)

        try:
            self._ask(write)
        except BaseException:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            raise
        return self

    def touch(self) -> None:
        """Creates an empty file if the file does not exist."""
        if not self.exists():
            self.write_bytes(b"")

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        """Creates the folder and its parents if they do not exist; the arguments, as of pathlib, have no effect."""
        del parents, exist_ok  # a bucket has no folders
        self._ask(lambda files: files.makedirs(self.text))

    def unlink(self, missing_ok: bool = False) -> None:
        """Removes the file."""
        with contextlib.suppress(*([FileNotFoundError] if missing_ok else [])):
            self._ask(lambda files: files.remove(self.text))

    def rmdir(self) -> None:
        """Removes the folder, which must be empty."""
        if self.glob("*"):
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), self.text)
        self.rmtree()

    def rmtree(self) -> None:
        """Removes the folder with everything in it."""
        self._ask(lambda files: files.rmtree(self.text))

    def _ask(self, what: Callable[[Any], Any]) -> Any:
        with self._errors():
            return what(_gfile())

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Turns TensorFlow's errors into the errors that a disk gives, naming the address."""
        try:
            yield
        except Exception as error:
            if not type(error).__module__.startswith("tensorflow."):
                raise
            number = _ERRORS.get(type(error).__name__, errno.EIO)
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise OSError(number, os.strerror(number) if number == errno.ENOENT else reason, self.text) from error


Folder: TypeAlias = Path | Address


def path_of(text: str | Path) -> Folder:
    """Returns the address in a text, or the local path if it is not an address."""
    return Address(text) if isinstance(text, str) and _MARK in text else Path(text)


def _gfile() -> Any:
    if "tensorflow" not in sys.modules:
        _load_tensorflow()
    import tensorflow as tf

    return tf.io.gfile


def _load_tensorflow() -> None:
    """Loads TensorFlow without its TPU library.

    Only the file systems are needed, and on a TPU VM the first process that loads the library keeps all others from the
    TPU.
    """
    before = os.environ.get("TPU_LOAD_LIBRARY")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["TPU_LOAD_LIBRARY"] = "0"
    try:
        importlib.import_module("tensorflow")
    finally:
        del os.environ["TPU_LOAD_LIBRARY"]
        if before is not None:  # processes that are started from here inherit it
            os.environ["TPU_LOAD_LIBRARY"] = before
