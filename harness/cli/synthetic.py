"""Writes records of runs that were never trained, for timing the code that reads records; never beside real ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from harness.config import network
from harness.config.embedded_spec import CLASSES
from harness.config.experiment import Run
from harness.config.network import Cost
from harness.config.studies import Study
from harness.planning.workspace import Workspace
from harness.store import excerpts, records
from harness.store.records import Evaluation
from harness.store.run_store import RECORD, Store

_VIDEOS = 240
_GUESSES = 5


def write_synthetic(workspace: Workspace, studies: Sequence[Study], count: int) -> list[str]:
    """Writes records and predictions of synthetic runs of studies, with as many seeds as needed; returns the ids.

    Each run's videos are classified correctly with a probability drawn for that run, so that rows differ.

    Args:
      workspace: the workspace of the runs; its store is written to.
      studies: the studies whose rows are used.
      count: number of runs.
    """
    distinct = [planned.run for planned in workspace.plan(studies, [0]).runs]
    costs = [network.count(run.settings) for run in distinct]
    written = []
    for number in range(count):
        seed, index = divmod(number, len(distinct))
        run = excerpts.seeded(distinct[index], seed)
        written.append(_write(workspace.store, run, costs[index], np.random.default_rng(number)))
    return written


def _write(store: Store, run: Run, cost: Cost, generator: np.random.Generator) -> str:
    attempt = store.attempt(run.id, 0)
    attempt.folder.mkdir(parents=True)
    path = attempt.predictions(run.protocol.name)
    table = _predictions(generator)
    table.to_parquet(path, index=False)
    hits = np.stack(table["top_class"].to_list()) == table["label"].to_numpy()[:, None]
    evaluation = Evaluation(
        protocol=run.protocol.name,
        clips=run.protocol.clips,
        crops=run.protocol.crops,
        size=run.protocol.size,
        videos=_VIDEOS,
        videos_in_split=_VIDEOS,
        top1=float(hits[:, 0].mean()),
        top5=float(hits.any(axis=1).mean()),
        loss=float(table["loss"].mean()),
        checkpoint="weights-1",
        seconds=1.0,
        predictions=store.name_of(run.id, str(path)),
        predictions_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        provenance={"commit": "synthetic"},
    )
    costs = {"params": cost.params, "multiply_adds": cost.multiply_adds, "train_steps": 1, "train_seconds": 1.0}
    curve = tuple({"split": "train", "step": step, "seconds": 1.0, "loss": 1.0, "top1": 0.5} for step in range(1, 25))
    reported = evaluation if run.evaluated else None
    record = records.of_run(run, costs, curve, reported, {"commit": "synthetic"})
    (store.folder(run.id) / RECORD).write_text(json.dumps(records.to_json(record)))
    return run.id


def _predictions(generator: np.random.Generator) -> pd.DataFrame:
    labels = np.arange(_VIDEOS, dtype=np.int32) % len(CLASSES)
    guesses = generator.random((_VIDEOS, len(CLASSES))).argsort(axis=1)[:, :_GUESSES].astype(np.int32)
    right = generator.random(_VIDEOS) < generator.uniform(0.5, 0.9)
    guesses[right, 0] = labels[right]
    return pd.DataFrame(
        {
            "media_id": [f"video-{number:05}" for number in range(_VIDEOS)],
            "label": labels,
            "top_class": list(guesses),
            "top_probability": list(np.full((_VIDEOS, _GUESSES), 0.2, np.float32)),
            "loss": generator.random(_VIDEOS).astype(np.float32),
        }
    )


def results(folder: Path) -> Store:
    """Creates an empty results folder to write to.

    Raises:
      FileExistsError: the folder exists.
    """
    folder.mkdir(parents=True)
    return Store(folder)
