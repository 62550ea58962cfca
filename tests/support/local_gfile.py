"""What :mod:`harness.system.paths` uses of `tf.io.gfile`, for `file:///` addresses and without TensorFlow.

Answers and errors are TensorFlow's, as tests/system/test_paths.py asks of both: its kinds of error by their names, its
hidden files among the others. Where the disk is full, it says what TensorFlow says of a bucket: what is sent there is
first written to this machine's disk.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

_SCHEME = "file://"


class OpError(Exception):
    """TensorFlow's, of which all others are."""

    __module__ = "tensorflow.python.framework.errors_impl"


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# The system's word for what went wrong -> TensorFlow's; all else is "UnknownError".
_NAMES = {
    errno.ENOENT: "NotFoundError",
    errno.EEXIST: "AlreadyExistsError",
    errno.EACCES: "PermissionDeniedError",
    errno.EISDIR: "FailedPreconditionError",
    errno.ENOTDIR: "FailedPreconditionError",
    errno.ENOTEMPTY: "FailedPreconditionError",
}
_KINDS = {
    name: type(name, (OpError,), {"__module__": OpError.__module__})
    for name in {*_NAMES.values(), "InternalError", "UnknownError", "UnimplementedError"}
}
_MAGIC = re.compile(r"(?<!\\)[*?\[]")
# What stands for itself, or for any characters of a name.
_PARTS = re.compile(r"\\(.)|(\*)|(\?)|(.)")


@contextlib.contextmanager
def _errors(address: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise _KINDS["InternalError"]("Could not append to the internal temporary file.") from None
        kind = _KINDS[_NAMES.get(error.errno or 0, "UnknownError")]
        raise kind(f"{address}; {error.strerror or error}") from error


def _local(address: str) -> Path:
    if not address.startswith(_SCHEME):
        scheme = address.partition(":")[0]
        raise _KINDS["UnimplementedError"](f"File system scheme '{scheme}' not implemented (file: '{address}')")
    return Path(address.removeprefix(_SCHEME))


class GFile:
    """A file that is open, "rb" or "wb"."""

    def __init__(self, address: str, mode: str) -> None:
        self._address = address
        with _errors(address):
            self._file: Any = _local(address).open(mode, buffering=0)

    def __enter__(self) -> GFile:
        return self

    def __exit__(self, *_: object) -> None:
        with _errors(self._address):
            self._file.close()

    def read(self) -> bytes:
        """All of it."""
        with _errors(self._address):
            return bytes(self._file.read())

    def write(self, content: bytes) -> None:
        """Adds to it."""
        with _errors(self._address):
            left = memoryview(content)
            while left:
                left = left[self._file.write(left) :]


def exists(address: str) -> bool:
    """Whether there is such a file or folder."""
    return _local(address).exists()


def isdir(address: str) -> bool:
    """Whether it is a folder."""
    return _local(address).is_dir()


def stat(address: str) -> SimpleNamespace:
    """Its "length" in bytes."""
    with _errors(address):
        return SimpleNamespace(length=_local(address).stat().st_size)


def glob(pattern: str) -> list[str]:
    """Addresses that fit a pattern; a backslash takes from a character what it means in one."""
    first, *names = str(_local(pattern)).strip("/").split("/")
    found = _matching([Path("/")], first)
    for name in names:
        found = _matching(found, name)
    return [f"{_SCHEME}{path}" for path in found]


def _matching(folders: Sequence[Path], pattern: str) -> list[Path]:
    """What in some folders has a name that fits; a folder that another process removes meanwhile has nothing."""
    if not _MAGIC.search(pattern):
        name = re.sub(r"\\(.)", r"\1", pattern)
        return [folder / name for folder in folders if (folder / name).exists()]
    fits = re.compile(_PARTS.sub(_as_expression, pattern))
    found = []
    for folder in folders:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            found += [folder / name for name in os.listdir(folder) if fits.fullmatch(name)]  # noqa: PTH208 - names
    return found


def _as_expression(part: re.Match[str]) -> str:
    literal = part[1] or part[4]
    return re.escape(literal) if literal else ".*" if part[2] else "."


def makedirs(address: str) -> None:
    """Makes a folder and those it is in, where they are not there."""
    with _errors(address):
        _local(address).mkdir(parents=True, exist_ok=True)


def remove(address: str) -> None:
    """Removes a file."""
    with _errors(address):
        _local(address).unlink()


def rename(address: str, other: str, overwrite: bool = False) -> None:
    """Gives a file another name, in place of one that has it."""
    with _errors(other):
        if not overwrite and _local(other).exists():
            raise FileExistsError(errno.EEXIST, "file already exists")
        _local(address).replace(_local(other))


def rmtree(address: str) -> None:
    """Removes a folder with all that is in it; what another process removes meanwhile is no error."""
    with _errors(address):
        _local(address).stat()
        shutil.rmtree(_local(address), ignore_errors=True)
        if _local(address).exists():
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))
