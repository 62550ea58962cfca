"""Trackers, which mirror a study to W&B; no number is ever read back, and a study never waits for them.

A tracker receives plain mappings with an "event":

"run": a run begins or is resumed. "run" (its id), "group", "job_type", "name", "tags", "config" (settings, flat),
  "cost", "resumed_at" (step; 0 for a run that begins).
"attempt": the training of the run begins, at a "step". "run", "step".
"train", "validation": a point of the run's curve. "run", "split", "step", and the metrics.
"recorded": the run's record is written. "run", "folder" (of its files), "record" (plain data).
"failed", "interrupted", "lost" (another worker took it over): the run ended without a record. "run", "error" or
  "reason" (one line).
"study": the table is written. "group", "title", "columns", "rows", "files" (paths). Once it is mirrored, "digest" is
  written to the file "marker".

Other events are ignored. At most one run is open at a time. All of W&B's files are kept under `results/wandb/`.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import math
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import IO, Any, Literal, Protocol

from harness.system import files
from harness.system import paths as paths_
from harness.system.paths import Folder

Event = Mapping[str, Any]
Mode = Literal["online", "offline"]

PROJECT = "r3d-ablations"
RUN_RECORD = "run-record"
MIRRORED = "mirrored"
LIMIT = 25.0

# The only settings of W&B that a user may make in the environment: destination and access. Others, such as the mode,
# would change what is mirrored.
_NAMES = ("ENTITY", "PROJECT")
_ACCESS = (
    "API_KEY",
    "BASE_URL",
    "CONFIG_DIR",
    "CREDENTIALS_FILE",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "IDENTITY_TOKEN_FILE",
    "INSECURE_DISABLE_SSL",
)
_NO_METRICS = ("step", "done", "total")
_LAST = ("recorded", "failed", "interrupted", "lost")


class Tracker(Protocol):
    """Receives the events of a study."""

    def write(self, event: Event) -> None:
        """Receives an event."""

    def close(self) -> list[str]:
        """Closes the tracker; returns a line for each thing that the user should know and do, none if all is well."""


class NullTracker:
    """A tracker that ignores everything."""

    def write(self, event: Event) -> None:
        """Ignores an event."""

    def close(self) -> list[str]:
        """Returns no lines."""
        return []


class CompositeTracker:
    """A tracker that passes every event on to several trackers."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self._trackers = trackers

    def write(self, event: Event) -> None:
        """Passes an event on to each tracker."""
        for tracker in self._trackers:
            tracker.write(event)

    def close(self) -> list[str]:
        """Closes each tracker; returns the lines of all."""
        return [line for tracker in self._trackers for line in tracker.close()]


def tracker(mode: Literal["online", "offline", "off"], folder: Path, limit: float = LIMIT) -> Tracker:
    """Makes the tracker that mirrors a study.

    Args:
      mode: "offline" writes files that can be sent to W&B later; "online" sends them, and continues offline for the
        rest of the study if W&B cannot be reached; "off" does nothing.
      folder: the results folder.
      limit: seconds that closing may take.
    """
    if mode == "off":
        return NullTracker()
    wandb_folder = folder / "wandb"
    log = wandb_folder / "mirror.log"
    offline = functools.partial(Wandb, folder.absolute(), "offline")
    if mode == "offline":
        return SubprocessTracker(
            [offline], log, f"The records are complete, the mirror in {wandb_folder} is not (details: {log})", limit
        )
    online = functools.partial(Wandb, folder.absolute(), "online", limit / 5)
    later = (
        f"The records are complete; what W&B misses is in {wandb_folder}, to send it type: wandb sync {wandb_folder}"
    )
    return SubprocessTracker([online, offline], log, later, limit)


class Wandb:
    """A tracker that writes to W&B from this process.

    It changes the environment of the process, raises every error of W&B's and waits as long as W&B does. So it is meant
    to run in a separate process: see :class:`Apart`.

    Args:
      folder: the results folder, absolute.
      mode: "online" to send everything, "offline" to send nothing.
      reach: seconds to spend on trying to reach W&B.
    """

    def __init__(self, folder: Path, mode: Mode, reach: float = 5.0) -> None:
        self._folder = folder
        self._mode = mode
        self._reach = reach
        self._run: Any = None
        self._group = ""
        self._points = 0
        _isolate(folder / "wandb", mode)

    def write(self, event: Event) -> None:
        """Mirrors an event."""
        kinds: dict[str, Callable[[Event], None]] = {
            "run": self._begin,
            "attempt": self._resumed,
            "train": self._point,
            "validation": self._point,
            "recorded": self._recorded,
            "failed": self._ended,
            "interrupted": self._ended,
            "lost": self._ended,
            "study": self._study,
        }
        if event["event"] in kinds:
            kinds[event["event"]](event)

    def close(self) -> list[str]:
        """Closes W&B; if a run is still open, marks it as interrupted."""
        self._abandon()
        if "wandb" in sys.modules:
            sys.modules["wandb"].teardown()
        return []

    def _begin(self, event: Event) -> None:
        self._open(event["run"], event["group"], event["job_type"], event["name"], event["tags"], event["config"])
        self._run.summary.update({f"cost/{name}": value for name, value in event["cost"].items()})
        self._run.summary.update({"state": "running", "resumed_at": event["resumed_at"]})

    def _resumed(self, event: Event) -> None:
        if self._is_open(event):
            self._run.summary["resumed_at"] = event["step"]

    def _open(
        self, run: str, group: str, job_type: str, name: str | None, tags: Iterable[str], config: Mapping[str, Any]
    ) -> None:
        import wandb

        self._abandon()
        self._group, self._points = group, 0
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            entity=os.environ.get("WANDB_ENTITY"),
            mode=self._mode,
            dir=str(self._folder),
            id=run,
            resume="allow",
            group=group or None,
            job_type=job_type or None,
            name=name,
            tags=[tag[:64] for tag in tags],
            config=dict(config),
            settings=wandb.Settings(init_timeout=self._reach, **_settings()),
        )
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def _is_open(self, event: Event) -> bool:
        return self._run is not None and self._run.id == event["run"]

    def _point(self, event: Event) -> None:
        if not self._is_open(event):
            return
        metrics = {
            f"{event['split']}/{name}": value
            for name, value in event.items()
            if isinstance(value, int | float) and name not in _NO_METRICS
        }
        self._run.log({"step": event["step"], **metrics})
        self._points += 1

    def _recorded(self, event: Event) -> None:
        record, folder = event["record"], paths_.path_of(event["folder"])
        if not self._is_open(event):
            self._open(event["run"], event.get("group", ""), "", None, record["toggles"], record["settings"])
        if not self._points:
            for point in record["curve"]:
                self._point({"run": event["run"], **point})
        self._run.summary.update(_numbers(record) | {"state": "done"})
        self._upload(f"run-{event['run']}", RUN_RECORD, _kept(folder, record), {"identity": record["identity"]})
        self._finish(0)
        files.replace(folder / MIRRORED, f"{self._mode}\n".encode())

    def _ended(self, event: Event) -> None:
        if self._is_open(event):
            error = " ".join(str(event.get("error") or event.get("reason", "")).split())[:300]
            self._run.summary.update({"state": event["event"], "error": error})
            self._finish(1)

    def _study(self, event: Event) -> None:
        import wandb

        paths = [Path(path) for path in event["files"]]
        self._open(study_run(event["group"]), event["group"], "study", event["title"], (), {})
        rows = [list(row) for row in event["rows"]]
        table = wandb.Table(columns=list(event["columns"]), data=rows, allow_mixed_types=True)
        figures = {f"figure/{path.stem}": wandb.Image(str(path)) for path in paths if path.suffix == ".png"}
        self._run.log({"table": table, **figures})
        self._upload(f"study-{_artifact_name(event['group'])}", "study", {path.name: path for path in paths}, {})
        self._finish(0)
        if "marker" in event:
            files.replace(Path(event["marker"]), event["digest"].encode())

    def _upload(self, name: str, kind: str, paths: Mapping[str, Folder], about: Mapping[str, Any]) -> None:
        import wandb

        hashes = {file: hashlib.sha256(path.read_bytes()).hexdigest() for file, path in paths.items()}
        artifact = wandb.Artifact(name, kind, metadata={**about, "sha256": hashes, "group": self._group})
        for file, path in paths.items():
            if isinstance(path, Path):
                artifact.add_file(str(path), name=file)
                continue
            with artifact.new_file(file, mode="wb") as copy:
                copy.write(path.read_bytes())
        logged = self._run.log_artifact(artifact)
        if self._mode == "online":
            logged.wait()

    def _abandon(self) -> None:
        if self._run is not None:
            self._run.summary["state"] = "interrupted"
            self._finish(1)

    def _finish(self, exit_code: int) -> None:
        run, self._run = self._run, None
        run.finish(exit_code=exit_code)


def study_run(group: str) -> str:
    """Returns the id of the W&B run that holds a study's table, 16 hexadecimal digits."""
    return hashlib.sha256(f"study {group}".encode()).hexdigest()[:16]


def _artifact_name(text: str) -> str:
    return re.sub(r"[^\w.-]", "-", text)[:100]


def _kept(folder: Folder, record: Mapping[str, Any]) -> dict[str, Folder]:
    """Returns name -> path of the files that belong to a record, without those that other attempts may have left."""
    added = sorted(path.name for path in folder.glob("evaluation-*.json"))
    evaluations = [*record["evaluations"].values(), *(json.loads((folder / name).read_text()) for name in added)]
    names = ["record.json", *added, *(str(evaluation["predictions"]) for evaluation in evaluations)]
    return {name: folder / name for name in names}


def _numbers(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the numbers of a record for W&B's summary, flat."""
    numbers = {f"cost/{name}": value for name, value in record["cost"].items()}
    for protocol, evaluation in record["evaluations"].items():
        numbers |= {f"{protocol}/{name}": evaluation[name] for name in ("top1", "top5", "loss", "videos")}
    return numbers


def _isolate(folder: Path, mode: Mode) -> None:
    """Sets the environment so that W&B's files stay in the folder and users' settings can't change what is mirrored."""
    users = {f"WANDB_{name}" for name in (*_NAMES, *(_ACCESS if mode == "online" else ()))}
    for name in [name for name in os.environ if name.startswith("WANDB_") and name not in users]:
        del os.environ[name]
    os.environ["WANDB_ERROR_REPORTING"] = "false"
    folders = {"DIR": folder.parent, "DATA_DIR": folder / "data", "CACHE_DIR": folder / "cache"}
    if mode == "offline":
        # Only offline, since online the user's settings are needed: a login to another server is stored there.
        folders["CONFIG_DIR"] = folder / "config"
    for name, path in folders.items():
        path.mkdir(parents=True, exist_ok=True)
        os.environ[f"WANDB_{name}"] = str(path)


def _settings() -> dict[str, Any]:
    return {
        "silent": True,
        "console": "off",
        "host": "-",
        "disable_git": True,
        "disable_code": True,
        "save_code": False,
        "disable_job_creation": True,
        "x_disable_meta": True,
        "x_disable_stats": True,
        "x_disable_machine_info": True,
        "x_save_requirements": False,
        # The default is 15 s, and a kill loses everything after the last flush.
        "x_transaction_log_flush_interval": 0.5,
        # Without it, two attempts at a run within one second would share a folder.
        "x_sync_dir_suffix": os.urandom(4).hex(),
    }


class _LostError(Exception):
    """Raised when the process of a tracker ended, or did not answer in time."""


class SubprocessTracker:
    """A tracker that runs another tracker in a separate process, so that the study never waits for it.

    If that tracker fails, the next one takes over, and receives the events of the open run from its beginning. The
    process has a session of its own, so that Ctrl-C and SIGTERM do not reach it and it can be closed in order. It ends
    by itself when this process is gone.

    Args:
      stages: functions that make the trackers, in order of preference; must be picklable. The last tracker continues
        after errors, which become warnings.
      log: file that the processes print to.
      advice: what the user should know and type if something went wrong.
      limit: seconds that closing may take before the process is killed.
      patience: seconds that one event may take before the process counts as lost.
    """

    def __init__(
        self,
        stages: Sequence[Callable[[], Tracker]],
        log: Path,
        advice: str,
        limit: float = LIMIT,
        patience: float = 60.0,
    ) -> None:
        self._stages = list(stages)
        self._log = log
        self._advice = advice
        self._limit = limit
        self._patience = patience
        self._deadline = math.inf
        self._queue: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._open: list[Event] = []
        self._warnings: list[str] = []
        self._process: _Process | None = None
        self._thread: threading.Thread | None = None

    def write(self, event: Event) -> None:
        """Queues an event and returns at once."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="mirror", daemon=True)
            self._thread.start()
        self._queue.put(dict(event))

    def close(self) -> list[str]:
        """Ends the process within the limit; returns what the user should know."""
        if self._thread is not None:
            self._deadline = time.monotonic() + self._limit
            self._queue.put(None)
            self._thread.join(self._limit + 0.5)
            if self._thread.is_alive():
                self._warnings.append(f"still busy after {self._limit:g} s")
                self._stop()
        warnings = dict.fromkeys(self._warnings)
        return [f"W&B: {'; '.join(warnings)}. {self._advice}"] if warnings else []

    def _work(self) -> None:
        while (event := self._queue.get()) is not None:
            with self._noted():
                self._tell(event)
            self._open = _open_after(self._open, event)
        with self._noted():
            if self._process is not None:
                self._warnings += self._ask(None)
        self._stop()

    @contextlib.contextmanager
    def _noted(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._warnings.append(_one_line(error))

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()

    def _tell(self, event: Event) -> None:
        while self._stages:
            try:
                for pending in [event] if self._process else [*self._open, event]:
                    self._warnings += self._answer(pending)
                return
            except _LostError as error:
                self._warnings.append(_one_line(error))
                self._stages.pop(0)
                self._stop()

    def _answer(self, event: Event) -> list[str]:
        warnings = self._ask(event)
        if warnings and len(self._stages) > 1:
            raise _LostError(warnings[0])
        return warnings

    def _ask(self, event: Event | None) -> list[str]:
        """Sends the process an event, or None to close its tracker, and returns its warnings.

        Raises:
          _LostError: the process ended, or did not answer in time.
        """
        try:
            if self._process is None:
                self._process = _Process(self._stages[0], self._log)
            self._process.pipe.send(event)
            began = time.monotonic()
            while not self._process.pipe.poll(0.1):
                if time.monotonic() > min(began + self._patience, self._stage_deadline()):
                    raise _LostError(f"no answer for {time.monotonic() - began:.0f} s")
            return list(self._process.pipe.recv())
        except (EOFError, OSError) as error:
            raise _LostError(f"the process that mirrors is gone ({_one_line(error)})") from error

    def _stage_deadline(self) -> float:
        """Returns the time by which a stage must answer, which leaves time for the stage that would take over."""
        return self._deadline - (0.4 * self._limit if len(self._stages) > 1 else 0)


def _open_after(before: list[Event], event: Event) -> list[Event]:
    """Returns the events so far of the run that is open after an event; empty if no run is open."""
    if event["event"] == "run":
        return [event]
    return [] if event["event"] in (*_LAST, "study") or not before else [*before, event]


class _Process:
    """A process that runs a tracker; W&B's own service process ends with it."""

    def __init__(self, make: Callable[[], Tracker], log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self.pipe, other = Pipe()
        with log.open("ab") as file, other:
            self._popen = self._started(other.fileno(), file)
        self.pipe.send(make)

    @staticmethod
    def _started(descriptor: int, log: IO[bytes]) -> subprocess.Popen[bytes]:
        # Not by multiprocessing: its child stays in the study's process group until it runs, and at exit the
        # interpreter would wait for it without limit.
        return subprocess.Popen(
            [sys.executable, "-c", f"from harness.tracking import wandb as tracking; tracking.serve({descriptor})"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[descriptor],
            start_new_session=True,
        )

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()
        self.pipe.close()


def serve(descriptor: int) -> None:
    """Runs the main loop of a tracker's process: answers each event with warnings, until the pipe is closed."""
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)
    pipe = Connection(descriptor)
    tracker: Tracker = pipe.recv()()
    inbox: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(pipe, inbox), daemon=True).start()
    with contextlib.suppress(OSError):
        while (event := inbox.get()) is not None:
            pipe.send(_warnings_of(functools.partial(tracker.write, event)))
        pipe.send(_warnings_of(tracker.close))


def _receive(pipe: Connection, inbox: queue.SimpleQueue[Event | None]) -> None:
    with contextlib.suppress(EOFError, OSError):
        while (event := pipe.recv()) is not None:
            inbox.put(event)
    inbox.put(None)
    # The study would kill this process if it hung, but may itself be gone by now.
    time.sleep(LIMIT)
    os._exit(1)


def _warnings_of(do: Callable[[], list[str] | None]) -> list[str]:
    try:
        return do() or []
    except Exception as error:
        traceback.print_exc()
        return [_one_line(error)]


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())[:300]
    return text if isinstance(error, _LostError) else f"{type(error).__name__}: {text}"
