"""The orders by which the first of several workers, the chief, tells the others which run to train with it.

If every worker claimed from the queue, each would train another run. So only the chief claims a run, and it writes the
run as an order into a file of the results folder, which all workers can read. Each order has its own token, because the
same run is ordered again after a worker was lost. The chief rewrites the file every two seconds with a new beat: a
reader sees from the change that the chief is alive, without comparing clocks.

RESULTS/.cluster-<hash of the hosts>.json          the chief's latest order
RESULTS/.cluster-<hash of the hosts>-<index>.json  why an order failed on another worker
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from harness.config.devices import WAIT, Devices
from harness.system import files

# Exit status of a worker that waited for the other workers in vain; the cluster's scheduler starts them all again.
TEMPORARY = os.EX_TEMPFAIL
_BEAT = 2.0
_LOOK = 0.5
# Seconds to wait, once another worker is found to be gone, for the file in which it says why it failed.
_LATE = 3.0
# Seconds that an order may still take once the chief itself has ended.
_ENDING = 10.0


@dataclasses.dataclass(frozen=True)
class Assignment:
    """The attempt that the chief is carrying out.

    Attributes:
      token: identifies this order; empty if there is no order at present.
      run: id of the run.
      protocol: name of the protocol that the run is evaluated under.
      kind: kind of the job, see :class:`harness.training.worker.Job`.
      attempt: number of the attempt.
      status: exit status of the chief once it has ended; None before.
      beat: a random token, new each time the file is written.
    """

    token: str = ""
    run: str = ""
    protocol: str = ""
    kind: str = ""
    attempt: int = 0
    status: int | None = None
    beat: str = ""


@dataclasses.dataclass(frozen=True)
class Fault:
    """The error that keeps a worker other than the chief from carrying out an order, while all workers are present.

    Attributes:
      token: token of the order.
      error: the error, in one line.
      traceback: where in the code it was raised.
      every_run: whether every run of the study would fail with it.
    """

    token: str
    error: str
    traceback: str = ""
    every_run: bool = False


class SilentError(Exception):
    """Raised when the chief has not written its file for too long."""


def _file(root: Path, devices: Devices, index: int = 0) -> Path:
    digest = hashlib.sha256(",".join(devices.worker_hosts).encode()).hexdigest()[:12]
    return root / f".cluster-{digest}{f'-{index}' if index else ''}.json"


def _write(path: Path, content: Assignment | Fault) -> None:
    with contextlib.suppress(OSError):  # a full disk, for instance: the run itself meets that error and reports it
        files.replace(path, json.dumps(dataclasses.asdict(content)).encode())


def _read(path: Path) -> dict[str, Any] | None:
    with contextlib.suppress(OSError, ValueError):
        content = json.loads(path.read_text())
        return content if isinstance(content, dict) else None
    return None


class Broadcast:
    """Gives the chief's orders to the other workers; a context manager, in which a thread writes the beats.

    Args:
      root: the results folder.
      devices: names the workers.
      beat: seconds between two beats.

    Attributes:
      failed: whether a run failed for good.
    """

    def __init__(self, root: Path, devices: Devices, beat: float = _BEAT) -> None:
        self.failed = False
        self._root, self._devices, self._every = root, devices, beat
        self._now = Assignment()
        self._lock, self._over = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Broadcast:
        self._say(Assignment())
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def give(self, run: str, protocol: str, kind: str, attempt: int) -> None:
        """Orders the other workers to carry out an attempt at a run."""
        self._say(Assignment(secrets.token_hex(8), run, protocol, kind, attempt))

    def withdraw(self) -> None:
        """Withdraws the current order: workers that are still carrying it out abandon it."""
        self._say(Assignment())

    def end(self, status: int) -> None:
        """Tells the other workers that the chief is about to end with an exit status."""
        self._say(dataclasses.replace(self._now, status=status))

    def fault(self, patience: float = 0.0) -> tuple[int, Fault] | None:
        """Returns the index of a worker on which the order failed, and the reason; None if it failed on none.

        Args:
          patience: seconds to wait for a failure.
        """
        until = time.monotonic() + patience
        while True:
            for index in range(1, self._devices.workers):
                content = _read(_file(self._root, self._devices, index))
                if content is not None and self._now.token and content.get("token") == self._now.token:
                    with contextlib.suppress(TypeError):  # written by other code
                        return index, Fault(**content)
            if time.monotonic() >= until:
                return None
            time.sleep(min(_LOOK, patience))

    def late_fault(self) -> tuple[int, Fault] | None:
        """Returns the same as `fault` after a worker was found to be gone, waiting for it to write why it failed."""
        return self.fault(_LATE)

    def _say(self, order: Assignment) -> None:
        with self._lock:
            self._now = order
            self._written()

    def _written(self) -> None:
        _write(_file(self._root, self._devices), dataclasses.replace(self._now, beat=secrets.token_hex(8)))

    def _beat(self) -> None:
        while not self._over.wait(self._every):
            with self._lock:
                self._written()


class Follower:
    """Reads the chief's orders in a worker that is not the chief.

    The file that is there when the worker starts may be old: nothing counts until the file has changed.

    Args:
      root: the results folder.
      devices: names the workers, and which of them this one is.
      wait: seconds that the chief may be silent.
    """

    def __init__(self, root: Path, devices: Devices, wait: float = WAIT) -> None:
        self._root, self._devices, self._wait = root, devices, wait
        self._seen = self._content()
        self._since = time.monotonic()
        self._alive = False
        self._taken = Assignment()
        self._ended: float | None = None

    def _content(self) -> Assignment | None:
        content = _read(_file(self._root, self._devices))
        with contextlib.suppress(TypeError):  # written by other code
            return None if content is None else Assignment(**content)
        return None

    def order(self) -> Assignment | None:
        """Returns the chief's latest order, or None if the file has not changed yet.

        Raises:
          SilentError: the chief has not written the file for too long.
        """
        order = self._content()
        if order is not None and order != self._seen:
            self._seen, self._alive, self._since = order, True, time.monotonic()
        if time.monotonic() - self._since > self._wait:
            raise SilentError(f"nothing was heard of the first worker for {self._wait:g} seconds")
        return self._seen if self._alive else None

    def orders(self, asked: Callable[[], bool]) -> Iterator[Assignment]:
        """Yields each new order once; the last one carries the status that the chief ended with.

        Args:
          asked: returns whether this process was asked to stop, which ends the iteration.

        Raises:
          SilentError: see :meth:`order`.
        """
        while not asked():
            order = self.order()
            if order is not None and order.status is not None:
                yield order
                return
            if order is None or order.token in ("", self._taken.token):
                time.sleep(_LOOK)
                continue
            self._taken, self._ended = order, None
            yield order

    def left(self) -> bool:
        """Returns whether the chief has left the order that this worker took last.

        Raises:
          SilentError: see :meth:`order`.
        """
        order = self.order()
        if order is None or order.token != self._taken.token:
            return True
        if order.status is None:
            return False
        if self._ended is None:
            self._ended = time.monotonic()  # the workers that trained with the chief are about to end too
        return time.monotonic() - self._ended > _ENDING

    def failed(self, error: str, traceback: str = "", every_run: bool = False) -> None:
        """Writes down, for the chief, why the order failed on this worker."""
        fault = Fault(self._taken.token, error, traceback, every_run)
        _write(_file(self._root, self._devices, self._devices.task_index), fault)


@contextlib.contextmanager
def broadcast(root: Path, devices: Devices) -> Iterator[Broadcast | None]:
    """Opens the chief's orders and writes its exit status at the end.

    Yields:
      The orders, or None if this worker works alone.
    """
    if devices.workers == 1:
        yield None
        return
    with Broadcast(root, devices) as chief_orders:
        status = 2
        try:
            yield chief_orders
            status = int(chief_orders.failed)
        except KeyboardInterrupt:
            status = 130
            raise
        except BaseException as error:
            status = getattr(error, "exit_status", 2)
            raise
        finally:
            chief_orders.end(status)
