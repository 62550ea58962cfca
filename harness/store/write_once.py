"""Writes a file that may be written only once: a disk refuses a second writer, in a bucket it is detected.

In a bucket, each writer first writes a draft into the folder of its attempt, then the file itself if it does not exist
yet, and then looks for drafts of other attempts: of two writers, the later one finds the other's draft. If a writer
was killed between its draft and the file, the attempts after it remove the draft.
"""

from __future__ import annotations

import contextlib

from harness.store.attempts import FOLDER, Attempts
from harness.system import files
from harness.system.paths import Address, Folder


class SecondWriterError(Exception):
    """Raised when another attempt wrote the file at the same time.

    Attributes:
      other: number of that attempt; None if it is not known.
    """

    def __init__(self, other: int | None) -> None:
        super().__init__(f"written by attempt {other} too")
        self.other = other


def write_once(run: Folder, name: str, content: bytes, attempt: int | None) -> Folder:
    """Writes a file into a run's folder, and returns its path.

    Args:
      run: the run's folder.
      name: name of the file.
      content: content of the file.
      attempt: number of the attempt that writes it; None if no attempt does.

    Raises:
      FileExistsError: the file exists already; nothing was changed.
      SecondWriterError: another attempt wrote it at the same time. The file is complete, is the work of one of the two
        attempts, and the files that it names exist.
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
    """Checks whether another attempt wrote the file too.

    Raises:
      SecondWriterError: another attempt did.
    """
    drafts: dict[int, bytes] = {}
    for writer in attempts.all():
        if writer.number >= 0:
            with contextlib.suppress(FileNotFoundError):
                drafts[writer.number] = (writer.folder / path.name).read_bytes()
    others = [number for number, other in drafts.items() if number != attempt and other != content]
    if others and attempt not in drafts and max(others) > attempt:
        # The later attempt took this one for dead and removed its draft: the later attempt's file has to stand.
        path.written(drafts[max(others)], path.parent)
    if others:
        raise SecondWriterError(max(others))
    if path.read_bytes() != content:
        raise SecondWriterError(None)
