"""Compiles the programs of a study in separate processes, several at a time, and reports their progress."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from harness.accelerators import proving, tpu_compiler
from harness.accelerators.proving import Task
from harness.accelerators.results import Results
from harness.training import worker

# Bytes of memory that tracing and compiling one of the paper's largest networks takes on the compiling machine.
_MEMORY = 8e9
_CONTAINERS_MEMORY = Path("/sys/fs/cgroup/memory.max")


@dataclasses.dataclass(frozen=True)
class Progress:
    """The progress of a task.

    Attributes:
      task: index of the task.
      doing: the present activity, in a few words.
      ended: whether the task is over; unless it failed, its results are then in the results folder.
      failure: why it failed, in one line; empty if it did not. That a program does not fit is not a failure.
    """

    task: int
    doing: str
    ended: bool = False
    failure: str = ""


def jobs_at_most() -> int:
    """Returns the default number of programs to compile at a time: one for every two cores and 8 GB of memory."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):  # a container may have less memory than the machine
        memory = min(memory, int(_CONTAINERS_MEMORY.read_text()))
    return max(1, min(cores // 2, int(memory // _MEMORY)))


def compile_all(tasks: Sequence[Task], jobs: int) -> Iterator[Progress]:
    """Carries out tasks, each in its own process, and yields their progress.

    Each result is written to the results folder as soon as it is known.

    Args:
      tasks: the tasks, in the order in which they are begun.
      jobs: number of tasks to carry out at a time.
    """
    waiting = list(range(len(tasks)))
    running: dict[Connection, _Process] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                process = _Process(waiting[0], tasks[waiting.pop(0)])
                running[process.pipe] = process
            for pipe in wait(list(running)):
                process = running[pipe]  # type: ignore[index]
                event = process.receive()
                yield event
                if event.ended:
                    del running[process.pipe]
                    process.end()
    finally:
        for process in running.values():
            process.kill()
        for process in running.values():
            process.end()


class _Process:
    """The process of one task."""

    def __init__(self, number: int, task: Task) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe(duplex=False)
        self._number = number
        self._log = Results(task.results).path(task.slice_.topology, task.program.key).with_suffix(".log")
        self._process: Any = context.Process(target=_serve, args=(task, other, self._log), daemon=True)
        self._process.start()
        other.close()

    def receive(self) -> Progress:
        """Returns the next progress that the process reports, or that it has died."""
        try:
            kind, text = self.pipe.recv()
        except EOFError:
            self._process.join()
            kind, text = "failed", self._how_it_died()
        return Progress(self._number, text, ended=kind != "doing", failure=text if kind == "failed" else "")

    def _how_it_died(self) -> str:
        code = self._process.exitcode
        how = f"was killed by signal {-code}" if code and code < 0 else f"ended with exit code {code}"
        hint = "; out of memory?" if code == -signal.SIGKILL else f" (its output: {self._log})"
        return f"the process that compiled it {how}{hint}"

    def kill(self) -> None:
        """Kills the process at once."""
        self._process.kill()

    def end(self) -> None:
        """Ends the process, and removes its log unless the process died by itself."""
        self.pipe.close()
        self._process.join(timeout=2 if self._process.exitcode is None else 0)
        self._process.kill()
        self._process.join()
        if self._process.exitcode in (0, -signal.SIGKILL):
            self._log.unlink(missing_ok=True)


def _serve(task: Task, pipe: Connection, log: Path) -> None:
    """Carries out one task in a separate process, and sends its progress through the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the parent ends this one
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.update(tpu_compiler.ENVIRONMENT)
    began = time.monotonic()
    with contextlib.suppress(BrokenPipeError):
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            worker.redirect_output(log)
            proving.prove(task, lambda text: pipe.send(("doing", text)))
            pipe.send(("done", f"{time.monotonic() - began:.0f} s"))
        except Exception as error:
            pipe.send(("failed", worker.one_line(error)))
            with contextlib.suppress(OSError):  # a full disk, which may be why it failed
                traceback.print_exc()
