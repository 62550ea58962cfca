"""Runs to mirror, with their files and events; and trackers that misbehave, to be run in a process of their own."""

import json
import math
import os
import signal
import time
from pathlib import Path

import pandas as pd

from harness.config.experiment import content_hash
from harness.store import records
from harness.store.records import Evaluation, RunRecord
from harness.store.run_store import Store

GROUP = "table2-quick"
SETTINGS = {
    "task.train_data.feature_shape[0]": 8,
    "task.train_data.aug_type": None,
    "task.model.backbone.resnet_3d_rs.block_specs[0]": {"temporal_kernel_sizes": [1], "use_self_gating": True},
    "task.losses.label_smoothing": 0.1,
    "trainer.train_steps": 4,
}


def record(evaluation, seed=0):
    content = {"data": "ab" * 32, "seed": seed, "clips_per_group": 16}
    return RunRecord(
        identity=content_hash({"settings": SETTINGS, **content}),
        profile="quick",
        toggles={"ls": 0.1},
        scale={"depth": 50},
        seed=seed,
        settings=SETTINGS,
        bookkeeping={},
        identity_content=content,
        data={"name": "embedded", "fingerprint": "ab" * 32},
        cut={},
        parent=None,
        cost={"params": 10, "multiply_adds": 20, "train_steps": 4, "train_seconds": 1.5},
        curve=tuple(curve(range(1, 5))),
        evaluations={evaluation.protocol: evaluation},
        provenance={"device": "1 x CPU"},
    )


def curve(steps, offset=0.0):
    for step in steps:
        metrics = {"seconds": step / 2, "loss": offset + 1 / 3 / step, "top1": step / 7, "top5": 0.99}
        yield {"split": "train", "step": step, **metrics, "learning_rate": 0.0125}
        if step % 2 == 0:
            yield {"split": "validation", "step": step, **metrics, "videos": 4.0}


def evaluation(runs, run, protocol):
    probabilities = [[0.9, 0.1], [0.6, 0.4]]
    columns = {"media_id": ["a", "b"], "label": [1, 0], "top_class": [[1, 0], [0, 1]]}
    name, sha256 = runs.write_predictions(run, protocol, pd.DataFrame({**columns, "top_probability": probabilities}))
    return Evaluation(
        protocol=protocol,
        clips=10,
        crops=3,
        size=32,
        videos=2,
        videos_in_split=2,
        top1=0.5,
        top5=1.0,
        loss=1.25,
        checkpoint="ckpt-4",
        seconds=1.0,
        predictions=name,
        predictions_sha256=sha256,
        provenance={},
    )


def write(results, seed=0, *further):
    """Writes a run's files as a study does; its record."""
    runs, run = Store(results), run_id(seed)
    written = record(evaluation(runs, run, "10x3@32"), seed)
    runs.write(written)
    for protocol in further:
        runs.write_evaluation(written, evaluation(runs, run, protocol))
    return written


def run_id(seed=0):
    nameless = Evaluation("", 0, 0, 0, 0, 0, 0.0, 0.0, 0.0, "", 0.0, "", "", {})
    return record(nameless, seed).id


def record_in(results, seed=0):
    return Store(results).read(run_id(seed))


def begins(run, resumed_at=0):
    about = {"group": GROUP, "job_type": "row 3", "name": "row 3: ls sd", "tags": ["ls", "sd"]}
    return {"event": "run", "run": run, **about, "config": SETTINGS, "cost": {"params": 10}, "resumed_at": resumed_at}


def points(run, found):
    return [{"event": point["split"], "run": run, "done": point["step"], "total": 4, **point} for point in found]


def recorded(results, found):
    folder = str(Store(results).folder(found.id))
    return {"event": "recorded", "run": found.id, "folder": folder, "record": records.to_json(found)}


def whole(results, found):
    """The events of a run from its beginning to its record."""
    return [begins(found.id), *points(found.id, found.curve), recorded(results, found)]


def study(results):
    table = {"columns": ["row", "top-1"], "rows": [["1: base", 61.5], ["3: ls", None]]}
    path = results / "table2-quick.md"
    path.write_text("| row |\n")
    return {"event": "study", "group": GROUP, "title": "Table 2", **table, "files": [str(path)]}


def contents(folder):
    """Every file below a folder: its path in it -> content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Diary:
    """Writes each event to a file; some make it misbehave."""

    def __init__(self, path):
        self.path = path

    def write(self, event):
        with Path(self.path).open("a") as file:
            file.write(json.dumps({"pid": os.getpid(), **event}) + "\n")
        if self.path.name in event.get("misbehave", {}):
            _MISDEEDS[event["misbehave"][self.path.name]]()

    def close(self):
        self.write({"event": "closed"})
        return []


def _raise():
    raise OSError("no space left\n on the device")


_MISDEEDS = {
    "raise": _raise,
    "sleep": lambda: time.sleep(1000),
    "die": lambda: os.kill(os.getpid(), signal.SIGKILL),
}


def told(path):
    """The events a diary holds, without the process that wrote them."""
    return [{key: value for key, value in line.items() if key != "pid"} for line in lines(path)]


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def equal(one, other):
    """Whether two points are the same, NaN included."""
    return one.keys() == other.keys() and all(
        one[key] == other[key] or (math.isnan(one[key]) and math.isnan(other[key])) for key in one
    )
