"""A process of its own that trains: the command that started it stays free of TensorFlow, and outlives a crash of it.

Jobs go in through a pipe, events come out: plain mappings with an "event". What TensorFlow and the Garden print goes to
the run's log file. SIGTERM asks the process to save a checkpoint and stop; Ctrl-C is the parent's to answer.
"""

from __future__ import annotations

import contextlib
import dataclasses
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

from harness.attempts import Interrupted
from harness.data.embedded import EmbeddedSpec
from harness.devices import Devices, DevicesError
from harness.experiment import Run, SettingsError
from harness.garden_folder import GardenFolder
from harness.records import RunRecord
from harness.store import Store

Event = Mapping[str, Any]
# Is shown every validation of a run that trains; a reason, one line, ends the run there.
Watch = Callable[[Event], str | None]
# The last event of a job.
ENDS = ("done", "failed", "interrupted")
# Seconds that a process has to end what it is at once it was asked to stop: an inner loop, and writing a checkpoint.
_GRACE = 120.0


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
      devices, parent: as in :class:`harness.runner.Place`.
      garden: the folder to take in.
      watched: whether each validation waits for an answer: None to go on, or the reason to end the run there.
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


class Worker:
    """Starts the process on the first job and again after it has died; a context manager that ends it."""

    def __init__(self) -> None:
        self._process: Any = None
        self._pipe: Connection | None = None
        self._asked = 0.0
        self._training = False

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
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

    def events(self, job: Job, watch: Watch | None = None) -> Iterator[Event]:
        """Carries out a job; the last event is one of :data:`ENDS`.

        Args:
          job: the job.
          watch: may end the run at a validation, whose checkpoint is saved by then; the last event is then an
            "interrupted" with "watched": True, and the process stays for the next job.
        """
        pipe = self._connected()
        job = dataclasses.replace(job, watched=watch is not None)
        self._training = False
        if self._asked:  # between two jobs
            self.stop()
        sent = False
        while True:
            try:
                if not sent:
                    pipe.send(job)
                    sent = True
                if not self._answers(pipe):
                    self._process.kill()
                event = pipe.recv()
                self._training = self._training or event["event"] in ("attempt", "evaluate")
            except (EOFError, ConnectionError):
                self._process.join()
                yield self._died(Store(job.results).log(job.run.id, job.devices.task_index))
                self._process = None
                return
            if event["event"] in ENDS and job.devices.workers > 1:
                # TensorFlow joins a cluster once in the life of a process.
                self._process.join(timeout=_GRACE)
                self._process.kill()
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
            self._process = context.Process(target=serve, args=(other,), daemon=True)
            self._process.start()
            other.close()
        return self._pipe

    def _answers(self, pipe: Connection) -> bool:
        """Waits for an event; false where a process that was asked to stop has not said anything for too long."""
        while not pipe.poll(1.0):
            if self._asked and time.monotonic() - self._asked > _GRACE:
                return False
        return True

    def _died(self, log: Path) -> Event:
        if self._asked:
            lost = "; the steps since its last checkpoint are lost" if self._training else ", nothing was trained yet"
            return {"event": "interrupted", "reason": f"ended when it was asked to stop{lost}"}
        code = self._process.exitcode
        how = f"was killed by signal {-code}" if code and code < 0 else f"ended with exit code {code}"
        hint = "; out of memory?" if code == -signal.SIGKILL else ""
        return {"event": "failed", "error": f"the training process {how}{hint}", "traceback": f"see {log}"}


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


def _carried_out(job: Job, pipe: Connection, asked: _Asked) -> Event:
    log = Store(job.results).log(job.run.id, job.devices.task_index)
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        redirect_output(log)
        return _do(job, pipe, asked)
    except (BrokenPipeError, EOFError):
        raise
    except Interrupted as stopped:
        watched = isinstance(stopped, _WatchedInterrupted)
        return {"event": "interrupted", "reason": str(stopped), "watched": watched}
    except Exception as error:
        traceback.print_exc()
        every = isinstance(error, DevicesError)
        return {"event": "failed", "error": one_line(error), "traceback": traceback.format_exc(), "every run": every}


def _do(job: Job, pipe: Connection, asked: _Asked) -> Event:
    from harness import execution, importing, runner
    from harness.data import embedded, manifest
    from harness.runner import Place

    # Workers meet here, and TensorFlow takes the signal for itself when they do.
    runner.strategy_for(job.devices)
    signal.signal(signal.SIGTERM, asked)
    run, store = job.run, Store(job.results)
    if job.spec and not job.data.exists():
        pipe.send({"event": "data"})
    described = embedded.ensure(job.spec, job.data.parent) if job.spec else manifest.load(job.data)
    if described.fingerprint != run.data.fingerprint:
        raise SettingsError(f"{job.data}: its content changed since the study was planned (other fingerprint)")
    pipe.send({"event": "build"})
    with tempfile.TemporaryDirectory() as scratch:
        checkpoints = str(store.checkpoints(run.id).absolute())
        place = Place(str(job.data.absolute()), checkpoints, job.devices, job.parent, scratch)
        report = _answered(pipe) if job.watched else pipe.send
        how = described, place, store, report, lambda: asked.reason
        record: RunRecord | None
        if job.kind == "evaluate":
            store.write_evaluation(store.read(run.id), execution.evaluated(run, run.protocol, *how))
            record = store.read(run.id)
        elif job.garden is not None:
            record = importing.take_in(run, job.garden, *how)
        else:
            record = execution.execute(run, *how)
    if record is None:
        return {"event": "done"}
    evaluation = record.evaluations[run.protocol.name]
    return {"event": "done", "top1": evaluation.top1, "top5": evaluation.top5, "videos": evaluation.videos}


def _answered(pipe: Connection) -> Callable[[Event], None]:
    """A report that waits for an answer to each validation, so that a run ends at that step and at no later one."""

    def report(event: Event) -> None:
        pipe.send(event)
        if event["event"] == "validation" and (reason := pipe.recv()) is not None:
            raise _WatchedInterrupted(reason)

    return report


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
    if type(error).__module__.startswith("harness."):
        return text
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'file system'}: {error.strerror.lower()}"
    return f"{type(error).__name__}: {text[:300]}"
