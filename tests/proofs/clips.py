"""Counts how often row 3 sees each training clip, whole and killed twice in mid-training; the counts must agree.

    python -m tests.proofs.clips                 the quick profile's row 3
    python -m tests.proofs.clips --steps 48      in short, as test_interruptions does

What is counted is what the train step is handed, by step: of steps that a kill made to be done again, the later ones
are those that made the weights.
"""

import argparse
import collections
import dataclasses
import itertools
import json
import os
import signal
import sys
import tempfile
from pathlib import Path

from harness.config import embedded_spec
from harness.data import embedded
from tests.support import commands
from tests.support.commands import Runs

SPEC = embedded_spec.EmbeddedSpec()


def train(folder: Path, data: Path, log: Path, steps: int | None, die_at: int | None) -> None:
    """Trains row 3 in this process, a new attempt, notes the clips of each step, and dies at a step."""
    import tensorflow as tf

    from ablations.profiles import QUICK
    from ablations.table2 import STUDY
    from harness.config import experiment
    from harness.config.experiment import Overrides
    from harness.data import reader
    from harness.planning.workspace import facts
    from harness.store.run_store import Store
    from harness.training import executor, task

    parser, train_step = reader._parser, task.VideoTask.train_step

    def with_id(params, source):
        parsed = parser(params, source)

        def parse(record):
            features, target, label, media_id = parsed(record)
            return {**features, "id": media_id} if params.is_training else features, target, label, media_id

        return parse

    def noted(self, inputs, model, optimizer, metrics=None):
        features, labels = inputs
        tf.py_function(note, [optimizer.iterations, features["id"]], [])
        return train_step(self, ({"image": features["image"]}, labels), model, optimizer, metrics)

    def note(step, ids):
        with log.open("a") as file:
            file.write(json.dumps([int(step), [one.decode() for one in ids.numpy()]]) + "\n")

    def report(event):
        if die_at and event["event"] == "train" and event["step"] >= die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    reader._parser, task.VideoTask.train_step = with_id, noted
    described = embedded.ensure(SPEC, data)
    run = experiment.complete(STUDY.rows[2].cell(0), QUICK, facts(described), Overrides(steps=steps), replicas=1)
    often = {"trainer.checkpoint_interval": 16, "trainer.steps_per_loop": 8}
    run = dataclasses.replace(run, bookkeeping={**run.bookkeeping, **often})
    store = Store(folder)
    one = store.attempt(run.id, len(store.attempts(run.id).numbers))
    place = executor.run_context(store, run, one, embedded.folder(SPEC, data))
    record = executor.execute(run, described, place, store, one, report)
    print(json.dumps(record.provenance["resumed_at"]))


def counted(log: Path) -> tuple[collections.Counter, int]:
    """How often each clip was seen on the way to the weights, and the number of steps."""
    noted = [json.loads(line) for line in log.read_text().splitlines()]
    for (before, _), (after, _) in itertools.pairwise(noted):
        assert after == before + 1 or (after <= before and after % 8 == 0), "steps left out, or begun within a loop"
    last = dict(noted)
    return collections.Counter(one for ids in last.values() for one in ids), len(last)


def attempt(folder: Path, data: Path, steps: int | None, die_at: int | None, run: Runs = commands.run) -> list[int]:
    """One attempt in a process of its own; the steps at which the run resumed, once it is done."""
    words = [folder, data, folder / "clips.jsonl", steps or 0, die_at or 0]
    code, said = run("tests.proofs.clips", ["--child", *words])
    assert code == (-signal.SIGKILL if die_at else 0), said[-2000:]
    return [] if die_at else json.loads(said.splitlines()[-1])


def prove(steps: int | None, folder: Path, run: Runs = commands.run) -> dict[str, object]:
    """Trains whole, then killed after a quarter and after two thirds, and compares.

    Args:
      steps: of the training; None for the profile's.
      folder: where the runs go.
      run: runs a command in a process of its own.
    """
    total = steps or 256
    whole, killed = folder / "whole", folder / "killed"
    for one in (whole, killed):
        one.mkdir()
    attempt(whole, folder / "data", steps, None, run)
    for die_at in (total // 4, 2 * total // 3):
        attempt(killed, folder / "data", steps, die_at, run)
    resumed = attempt(killed, folder / "data", steps, None, run)
    (expected, steps_of_one), (found, steps_of_other) = counted(whole / "clips.jsonl"), counted(killed / "clips.jsonl")
    assert found == expected, "clips were seen another number of times"
    assert len(resumed) == 2, resumed
    assert all(resumed), resumed
    epochs = total * 16 / SPEC.train_videos
    assert set(expected.values()) <= {int(epochs), int(-(-epochs // 1))}
    return {
        "steps": [steps_of_one, steps_of_other],
        "clips": len(found),
        "times each": sorted(set(found.values())),
        "resumed at": resumed,
    }


def main() -> None:
    """The command line."""
    if sys.argv[1:2] == ["--child"]:
        folder, data, log, steps, die_at = sys.argv[2:]
        train(Path(folder), Path(data), Path(log), int(steps) or None, int(die_at) or None)
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(prove(parser.parse_args().steps, Path(folder))))


if __name__ == "__main__":
    main()
