"""Writes a file that may be written once: a disk keeps a second writer out; in a bucket, which cannot, it is found.

There each writer first writes a draft into the folder of its attempt, then the file, unless that is there, and then
looks for the drafts of others: of two writers the later one meets the other's draft. What a writer left that was
killed between its draft and the file is removed by the attempts after it.
"""

from __future__ import annotations

import contextlib

from harness.store.attempts import FOLDER, Attempts
from harness.system import files
from harness.system.paths import Address, Folder


class SecondWriterError(Exception):
    """Another attempt wrote the file at the same time.

    Attributes:
      other: number of that attempt; None where it is not known.
    """

    def __init__(self, other: int | None) -> None:
        super().__init__(f"written by attempt {other} too")
        self.other = other


def write(run: Folder, name: str, content: bytes, attempt: int | None) -> Folder:
    """Writes a file of a run's folder; its path.

    Args:
      run: the run's folder.
      name: of the file.
      content: of the file.
      attempt: number of the attempt that writes it, None for what no attempt wrote.

    Raises:
      FileExistsError: it is there; nothing was changed.
      SecondWriterError: it was written by another attempt at the same time. What stands there is whole, and one of the
        two, whose files are there.
    """
    path = run / name
    if not isinstance(path, Address) or attempt is None:
        return files.create(path, content)
    if path.exists():
        raise FileExistsError(str(path))
    attempts = Attempts(run)
    for earlier in attempts.before(attempt):
        if earlier.number >= 0:
            (earlier.folder / name).unlink(missing_ok=True)
    draft = path.parent / FOLDER / str(attempt) / name
    files.replace(draft, content)
    if path.exists():
        draft.unlink(missing_ok=True)
        raise FileExistsError(str(path))
    path.written(content, draft.parent)
    _look_for_others(path, content, attempt, attempts)
    return path


def _look_for_others(path: Address, content: bytes, attempt: int, attempts: Attempts) -> None:
    """Looks whether another attempt wrote the file too.

    Raises:
      SecondWriterError: one did.
    """
    drafts: dict[int, bytes] = {}
    for one in attempts.all():
        if one.number >= 0:
            with contextlib.suppress(FileNotFoundError):
                drafts[one.number] = (one.folder / path.name).read_bytes()
    others = [number for number, other in drafts.items() if number != attempt and other != content]
    if others and attempt not in drafts and max(others) > attempt:
        # A later attempt has taken this one for dead, and what this one left with it: that one's file stands.
        path.written(drafts[max(others)], path.parent)
    if others:
        raise SecondWriterError(max(others))
    if path.read_bytes() != content:
        raise SecondWriterError(None)
