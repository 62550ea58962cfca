"""The attempts at a run, each in a folder of its own: its log, why it failed, its checkpoints; and what they come to.

attempts/<number>/checkpoints/                    while it trains its last checkpoints, then its weights
attempts/<number>/curve.jsonl                     the points of its curve, while the run has no record
attempts/<number>/failure.json                    why it failed
attempts/<number>/log.txt                         what the libraries said; log-<index>.txt of a further worker
attempts/<number>/predictions-<protocol>.parquet  per-video predictions

An attempt writes into its own folder alone. Runs of before attempts had folders keep the same files in the run's own
folder: it is read as an attempt before all others.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any, Literal

from harness.store import checkpoints
from harness.system import files
from harness.system.errors import HarnessError
from harness.system.paths import Folder

Event = Mapping[str, Any]

FOLDER = "attempts"
_LOG = "curve.jsonl"
_FAILURE = "failure.json"
_CHECKPOINTS = "checkpoints"
_KEPT = ("attempt", "train", "validation")
# Number of what was written before attempts had folders.
_OLD = -1


class Interrupted(Exception):  # noqa: N818 - no error: the run was asked to stop, and goes on later
    """A run stopped because it was asked to, its checkpoint saved; the message says why, in words."""


class LostError(Exception):
    """An attempt that is not its worker's any more: it must write nothing more."""


class RunError(HarnessError):
    """A run that cannot go on; the message is one line: what is wrong, where, what was expected."""


@dataclasses.dataclass(frozen=True)
class State:
    """Where a run stands, as far as its files tell; who is at it, and whether anyone will be, only the storage knows.

    Attributes:
      name: "waiting" (never begun), "interrupted" (or going on), "failed" (its last attempt did) or "done".
      step: the last optimizer step that was reported, 0 where there is none.
      error: why it failed, one line; empty otherwise.
    """

    name: Literal["waiting", "interrupted", "failed", "done"]
    step: int = 0
    error: str = ""

    def __str__(self) -> str:
        return f"{self.name} at step {self.step}" if self.step and self.name == "interrupted" else self.name


@dataclasses.dataclass(frozen=True)
class History:
    """What the logs of a run's attempts come to.

    Attributes:
      curve: the points on the way to where the training stands, each step once. What an attempt reported beyond the
        checkpoint that the next one went on from is not on it.
      began: steps at which attempts began, all of them.
      seconds: the time of them all.
    """

    curve: tuple[dict[str, Any], ...]
    began: tuple[int, ...]
    seconds: float

    @property
    def resumed_at(self) -> list[int]:
        """Steps at which an attempt went on from a checkpoint."""
        return [step for step in self.began if step]

    @property
    def step(self) -> int:
        """The last step on the curve, 0 where there is none."""
        return max((int(point["step"]) for point in self.curve), default=0)


@dataclasses.dataclass(frozen=True)
class Failure:
    """Why an attempt failed.

    Attributes:
      error: one line.
      traceback: where in the code.
      path: the file that says so.
    """

    error: str
    traceback: str
    path: Folder


class Logged:
    """A report that also keeps the points of a curve.

    Args:
      log: where.
      report: is told of every event as well.
    """

    def __init__(self, log: files.Lines, report: Callable[[Event], None]) -> None:
        self._log, self._report = log, report

    def __call__(self, event: Event) -> None:
        """Takes an event."""
        if event["event"] in _KEPT:
            self._log.write(json.dumps(dict(event)) + "\n")
            self._log.flush()
        if event["event"] == "validation":  # the one of a checkpoint comes after it, and is not made again
            self._log.publish()
        self._report(event)

    def kept_before(self, hold: Callable[[bool], None]) -> Callable[[bool], None]:
        """The same leave to write, which keeps the curve so far first: no checkpoint is ahead of its points."""

        def held(now: bool) -> None:
            hold(now)
            if now:
                self._log.publish()

        return held


@dataclasses.dataclass(frozen=True)
class Attempt:
    """One attempt at a run.

    Attributes:
      folder: its folder.
      number: its number in the queue.
    """

    folder: Folder
    number: int

    @property
    def checkpoints(self) -> Folder:
        """Folder of its checkpoints."""
        return self.folder / _CHECKPOINTS

    @property
    def failure(self) -> Folder:
        """File of why it failed."""
        return self.folder / _FAILURE

    def log(self, task_index: int = 0) -> Folder:
        """File of what the libraries said; one for each of several workers."""
        return self.folder / (f"log-{task_index}.txt" if task_index else "log.txt")

    def predictions(self, protocol: str) -> Folder:
        """File of its predictions under a protocol."""
        return self.folder / f"predictions-{protocol}.parquet"

    @contextlib.contextmanager
    def logged(self, report: Callable[[Event], None]) -> Iterator[Logged]:
        """A report that also keeps the curve's points, so that an interrupted run loses none."""
        with contextlib.closing(files.Lines(self.folder / _LOG)) as log:
            self.failure.unlink(missing_ok=True)
            log.write("\n")  # a line that a kill cut short must not swallow the first of another life of this attempt
            log.publish()
            try:
                yield Logged(log, report)
            except LostError:
                raise
            except BaseException:
                with contextlib.suppress(OSError):  # perhaps the failure itself
                    log.publish()
                raise
            log.publish()

    def fail(self, error: str, traceback: str) -> None:
        """Keeps why it failed."""
        content = {"error": error, "traceback": traceback}
        files.replace(self.failure, json.dumps(content, indent=1).encode())

    def failed(self) -> Failure | None:
        """Why it failed, None where it did not."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            content = json.loads(self.failure.read_text())
            return Failure(str(content["error"]), str(content["traceback"]), self.failure)
        return None

    def forget(self) -> None:
        """Removes the points of its curve, once they stand in a record."""
        (self.folder / _LOG).unlink(missing_ok=True)

    def lines(self) -> list[str] | None:
        """The lines of its log; None where it never began to train."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return (self.folder / _LOG).read_text(errors="replace").splitlines()
        return None

    def drop(self, weights: Folder | None = None) -> None:
        """Removes all that it left, but for the log of a process that may be at it still.

        Args:
          weights: path of the weights that the run's record names, which stay where they are this attempt's.
        """
        if weights is not None and weights.absolute().parent == self.checkpoints.absolute():
            checkpoints.drop_training(self.checkpoints)
        else:
            files.remove_tree(self.checkpoints)
        # What stands in the run's own folder may be its record's.
        guesses = self.folder.glob("predictions-*") if self.number != _OLD else ()
        parts = self.folder.glob(".*.part") if self.number != _OLD else ()
        for path in (self.folder / _LOG, self.failure, *guesses, *parts):
            path.unlink(missing_ok=True)


@dataclasses.dataclass(frozen=True)
class Attempts:
    """All attempts at a run.

    Attributes:
      folder: the run's: `results/runs/<id>`.
    """

    folder: Folder

    def __getitem__(self, number: int) -> Attempt:
        """The attempt of a number, whether there is such a folder or not."""
        return Attempt(self.folder / FOLDER / str(number), number)

    @property
    def numbers(self) -> list[int]:
        """Numbers of the attempts that left a folder, in order."""
        return sorted(int(path.name) for path in (self.folder / FOLDER).glob("*") if path.name.isdecimal())

    def all(self) -> list[Attempt]:
        """The attempts, in order; what was written before they had folders is the first, whether it is there or not."""
        return [Attempt(self.folder, _OLD), *(self[number] for number in self.numbers)]

    def before(self, number: int) -> list[Attempt]:
        """The attempts before one, the last first: it goes on from what they left."""
        return [one for one in reversed(self.all()) if one.number < number]

    def history(self, checkpoint: str | None = None) -> History:
        """What the logs come to; empty where there is none.

        Args:
          checkpoint: path of the checkpoint or weights that the curve is to lead to; None for what the last attempt
            that trained came to.
        """
        last = None if checkpoint is None else origin(checkpoint).get("of", _OLD)
        return history({one.number: one.lines() or () for one in self.all()}, last)

    def failure(self) -> Failure | None:
        """Why the last attempt that failed did."""
        return next((found for one in reversed(self.all()) if (found := one.failed())), None)

    @property
    def furthest(self) -> int:
        """The step that training reached, by the checkpoints and weights that are kept; 0 where there are none."""
        return max(checkpoints.furthest(one.checkpoints) for one in self.all())

    @property
    def size(self) -> int:
        """Bytes of all checkpoints and weights."""
        return sum(checkpoints.size(one.checkpoints) for one in self.all())

    def state(self) -> State:
        """Where the run stands, its record aside."""
        every, step = self.all(), self.history().step
        if (failed := every[-1].failed()) is not None:
            return State("failed", step, failed.error)
        begun = any(one.lines() is not None for one in every)
        return State("interrupted", step) if begun else State("waiting")

    def keep_furthest(self) -> None:
        """Leaves, of a run that was ended early, just the checkpoint that it could go on from."""
        kept = max(reversed(self.all()), key=lambda one: checkpoints.furthest(one.checkpoints))
        checkpoints.keep_last(kept.checkpoints)
        for one in self.all():
            if one != kept:
                checkpoints.drop_training(one.checkpoints)

    def settle(self, number: int, weights: Folder) -> None:
        """Tidies once an attempt wrote the run's record: its own log and the weights stay.

        Later attempts are left alone: a worker may be at one still, and is about to learn of the record.

        Args:
          number: the attempt's.
          weights: path of the weights that the record names.
        """
        for one in self.before(number):
            _clear(one, weights)
        own = self[number]
        own.forget()
        checkpoints.drop_training(own.checkpoints)
        with contextlib.suppress(OSError):  # it holds the weights
            own.checkpoints.rmdir()

    def begin_anew(self, number: int) -> None:
        """Removes what all attempts but one left: the run is wanted anew."""
        for one in self.all():
            if one.number != number:
                _clear(one)
        files.remove_tree(self[number].checkpoints)
        self[number].forget()


def _clear(one: Attempt, weights: Folder | None = None) -> None:
    """Removes an attempt's folder, unless it holds the weights that the run's record names."""
    one.drop(weights)
    if one.number != _OLD and not one.checkpoints.exists():
        files.remove_tree(one.folder)


def origin(checkpoint: str) -> dict[str, int]:
    """Whose checkpoint it is, as the event says it that an attempt goes on from it: {"of": its number}, or nothing."""
    of = re.search(rf"(?:^|/){FOLDER}/(\d+)/{_CHECKPOINTS}$", PurePath(checkpoint).parent.as_posix())
    return {"of": int(of[1])} if of else {}


@dataclasses.dataclass
class _Stretch:
    """What an attempt reported from where it began to its end.

    Attributes:
      number: the attempt's.
      start: the step that it began at.
      of: number of the attempt whose checkpoint it went on from.
      points: of its curve.
      seconds: the time it took.
    """

    number: int
    start: int
    of: int
    points: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    seconds: float = 0.0


def history(logs: Mapping[int, Iterable[str]], last: int | None = None) -> History:
    """What logs come to.

    Args:
      logs: number of an attempt -> lines, an event each. The last line of an attempt that was killed may be cut short.
      last: number of the attempt that the curve is to lead to; None for the last one that trained.
    """
    stretches = [one for number in sorted(logs) for one in _stretches(number, logs[number])]
    points: dict[tuple[int, str], dict[str, Any]] = {}
    before = math.inf
    for one in _chain(stretches, last):
        for point in one.points:
            if point["step"] <= before:
                points.setdefault((point["step"], str(point["split"])), point)
        before = one.start
    return History(
        tuple(points[key] for key in sorted(points)),
        tuple(one.start for one in stretches),
        sum(one.seconds for one in stretches),
    )


def _stretches(number: int, lines: Iterable[str]) -> list[_Stretch]:
    """What one log holds: several stretches where the number was an attempt's several times."""
    found: list[_Stretch] = []
    for line in lines:
        with contextlib.suppress(ValueError, KeyError, TypeError, IndexError):
            event = json.loads(line)
            step = operator.index(event["step"])
            if event["event"] == "attempt":
                found.append(_Stretch(number, step, operator.index(event.get("of", _OLD))))
                continue
            point = {name: value for name, value in event.items() if name not in ("event", "done", "total")}
            found[-1].seconds = 0.0 + event["seconds"]
            point["split"] = str(event["split"])
            found[-1].points.append(point)
    return found


def _chain(stretches: Sequence[_Stretch], last: int | None) -> Iterator[_Stretch]:
    """The stretches that led to the last one, it first."""
    at = max((i for i, one in enumerate(stretches) if last in (None, one.number)), default=None)
    seen: set[int] = set()
    while at is not None:
        seen.add(at)
        yield (later := stretches[at])
        earlier = (
            i
            for i, one in enumerate(stretches)
            if later.start and one.number == later.of and one.start <= later.start and i not in seen
            # In one log, what stands further down came later.
            if i < at or one.number != later.number
        )
        at = max(earlier, default=None)
