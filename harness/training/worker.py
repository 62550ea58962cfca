"""The training process, and the class with which a command starts it and talks to it.

A command trains in a separate process so that it need not load TensorFlow itself, and survives if TensorFlow crashes.
The command sends jobs through a pipe and receives events, plain mappings with an "event". What TensorFlow and the
Garden print goes to the log file of the attempt. SIGTERM asks the process to save a checkpoint and stop; it ignores
Ctrl-C, which the parent process handles. Only the parent knows whether this worker still holds the run: the event
{"event": "held?", "now": bool} asks it.
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
from harness.config.embedded_spec import EmbeddedSpec
from harness.config.experiment import Run, SettingsError
from harness.store.attempts import Interrupted, LostError
from harness.store.records import RunRecord
from harness.store.run_store import Store
from harness.system import files
from harness.system.errors import HarnessError
from harness.system.paths import Folder
from harness.training.garden_folder import GardenFolder

Event = Mapping[str, Any]
# Is called with each validation event during training; returns a reason, in one line, to end the run there, or None.
Watch = Callable[[Event], str | None]
# Returns whether this worker still holds the run: with True it checks now, with False the last check is good enough.
Held = Callable[[bool], bool]
# Is called every second during a job; returns an event to end the job at once with this as its last event, or None.
Over = Callable[[], Event | None]
# The last event of a job.
ENDS = ("done", "failed", "interrupted", "lost")
# Seconds that a process has to stop once it is asked to: enough to finish an inner loop and write a checkpoint.
GRACE = 120.0
# Seconds without an event after which a process counts as hung; compiling for a TPU and drawing data take far less.
SILENCE = 7200.0
# Error numbers for a lack of space: on the disk, in the user's quota, in a file.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# Messages about a lack of space, for errors without such a number: those of Python's tempfile, and of TensorFlow, which
# writes what it sends to a bucket to the local disk first.
_SAID_OF_FULL = (
    *map(os.strerror, sorted(_FULL)),
    "No usable temporary directory",
    "internal temporary file",
    "disk is full",
)
# Linux's option of prctl that sets the signal sent to a process when its parent ends.
_PR_SET_PDEATHSIG = 1


@dataclasses.dataclass(frozen=True)
class Job:
    """One job for the training process.

    Attributes:
      kind: "train" (train, evaluate and record a run; with `garden`, import a run that the Garden trained alone), or
        "evaluate" (evaluate a recorded run under the run's protocol).
      run: the run.
      data: folder of the data set.
      spec: how to draw the data set if it does not exist yet; None for a prepared one.
      results: the results folder.
      devices, parent: as in :class:`harness.training.loop.RunContext`.
      garden: the folder to import.
      watched: whether the process waits after each validation for an answer: None to continue, or a reason to end the
        run there.
      attempt: number of the attempt at the run.
      runs: folder or bucket of the runs, as in :class:`harness.store.run_store.Store`.
      log: a local file to print to, if the attempt's log is in a bucket.
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
        """The store of the runs."""
        return Store(self.results, self.runs)


class Worker:
    """The parent's side of the training process: starts it, sends it jobs and yields its events.

    The process is started with the first job, and again after it has died. As a context manager, this ends it.

    Args:
      target: the function that the process runs, called with its end of the pipe; :func:`serve`, except in tests.
      grace: seconds that the process has, once it was asked to stop, before it is killed.
      silence: seconds without an event after which the process is killed and its run has failed.
      wait: seconds that processes which train together have to find one another.
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
            self._process.join(timeout=10)  # TensorFlow leaves files behind if it is killed
        self._process.kill()
        self._process.join()

    def stop(self) -> None:
        """Asks the process to save a checkpoint and end its job; may be called in a signal handler.

        A process that does not train yet is killed: it has nothing to save, and may be waiting for workers that never
        come.
        """
        self._asked = self._asked or time.monotonic()
        if self._process is not None and self._process.is_alive():
            os.kill(self._process.pid, signal.SIGTERM if self._training else signal.SIGKILL)

    def events(
        self, job: Job, watch: Watch | None = None, held: Held = lambda _: True, over: Over = lambda: None
    ) -> Iterator[Event]:
        """Carries out a job and yields its events; the last event is one of :data:`ENDS`.

        Args:
          job: the job.
          watch: can end the run at a validation, when its checkpoint is already saved; the last event is then an
            "interrupted" with "watched": True, and the process is kept for the next job.
          held: is called from time to time and before anything is written; if it returns false, the last event is
            "lost".
          over: can end the job at once.

        If a file could not be written for lack of space, the last event is an "interrupted" with "full": True. If the
        other processes that train with this one are gone, or do not come, it is an "interrupted" with "deserted": True,
        and also with "alone": True if they never came.
        """
        if not job.store.in_bucket:
            yield from self._events(job, watch, held, over)
            return
        self._scratch = self._scratch or tempfile.TemporaryDirectory()
        log = Path(self._scratch.name) / "log.txt"
        log.write_bytes(b"")
        job = dataclasses.replace(job, log=log)
        for event in self._events(job, watch, _copying_first(held, functools.partial(_copy_log, job)), over):
            if event["event"] in ENDS and event["event"] != "lost":
                _copy_log(job)
            yield event

    def _events(self, job: Job, watch: Watch | None, held: Held, over: Over) -> Iterator[Event]:
        pipe = self._connected()
        job = dataclasses.replace(job, watched=watch is not None)
        self._training = False
        if self._asked:  # asked between two jobs
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
                # A process can join a cluster only once, so the next job needs a new process.
                if event["event"] == "done" or (event["event"] == "interrupted" and not event.get("deserted")):
                    self._process.join(timeout=self._grace)  # gives the workers time to disconnect from one another
                self._process.kill()
                self._process.join()
                self._process = None
            yield event
            if watch is not None and event["event"] == "validation":
                answer = watch(event)
                with contextlib.suppress(ConnectionError):  # the process died in the meantime, which is handled above
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
        """Waits until an event arrives; returns None then, or the job's last event if the process should be killed."""
        silent = 0  # counts polls, since a clock would go on while this process itself is suspended
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
    """A run that the watching command ended at a validation."""


class _StopRequest:
    """A signal handler that remembers the request to stop."""

    reason: str | None = None

    def __call__(self, *_: object) -> None:
        """Handles the signal."""
        self.reason = "asked to stop"


def serve(pipe: Connection) -> None:
    """Runs the main loop of the training process, until the pipe is closed or the process is asked to stop."""
    _end_with_parent()
    # Ctrl-C reaches all processes of a terminal, but only the parent decides what to do about it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # TensorFlow reads this when it is imported, which happens later.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    stop_request = _StopRequest()
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            job = pipe.recv()
            event = _carried_out(job, pipe, stop_request)
            pipe.send(event)
            stopped = event["event"] == "interrupted" and (stop_request.reason or not event["watched"])
            if stopped or job.devices.workers > 1:
                return


def _end_with_parent() -> None:
    """Asks Linux to kill this process when its parent dies, since it would not notice that while it computes."""
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
    """Copies the local log to the bucket; ignores errors, since a log is not worth losing a run."""
    if job.log is not None:
        with contextlib.suppress(OSError):
            files.replace(_log(job), job.log.read_bytes())


def _copying_first(held: Held, copy: Callable[[], None]) -> Held:
    """Wraps a check of ownership so that the log is copied before anything else is written.

    Args:
      held: the check.
      copy: copies the log.
    """

    def answer(now: bool) -> bool:
        is_held = held(now)
        if is_held and now:
            copy()
        return is_held

    return answer


def _carried_out(job: Job, pipe: Connection, stop_request: _StopRequest) -> Event:
    try:
        redirect_output(_printed(job))
        return _do(job, pipe, stop_request)
    except (BrokenPipeError, EOFError):
        raise
    except LostError:
        return {"event": "lost"}
    except Interrupted as stopped:
        watched = isinstance(stopped, _WatchedInterrupted)
        return {"event": "interrupted", "reason": str(stopped), "watched": watched}
    except Exception as error:
        with contextlib.suppress(OSError):  # the log's disk may be full, which may be the very error
            traceback.print_exc()
        if job.devices.workers > 1 and _is_desertion(error):
            return {"event": "interrupted", "reason": "another worker is gone", "watched": False, "deserted": True}
        if _is_full(error):
            return {"event": "interrupted", "reason": one_line(error), "watched": False, "full": True}
        fails_every_run = isinstance(error, DevicesError)
        return {
            "event": "failed",
            "error": one_line(error),
            "traceback": traceback.format_exc(),
            "every run": fails_every_run,
        }


def _is_full(error: BaseException) -> bool:
    """Returns whether an error is due to a lack of space: no fault of the run, and other runs would meet it too."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    numbers = {link.errno for link in chain if isinstance(link, OSError)}
    return bool(numbers & _FULL) or any(message in str(link) for message in _SAID_OF_FULL for link in chain)


def _printed(job: Job) -> Path:
    """Returns the file to print to, after creating its folder."""
    log = job.log or Path(str(_log(job)))  # a job whose attempt is in a bucket has a `log`
    log.parent.mkdir(parents=True, exist_ok=True)
    return log


def _is_desertion(error: Exception) -> bool:
    from harness.training import loop

    return loop.is_desertion(error)


def _do(job: Job, pipe: Connection, stop_request: _StopRequest) -> Event:
    from harness.data import embedded, manifest
    from harness.training import executor, garden_import, loop

    # Workers find one another here, and TensorFlow then replaces the handler of SIGTERM: so ours is set after it.
    loop.strategy_for(job.devices)
    signal.signal(signal.SIGTERM, stop_request)
    run, store = job.run, job.store
    if job.spec and not job.data.exists():
        pipe.send({"event": "data"})
    data_manifest = embedded.ensure(job.spec, job.data.parent) if job.spec else manifest.load(job.data)
    if data_manifest.fingerprint != run.data.fingerprint:
        raise SettingsError(f"{job.data}: its content changed since the study was planned (other fingerprint)")
    pipe.send({"event": "build"})
    with tempfile.TemporaryDirectory() as scratch:
        attempt = store.attempt(run.id, job.attempt)
        place = executor.run_context(store, run, attempt, job.data, job.devices, job.parent, scratch)
        report = _report_with_answers(pipe) if job.watched else pipe.send
        arguments = data_manifest, place, store, attempt, report, lambda: stop_request.reason, _asking_parent(pipe)
        record: RunRecord | None
        if job.kind == "evaluate":
            record = executor.evaluate(run, *arguments)
        elif job.garden is not None:
            record = garden_import.take_in(run, job.garden, *arguments)
        else:
            record = executor.execute(run, *arguments)
    if record is None:
        return {"event": "done"}
    evaluation = record.evaluations.get(run.protocol.name)
    if evaluation is None:
        return {"event": "done"}
    return {"event": "done", "top1": evaluation.top1, "top5": evaluation.top5, "videos": evaluation.videos}


def _report_with_answers(pipe: Connection) -> Callable[[Event], None]:
    """Returns a report function that waits for an answer to each validation, so that a run can end exactly there."""

    def report(event: Event) -> None:
        pipe.send(event)
        if event["event"] == "validation" and (reason := pipe.recv()) is not None:
            raise _WatchedInterrupted(reason)

    return report


def _asking_parent(pipe: Connection) -> Callable[[bool], None]:
    """Returns a function that asks the parent whether this worker still holds the run, and raises if not."""

    def hold(now: bool) -> None:
        pipe.send({"event": "held?", "now": now})
        if not pipe.recv():
            raise LostError("the run is another worker's meanwhile")

    return hold


def redirect_output(log: Path) -> None:
    """Appends everything that this process and its libraries print, also from C++, to the run's log."""
    sys.stdout.flush()
    sys.stderr.flush()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)


def one_line(error: Exception) -> str:
    """Describes an error in one line: the harness's errors by their message, others with their class."""
    text = " ".join(str(error).split())
    if isinstance(error, HarnessError):
        return text
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'file system'}: {error.strerror.lower()}"
    return f"{type(error).__name__}: {text[:300]}"
