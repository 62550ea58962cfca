"""A process of its own that trains: the command that started it stays free of TensorFlow, and outlives a crash of it.

Jobs go in through a pipe, events come out: plain mappings with an "event". What TensorFlow and the Garden print goes to
the run's log file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from harness.data.embedded import EmbeddedSpec
from harness.experiment import Run, SettingsError
from harness.store import Store

Event = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Job:
    """One thing for the worker to do.

    Attributes:
      kind: "train" (and evaluate and record), or "evaluate" (a run that is recorded, under the run's protocol).
      run: the run.
      data: folder of the data set.
      spec: how to draw the data set first where it is not there; None for a prepared one.
      results: the results folder.
      strategy, tpu, parent: as in :class:`harness.runner.Place`.
    """

    kind: str
    run: Run
    data: Path
    spec: EmbeddedSpec | None
    results: Path
    strategy: str
    tpu: str | None
    parent: str | None = None


class Worker:
    """Starts the process on the first job and again after it has died; a context manager that ends it."""

    def __init__(self) -> None:
        self._process: Any = None
        self._pipe: Connection | None = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.is_alive():
            self._process.terminate()
            self._process.join(timeout=10)

    def events(self, job: Job) -> Iterator[Event]:
        """Carries out a job; the last event is "done" or "failed"."""
        pipe = self._connected()
        sent = False
        while True:
            try:
                if not sent:
                    pipe.send(job)
                    sent = True
                event = pipe.recv()
            except (EOFError, ConnectionError):
                self._process.join()
                yield _died(self._process.exitcode, Store(job.results).log(job.run.id))
                self._process = None
                return
            yield event
            if event["event"] in ("done", "failed"):
                return

    def _connected(self) -> Connection:
        if self._process is None or not self._process.is_alive() or self._pipe is None:
            context = multiprocessing.get_context("spawn")
            self._pipe, other = context.Pipe()
            self._process = context.Process(target=serve, args=(other,), daemon=True)
            self._process.start()
            other.close()
        return self._pipe


def _died(code: int | None, log: Path) -> Event:
    how = f"was killed by signal {-code}" if code and code < 0 else f"ended with exit code {code}"
    hint = "; out of memory?" if code == -9 else ""
    return {"event": "failed", "error": f"the training process {how}{hint}", "traceback": f"see {log}"}


def serve(pipe: Connection) -> None:
    """The worker's main loop: runs until the other end of the pipe is closed."""
    # Read when TensorFlow is imported, which happens below.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with contextlib.suppress(EOFError, KeyboardInterrupt, BrokenPipeError):
        while True:
            job = pipe.recv()
            pipe.send(_carried_out(job, pipe))


def _carried_out(job: Job, pipe: Connection) -> Event:
    log = Store(job.results).log(job.run.id)
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        _redirect_output(log)
        return _do(job, pipe)
    except BrokenPipeError:
        raise
    except Exception as error:
        traceback.print_exc()
        return {"event": "failed", "error": _one_line(error), "traceback": traceback.format_exc()}


def _do(job: Job, pipe: Connection) -> Event:
    from harness import execution
    from harness.data import embedded, manifest
    from harness.runner import Place

    store = Store(job.results)
    if job.spec and not job.data.exists():
        pipe.send({"event": "data"})
    described = embedded.ensure(job.spec, job.data.parent) if job.spec else manifest.load(job.data)
    if described.fingerprint != job.run.data.fingerprint:
        raise SettingsError(f"{job.data}: its content changed since the study was planned (other fingerprint)")
    pipe.send({"event": "build"})
    checkpoints = store.checkpoints(job.run.id).absolute()
    place = Place(str(job.data.absolute()), str(checkpoints), job.strategy, job.tpu, job.parent)
    if job.kind == "train":
        record = execution.execute(job.run, described, place, store, pipe.send)
        evaluation = record.evaluations[job.run.protocol.name]
    else:
        evaluation = execution.evaluated(job.run, job.run.protocol, described, place, store, pipe.send)
        store.write_evaluation(store.read(job.run.id), evaluation)
    return {"event": "done", "top1": evaluation.top1, "top5": evaluation.top5, "videos": evaluation.videos}


def _redirect_output(log: Path) -> None:
    """Sends what this process and its libraries print, in C++ too, to the end of the run's log."""
    sys.stdout.flush()
    sys.stderr.flush()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    ours = type(error).__module__.startswith("harness.")
    return text if ours else f"{type(error).__name__}: {text[:300]}"
