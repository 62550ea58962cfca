"""Training that is not: the harness's commands as they are, with a stand-in for what TensorFlow does in them.

    python -m tests.support.pretend additive --seeds 2 --results /tmp/results --data /tmp/clips
    python -m tests.support.pretend train ls --results /tmp/results --data /tmp/clips

is `python -m harness.additive_study` and `harness.train`, from the command line to the record: the plan, the queue, the
worker's process, :mod:`harness.training.executor` and the store are the real ones. In the worker's process TensorFlow
and the Garden are modules that hold nothing, and of :mod:`harness.training.loop` the functions that would use them are
those of this module: training sleeps, and leaves small files where checkpoints would be. A folder of `--data` that is
not there yet is made, with shards that hold nothing. A bucket of `--runs` is a folder's address, file:///tmp/bucket,
which in both processes :mod:`tests.support.local_gfile` reaches in TensorFlow's place.

What a training comes to is a chain of hashes, a link for each step, which checkpoints carry on: of every record it can
be told whether each of its steps was trained, once and in order (:func:`chain`). The environment says more:

    PRETEND_SECONDS  that a run sleeps for in all (default 1)
    PRETEND_FAILS    share of the attempts that fail on their way (default 0), drawn by the run and the attempt
    PRETEND_HEIRS    so many rows of a study, from its first on, start from the run of its last row (default 0)
    PRETEND_TRACE    a file, or pipe, that gets a line for whatever an attempt does
    TRAINING_WAITS   see :mod:`tests.support.waiting`
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import importlib.abc
import importlib.machinery
import itertools
import json
import os
import random
import re
import sys
import time
import types
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.config.devices import Devices
from harness.config.experiment import TRAIN_STEPS, Protocol, Run
from harness.data import manifest as manifests
from harness.data.manifest import Manifest, Shard, Split
from harness.planning import plans
from harness.planning.plans import Plan, Planned
from harness.store import attempts
from harness.store.attempts import Interrupted, LostError, RunError
from harness.system import files, paths
from harness.system.paths import Address, Folder
from tests.support import local_gfile, waiting

if TYPE_CHECKING:
    from harness.config.studies import Study
    from harness.planning.workspace import Workspace
    from harness.store.records import RunRecord
    from harness.training.loop import AssertOwner, OnEvent, RunContext, ShouldStop
    from harness.training.task import Predictions

COMMANDS = {
    "additive": "harness.additive_study",
    "study": "harness.study",
    "train": "harness.train",
    "sweep": "harness.scaling_sweep",
}
CLASSES = ("up", "down", "left", "right", "round", "across", "still", "gone")
TRAIN_VIDEOS, VALIDATION_VIDEOS, FRAMES = 64, 16, 400
DRAWN = "drawn to fail"

_ATTEMPT = re.compile(r"/attempts/(\d+)/checkpoints$")
_EVALUATED = 0.1  # share of the seconds that the evaluation takes


# In the place of functions of harness.training.loop.


def strategy_for(devices: Devices) -> None:
    """There are no devices."""


def device_versions() -> dict[str, str]:
    """What computed the result."""
    return {"pretended": "1"}


def train(
    run: Run,
    manifest: Manifest,
    place: RunContext,
    report: OnEvent,
    stop: ShouldStop = lambda: None,
    hold: AssertOwner = lambda _: None,
) -> str:
    """Sleeps through a run's steps from its furthest checkpoint, saving, reporting and asking as the real one does."""
    from harness.training import loop

    trace, found = Trace.of(run, place), loop.furthest(place)
    hold = trace.asked(hold)
    step, digest = _read(run, found[0]) if found else (0, _begun(run, place))
    saver, began = _Saver(run, place, hold, step if found else None), time.monotonic()
    report({"event": "attempt", "step": step, **(attempts.origin(found[0]) if found else {})})
    trace("attempt", step)
    steps, kept, fails_at = run.settings[TRAIN_STEPS], run.bookkeeping, _fails_at(run, place)
    while step < steps:
        # As Orbit's loops: they end at a validation.
        until = min(step + kept["trainer.steps_per_loop"], _next(step, kept["trainer.validation_interval"]), steps)
        time.sleep(_seconds() * (1 - _EVALUATED) * (until - step) / steps)
        before, step, digest = step, until, chained(digest, run, step, until - step)
        trace("step", step)
        _say(report, "train", run, step, began, learning_rate=0.1)
        if before < fails_at <= step:
            raise RunError(f"{DRAWN} at step {step}")
        hold(False)
        if reason := stop():
            saver.save(step, digest)
            raise Interrupted(reason)
        saver.save(step, digest, kept["trainer.checkpoint_interval"])
        if step % kept["trainer.validation_interval"] == 0:
            saver.save(step, digest)
            _say(report, "validation", run, step, began, videos=float(VALIDATION_VIDEOS))
    saver.save(step, digest)
    hold(True)
    _write(loop.weights(place.checkpoints, steps), run, step, digest)
    return "1 x nothing"


def evaluate(
    run: Run,
    protocol: Protocol,
    manifest: Manifest,
    place: RunContext,
    report: OnEvent,
    stop: ShouldStop = lambda: None,
    hold: AssertOwner = lambda _: None,
) -> tuple[Predictions, str, float, str]:
    """Made up predictions, the path of the weights, the seconds it took and a device."""
    from harness.training import loop

    path, began, trace = loop.trained(run, place), time.monotonic(), Trace.of(run, place)
    hold = trace.asked(hold)
    assert path is not None, "what is evaluated was trained"
    _, digest = _read(run, path)
    videos = int(run.bookkeeping["task.validation_data.num_examples"])
    report({"event": "evaluate", "done": 0, "total": videos})
    for done in (videos // 2, videos):
        time.sleep(_seconds() * _EVALUATED / 2)
        trace("evaluate", done)
        report({"event": "evaluate", "done": done, "total": videos})
        hold(False)
        if reason := stop():
            raise Interrupted(reason)
    return _made_up(f"{digest} {protocol.name}", videos), path, time.monotonic() - began, "1 x nothing"


# Checkpoints: a file with some bytes and one that names them, under TensorFlow's names, each put there whole.


class _Saver:
    """Saves a run's checkpoints in its folder, each step once; earlier ones go.

    Args:
      saved: step of the checkpoint that training went on from; None where it begins.
    """

    def __init__(self, run: Run, place: RunContext, hold: AssertOwner, saved: int | None) -> None:
        from harness.training import loop

        self._run, self._folder, self._saves = run, paths.path_of(place.checkpoints), loop._Saves(hold, place)
        self._saved, self._kept, self._trace = saved, list[int](), Trace.of(run, place)

    def save(self, step: int, digest: str, interval: int = 1) -> None:
        """Writes the checkpoint of a step so many steps after the last, if the attempt is still this worker's."""
        if self._saved is not None and step < self._saved + interval:
            return
        self._saves.before()
        _write(str(self._folder / f"ckpt-{step}"), self._run, step, digest)
        files.replace(self._folder / "checkpoint", f'model_checkpoint_path: "ckpt-{step}"\n'.encode())
        self._trace("checkpoint", step)
        self._saved = step
        self._kept.append(step)
        self._saves.after()
        for old in self._kept[: -self._run.bookkeeping["trainer.max_to_keep"]]:
            for path in self._folder.glob(f"ckpt-{old}.*"):
                path.unlink(missing_ok=True)


def _write(path: str, run: Run, step: int, digest: str) -> None:
    folder, content = paths.path_of(path + "_temp"), random.Random(digest).randbytes(20_000)
    about = {"run": run.id, "step": step, "chain": digest, "sha256": hashlib.sha256(content).hexdigest()}
    _put(content, paths.path_of(path + ".data-00000-of-00001"), folder)
    _put(json.dumps(about).encode(), paths.path_of(path + ".index"), folder)
    folder.rmdir()


def _put(content: bytes, path: Folder, beside: Folder) -> None:
    """Writes a file; before it is whole it stands in another folder, where a kill leaves it."""
    if isinstance(path, Address):
        path.written(content, beside)
        return
    beside.mkdir(parents=True, exist_ok=True)
    (beside / path.name).write_bytes(content)
    Path(str(beside / path.name)).replace(path)


def readable(path: str) -> str:
    """The path of a checkpoint, all of which was read.

    Raises:
      RunError: it is damaged.
    """
    with contextlib.suppress(OSError, ValueError, KeyError):
        about = json.loads(paths.path_of(path + ".index").read_text())
        content = paths.path_of(path + ".data-00000-of-00001").read_bytes()
        if hashlib.sha256(content).hexdigest() == about["sha256"]:
            return path
    raise RunError(f"{path}: damaged checkpoint")


def _read(run: Run, path: str) -> tuple[int, str]:
    """Step and chain of a checkpoint.

    Raises:
      RunError: it is damaged, or another run's.
    """
    about = json.loads(paths.path_of(readable(path) + ".index").read_text())
    if about["run"] != run.id:
        raise RunError(f"{path}: checkpoint of run {about['run']}, expected {run.id}")
    return about["step"], about["chain"]


# What a training comes to.


def seed_of(run: Run, parent: str = "") -> str:
    """Where a run's chain begins, that of the run it starts from given."""
    return hashlib.sha256(f"{parent}{run.id}".encode()).hexdigest()


def _begun(run: Run, place: RunContext) -> str:
    """Where a run's chain begins, from the record of the run that it starts from.

    Raises:
      RecordError: which is not there.
    """
    from harness.store.run_store import Store

    if run.parent is None:
        return seed_of(run)
    runs = paths.path_of(place.checkpoints).parent.parent.parent.parent
    run_store = Store(Path(), runs)
    return seed_of(run, chain_in(str(run_store.weights(run_store.read(run.parent[:16])))))


def chained(digest: str, run: Run, step: int, steps: int) -> str:
    """The chain so many steps after a step at which it stood."""
    for number in range(step + 1, step + steps + 1):
        digest = hashlib.sha256(f"{digest} {run.id} {number}".encode()).hexdigest()
    return digest


def chain(run: Run, parent: str = "") -> str:
    """What the weights of a run hold if each of its steps was trained, once and in order.

    Args:
      run: the run.
      parent: the same of the run that it starts from; empty without one.
    """
    return chained(seed_of(run, parent), run, 0, run.settings[TRAIN_STEPS])


def chain_in(path: str) -> str:
    """What weights hold."""
    return str(json.loads(paths.path_of(path + ".index").read_text())["chain"])


def _made_up(seed: str, videos: int) -> Predictions:
    from harness.training.task import Predictions

    draw = np.random.default_rng(int(hashlib.sha256(seed.encode()).hexdigest()[:16], 16))
    label = np.arange(videos) % len(CLASSES)
    guesses = np.stack([draw.permutation(len(CLASSES))[:5] for _ in range(videos)])
    guesses[::2, 0] = label[::2]
    shares = np.sort(draw.dirichlet(np.ones(5), videos))[:, ::-1]
    names = [f"pretended-{number:05d}" for number in range(videos)]
    return Predictions(names, label, guesses, shares.astype(np.float32), draw.uniform(0, 3, videos).astype(np.float32))


def _say(report: OnEvent, split: str, run: Run, step: int, began: float, **more: float) -> None:
    steps = run.settings[TRAIN_STEPS]
    numbers = {"loss": 3 - 2 * step / steps, "top1": 0.5 * step / steps, "top5": 0.9 * step / steps, **more}
    seconds = round(time.monotonic() - began, 3)
    report({"event": split, "split": split, "step": step, "done": step, "total": steps, "seconds": seconds, **numbers})


def _next(step: int, interval: int) -> int:
    return (step // interval + 1) * interval


def _fails_at(run: Run, place: RunContext) -> int:
    """The step at which an attempt fails; 0 for one that does not."""
    draw = random.Random(f"{run.id} {place.checkpoints}")
    fails = draw.random() < float(os.environ.get("PRETEND_FAILS", "0"))
    return draw.randint(1, run.settings[TRAIN_STEPS]) if fails else 0


def _seconds() -> float:
    return float(os.environ.get("PRETEND_SECONDS", "1"))


# What is seen of it.


@dataclasses.dataclass(frozen=True)
class Trace:
    """Writes down what an attempt does, a line for each thing: "time", "process", "run", "attempt", "does", "step".

    What it does is: "attempt" (it begins), "step", "checkpoint", "evaluate", "recorded", and "lost", which says that it
    learned so.
    """

    run: str
    attempt: int

    @classmethod
    def of(cls, run: Run, place: RunContext) -> Trace:
        """Of the attempt that has its checkpoints there."""
        match = _ATTEMPT.search(place.checkpoints)
        return cls(run.id, int(match[1]) if match else -1)

    def __call__(self, does: str, step: int = 0) -> None:
        """Writes a line, in one call, so that many processes can write into one file."""
        if file := _trace_file():
            about = {
                "time": time.time(),
                "process": os.getpid(),
                **dataclasses.asdict(self),
                "does": does,
                "step": step,
            }
            os.write(file, (json.dumps(about) + "\n").encode())

    def asked(self, hold: AssertOwner) -> AssertOwner:
        """The same question, whose answer "no" is written down."""

        def asked(now: bool) -> None:
            try:
                hold(now)
            except LostError:
                self("lost")
                raise

        return asked


@functools.cache
def _trace_file() -> int:
    path = os.environ.get("PRETEND_TRACE")
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644) if path else 0


# Data, plans and the commands.


def make_data(folder: Path) -> None:
    """Makes a data set of shards that hold nothing, if it is not there; whole or not at all."""
    if (folder / manifests.FILE_NAME).exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    splits = {}
    for split, videos in (("train", TRAIN_VIDEOS), ("validation", VALIDATION_VIDEOS)):
        shard = folder / f"{split}-00000-of-00001.tfrecord"
        shard.write_bytes(b"nothing")
        histogram = (videos // len(CLASSES),) * len(CLASSES)
        splits[split] = Split((Shard(shard.name, videos, shard.stat().st_size),), FRAMES, FRAMES, histogram)
    fingerprint = hashlib.sha256(b"nothing").hexdigest()
    manifests.save(Manifest("pretended", CLASSES, 40, 54, splits, fingerprint, "nothing"), folder)


def with_parents(workspace: Workspace, whole: Plan, heirs: int) -> Plan:
    """A plan in which runs start from others: of each seed, those of the first rows from that of the last.

    Which they stand before in the plan, so that whoever goes by its order alone begins them too early.
    """
    of, new = {one.run.id: one for one in whole.runs}, dict[str, Planned]()
    for rows in whole.wanted.values():
        *others, last = sorted(rows)
        for run_id, parent_id in ((rows[row][seed], rows[last][seed]) for row in others[:heirs] for seed in rows[row]):
            run = dataclasses.replace(of[run_id].run, parent=of[parent_id].run.identity, recorded=None)
            new[run_id] = plans._planned(run, of[run_id].rows, workspace._known(run), {})
    wanted = {
        study: {
            row: {seed: new[run_id].run.id if run_id in new else run_id for seed, run_id in own.items()}
            for row, own in rows.items()
        }
        for study, rows in whole.wanted.items()
    }
    return Plan(whole.studies, tuple(new.get(one.run.id, one) for one in whole.runs), wanted)


class _Nothing(type):
    """A class that holds nothing but more of the same."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Nothing(name, (), {})


class _Empty(types.ModuleType):
    """A module that holds whatever is asked for."""

    def __getattr__(self, name: str) -> Any:
        return getattr(_Nothing("nothing", (), {}), name)


class _Absent(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds modules that hold nothing, TensorFlow's but for the files that it reaches.

    Args:
      packages: names of packages.
      modules: names of modules.
    """

    def __init__(self, packages: Sequence[str], modules: Sequence[str] = ()) -> None:
        self.packages, self.modules = packages, modules

    def find_spec(self, name: str, path: object = None, target: object = None) -> importlib.machinery.ModuleSpec | None:
        ours = name in self.modules or name.partition(".")[0] in self.packages
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if ours else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _Empty(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        if module.__name__ == _TENSORFLOW:
            module.io = _Empty("io")  # type: ignore[attr-defined]
            module.io.gfile = local_gfile


_TENSORFLOW = "tensorflow"
# TensorFlow, the Garden, and what of ours does nothing without them.
_PACKAGES = (_TENSORFLOW, "tf_keras", "orbit", "official")
_MODULES = ("harness.training.garden_config", "harness.training.determinism", "harness.data.reader",
"harness.data.seeded_ops", "harness.data.diagnose",
            "harness.data.on_device", "harness.training.tasks")  # fmt: skip


def serve(pipe: Connection) -> None:
    """The worker's process: its :func:`serve`, with this module in the place of what needs TensorFlow."""
    sys.meta_path.insert(0, _Absent(_PACKAGES, _MODULES))
    from harness.store import run_store
    from harness.training import loop, worker

    loop.train, loop.evaluate, loop.strategy_for = train, evaluate, strategy_for  # type: ignore[assignment]
    loop.device_versions, loop._readable = device_versions, readable
    write = run_store.Store.write

    def traced(self: run_store.Store, record: RunRecord) -> Folder:
        path = write(self, record)
        Trace(record.id, record.provenance["attempt"])("recorded")
        return path

    run_store.Store.write = traced  # type: ignore[method-assign]
    waiting.wait_where_told()
    worker.serve(pipe)


@contextlib.contextmanager
def pretending(reaching: bool = False) -> Iterator[None]:
    """While active, commands of this process train with :func:`serve`.

    Args:
      reaching: whether they reach a bucket, which is a folder's address; this process then has no TensorFlow.
    """
    from harness.planning import workspace
    from harness.scheduler import orchestrator
    from harness.training.worker import Worker

    worker, plan, heirs = orchestrator.Worker, workspace.Workspace.plan, int(os.environ.get("PRETEND_HEIRS", "0"))

    def planned(self: Workspace, studies: Sequence[Study], seeds: Sequence[int]) -> Plan:
        return with_parents(self, plan(self, studies, seeds), heirs)

    stand_ins = [_Absent([_TENSORFLOW])] if reaching else []
    sys.meta_path[:0] = stand_ins
    orchestrator.Worker = functools.partial(Worker, target=serve)  # type: ignore[misc, assignment]
    workspace.Workspace.plan = planned  # type: ignore[method-assign]
    try:
        yield
    finally:
        for one in stand_ins:
            sys.meta_path.remove(one)
        orchestrator.Worker = worker  # type: ignore[misc]
        workspace.Workspace.plan = plan  # type: ignore[method-assign]


def main(words: Sequence[str]) -> None:
    """The command line: the name of a command, and what it is given."""
    if not words or words[0] not in COMMANDS:
        raise SystemExit(f"{__doc__}\nexpected one of {', '.join(COMMANDS)}")
    for one, other in itertools.pairwise(words):
        if one == "--data":
            make_data(Path(other))
    command = importlib.import_module(COMMANDS[words[0]]).main
    with pretending(reaching=True):
        command(words[1:], prog_name=COMMANDS[words[0]])


if __name__ == "__main__":
    # Not this module's own `main`: what is handed to another process has to be found there by its name.
    importlib.import_module("tests.support.pretend").main(sys.argv[1:])
