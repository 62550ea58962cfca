"""The workers that share a sweep, and which trial each has; a trial that one leaves, another takes up.

One worker at a time chooses a point. A trial names its worker and gets a heartbeat while it is trained. A worker killed
on this machine is noticed at once, one on another machine by its missing heartbeat. It is the queue of runs
(:mod:`harness.scheduler.run_queue`), and not this module, that prevents training a run twice.
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
from harness.sweep.trial_store import Trial

_BEATS = 4  # heartbeats in a lease
_LOOK = (0.02, 0.1)  # seconds between two tries to be the one that chooses a point
_OFTEN = 10  # tries between two calls of `wait`
_CODE = "code"


class Workers:
    """The workers of one sweep, as one of them sees them.

    Args:
      study: Optuna's study.
      kept: the storage behind it.
      token: token of this process, as :func:`harness.scheduler.liveness.present` gives it.
      lease: seconds after which the trial of a silent worker is given up.
      patient: retries calls of the storage while it does not answer.
    """

    def __init__(self, study: optuna.Study, kept: RDBStorage, token: str, lease: float, patient: Patience) -> None:
        self._study, self._kept, self.patient = study, kept, patient
        self._own = (f"{socket.gethostname()}:{os.getpid()}", token)
        kept.heartbeat_interval = max(1, round(lease / _BEATS))
        kept.grace_period = round(lease)

    def join(self, where: str) -> list[str]:
        """Joins the sweep's workers, or continues a sweep without any; returns lines to print.

        Args:
          where: name of the storage in messages.

        Raises:
          StorageError: its workers run other code, or run on another machine, with which SQLite cannot be shared.
        """
        with self.alone():
            self.fail_silent()
            busy = sorted({trial.owner[0] for trial in self.others(trial_store.trials(self._study))})
            self._refuse_other_hosts(busy, where)
            theirs, ours = self._study.user_attrs.get(_CODE), sharing.code()
            differ = [] if theirs is None else sharing.differences(_entry(theirs), _entry(ours))
            name = self._study.study_name
            if differ and busy:
                raise StorageError(
                    f"sweep {name!r}: {', '.join(busy)} trains it with other code: {'; '.join(differ)}; start with "
                    "the same, or once it has ended"
                )
            if differ or theirs is None:
                self._study.set_user_attr(_CODE, ours)
        if differ:
            return [f"Sweep {name}: goes on with other code than it was begun with: {'; '.join(differ)}"]
        return [f"Joining {', '.join(busy)}."] if busy else []

    def _refuse_other_hosts(self, at_it: Sequence[str], where: str) -> None:
        hosts = {worker.partition(":")[0] for worker in at_it} - {socket.gethostname()}
        if hosts and self._kept.engine.dialect.name == "sqlite":
            raise StorageError(
                f"{where}: {min(hosts)} trains with it, and SQLite is for one machine; share a sweep by --storage "
                "postgresql+psycopg://HOST/DATABASE"
            )

    @contextlib.contextmanager
    def alone(self, wait: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Waits until no other worker chooses a point, and keeps others from choosing one in the context.

        Args:
          wait: called now and then while waiting; may raise.
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
        """Makes a running trial this worker's; must be called within :meth:`alone`."""
        self._kept.record_heartbeat(trial._trial_id)
        trial.set_user_attr(trial_store.OWNER, list(self._own))
        return trial

    def has(self, one: Trial) -> bool:
        """Returns whether a trial is or was this worker's."""
        return one.owner == self._own

    def left(self, found: Sequence[Trial]) -> list[Trial]:
        """Returns running trials whose worker gave them back or ended; must be called within :meth:`alone`."""
        return [trial for trial in found if trial.state == "running" and _free(trial)]

    def others(self, found: Sequence[Trial]) -> list[Trial]:
        """Returns the running trials that have a worker, as far as is known."""
        return [trial for trial in found if trial.state == "running" and not _free(trial)]

    def fail_silent(self) -> None:
        """Fails the trials of workers that fell silent."""
        optuna.storages.fail_stale_trials(self._study)

    @contextlib.contextmanager
    def at(self, trial: optuna.Trial) -> Iterator[None]:
        """Sends heartbeats while a trial is trained, and gives the trial back if the worker has to leave it."""
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
        """Gives a trial back if this worker has to leave it, for another to take up."""
        try:
            yield
        except BaseException:
            with contextlib.suppress(*FAULTS, UpdateFinishedTrialError):  # otherwise its missing heartbeat tells
                trial.set_user_attr(trial_store.OWNER, None)
            raise

    def _beat(self, trial_id: int, ended: threading.Event) -> None:
        interval = self._kept.heartbeat_interval
        while not ended.wait(interval):
            with contextlib.suppress(*FAULTS):
                self._kept.record_heartbeat(trial_id)
        with contextlib.suppress(*FAULTS):
            self._kept.remove_session()


def _free(trial: Trial) -> bool:
    return not trial.owner[0] or liveness.gone(trial.owner[1])


def _entry(code: dict[str, Any]) -> dict[str, Any]:
    """Returns an entry for :func:`harness.scheduler.sharing.differences`; settings are compared in `trial_store`."""
    return {"code": code, "settings": {}, "rows": {}}
