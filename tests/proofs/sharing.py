"""Lets workers share one study while they, its database and its disk fail again and again; then counts what came of it.

    python -m tests.proofs.sharing                        200 faults on PostgreSQL, a quarter of an hour
    python -m tests.proofs.sharing --faults 20 --runs 20  in short, as test_sharing does
    python -m tests.proofs.sharing --postgres off         on SQLite
    python -m tests.proofs.sharing --bucket               with the runs in a bucket
    python -m tests.proofs.sharing --speed                forty runs by one worker and by four; claiming one of 2,000

The workers are the additive study's command, each in a session of its own, with training that sleeps
(:mod:`tests.support.pretend`). They join and leave at will: one that was killed, or ended by an error, is started
again. Faults are drawn from a deck in which each kind is once, so that none is left out. Where the study is done before
the last fault, it grows by further seeds.

With --bucket each worker is on a machine of its own: it has a results folder and a folder of temporary files that the
others do not see, and the runs are at an address, file:///, which they all reach as :mod:`tests.support.pretend` says.
No file there is ever half written.

What is counted comes from the files, from the storage by Optuna's own interface, and from what each attempt says while
it works. Not as it must be, and exit code 1, is: a run with neither record nor stated reason; a trial that
is COMPLETE, of a run without record; two of them; two that wrote a record; a record whose weights were not trained by
each step, once and in order; a run begun, or trained for longer than a check takes, after its record or beside a later
attempt; a failure that nothing here explains; a password in a file or on a screen; a process that is left.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import itertools
import json
import os
import random
import re
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ablations.profiles import QUICK
from ablations.table2 import STUDY
from harness.config.devices import Devices
from harness.config.experiment import Overrides, Run
from harness.planning.workspace import Workspace, data_set
from harness.store.records import RecordError
from harness.store.run_store import Store
from tests.support import postgres, pretend

LEASE, RETRIES = 3, 20
# Rows of each seed that start from another's run; share of the attempts that fail by themselves.
HEIRS, FAILS = 3, 0.05
# Seconds between two faults, at least and at most.
PACE = (0.3, 2.0)
# Seconds that an attempt may go on once it is another's: until the next beat, through an inner loop, and what a busy
# machine takes for it.
CHECK = LEASE / 4 + 0.1 + 1.0
ROOT = Path(__file__).resolve().parents[2]
ROWS = len(STUDY.rows)
# What a failed attempt may say, for what was done to it.
EXPLAINED = {
    "drawn": rf"^{pretend.DRAWN}",
    "killed": "was killed by signal 9",
    "full disk": "[Ff]ile too large|disk I/O error",
    "damaged checkpoint": "damaged checkpoint$",
}
ENDED_BY_ITSELF = (0, 1)  # every run done; some failed for good
AT_WORK = ("attempt", "step", "checkpoint", "evaluate")


class Listener:
    """What attempts say that they do, through a pipe: its lines reach us from a process that may write no file."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path, self.heard = path, list[dict[str, Any]]()
        self._pipe = os.open(path, os.O_RDWR)  # as a writer too, so that it never ends
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with os.fdopen(self._pipe, "rb", closefd=False) as lines:
            for line in lines:
                self.heard.append(json.loads(line))


class Command:
    """One worker: the command that somebody started, with its training process, in a session of their own.

    Args:
      words: what the command is given.
      environment: name -> value of what it finds there besides.
      machine: number of the machine that it is on.
    """

    def __init__(self, words: Sequence[str], environment: Mapping[str, str], machine: int = 0) -> None:
        self.machine = machine
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.pretend", "additive", *words],
            cwd=ROOT, env={**os.environ, **environment}, start_new_session=True, text=True, errors="replace",
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.said: collections.deque[str] = collections.deque(maxlen=400)
        self._hearing = threading.Thread(target=self._hear, daemon=True)
        self._hearing.start()

    def _hear(self) -> None:
        assert self.process.stdout is not None
        self.said.extend(self.process.stdout)

    @property
    def alive(self) -> bool:
        """Whether the command runs; its training process may outlive it."""
        return self.process.poll() is None

    @property
    def pid(self) -> int:
        """Number of the command's process, and of the group that it leads."""
        return self.process.pid

    @property
    def group(self) -> list[int]:
        """Numbers of all its processes."""
        return [pid for pid, of in _groups() if of == self.pid]

    @property
    def child(self) -> int | None:
        """Number of the process that trains."""
        return next((pid for pid in self.group if "spawn_main" in _words(pid)), None)

    @property
    def crashed(self) -> str:
        """Where it was, of ours, in the last traceback that it showed, and what the error was; empty without one."""
        said = [line.strip() for line in self.said]
        ours = [line.partition("/harness/")[2] for line in said if line.startswith("File ") and "/harness/" in line]
        what = [line for line in said if re.match(r"[\w.]+(Error|Exception|Interrupt)\b", line)]
        return " <- ".join([*what[-1:], *ours[:-4:-1]]) if "Traceback (most recent call last):" in said else ""


def _groups() -> Iterator[tuple[int, int]]:
    """Every process with its group."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (state := _stat(int(entry.name))) and state[0] != "Z":
            yield int(entry.name), int(state[2])


def _stat(pid: int) -> list[str]:
    """State, parent, group and more of a process; empty where there is none."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return []


def _state(pid: int | None) -> str:
    """State of a process, such as "T" of one that is asleep; empty where there is none."""
    found = _stat(pid) if pid is not None else []
    return found[0] if found else ""


def _words(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text()
    return ""


class Soak:
    """A study, its workers, and what is done to them.

    Args:
      folder: an empty folder.
      server: the database; None for the results folder's own SQLite file.
      workers: how many at a time.
      seeds: of each row, at first.
      draw: draws the faults.
      pretend_: name -> value of what :mod:`tests.support.pretend` reads from the environment.
      bucket: whether the runs are in a bucket, and each worker on a machine of its own.
    """

    def __init__(
        self,
        folder: Path,
        server: postgres.Server | None,
        workers: int,
        seeds: int,
        draw: random.Random,
        pretend_: Mapping[str, float],
        bucket: bool = False,
    ) -> None:
        self.server, self.seeds, self.draw = server, seeds, draw
        self._folder, self._count, self._bucket = folder, workers, folder / "bucket" if bucket else None
        self._environment = {name: str(value) for name, value in pretend_.items()}
        self.listener = Listener(folder / "trace")
        pretend.make_data(folder / "clips")
        self.commands: list[Command] = []
        self.every: list[Command] = []
        self.exits: collections.Counter[str] = collections.Counter()
        self.faults: collections.Counter[str] = collections.Counter()
        self.effects: collections.Counter[str] = collections.Counter()
        self.damaged: set[str] = set()
        self._later: list[tuple[float, Callable[[], None]]] = []
        self._joining: list[float] = []
        self._deck: list[str] = []
        self._kinds: dict[str, Callable[[], bool]] = {
            "command killed": self._kill_command,
            "worker killed": self._kill_worker,
            "training process killed": self._kill_child,
            "command killed, training process asleep": self._kill_beside_sleeping_child,
            "worker asked to stop": self._ask_to_stop,
            "worker asleep": self._pause_worker,
            "training process asleep": self._pause_child,
            "command asleep": self._pause_command,
            "full disk": self._fill_disk,
            "half-written file": self._tear,
        }
        if server:
            self._kinds |= {
                "database restarted": self._restart,
                "database killed": self._crash,
                "connections cut": self._cut,
            }

    # The study and who works at it.

    @property
    def store(self) -> Store:
        """The records, which of a bucket are on this disk too."""
        return Store(self._machine(0) / "results", self._bucket)

    def _machine(self, number: int) -> Path:
        """Folder of what only the workers of a machine see."""
        return self._folder / f"machine-{number}"

    def words(self, machine: int) -> list[str]:
        """What the command is given on a machine."""
        own = self._machine(machine)
        places = {"results": own / "results", "plots": own / "plots", "data": self._folder / "clips"}
        flags = {**places, "seeds": self.seeds, "lease": LEASE, "retries": RETRIES, "wandb": "off"}
        flags |= {"runs": f"file://{self._bucket}"} if self._bucket else {}
        return [word for name, value in flags.items() for word in (f"--{name}", str(value))]

    def join(self) -> None:
        """Starts a worker; where the runs are in a bucket, on a machine that has none."""
        taken = {one.machine for one in self.commands}
        machine = next(number for number in itertools.count() if number not in taken) if self._bucket else 0
        own = {"PRETEND_TRACE": str(self.listener.path)} | ({"HARNESS_STORAGE": self.server.url} if self.server else {})
        if self._bucket:
            # Also of the locks by which the workers of one machine know who of them has ended.
            own["TMPDIR"] = str(self._machine(machine) / "temporary")
            Path(own["TMPDIR"]).mkdir(parents=True, exist_ok=True)
        self.commands.append(Command(self.words(machine), self._environment | own, machine))
        self.every.append(self.commands[-1])

    def grow(self, seeds: int) -> None:
        """More of the same study; workers that have ended with it join again."""
        self.seeds += seeds
        self.exits["grown"] += 1
        for _ in range(self._count):
            self.join()

    def tend(self, seconds: float) -> None:
        """Lets some time go by: what slept is woken, who left joins again."""
        until = time.monotonic() + seconds
        while (now := time.monotonic()) < until:
            for due, undo in [one for one in self._later if one[0] <= now]:
                self._later.remove((due, undo))
                undo()
            for command in [one for one in self.commands if not one.alive]:
                self.commands.remove(command)
                self._left(command)
            for due in [one for one in self._joining if one <= now]:
                self._joining.remove(due)
                self.join()
            time.sleep(0.05)

    def _left(self, command: Command) -> None:
        code = command.process.returncode
        self.exits[f"exit code {code}" if code >= 0 else f"signal {-code}"] += 1
        if command.crashed:
            self.exits[f"traceback: {command.crashed[:400]}"] += 1
        if code not in ENDED_BY_ITSELF or command.crashed:
            self._joining.append(time.monotonic() + self.draw.uniform(0, 2))

    @property
    def at_rest(self) -> bool:
        """Whether every worker found nothing left to do."""
        return not self.commands and not self._joining

    def settle(self, seconds: float) -> bool:
        """Lets the study end without further faults; whether it did in time."""
        until = time.monotonic() + seconds
        while not (self.at_rest and not self._later) and time.monotonic() < until:
            self.tend(0.2)
        return self.at_rest

    def end(self) -> int:
        """Ends what is left; how many processes there were a while after their commands had ended."""
        until = time.monotonic() + 20
        groups = {one.pid for one in self.every}
        while (left := [pid for pid, group in _groups() if group in groups]) and time.monotonic() < until:
            time.sleep(0.2)
        for pid in left:
            _signal(pid, signal.SIGKILL)
        return len(left)

    # Faults. Each says whether there was something that it could be done to.

    def fault(self) -> bool:
        """Does the next of the deck that can be done now; whether there was one."""
        if not self._deck:
            self._deck = self.draw.sample(sorted(self._kinds), len(self._kinds))
        kind = next((one for one in self._deck if self._kinds[one]()), None)
        if kind is None:
            return False
        self._deck.remove(kind)
        self.faults[kind] += 1
        return True

    def _one(self) -> Command | None:
        """A worker that trains, or is about to."""
        awake = [one for one in self.commands if one.alive and one.child is not None]
        return self.draw.choice(awake) if awake else None

    def _on(self, done: Callable[[Command], None]) -> bool:
        if (command := self._one()) is None:
            return False
        done(command)
        return True

    def _after(self, least: float, most: float, undo: Callable[[], None]) -> None:
        self._later.append((time.monotonic() + self.draw.uniform(least, most), undo))

    def _kill_command(self) -> bool:
        def done(one: Command) -> None:
            child = one.child
            _signal(one.pid, signal.SIGKILL)
            self.effects["training processes that outlived their command"] += _state(child) not in ("", "Z")

        return self._on(done)

    def _kill_worker(self) -> bool:
        return self._on(lambda one: _signal_all(one.group, signal.SIGKILL))

    def _kill_child(self) -> bool:
        return self._on(lambda one: _signal(one.child, signal.SIGKILL))

    def _kill_beside_sleeping_child(self) -> bool:
        def done(one: Command) -> None:
            self._sleep([one.child], 0.5, LEASE + 3.0)
            _signal(one.pid, signal.SIGKILL)

        return self._on(done)

    def _ask_to_stop(self) -> bool:
        return self._on(lambda one: _signal(one.pid, signal.SIGTERM))

    def _pause_worker(self) -> bool:
        return self._on(lambda one: self._sleep(one.group, LEASE + 1.0, LEASE + 4.0))

    def _pause_child(self) -> bool:
        return self._on(lambda one: self._sleep([one.child], LEASE + 1.0, LEASE + 3.0))

    def _pause_command(self) -> bool:
        return self._on(lambda one: self._sleep([one.pid], LEASE + 1.0, LEASE + 3.0))

    def _sleep(self, pids: Sequence[int | None], least: float, most: float) -> None:
        def wake() -> None:
            self.effects["processes woken"] += sum(_state(pid) == "T" for pid in pids)
            _signal_all(pids, signal.SIGCONT)

        _signal_all(pids, signal.SIGSTOP)
        self._after(least, most, wake)

    def _fill_disk(self) -> bool:
        """No file of a worker grows any more: as on a full disk, and without being root or losing a disk."""

        def done(one: Command) -> None:
            self.effects["processes whose files could not grow"] += _limit_files(one.group, 0)
            self._after(0.5, 4.0, lambda: _limit_files(one.group, resource.RLIM_INFINITY))

        return self._on(done)

    def _restart(self) -> bool:
        assert self.server
        self.server.stop()
        self.tend(self.draw.uniform(0.1, 1.5))
        self.server.start()
        return True

    def _crash(self) -> bool:
        assert self.server
        self.server.kill()
        self.tend(self.draw.uniform(0.1, 1.0))
        self.server.start()
        return True

    def _cut(self) -> bool:
        assert self.server
        self.server.cut()
        return True

    def _tear(self) -> bool:
        """Leaves what a kill, or a disk, leaves of a file that was being written."""
        runs = sorted(path for path in Path(str(self.store.runs)).glob("*") if path.is_dir())
        if not runs:
            return False
        run = self.draw.choice(runs)
        if self._bucket:
            self._leave_part(run)
            return True
        unfinished = [path for path in runs if not (path / "record.json").exists()]
        # Of attempts that went before others: what is still being written is torn by the kills.
        earlier = [path for one in unfinished for path in _by_number(one)[:-1]]
        how = self.draw.random()
        if earlier and how < 0.7:
            attempt = self.draw.choice(earlier)
            whole = sorted((attempt / "checkpoints").glob("ckpt-*.data-*"))
            if how < 0.15 and whole:
                os.truncate(whole[-1], whole[-1].stat().st_size // 2)
                self.damaged.add(attempt.parent.parent.name)
                what = "checkpoints cut short"
            elif how < 0.45:
                _tear_checkpoint(attempt / "checkpoints")
                what = "unfinished checkpoints"
            else:
                _append(attempt / "curve.jsonl", '{"event": "train", "split": "tra')
                what = "curves cut short"
        else:
            (run / ".record.json.torn.part").write_text('{"schema": 1, "iden')
            what = "unfinished records"
        self.effects[what] += 1
        return True

    def _leave_part(self, run: Path) -> None:
        """Leaves what a writer into a bucket leaves that was killed: a file under a name that nobody asks for."""
        folders = [run, *(path / name for path in _by_number(run) for name in ("", "checkpoints"))]
        folder = self.draw.choice([path for path in folders if path.is_dir()])
        with contextlib.suppress(FileNotFoundError):  # tidied away just now
            (folder / f".{self.draw.randbytes(8).hex()}.part").write_bytes(b"half")
            self.effects["unfinished files"] += 1


def _by_number(run: Path) -> list[Path]:
    return sorted((path for path in run.glob("attempts/*") if path.name.isdigit()), key=lambda path: int(path.name))


def _tear_checkpoint(folder: Path) -> None:
    (folder / "ckpt-999_temp").mkdir(parents=True, exist_ok=True)
    (folder / "ckpt-999_temp" / "part-0").write_bytes(b"half")
    (folder / "ckpt-999.data-00000-of-00001").write_bytes(b"half")


def _append(path: Path, text: str) -> None:
    with contextlib.suppress(FileNotFoundError), path.open("r+") as file:  # not where there is none
        file.seek(0, os.SEEK_END)
        file.write(text)


def _signal(pid: int | None, number: int) -> None:
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _signal_all(pids: Sequence[int | None], number: int) -> None:
    for pid in pids:
        _signal(pid, number)


def _limit_files(pids: Sequence[int], most: int) -> int:
    """Limits the size that a file of some processes may grow to, bytes; how many processes there were."""
    limited = 0
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard if most == resource.RLIM_INFINITY else most, hard))
            limited += resource.prlimit(pid, resource.RLIMIT_FSIZE)[0] == most
    return limited


# What came of it.


@dataclasses.dataclass
class Found:
    """The counts: what is told, and what must not be.

    Attributes:
      told: name -> anything.
      wrong: name -> what should not be there, in words.
    """

    told: dict[str, Any] = dataclasses.field(default_factory=dict)
    wrong: dict[str, list[str]] = dataclasses.field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        """For a reader: numbers, and of what is wrong some of it."""
        return {**self.told, **{name: len(of) for name, of in self.wrong.items()}, "wrong": self.shown()}

    def shown(self) -> dict[str, list[str]]:
        """What is wrong, the first of each kind."""
        return {name: of[:5] for name, of in self.wrong.items() if of}


def wanted(store: Store, data: Path, seeds: int) -> list[Run]:
    """The runs of the study, planned anew."""
    workspace = Workspace(QUICK, data_set(str(data), QUICK, store.root), Overrides(), 1, store, Devices())
    plan = pretend.with_parents(workspace, workspace.plan([STUDY], range(seeds)), HEIRS)
    return [one.run for one in plan.runs]


@dataclasses.dataclass(frozen=True)
class Trial:
    """A trial of the queue, as Optuna's own interface tells it.

    Attributes:
      number: its number.
      run: id of its run.
      parent: id of the run that it starts from; empty without one.
      state: Optuna's name of its state.
      cause, error: what the queue keeps of one that failed.
    """

    number: int
    run: str
    parent: str
    state: str
    cause: str
    error: str


def trials(url: str) -> list[Trial]:
    """The trials of the queue."""
    import optuna

    from harness.scheduler.optuna_storage import open_storage

    study = optuna.load_study(study_name="runs", storage=open_storage(url))
    return [
        Trial(
            one.number, *one.user_attrs["run"][:2], one.state.name, one.user_attrs.get("cause", "stale"),
            one.user_attrs.get("error", ""),
        )
        for one in study.get_trials(deepcopy=False)
    ]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What a study left behind.

    Attributes:
      runs: what was wanted.
      store: the records.
      queue: the trials.
      heard: what attempts said that they did, in the order of its arrival.
    """

    runs: Sequence[Run]
    store: Store
    queue: Sequence[Trial]
    heard: Sequence[Mapping[str, Any]]


def counted(left: Evidence) -> Found:
    """Counts what came of a study, from its files, its queue and what attempts said."""
    store, found, of = left.store, Found(), collections.defaultdict(list)
    for one in left.queue:
        of[one.run].append(one)
    records = {run.id: Path(str(store.folder(run.id))) / "record.json" for run in left.runs}
    written = {run_id: path.stat().st_mtime for run_id, path in records.items() if path.exists()}
    _count_records(found, left.runs, store, of, written)
    _count_failures(found, left.runs, of, written)
    _count_times(found, left.heard, written)
    _count_parents(found, left, written)
    return found


def _count_records(
    found: Found, runs: Sequence[Run], store: Store, of: Mapping[str, Sequence[Trial]], written: Mapping[str, float]
) -> None:
    complete = {run.id: [one for one in of.get(run.id, ()) if one.state == "COMPLETE"] for run in runs}
    found.told |= {"runs": len(runs), "records": len(written), "trials": sum(map(len, of.values()))}
    found.told["runs with a trial COMPLETE"] = sum(map(bool, complete.values()))
    found.told["runs recorded by a later attempt"] = sum(len(of.get(run_id, ())) > 1 for run_id in written)
    found.wrong["records lost"] = [run for run, done in complete.items() if done and run not in written]
    found.wrong["doubled"] = [run for run, done in complete.items() if len(done) > 1]
    chains = _chains(runs)
    found.wrong["records unsound"] = [
        text for run in runs if run.id in written for text in _faults(run, chains[run.id], store, of.get(run.id, ()))
    ]


def _chains(runs: Sequence[Run]) -> dict[str, str]:
    """Id of a run -> what its weights hold if each step was trained, once and in order, from those of its parent."""
    known = {run.id: pretend.chain(run) for run in runs if run.parent is None}
    return known | {run.id: pretend.chain(run, known[run.parent[:16]]) for run in runs if run.parent is not None}


def _faults(run: Run, chain: str, store: Store, own: Sequence[Trial]) -> Iterator[str]:
    """What is wrong with a record."""
    try:
        record = store.checked(run.id)
    except RecordError as error:
        yield str(error)
        return
    if pretend.chain_in(str(store.weights(record))) != chain:
        yield f"{run.id}: its weights were not trained by each step, once and in order"
    if record.provenance["attempt"] not in [one.number for one in own]:
        yield f"{run.id}: recorded by attempt {record.provenance['attempt']}, which the queue does not know"
    steps = [point["step"] for point in record.curve if point["split"] == "train"]
    if steps != sorted(set(steps)) or steps[-1:] != [run.settings[pretend.TRAIN_STEPS]]:
        yield f"{run.id}: its curve goes by steps {steps}"


def _count_failures(
    found: Found, runs: Sequence[Run], of: Mapping[str, Sequence[Trial]], written: Mapping[str, float]
) -> None:
    failures = [one for own in of.values() for one in own if one.state == "FAIL" and one.cause == "failed"]
    kinds = {one.number: _explained(one.error) for one in failures}
    found.told["attempts failed"] = dict(collections.Counter(kind for kind in kinds.values() if kind))
    found.told["attempts ended"] = dict(
        collections.Counter(o.cause for s in of.values() for o in s if o.state == "FAIL")
    )
    last = {run.id: [one for one in failures if one.run == run.id] for run in runs if run.id not in written}
    stated = {run_id: own[-1].error for run_id, own in last.items() if len(own) > RETRIES}
    found.told["runs failed for good"] = stated
    found.wrong["neither recorded nor failed"] = [
        run.id for run in runs if run.id in last and not {run.id, (run.parent or "")[:16]} & set(stated)
    ]
    found.wrong["failures unexplained"] = [f"{one.run}: {one.error}" for one in failures if not kinds[one.number]]


def _explained(error: str) -> str:
    return next((name for name, pattern in EXPLAINED.items() if re.search(pattern, error)), "")


def _count_times(found: Found, heard: Sequence[Mapping[str, Any]], written: Mapping[str, float]) -> None:
    """Who was at what when."""
    at: dict[str, dict[int, list[float]]] = collections.defaultdict(lambda: collections.defaultdict(list))
    for one in heard:
        if one["does"] in AT_WORK:
            at[one["run"]][one["attempt"]].append(one["time"])
    overlaps, after = [], []
    for run, attempts in at.items():
        for number, times in attempts.items():
            later = [min(other) for more, other in attempts.items() if more > number]
            overlaps += [(_awake(times, min(later)), f"{run}: attempt {number}")] if later else []
            after += [(_awake(times, written[run]), f"{run}: attempt {number}")] if run in written else []
    found.told["attempts that began"] = sum(map(len, at.values()))
    found.told["attempts that learned while they trained that they were lost"] = sum(
        one["does"] == "lost" for one in heard
    )
    found.told["longest overlap, seconds"] = round(max((one for one, _ in overlaps), default=0.0), 2)
    found.told["longest training after the record, seconds"] = round(max((one for one, _ in after), default=0.0), 2)
    found.wrong["overlap too long"] = [f"{what}: {one:.2f} s" for one, what in overlaps if one > CHECK]
    found.wrong["trained after completion"] = [f"{what}: {one:.2f} s" for one, what in after if one > CHECK]
    found.wrong["begun after completion"] = [
        f"{one['run']}: attempt {one['attempt']}"
        for one in heard
        if one["does"] == "attempt" and one["time"] > written.get(one["run"], one["time"])
    ]
    writers = collections.Counter(one["run"] for one in heard if one["does"] == "recorded")
    found.wrong["two writers"] = [run for run, count in writers.items() if count > 1]


def _count_parents(found: Found, left: Evidence, written: Mapping[str, float]) -> None:
    """Whether what starts from another run waited for its record."""
    parents = {run.id: run.parent[:16] for run in left.runs if run.parent is not None}
    queued = {one.run: one.parent for one in left.queue if one.parent}
    found.told["runs with a parent"] = len(parents)
    found.wrong["parents unknown to the queue"] = [run for run, parent in parents.items() if queued.get(run) != parent]
    found.wrong["begun before its parent"] = [
        f"{one['run']}: attempt {one['attempt']}"
        for one in left.heard
        if one["does"] == "attempt" and one["run"] in parents
        and one["time"] < written.get(parents[one["run"]], float("inf"))
    ]  # fmt: skip


def _awake(times: Sequence[float], since: float) -> float:
    """For how long an attempt went on after a moment, seconds; what it slept through meanwhile is not counted."""
    late = sorted(one for one in times if one > since)
    return sum(min(after - before, 0.5) for before, after in itertools.pairwise(late))


def leaks(folder: Path, said: Sequence[str]) -> list[str]:
    """Files under a folder, and lines on screens, that hold a part of the database's password."""
    parts = [part.encode() for part in ("se:c", "se%3Ac", "c@r%t", "r%25t")]
    files = [path for path in folder.rglob("*") if path.is_file()]
    found = [str(path.relative_to(folder)) for path in files if any(part in path.read_bytes() for part in parts)]
    return found + [line.strip() for line in said if any(part in line.encode() for part in parts)]


def endure(
    faults: int,
    workers: int,
    runs: int,
    seed: int,
    server: postgres.Server | None,
    folder: Path,
    pace: tuple[float, float] = PACE,
    bucket: bool = False,
) -> tuple[Evidence, Found]:
    """Does so many faults to a study and lets it end: what it left, and what was seen of it besides."""
    began, draw = time.monotonic(), random.Random(seed)
    how = {"PRETEND_FAILS": FAILS, "PRETEND_HEIRS": HEIRS}
    soak = Soak(folder, server, workers, -(-runs // ROWS), draw, how, bucket)
    for _ in range(workers):
        soak.join()
    while not any(one["does"] == "attempt" for one in soak.listener.heard):
        soak.tend(0.1)
        if soak.at_rest:
            raise RuntimeError(f"no worker began: {soak.exits}")
    while sum(soak.faults.values()) < faults:
        soak.tend(draw.uniform(*pace))
        while not soak.fault():
            if soak.at_rest:
                soak.grow(max(1, soak.seeds // 4))
            soak.tend(0.1)
    ended = soak.settle(300)
    left = soak.end()
    seen = Found({
        "faults": dict(soak.faults),
        "faults in all": sum(soak.faults.values()),
        "their effects": dict(soak.effects),
        "exits": dict(soak.exits),
        "minutes": round((time.monotonic() - began) / 60, 1),
    })  # fmt: skip
    seen.wrong["did not end"] = [] if ended else [line for one in soak.commands for line in list(one.said)[-3:]]
    seen.wrong["processes left"] = ["process"] * left
    seen.wrong["crashes"] = [kind for kind in soak.exits if kind.startswith("traceback")]
    seen.wrong["credentials"] = leaks(folder, [line for one in soak.every for line in one.said])
    url = server.url if server else f"sqlite:///{soak.store.root / 'queue.db'}"
    planned = wanted(soak.store, folder / "clips", soak.seeds)
    seen.told["runs damaged beyond repair"] = sorted(soak.damaged)
    return Evidence(planned, soak.store, trials(url), soak.listener.heard), seen


def prove(
    faults: int,
    workers: int,
    runs: int,
    seed: int,
    server: postgres.Server | None,
    folder: Path,
    bucket: bool = False,
) -> Found:
    """Does so many faults to a study, lets it end, and counts."""
    evidence, seen = endure(faults, workers, runs, seed, server, folder, bucket=bucket)
    found = counted(evidence)
    unharmed = set(found.told["runs failed for good"]) - set(seen.told["runs damaged beyond repair"])
    seen.wrong["failed for good without damage"] = sorted(unharmed)
    return Found(seen.told | found.told, seen.wrong | found.wrong)


# How fast it is.


def sleeping(workers: int, runs: int, seconds: float, server: postgres.Server | None, folder: Path) -> dict[str, float]:
    """How long so many workers take for runs that sleep: from the first step to the last record, and in all."""
    began = time.monotonic()
    soak = Soak(folder, server, workers, runs // ROWS, random.Random(0), {"PRETEND_SECONDS": seconds})
    for _ in range(workers):
        soak.join()
    assert soak.settle(600), [line for one in soak.commands for line in one.said]
    whole = time.monotonic() - began
    written = [Path(str(path)).stat().st_mtime for path in soak.store.runs.glob("*/record.json")]
    assert len(written) == runs, f"{len(written)} records of {runs} runs"
    first = min(one["time"] for one in soak.listener.heard)
    return {"seconds": max(written) - first, "with starting and drawing": whole}


def speed(runs: int, seconds: float, folder: Path) -> dict[str, Any]:
    """One worker and four at runs that sleep; a database for each, as each is a study of its own."""
    took = {}
    for workers in (1, 4):
        own = folder / str(workers)
        own.mkdir()
        with postgres.server() as server:
            took[workers] = sleeping(workers, runs, seconds, server, own)
    ratio = took[4]["seconds"] / took[1]["seconds"]
    told = {f"{count} workers" if count > 1 else "1 worker": _rounded(of) for count, of in took.items()}
    return {"runs": runs, "each sleeps, seconds": seconds, **told, "ratio": round(ratio, 3)}


def _rounded(numbers: Mapping[str, float]) -> dict[str, float]:
    return {name: round(number, 2) for name, number in numbers.items()}


def claiming(waiting: int, claims: int) -> dict[str, Any]:
    """How long a worker takes to claim one of so many runs that wait, on PostgreSQL."""
    from harness.scheduler.run_queue import Queue
    from harness.scheduler.run_states import Item

    items = [Item(f"{number:064x}", f"row {number}", "study", number) for number in range(waiting)]
    with postgres.server() as server:
        queue, began = Queue(server.url), time.monotonic()
        queue.reconcile(items, set, RETRIES)
        entered, took = time.monotonic() - began, []
        began = time.monotonic()
        queue.reconcile(items, set, RETRIES)
        listed = time.monotonic() - began
        for _ in range(claims):
            began = time.monotonic()
            assert queue.claim() is not None
            took.append(time.monotonic() - began)
    return {
        "waiting": waiting,
        "claims": claims,
        "median seconds of a claim": round(statistics.median(took), 5),
        "longest": round(max(took), 5),
        "seconds to list them anew": round(listed, 3),
        "seconds to enter them all": round(entered, 1),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--runs", type=int, default=160)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--postgres", choices=("on", "off"), default="on")
    parser.add_argument("--bucket", action="store_true")
    parser.add_argument("--speed", action="store_true")
    known = parser.parse_args()
    if known.bucket and known.postgres == "off":
        parser.error("--bucket: machines that share no disk share a PostgreSQL database; leave --postgres on")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        if known.speed:
            print(json.dumps(speed(40, 1.0, folder)))
            print(json.dumps(claiming(2000, 200)))
            return
        with postgres.server() if known.postgres == "on" else contextlib.nullcontext() as server:
            found = prove(known.faults, known.workers, known.runs, known.seed, server, folder, known.bucket)
    print(json.dumps(found.summary(), indent=1))
    if found.shown():
        raise SystemExit(1)


if __name__ == "__main__":
    main()
