"""Training processes, and whole commands, forked from a process that has imported TensorFlow and the Garden.

Importing both takes seven seconds, which each training process would otherwise begin with. The process they are forked
from (multiprocessing's forkserver, one for each process of tests) imports and does nothing else: TensorFlow starts its
threads, and takes its devices, when it first computes, which happens after the fork. What differs from a process that
is started afresh: the start itself, and that the training process of a command which a test calls isn't ended with its
parent by a signal, but when it next reports (that of a command in a forked process is ended as any other). Tests of
these two, and one test for each path from the command line to the record, start real processes.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
import types
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from pathlib import Path
from typing import IO, Any

from tests.support import waiting

ROOT = Path(__file__).parents[2]
_SPAWN = multiprocessing.get_context("spawn")
_FORKSERVER = multiprocessing.get_context("forkserver")
# What a training process imports, and what commands do.
_PRELOADED = [
    "harness.training.loop",
    "harness.training.executor",
    "harness.training.garden_import",
    "harness.scheduler.orchestrator",
    "harness.training.tasks",
    "harness.reporting.writers",
    "tests.support.forked",
    "tests.support.tiny",
]
_QUIET = {"TF_CPP_MIN_LOG_LEVEL": "2"}


def serve(pipe: Connection, environment: Mapping[str, str], folder: str) -> None:
    """The training process: the worker's :func:`serve`, with the environment and folder of who started it."""
    from harness.training import worker

    _be_as(environment, folder)
    waiting.wait_where_told()
    worker._end_with_parent = lambda: None  # its parent is the process that it was forked from
    worker.serve(pipe)


def _be_as(environment: Mapping[str, str], folder: str) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)


def _started() -> Any:
    """The context of processes that are forked; the process that they are forked from starts with the first of them."""
    _FORKSERVER.set_forkserver_preload(_PRELOADED)
    return _FORKSERVER


class _Context:
    """multiprocessing's context for "spawn", but training processes are forked."""

    def __init__(self, ready: _Ready | None) -> None:
        self._ready = ready

    def Process(self, target: Any, args: tuple[Any, ...], daemon: bool) -> Any:  # noqa: N802
        """See :class:`multiprocessing.Process`."""
        from harness.training import worker

        if target is not worker.serve:
            return _SPAWN.Process(target=target, args=args, daemon=daemon)
        if self._ready is not None and not self._ready.taken:
            return self._ready.take(*args)
        environment = {**_QUIET, **os.environ}
        return _started().Process(target=serve, args=(*args, environment, str(Path.cwd())), daemon=daemon)

    def __getattr__(self, name: str) -> Any:
        return getattr(_SPAWN, name)


class _Ready:
    """A training process that a command's process forks before it does anything, and that waits for its pipe.

    Later the command has threads, whose locks a fork would copy shut. As one that is started it is a child of the
    command, in its group.
    """

    def __init__(self) -> None:
        fork = multiprocessing.get_context("fork")
        self._hand, other = fork.Pipe()
        self._process = fork.Process(target=_serve_what_is_handed, args=(other, self._hand), daemon=True)
        self._process.start()
        other.close()
        self.taken = False

    def take(self, pipe: Connection) -> _Ready:
        """Takes it for a training process with a pipe, which is yet to be started."""
        self.taken, self._pipe = True, pipe
        return self

    def start(self) -> None:
        """Hands it the pipe."""
        send_handle(self._hand, self._pipe.fileno(), self._process.pid)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._process, name)


def _serve_what_is_handed(pipe: Connection, other: Connection) -> None:
    from harness.training import worker

    other.close()
    with contextlib.suppress(EOFError):
        handed = Connection(recv_handle(pipe))
        waiting.wait_where_told()
        worker.serve(handed)


@contextlib.contextmanager
def training_processes(ready: _Ready | None = None) -> Iterator[None]:
    """While active, the training processes that commands of this process start are forked.

    Args:
      ready: the first of them, where it is there already.
    """
    from harness.training import worker

    before, context = worker.multiprocessing, _Context(ready)
    stand_in = types.SimpleNamespace(get_context=lambda _: context, parent_process=multiprocessing.parent_process)
    worker.multiprocessing = stand_in  # type: ignore[assignment]
    try:
        yield
    finally:
        worker.multiprocessing = before


class KeptProcess:
    """One training process for the commands of many tests; a context manager that ends it.

    The first training of a process takes twice as long as those after it. A study's process stays from run to run as
    well; only here it stays from command to command.
    """

    def __enter__(self) -> KeptProcess:
        from harness.training.worker import Worker

        self._worker = Worker()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._worker.__exit__(kind)

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """While active, commands of this process train in the one that is kept."""
        from harness.scheduler import orchestrator

        before = orchestrator.Worker
        orchestrator.Worker = self.lent  # type: ignore[assignment, misc]
        try:
            with training_processes():
                yield
        finally:
            orchestrator.Worker = before  # type: ignore[misc]

    @contextlib.contextmanager
    def lent(self, **_: object) -> Iterator[Any]:
        """The worker that has the process, in the place of a new :class:`harness.training.worker.Worker`."""
        self._worker._asked = 0.0
        yield self._worker


class Command:
    """A command in a process and a session of its own, as :class:`subprocess.Popen` would start it.

    It knows the profile `tiny` besides.

    Args:
      module: name of the command's module, as "harness.train".
      words: its arguments.
      folder: the folder it is in.
      environment: name -> value of what differs in its environment.

    Attributes:
      pid: the number of the process, and of its group.
      stdout: what it, and the processes that it starts, print: outputs and errors together.
    """

    def __init__(
        self,
        module: str,
        words: Sequence[object],
        folder: Path | str = ROOT,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        with tempfile.TemporaryDirectory() as pipes:
            pipe = os.path.join(pipes, "out")  # noqa: PTH118
            os.mkfifo(pipe)
            whole = {**_QUIET, **os.environ, **(environment or {})}
            words = [str(word) for word in words]
            self._process = _started().Process(target=_command, args=(module, words, pipe, whole, str(folder)))
            self._process.start()
            self.stdout: IO[str] = open(pipe)  # noqa: SIM115, PTH123
            self.stdout.readline()  # it has a session of its own, and its pipe is open
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        """Its exit code, minus the number of the signal that ended it; None before it ended."""
        return self._process.exitcode  # type: ignore[no-any-return]

    def wait(self, timeout: float | None = None) -> int | None:
        """Waits until it ends.

        Raises:
          TimeoutError: it didn't within so many seconds.
        """
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise TimeoutError(f"the command goes on after {timeout} seconds")
        return self.returncode

    def communicate(self) -> tuple[str, None]:
        """What is left of its output, read until it ends."""
        with self.stdout:
            said = self.stdout.read()
        self.wait()
        return said, None

    def send_signal(self, number: int) -> None:
        """Sends a signal to it alone."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Kills it and what it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.join()


def run(module: str, words: Sequence[object], **options: Any) -> tuple[int | None, str]:
    """Runs a command to its end: its exit code and what it printed."""
    command = Command(module, words, **options)
    said, _ = command.communicate()
    return command.returncode, said


def _command(module: str, words: list[str], pipe: str, environment: Mapping[str, str], folder: str) -> None:
    os.setsid()
    output = os.open(pipe, os.O_WRONLY)
    for number in (1, 2):
        os.dup2(output, number)
    os.close(output)
    os.write(1, b"started\n")
    _be_as(environment, folder)
    for number in (signal.SIGINT, signal.SIGTERM):  # as in a process that is started
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.stdin = open(os.devnull)  # noqa: SIM115, PTH123
    sys.argv = [module, *words]
    from ablations.profiles import PROFILES
    from tests.support.tiny import TINY

    PROFILES[TINY.name] = TINY
    with training_processes(_Ready()):
        runpy.run_module(module, run_name="__main__", alter_sys=True)
