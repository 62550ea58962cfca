"""What is kept of a run while it has no record: the log of its attempts, why the last one failed, and its state."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import operator
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TextIO

from harness import files

Event = Mapping[str, Any]

_LOG = "curve.jsonl"
_FAILURE = "failure.json"
_KEPT = ("attempt", "train", "validation")


class Interrupted(Exception):  # noqa: N818 - no error: the run was asked to stop, and goes on later
    """A run stopped because it was asked to, its checkpoint saved; the message says why, in words."""


class RunError(ValueError):
    """A run that cannot go on; the message is one line: what is wrong, where, what was expected."""


@dataclasses.dataclass(frozen=True)
class State:
    """Where a run stands.

    Attributes:
      name: "waiting" (never begun), "running" (a process is at it now), "interrupted", "failed" or "done".
      step: the last optimizer step that was reported, 0 where there is none.
      error: why it failed, one line; empty otherwise.
    """

    name: Literal["waiting", "running", "interrupted", "failed", "done"]
    step: int = 0
    error: str = ""

    def __str__(self) -> str:
        return (
            f"{self.name} at step {self.step}" if self.step and self.name in ("running", "interrupted") else self.name
        )


@dataclasses.dataclass(frozen=True)
class History:
    """What the log of a run's attempts comes to.

    Attributes:
      curve: the points, each step once: the later attempt's.
      began: steps at which attempts began.
      seconds: the time of them all.
    """

    curve: tuple[dict[str, Any], ...]
    began: tuple[int, ...]
    seconds: float

    @property
    def resumed_at(self) -> list[int]:
        """Steps at which an attempt went on from a checkpoint."""
        return [step for step in self.began if step]


@dataclasses.dataclass(frozen=True)
class Attempts:
    """The attempts at one run, in its folder.

    Attributes:
      folder: `results/runs/<id>`.
    """

    folder: Path

    @contextlib.contextmanager
    def logged(self, report: Callable[[Event], None]) -> Iterator[Callable[[Event], None]]:
        """A report that also keeps the curve's points, so that an interrupted run loses none.

        While it is open, the log is locked: that is how another process knows that the run is being trained. The system
        lets go when the process ends, however it ends.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._mine() as log:
            (self.folder / _FAILURE).unlink(missing_ok=True)
            log.write("\n")  # a line that a kill cut short must not swallow the first of this attempt

            def reported(event: Event) -> None:
                if event["event"] in _KEPT:
                    log.write(json.dumps(dict(event)) + "\n")
                    log.flush()
                report(event)

            yield reported

    def _mine(self) -> TextIO:
        """The log, locked; one that another process removed while this one waited for it is opened anew."""
        while True:
            log = (self.folder / _LOG).open("a")
            fcntl.flock(log, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(log.fileno()), (self.folder / _LOG).stat()):
                    return log
            log.close()

    def history(self) -> History:
        """What the log comes to; empty where there is none."""
        with contextlib.suppress(FileNotFoundError):
            return history((self.folder / _LOG).read_text(errors="replace").splitlines())
        return history(())

    def state(self) -> State:
        """Where the run stands, its record aside."""
        last = max((point["step"] for point in self.history().curve), default=0)
        try:
            if self._locked():
                return State("running", last)
        except FileNotFoundError:
            return self._failed(0) or State("waiting")
        return self._failed(last) or State("interrupted", last)

    def fail(self, error: str, traceback: str) -> None:
        """Keeps why an attempt failed; the next attempt forgets it."""
        content = {"error": error, "traceback": traceback}
        files.replace(self.folder / _FAILURE, json.dumps(content, indent=1).encode())

    @property
    def failure(self) -> Path:
        """File of the last failure with its traceback."""
        return self.folder / _FAILURE

    def begin_anew(self) -> None:
        """Empties the log of a run that is wanted anew."""
        (self.folder / _LOG).write_text("")

    def forget(self) -> None:
        """Removes the log, once its content stands in a record."""
        (self.folder / _LOG).unlink(missing_ok=True)

    def _failed(self, step: int) -> State | None:
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):
            return State("failed", step, str(json.loads(self.failure.read_text())["error"]))
        return None

    def _locked(self) -> bool:
        with (self.folder / _LOG).open() as log:
            try:
                fcntl.flock(log, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False


def history(lines: Iterable[str]) -> History:
    """What the lines of a log come to: an event each; the last line of an attempt that was killed may be cut short."""
    points: dict[tuple[int, str], dict[str, Any]] = {}
    began: list[int] = []
    seconds: list[float] = []
    for line in lines:
        with contextlib.suppress(ValueError, KeyError, TypeError, IndexError):
            event = json.loads(line)
            step = operator.index(event["step"])
            if event["event"] == "attempt":
                began.append(step)
                seconds.append(0.0)
                continue
            point = {name: value for name, value in event.items() if name not in ("event", "done", "total")}
            seconds[-1] = 0.0 + event["seconds"]
            points[step, str(event["split"])] = point
    return History(tuple(points[key] for key in sorted(points)), tuple(began), sum(seconds))
