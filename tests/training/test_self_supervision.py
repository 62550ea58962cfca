"""Table 6's chain for real, on a handful of clips: CVRL leaves a backbone, which linear evaluation leaves as it is."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from ablations import table6
from harness.store.run_store import Store
from tests.support.tiny import every_step, seldom, variables

CELL = table6.STUDY.rows[2].cell(0)


def run_of(data, cell, parent=None):
    """A run of three steps, each of which leaves a checkpoint."""
    return every_step(data.run(*cell.applied, stages=cell.stages, steps=3, parent=parent, batch=4))


@pytest.fixture
def pretrained(data, once, tmp_path):
    """A store with a run of CVRL, one that holds what a kill in its third step would leave, the run and its events."""
    run, events = run_of(data, CELL.before), []

    def make(folder):
        store = Store(folder / "whole")

        def report(event):
            events.append(event)
            if event["event"] == "train" and event["step"] == 3:
                shutil.copytree(store.root, folder / "killed")

        data.execute(store, run, report)
        (folder / "events.json").write_text(json.dumps(events))

    kept = once("self-supervised", make)
    copied = Path(shutil.copytree(kept, tmp_path / "stores"))
    return Store(copied / "whole"), Store(copied / "killed"), run, json.loads((kept / "events.json").read_text())


def test_cvrl_leaves_a_backbone_that_linear_evaluation_leaves_as_it_is(data, pretrained):
    store, _, first, events = pretrained
    record = store.read(first.id)
    curve = [point for point in record.curve if point["split"] == "train"]
    assert [point["step"] for point in curve] == [1, 2, 3]
    assert all(np.isfinite(point["loss"]) and 0 <= point["contrast_acc"] <= 1 for point in curve)
    assert record.evaluations == {}
    assert not [event for event in events if event["event"] in ("validation", "evaluate")]

    linear = data.execute(store, seldom(run_of(data, CELL, parent=first)))
    before, found = (variables(store.weights(made)) for made in (record, linear))
    assert linear.parent == record.identity
    assert len(linear.evaluations) == 1
    backbone = [name for name in found if name.startswith("backbone/")]
    assert len(backbone) > 60
    assert all(np.array_equal(before[name], found[name]) for name in backbone)
    (head,) = [value for value in found.values() if value.ndim == 2]
    assert head.shape[1] == 8


def test_cvrl_that_was_killed_comes_to_what_an_undisturbed_one_does(data, pretrained):
    """The step that is done again takes LARS's momentum, clips, distortions and left-out blocks as they were."""
    store, killed, run, _ = pretrained
    assert not killed.has(run.id)
    whole, record = store.read(run.id), data.execute(killed, run)
    assert record.provenance["resumed_at"] == [2]
    assert [point["loss"] for point in record.curve] == [point["loss"] for point in whole.curve]
    found, expected = variables(killed.weights(record)), variables(store.weights(whole))
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert np.array_equal(value, expected[name]), name
