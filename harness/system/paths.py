"""Files and folders in a bucket (`gs://`), or wherever `tf.io.gfile` reaches, used as pathlib's are on a disk.

TensorFlow is loaded when one is first looked at, so never for a local folder. Its file systems must not be used in a
process that was forked from one that used them.
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
# TensorFlow's word for what went wrong -> the system's.
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
    """What is known of a file, as of :class:`os.stat_result`."""

    st_size: int


@dataclasses.dataclass(frozen=True, order=True)
class Address:
    """A file or folder by its address; its methods are those of :class:`pathlib.Path`, and raise the same errors.

    Unlike on a disk, what is written appears whole or not at all; that is all that is promised of two writers.

    Attributes:
      text: "gs://bucket/table2/runs".
    """

    text: str

    def __post_init__(self) -> None:
        scheme, _, rest = self.text.partition(_MARK)
        parts = [part for part in rest.split("/") if part]
        absolute = "/" if rest.startswith("/") else ""  # file:///tmp
        object.__setattr__(self, "text", f"{scheme}{_MARK}{absolute}{'/'.join(parts)}")

    def __str__(self) -> str:
        return self.text

    def __truediv__(self, name: str) -> Address:
        return Address(f"{self.text}/{name}")

    @property
    def name(self) -> str:
        """Its last part."""
        return PurePosixPath(self.text.partition(_MARK)[2]).name

    @property
    def parent(self) -> Address:
        """The folder that it is in."""
        scheme, _, rest = self.text.partition(_MARK)
        head = rest.rpartition("/")[0] if rest.rpartition("/")[0] else rest
        return Address(f"{scheme}{_MARK}{head}")

    def with_suffix(self, suffix: str) -> Address:
        """The same with another ending."""
        return self.parent / PurePosixPath(self.name).with_suffix(suffix).name

    def absolute(self) -> Address:
        """Itself."""
        return self

    def exists(self) -> bool:
        """Whether there is such a file or folder."""
        return bool(self._ask(lambda files: files.exists(self.text)))

    def is_dir(self) -> bool:
        """Whether it is a folder."""
        return bool(self._ask(lambda files: files.isdir(self.text)))

    def is_file(self) -> bool:
        """Whether it is a file."""
        return self.exists() and not self.is_dir()

    def stat(self) -> Status:
        """How large it is."""
        return Status(int(self._ask(lambda files: files.stat(self.text).length)))

    def glob(self, pattern: str) -> list[Address]:
        """What is in the folder under names that fit a pattern, which may go several folders deep; sorted."""
        whole = _IN_PATTERNS.sub(r"\\\1", self.text) + f"/{pattern}"
        try:
            found: Sequence[str] = self._ask(lambda files: files.glob(whole))
        except FileNotFoundError:
            return []
        return sorted(Address(one) for one in found)

    def read_bytes(self) -> bytes:
        """A file's content."""

        def read(files: Any) -> bytes:
            with files.GFile(self.text, "rb") as file:
                return bytes(file.read())

        content: bytes = self._ask(read)
        return content

    def read_text(self, errors: str = "strict") -> str:
        """A file's content."""
        return self.read_bytes().decode(errors=errors)

    def write_bytes(self, content: bytes) -> None:
        """Writes a file, in place of one that is there."""
        self.written(content, self.parent)

    def write_text(self, content: str) -> None:
        """The same with text."""
        self.write_bytes(content.encode())

    def written(self, content: bytes, beside: Address) -> Address:
        """Writes a file; before it is whole it stands in a folder, under another name. Its address."""
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
        """Makes an empty file, where none is there."""
        if not self.exists():
            self.write_bytes(b"")

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        """Makes the folder and those it is in, where they are not there."""
        del parents, exist_ok  # a bucket has no folders
        self._ask(lambda files: files.makedirs(self.text))

    def unlink(self, missing_ok: bool = False) -> None:
        """Removes a file."""
        with contextlib.suppress(*([FileNotFoundError] if missing_ok else [])):
            self._ask(lambda files: files.remove(self.text))

    def rmdir(self) -> None:
        """Removes a folder that is empty."""
        if self.glob("*"):
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), self.text)
        self.rmtree()

    def rmtree(self) -> None:
        """Removes a folder with all that is in it."""
        self._ask(lambda files: files.rmtree(self.text))

    def _ask(self, what: Callable[[Any], Any]) -> Any:
        with self._errors():
            return what(_gfile())

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """TensorFlow's errors as those of a disk, which name the address."""
        try:
            yield
        except Exception as error:
            if not type(error).__module__.startswith("tensorflow."):
                raise
            number = _ERRORS.get(type(error).__name__, errno.EIO)
            said = str(error).partition("\n")[0] or type(error).__name__
            raise OSError(number, os.strerror(number) if number == errno.ENOENT else said, self.text) from error


Folder: TypeAlias = Path | Address


def of(text: str | Path) -> Folder:
    """A local path, or an address where the text is one."""
    return Address(text) if isinstance(text, str) and _MARK in text else Path(text)


def _gfile() -> Any:
    if "tensorflow" not in sys.modules:
        _load_tensorflow()
    import tensorflow as tf

    return tf.io.gfile


def _load_tensorflow() -> None:
    """Loads it for its files alone: on a TPU VM the first process that loads it whole keeps all others from the TPU."""
    before = os.environ.get("TPU_LOAD_LIBRARY")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["TPU_LOAD_LIBRARY"] = "0"
    try:
        importlib.import_module("tensorflow")
    finally:
        del os.environ["TPU_LOAD_LIBRARY"]
        if before is not None:  # of those that are started from here
            os.environ["TPU_LOAD_LIBRARY"] = before
