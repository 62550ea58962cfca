"""Who is at which trial of a sweep: several workers share one, and what one of them left another takes up.

Points are chosen by one worker at a time. A trial names the worker that has it and beats while it is trained; one that
was killed on this machine is found out at once, another machine's by its silence. That no run is trained twice does
not rest on this, but on the queue of runs (:mod:`harness.scheduler.run_queue`).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage

from harness.scheduler import liveness, optuna_storage, sharing
from harness.scheduler.optuna_storage import FAULTS, Patience, StorageError
from harness.sweep import trial_store
from harness.sweep.trial_store import Tried

_BEATS = 4  # in a lease
_LOOK = (0.02, 0.1)  # seconds between two looks at whether another worker has chosen its point
_OFTEN = 10  # such looks
_CODE = "code"


class Workers:
    """The workers at one sweep, seen from one of them.

    Args:
      study: Optuna's study.
      kept: the storage behind it.
      token: of this process, as :func:`harness.scheduler.liveness.present` gives it.
      lease: seconds after which the trial of a silent worker is given up.
      patient: asks the storage again while it does not answer.
    """

    def __init__(self, study: optuna.Study, kept: RDBStorage, token: str, lease: float, patient: Patience) -> None:
        self._study, self._kept, self.patient = study, kept, patient
        self._own = (f"{socket.gethostname()}:{os.getpid()}", token)
        kept.heartbeat_interval = max(1, round(lease / _BEATS))
        kept.grace_period = round(lease)

    def join(self, where: str) -> list[str]:
        """Joins the sweep, or goes on with one that nobody is at; lines to say.

        Args:
          where: what the storage is called in messages.

        Raises:
          StorageError: workers are at it that run other code, or on another machine that SQLite cannot be shared with.
        """
        with self.alone():
            self.fail_silent()
            at_it = sorted({one.owner[0] for one in self.others(trial_store.trials(self._study))})
            self._refuse_other_hosts(at_it, where)
            theirs, ours = self._study.user_attrs.get(_CODE), sharing.code()
            differ = [] if theirs is None else sharing.differences(_entry(theirs), _entry(ours))
            name = self._study.study_name
            if differ and at_it:
                raise StorageError(
                    f"sweep {name!r}: {', '.join(at_it)} trains it with other code: {'; '.join(differ)}; start with "
                    "the same, or once it has ended"
                )
            if differ or theirs is None:
                self._study.set_user_attr(_CODE, ours)
        if differ:
            return [f"Sweep {name}: goes on with other code than it was begun with: {'; '.join(differ)}"]
        return [f"Joining {', '.join(at_it)}."] if at_it else []

    def _refuse_other_hosts(self, at_it: Sequence[str], where: str) -> None:
        hosts = {one.partition(":")[0] for one in at_it} - {socket.gethostname()}
        if hosts and self._kept.engine.dialect.name == "sqlite":
            raise StorageError(
                f"{where}: {min(hosts)} trains with it, and SQLite is for one machine; share a sweep by --storage "
                "postgresql+psycopg://HOST/DATABASE"
            )

    @contextlib.contextmanager
    def alone(self, wait: Callable[[], None] = lambda: None) -> Iterator[None]:
        """While no other worker chooses a point; waits until it has.

        Args:
          wait: is called now and then, and may raise.
        """
        for times in itertools.count(1):
            with optuna_storage.try_alone(self._kept) as alone:
                if alone:
                    yield
                    return
            time.sleep(random.uniform(*_LOOK))  # noqa: S311 - to be apart from others, not to be a secret
            if times % _OFTEN == 0:
                wait()

    def take(self, trial: optuna.Trial) -> optuna.Trial:
        """Makes a running trial this worker's; to be called while it is alone."""
        self._kept.record_heartbeat(trial._trial_id)
        trial.set_user_attr(trial_store.OWNER, list(self._own))
        return trial

    def has(self, one: Tried) -> bool:
        """Whether a trial is, or was, this worker's."""
        return one.owner == self._own

    def left(self, found: Sequence[Tried]) -> list[Tried]:
        """The running trials that nobody is at: their worker gave them back, or ended here; asked while it is alone."""
        return [one for one in found if one.state == "running" and _free(one)]

    def others(self, found: Sequence[Tried]) -> list[Tried]:
        """The running trials that somebody is at, as far as is known."""
        return [one for one in found if one.state == "running" and not _free(one)]

    def fail_silent(self) -> None:
        """Gives up the trials of workers that fell silent."""
        optuna.storages.fail_stale_trials(self._study)

    @contextlib.contextmanager
    def at(self, trial: optuna.Trial) -> Iterator[None]:
        """Beats while a trial is trained; one that has to be left is given back."""
        ended = threading.Event()
        thread = threading.Thread(target=self._beat, args=(trial._trial_id, ended), daemon=True)
        thread.start()
        try:
            with self.giving_back(trial):
                yield
        finally:
            ended.set()
            thread.join(timeout=10)  # it may be waiting for a storage that does not answer

    @contextlib.contextmanager
    def giving_back(self, trial: optuna.Trial) -> Iterator[None]:
        """Gives a trial back where this worker has to leave it, for the next one to take up."""
        try:
            yield
        except BaseException:
            with contextlib.suppress(*FAULTS, UpdateFinishedTrialError):  # else its silence tells
                trial.set_user_attr(trial_store.OWNER, None)
            raise

    def _beat(self, trial_id: int, ended: threading.Event) -> None:
        interval = self._kept.heartbeat_interval
        while not ended.wait(interval):
            with contextlib.suppress(*FAULTS):
                self._kept.record_heartbeat(trial_id)
        with contextlib.suppress(*FAULTS):
            self._kept.remove_session()


def _free(one: Tried) -> bool:
    return not one.owner[0] or liveness.gone(one.owner[1])


def _entry(code: dict[str, Any]) -> dict[str, Any]:
    """What :func:`harness.scheduler.sharing.differences` compares; a sweep's settings are compared elsewhere."""
    return {"code": code, "settings": {}, "rows": {}}
