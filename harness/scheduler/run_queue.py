"""The queue of runs, in Optuna's storage, and the lease on the run that a worker has claimed.

Each trial of the Optuna study "runs" is an attempt (:mod:`harness.scheduler.run_states`). A worker claims it by one
compare-and-set from WAITING to RUNNING, and keeps it by heartbeats. A trial that has ended refuses every update, so its
number fences off a worker that lost it and wakes up later. :class:`harness.scheduler.optuna_storage.Patience` waits for
a storage that does not answer.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from harness.scheduler import liveness, optuna_storage, run_states
from harness.scheduler.optuna_storage import FAULTS, Patience, StorageError
from harness.scheduler.run_states import Attempt, Item, ItemStatus

NAME = "runs"
LEASE = 120.0  # seconds of silence after which a worker has lost its run
SHORTEST = 3.0  # shortest lease in seconds, since the storage counts whole seconds
_BEATS = 4  # heartbeats per lease
_TRIES = 100  # attempts to keep other processes out
_PATIENCE = 10  # times in a row that another process may keep this one out; after that, it is taken to be paused
_TEXT = 4000  # most characters of a traceback, since every listing of the queue reads all of them
_STATES = {TrialState.WAITING: "waiting", TrialState.RUNNING: "running", TrialState.COMPLETE: "done"}


class Queue:
    """The attempts at the runs of one results folder.

    Args:
      url: URL of the storage.
      lease: seconds after which a silent worker has lost its run; None for that of the queue, or :data:`LEASE` for a
        new queue.
      token: this process's token from :func:`harness.scheduler.liveness.present`; empty if it claims nothing.
      say: is called with a line of text when the storage does not answer.
      asked: returns whether this process was asked to stop.

    Raises:
      StorageError: the storage cannot be opened, holds another study of that name, or has a lease of another length.
    """

    def __init__(
        self,
        url: str,
        lease: float | None = None,
        token: str = "",
        say: Callable[[str], None] = lambda _: None,
        asked: Callable[[], bool] = lambda: False,
    ) -> None:
        self.url, self.patient = url, Patience(url, say, asked)
        self._storage: RDBStorage = optuna_storage.open_storage(url)
        self._token, self._worker = token, f"{socket.gethostname()}:{os.getpid()}"
        self._study = self.patient(
            lambda: optuna.create_study(
                storage=self._storage, study_name=NAME, direction="maximize", load_if_exists=True
            )
        )
        self._first = self._refused = 0
        self.look_at_numbers()
        self.lease = self._agreed(url, lease)
        self._storage.heartbeat_interval = max(1, round(self.lease / _BEATS))
        self._storage.grace_period = math.ceil(self.lease)
        self._ids: dict[int, int] = {}
        self._open: list[Attempt] = []
        self._listed = -float("inf")

    def _agreed(self, url: str, asked: float | None) -> float:
        """Returns the lease of all workers that share the queue; the first one sets it."""
        if asked is not None and asked < SHORTEST:
            raise StorageError(f"--lease {asked:g}: expected {SHORTEST:g} seconds at least")
        known = self.note("lease")
        if known is None:
            with self.alone():
                known = self.note("lease")
                if known is None:
                    self.keep("lease", known := asked or LEASE)
        if asked is not None and asked != known:
            raise StorageError(
                f"--lease {asked:g}: {optuna_storage.redacted(url)} is shared with a lease of {known:g} seconds; leave "
                "it out"
            )
        return float(known)

    def note(self, name: str) -> Any:
        """Returns the data kept under a name beside the attempts; None if there is none."""
        return self.patient(lambda: self._study.user_attrs.get(name))

    def notes(self) -> dict[str, Any]:
        """Returns all data kept beside the attempts, by name."""
        return dict(self.patient(lambda: self._study.user_attrs))

    def keep(self, name: str, value: Any) -> None:
        """Keeps plain data under a name beside the attempts."""
        self.patient(lambda: self._study.set_user_attr(name, value))

    def number_from(self, first: int) -> None:
        """Starts the numbering of attempts at a number, since folders of another storage's attempts have lower ones."""
        self.keep("first", first)
        self.look_at_numbers()

    @property
    def next_number(self) -> int:
        """Number of the next attempt, as of the last listing."""
        return max(self._ids, default=self._first - 1) + 1

    def look_at_numbers(self) -> None:
        """Reads the number at which the queue's attempts begin."""
        self._first = int(self.note("first") or 0)

    def attempts(self) -> list[Attempt]:
        """Returns all attempts, in order; those that have ended are read from the storage only once."""
        trials = self.patient(lambda: self._study.get_trials(deepcopy=False))
        self._ids = {trial.number + self._first: trial._trial_id for trial in trials}
        if any(not isinstance(trial.user_attrs.get("run"), list) for trial in trials):
            raise StorageError(
                f"{optuna_storage.redacted(self.url)}: its study {NAME!r} is not this harness's; use another database"
            )
        return [attempt(trial, self._first) for trial in trials]

    def find_stale(self) -> None:
        """Ends the attempts whose workers fell silent, or ended on this machine without reporting it.

        Silence does not count for a while after the storage itself did not answer or was restarted: the workers could
        not send heartbeats meanwhile, and get half a lease to do so.
        """
        pause = self.lease / 2
        heard = time.monotonic() - self.patient.trouble > pause
        if heard and not self.patient(lambda: optuna_storage.young(self._storage, pause)):
            self.patient(lambda: optuna.storages.fail_stale_trials(self._study))
        for attempt in self.attempts():
            if attempt.state == "running" and liveness.gone(attempt.token):
                self._end(attempt.number, TrialState.FAIL)

    def reconcile(self, items: Sequence[Item], recorded: Callable[[], set[str]], retries: int) -> dict[str, ItemStatus]:
        """Adds the attempts that the queue lacks, on a first start or after a crash; returns each item's status.

        Several processes may do this at the same time: superfluous attempts are ended as "superseded".

        Args:
          items: the items that this worker wants done.
          recorded: returns the keys of the recorded items.
          retries: number of failures after which an item is tried again.
        """
        self.find_stale()
        with self._alone() as alone:
            self._refused = 0 if alone else self._refused + 1
            attempts = self.attempts()
            recorded_keys = (
                recorded()
            )  # read after the attempts, so that every attempt that is done has its record by then
            if (alone or self._refused > _PATIENCE) and self._repair(items, attempts, recorded_keys, retries):
                attempts = self.attempts()
                recorded_keys = recorded()
        self._open = run_states.claimable(attempts, {item.key: item for item in items}, recorded_keys)
        self._listed = time.monotonic()
        return run_states.standings(items, attempts, recorded_keys, retries)

    def _repair(
        self, items: Sequence[Item], attempts: Sequence[Attempt], recorded_keys: set[str], retries: int
    ) -> bool:
        """Ends superfluous attempts and adds missing ones; returns whether there were any."""
        litter = run_states.litter(attempts, recorded_keys)
        untold = run_states.untold(attempts, {item.key: item for item in items}, recorded_keys)
        missing = run_states.missing(run_states.standings(items, attempts, recorded_keys, retries), items)
        for attempt in litter:
            self.end(attempt.number, "superseded")
        for item in untold:
            self.add(item, done=True)
        for item in missing:
            self.add(item)
        return bool(litter or untold or missing)

    def add(self, item: Item, again: bool = False, done: bool = False) -> None:
        """Adds an attempt at an item: one that waits, or one that is done if the item has its record."""
        state = TrialState.COMPLETE if done else TrialState.WAITING
        content = [item.key, item.parent, item.order, item.study, item.label, item.work, again]
        self.patient(
            lambda: self._study.add_trial(
                create_trial(state=state, value=0.0 if done else None, user_attrs={"run": content})
            )
        )

    @property
    def local(self) -> bool:
        """Whether the storage is an SQLite file, for the processes of one machine only."""
        return self._storage.engine.dialect.name == "sqlite"

    @property
    def interval(self) -> float:
        """Seconds between two heartbeats of a worker."""
        return self.lease / _BEATS

    @property
    def due(self) -> bool:
        """Whether it is time to reconcile again: half a lease has passed since the last time."""
        return time.monotonic() - self._listed > self.lease / 2

    def claim(self) -> Lease | None:
        """Claims the next of the attempts that were open at the last reconciliation; returns None if there is none."""
        while self._open:
            attempt = self._open.pop(0)
            trial_id = self._ids[attempt.number]
            try:
                # Before the trial is running, since a running trial without any heartbeat would never be found stale.
                self._storage.record_heartbeat(trial_id)
                claimed = self._storage.set_trial_state_values(trial_id, TrialState.RUNNING)
            except UpdateFinishedTrialError:
                continue
            except FAULTS:  # if it was claimed nevertheless, it will be found stale, which costs no retry
                self._listed = -float("inf")
                return None
            if claimed:
                return Lease(self, attempt)
        return None

    def end(self, number: int, cause: str, **about: Any) -> bool:
        """Ends an open attempt as "failed", "preempted", "cancelled" or "superseded"; returns whether it was open."""
        try:
            for name, value in {**about, "cause": cause}.items():
                self._attach(number, name, value)
        except UpdateFinishedTrialError:
            return False
        return self._end(number, TrialState.FAIL)

    def done(self, number: int, top1: float | None, seconds: float) -> bool:
        """Ends an attempt whose record is written; returns whether it was open."""
        with contextlib.suppress(UpdateFinishedTrialError):
            self._attach(number, "seconds", round(seconds, 1))
        return self._end(number, TrialState.COMPLETE, [0.0 if top1 is None else top1])

    def state(self, number: int) -> str:
        """Returns the state of an attempt."""
        return attempt(self.patient(lambda: self._storage.get_trial(self._id(number)))).state

    def _end(self, number: int, state: TrialState, values: list[float] | None = None) -> bool:
        try:
            self.patient(lambda: self._storage.set_trial_state_values(self._id(number), state, values))
        except UpdateFinishedTrialError:  # ended by another process, or by this call, whose answer was lost
            trial = self.patient(lambda: self._storage.get_trial(self._id(number)))
            return bool(trial.state == state)
        return True

    def _attach(self, number: int, name: str, value: Any) -> None:
        self.patient(lambda: self._storage.set_trial_user_attr(self._id(number), name, value))

    def _id(self, number: int) -> int:
        if number not in self._ids:
            self.attempts()
        return self._ids[number]

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keeps other processes from changing notes or adding attempts inside this block.

        Raises:
          StorageError: another process keeps this one out for too long.
        """
        for _ in range(_TRIES):
            with self._alone() as alone:
                if alone:
                    yield
                    return
            time.sleep(0.1)
        raise StorageError(
            f"{optuna_storage.redacted(self.url)}: another process keeps this one from it; is it paused?"
        )

    @contextlib.contextmanager
    def _alone(self) -> Iterator[bool]:
        """Yields whether other processes are kept from adding attempts, which only saves superfluous attempts."""
        with optuna_storage.try_alone(self._storage) as alone:
            yield alone


class Lease:
    """The lease on an attempt that this worker has claimed; a context manager that sends heartbeats from a thread.

    Attributes:
      attempt: the attempt.
    """

    def __init__(self, queue: Queue, one: Attempt) -> None:
        self.attempt = one
        self._queue = queue
        self._began = self._confirmed = time.monotonic()
        self._lost = threading.Event()
        self._ended = threading.Event()
        self._progress: dict[str, Any] = {}
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Lease:
        queue = self._queue
        with contextlib.suppress(UpdateFinishedTrialError):
            queue._attach(self.attempt.number, "worker", [queue._worker, queue._token])
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(timeout=10)  # the thread may be waiting for a storage that does not answer

    @property
    def seconds(self) -> float:
        """Seconds since the attempt was claimed."""
        return time.monotonic() - self._began

    def held(self, now: bool) -> bool:
        """Returns whether the attempt is still this worker's.

        Args:
          now: whether to ask the storage; otherwise the last heartbeat's result is used, unless it is older than a
            lease.
        """
        if not self._lost.is_set() and (now or time.monotonic() - self._confirmed > self._queue.lease):
            asked = time.monotonic()
            if self._queue.state(self.attempt.number) == "running":
                self._confirmed = asked
            else:
                self._lost.set()
        return not self._lost.is_set()

    @property
    def fresh(self) -> bool:
        """Whether it was confirmed within the last lease, so that no other worker can have taken it since."""
        return not self._lost.is_set() and time.monotonic() - self._confirmed < self._queue.lease

    @property
    def cancelled(self) -> bool:
        """Whether it was lost because somebody cancelled it."""
        return self._queue.state(self.attempt.number) == "cancelled"

    def progress(self, **reached: Any) -> None:
        """Sets the progress to send with the next heartbeat.

        Args:
          reached: the keys and values of :attr:`harness.scheduler.run_states.Attempt.progress` that changed.
        """
        self._progress = {**self._progress, **reached}

    def done(self, top1: float | None) -> None:
        """Ends the attempt as done, once its record is written."""
        self._queue.done(self.attempt.number, top1, self.seconds)

    def failed(self, error: str, traceback: str) -> None:
        """Ends the attempt as failed, which costs a retry."""
        self._queue.end(
            self.attempt.number, "failed", error=error[:_TEXT], traceback=traceback[-_TEXT:], seconds=self._spent()
        )

    def preempted(self, reason: str) -> None:
        """Ends the attempt because its worker has to leave it, which costs no retry."""
        self._queue.end(self.attempt.number, "preempted", error=reason[:_TEXT], seconds=self._spent())

    def superseded(self) -> None:
        """Ends an attempt that turned out to be recorded when it was claimed."""
        self._queue.end(self.attempt.number, "superseded")

    def _spent(self) -> float:
        return round(self.seconds, 1)

    def _beat(self) -> None:
        """Sends heartbeats and progress and checks that the lease is not lost, in its own thread and session."""
        queue, interval = self._queue, self._queue.interval
        sent: dict[str, Any] = {}
        storage = queue._storage
        trial_id = queue._id(self.attempt.number)
        while not self._ended.wait(interval) and not self._lost.is_set():
            asked = time.monotonic()
            with contextlib.suppress(*FAULTS):
                storage.record_heartbeat(trial_id)
                if storage.get_trial(trial_id).state != TrialState.RUNNING:
                    self._lost.set()
                    break
                self._confirmed = asked
                if self._progress != sent:
                    sent = self._progress
                    with contextlib.suppress(UpdateFinishedTrialError):
                        storage.set_trial_user_attr(trial_id, "progress", {**sent, "seconds": self._spent()})
        with contextlib.suppress(*FAULTS):
            storage.remove_session()


def attempt(trial: FrozenTrial, first: int = 0) -> Attempt:
    """Converts a trial of the queue to plain data; `first` is the number of the queue's first attempt."""
    about = trial.user_attrs
    key, parent, order, study, label, work, again = about["run"]
    worker, token = about.get("worker", ["", ""])
    progress: Mapping[str, Any] = about.get("progress", {})
    state = _STATES.get(trial.state, about.get("cause", "stale"))
    return Attempt(
        number=trial.number + first,
        item=Item(key, label, study, order, parent, work),
        state=state,
        again=again,
        worker=worker,
        token=token,
        progress=progress,
        seconds=float(about.get("seconds", progress.get("seconds", 0.0))),
        top1=trial.values[0] if trial.state == TrialState.COMPLETE and trial.values else None,
        error=str(about.get("error", "")),
        traceback=str(about.get("traceback", "")),
    )
