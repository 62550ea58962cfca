"""Stores with real weights, each trained once for all tests (the fixture `trained`): what they hold, and their runs.

A test that needs weights, checkpoints or a record copies the store that has them, and goes on from there.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

from ablations.stages import PRETRAIN
from ablations.toggles import EMA
from harness.config.experiment import Run
from harness.store.run_store import Store
from tests.support.tiny import Data, every_step, files_of, seldom

STEPS, STOPPED = 4, 3


def baseline(data: Data) -> Run:
    """Four steps of the baseline."""
    return data.run(steps=STEPS)


def averaged(data: Data) -> Run:
    """Four steps of the baseline whose weights are averaged, not validated before the last."""
    return every_step(data.run(EMA.at(0.5), steps=STEPS), validation_interval=100)


def pretraining(other: Data) -> Run:
    """Two steps on the other data set, for other runs to start from."""
    return other.run(stages=(PRETRAIN,))


def _baseline(folder: Path, data: Data, other: Data) -> None:
    """Trains the baseline, watches it, and copies what a kill would have left on its way."""
    store, run = Store(folder / "whole"), baseline(data)
    events: list[Mapping[str, Any]] = []
    asked: list[tuple[bool, list[str]]] = []

    def report(event: Mapping[str, Any]) -> None:
        events.append(event)
        if event["event"] == "train" and event["step"] == STOPPED:
            shutil.copytree(store.root, folder / "killed")
        if event["event"] == "evaluate" and not event["done"]:
            shutil.copytree(store.root, folder / "evaluating")

    with _counted() as counts:
        data.execute(store, run, report, hold=lambda now: asked.append((now, files_of(store, run))))
    seen = {"events": events, "asked": asked, **counts}
    (folder / "whole" / "watched.json").write_text(json.dumps(seen))


def watched(store: Store) -> Any:
    """What was seen of the training of the store "whole".

    "events" are the reports; "asked" are the questions whether the run is still this worker's, each with the files that
    were there; "traced" says how often the train step was traced, "carried" how many second pipelines carried batches.
    """
    return json.loads((Path(store.root) / "watched.json").read_text())


@contextlib.contextmanager
def _counted() -> Iterator[dict[str, int]]:
    from tensorflow.python.data.ops import multi_device_iterator_ops

    from harness.training.task import VideoTask

    step, pipeline = VideoTask.train_step, multi_device_iterator_ops.OwnedMultiDeviceIterator
    begin, counts = pipeline.__init__, {"traced": 0, "carried": 0}

    def traced(*arguments: Any, **words: Any) -> Any:
        counts["traced"] += 1
        return step(*arguments, **words)

    def carried(*arguments: Any, **words: Any) -> None:
        counts["carried"] += 1
        begin(*arguments, **words)

    with mock.patch.object(VideoTask, "train_step", traced), mock.patch.object(pipeline, "__init__", carried):
        yield counts


def _stopped(folder: Path, data: Data, other: Data) -> None:
    data.interrupt(Store(folder / "stopped"), seldom(baseline(data)), STOPPED)


def _averaged(folder: Path, data: Data, other: Data) -> None:
    data.interrupt(Store(folder / "averaged"), averaged(data), STOPPED)


def _pretrained(folder: Path, data: Data, other: Data) -> None:
    other.execute(Store(folder / "pretrained"), pretraining(other))


# Name of a store -> what makes it, in a folder in which it has its name.
STORES: dict[str, Callable[[Path, Data, Data], None]] = {
    "whole": _baseline,  # the baseline, recorded
    "killed": _baseline,  # what a kill in its third step leaves: checkpoints of the first two
    "evaluating": _baseline,  # what a kill in its evaluation leaves: weights, and checkpoints of the last two steps
    "stopped": _stopped,  # the baseline, asked to stop after three steps; otherwise it saves the first alone
    "averaged": _averaged,  # with averaged weights, asked to stop after three, each of which left a checkpoint
    "pretrained": _pretrained,  # a run to start from, recorded
}
