"""How the workers that train one run together agree on which: the first claims it from the queue, the others follow.

If each claimed from the queue, each would be at another run. So only the first one, the chief, does, and says in a
file of the results folder, which all of them see, what it is at: an order. An order has a token of its own, since the
same run is ordered anew whenever a worker was lost. The chief writes the file again every other second, with another
beat: whoever reads it tells by the change that somebody is there, and compares no clocks.

RESULTS/.cluster-<hash of the hosts>.json          the chief's last word
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

# Exit status of a worker whose others do not come: their scheduler starts them again.
TEMPORARY = os.EX_TEMPFAIL
_BEAT = 2.0
_LOOK = 0.5
# Seconds in which another worker's own failure is known here, at the latest, once it was found to be gone.
_LATE = 3.0
# Seconds that an order may take to its end once the chief itself has ended.
_ENDING = 10.0


@dataclasses.dataclass(frozen=True)
class Order:
    """What the chief is at.

    Attributes:
      token: of this order; empty where there is none just now.
      run: id of the run.
      protocol: name of the protocol that it is evaluated under.
      kind: as of :class:`harness.training.worker.Job`.
      attempt: number of the attempt.
      status: exit status of the chief once it has ended, None before.
      beat: another one each time that the file is written.
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
    """What keeps a worker that is not the chief from carrying out an order, while no other worker is gone.

    Attributes:
      token: of the order.
      error: why, in one line.
      traceback: where in the code.
      every_run: whether every run of the study would meet it.
    """

    token: str
    error: str
    traceback: str = ""
    every_run: bool = False


class SilentError(Exception):
    """Nothing was heard of the chief for too long."""


def _file(root: Path, devices: Devices, index: int = 0) -> Path:
    digest = hashlib.sha256(",".join(devices.worker_hosts).encode()).hexdigest()[:12]
    return root / f".cluster-{digest}{f'-{index}' if index else ''}.json"


def _write(path: Path, content: Order | Fault) -> None:
    with contextlib.suppress(OSError):  # a full disk: what matters of it is met by the run itself
        files.replace(path, json.dumps(dataclasses.asdict(content)).encode())


def _read(path: Path) -> dict[str, Any] | None:
    with contextlib.suppress(OSError, ValueError):
        content = json.loads(path.read_text())
        return content if isinstance(content, dict) else None
    return None


class Orders:
    """What the chief gives; a context manager, in which a thread writes a beat.

    Args:
      root: the results folder.
      devices: who the workers are.
      beat: seconds between two beats.

    Attributes:
      failed: whether a run failed for good.
    """

    def __init__(self, root: Path, devices: Devices, beat: float = _BEAT) -> None:
        self.failed = False
        self._root, self._devices, self._every = root, devices, beat
        self._now = Order()
        self._lock, self._over = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Orders:
        self._say(Order())
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def give(self, run: str, protocol: str, kind: str, attempt: int) -> None:
        """An attempt at a run begins."""
        self._say(Order(secrets.token_hex(8), run, protocol, kind, attempt))

    def withdraw(self) -> None:
        """What was ordered has come to nothing: those who are at it still leave it."""
        self._say(Order())

    def end(self, status: int) -> None:
        """The chief is about to end."""
        self._say(dataclasses.replace(self._now, status=status))

    def fault(self, patience: float = 0.0) -> tuple[int, Fault] | None:
        """Index of a worker on which the order failed, and why; None where it did on none.

        Args:
          patience: seconds to wait for one.
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
        """The same, where a worker was found to be gone, and may have said why a moment ago."""
        return self.fault(_LATE)

    def _say(self, order: Order) -> None:
        with self._lock:
            self._now = order
            self._written()

    def _written(self) -> None:
        _write(_file(self._root, self._devices), dataclasses.replace(self._now, beat=secrets.token_hex(8)))

    def _beat(self) -> None:
        while not self._over.wait(self._every):
            with self._lock:
                self._written()


class Heard:
    """What a worker that is not the chief hears of it.

    What lies there when it starts may be of long ago: nothing counts before the file was seen to change.

    Args:
      root: the results folder.
      devices: who the workers are, and which this one is.
      wait: seconds that the chief may be silent.
    """

    def __init__(self, root: Path, devices: Devices, wait: float = WAIT) -> None:
        self._root, self._devices, self._wait = root, devices, wait
        self._seen = self._content()
        self._since = time.monotonic()
        self._alive = False
        self._taken = Order()
        self._ended: float | None = None

    def _content(self) -> Order | None:
        content = _read(_file(self._root, self._devices))
        with contextlib.suppress(TypeError):  # written by other code
            return None if content is None else Order(**content)
        return None

    def order(self) -> Order | None:
        """The chief's word by now; None where it was not heard yet.

        Raises:
          SilentError: nothing was heard of it for too long.
        """
        found = self._content()
        if found is not None and found != self._seen:
            self._seen, self._alive, self._since = found, True, time.monotonic()
        if time.monotonic() - self._since > self._wait:
            raise SilentError(f"nothing was heard of the first worker for {self._wait:g} seconds")
        return self._seen if self._alive else None

    def orders(self, asked: Callable[[], bool]) -> Iterator[Order]:
        """Each new order, once; the last one carries the status that the chief ended with.

        Args:
          asked: whether somebody asked this process to stop, which ends them.

        Raises:
          SilentError: as of :meth:`order`.
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
        """Whether the chief is not at the order any more that this worker took last.

        Raises:
          SilentError: as of :meth:`order`.
        """
        order = self.order()
        if order is None or order.token != self._taken.token:
            return True
        if order.status is None:
            return False
        if self._ended is None:
            self._ended = time.monotonic()  # whoever trained with it is about to end too
        return time.monotonic() - self._ended > _ENDING

    def failed(self, error: str, traceback: str = "", every_run: bool = False) -> None:
        """Says why the order failed here."""
        fault = Fault(self._taken.token, error, traceback, every_run)
        _write(_file(self._root, self._devices, self._devices.task_index), fault)


@contextlib.contextmanager
def orders(root: Path, devices: Devices) -> Iterator[Orders | None]:
    """The orders of a chief, which says in the end how it ended; None where it works alone."""
    if devices.workers == 1:
        yield None
        return
    with Orders(root, devices) as given:
        status = 2
        try:
            yield given
            status = int(given.failed)
        except KeyboardInterrupt:
            status = 130
            raise
        except BaseException as error:
            status = getattr(error, "exit_status", 2)
            raise
        finally:
            given.end(status)
