"""The attempts at a run: the files that each leaves in its folder, and the history and state that follow from them.

attempts/<number>/checkpoints/                    its latest checkpoints while it trains, then its weights
attempts/<number>/curve.jsonl                     the points of its curve, until the run has a record
attempts/<number>/failure.json                    why it failed
attempts/<number>/log.txt                         what the libraries printed; log-<index>.txt for each further worker
attempts/<number>/predictions-<protocol>.parquet  per-video predictions

An attempt writes only into its own folder. Runs from before attempts had folders keep the same files directly in the
run's folder, which is read as an attempt that came before all others.
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
# Stands for what was written before attempts had folders.
_OLD = -1


class Interrupted(Exception):  # noqa: N818 - not an error: the run was asked to stop and can be resumed
    """A run that was asked to stop and has saved its checkpoint; the message gives the reason."""


class LostError(Exception):
    """Raised when another worker has taken over the run: this attempt must not write anything more."""


class RunError(HarnessError):
    """A run that cannot continue; the message says in one line what is wrong, where, and what was expected."""


@dataclasses.dataclass(frozen=True)
class State:
    """The state of a run according to its files.

    The files do not tell whether a worker holds the run, or will take it: only the queue knows that.

    Attributes:
      name: "waiting" (never begun), "interrupted" (or still training), "failed" (its last attempt failed) or "done".
      step: the last optimizer step that was reported; 0 if there is none.
      error: why it failed, in one line; empty if it did not.
    """

    name: Literal["waiting", "interrupted", "failed", "done"]
    step: int = 0
    error: str = ""

    def __str__(self) -> str:
        return f"{self.name} at step {self.step}" if self.step and self.name == "interrupted" else self.name


@dataclasses.dataclass(frozen=True)
class History:
    """The training history of a run, put together from the logs of its attempts.

    Attributes:
      curve: the points that lead to the current state of the training, each step once. Points that an attempt reported
        after the checkpoint that the next attempt resumed from are left out.
      began: the steps at which the attempts began, of all attempts.
      seconds: the time that all attempts took together.
    """

    curve: tuple[dict[str, Any], ...]
    began: tuple[int, ...]
    seconds: float

    @property
    def resumed_at(self) -> list[int]:
        """Steps at which an attempt resumed from a checkpoint."""
        return [step for step in self.began if step]

    @property
    def step(self) -> int:
        """The last step on the curve; 0 if the curve is empty."""
        return max((int(point["step"]) for point in self.curve), default=0)


@dataclasses.dataclass(frozen=True)
class Failure:
    """Why an attempt failed.

    Attributes:
      error: the error, in one line.
      traceback: where in the code it was raised.
      path: the file that this was read from.
    """

    error: str
    traceback: str
    path: Folder


class Logged:
    """Writes the curve's points to a log and passes every event on.

    Args:
      log: the file that the points are written to.
      report: the function that every event is passed on to.
    """

    def __init__(self, log: files.AppendedFile, report: Callable[[Event], None]) -> None:
        self._log, self._report = log, report

    def __call__(self, event: Event) -> None:
        """Passes on an event, and writes it to the log if it is a point of the curve or begins an attempt."""
        if event["event"] in _KEPT:
            self._log.write(json.dumps(dict(event)) + "\n")
            self._log.flush()
        if event["event"] == "validation":  # comes after its checkpoint, and a resumed run does not repeat it
            self._log.publish()
        self._report(event)

    def kept_before(self, hold: Callable[[bool], None]) -> Callable[[bool], None]:
        """Wraps a check of ownership so that the curve is published before anything else is written.

        This way no checkpoint is ever ahead of the points of its curve.

        Args:
          hold: the check; its argument is true if something is about to be written.
        """

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
        """Folder of the attempt's checkpoints."""
        return self.folder / _CHECKPOINTS

    @property
    def failure(self) -> Folder:
        """File that says why the attempt failed."""
        return self.folder / _FAILURE

    def log(self, task_index: int = 0) -> Folder:
        """File that the libraries' output goes to; each of several workers has its own."""
        return self.folder / (f"log-{task_index}.txt" if task_index else "log.txt")

    def predictions(self, protocol: str) -> Folder:
        """File of the attempt's predictions under a protocol."""
        return self.folder / f"predictions-{protocol}.parquet"

    @contextlib.contextmanager
    def logged(self, report: Callable[[Event], None]) -> Iterator[Logged]:
        """Logs the curve's points while an attempt trains, so that an interrupted run loses none.

        Args:
          report: the function that every event is passed on to.

        Yields:
          The function to report events to, in place of `report`.
        """
        with contextlib.closing(files.AppendedFile(self.folder / _LOG)) as log:
            self.failure.unlink(missing_ok=True)
            log.write("\n")  # so that a line cut short by a kill does not swallow the first line written now
            log.publish()
            try:
                yield Logged(log, report)
            except LostError:
                raise
            except BaseException:
                with contextlib.suppress(OSError):  # this may be the failure that is being raised
                    log.publish()
                raise
            log.publish()

    def fail(self, error: str, traceback: str) -> None:
        """Writes down why the attempt failed."""
        content = {"error": error, "traceback": traceback}
        files.replace(self.failure, json.dumps(content, indent=1).encode())

    def failed(self) -> Failure | None:
        """Returns why the attempt failed, or None if it did not."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            content = json.loads(self.failure.read_text())
            return Failure(str(content["error"]), str(content["traceback"]), self.failure)
        return None

    def forget(self) -> None:
        """Removes the log of the curve once its points are in a record."""
        (self.folder / _LOG).unlink(missing_ok=True)

    def lines(self) -> list[str] | None:
        """Returns the lines of the curve's log, or None if the attempt never began to train."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return (self.folder / _LOG).read_text(errors="replace").splitlines()
        return None

    def drop(self, weights: Folder | None = None) -> None:
        """Removes the files of the attempt, except log.txt, which its process may still be writing to.

        Args:
          weights: path of the weights that the run's record names; they stay if they belong to this attempt.
        """
        if weights is not None and weights.absolute().parent == self.checkpoints.absolute():
            checkpoints.drop_training(self.checkpoints)
        else:
            files.remove_tree(self.checkpoints)
        # Predictions directly in the run's folder may belong to its record.
        predictions = self.folder.glob("predictions-*") if self.number != _OLD else ()
        parts = self.folder.glob(".*.part") if self.number != _OLD else ()
        for path in (self.folder / _LOG, self.failure, *predictions, *parts):
            path.unlink(missing_ok=True)


@dataclasses.dataclass(frozen=True)
class Attempts:
    """All attempts at a run.

    Attributes:
      folder: the run's folder: `results/runs/<id>`.
    """

    folder: Folder

    def __getitem__(self, number: int) -> Attempt:
        """Returns the attempt with a number, whether or not it has a folder."""
        return Attempt(self.folder / FOLDER / str(number), number)

    @property
    def numbers(self) -> list[int]:
        """Numbers of the attempts that have a folder, in ascending order."""
        return sorted(int(path.name) for path in (self.folder / FOLDER).glob("*") if path.name.isdecimal())

    def all(self) -> list[Attempt]:
        """Returns the attempts in order; the first, which may be empty, is what was written before they had folders."""
        return [Attempt(self.folder, _OLD), *(self[number] for number in self.numbers)]

    def before(self, number: int) -> list[Attempt]:
        """Returns the attempts before the one with this number, latest first; it resumes from what they left."""
        return [attempt for attempt in reversed(self.all()) if attempt.number < number]

    def history(self, checkpoint: str | None = None) -> History:
        """Returns the training history of the run; empty if there are no logs.

        Args:
          checkpoint: path of the checkpoint or weights that the curve should lead to; None for the result of the last
            attempt that trained.
        """
        last = None if checkpoint is None else origin(checkpoint).get("of", _OLD)
        return history({attempt.number: attempt.lines() or () for attempt in self.all()}, last)

    def failure(self) -> Failure | None:
        """Returns why the last failed attempt failed, or None if none did."""
        return next((failure for attempt in reversed(self.all()) if (failure := attempt.failed())), None)

    @property
    def furthest(self) -> int:
        """The furthest step among the checkpoints and weights that are kept; 0 if there are none."""
        return max(checkpoints.furthest(attempt.checkpoints) for attempt in self.all())

    @property
    def size(self) -> int:
        """Size of all checkpoints and weights, in bytes."""
        return sum(checkpoints.size(attempt.checkpoints) for attempt in self.all())

    def state(self) -> State:
        """Returns the state of the run, without looking at its record."""
        attempts, step = self.all(), self.history().step
        if (failed := attempts[-1].failed()) is not None:
            return State("failed", step, failed.error)
        begun = any(attempt.lines() is not None for attempt in attempts)
        return State("interrupted", step) if begun else State("waiting")

    def keep_furthest(self) -> None:
        """Removes all checkpoints of a run that was ended early, except the one that it could resume from."""
        furthest = max(reversed(self.all()), key=lambda attempt: checkpoints.furthest(attempt.checkpoints))
        checkpoints.keep_last(furthest.checkpoints)
        for attempt in self.all():
            if attempt != furthest:
                checkpoints.drop_training(attempt.checkpoints)

    def settle(self, number: int, weights: Folder) -> None:
        """Removes what is no longer needed once an attempt has written the run's record.

        The attempt's log.txt and the weights stay. Later attempts are left alone: a worker may still be training one,
        and will soon learn of the record.

        Args:
          number: number of the attempt that wrote the record.
          weights: path of the weights that the record names.
        """
        for earlier in self.before(number):
            _clear(earlier, weights)
        attempt = self[number]
        attempt.forget()
        checkpoints.drop_training(attempt.checkpoints)
        with contextlib.suppress(OSError):  # not empty: it holds the weights
            attempt.checkpoints.rmdir()

    def begin_anew(self, number: int) -> None:
        """Removes all results of earlier training because the run is to be trained anew.

        Args:
          number: number of the current attempt, whose other files stay.
        """
        for attempt in self.all():
            if attempt.number != number:
                _clear(attempt)
        files.remove_tree(self[number].checkpoints)
        self[number].forget()


def _clear(attempt: Attempt, weights: Folder | None = None) -> None:
    """Removes an attempt's files, and its folder unless that holds the weights that the run's record names."""
    attempt.drop(weights)
    if attempt.number != _OLD and not attempt.checkpoints.exists():
        files.remove_tree(attempt.folder)


def origin(checkpoint: str) -> dict[str, int]:
    """Returns which attempt wrote a checkpoint: {"of": number}, or {} for a checkpoint from before they had folders.

    The event "attempt" carries this, to say whose checkpoint an attempt resumed from.
    """
    match = re.search(rf"(?:^|/){FOLDER}/(\d+)/{_CHECKPOINTS}$", PurePath(checkpoint).parent.as_posix())
    return {"of": int(match[1])} if match else {}


@dataclasses.dataclass
class _Stretch:
    """A part of the training without interruption: what an attempt reported from its beginning to its end.

    Attributes:
      number: number of the attempt.
      start: the step that it began at.
      of: number of the attempt whose checkpoint it resumed from.
      points: the points of its curve.
      seconds: the time it took.
    """

    number: int
    start: int
    of: int
    points: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    seconds: float = 0.0


def history(logs: Mapping[int, Iterable[str]], last: int | None = None) -> History:
    """Puts the logs of a run's attempts together into one history.

    Args:
      logs: number of an attempt -> lines of its log, one event each. The last line may be cut short by a kill.
      last: number of the attempt that the curve should lead to; None for the last one that trained.
    """
    stretches = [stretch for number in sorted(logs) for stretch in _stretches(number, logs[number])]
    points: dict[tuple[int, str], dict[str, Any]] = {}
    before = math.inf
    for stretch in _chain(stretches, last):
        for point in stretch.points:
            if point["step"] <= before:
                points.setdefault((point["step"], str(point["split"])), point)
        before = stretch.start
    return History(
        tuple(points[key] for key in sorted(points)),
        tuple(stretch.start for stretch in stretches),
        sum(stretch.seconds for stretch in stretches),
    )


def _stretches(number: int, lines: Iterable[str]) -> list[_Stretch]:
    """Reads the stretches in one log; there are several if the attempt was started several times."""
    stretches: list[_Stretch] = []
    for line in lines:
        with contextlib.suppress(ValueError, KeyError, TypeError, IndexError):
            event = json.loads(line)
            step = operator.index(event["step"])
            if event["event"] == "attempt":
                stretches.append(_Stretch(number, step, operator.index(event.get("of", _OLD))))
                continue
            point = {name: value for name, value in event.items() if name not in ("event", "done", "total")}
            stretches[-1].seconds = 0.0 + event["seconds"]
            point["split"] = str(event["split"])
            stretches[-1].points.append(point)
    return stretches


def _chain(stretches: Sequence[_Stretch], last: int | None) -> Iterator[_Stretch]:
    """Yields the stretches that the training went through, latest first.

    Args:
      stretches: all stretches, in the order of their attempts.
      last: number of the attempt whose latest stretch comes first; None for the last stretch of all.
    """
    index = max(
        (candidate for candidate, stretch in enumerate(stretches) if last in (None, stretch.number)), default=None
    )
    seen: set[int] = set()
    while index is not None:
        seen.add(index)
        yield (later := stretches[index])
        earlier = (
            candidate
            for candidate, stretch in enumerate(stretches)
            if later.start and stretch.number == later.of and stretch.start <= later.start and candidate not in seen
            # Within one log, later stretches are further down.
            if candidate < index or stretch.number != later.number
        )
        index = max(earlier, default=None)
