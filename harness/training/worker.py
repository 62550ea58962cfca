"""A process of its own that trains: the command that started it stays free of TensorFlow, and outlives a crash of it.

Jobs go in through a pipe, events come out: plain mappings with an "event". What TensorFlow and the Garden print goes to
the log file of the attempt. SIGTERM asks the process to save a checkpoint and stop; Ctrl-C is the parent's to answer.
Whether the run is still this worker's only the parent knows: {"event": "held?", "now": bool} asks it.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import errno
import functools
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from harness.config.devices import WAIT, Devices, DevicesError
from harness.config.experiment import Run, SettingsError
from harness.data.embedded import EmbeddedSpec
from harness.store.attempts import Interrupted, LostError
from harness.store.records import RunRecord
from harness.store.run_store import Store
from harness.system import files
from harness.system.errors import HarnessError
from harness.system.paths import Folder
from harness.training.garden_folder import GardenFolder

Event = Mapping[str, Any]
# Is shown every validation of a run that trains; a reason, one line, ends the run there.
Watch = Callable[[Event], str | None]
# Says whether the run is still this worker's: as known when it was last heard, or, where True, looking now.
Held = Callable[[bool], bool]
# Asked every second while a job goes on; an event ends it at once, and is its last.
Over = Callable[[], Event | None]
# The last event of a job.
ENDS = ("done", "failed", "interrupted", "lost")
# Seconds that a process has to end what it is at once it was asked to stop: an inner loop, and writing a checkpoint.
GRACE = 120.0
# Seconds without a word after which a process hangs: compiling for a TPU and drawing data are over long before.
SILENCE = 7200.0
# How the system says that there is no space: on the disk, for this user, in a file.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# How others say it, who do not repeat the system: Python's tempfile, and TensorFlow, which keeps what it sends to a
# bucket on this machine's disk first.
_SAID_OF_FULL = (
    *map(os.strerror, sorted(_FULL)),
    "No usable temporary directory",
    "internal temporary file",
    "disk is full",
)
# Of Linux: the signal that a process gets when the one that started it ends.
_PR_SET_PDEATHSIG = 1


@dataclasses.dataclass(frozen=True)
class Job:
    """One thing for the worker to do.

    Attributes:
      kind: "train" (and evaluate and record; with `garden`, record what the Garden trained alone), or "evaluate" (a run
        that is recorded, under the run's protocol).
      run: the run.
      data: folder of the data set.
      spec: how to draw the data set first where it is not there; None for a prepared one.
      results: the results folder.
      devices, parent: as in :class:`harness.training.loop.Place`.
      attempt: number of the attempt at the run.
      garden: the folder to take in.
      watched: whether each validation waits for an answer: None to go on, or the reason to end the run there.
      runs: folder or bucket of the runs, as of :class:`harness.store.run_store.Store`.
      log: the file to print to where that of the attempt is in a bucket.
    """

    kind: str
    run: Run
    data: Path
    spec: EmbeddedSpec | None
    results: Path
    devices: Devices = Devices()
    parent: str | None = None
    garden: GardenFolder | None = None
    watched: bool = False
    attempt: int = 0
    runs: Folder | None = None
    log: Path | None = None

    @property
    def store(self) -> Store:
        """The records."""
        return Store(self.results, self.runs)


class Worker:
    """Starts the process on the first job and again after it has died; a context manager that ends it.

    Args:
      target: what the process runs, given its end of the pipe; :func:`serve` unless a test says otherwise.
      grace: seconds that the process has, once it was asked to stop, before it is killed.
      silence: seconds without a word after which it is killed, and its run has failed.
      wait: seconds that processes which train together have to meet.
    """

    def __init__(
        self,
        target: Callable[[Connection], None] | None = None,
        grace: float = GRACE,
        silence: float = SILENCE,
        wait: float = WAIT,
    ) -> None:
        self._target, self._grace, self._silence, self._wait = target or serve, grace, silence, wait
        self._process: Any = None
        self._pipe: Connection | None = None
        self._asked = 0.0
        self._training = False
        self._scratch: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._end(kind)
        if self._scratch is not None:
            self._scratch.cleanup()

    def _end(self, kind: type[BaseException] | None) -> None:
        if self._process is None or self._pipe is None:
            return
        self._pipe.close()
        if kind is None:
            self._process.join(timeout=10)  # TensorFlow leaves files behind where it is not let end by itself
        self._process.kill()
        self._process.join()

    def stop(self) -> None:
        """Asks the process to save a checkpoint and end its job; safe in a signal handler.

        Before it trains there is nothing to save, and it may be waiting for workers that never come: it is killed.
        """
        self._asked = self._asked or time.monotonic()
        if self._process is not None and self._process.is_alive():
            os.kill(self._process.pid, signal.SIGTERM if self._training else signal.SIGKILL)

    def events(
        self, job: Job, watch: Watch | None = None, held: Held = lambda _: True, over: Over = lambda: None
    ) -> Iterator[Event]:
        """Carries out a job; the last event is one of :data:`ENDS`.

        Args:
          job: the job.
          watch: may end the run at a validation, whose checkpoint is saved by then; the last event is then an
            "interrupted" with "watched": True, and the process stays for the next job.
          held: asked in between, and before anything is written; where it says no, the last event is "lost".
          over: may end the job at once.

        Where a file could not be written for want of space, the last event is an "interrupted" with "full": True.
        Where the other processes that train with this one are gone, or do not come, the last event is an "interrupted"
        with "deserted": True; with "alone": True too where they never came.
        """
        if not job.store.in_bucket:
            yield from self._events(job, watch, held, over)
            return
        self._scratch = self._scratch or tempfile.TemporaryDirectory()
        log = Path(self._scratch.name) / "log.txt"
        log.write_bytes(b"")
        job = dataclasses.replace(job, log=log)
        for event in self._events(job, watch, _then(held, functools.partial(_copy_log, job)), over):
            if event["event"] in ENDS and event["event"] != "lost":
                _copy_log(job)
            yield event

    def _events(self, job: Job, watch: Watch | None, held: Held, over: Over) -> Iterator[Event]:
        pipe = self._connected()
        job = dataclasses.replace(job, watched=watch is not None)
        self._training = False
        if self._asked:  # between two jobs
            self.stop()
        sent, last, met = False, None, job.devices.workers == 1
        while True:
            try:
                if not sent:
                    pipe.send(job)
                    sent = True
                last = last or self._ended(pipe, job, over, met)
                if last is not None:
                    self._process.kill()
                event = pipe.recv()
                met = True
                if event["event"] == "held?":
                    pipe.send(held(event["now"]))
                    continue
                self._training = self._training or event["event"] in ("attempt", "evaluate")
            except (EOFError, ConnectionError):
                self._process.join()
                yield self._stopped() if self._asked else last or self._died(_log(job))
                self._process = None
                return
            if event["event"] in ENDS and job.devices.workers > 1:
                # TensorFlow joins a cluster once in the life of a process.
                if event["event"] == "done" or (event["event"] == "interrupted" and not event.get("deserted")):
                    self._process.join(timeout=self._grace)  # they take leave of one another
                self._process.kill()
                self._process.join()
                self._process = None
            yield event
            if watch is not None and event["event"] == "validation":
                answer = watch(event)
                with contextlib.suppress(ConnectionError):  # it died meanwhile, which is met above
                    pipe.send(answer)
            if event["event"] in ENDS:
                return

    def _connected(self) -> Connection:
        if self._process is None or not self._process.is_alive() or self._pipe is None:
            context = multiprocessing.get_context("spawn")
            self._pipe, other = context.Pipe()
            self._process = context.Process(target=self._target, args=(other,), daemon=True)
            self._process.start()
            other.close()
        return self._pipe

    def _ended(self, pipe: Connection, job: Job, over: Over, met: bool) -> Event | None:
        """Waits for an event; the last one instead where the process is to be killed."""
        silent = 0  # looks, not a clock: while this process itself is stopped, nobody counts
        while not pipe.poll(1.0):
            silent += 1
            if self._asked and time.monotonic() - self._asked > self._grace:
                return self._stopped()
            if (last := over()) is not None:
                return last
            if not met and silent >= self._wait:
                reason = f"the other workers did not come within {self._wait:g} seconds"
                return {"event": "interrupted", "reason": reason, "deserted": True, "alone": True}
            if silent >= self._silence:
                return _failed(f"said nothing for {self._silence / 3600:g} hours and was ended", _log(job))
        return None

    def _stopped(self) -> Event:
        lost = "; the steps since its last checkpoint are lost" if self._training else ", nothing was trained yet"
        return {"event": "interrupted", "reason": f"ended when it was asked to stop{lost}"}

    def _died(self, log: Folder) -> Event:
        code = self._process.exitcode
        how = f"was killed by signal {-code}" if code and code < 0 else f"ended with exit code {code}"
        return _failed(how + ("; out of memory?" if code == -signal.SIGKILL else ""), log)


def _failed(how: str, log: Folder) -> Event:
    return {"event": "failed", "error": f"the training process {how}", "traceback": f"see {log}"}


class _WatchedInterrupted(Interrupted):
    """The run was ended at a validation by the command that watches it."""


class _Asked:
    """Remembers a SIGTERM."""

    reason: str | None = None

    def __call__(self, *_: object) -> None:
        """Handles the signal."""
        self.reason = "asked to stop"


def serve(pipe: Connection) -> None:
    """The worker's main loop: runs until the other end of the pipe is closed, or it was asked to stop."""
    _end_with_parent()
    # Ctrl-C reaches every process of a terminal: the parent decides what becomes of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Read when TensorFlow is imported, which happens below.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    asked = _Asked()
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            job = pipe.recv()
            event = _carried_out(job, pipe, asked)
            pipe.send(event)
            stopped = event["event"] == "interrupted" and (asked.reason or not event["watched"])
            if stopped or job.devices.workers > 1:
                return


def _end_with_parent() -> None:
    """Asks Linux to kill this process when its parent is killed, which nobody else would tell it while it computes."""
    parent = multiprocessing.parent_process()
    if parent is None or not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent.pid:
        os._exit(1)


def _log(job: Job) -> Folder:
    return job.store.attempt(job.run.id, job.attempt).log(job.devices.task_index)


def _copy_log(job: Job) -> None:
    """Copies what a process printed to the bucket; a log is not worth a run."""
    if job.log is not None:
        with contextlib.suppress(OSError):
            files.replace(_log(job), job.log.read_bytes())


def _then(held: Held, copy: Callable[[], None]) -> Held:
    """The same answers; where something is about to be written, the log is copied first."""

    def answer(now: bool) -> bool:
        still = held(now)
        if still and now:
            copy()
        return still

    return answer


def _carried_out(job: Job, pipe: Connection, asked: _Asked) -> Event:
    try:
        redirect_output(_printed(job))
        return _do(job, pipe, asked)
    except (BrokenPipeError, EOFError):
        raise
    except LostError:
        return {"event": "lost"}
    except Interrupted as stopped:
        watched = isinstance(stopped, _WatchedInterrupted)
        return {"event": "interrupted", "reason": str(stopped), "watched": watched}
    except Exception as error:
        with contextlib.suppress(OSError):  # the disk that it goes to may be full, and that the failure
            traceback.print_exc()
        if job.devices.workers > 1 and _is_desertion(error):
            return {"event": "interrupted", "reason": "another worker is gone", "watched": False, "deserted": True}
        if _is_full(error):
            return {"event": "interrupted", "reason": one_line(error), "watched": False, "full": True}
        every = isinstance(error, DevicesError)
        return {"event": "failed", "error": one_line(error), "traceback": traceback.format_exc(), "every run": every}


def _is_full(error: BaseException) -> bool:
    """Whether something could not be written for want of space: no fault of the run, and every other would meet it."""
    chain: list[BaseException] = []
    at: BaseException | None = error
    while at is not None and at not in chain:
        chain.append(at)
        at = at.__cause__ or at.__context__
    numbers = {one.errno for one in chain if isinstance(one, OSError)}
    return bool(numbers & _FULL) or any(words in str(one) for words in _SAID_OF_FULL for one in chain)


def _printed(job: Job) -> Path:
    """The file to print to, in a folder that is there."""
    log = job.log or Path(str(_log(job)))  # of one in a bucket it is told
    log.parent.mkdir(parents=True, exist_ok=True)
    return log


def _is_desertion(error: Exception) -> bool:
    from harness.training import loop

    return loop.is_desertion(error)


def _do(job: Job, pipe: Connection, asked: _Asked) -> Event:
    from harness.data import embedded, manifest
    from harness.training import executor, garden_import, loop

    # Workers meet here, and TensorFlow takes the signal for itself when they do.
    loop.strategy_for(job.devices)
    signal.signal(signal.SIGTERM, asked)
    run, store = job.run, job.store
    if job.spec and not job.data.exists():
        pipe.send({"event": "data"})
    described = embedded.ensure(job.spec, job.data.parent) if job.spec else manifest.load(job.data)
    if described.fingerprint != run.data.fingerprint:
        raise SettingsError(f"{job.data}: its content changed since the study was planned (other fingerprint)")
    pipe.send({"event": "build"})
    with tempfile.TemporaryDirectory() as scratch:
        attempt = store.attempt(run.id, job.attempt)
        place = executor.place_of(store, run, attempt, job.data, job.devices, job.parent, scratch)
        report = _answered(pipe) if job.watched else pipe.send
        how = described, place, store, attempt, report, lambda: asked.reason, _asking(pipe)
        record: RunRecord | None
        if job.kind == "evaluate":
            record = executor.evaluate(run, *how)
        elif job.garden is not None:
            record = garden_import.take_in(run, job.garden, *how)
        else:
            record = executor.execute(run, *how)
    if record is None:
        return {"event": "done"}
    evaluation = record.evaluations.get(run.protocol.name)
    if evaluation is None:
        return {"event": "done"}
    return {"event": "done", "top1": evaluation.top1, "top5": evaluation.top5, "videos": evaluation.videos}


def _answered(pipe: Connection) -> Callable[[Event], None]:
    """A report that waits for an answer to each validation, so that a run ends at that step and at no later one."""

    def report(event: Event) -> None:
        pipe.send(event)
        if event["event"] == "validation" and (reason := pipe.recv()) is not None:
            raise _WatchedInterrupted(reason)

    return report


def _asking(pipe: Connection) -> Callable[[bool], None]:
    """Asks the parent whether the run is still this worker's."""

    def hold(now: bool) -> None:
        pipe.send({"event": "held?", "now": now})
        if not pipe.recv():
            raise LostError("the run is another worker's meanwhile")

    return hold


def redirect_output(log: Path) -> None:
    """Sends what this process and its libraries print, in C++ too, to the end of the run's log."""
    sys.stdout.flush()
    sys.stderr.flush()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)


def one_line(error: Exception) -> str:
    """What went wrong, in one line: ours as it is, others with their kind."""
    text = " ".join(str(error).split())
    if isinstance(error, HarnessError):
        return text
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'file system'}: {error.strerror.lower()}"
    return f"{type(error).__name__}: {text[:300]}"
