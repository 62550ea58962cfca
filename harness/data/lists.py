"""Reads the text files that list videos: CSV, lines of words, lines of names; errors name the file and line."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.system.errors import HarnessError


class SourceError(HarnessError):
    """A list of videos that cannot be used; the message is one line: file, line, what is wrong, what was expected."""


def names(path: Path) -> tuple[str, ...]:
    """Reads the class names of a file, one a line, in label order.

    Raises:
      SourceError: the file cannot be read, is empty, or has a name twice.
    """
    class_names = tuple(line.strip() for line in _text(path).splitlines() if line.strip())
    if not class_names:
        raise SourceError(f"{path}: is empty; expected one class name a line")
    for name, count in Counter(class_names).items():
        if count > 1:
            raise SourceError(f"{path}: names the class {quoted(name)} {count} times; expected each once")
    return class_names


def rows(path: Path, needed: Sequence[str], optional: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yields the rows of a CSV as (file and line, column -> stripped text); its first line names the columns."""
    lines = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    columns = [name.strip().lower() for name in _next(lines, path) or ()]
    for name in needed:
        if columns.count(name) != 1:
            expected = ", ".join(needed)
            raise SourceError(
                f"{path}: the first line names the columns {quoted(','.join(columns))}; expected {expected}"
            )
    while (row := _next(lines, path)) is not None:
        where = f"{path}: line {lines.line_num}"
        if not any(row):
            continue
        if len(row) != len(columns):
            raise SourceError(f"{where}: has {len(row)} fields; expected {len(columns)}, as in the first line")
        cells = dict(zip(columns, (cell.strip() for cell in row), strict=True))
        yield where, {name: cells.get(name, "") for name in (*needed, *optional)}


def _next(lines: Iterator[list[str]], path: Path) -> list[str] | None:
    try:
        return next(lines, None)
    except csv.Error as error:
        raise SourceError(f"{path}: line {getattr(lines, 'line_num', 0)}: is no CSV ({error})") from None


def words(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Yields the lines of a text file that are not blank, as (file and line, words)."""
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if line.split():
            yield f"{path}: line {number}", line.split()


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror}); expected a text file") from None
    except UnicodeDecodeError as error:
        raise SourceError(f"{path}: byte {error.start} is no UTF-8; expected UTF-8 text") from None


def quoted(text: str) -> str:
    """Returns the text on one line of at most 80 characters."""
    line = repr(text) if text.isprintable() else ascii(text)
    return line if len(line) <= 80 else line[:77] + "..."
