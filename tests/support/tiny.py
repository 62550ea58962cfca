"""Trainings as small as they get, of networks with all the parts of the real ones; nothing is learned in them.

What a training of seconds costs is building the network and tracing its steps; the rest is made small here: few
filters, clips of four frames of 16 pixels, six views. `TINY` is a profile as the others, for what builds runs itself;
the fixture `tiny` of conftest.py makes commands know it (`--profile tiny`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from ablations.profiles import QUICK
from harness.config import embedded_spec, experiment
from harness.config.experiment import Overrides, Profile, Run
from harness.config.studies import Cell
from harness.config.toggles import ToggleValue
from harness.data import embedded
from harness.data.manifest import Manifest
from harness.planning.workspace import facts
from harness.store.attempts import Attempt, Interrupted
from harness.store.records import RunRecord
from harness.store.run_store import Store
from harness.training import executor
from harness.training.loop import RunContext

TINY = dataclasses.replace(
    QUICK,
    name="tiny",
    caption="Tiny profile: networks of few filters are trained for a few steps, for the tests.",
    settings=dict(QUICK.settings) | {f"network.filters[{stage}]": 4 for stage in range(4)},
    units=dict(QUICK.units)
    | {
        "pixels": 1 / 14,
        "evaluation_pixels": {224: 16, 256: 18, 288: 20},
        "frames": {32: 4, 48: 6, 64: 8, "32x2": 8, "48x2": 10},
        "linear_frames": {64: 4},
        "width": {2048: 16},
    },
    clips=2,
    crops=3,
)
PROTOCOL = "2x3@16"
SPEC = embedded_spec.EmbeddedSpec("tiny", train_videos=24, validation_videos=13, frames=12, digits=2)
OTHER = dataclasses.replace(SPEC, name="other", paths="other")

Report = Callable[[Mapping[str, Any]], None]


def silent(event: Mapping[str, Any]) -> None:
    """Nobody listens."""


@dataclasses.dataclass(frozen=True)
class Data:
    """A prepared data set."""

    manifest: Manifest
    folder: Path

    @classmethod
    def drawn(cls, spec: embedded_spec.EmbeddedSpec, root: Path) -> Data:
        """The data set of a specification, drawn below a folder if it is not there."""
        return cls(embedded.ensure(spec, root), embedded.folder(spec, root))

    def run(
        self,
        *applied: ToggleValue,
        steps: int = 2,
        seed: int = 0,
        profile: Profile = TINY,
        stages: tuple[Any, ...] = (),
        parent: Run | None = None,
        **cut: Any,
    ) -> Run:
        """A run of so many steps, each of which is a loop of its own, and leaves a checkpoint and a validation."""
        cell = Cell(applied, seed, stages)
        run = experiment.complete(cell, profile, facts(self.manifest), Overrides(steps=steps, **cut), 1, parent)
        return every_step(run)

    def place(self, store: Store, run: Run, attempt: Attempt, parent: str | None = None) -> RunContext:
        """Where an attempt at a run is carried out, from the weights of the run that it starts from."""
        if parent is None and run.parent is not None:
            parent = str(store.weights(store.read(run.parent[:16])))
        return executor.run_context(store, run, attempt, self.folder, parent=parent)

    def execute(self, store: Store, run: Run, report: Report = silent, **how: Any) -> RunRecord:
        """Another attempt at a run."""
        attempt = next_attempt(store, run)
        where = self.place(store, run, attempt, how.pop("parent", None))
        return executor.execute(run, self.manifest, where, store, attempt, report, **how)

    def evaluate(self, store: Store, run: Run, report: Report = silent, **how: Any) -> RunRecord:
        """Another attempt at evaluating a run that is recorded."""
        attempt = next_attempt(store, run)
        where = self.place(store, run, attempt)
        return executor.evaluate(run, self.manifest, where, store, attempt, report, **how)

    def begun(self, store: Store, run: Run) -> Mapping[str, Any]:
        """Where another attempt at a run goes on, as it reports that once it has read its checkpoint; it ends there."""
        events: list[Mapping[str, Any]] = []

        def report(event: Mapping[str, Any]) -> None:
            events.append(event)
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            self.execute(store, run, report)
        return events[0]

    def interrupt(self, store: Store, run: Run, step: int) -> None:
        """Asks to stop after the loop that ends at a step, as SIGTERM does."""
        reached: list[int] = []

        def report(event: Mapping[str, Any]) -> None:
            if event["event"] == "train":
                reached.append(event["step"])

        with pytest.raises(Interrupted, match="asked"):
            self.execute(store, run, report, stop=lambda: "asked to stop" if reached and reached[-1] == step else None)


def every_step(run: Run, **bookkeeping: int) -> Run:
    """The run with loops of one step, a checkpoint and a validation after each, or what else is given."""
    short = {f"trainer.{name}_interval": 1 for name in ("checkpoint", "validation")} | {"trainer.steps_per_loop": 1}
    given = {f"trainer.{name}": value for name, value in bookkeeping.items()}
    return dataclasses.replace(run, bookkeeping={**run.bookkeeping, **short, **given})


def seldom(run: Run) -> Run:
    """The run with its first and last checkpoint alone, and one validation, of its last step."""
    return every_step(run, checkpoint_interval=100, validation_interval=100)


def unevaluated(run: Run) -> Run:
    """The run as one that others start from: it is over once it is trained. It has the same identity."""
    return dataclasses.replace(run, evaluated=False)


def next_attempt(store: Store, run: Run) -> Attempt:
    """The attempt after those that were."""
    return store.attempt(run.id, max(store.attempts(run.id).numbers, default=-1) + 1)


def variables(path: object) -> dict[str, Any]:
    """Name -> value of the variables in a checkpoint or in weights."""
    import tensorflow as tf

    kept = tf.train.load_checkpoint(str(path))
    names = [name for name in kept.get_variable_to_shape_map() if name.endswith("VARIABLE_VALUE")]
    return {name: kept.get_tensor(name) for name in names}


def files_of(store: Store, run: Run) -> list[str]:
    """The files that attempts at a run left, by their paths in its folder."""
    folder = Path(str(store.folder(run.id)))
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
