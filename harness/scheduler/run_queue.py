"""The queue of runs in Optuna's storage, and the lease of the one that a worker is at.

A trial of the study "runs" is an attempt (:mod:`harness.scheduler.run_states`). Claiming it is one compare-and-set from
WAITING to RUNNING; a heartbeat keeps it; a trial that has ended refuses every update, so its number fences off a worker
that lost it and wakes up later. Waiting for the storage is :class:`harness.scheduler.optuna_storage.Patience`'s.
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
from harness.scheduler.run_states import Attempt, Item, Standing

NAME = "runs"
LEASE = 120.0  # seconds of silence after which a worker has lost its run
SHORTEST = 3.0  # of a lease: the storage counts whole seconds
_BEATS = 4  # in a lease
_TRIES = 100  # to be alone
_PATIENCE = 10  # times that another process was alone; it may be paused
_TEXT = 4000  # characters of a traceback that every listing can bear
_STATES = {TrialState.WAITING: "waiting", TrialState.RUNNING: "running", TrialState.COMPLETE: "done"}


class Queue:
    """The attempts at the runs of one results folder.

    Args:
      url: of the storage.
      lease: seconds after which a silent worker has lost its run; None for the queue's own, :data:`LEASE` of a new one.
      token: of this process, as :func:`harness.scheduler.liveness.present` gives it; empty for one that only looks.
      say: is told where the storage does not answer.
      asked: whether somebody asked this process to stop.

    Raises:
      StorageError: the storage cannot be opened, holds something else under the name, or a lease of another length.
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
        """The lease that all who share the queue go by."""
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
                f"--lease {asked:g}: {optuna_storage.shown(url)} is shared with a lease of {known:g} seconds; leave it "
                "out"
            )
        return float(known)

    def note(self, name: str) -> Any:
        """What is kept beside the attempts under a name; None where there is nothing."""
        return self.patient(lambda: self._study.user_attrs.get(name))

    def notes(self) -> dict[str, Any]:
        """All that is kept beside the attempts."""
        return dict(self.patient(lambda: self._study.user_attrs))

    def keep(self, name: str, value: Any) -> None:
        """Keeps plain data beside the attempts."""
        self.patient(lambda: self._study.set_user_attr(name, value))

    def number_from(self, first: int) -> None:
        """Has attempts numbered from a number on: what another storage's attempts left has the numbers below."""
        self.keep("first", first)
        self.look_at_numbers()

    @property
    def next_number(self) -> int:
        """Number of the next attempt, as of when they were listed last."""
        return max(self._ids, default=self._first - 1) + 1

    def look_at_numbers(self) -> None:
        """Goes by the numbers that the queue's first worker chose."""
        self._first = int(self.note("first") or 0)

    def attempts(self) -> list[Attempt]:
        """All attempts, in order; those that ended are read once."""
        trials = self.patient(lambda: self._study.get_trials(deepcopy=False))
        self._ids = {one.number + self._first: one._trial_id for one in trials}
        if any(not isinstance(one.user_attrs.get("run"), list) for one in trials):
            raise StorageError(
                f"{optuna_storage.shown(self.url)}: its study {NAME!r} is not this harness's; use another database"
            )
        return [attempt(one, self._first) for one in trials]

    def find_stale(self) -> None:
        """Ends the attempts whose workers fell silent, or ended on this machine without a word.

        Not just after the storage itself was silent: its workers could not be heard meanwhile, and get time to be.
        """
        pause = self.lease / 2
        heard = time.monotonic() - self.patient.trouble > pause
        if heard and not self.patient(lambda: optuna_storage.young(self._storage, pause)):
            self.patient(lambda: optuna.storages.fail_stale_trials(self._study))
        for one in self.attempts():
            if one.state == "running" and liveness.gone(one.token):
                self._end(one.number, TrialState.FAIL)

    def reconcile(self, items: Sequence[Item], recorded: Callable[[], set[str]], retries: int) -> dict[str, Standing]:
        """Puts into the queue what it should hold and does not, after a crash or a first start; where each item stands.

        Whoever calls it at the same time does no harm: what is there twice is ended as "superseded".
        """
        self.find_stale()
        with self._alone() as alone:
            self._refused = 0 if alone else self._refused + 1
            listed = self.attempts()
            known = recorded()  # after the attempts: what is done has its record by then
            if (alone or self._refused > _PATIENCE) and self._mended(items, listed, known, retries):
                listed = self.attempts()
                known = recorded()
        self._open = run_states.claimable(listed, {one.key: one for one in items}, known)
        self._listed = time.monotonic()
        return run_states.standings(items, listed, known, retries)

    def _mended(self, items: Sequence[Item], listed: Sequence[Attempt], known: set[str], retries: int) -> bool:
        """Ends what nobody needs and adds what is missing; whether there was any."""
        litter = run_states.litter(listed, known)
        untold = run_states.untold(listed, {one.key: one for one in items}, known)
        missing = run_states.missing(run_states.standings(items, listed, known, retries), items)
        for one in litter:
            self.end(one.number, "superseded")
        for item in untold:
            self.add(item, done=True)
        for item in missing:
            self.add(item)
        return bool(litter or untold or missing)

    def add(self, item: Item, again: bool = False, done: bool = False) -> None:
        """Adds an attempt that waits; or, where the record is there, one that is done."""
        state = TrialState.COMPLETE if done else TrialState.WAITING
        content = [item.key, item.parent, item.order, item.study, item.label, item.work, again]
        self.patient(
            lambda: self._study.add_trial(
                create_trial(state=state, value=0.0 if done else None, user_attrs={"run": content})
            )
        )

    @property
    def local(self) -> bool:
        """Whether it is a file, for the processes of one machine."""
        return self._storage.engine.dialect.name == "sqlite"

    @property
    def interval(self) -> float:
        """Seconds between two heartbeats of a worker."""
        return self.lease / _BEATS

    @property
    def due(self) -> bool:
        """Whether it is time to reconcile: half a lease went by."""
        return time.monotonic() - self._listed > self.lease / 2

    def claim(self) -> Lease | None:
        """The next attempt that the last reconciliation left open, from now on this worker's; None without one."""
        while self._open:
            one = self._open.pop(0)
            trial_id = self._ids[one.number]
            try:
                # Before it is running: a running one that never had a heartbeat would never be found stale.
                self._storage.record_heartbeat(trial_id)
                mine = self._storage.set_trial_state_values(trial_id, TrialState.RUNNING)
            except UpdateFinishedTrialError:
                continue
            except FAULTS:  # if it was claimed nevertheless, it is found stale, and costs no retry
                self._listed = -float("inf")
                return None
            if mine:
                return Lease(self, one)
        return None

    def end(self, number: int, cause: str, **about: Any) -> bool:
        """Ends an open attempt as "failed", "preempted", "cancelled" or "superseded"; False where it was not open."""
        try:
            for name, value in {**about, "cause": cause}.items():
                self._attach(number, name, value)
        except UpdateFinishedTrialError:
            return False
        return self._end(number, TrialState.FAIL)

    def done(self, number: int, top1: float | None, seconds: float) -> bool:
        """Ends an attempt whose record is written; whether it was open."""
        with contextlib.suppress(UpdateFinishedTrialError):
            self._attach(number, "seconds", round(seconds, 1))
        return self._end(number, TrialState.COMPLETE, [0.0 if top1 is None else top1])

    def state(self, number: int) -> str:
        """State of an attempt."""
        return attempt(self.patient(lambda: self._storage.get_trial(self._id(number)))).state

    def _end(self, number: int, state: TrialState, values: list[float] | None = None) -> bool:
        try:
            self.patient(lambda: self._storage.set_trial_state_values(self._id(number), state, values))
        except UpdateFinishedTrialError:  # by another, or by this call, whose answer was lost
            found = self.patient(lambda: self._storage.get_trial(self._id(number)))
            return bool(found.state == state)
        return True

    def _attach(self, number: int, name: str, value: Any) -> None:
        self.patient(lambda: self._storage.set_trial_user_attr(self._id(number), name, value))

    def _id(self, number: int) -> int:
        if number not in self._ids:
            self.attempts()
        return self._ids[number]

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keeps other processes from noting or adding anything meanwhile.

        Raises:
          StorageError: another keeps this one from it, for longer than it takes.
        """
        for _ in range(_TRIES):
            with self._alone() as alone:
                if alone:
                    yield
                    return
            time.sleep(0.1)
        raise StorageError(f"{optuna_storage.shown(self.url)}: another process keeps this one from it; is it paused?")

    @contextlib.contextmanager
    def _alone(self) -> Iterator[bool]:
        """Whether no other process adds attempts just now: a courtesy, which keeps out litter. Nothing rests on it."""
        with optuna_storage.try_alone(self._storage) as alone:
            yield alone


class Lease:
    """An attempt that is this worker's; a context manager that beats in a thread while it is open.

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
        self._thread.join(timeout=10)  # it may be waiting for a storage that does not answer

    @property
    def seconds(self) -> float:
        """Since it was claimed."""
        return time.monotonic() - self._began

    def held(self, now: bool) -> bool:
        """Whether it is still this worker's.

        Args:
          now: ask the storage; else what the last beat found, unless that is a lease ago.
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
        """Whether it was this worker's so lately that nobody can have taken it since, whatever the storage says now."""
        return not self._lost.is_set() and time.monotonic() - self._confirmed < self._queue.lease

    @property
    def cancelled(self) -> bool:
        """Whether it was lost because somebody cancelled it."""
        return self._queue.state(self.attempt.number) == "cancelled"

    def progress(self, **reached: Any) -> None:
        """How far it is, as :attr:`harness.scheduler.run_states.Attempt.progress` has it; told with the next beat."""
        self._progress = {**self._progress, **reached}

    def done(self, top1: float | None) -> None:
        """Its record is written."""
        self._queue.done(self.attempt.number, top1, self.seconds)

    def failed(self, error: str, traceback: str) -> None:
        """It failed; costs a retry."""
        self._queue.end(
            self.attempt.number, "failed", error=error[:_TEXT], traceback=traceback[-_TEXT:], seconds=self._spent()
        )

    def preempted(self, reason: str) -> None:
        """Its worker has to leave it; costs nothing."""
        self._queue.end(self.attempt.number, "preempted", error=reason[:_TEXT], seconds=self._spent())

    def superseded(self) -> None:
        """It was recorded already when it was claimed."""
        self._queue.end(self.attempt.number, "superseded")

    def _spent(self) -> float:
        return round(self.seconds, 1)

    def _beat(self) -> None:
        """Beats, tells progress, and looks whether it was lost; in a thread of its own, with a session of its own."""
        queue, interval = self._queue, self._queue.interval
        told: dict[str, Any] = {}
        kept = queue._storage
        trial_id = queue._id(self.attempt.number)
        while not self._ended.wait(interval) and not self._lost.is_set():
            asked = time.monotonic()
            with contextlib.suppress(*FAULTS):
                kept.record_heartbeat(trial_id)
                if kept.get_trial(trial_id).state != TrialState.RUNNING:
                    self._lost.set()
                    break
                self._confirmed = asked
                if self._progress != told:
                    told = self._progress
                    with contextlib.suppress(UpdateFinishedTrialError):
                        kept.set_trial_user_attr(trial_id, "progress", {**told, "seconds": self._spent()})
        with contextlib.suppress(*FAULTS):
            kept.remove_session()


def attempt(trial: FrozenTrial, first: int = 0) -> Attempt:
    """A trial of the queue as plain data; `first` is the number of the queue's first attempt."""
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
